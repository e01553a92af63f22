"""Functions of instant vectors that read native histograms.

Upstream: promql/functions.go simpleHistogramFunc, histogramVariance; promql/quantile.go HistogramQuantile,
HistogramFraction.
"""

# ruff: noqa: ARG001  (all functions share one signature)
from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mimir_ray.model.float_histogram import Counts, FloatHistogram, kahan_inc_one
from mimir_ray.model.go_math import exp2, log2
from mimir_ray.model.histogram import HistogramColumns
from mimir_ray.model.histogram_trim import fraction_below
from mimir_ray.model.series import StepMatrix
from mimir_ray.promql.annotations import Annotations
from mimir_ray.promql.syntax.ast import Span

from .functions_base import FunctionContext, ScalarSteps, VectorFunction


def of_histograms(read: Callable[[HistogramColumns], Counts]) -> VectorFunction:
    """A number of every histogram; floats have no result."""

    def run(matrix: StepMatrix, params: tuple[ScalarSteps | str, ...], context: FunctionContext) -> StepMatrix:
        part = matrix.histograms
        if part is None:
            return matrix.take(slice(0, 0))
        with np.errstate(all="ignore"):
            values = read(part.columns)[part.which]
        return StepMatrix(matrix.labels, values, matrix.present & part.here, matrix.drop_name)

    return VectorFunction(run, takes_histograms=True)


def _variances(columns: HistogramColumns) -> Counts:
    return np.array([variance(columns.row(number)) for number in range(len(columns))], np.float64)


def variance(histogram: FloatHistogram) -> float:
    """Estimated as if all observations of a bucket were in its middle."""
    lower, upper, counts = histogram.buckets()
    if histogram.has_custom_buckets:
        middle = (upper + lower) / 2.0
    else:
        with np.errstate(all="ignore"):
            middle = np.sqrt(upper * lower)
        middle = np.where((lower <= 0) & (upper >= 0), 0.0, np.where(upper < 0, -middle, middle))
    mean = float(np.divide(histogram.sum, histogram.count)) if histogram.count else math.nan
    total = rest = 0.0
    for value, count in zip(middle.tolist(), counts.tolist(), strict=True):
        if count:
            delta = value - mean
            total, rest = kahan_inc_one(count * delta * delta, total, rest)
    return float(np.divide(total + rest, histogram.count))


VECTOR_FUNCTIONS: dict[str, VectorFunction] = {
    "histogram_count": of_histograms(lambda columns: columns.count),
    "histogram_sum": of_histograms(lambda columns: columns.sum),
    "histogram_avg": of_histograms(lambda columns: columns.sum / columns.count),
    "histogram_stdvar": of_histograms(_variances),
    "histogram_stddev": of_histograms(lambda columns: np.sqrt(_variances(columns))),
}


def quantile(q: float, histogram: FloatHistogram, name: str, annotations: Annotations, span: Span) -> float:
    """An estimate of a quantile, interpolated within its bucket."""
    if q < 0:
        return -math.inf
    if q > 1:
        return math.inf
    if histogram.count == 0 or math.isnan(q):
        return math.nan
    has_nan = math.isnan(histogram.sum)
    forward = has_nan or q < 0.5
    lower, upper, counts = histogram.buckets()
    if not forward:
        lower, upper, counts = lower[::-1], upper[::-1], counts[::-1]
    rank = q * histogram.count if forward else (1 - q) * histogram.count
    sums = np.cumsum(counts)
    reached = np.flatnonzero((sums >= rank) & (counts != 0))
    at = int(reached[0]) if len(reached) else len(counts) - 1
    low, high, here, count = 0.0, 0.0, 0.0, 0.0
    if at >= 0:
        low, high, here, count = float(lower[at]), float(upper[at]), float(counts[at]), float(sums[at])
    custom = histogram.has_custom_buckets
    if not custom and low < 0 < high:
        if not len(histogram.negative) and len(histogram.positive):
            low = 0.0
        elif not len(histogram.positive) and len(histogram.negative):
            high = 0.0
    elif custom:
        if low == -math.inf:
            if high <= 0:
                return high
            low = 0.0
        elif high == math.inf:
            return low
    count = min(count, histogram.count)
    if count < rank:
        # Observations are NaN, or float buckets do not quite add up.
        if has_nan:
            annotations.nan_quantile(name, span)
            return math.nan
        return high
    rank = rank - (count - here) if forward else count - rank
    if has_nan and count + float(counts[at + 1 :].sum()) < histogram.count:
        annotations.skewed_quantile(name, span)
    fraction = float(np.divide(rank, here))
    if custom or low <= 0 <= high:
        return low + (high - low) * fraction
    log_low, log_high = log2(abs(low)), log2(abs(high))
    if low > 0:
        return exp2(log_low + (log_high - log_low) * fraction)
    return -exp2(log_high + (log_low - log_high) * (1 - fraction))


def fraction(
    lower: float, upper: float, histogram: FloatHistogram, name: str, annotations: Annotations, span: Span
) -> float:
    """Which part of all observations lies between two bounds."""
    if histogram.count == 0 or math.isnan(lower) or math.isnan(upper):
        return math.nan
    if lower >= upper:
        return 0.0
    custom = histogram.has_custom_buckets
    ranks: list[float | None] = [None, None]
    rank = 0.0
    lows, highs, counts = histogram.buckets()
    for low, high, here in zip(lows.tolist(), highs.tolist(), counts.tolist(), strict=True):
        zero_bucket = low <= 0 <= high
        if zero_bucket:
            if not len(histogram.negative) and len(histogram.positive):
                low = 0.0
            elif not len(histogram.positive) and len(histogram.negative):
                high = 0.0
        for which, bound in enumerate((lower, upper)):
            if ranks[which] is None and low >= bound:
                ranks[which] = rank
        for which, bound in enumerate((lower, upper)):
            if ranks[which] is None and low < bound < high:
                if custom or zero_bucket:
                    ranks[which] = here if low == -math.inf else rank + here * fraction_below(low, high, bound, True)
                else:
                    ranks[which] = rank + here * fraction_below(low, high, bound, False)
        if None not in ranks:
            break
        rank += here
    count = histogram.count
    if math.isnan(histogram.sum):
        count = float(counts.sum())
        if count < histogram.count:
            annotations.nan_fraction(name, span)
    low_rank, high_rank = (count if each is None or each > count else each for each in ranks)
    return (high_rank - low_rank) / histogram.count


def for_each(
    matrix: StepMatrix, present: NDArray[np.bool_], compute: Callable[[int, int, FloatHistogram], float]
) -> NDArray[np.float64]:
    """float64[S, T]: `compute(row, step, histogram)` where `present`, which is within the histograms of the matrix."""
    values = np.zeros(present.shape)
    assert matrix.histograms is not None
    for row, t in zip(*(each.tolist() for each in np.nonzero(present)), strict=True):
        values[row, t] = compute(row, t, matrix.histograms.at(row, t))
    return values
