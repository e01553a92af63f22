"""Trends: deriv and predict_linear (least squares), double_exponential_smoothing. Arguments as in rate.py.

Upstream: promql/functions.go linearRegression, funcDoubleExponentialSmoothing.
"""

from __future__ import annotations

import numpy as np

from mimir_ray.kernel import F64, I64, OutBool2, OutF64x2, device, kernel

from .over_time import add_compensated
from .windows import advance


@device
def linear_regression(timestamps, values, first, last, origin):  # type: ignore[no-untyped-def]
    """(slope per second, value at `origin` in ms) of at least one sample. Sums are compensated."""
    first_value = values[first]
    constant = True
    sum_x = sum_y = sum_xy = sum_xx = 0.0
    rest_x = rest_y = rest_xy = rest_xx = 0.0
    for i in range(first, last):
        y = values[i]
        if constant and y != first_value and i > first:
            constant = False
        x = (timestamps[i] - origin) / 1e3
        sum_x, rest_x = add_compensated(x, sum_x, rest_x)
        sum_y, rest_y = add_compensated(y, sum_y, rest_y)
        sum_xy, rest_xy = add_compensated(x * y, sum_xy, rest_xy)
        sum_xx, rest_xx = add_compensated(x * x, sum_xx, rest_xx)
    if constant:
        if np.isinf(first_value):
            return np.nan, np.nan
        return 0.0, first_value
    count = float(last - first)
    sum_x += rest_x
    sum_y += rest_y
    sum_xy += rest_xy
    sum_xx += rest_xx
    slope = (sum_xy - sum_x * sum_y / count) / (sum_xx - sum_x * sum_x / count)
    return slope, sum_y / count - slope * sum_x / count


@kernel
def derivative(
    offsets: I64, timestamps: I64, values: F64, ends: I64, range_ms: int, out: OutF64x2, present: OutBool2
) -> None:
    """deriv: the slope of the regression line, per second; needs two samples."""
    for s in range(len(offsets) - 1):
        stop = offsets[s + 1]
        first = offsets[s]
        last = first
        for t in range(len(ends)):
            last = advance(timestamps, last, stop, ends[t])
            first = advance(timestamps, first, last, ends[t] - range_ms)
            present[s, t] = last - first >= 2
            out[s, t] = 0.0
            if last - first >= 2:
                # Times relative to the first sample keep the squares small.
                slope, _ = linear_regression(timestamps, values, first, last, timestamps[first])
                out[s, t] = slope


@kernel
def predict_linear(
    offsets: I64, timestamps: I64, values: F64, ends: I64, range_ms: int, times: I64, ahead_s: F64,
    out: OutF64x2, present: OutBool2,
) -> None:  # fmt: skip
    """Where the regression line is `ahead_s[t]` seconds after the evaluation time `times[t]` (int64[T], ms)."""
    for s in range(len(offsets) - 1):
        stop = offsets[s + 1]
        first = offsets[s]
        last = first
        for t in range(len(ends)):
            last = advance(timestamps, last, stop, ends[t])
            first = advance(timestamps, first, last, ends[t] - range_ms)
            present[s, t] = last - first >= 2
            out[s, t] = 0.0
            if last - first >= 2:
                slope, intercept = linear_regression(timestamps, values, first, last, times[t])
                out[s, t] = slope * ahead_s[t] + intercept


@kernel
def double_exponential_smoothing(
    offsets: I64, timestamps: I64, values: F64, ends: I64, range_ms: int, smoothing: F64, trend: F64,
    out: OutF64x2, present: OutBool2,
) -> None:  # fmt: skip
    """The smoothed last value of a window of at least two samples; factors float64[T], in (0, 1)."""
    for s in range(len(offsets) - 1):
        stop = offsets[s + 1]
        first = offsets[s]
        last = first
        for t in range(len(ends)):
            last = advance(timestamps, last, stop, ends[t])
            first = advance(timestamps, first, last, ends[t] - range_ms)
            present[s, t] = last - first >= 2
            out[s, t] = 0.0
            if last - first < 2:
                continue
            factor = smoothing[t]
            trend_factor = trend[t]
            before = 0.0
            now = values[first]
            slope = values[first + 1] - values[first]
            for i in range(first + 1, last):
                if i > first + 1:
                    slope = trend_factor * (now - before) + (1.0 - trend_factor) * slope
                following = factor * values[i] + (1.0 - factor) * (now + slope)
                before = now
                now = following
            out[s, t] = now
