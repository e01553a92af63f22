"""Settings of object storage: a backend and where on it. Mimir's names (`common.storage`, `blocks_storage`)."""

from __future__ import annotations

from dataclasses import dataclass

from mimir_ray.config.setting import setting
from mimir_ray.config.units import Duration, duration


@dataclass(frozen=True, slots=True)
class FilesystemConfig:
    """The `filesystem` block."""

    dir: str = setting("", flag="blocks-storage.filesystem.dir", help="Empty: `blocks` in the data directory.")


@dataclass(frozen=True, slots=True)
class BucketIndexConfig:
    """`blocks_storage.bucket_store.bucket_index`: how readers keep a tenant's list of blocks."""

    update_on_error_interval: Duration = setting(
        duration("1m"),
        flag="blocks-storage.bucket-store.bucket-index.update-on-error-interval",
        category="advanced",
        minimum=1,
        help="How soon a bucket index that could not be loaded is tried again.",
    )
    idle_timeout: Duration = setting(
        duration("1h"),
        flag="blocks-storage.bucket-store.bucket-index.idle-timeout",
        category="advanced",
        minimum=1,
        help="A bucket index that nobody asked for so long is dropped from memory.",
    )
    max_stale_period: Duration = setting(
        duration("1h"),
        flag="blocks-storage.bucket-store.bucket-index.max-stale-period",
        category="advanced",
        minimum=0,
        help="Queries fail where the bucket index was not updated for so long. 0: never.",
    )
