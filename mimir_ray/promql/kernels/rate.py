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


@device
def all_in_one(timestamps, start, stop, ends):  # type: ignore[no-untyped-def]
    """Where to look for the end of the first window: at the end at once, where that is beyond all samples."""
    return stop if stop > start and len(ends) and timestamps[stop - 1] <= ends[0] else start


@device
def find_windows(  # type: ignore[no-untyped-def]
    timestamps, start, stop, ends, range_ms, first, last, gaps, sampled_s, start_s, end_s
):
    """What the windows of one series look like.

    Writes for each step: samples [first, last) counted from `start`; how many gaps are between them, 0 for a window
    with fewer than two; the seconds between the outermost two, and from them to the edges.
    """
    low = start
    high = all_in_one(timestamps, start, stop, ends)
    low_moved = 0
    high_moved = 0
    for t in range(len(ends)):
        before = high
        high = leap(timestamps, high, stop, ends[t], high_moved)
        high_moved = high - before
        before = low
        low = leap(timestamps, low, high, ends[t] - range_ms, low_moved)
        low_moved = low - before
        if high - low < 2:
            first[t] = 0
            last[t] = 1
            gaps[t] = 0
            sampled_s[t] = start_s[t] = end_s[t] = 0.0
        else:
            first[t] = low - start
            last[t] = high - start
            gaps[t] = high - low - 1
            sampled_s[t] = (timestamps[high - 1] - timestamps[low]) / 1000.0
            start_s[t] = (timestamps[low] - (ends[t] - range_ms)) / 1000.0
            end_s[t] = (ends[t] - timestamps[high - 1]) / 1000.0


@device
def extrapolation(sampled, to_start, to_end, gaps, range_s):  # type: ignore[no-untyped-def]
    """(seconds to go on to the left, to the right, the factor of what was seen) of a window."""
    average = sampled / gaps
    threshold = average * 1.1
    to_start = average / 2.0 if to_start >= threshold else to_start
    to_end = average / 2.0 if to_end >= threshold else to_end
    return to_start, to_end, (sampled + to_start + to_end) / sampled / range_s


@device
def add_resets(values, start, count, resets, first, last, results):  # type: ignore[no-untyped-def]
    """Adds to each window's result the values before its resets."""
    next_reset = 0
    for t in range(len(results) if count else 0):
        while next_reset < count and resets[next_reset] <= start + first[t]:
            next_reset += 1
        at = next_reset
        while at < count and resets[at] < start + last[t]:
            results[t] += values[resets[at] - 1]
            at += 1


@device
def same_times(offsets, timestamps, s, other):  # type: ignore[no-untyped-def]
    """Whether two series have samples at the same times."""
    start = offsets[s]
    other_start = offsets[other]
    count = offsets[s + 1] - start
    if offsets[other + 1] - other_start != count or (count and timestamps[start] != timestamps[other_start]):
        return False
    differ = False
    for i in range(count):  # without a way out, so that it becomes vector code
        differ |= timestamps[start + i] != timestamps[other_start + i]
    return not differ


@kernel
def extrapolated_rate(
    offsets: I64, timestamps: I64, values: F64, ends: I64, range_ms: int, is_counter: bool, is_rate: bool,
    out: OutF64x2, present: OutBool2,
) -> None:  # fmt: skip
    """rate (counter, per second), increase (counter) and delta (neither).

    O(N + T) per series plus the resets inside each window: positions of resets are found once a series,
    and a window adds the values before its own resets in order, so that sums round as upstream's do. Where windows
    are and how far to extrapolate takes most of the time and depends on times alone: for series in a row that were
    scraped together it is found once. For others, where samples stand in a window as they stood in the one before,
    which is the rule when the step is a multiple of the scrape interval, the factor is the same.

    Upstream: promql/functions.go extrapolatedRate.
    """
    steps = len(ends)
    resets = np.empty(longest_series(offsets), np.int64)
    lows, highs, counts = np.empty(steps, np.int64), np.empty(steps, np.int64), np.empty(steps, np.int64)
    sampled_s, start_s, end_s = np.empty(steps), np.empty(steps), np.empty(steps)
    factors, firsts, results = np.empty(steps), np.empty(steps), np.empty(steps)
    # Rounds as Go's Duration.Seconds; dividing by 1 changes nothing.
    range_s = range_ms // 1000 + range_ms % 1000 / 1000.0 if is_rate else 1.0
    # The layout of the window before, in ms, and what followed from it.
    known_gaps = known_start = known_end = known_between = -1
    sampled = to_start = to_end = usual_factor = 0.0
    together = 0
    for s in range(len(offsets) - 1):
        start = offsets[s]
        stop = offsets[s + 1]
        if together == 0:
            while s + together + 1 < len(offsets) - 1 and same_times(offsets, timestamps, s, s + together + 1):
                together += 1
            if together > 0:
                find_windows(timestamps, start, stop, ends, range_ms, lows, highs, counts, sampled_s, start_s, end_s)
                for t in range(steps):
                    start_s[t], end_s[t], factors[t] = extrapolation(
                        sampled_s[t], start_s[t], end_s[t], counts[t], range_s
                    )
                together += 1
        if together > 0:
            together -= 1
            if stop - start < 2:
                for t in range(steps):
                    out[s, t] = 0.0
                    present[s, t] = False
                continue
            for t in range(steps):
                firsts[t] = values[start + lows[t]]
                results[t] = values[start + highs[t] - 1] - firsts[t]
            if is_counter:
                add_resets(values, start, find_resets(values, start, stop, resets), resets, lows, highs, results)
            near_zero = False
            for t in range(steps):
                seen = counts[t] > 0
                present[s, t] = seen
                out[s, t] = results[t] * factors[t] if seen else 0.0
                near_zero |= (results[t] > 0) & (firsts[t] >= 0) & ((firsts[t] < results[t]) | (counts[t] == 1))
            if is_counter and near_zero:  # see below
                for t in range(steps):
                    result = results[t]
                    if counts[t] > 0 and result > 0 and firsts[t] >= 0 and (firsts[t] < result or counts[t] == 1):
                        to_zero = sampled_s[t] * (firsts[t] / result)
                        if to_zero < start_s[t]:
                            out[s, t] = result * ((sampled_s[t] + to_zero + end_s[t]) / sampled_s[t] / range_s)
            continue
        count_resets = find_resets(values, start, stop, resets) if is_counter else 0
        next_reset = 0
        first = start
        last = all_in_one(timestamps, start, stop, ends)
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
                usual_factor = (sampled + to_start + to_end) / sampled / range_s
            factor = usual_factor
            # A counter is not extrapolated to before it was zero. With two gaps or more that can only be if it
            # at least doubled in the window.
            if is_counter and result > 0 and first_value >= 0 and (first_value < result or gaps == 1):
                to_zero = sampled * (first_value / result)
                if to_zero < to_start:
                    factor = (sampled + to_zero + to_end) / sampled / range_s
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
