"""Reads of a head: from a consistent look at some series to their samples, without the head's lock.

Where the samples of a series are: closed chunks (a chain), the open chunk, the log (a chain), and for late
samples closed chunks and a log of their own. One kernel walks over what overlaps the wanted range, series by series,
so that nothing is moved twice.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mimir_ray.encoding.bits import bits_to_float, bytes_at
from mimir_ray.errors import Corruption
from mimir_ray.kernel import I32, I64, U8, Bool, OutF64, OutI64, device, kernel
from mimir_ray.tsdb.chunks.xor import decode_between

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
    last_times: NDArray[np.int64]
    """Of the last sample in order, and its value."""
    last_values: NDArray[np.float64]
    arena: NDArray[np.uint8]
    segments: dict[int, NDArray[np.uint8]]
    """Bytes of the chunk files by segment, and what is in memory as 0. Held here, so that files may be removed."""
    table: tuple[NDArray[Any], ...]
    log: NDArray[np.int64]
    late_log: NDArray[np.int64]
    addresses: NDArray[np.int64] = field(init=False)
    """Where each segment's bytes are in memory, by its number, and how many; 0 for those that are not there."""
    sizes: NDArray[np.int64] = field(init=False)
    floor: int = NO_TIME_MAX
    """Samples in order that are older (ms) are in blocks, and no longer the head's."""

    def __post_init__(self) -> None:
        known = max(self.segments) + 1
        self.addresses, self.sizes = np.zeros(known, np.int64), np.zeros(known, np.int64)
        for number, data in self.segments.items():
            self.addresses[number], self.sizes[number] = data.ctypes.data, len(data)

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
        never = np.full(len(none), NO_TIME_MAX)
        return replace(
            self, open_counts=np.zeros_like(self.open_counts), log_last=none, chunk_last=none, last_times=never
        )


_SERIES_COLUMNS = (
    "open_starts", "open_ends", "open_counts", "open_mints", "open_maxts",
    "log_last", "late_last", "chunk_last", "late_chunk_last", "last_times", "last_values",
)  # fmt: skip


@kernel
def measure_series(
    mint: int, maxt: int, in_order_mint: int, first: int, count: int,
    open_counts: I32, open_mints: I64, open_maxts: I64,
    log_last: I32, late_last: I32, chunk_last: I32, late_chunk_last: I32,
    chunk_mints: I64, chunk_maxts: I64, chunk_counts: I32, chunk_previous: I32, log: I64, late_log: I64,
    longest: OutI64,
) -> int:  # fmt: skip
    """How many samples series first..first + count - 1 have at most in whole chunks that overlap [mint, maxt].

    Samples in order count from `in_order_mint` >= mint on. `longest[0]`: written, the most chunks of any series.
    """
    total = np.int64(0)
    longest[0] = 0
    for s in range(first, first + count):
        chunks = 0
        chunk = np.int64(chunk_last[s])
        while chunk >= 0 and chunk_maxts[chunk] >= in_order_mint:
            if chunk_mints[chunk] <= maxt:
                chunks += 1
                total += chunk_counts[chunk]
            chunk = np.int64(chunk_previous[chunk])
        longest[0] = max(longest[0], chunks)
        if open_counts[s] > 0 and open_mints[s] <= maxt and open_maxts[s] >= in_order_mint:
            total += open_counts[s]
        position = np.int64(log_last[s])
        while position >= 0 and log[position * WORDS] >= in_order_mint:
            if log[position * WORDS] <= maxt:
                total += 1
            position = log[position * WORDS + 2] >> 32
        chunks = 0
        chunk = np.int64(late_chunk_last[s])
        while chunk >= 0:
            if chunk_mints[chunk] <= maxt and chunk_maxts[chunk] >= mint:
                chunks += 1
                total += chunk_counts[chunk]
            chunk = np.int64(chunk_previous[chunk])
        longest[0] = max(longest[0], chunks)
        position = np.int64(late_last[s])
        while position >= 0:
            if mint <= late_log[position * WORDS] <= maxt:
                total += 1
            position = late_log[position * WORDS + 2] >> 32
    return total


@device
def _read_log(log: Any, last: Any, mint: Any, maxt: Any, timestamps: Any, values: Any, write: Any) -> Any:
    """Copies the records of one series with times in [mint, maxt], old ones first; returns where the next one goes."""
    count = 0
    position = np.int64(last)
    while position >= 0:
        count += mint <= log[position * WORDS] <= maxt
        position = log[position * WORDS + 2] >> 32
    at = write + count
    position = np.int64(last)
    while at > write:
        if mint <= log[position * WORDS] <= maxt:
            at -= 1
            timestamps[at] = log[position * WORDS]
            values[at] = bits_to_float(np.uint64(log[position * WORDS + 1]))
        position = log[position * WORDS + 2] >> 32
    return write + count


@device
def _merge_late(start: Any, stop: Any, timestamps: Any, values: Any) -> Any:
    """Orders one series by time; of samples of one time the one in front is left. Returns where it ends now."""
    times = timestamps[start:stop].copy()
    taken = values[start:stop].copy()
    order = np.argsort(times, kind="mergesort")
    write = start
    for k in range(len(order)):
        if k == 0 or times[order[k]] != times[order[k - 1]]:
            timestamps[write] = times[order[k]]
            values[write] = taken[order[k]]
            write += 1
    return write


