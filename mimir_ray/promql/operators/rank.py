"""topk, bottomk, limitk, limit_ratio: some series of each group, with their own labels.

Where it matters they take series in the order of their labels: so ties and `limitk` come out the same however the
series arrived, and as in Prometheus, whose storage sorts. Of many series only those are held that may be kept
(contenders.py), unless equal values decide: then all.
Upstream: promql/engine.go rangeEvalAgg, aggregationK.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from mimir_ray.model.series import StepMatrix
from mimir_ray.promql.annotations import Annotations, go_float
from mimir_ray.promql.kernels.aggregations import are_tied, select_extremes, select_first
from mimir_ray.promql.kernels.grouping import rows_by_group
from mimir_ray.promql.kernels.label_hash import label_hashes
from mimir_ray.promql.limits import EvaluationError
from mimir_ray.promql.plan import nodes

from .contenders import gather_again, gather_some
from .execution import Execution, Scalar, extremes
from .histograms_aggregate import floats_only
from .labels import groups_of, label_order

Checked = TypeVar("Checked")

_INT64_MAX = 9223372036854774784.0
"""The largest float that fits an int64."""


def rank(node: nodes.Aggregate, steps: nodes.Steps, execution: Execution) -> Iterator[StepMatrix]:
    """topk and bottomk. With a single step the series come out best first, group after group."""
    assert node.param is not None
    counts = execution.scalar(node.param, steps)
    ks = _after_expression(lambda: _checked_counts(counts), node, steps, execution)
    if ks is None:
        return
    grouped = bool(node.grouping) or node.without

    def may_be_kept(some: StepMatrix) -> NDArray[np.bool_]:
        some = floats_only(node, some, execution)
        starts, rows = _grouped(node, some, np.arange(len(some)))
        keep, _ = _extremes(some, starts, rows, ks, node.op == "bottomk")
        chosen = keep.any(axis=1) | _witnesses(some, starts, rows, keep)
        if steps.count == 1 and grouped:
            # Groups are listed in the order of their first series, whether it is kept or not.
            starts, rows = _grouped(node, some, label_order(some.labels))
            chosen[rows[starts[:-1]]] = True
        return chosen

    gathered, narrowed = gather_some(node.expr, steps, execution, may_be_kept)
    if len(gathered):
        whole = floats_only(node, gathered, execution)
        # Sorting by labels costs more than all the rest, and mostly it only says which of equal values are kept.
        starts, rows = _grouped(node, whole, np.arange(len(whole)))
        keep, chosen = _extremes(whole, starts, rows, ks, node.op == "bottomk")
        groups_are_listed = steps.count == 1 and len(starts) > 2
        tied = (narrowed or not groups_are_listed) and are_tied(whole.values, whole.present, starts, rows, keep)
        if tied and narrowed:
            # Which of equal ones are kept depends on all that were seen before them.
            execution.release(gathered)
            gathered = gather_again(node.expr, steps, execution)
            whole = gathered.floats()
        if groups_are_listed or tied:
            starts, rows = _grouped(node, whole, label_order(whole.labels))
            keep, chosen = _extremes(whole, starts, rows, ks, node.op == "bottomk")
        yield _kept(whole, keep, chosen)
    execution.release(gathered)


def _after_expression(
    check: Callable[[], Checked | None], node: nodes.Aggregate, steps: nodes.Steps, execution: Execution
) -> Checked | None:
    """What a check of the parameter gives. Where nothing is kept, or the check fails, the expression is evaluated all
    the same, as upstream has it by then.
    """
    checked, wrong = None, None
    try:
        checked = check()
    except EvaluationError as error:
        wrong = error
    if checked is None:
        execution.release(execution.gather(node.expr, steps))
    if wrong is not None:
        raise wrong
    return checked


def _witnesses(
    some: StepMatrix, starts: NDArray[np.int64], rows: NDArray[np.int64], keep: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """bool[S]: of each group and step one series that is not kept though its value is as good as one that is."""
    of_row = np.empty(len(some), np.int64)
    of_row[rows] = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    shape = len(starts) - 1, some.values.shape[1]
    low, high = np.full(shape, np.inf), np.full(shape, -np.inf)
    np.minimum.at(low, of_row, np.where(keep, some.values, np.inf))
    np.maximum.at(high, of_row, np.where(keep, some.values, -np.inf))
    tied = some.present & ~keep & (low[of_row] <= some.values) & (some.values <= high[of_row])
    found = np.zeros(len(some), np.bool_)
    row, step = np.nonzero(tied)
    _, first = np.unique(of_row[row] * shape[1] + step, return_index=True)
    found[row[first]] = True
    return found


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
    choose = _first if node.op == "limitk" else _of_ratio
    with execution.later_annotations() as later:
        kept = _after_expression(lambda: choose(node, param, later), node, steps, execution)
    if kept is None:
        return
    whole, _ = gather_some(node.expr, steps, execution, lambda some: kept(some).any(axis=1))
    execution.annotations.merge(later)
    if len(whole):
        keep = kept(whole)
        yield _kept(whole, keep, np.flatnonzero(keep.any(axis=1)))
    execution.release(whole)


Keeps = Callable[[StepMatrix], NDArray[np.bool_]]
"""bool[S, T], which cells of a vector are kept."""


def _first(node: nodes.Aggregate, param: Scalar, annotations: Annotations) -> Keeps | None:  # noqa: ARG001
    ks = _checked_counts(param)

    def kept(some: StepMatrix) -> NDArray[np.bool_]:
        assert ks is not None
        starts, rows = _grouped(node, some, label_order(some.labels))
        keep = np.zeros(some.present.shape, np.bool_)
        select_first(some.present, starts, rows, ks, keep)
        return keep

    return None if ks is None else kept


def _of_ratio(node: nodes.Aggregate, param: Scalar, annotations: Annotations) -> Keeps | None:
    assert node.param is not None
    ratios = _checked_ratios(param, node.param, annotations)
    return None if ratios is None else lambda some: some.present & _sampled(some, ratios)


def _grouped(
    node: nodes.Aggregate, whole: StepMatrix, order: NDArray[np.intp]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(starts, rows) of the groups as `rows_by_group` has them, rows in this order."""
    groups = groups_of(node.grouping, node.without, whole.labels.table)
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


def _checked_ratios(ratios: Scalar, param: nodes.PlanNode, annotations: Annotations) -> Scalar | None:
    """Ratios in [-1, 1], or None where all are 0. Raises `EvaluationError`."""
    if (ratios == 0).all():
        return None
    if np.isnan(ratios).any():
        raise EvaluationError("Ratio value is NaN")
    smallest, largest = extremes(ratios)
    if largest > 1:
        annotations.invalid_ratio(largest, 1.0, param.span)
    if smallest < -1:
        annotations.invalid_ratio(smallest, -1.0, param.span)
    return np.clip(ratios, -1.0, 1.0)


def _sampled(whole: StepMatrix, ratios: Scalar) -> NDArray[np.bool_]:
    """bool[S, T]. Upstream: HashRatioSampler.AddRatioSampleWithOffset."""
    offsets = label_hashes(whole.labels).astype(np.float64)[:, None] / float(2**64 - 1)
    return np.where(ratios >= 0, offsets < ratios, offsets >= 1.0 + ratios) & (ratios != 0)
