"""Functions of range vectors: the samples of each step's window to one value.

Upstream: promql/engine.go eval, case *parser.Call.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from mimir_ray.model.histogram import HistogramPart
from mimir_ray.model.series import SeriesBatch, StepMatrix
from mimir_ray.promql.functions import EXTENDED_FUNCTIONS, RANGE_FUNCTIONS, absent_series
from mimir_ray.promql.kernels.windows import Window
from mimir_ray.promql.plan import nodes
from mimir_ray.promql.syntax.ast import ValueType

from .execution import Execution
from .histograms_extended import extended_with_histograms
from .histograms_range import with_histograms
from .labels import DistinctLabels, drop_names
from .names import name_of
from .subquery import range_batches


def range_function(node: nodes.FunctionCall, steps: nodes.Steps, execution: Execution) -> Iterator[StepMatrix]:
    """Raises `EvaluationError` where two series have equal labels once their names are gone."""
    if RANGE_FUNCTIONS[node.name].absent:
        return _absent_over_time(node, steps, execution)
    return _values(node, steps, execution)


def _absent_over_time(node: nodes.FunctionCall, steps: nodes.Steps, execution: Execution) -> Iterator[StepMatrix]:
    seen = np.zeros(steps.count, np.bool_)
    for _, _, present, _, _ in _evaluate(node, steps, execution):
        seen |= present.any(axis=0)
    answer = absent_series(seen, execution.context(node, steps))
    if len(answer):
        yield answer


def _values(node: nodes.FunctionCall, steps: nodes.Steps, execution: Execution) -> Iterator[StepMatrix]:
    keeps_name = RANGE_FUNCTIONS[node.name].keeps_name
    argument = _range_argument(node)
    distinct = None
    if not keeps_name and not execution.delayed_names and name_of(argument) is None:
        distinct = DistinctLabels(execution.table)
    for batch, values, present, drop, histograms in _evaluate(node, steps, execution):
        found = int(np.count_nonzero(present))
        if not found:
            continue
        matrix = StepMatrix(batch.labels, values, present, drop, histograms)
        if not keeps_name:
            matrix = drop_names(matrix, execution.delayed_names)
        if distinct is not None:
            distinct.check(matrix)
        execution.budget.take(found)
        yield matrix
        execution.budget.release(found)


def _range_argument(node: nodes.FunctionCall) -> nodes.RangeSelect | nodes.Subquery:
    for argument in node.args:
        if isinstance(argument, nodes.RangeSelect | nodes.Subquery):
            return argument
    raise AssertionError(node)


def _evaluate(
    node: nodes.FunctionCall, steps: nodes.Steps, execution: Execution
) -> Iterator[
    tuple[SeriesBatch, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_] | None, HistogramPart | None]
]:
    argument = _range_argument(node)
    function = RANGE_FUNCTIONS[node.name]
    range_ms, looked_at = argument.range_ms, argument.ends(steps)
    lookback_ms = 0
    extended = argument.extended if isinstance(argument, nodes.RangeSelect) else None
    if isinstance(argument, nodes.RangeSelect) and extended is not None:
        function = EXTENDED_FUNCTIONS[extended][node.name]
        lookback_ms = argument.lookback_ms
        range_ms += lookback_ms
        if extended == "smoothed":
            range_ms += lookback_ms
            looked_at = looked_at + lookback_ms
    with execution.later_annotations() as of_params:
        params = tuple(execution.scalar(each, steps) for each in node.args if each.type is ValueType.SCALAR)
    if isinstance(argument, nodes.RangeSelect):
        execution.annotations.merge(of_params)
    window = Window(argument.ends(steps), argument.range_ms, steps.times, lookback_ms)
    context = execution.context(node, steps)
    for batch, drop in range_batches(argument, steps, execution):
        execution.check()
        if execution.tally is not None:
            execution.tally.add_windows(
                batch, looked_at, range_ms, steps, from_storage=isinstance(argument, nodes.RangeSelect)
            )
        if batch.histograms is None:
            values, present = function(batch, window, params, context)
            yield batch, values, present, drop, None
        else:
            if extended is None:
                values, present, histograms = with_histograms(node.name, function, batch, window, params, context)
            else:
                values, present, histograms = extended_with_histograms(
                    node.name, extended, function, batch, window, context
                )
            yield batch, values, present, drop, histograms
    if not isinstance(argument, nodes.RangeSelect):  # upstream asks subqueries before the other arguments
        execution.annotations.merge(of_params)
