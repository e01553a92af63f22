"""`*_over_time` for floats: one value from all samples of a window. Quantiles stand in quantile.py.

Arguments as in rate.py. Sums are compensated as upstream's (Neumaier): a short window is summed anew at
each step; where windows overlap much, sums come from prefix sums (see `sum_over_time`).

Upstream: promql/functions.go, util/kahansum/kahansum.go.
"""

from __future__ import annotations

import numpy as np

from mimir_ray.kernel import F64, I64, OutBool2, OutF64x2, device, kernel

from .lanes import FLOAT_MAX, LANES, add_lanes, add_term, gather_lanes, longest_lane
from .windows import advance, longest_series

# What `pick_over_time` gives of a window.
COUNT, PRESENT, FIRST, LAST, TIME_OF_FIRST, TIME_OF_LAST = range(6)
# What `extreme_over_time` gives of a window.
MAX, MIN, TIME_OF_MAX, TIME_OF_MIN = range(4)


@device
def add_compensated(value, total, compensation):  # type: ignore[no-untyped-def]
    """(total, compensation) with one value more. Upstream: kahansum.Inc."""
    new = total + value
    if new > FLOAT_MAX or new < -FLOAT_MAX:
        return new, 0.0
    if abs(total) >= abs(value):
        return new, compensation + ((total - new) + value)
    return new, compensation + ((value - new) + total)


@kernel
def pick_over_time(
    offsets: I64, timestamps: I64, values: F64, ends: I64, range_ms: int, what: int,
    out: OutF64x2, present: OutBool2,
) -> None:  # fmt: skip
    """count, present, first, last, ts_of_first, ts_of_last: `what` is one of the constants above."""
    for s in range(len(offsets) - 1):
        stop = offsets[s + 1]
        first = offsets[s]
        last = first
        for t in range(len(ends)):
            last = advance(timestamps, last, stop, ends[t])
            first = advance(timestamps, first, last, ends[t] - range_ms)
            present[s, t] = first < last
            result = 0.0
            if first < last:
                if what == COUNT:
                    result = float(last - first)
                elif what == PRESENT:
                    result = 1.0
                elif what == FIRST:
                    result = values[first]
                elif what == LAST:
                    result = values[last - 1]
                elif what == TIME_OF_FIRST:
                    result = timestamps[first] / 1000.0
                else:
                    result = timestamps[last - 1] / 1000.0
            out[s, t] = result


@kernel
def extreme_over_time(
    offsets: I64, timestamps: I64, values: F64, ends: I64, range_ms: int, what: int,
    out: OutF64x2, present: OutBool2,
) -> None:  # fmt: skip
    """max, min, ts_of_max, ts_of_min: `what` is one of the constants above.

    NaN loses to any number. Of equal extremes max and min take the first (it decides the sign of zero),
    the times the last. A queue of candidates (each beats all later ones) makes this O(N + T).

    Upstream: promql/functions.go compareOverTime.
    """
    queue = np.empty(longest_series(offsets), np.int64)
    sign = 1.0 if what in (MAX, TIME_OF_MAX) else -1.0
    wants_time = what in (TIME_OF_MAX, TIME_OF_MIN)
    for s in range(len(offsets) - 1):
        stop = offsets[s + 1]
        first = offsets[s]
        last = first
        head = 0
        tail = 0
        for t in range(len(ends)):
            while last < stop and timestamps[last] <= ends[t]:
                value = sign * values[last]
                if value == value:
                    if wants_time:
                        while tail > head and sign * values[queue[tail - 1]] <= value:
                            tail -= 1
                    else:
                        while tail > head and sign * values[queue[tail - 1]] < value:
                            tail -= 1
                    queue[tail] = last
                    tail += 1
                last += 1
            first = advance(timestamps, first, last, ends[t] - range_ms)
            while head < tail and queue[head] < first:
                head += 1
            present[s, t] = first < last
            if first == last:
                out[s, t] = 0.0
            elif wants_time:
                out[s, t] = timestamps[queue[head] if head < tail else last - 1] / 1000.0
            else:
                out[s, t] = values[queue[head]] if head < tail else np.nan


@device
def average_window(values, first, last):  # type: ignore[no-untyped-def]
    """The mean as sum / count; where the sum overflows, as a running mean. Upstream: funcAvgOverTime."""
    total = values[first]
    compensation = 0.0
    at = first + 1
    while at < last:
        new, new_compensation = add_compensated(values[at], total, compensation)
        if np.isinf(new):
            break
        total = new
        compensation = new_compensation
        at += 1
    count = float(at - first)
    if at == last:
        return total / count + compensation / count
    mean = total / count
    compensation /= count
    while at < last:
        count = float(at - first + 1)
        share = (count - 1.0) / count
        mean, compensation = add_compensated(values[at] / count, share * mean, share * compensation)
        at += 1
    return mean + compensation


