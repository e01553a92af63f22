"""Quantiles of the samples in a window: quantile_over_time, mad_over_time. Arguments as in rate.py.

The window's numbers are kept sorted while it slides: a sample enters and leaves by binary search and a
move, cheaper than sorting each window anew. NaN sorts before all numbers, so a count of them is enough.

Upstream: promql/quantile.go quantile, promql/functions.go funcMadOverTime.
"""

from __future__ import annotations

import numpy as np

from mimir_ray.kernel import F64, I64, OutBool2, OutF64x2, device, kernel

from .windows import advance, longest_series


@device
def lower_bound(ordered, count, value):  # type: ignore[no-untyped-def]
    """How many of the first `count` are below `value`."""
    low = 0
    high = count
    while low < high:
        middle = (low + high) >> 1
        if ordered[middle] < value:
            low = middle + 1
        else:
            high = middle
    return low


@device
def slide_sorted(values, ordered, count, left, first, entered, last):  # type: ignore[no-untyped-def]
    """Brings `ordered[:count]` from the window [left, entered) to the window [first, last).

    Returns the new count of numbers; NaN are not among them.
    """
    if first >= entered:
        count = 0
        entered = first
    else:
        for i in range(left, first):
            value = values[i]
            if value == value:
                at = lower_bound(ordered, count, value)
                count -= 1
                while at < count:
                    ordered[at] = ordered[at + 1]
                    at += 1
    for i in range(entered, last):
        value = values[i]
        if value == value:
            at = count
            while at > 0 and ordered[at - 1] > value:
                ordered[at] = ordered[at - 1]
                at -= 1
            ordered[at] = value
            count += 1
    return count


@device
def quantile_rank(q, size):  # type: ignore[no-untyped-def]
    """(lower index, upper index, weight of the upper) of quantile q in [0, 1] among `size` sorted values."""
    rank = q * (size - 1.0)
    floor = np.floor(rank)
    lower = max(0.0, floor)
    upper = min(size - 1.0, lower + 1.0)
    return int(lower), int(upper), rank - floor


@kernel
def quantile_over_time(
    offsets: I64, timestamps: I64, values: F64, ends: I64, range_ms: int, q: F64,
    out: OutF64x2, present: OutBool2,
) -> None:  # fmt: skip
    """The `q[t]`-quantile (float64[T]), interpolated between neighbours; outside [0, 1] an infinity."""
    ordered = np.empty(longest_series(offsets), np.float64)
    for s in range(len(offsets) - 1):
        stop = offsets[s + 1]
        first = offsets[s]
        last = first
        count = 0
        for t in range(len(ends)):
            left = first
            entered = last
            last = advance(timestamps, last, stop, ends[t])
            first = advance(timestamps, first, last, ends[t] - range_ms)
            count = slide_sorted(values, ordered, count, left, first, entered, last)
            size = last - first
            present[s, t] = size > 0
            if size == 0:
                out[s, t] = 0.0
            elif np.isnan(q[t]):
                out[s, t] = np.nan
            elif q[t] < 0:
                out[s, t] = -np.inf
            elif q[t] > 1:
                out[s, t] = np.inf
            else:
                lower, upper, weight = quantile_rank(q[t], float(size))
                nans = size - count
                low_value = ordered[lower - nans] if lower >= nans else np.nan
                high_value = ordered[upper - nans] if upper >= nans else np.nan
                out[s, t] = low_value * (1.0 - weight) + high_value * weight


@device
def nth_distance(ordered, count, center, wanted):  # type: ignore[no-untyped-def]
    """The distances |ordered[i] - center| at sorted positions `wanted` and `wanted + 1` (or the last one).

    Distances fall up to the center and rise after it: two sorted runs, merged as far as needed.
    """
    right = lower_bound(ordered, count, center)
    left = right - 1
    distance = 0.0
    result = 0.0
    for position in range(min(wanted + 2, count)):
        if right >= count or (left >= 0 and center - ordered[left] <= ordered[right] - center):
            distance = abs(ordered[left] - center)
            left -= 1
        else:
            distance = abs(ordered[right] - center)
            right += 1
        if position == wanted:
            result = distance
    return result, distance


@kernel
def mad_over_time(
    offsets: I64, timestamps: I64, values: F64, ends: I64, range_ms: int, out: OutF64x2, present: OutBool2
) -> None:
    """The median of the distances from the median; NaN where the window holds a NaN."""
    ordered = np.empty(longest_series(offsets), np.float64)
    for s in range(len(offsets) - 1):
        stop = offsets[s + 1]
        first = offsets[s]
        last = first
        count = 0
        for t in range(len(ends)):
            left = first
            entered = last
            last = advance(timestamps, last, stop, ends[t])
            first = advance(timestamps, first, last, ends[t] - range_ms)
            count = slide_sorted(values, ordered, count, left, first, entered, last)
            size = last - first
            present[s, t] = size > 0
            out[s, t] = 0.0
            if size == 0:
                continue
            if count < size:
                out[s, t] = np.nan
                continue
            lower, upper, weight = quantile_rank(0.5, float(size))
            median = ordered[lower] * (1.0 - weight) + ordered[upper] * weight
            if np.isnan(median) or np.isinf(median):
                # Distances of infinities may be NaN, which sort first: rare enough to do it plainly.
                distances = np.empty(size, np.float64)
                nans = 0
                for i in range(size):
                    distances[i] = abs(ordered[i] - median)
                    nans += np.isnan(distances[i])
                distances.sort()  # NaN last
                low_value = distances[lower - nans] if lower >= nans else np.nan
                high_value = distances[upper - nans] if upper >= nans else np.nan
            else:
                low_value, high_value = nth_distance(ordered, count, median, lower)
            out[s, t] = low_value * (1.0 - weight) + high_value * weight
