"""The transport in one process: direct calls that behave as on Ray where it matters.

Arguments, results and errors are pickled and arrays arrive read-only, so what works here does not break on
shared or unpicklable state there. Faults come from a seeded source; waiting goes through the clock, so with
a `ManualClock` nothing really waits.
"""

from __future__ import annotations

import asyncio
import pickle
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from mimir_ray.clock import Clock, SystemClock
from mimir_ray.cluster.transport.base import (
    DEFAULT_TIMEOUT_S,
    Address,
    PeerTimeout,
    PeerUnavailable,
    Retry,
    name_of,
)


def through_the_wire(value: Any) -> Any:
    """A copy of `value` as the other side would get it: pickled, with read-only arrays."""
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(value, 5, buffer_callback=buffers.append)
    return pickle.loads(data, buffers=[bytes(buffer.raw()) for buffer in buffers])  # noqa: S301  (our own bytes)


@dataclass(frozen=True, slots=True)
class FaultRates:
    """How often calls go wrong; rates add up to at most 1.

    `lost_call`: it never arrives. `lost_answer`: it runs, nobody hears of it. `die`: the instance dies
    before it answers; it starts again at the next call if it was served with `restarts`. `delay_s_max`:
    each call takes up to so long.
    """

    lost_call: float = 0.0
    lost_answer: float = 0.0
    die: float = 0.0
    delay_s_max: float = 0.0


NO_FAULTS = FaultRates()


@dataclass(slots=True)
class _Served:
    build: Callable[[], Any]
    restarts: bool
    instance: Any = None
    dead: bool = False
    starts: int = 0


class InProcessTransport:
    """Instances by name, and clients for them. Thread-safe; instances are called by many threads, as on Ray."""

    def __init__(
        self,
        clock: Clock | None = None,
        rng: np.random.Generator | None = None,
        faults: FaultRates = NO_FAULTS,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        retry: Retry | None = None,
        threads: bool = False,
    ) -> None:
        """`threads`: `acall` runs the call in a thread (needed where calls wait for each other), else on the loop."""
        self.clock: Clock = clock if clock is not None else SystemClock()
        self.faults = faults
        self.timeout_s = timeout_s
        self.retry = retry if retry is not None else Retry()
        self.threads = threads
        self._rng = rng if rng is not None else np.random.default_rng(0)
        self._lock = threading.Lock()
        self._served: dict[str, _Served] = {}

    def serve(self, address: Address | str, build: Callable[[], Any], restarts: bool = True) -> None:
        """Starts an instance; `build` makes it now, and again after each death if it `restarts`."""
        served = _Served(build, restarts)
        self._start(served)
        with self._lock:
            self._served[name_of(address)] = served

    def kill(self, address: Address | str, restarts: bool | None = None) -> None:
        """The instance's memory is gone. `restarts` overrides what `serve` was told."""
        with self._lock:
            served = self._served[name_of(address)]
            served.dead, served.instance = True, None
            if restarts is not None:
                served.restarts = restarts

    def remove(self, address: Address | str) -> None:
        """As if it had never been there."""
        with self._lock:
            del self._served[name_of(address)]

    def starts(self, address: Address | str) -> int:
        """How often an instance was built."""
        return self._served[name_of(address)].starts

    def instance(self, address: Address | str) -> Any:
        """The instance itself, to look into in tests."""
        return self._served[name_of(address)].instance

    def client(self, address: Address | str) -> InProcessClient:
        return InProcessClient(self, name_of(address))

    def alive(self, name: str) -> Any:
        """The living instance, restarted if need be; None if there is none."""
        with self._lock:
            served = self._served.get(name)
            if served is None or (served.dead and not served.restarts):
                return None
            if served.dead:
                self._start(served)
            return served.instance

    def _start(self, served: _Served) -> None:
        served.instance, served.dead = served.build(), False
        served.starts += 1

    def draw_fault(self) -> tuple[str, float]:
        """What goes wrong with the next call (`""`: nothing), and how long it takes, in seconds."""
        if self.faults == NO_FAULTS:
            return "", 0.0
        with self._lock:
            point, delay_s = self._rng.random(), self._rng.random() * self.faults.delay_s_max
        for kind in ("lost_call", "lost_answer", "die"):
            rate = getattr(self.faults, kind)
            if point < rate:
                return kind, delay_s
            point -= rate
        return "", delay_s


