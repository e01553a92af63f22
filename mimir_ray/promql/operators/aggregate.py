"""Aggregations that fold batch after batch: sum avg min max count group stddev stdvar.

Memory is that of the groups and one batch, however many series there are. The others stand in
rank.py (topk, bottomk, limitk, limit_ratio), quantiles.py and count_values.py.
Upstream: promql/engine.go rangeEvalAgg, aggregation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from mimir_ray.model.series import StepMatrix
from mimir_ray.promql.plan import nodes

from .accumulators import ACCUMULATORS
from .count_values import count_values
from .execution import Execution
from .labels import groups_of
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


def _fold(node: nodes.Aggregate, steps: nodes.Steps, execution: Execution) -> Iterator[StepMatrix]:
    groups = groups_of(node.grouping, node.without, execution.table)
    accumulator = ACCUMULATORS[node.op](steps.count)
    drop = np.zeros(0, np.bool_)
    for batch in execution.vector(node.expr, steps):
        of_row = groups.assign(batch.labels)
        accumulator.grow(len(groups))
        accumulator.fold(batch.values, batch.present, of_row)
        if batch.drop_name is not None:
            drop = np.concatenate([drop, np.zeros(len(groups) - len(drop), np.bool_)])
            drop[of_row[batch.drop_name & batch.present.any(axis=1)]] = True
    if not len(groups):
        return
    values, present = accumulator.result()
    if len(drop):
        drop = np.concatenate([drop, np.zeros(len(groups) - len(drop), np.bool_)])
    found = int(np.count_nonzero(present))
    execution.budget.take(found)
    yield StepMatrix(groups.labels(), values, present, drop if len(drop) else None)
    execution.budget.release(found)
