"""Instant selectors: at each step the newest sample within the lookback."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from mimir_ray.model.histogram import HistogramPart
from mimir_ray.model.series import SeriesBatch, StepMatrix
from mimir_ray.promql.kernels.extended import smoothed_values
from mimir_ray.promql.kernels.steps import newest_samples
from mimir_ray.promql.kernels.windows import without_stale
from mimir_ray.promql.plan import nodes

from .execution import Execution
from .histograms_extended import smoothed_with_histograms
from .sample_tally import cell_weights


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
        samples = batch.values
        as_floats = (node.sample_times and not node.marks_histograms) or node.start_timestamps
        picks = batch.histograms is not None and not as_floats
        if picks:
            samples = np.arange(len(samples), dtype=np.float64)  # which sample, rather than what is in it
        elif node.start_timestamps:
            known = batch.start_timestamps
            samples = np.zeros(batch.samples) if known is None else known / 1000.0
        found = newest_samples(
            batch.offsets, batch.timestamps, samples, batch.values.view(np.uint64), ends, node.lookback_ms,
            node.sample_times and not picks, values, present,
        )  # fmt: skip
        if not found:
            continue
        histograms = None
        if picks:
            read = batch.timestamps / 1000.0 if node.sample_times else batch.values
            values, histograms = _picked(batch, read, values, present)
        if execution.tally is not None:
            weights = present if histograms is None else present * cell_weights(histograms)
            execution.tally.add(weights.sum(axis=0))
        execution.budget.take(found)
        yield StepMatrix(batch.labels, values, present, histograms=histograms)
        execution.budget.release(found)


def _picked(
    batch: SeriesBatch, read: NDArray[np.float64], samples: NDArray[np.float64], present: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], HistogramPart | None]:
    """What is read of these samples, given by their numbers in the batch, and their histograms."""
    assert batch.histograms is not None
    numbers = samples[present].astype(np.int64)
    values = np.zeros(samples.shape)
    values[present] = read[numbers]
    which = np.full(samples.shape, -1, np.int32)
    which[present] = batch.histograms.which[numbers]
    return values, HistogramPart(which, batch.histograms.columns) if (which >= 0).any() else None


def _smoothed(node: nodes.Select, steps: nodes.Steps, execution: Execution) -> Iterator[StepMatrix]:
    """Upstream counts no samples here, so neither do we."""
    ends = node.ends(steps)
    for raw in execution.select(node, steps):
        batch = without_stale(raw)
        if batch.histograms is not None:
            (values, present), histograms = smoothed_with_histograms(
                batch, ends, node.lookback_ms, execution.annotations, node.span
            )
            found = int(np.count_nonzero(present))
            execution.budget.take(found)
            yield StepMatrix(batch.labels, values, present, histograms=histograms)
            execution.budget.release(found)
            continue
        shape = len(batch), steps.count
        values = np.empty(shape, np.float64)
        present = np.empty(shape, np.bool_)
        found = smoothed_values(batch.offsets, batch.timestamps, batch.values, ends, node.lookback_ms, values, present)
        if found:
            execution.budget.take(found)
            yield StepMatrix(batch.labels, values, present)
            execution.budget.release(found)
