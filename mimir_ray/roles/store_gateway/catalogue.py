"""`Catalogue`: which blocks of which tenants a store-gateway has, by what it reads in bucket indexes.

To have a block means to answer for it; nothing of it is loaded before a query needs it. So a sync costs one small
object a tenant.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import structlog

from mimir_ray.bucket.bucket_index import BucketIndex, IndexedBlock, read_bucket_index
from mimir_ray.bucket.layout import CLUSTER_FOLDER
from mimir_ray.bucket.sharding import allowed, keeps, tenant_shard
from mimir_ray.bucket.store import Bucket
from mimir_ray.bucket.store_config import BucketStoreConfig
from mimir_ray.clock import Clock
from mimir_ray.cluster.ring.lookup import RingView
from mimir_ray.cluster.ring.model import InstanceId
from mimir_ray.cluster.ring.shuffle_shard import ShardCache
from mimir_ray.config.limits import Limits
from mimir_ray.errors import ClientError, MimirRayError
from mimir_ray.model.tenant import TenantId, validate_tenant
from mimir_ray.roles.store_gateway.config import StoreGatewayConfig
from mimir_ray.roles.store_gateway.metrics import StoreGatewayMetrics

log = structlog.get_logger(__name__)

LOOK_PAUSE_S = 5.0
"""A tenant's bucket index is not looked at more often than that because of blocks that nobody knows."""


@dataclass(slots=True)
class _Tenant:
    """`borrowed`: blocks that queries asked for and a sync did not bring; until the next sync."""

    blocks: dict[str, IndexedBlock] = field(default_factory=dict)
    borrowed: dict[str, IndexedBlock] = field(default_factory=dict)
    looked_s: float = float("-inf")
    looking: threading.Lock = field(default_factory=threading.Lock)


