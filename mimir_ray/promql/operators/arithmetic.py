"""Negation, and binary operators of a vector and a scalar.

Upstream: promql/engine.go VectorscalarBinop, eval case *parser.UnaryExpr.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from mimir_ray.model.series import StepMatrix
from mimir_ray.promql.kernels.arithmetic import ARITHMETIC, COMPARISON
from mimir_ray.promql.plan import nodes
from mimir_ray.promql.syntax.ast import ValueType

from .execution import Execution
from .functions_base import Dense
from .histograms_binary import Cells, negated, with_scalar
from .labels import drop_names, merge_same_labels
from .names import name_of


def negate(node: nodes.Negate, steps: nodes.Steps, execution: Execution) -> Iterator[StepMatrix]:
    return _nameless(node.expr, steps, execution, _negated)


def _negated(batch: StepMatrix) -> Cells:
    return -batch.values, batch.present, None if batch.histograms is None else negated(batch.histograms)


def vector_scalar(node: nodes.VectorScalar, steps: nodes.Steps, execution: Execution) -> Iterator[StepMatrix]:
    """Comparisons keep the vector's values, on whichever side it stands; arithmetic and `bool` take the name."""
    vector_left = node.left.type is ValueType.VECTOR
    vector = node.left if vector_left else node.right
    with execution.later_annotations() as of_scalar:
        scalar = execution.scalar(node.right if vector_left else node.left, steps)
    if not vector_left:
        execution.annotations.merge(of_scalar)
    # `</` and `>/` are for histograms: floats have no result.
    operation = ARITHMETIC.get(node.op) or COMPARISON.get(node.op)

    def apply(batch: StepMatrix) -> Cells:
        floats = None if operation is None else of_floats(batch)
        if batch.histograms is not None:
            return with_scalar(node.op, batch, scalar, vector_left, floats, execution.annotations, node.span)
        if floats is None:
            if batch.present.any():
                execution.annotations.incompatible_types("float", node.op, "float", node.span)
            return batch.values, np.zeros(batch.present.shape, np.bool_), None
        return *floats, None

    def of_floats(batch: StepMatrix) -> Dense:
        assert operation is not None
        left, right = (batch.values, scalar) if vector_left else (scalar, batch.values)
        with np.errstate(all="ignore"):
            values = operation(left, right)
        if node.op in ARITHMETIC:
            return values, batch.present
        if node.return_bool:
            return values.astype(np.float64), batch.present
        return batch.values, batch.present & values

    if node.op in ARITHMETIC or node.return_bool:
        yield from _nameless(vector, steps, execution, apply)
    else:
        for batch in execution.vector(vector, steps):
            values, present, histograms = apply(batch)
            yield StepMatrix(batch.labels, values, present, batch.drop_name, histograms)
    if vector_left:
        execution.annotations.merge(of_scalar)


def _nameless(
    vector: nodes.PlanNode, steps: nodes.Steps, execution: Execution, apply: Callable[[StepMatrix], Cells]
) -> Iterator[StepMatrix]:
    """Applies a function of (values, present) to every batch, then takes the names away."""
    if execution.delayed_names or name_of(vector) is not None:
        for batch in execution.vector(vector, steps):
            values, present, histograms = apply(batch)
            matrix = StepMatrix(batch.labels, values, present, None, histograms)
            yield drop_names(matrix, execution.delayed_names)
        return
    whole = execution.gather(vector, steps)
    if len(whole):
        values, present, histograms = apply(whole)
        matrix = StepMatrix(whole.labels, values, present, None, histograms)
        yield merge_same_labels(drop_names(matrix, delayed=False))
    execution.release(whole)
