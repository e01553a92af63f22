"""Whether a block is what its format promises, from its description to its last sample.

Readers check what they read; this reads everything, and checks besides what they take for granted: that sections agree
with each other, that series and chunks are in order, that times are where the description says.
"""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mimir_ray.encoding.crc32c import crc32c_between, load32_be
from mimir_ray.kernel import I32, I64, U8, kernel
from mimir_ray.tsdb.append_file import StorageFailed

from .chunk_files import ChunkSegments
from .decode import Samples, counts_of, decode
from .errors import ENCODINGS, DamagedBlock, UnsupportedChunks
from .index_format import INDEX_FILE
from .index_reader import IndexFile, PostingsTable, Series
from .meta import META_FILE, BlockMeta, is_ulid, read_meta
from .series_labels import Symbols, gathered
from .tombstones import read_tombstones

Progress = Callable[[int, int], None]
"""(series that are done, series of the block); called again and again, and once at the end."""

SERIES_PER_BATCH = 2048
_EVER = -(1 << 63), (1 << 63) - 1
_UNORDERED_NAMES = 1
_UNORDERED_SERIES = 2


@kernel
def first_not_ascending(arena: U8, cuts: I64) -> int:
    """The first string that is not greater, bytewise, than the one before it; -1 if all are."""
    for i in range(1, len(cuts) - 1):
        a = cuts[i - 1]
        b = cuts[i]
        while a < cuts[i] and b < cuts[i + 1] and arena[a] == arena[b]:
            a += 1
            b += 1
        if b == cuts[i + 1] or (a < cuts[i] and arena[a] > arena[b]):
            return i
    return -1


@kernel
def first_unordered_series(offsets: I64, cells: I32, pair_names: I32) -> int:
    """Checks label sets of pairs that are numbered in their order.

    Returns -1, or 4 * s + 1 where the names of series s do not ascend, 4 * s + 2 where its labels are not greater than
    those of series s - 1.
    """
    for s in range(len(offsets) - 1):
        for at in range(offsets[s] + 1, offsets[s + 1]):
            if pair_names[cells[at - 1]] >= pair_names[cells[at]]:
                return 4 * s + 1
        if s > 0:
            a = offsets[s - 1]
            b = offsets[s]
            while a < offsets[s] and b < offsets[s + 1] and cells[a] == cells[b]:
                a += 1
                b += 1
            if b == offsets[s + 1] or (a < offsets[s] and cells[a] > cells[b]):
                return 4 * s + 2
    return -1


@kernel
def first_wrong_postings(data: U8, end: int, lists: I64, offsets: I64, references: I64) -> int:
    """The first of P postings lists that is not whole, or not references[offsets[p]:offsets[p + 1]]; -1 if none is.

    Args:
        data: the index file, whose sections end before data[end].
        lists: int64[P], where each list is.
        offsets, references: int64[P + 1] and int64, what they have to hold.
    """
    for p in range(len(lists)):
        at = lists[p]
        if at < 0 or at + 12 > end:
            return p
        size = np.int64(load32_be(data, at))
        count = np.int64(load32_be(data, at + 4))
        if count != offsets[p + 1] - offsets[p] or size != 4 + 4 * count or at + 8 + size > end:
            return p
        if crc32c_between(data, at + 4, at + 4 + size) != load32_be(data, at + 4 + size):
            return p
        for i in range(count):
            if np.int64(load32_be(data, at + 8 + 4 * i)) != references[offsets[p] + i]:
                return p
    return -1


def verify_block(directory: Path, *, chunks: bool = True, progress: Progress | None = None) -> None:
    """Raises `DamagedBlock` for the first thing that is wrong; `StorageFailed` where a file cannot be read at all.

    Args:
        chunks: also decode every chunk and check its samples. Without, chunks are looked at as far as the index goes.
        progress: told how far it is.

    Chunks in encodings that are known but cannot be read here are checked as far as their checksum and header.
    Memory: the index, and the chunks of some thousand series.
    """
    meta = _meta(directory)
    _files(directory, meta)
    read_tombstones(directory)
    index = IndexFile(directory / INDEX_FILE)
    segments = ChunkSegments(directory / "chunks")
    try:
        series = _index(index)
        _Samples(directory, meta, index, series, segments, chunks, progress or (lambda _done, _total: None)).check()
    finally:
        segments.close()


def _meta(directory: Path) -> BlockMeta:
    if not (directory / META_FILE).is_file():
        raise DamagedBlock(str(directory / META_FILE), 0, "there is no such file")
    meta = read_meta(directory)
    if is_ulid(directory.name) and meta.ulid != directory.name:
        raise DamagedBlock(str(directory / META_FILE), 0, f"it is of block {meta.ulid}")
    return meta


