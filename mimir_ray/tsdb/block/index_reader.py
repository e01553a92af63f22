"""Reads the `index` file of a block: into a `SeriesIndex`, as a head has one, and chunk lists on demand.

Everything is checked before it is believed: checksums of all sections that are read, and every length against the
bytes that are there. Upstream: tsdb/index/index.go Reader.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mimir_ray.encoding.checksum import crc32c
from mimir_ray.encoding.crc32c import crc32c_between, load32_be
from mimir_ray.encoding.varint import read_uvarint, read_varint
from mimir_ray.kernel import I32, I64, U8, OutBool, OutI32, OutI64, OutU32, kernel
from mimir_ray.tsdb.index import interning
from mimir_ray.tsdb.index.series_index import SeriesIndex

from .errors import DamagedBlock
from .index_format import HEADER, MAGIC, READABLE_VERSIONS, TOC, TOC_BYTES
from .mapping import map_file
from .series_labels import Symbols, gathered


@dataclass(frozen=True, slots=True)
class Toc:
    """Where the sections start; 0: there is none."""

    symbols: int
    series: int
    label_indices: int
    label_indices_table: int
    postings: int
    postings_table: int


@kernel
def find_strings(data: U8, first: int, end: int, starts: OutI64, ends: OutI64) -> int:
    """Finds len(starts) strings, each with its length before it, from data[first]; returns where they end, or -1."""
    at = first
    for i in range(len(starts)):
        size, at, code = read_uvarint(data, at, end)
        if code != 0 or size > np.uint64(end - at):
            return -1
        starts[i] = at
        at += np.int64(size)
        ends[i] = at
    return at


@kernel
def find_postings(
    data: U8, first: int, end: int, name_starts: OutI64, name_ends: OutI64, value_starts: OutI64, value_ends: OutI64,
    offsets: OutI64,
) -> int:  # fmt: skip
    """The entries of the postings offset table; returns where they end, or -(p + 1) where entry p is malformed."""
    at = first
    for p in range(len(offsets)):
        count, at, code = read_uvarint(data, at, end)
        if code != 0 or count != np.uint64(2):
            return -(p + 1)
        size, at, code = read_uvarint(data, at, end)
        if code != 0 or size > np.uint64(end - at):
            return -(p + 1)
        name_starts[p] = at
        at += np.int64(size)
        name_ends[p] = at
        size, at, code = read_uvarint(data, at, end)
        if code != 0 or size > np.uint64(end - at):
            return -(p + 1)
        value_starts[p] = at
        at += np.int64(size)
        value_ends[p] = at
        offset, at, code = read_uvarint(data, at, end)
        if code != 0 or offset >= np.uint64(len(data)):
            return -(p + 1)
        offsets[p] = np.int64(offset)
    return at


@kernel
def measure_series(
    data: U8, first: int, end: int, references: I64, bodies: OutI64, body_ends: OutI64, labels: OutI64
) -> int:
    """Where the entries of S series lie and how many labels they have; checks their checksums.

    Args:
        data: the file; entries lie in data[first:end].
        references: int64[S], position / 16.
        bodies, body_ends: written, from the first label to before the checksum.
        labels: written, the number of labels.

    Returns 0, or -(s + 1) where series s is damaged.
    """
    for s in range(len(references)):
        at = references[s] * 16
        if at < first or at >= end:
            return -(s + 1)
        size, at, code = read_uvarint(data, at, end)
        if code != 0 or end - at < 4 or size > np.uint64(end - at - 4):
            return -(s + 1)
        body_end = at + np.int64(size)
        if crc32c_between(data, at, body_end) != load32_be(data, body_end):
            return -(s + 1)
        count, at, code = read_uvarint(data, at, body_end)
        if code != 0 or count > np.uint64(body_end - at) >> np.uint64(1):
            return -(s + 1)
        bodies[s] = at
        body_ends[s] = body_end
        labels[s] = np.int64(count)
    return 0


@kernel
def decode_labels(
    data: U8, bodies: I64, body_ends: I64, offsets: I64, symbols: int, names: OutI32, values: OutI32, chunks_at: OutI64
) -> int:
    """Reads the labels of S measured series; `chunks_at`: where their chunk lists start. 0, or -(s + 1) for damage."""
    for s in range(len(bodies)):
        at = bodies[s]
        for i in range(offsets[s], offsets[s + 1]):
            name, at, code = read_uvarint(data, at, body_ends[s])
            value, at, other = read_uvarint(data, at, body_ends[s])
            if code != 0 or other != 0 or name >= np.uint64(symbols) or value >= np.uint64(symbols):
                return -(s + 1)
            names[i] = np.int32(name)
            values[i] = np.int32(value)
        chunks_at[s] = at
    return 0


@kernel
def number_pairs(names: I32, values: I32, table: OutI32, pair_names: OutI32, pair_values: OutI32, cells: OutI32) -> int:
    """Numbers the different pairs by first use: cells[i] is the pair of label i; returns how many.

    `table`: int32, zeros, a power of two long and longer than there may be pairs; -1 if it or the pairs run full.
    """
    mask = np.uint64(len(table) - 1)
    count = 0
    for i in range(len(names)):
        key = np.uint64(names[i]) << np.uint64(32) | np.uint64(values[i])
        slot = (key * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(20) & mask
        while True:
            entry = np.int64(table[np.int64(slot)])
            if entry == 0:
                if count >= len(pair_names):
                    return -1
                pair_names[count] = names[i]
                pair_values[count] = values[i]
                cells[i] = count
                count += 1
                table[np.int64(slot)] = count
                break
            if pair_names[entry - 1] == names[i] and pair_values[entry - 1] == values[i]:
                cells[i] = entry - 1
                break
            slot = (slot + np.uint64(1)) & mask
    return count


@kernel
def read_chunk_lists(
    data: U8, series: I32, chunks_at: I64, body_ends: I64, mint: int, maxt: int, fill: bool,
    offsets: OutI64, mints: OutI64, maxts: OutI64, references: OutI64, overlapping: OutBool,
) -> int:  # fmt: skip
    """The chunks of B series that overlap [mint, maxt].

    Args:
        series: int32[B], rows of `chunks_at`, `body_ends`.
        fill: first False, to write `offsets` int64[B + 1] only, then True, to write the columns of offsets[B] rows.
        overlapping: bool[B], written: whether the chunks of the series are not in order of time and disjoint.

    Returns 0, or -(b + 1) where the list of series[b] is malformed.
    """
    found = np.int64(0)
    for b in range(len(series)):
        offsets[b] = found
        overlapping[b] = False
        s = series[b]
        end = body_ends[s]
        count, at, code = read_uvarint(data, chunks_at[s], end)
        if code != 0:
            return -(b + 1)
        high = np.int64(0)
        reference = np.int64(0)
        done = np.uint64(0)
        while done < count:
            if done == np.uint64(0):
                low, at, code = read_varint(data, at, end)
            else:
                step, at, code = read_uvarint(data, at, end)
                low = high + np.int64(step)
                if low <= high:
                    overlapping[b] = True
            if code != 0:
                return -(b + 1)
            span, at, code = read_uvarint(data, at, end)
            if code != 0:
                return -(b + 1)
            high = low + np.int64(span)
            if done == np.uint64(0):
                raw, at, code = read_uvarint(data, at, end)
                reference = np.int64(raw)
            else:
                further, at, code = read_varint(data, at, end)
                reference += further
            if code != 0:
                return -(b + 1)
            if low <= maxt and high >= mint:
                if fill:
                    mints[found] = low
                    maxts[found] = high
                    references[found] = reference
                found += 1
            done += np.uint64(1)
    offsets[len(series)] = found
    return 0


@kernel
def decode_postings(data: U8, first: int, references: OutU32) -> None:
    """The references of a list that starts at data[first]."""
    for i in range(len(references)):
        references[i] = np.uint32(load32_be(data, first + 4 * i))


@dataclass(frozen=True, slots=True)
class PostingsTable:
    """P entries, in the order of the file: name and value as ranges of the file's bytes, and where the list is."""

    name_starts: NDArray[np.int64]
    name_ends: NDArray[np.int64]
    value_starts: NDArray[np.int64]
    value_ends: NDArray[np.int64]
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets)


