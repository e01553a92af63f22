"""Variable-length integers, well-formed and hostile."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mimir_ray.encoding import varint
from mimir_ray.kernel import U8, OutI64, OutU8, OutU64, kernel, u64


@kernel
def _read(data: U8, start: int, end: int, value: OutU64, result: OutI64) -> int:
    value[0], result[0], result[1] = varint.read_uvarint(data, start, end)
    signed, result[2], result[3] = varint.read_varint(data, start, end)
    result[4] = signed
    return 0


@kernel
def _write(out: OutU8, value: u64, signed: int) -> int:
    middle = varint.write_uvarint(out, 0, value)
    return varint.write_varint(out, middle, signed)


def read(data: bytes, start: int = 0, end: int | None = None) -> tuple[int, int, int, int]:
    """(unsigned value, signed value, position, code)"""
    value, result = np.zeros(1, np.uint64), np.zeros(5, np.int64)
    _read(np.frombuffer(data, np.uint8), start, len(data) if end is None else end, value, result)
    assert result[0] == result[2] and result[1] == result[3]
    return int(value[0]), int(result[4]), int(result[0]), int(result[1])


def slow_read(data: bytes) -> tuple[int, int, int]:
    """As Go's binary.Uvarint: (value, position, code)."""
    value = 0
    for at, byte in enumerate(data):
        if at == 9 and byte > 1:
            return 0, 0, varint.TOO_LONG
        value |= (byte & 0x7F) << (7 * at)
        if byte < 0x80:
            return value, at + 1, varint.OK
    return 0, 0, varint.TRUNCATED


@given(st.integers(0, (1 << 64) - 1), st.integers(-(1 << 63), (1 << 63) - 1))
def test_what_was_written_is_read_back(unsigned: int, signed: int) -> None:
    out = np.zeros(20, np.uint8)
    size = _write(out, np.uint64(unsigned), signed)
    data = out[:size].tobytes()
    assert data == varint.encode_uvarint(unsigned) + varint.encode_varint(signed)
    value, _, middle, code = read(data)
    assert (value, code) == (unsigned, varint.OK)
    _, value, end, code = read(data, middle)
    assert (value, end, code) == (signed, size, varint.OK)


@given(st.binary(max_size=14) | st.lists(st.sampled_from([0x80, 0xFF, 0, 1, 2]), max_size=14).map(bytes))
def test_any_bytes_are_read_as_the_slow_twin_does(data: bytes) -> None:
    value, _, position, code = read(data)
    assert (value, position, code) == slow_read(data)


@given(st.binary(max_size=14), st.binary(max_size=4))
def test_nothing_at_or_past_the_end_matters(data: bytes, behind: bytes) -> None:
    assert read(data) == read(data + behind, 0, len(data))