def _files(directory: Path, meta: BlockMeta) -> None:
    """What the description lists is there, as large as it says, and the parts that make a block are."""
    listed = dict(meta.thanos.files) if meta.thanos else {}
    wanted: dict[str, int | None] = {INDEX_FILE: None, **listed}
    for name in meta.thanos.segment_files if meta.thanos else ():
        wanted.setdefault(f"chunks/{name}", None)
    for name, size in wanted.items():
        path = directory / name
        if any(part in ("", ".", "..") for part in name.split("/")):
            raise DamagedBlock(str(directory / META_FILE), 0, f"it lists a file with an invalid path: {name!r}")
        try:
            found = path.lstat()
        except OSError:
            raise DamagedBlock(str(path), 0, "there is no such file") from None
        if not stat.S_ISREG(found.st_mode):
            raise DamagedBlock(str(path), 0, "it is no regular file")
        if size is not None and found.st_size != size:
            raise DamagedBlock(str(path), found.st_size, f"it has {found.st_size} bytes, meta.json says {size}")
    if not (directory / "chunks").is_dir():
        raise DamagedBlock(str(directory / "chunks"), 0, "there is no such folder")
    try:
        paths = ChunkSegments(directory / "chunks").paths
    except StorageFailed as error:
        raise DamagedBlock(str(directory / "chunks"), 0, error.reason) from None
    for number, path in enumerate(paths, 1):
        if path.name != f"{number:06d}":
            raise DamagedBlock(str(path), 0, f"segment {number:06d} is missing")


