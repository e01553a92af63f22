"""OTLP's JSON encoding as the same message in protobuf's.

Protobuf's JSON mapping with OTLP's exceptions: trace and span ids are hexadecimal, enums are numbers, unknown fields
are passed over. Specification: https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding.
"""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Callable
from typing import Any

import orjson

from mimir_ray.encoding.varint import encode_uvarint, encode_varint
from mimir_ray.errors import ClientError

DEPTH_MAX = 64
_U64 = 1 << 64


class InvalidJson(ClientError):
    """A body that is not the JSON form of the message. The text says where."""


def _varint(value: Any) -> bytes:
    return encode_uvarint(_integer(value, -(_U64 >> 1), _U64) % _U64)


def _fixed64(value: Any) -> bytes:
    return (_integer(value, -(_U64 >> 1), _U64) % _U64).to_bytes(8, "little")


def _zigzag(value: Any) -> bytes:
    return encode_varint(_integer(value, -(1 << 31), 1 << 31))


def _integer(value: Any, least: int, end: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, str, float)):
        raise ValueError(f"expected a number, got {value!r:.40}")
    number = int(value)
    if isinstance(value, float) and number != value:
        raise ValueError(f"expected a whole number, got {value!r}")
    if not least <= number < end:
        raise ValueError(f"{number} is out of range")
    return number


def _double(value: Any) -> bytes:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError(f"expected a number, got {value!r:.40}")
    return struct.pack("<d", float(value))


def _bool(value: Any) -> bytes:
    if not isinstance(value, bool):
        raise ValueError(f"expected true or false, got {value!r:.40}")
    return bytes([value])


def _text(value: Any) -> bytes:
    if not isinstance(value, str):
        raise ValueError(f"expected a string, got {value!r:.40}")
    return value.encode("utf-8", "replace")


def _hexadecimal(value: Any) -> bytes:
    return bytes.fromhex(_text(value).decode())


def _base64(value: Any) -> bytes:
    text = _text(value).translate(bytes.maketrans(b"-_", b"+/"))
    return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)


def _temporality(value: Any) -> bytes:
    names = ("UNSPECIFIED", "DELTA", "CUMULATIVE")
    name = value.removeprefix("AGGREGATION_TEMPORALITY_") if isinstance(value, str) else value
    return _varint(names.index(name) if name in names else value)


