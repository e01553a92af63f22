"""Windows that look beyond their edges: the `anchored` and `smoothed` modifiers.

An anchored window begins with the newest sample at or before its left edge. A smoothed one has straight lines between
samples: its edges, and instant selectors, take the value on the line. Both see as far beyond an edge as the lookback.
Shapes and rules are those of rate.py; samples hold no staleness markers.

Upstream: promql/functions.go extendedRate, pickFirstSampleIndices; promql/engine.go smoothSeries, extendFloats.
"""

from __future__ import annotations

import numpy as np

from mimir_ray.kernel import F64, I64, OutBool2, OutF64, OutF64x2, OutI64, device, kernel

from .rate import find_resets
from .windows import advance, longest_series


@device
def on_line(timestamps, values, before, time, is_counter):  # type: ignore[no-untyped-def]
    """The value at `time` between samples `before` and `before + 1`; a counter that fell started again from 0."""
    low = values[before]
    high = values[before + 1]
    if is_counter and high < low:
        low = 0.0
    passed = float(time - timestamps[before])
    return low + (high - low) * passed / float(timestamps[before + 1] - timestamps[before])


@device
def at_or_after(timestamps, at, stop, bound):  # type: ignore[no-untyped-def]
    """The first index in [at, stop) whose timestamp is not before `bound`, or `stop`."""
    while at < stop and timestamps[at] < bound:
        at += 1
    return at


@kernel
def extended_rate(
    offsets: I64, timestamps: I64, values: F64, ends: I64, range_ms: int, lookback_ms: int, smoothed: bool,
    is_counter: bool, is_rate: bool, out: OutF64x2, present: OutBool2,
) -> None:  # fmt: skip
    """rate, increase (both of counters) and delta between the edges of anchored or smoothed windows.

    O(N + T) per series plus the resets inside each window, as `extrapolated_rate`.
    """
    resets = np.empty(longest_series(offsets), np.int64)
    range_s = range_ms // 1000 + range_ms % 1000 / 1000.0
    for s in range(len(offsets) - 1):
        start = offsets[s]
        stop = offsets[s + 1]
        count_resets = find_resets(values, start, stop, resets) if is_counter else 0
        next_reset = 0
        low = start  # the first sample that the window sees
        inside = start  # the first one beyond the left edge
        right_edge = start  # the first one at or beyond the right edge
        high = start  # behind the last one that the window sees
        for t in range(len(ends)):
            range_end = ends[t]
            range_start = range_end - range_ms
            high = advance(timestamps, high, stop, range_end + lookback_ms if smoothed else range_end)
            low = advance(timestamps, low, high, range_start - lookback_ms)
            inside = advance(timestamps, max(inside, low), high, range_start)
            out[s, t] = 0.0
            present[s, t] = False
            if low == high:
                continue
            last = high - 1
            first = max(low, min(inside, last) - 1)
            if smoothed:
                right_edge = at_or_after(timestamps, max(right_edge, low), high, range_end)
                last = min(right_edge, last)
            if timestamps[last] <= range_start or (smoothed and timestamps[first] > range_end):
                continue
            left = values[first]
            if smoothed and timestamps[first] < range_start:
                left = on_line(timestamps, values, first, range_start, is_counter)
            right = values[last]
            if smoothed and last > low and timestamps[last] > range_end:
                right = on_line(timestamps, values, last - 1, range_end, is_counter)
            result = right - left
            if is_counter:
                # What fell at an edge is accounted for there.
                begin = first + 1 if timestamps[first] <= range_start else first
                final = last - 1 if timestamps[last] >= range_end else last
                lost = 0.0
                newest = left
                if begin <= final:
                    if values[begin] < left:
                        lost += left
                    while next_reset < count_resets and resets[next_reset] <= low:
                        next_reset += 1
                    at = next_reset
                    while at < count_resets and resets[at] <= final:
                        if resets[at] > begin:
                            lost += values[resets[at] - 1]
                        at += 1
                    newest = values[final]
                if right < newest:
                    lost += newest
                result += lost
            if is_rate:
                result /= range_s
            out[s, t] = result
            present[s, t] = True


