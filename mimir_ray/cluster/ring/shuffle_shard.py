"""Shuffle sharding: each tenant gets its own subset of the instances, the same one that Mimir would give it.

Stable (the same ring gives the same shard), consistent (one instance more or less in the ring changes a shard by
at most one), balanced over zones. Upstream: dskit ring/ring.go shuffleShard, ring/shard/shard.go.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from mimir_ray.cluster.ring.factor import FACTOR_MAX
from mimir_ray.cluster.ring.go_random import GoRandom
from mimir_ray.cluster.ring.lookup import RingView
from mimir_ray.cluster.ring.model import InstanceDesc, InstanceId

SIZE_SHIFT = 64
"""Where in a shard's version its size is: above all bits of the ring's own version."""


def seed(identifier: str, zone: str = "") -> int:
    """What the draws for a tenant (in a zone) start from."""
    text = identifier.encode() + (b"\x00" + zone.encode() if zone else b"")
    return int.from_bytes(hashlib.md5(text, usedforsecurity=False).digest()[:8], "big")


def shard_members(
    view: RingView, identifier: str, size: int, lookback_ms: int = 0, now_ms: int | None = None
) -> list[int]:
    """Which instances are in the shard: ascending indices into `view.instances`.

    Args:
        view: the whole ring.
        identifier: the tenant.
        size: how many instances; 0 or less is all. Rounded up to a multiple of the zones. With an automatic replication
            factor (ours) at least as many, on as many machines, as a sample has copies.
        lookback_ms: 0 is for writes: read-only instances are left out. Else for reads: also those that were in the
            shard at any time since `now_ms - lookback_ms`; they do not count towards the size.
        now_ms: the time that the look-back ends at; the snapshot's if not given.

    Without health: whoever uses the shard asks for that.
    """
    now = view.as_of_ms if now_ms is None else now_ms
    # Mimir compares whole seconds.
    since_ms = (now - lookback_ms) // 1000 * 1000
    instances = view.instances
    if lookback_ms > 0 and _all_there(instances, size, since_ms):
        return list(range(len(instances)))
    copies = _copies(view, lookback_ms) if size > 0 else 0
    size = max(size, copies)
    zones = view.zones if view.options.zone_aware else ("",)
    per_zone = len(instances) if size <= 0 else -(-size // max(1, len(zones)))
    chosen: set[int] = set()
    for zone in zones:
        owners, tokens = view.token_owners, view.tokens
        if view.options.zone_aware:
            inside = np.array([one.zone == zone for one in instances])[owners]
            owners, tokens = owners[inside], tokens[inside]
        random = GoRandom(seed(identifier, zone))
        picked, machines = 0, set[str]()
        while picked < per_zone or len(machines) < copies:
            start = int(np.searchsorted(tokens, np.uint32(random.uint32()), side="right"))
            at = _pick(instances, owners, start, chosen, lookback_ms, since_ms)
            if at < 0:
                break
            picked += 1
            machines.add(instances[at].machine)
    return sorted(chosen)


def shuffle_shard(
    view: RingView, identifier: str, size: int, lookback_ms: int = 0, now_ms: int | None = None
) -> RingView:
    """The ring of the shard's members only: look-ups in it stay within the shard. See `shard_members`.

    Costs 0.5 ms and more: keep it for as long as the version of `view` and the size stay the same.
    """
    members = shard_members(view, identifier, size, lookback_ms, now_ms)
    if len(members) == len(view.instances):
        return view
    return view.part((view.instances[at].id for at in members), view.version)


class ShardCache:
    """The shards that many tenants write to, kept while the ring's version stays the same. Thread-safe.

    A writer always asks here, also where shuffle sharding is off (size 0): read-only instances take no writes.
    Shards of different sizes have different versions, so that whoever keeps owners by version notices a new size.
    """

    def __init__(self, entries_max: int = 10_000) -> None:
        """`entries_max`: more tenants than that are drawn again now and then."""
        self._entries_max = entries_max
        self._lock = threading.Lock()
        self._version = -1
        self._shards: dict[tuple[str, int], RingView] = {}

    def shard(self, view: RingView, identifier: str, size: int) -> RingView:
        """The part of `view` that the tenant writes to, with the heartbeats of `view`; `view` itself if that is all."""
        if size <= 0 and not view.has_read_only:
            return view
        key = (identifier if size > 0 else "", size)  # without a size it is the same for all
        with self._lock:
            if self._version != view.version or len(self._shards) >= self._entries_max:
                self._shards.clear()
                self._version = view.version
            kept = self._shards.get(key)
        if kept is None:
            members = shard_members(view, identifier, size)
            names = [view.instances[at].id for at in members]
            kept = view if len(members) == len(view) else _part(view, names, size)
        elif len(kept) == len(view):
            kept = view
        elif kept.as_of_ms != view.as_of_ms:
            kept = _part(view, kept.index, size, kept)
        else:
            return kept
        with self._lock:
            if self._version == view.version:
                self._shards[key] = kept
        return kept


class LookBackCache:
    """The shards that many tenants read from: who was in a tenant's shard at any time of the look-back. Thread-safe.

    With time fewer instances count as recent: a shard that is kept a while longer has more of them, never fewer.
    """

    def __init__(self, lookback_ms: int, entries_max: int = 10_000, kept_ms: int = 60_000) -> None:
        """`lookback_ms`: for how long ingesters keep samples (> 0). `kept_ms`: after which a shard is drawn again."""
        self._lookback_ms = lookback_ms
        self._entries_max = entries_max
        self._kept_ms = kept_ms
        self._lock = threading.Lock()
        self._shards: dict[tuple[str, int], tuple[RingView, int, tuple[InstanceId, ...]]] = {}

    def shard(self, view: RingView, identifier: str, size: int) -> RingView:
        """The part of `view` to ask, of the same version; `view` itself without shuffle sharding (size 0)."""
        if size <= 0:
            return view
        key = (identifier, size)
        with self._lock:
            kept = self._shards.get(key)
        if kept is not None and kept[0].version == view.version and view.as_of_ms - kept[1] < self._kept_ms:
            part, drawn_ms, names = kept
            if part.as_of_ms == view.as_of_ms:
                return part
        else:
            part, drawn_ms = None, view.as_of_ms
            members = shard_members(view, identifier, size, self._lookback_ms)
            names = tuple(view.instances[at].id for at in members)
        if len(names) == len(view):
            part = view
        else:
            part = view.part(names, view.version, part)
        with self._lock:
            if len(self._shards) >= self._entries_max:
                self._shards.clear()
            self._shards[key] = part, drawn_ms, names
        return part


def _part(view: RingView, names: Iterable[InstanceId], size: int, before: RingView | None = None) -> RingView:
    """The ring of these only, and a version that tells its size."""
    return view.part(names, view.version + (max(0, size) << SIZE_SHIFT), before)


def _all_there(instances: tuple[InstanceDesc, ...], size: int, since_ms: int) -> bool:
    """Whether a look-back shard is the whole ring without any draw."""
    oldest = min((one.registered_ms for one in instances), default=0)
    if oldest > 0 and oldest >= since_ms:
        return True
    if 0 < size < len(instances):
        return False
    return all(one.read_only_updated_ms >= since_ms for one in instances if one.read_only)


def _pick(
    instances: tuple[InstanceDesc, ...],
    owners: NDArray[np.int16],
    start: int,
    chosen: set[int],
    lookback_ms: int,
    since_ms: int,
) -> int:
    """Walks from token `start` to the next instance that is not chosen and counts; adds it, and on the way those
    that the look-back adds. Returns its index, -1 if there is none."""
    for step in range(len(owners)):
        at = int(owners[(start + step) % len(owners)])
        if at in chosen:
            continue
        one = instances[at]
        if one.read_only and lookback_ms <= 0:
            continue
        if one.read_only and 0 < one.read_only_updated_ms < since_ms:
            continue
        chosen.add(at)
        recent = one.registered_ms >= since_ms or one.read_only or one.read_only_updated_ms >= since_ms
        if lookback_ms > 0 and recent:
            continue  # it may hold data of the tenant, but does not stand in for one that has all
        return at
    return -1


def _copies(view: RingView, lookback_ms: int) -> int:
    """On how many machines a shard must be: for writes as many as a sample has copies; for reads as it had, or may have
    since this view was taken."""
    if view.replication is None or view.options.zone_aware:
        return 0  # shards of a zone-aware ring are in every zone
    if lookback_ms <= 0:
        return view.replication_factor
    return min(FACTOR_MAX, len({one.machine for one in view.instances}))
