"""Writes the `index` file of a block: symbols, series batch by batch, then postings and tables.

Label indices are left out, as Prometheus does since it no longer reads them. Held in memory until the end: eight
bytes a label and four a series. Upstream: tsdb/index/index.go Writer.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mimir_ray.encoding.bits import copy_bytes
from mimir_ray.encoding.checksum import crc32c
from mimir_ray.encoding.crc32c import crc32c_between, store32_be
from mimir_ray.encoding.varint import write_uvarint, write_varint
from mimir_ray.errors import LimitExceeded
from mimir_ray.kernel import I32, I64, U8, U32, OutI64, OutU8, OutU32, kernel
from mimir_ray.tsdb.append_file import AppendFile

from .index_format import BYTES_MAX, HEADER, SECTION_BYTES_MAX, SERIES_ALIGNMENT, TOC
from .series_labels import SeriesLabels, Symbols

_SERIES_BYTES = 10 + 5 + 4 + SERIES_ALIGNMENT + 10
_LABEL_BYTES = 10
_CHUNK_BYTES = 30


class IndexTooLarge(LimitExceeded):
    """The format has no room for so many series or strings."""


@kernel
def encode_symbols(arena: U8, cuts: I64, out: OutU8) -> int:
    """Writes every string with its length before it; returns the bytes."""
    at = 0
    for i in range(len(cuts) - 1):
        size = cuts[i + 1] - cuts[i]
        at = write_uvarint(out, at, np.uint64(size))
        copy_bytes(out, at, arena, cuts[i], size)
        at += size
    return at


@kernel
def encode_series(
    base: int, offsets: I64, names: I32, values: I32, chunk_offsets: I64, mints: I64, maxts: I64, chunk_references: I64,
    out: OutU8, references: OutU32,
) -> int:  # fmt: skip
    """Writes S series entries to `out`, which lies at byte `base` (a multiple of 16) of the file.

    Args:
        offsets, names, values: the label sets, see SeriesLabels.
        chunk_offsets, mints, maxts, chunk_references: their chunks, ascending.
        out: zeros, long enough.
        references: uint32[S], written: position in the file / 16.

    Returns the bytes, without padding behind the last one.
    """
    end = np.int64(0)
    for s in range(len(references)):
        at = (end + 15) & ~np.int64(15)
        references[s] = np.uint32((base + at) >> 4)
        # The length comes first but is known last: room for the longest, closed afterwards.
        body = at + 10
        write = write_uvarint(out, body, np.uint64(offsets[s + 1] - offsets[s]))
        for i in range(offsets[s], offsets[s + 1]):
            write = write_uvarint(out, write, np.uint64(names[i]))
            write = write_uvarint(out, write, np.uint64(values[i]))
        first, last = chunk_offsets[s], chunk_offsets[s + 1]
        write = write_uvarint(out, write, np.uint64(last - first))
        for c in range(first, last):
            if c == first:
                write = write_varint(out, write, mints[c])
            else:
                write = write_uvarint(out, write, np.uint64(mints[c] - maxts[c - 1]))
            write = write_uvarint(out, write, np.uint64(maxts[c] - mints[c]))
            if c == first:
                write = write_uvarint(out, write, np.uint64(chunk_references[c]))
            else:
                write = write_varint(out, write, chunk_references[c] - chunk_references[c - 1])
        size = write - body
        start = write_uvarint(out, at, np.uint64(size))
        copy_bytes(out, start, out, body, size)
        end = store32_be(out, start + size, crc32c_between(out, start, start + size))
        for rest in range(end, write):
            out[rest] = 0
    return end


@kernel
def spread_references(offsets: I64, references: U32, base: int, out: OutU32) -> None:
    """out[base + i] = the reference of the series that label i belongs to."""
    for s in range(len(references)):
        for i in range(offsets[s], offsets[s + 1]):
            out[base + i] = references[s]


@kernel
def sort_by_symbol(keys: I32, order: I64, counts: OutI64, out: OutI64) -> None:
    """Stable counting sort of `order` (positions in `keys`) by keys; `counts`: zeros, symbols + 1."""
    for i in range(len(order)):
        counts[keys[order[i]] + 1] += 1
    for k in range(1, len(counts)):
        counts[k] += counts[k - 1]
    for i in range(len(order)):
        key = keys[order[i]]
        out[counts[key]] = order[i]
        counts[key] += 1


@kernel
def encode_postings(cuts: I64, references: U32, out: OutU8) -> None:
    """Writes the lists references[cuts[p]:cuts[p + 1]] as sections back to back, 12 bytes and 4 a reference each."""
    at = np.int64(0)
    for p in range(len(cuts) - 1):
        count = cuts[p + 1] - cuts[p]
        body = store32_be(out, at, np.uint64(4 + 4 * count))
        at = store32_be(out, body, np.uint64(count))
        for i in range(cuts[p], cuts[p + 1]):
            at = store32_be(out, at, np.uint64(references[i]))
        at = store32_be(out, at, crc32c_between(out, body, at))


@kernel
def encode_postings_table(names: I32, values: I32, offsets: I64, arena: U8, cuts: I64, out: OutU8) -> int:
    """Writes the entries of pairs (symbols `names`, `values`) whose lists are at `offsets`; returns the bytes."""
    at = 0
    for p in range(len(offsets)):
        at = write_uvarint(out, at, np.uint64(2))
        for symbol in (np.int64(names[p]), np.int64(values[p])):
            size = cuts[symbol + 1] - cuts[symbol]
            at = write_uvarint(out, at, np.uint64(size))
            copy_bytes(out, at, arena, cuts[symbol], size)
            at += size
        at = write_uvarint(out, at, np.uint64(offsets[p]))
    return at


class IndexWriter:
    """Makes a new file at `path`. Raises `StorageFailed`; the file is of no use then. Not thread-safe."""

    def __init__(self, path: Path, symbols: Symbols) -> None:
        self._symbols = symbols
        self._file = AppendFile(path, create=True)
        self._names: list[NDArray[np.int32]] = []
        self._values: list[NDArray[np.int32]] = []
        self._label_references: list[NDArray[np.uint32]] = []
        self._references: list[NDArray[np.uint32]] = []
        self._file.append([HEADER])
        body = np.empty(len(symbols.arena) + 10 * len(symbols), np.uint8)
        body = body[: encode_symbols(symbols.arena, symbols.cuts, body)]
        self._symbols_at = self._section(len(symbols), body)
        self._pad(SERIES_ALIGNMENT)
        self._series_at = self._file.size

    @property
    def bytes(self) -> int:
        """Written so far."""
        return self._file.size

    def append(
        self,
        labels: SeriesLabels,
        chunk_offsets: NDArray[np.int64],
        mints: NDArray[np.int64],
        maxts: NDArray[np.int64],
        chunk_references: NDArray[np.int64],
    ) -> NDArray[np.uint32]:
        """Adds series behind those there are: label sets over the file's symbols, ascending over all batches; their
        chunks ascending and disjoint. Returns their references."""
        self._pad(SERIES_ALIGNMENT)
        base = self._file.size
        room = len(labels) * _SERIES_BYTES + len(labels.names) * _LABEL_BYTES + len(mints) * _CHUNK_BYTES
        if base + room >= BYTES_MAX:
            raise IndexTooLarge(f"the index would exceed {BYTES_MAX} bytes")
        out = np.zeros(room, np.uint8)
        references = np.empty(len(labels), np.uint32)
        size = encode_series(
            base, labels.offsets, labels.names, labels.values, chunk_offsets, mints, maxts, chunk_references,
            out, references,
        )  # fmt: skip
        self._file.append([out[:size]])
        spread = np.empty(len(labels.names), np.uint32)
        spread_references(labels.offsets, references, 0, spread)
        self._names.append(labels.names)
        self._values.append(labels.values)
        self._label_references.append(spread)
        self._references.append(references)
        return references

    def finish(self) -> None:
        """Writes what comes after the series, makes all durable and closes."""
        series_end = self._file.size
        symbols = self._symbols
        names = np.concatenate((np.zeros(0, np.int32), *self._names))
        values = np.concatenate((np.zeros(0, np.int32), *self._values))
        order = np.arange(len(names), dtype=np.int64)
        for keys in (values, names):
            sorted_order = np.empty(len(order), np.int64)
            sort_by_symbol(keys, order, np.zeros(len(symbols) + 1, np.int64), sorted_order)
            order = sorted_order
        names, values = names[order], values[order]
        spread = np.concatenate((np.zeros(0, np.uint32), *self._label_references))[order]
        everything = np.concatenate((np.zeros(0, np.uint32), *self._references))
        firsts = np.flatnonzero(np.diff(names, prepend=-1) | np.diff(values, prepend=-1))
        count = len(everything)
        # The first list is that of all series, under a pair of two empty strings.
        cuts = np.concatenate(([0], firsts + count, [count + len(names)])).astype(np.int64)
        self._pad(4)
        postings_at = self._file.size
        out = np.empty(12 * (len(cuts) - 1) + 4 * int(cuts[-1]), np.uint8)
        encode_postings(cuts, np.concatenate((everything, spread)), out)
        self._file.append([out])
        offsets = postings_at + 12 * np.arange(len(cuts) - 1, dtype=np.int64) + 4 * cuts[:-1]
        tables_at = self._write_table(names[firsts], values[firsts], offsets)
        toc = TOC.pack(self._symbols_at, self._series_at, series_end, tables_at, postings_at, tables_at)
        self._file.append([toc + crc32c(toc).to_bytes(4, "big")])
        self._file.sync()
        self._file.close()

    def close(self) -> None:
        """Gives up."""
        self._file.close()

    def _write_table(self, names: NDArray[np.int32], values: NDArray[np.int32], offsets: NDArray[np.int64]) -> int:
        symbols = self._symbols
        empty = len(symbols)
        cuts = np.concatenate((symbols.cuts, symbols.cuts[-1:]))
        names = np.concatenate(([empty], names)).astype(np.int32)
        values = np.concatenate(([empty], values)).astype(np.int32)
        lengths = np.diff(cuts)
        room = 31 * len(offsets) + int(lengths[names].sum() + lengths[values].sum())
        out = np.empty(room, np.uint8)
        return self._section(
            len(offsets), out[: encode_postings_table(names, values, offsets, symbols.arena, cuts, out)]
        )

    def _section(self, count: int, body: NDArray[np.uint8]) -> int:
        """Writes length, count, body and checksum; returns where."""
        if len(body) + 4 > SECTION_BYTES_MAX:
            raise IndexTooLarge(f"a section of the index would exceed {SECTION_BYTES_MAX} bytes")
        at = self._file.size
        head = count.to_bytes(4, "big")
        checksum = crc32c(body, crc32c(head))
        self._file.append([(4 + len(body)).to_bytes(4, "big") + head, body, checksum.to_bytes(4, "big")])
        return at

    def _pad(self, alignment: int) -> None:
        if surplus := self._file.size % alignment:
            self._file.append([bytes(alignment - surplus)])
