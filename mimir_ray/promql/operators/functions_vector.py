"""Functions of instant vectors, value by value; scalar() and vector(); time and its parts."""

# ruff: noqa: ARG001  (all functions share one signature)
from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mimir_ray.model.labels import LabelColumns
from mimir_ray.model.series import StepMatrix
from mimir_ray.promql.kernels import dates, elementwise
from mimir_ray.promql.syntax import ast

from .functions_base import FunctionContext, ScalarFunction, ScalarSteps, VectorFunction

Values = NDArray[np.float64]


def _with_values(matrix: StepMatrix, values: Values) -> StepMatrix:
    return StepMatrix(matrix.labels, values, matrix.present, matrix.drop_name)


def by_value(function: Callable[[Values], Values]) -> VectorFunction:
    """A numpy function of every value."""

    def run(matrix: StepMatrix, params: tuple[ScalarSteps | str, ...], context: FunctionContext) -> StepMatrix:
        with np.errstate(all="ignore"):
            return _with_values(matrix, function(matrix.values))

    return VectorFunction(run)


def by_kernel(kernel: Callable[..., None], argument: int, **attributes: Any) -> VectorFunction:
    """A kernel (values, argument, out) of every value."""

    def run(matrix: StepMatrix, params: tuple[ScalarSteps | str, ...], context: FunctionContext) -> StepMatrix:
        out = np.empty_like(matrix.values)
        kernel(matrix.values, argument, out)
        return _with_values(matrix, out)

    return VectorFunction(run, **attributes)


def _sign(values: Values) -> Values:
    return np.where(values < 0, -1.0, np.where(values > 0, 1.0, values))


def _scalar(param: ScalarSteps | str) -> ScalarSteps:
    assert not isinstance(param, str)
    return param


def _round(matrix: StepMatrix, params: tuple[ScalarSteps | str, ...], context: FunctionContext) -> StepMatrix:
    """To the nearest multiple, ties up. Upstream multiplies by the inverse, and so its digits are ours."""
    with np.errstate(all="ignore"):
        inverse = 1.0 / _scalar(params[0]) if params else 1.0
        return _with_values(matrix, np.floor(matrix.values * inverse + 0.5) / inverse)


def _clamped(matrix: StepMatrix, low: ScalarSteps, high: ScalarSteps) -> StepMatrix:
    values = np.empty_like(matrix.values)
    present = np.empty_like(matrix.present)
    elementwise.clamp(matrix.values, matrix.present, low, high, values, present)
    return StepMatrix(matrix.labels, values, present, matrix.drop_name)


def _clamp(matrix: StepMatrix, params: tuple[ScalarSteps | str, ...], context: FunctionContext) -> StepMatrix:
    return _clamped(matrix, _scalar(params[0]), _scalar(params[1]))


def _clamp_min(matrix: StepMatrix, params: tuple[ScalarSteps | str, ...], context: FunctionContext) -> StepMatrix:
    low = _scalar(params[0])
    return _clamped(matrix, low, np.full_like(low, np.inf))


def _clamp_max(matrix: StepMatrix, params: tuple[ScalarSteps | str, ...], context: FunctionContext) -> StepMatrix:
    high = _scalar(params[0])
    return _clamped(matrix, np.full_like(high, -np.inf), high)


def is_selector(node: ast.Node) -> bool:
    """Whether the node is an instant selector, maybe in parentheses."""
    while isinstance(node, ast.Paren):
        node = node.expr
    return isinstance(node, ast.VectorSelector)


def _timestamp(matrix: StepMatrix, params: tuple[ScalarSteps | str, ...], context: FunctionContext) -> StepMatrix:
    """Of a selector the samples' own times, which the caller passes as values (s); else the evaluation times."""
    if is_selector(context.call.args[0]):
        return matrix
    return _with_values(matrix, np.ascontiguousarray(np.broadcast_to(context.times / 1000.0, matrix.values.shape)))


def _start_timestamp(matrix: StepMatrix, params: tuple[ScalarSteps | str, ...], context: FunctionContext) -> StepMatrix:
    """Of a selector what the caller passes as values (s); where they are not used, or of anything else, nothing."""
    return matrix if context.start_timestamps else matrix.take(slice(0, 0))


