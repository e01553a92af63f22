"""Values computed once: for all steps (StepInvariant), or for several places of the plan (Shared)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mimir_ray.model.series import StepMatrix
from mimir_ray.promql.plan import nodes

from .execution import Execution

SHARED_POINTS_MAX = 4_000_000
"""Cells that a query keeps of shared vectors; what is beyond is evaluated again. No part of the sample limit:
keeping them must not fail a query that would pass without."""


def step_invariant(node: nodes.StepInvariant, steps: nodes.Steps, execution: Execution) -> Iterator[StepMatrix]:
    """The first step's values at every step."""
    tally = execution.new_tally(steps.first)
    for batch in execution.tallied(execution.vector(node.expr, steps.first), tally):
        if steps.count == 1:
            yield batch
            continue
        found = int(np.count_nonzero(batch.present)) * steps.count
        execution.budget.take(found)
        yield StepMatrix(
            batch.labels,
            np.repeat(batch.values, steps.count, axis=1),
            np.repeat(batch.present, steps.count, axis=1),
            batch.drop_name,
            None if batch.histograms is None else batch.histograms[:, np.zeros(steps.count, np.intp)],
        )
        execution.budget.release(found)
    if tally is not None and execution.tally is not None:
        execution.tally.add_once(tally)


def shared(node: nodes.Shared, steps: nodes.Steps, execution: Execution) -> Iterator[StepMatrix]:
    """The batches of the expression; kept for the next one who asks once all have passed."""
    key = node.expr, steps
    known = execution.shared.get(key)
    if known is not None:
        yield from known
        return
    kept: list[StepMatrix] | None = []
    points = 0
    for batch in execution.vector(node.expr, steps):
        if kept is not None:
            points += batch.values.size
            kept = None if execution.shared_points + points > SHARED_POINTS_MAX else [*kept, batch]
        yield batch
    if kept is not None and key not in execution.shared:
        execution.shared_points += points
        execution.shared[key] = kept
