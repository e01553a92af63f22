"""Aggregation of many series into groups, step by step, into accumulators that outlive a batch.

Every `fold_*` kernel reads values float64[S, T], present bool[S, T], groups int32[S] (0..G-1) and
updates accumulators [>= G, T]. Sums are compensated (Neumaier), means switch to an incremental form
where a sum would overflow, variance is Welford's; the order of series is the order of addition.
Upstream: promql/engine.go aggregation, util/kahansum.
"""

from __future__ import annotations

import math

import numpy as np

from mimir_ray.kernel import F64, I32, I64, Bool2, F64x2, OutBool2, OutF64, OutF64x2, OutI64, OutI64x2, device, kernel

from .lanes import add_term


@device
def compensated(total, rest, value):  # type: ignore[no-untyped-def]
    """(total, rest) after adding a value; total + rest is the sum. Upstream: kahansum.Inc."""
    new = total + value
    if math.isinf(new):
        return new, 0.0
    if abs(total) >= abs(value):
        return new, rest + ((total - new) + value)
    return new, rest + ((value - new) + total)


@kernel
def fold_sum(values: F64x2, present: Bool2, groups: I32, total: OutF64x2, rest: OutF64x2, seen: OutBool2) -> None:
    for s in range(values.shape[0]):
        g = groups[s]
        whole = True
        for t in range(values.shape[1]):
            whole &= present[s, t] & seen[g, t]
        if whole:  # as below, but vector code
            terms, totals, rests = values[s], total[g], rest[g]
            for t in range(values.shape[1]):
                totals[t], rests[t] = add_term(terms[t], totals[t], rests[t])
            continue
        for t in range(values.shape[1]):
            if present[s, t]:
                if seen[g, t]:
                    total[g, t], rest[g, t] = compensated(total[g, t], rest[g, t], values[s, t])
                else:
                    seen[g, t] = True
                    total[g, t] = values[s, t]
                    rest[g, t] = 0.0


@kernel
def fold_count(present: Bool2, groups: I32, counts: OutF64x2) -> None:
    for s in range(present.shape[0]):
        g = groups[s]
        for t in range(present.shape[1]):
            counts[g, t] += present[s, t]


@kernel
def fold_presence(present: Bool2, groups: I32, seen: OutBool2) -> None:
    for s in range(present.shape[0]):
        g = groups[s]
        for t in range(present.shape[1]):
            seen[g, t] |= present[s, t]


@kernel
def fold_extreme(values: F64x2, present: Bool2, groups: I32, largest: bool, best: OutF64x2, seen: OutBool2) -> None:
    """min or max; NaN only where there is nothing else."""
    for s in range(values.shape[0]):
        g = groups[s]
        for t in range(values.shape[1]):
            if present[s, t]:
                value = values[s, t]
                old = best[g, t]
                if not seen[g, t]:
                    seen[g, t] = True
                    best[g, t] = value
                elif math.isnan(old) or (old < value if largest else old > value):
                    best[g, t] = value


@kernel
def fold_mean(
    values: F64x2, present: Bool2, groups: I32,
    total: OutF64x2, rest: OutF64x2, mean: OutF64x2, counts: OutF64x2, incremental: OutBool2,
) -> None:  # fmt: skip
    """avg: a compensated sum until it would overflow, from then on an incremental mean."""
    for s in range(values.shape[0]):
        g = groups[s]
        for t in range(values.shape[1]):
            if not present[s, t]:
                continue
            value = values[s, t]
            counts[g, t] += 1.0
            count = counts[g, t]
            if count == 1.0:
                total[g, t] = value
                mean[g, t] = value
                rest[g, t] = 0.0
                continue
            if not incremental[g, t]:
                new_total, new_rest = compensated(total[g, t], rest[g, t], value)
                if not math.isinf(new_total):
                    total[g, t] = new_total
                    rest[g, t] = new_rest
                    continue
                incremental[g, t] = True
                mean[g, t] = total[g, t] / (count - 1.0)
                rest[g, t] /= count - 1.0
            part = (count - 1.0) / count
            mean[g, t], rest[g, t] = compensated(part * mean[g, t], part * rest[g, t], value / count)


