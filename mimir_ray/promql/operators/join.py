"""Binary operators of two vectors: every element meets the one with matching labels on the other side.

Which rows can meet is decided once, on label codes; whether they do, step by step. A label set that
two series share is only an error at a step that has both. Upstream: promql/engine.go VectorBinop, resultMetric.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mimir_ray.model.histogram import HistogramPart
from mimir_ray.model.labels import METRIC_NAME, LabelColumns
from mimir_ray.model.series import StepMatrix
from mimir_ray.promql.annotations import Annotations
from mimir_ray.promql.kernels.arithmetic import ARITHMETIC, COMPARISON
from mimir_ray.promql.kernels.grouping import presence_by_group, rows_by_group
from mimir_ray.promql.kernels.joins import first_clash
from mimir_ray.promql.limits import EvaluationError
from mimir_ray.promql.plan import nodes
from mimir_ray.promql.syntax.ast import Cardinality, VectorMatching

from .execution import Execution
from .histograms_binary import Cells, of_vectors
from .labels import Groups, format_labels, merge_same_labels, without_names

Rows = NDArray[np.int64]


def join(node: nodes.Join, steps: nodes.Steps, execution: Execution) -> Iterator[StepMatrix]:
    """Raises `EvaluationError` where a label set matches more than it may at some step."""
    left = execution.gather(node.left, steps)
    right = execution.gather(node.right, steps)
    result = _Join(node, left, right, execution).run()
    if result is not None and len(result):
        found = int(np.count_nonzero(result.present))
        execution.budget.take(found)
        yield result
        execution.budget.release(found)
    execution.release(left)
    execution.release(right)


def signatures(matching: VectorMatching, execution: Execution) -> Groups:
    """(Empty) groups of series that match each other."""
    names = matching.labels if matching.on else (*matching.labels, METRIC_NAME)
    return Groups(tuple(names), not matching.on, execution.table)


@dataclass(slots=True)
class _Side:
    """One side of the operation; rows appended by `fill` values stand at its end."""

    matrix: StepMatrix
    groups: NDArray[np.int32]

    def append(self, labels: LabelColumns, value: float, present: NDArray[np.bool_], groups: NDArray[np.int32]) -> Rows:
        """Adds rows of one value; returns their numbers."""
        matrix = self.matrix
        first = len(matrix)
        self.matrix = StepMatrix(
            LabelColumns.concat([matrix.labels, labels]),
            np.concatenate([matrix.values, np.full(present.shape, value)]),
            np.concatenate([matrix.present, present]),
            None,
            HistogramPart.concat([(matrix.histograms, matrix.values.shape), (None, present.shape)]),
        )
        self.groups = np.concatenate([self.groups, groups])
        return np.arange(first, first + len(labels))


class _Join:
    def __init__(self, node: nodes.Join, left: StepMatrix, right: StepMatrix, execution: Execution) -> None:
        self._node = node
        self._matching = node.matching
        self._execution = execution
        self._swapped = node.matching.cardinality is Cardinality.ONE_TO_MANY
        self._one_to_one = node.matching.cardinality is Cardinality.ONE_TO_ONE
        groups = signatures(node.matching, execution)
        many, one = (right, left) if self._swapped else (left, right)
        self._many = _Side(many, groups.assign(many.labels))
        self._one = _Side(one, groups.assign(one.labels))
        self._groups = len(groups)
        self._signatures = groups
        filled = node.matching.fill_left is not None or node.matching.fill_right is not None
        some_left, some_right = left.present.any(axis=0), right.present.any(axis=0)
        self._active = (some_left | some_right) if filled else (some_left & some_right)

    def run(self) -> StepMatrix | None:
        if not self._active.any():
            return None
        self._check_one_side()
        many_rows, one_rows = self._pairs()
        matching = self._matching
        if matching.fill_right is not None or matching.fill_left is not None:
            many_rows, one_rows = self._fill(many_rows, one_rows)
        if not len(many_rows):
            return None
        many, one = _rows(self._many.matrix, many_rows), _rows(self._one.matrix, one_rows)
        met = self._met(many, one)
        left, right = (one, many) if self._swapped else (many, one)
        of_pair = self._many.groups[many_rows]
        labels = self._labels(many.labels, one.labels)
        mixed = None
        if self._may_refuse():
            mixed, refused = self._mixed(left, right, met, self._execution.annotations)
            met = met & ~refused
        if self._one_to_one:
            self._check_one_to_one(met, of_pair)
        else:
            self._check_grouping(met, of_pair, labels)
        drop = np.ones(len(labels), np.bool_) if self._node.return_bool and self._execution.delayed_names else None
        if mixed is not None:
            values, present, histograms = mixed
            return merge_same_labels(StepMatrix(labels, values, present, drop, histograms))
        return self._apply(left.values, right.values, met, labels, drop)

    def _met(self, many: StepMatrix, one: StepMatrix) -> NDArray[np.bool_]:
        met = many.present & one.present
        return met if self._active.all() else met & self._active

    def _apply(
        self,
        left: NDArray[np.float64],
        right: NDArray[np.float64],
        met: NDArray[np.bool_],
        labels: LabelColumns,
        drop: NDArray[np.bool_] | None,
    ) -> StepMatrix:
        op = self._node.op
        with np.errstate(all="ignore"):
            if op in ARITHMETIC:
                return merge_same_labels(StepMatrix(labels, ARITHMETIC[op](left, right), met, drop))
            holds = COMPARISON[op](left, right)
        if self._node.return_bool:
            return merge_same_labels(StepMatrix(labels, holds.astype(np.float64), met, drop))
        return merge_same_labels(StepMatrix(labels, left, met & holds, drop))

    def _may_refuse(self) -> bool:
        """Whether some pairs may have no result for what they are: histograms, or floats where only those will do."""
        if self._many.matrix.histograms is not None or self._one.matrix.histograms is not None:
            return True
        return self._node.op not in ARITHMETIC and self._node.op not in COMPARISON

    def _mixed(
        self, left: StepMatrix, right: StepMatrix, met: NDArray[np.bool_], annotations: Annotations
    ) -> tuple[Cells, NDArray[np.bool_]]:
        """`_apply` where pairs may refuse; such pairs count as if they had not met."""
        op, return_bool = self._node.op, self._node.return_bool
        floats = None
        with np.errstate(all="ignore"):
            if op in ARITHMETIC:
                floats = ARITHMETIC[op](left.values, right.values), met
            elif op in COMPARISON:
                holds = COMPARISON[op](left.values, right.values)
                floats = (holds.astype(np.float64), met) if return_bool else (left.values, met & holds)
        return of_vectors(op, left, right, met, floats, return_bool, annotations, self._node.span)

    def _check_one_side(self) -> None:
        """At no step two series of the one side may have the same signature."""
        side = self._one
        clash = _clash(side.matrix.present, side.groups, self._groups, self._active)
        if clash is None:
            return
        twins = ", ".join(sorted(format_labels(side.matrix.labels.labels(row)) for row in clash))
        group = format_labels(self._signatures.labels().labels(int(side.groups[clash[0]])))
        where = "left" if self._swapped else "right"
        raise EvaluationError(
            f"found duplicate series for the match group {group} on the {where} hand-side of the operation: "
            f"[{twins}];many-to-many matching not allowed: matching labels must be unique on one side"
        )

    def _pairs(self) -> tuple[Rows, Rows]:
        """(rows of the many side, rows of the one side) that can meet, in the order of the many side."""
        starts = np.zeros(self._groups + 1, np.int64)
        rows = np.empty(len(self._one.groups), np.int64)
        rows_by_group(self._one.groups, starts, rows)
        counts = np.diff(starts)[self._many.groups]
        many_rows = np.repeat(np.arange(len(counts)), counts)
        if len(rows) and counts.max(initial=0) <= 1:
            return many_rows, rows[starts[self._many.groups[many_rows]]]
        before = np.cumsum(counts) - counts
        within = np.arange(len(many_rows)) - before[many_rows]
        return many_rows, rows[starts[self._many.groups[many_rows]] + within] if len(rows) else many_rows

    def _check_one_to_one(self, met: NDArray[np.bool_], of_pair: NDArray[np.int32]) -> None:
        if _clash(met, of_pair, self._groups, self._active) is not None:
            raise EvaluationError(
                "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)"
            )

    def _check_grouping(self, met: NDArray[np.bool_], of_pair: NDArray[np.int32], labels: LabelColumns) -> None:
        results = Groups((), without=True, table=labels.table)
        of_result = results.assign(labels)
        if len(results) == len(labels):
            return
        together = of_pair.astype(np.int64) * len(results) + of_result
        different, within = np.unique(together, return_inverse=True)
        if _clash(met, within.astype(np.int32), len(different), self._active) is not None:
            raise EvaluationError("multiple matches for labels: grouping labels must ensure unique matches")

    def _labels(self, many: LabelColumns, one: LabelColumns) -> LabelColumns:
        node, matching = self._node, self._matching
        labels = many
        if node.op in ARITHMETIC or (node.return_bool and not self._execution.delayed_names):
            labels = without_names(labels)
        if self._one_to_one:
            labels = labels.keep(matching.labels) if matching.on else labels.drop(matching.labels)
        for name in matching.include:
            if name in one.names or name in labels.names:
                labels = labels.with_column(name, np.ascontiguousarray(one.column(name)))
        return labels

    def _fill(self, many_rows: Rows, one_rows: Rows) -> tuple[Rows, Rows]:
        """Adds rows of fill values where a series of the other side has nobody to meet."""
        many, one = self._many, self._one
        shape = self._groups, many.matrix.present.shape[1]
        one_present = np.zeros(shape, np.bool_)
        presence_by_group(one.matrix.present, one.groups, one_present)
        matched = np.zeros(shape, np.bool_)
        presence_by_group(many.matrix.present, many.groups, matched)
        if self._matching.fill_left is not None and self._may_refuse() and len(many_rows):
            met_many, met_one = many.matrix.take(many_rows), one.matrix.take(one_rows)
            met = self._met(met_many, met_one)
            left, right = (met_one, met_many) if self._swapped else (met_many, met_one)
            matched[:] = False
            presence_by_group(met & ~self._mixed(left, right, met, Annotations())[1], many.groups[many_rows], matched)
        many_count, one_count = len(many.groups), len(one.groups)
        match_labels = self._signatures.labels()
        pairs_many, pairs_one = [many_rows], [one_rows]
        if self._matching.fill_right is not None:
            present = many.matrix.present & ~one_present[many.groups[:many_count]]
            groups = many.groups[:many_count]
            pairs_one.append(one.append(match_labels.take(groups), self._matching.fill_right, present, groups))
            pairs_many.append(np.arange(many_count))
        if self._matching.fill_left is not None:
            groups = one.groups[:one_count]
            present = one.matrix.present[:one_count] & ~matched[groups]
            pairs_many.append(many.append(match_labels.take(groups), self._matching.fill_left, present, groups))
            pairs_one.append(np.arange(one_count))
        return np.concatenate(pairs_many), np.concatenate(pairs_one)


def _rows(matrix: StepMatrix, rows: Rows) -> StepMatrix:
    if len(rows) == len(matrix) and (rows == np.arange(len(rows))).all():
        return matrix
    return matrix.take(rows)


def _clash(
    present: NDArray[np.bool_], groups: NDArray[np.int32], count: int, active: NDArray[np.bool_]
) -> tuple[int, int] | None:
    """Two rows of one group that are present at the same active step, the earliest such."""
    if len(groups) < 2 or np.bincount(groups, minlength=1).max() < 2:
        return None
    found = np.empty(3, np.int64)
    holder = np.full((count, present.shape[1]), -1, np.int64)
    first_clash(np.ascontiguousarray(present), groups, active, holder, found)
    return None if found[0] < 0 else (int(found[1]), int(found[2]))
