"""Aggregations that fold batch after batch: sum avg min max count group stddev stdvar.

Memory is that of the groups and one batch, however many series there are. The others stand in
rank.py (topk, bottomk, limitk, limit_ratio), quantiles.py and count_values.py.
Upstream: promql/engine.go rangeEvalAgg, aggregation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from mimir_ray.model.series import StepMatrix
from mimir_ray.promql.plan import nodes

from .accumulators import ACCUMULATORS, Accumulator
from .count_values import count_values
from .execution import Execution
from .histograms_aggregate import HistogramGroups
from .labels import GroupNames, Groups, groups_of
from .quantiles import quantile
from .rank import limit, rank

_OTHERS: dict[str, Callable[[nodes.Aggregate, nodes.Steps, Execution], Iterator[StepMatrix]]] = {
    "topk": rank,
    "bottomk": rank,
    "limitk": limit,
    "limit_ratio": limit,
    "quantile": quantile,
    "count_values": count_values,
}


def aggregate(node: nodes.Aggregate, steps: nodes.Steps, execution: Execution) -> Iterator[StepMatrix]:
    """Any aggregation."""
    return _OTHERS.get(node.op, _fold)(node, steps, execution)


def folded(
    node: nodes.Aggregate, steps: nodes.Steps, execution: Execution
) -> tuple[Groups, Accumulator, NDArray[np.bool_] | None, HistogramGroups]:
    """Everything below the aggregation folded: (groups, floats held, which lose their name, histograms held)."""
    groups = groups_of(node.grouping, node.without, execution.table)
    accumulator = ACCUMULATORS[node.op](steps.count)
    histograms = HistogramGroups(node.op)
    names = GroupNames(steps.count)

    def so_far() -> NDArray[np.bool_]:
        seen = np.array(accumulator.result()[1])
        for group, step in histograms.cells:
            seen[group, step] = True
        return seen

    for batch in execution.vector(node.expr, steps):
        of_row = groups.assign(batch.labels)
        names.fold(batch.drop_name, batch.present, of_row, len(groups), so_far)
        execution.budget.check_cells(len(groups) * steps.count)
        accumulator.grow(len(groups))
        present = batch.present
        if batch.histograms is not None:
            present = histograms.fold(batch, of_row, execution.annotations, node.expr.span)
        accumulator.fold(batch.values, present, of_row)
    return groups, accumulator, names.drop_name(len(groups), so_far), histograms


def grown(flags: NDArray[np.bool_] | None, size: int) -> NDArray[np.bool_]:
    """bool[size]: the flags, and False for what is new."""
    out = np.zeros(size, np.bool_)
    if flags is not None:
        out[: len(flags)] = flags
    return out


def _fold(node: nodes.Aggregate, steps: nodes.Steps, execution: Execution) -> Iterator[StepMatrix]:
    groups, accumulator, drop, totals = folded(node, steps, execution)
    if not len(groups):
        return
    values, present, histograms = totals.result(*accumulator.result(), execution.annotations, node.expr.span)
    found = int(np.count_nonzero(present))
    execution.budget.take(found)
    yield StepMatrix(groups.labels(), values, present, drop, histograms)
    execution.budget.release(found)