@kernel
def anchored_events(
    offsets: I64, timestamps: I64, values: F64, ends: I64, range_ms: int, lookback_ms: int, resets: bool,
    out: OutF64x2, present: OutBool2,
) -> None:  # fmt: skip
    """resets and changes from the anchor on; nothing where no sample lies inside the window."""
    so_far = np.empty(longest_series(offsets), np.int64)
    for s in range(len(offsets) - 1):
        start = offsets[s]
        stop = offsets[s + 1]
        events = 0
        for i in range(start, stop):
            if i > start:
                value = values[i]
                before = values[i - 1]
                if resets:
                    events += value < before
                else:
                    events += value != before and not (np.isnan(value) and np.isnan(before))
            so_far[i - start] = events
        low = start
        inside = start
        high = start
        for t in range(len(ends)):
            high = advance(timestamps, high, stop, ends[t])
            low = advance(timestamps, low, high, ends[t] - range_ms - lookback_ms)
            inside = advance(timestamps, max(inside, low), high, ends[t] - range_ms)
            found = inside < high
            present[s, t] = found
            anchor = max(low, inside - 1)
            out[s, t] = float(so_far[high - 1 - start] - so_far[anchor - start]) if found else 0.0


@kernel
def smoothed_values(
    offsets: I64, timestamps: I64, values: F64, ends: I64, lookback_ms: int, out: OutF64x2, present: OutBool2
) -> int:
    """The value at each step on the line between the samples around it; the one before where none follows.

    Returns how many points are present.
    """
    found = 0
    for s in range(len(offsets) - 1):
        stop = offsets[s + 1]
        low = offsets[s]
        at = offsets[s]
        high = offsets[s]
        for t in range(len(ends)):
            end = ends[t]
            high = advance(timestamps, high, stop, end + lookback_ms)
            low = advance(timestamps, low, high, end - lookback_ms)
            at = at_or_after(timestamps, max(at, low), high, end)
            exact = at < high and timestamps[at] == end
            seen = exact or at > low
            present[s, t] = seen
            if not seen:
                out[s, t] = 0.0
                continue
            found += 1
            if exact:
                out[s, t] = values[at]
            elif at < high:
                out[s, t] = on_line(timestamps, values, at - 1, end, False)
            else:
                out[s, t] = values[at - 1]
    return found


@kernel
def extended_window(
    offsets: I64, timestamps: I64, values: F64, end: int, range_ms: int, lookback_ms: int, smoothed: bool,
    out_offsets: OutI64, out_timestamps: OutI64, out_values: OutF64,
) -> int:  # fmt: skip
    """The samples of one anchored or smoothed window, with one at each edge.

    `out_timestamps` and `out_values` have room for N + 2 S. Returns how many samples there are.
    """
    count = 0
    start = end - range_ms
    out_offsets[0] = 0
    for s in range(len(offsets) - 1):
        low = advance(timestamps, offsets[s], offsets[s + 1], start - lookback_ms)
        high = advance(timestamps, low, offsets[s + 1], end + lookback_ms if smoothed else end)
        last = high - 1
        out_offsets[s + 1] = count
        if low == high:
            continue
        first = max(low, min(advance(timestamps, low, high, start), last) - 1)
        if smoothed:
            last = min(at_or_after(timestamps, low, high, end), last)
        if timestamps[last] <= start:
            continue
        out_timestamps[count] = start
        out_values[count] = values[first]
        if smoothed and timestamps[first] < start:
            out_values[count] = on_line(timestamps, values, first, start, False)
        count += 1
        right = values[last]
        if smoothed and last > low and timestamps[last] > end:
            right = on_line(timestamps, values, last - 1, end, False)
        if timestamps[first] <= start:
            first += 1
        if timestamps[last] >= end:
            last -= 1
        for i in range(first, last + 1):
            out_timestamps[count] = timestamps[i]
            out_values[count] = values[i]
            count += 1
        out_timestamps[count] = end
        out_values[count] = right
        count += 1
        out_offsets[s + 1] = count
    return count
