"""A circuit breaker: refuses requests for a while where too many of the last ones failed.

    closed ─ too many failures ─► open ─ cooldown over ─► half-open ─ enough tries, few failures ─► closed
                                   ▲                          │
                                   └───── still failing ──────┘

`advance` is a function from (state, event, now) to (state, verdict); `CircuitBreaker` keeps the state for a process.
Upstream: pkg/ingester/circuitbreaker.go and failsafe-go's circuitbreaker with a failure rate over a period.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum

from mimir_ray.clock import Clock
from mimir_ray.config.setting import setting
from mimir_ray.config.units import Duration, duration
from mimir_ray.errors import Unavailable

BUCKETS = 10
"""Parts of the period that results are counted in: the window moves by a part at a time."""


@dataclass(frozen=True, slots=True)
class CircuitBreakerConfig:
    """Of one kind of requests."""

    enabled: bool = setting(
        False, flag="enabled", category="experimental", help="Whether requests are refused where too many failed."
    )
    failure_threshold_percentage: int = setting(
        10,
        flag="failure-threshold-percentage",
        category="experimental",
        minimum=1,
        maximum=100,
        help="Requests are refused when this part of them has failed.",
    )
    failure_execution_threshold: int = setting(
        100,
        flag="failure-execution-threshold",
        category="experimental",
        minimum=1,
        unit="requests",
        help="... of at least so many within the period. As many are let through to try, once the cooldown is over.",
    )
    thresholding_period: Duration = setting(
        duration("1m"),
        flag="thresholding-period",
        category="experimental",
        minimum=1,
        help="The time over which requests are counted.",
    )
    cooldown_period: Duration = setting(
        duration("10s"),
        flag="cooldown-period",
        category="experimental",
        minimum=1,
        help="For how long requests are refused before some are let through again.",
    )
    initial_delay: Duration = setting(
        duration("0s"),
        flag="initial-delay",
        category="experimental",
        minimum=0,
        help="Nothing is counted for so long after the start.",
    )
    request_timeout: Duration = setting(
        duration("2s"),
        flag="request-timeout",
        category="experimental",
        minimum=0,
        help="A request that takes longer counts as failed; it is not ended.",
    )


@dataclass(eq=False)
class CircuitBreakerOpen(Unavailable):
    """`request_type`: push or read."""

    request_type: str
    remaining: Duration

    def describe(self) -> str:
        return f"circuit breaker open on {self.request_type} request type with remaining delay {self.remaining}"


class State(str, Enum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Event(Enum):
    """What happens to a breaker: somebody wants through, or comes back."""

    ASKED = "asked"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    IGNORED = "ignored"
    """Came back with what is neither: the caller's fault."""


@dataclass(frozen=True, slots=True)
class Breaker:
    """`window`: (part of time, executions, failures), oldest first; of the half-open state: what has come back since.

    `until_ms`: when an open breaker lets requests through again. `trying`: let through since it is half-open, and not
    back yet.
    """

    state: State = State.CLOSED
    window: tuple[tuple[int, int, int], ...] = ()
    until_ms: int = 0
    trying: int = 0


def advance(breaker: Breaker, event: Event, now_ms: int, config: CircuitBreakerConfig) -> tuple[Breaker, bool]:
    """The breaker after the event, and whether who asked may go on (True for other events)."""
    if event is Event.ASKED:
        return _asked(breaker, now_ms, config)
    if breaker.state is State.OPEN:
        return breaker, True  # was let through before it opened
    if event is Event.IGNORED:
        return replace(breaker, trying=max(0, breaker.trying - 1)), True
    window = _counted(breaker, event is Event.FAILED, now_ms, config)
    executions = sum(one[1] for one in window)
    failing = sum(one[2] for one in window) * 100 >= config.failure_threshold_percentage * executions
    if executions < config.failure_execution_threshold:
        return replace(breaker, window=window, trying=max(0, breaker.trying - 1)), True
    if failing:
        return Breaker(State.OPEN, until_ms=now_ms + config.cooldown_period.ms), True
    if breaker.state is State.HALF_OPEN:
        return Breaker(), True
    return replace(breaker, window=window), True


