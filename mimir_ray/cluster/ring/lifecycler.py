"""`Lifecycler`: keeps one instance in one ring; the shell around `lifecycle.advance`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mimir_ray.clock import Clock
from mimir_ray.cluster.ring.lifecycle import (
    Command,
    Event,
    LeaveRequested,
    Lifecycle,
    Register,
    Registered,
    Replayed,
    SendHeartbeat,
    Started,
    Stopped,
    StopProcess,
    Tick,
    Unregister,
    WasFenced,
    advance,
)
from mimir_ray.cluster.ring.model import HEARTBEAT_PERIOD_MS, InstanceDesc, RingName, no_tokens
from mimir_ray.cluster.ring.ring import Fenced
from mimir_ray.cluster.ring.tokens import TOKENS_PER_INSTANCE, random_tokens
from mimir_ray.cluster.transport.base import Client
from mimir_ray.errors import MimirRayError

CALL_TIMEOUT_S = 5.0


class Lifecycler:
    """Registers, tells state changes, sends heartbeats, leaves. Methods may be called from any thread.

    A ring that does not answer is no reason to stop: the call fails, and the next tick says the same
    again, because each heartbeat carries the whole description.
    """

    def __init__(
        self,
        ring: RingName,
        desc: InstanceDesc,
        client: Client,
        clock: Clock,
        rng: np.random.Generator,
        token_count: int = TOKENS_PER_INSTANCE,
        heartbeat_period_ms: int = HEARTBEAT_PERIOD_MS,
        on_fenced: Callable[[], None] | None = None,
        on_error: Callable[[Exception], None] | None = None,
        tokens: Callable[[int, NDArray[np.uint32]], NDArray[np.uint32]] | None = None,
    ) -> None:
        """`client`: of the ring actor. `desc`: with tokens, or without to get those of before, or new ones.

        `tokens`: (how many, those that others have) → new ones, ascending; random ones where not given.

        `on_error` hears of calls that failed; `on_fenced` that a newer process has taken the id: the caller must stop.
        """
        self._ring = ring
        self._client = client
        self._clock = clock
        self._token_count = token_count
        self._tokens = tokens if tokens is not None else lambda count, taken: random_tokens(count, taken, rng)
        self._on_fenced = on_fenced
        self._on_error = on_error
        self._lock = threading.RLock()
        self._state = Lifecycle(desc, heartbeat_period_ms=heartbeat_period_ms)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def state(self) -> Lifecycle:
        return self._state

    @property
    def desc(self) -> InstanceDesc:
        return self._state.desc

    def start(self, background: bool = True) -> None:
        """Registers; in the `background` a thread ticks from now on (a test calls `tick` itself)."""
        self.handle(Started())
        if background:
            self._thread = threading.Thread(target=self._run, name=f"ring-{self._ring}", daemon=True)
            self._thread.start()

    def replayed(self) -> None:
        """The instance can take writes."""
        self.handle(Replayed())

    def leave(self) -> None:
        """No more writes."""
        self.handle(LeaveRequested())

    def stop(self, unregister: bool = True) -> None:
        """Out of the ring; ends the thread."""
        self._stop.set()
        self.handle(Stopped(unregister))
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(CALL_TIMEOUT_S)

    def tick(self) -> None:
        """Sends what is due."""
        self.handle(Tick())

    def handle(self, event: Event) -> None:
        """Feeds an event in, carries the commands out, and feeds back what came of them."""
        with self._lock:
            events: list[Event] = [event]
            while events:
                self._state, commands = advance(self._state, events.pop(0), self._clock.now_ms())
                outcomes = [self._carry_out(command) for command in commands]
                events += [outcome for outcome in outcomes if outcome is not None]

    def _carry_out(self, command: Command) -> Event | None:
        try:
            match command:
                case Register(desc=desc):
                    entry = self._call("register", self._ring, desc)
                    tokens = entry.tokens
                    if len(tokens) < self._token_count:
                        tokens = self._more_tokens(entry)
                    return Registered(entry, np.asarray(tokens, np.uint32))
                case SendHeartbeat(desc=desc):
                    self._call("heartbeat", self._ring, desc)
                case Unregister(desc=desc):
                    self._call("unregister", self._ring, desc.id, desc.incarnation)
                case StopProcess():
                    if self._on_fenced is not None:
                        self._on_fenced()
        except Fenced:
            return WasFenced()
        except MimirRayError as error:
            self._report(error)
        return None

    def _more_tokens(self, entry: InstanceDesc) -> np.ndarray:
        others = self._call("snapshot", self._ring).instances.values()
        taken = np.concatenate([no_tokens(), *(one.tokens for one in others)])
        fresh = self._tokens(self._token_count - len(entry.tokens), taken)
        return np.union1d(entry.tokens, fresh)

    def _call(self, method: str, *args: object) -> Any:
        return self._client.call(method, *args, timeout_s=CALL_TIMEOUT_S)

    def _run(self) -> None:
        while not self._stop.wait(max(0.05, (self._state.next_heartbeat_ms - self._clock.now_ms()) / 1000)):
            self._tick_safely()

    def _tick_safely(self) -> None:
        try:
            self.tick()
        except Exception as error:  # noqa: BLE001  (whatever it is, heartbeats must go on)
            self._report(error)

    def _report(self, error: Exception) -> None:
        if self._on_error is not None:
            self._on_error(error)
