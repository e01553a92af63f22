"""The nouns of a hash ring: instances, their states, and one ring with a version.

A ring says which instances of a component exist, where they are, how they are, and which tokens they
hold. It decides nothing: `ring.py` changes it, `lookup.py` reads it. Fields are those of Mimir's ring
(Upstream: dskit ring/ring.proto InstanceDesc), plus `incarnation`, which tells a restarted process
from the one before it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import NewType

import numpy as np
from numpy.typing import NDArray

RingName = NewType("RingName", str)
InstanceId = NewType("InstanceId", str)

INGESTER = RingName("ingester")
STORE_GATEWAY = RingName("store-gateway")
COMPACTOR = RingName("compactor")
RULER = RingName("ruler")
ALERTMANAGER = RingName("alertmanager")
DISTRIBUTOR = RingName("distributor")
QUERY_SCHEDULER = RingName("query-scheduler")
OVERRIDES_EXPORTER = RingName("overrides-exporter")
QUERIER = RingName("querier")
RING_NAMES: tuple[RingName, ...] = (
    INGESTER,
    STORE_GATEWAY,
    COMPACTOR,
    RULER,
    ALERTMANAGER,
    DISTRIBUTOR,
    QUERY_SCHEDULER,
    OVERRIDES_EXPORTER,
    QUERIER,
)

HEARTBEAT_PERIOD_MS = 15_000
HEARTBEAT_TIMEOUT_MS = 60_000


class InstanceState(str, Enum):
    """What an instance says about itself; that it is unhealthy is what others conclude."""

    PENDING = "PENDING"
    JOINING = "JOINING"
    ACTIVE = "ACTIVE"
    LEAVING = "LEAVING"

    def __str__(self) -> str:
        return self.value


def no_tokens() -> NDArray[np.uint32]:
    """The tokens of an instance that owns nothing."""
    return np.zeros(0, np.uint32)


@dataclass(frozen=True, slots=True, eq=False)
class InstanceDesc:
    """One instance in one ring.

    `address`: the name of the actor that runs it. `tokens`: uint32, ascending. `heartbeat_ms` is on
    the ring's clock, whatever the instance's own clock says. `registered_ms` stays as it was first
    set for as long as the instance is in the ring. `incarnation` grows with every start of the process.
    `machine`: whose loss takes its disk along; "" where Ray chooses, which is one machine. `empty`: whether the process
    found nothing on its disk when it started.
    """

    id: InstanceId
    address: str
    zone: str = ""
    state: InstanceState = InstanceState.PENDING
    tokens: NDArray[np.uint32] = field(default_factory=no_tokens)
    heartbeat_ms: int = 0
    registered_ms: int = 0
    read_only: bool = False
    read_only_updated_ms: int = 0
    incarnation: int = 0
    machine: str = ""
    empty: bool = False

    def heartbeat_within(self, timeout_ms: int, now_ms: int) -> bool:
        """Whether it was heard of in the last `timeout_ms`."""
        return now_ms - self.heartbeat_ms <= timeout_ms

    def with_state(self, state: InstanceState) -> InstanceDesc:
        return replace(self, state=state)

    def domain(self, zone_aware: bool) -> str:
        """What fails as one: with an automatic replication factor there is at most one copy in each."""
        return self.zone if zone_aware else self.machine


@dataclass(frozen=True, slots=True)
class Period:
    """A replication factor that was in force, in ms on the ring's clock."""

    factor: int
    since_ms: int
    until_ms: int


@dataclass(frozen=True, slots=True)
class Loss:
    """One copy of what an instance had is gone: its disk was empty or elsewhere when it came back, or it was `removed`
    from the ring before its samples were read from the bucket."""

    instance: InstanceId
    at_ms: int
    removed: bool


@dataclass(frozen=True, slots=True)
class Replication:
    """How many copies of a sample a ring with an automatic replication factor keeps, and kept; factor.py decides.

    `factor`: writes make so many copies since `since_ms`. `past`: what was in force before within the look-back,
    ascending. `announced`: 0, or the factor of writes from `announced_ms` on: readers must act on it already. `lost`:
    within the look-back. `leaving`: who will stop to take writes. `drained`: who has
    nothing any more that is not read from elsewhere. `settled_ms`: until then not everybody may be back from a start.
    `blank_ms`: when a ring without memory began, if nobody has told it more since; else 0.
    """

    factor: int = 1
    since_ms: int = 0
    past: tuple[Period, ...] = ()
    announced: int = 0
    announced_ms: int = 0
    lost: tuple[Loss, ...] = ()
    leaving: frozenset[InstanceId] = frozenset()
    drained: frozenset[InstanceId] = frozenset()
    settled_ms: int = 0
    blank_ms: int = 0

    @property
    def failures_max(self) -> int:
        """How many machines, or zones, a read may leave out and still meet every acknowledged sample.

        A write with factor f is acknowledged by f // 2 + 1 of them. Of what was lost, one copy fewer may be left.
        """
        factors = [self.factor, *(one.factor for one in self.past), *((self.announced,) if self.announced else ())]
        return 0 if self.lost else min(factors) // 2


@dataclass(frozen=True, slots=True, eq=False)
class RingDesc:
    """All instances of one ring at one moment.

    `version` grows with every change that matters to a reader (never by heartbeats alone, but when one
    becomes overdue or comes back). It keeps growing when the ring's process restarts. `as_of_ms`: the
    ring's clock when this was taken: the time to judge heartbeats by. `forgot`: 0, or for a short
    while the version at which the ring's process started without what it knew before: who has an older one is to
    `Rings.recall` it. `replication`: None where the factor is a setting.
    """

    name: RingName
    version: int = 0
    as_of_ms: int = 0
    instances: dict[InstanceId, InstanceDesc] = field(default_factory=dict)
    forgot: int = 0
    replication: Replication | None = None


@dataclass(frozen=True, slots=True)
class Operation:
    """Which states an operation accepts, and which make it ask one instance more.

    Upstream: dskit ring/ring.go NewOp.
    """

    name: str
    healthy_states: frozenset[InstanceState]
    extending_states: frozenset[InstanceState] = frozenset()


def _states(states: Iterable[InstanceState]) -> frozenset[InstanceState]:
    return frozenset(states)


WRITE = Operation("write", _states([InstanceState.ACTIVE]))
"""Samples: no extension, so a leaving or joining owner counts as a failed write."""
READ = Operation(
    "read",
    _states([InstanceState.ACTIVE, InstanceState.PENDING, InstanceState.JOINING, InstanceState.LEAVING]),
)
"""Samples: an instance that replays or leaves may hold what was asked for; it answers or fails itself."""
OWNER_SYNC = Operation("owner-sync", _states([InstanceState.JOINING, InstanceState.ACTIVE, InstanceState.LEAVING]))
"""Store-gateways: who loads a block."""
BLOCKS_READ = Operation(
    "blocks-read",
    _states([InstanceState.ACTIVE]),
    _states([InstanceState.PENDING, InstanceState.JOINING, InstanceState.LEAVING]),
)
"""Store-gateways: who is asked for a block; one more where an owner has not loaded it yet."""
REPORTING = Operation("reporting", _states(InstanceState))
"""Status pages: everyone who is heard of."""
