"""`info(v, {selector})`: labels of info metrics on the series that they belong to by `instance` and `job`.

Which info series a series gets can change from step to step, so one series may come out as several.
Upstream: promql/info.go.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import re2
from numpy.typing import NDArray

from mimir_ray.model.labels import METRIC_NAME, LabelColumns
from mimir_ray.model.matchers import Matcher, MatchType
from mimir_ray.model.series import StepMatrix
from mimir_ray.promql.limits import EvaluationError
from mimir_ray.promql.plan import nodes

from .execution import Execution
from .labels import Groups, format_labels, merge_same_labels

IDENTIFYING_LABELS = ("instance", "job")
TARGET_INFO = Matcher(MatchType.EQUAL, METRIC_NAME, "target_info")
_NOBODY = -1
"""No info series, as an index."""


def info_join(node: nodes.InfoJoin, steps: nodes.Steps, execution: Execution) -> Iterator[StepMatrix]:
    """Raises `EvaluationError` where info series contradict each other."""
    base = execution.gather(node.expr, steps)
    if not len(base):
        return
    names = _names_selected([matcher for matcher in node.matchers if matcher.name == METRIC_NAME])
    data = [matcher for matcher in node.matchers if matcher.name != METRIC_NAME]
    strings = execution.table.strings
    name_codes = base.labels.column(METRIC_NAME)
    is_info = {code: all(each.accepts(strings[code]) for each in names) for code in np.unique(name_codes).tolist()}
    ignored = np.array([is_info[code] for code in name_codes.tolist()], np.bool_)
    infos = _info_series(node, names, data, base, ignored, steps, execution)
    asked = base.present.any(axis=0)
    if infos.histograms is not None and (wrong := (infos.histograms.here & infos.present).any(axis=1)).any():
        first = min(infos.labels.take(np.flatnonzero(wrong)).to_labels())
        raise EvaluationError(f"this should be an info metric, with float samples: {format_labels(first)}")
    choice = _Choice(base.labels, infos, {matcher.name for matcher in data}, asked, execution)
    required = not all(matcher.accepts_empty for matcher in data)
    matrix = merge_same_labels(choice.enriched(base, ignored, required))
    execution.release(base)
    if len(matrix):
        yield matrix


def _names_selected(matchers: list[Matcher]) -> list[Matcher]:
    """Which metrics are info metrics. Upstream: effectiveInfoNameMatchers."""
    if any(not matcher.is_negative for matcher in matchers):
        return matchers
    return [Matcher(MatchType.REGEX, METRIC_NAME, ".+_info"), *matchers] if matchers else [TARGET_INFO]


def _info_series(
    node: nodes.InfoJoin,
    names: list[Matcher],
    data: list[Matcher],
    base: StepMatrix,
    ignored: NDArray[np.bool_],
    steps: nodes.Steps,
    execution: Execution,
) -> StepMatrix:
    """Info series that may belong to the base's, with the times of their samples as values."""
    wanted = base.present.any(axis=1) & ~ignored
    strings = execution.table.strings
    identity = []
    for label in IDENTIFYING_LABELS:
        codes = np.unique(base.labels.column(label)[wanted]).tolist()
        if values := [re2.escape(strings[code]) for code in codes if code]:
            identity.append(Matcher(MatchType.REGEX, label, "|".join(values)))
    if not identity:
        return execution.gather_batches(iter(()), steps.count)
    select = nodes.Select(
        (*identity, *data, *names), node.lookback_ms, node.offset_ms, node.at_ms,
        sample_times=True, marks_histograms=True, span=node.span,
    )  # fmt: skip
    return execution.gather(select, steps)


