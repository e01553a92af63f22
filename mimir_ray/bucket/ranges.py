"""Parts of large objects, read page by page through a cache in memory.

Readers name the pieces that they need (starts and lengths) and get them in one buffer (`Gathered`). What is not cached
is read in as few requests as that takes: pages that are needed and at most `GAP_BYTES` apart travel together.
Objects of a folder of this machine are mapped instead: the operating system keeps their pages.
Objects never change under their key (blocks do not), so a page stays valid for as long as it is kept.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .store import Bucket

PAGE_BYTES = 64 << 10
GAP_BYTES = 512 << 10
"""Upstream: pkg/storegateway/bucket.go defaultPartitionerMaxGapSize."""
REQUEST_BYTES_MAX = 16 << 20
MARGIN = 16
"""Bytes before the first page in a buffer, so that no piece lies where a file would have its header."""
_ENTRY_BYTES = 200


class PageCache:
    """Least recently used pages of any objects, within a bound. Thread-safe."""

    def __init__(self, bytes_max: int, observe: Callable[[int, int], None] = lambda _requests, _hits: None) -> None:
        """`observe(requests, hits)`: hears of every look-up, in pages."""
        self._bytes_max = bytes_max
        self._observe = observe
        self._lock = threading.Lock()
        self._pages: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self.bytes = 0
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._pages)

    def find(self, key: str, numbers: list[int]) -> dict[int, bytes]:
        """Those of the pages that are here."""
        found: dict[int, bytes] = {}
        with self._lock:
            for number in numbers:
                page = self._pages.get((key, number))
                if page is not None:
                    self._pages.move_to_end((key, number))
                    found[number] = page
        self._observe(len(numbers), len(found))
        return found

    def has(self, key: str, numbers: list[int]) -> bool:
        """Whether all of the pages are here; no use of them."""
        with self._lock:
            return all((key, number) in self._pages for number in numbers)

    def add(self, key: str, pages: dict[int, bytes]) -> None:
        with self._lock:
            for number, page in pages.items():
                before = self._pages.pop((key, number), None)
                if before is not None:
                    self.bytes -= len(before) + _ENTRY_BYTES
                self._pages[key, number] = page
                self.bytes += len(page) + _ENTRY_BYTES
            while self.bytes > self._bytes_max and self._pages:
                _, page = self._pages.popitem(last=False)
                self.bytes -= len(page) + _ENTRY_BYTES
                self.evicted += 1


@dataclass(frozen=True, slots=True)
class Gathered:
    """Runs of an object's bytes in one buffer: run r begins at `data[places[r]]`, which is byte `starts[r]` there."""

    data: NDArray[np.uint8]
    starts: NDArray[np.int64]
    places: NDArray[np.int64]
    ends: NDArray[np.int64]
    """Where each run ends in the buffer: what lies behind belongs to other pieces."""

    def at(self, positions: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(where these bytes of the object are in the buffer, where the run that they are in ends)."""
        run = np.searchsorted(self.starts, positions, side="right") - 1
        return positions - self.starts[run] + self.places[run], self.ends[run]


class WholeObject:
    """An object whose bytes are all here."""

    def __init__(self, data: NDArray[np.uint8]) -> None:
        self.data = data

    def read(
        self, starts: NDArray[np.int64], _lengths: NDArray[np.int64]
    ) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
        """(the bytes, where in them each piece begins, where what is there behind each ends)"""
        return self.data, starts, np.full(len(starts), len(self.data), np.int64)


class RangedObject:
    """One object of a bucket, through a cache. Thread-safe."""

    def __init__(
        self,
        bucket: Bucket,
        key: str,
        cache: PageCache,
        executor: Executor | None = None,
        fetched: Callable[[int], None] = lambda _size: None,
    ) -> None:
        """`executor`: runs requests side by side; None has one after another. `fetched` hears of bytes that came."""
        self.key = key
        self._bucket = bucket
        self._cache = cache
        self._executor = executor
        self._fetched = fetched

    def is_cached(self, starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> bool:
        """Whether `gather` needs no request."""
        return self._cache.has(self.key, _pages_of(starts, lengths).tolist())

    def read(
        self, starts: NDArray[np.int64], lengths: NDArray[np.int64]
    ) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
        """(a buffer, where in it each of N > 0 pieces begins, where what is there behind each ends). As `gather`."""
        got = self.gather(starts, lengths)
        return got.data, *got.at(starts)

    def gather(self, starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> Gathered:
        """The bytes of N > 0 pieces; fewer only where the object ends. Raises `BucketUnavailable`, `ObjectNotFound`."""
        numbers = _pages_of(starts, lengths)
        wanted = numbers.tolist()
        pages = self._cache.find(self.key, wanted)
        missing = numbers[[number not in pages for number in wanted]]
        if len(missing):
            fresh = self._read(missing)
            self._cache.add(self.key, fresh)
            pages |= fresh
        breaks = np.flatnonzero(np.diff(numbers) != 1) + 1
        firsts = np.concatenate(([0], breaks))
        sizes = np.fromiter((len(pages[number]) for number in wanted), np.int64, len(wanted))
        # Only the last page of an object is shorter; rounding keeps every run aligned to 16, as series entries are.
        places = MARGIN + np.concatenate(([0], np.cumsum(-(-sizes // MARGIN) * MARGIN)))
        data = np.zeros(int(places[-1]), np.uint8)
        view = memoryview(data)
        for number, place in zip(wanted, places.tolist(), strict=False):
            page = pages[number]
            view[place : place + len(page)] = page
        begins = places[firsts]
        return Gathered(data, numbers[firsts] * PAGE_BYTES, begins, begins + np.add.reduceat(sizes, firsts))

    def _read(self, missing: NDArray[np.int64]) -> dict[int, bytes]:
        """These pages (ascending), by ranged reads."""
        requests = _requests(missing)
        if self._executor is None or len(requests) == 1:
            answers = [self._range(first, count) for first, count in requests]
        else:
            answers = list(self._executor.map(lambda one: self._range(*one), requests))
        wanted = set(missing.tolist())
        return {number: page for answer in answers for number, page in answer.items() if number in wanted}

    def _range(self, first: int, count: int) -> dict[int, bytes]:
        data = memoryview(self._bucket.get_range(self.key, first * PAGE_BYTES, count * PAGE_BYTES))
        self._fetched(len(data))
        # Pages are copies: a view would keep the whole answer for as long as any page of it is kept.
        return {first + at: bytes(data[at * PAGE_BYTES : (at + 1) * PAGE_BYTES]) for at in range(count)}


def _pages_of(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Ascending numbers of the pages that pieces touch, each once."""
    first, last = starts // PAGE_BYTES, (starts + np.maximum(lengths, 1) - 1) // PAGE_BYTES
    if (first == last).all():
        return np.unique(first)
    counts = last - first + 1
    ends = np.cumsum(counts)
    return np.unique(np.arange(int(ends[-1])) + np.repeat(first - (ends - counts), counts))


def _requests(pages: NDArray[np.int64]) -> list[tuple[int, int]]:
    """(first page, pages) of the reads that fetch these ascending pages, and what is in small gaps between them."""
    gap = GAP_BYTES // PAGE_BYTES
    longest = REQUEST_BYTES_MAX // PAGE_BYTES
    requests: list[tuple[int, int]] = []
    start = previous = int(pages[0])
    for page in pages[1:].tolist():
        if page - previous - 1 > gap or page - start >= longest:
            requests.append((start, previous - start + 1))
            start = page
        previous = page
    requests.append((start, previous - start + 1))
    return requests
