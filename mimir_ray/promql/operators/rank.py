"""topk, bottomk, limitk, limit_ratio: some series of each group, with their own labels.

They need all series at once, and where it matters take them in the order of their labels: so ties and `limitk`
come out the same however the series arrived, and as in Prometheus, whose storage sorts.
Upstream: promql/engine.go rangeEvalAgg, aggregationK.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from mimir_ray.model.series import StepMatrix
from mimir_ray.promql.annotations import go_float
from mimir_ray.promql.kernels.aggregations import are_tied, select_extremes, select_first
from mimir_ray.promql.kernels.grouping import rows_by_group
from mimir_ray.promql.kernels.label_hash import label_hashes
from mimir_ray.promql.limits import EvaluationError
from mimir_ray.promql.plan import nodes

from .execution import Execution, Scalar, extremes
from .histograms_aggregate import floats_only
from .labels import groups_of, label_order

_INT64_MAX = 9223372036854774784.0
"""The largest float that fits an int64."""


def rank(node: nodes.Aggregate, steps: nodes.Steps, execution: Execution) -> Iterator[StepMatrix]:
    """topk and bottomk. With a single step the series come out best first, group after group."""
    assert node.param is not None
    counts = execution.scalar(node.param, steps)
    gathered = execution.gather(node.expr, steps)
    ks = _checked_counts(counts)
    if ks is not None and len(gathered):
        whole = floats_only(node, gathered, execution)
        # Sorting by labels costs more than all the rest, and mostly it only says which of equal values are kept.
        starts, rows = _grouped(node, whole, execution, np.arange(len(whole)))
        keep, chosen = _extremes(whole, starts, rows, ks, node.op == "bottomk")
        groups_are_listed = steps.count == 1 and len(starts) > 2
        if groups_are_listed or are_tied(whole.values, whole.present, starts, rows, keep):
            starts, rows = _grouped(node, whole, execution, label_order(whole.labels))
            keep, chosen = _extremes(whole, starts, rows, ks, node.op == "bottomk")
        yield _kept(whole, keep, chosen)
    execution.release(gathered)


def _extremes(
    whole: StepMatrix, starts: NDArray[np.int64], rows: NDArray[np.int64], ks: NDArray[np.int64], bottom: bool
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """(which cells are kept, the rows with one); of a single step best first, group after group."""
    heap = len(ks), max(1, min(int(np.diff(starts).max()), int(ks.max())))
    keep = np.zeros(whole.present.shape, np.bool_)
    ranked = np.empty(len(whole), np.int64)
    listed = select_extremes(
        whole.values, whole.present, starts, rows, ks, bottom,
        np.empty(heap, np.float64), np.empty(heap, np.int64), np.empty(len(ks), np.int64), keep, ranked,
    )  # fmt: skip
    return keep, ranked[:listed] if len(ks) == 1 else np.flatnonzero(keep.any(axis=1))


def limit(node: nodes.Aggregate, steps: nodes.Steps, execution: Execution) -> Iterator[StepMatrix]:
    """limitk: the first series; limit_ratio: those whose hash falls into the ratio."""
    assert node.param is not None
    param = execution.scalar(node.param, steps)
    whole = execution.gather(node.expr, steps)
    if node.op == "limitk":
        ks = _checked_counts(param)
        if ks is not None and len(whole):
            starts, rows = _grouped(node, whole, execution, label_order(whole.labels))
            keep = np.zeros(whole.present.shape, np.bool_)
            select_first(whole.present, starts, rows, ks, keep)
            yield _kept(whole, keep, np.flatnonzero(keep.any(axis=1)))
    else:
        ratios = _checked_ratios(param, node.param, execution)
        if ratios is not None and len(whole):
            keep = whole.present & _sampled(whole, ratios)
            yield _kept(whole, keep, np.flatnonzero(keep.any(axis=1)))
    execution.release(whole)


def _grouped(
    node: nodes.Aggregate, whole: StepMatrix, execution: Execution, order: NDArray[np.intp]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(starts, rows) of the groups as `rows_by_group` has them, rows in this order."""
    groups = groups_of(node.grouping, node.without, execution.table)
    of_row = groups.assign(whole.labels.take(order))
    starts = np.zeros(len(groups) + 1, np.int64)
    rows = np.empty(len(whole), np.int64)
    rows_by_group(of_row, starts, rows)
    return starts, order[rows]


def _kept(whole: StepMatrix, keep: NDArray[np.bool_], chosen: NDArray[np.int64]) -> StepMatrix:
    return StepMatrix(whole.labels, whole.values, keep, whole.drop_name, whole.histograms).take(chosen)


def _checked_counts(counts: Scalar) -> NDArray[np.int64] | None:
    """k at every step, or None where no step keeps anything. Raises `EvaluationError`."""
    smallest, largest = extremes(counts)
    if largest < 1:
        return None
    if np.isnan(counts).any():
        raise EvaluationError("Parameter value is NaN")
    if smallest <= -(2.0**63):
        raise EvaluationError(f"Scalar value {go_float(smallest)} underflows int64")
    if largest >= _INT64_MAX:
        raise EvaluationError(f"Scalar value {go_float(largest)} overflows int64")
    return counts.astype(np.int64)


def _checked_ratios(ratios: Scalar, param: nodes.PlanNode, execution: Execution) -> Scalar | None:
    """Ratios in [-1, 1], or None where all are 0. Raises `EvaluationError`."""
    if (ratios == 0).all():
        return None
    if np.isnan(ratios).any():
        raise EvaluationError("Ratio value is NaN")
    smallest, largest = extremes(ratios)
    if largest > 1:
        execution.annotations.invalid_ratio(largest, 1.0, param.span)
    if smallest < -1:
        execution.annotations.invalid_ratio(smallest, -1.0, param.span)
    return np.clip(ratios, -1.0, 1.0)


def _sampled(whole: StepMatrix, ratios: Scalar) -> NDArray[np.bool_]:
    """bool[S, T]. Upstream: HashRatioSampler.AddRatioSampleWithOffset."""
    offsets = label_hashes(whole.labels).astype(np.float64)[:, None] / float(2**64 - 1)
    return np.where(ratios >= 0, offsets < ratios, offsets >= 1.0 + ratios) & (ratios != 0)
