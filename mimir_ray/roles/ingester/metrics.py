"""What ingesters tell about themselves, under Mimir's names."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from mimir_ray.model.write import Refusal
from mimir_ray.telemetry.caches import CacheStats
from mimir_ray.telemetry.metrics import DURATION_BUCKETS
from mimir_ray.tsdb.database import DatabaseStats
from mimir_ray.tsdb.exemplars import ExemplarStore
from mimir_ray.tsdb.head.activity import ActiveCounts, ActiveSeries


class IngesterMetrics:
    """Upstream: pkg/ingester/metrics.go."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
            return Counter(f"cortex_ingester_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, labels: tuple[str, ...] = ()) -> Gauge:
            return Gauge(f"cortex_ingester_{name}", text, labels, registry=registry)

        self.tracking = TrackingMetrics(registry)
        self.instance = InstanceMetrics(registry)
        self.ingested_samples = counter("ingested_samples_total", "Samples taken.", ("user",))
        self.failed_samples = counter("ingested_samples_failures_total", "Samples refused.", ("user",))
        self.ingested_metadata = counter("ingested_metadata_total", "Metadata entries taken.")
        self.ingested_exemplars = counter("ingested_exemplars_total", "Exemplars taken.")
        self.failed_exemplars = counter("ingested_exemplars_failures_total", "Exemplars refused.")
        self.queried_exemplars = counter("queried_exemplars_total", "Exemplars returned to queries. Ours.")
        self.exemplars_in_storage = gauge("tsdb_exemplar_exemplars_in_storage", "Exemplars in memory, of all tenants.")
        self.exemplar_series = gauge(
            "tsdb_exemplar_series_with_exemplars_in_storage", "Series with exemplars in memory.", ("user",)
        )
        self._exemplars: dict[str, int] = {}
        self.discarded_samples = Counter(
            "cortex_discarded_samples_total",
            "Samples refused, by reason.",
            ("user", "group", "reason"),
            registry=registry,
        )
        self.discarded_exemplars = Counter(
            "cortex_discarded_exemplars_total", "Exemplars refused, by reason.", ("user", "reason"), registry=registry
        )
        self.discarded_metadata = Counter(
            "cortex_discarded_metadata_total", "Metadata refused, by reason.", ("user", "reason"), registry=registry
        )
        self.memory_series = gauge("memory_series", "Series in memory.")
        self.memory_users = gauge("memory_users", "Tenants with an open head.")
        self.head_max_timestamp = gauge("tsdb_head_max_timestamp_seconds", "Newest sample of all tenants.")
        self.push_seconds = counter("push_seconds_total", "Time spent taking samples. Ours.")
        self.pushes = counter("pushes_total", "Calls that brought samples, of one or more requests. Ours.")
        self.queried_series = counter("queried_series_total", "Series returned to queries. Ours.")
        self.queried_samples = counter("queried_samples_total", "Samples returned to queries. Ours.")
        self.wal_replay_bytes = gauge("wal_replay_bytes", "Of the WAL read at the start. Ours.")
        self.wal_corruptions = counter("tsdb_wal_corruptions_total", "Damaged places found in WALs.")

    def count_refusals(self, tenant: str, refusals: Sequence[Refusal]) -> None:
        """By reason: Mimir's error id with underscores."""
        for one in refusals:
            reason = one.reason.replace("-", "_")
            if one.reason.startswith("exemplar-"):
                self.discarded_exemplars.labels(tenant, reason).inc(one.count)
            elif one.reason.startswith("max-metadata-"):
                self.discarded_metadata.labels(tenant, _METADATA_REASONS[one.reason]).inc(one.count)
            else:
                self.discarded_samples.labels(tenant, "", reason).inc(one.count)

    def set_exemplars(self, tenant: str, store: ExemplarStore) -> None:
        """What one tenant has in memory."""
        if not store.capacity and tenant not in self._exemplars:
            return
        self._exemplars[tenant] = len(store)
        self.exemplar_series.labels(tenant).set(store.series)
        self.exemplars_in_storage.set(sum(self._exemplars.values()))

    def forget(self, tenant: str) -> None:
        """A tenant was closed."""
        for family in (self.ingested_samples, self.failed_samples):
            with suppress(KeyError):
                family.remove(tenant)


class TrackingMetrics:
    """Active and owned series, and a tenant's limits here. Upstream: pkg/ingester/metrics.go."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"cortex_ingester_{name}", text, labels, registry=registry)

        self.local_limits = gauge("local_limits", "A tenant's limits, as they hold in this ingester.", "limit", "user")
        self.owned_series = gauge("owned_series", "Series that belong to this ingester by the ring.", "user")
        self.active = (
            gauge("active_series", "Series that were written to lately.", "user"),
            gauge("active_native_histogram_series", "Those with native histograms.", "user"),
            gauge("active_native_histogram_buckets", "Their buckets.", "user"),
        )
        text = "The same of a custom tracker."
        self.tracked = (
            gauge("active_series_custom_tracker", text, "user", "name"),
            gauge("active_native_histogram_series_custom_tracker", text, "user", "name"),
            gauge("active_native_histogram_buckets_custom_tracker", text, "user", "name"),
        )
        self._shown: dict[str, tuple[set[str], ...]] = {}

    def set_active(self, tenant: str, active: ActiveSeries, names: Sequence[str]) -> None:
        """Zero counts are not shown. `names`: of the trackers."""
        for gauge, value in zip(self.active, _numbers(active.total), strict=True):
            if value:
                gauge.labels(tenant).set(value)
            else:
                _remove(gauge, tenant)
        before = self._shown.get(tenant, (set(), set(), set()))
        now: tuple[set[str], ...] = (set(), set(), set())
        for name, counts in zip(names, active.trackers, strict=True):
            for gauge, value, shown in zip(self.tracked, _numbers(counts), now, strict=True):
                if value:
                    gauge.labels(tenant, name).set(value)
                    shown.add(name)
        for gauge, old, new in zip(self.tracked, before, now, strict=True):
            for name in old - new:
                _remove(gauge, tenant, name)
        self._shown[tenant] = now

    def forget(self, tenant: str) -> None:
        """A tenant was closed."""
        self.set_active(tenant, ActiveSeries(), ())
        self._shown.pop(tenant)
        _remove(self.owned_series, tenant)
        _remove(self.local_limits, "max_global_series_per_user", tenant)


def _numbers(counts: ActiveCounts) -> tuple[int, int, int]:
    return counts.series, counts.histogram_series, counts.histogram_buckets


def _remove(gauge: Gauge, *labels: str) -> None:
    with suppress(KeyError):
        gauge.remove(*labels)


class InstanceMetrics:
    """What one ingester takes on. Upstream: pkg/ingester/metrics.go."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"cortex_ingester_{name}", text, labels, registry=registry)

        self.limits = gauge("instance_limits", "What this ingester takes on at once; 0: any number.", "limit")
        self.inflight = gauge("inflight_push_requests", "Push requests under way.")
        self.inflight_bytes = gauge("inflight_push_requests_bytes", "Of the push requests under way.")
        self.rate = gauge("ingestion_rate_samples_per_second", "Samples taken a second, averaged.")
        self.rejected = Counter(
            "cortex_ingester_instance_rejected_requests_total",
            "Push requests refused because of instance limits.",
            ("reason",),
            registry=registry,
        )
        for reason in REJECTIONS:
            self.rejected.labels(reason)


REJECTIONS = (
    "ingester_max_ingestion_rate", "ingester_max_tenants", "ingester_max_series",
    "ingester_max_inflight_push_requests", "ingester_max_inflight_push_requests_bytes",
)  # fmt: skip


class LifeCycleMetrics:
    """From heads to blocks to object storage. Upstream: pkg/ingester/metrics.go, shipper.go."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
            return Counter(f"cortex_ingester_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, labels: tuple[str, ...] = ()) -> Gauge:
            return Gauge(f"cortex_ingester_{name}", text, labels, registry=registry)

        self.series_created = counter("memory_series_created_total", "Series that came into memory.", ("user",))
        self.series_removed = counter("memory_series_removed_total", "Series that left memory.", ("user",))
        self.late_samples = counter("tsdb_out_of_order_samples_appended_total", "Late samples taken.", ("user",))
        self.blocks_bytes = gauge("tsdb_storage_blocks_bytes", "Of blocks on this machine.", ("user",))
        self.blocks_loaded = gauge("tsdb_blocks_loaded", "Blocks on this machine.")
        self.loaded_index_bytes = gauge("tsdb_blocks_index_bytes", "Memory of their indexes. Ours.")
        self.symbol_bytes = gauge("tsdb_symbol_table_size_bytes", "Of the strings of series in memory.", ("user",))
        self.compactions_triggered = counter("tsdb_compactions_triggered_total", "Compactions begun.")
        self.compactions = counter("tsdb_compactions_total", "Blocks made from heads.")
        self.compactions_failed = counter("tsdb_compactions_failed_total", "Compactions that failed.")
        self.compaction_seconds = Histogram(
            "cortex_ingester_tsdb_compaction_duration_seconds",
            "How long compactions took.",
            buckets=DURATION_BUCKETS,
            registry=registry,
        )
        self.checkpoints = counter("tsdb_checkpoint_creations_total", "Checkpoints written.")
        self.checkpoints_failed = counter("tsdb_checkpoint_creations_failed_total", "Checkpoints not written.")
        self.truncations_failed = counter("tsdb_wal_truncations_failed_total", "WAL segments not removed.")
        self.wal_writes_failed = counter("tsdb_wal_writes_failed_total", "Records that the disk refused.")
        self.shipper_syncs = counter("shipper_dir_syncs_total", "Looks for blocks to upload.")
        self.shipper_sync_failures = counter("shipper_dir_sync_failures_total", "Looks after which some are left.")
        self.shipper_uploads = counter("shipper_uploads_total", "Blocks uploaded.")
        self.shipper_upload_failures = counter("shipper_upload_failures_total", "Uploads of blocks that failed.")
        self.shipper_last_upload = gauge(
            "shipper_last_successful_upload_timestamp_seconds", "When a block was uploaded last."
        )
        self.oldest_unshipped = gauge(
            "oldest_unshipped_block_timestamp_seconds", "When the oldest block begins that is not uploaded; 0: none."
        )
        self.idle_closed = counter("idle_tsdb_checks_total", "Looks at tenants whether to close them.", ("result",))
        for result in IDLE_RESULTS:
            self.idle_closed.labels(result)
        self._selections: dict[str, CacheStats] = {}
        self._selections_closed = CacheStats()

    def count(self, tenant: str, before: DatabaseStats | None, now: DatabaseStats) -> None:
        """Adds what changed since the last look at a tenant's database."""

        def grown(of: str) -> int:
            return int(getattr(now, of)) - (int(getattr(before, of)) if before else 0)

        created = now.head.created - (before.head.created if before else 0)
        removed = now.head.removed - (before.head.removed if before else 0)
        late = now.head.appended_late - (before.head.appended_late if before else 0)
        self._selections[tenant] = now.head.selections
        self.series_created.labels(tenant).inc(created)
        self.series_removed.labels(tenant).inc(removed)
        self.late_samples.labels(tenant).inc(late)
        self.checkpoints.inc(grown("checkpoints"))
        self.checkpoints_failed.inc(grown("checkpoint_failures"))
        self.truncations_failed.inc(grown("wal_truncation_failures"))
        self.wal_writes_failed.inc(grown("wal_failures"))
        self.blocks_bytes.labels(tenant).set(now.block_bytes)
        self.symbol_bytes.labels(tenant).set(now.head.symbol_bytes)

    def selections(self) -> CacheStats:
        """Of all tenants, those that were closed too."""
        found = [*list(self._selections.values()), self._selections_closed]
        return CacheStats(*(sum(column) for column in zip(*found, strict=True)))

    def forget(self, tenant: str) -> None:
        """A tenant was closed."""
        gone, before = self._selections.pop(tenant, CacheStats()), self._selections_closed
        self._selections_closed = CacheStats(before.requests + gone.requests, before.hits + gone.hits, 0)
        for family in (
            self.series_created, self.series_removed, self.late_samples, self.blocks_bytes, self.symbol_bytes
        ):  # fmt: skip
            with suppress(KeyError):
                family.remove(tenant)


IDLE_RESULTS = (
    "not_idle", "not_compacted", "not_shipped", "closed", "busy"
)  # fmt: skip


_METADATA_REASONS = {
    "max-metadata-per-user": "per_user_metadata_limit",
    "max-metadata-per-metric": "per_metric_metadata_limit",
}
