"""Gathers those series of a vector that may be in an answer, so that a ranking of very many holds few of them.

For vectors whose series come one by one out of one selector; of others all series are held anyway.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mimir_ray.model.labels import StringTable
from mimir_ray.model.series import StepMatrix
from mimir_ray.promql.plan import nodes
from mimir_ray.promql.plan.rewrites.push_down import is_per_series

from .execution import Execution, concat
from .labels import Intake, PassingIntake

ROWS_MIN = 1 << 14
"""Up to so many series all are held; beyond them, so many new ones at most are held beside those that were chosen."""

MayBeKept = Callable[[StepMatrix], NDArray[np.bool_]]
"""bool[S]: a series that it leaves out is not in the answer, whatever other series there are."""


def gather_some(
    expr: nodes.PlanNode, steps: nodes.Steps, execution: Execution, may_be_kept: MayBeKept
) -> tuple[StepMatrix, bool]:
    """(the series of a vector, or those that may be kept; whether some were left out). To be released."""
    if not _comes_series_by_series(expr, execution.delayed_names):
        return execution.gather(expr, steps), False
    outer = execution.intake
    held = _Held(steps, execution, may_be_kept)
    try:
        for batch in execution.vector(expr, steps):
            held.add(batch)
            if held.rows > ROWS_MIN and execution.intake is outer:
                held.narrow()
                # From here on nobody but `held` keeps labels of a batch, and it has them in its own table.
                execution.intake = PassingIntake(StringTable())
        return held.finish(outer), execution.intake is not outer
    finally:
        execution.intake = outer


def gather_again(expr: nodes.PlanNode, steps: nodes.Steps, execution: Execution) -> StepMatrix:
    """All series of a vector that was evaluated before: nothing is told or counted a second time."""
    tally, execution.tally = execution.tally, None
    try:
        with execution.later_annotations():
            return execution.gather(expr, steps)
    finally:
        execution.tally = tally


def _comes_series_by_series(expr: nodes.PlanNode, delayed_names: bool) -> bool:
    """Whether no operator below keeps labels from one batch to the next."""
    if any(isinstance(node, nodes.Subquery | nodes.Shared | nodes.StepInvariant) for node in nodes.walk(expr)):
        return False
    return is_per_series(expr, delayed_names)


class _Held:
    """Series of many batches: first all, with the query's labels; narrowed down, with labels of a table of its own."""

    def __init__(self, steps: nodes.Steps, execution: Execution, may_be_kept: MayBeKept) -> None:
        self._steps = steps
        self._execution = execution
        self._may_be_kept = may_be_kept
        self._parts: list[StepMatrix] = []
        self._chosen = 0
        self._points = 0
        self._due = 0  # points of the newest batch, which its producer still counts
        self._intake: Intake | None = None
        self.rows = 0

    def add(self, batch: StepMatrix) -> None:
        self._settle()
        if self._intake is not None:
            batch = _labelled(batch.take(np.flatnonzero(self._may_be_kept(batch))), self._intake)
            if not len(batch):
                return
        self._parts.append(batch)
        self.rows += len(batch)
        self._execution.budget.check_cells(self.rows * self._steps.count)
        self._due = int(np.count_nonzero(batch.present))
        if self._intake is not None and self.rows - self._chosen > max(ROWS_MIN, self._chosen):
            self.narrow()

    def narrow(self) -> None:
        self._settle()
        whole = self._whole()
        chosen = whole.take(np.flatnonzero(self._may_be_kept(whole))) if len(whole) else whole
        self._intake = Intake(StringTable())
        self._parts = [_labelled(chosen, self._intake)]
        self._chosen = self.rows = len(chosen)
        points = int(np.count_nonzero(chosen.present))
        self._execution.budget.release(self._points - points)
        self._points = points

    def finish(self, intake: Intake) -> StepMatrix:
        """All that is held, with labels of this intake's table."""
        self._settle()
        if self._intake is not None:
            self.narrow()
        return _labelled(self._whole(), intake)

    def _settle(self) -> None:
        self._execution.budget.take(self._due)
        self._points += self._due
        self._due = 0

    def _whole(self) -> StepMatrix:
        table = self._parts[0].labels.table if self._parts else self._execution.table
        return concat(self._parts, self._steps.count, table)


def _labelled(matrix: StepMatrix, intake: Intake) -> StepMatrix:
    return replace(matrix, labels=intake.take(matrix.labels))
