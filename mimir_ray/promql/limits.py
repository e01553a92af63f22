"""What bounds the evaluation of one query: samples, time, and the caller's patience; and the errors of it.

Upstream: promql/engine.go ErrTooManySamples, ErrQueryTimeout, ErrQueryCanceled.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from mimir_ray.errors import ClientError, LimitExceeded, MimirRayError, Unavailable
from mimir_ray.model.matchers import Matcher

DEFAULT_MAX_SAMPLES = 50_000_000
CELLS_PER_SAMPLE_MAX = 8
"""Matrices hold a cell for every series and step, sparse series too; so many cells per allowed sample."""
POINT_BYTES = 16
"""What a point counts for in an estimate of memory. Upstream: MQE types.FPointSize."""
CELL_BYTES = 9
"""What a cell of a dense matrix takes."""
SAMPLES_PER_CHUNK = 120
SAMPLE_CHUNK_BYTES = 3
BUCKET_CHUNK_BYTES = 2
"""What a sample, and each bucket of one that is a histogram, counts for in the chunk that it was read from."""
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


@dataclass(eq=False)
class TooMuchFetched(LimitExceeded):
    """A query reads more than its tenant may. Upstream: pkg/util/limiter/errors.go."""

    allowed: int

    def __str__(self) -> str:
        return (
            f"{self.describe()} (err-mimir-{self.id}). Consider reducing the time range and/or number of series "
            "selected by the query. One way to reduce the number of selected series is to add more label matchers to "
            "the query. Otherwise, to adjust the related per-tenant limit, "
            f"configure -{self.flags[0]}, or contact your service administrator."
        )


class TooManySeries(TooMuchFetched):
    id = "max-series-per-query"
    flags = ("querier.max-fetched-series-per-query",)

    def describe(self) -> str:
        return f"the query exceeded the maximum number of series (limit: {self.allowed} series)"


class TooManyChunks(TooMuchFetched):
    id = "max-chunks-per-query"
    flags = ("querier.max-fetched-chunks-per-query",)

    def describe(self) -> str:
        return f"the query exceeded the maximum number of chunks (limit: {self.allowed} chunks)"


class TooManyChunkBytes(TooMuchFetched):
    id = "max-chunks-bytes-per-query"
    flags = ("querier.max-fetched-chunk-bytes-per-query",)

    def describe(self) -> str:
        return f"the query exceeded the aggregated chunks size limit (limit: {self.allowed} bytes)"


@dataclass(eq=False)
class TooMuchMemory(LimitExceeded):
    """A query holds more than its tenant may. Upstream: pkg/util/limiter/memory_consumption.go."""

    id = "max-estimated-memory-consumption-per-query"
    flags = ("querier.max-estimated-memory-consumption-per-query",)
    allowed: int

    def describe(self) -> str:
        return (
            "the query exceeded the maximum allowed estimated amount of memory consumed by a single query "
            f"(limit: {self.allowed} bytes)"
        )


@dataclass(frozen=True, slots=True)
class QueryLimits:
    """Of one query. None leaves the engine's own, 0 is no limit.

    `delayed_names`: names go at the end of the query. `start_timestamps`: functions of counters look at them.
    `type_labels`: what a counter is is told by the label `__type__`, not by the end of the name.
    `max_series`, `max_chunks`, `max_chunk_bytes`: what selectors may read.
    `max_memory_bytes`: what the query may hold at once, by estimate.
    """

    max_samples: int | None = None
    timeout_s: float | None = None
    delayed_names: bool | None = None
    start_timestamps: bool | None = None
    type_labels: bool | None = None
    max_series: int = 0
    max_chunks: int = 0
    max_chunk_bytes: int = 0
    max_memory_bytes: int = 0


class SampleBudget:
    """Counts the points that a query holds at once, and estimates what memory they and raw samples take."""

    __slots__ = ("current", "held_bytes", "max_bytes", "max_samples", "peak", "peak_bytes")

    def __init__(self, max_samples: int, max_bytes: int = 0) -> None:
        self.max_samples = max_samples
        self.max_bytes = max_bytes
        self.current = 0
        self.peak = 0
        self.held_bytes = 0
        self.peak_bytes = 0

    def take(self, points: int) -> None:
        """Raises `TooManySamples` where they are more than the limit, `TooMuchMemory` where they are too large."""
        self.current += points
        if self.current > self.peak:
            self.peak = self.current
            if self.current > self.max_samples:
                raise TooManySamples
        self.hold(0)

    def check_cells(self, cells: int) -> None:
        """Raises `TooManySamples` where a dense matrix would be out of proportion to what may be in it."""
        if cells > CELLS_PER_SAMPLE_MAX * self.max_samples:
            raise TooManySamples
        if 0 < self.max_bytes < cells * CELL_BYTES:
            raise TooMuchMemory(self.max_bytes)

    def release(self, points: int) -> None:
        self.current -= points

    def hold(self, size: int) -> None:
        """Counts raw samples of so many bytes as held until they are dropped. Raises `TooMuchMemory`."""
        self.held_bytes += size
        used = self.held_bytes + self.current * POINT_BYTES
        if used > self.peak_bytes:
            self.peak_bytes = used
            if 0 < self.max_bytes < used:
                raise TooMuchMemory(self.max_bytes)

    def drop(self, size: int) -> None:
        self.held_bytes -= size


class Reads(NamedTuple):
    """What was read of storage."""

    series: int = 0
    chunks: int = 0
    chunk_bytes: int = 0

    def plus(self, other: Reads) -> Reads:
        return Reads(self.series + other.series, self.chunks + other.chunks, self.chunk_bytes + other.chunk_bytes)


_NO_LIMITS = Reads()


class ReadBudget:
    """Counts what the selectors of a query read. `most`: the limits; 0 for none.

    Differs: a series is counted once for all selectors with the same matchers, however often they read it, but again
    for others that select it too; and chunks are counted as if each held `SAMPLES_PER_CHUNK`, their bytes by
    `SAMPLE_CHUNK_BYTES` and `BUCKET_CHUNK_BYTES`.
    """

    __slots__ = ("_read", "_told", "most")

    def __init__(self, most: Reads = Reads()) -> None:  # noqa: B008  (immutable)
        self.most = most
        self._read: dict[tuple[Matcher, ...], Reads] = {}
        self._told = Reads()

    def take(self, matchers: tuple[Matcher, ...], reads: Reads) -> None:
        """Notes how much a selector has read so far. Raises `TooManySeries`, `TooManyChunks`, `TooManyChunkBytes`."""
        before = self._read.get(matchers, Reads())
        self._read[matchers] = Reads(*map(max, before, reads))
        if self.most == _NO_LIMITS:
            return
        errors = (TooManySeries, TooManyChunks, TooManyChunkBytes)
        for most, total, error in zip(self.most, self.total, errors, strict=True):
            if 0 < most < total:
                raise error(most)

    @property
    def total(self) -> Reads:
        total = Reads()
        for reads in self._read.values():
            total = total.plus(reads)
        return total

    def news(self) -> Reads:
        """What was read since the last call."""
        before, self._told = self._told, self.total
        return Reads(*(now - then for now, then in zip(self._told, before, strict=True)))
