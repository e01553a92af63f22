"""Grafana Alloy and Agent: `prometheus.remote_write` is Prometheus' sender under another User-Agent."""

from __future__ import annotations

import pytest
import snappy
import zstandard

from tests.compat.raw import TENANT, Headers, send, setup_of, stored
from tests.gateway.serving import Gateway

# A snappy block of literals: up{job="a"} 1 @ 1700000000000.
REQUEST = bytes.fromhex(
    "2e"  # 46 bytes when decompressed
    "b4"  # one literal of 46 bytes
    "0a2c"  # timeseries
    "0a0e" "0a085f5f6e616d655f5f" "12027570"  # __name__="up"
    "0a08" "0a036a6f62" "120161"  # job="a"
    "1210" "09000000000000f03f" "1080d095ffbc31"  # the sample
)  # fmt: skip
REQUEST_2 = bytes.fromhex(
    "32c4"
    "2200" "22085f5f6e616d655f5f" "22027570" "22036a6f62" "220161"  # symbols
    "2a18" "0a0401020304" "1210" "09000000000000f03f" "1080d095ffbc31"
)  # fmt: skip
METADATA = bytes.fromhex("12441a1008021202757022085768657468657221")  # no series at all
AGENTS = ("Alloy/v1.10.1 (linux; docker)", "GrafanaAgent/v0.44.2 (flow; linux; docker)", "Prometheus/3.5.0")
SERIES = (("__name__", "up"), ("job", "a"))


def headers(agent: str, *more: tuple[str, str], version: int = 1) -> Headers:
    content = "application/x-protobuf" + (";proto=io.prometheus.write.v2.Request" if version == 2 else "")
    return (
        ("User-Agent", agent),
        ("Content-Encoding", "snappy"),
        ("Content-Type", content),
        *more,
        ("X-Prometheus-Remote-Write-Version", "2.0.0" if version == 2 else "0.1.0"),
        ("X-Scope-Orgid", TENANT),  # Go's spelling of X-Scope-OrgID
        ("Accept-Encoding", "gzip"),
    )


@pytest.mark.parametrize("agent", AGENTS)
def test_samples_are_stored(gateway: Gateway, agent: str) -> None:
    answer = send(gateway, "POST /api/v1/push", headers(agent), REQUEST)
    assert (answer.status, answer.body) == (200, b"")
    assert "x-prometheus-remote-write-samples-written" not in answer.headers
    assert stored(gateway) == [(SERIES, 1_700_000_000_000, 1.0)]


def test_a_retry_is_the_same_request_once_more(gateway: Gateway) -> None:
    for more in ((), (("Retry-Attempt", "1"),), (("Retry-Attempt", "2"),)):
        assert send(gateway, "POST /api/v1/push", headers(AGENTS[0], *more), REQUEST).status == 200
    assert len(set(stored(gateway))) == 1


def test_metadata_comes_alone(gateway: Gateway) -> None:
    assert send(gateway, "POST /api/v1/push", headers(AGENTS[0]), METADATA).status == 200
    assert setup_of(gateway).only.metadata == ["up"]


def test_remote_write_2_is_told_what_was_written(gateway: Gateway) -> None:
    answer = send(gateway, "POST /api/v1/push", headers(AGENTS[0], version=2), REQUEST_2)
    assert answer.status == 200, answer.text
    written = {name: answer.headers[f"x-prometheus-remote-write-{name}-written"] for name in ("samples", "exemplars")}
    assert written == {"samples": "1", "exemplars": "0"}
    assert answer.headers["x-prometheus-remote-write-histograms-written"] == "0"
    assert stored(gateway) == [(SERIES, 1_700_000_000_000, 1.0)]


def test_a_body_that_cannot_be_read_is_dropped_not_retried(gateway: Gateway) -> None:
    answer = send(gateway, "POST /api/v1/push", headers(AGENTS[0]), b"\xff\xff\xff")
    assert (answer.status, answer.text) == (400, "snappy: corrupt input\n")
    assert "retry-after" not in answer.headers
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"


def test_vmagent_starts_with_zstd_and_may_go_on_with_it(gateway: Gateway) -> None:
    sent = (
        ("User-Agent", "vmagent"),
        ("Content-Type", "application/x-protobuf"),
        ("Content-Encoding", "zstd"),
        ("X-VictoriaMetrics-Remote-Write-Version", "1"),
        ("X-Scope-OrgID", TENANT),
    )
    body = zstandard.compress(snappy.uncompress(REQUEST))
    assert send(gateway, "POST /api/v1/push", sent, body).status == 200
    assert stored(gateway) == [(SERIES, 1_700_000_000_000, 1.0)]
