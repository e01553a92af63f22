"""Whether ingesters and store-gateways answer at all: one that hangs costs queries seconds, not their whole time-out.

A query may take long in one of them, and that is no reason to give it up. So a caller who has waited for `PATIENCE_S`
asks the other how it is; while not even that is answered, all calls to it fail at once, and one of them asks again
now and then. In Mimir a connection's keep-alive does this.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry, Counter

from mimir_ray.cluster.ring.model import InstanceDesc, InstanceId
from mimir_ray.cluster.transport.base import Pending, Transport
from mimir_ray.errors import MimirRayError, Unavailable

PATIENCE_S = 1.0
PROBE_TIMEOUT_S = 5.0
"""A process that is busy, on a machine that is, answers sooner."""
PROBE_PERIOD_S = 2.0
"""How long what was found holds for others."""
AVOID_S = 30.0
"""How long others are asked first where it is not needed."""


@dataclass(eq=False)
class InstanceHangs(Unavailable):
    instance: str

    def describe(self) -> str:
        return f"{self.instance} does not answer"


class LivenessMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self.probes = Counter(
            "mimir_ray_querier_instance_probes_total",
            "Questions to ingesters and store-gateways that kept a query waiting, by whether they were answered. Ours.",
            ("outcome",),
            registry=registry,
        )


@dataclass(slots=True)
class _Health:
    """What is known of an instance that kept somebody waiting."""

    hangs: bool = False
    known_s: float = float("-inf")
    probing: bool = False


class Liveness:
    """Of all instances, as one process sees them. Thread-safe."""

    def __init__(
        self, transport: Transport, monotonic_s: Callable[[], float], metrics: LivenessMetrics | None = None
    ) -> None:
        self._transport = transport
        self._monotonic_s = monotonic_s
        self._metrics = metrics
        self._lock = threading.Lock()
        self._health: dict[InstanceId, _Health] = {}

    def hangs(self, instance: InstanceId) -> bool:
        """Whether it did not answer when it was asked last."""
        found = self._health.get(instance)
        return found is not None and found.hangs

    def avoid(self, one: InstanceDesc) -> bool:
        """Whether others should be asked first."""
        found = self._health.get(one.id)
        return found is not None and found.hangs and self._monotonic_s() - found.known_s < AVOID_S

    def begin(self, one: InstanceDesc, method: str, *arguments: Any, timeout_s: float) -> Pending:
        """Begins a call. Raises `InstanceHangs`."""
        if self.hangs(one.id):
            self._check(one)
        return self._transport.client(one.address).begin(method, *arguments, timeout_s=timeout_s)

    def answer(self, one: InstanceDesc, call: Pending) -> Any:
        """The answer to a call. Raises `InstanceHangs`, and what the call raises."""
        while not call.ready(PATIENCE_S):
            self._check(one)
        return call.result()

    def call(self, one: InstanceDesc, method: str, *arguments: Any, timeout_s: float) -> Any:
        return self.answer(one, self.begin(one, method, *arguments, timeout_s=timeout_s))

    def _check(self, one: InstanceDesc) -> None:
        """Asks it, if nobody else does or has lately. Raises `InstanceHangs`."""
        with self._lock:
            health = self._health.setdefault(one.id, _Health())
            recent = self._monotonic_s() - health.known_s < PROBE_PERIOD_S
            mine = not health.probing and not recent
            health.probing = health.probing or mine
        if mine:
            hangs = True
            try:
                self._transport.client(one.address).call("status", timeout_s=PROBE_TIMEOUT_S)
                hangs = False
            except MimirRayError:
                pass  # dead or stopped: it is all the same to whoever waits
            finally:
                with self._lock:
                    health.hangs, health.known_s, health.probing = hangs, self._monotonic_s(), False
            if self._metrics is not None:
                self._metrics.probes.labels("no answer" if hangs else "answered").inc()
        if health.hangs:
            raise InstanceHangs(one.id)
