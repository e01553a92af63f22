"""Tells selectors under an aggregation `by (...)` which labels anybody will read.

Labels that nobody reads need not be carried: of `sum by (job) (rate(x[5m]))` the engine never sees a pod's name.
"""

from __future__ import annotations

import dataclasses

from mimir_ray.model.labels import METRIC_NAME
from mimir_ray.promql.plan import nodes

from .push_down import is_per_series

_FOLDS = frozenset(("sum", "avg", "min", "max", "count", "group", "stddev", "stdvar", "quantile", "count_values"))


def prune_labels(node: nodes.PlanNode, delayed_names: bool = False) -> nodes.PlanNode:
    """The plan with `labels` set on selectors whose series only go, one by one, into an aggregation."""
    if (
        isinstance(node, nodes.Aggregate)
        and node.op in _FOLDS
        and not node.without
        and is_per_series(node.expr, delayed_names)
    ):
        # Annotations name the metric.
        labels = tuple(sorted({*node.grouping, METRIC_NAME}))
        return dataclasses.replace(node, expr=_with_labels(node.expr, labels))
    return node.map_children(lambda child: prune_labels(child, delayed_names))


def _with_labels(node: nodes.PlanNode, labels: tuple[str, ...]) -> nodes.PlanNode:
    if isinstance(node, nodes.Select | nodes.RangeSelect):
        return dataclasses.replace(node, labels=labels)
    return node.map_children(lambda child: _with_labels(child, labels))
