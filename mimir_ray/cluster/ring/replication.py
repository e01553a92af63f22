"""How many instances must answer: write quorums, and whom a read has to ask.

Upstream: dskit ring/replication_strategy.go, ring/ring.go GetReplicationSetForOperation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mimir_ray.cluster.ring.lookup import NOBODY, RingView
from mimir_ray.cluster.ring.model import READ, InstanceDesc, Operation, Replication
from mimir_ray.errors import Unavailable


@dataclass(eq=False)
class EmptyRing(Unavailable):
    ring: str

    def describe(self) -> str:
        return "empty ring"


@dataclass(eq=False)
class TooManyUnhealthyInstances(Unavailable):
    ring: str

    def describe(self) -> str:
        return "too many unhealthy instances in the ring"


@dataclass(eq=False)
class RingTooOld(Unavailable):
    """With an automatic replication factor writes must know the one in force."""

    ring: str
    age_s: float

    def describe(self) -> str:
        return f"the {self.ring} ring was last heard of {self.age_s:.0f} s ago"


@dataclass(eq=False)
class TooFewLiveReplicas(Unavailable):
    """A key has fewer live owners than a quorum needs."""

    required: int
    live: int
    zone_aware: bool
    unhealthy: tuple[str, ...] = ()

    def describe(self) -> str:
        where = " across different availability zones" if self.zone_aware else ""
        who = f" - unhealthy instances: {','.join(self.unhealthy)}" if self.unhealthy else ""
        return f"at least {self.required} live replicas required{where}, could only find {self.live}{who}"


def write_quorum(replication_factor: int) -> int:
    """How many replicas must have taken a write: a majority."""
    return replication_factor // 2 + 1


def live_owners(view: RingView, owners: NDArray[np.int16], healthy: NDArray[np.bool_]) -> NDArray[np.int16]:
    """`owners` without those that cannot be written to; checks that a quorum is left for each key.

    Args:
        owners: int16[N, RF] of `view.owners`.
        healthy: bool[I] of `view.healthy(WRITE)`.

    Returns int16[N, RF], `NOBODY` in place of the dead. Raises `EmptyRing`, `TooFewLiveReplicas`.
    """
    if len(view.tokens) == 0:
        raise EmptyRing(view.name)
    lookup = np.append(healthy, False)  # the last one answers for NOBODY (-1)
    alive = lookup[owners]
    required = write_quorum(view.replication_factor)
    counts = alive.sum(axis=1)
    if len(counts) and counts.min() < required:
        worst = int(counts.argmin())
        dead = tuple(view.instances[at].id for at in owners[worst] if at != NOBODY and not healthy[at])
        raise TooFewLiveReplicas(required, int(counts[worst]), view.options.zone_aware, dead)
    return np.where(alive, owners, np.int16(NOBODY))


@dataclass(frozen=True, slots=True)
class ReadSet:
    """Whom to ask for something that any instance may hold, and how many may fail.

    Where `zone_aware`: all instances of all but `zone_failures_max` zones must answer. Else: all but
    `failures_max` instances. `machines`: where they count instead of zones, that of each instance.
    """

    instances: tuple[InstanceDesc, ...]
    failures_max: int = 0
    zone_failures_max: int = 0
    zone_aware: bool = False
    machines: tuple[str, ...] = ()


def read_set(view: RingView, operation: Operation = READ, now_ms: int | None = None, old: bool = False) -> ReadSet:
    """All instances that a read must ask. `old`: the view is, and with an automatic factor all must answer then.

    Instances that are unhealthy use up the tolerated failures; in a zone-aware ring they take their
    whole zone with them. Raises `EmptyRing`, `TooManyUnhealthyInstances`.
    """
    if len(view.tokens) == 0:
        raise EmptyRing(view.name)
    healthy = view.healthy(operation, now_ms)
    usable = [one for one, ok in zip(view.instances, healthy, strict=True) if ok]
    if view.replication is not None:
        return _automatic(view, view.replication, usable, old)
    if view.options.zone_aware:
        failed = {one.zone for one, ok in zip(view.instances, healthy, strict=True) if not ok}
        tolerated = min(len(view.zones), view.replication_factor) // 2 - len(failed)
        if tolerated < 0:
            raise TooManyUnhealthyInstances(view.name)
        kept = tuple(one for one in usable if one.zone not in failed)
        return ReadSet(kept, zone_failures_max=tolerated, zone_aware=True)
    required = max(len(view.instances), view.replication_factor) - view.replication_factor // 2
    if len(usable) < required:
        raise TooManyUnhealthyInstances(view.name)
    return ReadSet(tuple(usable), failures_max=len(usable) - required)


def _automatic(view: RingView, replication: Replication, usable: list[InstanceDesc], old: bool) -> ReadSet:
    """Of a ring whose replication factor is automatic."""
    zone_aware = view.options.zone_aware
    there = {one.domain(zone_aware) for one in view.instances}
    healthy = {one.id for one in usable}
    failed = {one.domain(zone_aware) for one in view.instances if one.id not in healthy}
    tolerated = 0 if old else replication.failures_max
    # One fewer than a write needs would be no answer at all, while the others have not come yet.
    required = max(len(there), replication.factor) - tolerated
    left = len(there) - len(failed) - required
    if left < 0:
        raise TooManyUnhealthyInstances(view.name)
    kept = tuple(one for one in usable if one.domain(zone_aware) not in failed)
    if tolerated == 0:
        return ReadSet(kept)
    machines = () if zone_aware else tuple(one.machine for one in kept)
    return ReadSet(kept, zone_failures_max=left, zone_aware=True, machines=machines)
