"""What store-gateways tell about themselves, under Mimir's names."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from mimir_ray.bucket.block_reader import BlockCaches
from mimir_ray.bucket.index_header import HeaderEvents
from mimir_ray.telemetry.metrics import DURATION_BUCKETS, Tally, on_scrape

_LOAD_BUCKETS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 15, 30, 60, 120)


class StoreGatewayMetrics(HeaderEvents):
    """Families of one process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry

        def counter(name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
            return Counter(name, text, labels, registry=registry)

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(name, text, registry=registry)

        store = "cortex_bucket_store"
        self.blocks_loaded = Gauge(
            f"{store}_blocks_loaded", "Blocks that queries can ask for.", ("user",), registry=registry
        )
        self.block_loads = counter(f"{store}_block_loads_total", "Blocks that were taken on.")
        self.block_load_failures = counter(f"{store}_block_load_failures_total", "Blocks that could not be taken on.")
        self.block_drops = counter(f"{store}_block_drops_total", "Blocks that were let go.")
        self.block_drop_failures = counter(f"{store}_block_drop_failures_total", "Local folders that were not removed.")
        self.blocks_queried = Summary(
            f"{store}_series_blocks_queried", "Blocks that one request looked into.", registry=registry
        )
        self.data_fetched = Summary(
            f"{store}_series_data_size_fetched_bytes", "Bytes read from the bucket.", ("data_type",), registry=registry
        )
        self.data_touched = Summary(
            f"{store}_series_data_size_touched_bytes", "Bytes that were decoded.", ("data_type",), registry=registry
        )
        self.stage_seconds = Histogram(
            f"{store}_series_request_stage_duration_seconds",
            "How long the stages of requests took.",
            ("stage",),
            buckets=DURATION_BUCKETS,
            registry=registry,
        )
        self.get_all_seconds = Histogram(
            f"{store}_series_get_all_duration_seconds",
            "How long it took to find series, before chunks are read.",
            buckets=DURATION_BUCKETS,
            registry=registry,
        )
        self.result_series = Summary(f"{store}_series_result_series", "Series of an answer.", registry=registry)
        self.queries_dropped = counter(
            f"{store}_queries_dropped_total", "Requests that were ended by a limit.", ("reason",)
        )
        header = f"{store}_indexheader"
        self.header_loads = counter(f"{header}_lazy_load_total", "Index headers loaded.")
        self.header_load_failures = counter(f"{header}_lazy_load_failed_total", "Index headers that were not loaded.")
        self.header_unloads = counter(f"{header}_lazy_unload_total", "Index headers unloaded.")
        self.header_load_seconds = Histogram(
            f"{header}_lazy_load_duration_seconds",
            "How long loads of index headers took.",
            buckets=_LOAD_BUCKETS,
            registry=registry,
        )
        stores = "cortex_bucket_stores"
        self.tenants_discovered = gauge(f"{stores}_tenants_discovered", "Tenants with a folder in the bucket.")
        self.tenants_synced = gauge(f"{stores}_tenants_synced", "Tenants whose blocks are looked after here.")
        self.sync_seconds = Histogram(
            f"{stores}_blocks_sync_seconds", "How long syncs took.", buckets=DURATION_BUCKETS, registry=registry
        )
        self.last_sync = gauge(f"{stores}_blocks_last_successful_sync_timestamp_seconds", "When a sync last succeeded.")
        self.in_flight = gauge(f"{stores}_gate_queries_in_flight", "Requests that are worked on.")
        self.concurrent_max = gauge(f"{stores}_gate_queries_concurrent_max", "How many may be worked on at once.")
        self.gate_seconds = Histogram(
            f"{stores}_gate_duration_seconds", "How long requests waited.", buckets=DURATION_BUCKETS, registry=registry
        )
        self.syncs = counter("cortex_storegateway_bucket_sync_total", "Syncs, by what set them off.", ("reason",))
        self.sync_failures = counter("mimir_ray_storegateway_bucket_sync_failures_total", "Syncs that failed. Ours.")
        self.looks = counter(
            "mimir_ray_storegateway_fresh_looks_total",
            "Bucket indexes looked at because a query named a block that was not known. Ours.",
        )
        cache = "thanos_store_index_cache"
        self._index_requests = Tally(registry, f"{cache}_requests_total", "Look-ups.", ("item_type",))
        self._index_hits = Tally(registry, f"{cache}_hits_total", "Look-ups that found something.", ("item_type",))
        self._operations = Tally(registry, "thanos_cache_operations_total", "Look-ups.", ("operation", "name"))
        self._cache_hits = Tally(registry, "thanos_cache_hits_total", "Look-ups that found something.", ("name",))

    def fetched(self, kind: str, size: int) -> None:
        """`size` bytes of postings, series or chunks came from the bucket."""
        self.data_fetched.labels(kind).observe(size)

    def index_pages(self, requests: int, hits: int) -> None:
        self._index_requests.cell("Pages").value += requests
        self._index_hits.cell("Pages").value += hits

    def selections(self, hit: bool) -> None:
        self._index_requests.cell("ExpandedPostings").value += 1
        self._index_hits.cell("ExpandedPostings").value += hit

    def verdicts(self, requests: int, hits: int) -> None:
        """Of values that only RE2 can judge."""
        self._index_requests.cell("RegexVerdicts").value += requests
        self._index_hits.cell("RegexVerdicts").value += hits

    def chunk_pages(self, requests: int, hits: int) -> None:
        self._operations.cell("getmulti", "chunks-cache").value += requests
        self._cache_hits.cell("chunks-cache").value += hits

    def show_caches(self, caches: BlockCaches, headers: Callable[[], tuple[int, int]]) -> None:
        """Sizes, as they are at each scrape; `headers`: (loaded, bytes)."""

        def families() -> Iterable[Metric]:
            size = GaugeMetricFamily("mimir_ray_storegateway_cache_bytes", "Held in memory. Ours.", labels=("cache",))
            evicted = CounterMetricFamily(
                "mimir_ray_storegateway_cache_evictions_total", "Entries that had to go. Ours.", labels=("cache",)
            )
            bounded = (("index", caches.index), ("chunks", caches.chunks), ("regex-verdicts", caches.verdicts))
            for name, cache in bounded:
                size.add_metric((name,), cache.bytes)
                evicted.add_metric((name,), cache.evicted)
            loaded, header_bytes = headers()
            size.add_metric(("decoded",), caches.found.bytes)
            size.add_metric(("index-headers",), header_bytes)
            yield size
            yield evicted
            yield GaugeMetricFamily("cortex_bucket_store_indexheader_loaded", "Index headers in memory.", value=loaded)

        on_scrape(self.registry, families)

    # HeaderEvents

    def loaded(self, seconds: float) -> None:
        self.header_loads.inc()
        self.header_load_seconds.observe(seconds)

    def load_failed(self) -> None:
        self.header_load_failures.inc()

    def unloaded(self) -> None:
        self.header_unloads.inc()

    def unload_failed(self) -> None:
        self.block_drop_failures.inc()
