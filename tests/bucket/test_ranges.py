from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimir_ray.bucket import ranges
from mimir_ray.bucket.ranges import PageCache, RangedObject
from mimir_ray.testing.buckets import MemoryBucket

SIZE = 5000
DATA = np.random.default_rng(3).integers(0, 256, SIZE, np.uint8).tobytes()


class Bucket(MemoryBucket):
    def __init__(self) -> None:
        super().__init__()
        self.put("key", DATA)
        self.reads: list[tuple[int, int]] = []

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        self.reads.append((offset, length))
        return super().get_range(key, offset, length)


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "PAGE_BYTES", 64)
    monkeypatch.setattr(ranges, "GAP_BYTES", 128)
    monkeypatch.setattr(ranges, "REQUEST_BYTES_MAX", 1024)


@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, SIZE - 1), st.integers(1, 300)), min_size=1, max_size=6),
        min_size=1,
        max_size=6,
    ),
    st.sampled_from([0, 2000, 1 << 20]),
    st.booleans(),
)
def test_pieces_have_the_bytes_of_the_object(asked: list[list[tuple[int, int]]], bytes_max: int, threads: bool) -> None:
    cache = PageCache(bytes_max)
    with ThreadPoolExecutor(2) as pool:
        source = RangedObject(Bucket(), "key", cache, pool if threads else None)
        for pieces in asked:
            starts = np.array([start for start, _ in pieces], np.int64)
            lengths = np.array([length for _, length in pieces], np.int64)
            got = source.gather(starts, lengths)
            places, ends = got.at(starts)
            for (start, length), place, end in zip(pieces, places.tolist(), ends.tolist(), strict=True):
                assert got.data[place : min(end, place + length)].tobytes() == DATA[start : start + length]
                assert (place - start) % 16 == 0
            assert cache.bytes <= bytes_max


def test_what_is_cached_is_not_read_again_and_small_gaps_are_read_through() -> None:
    bucket = Bucket()
    seen = []
    source = RangedObject(bucket, "key", PageCache(1 << 20, lambda *counts: seen.append(counts)))
    source.gather(np.array([0, 200, 4000]), np.array([10, 10, 10]))
    assert bucket.reads == [(0, 256), (3968, 64)]
    source.gather(np.array([0, 4000]), np.array([10, 10]))
    assert len(bucket.reads) == 2
    assert seen == [(3, 0), (2, 2)]


def test_a_request_is_never_too_long() -> None:
    bucket = Bucket()
    sizes: list[int] = []
    RangedObject(bucket, "key", PageCache(0), fetched=sizes.append).gather(np.array([0]), np.array([SIZE]))
    assert max(length for _, length in bucket.reads) <= 1024
    assert sum(sizes) == SIZE


def test_a_piece_behind_the_end_has_no_bytes() -> None:
    got = RangedObject(Bucket(), "key", PageCache(1 << 20)).gather(np.array([SIZE + 1000]), np.array([10]))
    places, ends = got.at(np.array([SIZE + 1000]))
    assert ends[0] <= places[0]


def test_the_oldest_pages_go_first() -> None:
    cache = PageCache(3 * 264)
    cache.add("key", {1: bytes(64), 2: bytes(64), 3: bytes(64)})
    assert set(cache.find("key", [1])) == {1}
    cache.add("key", {4: bytes(64)})
    assert set(cache.find("key", [1, 2, 3, 4])) == {1, 3, 4}
    assert cache.evicted == 1
    cache.add("key", {4: bytes(32)})
    assert cache.bytes == 2 * 264 + 232
    assert len(cache) == 3


def test_what_needs_no_request_is_known_before() -> None:
    bucket = Bucket()
    source = RangedObject(bucket, "key", PageCache(1 << 20))
    starts, lengths = np.array([10, 1000], np.int64), np.array([5, 200], np.int64)
    assert not source.is_cached(starts, lengths)
    source.gather(starts, lengths)
    assert source.is_cached(starts, lengths)
    assert source.is_cached(starts[:1], lengths[:1])
    assert not source.is_cached(np.array([3000], np.int64), np.array([1], np.int64))
    assert not source.is_cached(np.array([1100], np.int64), np.array([2000], np.int64))
