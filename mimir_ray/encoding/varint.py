"""Variable-length integers as Go's encoding/binary and protobuf write them, for kernels.

Unsigned: seven bits a byte, lowest first, the high bit says that more follow. Signed: zigzag, so that
small negatives stay short. Readers never look at or past `end` and answer with an error code instead
of raising: malformed bytes come from outside.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mimir_ray.encoding.bits import trailing_zeros
from mimir_ray.kernel import device

OK = 0
TRUNCATED = -1
"""The bytes end inside the number."""
TOO_LONG = -2
"""More than 64 bits."""

MAX_BYTES = 10


@device
def read_uvarint(data: Any, position: Any, end: Any) -> Any:
    """(uint64 value, position after it, OK | TRUNCATED | TOO_LONG); value 0 and the old position on errors."""
    value = np.uint64(0)
    at = position
    shift = 0
    while at < end:
        byte = np.uint64(data[at])
        at += 1
        if shift == 63 and byte > np.uint64(1):
            return np.uint64(0), position, TOO_LONG
        value |= (byte & np.uint64(0x7F)) << np.uint64(shift)
        if byte < np.uint64(0x80):
            return value, at, OK
        shift += 7
    return np.uint64(0), position, TRUNCATED


@device
def word_uvarint(word: Any) -> Any:
    """(uint64 value, its bytes) of the number that begins at the low end of eight bytes; no bytes: it is longer.

    Without a loop or a branch for each byte, as nearly all numbers in a hot path are well below eight bytes.
    """
    stops = ~word & np.uint64(0x8080808080808080)
    size = (trailing_zeros(stops) + 1) >> 3
    kept = word & (stops ^ (stops - np.uint64(1))) & np.uint64(0x7F7F7F7F7F7F7F7F)
    kept = (kept & np.uint64(0x007F007F007F007F)) | ((kept & np.uint64(0x7F007F007F007F00)) >> np.uint64(1))
    kept = (kept & np.uint64(0x00003FFF00003FFF)) | ((kept & np.uint64(0x3FFF00003FFF0000)) >> np.uint64(2))
    kept = (kept & np.uint64(0x000000000FFFFFFF)) | ((kept & np.uint64(0x0FFFFFFF00000000)) >> np.uint64(4))
    return kept, size if stops != np.uint64(0) else np.int64(0)


@device
def read_varint(data: Any, position: Any, end: Any) -> Any:
    """(int64 value, position after it, OK | TRUNCATED | TOO_LONG), zigzag."""
    raw, after, code = read_uvarint(data, position, end)
    return np.int64(raw >> np.uint64(1)) ^ -np.int64(raw & np.uint64(1)), after, code


@device
def write_uvarint(out: Any, position: Any, value: Any) -> Any:
    """Writes a uint64, at most `MAX_BYTES` bytes (the caller has made room); returns the position after it."""
    rest = np.uint64(value)
    at = position
    while rest >= np.uint64(0x80):
        out[at] = np.uint8((rest & np.uint64(0x7F)) | np.uint64(0x80))
        rest >>= np.uint64(7)
        at += 1
    out[at] = np.uint8(rest)
    return at + 1


@device
def zigzag(value: Any) -> Any:
    """The uint64 that a signed number is written as."""
    return (np.uint64(value) << np.uint64(1)) ^ np.uint64(np.int64(value) >> np.int64(63))


@device
def write_varint(out: Any, position: Any, value: Any) -> Any:
    """Writes an int64, zigzag, at most `MAX_BYTES` bytes; returns the position after it."""
    return write_uvarint(out, position, zigzag(value))


def encode_uvarint(value: int) -> bytes:
    """The bytes of one number, 0 <= value < 2**64; for headers and tests."""
    assert 0 <= value < 1 << 64
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def encode_varint(value: int) -> bytes:
    """The zigzag bytes of one number, -2**63 <= value < 2**63; for headers and tests."""
    assert -(1 << 63) <= value < 1 << 63
    return encode_uvarint((value << 1 ^ value >> 63) & (1 << 64) - 1)
