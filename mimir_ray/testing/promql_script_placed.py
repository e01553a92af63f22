"""A `ScriptStorage` that puts samples where a cluster would: into blocks in a bucket, or some there and some in a head.

What scripts load is kept in two heads, of which the older one is cut into blocks when it is first read. Samples before
a cut go to the older, those after it to the newer, those around it to both.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mimir_ray.bucket.block_reader import BlockCaches, BucketBlock
from mimir_ray.bucket.block_source import ReadCounter, find_all, select_blocks
from mimir_ray.bucket.filesystem import FilesystemBucket
from mimir_ray.bucket.found import FoundCache
from mimir_ray.bucket.index_header import IndexHeaders
from mimir_ray.bucket.ranges import PageCache
from mimir_ray.clock import SystemClock
from mimir_ray.model.float_histogram import FloatHistogram
from mimir_ray.model.labels import Labels
from mimir_ray.model.selection import Selection
from mimir_ray.model.series import SeriesBatch
from mimir_ray.model.tenant import DEFAULT_TENANT
from mimir_ray.promql.source import SeriesSource
from mimir_ray.tsdb.block.from_head import block_from_head
from mimir_ray.tsdb.merge import merge_batches

from .bucket_blocks import ulid_of
from .promql_script_head import HeadStorage

CACHE_BYTES = 8 << 20


class BlocksSource:
    """A `SeriesSource` over blocks of one folder, as a store-gateway reads them."""

    def __init__(self, bucket: Path, headers: Path, ulids: Sequence[str]) -> None:
        files = FilesystemBucket(bucket)
        caches = BlockCaches(PageCache(CACHE_BYTES), PageCache(CACHE_BYTES), FoundCache(CACHE_BYTES))
        index_headers = IndexHeaders(files, headers, SystemClock())
        self._blocks = [BucketBlock(files, DEFAULT_TENANT, ulid, index_headers, caches) for ulid in ulids]

    def select(self, selection: Selection) -> Iterator[SeriesBatch]:
        found = find_all(self._blocks, selection.matchers)
        held = [(block, one) for block, one in zip(self._blocks, found, strict=True) if one is not None]
        return select_blocks([block for block, _ in held], [one for _, one in held], selection, ReadCounter())


class Joined:
    """A `SeriesSource` over several that have parts of one series, as a querier joins them: the first one's samples
    stay."""

    def __init__(self, sources: Sequence[SeriesSource]) -> None:
        self._sources = sources

    def select(self, selection: Selection) -> Iterator[SeriesBatch]:
        return merge_batches([list(source.select(selection)) for source in self._sources])


class PlacedStorage:
    """`cut_ms`: older samples go to blocks, those `overlap_ms` around it to blocks and head. None: all go to blocks."""

    def __init__(self, directory: Path, cut_ms: int | None, overlap_ms: int = 0, block_ms: int = 3_600_000) -> None:
        self._directory = directory
        self._cut_ms = 1 << 60 if cut_ms is None else cut_ms
        self._overlap_ms = overlap_ms
        self._block_ms = block_ms
        self._older, self._newer = HeadStorage(directory / "older"), HeadStorage(directory / "newer")
        self._numbers = itertools.count()
        self._times: list[int] = []
        self._blocks: BlocksSource | None = None

    def append(
        self,
        labels: Labels,
        timestamps: NDArray[np.int64],
        values: NDArray[np.float64],
        starts: NDArray[np.int64] | None = None,
    ) -> None:
        self._blocks = None
        for storage, part in (
            (self._older, timestamps < self._cut_ms + self._overlap_ms),
            (self._newer, timestamps >= self._cut_ms - self._overlap_ms),
        ):
            if part.any():
                storage.append(labels, timestamps[part], values[part], None if starts is None else starts[part])
        self._times += [int(timestamps[0]), int(timestamps[-1])]

    def append_histograms(
        self,
        labels: Labels,
        timestamps: NDArray[np.int64],
        histograms: Sequence[FloatHistogram],
        starts: NDArray[np.int64] | None = None,
    ) -> None:
        self._blocks = None
        times = timestamps.tolist()
        for storage, rows in (
            (self._older, [at for at, time in enumerate(times) if time < self._cut_ms + self._overlap_ms]),
            (self._newer, [at for at, time in enumerate(times) if time >= self._cut_ms - self._overlap_ms]),
        ):
            if rows:
                some = [histograms[at] for at in rows]
                storage.append_histograms(labels, timestamps[rows], some, None if starts is None else starts[rows])
        self._times += [times[0], times[-1]]

    def clear(self) -> None:
        self._older.clear()
        self._newer.clear()
        self._times.clear()
        self._blocks = None

    def source(self) -> SeriesSource:
        if self._blocks is None:
            self._blocks = self._cut()
        return Joined([self._newer.source(), self._blocks])

    def _cut(self) -> BlocksSource:
        """Blocks of all that the older head has, two of which overlap where it spans more than one."""
        place = self._directory / str(next(self._numbers))
        numbers = itertools.count()
        ulids = []
        if self._times:
            first, last = min(self._times), max(self._times) + 1
            for start in range(first, last, max(self._block_ms, (last - first) // 8 + 1)):
                end = start + max(self._block_ms, (last - first) // 8 + 1)
                ulid = ulid_of(next(numbers))
                begin = max(first, start - self._block_ms // 4)
                parent = place / "bucket" / DEFAULT_TENANT
                if block_from_head(self._older.head, begin, end, parent, ulid) is not None:
                    ulids.append(ulid)
        return BlocksSource(place / "bucket", place / "headers", ulids)

    def close(self) -> None:
        """Closes the files; the folder is the caller's."""
        self._older.close()
        self._newer.close()
