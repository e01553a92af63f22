"""Trends: deriv and predict_linear (least squares), double_exponential_smoothing. Arguments as in rate.py.

Upstream: promql/functions.go linearRegression, funcDoubleExponentialSmoothing.
"""

from __future__ import annotations

import numpy as np

from mimir_ray.kernel import F64, I64, OutBool2, OutF64x2, device, kernel

from .lanes import LANES, add_lanes, gather_lanes, longest_lane
from .windows import advance


@device
def is_constant(values, first, last):  # type: ignore[no-untyped-def]
    """Whether all values are the same (NaN is not the same as NaN)."""
    for i in range(first + 1, last):  # noqa: SIM110  (a generator is no kernel code)
        if values[i] != values[first]:
            return False
    return True


@device
def gather_terms(timestamps, values, first, size, origin, k, x, y, xy, xx):  # type: ignore[no-untyped-def]
    """The terms of the k-th samples (x in s after `origin`), 0 in windows that have no more."""
    for j in range(LANES):
        inside = k < size[j]
        at = first[j] + k if inside else 0
        x[j] = float(timestamps[at] - origin[j]) if inside else 0.0
        y[j] = values[at] if inside else 0.0
    for j in range(LANES):
        seconds = x[j] / 1e3
        x[j] = seconds
        xy[j] = seconds * y[j]
        xx[j] = seconds * seconds


@device
def regression_lanes(
    timestamps, values, first, size, origin, row, step, filled,
    x, y, xy, xx, sum_x, sum_y, sum_xy, sum_xx, rest_x, rest_y, rest_xy, rest_xx, ahead_s, out,
):  # type: ignore[no-untyped-def]  # fmt: skip
    """Least squares over the windows in the first `filled` lanes: see lanes.py.

    Writes the slope per second if `ahead_s` is empty, else where the line is `ahead_s[step]` after the origin.
    """
    for j in range(LANES):
        sum_x[j] = sum_y[j] = sum_xy[j] = sum_xx[j] = 0.0
        rest_x[j] = rest_y[j] = rest_xy[j] = rest_xx[j] = 0.0
    for k in range(longest_lane(size, filled)):
        gather_terms(timestamps, values, first, size, origin, k, x, y, xy, xx)
        add_lanes(x, sum_x, rest_x)
        add_lanes(y, sum_y, rest_y)
        add_lanes(xy, sum_xy, rest_xy)
        add_lanes(xx, sum_xx, rest_xx)
    for j in range(filled):
        count = float(size[j])
        total_x = sum_x[j] + rest_x[j]
        total_y = sum_y[j] + rest_y[j]
        total_xy = sum_xy[j] + rest_xy[j]
        total_xx = sum_xx[j] + rest_xx[j]
        covariance = total_xy - total_x * total_y / count
        slope = covariance / (total_xx - total_x * total_x / count)
        intercept = total_y / count - slope * total_x / count
        if len(ahead_s):
            out[row[j], step[j]] = slope * ahead_s[step[j]] + intercept
        else:
            out[row[j], step[j]] = slope