@dataclass(frozen=True, slots=True)
class Series:
    """All series of a block. `references` int64[S]: as tombstones name them, ascending; `chunks_at`, `body_ends`:
    where each one's chunk list is in the file; `index`: labels, by series number."""

    references: NDArray[np.int64]
    chunks_at: NDArray[np.int64]
    body_ends: NDArray[np.int64]
    index: SeriesIndex


class IndexFile:
    """One index file, mapped. Opening checks header and table of contents; each method what it reads.

    Everything raises `DamagedBlock`.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = path
        self.data = map_file(path)
        data = self.data
        if len(data) < len(HEADER) + TOC_BYTES:
            raise self._damaged(len(data), "too short for an index")
        magic, version = struct.unpack(">IB", data[: len(HEADER)].tobytes())
        if magic != MAGIC:
            raise self._damaged(0, "no index file")
        if version not in READABLE_VERSIONS:
            raise self._damaged(4, f"index version {version} is not supported")
        self._end = len(data) - TOC_BYTES
        raw = data[self._end :].tobytes()
        if crc32c(raw[:-4]).to_bytes(4, "big") != raw[-4:]:
            raise self._damaged(self._end, "checksum mismatch of the table of contents")
        places = TOC.unpack(raw[:-4])
        self.toc = Toc(*places)
        if max(places) > self._end:
            raise self._damaged(self._end, "a section outside of the file")

    def _damaged(self, offset: int, reason: str) -> DamagedBlock:
        return DamagedBlock(str(self.path), offset, reason)

    def section(self, at: int) -> tuple[int, int, int]:
        """(count, first byte, end) of a section of length, count, body and checksum, which is looked at."""
        if at + 12 > self._end:
            raise self._damaged(at, "a section outside of the file")
        size = int.from_bytes(self.data[at : at + 4].tobytes(), "big")
        first, end = at + 4, at + 4 + size
        if size < 4 or end + 4 > self._end:
            raise self._damaged(at, "a section longer than the file")
        if crc32c(self.data[first:end]).to_bytes(4, "big") != self.data[end : end + 4].tobytes():
            raise self._damaged(at, "checksum mismatch")
        return int.from_bytes(self.data[first : first + 4].tobytes(), "big"), first + 4, end

    def symbols(self) -> Symbols:
        """All strings."""
        if not self.toc.symbols:
            return Symbols(np.zeros(0, np.uint8), np.zeros(1, np.int64))
        count, first, end = self.section(self.toc.symbols)
        if count > end - first:
            raise self._damaged(self.toc.symbols, "more symbols than bytes")
        starts, ends = np.empty(count, np.int64), np.empty(count, np.int64)
        if find_strings(self.data, first, end, starts, ends) < 0:
            raise self._damaged(self.toc.symbols, "a symbol is malformed")
        return gathered(self.data, starts, ends)

    def postings_table(self) -> PostingsTable:
        """Which lists there are; the first one, of two empty strings, is of all series."""
        if not self.toc.postings_table:
            return PostingsTable(*(np.empty(0, np.int64) for _ in range(5)))
        count, first, end = self.section(self.toc.postings_table)
        if count > (end - first) // 4:
            raise self._damaged(self.toc.postings_table, "more entries than bytes")
        columns = tuple(np.empty(count, np.int64) for _ in range(5))
        if (code := find_postings(self.data, first, end, *columns)) < 0:
            raise self._damaged(self.toc.postings_table, f"entry {-code - 1} of the postings table is malformed")
        return PostingsTable(*columns)

    def postings(self, offset: int) -> NDArray[np.uint32]:
        """The ascending references of one list."""
        count, first, end = self.section(offset)
        if end - first != 4 * count:
            raise self._damaged(offset, "a postings list of another length than it says")
        references = np.empty(count, np.uint32)
        decode_postings(self.data, first, references)
        return references

    def all_references(self, table: PostingsTable) -> NDArray[np.int64]:
        """Of all series, ascending."""
        if not len(table):
            return np.empty(0, np.int64)
        if table.name_ends[0] != table.name_starts[0] or table.value_ends[0] != table.value_starts[0]:
            raise self._damaged(self.toc.postings_table, "no list of all series")
        references = self.postings(int(table.offsets[0])).astype(np.int64)
        if (references[1:] <= references[:-1]).any():
            raise self._damaged(int(table.offsets[0]), "references that do not ascend")
        return references

    def series(self) -> Series:
        """All of them, with an index to find them by. About 0.5 µs a series and 1 µs a string."""
        table = self.postings_table()
        references = self.all_references(table)
        symbols = self.symbols()
        count = len(references)
        bodies, body_ends, labels = np.empty(count, np.int64), np.empty(count, np.int64), np.empty(count, np.int64)
        end = self.toc.label_indices or self.toc.postings or self._end
        code = measure_series(self.data, self.toc.series, end, references, bodies, body_ends, labels)
        if code < 0:
            raise self._damaged(int(references[-code - 1]) * 16, "the series is malformed, or its checksum differs")
        offsets = np.zeros(count + 1, np.int64)
        np.cumsum(labels, out=offsets[1:])
        names, values = np.empty(int(offsets[-1]), np.int32), np.empty(int(offsets[-1]), np.int32)
        chunks_at = np.empty(count, np.int64)
        code = decode_labels(self.data, bodies, body_ends, offsets, len(symbols), names, values, chunks_at)
        if code < 0:
            raise self._damaged(int(references[-code - 1]) * 16, "a label of the series is malformed")
        index = _series_index(symbols, offsets, names, values, max(0, len(table) - 1))
        if index is None:
            raise self._damaged(self.toc.postings_table, "series have pairs that have no postings")
        return Series(references, chunks_at, body_ends, index)

    def chunk_lists(
        self, series: Series, rows: NDArray[np.int32], mint: int, maxt: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
        """(offsets int64[B + 1], mints, maxts, references, bool[B] overlapping) of chunks that touch [mint, maxt]."""
        offsets = np.empty(len(rows) + 1, np.int64)
        overlapping = np.empty(len(rows), np.bool_)
        columns = tuple(np.empty(0, np.int64) for _ in range(3))
        for fill in (False, True):
            code = read_chunk_lists(
                self.data, rows, series.chunks_at, series.body_ends, mint, maxt, fill, offsets, *columns, overlapping
            )
            if code < 0:
                at = int(series.references[rows[-code - 1]]) * 16
                raise self._damaged(at, "the chunk list of the series is malformed")
            if not fill:
                columns = tuple(np.empty(int(offsets[-1]), np.int64) for _ in range(3))
        return offsets, *columns, overlapping


def _series_index(
    symbols: Symbols, offsets: NDArray[np.int64], names: NDArray[np.int32], values: NDArray[np.int32], pairs_max: int
) -> SeriesIndex | None:
    """The index of these series; None if they have more than `pairs_max` different pairs."""
    table = np.zeros(1 << max(4, (2 * pairs_max).bit_length()), np.int32)
    pair_names, pair_values = np.empty(pairs_max, np.int32), np.empty(pairs_max, np.int32)
    cells = np.empty(len(names), np.int32)
    pairs = number_pairs(names, values, table, pair_names, pair_values, cells)
    if pairs < 0:
        return None
    order = np.lexsort((pair_values[:pairs], pair_names[:pairs]))
    renumbered = np.empty(pairs, np.int32)
    renumbered[order] = np.arange(pairs, dtype=np.int32)
    cells = renumbered[cells]
    pair_symbols, pair_values = pair_names[order], pair_values[order]
    name_symbols, firsts, pair_names, name_pairs = np.unique(
        pair_symbols, return_index=True, return_inverse=True, return_counts=True
    )
    previous = np.arange(-1, pairs - 1, dtype=np.int32)
    previous[firsts] = -1
    symbol_names = np.zeros(len(symbols), np.int32)
    symbol_names[name_symbols] = np.arange(1, len(name_symbols) + 1, dtype=np.int32)
    series = len(offsets) - 1
    used = np.zeros(interning.USED_LENGTH, np.int64)
    used[interning.BYTES], used[interning.SYMBOLS] = len(symbols.arena), len(symbols)
    used[interning.PAIRS], used[interning.NAMES] = pairs, len(name_symbols)
    used[interning.SERIES], used[interning.CELLS], used[interning.LIVE] = series, len(cells), series
    index = SeriesIndex()
    columns = {
        "used": used,
        "arena": symbols.arena,
        "symbol_cuts": symbols.cuts,
        "symbol_names": symbol_names,
        "pair_names": pair_names.astype(np.int32),
        "pair_values": pair_values,
        "pair_previous": previous,
        "pair_series": np.bincount(cells, minlength=pairs).astype(np.int32),
        "name_symbols": name_symbols,
        "name_heads": (firsts + name_pairs - 1).astype(np.int32),
        "name_pairs": name_pairs.astype(np.int32),
        "row_offsets": offsets,
        "cells": cells,
        "dropped": np.zeros(series, np.bool_),
    }
    index.restore({f"index.{name}": column for name, column in columns.items()})
    return index
