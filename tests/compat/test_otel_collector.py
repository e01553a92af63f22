"""The OpenTelemetry collector: the exporters otlphttp and prometheusremotewrite."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
import zstandard
from google.protobuf import json_format
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from tests.compat.raw import TENANT, Headers, send, setup_of, stored
from tests.compat.test_alloy import REQUEST, SERIES
from tests.gateway.serving import NOW_MS, Gateway
from tests.roles.distributor.fakes import Setup

AGENT = "opentelemetry-collector-contrib/0.130.0 (linux/amd64)"
PROTOBUF, JSON = "application/x-protobuf", "application/json"


def message(time_ms: int = NOW_MS, temporality: int = 2) -> ExportMetricsServiceRequest:
    request = ExportMetricsServiceRequest()
    about = request.resource_metrics.add()
    for key, value in (("service.name", "shop"), ("service.instance.id", "one")):
        about.resource.attributes.add(key=key).value.string_value = value
    metric: Any = about.scope_metrics.add().metrics.add(name="http.server.requests", unit="{request}")
    metric.sum.aggregation_temporality, metric.sum.is_monotonic = temporality, True
    point = metric.sum.data_points.add(time_unix_nano=time_ms * 1_000_000, as_int=4)
    point.attributes.add(key="http.route").value.string_value = "/a"
    return request


def headers(kind: str = PROTOBUF, encoding: str = "gzip") -> Headers:
    return (
        ("User-Agent", AGENT),
        *((("Content-Encoding", encoding),) if encoding else ()),
        ("Content-Type", kind),
        ("X-Scope-Orgid", TENANT),
        ("Accept-Encoding", "gzip"),
    )


def push(gateway: Gateway, request: ExportMetricsServiceRequest, kind: str = PROTOBUF, encoding: str = "gzip") -> Any:
    plain = (
        request.SerializeToString() if kind == PROTOBUF else json_format.MessageToJson(request, indent=None).encode()
    )
    body = {"gzip": gzip.compress, "zstd": zstandard.compress, "": bytes}[encoding](plain)
    return send(gateway, "POST /otlp/v1/metrics", headers(kind, encoding), body)


@pytest.mark.parametrize("encoding", ["gzip", "zstd", ""])
@pytest.mark.parametrize("kind", [PROTOBUF, JSON])
def test_otlphttp_stores_metrics_under_the_names_of_prometheus(gateway: Gateway, kind: str, encoding: str) -> None:
    answer = push(gateway, message(), kind, encoding)
    assert (answer.status, answer.headers["content-type"]) == (200, kind)
    assert answer.body == (b"" if kind == PROTOBUF else b"{}"), (
        "an ExportMetricsServiceResponse without partial_success"
    )
    found = {dict(labels)["__name__"]: (dict(labels), value) for labels, _, value in stored(gateway)}
    labels, value = found["http_server_requests"]
    assert (labels["job"], labels["instance"], labels["http_route"], value) == ("shop", "one", "/a", 4.0)


def test_otlphttp_learns_what_was_refused_and_does_not_send_it_again(gateway: Gateway) -> None:
    answer = push(gateway, message(temporality=1), JSON)
    assert answer.status == 400
    body = json.loads(answer.body)
    assert body["code"] == 3 and "http.server.requests" in body["message"]
    assert "retry-after" not in answer.headers


def test_otlphttp_retries_what_may_succeed_later(gateway: Gateway) -> None:
    setup_of(gateway).only.error = RuntimeError("gone")
    answer = push(gateway, message())
    assert answer.status == 503, "a 500 would lose the data"
    assert int(answer.headers["retry-after"]) > 0
    assert answer.headers["content-type"] == PROTOBUF and answer.body[:2] == b"\x08\x0e"


def test_otlphttp_is_told_415_for_what_is_not_read(gateway: Gateway) -> None:
    assert send(gateway, "POST /otlp/v1/metrics", headers("text/plain", ""), b"x").status == 415
    assert send(gateway, "POST /otlp/v1/metrics", headers(PROTOBUF, "snappy"), b"x").status == 415


def test_otlphttp_asks_with_a_tenant_or_is_sent_away(gateway: Gateway) -> None:
    sent = [pair for pair in headers() if pair[0] != "X-Scope-Orgid"]
    answer = send(gateway, "POST /otlp/v1/metrics", sent, gzip.compress(message().SerializeToString()))
    assert answer.status == 401 and b"no org id" in answer.body


def test_prometheusremotewrite_is_a_sender_like_others(gateway: Gateway) -> None:
    sent = (
        ("User-Agent", AGENT),
        ("Content-Encoding", "snappy"),
        ("Content-Type", "application/x-protobuf"),
        ("X-Prometheus-Remote-Write-Version", "0.1.0"),
        ("X-Scope-Orgid", TENANT),
        ("Accept-Encoding", "gzip"),
    )
    assert send(gateway, "POST /api/v1/push", sent, REQUEST).status == 200
    assert stored(gateway) == [(SERIES, 1_700_000_000_000, 1.0)]


def test_prometheusremotewrite_is_told_when_it_was_too_fast(gateway: Gateway) -> None:
    setup = Setup(request_rate=1.0, request_burst_size=1)
    gateway.services.distributor = setup.distributor
    sent = (("Content-Encoding", "snappy"), ("Content-Type", "application/x-protobuf"), ("X-Scope-OrgID", TENANT))
    answers = [send(gateway, "POST /api/v1/push", sent, REQUEST) for _ in range(2)]
    assert [one.status for one in answers] == [200, 429]
    assert int(answers[1].headers["retry-after"]) > 0
