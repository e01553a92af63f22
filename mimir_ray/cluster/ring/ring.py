"""`Rings`: holds all rings of a cluster. A plain class; `actor.py` runs it.

Who may change what: an instance is the authority on itself (address, state, tokens) and says so with
`register`, `set_state` and every heartbeat; a heartbeat of an unknown instance registers it, so a ring
that lost its memory fills again within a heartbeat period. A start of a process has a higher
`incarnation` than the one before; a call with a lower one than the ring knows is refused (`Fenced`), so
a process that was thought dead cannot undo what its successor did.

Versions. Each ring's version grows with every change that a reader must see, also when a heartbeat
becomes overdue or comes back. Heartbeats alone do not wake watchers. Versions start at the wall
clock's ms × 2^20 and after a restart beyond all saved ones, so they never repeat; watchers
compare for inequality.

A ring whose replication factor is automatic (`RingPolicy.automatic`) carries it, with what readers must know of its
past: factor.py.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from mimir_ray.clock import Clock
from mimir_ray.cluster.ring import factor
from mimir_ray.cluster.ring.factor import AutomaticFactor
from mimir_ray.cluster.ring.model import (
    ALERTMANAGER,
    COMPACTOR,
    DISTRIBUTOR,
    HEARTBEAT_TIMEOUT_MS,
    INGESTER,
    OVERRIDES_EXPORTER,
    QUERIER,
    QUERY_SCHEDULER,
    RING_NAMES,
    RULER,
    STORE_GATEWAY,
    InstanceDesc,
    InstanceId,
    InstanceState,
    Replication,
    RingDesc,
    RingName,
)
from mimir_ray.cluster.ring.persistence import decode, encode
from mimir_ray.errors import ClientError, NotFound

VERSIONS_PER_MS = 1 << 20


@dataclass(eq=False)
class UnknownRing(NotFound):
    ring: str

    def describe(self) -> str:
        return f"there is no ring {self.ring!r}"


@dataclass(eq=False)
class UnknownInstance(NotFound):
    ring: str
    instance: str

    def describe(self) -> str:
        return f"instance {self.instance!r} is not in the {self.ring} ring"


@dataclass(eq=False)
class Fenced(ClientError):
    """A newer incarnation of the instance is in the ring; this one must stop."""

    instance: str
    incarnation: int
    newest: int

    def describe(self) -> str:
        return (
            f"instance {self.instance!r} was started again (incarnation {self.newest}); "
            f"incarnation {self.incarnation} must stop"
        )


class RingStore(Protocol):
    """Where the rings outlive their process: a file or an object in the bucket."""

    def load(self) -> bytes | None:
        """What was saved last, or None."""

    def save(self, state: bytes) -> None:
        """Replaces what was saved, atomically. Raises OSError; it will be asked again."""


class MemoryStore:
    """Keeps the state in memory: for tests, and for clusters that may forget."""

    def __init__(self) -> None:
        self._state: bytes | None = None

    def load(self) -> bytes | None:
        return self._state

    def save(self, state: bytes) -> None:
        self._state = state


def _forget_defaults() -> dict[RingName, int]:
    # Upstream: the *.ring.auto-forget-unhealthy-periods defaults; an ingester is only forgotten by hand.
    return {
        INGESTER: 0,
        STORE_GATEWAY: 10,
        COMPACTOR: 10,
        RULER: 2,
        ALERTMANAGER: 10,
        DISTRIBUTOR: 10,
        QUERY_SCHEDULER: 10,
        OVERRIDES_EXPORTER: 10,
        QUERIER: 10,
    }


@dataclass(frozen=True, slots=True)
class RingPolicy:
    """`heartbeat_timeout_ms`: after which an instance is unhealthy. `forget_after_periods`: of that
    time-out, after which it is removed; 0 is never. `automatic`: rings that decide their replication factor."""

    heartbeat_timeout_ms: int = HEARTBEAT_TIMEOUT_MS
    forget_after_periods: Mapping[RingName, int] = field(default_factory=_forget_defaults)
    automatic: Mapping[RingName, AutomaticFactor] = field(default_factory=dict)


class Rings:
    """All rings. Every method may be called from any thread."""

    def __init__(
        self,
        clock: Clock,
        store: RingStore | None = None,
        policy: RingPolicy | None = None,
        names: tuple[RingName, ...] = RING_NAMES,
    ) -> None:
        self._clock = clock
        self._store = store if store is not None else MemoryStore()
        self._policy = policy if policy is not None else RingPolicy()
        self._settle_ms = 2 * self._policy.heartbeat_timeout_ms
        self._changed = threading.Condition()
        self._closed = False
        self._store_error: OSError | None = None
        self._instances: dict[RingName, dict[InstanceId, InstanceDesc]] = {name: {} for name in names}
        self._overdue: dict[RingName, set[InstanceId]] = {name: set() for name in names}
        first = clock.now_ms() * VERSIONS_PER_MS
        self._first = first
        self._forgetful_until_ms = 0
        self._removed: set[tuple[RingName, InstanceId]] = set()
        self._versions: dict[RingName, int] = dict.fromkeys(names, first)
        self._replications: dict[RingName, Replication] = {}
        self._restore(first)

    # What instances say.

    def register(self, ring: RingName, desc: InstanceDesc) -> InstanceDesc:
        """Adds the instance, or replaces it by its newer self; returns it as it now stands.

        Tokens, registration time and read-only flag of an instance that is already there are kept
        when `desc` has no tokens of its own. Raises `Fenced`, `UnknownRing`.
        """
        with self._changed:
            before = self._known(ring, desc)
            now = self._clock.now_ms()
            if ring in self._replications:
                state, policy = self._replications[ring], self._policy.automatic[ring]
                self._replications[ring] = factor.arrived(state, before, desc, policy, now)
            if before is None:
                entry = replace(desc, heartbeat_ms=now, registered_ms=desc.registered_ms or now)
            else:
                entry = replace(
                    desc,
                    tokens=desc.tokens if len(desc.tokens) else before.tokens,
                    heartbeat_ms=now,
                    registered_ms=before.registered_ms,
                    read_only=before.read_only,
                    read_only_updated_ms=before.read_only_updated_ms,
                )
            self._put(ring, entry)
            return entry

    def heartbeat(self, ring: RingName, desc: InstanceDesc) -> None:
        """Notes that the instance lives, and is as `desc` says.

        Wakes watchers only where address, zone, state, tokens or incarnation changed, or where it was
        overdue or unknown. Raises `Fenced`, `UnknownRing`.
        """
        with self._changed:
            before = self._known(ring, desc)
            if before is None or not _same(before, desc) or desc.id in self._overdue[ring]:
                self.register(ring, desc)
                return
            self._instances[ring][desc.id] = replace(before, heartbeat_ms=self._clock.now_ms())

    def set_state(self, ring: RingName, instance: InstanceId, state: InstanceState, incarnation: int) -> None:
        """Raises `UnknownInstance`, `Fenced`, `UnknownRing`."""
        with self._changed:
            before = self._entry(ring, instance)
            if incarnation < before.incarnation:
                raise Fenced(instance, incarnation, before.incarnation)
            self._put(ring, replace(before, state=state, incarnation=incarnation, heartbeat_ms=self._clock.now_ms()))

    def unregister(self, ring: RingName, instance: InstanceId, incarnation: int) -> None:
        """The instance takes itself out. Does nothing if it is not there; raises `Fenced`, `UnknownRing`."""
        with self._changed:
            before = self._ring(ring).get(instance)
            if before is None:
                return
            if incarnation < before.incarnation:
                raise Fenced(instance, incarnation, before.incarnation)
            self._remove(ring, instance)

    # What operators say.

    def set_read_only(self, ring: RingName, instance: InstanceId, read_only: bool) -> None:
        """Notes the time too, if that changes anything. Raises `UnknownInstance`, `UnknownRing`."""
        with self._changed:
            before = self._entry(ring, instance)
            state = self._replications.get(ring)
            stays = state is not None and not read_only and instance in state.leaving | state.drained
            if state is not None and stays:
                leaving, drained = state.leaving - {instance}, state.drained - {instance}
                self._replications[ring] = replace(state, leaving=leaving, drained=drained)
            if before.read_only != read_only:
                now = self._clock.now_ms()
                self._put(ring, replace(before, read_only=read_only, read_only_updated_ms=now))
            elif stays:
                self._bump(ring)

    def plan_removal(self, ring: RingName, instance: InstanceId) -> None:
        """It will leave, and does not count any more for an automatic replication factor; `set_read_only` undoes it.

        Raises `UnknownInstance`, `UnknownRing`.
        """
        with self._changed:
            self._entry(ring, instance)
            state = self._replications.get(ring)
            if state is not None and instance not in state.leaving:
                self._replications[ring] = replace(state, leaving=state.leaving | {instance})
                self._bump(ring)

    def set_drained(self, ring: RingName, instance: InstanceId) -> None:
        """All of its samples are read from elsewhere: none is lost with it. Raises `UnknownInstance`, `UnknownRing`."""
        with self._changed:
            self._entry(ring, instance)
            state = self._replications.get(ring)
            if state is not None and instance not in state.drained:
                self._replications[ring] = replace(state, drained=state.drained | {instance})
                self._bump(ring)

    def forget(self, ring: RingName, instance: InstanceId) -> None:
        """Removes an instance, whatever it says; one that lives comes back with its next heartbeat.

        Raises `UnknownInstance`, `UnknownRing`.
        """
        with self._changed:
            self._entry(ring, instance)
            self._remove(ring, instance)

    def recall(self, ring: RingName, instances: Sequence[InstanceDesc], replication: Replication | None = None) -> None:
        """What a watcher remembers of before the ring lost its memory; adds who has not spoken up by itself.

        Each gets a whole time-out for its next heartbeat. Who was removed since the start stays away, and nothing is
        done any more once everybody had a time-out to speak up. Raises `UnknownRing`.
        """
        with self._changed:
            there = self._ring(ring)
            now = self._clock.now_ms()
            if now >= self._forgetful_until_ms:
                return
            state = self._replications.get(ring)
            if state is not None and replication is not None:
                self._replications[ring] = factor.recalled(state, replication, now, self._settle_ms)
                if self._replications[ring] != state:
                    self._bump(ring)
            for one in instances:
                before = there.get(one.id)
                if before is None:
                    if (ring, one.id) not in self._removed:
                        self._put(ring, replace(one, heartbeat_ms=now))
                elif before.registered_ms > one.registered_ms:
                    # It came by itself, as somebody new: what only the ring knew about it is not lost.
                    known = replace(before, registered_ms=one.registered_ms)
                    if one.read_only_updated_ms > before.read_only_updated_ms:
                        known = replace(known, read_only=one.read_only, read_only_updated_ms=one.read_only_updated_ms)
                    self._put(ring, known)

    def sweep(self) -> None:
        """To be called every few seconds: finds overdue heartbeats, forgets who is overdue for too long."""
        with self._changed:
            now = self._clock.now_ms()
            timeout = self._policy.heartbeat_timeout_ms
            for ring, instances in self._instances.items():
                periods = self._policy.forget_after_periods.get(ring, 0)
                gone = [
                    one.id for one in instances.values() if periods and not one.heartbeat_within(timeout * periods, now)
                ]
                for instance in gone:
                    self._remove(ring, instance)
                overdue = {one.id for one in instances.values() if not one.heartbeat_within(timeout, now)}
                state = self._replications.get(ring)
                if overdue != self._overdue[ring] or (state is not None and self._followed(ring, state) != state):
                    self._overdue[ring] = overdue
                    self._bump(ring)
            if self._store_error is not None:
                self._save()

    # What readers ask.

    def snapshot(self, ring: RingName, known_version: int = -1, timeout_s: float = 0.0) -> RingDesc:
        """The ring: at once if its version is not the known one, else when it changes or at the time-out.

        After the time-out too it is whole, with fresh heartbeats. Raises `UnknownRing`.
        """
        return self.watch({ring: known_version}, timeout_s)[ring]

    def watch(self, known: Mapping[RingName, int], timeout_s: float = 0.0) -> dict[RingName, RingDesc]:
        """Of the named rings those with another version than the known one, as soon as there are any.

        After `timeout_s` of no change: all of them, with fresh heartbeats. Raises `UnknownRing`.
        """
        with self._changed:
            for ring in known:
                self._ring(ring)
            deadline = self._clock.monotonic_s() + timeout_s
            while not self._closed:
                changed = [ring for ring, version in known.items() if self._versions[ring] != version]
                if changed:
                    return {ring: self._desc(ring) for ring in changed}
                left = deadline - self._clock.monotonic_s()
                if left <= 0:
                    break
                if not self._changed.wait(left):
                    break
            return {ring: self._desc(ring) for ring in known}

    @property
    def store_error(self) -> OSError | None:
        """Why the newest state is not in the store, if it is not."""
        return self._store_error

    def versions(self) -> dict[RingName, int]:
        with self._changed:
            return dict(self._versions)

    def close(self) -> None:
        """Answers all who wait."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    # Below, the lock is held.

    def _ring(self, ring: RingName) -> dict[InstanceId, InstanceDesc]:
        found = self._instances.get(ring)
        if found is None:
            raise UnknownRing(ring)
        return found

    def _entry(self, ring: RingName, instance: InstanceId) -> InstanceDesc:
        found = self._ring(ring).get(instance)
        if found is None:
            raise UnknownInstance(ring, instance)
        return found

    def _known(self, ring: RingName, desc: InstanceDesc) -> InstanceDesc | None:
        before = self._ring(ring).get(desc.id)
        if before is not None and desc.incarnation < before.incarnation:
            raise Fenced(desc.id, desc.incarnation, before.incarnation)
        return before

    def _desc(self, ring: RingName) -> RingDesc:
        now = self._clock.now_ms()
        forgot = self._first if now < self._forgetful_until_ms else 0
        replication = self._replications.get(ring)
        return RingDesc(ring, self._versions[ring], now, dict(self._instances[ring]), forgot, replication)

    def _put(self, ring: RingName, entry: InstanceDesc) -> None:
        self._instances[ring][entry.id] = entry
        self._overdue[ring].discard(entry.id)
        self._bump(ring)

    def _remove(self, ring: RingName, instance: InstanceId) -> None:
        one = self._instances[ring].pop(instance)
        if ring in self._replications:
            state, policy = self._replications[ring], self._policy.automatic[ring]
            self._replications[ring] = factor.removed(state, one, policy, self._clock.now_ms())
        if self._clock.now_ms() < self._forgetful_until_ms:
            self._removed.add((ring, instance))
        self._overdue[ring].discard(instance)
        self._bump(ring)

    def _followed(self, ring: RingName, state: Replication) -> Replication:
        instances, policy = self._instances[ring].values(), self._policy.automatic[ring]
        return factor.follow(state, instances, policy, self._policy.heartbeat_timeout_ms, self._clock.now_ms())

    def _bump(self, ring: RingName) -> None:
        if ring in self._replications:
            self._replications[ring] = self._followed(ring, self._replications[ring])
        self._versions[ring] += 1
        self._changed.notify_all()
        self._save()

    def _save(self) -> None:
        try:
            self._store.save(encode(self._versions, self._instances, self._replications))
            self._store_error = None
        except OSError as error:
            self._store_error = error  # a full disk must not stop the cluster; `sweep` tries again

    def _restore(self, first: int) -> None:
        saved = self._store.load()
        now, timeout = self._clock.now_ms(), self._policy.heartbeat_timeout_ms
        if saved is None:
            self._forgetful_until_ms = now + timeout
        rings = {} if saved is None else decode(saved)
        for ring, (version, instances, _) in rings.items():
            if ring not in self._instances:
                continue
            # When it was last heard of is not known: each gets a whole time-out to speak up.
            self._instances[ring] = {one.id: replace(one, heartbeat_ms=now) for one in instances.values()}
            self._versions[ring] = max(first, version + VERSIONS_PER_MS)
        for ring, policy in self._policy.automatic.items():
            known = rings[ring].replication if ring in rings else None
            used = bool(self._instances[ring])
            self._replications[ring] = known or factor.begin(policy, now, self._settle_ms, used)


def _same(one: InstanceDesc, other: InstanceDesc) -> bool:
    """Whether they say the same about the instance, apart from times and read-only (an operator's word)."""
    return (
        one.address == other.address
        and one.zone == other.zone
        and one.state == other.state
        and one.incarnation == other.incarnation
        and (len(other.tokens) == 0 or np.array_equal(one.tokens, other.tokens))
    )
