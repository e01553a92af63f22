"""Counters and differences: rate, increase, delta, irate, idelta, resets, changes.

Shapes and rules shared by all kernels of range functions: `offsets` int64[S + 1], `timestamps` and
`values` [N] (no staleness markers), `ends` int64[T] not descending, windows (end - range_ms, end];
`out` and `present` [S, T] are written in full, `out` is 0 where nothing is present.
"""

from __future__ import annotations

import numpy as np

from mimir_ray.kernel import F64, I64, OutBool2, OutF64x2, device, kernel

from .windows import advance, leap, longest_series


@device
def find_resets(values, start, stop, resets):  # type: ignore[no-untyped-def]
    """Writes the indices of values below the one before them to `resets`; returns how many there are."""
    fell = False
    for i in range(start + 1, stop):  # without a way out, so that it becomes vector code
        fell |= values[i] < values[i - 1]
    count = 0
    if fell:
        for i in range(start + 1, stop):
            if values[i] < values[i - 1]:
                resets[count] = i
                count += 1
    return count


@kernel
def extrapolated_rate(
    offsets: I64, timestamps: I64, values: F64, ends: I64, range_ms: int, is_counter: bool, is_rate: bool,
    out: OutF64x2, present: OutBool2,
) -> None:  # fmt: skip
    """rate (counter, per second), increase (counter) and delta (neither).

    O(N + T) per series plus the resets inside each window: positions of resets are found once a series,
    and a window adds the values before its own resets in order, so that sums round as upstream's do. How far to
    extrapolate takes most of the time and depends on times alone: where samples stand in a window as they stood
    in the one before, which is the rule when the step is a multiple of the scrape interval, the factor is the same.

    Upstream: promql/functions.go extrapolatedRate.
    """
    resets = np.empty(longest_series(offsets), np.int64)
    range_s = range_ms // 1000 + range_ms % 1000 / 1000.0  # rounds as Go's Duration.Seconds
    # The layout of the window before, in ms, and what followed from it.
    known_gaps = known_start = known_end = known_between = -1
    sampled = to_start = to_end = usual_factor = 0.0
    for s in range(len(offsets) - 1):
        start = offsets[s]
        stop = offsets[s + 1]
        count_resets = find_resets(values, start, stop, resets) if is_counter else 0
        next_reset = 0
        first = start
        last = start
        first_moved = 0
        last_moved = 0
        for t in range(len(ends)):
            range_end = ends[t]
            range_start = range_end - range_ms
            before = last
            last = leap(timestamps, last, stop, range_end, last_moved)
            last_moved = last - before
            before = first
            first = leap(timestamps, first, last, range_start, first_moved)
            first_moved = first - before
            gaps = last - first - 1
            if gaps < 1:
                out[s, t] = 0.0
                present[s, t] = False
                continue
            first_value = values[first]
            result = values[last - 1] - first_value
            if count_resets:
                while next_reset < count_resets and resets[next_reset] <= first:
                    next_reset += 1
                at = next_reset
                while at < count_resets and resets[at] < last:
                    result += values[resets[at] - 1]
                    at += 1

            from_start = timestamps[first] - range_start
            from_end = range_end - timestamps[last - 1]
            between = timestamps[last - 1] - timestamps[first]
            if from_start != known_start or from_end != known_end or between != known_between or gaps != known_gaps:
                known_start = from_start
                known_end = from_end
                known_between = between
                known_gaps = gaps
                to_start = from_start / 1000.0
                to_end = from_end / 1000.0
                sampled = between / 1000.0
                average = sampled / gaps
                # A series that stops short of the window's edge by more than 1.1 gaps is taken to begin (or
                # end) half a gap beyond its outermost sample.
                threshold = average * 1.1
                if to_start >= threshold:
                    to_start = average / 2.0
                if to_end >= threshold:
                    to_end = average / 2.0
                usual_factor = (sampled + to_start + to_end) / sampled
                if is_rate:
                    usual_factor /= range_s
            factor = usual_factor
            # A counter is not extrapolated to before it was zero. With two gaps or more that can only be if it
            # at least doubled in the window.
            if is_counter and result > 0 and first_value >= 0 and (first_value < result or gaps == 1):
                to_zero = sampled * (first_value / result)
                if to_zero < to_start:
                    factor = (sampled + to_zero + to_end) / sampled
                    if is_rate:
                        factor /= range_s
            out[s, t] = result * factor
            present[s, t] = True


@kernel
def last_difference(
    offsets: I64, timestamps: I64, values: F64, ends: I64, range_ms: int, is_rate: bool,
    out: OutF64x2, present: OutBool2,
) -> None:  # fmt: skip
    """irate (per second, a reset restarts from zero) and idelta: from the last two samples of a window.

    Upstream: promql/functions.go instantValue.
    """
    for s in range(len(offsets) - 1):
        stop = offsets[s + 1]
        last = offsets[s]
        for t in range(len(ends)):
            last = advance(timestamps, last, stop, ends[t])
            before = last - 2
            if before < offsets[s] or timestamps[before] <= ends[t] - range_ms:
                out[s, t] = 0.0
                present[s, t] = False
                continue
            result = values[last - 1]
            if not is_rate or not result < values[before]:
                result -= values[before]
            if is_rate:
                result /= (timestamps[last - 1] - timestamps[before]) / 1000.0
            out[s, t] = result
            present[s, t] = True


@kernel
def count_events(
    offsets: I64, timestamps: I64, values: F64, ends: I64, range_ms: int, resets: bool,
    out: OutF64x2, present: OutBool2,
) -> None:  # fmt: skip
    """resets (a value below the one before it) or changes (a value unlike the one before it; NaN is like NaN).

    O(N + T) per series: events are counted once, a window is the difference of two counts.

    Upstream: promql/functions.go funcResets, funcChanges.
    """
    so_far = np.empty(longest_series(offsets), np.int64)
    for s in range(len(offsets) - 1):
        start = offsets[s]
        stop = offsets[s + 1]
        events = 0
        if start < stop:
            so_far[0] = 0
        for i in range(start + 1, stop):
            value = values[i]
            before = values[i - 1]
            if resets:
                events += value < before
            else:
                events += value != before and not (np.isnan(value) and np.isnan(before))
            so_far[i - start] = events
        first = start
        last = start
        for t in range(len(ends)):
            last = advance(timestamps, last, stop, ends[t])
            first = advance(timestamps, first, last, ends[t] - range_ms)
            found = first < last
            present[s, t] = found
            out[s, t] = float(so_far[last - 1 - start] - so_far[first - start]) if found else 0.0
