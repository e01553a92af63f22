"""Attributes of OTLP messages as text. Upstream: pdata's pcommon.Value AsString."""

from __future__ import annotations

import base64
import json
import struct
from decimal import Decimal
from functools import lru_cache
from typing import Any

from mimir_ray.wire.protobuf import BYTES, FIXED64, VARINT, MalformedProtobuf, fields, read_uvarint

Attributes = list[tuple[str, str]]
DEPTH_MAX = 32
_REMEMBERED_BYTES = 256


def text_of(data: bytes, start: int, end: int) -> str:
    return data[start:end].decode("utf-8", "replace")


def read_key_value(data: bytes, start: int, end: int) -> tuple[str, str]:
    """(key, value as text) of a KeyValue. Raises `MalformedProtobuf`."""
    key, value = _key_value(data, start, end, 0)
    return key, as_text(value)


@lru_cache(maxsize=1 << 15)
def remembered_attribute(raw: bytes) -> tuple[str, str]:
    return read_key_value(raw, 0, len(raw))


def attribute_of(raw: bytes) -> tuple[str, str]:
    """As `read_key_value` of a whole message. Senders repeat their attributes, so short ones are remembered."""
    return remembered_attribute(raw) if len(raw) <= _REMEMBERED_BYTES else read_key_value(raw, 0, len(raw))


def read_attributes(data: bytes, start: int, end: int, number: int, message: str) -> Attributes:
    """All attributes of a message, which are its field `number`, in their order."""
    return [
        attribute_of(data[content:after])
        for field, wire, _, content, after in fields(data, start, end, message)
        if field == number and wire == BYTES
    ]


def as_text(value: Any) -> str:
    """Strings as they are, numbers as Go's JSON has them, lists and maps as JSON, bytes as base 64, nothing as ""."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, float):
        return float_text(value)
    if isinstance(value, int):
        return str(value)
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, sort_keys=True, default=as_text)


def float_text(value: float) -> str:
    """The shortest digits, without an exponent from 1e-6 up to 1e21; as Go's encoding/json."""
    if value != value or value in (float("inf"), float("-inf")):
        return "NaN" if value != value else "+Inf" if value > 0 else "-Inf"
    size = abs(value)
    if size == 0 or 1e-6 <= size < 1e21:
        return plain_float(value)
    mantissa, _, exponent = repr(value).partition("e")
    if not exponent:
        return plain_float(value)
    return f"{mantissa.removesuffix('.0')}e{int(exponent):+d}"


def plain_float(value: float) -> str:
    """The shortest digits without an exponent, as Go's strconv.FormatFloat(value, 'f', -1, 64)."""
    if value != value or value in (float("inf"), float("-inf")):
        return float_text(value)
    text = repr(value)
    if "e" in text:
        text = format(Decimal(text), "f")
    return text.removesuffix(".0")


def _key_value(data: bytes, start: int, end: int, depth: int) -> tuple[str, Any]:
    key, value = "", None
    for number, wire, _, content, after in fields(data, start, end, "KeyValue"):
        if number == 1 and wire == BYTES:
            key = text_of(data, content, after)
        elif number == 2 and wire == BYTES:
            value = _any_value(data, content, after, depth)
    return key, value


def _any_value(data: bytes, start: int, end: int, depth: int) -> Any:
    """The value as Python has it. Raises `MalformedProtobuf`, also for what is nested too deeply."""
    if depth > DEPTH_MAX:
        raise MalformedProtobuf("AnyValue", "nested too deeply", start)
    value: Any = None
    for number, wire, _, content, after in fields(data, start, end, "AnyValue"):
        if number == 1 and wire == BYTES:
            value = text_of(data, content, after)
        elif number == 2 and wire == VARINT:
            value = bool(read_uvarint(data, content, after, "AnyValue"))
        elif number == 3 and wire == VARINT:
            raw = read_uvarint(data, content, after, "AnyValue")
            value = raw - (1 << 64) if raw >> 63 else raw
        elif number == 4 and wire == FIXED64:
            value = struct.unpack_from("<d", data, content)[0]
        elif number == 5 and wire == BYTES:
            value = [
                _any_value(data, inner, stop, depth + 1)
                for field, kind, _, inner, stop in fields(data, content, after, "ArrayValue")
                if field == 1 and kind == BYTES
            ]
        elif number == 6 and wire == BYTES:
            value = dict(
                _key_value(data, inner, stop, depth + 1)
                for field, kind, _, inner, stop in fields(data, content, after, "KeyValueList")
                if field == 1 and kind == BYTES
            )
        elif number == 7 and wire == BYTES:
            value = data[content:after]
    return value
