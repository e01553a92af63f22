"""Caches tell how often they were asked, how often they knew, and how much they hold."""

from __future__ import annotations

from functools import lru_cache

from prometheus_client import CollectorRegistry

from mimir_ray.promql.caches import shared_caches
from mimir_ray.promql.engine import Engine
from mimir_ray.promql.remembered import Remembered
from mimir_ray.telemetry.caches import CacheStats, of_function, show_caches
from mimir_ray.telemetry.metrics import expose
from mimir_ray.wire.otlp.caches import otlp_caches


def test_a_cache_counts_and_a_scrape_shows_it() -> None:
    registry = CollectorRegistry()
    remembered: Remembered[int] = Remembered(2)
    function = lru_cache(maxsize=2)(lambda text: text.upper())
    show_caches(registry, {"numbers": lambda: remembered.stats, "texts": of_function(function)})
    for key in (1, 1, 2, 3, 1):
        remembered.get(key, lambda: 5)
    for text in ("a", "a", "a"):
        function(text)
    assert remembered.stats == CacheStats(requests=5, hits=1, items=2)
    told = expose(registry).decode()
    for line in (
        'cortex_cache_memory_requests_total{name="numbers"} 5.0',
        'cortex_cache_memory_hits_total{name="numbers"} 1.0',
        'cortex_cache_memory_items_count{name="numbers"} 2.0',
        'cortex_cache_memory_requests_total{name="texts"} 3.0',
        'cortex_cache_memory_hits_total{name="texts"} 2.0',
    ):
        assert line in told.splitlines()
    assert told.count("# TYPE cortex_cache_memory_hits_total counter") == 1


def test_an_engine_tells_of_what_it_has_parsed_and_planned() -> None:
    engine = Engine()
    for _ in range(3):
        engine.plan("sum(up)", 0, 1000, 15)
    stats = {name: source() for name, source in engine.caches().items()}
    assert stats == {"parsed-queries": CacheStats(3, 2, 1), "plans": CacheStats(3, 2, 1)}


def test_what_a_process_shares_has_names_of_its_own() -> None:
    names = [*Engine().caches(), *shared_caches(), *otlp_caches()]
    assert len(set(names)) == len(names)
    assert all(source().items >= 0 for source in (*shared_caches().values(), *otlp_caches().values()))
