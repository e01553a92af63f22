"""Reads of a head: from a consistent look at some series to their samples, without the head's lock.

Where the samples of a series are: closed chunks (a chain), the open chunk, the log (a chain), and for late
samples closed chunks and a log of their own. `plan` finds the pieces that overlap the wanted range and where
each one's samples go, if whole chunks are decoded; chunks are decoded source by source; `trim` cuts every
series to the range, merges late samples, and closes the gaps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mimir_ray.encoding.bits import bits_to_float
from mimir_ray.errors import Corruption
from mimir_ray.kernel import I32, I64, Bool, OutF64, OutI32, OutI64, kernel
from mimir_ray.tsdb.chunks.xor import decode_chunks

from .sample_log import NO_TIME_MAX, WORDS

ARENA = -1
"""The source of open chunks; others are segment numbers, 0 for what is in memory."""


@dataclass(eq=False)
class DamagedChunk(Corruption):
    source: int
    offset: int

    def describe(self) -> str:
        return f"chunk at byte {self.offset} of chunk file {self.source:06d} is damaged"


@dataclass(eq=False)
class Look:
    """What a reader needs of S series, as of one moment."""

    open_starts: NDArray[np.int64]
    open_ends: NDArray[np.int64]
    open_counts: NDArray[np.int32]
    open_mints: NDArray[np.int64]
    open_maxts: NDArray[np.int64]
    log_last: NDArray[np.int32]
    late_last: NDArray[np.int32]
    chunk_last: NDArray[np.int32]
    late_chunk_last: NDArray[np.int32]
    arena: NDArray[np.uint8]
    segments: dict[int, NDArray[np.uint8]]
    """Bytes of the chunk files by segment, and what is in memory as 0. Held here, so that files may be removed."""
    table: tuple[NDArray[Any], ...]
    log: NDArray[np.int64]
    late_log: NDArray[np.int64]
    floor: int = NO_TIME_MAX
    """Samples in order that are older (ms) are in blocks, and no longer the head's."""

    def take(self, rows: NDArray[np.integer]) -> Look:
        """Of these of the series. This look must live as long."""
        return replace(self, **{name: getattr(self, name)[rows] for name in _SERIES_COLUMNS})

    def in_order(self) -> Look:
        """Without late samples."""
        none = np.full(len(self.late_last), -1, np.int32)
        return replace(self, late_last=none, late_chunk_last=none)

    def late(self) -> Look:
        """Only the late samples."""
        none = np.full(len(self.late_last), -1, np.int32)
        return replace(self, open_counts=np.zeros_like(self.open_counts), log_last=none, chunk_last=none)


_SERIES_COLUMNS = (
    "open_starts", "open_ends", "open_counts", "open_mints", "open_maxts",
    "log_last", "late_last", "chunk_last", "late_chunk_last",
)  # fmt: skip


@kernel
def count_pieces(
    mint: int, maxt: int, in_order_mint: int, first: int,
    open_counts: I32, open_mints: I64, open_maxts: I64,
    log_last: I32, late_last: I32, chunk_last: I32, late_chunk_last: I32,
    chunk_mints: I64, chunk_maxts: I64, chunk_counts: I32, chunk_previous: I32, log: I64, late_log: I64,
    offsets: OutI64,
) -> int:  # fmt: skip
    """offsets int64[B + 1]: where the samples of series first..first + B - 1 start, undecoded; returns the pieces.

    Samples in order count from `in_order_mint` >= mint on.
    """
    pieces = 0
    total = np.int64(0)
    for b in range(len(offsets) - 1):
        s = first + b
        offsets[b] = total
        chunk = np.int64(chunk_last[s])
        while chunk >= 0 and chunk_maxts[chunk] >= in_order_mint:
            if chunk_mints[chunk] <= maxt:
                pieces += 1
                total += chunk_counts[chunk]
            chunk = np.int64(chunk_previous[chunk])
        if open_counts[s] > 0 and open_mints[s] <= maxt and open_maxts[s] >= in_order_mint:
            pieces += 1
            total += open_counts[s]
        position = np.int64(log_last[s])
        while position >= 0 and log[position * WORDS] >= in_order_mint:
            if log[position * WORDS] <= maxt:
                total += 1
            position = log[position * WORDS + 2] >> 32
        chunk = np.int64(late_chunk_last[s])
        while chunk >= 0:
            if chunk_mints[chunk] <= maxt and chunk_maxts[chunk] >= mint:
                pieces += 1
                total += chunk_counts[chunk]
            chunk = np.int64(chunk_previous[chunk])
        position = np.int64(late_last[s])
        while position >= 0:
            if mint <= late_log[position * WORDS] <= maxt:
                total += 1
            position = late_log[position * WORDS + 2] >> 32
    offsets[len(offsets) - 1] = total
    return pieces


