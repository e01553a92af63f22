"""Trimming histograms: what `</` and `>/` leave of one.

Observations within a bucket are taken to be spread evenly: over the logarithm in exponential buckets, over the value in
custom ones and in the zero bucket. Upstream: float_histogram.go TrimBuckets.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from .float_histogram import Counts, FloatHistogram
from .go_math import log2


def trim(histogram: FloatHistogram, bound: float, upper: bool) -> FloatHistogram:
    """Without what lies above (`upper`) or below the bound; itself if nothing does."""
    custom = histogram.has_custom_buckets
    count = total = 0.0
    trimmed = False
    sides: dict[str, Counts] = {}
    some: dict[str, bool] = {}
    for side, (lower_bounds, upper_bounds), counts in (
        ("positive", histogram.positive_bounds(), histogram.positive_counts),
        ("negative", histogram.negative_bounds(), histogram.negative_counts),
    ):
        kept_counts = counts.copy()
        positive = side == "positive"
        some[side] = bool(counts.any())
        for at in np.flatnonzero(counts).tolist():
            low, high, here = float(lower_bounds[at]), float(upper_bounds[at]), float(counts[at])
            if high <= bound if upper else low >= bound:
                kept, middle = here, midpoint(low, high, positive, custom)
            elif low < bound if upper else high > bound:
                kept, middle = _split(low, high, here, bound, upper, positive, custom)
                trimmed |= kept != here
            else:
                kept, middle = 0.0, 0.0
                trimmed = True
            count += kept
            total += middle * kept
            kept_counts[at] = kept
        sides[f"{side}_counts"] = kept_counts
    zero_count = histogram.zero_count
    if zero_count > 0:
        kept, middle = _split_zero(histogram, bound, upper, some["negative"], some["positive"])
        trimmed |= kept != zero_count
        zero_count = kept
        total += middle * kept
        count += kept
    if not trimmed:
        return histogram
    return replace(histogram, zero_count=zero_count, count=count, sum=total, **sides).compact()  # type: ignore[arg-type]


def _split(
    low: float, high: float, count: float, bound: float, upper: bool, positive: bool, custom: bool
) -> tuple[float, float]:
    """(count, midpoint) of what remains of a bucket that the bound lies in."""
    if math.isinf(low) or math.isinf(high):
        return _split_infinite(low, high, count, bound, upper)
    below = 0.0 if bound <= low else count if bound >= high else count * fraction_below(low, high, bound, custom)
    if upper:
        return below, midpoint(low, bound, positive, custom)
    return count - below, midpoint(bound, high, positive, custom)


def _split_infinite(low: float, high: float, count: float, bound: float, upper: bool) -> tuple[float, float]:
    """Upstream: handleInfinityBuckets."""
    edge = high if low == -math.inf else low
    nothing = 0.0, 0.0 if math.isinf(edge) else edge
    if low == -math.inf:
        if upper:
            if bound >= high:
                return count, 0.0
            if bound > 0 and 0 < high < math.inf:
                return count * bound / high, bound / 2
            return (count, bound) if high <= 0 else nothing
        if bound <= low:
            return count, 0.0
        if bound >= 0 and bound < high < math.inf:
            return count * (1 - bound / high), (bound + high) / 2
        return nothing
    return (count, bound) if not upper and bound >= low else nothing


def _split_zero(
    histogram: FloatHistogram, bound: float, upper: bool, has_negative: bool, has_positive: bool
) -> tuple[float, float]:
    """(count, midpoint) of what remains of the zero bucket, which holds no sign of which the histogram has nothing."""
    low, high, count = -histogram.zero_threshold, histogram.zero_threshold, histogram.zero_count
    if has_negative and not has_positive:
        high = 0.0
    if has_positive and not has_negative:
        low = 0.0
    if bound <= low:
        return (0.0, 0.0) if upper else (count, (low + high) / 2)
    if bound >= high:
        return (count, (low + high) / 2) if upper else (0.0, 0.0)
    if upper:
        return count * ((bound - low) / (high - low)), (low + bound) / 2
    return count * ((high - bound) / (high - low)), (bound + high) / 2


def fraction_below(low: float, high: float, bound: float, linear: bool) -> float:
    """How much of a bucket lies below a bound in it. Upstream: Bucket.FractionBelow."""
    if linear:
        return float(np.divide(bound - low, high - low))
    log_low, log_high, log_bound = (log2(abs(each)) for each in (low, high, bound))
    if bound > 0:
        return float(np.divide(log_bound - log_low, log_high - log_low))
    return 1 - float(np.divide(log_bound - log_high, log_low - log_high))


def midpoint(low: float, high: float, positive: bool, linear: bool) -> float:
    """Where the observations of a bucket are taken to lie. Upstream: computeMidpoint."""
    if math.isinf(low):
        if math.isinf(high):
            return 0.0
        return high / 2 if high > 0 else high
    if math.isinf(high):
        return low
    if linear:
        return (low + high) / 2
    middle = math.sqrt(abs(low * high))
    return middle if positive else -middle
