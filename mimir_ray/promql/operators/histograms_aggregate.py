"""Aggregations where some cells are native histograms. Floats go through the accumulators as ever.

Upstream: promql/engine.go aggregation.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mimir_ray.model.float_histogram import IncompatibleSchemas, kahan_add
from mimir_ray.model.histogram import HistogramCells, HistogramPart
from mimir_ray.model.labels import METRIC_NAME
from mimir_ray.model.series import StepMatrix
from mimir_ray.promql.annotations import Annotations
from mimir_ray.promql.plan import nodes
from mimir_ray.promql.syntax.ast import Span

from .execution import Execution
from .histograms_dense import Total, totals
from .histograms_range import HistogramTotal

TAKES_HISTOGRAMS = frozenset(("sum", "avg"))
"""Aggregations whose result may be a histogram."""
_OF_ANY_KIND = frozenset(("count", "group"))


def floats_only(node: nodes.Aggregate, whole: StepMatrix, execution: Execution) -> StepMatrix:
    """What an aggregation that ranks by value looks at; says so where there are histograms."""
    part = whole.histograms
    if part is not None and (whole.present & part.here).any():
        ranks = node.op in ("topk", "bottomk")
        execution.annotations.histogram_ignored(node.op, node.span if ranks else node.expr.span)
    return whole.floats()


@dataclass(slots=True)
class HistogramGroups:
    """What an aggregation holds of histograms: (group, step) to a total, or None where schemas did not fit."""

    op: str
    cells: dict[tuple[int, int], HistogramTotal | None] = field(default_factory=dict)

    def fold(
        self, batch: StepMatrix, groups: NDArray[np.int32], annotations: Annotations, span: Span
    ) -> NDArray[np.bool_]:
        """Takes in a batch that has histograms; returns where the accumulator is to look (bool[S, T])."""
        part = batch.histograms
        assert part is not None
        here = batch.present & part.here
        if self.op in _OF_ANY_KIND or not here.any():
            return batch.present
        if self.op not in TAKES_HISTOGRAMS:
            annotations.histogram_ignored(self.op, span)
            return batch.present & ~here
        together = totals(part, here, groups)
        if together is not None:
            self._take(together, batch, groups, annotations, span)
            return batch.present & ~here
        for row, t in zip(*(each.tolist() for each in np.nonzero(here)), strict=True):
            key = int(groups[row]), t
            one = part.at(row, t)
            if key not in self.cells:
                self.cells[key] = HistogramTotal(one)
                continue
            total = self.cells[key]
            if total is None:
                continue
            try:
                total.add(one, self.op == "avg")
            except IncompatibleSchemas:
                codes = batch.labels.column(METRIC_NAME)
                annotations.mixed_schemas(batch.labels.table.strings[int(codes[row])], span)
                self.cells[key] = None
        return batch.present & ~here

    def _take(
        self,
        together: dict[tuple[int, int], Total],
        batch: StepMatrix,
        groups: NDArray[np.int32],
        annotations: Annotations,
        span: Span,
    ) -> None:
        for key, found in together.items():
            total = HistogramTotal(found.value)
            total.rest, total.count = found.rest, found.count
            total.seen_reset, total.seen_not_reset = found.seen_reset, found.seen_not_reset
            mine = self.cells.setdefault(key, total)
            if mine is None or mine is total:
                continue
            try:
                merge_totals(mine, total)
            except IncompatibleSchemas:
                code = int(batch.labels.column(METRIC_NAME)[np.flatnonzero(groups == key[0])[0]])
                annotations.mixed_schemas(batch.labels.table.strings[code], span)
                self.cells[key] = None

    def merge(self, other: HistogramGroups, groups: NDArray[np.int32], annotations: Annotations, span: Span) -> None:
        """Takes in what another one held; groups int32[R] says which groups its are."""
        for (group, t), theirs in other.cells.items():
            key = int(groups[group]), t
            if key not in self.cells or self.cells[key] is None or theirs is None:
                self.cells[key] = theirs if key not in self.cells else None
                continue
            mine = self.cells[key]
            assert mine is not None
            try:
                merge_totals(mine, theirs)
            except IncompatibleSchemas:
                annotations.mixed_schemas("", span)
                self.cells[key] = None

    def result(
        self, values: NDArray[np.float64], present: NDArray[np.bool_], annotations: Annotations, span: Span
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_], HistogramPart | None]:
        """The accumulator's result with the histograms in it; groups that hold both kinds have none."""
        if not self.cells:
            return values, present, None
        present = present.copy()
        cells = HistogramCells(present.shape)
        for index, total in self.cells.items():
            if total is None:
                present[index] = False
                continue
            if present[index]:
                annotations.mixed_floats_histograms_in_aggregation(span)
                present[index] = False
                continue
            if total.reconciled:
                annotations.reconciled_buckets("aggregation", span)
            if total.collision:
                annotations.reset_collision("aggregation", span)
            cells.put(index, (total.mean() if self.op == "avg" else total.sum()).compact())
            present[index] = True
        return values, present, cells.part()


def merge_totals(mine: HistogramTotal, theirs: HistogramTotal) -> None:
    """Adds what another total holds. Raises `IncompatibleSchemas`."""
    mine.reconciled |= theirs.reconciled
    mine.seen_reset |= theirs.seen_reset
    mine.seen_not_reset |= theirs.seen_not_reset
    count = mine.count + theirs.count
    value, rest, other, other_rest = mine.value, mine.rest, theirs.value, theirs.rest
    if mine.incremental or theirs.incremental:
        # As means, each by its share of all.
        ours, others = mine.count / count, theirs.count / count
        value = value.mul(ours if mine.incremental else 1 / count)
        other = other.mul(others if theirs.incremental else 1 / count)
        rest = None if rest is None else rest.mul(ours if mine.incremental else 1 / count)
        other_rest = None if other_rest is None else other_rest.mul(others if theirs.incremental else 1 / count)
        mine.incremental = True
    value, rest, reconciled = kahan_add(value, rest, other)
    if other_rest is not None:
        value, rest, _ = kahan_add(value, rest, other_rest)
    mine.value, mine.rest, mine.count = value, rest, count
    mine.reconciled |= reconciled
