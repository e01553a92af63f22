"""Which store-gateways have a block: what they and the queriers must agree on. Pure.

Upstream: pkg/storegateway/sharding_strategy.go, pkg/querier/blocks_store_replicated_set.go.
"""

from __future__ import annotations

from collections.abc import Collection

from mimir_ray.cluster.ring.lookup import RingView
from mimir_ray.cluster.ring.model import BLOCKS_READ, OWNER_SYNC, InstanceDesc, InstanceId, Operation
from mimir_ray.cluster.ring.shuffle_shard import ShardCache
from mimir_ray.config.limits import Limits
from mimir_ray.model.selection import Shard
from mimir_ray.model.tenant import TenantId
from mimir_ray.tsdb.compact.plan import block_token


def tenant_shard(view: RingView, tenant: TenantId, limits: Limits, cache: ShardCache) -> RingView:
    """The store-gateways that have blocks of a tenant."""
    size = limits.store_gateway_tenant_shard_size
    per_zone = limits.store_gateway_tenant_shard_size_per_zone
    if per_zone > 0:
        size = per_zone * (len(view.zones) if view.options.zone_aware else 1)
    return cache.shard(view, tenant, size)


def owners(shard: RingView, ulid: str, operation: Operation = BLOCKS_READ) -> list[InstanceDesc]:
    """The healthy store-gateways that have the block, in the order of the ring."""
    healthy = shard.healthy(operation)
    return [shard.instances[at] for at in shard.replicas(block_token(ulid), operation) if healthy[at]]


def keeps(shard: RingView, ulid: str, instance: InstanceId, is_loaded: bool) -> bool:
    """Whether a store-gateway has to have the block.

    It keeps one that is not its own any more until an owner can be asked for it, so that a ring in disorder never
    leaves a block with nobody.
    """
    live = owners(shard, ulid, OWNER_SYNC)
    if any(one.id == instance for one in live):
        return True
    return is_loaded and (not live or not owners(shard, ulid))


def may_hold(compactor_shard: str, shard: Shard | None) -> bool:
    """Whether a block that the compactor made for some series (`1_of_4`) can have series of a query's shard.

    Both shard by the same hash, so where one count divides the other, one remainder tells the other.
    Upstream: pkg/querier/blocks_store_queryable.go canBlockWithCompactorShardIndexContainQueryShard.
    """
    if shard is None or shard.count < 2:
        return True
    first, _, second = compactor_shard.partition("_of_")
    if not (first.isdigit() and second.isdigit()) or not 1 <= int(first) <= int(second):
        return True
    index, count = int(first) - 1, int(second)
    if count % shard.count == 0:
        return index % shard.count == shard.index
    if shard.count % count == 0:
        return shard.index % count == index
    return True


def shard_is_compatible(compactor_shard: str, shard: Shard | None) -> bool:
    """Whether `may_hold` could tell anything."""
    if shard is None or shard.count < 2 or not compactor_shard:
        return True
    count = compactor_shard.partition("_of_")[2]
    return count.isdigit() and int(count) > 0 and (int(count) % shard.count == 0 or shard.count % int(count) == 0)


def allowed(tenant: str, enabled: Collection[str], disabled: Collection[str]) -> bool:
    """Whether a tenant is worked on; no list of enabled ones means all."""
    return (not enabled or tenant in enabled) and tenant not in disabled
