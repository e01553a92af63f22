"""What rules read and write: one value of one series, and the functions that fetch and store them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mimir_ray.errors import ClientError
from mimir_ray.model.float_histogram import FloatHistogram
from mimir_ray.model.labels import Labels
from mimir_ray.model.result import QueryResult, Scalar, Vector


@dataclass(frozen=True, slots=True)
class Sample:
    """`time_ms`: of the evaluation."""

    labels: Labels
    time_ms: int
    value: float | FloatHistogram


Query = Callable[[str, int], list[Sample]]
"""(expression, time in ms) → samples in the order of the answer. Raises what the engine raises."""

Write = Callable[[Sequence[Sample]], None]
"""Stores samples; stale markers are NaNs. Raises an error of which the text is the rule's health."""


class NotAVector(ClientError):
    """A rule whose expression is a string or a range."""


def samples_of(result: QueryResult) -> list[Sample]:
    """An answer as samples; a scalar is one without labels. Upstream: rules.EngineQueryFunc."""
    value = result.value
    if isinstance(value, Vector):
        return [Sample(labels, value.timestamp, one) for labels, one in value.items()]
    if isinstance(value, Scalar):
        return [Sample((), value.timestamp, value.value)]
    raise NotAVector("rule result is not a vector or scalar")
