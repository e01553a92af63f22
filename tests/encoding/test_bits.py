"""Machine instructions for kernels, against Python's integers."""

from __future__ import annotations

import struct

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mimir_ray.encoding import bits
from mimir_ray.kernel import U8, OutF64, OutU8, OutU64, kernel, u64

words = st.integers(0, (1 << 64) - 1)


@kernel
def _loads(data: U8, at: int, out: OutU64) -> int:
    out[0] = bits.load64_le(data, at)
    out[1] = bits.load64_be(data, at)
    out[2] = bits.load32_le(data, at)
    return 0


@kernel
def _stores(out: OutU8, at: int, word: u64) -> int:
    bits.store64_le(out, at, word)
    bits.store64_be(out, at + 8, word)
    return 0


@kernel
def _arithmetic(left: u64, right: u64, out: OutU64, value: OutF64) -> int:
    out[0], out[1] = bits.multiply_128(left, right)
    out[2] = np.uint64(bits.leading_zeros(left))
    out[3] = np.uint64(bits.trailing_zeros(left))
    value[0] = bits.bits_to_float(left)
    out[4] = bits.float_to_bits(value[0])
    return 0


@kernel
def _copy(to: OutU8, to_start: int, source: U8, source_start: int, count: int) -> int:
    bits.copy_bytes(to, to_start, source, source_start, count)
    return 0


@given(st.binary(min_size=8, max_size=30), st.data())
def test_loads_work_at_any_address(data: bytes, draw: st.DataObject) -> None:
    at = draw.draw(st.integers(0, len(data) - 8))
    out = np.zeros(3, np.uint64)
    _loads(np.frombuffer(data, np.uint8), at, out)
    word = data[at : at + 8]
    expected = [int.from_bytes(word, "little"), int.from_bytes(word, "big"), int.from_bytes(word[:4], "little")]
    assert out.tolist() == expected


@given(words, st.integers(0, 8))
def test_stores_write_eight_bytes_and_no_more(word: int, at: int) -> None:
    out = np.full(32, 0xAA, np.uint8)
    _stores(out, at, np.uint64(word))
    rest = b"\xaa" * (16 - at)
    assert out.tobytes() == b"\xaa" * at + word.to_bytes(8, "little") + word.to_bytes(8, "big") + rest


@given(words, words)
def test_products_zero_counts_and_float_bits_are_exact(left: int, right: int) -> None:
    out, value = np.zeros(5, np.uint64), np.zeros(1)
    _arithmetic(np.uint64(left), np.uint64(right), out, value)
    high, low, leading, trailing, back = out.tolist()
    assert high << 64 | low == left * right
    assert leading == 64 - left.bit_length()
    assert trailing == ((left & -left).bit_length() - 1 if left else 64)
    assert back == left
    assert value.tobytes() == struct.pack("<Q", left)


def test_overlapping_copies_move_bytes() -> None:
    array = np.arange(10, dtype=np.uint8)
    _copy(array, 2, array, 0, 8)
    assert array.tolist() == [0, 1, 0, 1, 2, 3, 4, 5, 6, 7]
