"""What operators do to label columns: take over storage's codes, drop names, group, order, refuse twins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mimir_ray.model.histogram import HistogramPart
from mimir_ray.model.labels import (
    METRIC_NAME,
    METRIC_TYPE,
    METRIC_UNIT,
    LabelColumns,
    Labels,
    StringTable,
    is_legacy_label_name,
)
from mimir_ray.model.matchers import quote
from mimir_ray.model.series import StepMatrix
from mimir_ray.promql.kernels.aggregations import merge_rows
from mimir_ray.promql.kernels.grouping import RowIndex, presence_by_group
from mimir_ray.promql.limits import EvaluationError

METADATA_LABELS = (METRIC_NAME, METRIC_TYPE, METRIC_UNIT)
"""What goes when a metric's name goes. Upstream: model/metadata schema.IsMetadataLabel."""
SAME_LABELSET = "vector cannot contain metrics with the same labelset"
_SMALL = 512
_PASSING_STRINGS_MAX = 1 << 16
_TABLES_MAX = 16
"""Tables whose translation is remembered: one a source that answers in turns, not one a batch of all."""


class Intake:
    """Rewrites labels of any string table to the codes of one table, remembering what it has translated."""

    __slots__ = ("_known", "table")

    def __init__(self, table: StringTable) -> None:
        self.table = table
        self._known: dict[int, tuple[StringTable, NDArray[np.int32]]] = {}

    def take(self, labels: LabelColumns) -> LabelColumns:
        """The same labels with codes of `self.table`."""
        if labels.table is self.table:
            return labels
        codes = labels.codes
        if codes.size <= _SMALL:
            strings, code = labels.table.strings, self.table.code
            known: dict[int, int] = {}
            out = []
            for each in codes.ravel().tolist():
                new = known.get(each)
                if new is None:
                    new = known[each] = code(strings[each])
                out.append(new)
            return LabelColumns(labels.names, np.array(out, np.int32).reshape(codes.shape), self.table)
        if len(self.table) == 1 and len(labels.table) <= codes.size:
            # The first strings of a query: all of them as they are, rather than one by one.
            self.table.adopt(labels.table)
            self._remember(labels.table, np.arange(len(self.table), dtype=np.int32))
        translation = self._translation(labels.table)
        new_codes = translation[codes]
        if new_codes.min() < 0:
            strings = labels.table.strings
            missing = np.unique(codes[new_codes < 0])
            translation[missing] = self.table.add_all(map(strings.__getitem__, missing.tolist()))
            new_codes = translation[codes]
        return LabelColumns(labels.names, new_codes, self.table)

    def _translation(self, table: StringTable) -> NDArray[np.int32]:
        _, translation = self._known.get(id(table), (None, np.zeros(0, np.int32)))
        if len(translation) < len(table):
            grown = np.full(len(table), -1, np.int32)
            grown[: len(translation)] = translation
            grown[0] = 0
            translation = grown
            self._remember(table, translation)
        return translation

    def _remember(self, table: StringTable, translation: NDArray[np.int32]) -> None:
        self._known[id(table)] = table, translation
        if len(self._known) > _TABLES_MAX:
            del self._known[next(iter(self._known))]


class PassingIntake(Intake):
    """An intake for labels that nobody keeps from batch to batch: its table is emptied whenever it has grown large."""

    __slots__ = ()

    def take(self, labels: LabelColumns) -> LabelColumns:
        if len(self.table) > _PASSING_STRINGS_MAX:
            self.table.clear()
            self._known.clear()
        return super().take(labels)