# (wire type, encoder); numbers of one kind may be repeated and are then packed.
_KINDS: dict[str, tuple[int, Callable[[Any], bytes]]] = {
    "varint": (0, _varint), "zigzag": (0, _zigzag), "bool": (0, _bool), "temporality": (0, _temporality),
    "fixed64": (1, _fixed64), "double": (1, _double),
    "text": (2, _text), "hex": (2, _hexadecimal), "base64": (2, _base64),
}  # fmt: skip
_POINT = {"startTimeUnixNano": (2, "fixed64"), "timeUnixNano": (3, "fixed64")}
_WITH_POINTS = {"aggregationTemporality": (2, "temporality")}
_MESSAGES: dict[str, dict[str, tuple[int, str]]] = {
    "Request": {"resourceMetrics": (1, "ResourceMetrics")},
    "ResourceMetrics": {
        "resource": (1, "Resource"), "scopeMetrics": (2, "ScopeMetrics"), "schemaUrl": (3, "text"),
    },
    "Resource": {"attributes": (1, "KeyValue")},
    "ScopeMetrics": {"scope": (1, "Scope"), "metrics": (2, "Metric"), "schemaUrl": (3, "text")},
    "Scope": {"name": (1, "text"), "version": (2, "text"), "attributes": (3, "KeyValue")},
    "Metric": {
        "name": (1, "text"), "description": (2, "text"), "unit": (3, "text"), "gauge": (5, "Gauge"), "sum": (7, "Sum"),
        "histogram": (9, "Histogram"), "exponentialHistogram": (10, "Exponential"), "summary": (11, "Summary"),
    },
    "Gauge": {"dataPoints": (1, "NumberPoint")},
    "Sum": {"dataPoints": (1, "NumberPoint"), "isMonotonic": (3, "bool"), **_WITH_POINTS},
    "Histogram": {"dataPoints": (1, "HistogramPoint"), **_WITH_POINTS},
    "Exponential": {"dataPoints": (1, "ExponentialPoint"), **_WITH_POINTS},
    "Summary": {"dataPoints": (1, "SummaryPoint")},
    "NumberPoint": {
        **_POINT, "asDouble": (4, "double"), "exemplars": (5, "Exemplar"), "asInt": (6, "fixed64"),
        "attributes": (7, "KeyValue"), "flags": (8, "varint"),
    },
    "HistogramPoint": {
        **_POINT, "count": (4, "fixed64"), "sum": (5, "double"), "bucketCounts": (6, "fixed64"),
        "explicitBounds": (7, "double"), "exemplars": (8, "Exemplar"), "attributes": (9, "KeyValue"),
        "flags": (10, "varint"), "min": (11, "double"), "max": (12, "double"),
    },
    "ExponentialPoint": {
        **_POINT, "attributes": (1, "KeyValue"), "count": (4, "fixed64"), "sum": (5, "double"), "scale": (6, "zigzag"),
        "zeroCount": (7, "fixed64"), "positive": (8, "Buckets"), "negative": (9, "Buckets"), "flags": (10, "varint"),
        "exemplars": (11, "Exemplar"), "min": (12, "double"), "max": (13, "double"), "zeroThreshold": (14, "double"),
    },
    "Buckets": {"offset": (1, "zigzag"), "bucketCounts": (2, "varint")},
    "SummaryPoint": {
        **_POINT, "count": (4, "fixed64"), "sum": (5, "double"), "quantileValues": (6, "Quantile"),
        "attributes": (7, "KeyValue"), "flags": (8, "varint"),
    },
    "Quantile": {"quantile": (1, "double"), "value": (2, "double")},
    "Exemplar": {
        "timeUnixNano": (2, "fixed64"), "asDouble": (3, "double"), "spanId": (4, "hex"), "traceId": (5, "hex"),
        "asInt": (6, "fixed64"), "filteredAttributes": (7, "KeyValue"),
    },
    "KeyValue": {"key": (1, "text"), "value": (2, "AnyValue")},
    "AnyValue": {
        "stringValue": (1, "text"), "boolValue": (2, "bool"), "intValue": (3, "varint"), "doubleValue": (4, "double"),
        "arrayValue": (5, "ArrayValue"), "kvlistValue": (6, "KeyValueList"), "bytesValue": (7, "base64"),
    },
    "ArrayValue": {"values": (1, "AnyValue")},
    "KeyValueList": {"values": (1, "KeyValue")},
}  # fmt: skip


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)


# Parsers take the names of the .proto file, too.
_FIELDS = {
    message: {spelling: known for name, known in fields.items() for spelling in (name, _snake(name))}
    for message, fields in _MESSAGES.items()
}


def protobuf_of_json(body: bytes) -> bytes:
    """An ExportMetricsServiceRequest. Raises `InvalidJson`."""
    try:
        root = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidJson(f"invalid JSON: {error}") from None
    return _message(root, "Request", "", 0)


def _message(value: Any, kind: str, path: str, depth: int) -> bytes:
    if not isinstance(value, dict):
        raise InvalidJson(f"{path or 'body'}: expected an object")
    if depth > DEPTH_MAX:
        raise InvalidJson(f"{path}: nested too deeply")
    out = bytearray()
    known = _FIELDS[kind]
    for name, one in value.items():
        if one is None or name not in known:
            continue
        number, what = known[name]
        where = f"{path}.{name}" if path else name
        if what in _FIELDS:
            for part in one if isinstance(one, list) else [one]:
                content = _message(part, what, where, depth + 1)
                out += encode_uvarint(number << 3 | 2) + encode_uvarint(len(content)) + content
            continue
        wire, encode = _KINDS[what]
        try:
            if isinstance(one, list):
                content = b"".join(encode(part) for part in one)
                out += encode_uvarint(number << 3 | 2) + encode_uvarint(len(content)) + content
            else:
                content = encode(one)
                size = encode_uvarint(len(content)) if wire == 2 else b""
                out += encode_uvarint(number << 3 | wire) + size + content
        except (ValueError, OverflowError, binascii.Error) as error:
            raise InvalidJson(f"{where}: {error}") from None
    return bytes(out)
