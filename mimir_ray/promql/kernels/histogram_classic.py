"""Classic histograms (series with a label `le`): histogram_quantile and histogram_fraction.

Rows of a matrix are gathered into G groups of buckets, sorted by upper bound. Arguments of both kernels:
`rows` int64[R] indexes the matrix, `bounds` float64[R] are their upper bounds, group g owns
rows[groups[g]:groups[g + 1]] in ascending order of bounds; `values` and `present` are the matrix [S, T];
`out` and `out_present` [G, T] are written in full.

Upstream: promql/quantile.go BucketQuantile, BucketFraction.
"""

from __future__ import annotations

import numpy as np

from mimir_ray.kernel import (
    F64,
    I64,
    Bool2,
    F64x2,
    OutBool2,
    OutF64,
    OutF64x2,
    device,
    kernel,
)

SMALL_DELTA = 1e-12
"""Relative differences between neighbouring buckets below this are rounding errors."""
_SMALLEST_NORMAL = np.finfo(np.float64).smallest_normal
_FLOAT_MAX = np.finfo(np.float64).max


@device
def almost_equal(a, b, tolerance):  # type: ignore[no-untyped-def]
    """Upstream: util/almost.Equal."""
    if (np.isnan(a) and np.isnan(b)) or a == b:
        return True
    size = abs(a) + abs(b)
    difference = abs(a - b)
    if a == 0.0 or b == 0.0 or size < _SMALLEST_NORMAL:
        return difference < tolerance * _SMALLEST_NORMAL
    return difference / min(size, _FLOAT_MAX) < tolerance


@device
def gather_buckets(groups, rows, bounds, values, present, g, t, upper, counts):  # type: ignore[no-untyped-def]
    """The buckets of group g at step t, those of one bound added up, in `upper` and `counts`.

    Returns (how many series had a value, how many buckets they make).
    """
    seen = 0
    size = 0
    for k in range(groups[g], groups[g + 1]):
        row = rows[k]
        if not present[row, t]:
            continue
        seen += 1
        if size and upper[size - 1] == bounds[k]:
            counts[size - 1] += values[row, t]
        else:
            upper[size] = bounds[k]
            counts[size] = values[row, t]
            size += 1
    return seen, size


@device
def largest_group(groups):  # type: ignore[no-untyped-def]
    largest = 0
    for g in range(len(groups) - 1):
        largest = max(largest, groups[g + 1] - groups[g])
    return largest


@device
def quantile_of(q, upper, counts, size):  # type: ignore[no-untyped-def]
    """The quantile of at least two monotonic buckets whose last bound is +Inf."""
    observations = counts[size - 1]
    if observations == 0.0:
        return np.nan
    rank = q * observations
    low = 0
    high = size - 1
    while low < high:  # as sort.Search: decides which bucket NaN counts lead to
        middle = (low + high) >> 1
        if counts[middle] >= rank:
            high = middle
        else:
            low = middle + 1
    if low == size - 1:
        return upper[size - 2]
    if low == 0 and upper[0] <= 0.0:
        return upper[0]
    begin = 0.0
    count = counts[low]
    if low > 0:
        begin = upper[low - 1]
        count -= counts[low - 1]
        rank -= counts[low - 1]
    return begin + (upper[low] - begin) * (rank / count)