class Groups:
    """Numbers groups of series by labels, from batch to batch.

    A group's labels are those in `names` (`without` False), or all but those (`without` True).
    """

    __slots__ = ("_index", "_names", "_table", "_unwanted", "_wanted")

    def __init__(self, names: tuple[str, ...], without: bool, table: StringTable) -> None:
        self._wanted = None if without else frozenset(names)
        self._unwanted = frozenset(names) if without else frozenset[str]()
        self._names: tuple[str, ...] = () if without else tuple(sorted(set(names)))
        self._index = RowIndex(len(self._names))
        self._table = table

    def __len__(self) -> int:
        return self._index.count

    def assign(self, labels: LabelColumns) -> NDArray[np.int32]:
        """int32[S]: the group of each series; new groups get the next numbers."""
        codes = self._codes(labels)  # may replace the index
        return self._index.add(codes)

    def find(self, labels: LabelColumns) -> NDArray[np.int32]:
        """int32[S]: the group of each series, -1 where `assign` saw none."""
        codes = self._codes(labels)
        return self._index.find(codes)

    def labels(self) -> LabelColumns:
        """The labels of all groups, by number."""
        return LabelColumns(self._names, self._index.keys.copy(), self._table)

    def _codes(self, labels: LabelColumns) -> NDArray[np.int32]:
        if self._wanted is None:
            new = [name for name in labels.names if name not in self._unwanted and name not in self._names]
            if new:
                self._widen(new)
        return labels.align(self._names)

    def _widen(self, new: list[str]) -> None:
        old = LabelColumns(self._names, self._index.keys, self._table)
        self._names = tuple(sorted((*self._names, *new)))
        self._index = RowIndex(len(self._names))
        if len(old):
            self._index.add(old.align(self._names))


def groups_of(grouping: tuple[str, ...], without: bool, table: StringTable) -> Groups:
    """The (empty) groups of an aggregation: `without` leaves the metric's name out too."""
    return Groups((*grouping, METRIC_NAME) if without else grouping, without, table)


def drop_names(matrix: StepMatrix, delayed: bool) -> StepMatrix:
    """Takes the metrics' names away, now or (delayed) at the end of the query."""
    if delayed:
        return replace(matrix, drop_name=np.ones(len(matrix), np.bool_))
    return StepMatrix(without_names(matrix.labels), matrix.values, matrix.present, None, matrix.histograms)


def without_names(labels: LabelColumns) -> LabelColumns:
    """The labels without those that describe the metric."""
    return labels.drop(METADATA_LABELS) if any(name in labels.names for name in METADATA_LABELS) else labels


class DistinctLabels:
    """Sees batch after batch and refuses two series of equal labels, even if no step has both.

    Upstream: Matrix.ContainsSameLabelset.
    """

    __slots__ = ("_groups",)

    def __init__(self, table: StringTable) -> None:
        self._groups = Groups((), without=True, table=table)

    def check(self, matrix: StepMatrix) -> None:
        """Raises `EvaluationError`."""
        filled = matrix.present.any(axis=1)
        labels = matrix.labels if filled.all() else matrix.labels.take(filled)
        before = len(self._groups)
        if len(labels):
            self._groups.assign(labels)
            if len(self._groups) - before < len(labels):
                raise EvaluationError(SAME_LABELSET)


def merge_same_labels(matrix: StepMatrix) -> StepMatrix:
    """Makes one series of those with equal labels; raises `EvaluationError` if two have a value at one step.

    Keeps the order of first sight, and of `drop_name` what the one has that begins at the earliest step.
    Upstream: engine.go rangeEval, mergeSeriesWithSameLabelset.
    """
    if len(matrix) < 2:
        return matrix
    groups = Groups((), without=True, table=matrix.labels.table)
    of_row = groups.assign(matrix.labels)
    count = len(groups)
    if count == len(matrix):
        return matrix
    values = np.zeros((count, matrix.values.shape[1]), np.float64)
    present = np.zeros(values.shape, np.bool_)
    old = matrix.values
    if matrix.histograms is not None:
        old = np.arange(old.size, dtype=np.float64).reshape(old.shape)  # which cell, rather than what is in it
    clash = merge_rows(np.ascontiguousarray(old), np.ascontiguousarray(matrix.present), of_row, values, present)
    if clash >= 0:
        raise EvaluationError(SAME_LABELSET)
    histograms = None
    if matrix.histograms is not None:
        cells = values.astype(np.int64)
        values = matrix.values.ravel()[cells]
        histograms = HistogramPart(matrix.histograms.which.ravel()[cells], matrix.histograms.columns)
    first = np.full(count, len(matrix), np.int64)
    np.minimum.at(first, of_row, np.arange(len(matrix)))
    drop = None
    if matrix.drop_name is not None:
        begins = np.where(matrix.present.any(axis=1), matrix.present.argmax(axis=1), values.shape[1])
        order = np.lexsort((begins, of_row))
        drop = matrix.drop_name[order[np.searchsorted(of_row[order], np.arange(count))]]
    return StepMatrix(matrix.labels.take(first), values, present, drop, histograms)


