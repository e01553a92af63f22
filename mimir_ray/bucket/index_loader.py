"""`BucketIndexLoader`: the bucket indexes of the tenants that are asked for, held in memory and kept fresh.

An index is loaded when it is first asked for and again once it was held for the refresh interval; a load that failed is
tried again sooner, and meanwhile the index that is there goes on to be used. One nobody asked for lately is dropped.
Upstream: pkg/storage/tsdb/bucketindex/loader.go, pkg/querier/blocks_finder_bucket_index.go.
"""

from __future__ import annotations

import copy
import threading
from dataclasses import dataclass, field
from datetime import datetime, timezone

import structlog
from prometheus_client import CollectorRegistry

from mimir_ray.clock import Clock
from mimir_ray.config.units import Duration, duration
from mimir_ray.errors import Corruption, MimirRayError
from mimir_ray.model.tenant import TenantId
from mimir_ray.tsdb.block.meta import is_ulid

from .bucket_index import BucketIndex, read_bucket_index
from .config import BucketIndexConfig
from .layout import META, tenant_prefix
from .markers import tenant_is_marked
from .metrics import IndexLoaderMetrics, once
from .store import Bucket

log = structlog.get_logger(__name__)

REFRESH_INTERVAL = duration("15m")


@dataclass(eq=False)
class BucketIndexTooOld(Corruption):
    """Nobody updated the index for so long that blocks may be missing from it; a 500, as in Mimir.

    `updated_at`: unix seconds.
    """

    id = "bucket-index-too-old"
    updated_at: int
    max_stale_period: Duration

    def describe(self) -> str:
        when = datetime.fromtimestamp(self.updated_at, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        return (
            f"the bucket index is too old. It was last updated at {when}, "
            f"which exceeds the maximum allowed staleness period of {self.max_stale_period}"
        )


@dataclass(eq=False)
class BucketIndexMissing(BucketIndexTooOld):
    """There are blocks, and for as long as an index may be old nobody wrote one. `updated_at`: of the first block."""

    def describe(self) -> str:
        when = datetime.fromtimestamp(self.updated_at, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        return (
            f"there is no bucket index though there are blocks since {when}, "
            f"which exceeds the maximum allowed staleness period of {self.max_stale_period}"
        )


@dataclass(slots=True)
class _Entry:
    """`index`: None while never loaded, or where the tenant has none; then `unindexed_ms` says since when there is a
    block all the same, if there is one. `error`: of the only or last attempt.

    `due_s`: when it is loaded again (monotonic). `loading`: held by whoever loads.
    """

    index: BucketIndex | None = None
    unindexed_ms: int | None = None
    error: MimirRayError | None = None
    known: bool = False
    due_s: float = 0.0
    asked_s: float = 0.0
    loading: threading.Lock = field(default_factory=threading.Lock)


class BucketIndexLoader:
    """Thread-safe. One load of a tenant at a time; who asks meanwhile gets what is there, or waits where nothing is."""

    def __init__(
        self,
        bucket: Bucket,
        config: BucketIndexConfig,
        clock: Clock,
        registry: CollectorRegistry,
        refresh_interval: Duration = REFRESH_INTERVAL,
    ) -> None:
        self._bucket = bucket
        self._config = config
        self._clock = clock
        self._refresh_interval = refresh_interval
        self._metrics = once(IndexLoaderMetrics, registry)
        self._lock = threading.Lock()
        self._entries: dict[TenantId, _Entry] = {}

    def index(self, tenant: TenantId) -> BucketIndex:
        """However old; one without blocks where the tenant has none yet.

        Raises `BucketUnavailable` or `DamagedIndex` where it cannot be loaded and was not before.
        """
        return self._find(tenant).index or BucketIndex()

    def fresh_index(self, tenant: TenantId) -> BucketIndex:
        """As `index`, for queries: raises `BucketIndexTooOld` where blocks may be missing from it.

        # Differs: upstream takes a missing index for no blocks even where there are some.
        """
        found = self._find(tenant)
        limit = self._config.max_stale_period
        oldest_ms = self._clock.now_ms() - limit.ms
        if found.index is None:
            if limit and found.unindexed_ms is not None and found.unindexed_ms < oldest_ms:
                raise BucketIndexMissing(found.unindexed_ms // 1000, limit)
            return BucketIndex()
        if limit and found.index.updated_at * 1000 < oldest_ms:
            raise BucketIndexTooOld(found.index.updated_at, limit)
        return found.index

    def check(self) -> None:
        """Drops what nobody asked for lately and loads again what is due: for a timer, so that no query need wait.

        Raises nothing; failures are logged and counted.
        """
        now = self._clock.monotonic_s()
        self._drop_idle(now)
        with self._lock:
            due = [(tenant, entry) for tenant, entry in self._entries.items() if entry.due_s <= now]
        for tenant, entry in due:
            if entry.loading.acquire(blocking=False):
                try:
                    self._load(tenant, entry)
                finally:
                    entry.loading.release()

    def tenants(self) -> list[TenantId]:
        """Those whose index is held."""
        with self._lock:
            return sorted(self._entries)

    def forget(self, tenant: TenantId) -> None:
        """The next one who asks loads it."""
        with self._lock:
            entry = self._entries.pop(tenant, None)
        if entry and entry.index is not None:
            self._metrics.loaded.dec()

    def _find(self, tenant: TenantId) -> _Entry:
        """A copy, of one moment."""
        now = self._clock.monotonic_s()
        with self._lock:
            entry = self._entries.get(tenant)
            is_new = entry is None
            if entry is None:
                entry = self._entries[tenant] = _Entry()
            entry.asked_s = now
        if is_new:
            self._drop_idle(now)
        # Who finds an old index being refreshed goes on with it; who finds nothing waits.
        due = not entry.known or entry.due_s <= now
        if due and entry.loading.acquire(blocking=not entry.known):
            try:
                if not entry.known or entry.due_s <= now:
                    self._load(tenant, entry)
            finally:
                entry.loading.release()
        with self._lock:
            found = copy.copy(entry)
        if found.index is None and found.error is not None:
            raise copy.copy(found.error) from None  # of one exception several threads would share the traceback
        return found

    def _load(self, tenant: TenantId, entry: _Entry) -> None:
        """Only with `entry.loading`."""
        began = self._clock.monotonic_s()
        self._metrics.loads.inc()
        try:
            index = read_bucket_index(self._bucket, tenant)
            unindexed_ms = self._unindexed_ms(tenant) if index is None else None
        except MimirRayError as error:
            self._metrics.failures.inc()
            log.warning("bucket index cannot be loaded", user=tenant, error=str(error))
            entry.error = error
            entry.due_s = self._clock.monotonic_s() + self._config.update_on_error_interval.seconds
            entry.known = True
            return
        now = self._clock.monotonic_s()
        self._metrics.seconds.observe(now - began)
        with self._lock:
            if self._entries.get(tenant) is entry:
                self._metrics.loaded.inc((index is not None) - (entry.index is not None))
            entry.index, entry.unindexed_ms, entry.error = index, unindexed_ms, None
        # A tenant without one may get its first blocks at any time.
        interval_s = self._refresh_interval.seconds
        if index is None:
            interval_s = min(interval_s, self._config.update_on_error_interval.seconds)
        entry.due_s = now + interval_s
        entry.known = True

    def _unindexed_ms(self, tenant: TenantId) -> int | None:
        """When the first of the complete blocks came; None where there is none, or all are about to be deleted."""
        times = []
        for one in self._bucket.list_objects(tenant_prefix(tenant)):
            folder, _, file = one.key.removeprefix(tenant_prefix(tenant)).partition("/")
            if file == META and is_ulid(folder):
                times.append(one.modified_ms)
        if not times or tenant_is_marked(self._bucket, tenant):
            return None
        return min(times)

    def _drop_idle(self, now: float) -> None:
        limit = self._config.idle_timeout.seconds
        with self._lock:
            idle = [tenant for tenant, entry in self._entries.items() if now - entry.asked_s >= limit]
            for tenant in idle:
                if self._entries.pop(tenant).index is not None:
                    self._metrics.loaded.dec()
