"""Subqueries and range selectors as samples: what range functions read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mimir_ray.model.float_histogram import GAUGE, UNKNOWN
from mimir_ray.model.histogram import HistogramPart
from mimir_ray.model.labels import LabelColumns
from mimir_ray.model.result import Matrix
from mimir_ray.model.series import SeriesBatch
from mimir_ray.promql.plan import nodes
from mimir_ray.promql.syntax.ast import ValueType

from .execution import POINTS_PER_BATCH, Execution, slices
from .sample_tally import SampleTally

RangeBatch = tuple[SeriesBatch, NDArray[np.bool_] | None]
"""Samples of some series, and which of them lose their name at the end (bool[S] or None)."""


def range_batches(node: nodes.PlanNode, steps: nodes.Steps, execution: Execution) -> Iterator[RangeBatch]:
    """The samples that a range vector's windows at these steps are made of."""
    if isinstance(node, nodes.RangeSelect):
        for batch in execution.select(node, steps):
            yield batch, None
        return
    assert isinstance(node, nodes.Subquery), node
    inner = node.inner_steps(steps)
    rows = max(1, POINTS_PER_BATCH // max(1, steps.count))
    tally = execution.new_tally(inner)
    if node.expr.type is ValueType.SCALAR:
        values = execution.scalar_tallied(node.expr, inner, tally)
        _count(tally, inner, node, steps, execution)
        labels = LabelColumns.empty_sets(1, execution.table)
        yield SeriesBatch(labels, np.array([0, len(values)], np.int64), inner.times, values), None
        return
    for matrix in execution.tallied(execution.vector(node.expr, inner), tally):
        samples = Matrix.from_steps(matrix, inner.times)
        if samples.histograms is not None:
            samples.histograms = _without_reset_hints(samples.histograms)
        held = len(samples.timestamps)
        execution.budget.take(held)
        at = 0
        for part in slices(samples.as_batch(), rows):
            drop = None if matrix.drop_name is None else matrix.drop_name[at : at + len(part)]
            at += len(part)
            yield part, drop
        execution.budget.release(held)
    _count(tally, inner, node, steps, execution)


def _count(
    tally: SampleTally | None, inner: nodes.Steps, node: nodes.Subquery, steps: nodes.Steps, execution: Execution
) -> None:
    if tally is not None and execution.tally is not None:
        execution.tally.add_subquery(tally, inner, steps, node)


def _without_reset_hints(part: HistogramPart) -> HistogramPart:
    """A subquery may leave samples out or repeat them, so what hints say of the sample before no longer holds.

    Upstream: promql/engine.go evalSubquery.
    """
    hint = np.where(part.columns.hint == GAUGE, np.int8(GAUGE), np.int8(UNKNOWN)).astype(np.int8)
    return HistogramPart(part.which, replace(part.columns, hint=hint))
