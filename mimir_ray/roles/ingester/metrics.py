"""What ingesters tell about themselves, under Mimir's names."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge

from mimir_ray.model.write import Refusal
from mimir_ray.tsdb.exemplars import ExemplarStore


class IngesterMetrics:
    """Upstream: pkg/ingester/metrics.go."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
            return Counter(f"cortex_ingester_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, labels: tuple[str, ...] = ()) -> Gauge:
            return Gauge(f"cortex_ingester_{name}", text, labels, registry=registry)

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
        self.active_series = gauge("active_series", "Series that got a sample lately.", ("user",))
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


_METADATA_REASONS = {
    "max-metadata-per-user": "per_user_metadata_limit",
    "max-metadata-per-metric": "per_metric_metadata_limit",
}
