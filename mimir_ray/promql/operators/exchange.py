"""Puts together what fragments come to: series as they are, groups by merging what owners hold of them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mimir_ray.model.series import StepMatrix
from mimir_ray.promql.limits import POINT_BYTES, Reads
from mimir_ray.promql.plan import nodes
from mimir_ray.promql.plan.fragment import Fragment, FragmentPart

from .accumulators import ACCUMULATORS
from .aggregate import grown
from .execution import GUESSED_INTERVAL_MS, Execution
from .histograms_aggregate import HistogramGroups
from .labels import groups_of

_STEP_BYTES = 9
"""Of a series at one step: a value, and whether there is one."""


def exchange(node: nodes.Exchange, steps: nodes.Steps, execution: Execution) -> Iterator[StepMatrix]:
    """Asks the source's `FragmentRunner`. Raises what the owners raise."""
    if isinstance(node.expr, nodes.Aggregate):
        return _groups(node, node.expr, steps, execution)
    if not _are_few(node, steps):
        return execution.vector(node.expr, steps)
    return _series(node, steps, execution)


def _are_few(node: nodes.Exchange, steps: nodes.Steps) -> bool:
    """Whether the steps of an instant selector are less to send than its samples, or functions read windows of them."""
    if node.has_windows:
        return True
    ((_, mint, maxt),) = {(one.matchers, mint, maxt) for one, mint, maxt in nodes.selections(node.expr, steps)}
    return steps.count * _STEP_BYTES <= ((maxt - mint) // GUESSED_INTERVAL_MS + 1) * POINT_BYTES


def _parts(exchange: nodes.Exchange, steps: nodes.Steps, execution: Execution) -> Iterator[FragmentPart]:
    assert execution.fragments is not None
    fragment = Fragment(
        exchange.expr,
        steps,
        execution.delayed_names,
        execution.budget.max_samples,
        execution.tally is not None,
        max_reads=execution.reads.most,
        max_bytes=execution.budget.max_bytes,
        type_labels=execution.type_labels,
        packed=exchange.packed,
    )
    matchers = exchange.matchers
    reads = Reads()
    for part in execution.fragments.run(fragment):
        execution.check()
        reads = reads.plus(part.reads)
        execution.reads.take(matchers, reads)
        execution.annotations.merge(part.annotations)
        if part.samples is not None and execution.tally is not None:
            execution.tally.add(*part.samples)
        if len(part.labels):
            yield part


def _series(exchange: nodes.Exchange, steps: nodes.Steps, execution: Execution) -> Iterator[StepMatrix]:
    for part in _parts(exchange, steps, execution):
        values, present = part.arrays
        found = int(np.count_nonzero(present))
        execution.budget.take(found)
        assert not isinstance(part.histograms, HistogramGroups)
        labels = execution.intake.take(part.labels)
        yield StepMatrix(labels, values, present, part.drop_name, part.histograms)
        execution.budget.release(found)


def _groups(
    exchange: nodes.Exchange, node: nodes.Aggregate, steps: nodes.Steps, execution: Execution
) -> Iterator[StepMatrix]:
    groups = groups_of(node.grouping, node.without, execution.table)
    accumulator = ACCUMULATORS[node.op](steps.count)
    totals = HistogramGroups(node.op)
    drop = None
    for part in _parts(exchange, steps, execution):
        of_row = groups.assign(execution.intake.take(part.labels))
        execution.budget.check_cells(len(groups) * steps.count)
        accumulator.grow(len(groups))
        accumulator.merge(part.arrays, of_row)
        if isinstance(part.histograms, HistogramGroups):
            totals.merge(part.histograms, of_row, execution.annotations, node.expr.span)
        if part.drop_name is not None:
            drop = grown(drop, len(groups))
            drop[of_row[part.drop_name]] = True
    if not len(groups):
        return
    values, present, histograms = totals.result(*accumulator.result(), execution.annotations, node.expr.span)
    found = int(np.count_nonzero(present))
    execution.budget.take(found)
    drop = None if drop is None else grown(drop, len(groups))
    yield StepMatrix(groups.labels(), values, present, drop, histograms)
    execution.budget.release(found)
