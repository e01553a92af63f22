"""Runs a fragment on the owner of the series. See plan/fragment.py."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from mimir_ray.model.series import SeriesBatch
from mimir_ray.promql.annotations import Annotations
from mimir_ray.promql.limits import DEFAULT_MAX_SAMPLES, Cancellation, ReadBudget, SampleBudget
from mimir_ray.promql.plan import nodes
from mimir_ray.promql.plan.fragment import Fragment, FragmentPart
from mimir_ray.promql.source import Selection, SeriesSource, Shard

from .aggregate import folded
from .execution import Execution
from .registry import SCALAR_OPERATORS, VECTOR_OPERATORS


def execute_fragment(
    fragment: Fragment, source: SeriesSource, cancellation: Cancellation | None = None
) -> Iterator[FragmentPart]:
    """The parts of the series that `source` has. Raises as a query does."""
    execution = Execution(
        source if fragment.shard is None else _Sharded(source, fragment.shard),
        VECTOR_OPERATORS,
        SCALAR_OPERATORS,
        SampleBudget(fragment.max_samples or DEFAULT_MAX_SAMPLES, fragment.max_bytes),
        ReadBudget(fragment.max_series, fragment.max_chunks),
        cancellation=cancellation,
        delayed_names=fragment.delayed_names,
        samples_per_step={} if fragment.count_samples else None,
    )
    if isinstance(fragment.node, nodes.Aggregate):
        groups, accumulator, drop, totals = folded(fragment.node, fragment.steps, execution)
        if len(groups):
            part = FragmentPart(groups.labels(), accumulator.state(), drop, histograms=totals if totals.cells else None)
            yield _with_reports(part, fragment, execution)
        return
    for batch in execution.vector(fragment.node, fragment.steps):
        histograms = None if batch.histograms is None else batch.histograms.used()
        part = FragmentPart(batch.labels, (batch.values, batch.present), batch.drop_name, histograms=histograms)
        yield _with_reports(part, fragment, execution)


def _with_reports(part: FragmentPart, fragment: Fragment, execution: Execution) -> FragmentPart:
    part.series, part.chunks = execution.reads.news()
    part.annotations = tuple(execution.annotations)
    execution.annotations = Annotations()
    if execution.samples_per_step is not None:
        part.samples = samples_by_step(execution.samples_per_step, fragment.steps)
        execution.samples_per_step = {}
    return part


def samples_by_step(found: dict[nodes.Steps, np.ndarray], steps: nodes.Steps) -> np.ndarray:
    """int64[T]: samples that selectors looked at, by step of the query.

    What ran on other steps counts so: once for all steps (step-invariant parts) at every step; a
    subquery's own at the last one.
    """
    per_step = np.zeros(max(steps.count, 1), np.int64)
    for grid, sizes in found.items():
        if grid == steps:
            per_step[: steps.count] += sizes
        elif grid.count == 1 and grid.start_ms == steps.start_ms:
            per_step += sizes[0]
        else:
            per_step[-1] += sizes.sum()
    return per_step


class _Sharded:
    """A source's series of one shard."""

    def __init__(self, source: SeriesSource, shard: Shard) -> None:
        self._source = source
        self._shard = shard

    def select(self, selection: Selection) -> Iterator[SeriesBatch]:
        return self._source.select(replace(selection, shard=self._shard))
