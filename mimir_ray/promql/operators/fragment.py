"""Runs a fragment on the owner of the series. See plan/fragment.py."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from mimir_ray.model.labels import LabelColumns, StringTable
from mimir_ray.model.series import SeriesBatch
from mimir_ray.promql.annotations import Annotations
from mimir_ray.promql.limits import DEFAULT_MAX_SAMPLES, Cancellation, ReadBudget, SampleBudget
from mimir_ray.promql.plan import nodes
from mimir_ray.promql.plan.fragment import Fragment, FragmentPart
from mimir_ray.promql.source import Selection, SeriesSource, Shard

from .aggregate import folded
from .execution import Execution
from .registry import SCALAR_OPERATORS, VECTOR_OPERATORS
from .sample_tally import SampleTally


def execute_fragment(
    fragment: Fragment, source: SeriesSource, cancellation: Cancellation | None = None
) -> Iterator[FragmentPart]:
    """The parts of the series that `source` has, and one without series for reports that none of them took along.

    Raises as a query does.
    """
    execution = Execution(
        source if fragment.shard is None else _Sharded(source, fragment.shard),
        VECTOR_OPERATORS,
        SCALAR_OPERATORS,
        SampleBudget(fragment.max_samples or DEFAULT_MAX_SAMPLES, fragment.max_bytes),
        ReadBudget(fragment.max_reads),
        cancellation=cancellation,
        delayed_names=fragment.delayed_names,
        type_labels=fragment.type_labels,
        tally=SampleTally(fragment.steps.count) if fragment.count_samples else None,
    )
    if isinstance(fragment.node, nodes.Aggregate):
        groups, accumulator, drop, totals = folded(fragment.node, fragment.steps, execution)
        if len(groups):
            part = FragmentPart(groups.labels(), accumulator.state(), drop, histograms=totals if totals.cells else None)
            yield _with_reports(part, execution)
        yield from _last_reports(execution)
        return
    for batch in execution.vector(fragment.node, fragment.steps):
        histograms = None if batch.histograms is None else batch.histograms.used()
        part = FragmentPart(batch.labels, (batch.values, batch.present), batch.drop_name, histograms=histograms)
        yield _with_reports(part, execution)
    yield from _last_reports(execution)


def _last_reports(execution: Execution) -> Iterator[FragmentPart]:
    part = _with_reports(FragmentPart(LabelColumns.empty_sets(0, StringTable()), ()), execution)
    if part.annotations or any(part.reads) or (part.samples is not None and part.samples.any()):
        yield part


def _with_reports(part: FragmentPart, execution: Execution) -> FragmentPart:
    part.reads = execution.reads.news()
    part.annotations = tuple(execution.annotations)
    execution.annotations = Annotations()
    if execution.tally is not None:
        part.samples = np.stack((execution.tally.total, execution.tally.read))
        execution.tally.total[:] = execution.tally.read[:] = 0
    return part


class _Sharded:
    """A source's series of one shard."""

    def __init__(self, source: SeriesSource, shard: Shard) -> None:
        self._source = source
        self._shard = shard

    def select(self, selection: Selection) -> Iterator[SeriesBatch]:
        return self._source.select(replace(selection, shard=self._shard))
