"""From settings to buckets: the one way in which roles come by theirs."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client import CollectorRegistry

from mimir_ray.clock import SystemClock

from .config import OperationsConfig, StorageBackendConfig, StorageConfig
from .filesystem import FilesystemBucket
from .metrics import BucketMetrics, once
from .observed import Bound, ObservedBucket
from .retry import Retry
from .store import Bucket, PrefixedBucket


@dataclass(frozen=True, slots=True)
class BucketSettings:
    """Where a bucket is: all that a process needs to open it. Picklable. `directory`: of backend `filesystem`."""

    directory: Path
    storage: StorageConfig = field(default_factory=StorageConfig)


def open_bucket(settings: BucketSettings, component: str, registry: CollectorRegistry) -> Bucket:
    """A bucket whose operations are counted under `component` (ingester, store-gateway, compactor, querier, …).

    All that a process opens of one place share connections and the bound on operations at once. Raises
    `BackendNotInstalled`.
    """
    metrics = once(BucketMetrics, registry)
    operations = settings.storage.operations
    retry = Retry(operations, retried=lambda operation: metrics.retries.labels(operation, component).inc())
    bucket = _backend(settings, retry)
    if settings.storage.storage_prefix:
        bucket = PrefixedBucket(bucket, f"{settings.storage.storage_prefix}/")
    return ObservedBucket(bucket, component, metrics, _bound(settings.storage.where, operations), SystemClock())


_bounds: dict[tuple[StorageBackendConfig, OperationsConfig], Bound] = {}
_lock = threading.Lock()


def _bound(where: StorageBackendConfig, operations: OperationsConfig) -> Bound:
    """One for each place in a process; there are as many as there are stores in the configuration."""
    with _lock:
        return _bounds.setdefault((where, operations), Bound(operations.max_concurrency, operations.max_wait))


def _backend(settings: BucketSettings, retry: Retry) -> Bucket:
    where = settings.storage.where
    if where.backend == "s3":
        from .s3 import S3Bucket  # noqa: PLC0415  (its imports cost each process that does not use S3)

        return S3Bucket(where.s3, retry, settings.storage.operations.max_concurrency)
    if where.backend in ("gcs", "azure"):
        from .remote import open_azure, open_gcs  # noqa: PLC0415  (as above)

        return open_gcs(where.gcs, retry) if where.backend == "gcs" else open_azure(where.azure, retry)
    assert where.backend == "filesystem", where.backend  # others are refused when settings are read
    return FilesystemBucket(settings.directory)