@kernel
def plan_pieces(
    mint: int, maxt: int, in_order_mint: int, first: int,
    open_starts: I64, open_ends: I64, open_counts: I32, open_mints: I64,
    open_maxts: I64, log_last: I32, late_last: I32, chunk_last: I32, late_chunk_last: I32,
    chunk_mints: I64, chunk_maxts: I64, chunk_positions: I64, chunk_lengths: I32, chunk_counts: I32,
    chunk_previous: I32, log: I64, late_log: I64, offsets: I64,
    sources: OutI32, starts: OutI64, ends: OutI64, outs: OutI64, splits: OutI64,
    timestamps: OutI64, values: OutF64,
) -> None:  # fmt: skip
    """Fills the pieces that `count_pieces` has counted, and the samples that need no decoding.

    `splits`: int64[B], written: where the late samples of each series begin.
    Within a series: closed chunks, open chunk, log, late chunks, late log, each from old to new, so that a stable
    sort by time leaves the sample that came first in front. Chains go from new to old, so space is filled
    from its end.
    """
    piece = 0
    for b in range(len(offsets) - 1):
        s = first + b
        write = offsets[b + 1]
        position = np.int64(late_last[s])
        while position >= 0:
            at = position * WORDS
            if mint <= late_log[at] <= maxt:
                write -= 1
                timestamps[write] = late_log[at]
                values[write] = bits_to_float(np.uint64(late_log[at + 1]))
            position = late_log[at + 2] >> 32
        chunk = np.int64(late_chunk_last[s])
        while chunk >= 0:
            if chunk_mints[chunk] <= maxt and chunk_maxts[chunk] >= mint:
                write -= chunk_counts[chunk]
                sources[piece] = np.int32(chunk_positions[chunk] >> 32)
                starts[piece] = chunk_positions[chunk] & np.int64(0xFFFFFFFF)
                ends[piece] = starts[piece] + chunk_lengths[chunk]
                outs[piece] = write
                piece += 1
            chunk = np.int64(chunk_previous[chunk])
        splits[b] = write
        position = np.int64(log_last[s])
        while position >= 0:
            at = position * WORDS
            time = log[at]
            if time < in_order_mint:
                break
            if time <= maxt:
                write -= 1
                timestamps[write] = time
                values[write] = bits_to_float(np.uint64(log[at + 1]))
            position = log[at + 2] >> 32
        if open_counts[s] > 0 and open_mints[s] <= maxt and open_maxts[s] >= in_order_mint:
            write -= open_counts[s]
            sources[piece] = ARENA
            starts[piece] = open_starts[s]
            ends[piece] = open_ends[s]
            outs[piece] = write
            piece += 1
        chunk = np.int64(chunk_last[s])
        while chunk >= 0 and chunk_maxts[chunk] >= in_order_mint:
            if chunk_mints[chunk] <= maxt:
                write -= chunk_counts[chunk]
                sources[piece] = np.int32(chunk_positions[chunk] >> 32)
                starts[piece] = chunk_positions[chunk] & np.int64(0xFFFFFFFF)
                ends[piece] = starts[piece] + chunk_lengths[chunk]
                outs[piece] = write
                piece += 1
            chunk = np.int64(chunk_previous[chunk])


