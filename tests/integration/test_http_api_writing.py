"""`POST /api/v1/push`: what it answers to whom, over a real socket and through all processes."""

from __future__ import annotations

import http.client
import re
import struct
import time
from collections.abc import Callable
from typing import Any

import pytest
import snappy

from mimir_ray.encoding.varint import encode_uvarint
from mimir_ray.model.labels import Labels, labels_of
from mimir_ray.wire.remote_write import encode_write_request
from tests.integration.deployment import PUSH_HEADERS, Answer, Deployment, request

BODY_BYTES_MAX = 1 << 20
RUNTIME = """
overrides:
  few: {max_global_series_per_user: 2}
  slow: {ingestion_rate: 1, ingestion_burst_size: 10}
  impatient: {request_rate: 0.001, request_burst_size: 1}
  late: {out_of_order_time_window: 1h}
"""

Sample = tuple[int, float]


@pytest.fixture(scope="module")
def deployment(deploy: Callable[..., Deployment], tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    runtime = tmp_path_factory.mktemp("runtime") / "runtime.yaml"
    runtime.write_text(RUNTIME)
    one = deploy(
        "-deploy.ingesters=1",
        f"-runtime-config.file={runtime}",
        f"-distributor.max-recv-msg-size={BODY_BYTES_MAX}",
    )
    one.start()
    return one


@pytest.fixture(scope="module")
def now_ms() -> int:
    return int(time.time() * 1000)


def named(name: str, **others: str) -> Labels:
    return labels_of({"__name__": name, **others})


def section(*pairs: tuple[bytes, bytes]) -> bytes:
    """A label section as bytes that no model of ours would make."""

    def field(number: int, content: bytes) -> bytes:
        return bytes((number << 3 | 2,)) + encode_uvarint(len(content)) + content

    return b"".join(field(1, field(1, name) + field(2, value)) for name, value in pairs)


def push_sections(deployment: Deployment, tenant: str, series: list[tuple[Any, list[Sample]]]) -> Answer:
    return deployment.push_raw(snappy.compress(encode_write_request(series)), {"X-Scope-OrgID": tenant})


def stored(deployment: Deployment, tenant: str, selector: str, now_ms: int) -> list[list[str]]:
    """The values of every series that the selector finds in the two hours before."""
    found = deployment.result("query", tenant, query=f"{selector}[2h]", time=now_ms / 1000 + 60)
    return [[value for _, value in one["values"]] for one in found["result"]]


def test_a_good_request_is_answered_by_200_and_nothing_else(deployment: Deployment, now_ms: int) -> None:
    answer = deployment.push([(named("good"), [(now_ms, 1.0)])])
    assert (answer.status, answer.body) == (200, b"")
    assert stored(deployment, "tests", "good", now_ms) == [["1"]]


def test_without_a_tenant_it_is_401(deployment: Deployment, now_ms: int) -> None:
    body = snappy.compress(encode_write_request([(named("good"), [(now_ms, 1.0)])]))
    answer = deployment.push_raw(body, {})
    assert (answer.status, answer.text) == (401, "no org id\n")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"


def test_two_tenants_at_once_are_422(deployment: Deployment, now_ms: int) -> None:
    answer = deployment.push([(named("good"), [(now_ms, 1.0)])], tenant="a|b")
    assert answer.status == 422
    assert "too many tenant IDs present. max: 1 actual: 2" in answer.text


@pytest.mark.parametrize("tenant", ["../up", "a/b", "with space", "x" * 151, "."])
def test_a_tenant_that_could_be_a_path_is_refused(tenant: str, deployment: Deployment, now_ms: int) -> None:
    answer = deployment.push([(named("good"), [(now_ms, 1.0)])], tenant=tenant)
    assert 400 <= answer.status < 500
    assert not (deployment.data / "tsdb").joinpath("up").exists()


def test_other_methods_are_405(deployment: Deployment) -> None:
    for method in ("GET", "PUT", "DELETE"):
        assert request(deployment.port, method, "/api/v1/push", headers={"X-Scope-OrgID": "t"}).status == 405


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"no snappy at all", id="not-snappy"),
        pytest.param(snappy.compress(b"\x0a\xff\x01cut short"), id="truncated-protobuf"),
        pytest.param(snappy.compress(b"\xff" * 40), id="no-protobuf"),
        pytest.param(b"\xff\xff\xff\xff\x0f", id="snappy-of-4-GiB"),
        pytest.param(b"\x28\xb5\x2f\xfd\x04\x00", id="zstd"),
        pytest.param(snappy.compress(b"x" * 500)[:-20], id="truncated-snappy"),
    ],
)
def test_what_cannot_be_read_is_400(body: bytes, deployment: Deployment) -> None:
    answer = deployment.push_raw(body, {"X-Scope-OrgID": "tests"})
    if body == b"":
        assert answer.status in (200, 400)
        return
    assert answer.status == 400, answer.text
    assert answer.text.strip()
    assert "retry-after" not in answer.headers