def format_labels(labels: Labels) -> str:
    """As Prometheus prints a label set. Upstream: labels.Labels.String."""
    pairs = (f"{name if is_legacy_label_name(name) else quote(name)}={quote(value)}" for name, value in labels)
    return "{" + ", ".join(pairs) + "}"


class GroupNames:
    """Which groups of an aggregation lose their name at the end of the query.

    As upstream has it: those where, at the last step at which the group has a result, one of its series loses it.
    Most often all series do or none does, and then nothing is kept by step.
    """

    __slots__ = ("_all", "_by_step", "_steps")

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._all: bool | None = None  # None: nothing seen yet
        self._by_step: NDArray[np.bool_] | None = None

    def fold(
        self,
        drop_name: NDArray[np.bool_] | None,
        present: NDArray[np.bool_],
        of_row: NDArray[np.int32],
        groups: int,
        before: Callable[[], NDArray[np.bool_]],
    ) -> None:
        """Takes in series (present bool[S, T], of_row int32[S]).

        `before`: bool[G, T], where the groups had a result before these series.
        """
        if self._by_step is None:
            found = drop_name is not None and bool(drop_name.any())
            uniform = drop_name is None or found == bool(drop_name.all())
            if uniform and self._all in (None, found):
                self._all = found
                return
            self._by_step = np.array(before()) if self._all else np.zeros((0, self._steps), np.bool_)
        if groups > len(self._by_step):
            grown = np.zeros((max(groups, 2 * len(self._by_step)), self._steps), np.bool_)
            grown[: len(self._by_step)] = self._by_step
            self._by_step = grown
        if drop_name is not None:
            presence_by_group(np.ascontiguousarray(present & drop_name[:, None]), of_row, self._by_step)

    def drop_name(self, groups: int, present: Callable[[], NDArray[np.bool_]]) -> NDArray[np.bool_] | None:
        """bool[G], or None if all keep what they have. `present`: bool[G, T], where the groups have a result."""
        if self._by_step is None:
            return np.ones(groups, np.bool_) if self._all else None
        last = self._steps - 1 - present()[:, ::-1].argmax(axis=1)
        return self._by_step[np.arange(groups), last]


def label_order(labels: LabelColumns) -> NDArray[np.intp]:
    """The rows in the order of their label sets: name by name, value by value. Upstream: labels.Compare."""
    count, width = labels.codes.shape
    if count < 2 or width == 0:
        return np.arange(count)
    strings = labels.table.strings
    keys = np.empty((width, count), np.int64)
    later = np.zeros(count, np.bool_)
    for column in range(width - 1, -1, -1):
        codes = labels.codes[:, column]
        used, position = np.unique(codes, return_inverse=True)
        rank = np.empty(len(used), np.int64)
        order = sorted(range(len(used)), key=[strings[code] for code in used.tolist()].__getitem__)
        rank[order] = np.arange(1, len(used) + 1)
        # A set that ends here comes first, one that goes on with a later name comes last.
        here = codes != 0
        keys[column] = np.where(here, rank[position], np.where(later, len(used) + 1, 0))
        later |= here
    return np.lexsort(keys[::-1])
