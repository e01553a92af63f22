"""Hashes: a seeded one for tables, and those whose values others must agree with.

`hash128` and `hash64` find label sets in tables. Senders may be hostile and choose labels that collide, so
their seeds are random and drawn anew by each process (`hash_seeds`): a value means nothing outside of the
process and must never be stored or sent. FNV-1 gives series tokens (which ingester owns a series) and
xxHash64 is what Prometheus' formats and sharding use; both are fixed for ever.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mimir_ray.kernel import U8, device, kernel

from .bits import load32_le, load64_le, multiply_128

FNV32_OFFSET = 2166136261
FNV32_PRIME = 16777619


def hash_seeds(random_bytes: Callable[[int], bytes] = os.urandom) -> NDArray[np.uint64]:
    """uint64[4] for `hash128`: secrets of this process. Odd, so that no product loses bits to a zero."""
    return np.frombuffer(random_bytes(32), np.uint64) | np.uint64(1)


@device
def _fold(left: Any, right: Any) -> Any:
    high, low = multiply_128(left, right)
    return high ^ low


@device
def _ends(data: Any, start: Any, end: Any) -> Any:
    """Two words that hold every one of at most 16 bytes, without a look outside of start..end."""
    length = end - start
    if length >= 8:
        return load64_le(data, start), load64_le(data, end - 8)
    if length >= 4:
        return load32_le(data, start), load32_le(data, end - 4)
    if length > 0:
        first = np.uint64(data[start])
        middle = np.uint64(data[start + (length >> 1)])
        return first << np.uint64(8) | middle, np.uint64(data[end - 1])
    return np.uint64(0), np.uint64(0)


@device
def hash128(data: Any, start: Any, end: Any, seed0: Any, seed1: Any, seed2: Any, seed3: Any) -> Any:
    """Two uint64 of data[start:end] (which the caller has checked to be inside the array).

    Two lanes with secrets of their own fold 16 bytes a step through a 64 x 64 -> 128 bit product, as wyhash
    does (github.com/wangyi-fudan/wyhash). The seeds are uint64.
    """
    a = seed0
    b = seed1
    at = start
    while end - at > 16:
        low = load64_le(data, at)
        high = load64_le(data, at + 8)
        a = _fold(low ^ seed2, high ^ a)
        b = _fold(low ^ seed3, high ^ b)
        at += 16
    if at > start:
        low, high = load64_le(data, end - 16), load64_le(data, end - 8)
    else:
        low, high = _ends(data, start, end)
    length = np.uint64(end - start)
    a = _fold(low ^ seed2, high ^ a)
    b = _fold(low ^ seed3, high ^ b)
    return _fold(a ^ seed3, length ^ seed1), _fold(b ^ seed2, length ^ seed0)


@device
def chain128(a: Any, b: Any, low: Any, high: Any, seed2: Any, seed3: Any) -> Any:
    """The two lanes of `hash128` after 16 bytes more; they begin as seed0 and seed1.

    For a sequence of things that have 128-bit hashes already: `low` and `high` are one of those.
    """
    return _fold(low ^ seed2, high ^ a), _fold(low ^ seed3, high ^ b)


@device
def chain128_pair(a: Any, b: Any, low: Any, high: Any, other_low: Any, other_high: Any, seed2: Any, seed3: Any) -> Any:
    """The same for two things at once, one lane for each half of their hashes."""
    return _fold(low ^ seed2, other_low ^ a), _fold(high ^ seed3, other_high ^ b)


@device
def chain128_end(a: Any, b: Any, count: Any, seed0: Any, seed1: Any, seed2: Any, seed3: Any) -> Any:
    """Two uint64 of a chain of `count` things."""
    length = np.uint64(count)
    return _fold(a ^ seed3, length ^ seed1), _fold(b ^ seed2, length ^ seed0)


@device
def hash64(data: Any, start: Any, end: Any, seed0: Any, seed1: Any) -> Any:
    """One lane of the above, for where a collision only costs time."""
    a = seed0
    at = start
    while end - at > 16:
        a = _fold(load64_le(data, at) ^ seed1, load64_le(data, at + 8) ^ a)
        at += 16
    if at > start:
        low, high = load64_le(data, end - 16), load64_le(data, end - 8)
    else:
        low, high = _ends(data, start, end)
    a = _fold(low ^ seed1, high ^ a)
    return _fold(a ^ seed1, np.uint64(end - start) ^ seed0)


@device
def fnv1_32(data: Any, start: Any, end: Any, state: Any) -> Any:
    """FNV-1 (multiply, then xor) of data[start:end], going on from `state` (uint32; first: `FNV32_OFFSET`)."""
    # Kept in 64 bits inside the loop: the low half of a product depends on low halves only.
    value = np.uint64(state)
    for at in range(start, end):
        value = (value * np.uint64(FNV32_PRIME)) ^ np.uint64(data[at])
    return np.uint32(value & np.uint64(0xFFFFFFFF))


@device
def fnv1a_32(data: Any, start: Any, end: Any, state: Any) -> Any:
    """FNV-1a (xor, then multiply), otherwise as `fnv1_32`."""
    value = np.uint64(state)
    for at in range(start, end):
        value = (value ^ np.uint64(data[at])) * np.uint64(FNV32_PRIME)
    return np.uint32(value & np.uint64(0xFFFFFFFF))


_P1 = 0x9E3779B185EBCA87
_P2 = 0xC2B2AE3D27D4EB4F
_P3 = 0x165667B19E3779F9
_P4 = 0x85EBCA77C2B2AE63
_P5 = 0x27D4EB2F165667C5


@device
def _rotated(word: Any, count: Any) -> Any:
    return (word << np.uint64(count)) | (word >> np.uint64(64 - count))


@device
def _round(lane: Any, word: Any) -> Any:
    return _rotated(lane + word * np.uint64(_P2), 31) * np.uint64(_P1)


@device
def _merged(value: Any, lane: Any) -> Any:
    return (value ^ _round(np.uint64(0), lane)) * np.uint64(_P1) + np.uint64(_P4)


@device
def xxhash64(data: Any, start: Any, end: Any) -> Any:
    """xxHash64 with seed 0 of data[start:end], uint64 (github.com/Cyan4973/xxHash, doc/xxhash_spec.md)."""
    at = start
    if end - start >= 32:
        lane1 = np.uint64(_P1) + np.uint64(_P2)
        lane2 = np.uint64(_P2)
        lane3 = np.uint64(0)
        lane4 = np.uint64(0) - np.uint64(_P1)
        while end - at >= 32:
            lane1 = _round(lane1, load64_le(data, at))
            lane2 = _round(lane2, load64_le(data, at + 8))
            lane3 = _round(lane3, load64_le(data, at + 16))
            lane4 = _round(lane4, load64_le(data, at + 24))
            at += 32
        value = _rotated(lane1, 1) + _rotated(lane2, 7) + _rotated(lane3, 12) + _rotated(lane4, 18)
        value = _merged(_merged(_merged(_merged(value, lane1), lane2), lane3), lane4)
    else:
        value = np.uint64(_P5)
    value += np.uint64(end - start)
    while end - at >= 8:
        value = _rotated(value ^ _round(np.uint64(0), load64_le(data, at)), 27) * np.uint64(_P1) + np.uint64(_P4)
        at += 8
    if end - at >= 4:
        value = _rotated(value ^ (load32_le(data, at) * np.uint64(_P1)), 23) * np.uint64(_P2) + np.uint64(_P3)
        at += 4
    while at < end:
        value = _rotated(value ^ (np.uint64(data[at]) * np.uint64(_P5)), 11) * np.uint64(_P1)
        at += 1
    value = (value ^ (value >> np.uint64(33))) * np.uint64(_P2)
    value = (value ^ (value >> np.uint64(29))) * np.uint64(_P3)
    return value ^ (value >> np.uint64(32))


@kernel
def _fnv1_32_all(data: U8) -> int:
    return np.int64(fnv1_32(data, 0, len(data), np.uint32(FNV32_OFFSET)))


@kernel
def _fnv1a_32_all(data: U8) -> int:
    return np.int64(fnv1a_32(data, 0, len(data), np.uint32(FNV32_OFFSET)))


@kernel
def _xxhash64_all(data: U8) -> int:
    value: int = xxhash64(data, 0, len(data))  # 0..2^64 - 1
    return value


def fnv1_32_of(data: bytes) -> int:
    """FNV-1, 32 bits, of a whole byte string."""
    return int(_fnv1_32_all(np.frombuffer(data, np.uint8)))


def fnv1a_32_of(data: bytes) -> int:
    """FNV-1a, 32 bits, of a whole byte string."""
    return int(_fnv1a_32_all(np.frombuffer(data, np.uint8)))


def xxhash64_of(data: bytes) -> int:
    """xxHash64 with seed 0 of a whole byte string."""
    return int(_xxhash64_all(np.frombuffer(data, np.uint8)))


def series_token(tenant: str, labels: Iterable[tuple[str, str]]) -> int:
    """The uint32 ring token of one series; labels sorted by name.

    Upstream (Mimir): pkg/mimirpb/compat.go ShardByAllLabelAdapters.
    """
    return fnv1_32_of("".join((tenant, *(name + value for name, value in labels))).encode())