def _asked(breaker: Breaker, now_ms: int, config: CircuitBreakerConfig) -> tuple[Breaker, bool]:
    if breaker.state is State.CLOSED:
        return breaker, True
    if breaker.state is State.OPEN:
        if now_ms < breaker.until_ms:
            return breaker, False
        breaker = Breaker(State.HALF_OPEN)
    if breaker.trying + sum(one[1] for one in breaker.window) >= config.failure_execution_threshold:
        return breaker, False
    return replace(breaker, trying=breaker.trying + 1), True


def _counted(
    breaker: Breaker, failed: bool, now_ms: int, config: CircuitBreakerConfig
) -> tuple[tuple[int, int, int], ...]:
    """The window with one more result, and without what is too old."""
    if breaker.state is State.HALF_OPEN:
        _, executions, failures = breaker.window[0] if breaker.window else (0, 0, 0)
        return ((0, executions + 1, failures + failed),)
    part = now_ms * BUCKETS // config.thresholding_period.ms
    window = tuple(one for one in breaker.window if one[0] > part - BUCKETS)
    if window and window[-1][0] >= part:
        at, executions, failures = window[-1]
        return (*window[:-1], (at, executions + 1, failures + failed))
    return (*window, (part, 1, int(failed)))


class CircuitBreaker:
    """Of one kind of requests in one process. Thread-safe; does nothing where it is not enabled."""

    def __init__(
        self,
        config: CircuitBreakerConfig,
        request_type: str,
        clock: Clock,
        on_result: Callable[[str], None] = lambda _: None,
        on_transition: Callable[[State], None] = lambda _: None,
    ) -> None:
        """`on_result`: told success, error or circuit_breaker_open for each request; `on_transition`: of new states."""
        self._config = config
        self._request_type = request_type
        self._clock = clock
        self._on_result = on_result
        self._on_transition = on_transition
        self._breaker = Breaker()
        self._lock = threading.Lock()
        self._starts_s = clock.monotonic_s() + config.initial_delay.seconds

    @property
    def state(self) -> State:
        return self._breaker.state

    @property
    def active(self) -> bool:
        return self._config.enabled and self._clock.monotonic_s() >= self._starts_s

    def enter(self) -> float | None:
        """Before a request: when it began, for `leave`; None while nothing is counted. Raises `CircuitBreakerOpen`."""
        if not self.active:
            return None
        if not self._happened(Event.ASKED):
            self._on_result("circuit_breaker_open")
            self.refuse()
        return self._clock.monotonic_s()

    def check(self) -> None:
        """Raises `CircuitBreakerOpen` where it is open now; lets nobody through."""
        if self.active and self._breaker.state is State.OPEN and self._now_ms() < self._breaker.until_ms:
            self.refuse()

    def leave(self, began_s: float | None, failed: bool | None) -> None:
        """After a request. `failed`: with what speaks against this process (None: with what does not count)."""
        if began_s is None:
            return
        late = self._clock.monotonic_s() - began_s > self._config.request_timeout.seconds > 0
        if late or failed:
            self._happened(Event.FAILED)
            self._on_result("error")
        else:
            self._happened(Event.IGNORED if failed is None else Event.SUCCEEDED)
            self._on_result("success")

    def refuse(self) -> None:
        """Raises `CircuitBreakerOpen`."""
        left_ms = max(0, self._breaker.until_ms - self._now_ms())
        raise CircuitBreakerOpen(self._request_type, Duration(left_ms))

    def _happened(self, event: Event) -> bool:
        with self._lock:
            before = self._breaker.state
            self._breaker, passed = advance(self._breaker, event, self._now_ms(), self._config)
            after = self._breaker.state
        if after is not before:
            self._on_transition(after)
        return passed

    def _now_ms(self) -> int:
        return int(self._clock.monotonic_s() * 1000)
