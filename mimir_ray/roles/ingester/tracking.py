"""What each tenant's series are at: active or not, by which custom tracker, owned by this ingester or not.

Updated by the maintenance timer, each part in its own period; pushes only read what was found last.
Upstream: pkg/ingester/owned_series.go, pkg/ingester/activeseries.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from mimir_ray.clock import Clock
from mimir_ray.cluster.ring.lookup import RingView
from mimir_ray.cluster.ring.model import InstanceId
from mimir_ray.cluster.ring.shuffle_shard import ShardCache
from mimir_ray.config.limits import Limits
from mimir_ray.model.tenant import TenantId
from mimir_ray.roles.ingester.config import IngesterConfig
from mimir_ray.roles.ingester.local_limits import Shares, local_limit
from mimir_ray.roles.ingester.metrics import TrackingMetrics
from mimir_ray.roles.ingester.tenants import TenantEntry
from mimir_ray.roles.ingester.trackers import TrackerReader
from mimir_ray.tsdb.head.activity import ActiveSeries


@dataclass(slots=True)
class _Tracked:
    reader: TrackerReader
    active: ActiveSeries = field(default_factory=ActiveSeries)
    foreign: int = 0
    """Series in memory that belong to others now, as of the last look."""
    looked_at: tuple[int, int, int] = (-2, 0, -1)
    """Ring version, shard size and dropped series then."""


class Tracking:
    """Of all tenants of one ingester. `update` is called by one thread; the rest by any."""

    def __init__(
        self,
        config: IngesterConfig,
        active_ms: int,
        clock: Clock,
        metrics: TrackingMetrics,
        limits: Callable[[TenantId], Limits],
        ring: Callable[[], RingView],
        instance: InstanceId,
    ) -> None:
        self._config = config
        self._active_ms = active_ms
        self._clock = clock
        self._metrics = metrics
        self._limits = limits
        self._ring = ring
        self._instance = instance
        self._shards = ShardCache()
        self._shares = Shares(instance)
        self._tracked: dict[TenantId, _Tracked] = {}
        self._active_at_s = self._owned_at_s = float("-inf")

    def share(self, limits: Limits) -> tuple[int, int]:
        """(among how many ingesters a tenant's series are spread, replicas of each)."""
        view = self._ring()
        return self._shares.of(view, limits.ingestion_tenant_shard_size), view.replication_factor

    def foreign(self, tenant: TenantId) -> int:
        """Series that do not count towards the tenant's limit here, since they belong to other ingesters now."""
        if not self._config.use_ingester_owned_series_for_limits:
            return 0
        found = self._tracked.get(tenant)
        return found.foreign if found is not None else 0

    def active(self, tenant: TenantId) -> ActiveSeries:
        """As of the last update."""
        found = self._tracked.get(tenant)
        return found.active if found is not None else ActiveSeries()

    def forget(self, tenant: TenantId) -> None:
        """A tenant was closed."""
        self._tracked.pop(tenant, None)
        self._metrics.forget(tenant)

    def update(self, entries: Sequence[TenantEntry]) -> None:
        """Looks at what is due of all tenants."""
        now_s = self._clock.monotonic_s()
        config = self._config
        active = now_s >= self._active_at_s + config.active_series_metrics_update_period.seconds
        owned = now_s >= self._owned_at_s + config.owned_series_update_interval.seconds
        for entry in entries:
            tracked = self._tracked.get(entry.tenant)
            if tracked is None:
                tracked = self._tracked[entry.tenant] = _Tracked(TrackerReader(entry.tenant))
            limits = self._limits(entry.tenant)
            local = local_limit(limits.max_global_series_per_user, *self.share(limits))
            self._metrics.local_limits.labels("max_global_series_per_user", entry.tenant).set(local)
            if active and config.active_series_metrics_enabled:
                self._update_active(entry, tracked, limits)
            if owned and (config.track_ingester_owned_series or config.use_ingester_owned_series_for_limits):
                self._update_owned(entry, tracked, limits)
        if active:
            self._active_at_s = now_s
        if owned:
            self._owned_at_s = now_s

    def _update_active(self, entry: TenantEntry, tracked: _Tracked, limits: Limits) -> None:
        trackers = tracked.reader.read(limits)
        since_ms = self._clock.now_ms() - self._active_ms
        tracked.active = entry.database.head.active_series(since_ms, trackers.selectors)
        self._metrics.set_active(entry.tenant, tracked.active, trackers.names)

    def _update_owned(self, entry: TenantEntry, tracked: _Tracked, limits: Limits) -> None:
        view, size = self._ring(), limits.ingestion_tenant_shard_size
        if self._instance not in view.index:
            return
        head = entry.database.head
        state = (view.version, size, head.stats.removed)
        live = head.series_count()
        if state != tracked.looked_at:
            # New series come to their owners: only another ring or fewer series can change who has foreign ones.
            shard = self._shards.shard(view, entry.tenant, size)
            tracked.foreign = entry.ownership.foreign(head, shard, self._instance)
            tracked.looked_at = state
        self._metrics.owned_series.labels(entry.tenant).set(max(0, live - tracked.foreign))
