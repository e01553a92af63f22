"""Services and their states: New → Starting → Running → Stopping → Terminated, or Failed.

What `/services` lists and `/ready` waits for. Names and states are Mimir's (Upstream: dskit
services/service.go, services/manager.go, modules/modules.go).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from graphlib import CycleError, TopologicalSorter
from typing import Protocol

from mimir_ray.errors import Unavailable


class ServiceState(str, Enum):
    NEW = "New"
    STARTING = "Starting"
    RUNNING = "Running"
    STOPPING = "Stopping"
    TERMINATED = "Terminated"
    FAILED = "Failed"

    def __str__(self) -> str:
        return self.value


_NEXT: dict[ServiceState, frozenset[ServiceState]] = {
    ServiceState.NEW: frozenset({ServiceState.STARTING, ServiceState.TERMINATED}),
    ServiceState.STARTING: frozenset({ServiceState.RUNNING, ServiceState.STOPPING, ServiceState.FAILED}),
    ServiceState.RUNNING: frozenset({ServiceState.STOPPING, ServiceState.FAILED}),
    ServiceState.STOPPING: frozenset({ServiceState.TERMINATED, ServiceState.FAILED}),
    ServiceState.TERMINATED: frozenset(),
    ServiceState.FAILED: frozenset(),
}


def may_follow(before: ServiceState, after: ServiceState) -> bool:
    """Whether a service may go from one state to the other."""
    return after in _NEXT[before]


class Service(Protocol):
    """Something that runs from `start` to `stop`."""

    def start(self) -> None:
        """Returns when it is running; raises if it cannot."""

    def stop(self) -> None:
        """Returns when it has stopped. Called once, after `start` returned or raised."""


@dataclass(frozen=True, slots=True)
class Callables:
    """A `Service` made of two functions."""

    on_start: Callable[[], None]
    on_stop: Callable[[], None] = lambda: None

    def start(self) -> None:
        self.on_start()

    def stop(self) -> None:
        self.on_stop()


@dataclass(eq=False)
class ServiceFailed(Unavailable):
    service: str
    reason: str

    def describe(self) -> str:
        return f"service {self.service} failed: {self.reason}"


@dataclass(slots=True)
class _Entry:
    service: Service
    needs: tuple[str, ...]
    state: ServiceState = ServiceState.NEW
    failure: str = ""
    not_ready: str = field(default="")


class ServiceManager:
    """Starts named services after those they need, stops them in the reverse order, and says how they are."""

    def __init__(self, on_state: Callable[[str, ServiceState], None] | None = None) -> None:
        """`on_state` hears of every change, in the thread that made it."""
        self._entries: dict[str, _Entry] = {}
        self._lock = threading.RLock()
        self._on_state = on_state

    def add(self, name: str, service: Service, needs: Iterable[str] = ()) -> None:
        """Before `start`. ValueError for a name that is taken."""
        if name in self._entries:
            raise ValueError(f"service {name!r} is there already")
        self._entries[name] = _Entry(service, tuple(needs))

    def order(self) -> list[str]:
        """Names, each after all it needs; as added where that is free. ValueError for cycles and unknown names."""
        for name, entry in self._entries.items():
            if unknown := [needed for needed in entry.needs if needed not in self._entries]:
                raise ValueError(f"service {name!r} needs unknown {unknown}")
        try:
            return list(TopologicalSorter({name: entry.needs for name, entry in self._entries.items()}).static_order())
        except CycleError as error:
            raise ValueError(f"services need each other: {' → '.join(error.args[1])}") from error

    def start(self) -> None:
        """Starts all. If one fails, stops those that run, in reverse order, and raises `ServiceFailed`."""
        for name in self.order():
            entry = self._entries[name]
            self._become(name, ServiceState.STARTING)
            try:
                entry.service.start()
            except Exception as error:
                self.fail(name, str(error) or type(error).__name__)
                self.stop()
                raise ServiceFailed(name, entry.failure) from error
            self._become(name, ServiceState.RUNNING)

    def stop(self) -> list[ServiceFailed]:
        """Stops all in reverse order, also after one failed to stop. Returns the failures; never raises them."""
        failures = []
        for name in reversed(self.order()):
            entry = self._entries[name]
            if entry.state is ServiceState.NEW:
                self._become(name, ServiceState.TERMINATED)
            if entry.state not in (ServiceState.RUNNING, ServiceState.STARTING):
                continue
            self._become(name, ServiceState.STOPPING)
            try:
                entry.service.stop()
            except Exception as error:  # noqa: BLE001  (the others must be stopped all the same)
                self.fail(name, str(error) or type(error).__name__)
                failures.append(ServiceFailed(name, entry.failure))
            else:
                self._become(name, ServiceState.TERMINATED)
        return failures

    def fail(self, name: str, reason: str) -> None:
        """A service says that it broke. Does nothing once it has ended."""
        with self._lock:
            entry = self._entries[name]
            if may_follow(entry.state, ServiceState.FAILED):
                entry.failure = reason
                self._become(name, ServiceState.FAILED)

    def hold_ready(self, name: str, reason: str = "") -> None:
        """A running service that is not ready for traffic yet says why (replaying, waiting); "" when it is."""
        self._entries[name].not_ready = reason

    def states(self) -> dict[str, ServiceState]:
        """State of every service, in the order they were added."""
        return {name: entry.state for name, entry in self._entries.items()}

    def not_ready(self) -> Sequence[str]:
        """Why this process is not ready, one sentence a service; empty when it is."""
        reasons = []
        for name, entry in self._entries.items():
            if entry.state is ServiceState.FAILED:
                reasons.append(f"{name}: {entry.state}: {entry.failure}")
            elif entry.state is not ServiceState.RUNNING:
                reasons.append(f"{name}: {entry.state}")
            elif entry.not_ready:
                reasons.append(f"{name}: {entry.not_ready}")
        return reasons

    def _become(self, name: str, state: ServiceState) -> None:
        with self._lock:
            entry = self._entries[name]
            if not may_follow(entry.state, state):
                if entry.state is ServiceState.FAILED:
                    return  # it broke by itself meanwhile; that stands
                raise AssertionError(f"service {name}: {entry.state} → {state}")
            entry.state = state
        if self._on_state is not None:
            self._on_state(name, state)
