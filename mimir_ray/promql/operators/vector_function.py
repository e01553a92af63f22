"""Functions of instant vectors, and what turns scalars into vectors."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mimir_ray.model.series import StepMatrix
from mimir_ray.promql.functions import (
    RANGE_FUNCTIONS,
    VECTOR_FUNCTIONS,
    absent_series,
    require_supported,
    vector_of,
)
from mimir_ray.promql.plan import nodes
from mimir_ray.promql.syntax.ast import ValueType

from .execution import Execution, Scalar
from .labels import drop_names, merge_same_labels
from .names import name_of
from .range_function import range_function

_RELABELLING = frozenset(("label_replace", "label_join"))


def function_call(node: nodes.FunctionCall, steps: nodes.Steps, execution: Execution) -> Iterator[StepMatrix]:
    """Any function whose result is a vector. Raises `UnsupportedFunction`."""
    if node.name in RANGE_FUNCTIONS:
        return range_function(node, steps, execution)
    if node.name == "vector":
        return _vector(node, steps, execution)
    if node.name == "absent":
        return _absent(node, steps, execution)
    require_supported(node.name)
    return _vector_function(node, steps, execution)


def _vector(node: nodes.FunctionCall, steps: nodes.Steps, execution: Execution) -> Iterator[StepMatrix]:
    yield vector_of(execution.scalar(node.args[0], steps), execution.context(node, steps))


def _absent(node: nodes.FunctionCall, steps: nodes.Steps, execution: Execution) -> Iterator[StepMatrix]:
    seen = np.zeros(steps.count, np.bool_)
    for batch in execution.vector(node.args[0], steps):
        seen |= batch.present.any(axis=0)
    answer = absent_series(seen, execution.context(node, steps))
    if len(answer):
        yield answer


def _vector_function(node: nodes.FunctionCall, steps: nodes.Steps, execution: Execution) -> Iterator[StepMatrix]:
    function = VECTOR_FUNCTIONS[node.name]
    context = execution.context(node, steps)
    vector = next((each for each in node.args if each.type is ValueType.VECTOR), None)
    with execution.later_annotations() as of_params:
        params = tuple(_param(each, steps, execution) for each in node.args if each is not vector)
    if vector is None or vector is not node.args[0]:
        execution.annotations.merge(of_params)
    relabels = node.name in _RELABELLING
    # Series of one name stay distinct without it; otherwise all of them must be seen together.
    drops = not function.keeps_name
    merges = relabels or (drops and not execution.delayed_names and vector is not None and name_of(vector) is None)
    if vector is None:
        assert function.defaults_to_time, node.name
        matrix = function(vector_of(steps.times / 1000.0, context), params, context)
        yield drop_names(matrix, execution.delayed_names) if drops else matrix
        return
    if not (function.needs_all or merges):
        for batch in execution.vector(vector, steps):
            matrix = function(batch, params, context)
            yield drop_names(matrix, execution.delayed_names) if drops else matrix
        if vector is node.args[0]:
            execution.annotations.merge(of_params)
        return
    whole = execution.gather(vector, steps)
    if vector is node.args[0]:
        execution.annotations.merge(of_params)
    matrix = function(whole, params, context)
    if drops:
        matrix = drop_names(matrix, execution.delayed_names)
    if merges or (drops and not execution.delayed_names):
        matrix = merge_same_labels(matrix)
    if len(matrix):
        yield matrix
    execution.release(whole)


def _param(node: nodes.PlanNode, steps: nodes.Steps, execution: Execution) -> Scalar | str:
    if isinstance(node, nodes.Text):
        return node.value
    return execution.scalar(node, steps)
