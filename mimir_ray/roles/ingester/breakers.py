"""The circuit breakers of an ingester: one for writes, one for reads. Upstream: pkg/ingester/circuitbreaker.go."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge

from mimir_ray.clock import Clock
from mimir_ray.cluster.circuit_breaker import CircuitBreaker, CircuitBreakerConfig, State
from mimir_ray.errors import LimitExceeded
from mimir_ray.roles.api import WriteResult

RESULTS = ("success", "error", "circuit_breaker_open")


class Breakers:
    """Only what speaks against this process opens them: slowness, and limits of the instance. Thread-safe."""

    def __init__(
        self, push: CircuitBreakerConfig, read: CircuitBreakerConfig, clock: Clock, registry: CollectorRegistry
    ) -> None:
        name = "cortex_ingester_circuit_breaker"
        self._results = Counter(
            f"{name}_results_total", "Requests by what the breaker saw.", ("request_type", "result"), registry=registry
        )
        self._transitions = Counter(
            f"{name}_transitions_total",
            "How often a breaker entered a state.",
            ("request_type", "state"),
            registry=registry,
        )
        self._current = Gauge(
            f"{name}_current_state",
            "1 for the state that a breaker is in.",
            ("request_type", "state"),
            registry=registry,
        )
        self._push = self._breaker("push", push, clock)
        self._read = self._breaker("read", read, clock)

    @contextmanager
    def pushing(self) -> Iterator[list[WriteResult]]:
        """Around a write; the block puts its results into the list. Raises `CircuitBreakerOpen`."""
        began = self._push.enter()
        results: list[WriteResult] = []
        failed: bool | None = None
        try:
            yield results
            failed = speaks_against_us([one.error for one in results])
        except Exception as error:
            failed = speaks_against_us([error])
            raise
        finally:
            self._push.leave(began, failed)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Around a read; refused where writes are too: the process is not well. Raises `CircuitBreakerOpen`."""
        if self._read.active:
            self._push.check()
        began = self._read.enter()
        failed: bool | None = None
        try:
            yield
            failed = False
        except Exception as error:
            failed = speaks_against_us([error])
            raise
        finally:
            self._read.leave(began, failed)

    def _breaker(self, request_type: str, config: CircuitBreakerConfig, clock: Clock) -> CircuitBreaker:
        if config.enabled:
            for result in RESULTS:
                self._results.labels(request_type, result)
            self._show(request_type, State.CLOSED)

        def moved(state: State) -> None:
            self._transitions.labels(request_type, state.value).inc()
            self._show(request_type, state)

        return CircuitBreaker(
            config, request_type, clock, lambda result: self._results.labels(request_type, result).inc(), moved
        )

    def _show(self, request_type: str, state: State) -> None:
        for one in State:
            self._current.labels(request_type, one.value).set(one is state)


def speaks_against_us(errors: Sequence[Exception | None]) -> bool | None:
    """Whether a request failed for a limit of this process; None where it failed for something else."""
    met = [one for one in errors if one is not None]
    if any(isinstance(one, LimitExceeded) and one.per_instance for one in met):
        return True
    return None if met and len(met) == len(errors) else False
