"""What a PromQL function is to the engine: its context, and one class per way of being called.

See functions.py for the table and the rules that callers follow.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mimir_ray.model.labels import StringTable
from mimir_ray.model.series import SeriesBatch, StepMatrix
from mimir_ray.promql.annotations import Annotations
from mimir_ray.promql.kernels.windows import Window, without_stale
from mimir_ray.promql.limits import EvaluationError
from mimir_ray.promql.syntax import ast

ScalarSteps = NDArray[np.float64]
"""float64[T]: a scalar at every step."""
Dense = tuple[NDArray[np.float64], NDArray[np.bool_]]
"""(values float64[S, T], present bool[S, T])."""


class InvalidFunctionArgument(EvaluationError):
    """An argument whose value a function refuses while it runs (upstream: an execution error)."""


@dataclass(frozen=True, slots=True)
class FunctionContext:
    """Where a call stands.

    `times`: int64[T], ms, the evaluation times of the steps. `table`: of all label columns in the query.
    `delayed_names`: the engine removes metric names at the end of the query, not at each step.
    `start_timestamps`: the values of the vector are start timestamps. `type_labels`: series have their metric's type as
    a label. `ranged`: the steps are those of a range query or subquery.
    """

    call: ast.Call
    times: NDArray[np.int64]
    table: StringTable
    annotations: Annotations
    delayed_names: bool = False
    start_timestamps: bool = False
    type_labels: bool = False
    ranged: bool = False


@dataclass(frozen=True, slots=True)
class RangeFunction:
    """A function of a range vector: `f(batch, window, params, context) -> (values, present)`.

    `params`: the scalar arguments in the order of the text. Works series by series, so a caller may split
    series over batches and threads. Staleness markers in the batch are skipped.
    """

    run: Callable[[SeriesBatch, Window, tuple[ScalarSteps, ...], FunctionContext], Dense]
    keeps_name: bool = False
    absent: bool = False
    """The result is not these series: see `absent_series` in functions.py."""

    def __call__(
        self, batch: SeriesBatch, window: Window, params: tuple[ScalarSteps, ...], context: FunctionContext
    ) -> Dense:
        return self.run(without_stale(batch), window, params, context)


@dataclass(frozen=True, slots=True)
class VectorFunction:
    """A function of an instant vector: `f(matrix, params, context) -> StepMatrix`.

    `params`: all arguments but the vector, in the order of the text: float64[T] for a scalar, str for a
    string. Never writes into the matrix it is given; may return its parts.
    """

    run: Callable[[StepMatrix, tuple[ScalarSteps | str, ...], FunctionContext], StepMatrix]
    keeps_name: bool = False
    needs_all: bool = False
    """Must see all series of the vector in one matrix."""
    defaults_to_time: bool = False
    """Without a vector argument it takes `vector(time())`."""
    takes_histograms: bool = False
    """Is shown cells that are histograms; others see floats only."""

    def __call__(
        self, matrix: StepMatrix, params: tuple[ScalarSteps | str, ...], context: FunctionContext
    ) -> StepMatrix:
        return self.run(matrix if self.takes_histograms else matrix.floats(), params, context)


@dataclass(frozen=True, slots=True)
class ScalarFunction:
    """A function of scalars alone that gives a scalar: `f(params, context) -> float64[T]`."""

    run: Callable[[tuple[ScalarSteps, ...], FunctionContext], ScalarSteps]

    def __call__(self, params: tuple[ScalarSteps, ...], context: FunctionContext) -> ScalarSteps:
        return self.run(params, context)
