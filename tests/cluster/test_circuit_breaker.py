"""A breaker as a list of events."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimir_ray.clock import ManualClock
from mimir_ray.cluster.circuit_breaker import (
    Breaker,
    CircuitBreaker,
    CircuitBreakerConfig,
    CircuitBreakerOpen,
    Event,
    State,
    advance,
)
from mimir_ray.config.units import Duration

CONFIG = CircuitBreakerConfig(enabled=True, failure_execution_threshold=10)
MINUTE = 60_000


def run(events: list[tuple[int, Event]], breaker: Breaker | None = None) -> tuple[Breaker, list[bool]]:
    """`events`: (time, what); the verdicts on those who asked."""
    breaker, passed = breaker or Breaker(), []
    for at, event in events:
        breaker, verdict = advance(breaker, event, at, CONFIG)
        if event is Event.ASKED:
            passed.append(verdict)
    return breaker, passed


def opened(at: int = 0) -> Breaker:
    return run([(at, Event.FAILED)] * 10)[0]


def test_it_opens_when_enough_requests_failed_of_enough() -> None:
    nine_and_one = [(0, Event.SUCCEEDED)] * 9 + [(0, Event.FAILED)]
    assert run(nine_and_one)[0].state is State.OPEN
    assert run(nine_and_one[1:])[0].state is State.CLOSED, "too few to tell"
    assert run([(0, Event.SUCCEEDED)] * 10 + [(0, Event.FAILED)])[0].state is State.CLOSED, "less than a tenth"


def test_old_failures_do_not_count() -> None:
    breaker, _ = run([(0, Event.FAILED)] * 9)
    later, _ = run([(MINUTE, Event.FAILED)], breaker)
    assert (later.state, later.window[0][1:]) == (State.CLOSED, (1, 1))
    sooner, _ = run([(MINUTE - 7_000, Event.FAILED)], breaker)
    assert sooner.state is State.OPEN


def test_an_open_one_refuses_until_the_cooldown_is_over_and_then_lets_a_few_try() -> None:
    cooldown = CONFIG.cooldown_period.ms
    _, passed = run([(0, Event.ASKED), (cooldown - 1, Event.ASKED), (cooldown, Event.ASKED)], opened())
    assert passed == [False, False, True]
    breaker, passed = run([(cooldown, Event.ASKED)] * 12, opened())
    assert breaker.state is State.HALF_OPEN
    assert passed == [True] * 10 + [False] * 2


def test_tries_decide_whether_it_closes_or_opens_again() -> None:
    trying, _ = run([(10_000, Event.ASKED)] * 10, opened())
    assert run([(10_001, Event.SUCCEEDED)] * 10, trying)[0] == Breaker()
    again, _ = run([(10_001, Event.SUCCEEDED)] * 9 + [(10_001, Event.FAILED)], trying)
    assert (again.state, again.until_ms) == (State.OPEN, 20_001)


def test_the_callers_faults_make_room_for_others_and_decide_nothing() -> None:
    trying, _ = run([(10_000, Event.ASKED)] * 10, opened())
    freed, passed = run([(10_001, Event.IGNORED), (10_001, Event.ASKED), (10_001, Event.ASKED)], trying)
    assert (freed.state, passed) == (State.HALF_OPEN, [True, False])


def test_results_that_come_while_it_is_open_change_nothing() -> None:
    assert run([(1, Event.SUCCEEDED), (2, Event.FAILED)], opened())[0] == opened()


@given(st.lists(st.tuples(st.integers(0, 5_000), st.sampled_from(list(Event))), max_size=200))
def test_it_is_bounded_and_always_comes_back(steps: list[tuple[int, Event]]) -> None:
    breaker, now = Breaker(), 0
    for pause, event in steps:
        now += pause
        breaker, _ = advance(breaker, event, now, CONFIG)
        assert len(breaker.window) <= 10
        assert breaker.trying <= CONFIG.failure_execution_threshold
        assert breaker.until_ms <= now + CONFIG.cooldown_period.ms
    if breaker.state is State.OPEN:
        assert advance(breaker, Event.ASKED, breaker.until_ms, CONFIG)[1]


def test_the_shell_says_how_long_and_counts() -> None:
    clock, results, states = ManualClock(0), list[str](), list[State]()
    breaker = CircuitBreaker(CONFIG, "push", clock, results.append, states.append)
    for _ in range(10):
        breaker.leave(breaker.enter(), failed=True)
    clock.advance_ms(4_000)
    with pytest.raises(CircuitBreakerOpen) as raised:
        breaker.enter()
    assert str(raised.value) == "circuit breaker open on push request type with remaining delay 6s"
    assert results == ["error"] * 10 + ["circuit_breaker_open"]
    clock.advance_ms(6_000)
    for began in [breaker.enter() for _ in range(10)]:
        breaker.leave(began, failed=False)
    assert states == [State.OPEN, State.HALF_OPEN, State.CLOSED]


def test_slow_requests_count_as_failed() -> None:
    clock = ManualClock(0)
    breaker = CircuitBreaker(CONFIG, "push", clock)
    for _ in range(10):
        began = breaker.enter()
        clock.advance_ms(2_001)
        breaker.leave(began, failed=False)
    assert breaker.state is State.OPEN


def test_nothing_is_counted_during_the_initial_delay_or_where_it_is_off() -> None:
    clock = ManualClock(0)
    for config in (replace(CONFIG, initial_delay=Duration(1000)), CircuitBreakerConfig()):
        breaker = CircuitBreaker(config, "read", clock)
        for _ in range(20):
            breaker.leave(breaker.enter(), failed=True)
        assert breaker.state is State.CLOSED
