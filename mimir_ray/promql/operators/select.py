"""Instant selectors: at each step the newest sample within the lookback."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mimir_ray.model.series import StepMatrix
from mimir_ray.promql.kernels.extended import smoothed_values
from mimir_ray.promql.kernels.steps import newest_samples
from mimir_ray.promql.kernels.windows import without_stale
from mimir_ray.promql.plan import nodes

from .execution import Execution


def select(node: nodes.Select, steps: nodes.Steps, execution: Execution) -> Iterator[StepMatrix]:
    """Series without a value at any step are left out with their whole batch, or stay as empty rows."""
    if node.smoothed:
        yield from _smoothed(node, steps, execution)
        return
    ends = node.ends(steps)
    for batch in execution.select(node, steps):
        shape = len(batch), steps.count
        values = np.empty(shape, np.float64)
        present = np.empty(shape, np.bool_)
        found = newest_samples(
            batch.offsets, batch.timestamps, batch.values, batch.values.view(np.uint64), ends, node.lookback_ms,
            node.sample_times, values, present,
        )  # fmt: skip
        if not found:
            continue
        if execution.samples_per_step is not None:
            execution.count_samples(steps, present.sum(axis=0))
        execution.budget.take(found)
        yield StepMatrix(batch.labels, values, present)
        execution.budget.release(found)


def _smoothed(node: nodes.Select, steps: nodes.Steps, execution: Execution) -> Iterator[StepMatrix]:
    """Upstream counts no samples here, so neither do we."""
    ends = node.ends(steps)
    for raw in execution.select(node, steps):
        batch = without_stale(raw)
        shape = len(batch), steps.count
        values = np.empty(shape, np.float64)
        present = np.empty(shape, np.bool_)
        found = smoothed_values(batch.offsets, batch.timestamps, batch.values, ends, node.lookback_ms, values, present)
        if found:
            execution.budget.take(found)
            yield StepMatrix(batch.labels, values, present)
            execution.budget.release(found)
