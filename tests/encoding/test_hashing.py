"""Hashes against their published values and slow twins."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimir_ray.encoding.hashing import (
    fnv1_32_of,
    fnv1a_32_of,
    hash64,
    hash128,
    hash_seeds,
    series_token,
    xxhash64_of,
)
from mimir_ray.kernel import U8, U64, OutU64, kernel
from mimir_ray.testing.memory import at_the_edge

MASK = (1 << 64) - 1


@kernel
def _hash(data: U8, start: int, end: int, seeds: U64, out: OutU64) -> int:
    out[0], out[1] = hash128(data, start, end, seeds[0], seeds[1], seeds[2], seeds[3])
    out[2] = hash64(data, start, end, seeds[0], seeds[2])
    return 0


def hash_of(data: bytes, seeds: np.ndarray, before: bytes = b"", after: bytes = b"") -> tuple[int, int, int]:
    out = np.zeros(3, np.uint64)
    _hash(np.frombuffer(before + data + after, np.uint8), len(before), len(before) + len(data), seeds, out)
    return int(out[0]), int(out[1]), int(out[2])


def fold(left: int, right: int) -> int:
    product = left * right
    return (product >> 64) ^ (product & MASK)


def slow_hash(data: bytes, seeds: list[int]) -> tuple[int, int, int]:
    a, b = seeds[0], seeds[1]
    at = 0
    while len(data) - at > 16:
        low, high = (int.from_bytes(data[i : i + 8], "little") for i in (at, at + 8))
        a, b, at = fold(low ^ seeds[2], high ^ a), fold(low ^ seeds[3], high ^ b), at + 16
    if len(data) >= 8:
        # Of more than one step's bytes the last 16 are taken, of fewer the first and the last 8.
        low = int.from_bytes((data[-16:] if at else data)[:8], "little")
        high = int.from_bytes(data[-8:], "little")
    elif len(data) >= 4:
        low, high = int.from_bytes(data[:4], "little"), int.from_bytes(data[-4:], "little")
    elif data:
        low, high = data[0] << 8 | data[len(data) >> 1], data[-1]
    else:
        low = high = 0
    a, b = fold(low ^ seeds[2], high ^ a), fold(low ^ seeds[3], high ^ b)
    length = len(data)
    return (
        fold(a ^ seeds[3], length ^ seeds[1]),
        fold(b ^ seeds[2], length ^ seeds[0]),
        fold(a ^ seeds[2], length ^ seeds[0]),
    )


@given(st.binary(max_size=100), st.binary(min_size=32, max_size=32))
def test_hash128_and_hash64_equal_their_slow_twin(data: bytes, seed_bytes: bytes) -> None:
    seeds = hash_seeds(lambda _: seed_bytes)
    assert hash_of(data, seeds) == slow_hash(data, seeds.tolist())


@given(st.binary(max_size=80), st.binary(max_size=40), st.binary(max_size=40))
def test_a_hash_depends_only_on_the_bytes_of_its_range(data: bytes, before: bytes, after: bytes) -> None:
    seeds = hash_seeds()
    assert hash_of(data, seeds) == hash_of(data, seeds, before, after)


@pytest.mark.parametrize("length", [*range(40), 250])
def test_hashing_never_reads_past_the_end_of_the_array(length: int) -> None:
    data = bytes(range(length))
    seeds, out = hash_seeds(), np.zeros(3, np.uint64)
    _hash(at_the_edge(data), 0, length, seeds, out)
    assert tuple(out.tolist()) == hash_of(data, seeds)


def test_every_bit_of_the_input_changes_the_hash() -> None:
    seeds = hash_seeds()
    for length in (1, 3, 7, 8, 15, 16, 17, 31, 33, 64):
        data = bytes(range(length))
        seen = {hash_of(data, seeds)}
        for bit in range(8 * length):
            flipped = bytearray(data)
            flipped[bit >> 3] ^= 1 << (bit & 7)
            seen.add(hash_of(bytes(flipped), seeds))
        assert len({one[2] for one in seen}) == len({one[:2] for one in seen}) == 8 * length + 1


def test_lengths_of_zeros_differ() -> None:
    seeds = hash_seeds()
    assert len({hash_of(bytes(length), seeds)[:2] for length in range(100)}) == 100


def test_other_seeds_give_other_hashes() -> None:
    assert hash_of(b"abc", hash_seeds()) != hash_of(b"abc", hash_seeds())


def slow_fnv1(data: bytes, state: int = 2166136261) -> int:
    for byte in data:
        state = (state * 16777619 & 0xFFFFFFFF) ^ byte
    return state


def test_fnv_gives_its_published_values() -> None:
    # http://www.isthe.com/chongo/src/fnv/test_fnv.c
    assert (fnv1_32_of(b""), fnv1_32_of(b"a"), fnv1_32_of(b"foobar")) == (0x811C9DC5, 0x050C5D7E, 0x31F0B262)
    assert (fnv1a_32_of(b""), fnv1a_32_of(b"a"), fnv1a_32_of(b"foobar")) == (0x811C9DC5, 0xE40C292C, 0xBF9CF968)


@given(st.binary(max_size=200))
def test_fnv1_equals_its_slow_twin(data: bytes) -> None:
    assert fnv1_32_of(data) == slow_fnv1(data)


def test_a_series_token_hashes_tenant_names_and_values_without_separators() -> None:
    labels = (("__name__", "up"), ("job", "größe"))
    assert series_token("user-1", labels) == slow_fnv1("user-1__name__upjobgröße".encode())


def test_xxhash64_gives_its_published_values() -> None:
    assert xxhash64_of(b"") == 0xEF46DB3751D8E999
    assert xxhash64_of(b"a") == 0xD24EC4F1A98C6E5B
    assert xxhash64_of(b"abc") == 0x44BC2CF5AD770999
    assert xxhash64_of(b"Nobody inspects the spammish repetition") == 0xFBCEA83C8A378BF1


P1, P2, P3, P4, P5 = (
    11400714785074694791,
    14029467366897019727,
    1609587929392839161,
    9650029242287828579,
    2870177450012600261,
)


def slow_xxhash64(data: bytes) -> int:
    def rotated(word: int, count: int) -> int:
        return (word << count | word >> (64 - count)) & MASK

    def step(lane: int, word: int) -> int:
        return rotated((lane + word * P2) & MASK, 31) * P1 & MASK

    def word(at: int, size: int) -> int:
        return int.from_bytes(data[at : at + size], "little")

    at, value = 0, P5
    if len(data) >= 32:
        lanes = [(P1 + P2) & MASK, P2, 0, -P1 & MASK]
        while at + 32 <= len(data):
            lanes = [step(lane, word(at + 8 * i, 8)) for i, lane in enumerate(lanes)]
            at += 32
        value = sum(rotated(lane, count) for lane, count in zip(lanes, (1, 7, 12, 18), strict=True)) & MASK
        for lane in lanes:
            value = ((value ^ step(0, lane)) * P1 + P4) & MASK
    value = (value + len(data)) & MASK
    while at + 8 <= len(data):
        value, at = (rotated(value ^ step(0, word(at, 8)), 27) * P1 + P4) & MASK, at + 8
    if at + 4 <= len(data):
        value, at = (rotated(value ^ word(at, 4) * P1 & MASK, 23) * P2 + P3) & MASK, at + 4
    while at < len(data):
        value, at = rotated(value ^ data[at] * P5 & MASK, 11) * P1 & MASK, at + 1
    value = (value ^ value >> 33) * P2 & MASK
    value = (value ^ value >> 29) * P3 & MASK
    return value ^ value >> 32


@given(st.binary(max_size=150))
def test_xxhash64_equals_its_slow_twin(data: bytes) -> None:
    assert xxhash64_of(data) == slow_xxhash64(data)