@kernel
def hide_before(floor: int, offsets: I64, splits: I64, timestamps: OutI64) -> None:
    """Puts samples in order that are older than `floor` before all time, where `trim` cuts them off."""
    for b in range(len(splits)):
        at = offsets[b]
        while at < splits[b] and timestamps[at] < floor:
            timestamps[at] = NO_TIME_MAX
            at += 1


@kernel
def trim(mint: int, maxt: int, offsets: I64, late: Bool, timestamps: OutI64, values: OutF64, trimmed: OutI64) -> int:
    """Leaves of every series the samples in [mint, maxt], ascending, one a timestamp; returns how many in all.

    `offsets`: int64[B + 1] where each series' samples are; `trimmed`: int64[B + 1], where they are afterwards.
    """
    write = np.int64(0)
    for b in range(len(offsets) - 1):
        start, end = offsets[b], offsets[b + 1]
        trimmed[b] = write
        if late[b]:
            times = timestamps[start:end].copy()
            taken = values[start:end].copy()
            order = np.argsort(times, kind="mergesort")
            for k in range(len(order)):
                time = times[order[k]]
                if mint <= time <= maxt and (k == 0 or time != times[order[k - 1]]):
                    timestamps[write] = time
                    values[write] = taken[order[k]]
                    write += 1
            continue
        while start < end and timestamps[start] < mint:
            start += 1
        while start < end and timestamps[end - 1] > maxt:
            end -= 1
        if write == start:
            write = end
        else:
            for at in range(start, end):
                timestamps[write] = timestamps[at]
                values[write] = values[at]
                write += 1
    trimmed[len(offsets) - 1] = write
    return write


def read_samples(
    look: Look, first: int, count: int, mint: int, maxt: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """(offsets int64[count + 1], timestamps, values) of series first..first + count - 1 of the look.

    Raises `DamagedChunk`.
    """
    mints, maxts, positions, lengths, counts, previous = look.table
    offsets = np.empty(count + 1, np.int64)
    mint = max(mint, NO_TIME_MAX + 1)
    in_order_mint = max(mint, look.floor)
    pieces = count_pieces(
        mint, maxt, in_order_mint, first,
        look.open_counts, look.open_mints, look.open_maxts,
        look.log_last, look.late_last, look.chunk_last, look.late_chunk_last,
        mints, maxts, counts, previous, look.log, look.late_log, offsets,
    )  # fmt: skip
    timestamps = np.empty(offsets[-1], np.int64)
    values = np.empty(offsets[-1], np.float64)
    sources = np.empty(pieces, np.int32)
    starts, ends, outs = np.empty(pieces, np.int64), np.empty(pieces, np.int64), np.empty(pieces, np.int64)
    splits = np.empty(count, np.int64)
    plan_pieces(
        mint, maxt, in_order_mint, first,
        look.open_starts, look.open_ends, look.open_counts, look.open_mints, look.open_maxts,
        look.log_last, look.late_last, look.chunk_last, look.late_chunk_last,
        mints, maxts, positions, lengths, counts, previous, look.log, look.late_log, offsets,
        sources, starts, ends, outs, splits, timestamps, values,
    )  # fmt: skip
    for source in np.unique(sources).tolist():
        rows = np.flatnonzero(sources == source)
        data = look.arena if source == ARENA else look.segments[source]
        done = decode_chunks(data, starts[rows], ends[rows], outs[rows], timestamps, values)
        if done < 0:
            raise DamagedChunk(source, int(starts[rows[-done - 1]]))
    if in_order_mint > mint:
        hide_before(in_order_mint, offsets, splits, timestamps)
    trimmed = np.empty(count + 1, np.int64)
    total = trim(mint, maxt, offsets, splits < offsets[1:], timestamps, values, trimmed)
    return trimmed, timestamps[:total], values[:total]
