"""OTLP and Influx line protocol over HTTP: encodings, statuses, and what a sender is told."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator

import lz4.frame
import pytest
import zstandard
from google.protobuf import json_format
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)

from mimir_ray.config.units import Bytes
from mimir_ray.errors import ClientError, Unavailable
from mimir_ray.roles.distributor import errors
from mimir_ray.roles.distributor.distributor import PushOutcome
from tests.gateway.serving import Answer, Gateway, serving, settings_with

PATH = "/otlp/v1/metrics"
PROTOBUF, JSON = "application/x-protobuf", "application/json"


def message(temporality: int = 2) -> ExportMetricsServiceRequest:
    request = ExportMetricsServiceRequest()
    metric = request.resource_metrics.add().scope_metrics.add().metrics.add(name="jobs.done")
    metric.sum.aggregation_temporality = temporality
    metric.sum.data_points.add(time_unix_nano=1_700_000_000_000_000_000, as_double=4)
    return request


def push(gateway: Gateway, body: bytes | None = None, **headers: str) -> Answer:
    body = message().SerializeToString() if body is None else body
    return gateway.ask(PATH, method="POST", body=body, **{"content_type": PROTOBUF, **headers})


@pytest.mark.parametrize("encoding", ["", "gzip", "lz4", "zstd"])
@pytest.mark.parametrize("kind", [PROTOBUF, JSON])
def test_each_encoding_is_the_same_request(gateway: Gateway, encoding: str, kind: str) -> None:
    plain = message().SerializeToString() if kind == PROTOBUF else json_format.MessageToJson(message()).encode()
    compress = {"": bytes, "gzip": gzip.compress, "lz4": lz4.frame.compress, "zstd": zstandard.compress}[encoding]
    headers = {"content_encoding": encoding} if encoding else {}
    answer = push(gateway, compress(plain), content_type=kind, **headers)
    assert (answer.status, answer.headers["content-type"]) == (200, kind)
    assert answer.body == (b"" if kind == PROTOBUF else b"{}")
    assert answer.headers["x-content-type-options"] == "nosniff"
    version, scan = gateway.distributor.scans[0]
    assert (version, scan.samples, scan.values.tolist()) == ("otlp", 1, [4.0])


@pytest.mark.parametrize(
    ("headers", "text"),
    [
        ({"content_type": "text/plain"}, "unsupported content type: text/plain"),
        ({"content_type": ""}, "unsupported content type: "),
        ({"content_encoding": "br"}, "unsupported compression: br"),
        ({"content_encoding": "snappy"}, "unsupported compression: snappy"),
    ],
)
def test_other_media_are_refused_as_such(gateway: Gateway, headers: dict[str, str], text: str) -> None:
    answer = push(gateway, **headers)
    assert answer.status == 415
    assert text.encode() in answer.body
    assert not gateway.distributor.pushed


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (ClientError("bad"), 400, 3),
        (errors.RequestRateLimited(1, 1), 429, 8),
        (Unavailable("nobody"), 503, 14),
        (errors.TooManyInflightRequests(), 503, 14),
    ],
)
def test_errors_are_statuses_that_senders_understand(
    gateway: Gateway, error: Exception, status: int, code: int
) -> None:
    gateway.distributor.outcome = PushOutcome(error=error)  # type: ignore[arg-type]
    body = json_format.MessageToJson(message()).encode()
    answer = push(gateway, body, content_type=JSON)
    assert (answer.status, json.loads(answer.body)["code"]) == (status, code)
    assert json.loads(answer.body)["message"].startswith(str(error)[:10])
    assert ("retry-after" in answer.headers) == (status in (429, 503))
    assert push(gateway).body.startswith(b"\x08" + bytes([code]) + b"\x12")


def test_a_request_that_is_stored_in_part_is_a_partial_success(gateway: Gateway) -> None:
    gateway.distributor.outcome = PushOutcome(samples=1, error=ClientError("one is bad"))
    answer = push(gateway)
    assert answer.status == 200
    found = ExportMetricsServiceResponse.FromString(answer.body).partial_success
    assert found.error_message == "one is bad"


def test_metrics_that_cannot_be_translated_are_named(gateway: Gateway) -> None:
    answer = push(gateway, message(temporality=1).SerializeToString())
    assert answer.status == 400
    assert b'otlp parse error: invalid temporality and type combination for metric "jobs.done"' in answer.body
    assert gateway.distributor.discarded == [("anonymous", "otlp_parse_error", 1)]


def test_bytes_that_are_no_request_are_refused(gateway: Gateway) -> None:
    assert push(gateway, b"\xff\xff").status == 400
    assert push(gateway, b"{", content_type=JSON).status == 400


def test_a_tenant_is_needed(tenants: Gateway) -> None:
    assert push(tenants).status == 401
    assert push(tenants, x_scope_orgid="a").status == 200


@pytest.fixture
def tenants() -> Iterator[Gateway]:
    with serving(settings_with(multitenancy=True)) as one:
        yield one


@pytest.mark.parametrize("encoding", ["", "gzip"])
def test_a_request_that_is_too_large_is_413(encoding: str) -> None:
    sizes = {"max_otlp_request_size": Bytes(1000), "max_recv_msg_size": Bytes(100)}
    with serving(settings_with(distributor=sizes)) as one:
        body = bytes(5000)
        body = gzip.compress(body) if encoding else body
        answer = push(one, body, **({"content_encoding": encoding} if encoding else {}))
        assert answer.status == 413
        assert b"err-mimir-distributor-max-otlp-request-size" in answer.body


INFLUX = "/api/v1/push/influx/write"


@pytest.fixture
def influx() -> Iterator[Gateway]:
    with serving(settings_with(distributor={"influx_endpoint_enabled": True})) as one:
        yield one


def test_influx_is_not_there_unless_enabled(gateway: Gateway) -> None:
    assert gateway.ask(INFLUX, method="POST", body=b"m v=1").status == 404


def test_influx_lines_become_samples(influx: Gateway) -> None:
    answer = influx.ask(INFLUX, {"precision": "s"}, method="POST", body=b"m,host=a v=1,w=2i 1700000000")
    assert (answer.status, answer.body) == (204, b"")
    _, scan = influx.distributor.scans[0]
    assert (scan.samples, scan.values.tolist()) == (2, [1.0, 2.0])
    zipped = influx.ask(INFLUX, method="POST", body=gzip.compress(b"m v=1"), content_encoding="gzip")
    assert zipped.status == 204


def test_influx_mistakes_are_named(influx: Gateway) -> None:
    answer = influx.ask(INFLUX, {"precision": "y"}, method="POST", body=b"m v=1")
    assert (answer.status, answer.text) == (400, "precision supplied is not valid: y\n")
    assert influx.ask(INFLUX, method="POST", body=b"m").status == 400
    influx.distributor.outcome = PushOutcome(error=errors.RequestRateLimited(1, 1))
    assert influx.ask(INFLUX, method="POST", body=b"m v=1").status == 429
