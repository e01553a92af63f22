"""From settings to buckets: the one way in which roles come by theirs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry

from .filesystem import FilesystemBucket
from .store import Bucket


@dataclass(frozen=True, slots=True)
class BucketSettings:
    """Where a bucket is: all that a process needs to open it. Picklable."""

    directory: Path


def open_bucket(settings: BucketSettings, component: str, registry: CollectorRegistry) -> Bucket:
    """A bucket whose operations are counted under `component` (ingester, store-gateway, compactor, querier, …)."""
    return FilesystemBucket(settings.directory)