@kernel
def linear_regression(
    offsets: I64, timestamps: I64, values: F64, ends: I64, range_ms: int, times: I64, ahead_s: F64,
    out: OutF64x2, present: OutBool2,
) -> None:  # fmt: skip
    """deriv and predict_linear: from the regression line of a window of at least two samples.

    deriv (`times` and `ahead_s` empty): its slope per second. predict_linear: where it is `ahead_s[t]` seconds
    after the evaluation time `times[t]` (int64[T], ms).
    """
    lane_first = np.zeros(LANES, np.int64)
    lane_size = np.zeros(LANES, np.int64)
    lane_row = np.zeros(LANES, np.int64)
    lane_step = np.zeros(LANES, np.int64)
    lane_origin = np.zeros(LANES, np.int64)
    x = np.empty(LANES, np.float64)
    y = np.empty(LANES, np.float64)
    xy = np.empty(LANES, np.float64)
    xx = np.empty(LANES, np.float64)
    sum_x = np.empty(LANES, np.float64)
    sum_y = np.empty(LANES, np.float64)
    sum_xy = np.empty(LANES, np.float64)
    sum_xx = np.empty(LANES, np.float64)
    rest_x = np.empty(LANES, np.float64)
    rest_y = np.empty(LANES, np.float64)
    rest_xy = np.empty(LANES, np.float64)
    rest_xx = np.empty(LANES, np.float64)
    filled = 0
    for s in range(len(offsets) - 1):
        stop = offsets[s + 1]
        first = offsets[s]
        last = first
        for t in range(len(ends)):
            last = advance(timestamps, last, stop, ends[t])
            first = advance(timestamps, first, last, ends[t] - range_ms)
            present[s, t] = last - first >= 2
            if last - first < 2:
                out[s, t] = 0.0
                continue
            if is_constant(values, first, last):
                slope = np.nan if np.isinf(values[first]) else 0.0
                out[s, t] = slope * ahead_s[t] + values[first] if len(ahead_s) else slope
                continue
            lane_first[filled] = first
            lane_size[filled] = last - first
            lane_row[filled] = s
            lane_step[filled] = t
            # For deriv times are relative to the first sample, which keeps the squares small.
            lane_origin[filled] = times[t] if len(times) else timestamps[first]
            filled += 1
            if filled == LANES:
                regression_lanes(
                    timestamps, values, lane_first, lane_size, lane_origin, lane_row, lane_step, filled,
                    x, y, xy, xx, sum_x, sum_y, sum_xy, sum_xx, rest_x, rest_y, rest_xy, rest_xx, ahead_s, out,
                )  # fmt: skip
                filled = 0
    regression_lanes(
        timestamps, values, lane_first, lane_size, lane_origin, lane_row, lane_step, filled,
        x, y, xy, xx, sum_x, sum_y, sum_xy, sum_xx, rest_x, rest_y, rest_xy, rest_xx, ahead_s, out,
    )  # fmt: skip


@device
def smoothing_lanes(values, first, size, row, step, filled, smoothing, trend, terms, before, now, slope, out):  # type: ignore[no-untyped-def]
    """Smooths the windows in the first `filled` lanes: see lanes.py."""
    for j in range(LANES):
        before[j] = 0.0
        now[j] = values[first[j]] if j < filled else 0.0
        slope[j] = values[first[j] + 1] - values[first[j]] if j < filled else 0.0
    for k in range(1, longest_lane(size, filled)):
        gather_lanes(values, first, size, k, terms)
        for j in range(LANES):
            inside = k < size[j]
            factor = smoothing[j]
            turned = trend[j] * (now[j] - before[j]) + (1.0 - trend[j]) * slope[j]
            turned = turned if k > 1 else slope[j]
            following = factor * terms[j] + (1.0 - factor) * (now[j] + turned)
            slope[j] = turned if inside else slope[j]
            before[j] = now[j] if inside else before[j]
            now[j] = following if inside else now[j]
    for j in range(filled):
        out[row[j], step[j]] = now[j]


@kernel
def double_exponential_smoothing(
    offsets: I64, timestamps: I64, values: F64, ends: I64, range_ms: int, smoothing: F64, trend: F64,
    out: OutF64x2, present: OutBool2,
) -> None:  # fmt: skip
    """The smoothed last value of a window of at least two samples; factors float64[T], in (0, 1)."""
    lane_first = np.zeros(LANES, np.int64)
    lane_size = np.zeros(LANES, np.int64)
    lane_row = np.zeros(LANES, np.int64)
    lane_step = np.zeros(LANES, np.int64)
    lane_smoothing = np.zeros(LANES, np.float64)
    lane_trend = np.zeros(LANES, np.float64)
    terms = np.empty(LANES, np.float64)
    before = np.empty(LANES, np.float64)
    now = np.empty(LANES, np.float64)
    slope = np.empty(LANES, np.float64)
    filled = 0
    for s in range(len(offsets) - 1):
        stop = offsets[s + 1]
        first = offsets[s]
        last = first
        for t in range(len(ends)):
            last = advance(timestamps, last, stop, ends[t])
            first = advance(timestamps, first, last, ends[t] - range_ms)
            present[s, t] = last - first >= 2
            if last - first < 2:
                out[s, t] = 0.0
                continue
            lane_first[filled] = first
            lane_size[filled] = last - first
            lane_row[filled] = s
            lane_step[filled] = t
            lane_smoothing[filled] = smoothing[t]
            lane_trend[filled] = trend[t]
            filled += 1
            if filled == LANES:
                smoothing_lanes(
                    values, lane_first, lane_size, lane_row, lane_step, filled,
                    lane_smoothing, lane_trend, terms, before, now, slope, out,
                )  # fmt: skip
                filled = 0
    smoothing_lanes(
        values, lane_first, lane_size, lane_row, lane_step, filled,
        lane_smoothing, lane_trend, terms, before, now, slope, out,
    )  # fmt: skip
