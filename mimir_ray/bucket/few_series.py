"""A few series of a block by equality of labels, from the label pairs to their chunks in one kernel call.

What dashboards ask of hundreds of blocks at once: there the calls of `BucketBlock` for each step would cost more than
the steps. Only for indexes whose bytes are all here. Whatever is not simple (many series, a list that is better not
read, damage) is left to those, which say what is wrong.
"""

from __future__ import annotations

import threading
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mimir_ray.encoding.bits import copy_bytes
from mimir_ray.encoding.crc32c import crc32c_between, load32_be
from mimir_ray.kernel import I64, U8, U32, OutI32, OutI64, OutU8, device, kernel
from mimir_ray.model.matchers import Matcher
from mimir_ray.tsdb.block.index_reader import decode_labels, measure_series, read_chunk_lists

from .found import Found
from .header_tables import READ_AHEAD_BYTES, find_values, list_bounds, string_bounds
from .index_header import IndexHeader
from .label_sets import LabelSets, number_strings

SERIES_MAX = 16
LABELS_MAX = 512
CHUNKS_MAX = 2048
STRING_BYTES_MAX = 32 << 10
SERIES_BYTES_GUESS = 512
"""Upstream: pkg/storegateway/bucket.go EstimatedSeriesP99Size."""
EVER = 1 << 62
_SLOTS = 4 * LABELS_MAX
_ROWS, _STRINGS, _BYTES = range(3)


@device
def _whole_list(data: Any, at: Any) -> Any:
    """How many references the postings list at a position has; -1 where it is damaged."""
    if at < 0 or len(data) - at < 12:
        return np.int64(-1)
    size, count = np.int64(load32_be(data, at)), np.int64(load32_be(data, at + 4))
    if size + 8 > len(data) - at or size != 4 + 4 * count:
        return np.int64(-1)
    if crc32c_between(data, at + 4, at + 4 + size) != load32_be(data, at + 4 + size):
        return np.int64(-1)
    return count


@kernel
def find_equal(
    data: U8, base: int, entries: U32, end: int, tail: int, names: U32, firsts: I64, wanted: U8, cuts: I64,
    references: OutI64,
) -> int:  # fmt: skip
    """The series that have all M wanted labels, if lists lie in the order of their table and it takes few bytes.

    Args:
        data, base, entries, end, tail, names, firsts: of an `IndexHeader` with all bytes of the index.
        wanted, cuts: label m has the name wanted[cuts[2 * m]:cuts[2 * m + 1]] and the value up to cuts[2 * m + 2]
            (int64[2 * M + 1]); `READ_AHEAD_BYTES` follow.
        references: written, ascending; as many as there may be.

    Returns how many there are, or -1 where somebody else has to look.
    """
    labels = (len(cuts) - 1) // 2
    starts, sizes = np.empty(labels, np.int64), np.empty(labels, np.int64)
    found, ends = np.empty(1, np.int64), np.empty(1, np.int64)
    best = 0
    for m in range(labels):
        if find_values(data, base, names, end, 0, len(names), wanted, cuts[2 * m : 2 * m + 2], found) == 0:
            return 0
        first, last = firsts[found[0]], firsts[found[0] + 1]
        if find_values(data, base, entries, end, first, last, wanted, cuts[2 * m + 1 : 2 * m + 3], found) == 0:
            return 0
        sizes[m] = list_bounds(data, base, entries, end, found, tail, starts[m : m + 1], ends)
        if sizes[m] < sizes[best]:
            best = m
    count = _whole_list(data, starts[best])
    if count < 0 or count > len(references):
        return -1
    for r in range(count):
        references[r] = np.int64(load32_be(data, starts[best] + 8 + 4 * r))
    for m in range(labels):
        if m == best or count == 0:
            continue
        if sizes[m] > count * SERIES_BYTES_GUESS:
            return -1
        others = _whole_list(data, starts[m])
        if others < 0:
            return -1
        kept = 0
        at = np.int64(0)
        for r in range(count):
            while at < others and np.int64(load32_be(data, starts[m] + 8 + 4 * at)) < references[r]:
                at += 1
            if at < others and np.int64(load32_be(data, starts[m] + 8 + 4 * at)) == references[r]:
                references[kept] = references[r]
                kept += 1
        count = kept
    return count


