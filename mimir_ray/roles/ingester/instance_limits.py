"""What one ingester process takes on at once, whoever its tenants are. Upstream: pkg/ingester/instance_limits.go."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

from mimir_ray.clock import Clock
from mimir_ray.config.instance_limits import IngesterInstanceLimits
from mimir_ray.errors import Unavailable
from mimir_ray.roles.api import WriteBatch
from mimir_ray.roles.ingester.metrics import InstanceMetrics

TICK_S = 1.0
WEIGHT = 0.2
"""Of the last second in the ingestion rate."""


@dataclass(eq=False)
class InstanceLimitReached(Unavailable):
    """This ingester has enough to do; nothing was stored. Retryable: status 500."""

    flag: ClassVar[str] = ""
    exceeded: ClassVar[str] = ""

    def __str__(self) -> str:
        return (
            f"the write request has been rejected because the ingester exceeded the {self.exceeded} "
            f"(err-mimir-{self.id}). To adjust the related limit, configure -ingester.instance-limits.{self.flag}, "
            "or contact your service administrator."
        )


class IngestionRateReached(InstanceLimitReached):
    id: ClassVar[str] = "ingester-max-ingestion-rate"
    flag: ClassVar[str] = "max-ingestion-rate"
    exceeded: ClassVar[str] = "samples ingestion rate limit"


class TooManyTenantsHere(InstanceLimitReached):
    id: ClassVar[str] = "ingester-max-tenants"
    flag: ClassVar[str] = "max-tenants"
    exceeded: ClassVar[str] = "allowed number of tenants"


class TooManyRequestsInFlight(InstanceLimitReached):
    id: ClassVar[str] = "ingester-max-inflight-push-requests"
    flag: ClassVar[str] = "max-inflight-push-requests"
    exceeded: ClassVar[str] = "allowed number of inflight push requests"


class TooManyBytesInFlight(InstanceLimitReached):
    id: ClassVar[str] = "ingester-max-inflight-push-requests-bytes"
    flag: ClassVar[str] = "max-inflight-push-requests-bytes"
    exceeded: ClassVar[str] = "allowed total size in bytes of inflight push requests"


class EwmaRate:
    """Events a second, averaged over seconds with a weight that falls. Upstream: pkg/util/math/rate.go."""

    def __init__(self, now_s: float) -> None:
        self._tick_s = now_s
        self._count = 0
        self._rate: float | None = None

    def add(self, count: int, now_s: float) -> None:
        self._advance(now_s)
        self._count += count

    def rate(self, now_s: float) -> float:
        self._advance(now_s)
        return self._rate or 0.0

    def _advance(self, now_s: float) -> None:
        ticks = int((now_s - self._tick_s) / TICK_S)
        if ticks <= 0:
            return
        current = self._count / TICK_S
        self._rate = current if self._rate is None else self._rate + WEIGHT * (current - self._rate)
        # In the other seconds nothing came.
        self._rate *= (1 - WEIGHT) ** (ticks - 1)
        self._count = 0
        self._tick_s += ticks * TICK_S


class InstanceLimits:
    """Counts pushes under way and samples a second, and refuses what is too much. Thread-safe."""

    def __init__(self, limits: Callable[[], IngesterInstanceLimits], clock: Clock, metrics: InstanceMetrics) -> None:
        """`limits`: those in force now."""
        self._limits = limits
        self._clock = clock
        self._metrics = metrics
        self._lock = threading.Lock()
        self._requests = self._bytes = 0
        self._rate = EwmaRate(clock.monotonic_s())

    @property
    def now(self) -> IngesterInstanceLimits:
        return self._limits()

    @contextmanager
    def push(self, batches: Sequence[WriteBatch]) -> Iterator[None]:
        """Around a push: counts it as under way. Raises `InstanceLimitReached`; each batch counts as a request."""
        limits, size = self._limits(), sum(batch_bytes(batch) for batch in batches)
        requests = len(batches)
        with self._lock:
            error = self._judge(limits, requests, size)
            if error is None:
                self._requests += requests
                self._bytes += size
        if error is not None:
            self.rejected(error, requests)
            raise error
        try:
            yield
        finally:
            with self._lock:
                self._requests -= requests
                self._bytes -= size

    def _judge(self, limits: IngesterInstanceLimits, requests: int, size: int) -> InstanceLimitReached | None:
        if limits.max_inflight_push_requests and self._requests + requests > limits.max_inflight_push_requests:
            return TooManyRequestsInFlight()
        allowed = int(limits.max_inflight_push_requests_bytes)
        if allowed and self._bytes + size > allowed:
            return TooManyBytesInFlight()
        if limits.max_ingestion_rate and self._rate.rate(self._clock.monotonic_s()) >= limits.max_ingestion_rate:
            return IngestionRateReached()
        return None

    def rejected(self, error: Unavailable, requests: int = 1) -> None:
        """Counts pushes that were refused for this."""
        self._metrics.rejected.labels(error.id.replace("-", "_")).inc(requests)

    def ingested(self, samples: int) -> None:
        with self._lock:
            self._rate.add(samples, self._clock.monotonic_s())

    def report(self) -> None:
        """Sets the gauges."""
        limits = self._limits()
        with self._lock:
            rate = self._rate.rate(self._clock.monotonic_s())
            self._metrics.inflight.set(self._requests)
            self._metrics.inflight_bytes.set(self._bytes)
        self._metrics.rate.set(rate)
        for name in (
            "max_ingestion_rate", "max_tenants", "max_series", "max_inflight_push_requests",
            "max_inflight_push_requests_bytes",
        ):  # fmt: skip
            self._metrics.limits.labels(name).set(getattr(limits, name))


def batch_bytes(batch: WriteBatch) -> int:
    """About how much memory a batch takes."""
    columns = (batch.references, batch.timestamps, batch.values, batch.new_series, batch.new_timestamps,
               batch.new_values, batch.label_offsets)  # fmt: skip
    return len(batch.label_bytes) + sum(column.nbytes for column in columns)
