"""What bounds the evaluation of one query: samples, time, and the caller's patience; and the errors of it.

Upstream: promql/engine.go ErrTooManySamples, ErrQueryTimeout, ErrQueryCanceled.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from mimir_ray.errors import ClientError, MimirRayError, Unavailable

DEFAULT_MAX_SAMPLES = 50_000_000
CELLS_PER_SAMPLE_MAX = 8
"""Matrices hold a cell for every series and step, sparse series too; so many cells per allowed sample."""
EXPRESSION_EVALUATION = "expression evaluation"
QUERY_EXECUTION = "query execution"


@dataclass(eq=False)
class EvaluationError(ClientError):
    """A query that is well formed but cannot be evaluated on this data (`execution` in the API)."""

    reason: str

    def describe(self) -> str:
        return self.reason


class TooManySamples(EvaluationError):
    """More samples in memory at once than the limit allows."""

    def __init__(self, stage: str = QUERY_EXECUTION) -> None:
        super().__init__(f"query processing would load too many samples into memory in {stage}")


@dataclass(eq=False)
class QueryTimeout(Unavailable):
    """The query ran into its deadline (`timeout` in the API)."""

    stage: str = EXPRESSION_EVALUATION

    def describe(self) -> str:
        return f"query timed out in {self.stage}"


@dataclass(eq=False)
class QueryCancelled(MimirRayError):
    """Somebody gave up on the query (`canceled` in the API)."""

    stage: str = EXPRESSION_EVALUATION

    def describe(self) -> str:
        return f"query was canceled in {self.stage}"


class Cancellation:
    """Tells a running query to stop: by `cancel()` from any thread, or when the deadline passes.

    `timeout_s` counts from now on the given monotonic clock; None for no deadline. What stops `parent`
    stops this one too.
    """

    __slots__ = ("_cancelled", "_deadline_s", "_monotonic_s", "_parent")

    def __init__(
        self,
        timeout_s: float | None = None,
        monotonic_s: Callable[[], float] = time.monotonic,
        parent: Cancellation | None = None,
    ) -> None:
        self._parent = parent
        self._cancelled = threading.Event()
        self._monotonic_s = monotonic_s
        self._deadline_s = None if timeout_s is None else monotonic_s() + timeout_s

    def cancel(self) -> None:
        self._cancelled.set()

    @property
    def cancelled(self) -> bool:
        return self._cancelled.is_set() or (self._parent is not None and self._parent.cancelled)

    def remaining_s(self) -> float | None:
        """Seconds until the deadline, not below 0; None without one."""
        mine = None if self._deadline_s is None else max(0.0, self._deadline_s - self._monotonic_s())
        parents = None if self._parent is None else self._parent.remaining_s()
        return min((each for each in (mine, parents) if each is not None), default=None)

    def check(self, stage: str = EXPRESSION_EVALUATION) -> None:
        """Raises `QueryCancelled` or `QueryTimeout`."""
        if self._parent is not None:
            self._parent.check(stage)
        if self._cancelled.is_set():
            raise QueryCancelled(stage)
        if self._deadline_s is not None and self._monotonic_s() >= self._deadline_s:
            raise QueryTimeout(stage)


@dataclass(frozen=True, slots=True)
class QueryLimits:
    """Of one query; None leaves the engine's own."""

    max_samples: int | None = None
    timeout_s: float | None = None


class SampleBudget:
    """Counts the points that a query holds at once."""

    __slots__ = ("current", "max_samples", "peak")

    def __init__(self, max_samples: int) -> None:
        self.max_samples = max_samples
        self.current = 0
        self.peak = 0

    def take(self, points: int) -> None:
        """Raises `TooManySamples` where they are more than the limit."""
        self.current += points
        if self.current > self.peak:
            self.peak = self.current
            if self.current > self.max_samples:
                raise TooManySamples

    def check_cells(self, cells: int) -> None:
        """Raises `TooManySamples` where a dense matrix would be out of proportion to what may be in it."""
        if cells > CELLS_PER_SAMPLE_MAX * self.max_samples:
            raise TooManySamples

    def release(self, points: int) -> None:
        self.current -= points
