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
from mimir_ray.tsdb.index.interning import shard_filter
from mimir_ray.tsdb.index.postings import Postings

from .chunk_files import ChunkSegments
from .chunk_table import ChunkTable
from .decode import Samples, counts_of, decode
from .index_format import INDEX_FILE
from .index_reader import IndexFile, Series
from .meta import read_meta
from .tombstones import read_tombstones


class Block:
    """Thread-safe. Files that are removed while somebody reads stay readable until that is over.

    The constructor and every method raise `DamagedBlock` where the files are not what they should be, and
    `StorageFailed` where they cannot be opened; `select` raises `UnsupportedChunks` for encodings nobody knows yet.
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
            samples = self._read(series, some, selection)
            offsets = samples.offsets
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
            end = int(offsets[-1])
            histograms = None if samples.histograms is None else samples.histograms[:end]
            starts = samples.start_timestamps
            yield SeriesBatch(
                view.labels(some), offsets, samples.timestamps[:end], samples.values[:end],
                histograms, None if starts is None else starts[:end],
            )  # fmt: skip
            if selection.limit_series and given >= selection.limit_series:
                return

    def _read(self, series: Series, rows: NDArray[np.int32], selection: Selection) -> Samples:
        """Of these series in range; for labels only, offsets count chunks instead."""
        mint, maxt = selection.mint, selection.maxt
        cuts, _, _, references, overlapping = self._file.chunk_lists(series, rows, mint, maxt)
        if selection.labels_only:
            return Samples(cuts, np.empty(0, np.int64), np.empty(0, np.float64))
        segments, starts, ends, encodings = self._segments.locate(references)
        decoded = decode(self._data(segments), segments, starts, ends, encodings, self.segment_names)
        if not selection.start_timestamps:
            decoded.start_timestamps = None
        samples = decoded.trimmed(cuts, overlapping, mint, maxt)
        return samples.without_deleted(series.references[rows], self.tombstones)

    @property
    def segment_names(self) -> list[str]:
        """Paths of the arrays that `chunk_table` gives, for errors."""
        return [str(path) for path in self._segments.paths]

    def _data(self, segments: NDArray[np.int32]) -> list[NDArray[np.uint8]]:
        """The bytes of all segments, empty for those that are not needed."""
        data = [np.empty(0, np.uint8)] * len(self._segments.paths)
        for segment in np.unique(segments).tolist():
            data[segment] = self._segments.view(segment)
        return data

    def chunk_table(self, rows: NDArray[np.int32], mint: int, maxt: int) -> tuple[ChunkTable, list[NDArray[np.uint8]]]:
        """The chunks of these series (numbers in `series().index`) that touch [mint, maxt], undecoded.

        Any encoding is given; of all, the sample count is the first two bytes. Tombstones are not applied.
        """
        cuts, mints, maxts, references, _ = self._file.chunk_lists(self.series(), rows, mint, maxt)
        segments, starts, ends, encodings = self._segments.locate(references)
        data = self._data(segments)
        counts = counts_of(data, segments, starts, ends, encodings, self.segment_names)
        return ChunkTable(cuts, mints, maxts, segments, starts, ends - starts, counts, encodings), data

    def label_names(self, selection: Selection) -> list[str]:
        """Sorted names of all labels of the selected series, whatever their times."""
        series, rows = self._find(selection)
        return series.index.view().names(rows)

    def label_values(self, name: str, selection: Selection) -> list[str]:
        """Sorted values of one label of the selected series, whatever their times."""
        series, rows = self._find(selection)
        name_id = series.index.find_name(name)
        return series.index.view().values(rows, name_id) if name_id >= 0 else []