@kernel
def read_series(
    mint: int, maxt: int, in_order_mint: int, first: int,
    open_starts: I64, open_ends: I64, open_counts: I32, open_mints: I64,
    open_maxts: I64, log_last: I32, late_last: I32, chunk_last: I32, late_chunk_last: I32,
    chunk_mints: I64, chunk_maxts: I64, chunk_positions: I64, chunk_lengths: I32, chunk_previous: I32,
    log: I64, late_log: I64, arena: U8, addresses: I64, sizes: I64,
    chain: OutI64, offsets: OutI64, timestamps: OutI64, values: OutF64,
) -> int:  # fmt: skip
    """Reads series first..first + B - 1: those of the samples in [mint, maxt], ascending, one a timestamp.

    Args:
        in_order_mint: samples in order are left out that are older.
        chunk_mints .. chunk_previous: the table of closed chunks. `addresses`, `sizes`: the bytes of each segment.
        chain: room for the chunks of a series. offsets: int64[B + 1], written. timestamps, values: long enough.

    Returns -1, or the closed chunk that is damaged, or -2 - s for the open chunk of series s.
    Of two samples of one time the one that came first is taken: those in order are read before late ones.
    """
    write = np.int64(0)
    for b in range(len(offsets) - 1):
        s = first + b
        offsets[b] = write
        late = write
        for part in range(2):
            in_order = part == 0
            low = in_order_mint if in_order else mint
            late = write
            depth = 0
            chunk = np.int64(chunk_last[s] if in_order else late_chunk_last[s])
            while chunk >= 0 and not (in_order and chunk_maxts[chunk] < low):
                if chunk_mints[chunk] <= maxt and chunk_maxts[chunk] >= low:
                    chain[depth] = chunk
                    depth += 1
                chunk = np.int64(chunk_previous[chunk])
            while depth > 0:  # chains go from new to old
                depth -= 1
                chunk = chain[depth]
                segment = chunk_positions[chunk] >> 32
                start = chunk_positions[chunk] & np.int64(0xFFFFFFFF)
                end = start + chunk_lengths[chunk]
                if segment >= len(sizes):
                    return chunk
                write = decode_between(
                    bytes_at(addresses[segment], sizes[segment]), start, end, low, maxt, timestamps, values, write
                )
                if write < 0:
                    return chunk
            if in_order and open_counts[s] > 0 and open_mints[s] <= maxt and open_maxts[s] >= low:
                write = decode_between(arena, open_starts[s], open_ends[s], low, maxt, timestamps, values, write)
                if write < 0:
                    return -2 - s
            if in_order:
                write = _read_log(log, log_last[s], low, maxt, timestamps, values, write)
            else:
                write = _read_log(late_log, late_last[s], low, maxt, timestamps, values, write)
        if write > late:
            write = _merge_late(offsets[b], write, timestamps, values)
    offsets[len(offsets) - 1] = write
    return -1


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
    mint = max(mint, NO_TIME_MAX + 1)
    in_order_mint = max(mint, look.floor)
    longest = np.empty(1, np.int64)
    most = measure_series(
        mint, maxt, in_order_mint, first, count,
        look.open_counts, look.open_mints, look.open_maxts,
        look.log_last, look.late_last, look.chunk_last, look.late_chunk_last,
        mints, maxts, counts, previous, look.log, look.late_log, longest,
    )  # fmt: skip
    offsets = np.empty(count + 1, np.int64)
    timestamps, values = np.empty(most, np.int64), np.empty(most, np.float64)
    damaged = read_series(
        mint, maxt, in_order_mint, first,
        look.open_starts, look.open_ends, look.open_counts, look.open_mints, look.open_maxts,
        look.log_last, look.late_last, look.chunk_last, look.late_chunk_last,
        mints, maxts, positions, lengths, previous, look.log, look.late_log,
        look.arena, look.addresses, look.sizes,
        np.empty(int(longest[0]), np.int64), offsets, timestamps, values,
    )  # fmt: skip
    if damaged < -1:
        raise DamagedChunk(ARENA, int(look.open_starts[-2 - damaged]))
    if damaged >= 0:
        raise DamagedChunk(int(positions[damaged]) >> 32, int(positions[damaged]) & 0xFFFFFFFF)
    total = int(offsets[-1])
    return offsets, timestamps[:total], values[:total]


def read_newest(
    look: Look, first: int, count: int, mint: int, maxt: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """As `read_samples`, but of every series only the newest sample in range.

    That is mostly the last one taken, which needs no decoding.
    """
    some = slice(first, first + count)
    last = look.last_times[some]
    simple = (look.late_last[some] < 0) & (look.late_chunk_last[some] < 0) & (last <= maxt)
    found = simple & (last >= max(mint, look.floor, NO_TIME_MAX + 1))
    timestamps, values = last, look.last_values[some]
    if not simple.all():
        rows = np.flatnonzero(~simple)
        offsets, times, samples = read_samples(look.take(rows + first), 0, len(rows), mint, maxt)
        ends = offsets[1:]
        there = ends > offsets[:-1]
        rows, ends = rows[there], ends[there] - 1
        timestamps, values = timestamps.copy(), values.copy()
        timestamps[rows], values[rows] = times[ends], samples[ends]
        found[rows] = True
    offsets = np.zeros(count + 1, np.int64)
    np.cumsum(found, out=offsets[1:])
    if offsets[-1] == count:
        return offsets, timestamps, values
    return offsets, timestamps[found], values[found]