def _index(index: IndexFile) -> Series:
    """Everything in the index but its chunk lists."""

    def damaged(offset: int, reason: str) -> DamagedBlock:
        return DamagedBlock(str(index.path), offset, reason)

    symbols = index.symbols()
    if (found := first_not_ascending(symbols.arena, symbols.cuts)) >= 0:
        raise damaged(index.toc.symbols, f"symbol {found} is not greater than the one before it")
    table = index.postings_table()
    series = index.series()
    view = series.index.view()
    offsets = view.row_offsets[: len(series.references) + 1]
    cells = view.cells[: offsets[-1]]
    if (found := first_unordered_series(offsets, cells, view.pair_names)) >= 0:
        at = int(series.references[found // 4]) * 16
        if found % 4 == _UNORDERED_NAMES:
            raise damaged(at, "the label names of a series are not in order, or one is there twice")
        raise damaged(at, "a series is not greater than the one before it: out of order, or there twice")
    _postings(index, table, series, cells, offsets)
    return series


def _postings(
    index: IndexFile, table: PostingsTable, series: Series, cells: NDArray[np.int32], row_offsets: NDArray[np.int64]
) -> None:
    """There is a list for each pair, in order, of just the series that have it."""

    def damaged(offset: int, reason: str) -> DamagedBlock:
        return DamagedBlock(str(index.path), offset, reason)

    view = series.index.view()
    if len(table) and len(table) - 1 != view.pairs:
        reason = f"{len(table) - 1} postings lists for {view.pairs} pairs of name and value"
        raise damaged(index.toc.postings_table, reason)
    for starts, ends, numbers in (
        (table.name_starts, table.name_ends, view.name_symbols[view.pair_names[: view.pairs]]),
        (table.value_starts, table.value_ends, view.pair_values[: view.pairs]),
    ):
        told = gathered(index.data, starts[1:], ends[1:])
        cuts = view.symbol_cuts
        meant: Symbols = gathered(view.arena, cuts[numbers], cuts[numbers + 1])
        if not (np.array_equal(told.cuts, meant.cuts) and np.array_equal(told.arena, meant.arena)):
            raise damaged(index.toc.postings_table, "the postings table is not that of the pairs that series have")
    order = np.argsort(cells, kind="stable")
    rows = np.repeat(np.arange(len(series.references)), np.diff(row_offsets))
    offsets = np.zeros(view.pairs + 1, np.int64)
    np.cumsum(np.bincount(cells, minlength=view.pairs), out=offsets[1:])
    end = len(index.data)
    wrong = first_wrong_postings(index.data, end, table.offsets[1:], offsets, series.references[rows[order]])
    if wrong >= 0:
        raise damaged(
            int(table.offsets[wrong + 1]), "a postings list is damaged, or not of the series that have the pair"
        )


class _Samples:
    """Chunk lists and chunks of all series, batch by batch."""

    def __init__(
        self,
        directory: Path,
        meta: BlockMeta,
        index: IndexFile,
        series: Series,
        segments: ChunkSegments,
        decoding: bool,
        progress: Progress,
    ) -> None:
        self._meta_path = str(directory / META_FILE)
        self._meta = meta
        self._index = index
        self._series = series
        self._segments = segments
        self._decoding = decoding
        self._progress = progress
        self._names = [str(path) for path in segments.paths]

    def check(self) -> None:
        total, chunks, samples = len(self._series.references), 0, 0
        for segment in range(len(self._names)):
            self._segments.view(segment)  # its header, whether anything refers to it or not
        for first in range(0, total, SERIES_PER_BATCH):
            self._progress(first, total)
            some = np.arange(first, min(total, first + SERIES_PER_BATCH), dtype=np.int32)
            cuts, mints, maxts, references, overlapping = self._index.chunk_lists(self._series, some, *_EVER)
            self._lists(some, cuts, mints, maxts, overlapping)
            chunks += len(references)
            if self._decoding:
                samples += self._chunks(mints, maxts, references)
        self._progress(total, total)
        stats = self._meta.stats
        counts = [("series", stats.series, total), ("chunks", stats.chunks, chunks)]
        if self._decoding:
            counts.append(("samples", stats.samples, samples))
        for what, said, found in counts:
            if said and said != found:
                raise DamagedBlock(self._meta_path, 0, f"it says {said} {what}, the block has {found}")

    def _lists(
        self,
        rows: NDArray[np.int32],
        cuts: NDArray[np.int64],
        mints: NDArray[np.int64],
        maxts: NDArray[np.int64],
        overlapping: NDArray[np.bool_],
    ) -> None:
        def damaged(row: int, reason: str) -> DamagedBlock:
            return DamagedBlock(str(self._index.path), int(self._series.references[rows[row]]) * 16, reason)

        if overlapping.any():
            raise damaged(int(np.flatnonzero(overlapping)[0]), "the chunks of a series overlap, or are out of order")
        if (empty := cuts[1:] == cuts[:-1]).any():
            raise damaged(int(np.flatnonzero(empty)[0]), "a series has no chunks")
        outside = (mints < self._meta.min_time) | (maxts >= self._meta.max_time) | (mints > maxts)
        if outside.any():
            chunk = int(np.flatnonzero(outside)[0])
            reason = (
                f"a chunk is of [{mints[chunk]}, {maxts[chunk]}], "
                f"the block of [{self._meta.min_time}, {self._meta.max_time})"
            )
            raise damaged(int(np.searchsorted(cuts, chunk, side="right")) - 1, reason)

    def _chunks(self, mints: NDArray[np.int64], maxts: NDArray[np.int64], references: NDArray[np.int64]) -> int:
        """How many samples they have."""
        segments, starts, ends, encodings = self._segments.locate(references)
        data = [self._segments.view(segment) for segment in range(len(self._names))]
        counts = counts_of(data, segments, starts, ends, encodings, self._names)
        unknown = ~np.isin(encodings, list(ENCODINGS))
        for wrong, reason in ((unknown, "a chunk of an unknown encoding"), (counts == 0, "a chunk without samples")):
            if wrong.any():
                raise self._damaged(segments, starts, int(np.flatnonzero(wrong)[0]), reason)
        chosen, samples = self._decode(data, segments, starts, ends, encodings)
        times, offsets = samples.timestamps, samples.offsets
        steps = np.diff(times) <= 0
        steps[offsets[1:-1] - 1] = False  # from one chunk to the next
        if steps.any():
            run = int(np.searchsorted(offsets, np.flatnonzero(steps)[0], side="right")) - 1
            raise self._damaged(segments, starts, int(chosen[run]), "the times of a chunk do not ascend")
        elsewhere = (times[offsets[:-1]] != mints[chosen]) | (times[offsets[1:] - 1] != maxts[chosen])
        if elsewhere.any():
            run = int(np.flatnonzero(elsewhere)[0])
            raise self._damaged(segments, starts, int(chosen[run]), "a chunk has other times than the index says")
        return int(counts.sum())

    def _decode(
        self,
        data: list[NDArray[np.uint8]],
        segments: NDArray[np.int32],
        starts: NDArray[np.int64],
        ends: NDArray[np.int64],
        encodings: NDArray[np.uint8],
    ) -> tuple[NDArray[np.int64], Samples]:
        """(which chunks, their samples): all, but those in encodings that cannot be read here."""
        chosen = np.arange(len(starts))
        while True:
            some = segments[chosen], starts[chosen], ends[chosen], encodings[chosen]
            try:
                return chosen, decode(data, *some, self._names)
            except UnsupportedChunks as error:
                chosen = chosen[encodings[chosen] != error.encoding]

    def _damaged(self, segments: NDArray[np.int32], starts: NDArray[np.int64], chunk: int, reason: str) -> DamagedBlock:
        return DamagedBlock(self._names[segments[chunk]], int(starts[chunk]), reason)