@kernel
def bucket_quantile(
    groups: I64, rows: I64, bounds: F64, values: F64x2, present: Bool2, q: F64,
    out: OutF64x2, out_present: OutBool2,
    forced: OutBool2,
    bucket_min: OutF64, bucket_max: OutF64, diff_max: OutF64,
) -> None:  # fmt: skip
    """The `q[t]`-quantile of each group at each step.

    Counts that fall from one bucket to the next are lifted. `forced` bool[G, T] tells at which steps that was
    more than a rounding error, `bucket_min`, `bucket_max` and `diff_max` float64[G] which bounds were lifted and by how
    much at most.
    """
    upper = np.empty(largest_group(groups), np.float64)
    counts = np.empty(largest_group(groups), np.float64)
    for g in range(len(groups) - 1):
        bucket_min[g] = np.inf
        bucket_max[g] = -np.inf
        diff_max[g] = 0.0
        for t in range(len(q)):
            seen, size = gather_buckets(groups, rows, bounds, values, present, g, t, upper, counts)
            out_present[g, t] = seen > 0
            forced[g, t] = False
            if seen == 0:
                out[g, t] = 0.0
                continue
            if np.isnan(q[t]):
                out[g, t] = np.nan
                continue
            if q[t] < 0.0:
                out[g, t] = -np.inf
                continue
            if q[t] > 1.0:
                out[g, t] = np.inf
                continue
            out[g, t] = np.nan
            if upper[size - 1] != np.inf:
                continue
            before = counts[0]
            for b in range(1, size):
                count = counts[b]
                if count == before:
                    continue
                if almost_equal(before, count, SMALL_DELTA):
                    counts[b] = before
                elif count < before:
                    counts[b] = before
                    forced[g, t] = True
                    bucket_min[g] = min(bucket_min[g], upper[b])
                    bucket_max[g] = max(bucket_max[g], upper[b])
                    diff_max[g] = max(diff_max[g], before - count)
                else:
                    before = count
            if size >= 2:
                out[g, t] = quantile_of(q[t], upper, counts, size)


@device
def rank_inside(value, rank, count, begin, end):  # type: ignore[no-untyped-def]
    """How many observations are up to `value`, which lies inside the bucket (begin, end)."""
    if begin == -np.inf:
        return count
    return rank + (count - rank) * (value - begin) / (end - begin)


@device
def fraction_of(lower, higher, upper, counts, size):  # type: ignore[no-untyped-def]
    """The share of observations in (lower, higher], of buckets whose last bound is +Inf."""
    total = counts[size - 1]
    if total == 0.0 or np.isnan(lower) or np.isnan(higher):
        return np.nan
    if lower >= higher:
        return 0.0
    rank = lower_rank = higher_rank = 0.0
    lower_set = higher_set = False
    begin = 0.0 if upper[0] > 0.0 else -np.inf
    for b in range(size):
        if b > 0:
            begin = upper[b - 1]
        end = upper[b]
        if not lower_set and begin >= lower:
            lower_rank = rank
            lower_set = True
        if not higher_set and begin >= higher:
            higher_rank = rank
            higher_set = True
        if lower_set and higher_set:
            break
        if not lower_set and begin < lower and end > lower:
            lower_rank = rank_inside(lower, rank, counts[b], begin, end)
            lower_set = True
        if not higher_set and begin < higher and end > higher:
            higher_rank = rank_inside(higher, rank, counts[b], begin, end)
            higher_set = True
        if lower_set and higher_set:
            break
        rank = counts[b]
    if not lower_set or lower_rank > total:
        lower_rank = total
    if not higher_set or higher_rank > total:
        higher_rank = total
    return (higher_rank - lower_rank) / total


@kernel
def bucket_fraction(
    groups: I64, rows: I64, bounds: F64, values: F64x2, present: Bool2, lower: F64, higher: F64,
    out: OutF64x2, out_present: OutBool2,
) -> None:  # fmt: skip
    """The share of observations between `lower[t]` and `higher[t]` of each group at each step."""
    upper = np.empty(largest_group(groups), np.float64)
    counts = np.empty(largest_group(groups), np.float64)
    for g in range(len(groups) - 1):
        for t in range(len(lower)):
            seen, size = gather_buckets(groups, rows, bounds, values, present, g, t, upper, counts)
            out_present[g, t] = seen > 0
            out[g, t] = 0.0
            if seen:
                finished = upper[size - 1] == np.inf
                out[g, t] = fraction_of(lower[t], higher[t], upper, counts, size) if finished else np.nan