@dataclass(slots=True)
class _Choice:
    """Which info series each base series has at each step, one for every info metric.

    Base and info series of equal identifying labels are in one group. A combination is what a group has at a step:
    an info series, or nobody, of each metric.
    """

    base: LabelColumns
    infos: StepMatrix
    data_labels: set[str]
    asked: NDArray[np.bool_]
    """bool[T]: steps with a base series."""
    execution: Execution

    def enriched(self, base: StepMatrix, ignored: NDArray[np.bool_], required: bool) -> StepMatrix:
        """The base with labels. `required`: a series without an info series goes."""
        groups = Groups(IDENTIFYING_LABELS, False, self.execution.table)
        of_info = groups.assign(self.infos.labels)
        of_base = groups.find(self.base)
        winners = self._winners(of_info, len(groups))
        metrics, count, steps = winners.shape
        # The last combination is that of series without a group, or that are info series themselves.
        rows = np.ascontiguousarray(winners.reshape(metrics, count * steps).T)
        combinations, inverse = np.unique(rows, axis=0, return_inverse=True)
        none = len(combinations)
        combinations = np.concatenate([combinations, np.full((1, metrics), _NOBODY, np.int64)])
        at_step = np.concatenate([inverse.reshape(count, steps), np.full((1, steps), none, np.int64)])
        mine = at_step[np.where(ignored | (of_base < 0), count, of_base)]
        series, steps_at = np.nonzero(base.present)
        keys = series * len(combinations) + mine[series, steps_at]
        pairs = np.unique(keys)
        if required:
            bare = (combinations == _NOBODY).all(axis=1)
            pairs = pairs[~bare[pairs % len(combinations)] | ignored[pairs // len(combinations)]]
        row, combination = pairs // len(combinations), pairs % len(combinations)
        matrix = base.take(row)
        present = matrix.present & (mine[row] == combination[:, None])
        labels = self._labels(matrix.labels, combination, combinations)
        return dataclasses.replace(matrix, labels=labels, present=np.ascontiguousarray(present))

    def _winners(self, of_info: NDArray[np.int32], count: int) -> NDArray[np.int64]:
        """int64[metrics, groups, T]: the info series with the newest sample, or nobody."""
        used, metric = np.unique(self.infos.labels.column(METRIC_NAME), return_inverse=True)
        steps = self.infos.present.shape[1]
        winners = np.full((len(used) * count, steps), _NOBODY, np.int64)
        newest = np.full(winners.shape, -np.inf)
        slots = metric * count + of_info
        order = np.argsort(slots, kind="stable")
        # One round for the first series of every slot, one for the second...
        rank = np.empty(len(order), np.int64)
        ordered = slots[order]
        rank[order] = np.arange(len(order)) - np.searchsorted(ordered, ordered)
        for number in range(int(rank.max(initial=-1)) + 1):
            series = np.flatnonzero(rank == number)
            slot, seen, times = slots[series], self.infos.present[series], self.infos.values[series]
            clash = seen & (winners[slot] >= 0) & (times == newest[slot]) & self.asked
            if clash.any():
                at, step = np.argwhere(clash)[0].tolist()
                self._refuse(int(winners[slot[at], step]), int(series[at]), round(float(times[at, step]) * 1000))
            better = seen & (times > newest[slot])
            winners[slot] = np.where(better, series[:, None], winners[slot])
            newest[slot] = np.where(better, times, newest[slot])
        return winners.reshape(len(used), count, steps)

    def _refuse(self, existing: int, new: int, time_ms: int) -> None:
        labels = self.infos.labels
        raise EvaluationError(
            f"found duplicate series for info metric: existing {_text(labels, existing)} @ {time_ms}, "
            f"new {_text(labels, new)} @ {time_ms}"
        )

    def _labels(
        self, base: LabelColumns, combination: NDArray[np.int64], combinations: NDArray[np.int64]
    ) -> LabelColumns:
        """The base's labels, and of each row's combination what it does not have yet."""
        labels = self.infos.labels
        added = labels.drop((METRIC_NAME,))
        if self.data_labels:
            added = added.keep(self.data_labels)
        if not added.names:
            return base
        codes = np.concatenate([added.codes, np.zeros((1, len(added.names)), np.int32)])
        names = tuple(sorted({*base.names, *added.names}))
        out = base.align(names).copy()
        columns = [names.index(name) for name in added.names]
        own = out[:, columns]
        merged = np.zeros_like(own)
        for each in combinations.T:
            theirs = np.where(own == 0, codes[each][combination], 0)
            conflict = (merged != 0) & (theirs != 0) & (merged != theirs)
            if conflict.any():
                raise EvaluationError(f"conflicting label: {added.names[int(np.argwhere(conflict)[0][1])]}")
            merged = np.where(merged == 0, theirs, merged)
        out[:, columns] = np.where(own == 0, merged, own)
        return LabelColumns(names, np.ascontiguousarray(out), base.table)


def _text(labels: LabelColumns, row: int) -> str:
    pairs = dict(labels.labels(row))
    name = pairs.pop(METRIC_NAME, "")
    inside = ", ".join(str(Matcher(MatchType.EQUAL, *pair)) for pair in pairs.items())
    return f"{name}{{{inside}}}"
