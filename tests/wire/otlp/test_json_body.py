"""OTLP's JSON form is the same message as protobuf's own JSON mapping makes of it, ids aside."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)

from mimir_ray.wire.otlp.answers import status, success
from mimir_ray.wire.otlp.json_body import InvalidJson, protobuf_of_json
from tests.wire.otlp.test_translate import requests


def read(body: bytes) -> ExportMetricsServiceRequest:
    return ExportMetricsServiceRequest.FromString(protobuf_of_json(body))


@given(requests(), st.booleans())
def test_any_request_survives_the_way_through_json(request: ExportMetricsServiceRequest, snake: bool) -> None:
    text = json_format.MessageToJson(request, preserving_proto_field_name=snake)
    assert read(text.encode()).SerializeToString(deterministic=True) == request.SerializeToString(deterministic=True)


def point_of(**fields: Any) -> bytes:
    metric = {"name": "m", "sum": {"aggregationTemporality": 2, "dataPoints": [fields]}}
    return json.dumps({"resourceMetrics": [{"scopeMetrics": [{"metrics": [metric]}]}]}).encode()


def test_numbers_may_be_strings_and_ids_are_hexadecimal() -> None:
    body = point_of(
        timeUnixNano="1700000000000000000",
        asInt="-5",
        exemplars=[{"asDouble": "NaN", "traceId": "0AF7651916CD43DD8448EB211C80319C", "spanId": "b7ad6b7169203331"}],
        fieldOfTheFuture=1,
    )
    point = read(body).resource_metrics[0].scope_metrics[0].metrics[0].sum.data_points[0]
    assert (point.time_unix_nano, point.as_int) == (1_700_000_000_000_000_000, -5)
    assert point.exemplars[0].trace_id.hex() == "0af7651916cd43dd8448eb211c80319c"
    assert point.exemplars[0].span_id.hex() == "b7ad6b7169203331"


@pytest.mark.parametrize(
    ("body", "where"),
    [
        (b"{", "invalid JSON"),
        (b"[]", "body: expected an object"),
        (b'{"resourceMetrics": 7}', "resourceMetrics: expected an object"),
        (point_of(timeUnixNano="soon"), "dataPoints.timeUnixNano: "),
        (point_of(timeUnixNano=2**64), "out of range"),
        (point_of(asDouble=True), "expected a number"),
        (point_of(exemplars=[{"traceId": "xyz"}]), "traceId"),
        (point_of(attributes=[{"key": 5}]), "expected a string"),
    ],
)
def test_what_is_wrong_is_named(body: bytes, where: str) -> None:
    with pytest.raises(InvalidJson, match=where.replace("(", "\\(")):
        protobuf_of_json(body)


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(max_size=3), lambda one: st.lists(one) | one))
def test_any_json_is_a_message_or_an_error(value: Any) -> None:
    body = json.dumps({"resourceMetrics": [{"scopeMetrics": [{"metrics": value}], "resource": value}]}).encode()
    with contextlib.suppress(InvalidJson):
        ExportMetricsServiceRequest.FromString(protobuf_of_json(body))


def test_nesting_has_a_bound() -> None:
    value: Any = {"stringValue": "x"}
    for _ in range(100):
        value = {"arrayValue": {"values": [value]}}
    with pytest.raises(InvalidJson, match="nested too deeply"):
        protobuf_of_json(point_of(attributes=[{"key": "k", "value": value}]))


def test_answers_are_messages_in_the_encoding_of_the_request() -> None:
    assert success(as_json=True) == b"{}"
    assert success(as_json=False) == b""
    found = ExportMetricsServiceResponse.FromString(success(False, 3, "three are bad"))
    assert (found.partial_success.rejected_data_points, found.partial_success.error_message) == (3, "three are bad")
    same = json_format.Parse(success(True, 3, "three are bad"), ExportMetricsServiceResponse())
    assert same == found
    assert json.loads(status(True, 400, "no")) == {"code": 3, "message": "no"}
    assert status(False, 503, "no") == b"\x08\x0e\x12\x02no"
