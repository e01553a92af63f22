"""`RingView`: a snapshot of a ring, made ready for fast questions.

The replica set is the same for all keys between two neighbouring tokens, so it is computed once per
token (`replica_table`): 0.5 ms for 3 instances of 128 tokens, 12 ms for 300. A lookup is then a binary
search and a `take`: 2,000 keys take about 50 µs among 3 instances, 140 µs among 300.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mimir_ray.cluster.ring.model import (
    HEARTBEAT_TIMEOUT_MS,
    READ,
    WRITE,
    InstanceDesc,
    InstanceId,
    InstanceState,
    Operation,
    Replication,
    RingDesc,
    RingName,
)

NOBODY = -1
"""In a row of owners: the ring has fewer eligible instances than the replication factor."""


@dataclass(frozen=True, slots=True)
class RingOptions:
    """How one ring is read. Mimir's `*.ring.replication-factor`, `zone-awareness-enabled`, `heartbeat-timeout`.

    A `replication_factor` of 0 is automatic: the ring says it, and copies are on different machines, or in different
    zones where `zone_aware`.
    """

    replication_factor: int = 1
    zone_aware: bool = False
    heartbeat_timeout_ms: int = HEARTBEAT_TIMEOUT_MS


def replica_table(owner: NDArray[np.int16], zone: NDArray[np.int32], replication_factor: int) -> NDArray[np.int16]:
    """The replica set that begins at each token.

    Args:
        owner: int16[K], the instance that holds each token, in token order.
        zone: int32[I], what may occur once in a set: a zone's number, or the instance's own.
        replication_factor: RF.

    Returns int16[K, RF]: distinct zones in walking order, `NOBODY` where the ring has fewer than RF.
    Walks from all tokens at once; tokens whose set is complete drop out.
    """
    size = len(owner)
    table = np.full((size, replication_factor), NOBODY, np.int16)
    if size == 0:
        return table
    zones = zone[owner]
    target = min(replication_factor, len(np.unique(zones)))
    found_zones = np.full((size, replication_factor), -1, np.int32)
    filled = np.zeros(size, np.int64)
    rows = np.arange(size)
    for step in range(size):
        at = (rows + step) % size
        new = ~(found_zones[rows] == zones[at][:, None]).any(axis=1)
        chosen, at = rows[new], at[new]
        table[chosen, filled[chosen]] = owner[at]
        found_zones[chosen, filled[chosen]] = zones[at]
        filled[chosen] += 1
        rows = rows[filled[rows] < target]
        if len(rows) == 0:
            break
    return table


@dataclass(frozen=True, slots=True)
class _Index:
    """What can be kept from one snapshot to the next as long as the version is the same."""

    position: dict[InstanceId, int]
    zones: tuple[str, ...]
    zone_code: NDArray[np.int32]
    tokens: NDArray[np.uint32]
    owner: NDArray[np.int16]
    table: NDArray[np.int16]

    @classmethod
    def build(cls, instances: tuple[InstanceDesc, ...], options: RingOptions, automatic: bool) -> _Index:
        zone_code = _exclusive_codes(instances, options, automatic)
        tokens, owner = _sorted_tokens(instances)
        return cls(
            position={one.id: at for at, one in enumerate(instances)},
            zones=tuple(sorted({one.zone for one in instances if len(one.tokens)})),
            zone_code=zone_code,
            tokens=tokens,
            owner=owner,
            table=replica_table(owner, zone_code, options.replication_factor),
        )


def _exclusive_codes(instances: tuple[InstanceDesc, ...], options: RingOptions, automatic: bool) -> NDArray[np.int32]:
    """int32[I]: equal for two instances that must not be in one replica set."""
    codes = np.arange(len(instances), dtype=np.int32)
    first: dict[str, int] = {}
    if automatic:
        for at, one in enumerate(instances):
            codes[at] = first.setdefault(one.domain(options.zone_aware), at)
    elif options.zone_aware:
        for at, one in enumerate(instances):
            # An instance without a zone stands for itself. Upstream: dskit ring/ring.go findInstancesForKey
            codes[at] = first.setdefault(one.zone, at) if one.zone else at
    return codes


def _sorted_tokens(instances: tuple[InstanceDesc, ...]) -> tuple[NDArray[np.uint32], NDArray[np.int16]]:
    """All tokens, ascending, and who holds each."""
    if not instances:
        return np.zeros(0, np.uint32), np.zeros(0, np.int16)
    tokens = np.concatenate([one.tokens for one in instances]).astype(np.uint32)
    owner = np.repeat(np.arange(len(instances), dtype=np.int16), [len(one.tokens) for one in instances])
    order = np.argsort(tokens, kind="stable")
    return tokens[order], owner[order]


class RingView:
    """One snapshot of one ring. Immutable; safe to share between threads.

    `instances`: sorted by id; owners are indices into it. Health is judged as of the snapshot
    (`as_of_ms`) unless a time is given: while the ring itself is away, its last word stands.
    """

    def __init__(self, desc: RingDesc, options: RingOptions, before: RingView | None = None) -> None:
        """Builds the view; takes the tables over from `before` if that has the same version."""
        self.name: RingName = desc.name
        self.version: int = desc.version
        self.as_of_ms: int = desc.as_of_ms
        self.replication: Replication | None = desc.replication
        if desc.replication is not None:
            options = replace(options, replication_factor=desc.replication.factor)
        elif options.replication_factor == 0:
            options = replace(options, replication_factor=1)  # the ring has not said it yet
        self.options = options
        self.instances: tuple[InstanceDesc, ...] = tuple(desc.instances[name] for name in sorted(desc.instances))
        self.has_read_only: bool = any(one.read_only for one in self.instances)
        reuse = before if before is not None and (before.version, before.options) == (desc.version, options) else None
        self._index: _Index = (
            reuse._index if reuse else _Index.build(self.instances, options, desc.replication is not None)
        )

    @property
    def index(self) -> dict[InstanceId, int]:
        """Where in `instances` each one is."""
        return self._index.position

    @property
    def zones(self) -> tuple[str, ...]:
        """Sorted zones of the instances that have tokens."""
        return self._index.zones

    @property
    def replication_factor(self) -> int:
        return self.options.replication_factor

    @property
    def failures_max(self) -> int:
        """How many instances, or zones or machines, a read may leave out where the others are all there."""
        return self.options.replication_factor // 2 if self.replication is None else self.replication.failures_max

    @property
    def tokens(self) -> NDArray[np.uint32]:
        """uint32[K]: all tokens, ascending."""
        return self._index.tokens

    @property
    def token_owners(self) -> NDArray[np.int16]:
        """int16[K]: who holds each of `tokens`."""
        return self._index.owner

    def __len__(self) -> int:
        return len(self.instances)

    def part(self, names: Iterable[InstanceId], version: int, before: RingView | None = None) -> RingView:
        """The ring of these instances only, with the heartbeats of this view."""
        kept = {name: self.instances[self.index[name]] for name in names}
        desc = RingDesc(self.name, version, self.as_of_ms, kept, replication=self.replication)
        return RingView(desc, self.options, before)

    def get(self, instance: InstanceId) -> InstanceDesc | None:
        at = self.index.get(instance)
        return None if at is None else self.instances[at]

    def owners(self, keys: NDArray[np.uint32]) -> NDArray[np.int16]:
        """Who owns each key, whatever their health.

        Args:
            keys: uint32[N].

        Returns int16[N, RF], indices into `instances`: first the holder of the smallest token greater
        than the key, then the next distinct ones clockwise, one per zone in a zone-aware ring; `NOBODY`
        where there are fewer. There is no extension past unhealthy owners: a write to those has failed.
        """
        if len(self._index.tokens) == 0:
            return np.full((len(keys), self.replication_factor), NOBODY, np.int16)
        slots = np.searchsorted(self._index.tokens, np.asarray(keys, np.uint32), side="right")
        slots[slots == len(self._index.tokens)] = 0
        return self._index.table[slots]

    def healthy(self, operation: Operation = WRITE, now_ms: int | None = None) -> NDArray[np.bool_]:
        """bool[I]: which instances may be asked: in a state that fits, and heard of lately."""
        now = self.as_of_ms if now_ms is None else now_ms
        timeout = self.options.heartbeat_timeout_ms
        return np.array(
            [one.state in operation.healthy_states and one.heartbeat_within(timeout, now) for one in self.instances],
            dtype=np.bool_,
        )

    def replicas(self, key: int, operation: Operation = READ) -> list[int]:
        """Owners of one key, one more for each owner in a state that extends the set; health is not looked at.

        Upstream: dskit ring/ring.go findInstancesForKey. For single blocks, tenants and rule groups.
        """
        wanted = self.replication_factor
        found: list[int] = []
        taken: set[int] = set()
        size = len(self._index.tokens)
        start = int(np.searchsorted(self._index.tokens, np.uint32(key), side="right"))
        groups = len(np.unique(self._index.zone_code[self._index.owner])) if size else 0
        for step in range(size):
            if len(found) >= min(wanted, len(self.instances)) or len(taken) >= groups:
                break
            at = int(self._index.owner[(start + step) % size])
            code = int(self._index.zone_code[at])
            if code in taken or at in found:
                continue
            found.append(at)
            if self.instances[at].state in operation.extending_states:
                wanted += 1  # the next one of the same zone may stand in
                if not self.options.zone_aware:
                    taken.add(code)
            else:
                taken.add(code)
        return found

    def state_counts(self) -> dict[str, int]:
        """Instances by state, `Unhealthy` for those not heard of."""
        counts = {"Unhealthy": 0} | {state.value: 0 for state in InstanceState}
        for one in self.instances:
            fresh = one.heartbeat_within(self.options.heartbeat_timeout_ms, self.as_of_ms)
            counts[one.state.value if fresh else "Unhealthy"] += 1
        return counts

    def ownership(self) -> NDArray[np.float64]:
        """float64[I]: the share of the ring that falls to each instance, among all (or in its own zone)."""
        shares = np.zeros(len(self.instances))
        codes = [""] if not self.options.zone_aware else [*self.zones]
        for zone in codes:
            inside = np.array([not self.options.zone_aware or one.zone == zone for one in self.instances], np.bool_)
            mine = inside[self._index.owner]
            tokens, owner = self._index.tokens[mine].astype(np.int64), self._index.owner[mine]
            if len(tokens):
                gaps = np.diff(tokens, prepend=tokens[-1] - (1 << 32))
                np.add.at(shares, owner, gaps / (1 << 32))
        return shares
