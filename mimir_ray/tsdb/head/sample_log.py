"""The newest samples of all series: an append log in memory, chained per series.

A record is three int64: time (ms), the value's bits, and `previous << 32 | reference`, where `previous` is the
position of the same series' record before (-1: none). Side by side, so that following a chain costs one cache
miss a sample. Records of positions below a length that a reader has seen never change; when the log was
flushed to chunks, its array is used again only if no reader holds it.
"""

from __future__ import annotations

import mmap
import weakref
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mimir_ray.encoding.bits import bits_to_float, float_to_bits
from mimir_ray.kernel import F64, I32, I64, Bool, OutF64, OutI32, OutI64, OutU8, kernel

_PAGES_BYTES_MIN = 1 << 20
WORDS = 3
"""int64 a record."""

# Statuses of a sample.
IN_ORDER = 0
OUT_OF_ORDER = 1
REPEATED = 2
REFUSED_OUT_OF_ORDER = 3
REFUSED_TOO_OLD = 4
REFUSED_DUPLICATE = 5
UNKNOWN = 6
REFUSED_USER_LIMIT = 7
REFUSED_METRIC_LIMIT = 8
STATUSES = 9

# Positions in `marks` (int64[4]).
LOG_LENGTH = 0
LATE_LENGTH = 1
MIN_TIME = 2
MAX_TIME = 3

NO_TIME_MIN = np.iinfo(np.int64).max
NO_TIME_MAX = np.iinfo(np.int64).min


@kernel
def append_samples(
    references: I32,
    timestamps: I64,
    values: F64,
    first: int,
    replay: bool,
    min_valid: int,
    late_window: int,
    late_min: int,
    series: int,
    dropped: Bool,
    marks: OutI64,
    log: OutI64,
    late_log: OutI64,
    last_times: OutI64,
    last_values: OutF64,
    min_times: OutI64,
    log_last: OutI32,
    late_last: OutI32,
    statuses: OutU8,
    counts: OutI64,
) -> int:
    """Judges and stores samples first..N - 1; returns N, or the sample for which a log has no room.

    Args:
        references: of N samples; -1 and -2: refused by a limit (interning.OVER_*).
        replay: take whatever was taken before, what is not in order as late; only repeated samples are left out.
        min_valid: in-order samples must not be older (ms).
        late_window: > 0 where older samples are taken, those of at least `late_min` (ms).
        series: how many references there are; `dropped` says which no longer count.
        marks: lengths of both logs, the head's first and last time.
        log, late_log: records of samples in order and of late ones.
        last_times .. late_last: per series: last sample in order, first time, newest record in either log (-1: none).
        statuses: uint8[N]; counts: int64[STATUSES], increased.

    Upstream: tsdb/head_append.go memSeries.appendable. Differs: a sample is judged after those before it in the same
    request are in, where upstream judges all against the state before the request, and drops silently later.
    """
    for i in range(first, len(references)):
        reference = np.int64(references[i])
        if reference < 0 or reference >= series or dropped[reference]:
            status = UNKNOWN
            if reference == -1:
                status = REFUSED_USER_LIMIT
            elif reference == -2:
                status = REFUSED_METRIC_LIMIT
            statuses[i] = status
            counts[status] += 1
            continue
        time = timestamps[i]
        value = values[i]
        last = last_times[reference]
        status = IN_ORDER
        if time > last and time >= min_valid:
            status = IN_ORDER
        elif time == last and time >= min_valid:
            # Bits, since NaN is unequal to itself and -0 equal to 0.
            same = float_to_bits(value) == float_to_bits(last_values[reference])
            status = REPEATED if same else REFUSED_DUPLICATE
        elif replay:
            status = OUT_OF_ORDER
        elif late_window > 0:
            status = OUT_OF_ORDER if time >= late_min else REFUSED_TOO_OLD
        elif time < min_valid:
            status = REFUSED_TOO_OLD
        else:
            status = REFUSED_OUT_OF_ORDER
        if status == IN_ORDER:
            position = marks[LOG_LENGTH]
            at = position * WORDS
            if at + WORDS > len(log):
                return i
            log[at] = time
            log[at + 1] = np.int64(float_to_bits(value))
            log[at + 2] = np.int64(log_last[reference]) << 32 | reference
            log_last[reference] = np.int32(position)
            marks[LOG_LENGTH] = position + 1
            last_times[reference] = time
            last_values[reference] = value
        elif status == OUT_OF_ORDER:
            position = marks[LATE_LENGTH]
            at = position * WORDS
            if at + WORDS > len(late_log):
                return i
            late_log[at] = time
            late_log[at + 1] = np.int64(float_to_bits(value))
            late_log[at + 2] = np.int64(late_last[reference]) << 32 | reference
            late_last[reference] = np.int32(position)
            marks[LATE_LENGTH] = position + 1
        if status <= OUT_OF_ORDER:
            min_times[reference] = min(min_times[reference], time)
            marks[MIN_TIME] = min(marks[MIN_TIME], time)
            marks[MAX_TIME] = max(marks[MAX_TIME], time)
        statuses[i] = status
        counts[status] += 1
    return len(references)


