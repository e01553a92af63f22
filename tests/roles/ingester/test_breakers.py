"""What opens the circuit breakers of an ingester, and what they tell."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
from prometheus_client import CollectorRegistry

from mimir_ray.clock import ManualClock
from mimir_ray.cluster.circuit_breaker import CircuitBreakerConfig, CircuitBreakerOpen
from mimir_ray.errors import ClientError, LimitExceeded
from mimir_ray.model.write import WriteResult
from mimir_ray.roles.ingester.breakers import Breakers

CONFIG = CircuitBreakerConfig(enabled=True, failure_execution_threshold=5)


@dataclass(eq=False)
class Full(LimitExceeded):
    per_instance: ClassVar[bool] = True


class Fixture:
    def __init__(self, **change: object) -> None:
        self.clock, self.registry = ManualClock(0), CollectorRegistry()
        config = replace(CONFIG, **change)  # type: ignore[arg-type]
        self.breakers = Breakers(config, config, self.clock, self.registry)

    def push(self, error: Exception | None = None, seconds: float = 0.0) -> None:
        with self.breakers.pushing() as results:
            self.clock.advance_ms(int(seconds * 1000))
            results.append(WriteResult(0, error=error))  # type: ignore[arg-type]

    def value(self, name: str, request_type: str, **labels: str) -> float | None:
        found = {"request_type": request_type, **labels}
        return self.registry.get_sample_value(f"cortex_ingester_circuit_breaker_{name}", found)


def test_limits_of_the_instance_and_slowness_open_it() -> None:
    for times in ({"error": Full()}, {"seconds": 2.5}):
        one = Fixture()
        for _ in range(5):
            one.push(**times)  # type: ignore[arg-type]
        with pytest.raises(CircuitBreakerOpen):
            one.push()
        assert one.value("results_total", "push", result="error") == 5
        assert one.value("results_total", "push", result="circuit_breaker_open") == 1
        assert one.value("transitions_total", "push", state="open") == 1
        assert one.value("current_state", "push", state="open") == 1
        assert one.value("current_state", "push", state="closed") == 0


def test_the_callers_faults_do_not() -> None:
    one = Fixture()
    for _ in range(20):
        one.push(ClientError("bad sample"))
    one.push()
    assert one.value("current_state", "push", state="closed") == 1


def test_reads_are_refused_while_writes_are() -> None:
    one = Fixture()
    for _ in range(5):
        one.push(Full())
    with pytest.raises(CircuitBreakerOpen, match="on push request type"), one.breakers.reading():
        pytest.fail("was let through")


def test_a_read_that_raises_lets_its_error_out() -> None:
    one = Fixture()
    for _ in range(5):
        with pytest.raises(Full), one.breakers.reading():
            raise Full
    with pytest.raises(CircuitBreakerOpen, match="on read request type"), one.breakers.reading():
        pytest.fail("was let through")
    one.push()


def test_nothing_happens_where_they_are_off() -> None:
    one = Fixture(enabled=False)
    for _ in range(10):
        one.push(Full())
    assert one.value("results_total", "push", result="error") is None
