"""The table of PromQL functions: which there are, and how the engine calls each.

Every function of upstream's list (promql/functions.go FunctionCalls; argument types stand in
syntax/signatures.py) is in exactly one of these:

- `RANGE_FUNCTIONS`: `f(batch, window, params, context) -> (values float64[S, T], present bool[S, T])`, of
  the samples of a range selector or subquery. Series by series: call it batch after batch, from any thread
  (annotations are not for several threads: give each its own set and merge).
- `VECTOR_FUNCTIONS`: `f(matrix, params, context) -> StepMatrix`. `params` are all arguments but the vector, in
  the order of the text: float64[T] for a scalar, str for a string. With `needs_all` the matrix must hold all
  series, without it a part of them will do. With `defaults_to_time` a missing vector is
  `vector_of(context.times / 1000.0, context)`. For `timestamp` of an instant selector the caller passes the
  samples' own times (seconds) as values.
- `SCALAR_FUNCTIONS`: `f(params, context) -> float64[T]`: time, pi, max_of, min_of.
- `CONVERSIONS`: `scalar` and `vector`, done by `scalar_of(matrix)` (all series) and `vector_of(scalar, context)`.
- `QUERY_CONSTANTS`: start, end, range, step: `query_constant(name, start_ms, end_ms, step_ms)`, always of the
  whole query, also inside a subquery.
- `JOINS`: info, which is a node of its own in the plan (plan/nodes.py InfoJoin).
- `require_supported(name)` raises `UnsupportedFunction` for what is in none of them.

What callers do, not the functions:

- Names. Functions pass `__name__` and `drop_name` on. Where `keeps_name` is False, the caller then takes the
  metric's name away (or sets `drop_name`, with delayed names).
- Equal label sets after a call. Of a range function (without delayed names) they are an error; of a vector
  function series that have no step in common become one, and others are an error: `vector cannot contain
  metrics with the same labelset`. Upstream: engine.go rangeEval, mergeSeriesWithSameLabelset.
- `absent_over_time` (its `absent` is True) gives presence only: fold `present.any(axis=0)` over all batches, then
  answer `absent_series(any_present, context)`. `absent` gets all series, or the same folding without them.
- `anchored` and `smoothed` selectors: only `ANCHORED_FUNCTIONS` and `SMOOTHED_FUNCTIONS` take them; these stand in
  `EXTENDED_FUNCTIONS` by modifier and name.
- A series whose row of `present` is all False has no result and is left out.

Arrays passed in are C-contiguous and may be read-only; results are new, or parts of what was passed in.
"""

from __future__ import annotations

from dataclasses import dataclass

from mimir_ray.errors import InvalidArgument

from .operators import functions_histogram, functions_labels, functions_vector, histograms_vector
from .operators.functions_base import (
    FunctionContext,
    InvalidFunctionArgument,
    RangeFunction,
    ScalarFunction,
    VectorFunction,
)
from .operators.functions_labels import absent_series
from .operators.functions_range import EXTENDED_FUNCTIONS, RANGE_FUNCTIONS
from .operators.functions_vector import QUERY_CONSTANTS, SCALAR_FUNCTIONS, query_constant, scalar_of, vector_of

__all__ = [
    "ANCHORED_FUNCTIONS",
    "CONVERSIONS",
    "EXTENDED_FUNCTIONS",
    "JOINS",
    "QUERY_CONSTANTS",
    "RANGE_FUNCTIONS",
    "SCALAR_FUNCTIONS",
    "SMOOTHED_FUNCTIONS",
    "STEP_DEPENDENT_FUNCTIONS",
    "VECTOR_FUNCTIONS",
    "FunctionContext",
    "InvalidFunctionArgument",
    "RangeFunction",
    "ScalarFunction",
    "UnsupportedFunction",
    "VectorFunction",
    "absent_series",
    "query_constant",
    "require_supported",
    "scalar_of",
    "vector_of",
]

VECTOR_FUNCTIONS: dict[str, VectorFunction] = {
    **functions_vector.VECTOR_FUNCTIONS,
    **functions_labels.VECTOR_FUNCTIONS,
    **functions_histogram.VECTOR_FUNCTIONS,
    **histograms_vector.VECTOR_FUNCTIONS,
}

CONVERSIONS = frozenset({"scalar", "vector"})

JOINS = frozenset({"info"})
"""Not called like the others: a node of the plan."""

STEP_DEPENDENT_FUNCTIONS = frozenset(
    {
        "days_in_month", "day_of_month", "day_of_week", "day_of_year", "hour", "minute", "month", "year",
        "start", "end", "range", "step", "time", "predict_linear", "timestamp",
    }
)  # fmt: skip
"""Their result depends on the evaluation time even when their arguments do not.

Upstream: AtModifierUnsafeFunctions (where `timestamp(selector @ t)` is an exception).
"""

ANCHORED_FUNCTIONS = frozenset(EXTENDED_FUNCTIONS["anchored"])
"""May be used with the `anchored` modifier. Upstream: AnchoredSafeFunctions."""
SMOOTHED_FUNCTIONS = frozenset(EXTENDED_FUNCTIONS["smoothed"])
"""May be used with the `smoothed` modifier. Upstream: SmoothedSafeFunctions."""


@dataclass(eq=False)
class UnsupportedFunction(InvalidArgument):
    """A function that is not in the tables."""

    name: str

    def describe(self) -> str:
        return f"unknown function {self.name}"


def require_supported(name: str) -> None:
    """Raises `UnsupportedFunction` for a name that is in none of the tables."""
    tables = (RANGE_FUNCTIONS, VECTOR_FUNCTIONS, SCALAR_FUNCTIONS, CONVERSIONS, QUERY_CONSTANTS, JOINS)
    if not any(name in table for table in tables):
        raise UnsupportedFunction(name)
