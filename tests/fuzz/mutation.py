"""Changing sound inputs into ones that are nearly sound: as bytes, as protobuf messages, as JSON, as text.

A change that keeps the shape (lengths that fit, brackets that match) gets far deeper into a decoder than a flipped
bit, so most mutators know the shape. All of them take a `random.Random`; the same seed gives the same inputs.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mimir_ray.encoding.varint import encode_uvarint

Mutator = Callable[[random.Random, bytes, Sequence[bytes]], bytes]
"""From a sound input, and all of them, to another input."""

NUMBERS = (
    *(0, 1, 2, 3, 5, 7, 8, 15, 16, 31, 52, 63, 64, 100, 127, 128, 255, 256, 4095, 65535, 65536, 1 << 20),
    *((1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32, 1 << 40, (1 << 53) + 1, 1_700_000_000_000),
    *((1 << 62), (1 << 63) - 1, 1 << 63, (1 << 64) - 2, (1 << 64) - 1, (1 << 64) - 8, (1 << 64) - 53),
)
DOUBLES = tuple(
    bytes.fromhex(text)
    for text in (
        *("0000000000000000", "000000000000f03f", "000000000000f07f", "000000000000f0ff", "000000000000f87f"),
        *("020000000000f07f", "010000000000f87f", "ffffffffffffffff", "0100000000000000", "ffffffffffffef7f"),
        *("0000000000000080", "000000000000e043", "000000000000e0c3"),
    )
)
BYTES = (
    *(b"", b"\0", b"\xff", b"\x80", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
    *(b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80",),
    *(b"__name__", b"\xc3\x28", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", "ü€😀".encode(), b"a" * 70, b"le", b"job"),
)  # fmt: skip


def of_bytes(rng: random.Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """One change that knows nothing of the format."""
    found = bytearray(data)
    at = rng.randrange(len(found) + 1)
    until = min(len(found), at + rng.choice((1, 1, 2, 4, 8, 16, 64)))
    match rng.randrange(9):
        case 0 if found:
            found[at % len(found)] ^= 1 << rng.randrange(8)
        case 1 if found:
            found[at % len(found)] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        case 2:
            del found[at:until]
        case 3:
            found[at:at] = found[at:until] * rng.choice((1, 2, 3, 40))
        case 4:
            found[at:at] = rng.choice(BYTES)
        case 5:
            del found[at:]
        case 6:
            other = rng.choice(others)
            start = rng.randrange(len(other) + 1)
            found[at:] = other[start:]
        case 7:
            size = rng.choice((1, 2, 4, 8))
            number = rng.choice(NUMBERS) & ((1 << 8 * size) - 1)
            found[at : at + size] = number.to_bytes(size, rng.choice(("big", "little")))
        case _:
            found[at:at] = encode_uvarint(rng.choice(NUMBERS))
    return bytes(found)


# Protobuf: a message as a tree of fields.


@dataclass(slots=True)
class Field:
    """`value`: a number, 4 or 8 bytes, bytes, or the fields of a message."""

    tag: int
    value: Any


def read_fields(data: bytes, depth: int = 0) -> list[Field] | None:
    """The fields of what may be a message; None where it is none."""
    found = []
    at = 0
    while at < len(data):
        tag, at = _uvarint(data, at)
        kind = tag & 7
        value: Any
        if at < 0 or not 8 <= tag < 1 << 32:
            return None
        if kind == 0:
            value, at = _uvarint(data, at)
        elif kind == 2:
            size, at = _uvarint(data, at)
            if at < 0 or at + size > len(data):
                return None
            raw, at = data[at : at + size], at + size
            value = (read_fields(raw, depth + 1) if raw and depth < 8 else None) or raw
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
            value, at = data[at : at + size], at + size
        else:
            return None
        if not 0 <= at <= len(data):
            return None
        found.append(Field(tag, value))
    return found


def _uvarint(data: bytes, at: int) -> tuple[int, int]:
    if at < len(data) and data[at] < 0x80:
        return data[at], at + 1
    value = 0
    for place in range(10):
        if at + place >= len(data):
            return 0, -1
        byte = data[at + place]
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value & (1 << 64) - 1, at + place + 1
    return 0, -1


def write_fields(fields: Sequence[Field]) -> bytes:
    out = bytearray()
    for field in fields:
        _write_uvarint(out, field.tag)
        if isinstance(field.value, int):
            _write_uvarint(out, field.value)
            continue
        raw = write_fields(field.value) if isinstance(field.value, list) else field.value
        if field.tag & 7 == 2:
            _write_uvarint(out, len(raw))
        out += raw
    return bytes(out)


def _write_uvarint(out: bytearray, value: int) -> None:
    if value < 0x80:
        out.append(value)
    else:
        out += encode_uvarint(value)


def of_protobuf(rng: random.Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """One change to the tree, lengths kept right; sometimes one to the bytes."""
    fields = read_fields(data)
    if not fields or rng.random() < 0.25:
        return of_bytes(rng, data, others)
    at = _some_message(rng, fields)
    field = rng.choice(at)
    match rng.randrange(9):
        case 0:
            at.remove(field)
        case 1:
            at[rng.randrange(len(at) + 1) : 0] = [field] * rng.choice((1, 1, 2, 30))
        case 2:
            rng.shuffle(at)  # labels of a series are then not in one piece
        case 3:
            field.tag = rng.choice((field.tag ^ 1, field.tag ^ 2, field.tag + 8, rng.randrange(8, 256), 0x0A))
        case 4:
            other = read_fields(rng.choice(others)) or [Field(0x0A, b"")]
            at.insert(rng.randrange(len(at) + 1), rng.choice(_some_message(rng, other)))
        case 5:
            at.insert(rng.randrange(len(at) + 1), Field(rng.randrange(1, 40) << 3, rng.choice(NUMBERS)))
        case _:
            field.value = _another_value(rng, field)
    return write_fields(fields)


def _another_value(rng: random.Random, field: Field) -> Any:
    match field.tag & 7:
        case 0:
            return rng.choice(NUMBERS)
        case 1:
            return rng.choice(DOUBLES)
        case 5:
            return rng.choice(DOUBLES)[:4]
    if isinstance(field.value, list):
        return rng.choice((b"", field.value * 2, field.value[1:], rng.choice(BYTES)))
    return of_bytes(rng, field.value, (field.value,)) if rng.random() < 0.5 else rng.choice(BYTES)


def _some_message(rng: random.Random, fields: list[Field]) -> list[Field]:
    """A list of fields somewhere in the tree, never an empty one."""
    while True:
        deeper = [one.value for one in fields if isinstance(one.value, list) and one.value]
        if not deeper or rng.random() < 0.3:
            return fields
        fields = rng.choice(deeper)


# JSON and text.

JSON_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1.5, 1e308, -1e-300, 1 << 63, 1 << 64, -(1 << 63), 1 << 400, "", "a"),
    *("1", "-1", "NaN", "\ud800", float("inf"), float("nan")),
    *("Infinity", "18446744073709551616", "\u0000", "😀", "AAAA", "=", [], {}, [None], [[]]),
    *({"": None}, {"a": {"a": {}}}),
)  # fmt: skip


def of_json(rng: random.Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """One change to a value somewhere, or to the text; once in a while nesting that no parser can follow."""
    if rng.random() < 0.002:
        return rng.choice((b"[", b'{"a":')) * 20_000 + data
    try:
        tree = json.loads(data)
    except (ValueError, RecursionError):
        return of_bytes(rng, data, others)
    if rng.random() < 0.2 or not isinstance(tree, dict | list) or not tree:
        return of_bytes(rng, data, others)
    holder, key = _some_place(rng, tree)
    match rng.randrange(6):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, list):
            holder[:] = holder * rng.choice((2, 10))
        case 2 if isinstance(holder, dict):
            holder[rng.choice(("", "a", "id", "version", f"{key}_", key.upper()))] = holder[key]
        case 3:
            holder[key] = [holder[key]]
        case _:
            holder[key] = rng.choice(JSON_VALUES)
    return json.dumps(tree).encode()


def _some_place(rng: random.Random, tree: Any) -> tuple[Any, Any]:
    while True:
        key = rng.choice(list(tree)) if isinstance(tree, dict) else rng.randrange(len(tree))
        value = tree[key]
        if not isinstance(value, dict | list) or not value or rng.random() < 0.2:
            return tree, key
        tree = value


def of_text(*words: str) -> Mutator:
    """Changes made of words of a language, mostly; the input may stop being UTF-8."""
    vocabulary = [word.encode() for word in words]

    def mutate(rng: random.Random, data: bytes, others: Sequence[bytes]) -> bytes:
        at = rng.randrange(len(data) + 1)
        match rng.randrange(5):
            case 0:
                return data[:at] + rng.choice(vocabulary) + data[at:]
            case 1:
                return data[:at] + rng.choice(vocabulary) * rng.choice((1, 3, 200)) + data[at + 1 :]
            case 2:
                until = rng.randrange(at, len(data) + 1)
                return data[:at] + data[until:]
            case 3:
                return data[:at] + rng.choice(others) + data[at:]
        return of_bytes(rng, data, others)

    return mutate
