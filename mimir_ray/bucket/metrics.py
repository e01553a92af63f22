"""What buckets tell about themselves, under the names that Mimir's dashboards ask for.

Several roles of one process use one registry, so its metrics are made by whoever comes first and shared by all.
Upstream: thanos-io/objstore objstore.go, pkg/storage/tsdb/bucketindex/loader.go.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar
from weakref import WeakKeyDictionary

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

Metrics = TypeVar("Metrics")

_DURATIONS_S = (0.001, 0.01, 0.1, 0.3, 0.6, 1, 3, 6, 9, 20, 30, 60, 90, 120)
_LOAD_DURATIONS_S = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 1, 10)

_made: WeakKeyDictionary[CollectorRegistry, dict[type, object]] = WeakKeyDictionary()
_lock = threading.Lock()


def once(make: Callable[[CollectorRegistry], Metrics], registry: CollectorRegistry) -> Metrics:
    """The metrics of this class in a registry; made when first asked for."""
    with _lock:
        known = _made.setdefault(registry, {})
        if make not in known:
            known[make] = make(registry)
        return known[make]


class BucketMetrics:
    """Operations on object storage, by `component` (the role that asks)."""

    def __init__(self, registry: CollectorRegistry) -> None:
        both = ("operation", "component")
        self.operations = Counter(
            "thanos_objstore_bucket_operations_total", "Operations asked of object storage.", both, registry=registry
        )
        self.failures = Counter(
            "thanos_objstore_bucket_operation_failures_total",
            "Operations that failed for good; an object that is not there is no failure.",
            both,
            registry=registry,
        )
        self.seconds = Histogram(
            "thanos_objstore_bucket_operation_duration_seconds",
            "How long operations took, attempts and pauses between them included.",
            both,
            buckets=_DURATIONS_S,
            registry=registry,
        )
        self.retries = Counter(
            "mimir_ray_bucket_operation_retries_total", "Attempts after the first. Ours.", both, registry=registry
        )
        self.bytes = Counter(
            "mimir_ray_bucket_operation_transferred_bytes_total",
            "Bytes of objects read and written. Ours.",
            both,
            registry=registry,
        )
        self.last_upload = Gauge(
            "thanos_objstore_bucket_last_successful_upload_time",
            "When something was written last, unix seconds.",
            ("component",),
            registry=registry,
        )
        self.in_flight = Gauge(
            "mimir_ray_bucket_operations_in_flight",
            "Operations that are running. Ours.",
            ("component",),
            registry=registry,
        )
        self.waiting = Gauge(
            "mimir_ray_bucket_operations_waiting",
            "Operations that wait because as many as allowed are running. Ours.",
            ("component",),
            registry=registry,
        )


class IndexLoaderMetrics:
    """Bucket indexes as readers hold them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.loads = Counter("cortex_bucket_index_loads_total", "Attempts to load a bucket index.", registry=registry)
        self.failures = Counter(
            "cortex_bucket_index_load_failures_total", "Loads of a bucket index that failed.", registry=registry
        )
        self.seconds = Histogram(
            "cortex_bucket_index_load_duration_seconds",
            "How long successful loads took.",
            buckets=_LOAD_DURATIONS_S,
            registry=registry,
        )
        self.loaded = Gauge("cortex_bucket_index_loaded", "Bucket indexes held in memory.", registry=registry)
