"""`Block`: a block on disk as a SeriesSource.

The index is read whole when it is first needed, into the same `SeriesIndex` and `Postings` that a head has; chunk
lists and chunks are read from the mapped files for the series that are asked for, batch by batch.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mimir_ray.model.selection import Selection
from mimir_ray.model.series import SeriesBatch
from mimir_ray.tsdb.chunks.xor import chunk_counts, decode_chunks
from mimir_ray.tsdb.head.reading import trim
from mimir_ray.tsdb.index.interning import shard_filter
from mimir_ray.tsdb.index.postings import Postings

from .chunk_files import XOR, ChunkSegments
from .chunk_merge import ChunkTable
from .errors import DamagedBlock, UnsupportedChunks
from .index_format import INDEX_FILE
from .index_reader import IndexFile, Series
from .meta import read_meta
from .tombstones import read_tombstones, remove_deleted


class Block:
    """Thread-safe. Files that are removed while somebody reads stay readable until that is over.

    The constructor and every method raise `DamagedBlock` where the files are not what they should be, and
    `StorageFailed` where they cannot be opened; `select` raises `UnsupportedChunks` for samples that are not floats.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.meta = read_meta(directory)
        self.tombstones = read_tombstones(directory)
        self._file = IndexFile(directory / INDEX_FILE)
        self._segments = ChunkSegments(directory / "chunks")
        self._lock = threading.RLock()
        self._series: Series | None = None
        self._postings: Postings | None = None

    @property
    def bytes(self) -> int:
        """On disk, of index and chunks."""
        return len(self._file.data) + sum(path.stat().st_size for path in self._segments.paths)

    @property
    def loaded_bytes(self) -> int:
        """Memory that the index takes, 0 while it is not needed."""
        with self._lock:
            if self._series is None or self._postings is None:
                return 0
            return self._series.index.bytes + self._postings.bytes

    def series_count(self, selection: Selection) -> int:
        """How many series satisfy the matchers, whatever their times."""
        return len(self._find(selection)[1])

    def series(self) -> Series:
        """All series and their labels, read once."""
        with self._lock:
            if self._series is None:
                self._series = self._file.series()
                self._postings = Postings(self._series.index)
            return self._series

    def close(self) -> None:
        """Forgets index and maps; arrays that somebody holds stay valid."""
        with self._lock:
            self._series = self._postings = None
        self._segments.close()

    def _find(self, selection: Selection) -> tuple[Series, NDArray[np.int32]]:
        with self._lock:
            series = self.series()
            assert self._postings is not None
            rows = self._postings.select(selection.matchers)
            if selection.shard is not None and selection.shard.count > 1:
                kept = np.empty(len(rows), np.int32)
                hashes = series.index.stable_hashes()
                rows = kept[: shard_filter(rows, hashes, selection.shard.index, selection.shard.count, kept)]
        return series, rows

    def select(self, selection: Selection) -> Iterator[SeriesBatch]:
        """The selected series in the order of the block, that of their label sets. See SeriesSource."""
        if selection.maxt < self.meta.min_time or selection.mint > self.meta.max_time:
            return
        series, rows = self._find(selection)
        view = series.index.view()
        given = 0
        for first in range(0, len(rows), max(1, selection.batch_series)):
            some = rows[first : first + max(1, selection.batch_series)]
            offsets, timestamps, values = self._read(series, some, selection)
            found = offsets[1:] > offsets[:-1]
            some, offsets = some[found], np.append(offsets[:-1][found], offsets[-1])
            if selection.limit_series and given + len(some) > selection.limit_series:
                some = some[: selection.limit_series - given]
                offsets = offsets[: len(some) + 1]
            if not len(some):
                continue
            given += len(some)
            if selection.labels_only:
                offsets = np.zeros(len(some) + 1, np.int64)
            yield SeriesBatch(view.labels(some), offsets, timestamps[: offsets[-1]], values[: offsets[-1]])
            if selection.limit_series and given >= selection.limit_series:
                return

    def _read(
        self, series: Series, rows: NDArray[np.int32], selection: Selection
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """(offsets, timestamps, values) of these series in range; for labels only, offsets count chunks instead."""
        mint, maxt = selection.mint, selection.maxt
        cuts, _, _, references, overlapping = self._file.chunk_lists(series, rows, mint, maxt)
        if selection.labels_only:
            return cuts, np.empty(0, np.int64), np.empty(0, np.float64)
        ends, timestamps, values = self._decode(references)
        offsets = np.empty(len(rows) + 1, np.int64)
        total = trim(mint, maxt, ends[cuts], overlapping, timestamps, values, offsets)
        stones = self.tombstones
        if len(stones):
            total = remove_deleted(
                series.references[rows], stones.references, stones.mints, stones.maxts, offsets, timestamps, values
            )
        return offsets, timestamps[:total], values[:total]

    def _decode(
        self, references: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """(offsets int64[C + 1], timestamps, values) of chunks."""
        segments, starts, ends, encodings = self._segments.locate(references)
        if (other := encodings != XOR).any():
            raise UnsupportedChunks(str(self.directory), int(encodings[other][0]))
        counts = self._counts(segments, starts, ends)
        offsets = np.zeros(len(references) + 1, np.int64)
        np.cumsum(counts, out=offsets[1:])
        timestamps, values = np.empty(int(offsets[-1]), np.int64), np.empty(int(offsets[-1]), np.float64)
        for segment in np.unique(segments).tolist():
            rows = np.flatnonzero(segments == segment)
            data = self._segments.view(segment)
            code = decode_chunks(data, starts[rows], ends[rows], offsets[rows], timestamps, values)
            if code < 0:
                raise self._damaged_chunk(segment, int(starts[rows[-code - 1]]))
        return offsets, timestamps, values

    def _counts(
        self, segments: NDArray[np.int32], starts: NDArray[np.int64], ends: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        counts = np.empty(len(starts), np.int64)
        for segment in np.unique(segments).tolist():
            rows = np.flatnonzero(segments == segment)
            found = np.empty(len(rows), np.int64)
            code = chunk_counts(self._segments.view(segment), starts[rows], ends[rows], found)
            if code < 0:
                raise self._damaged_chunk(segment, int(starts[rows[-code - 1]]))
            counts[rows] = found
        return counts

    def _damaged_chunk(self, segment: int, offset: int) -> DamagedBlock:
        return DamagedBlock(str(self._segments.paths[segment]), offset, "the chunk cannot be decoded")

    def chunk_table(self, rows: NDArray[np.int32], mint: int, maxt: int) -> tuple[ChunkTable, list[NDArray[np.uint8]]]:
        """The chunks of these series (numbers in `series().index`) that touch [mint, maxt], undecoded.

        Any encoding is given; of all, the sample count is the first two bytes. Tombstones are not applied.
        """
        cuts, mints, maxts, references, _ = self._file.chunk_lists(self.series(), rows, mint, maxt)
        segments, starts, ends, encodings = self._segments.locate(references)
        counts = self._counts(segments, starts, ends)
        table = ChunkTable(cuts, mints, maxts, segments, starts, ends - starts, counts, encodings)
        return table, [self._segments.view(segment) for segment in range(len(self._segments.paths))]

    def label_names(self, selection: Selection) -> list[str]:
        """Sorted names of all labels of the selected series, whatever their times."""
        series, rows = self._find(selection)
        return series.index.view().names(rows)

    def label_values(self, name: str, selection: Selection) -> list[str]:
        """Sorted values of one label of the selected series, whatever their times."""
        series, rows = self._find(selection)
        name_id = series.index.find_name(name)
        return series.index.view().values(rows, name_id) if name_id >= 0 else []
