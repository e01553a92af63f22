"""Counters whose samples say since when they count: rate, increase, irate and resets.

A start timestamp at or after the sample before it is a counter reset, even where the value did not fall; and one inside
the window tells where the counter was zero, so nothing has to be extrapolated there. `starts`: int64[N], ms, 0: not
known. Other arguments as in rate.py. Upstream: promql/functions.go isStartTimestampReset, checkStartTimeOverlap,
extrapolatedRate, instantValue, funcResets.
"""

from __future__ import annotations

import numpy as np

from mimir_ray.kernel import F64, I64, Bool, OutBool, OutBool2, OutF64x2, kernel

from .windows import advance, longest_series


@kernel
def find_restarts(offsets: I64, timestamps: I64, starts: I64, restarted: OutBool, overlaps: OutBool) -> int:
    """What start timestamps say of each sample and the one before it in its series.

    Args:
        restarted: bool[N], written: the counter began anew after the sample before. A start at the very time of that
            sample is one of deltas, unless that sample's own start is not known (0, or not before it): then it is
            a cumulative counter whose start nobody knew.
        overlaps: bool[N], written: the sample claims time that the one before it has counted already.

    Returns how many overlap.
    """
    found = 0
    for s in range(len(offsets) - 1):
        for i in range(offsets[s], offsets[s + 1]):
            restarted[i] = False
            overlaps[i] = False
            start = starts[i]
            if i == offsets[s] or start == 0:
                continue
            time = timestamps[i - 1]
            before = starts[i - 1]
            if time <= start < timestamps[i]:
                restarted[i] = start > time or (before != 0 and before < time)
            elif start < time and start != before:
                overlaps[i] = True
                found += 1
    return found


@kernel
def rate_from_starts(
    offsets: I64, timestamps: I64, values: F64, starts: I64, restarted: Bool, ends: I64, range_ms: int, is_rate: bool,
    out: OutF64x2, present: OutBool2,
) -> None:  # fmt: skip
    """rate (per second) and increase. One sample is enough where it began to count inside the window.

    O(N + T) per series plus the samples of all windows: series with start timestamps are few.
    """
    range_s = range_ms // 1000 + range_ms % 1000 / 1000.0  # rounds as Go's Duration.Seconds
    for s in range(len(offsets) - 1):
        first = offsets[s]
        last = first
        stop = offsets[s + 1]
        for t in range(len(ends)):
            range_end = ends[t]
            range_start = range_end - range_ms
            last = advance(timestamps, last, stop, range_end)
            first = advance(timestamps, first, last, range_start)
            gaps = last - first - 1
            known = gaps >= 0 and starts[first] != 0 and range_start < starts[first] < timestamps[first]
            present[s, t] = known or gaps >= 1
            if not present[s, t]:
                out[s, t] = 0.0
                continue
            result = values[last - 1] - values[first]
            for i in range(first + 1, last):
                if restarted[i] or values[i] < values[i - 1]:
                    result += values[i - 1]
            to_end = (range_end - timestamps[last - 1]) / 1000.0
            sampled = (timestamps[last - 1] - timestamps[first]) / 1000.0
            average = sampled / gaps if gaps else 0.0
            threshold = average * 1.1
            if known:
                to_start = 0.0
                sampled = (timestamps[last - 1] - starts[first]) / 1000.0
                result += values[first]
            else:
                to_start = (timestamps[first] - range_start) / 1000.0
                if to_start >= threshold:
                    to_start = average / 2.0
                if result > 0 and values[first] >= 0:
                    to_zero = sampled * (values[first] / result)
                    if to_zero < to_start:
                        to_start = to_zero
            if to_end >= threshold:
                to_end = average / 2.0
            factor = (sampled + to_start + to_end) / sampled
            if is_rate:
                factor /= range_s
            out[s, t] = result * factor


@kernel
def instant_rate_from_starts(
    offsets: I64, timestamps: I64, values: F64, restarted: Bool, ends: I64, range_ms: int,
    out: OutF64x2, present: OutBool2,
) -> None:  # fmt: skip
    """irate: from the last two samples of a window, or from the last one alone where the counter began anew."""
    for s in range(len(offsets) - 1):
        stop = offsets[s + 1]
        last = offsets[s]
        for t in range(len(ends)):
            last = advance(timestamps, last, stop, ends[t])
            before = last - 2
            found = before >= offsets[s] and timestamps[before] > ends[t] - range_ms
            present[s, t] = found
            out[s, t] = 0.0
            if found:
                result = values[last - 1]
                if not (restarted[last - 1] or result < values[before]):
                    result -= values[before]
                out[s, t] = result / ((timestamps[last - 1] - timestamps[before]) / 1000.0)


@kernel
def resets_from_starts(
    offsets: I64, timestamps: I64, values: F64, restarted: Bool, ends: I64, range_ms: int,
    out: OutF64x2, present: OutBool2,
) -> None:  # fmt: skip
    """resets: how often the value fell, or the counter began anew, inside a window. O(N + T) per series."""
    so_far = np.empty(longest_series(offsets), np.int64)
    for s in range(len(offsets) - 1):
        start = offsets[s]
        stop = offsets[s + 1]
        resets = 0
        for i in range(start, stop):
            resets += i > start and (restarted[i] or values[i] < values[i - 1])
            so_far[i - start] = resets
        first = start
        last = start
        for t in range(len(ends)):
            last = advance(timestamps, last, stop, ends[t])
            first = advance(timestamps, first, last, ends[t] - range_ms)
            found = first < last
            present[s, t] = found
            out[s, t] = float(so_far[last - 1 - start] - so_far[first - start]) if found else 0.0
