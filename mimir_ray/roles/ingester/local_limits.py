"""One ingester's part of a tenant's limits, which are set for all ingesters together.

Upstream: pkg/ingester/limiter.go, ingester ring limiter strategy.
"""

from __future__ import annotations

from mimir_ray.cluster.ring.lookup import RingView
from mimir_ray.cluster.ring.model import InstanceId


def sharing_ingesters(view: RingView, instance: InstanceId, shard_size: int) -> int:
    """Among how many ingesters a tenant's series are spread, replicas included, as `instance` sees it.

    Those that take writes and have tokens; with zones, as many in each zone as in that of `instance`; with a shard
    size, no more than are in a shard.
    """
    zone_aware = view.options.zone_aware
    zones = max(1, len(view.zones)) if zone_aware else 1
    me = view.get(instance)
    zone = me.zone if me is not None else ""
    in_zone = sum(
        1
        for one in view.instances
        if len(one.tokens) and not one.read_only and (not zone_aware or zones == 1 or one.zone == zone)
    )
    if view.replication is not None and not zone_aware and shard_size > 0:
        shard_size = max(shard_size, view.replication_factor)
    if shard_size > 0:
        in_zone = min(in_zone, -(-shard_size // zones))
    return in_zone * zones


def local_limit(total: int, instances: int, replicas: int) -> int:
    """One ingester's part of a global limit; 0 stays "no limit".

    Differs: rounded up, not down, and never more than the whole where there are fewer ingesters than replicas.
    """
    if total <= 0:
        return 0
    return max(1, -(-total * replicas // max(instances, replicas, 1)))


class Shares:
    """`sharing_ingesters` by shard size, kept as long as the ring stays the same. Any thread: all find the same."""

    def __init__(self, instance: InstanceId) -> None:
        self._instance = instance
        self._known: tuple[int, dict[int, int]] = (-1, {})

    def of(self, view: RingView, shard_size: int) -> int:
        version, known = self._known
        if version != view.version:
            known = {}
            self._known = (view.version, known)
        found = known.get(shard_size)
        if found is None:
            found = known[shard_size] = sharing_ingesters(view, self._instance, shard_size)
        return found