@kernel
def merge_sum(
    groups: I32, total: OutF64x2, rest: OutF64x2, seen: OutBool2, more: F64x2, more_rest: F64x2, more_seen: Bool2
) -> None:
    """Adds sums that were made elsewhere: `more*` are [R, T], row r belongs to group groups[r]."""
    for r in range(more.shape[0]):
        g = groups[r]
        for t in range(more.shape[1]):
            if more_seen[r, t]:
                if seen[g, t]:
                    total[g, t], rest[g, t] = compensated(total[g, t], rest[g, t], more[r, t])
                    rest[g, t] += more_rest[r, t]
                else:
                    seen[g, t] = True
                    total[g, t] = more[r, t]
                    rest[g, t] = more_rest[r, t]


@kernel
def merge_mean(
    groups: I32, total: OutF64x2, rest: OutF64x2, mean: OutF64x2, counts: OutF64x2, incremental: OutBool2,
    more: F64x2, more_rest: F64x2, more_mean: F64x2, more_counts: F64x2, more_incremental: Bool2,
) -> None:  # fmt: skip
    """Adds means that were made elsewhere; where sums overflow, means are weighed by their counts."""
    for r in range(more.shape[0]):
        g = groups[r]
        for t in range(more.shape[1]):
            added = more_counts[r, t]
            if added == 0.0:
                continue
            count = counts[g, t]
            counts[g, t] = count + added
            if count == 0.0:
                total[g, t] = more[r, t]
                rest[g, t] = more_rest[r, t]
                mean[g, t] = more_mean[r, t]
                incremental[g, t] = more_incremental[r, t]
                continue
            if not incremental[g, t] and not more_incremental[r, t]:
                new_total, new_rest = compensated(total[g, t], rest[g, t], more[r, t])
                if not math.isinf(new_total):
                    total[g, t] = new_total
                    rest[g, t] = new_rest + more_rest[r, t]
                    continue
            here = mean[g, t] + rest[g, t]
            there = more_mean[r, t] + more_rest[r, t]
            if not incremental[g, t]:
                here = total[g, t] / count + rest[g, t] / count
            if not more_incremental[r, t]:
                there = more[r, t] / added + more_rest[r, t] / added
            incremental[g, t] = True
            mean[g, t] = here * (count / (count + added)) + there * (added / (count + added))
            rest[g, t] = 0.0


@kernel
def finish_mean(total: F64x2, rest: F64x2, mean: F64x2, counts: F64x2, incremental: Bool2, out: OutF64x2) -> None:
    for g in range(out.shape[0]):
        for t in range(out.shape[1]):
            count = counts[g, t]
            if incremental[g, t]:
                out[g, t] = mean[g, t] + rest[g, t]
            else:
                out[g, t] = total[g, t] / count + rest[g, t] / count


@kernel
def fold_variance(
    values: F64x2, present: Bool2, groups: I32, mean: OutF64x2, squares: OutF64x2, counts: OutF64x2
) -> None:
    """stddev and stdvar: squares / counts is the variance."""
    for s in range(values.shape[0]):
        g = groups[s]
        for t in range(values.shape[1]):
            if present[s, t]:
                value = values[s, t]
                counts[g, t] += 1.0
                if counts[g, t] == 1.0:
                    mean[g, t] = value
                    squares[g, t] = 0.0 if math.isfinite(value) else math.nan
                else:
                    delta = value - mean[g, t]
                    mean[g, t] += delta / counts[g, t]
                    squares[g, t] += delta * (value - mean[g, t])


