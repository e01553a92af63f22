"""The protobuf wire format, as far as hot paths need it: tags, lengths, skipping, label sections.

Format: https://protobuf.dev/programming-guides/encoding/. Readers check every length against the end of
what they may look at, and answer -1 where bytes are malformed. Stricter than protobuf's own parsers in
three things that no sender does: groups, tags and lengths of more than five bytes, and known fields with
a tag longer than needed are refused.

A label section is what identifies a series on the wire: the `repeated Label labels = 1` fields of a
TimeSeries, back to back. In its canonical form names are sorted bytewise, values are not empty, and
every field is written once, in order, with the shortest lengths.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from mimir_ray.encoding.varint import encode_uvarint
from mimir_ray.errors import ClientError
from mimir_ray.kernel import device

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

LABEL_TAG = 0x0A
NAME_TAG = 0x0A
VALUE_TAG = 0x12


@dataclass(eq=False)
class MalformedProtobuf(ClientError):
    """Bytes that are not the message they should be."""

    message: str
    problem: str
    position: int

    def describe(self) -> str:
        return f"proto: {self.message}: {self.problem} at byte {self.position}"


@device
def read_length(data: Any, position: Any, end: Any) -> Any:
    """(int64 length, position after it): so many bytes follow before `end`; (-1, position) if malformed."""
    if position >= end:
        return np.int64(-1), position
    byte = np.int64(data[position])
    at = position + 1
    length = byte
    if byte >= 0x80:
        length = byte & 0x7F
        shift = np.int64(7)
        while True:
            if at >= end or shift > 28:
                return np.int64(-1), position
            byte = np.int64(data[at])
            at += 1
            length |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
    if length > end - at:
        return np.int64(-1), position
    return length, at


@device
def read_tag(data: Any, position: Any, end: Any) -> Any:
    """(int64 tag, position after it); (-1, position) if malformed: truncated, over 32 bits, or field 0."""
    tag = np.int64(0)
    shift = np.int64(0)
    at = position
    while True:
        if at >= end or shift > 28:
            return np.int64(-1), position
        byte = np.int64(data[at])
        at += 1
        tag |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
    if tag < 8 or tag > 0xFFFFFFFF:
        return np.int64(-1), position
    return tag, at


@device
def skip_field(data: Any, position: Any, end: Any, wire_type: Any) -> Any:
    """The position after a field's content, or -1 if malformed."""
    if wire_type == 0:
        at = position
        while at < end and at - position < 10:
            byte = data[at]
            at += 1
            if byte < 0x80:
                return at if at - position < 10 or byte <= 1 else np.int64(-1)
        return np.int64(-1)
    if wire_type == 1:
        return position + 8 if end - position >= 8 else np.int64(-1)
    if wire_type == 2:
        length, at = read_length(data, position, end)
        return at + length if length >= 0 else np.int64(-1)
    if wire_type == 5:
        return position + 4 if end - position >= 4 else np.int64(-1)
    return np.int64(-1)


def fields(data: bytes, start: int, end: int, message: str) -> Iterator[tuple[int, int, int, int, int]]:
    """The fields of one message: (number, wire type, position of the tag, start of the content, its end).

    Not for hot paths. The content of a varint is its bytes; of a length-delimited field what follows the
    length. Raises `MalformedProtobuf`.
    """
    at = start
    while at < end:
        tag_at = at
        tag, at = _uvarint(data, at, end, 5, message)
        number, wire = tag >> 3, tag & 7
        if number == 0 or tag > 0xFFFFFFFF:
            raise MalformedProtobuf(message, "illegal tag", tag_at)
        if wire == VARINT:
            content = at
            _, at = _uvarint(data, at, end, 10, message)
        elif wire == BYTES:
            length, content = _uvarint(data, at, end, 5, message)
            at = content + length
        elif wire in (FIXED64, FIXED32):
            content, at = at, at + (8 if wire == FIXED64 else 4)
        else:
            raise MalformedProtobuf(message, f"unsupported wire type {wire}", tag_at)
        if at > end:
            raise MalformedProtobuf(message, "unexpected end", tag_at)
        yield number, wire, tag_at, content, at


def read_uvarint(data: bytes, start: int, end: int, message: str) -> int:
    """One number that fills data[start:end]; for the contents that `fields` found."""
    return _uvarint(data, start, end, 10, message)[0]


def _uvarint(data: bytes, start: int, end: int, bytes_max: int, message: str) -> tuple[int, int]:
    value = 0
    for at in range(start, min(end, start + bytes_max)):
        byte = data[at]
        value |= (byte & 0x7F) << 7 * (at - start)
        if byte < 0x80:
            if value >> 64:
                raise MalformedProtobuf(message, "number of more than 64 bits", start)
            return value, at + 1
    raise MalformedProtobuf(message, "unexpected end" if end < start + bytes_max else "number too long", start)


RawLabel = tuple[bytes, bytes]
"""Name and value as they came: any bytes."""


def parse_labels(data: bytes, start: int, end: int) -> list[RawLabel]:
    """The labels of a label section, or of a whole TimeSeries (other fields are passed over), in their order.

    Of a name or value that is written twice the last counts; what is missing is empty, as in protobuf.
    Raises `MalformedProtobuf`.
    """
    labels = []
    for number, wire, tag_at, content, after in fields(data, start, end, "TimeSeries"):
        if number != 1:
            continue
        if wire != BYTES:
            raise MalformedProtobuf("TimeSeries", "labels of wrong wire type", tag_at)
        name = value = b""
        for inner, inner_wire, inner_at, inner_content, inner_after in fields(data, content, after, "Label"):
            if inner in (1, 2) and inner_wire != BYTES:
                raise MalformedProtobuf("Label", "name or value of wrong wire type", inner_at)
            if inner == 1:
                name = data[inner_content:inner_after]
            elif inner == 2:
                value = data[inner_content:inner_after]
        labels.append((name, value))
    return labels


def encode_labels(labels: Iterable[RawLabel]) -> bytes:
    """The label section of these labels in the order given; canonical if they are sorted, unique and not empty."""
    pieces = []
    for name, value in labels:
        name_bytes, value_bytes = len(name), len(value)
        if name_bytes + value_bytes < 124:  # all lengths are one byte
            inner_bytes = 4 + name_bytes + value_bytes
            pieces.append(b"\n%c\n%c%b\x12%c%b" % (inner_bytes, name_bytes, name, value_bytes, value))
            continue
        inner = b"\n" + encode_uvarint(name_bytes) + name + b"\x12" + encode_uvarint(value_bytes) + value
        pieces.append(b"\n" + encode_uvarint(len(inner)) + inner)
    return b"".join(pieces)