@kernel
def read_few(
    data: U8, references: I64, base: int, symbols: U32, end: int,
    cells: OutI64, names: OutI32, values: OutI32, cuts: OutI64, arena: OutU8,
    offsets: OutI64, mints: OutI64, maxts: OutI64, chunks: OutI64, counts: OutI64,
) -> bool:  # fmt: skip
    """Labels and chunk lists of S > 0 series; whether all of them are whole and fit.

    Args:
        references: int64[S]; position in `data` / 16.
        base, symbols, end: of the symbols in `data`.
        cells, names, values, cuts, arena: written: the `LabelSets`; `offsets`, `mints`, `maxts`, `chunks`: the rest of
            a `Found`.
        counts: int64[3], written: rows, strings, bytes of them.
    """
    rows = len(references)
    bodies, body_ends, labels = np.empty(rows, np.int64), np.empty(rows, np.int64), np.empty(rows, np.int64)
    if measure_series(data, 0, len(data), references, bodies, body_ends, labels) < 0:
        return False
    cells[0] = 0
    for r in range(rows):
        cells[r + 1] = cells[r] + labels[r]
    total = cells[rows]
    if total > len(names):
        return False
    chunks_at = np.empty(rows, np.int64)
    if decode_labels(data, bodies, body_ends, cells[: rows + 1], len(symbols), names, values, chunks_at) < 0:
        return False
    series, overlapping = np.arange(rows).astype(np.int32), np.empty(rows, np.bool_)
    for fill in (False, True):
        code = read_chunk_lists(
            data, series, chunks_at, body_ends, -EVER, EVER, fill, offsets, mints, maxts, chunks, overlapping
        )
        if code < 0 or offsets[rows] > len(mints):
            return False
    used = np.empty(2 * total, np.int64)
    strings = number_strings(names[:total], values[:total], np.zeros(_SLOTS, np.int32), used)
    starts, ends = np.empty(strings, np.int64), np.empty(strings, np.int64)
    if string_bounds(data, base, symbols, end, used[:strings], starts, ends) > len(arena):
        return False
    cuts[0] = 0
    for at in range(strings):
        copy_bytes(arena, cuts[at], data, starts[at], ends[at] - starts[at])
        cuts[at + 1] = cuts[at] + ends[at] - starts[at]
    counts[_ROWS], counts[_STRINGS], counts[_BYTES] = rows, strings, cuts[strings]
    return True


class _Room(threading.local):
    """What kernels write to before it is known how much that is; one for each thread."""

    def __init__(self) -> None:
        self.references = np.empty(SERIES_MAX, np.int64)
        self.cells, self.offsets = np.empty(SERIES_MAX + 1, np.int64), np.empty(SERIES_MAX + 1, np.int64)
        self.names, self.values = np.empty(LABELS_MAX, np.int32), np.empty(LABELS_MAX, np.int32)
        self.cuts, self.arena = np.empty(2 * LABELS_MAX + 1, np.int64), np.empty(STRING_BYTES_MAX, np.uint8)
        self.mints, self.maxts, self.chunks = (np.empty(CHUNKS_MAX, np.int64) for _ in range(3))
        self.counts = np.empty(3, np.int64)


_room = _Room()


@lru_cache(512)
def _equalities(matchers: tuple[Matcher, ...]) -> tuple[NDArray[np.uint8], NDArray[np.int64]] | None:
    """As `find_equal` wants them; None where they are something else."""
    texts = []
    for one in matchers:
        if one.is_negative or one.accepts_empty or one.alternatives is None or len(one.alternatives) != 1:
            return None
        texts += [text.encode("utf-8", "surrogatepass") for text in (one.name, *one.alternatives)]
    cuts = np.zeros(len(texts) + 1, np.int64)
    np.cumsum([len(text) for text in texts], out=cuts[1:])
    return (np.frombuffer(b"".join((*texts, bytes(READ_AHEAD_BYTES))), np.uint8), cuts) if texts else None


def few_series(header: IndexHeader, matchers: tuple[Matcher, ...]) -> Found | None:
    """What the matchers select in a block; None where that is not so simple."""
    wanted = _equalities(matchers)
    if wanted is None or not header.is_whole or header.places is not None:
        return None
    entries, symbols, room = header.entries, header.symbols, _room
    data = entries.data
    found = find_equal(
        data, entries.base, entries.places, entries.end, header.file.toc.postings_table,
        header.names.places, header.firsts, *wanted, room.references,
    )  # fmt: skip
    if found <= 0:
        return Found.nothing() if found == 0 else None
    is_whole = read_few(
        data, room.references[:found], symbols.base, symbols.places, symbols.end,
        room.cells, room.names, room.values, room.cuts, room.arena,
        room.offsets, room.mints, room.maxts, room.chunks, room.counts,
    )  # fmt: skip
    if not is_whole:
        return None
    rows, strings, size = room.counts.tolist()
    cells, chunks = int(room.cells[rows]), int(room.offsets[rows])
    labels = LabelSets(
        room.arena[:size].copy(), room.cuts[: strings + 1].copy(), room.cells[: rows + 1].copy(),
        room.names[:cells].copy(), room.values[:cells].copy(),
    )  # fmt: skip
    columns = (one[:chunks].copy() for one in (room.mints, room.maxts, room.chunks))
    return Found(labels, room.offsets[: rows + 1].copy(), *columns)