@pytest.mark.parametrize("where", ["compressed", "uncompressed"])
def test_too_large_a_body_is_400(where: str, deployment: Deployment) -> None:
    body = snappy.compress(b"\0" * (2 * BODY_BYTES_MAX)) if where == "uncompressed" else b"\0" * (2 * BODY_BYTES_MAX)
    answer = deployment.push_raw(body, {"X-Scope-OrgID": "tests"})
    assert answer.status == 400, answer.text
    assert "err-mimir-distributor-max-write-message-size" in answer.text


def test_the_content_type_is_not_insisted_on(deployment: Deployment, now_ms: int) -> None:
    body = snappy.compress(encode_write_request([(named("typeless"), [(now_ms, 1.0)])]))
    assert request(deployment.port, "POST", "/api/v1/push", body, {"X-Scope-OrgID": "tests"}).status == 200
    first = {"Content-Type": "application/x-protobuf;proto=prometheus.WriteRequest"}
    assert deployment.push_raw(body, {"X-Scope-OrgID": "tests", **first}).status == 200
    unknown = {"Content-Type": "application/x-protobuf;proto=io.example.Other"}
    assert deployment.push_raw(body, {"X-Scope-OrgID": "tests", **unknown}).status == 400


def test_a_connection_goes_on_after_a_refused_request(deployment: Deployment, now_ms: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", deployment.port, timeout=10)
    good = snappy.compress(encode_write_request([(named("kept_alive"), [(now_ms, 1.0)])]))
    statuses = []
    for body in (good, b"bad", good):
        connection.request("POST", "/api/v1/push", body, {**PUSH_HEADERS, "X-Scope-OrgID": "tests"})
        answer = connection.getresponse()
        answer.read()
        statuses.append(answer.status)
    connection.close()
    assert statuses == [200, 400, 200]


BAD_SERIES = {
    "missing-metric-name": section((b"job", b"a")),
    "metric-name-invalid": section((b"__name__", b"9-no")),
    "label-invalid": section((b"__name__", b"bad"), (b"1x", b"a")),
    "label-value-invalid": section((b"__name__", b"bad"), (b"job", b"\xff\xfe")),
    "max-label-names-per-series": section((b"__name__", b"bad"), *((b"l%02d" % n, b"x") for n in range(30))),
    "label-name-too-long": section((b"__name__", b"bad"), (b"n" * 1025, b"x")),
    "label-value-too-long": section((b"__name__", b"bad"), (b"job", b"v" * 2049)),
    "duplicate-label-names": section((b"__name__", b"bad"), (b"job", b"a"), (b"job", b"b")),
}


@pytest.mark.parametrize("error", BAD_SERIES)
def test_a_bad_series_is_named_and_the_others_are_stored(error: str, deployment: Deployment, now_ms: int) -> None:
    beside = named("beside", error=error)
    answer = push_sections(deployment, "mixed", [(BAD_SERIES[error], [(now_ms, 1.0)]), (beside, [(now_ms, 2.0)])])
    assert answer.status == 400
    assert f"err-mimir-{error}" in answer.text
    assert stored(deployment, "mixed", f'beside{{error="{error}"}}', now_ms) == [["2"]]
    assert stored(deployment, "mixed", '{__name__=~"bad|9-no"}', now_ms) == []


def test_a_sample_of_the_future_is_refused(deployment: Deployment, now_ms: int) -> None:
    series = named("future")
    answer = deployment.push([(series, [(now_ms, 1.0), (now_ms + 3_600_000, 2.0)])])
    assert answer.status == 400
    assert "err-mimir-too-far-in-future" in answer.text
    assert stored(deployment, "tests", "future", now_ms) == [["1"]]


@pytest.mark.parametrize(
    "back_ms, value, error",
    [
        (0, 1.0, ""),
        (0, 2.0, "sample-duplicate-timestamp"),
        (60_000, 1.0, "sample-out-of-order"),
        (3 * 3_600_000, 1.0, "sample-timestamp-too-old"),
    ],
)
def test_a_late_sample_is_refused(back_ms: int, value: float, error: str, deployment: Deployment, now_ms: int) -> None:
    series = named("late", case=f"{error}-{value}")
    assert deployment.push([(series, [(now_ms, 1.0)])]).status == 200
    answer = deployment.push([(series, [(now_ms - back_ms, value)])])
    assert answer.status == (400 if error else 200), answer.text
    assert f"err-mimir-{error}" in answer.text if error else answer.body == b""
    assert stored(deployment, "tests", f'late{{case="{error}-{value}"}}', now_ms) == [["1"]]


def test_a_late_sample_within_the_tenants_window_is_stored(deployment: Deployment, now_ms: int) -> None:
    series = named("late")
    assert deployment.push([(series, [(now_ms, 3.0)])], tenant="late").status == 200
    assert deployment.push([(series, [(now_ms - 120_000, 1.0), (now_ms - 60_000, 2.0)])], tenant="late").status == 200
    assert stored(deployment, "late", "late", now_ms) == [["1", "2", "3"]]


def test_a_refused_sample_names_its_time_and_series(deployment: Deployment, now_ms: int) -> None:
    series = named("named_in_error", job="x")
    deployment.push([(series, [(now_ms, 1.0)])])
    answer = deployment.push([(series, [(now_ms - 1000, 1.0)])])
    assert "failed pushing to ingester" in answer.text
    assert "user=tests" in answer.text
    assert re.search(r"The affected sample has timestamp 20\d\d-\d\d-\d\dT", answer.text)
    assert "named_in_error" in answer.text


def test_one_series_too_many_is_refused_and_known_ones_go_on(deployment: Deployment, now_ms: int) -> None:
    series = [named("limited", number=str(number)) for number in range(3)]
    assert deployment.push([(one, [(now_ms, 1.0)]) for one in series[:2]], tenant="few").status == 200
    answer = deployment.push([(one, [(now_ms + 1, 2.0)]) for one in series], tenant="few")
    assert answer.status == 400
    assert "err-mimir-max-series-per-user" in answer.text
    assert "-ingester.max-global-series-per-user" in answer.text
    assert stored(deployment, "few", "limited", now_ms) == [["1", "2"], ["1", "2"]]


def test_too_many_samples_at_once_are_429_and_none_is_stored(deployment: Deployment, now_ms: int) -> None:
    batch = [(named("fast", number=str(number)), [(now_ms, 1.0)]) for number in range(11)]
    answer = deployment.push(batch, tenant="slow")
    assert answer.status == 429
    assert "err-mimir-tenant-max-ingestion-rate" in answer.text
    assert 6 <= int(answer.headers["retry-after"]) <= 96
    assert stored(deployment, "slow", "fast", now_ms) == []
    assert deployment.push(batch[:5], tenant="slow").status == 200


def test_too_many_requests_are_429(deployment: Deployment, now_ms: int) -> None:
    statuses = [deployment.push([(named("often"), [(now_ms, 1.0)])], tenant="impatient") for _ in range(2)]
    assert [answer.status for answer in statuses] == [200, 429]
    assert "err-mimir-tenant-max-request-rate" in statuses[1].text


def test_tenants_do_not_see_each_other(deployment: Deployment, now_ms: int) -> None:
    for tenant, value in (("one", 1.0), ("other", 2.0)):
        assert deployment.push([(named("private"), [(now_ms, value)])], tenant=tenant).status == 200
    assert stored(deployment, "one", "private", now_ms) == [["1"]]
    assert stored(deployment, "other", "private", now_ms) == [["2"]]
    assert stored(deployment, "third", "private", now_ms) == []


def test_the_newest_sample_sent_again_changes_nothing(deployment: Deployment, now_ms: int) -> None:
    batch = [(named("again"), [(now_ms, 1.5)])]
    assert [deployment.push(batch).status for _ in range(3)] == [200, 200, 200]
    assert stored(deployment, "tests", "again", now_ms) == [["1.5"]]


def test_older_samples_sent_again_change_nothing(deployment: Deployment, now_ms: int) -> None:
    batch = [(named("older_again"), [(now_ms - 1, 1.0), (now_ms, 2.0)])]
    assert deployment.push(batch).status == 200
    assert deployment.push(batch).status == 400, "as in Mimir: the first of them is out of order"
    assert stored(deployment, "tests", "older_again", now_ms) == [["1", "2"]]


def test_staleness_markers_and_strange_floats_keep_their_bits(deployment: Deployment, now_ms: int) -> None:
    stale = struct.unpack("<d", struct.pack("<Q", 0x7FF0000000000002))[0]
    values = [float("inf"), float("-inf"), -0.0, 5e-324, 1.7976931348623157e308, float("nan"), stale]
    batch = [(named("strange"), [(now_ms + place, value) for place, value in enumerate(values)])]
    assert deployment.push(batch).status == 200
    found = stored(deployment, "tests", "strange", now_ms)
    assert found == [["+Inf", "-Inf", "-0", "5e-324", "1.7976931348623157e+308", "NaN"]], "staleness is not shown"
    assert deployment.result("query", query="strange", time=(now_ms + 10) / 1000)["result"] == []


def test_a_label_without_value_is_no_label(deployment: Deployment, now_ms: int) -> None:
    raw = section((b"__name__", b"bare"), (b"empty", b""), (b"job", b"a"))
    assert push_sections(deployment, "tests", [(raw, [(now_ms, 1.0)])]).status == 200
    found = deployment.result("query", query="bare", time=now_ms / 1000)["result"]
    assert [one["metric"] for one in found] == [{"__name__": "bare", "job": "a"}]


def test_what_was_refused_is_counted_under_mimirs_names(deployment: Deployment, now_ms: int) -> None:
    push_sections(deployment, "counted", [(BAD_SERIES["metric-name-invalid"], [(now_ms, 1.0)])])
    metrics = deployment.get("/metrics").text
    wanted = [line for line in metrics.splitlines() if line.startswith("cortex_discarded_samples_total")]
    assert any('user="counted"' in line and 'reason="metric_name_invalid"' in line for line in wanted)
