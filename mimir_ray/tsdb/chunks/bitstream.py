"""Bit streams of chunks: bits, varbit integers and XORed floats, for kernels.

Positions are absolute, in bits, highest bit of a byte first. Readers look ahead of what they return: up to
`READ_AHEAD_BYTES` behind the position must be inside the array, and it is the caller's to compare the position with
the end. Upstream: tsdb/docs/bstream.md; tsdb/chunkenc/bstream.go, varbit.go, xor.go.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mimir_ray.encoding.bits import leading_zeros, load64_be, store64_be, trailing_zeros
from mimir_ray.encoding.varint import zigzag
from mimir_ray.kernel import device

READ_AHEAD_BYTES = 32
NO_WINDOW = 0xFF
"""State `leading` while no value has changed yet."""


@device
def read_bits(data: Any, bit: Any, count: Any) -> Any:
    """`count` (1..64) bits from absolute position `bit`, as uint64. Reads nine bytes."""
    at = bit >> 3
    skip = np.uint64(bit & 7)
    word = load64_be(data, at) << skip
    word |= np.uint64(data[at + 8]) >> (np.uint64(8) - skip)
    return word >> np.uint64(64 - count)


@device
def put_bits(out: Any, bit: Any, word: Any, count: Any) -> Any:
    """Writes the low `count` (1..56) bits of `word` at absolute position `bit`; zeroes what follows in 8 bytes."""
    used = np.uint64(bit & 7)
    at = bit >> 3
    kept = (np.uint64(out[at]) << np.uint64(56)) & ~(~np.uint64(0) >> used)
    store64_be(out, at, kept | (word << np.uint64(64 - count)) >> used)
    return bit + count


@device
def put_long(out: Any, bit: Any, word: Any, count: Any) -> Any:
    """As `put_bits` for up to 64 bits."""
    if count <= 56:
        return put_bits(out, bit, word, count)
    bit = put_bits(out, bit, word >> np.uint64(32), count - 32)
    return put_bits(out, bit, word & np.uint64(0xFFFFFFFF), 32)


@device
def append_xor(out: Any, bit: Any, head: Any, size: Any, changed: Any, leading: Any, trailing: Any) -> Any:
    """Writes `size` (<= 24) bits of `head`, then a value that differs from the last one by the bits `changed`.

    Returns (bit position, leading, trailing).
    """
    if changed == np.uint64(0):
        return put_bits(out, bit, head << np.uint64(1), size + 1), leading, trailing
    zeros_before = min(leading_zeros(changed), 31)
    zeros_after = trailing_zeros(changed)
    if leading != NO_WINDOW and zeros_before >= leading and zeros_after >= trailing:
        head = head << np.uint64(2) | np.uint64(0b10)
        size += 2
    else:
        leading = zeros_before
        trailing = zeros_after
        head = head << np.uint64(13) | np.uint64(0b11 << 11 | leading << 6 | (64 - leading - trailing) & 63)
        size += 13
    significant = 64 - leading - trailing
    payload = changed >> np.uint64(trailing)
    if size + significant <= 56:
        bit = put_bits(out, bit, head << np.uint64(significant) | payload, size + significant)
    else:
        bit = put_bits(out, bit, head, size)
        bit = put_long(out, bit, payload, significant)
    return bit, leading, trailing


@device
def read_xor(data: Any, bit: Any, value: Any, leading: Any, trailing: Any) -> Any:
    """A value written by `append_xor`; `value`: the bits of the one before, `leading` and `trailing` 0 at first.

    Returns (bits, leading, trailing, bit position); a position of -1 for a window that is wider than a word.
    """
    word = load64_be(data, bit >> 3) << np.uint64(bit & 7)
    if word >> np.uint64(63) == np.uint64(0):
        return value, leading, trailing, bit + 1
    if word >> np.uint64(62) == np.uint64(0b11):
        leading = np.int64((word >> np.uint64(57)) & np.uint64(31))
        significant = np.int64((word >> np.uint64(51)) & np.uint64(63))
        if significant == 0:
            significant = np.int64(64)
        if leading + significant > 64:
            return value, leading, trailing, np.int64(-1)
        trailing = 64 - leading - significant
        bit += 13
    else:
        significant = 64 - leading - trailing
        bit += 2
    return value ^ read_bits(data, bit, significant) << np.uint64(trailing), leading, trailing, bit + significant


@device
def _varbit(data: Any, bit: Any) -> Any:
    """(raw bits, their number, bit position after it)."""
    word = load64_be(data, bit >> 3) << np.uint64(bit & 7)
    ones = leading_zeros(~word)
    if ones == 0:
        return np.uint64(0), np.int64(0), bit + 1
    if ones == 1:
        prefix, size = np.int64(2), np.int64(3)
    elif ones == 2:
        prefix, size = np.int64(3), np.int64(6)
    elif ones == 3:
        prefix, size = np.int64(4), np.int64(9)
    elif ones == 4:
        prefix, size = np.int64(5), np.int64(12)
    elif ones == 5:
        prefix, size = np.int64(6), np.int64(18)
    elif ones == 6:
        prefix, size = np.int64(7), np.int64(25)
    else:
        size = np.int64(56) if ones == 7 else np.int64(64)
        return read_bits(data, bit + 8, size), size, bit + 8 + size
    return (word << np.uint64(prefix)) >> np.uint64(64 - size), size, bit + prefix + size


@device
def read_varbit_uint(data: Any, bit: Any) -> Any:
    """(uint64, bit position after it); at most nine bytes long."""
    raw, _, after = _varbit(data, bit)
    return raw, after


@device
def read_varbit_int(data: Any, bit: Any) -> Any:
    """(int64, bit position after it); at most nine bytes long."""
    raw, size, after = _varbit(data, bit)
    value = np.int64(raw)
    # The ranges lean to the positive side: 2^(size-1) itself is positive.
    if 0 < size < 64 and value > np.int64(1) << (size - 1):
        value -= np.int64(1) << size
    return value, after


@device
def _put_varbit(out: Any, bit: Any, raw: Any, size: Any) -> Any:
    """The low `size` bits of `raw` (a uint64), after the prefix of that size."""
    if size == 0:
        return put_bits(out, bit, np.uint64(0), 1)
    if size == 3:
        return put_bits(out, bit, np.uint64(0b10 << 3) | raw & np.uint64(0x7), 5)
    if size == 6:
        return put_bits(out, bit, np.uint64(0b110 << 6) | raw & np.uint64(0x3F), 9)
    if size == 9:
        return put_bits(out, bit, np.uint64(0b1110 << 9) | raw & np.uint64(0x1FF), 13)
    if size == 12:
        return put_bits(out, bit, np.uint64(0b11110 << 12) | raw & np.uint64(0xFFF), 17)
    if size == 18:
        return put_bits(out, bit, np.uint64(0b111110 << 18) | raw & np.uint64(0x3FFFF), 24)
    if size == 25:
        return put_bits(out, bit, np.uint64(0b1111110 << 25) | raw & np.uint64(0x1FFFFFF), 32)
    bit = put_bits(out, bit, np.uint64(0b11111110 if size == 56 else 0b11111111), 8)
    return put_long(out, bit, raw & (~np.uint64(0) >> np.uint64(64 - size)), size)


@device
def put_varbit_int(out: Any, bit: Any, value: Any) -> Any:
    """Writes an int64; the bit position after it."""
    size = 64
    if value == 0:
        size = 0
    elif -3 <= value <= 4:
        size = 3
    elif -31 <= value <= 32:
        size = 6
    elif -255 <= value <= 256:
        size = 9
    elif -2047 <= value <= 2048:
        size = 12
    elif -131071 <= value <= 131072:
        size = 18
    elif -16777215 <= value <= 16777216:
        size = 25
    elif -36028797018963967 <= value <= 36028797018963968:
        size = 56
    return _put_varbit(out, bit, np.uint64(value), size)


@device
def put_varbit_uint(out: Any, bit: Any, value: Any) -> Any:
    """Writes a uint64; the bit position after it."""
    bits = 64 - leading_zeros(value)
    size = 64
    if bits == 0:
        size = 0
    elif bits <= 3:
        size = 3
    elif bits <= 6:
        size = 6
    elif bits <= 9:
        size = 9
    elif bits <= 12:
        size = 12
    elif bits <= 18:
        size = 18
    elif bits <= 25:
        size = 25
    elif bits <= 56:
        size = 56
    return _put_varbit(out, bit, value, size)


@device
def read_uvarint_bits(data: Any, bit: Any) -> Any:
    """A Go uvarint whose bytes need not be aligned: (uint64, bit position after it, -1 if it is too long)."""
    value = np.uint64(0)
    for shift in range(0, 70, 7):
        byte = read_bits(data, bit, 8)
        bit += 8
        if shift == 63 and byte > np.uint64(1):
            break
        value |= (byte & np.uint64(0x7F)) << np.uint64(shift)
        if byte < np.uint64(0x80):
            return value, bit
    return np.uint64(0), np.int64(-1)


@device
def read_varint_bits(data: Any, bit: Any) -> Any:
    """The same for a zigzag one: (int64, bit position)."""
    raw, after = read_uvarint_bits(data, bit)
    return np.int64(raw >> np.uint64(1)) ^ -np.int64(raw & np.uint64(1)), after


@device
def put_uvarint_bits(out: Any, bit: Any, value: Any) -> Any:
    """Writes a Go uvarint at any bit; the bit position after it."""
    rest = value
    while rest >= np.uint64(0x80):
        bit = put_bits(out, bit, rest & np.uint64(0x7F) | np.uint64(0x80), 8)
        rest >>= np.uint64(7)
    return put_bits(out, bit, rest, 8)


@device
def put_varint_bits(out: Any, bit: Any, value: Any) -> Any:
    """The same for an int64."""
    return put_uvarint_bits(out, bit, zigzag(value))
