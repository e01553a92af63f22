"""Scalar expressions: float64[T], one value a step."""

from __future__ import annotations

import numpy as np

from mimir_ray.promql.functions import SCALAR_FUNCTIONS, require_supported, scalar_of
from mimir_ray.promql.kernels.arithmetic import binary_values
from mimir_ray.promql.plan import nodes

from .execution import Execution, Scalar


def number(node: nodes.Number, steps: nodes.Steps, execution: Execution) -> Scalar:  # noqa: ARG001
    return np.full(steps.count, node.value)


def negate_scalar(node: nodes.Negate, steps: nodes.Steps, execution: Execution) -> Scalar:
    return -execution.scalar(node.expr, steps)


def scalar_binary(node: nodes.ScalarBinary, steps: nodes.Steps, execution: Execution) -> Scalar:
    return binary_values(node.op, execution.scalar(node.left, steps), execution.scalar(node.right, steps))


def scalar_call(node: nodes.FunctionCall, steps: nodes.Steps, execution: Execution) -> Scalar:
    """`scalar(v)` and functions of scalars. Raises `UnsupportedFunction`."""
    if node.name == "scalar":
        whole = execution.gather(node.args[0], steps)
        execution.release(whole)
        return scalar_of(whole)
    require_supported(node.name)
    params = tuple(execution.scalar(each, steps) for each in node.args)
    return SCALAR_FUNCTIONS[node.name](params, execution.context(node, steps))


def scalar_step_invariant(node: nodes.StepInvariant, steps: nodes.Steps, execution: Execution) -> Scalar:
    tally = execution.new_tally(steps.first)
    value = execution.scalar_tallied(node.expr, steps.first, tally)[0]
    if tally is not None and execution.tally is not None:
        execution.tally.add_once(tally)
    return np.full(steps.count, value)


def shared_scalar(node: nodes.Shared, steps: nodes.Steps, execution: Execution) -> Scalar:
    key = node.expr, steps
    known: Scalar | None = execution.shared.get(key)
    if known is None:
        known = execution.shared[key] = execution.scalar(node.expr, steps)
    return known
