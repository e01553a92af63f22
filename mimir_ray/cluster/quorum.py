"""Ask several, and know when enough have answered.

`ReadTracker` decides and knows no threads and no loop; `read_until_quorum` (asyncio) and `read_in_threads`
carry it out. Writes count their quorum per series: roles/distributor/replication.py.

Upstream: dskit ring/replication_set.go, ring/replication_set_tracker.go.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from mimir_ray.cluster.ring.model import InstanceDesc, InstanceId
from mimir_ray.cluster.ring.replication import ReadSet
from mimir_ray.errors import ClientError, Unavailable

Answer = TypeVar("Answer")


@dataclass(slots=True)
class ReadTracker(Generic[Answer]):
    """Who is asked, who answered, and whether that is enough.

    `start` names whom to ask first, `failed` and `hedge` whom to ask in addition. With `minimize`, only as
    many as must answer are asked at first. In a zone-aware set the unit is the zone (or machine): it counts when all
    its instances have answered, and it is lost with the first that failed.
    """

    read_set: ReadSet
    minimize: bool = False
    order: Sequence[int] | None = None
    """The order in which units are asked, a permutation; None is as they come. Shuffle it to spread load."""
    answers: dict[InstanceId, Answer] = field(default_factory=dict)
    error: Exception | None = None
    """Why it failed, once it has: the error that exceeded what is tolerated."""
    _units: list[list[InstanceDesc]] = field(default_factory=list)
    _unit_of: dict[InstanceId, int] = field(default_factory=dict)
    _missing: list[int] = field(default_factory=list)
    _lost: set[int] = field(default_factory=set)
    _waiting: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        by_unit: dict[Hashable, list[InstanceDesc]] = {}
        asked = self.read_set
        for at, one in enumerate(asked.instances):
            zone = asked.machines[at] if asked.machines else one.zone
            by_unit.setdefault(zone if asked.zone_aware else one.id, []).append(one)
        self._units = list(by_unit.values())
        self._unit_of = {one.id: at for at, unit in enumerate(self._units) for one in unit}
        self._missing = [len(unit) for unit in self._units]
        self.shuffle(self.order if self.order is not None else range(len(self._units)))

    def shuffle(self, order: Sequence[int], avoid: Callable[[InstanceDesc], bool] = lambda _: False) -> None:
        """Sets the order; before `start`. Units with somebody to `avoid` come last."""
        if sorted(order) != list(range(len(self._units))):
            raise ValueError(f"order must be a permutation of {len(self._units)}")
        self._waiting = sorted(order, key=lambda at: any(avoid(one) for one in self._units[at]))

    @property
    def units(self) -> int:
        """Zones, or instances: the length of `order`."""
        return len(self._units)

    @property
    def _tolerated(self) -> int:
        return self.read_set.zone_failures_max if self.read_set.zone_aware else self.read_set.failures_max

    @property
    def required(self) -> int:
        """How many units must answer."""
        return max(0, len(self._units) - self._tolerated)

    @property
    def succeeded(self) -> bool:
        return self.error is None and sum(missing == 0 for missing in self._missing) >= self.required

    @property
    def decided(self) -> bool:
        return self.error is not None or self.succeeded

    def start(self) -> list[InstanceDesc]:
        """Whom to ask now."""
        return self._release(self.required if self.minimize else len(self._units))

    def answered(self, instance: InstanceDesc, answer: Answer) -> None:
        unit = self._unit_of[instance.id]
        if unit not in self._lost:
            self.answers[instance.id] = answer
            self._missing[unit] -= 1

    def failed(self, instance: InstanceDesc, error: Exception) -> list[InstanceDesc]:
        """Whom to ask in addition."""
        unit = self._unit_of[instance.id]
        if unit in self._lost:
            return []
        self._lost.add(unit)
        # An error that is the caller's fault will be the same everywhere.
        if len(self._lost) > self._tolerated or isinstance(error, ClientError):
            self.error = self.error or error
            return []
        return self._release(1)

    def hedge(self) -> list[InstanceDesc]:
        """It takes too long: whom to ask in addition; nobody if all are asked."""
        return self._release(1)

    def result(self) -> dict[InstanceId, Answer]:
        """Answers of all units that are complete. A replica that is only partly there could repeat, never add."""
        complete = {at for at, missing in enumerate(self._missing) if missing == 0 and at not in self._lost}
        return {name: answer for name, answer in self.answers.items() if self._unit_of[name] in complete}

    def _release(self, count: int) -> list[InstanceDesc]:
        released, self._waiting = self._waiting[:count], self._waiting[count:]
        return [one for at in released for one in self._units[at]]


@dataclass(eq=False)
class ReadTimeout(Unavailable):
    waited_s: float
    missing: tuple[str, ...]

    def describe(self) -> str:
        return f"no answer from {', '.join(self.missing)} within {self.waited_s:g} s"


async def read_until_quorum(
    tracker: ReadTracker[Answer],
    call: Callable[[InstanceDesc], Awaitable[Answer]],
    hedge_after_s: float | None = None,
) -> dict[InstanceId, Answer]:
    """Asks until enough have answered; cancels the rest. Raises the error that exceeded what is tolerated.

    Args:
        tracker: fresh, for this read.
        call: asks one instance; called once each.
        hedge_after_s: after so long without a decision another unit is asked, and again; None: never.
    """
    running: dict[asyncio.Future[Answer], InstanceDesc] = {}

    def ask(instances: Sequence[InstanceDesc]) -> None:
        for one in instances:
            running[asyncio.ensure_future(call(one))] = one

    try:
        ask(tracker.start())
        while not tracker.decided:
            done, _ = await asyncio.wait(running, timeout=hedge_after_s, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                ask(tracker.hedge())
            for task in done:
                instance = running.pop(task)
                error = task.exception()
                if error is None:
                    tracker.answered(instance, task.result())
                elif isinstance(error, Exception):
                    ask(tracker.failed(instance, error))
                else:
                    raise error
    finally:
        for task in running:
            task.cancel()
    if tracker.error is not None:
        raise tracker.error
    return tracker.result()


def read_in_threads(
    tracker: ReadTracker[Answer],
    call: Callable[[InstanceDesc], Answer],
    executor: Executor,
    timeout_s: float,
    hedge_after_s: float | None = None,
) -> dict[InstanceId, Answer]:
    """The same for a plain thread; `call` runs in `executor`, the last one it needs in this thread.

    One unit with one instance, the usual case on a laptop, costs no thread hop. What is still running at the
    end goes on in its thread until its own time-out. Raises `ReadTimeout` too.
    """
    first = tracker.start()
    if len(first) == 1 and tracker.required == 1 and hedge_after_s is None and tracker.units == 1:
        tracker.answered(first[0], call(first[0]))
        return tracker.result()
    running: dict[Future[Answer], InstanceDesc] = {executor.submit(call, one): one for one in first}
    deadline = time.monotonic() + timeout_s
    while not tracker.decided:
        left = deadline - time.monotonic()
        pause = left if hedge_after_s is None else min(left, hedge_after_s)
        done, _ = wait(running, timeout=max(0.0, pause), return_when=FIRST_COMPLETED)
        more: list[InstanceDesc] = []
        if not done:
            if time.monotonic() >= deadline:
                for future in running:
                    future.cancel()
                raise ReadTimeout(timeout_s, tuple(sorted(one.id for one in running.values())))
            more = tracker.hedge()
        for future in done:
            instance = running.pop(future)
            error = future.exception()
            if error is None:
                tracker.answered(instance, future.result())
            elif isinstance(error, Exception):
                more += tracker.failed(instance, error)
            else:
                raise error
        running |= {executor.submit(call, one): one for one in more}
    for future in running:
        future.cancel()
    if tracker.error is not None:
        raise tracker.error
    return tracker.result()


def by_instance(answers: Mapping[InstanceId, Answer]) -> list[Answer]:
    """Answers in the order of the instances' ids: the same for every run."""
    return [answers[name] for name in sorted(answers)]
