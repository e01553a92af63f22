"""What caches tell: how often they were asked, how often they knew, how much they hold.

A cache counts in its own fields, which costs nothing worth naming; a scrape reads them. Upstream: dskit cache/lru.go,
whose families these are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from mimir_ray.telemetry.metrics import on_scrape


class CacheStats(NamedTuple):
    """`requests`, `hits`: since the start; `items`: now."""

    requests: int = 0
    hits: int = 0
    items: int = 0


CacheSource = Callable[[], CacheStats]


def of_function(function: Any) -> CacheSource:
    """Of a function under `functools.lru_cache`."""

    def stats() -> CacheStats:
        info = function.cache_info()
        return CacheStats(info.hits + info.misses, info.hits, info.currsize)

    return stats


def show_caches(registry: CollectorRegistry, caches: Mapping[str, CacheSource]) -> None:
    """Has a registry tell of these caches, by name. Once a registry: families stand in an exposition once."""

    def families() -> Iterable[Metric]:
        requests = CounterMetricFamily("cortex_cache_memory_requests_total", "Look-ups.", labels=("name",))
        hits = CounterMetricFamily("cortex_cache_memory_hits_total", "Those that found something.", labels=("name",))
        items = GaugeMetricFamily("cortex_cache_memory_items_count", "Entries of the cache.", labels=("name",))
        for name, source in sorted(caches.items()):
            stats = source()
            requests.add_metric((name,), stats.requests)
            hits.add_metric((name,), stats.hits)
            items.add_metric((name,), stats.items)
        return requests, hits, items

    on_scrape(registry, families)