@kernel
def fold_quantile(
    values: F64x2, present: Bool2, starts: I64, rows: I64, quantiles: F64, out: OutF64x2, out_present: OutBool2,
    scratch: OutF64,
) -> None:  # fmt: skip
    """The quantile of each group at each step, between order statistics; NaN sorts first.

    Args:
        starts, rows: rows of each group, see `rows_by_group`.
        quantiles: float64[T].
        out, out_present: [G, T], written. scratch: float64[>= largest group].

    Upstream: promql/quantile.go quantile.
    """
    for g in range(len(starts) - 1):
        for t in range(values.shape[1]):
            numbers = 0
            nans = 0
            for i in range(starts[g], starts[g + 1]):
                if present[rows[i], t]:
                    value = values[rows[i], t]
                    if math.isnan(value):
                        nans += 1
                    else:
                        scratch[numbers] = value
                        numbers += 1
            count = numbers + nans
            out_present[g, t] = count > 0
            out[g, t] = 0.0
            if count == 0:
                continue
            q = quantiles[t]
            if math.isnan(q):
                out[g, t] = math.nan
            elif q < 0:
                out[g, t] = -math.inf
            elif q > 1:
                out[g, t] = math.inf
            else:
                ordered = np.sort(scratch[:numbers])
                rank = q * (count - 1)
                lower = max(0, math.floor(rank))
                upper = min(count - 1, lower + 1)
                weight = rank - math.floor(rank)
                low = math.nan if lower < nans else ordered[lower - nans]
                high = math.nan if upper < nans else ordered[upper - nans]
                out[g, t] = low * (1 - weight) + high * weight


@device
def _before(a, b, bottom):  # type: ignore[no-untyped-def]
    """The heap's order: NaN first, then the smallest (topk) or the largest (bottomk)."""
    if math.isnan(a):
        return True
    return a > b if bottom else a < b


@device
def _sift_up(heap_values, heap_rows, at, bottom):  # type: ignore[no-untyped-def]
    while at > 0:
        parent = (at - 1) // 2
        if parent == at or not _before(heap_values[at], heap_values[parent], bottom):
            break
        _swap(heap_values, heap_rows, at, parent)
        at = parent


@device
def _swap(heap_values, heap_rows, i, j):  # type: ignore[no-untyped-def]
    value = heap_values[i]
    heap_values[i] = heap_values[j]
    heap_values[j] = value
    row = heap_rows[i]
    heap_rows[i] = heap_rows[j]
    heap_rows[j] = row


@device
def _sift_down(heap_values, heap_rows, count, bottom):  # type: ignore[no-untyped-def]
    at = 0
    while True:
        child = 2 * at + 1
        if child >= count:
            break
        if child + 1 < count and _before(heap_values[child + 1], heap_values[child], bottom):
            child += 1
        if not _before(heap_values[child], heap_values[at], bottom):
            break
        _swap(heap_values, heap_rows, at, child)
        at = child