@kernel
def sort_log(
    log: I64, length: int, last: OutI32, cursors: OutI64, runs: OutI32, starts: OutI64, ends: OutI64,
    timestamps: OutI64, values: OutF64,
) -> int:  # fmt: skip
    """Groups a log by series, each in the order of the log: a counting sort.

    Args:
        last: newest record of each series; set to -1 for all series in the log.
        cursors: int64[series + 1], zeros, used for the work.
        runs, starts, ends: the series found, ascending, and their samples timestamps[starts[r]:ends[r]].

    Returns the number of runs.
    """
    for position in range(length):
        cursors[(log[position * WORDS + 2] & np.int64(0x7FFFFFFF)) + 1] += 1
    count = 0
    total = np.int64(0)
    for s in range(len(cursors) - 1):
        size = cursors[s + 1]
        cursors[s] = total
        if size:
            runs[count] = np.int32(s)
            starts[count] = total
            total += size
            ends[count] = total
            last[s] = -1
            count += 1
    for position in range(length):
        at = position * WORDS
        series = log[at + 2] & np.int64(0x7FFFFFFF)
        to = cursors[series]
        timestamps[to] = log[at]
        values[to] = bits_to_float(np.uint64(log[at + 1]))
        cursors[series] = to + 1
    return count


@kernel
def sort_runs(starts: OutI64, ends: OutI64, runs: int, timestamps: OutI64, values: OutF64) -> int:
    """Orders every run by time, keeps the first sample of a timestamp, closes the gaps; returns the samples left."""
    write = np.int64(0)
    for r in range(runs):
        start, end = starts[r], ends[r]
        order = np.argsort(timestamps[start:end], kind="mergesort")
        times = timestamps[start:end].copy()
        taken = values[start:end].copy()
        starts[r] = write
        for k in range(len(order)):
            if k > 0 and times[order[k]] == times[order[k - 1]]:
                continue
            timestamps[write] = times[order[k]]
            values[write] = taken[order[k]]
            write += 1
        ends[r] = write
    return write


def pages(count: int, dtype: Any) -> NDArray[Any]:
    """An array that goes back to the operating system when it is let go.

    The allocator keeps large blocks that come and go, a third of a head's memory at 100 k series.
    """
    size = count * np.dtype(dtype).itemsize
    if size < _PAGES_BYTES_MIN:
        return np.empty(count, dtype)
    return np.frombuffer(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), dtype)


class SampleLog:
    """The array of one log and who reads it; its length is kept by the head (`marks`)."""

    def __init__(self, capacity: int) -> None:
        self.records: NDArray[np.int64] = pages(capacity * WORDS, np.int64)
        self._readers: weakref.WeakSet[Any] = weakref.WeakSet()

    @property
    def capacity(self) -> int:
        return len(self.records) // WORDS

    def pin(self, reader: Any) -> NDArray[np.int64]:
        """The array, kept as it is for as long as `reader` lives."""
        self._readers.add(reader)
        return self.records

    def grow(self, capacity: int) -> None:
        """More room behind what is there. Readers keep the old array."""
        longer = pages(capacity * WORDS, np.int64)
        longer[: len(self.records)] = self.records
        self.records = longer
        self._readers = weakref.WeakSet()

    def clear(self, capacity: int) -> None:
        """An empty log of this capacity; the same array, if it fits and nobody reads it."""
        if self._readers or self.capacity != capacity:
            self.records = pages(capacity * WORDS, np.int64)
            self._readers = weakref.WeakSet()