class Catalogue:
    """Thread-safe; one sync at a time."""

    def __init__(
        self,
        bucket: Bucket,
        config: BucketStoreConfig,
        gateway: StoreGatewayConfig,
        clock: Clock,
        metrics: StoreGatewayMetrics,
        limits: Callable[[TenantId], Limits],
        ring: Callable[[], RingView],
        instance: InstanceId,
        on_drop: Callable[[TenantId, str], None],
    ) -> None:
        """`on_drop` hears of each block that was let go."""
        self._bucket = bucket
        self._config = config
        self._gateway = gateway
        self._clock = clock
        self._metrics = metrics
        self._limits = limits
        self._ring = ring
        self._instance = instance
        self._on_drop = on_drop
        self._syncing = threading.Lock()
        self._lock = threading.Lock()
        self._tenants: dict[TenantId, _Tenant] = {}
        self._shards = ShardCache()

    def blocks(self) -> dict[TenantId, set[str]]:
        """What there is now."""
        with self._lock:
            return {tenant: {*one.blocks, *one.borrowed} for tenant, one in self._tenants.items()}

    def sync(self, reason: str = "periodic") -> None:
        """Takes on what is new and ours, lets go what is not; a tenant whose index cannot be read keeps what it has.

        Raises `BucketUnavailable` where tenants cannot be listed.
        """
        with self._syncing:
            self._metrics.syncs.labels(reason).inc()
            began = self._clock.monotonic_s()
            tenants = self._discover()
            with self._lock:
                known = list(self._tenants)
            ok = True
            with ThreadPoolExecutor(self._config.tenant_sync_concurrency, "tenant-sync") as pool:
                for done in pool.map(self._sync_tenant, sorted({*tenants, *known})):
                    ok = ok and done
            self._metrics.tenants_discovered.set(len(tenants))
            with self._lock:
                self._metrics.tenants_synced.set(len(self._tenants))
            self._metrics.sync_seconds.observe(self._clock.monotonic_s() - began)
            if ok:
                self._metrics.last_sync.set(self._clock.now_ms() / 1000)
            else:
                self._metrics.sync_failures.inc()

    def _discover(self) -> list[TenantId]:
        found = []
        for name in self._bucket.list_folders():
            try:
                if name != CLUSTER_FOLDER and self._is_allowed(name):
                    found.append(validate_tenant(name))
            except ClientError:
                log.warning("a folder in the bucket is no tenant", folder=name)
        return found

    def _is_allowed(self, tenant: str) -> bool:
        return allowed(tenant, self._gateway.enabled_tenants, self._gateway.disabled_tenants)

    def _sync_tenant(self, tenant: TenantId) -> bool:
        try:
            index = read_bucket_index(self._bucket, tenant) if self._is_allowed(tenant) else None
        except MimirRayError as error:
            log.warning("a bucket index was not read", user=tenant, error=str(error))
            self._metrics.block_load_failures.inc()
            return False
        with self._lock:
            entry = self._tenants.get(tenant) or _Tenant()
        shard = tenant_shard(self._ring(), tenant, self._limits(tenant), self._shards)
        wanted = {
            block.ulid: block
            for block in self._usable(index or BucketIndex())
            if (block.ulid in entry.blocks or not self._is_too_new(block))
            and keeps(shard, block.ulid, self._instance, block.ulid in entry.blocks)
        }
        with self._lock:
            before = {**entry.blocks, **entry.borrowed}
            new = wanted.keys() - entry.blocks.keys()
            entry.blocks, entry.borrowed = wanted, {}
            if wanted:
                self._tenants[tenant] = entry
                self._metrics.blocks_loaded.labels(tenant).set(len(wanted))
            elif self._tenants.pop(tenant, None) is not None:
                self._metrics.blocks_loaded.remove(tenant)
        self._metrics.block_loads.inc(len(new))
        for ulid in before.keys() - wanted.keys():
            self._metrics.block_drops.inc()
            self._on_drop(tenant, ulid)
        return True

    def _usable(self, index: BucketIndex) -> list[IndexedBlock]:
        """Without those that were marked for deletion a while ago."""
        oldest_s = (self._clock.now_ms() - self._config.ignore_deletion_marks_delay.ms) / 1000
        marks = index.deletion_marks
        return [one for one in index.blocks if one.ulid not in marks or marks[one.ulid] >= oldest_s]

    def _is_too_new(self, block: IndexedBlock) -> bool:
        within = self._config.ignore_blocks_within.ms
        return within > 0 and block.min_time > self._clock.now_ms() - within

    def known(self, tenant: TenantId, ulids: Sequence[str]) -> list[str]:
        """Those of the blocks that this store-gateway answers for, after a fresh look where some are not known."""
        with self._lock:
            entry = self._tenants.get(tenant)
        here = self._here(entry, ulids)
        if len(here) == len(ulids) or not self._is_allowed(tenant):
            return here
        with self._lock:
            entry = self._tenants.setdefault(tenant, entry or _Tenant())
        with entry.looking:
            here = self._here(entry, ulids)
            now = self._clock.monotonic_s()
            if len(here) < len(ulids) and now - entry.looked_s >= LOOK_PAUSE_S:
                self._look(tenant, entry, {*ulids} - {*here})
                entry.looked_s = now
                here = self._here(entry, ulids)
        return here

    def _look(self, tenant: TenantId, entry: _Tenant, missing: set[str]) -> None:
        self._metrics.looks.inc()
        try:
            index = read_bucket_index(self._bucket, tenant) or BucketIndex()
        except MimirRayError as error:
            log.warning("a bucket index was not read", user=tenant, error=str(error))
            return  # the querier asks others, or reports the blocks as missing
        found = {one.ulid: one for one in self._usable(index) if one.ulid in missing}
        with self._lock:
            entry.borrowed |= found
            # A sync in between may have forgotten the tenant.
            self._tenants.setdefault(tenant, entry)

    def _here(self, entry: _Tenant | None, ulids: Sequence[str]) -> list[str]:
        if entry is None:
            return []
        return [ulid for ulid in ulids if ulid in entry.blocks or ulid in entry.borrowed]

    def forget(self, tenant: TenantId, ulid: str) -> None:
        """The block is not in the bucket any more."""
        with self._lock:
            entry = self._tenants.get(tenant)
            if entry is not None:
                entry.blocks.pop(ulid, None)
                entry.borrowed.pop(ulid, None)
        self._metrics.block_drops.inc()
        self._on_drop(tenant, ulid)
