"""Writes blocks: index, chunk segments, tombstones, meta.json; visible at once and whole, or not at all.

Files are made in `<ulid>.tmp-for-creation` (Prometheus removes such folders when it starts), made durable and
renamed. Upstream: tsdb/compact.go LeveledCompactor.write.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import TracebackType

import numpy as np

from mimir_ray.model.labels import LabelColumns
from mimir_ray.tsdb.append_file import storage_error, sync_directory
from mimir_ray.tsdb.chunks.xor2 import XOR2

from .chunk_files import SEGMENT_BYTES, XOR, ChunkSegmentWriter
from .chunk_table import ChunkTable, Data
from .index_format import INDEX_FILE
from .index_writer import IndexWriter
from .meta import META_FILE, BlockMeta, Compaction, Stats, Thanos, is_ulid, write_meta
from .series_labels import SeriesLabels, Symbols, labels_of_columns, take_ranges
from .tombstones import TOMBSTONES_FILE, Tombstones, tombstones_bytes

TEMPORARY_SUFFIX = ".tmp-for-creation"
SERIES_PER_BATCH = 8192


class BlockWriter:
    """One block on its way: `append` series in order, then `finish`. A context that removes what was not finished.

    Holds of the block what IndexWriter holds, and one batch. Raises `StorageFailed`. Not thread-safe.
    """

    def __init__(self, parent: Path, ulid: str, symbols: Symbols, segment_bytes: int = SEGMENT_BYTES) -> None:
        assert is_ulid(ulid), ulid
        self.ulid = ulid
        self.stats = Stats()
        self._parent = parent
        self._directory = parent / (ulid + TEMPORARY_SUFFIX)
        try:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory.mkdir(parents=True)
        except OSError as error:
            raise storage_error("make", self._directory, error) from error
        self._chunks = ChunkSegmentWriter(self._directory / "chunks", segment_bytes)
        self._index = IndexWriter(self._directory / INDEX_FILE, symbols)
        self._finished = False

    def __enter__(self) -> BlockWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._finished:
            self._chunks.close()
            self._index.close()
            shutil.rmtree(self._directory, ignore_errors=True)

    def append(self, labels: SeriesLabels, table: ChunkTable, data: Data) -> None:
        """Adds S series, over the symbols given to the constructor, ascending by label set over all batches; their
        chunks ascending and disjoint in time. Series without a chunk are left out."""
        assert len(table.offsets) == len(labels) + 1
        with_chunks = np.flatnonzero(table.offsets[1:] > table.offsets[:-1])
        if not len(with_chunks):
            return
        if len(with_chunks) < len(labels):
            labels = labels.take(with_chunks)
            table = table.take(np.arange(len(table)), np.append(table.offsets[with_chunks], table.offsets[-1]))
        references = self._chunks.append(data, table.sources, table.starts, table.lengths, table.encodings)
        self._index.append(labels, table.offsets, table.mints, table.maxts, references)
        stats = self.stats
        stats.series += len(labels)
        stats.chunks += len(table)
        stats.samples += int(table.counts.sum())
        floats = (table.encodings == XOR) | (table.encodings == XOR2)
        stats.float_samples += int(table.counts[floats].sum())
        stats.histogram_samples = stats.samples - stats.float_samples

    def finish(
        self,
        min_time: int,
        max_time: int,
        compaction: Compaction | None = None,
        source: str = "receive",
        labels: dict[str, str] | None = None,
        resolution: int = 0,
    ) -> BlockMeta:
        """Makes the block visible as `<parent>/<ulid>`; its samples are in [min_time, max_time) (ms).

        `compaction`: of a first-level block unless given; `source` and `labels` go into the `thanos` section.
        """
        compaction = compaction or Compaction(1, [self.ulid])
        self._chunks.finish()
        self._index.finish()
        segments = [f"{number:06d}" for number in range(1, len(self._chunks.sizes) + 1)]
        files: list[tuple[str, int | None]] = [
            (f"chunks/{name}", size) for name, size in zip(segments, self._chunks.sizes, strict=True)
        ]
        files += [(INDEX_FILE, self._index.bytes), (META_FILE, None)]
        thanos = Thanos(dict(labels or {}), source, segments, files, resolution)
        meta = BlockMeta(self.ulid, min_time, max_time, self.stats, compaction, thanos)
        final = self._parent / self.ulid
        try:
            with (self._directory / TOMBSTONES_FILE).open("wb") as file:
                file.write(tombstones_bytes(Tombstones.none()))
                file.flush()
                os.fsync(file.fileno())
            write_meta(self._directory, meta)
            self._directory.rename(final)
            self._finished = True
            sync_directory(self._parent)
        except OSError as error:
            raise storage_error("finish", final, error) from error
        return meta


def write_block(
    parent: Path,
    ulid: str,
    labels: LabelColumns | SeriesLabels,
    table: ChunkTable,
    data: Data,
    min_time: int,
    max_time: int,
    compaction: Compaction | None = None,
    source: str = "receive",
    thanos_labels: dict[str, str] | None = None,
    segment_bytes: int = SEGMENT_BYTES,
) -> BlockMeta:
    """Writes S series, in any order, each label set once, with their chunks (ascending and disjoint in a series)."""
    rows = labels_of_columns(labels) if isinstance(labels, LabelColumns) else labels
    order = rows.order()
    with BlockWriter(parent, ulid, rows.symbols, segment_bytes) as writer:
        for first in range(0, len(order), SERIES_PER_BATCH):
            some = order[first : first + SERIES_PER_BATCH]
            offsets, chunks = take_ranges(table.offsets, some)
            writer.append(rows.take(some), table.take(chunks, offsets), data)
        return writer.finish(min_time, max_time, compaction, source, thanos_labels)