SAMPLES_TO_SLIDE = 48
"""Windows of fewer samples (on average of a series) are summed anew at each step, unless all are integers."""

_EXACT_INTEGERS = 2.0**53
# How a series is summed.
_ANEW, _INTEGERS, _TWICE_PRECISION = range(3)


@device
def integer_prefix_sums(values, start, stop, high):  # type: ignore[no-untyped-def]
    """Writes the sums of values[start:i] to high[i - start]; False if one may not be exact.

    Sums of integers below 2**53 are exact in any order, and compensation is zero.
    """
    total = 0.0
    magnitude = 0.0
    whole = True
    high[0] = 0.0
    for i in range(start, stop):
        value = values[i]
        whole &= value == np.floor(value)  # false for NaN
        magnitude += abs(value)
        total += value
        high[i - start + 1] = total
    return whole and magnitude < _EXACT_INTEGERS  # false for infinities


@device
def compensated_prefix_sums(values, start, stop, high, low):  # type: ignore[no-untyped-def]
    """Writes the sums of values[start:i] to high + low [i - start]; returns the sum of magnitudes."""
    total = 0.0
    rest = 0.0
    magnitude = 0.0
    high[0] = 0.0
    low[0] = 0.0
    for i in range(start, stop):
        value = values[i]
        magnitude += abs(value)
        new = total + value
        other = new - total
        rest += (total - (new - other)) + (value - other)
        total = new + rest  # keeps `rest` below one unit of `total`
        rest -= total - new
        high[i - start + 1] = total
        low[i - start + 1] = rest
    return magnitude


@device
def compensated_difference(high, low, begin, end):  # type: ignore[no-untyped-def]
    """(sum, rest) of a window from compensated prefix sums."""
    total = high[end] - high[begin]
    other = total - high[end]
    rest = (high[end] - (total - other)) - (high[begin] + other)
    return total, rest + (low[end] - low[begin])


@device
def sum_lanes(values, first, size, row, step, filled, average, terms, totals, rests, out):  # type: ignore[no-untyped-def]
    """Sums the windows in the first `filled` lanes: see lanes.py."""
    for j in range(LANES):
        totals[j] = 0.0
        rests[j] = 0.0
    for k in range(longest_lane(size, filled)):
        gather_lanes(values, first, size, k, terms)
        add_lanes(terms, totals, rests)
    for j in range(filled):
        total = totals[j]
        count = float(size[j])
        if not average:
            out[row[j], step[j]] = total if np.isinf(total) else total + rests[j]
        elif np.isfinite(total):
            out[row[j], step[j]] = total / count + rests[j] / count
        else:  # an overflow on the way, or an infinity or NaN among the values
            out[row[j], step[j]] = average_window(values, first[j], first[j] + size[j])