VECTOR_FUNCTIONS: dict[str, VectorFunction] = {
    "abs": by_value(np.abs),
    "ceil": by_value(np.ceil),
    "floor": by_value(np.floor),
    "exp": by_value(np.exp),
    "sqrt": by_value(np.sqrt),
    "sgn": by_value(_sign),
    "round": VectorFunction(_round),
    "ln": by_kernel(elementwise.logarithm, elementwise.NATURAL),
    "log2": by_kernel(elementwise.logarithm, elementwise.BASE_2),
    "log10": by_kernel(elementwise.logarithm, elementwise.BASE_10),
    "sin": by_value(np.sin),
    "cos": by_value(np.cos),
    "tan": by_value(np.tan),
    "asin": by_value(np.arcsin),
    "acos": by_value(np.arccos),
    "atan": by_value(np.arctan),
    "sinh": by_value(np.sinh),
    "cosh": by_value(np.cosh),
    "tanh": by_value(np.tanh),
    "asinh": by_value(np.arcsinh),
    "acosh": by_value(np.arccosh),
    "atanh": by_value(np.arctanh),
    "deg": by_value(lambda values: values * 180.0 / math.pi),
    "rad": by_value(lambda values: values * math.pi / 180.0),
    "clamp": VectorFunction(_clamp),
    "clamp_min": VectorFunction(_clamp_min),
    "clamp_max": VectorFunction(_clamp_max),
    "timestamp": VectorFunction(_timestamp, takes_histograms=True),
    "year": by_kernel(dates.date_part, dates.YEAR, defaults_to_time=True),
    "month": by_kernel(dates.date_part, dates.MONTH, defaults_to_time=True),
    "day_of_month": by_kernel(dates.date_part, dates.DAY_OF_MONTH, defaults_to_time=True),
    "day_of_week": by_kernel(dates.date_part, dates.DAY_OF_WEEK, defaults_to_time=True),
    "day_of_year": by_kernel(dates.date_part, dates.DAY_OF_YEAR, defaults_to_time=True),
    "days_in_month": by_kernel(dates.date_part, dates.DAYS_IN_MONTH, defaults_to_time=True),
    "hour": by_kernel(dates.date_part, dates.HOUR, defaults_to_time=True),
    "minute": by_kernel(dates.date_part, dates.MINUTE, defaults_to_time=True),
    "start_timestamp": VectorFunction(_start_timestamp, takes_histograms=True),
}


def _time(params: tuple[ScalarSteps, ...], context: FunctionContext) -> ScalarSteps:
    return context.times / 1000.0


def _pi(params: tuple[ScalarSteps, ...], context: FunctionContext) -> ScalarSteps:
    return np.full(len(context.times), math.pi)


def _extreme(wants_max: bool) -> ScalarFunction:
    def run(params: tuple[ScalarSteps, ...], context: FunctionContext) -> ScalarSteps:
        left, right = params
        out = np.empty((1, len(left)), np.float64)
        elementwise.extreme_of_two(left[None, :], right[None, :], wants_max, out)
        return out[0]

    return ScalarFunction(run)


SCALAR_FUNCTIONS: dict[str, ScalarFunction] = {
    "time": ScalarFunction(_time),
    "pi": ScalarFunction(_pi),
    "max_of": _extreme(True),
    "min_of": _extreme(False),
}


def scalar_of(matrix: StepMatrix) -> ScalarSteps:
    """`scalar(v)`: the value where exactly one series has one, else NaN. `matrix` holds all series."""
    matrix = matrix.floats()
    if not len(matrix):
        return np.full(matrix.values.shape[1], np.nan)
    steps = np.arange(matrix.values.shape[1])
    chosen = matrix.values[matrix.present.argmax(axis=0), steps]
    return np.where(matrix.present.sum(axis=0) == 1, chosen, np.nan)


def vector_of(scalar: ScalarSteps, context: FunctionContext) -> StepMatrix:
    """`vector(s)`: one series without labels."""
    return StepMatrix(LabelColumns.empty_sets(1, context.table), scalar[None, :], np.ones((1, len(scalar)), np.bool_))


QUERY_CONSTANTS = frozenset({"start", "end", "range", "step"})


def query_constant(name: str, start_ms: int, end_ms: int, step_ms: int) -> float:
    """`start()`, `end()`, `range()` or `step()` of a query, in seconds; the step of an instant query is 0.

    Upstream: promql/engine.go foldQueryContextFunctions.
    """
    if name in ("start", "end"):
        return (start_ms if name == "start" else end_ms) / 1000.0
    duration_ms = end_ms - start_ms
    if name == "step" and duration_ms:
        duration_ms = step_ms
    return duration_ms // 1000 + duration_ms % 1000 / 1000.0  # rounds as Go's Duration.Seconds
