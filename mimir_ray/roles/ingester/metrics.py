"""What ingesters tell about themselves, under Mimir's names."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge


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
        self.discarded_samples = Counter(
            "cortex_discarded_samples_total",
            "Samples refused, by reason.",
            ("user", "group", "reason"),
            registry=registry,
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