class InProcessClient:
    """Calls one instance; see `Client`."""

    def __init__(self, transport: InProcessTransport, name: str) -> None:
        self._transport = transport
        self._name = name

    @property
    def peer(self) -> str:
        return self._name

    def call(self, method: str, *args: Any, timeout_s: float | None = None) -> Any:
        deadline = self._deadline(timeout_s)
        for attempt in range(self._transport.retry.attempts_max):
            try:
                return self._once(method, args, deadline)
            except _Unreached as error:
                pause = self._pause_s(method, attempt, deadline, error)
            self._transport.clock.sleep(pause)
        raise AssertionError("unreachable: the last attempt raises")

    def begin(self, method: str, *args: Any, timeout_s: float | None = None) -> InProcessPending:
        return InProcessPending(self, method, args, timeout_s)

    async def acall(self, method: str, *args: Any, timeout_s: float | None = None) -> Any:
        deadline = self._deadline(timeout_s)
        for attempt in range(self._transport.retry.attempts_max):
            try:
                if self._transport.threads:
                    return await asyncio.to_thread(self._once, method, args, deadline)
                await asyncio.sleep(0)  # others get their turn, as with a real call
                return self._once(method, args, deadline)
            except _Unreached as error:
                pause = self._pause_s(method, attempt, deadline, error)
            await asyncio.to_thread(self._transport.clock.sleep, pause)
        raise AssertionError("unreachable: the last attempt raises")

    def _deadline(self, timeout_s: float | None) -> float:
        return self._transport.clock.monotonic_s() + (self._transport.timeout_s if timeout_s is None else timeout_s)

    def _pause_s(self, method: str, attempt: int, deadline: float, error: _Unreached) -> float:
        """How long to wait before the next attempt; raises if there is none."""
        transport = self._transport
        pause = transport.retry.pause_s(attempt)
        if attempt + 1 >= transport.retry.attempts_max or transport.clock.monotonic_s() + pause >= deadline:
            raise PeerUnavailable(self._name, method, str(error)) from None
        return pause

    def _once(self, method: str, args: tuple[Any, ...], deadline: float) -> Any:
        transport = self._transport
        fault, delay_s = transport.draw_fault()
        if delay_s:
            left = deadline - transport.clock.monotonic_s()
            transport.clock.sleep(max(0.0, min(delay_s, left)))
            if delay_s >= left:
                raise PeerTimeout(self._name, method, "time-out")
        if fault == "lost_call":
            raise _Unreached("the call was lost")
        instance = transport.alive(self._name)
        if instance is None:
            raise _Unreached("there is no such instance")
        sent = through_the_wire(args)
        if fault == "die":
            transport.kill(self._name)
            raise _Unreached("the instance died")
        try:
            result = getattr(instance, method)(*sent)
            result = through_the_wire(list(result) if isinstance(result, Iterator) else result)
        except Exception as error:  # noqa: BLE001  (raised again, as the caller would see it)
            result = through_the_wire(error)
            if fault != "lost_answer":
                raise result from None
        if fault == "lost_answer":
            raise _Unreached("the answer was lost")
        return result


class _Unreached(Exception):
    """One attempt that failed."""


@dataclass(frozen=True, slots=True)
class InProcessPending:
    """Runs when its answer is asked for: here nothing is gained by running before."""

    client: InProcessClient
    method: str
    args: tuple[Any, ...]
    timeout_s: float | None

    def ready(self, _within_s: float) -> bool:
        return True

    def result(self) -> Any:
        return self.client.call(self.method, *self.args, timeout_s=self.timeout_s)