@kernel
def select_extremes(
    values: F64x2, present: Bool2, starts: I64, rows: I64, ks: I64, bottom: bool,
    heap_values: OutF64x2, heap_rows: OutI64x2, counts: OutI64, keep: OutBool2, ranked: OutI64,
) -> int:  # fmt: skip
    """topk or bottomk: which series each group keeps at each step.

    Args:
        starts, rows: rows of each group in the order in which ties are decided, see `rows_by_group`.
        ks: int64[T]; below 1 keeps nothing.
        heap_values, heap_rows: [T, largest k that any group can fill], counts: int64[T]; scratch.
        keep: bool[S, T], False, written.
        ranked: int64[S]; the kept rows of the last step, best first, group after group.

    Returns how many are in `ranked`. Ties and NaN as upstream's heap decides: promql/engine.go aggregationK.
    One heap a step, so that series are read in the order in which they lie in memory.
    """
    listed = 0
    steps = values.shape[1]
    for g in range(len(starts) - 1):
        size = starts[g + 1] - starts[g]
        counts[:] = 0
        for i in range(starts[g], starts[g + 1]):
            row = rows[i]
            for t in range(steps):
                if not present[row, t]:
                    continue
                k = min(ks[t], size)
                if k < 1:
                    continue
                value = values[row, t]
                count = counts[t]
                if count < k:
                    heap_values[t, count] = value
                    heap_rows[t, count] = row
                    counts[t] = count + 1
                    _sift_up(heap_values[t], heap_rows[t], count, bottom)
                    continue
                worst = heap_values[t, 0]
                better = value < worst if bottom else value > worst
                if better or (math.isnan(worst) and not math.isnan(value)):
                    heap_values[t, 0] = value
                    heap_rows[t, 0] = row
                    _sift_down(heap_values[t], heap_rows[t], count, bottom)
        for t in range(steps):
            for i in range(counts[t]):
                keep[heap_rows[t, i], t] = True
        best, best_rows = heap_values[steps - 1], heap_rows[steps - 1]
        for i in range(1, counts[steps - 1]):  # insertion sort: best first, NaN last
            at = i
            while at > 0 and _before(best[at - 1], best[at], bottom) and not math.isnan(best[at]):
                _swap(best, best_rows, at - 1, at)
                at -= 1
        for i in range(counts[steps - 1]):
            ranked[listed] = best_rows[i]
            listed += 1
    return listed


@kernel
def are_tied(values: F64x2, present: Bool2, starts: I64, rows: I64, keep: Bool2) -> bool:
    """Whether what `select_extremes` kept, and in which order, may depend on the order of the rows.

    So it is where a kept value is NaN or not the only one of its group and step.
    """
    steps = values.shape[1]
    one = steps == 1
    low, high = np.empty(steps, np.float64), np.empty(steps, np.float64)
    for g in range(len(starts) - 1):
        low[:] = math.inf
        high[:] = -math.inf
        kept = 0
        for i in range(starts[g], starts[g + 1]):
            for t in range(steps):
                if keep[rows[i], t]:
                    value = values[rows[i], t]
                    if math.isnan(value):
                        return True
                    kept += 1
                    low[t] = min(low[t], value)
                    high[t] = max(high[t], value)
        for i in range(starts[g], starts[g + 1]):
            for t in range(steps):
                if present[rows[i], t] and not keep[rows[i], t]:
                    value = values[rows[i], t]
                    if low[t] <= value <= high[t]:
                        return True
        if one and kept > 1:
            best = np.empty(kept, np.float64)
            at = 0
            for i in range(starts[g], starts[g + 1]):
                if keep[rows[i], 0]:
                    best[at] = values[rows[i], 0]
                    at += 1
            best.sort()
            for i in range(1, kept):
                if best[i] == best[i - 1]:
                    return True
    return False


@kernel
def select_first(present: Bool2, starts: I64, rows: I64, ks: I64, keep: OutBool2) -> None:
    """limitk: the first `ks[t]` present rows of every group."""
    for g in range(len(starts) - 1):
        for t in range(present.shape[1]):
            left = ks[t]
            for i in range(starts[g], starts[g + 1]):
                if left < 1:
                    break
                if present[rows[i], t]:
                    keep[rows[i], t] = True
                    left -= 1


@kernel
def merge_rows(values: F64x2, present: Bool2, groups: I32, out: OutF64x2, out_present: OutBool2) -> int:
    """Lays series of equal labels over each other.

    Returns the first step at which two of them are present, or -1. `out`, `out_present`: [G, T], zeros, written.
    """
    clash = -1
    for s in range(values.shape[0]):
        g = groups[s]
        for t in range(values.shape[1]):
            if present[s, t]:
                if out_present[g, t] and (clash < 0 or t < clash):
                    clash = t
                out_present[g, t] = True
                out[g, t] = values[s, t]
    return clash


@kernel
def count_cells(rows: I64, steps: I64, counts: OutF64x2) -> None:
    """counts[rows[i], steps[i]] += 1 for every i."""
    for i in range(len(rows)):
        counts[rows[i], steps[i]] += 1.0