@kernel
def sum_over_time(
    offsets: I64, timestamps: I64, values: F64, ends: I64, range_ms: int, average: bool,
    out: OutF64x2, present: OutBool2,
) -> None:  # fmt: skip
    """sum and avg.

    A series of integers is summed once, and a window is the difference of two sums: exact. So are long windows
    of other numbers, with sums of twice the precision. They round as the exact sum does, and so does upstream's
    compensated sum unless its terms cancel out; windows that are tiny beside the whole series, and series with an
    infinity, NaN or sums near overflow, are summed anew.
    """
    longest = longest_series(offsets)
    high = np.empty(longest + 1, np.float64)
    low = np.empty(longest + 1, np.float64)
    lane_first = np.zeros(LANES, np.int64)
    lane_size = np.zeros(LANES, np.int64)
    lane_row = np.zeros(LANES, np.int64)
    lane_step = np.zeros(LANES, np.int64)
    terms = np.empty(LANES, np.float64)
    totals = np.empty(LANES, np.float64)
    rests = np.empty(LANES, np.float64)
    filled = 0
    for s in range(len(offsets) - 1):
        start = offsets[s]
        stop = offsets[s + 1]
        way = _ANEW
        magnitude = 0.0
        if stop > start and len(ends) > 1:
            span = max(timestamps[stop - 1] - timestamps[start], 1)
            inside = min(range_ms, span) / span * (stop - start)
            if inside * len(ends) > 4.0 * (stop - start):  # many windows, and they overlap
                if integer_prefix_sums(values, start, stop, high):
                    way = _INTEGERS
                elif inside >= SAMPLES_TO_SLIDE:
                    magnitude = compensated_prefix_sums(values, start, stop, high, low)
                    if magnitude < 1e300:  # false for NaN
                        way = _TWICE_PRECISION
        first = start
        last = start
        for t in range(len(ends)):
            last = advance(timestamps, last, stop, ends[t])
            first = advance(timestamps, first, last, ends[t] - range_ms)
            present[s, t] = first < last
            if first == last:
                out[s, t] = 0.0
                continue
            count = float(last - first)
            if way == _INTEGERS:
                total = high[last - start] - high[first - start]
                out[s, t] = total / count if average else total
                continue
            if way == _TWICE_PRECISION:
                total, rest = compensated_difference(high, low, first - start, last - start)
                if abs(total + rest) > 1e-10 * magnitude:
                    out[s, t] = total / count + rest / count if average else total + rest
                    continue
            lane_first[filled] = first
            lane_size[filled] = last - first
            lane_row[filled] = s
            lane_step[filled] = t
            filled += 1
            if filled == LANES:
                sum_lanes(
                    values, lane_first, lane_size, lane_row, lane_step, filled, average, terms, totals, rests, out
                )
                filled = 0
    sum_lanes(values, lane_first, lane_size, lane_row, lane_step, filled, average, terms, totals, rests, out)


@device
def variance_lanes(values, first, size, row, step, filled, root, terms, mean, mean_rest, spread, spread_rest, out):  # type: ignore[no-untyped-def]
    """Variances of the windows in the first `filled` lanes: see lanes.py."""
    for j in range(LANES):
        mean[j] = 0.0
        mean_rest[j] = 0.0
        spread[j] = 0.0
        spread_rest[j] = 0.0
    for k in range(longest_lane(size, filled)):
        gather_lanes(values, first, size, k, terms)
        count = float(k + 1)
        for j in range(LANES):
            inside = k < size[j]
            value = terms[j]
            distance = value - (mean[j] + mean_rest[j])
            new, new_rest = add_term(distance / count, mean[j], mean_rest[j])
            wider, wider_rest = add_term(distance * (value - (new + new_rest)), spread[j], spread_rest[j])
            mean[j] = new if inside else mean[j]
            mean_rest[j] = new_rest if inside else mean_rest[j]
            spread[j] = wider if inside else spread[j]
            spread_rest[j] = wider_rest if inside else spread_rest[j]
    for j in range(filled):
        variance = (spread[j] + spread_rest[j]) / size[j]
        out[row[j], step[j]] = np.sqrt(variance) if root else variance


@kernel
def variance_over_time(
    offsets: I64, timestamps: I64, values: F64, ends: I64, range_ms: int, root: bool,
    out: OutF64x2, present: OutBool2,
) -> None:  # fmt: skip
    """stdvar and (`root`) stddev: Welford's method with compensated sums, anew for each window.

    Upstream: promql/functions.go varianceOverTime.
    """
    lane_first = np.zeros(LANES, np.int64)
    lane_size = np.zeros(LANES, np.int64)
    lane_row = np.zeros(LANES, np.int64)
    lane_step = np.zeros(LANES, np.int64)
    terms = np.empty(LANES, np.float64)
    mean = np.empty(LANES, np.float64)
    mean_rest = np.empty(LANES, np.float64)
    spread = np.empty(LANES, np.float64)
    spread_rest = np.empty(LANES, np.float64)
    filled = 0
    for s in range(len(offsets) - 1):
        stop = offsets[s + 1]
        first = offsets[s]
        last = first
        for t in range(len(ends)):
            last = advance(timestamps, last, stop, ends[t])
            first = advance(timestamps, first, last, ends[t] - range_ms)
            present[s, t] = first < last
            if first == last:
                out[s, t] = 0.0
                continue
            lane_first[filled] = first
            lane_size[filled] = last - first
            lane_row[filled] = s
            lane_step[filled] = t
            filled += 1
            if filled == LANES:
                variance_lanes(
                    values, lane_first, lane_size, lane_row, lane_step, filled, root,
                    terms, mean, mean_rest, spread, spread_rest, out,
                )  # fmt: skip
                filled = 0
    variance_lanes(
        values, lane_first, lane_size, lane_row, lane_step, filled, root,
        terms, mean, mean_rest, spread, spread_rest, out,
    )  # fmt: skip
