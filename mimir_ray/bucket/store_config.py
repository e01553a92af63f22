"""Settings of whoever reads blocks from the bucket: `blocks_storage.bucket_store`."""

from __future__ import annotations

from dataclasses import dataclass

from mimir_ray.config.setting import block, setting
from mimir_ray.config.units import Bytes, Duration, duration, size

from .config import BucketIndexConfig

_FLAG = "blocks-storage.bucket-store"


@dataclass(frozen=True, slots=True)
class InMemoryCacheConfig:
    """A cache in the process' memory."""

    max_size_bytes: Bytes = setting(size("1GiB"), flag="max-size-bytes", minimum=0, help="How much it holds at most.")


@dataclass(frozen=True, slots=True)
class IndexCacheConfig:
    """Parts of blocks' indexes."""

    inmemory: InMemoryCacheConfig = block(
        InMemoryCacheConfig, prefix=f"{_FLAG}.index-cache.inmemory.", help="Postings and series, as they are stored."
    )
    decoded_max_size_bytes: Bytes = setting(
        size("256MiB"),
        flag=f"{_FLAG}.index-cache.decoded-max-size-bytes",
        category="advanced",
        minimum=0,
        help="How much is held of what matchers selected in blocks: labels and chunk lists, decoded. Ours.",
    )


@dataclass(frozen=True, slots=True)
class ChunksCacheConfig:
    """Chunks of blocks."""

    inmemory: InMemoryCacheConfig = block(
        InMemoryCacheConfig(max_size_bytes=size("512MiB")),
        prefix=f"{_FLAG}.chunks-cache.inmemory.",
        help="Chunks, as they are stored. Ours.",
    )


@dataclass(frozen=True, slots=True)
class IndexHeaderConfig:
    """Local files with what is needed of each block's index."""

    lazy_loading_idle_timeout: Duration = setting(
        duration("1h"),
        flag=f"{_FLAG}.index-header.lazy-loading-idle-timeout",
        category="advanced",
        minimum=1,
        help="An index header that no query needed for so long is unloaded.",
    )
    lazy_loading_concurrency: int = setting(
        4,
        flag=f"{_FLAG}.index-header.lazy-loading-concurrency",
        category="advanced",
        minimum=0,
        help="Index headers that are loaded at once; 0 allows any number.",
    )
    lazy_loading_concurrency_queue_timeout: Duration = setting(
        duration("5s"),
        flag=f"{_FLAG}.index-header.lazy-loading-concurrency-queue-timeout",
        category="advanced",
        minimum=1,
        help="A query fails where it waited so long for an index header to be loaded.",
    )


@dataclass(frozen=True, slots=True)
class BucketStoreConfig:
    """The `bucket_store` block of `blocks_storage`."""

    sync_dir: str = setting(
        "",
        flag=f"{_FLAG}.sync-dir",
        help="Where store-gateways keep index headers; empty: `tsdb-sync` in the data directory.",
    )
    sync_interval: Duration = setting(
        duration("15m"),
        flag=f"{_FLAG}.sync-interval",
        category="advanced",
        minimum=1,
        help="How often bucket indexes are looked at for new and deleted blocks.",
    )
    max_concurrent: int = setting(
        200,
        flag=f"{_FLAG}.max-concurrent",
        category="advanced",
        minimum=1,
        help="Requests that one store-gateway works on at once; more wait.",
    )
    max_concurrent_queue_timeout: Duration = setting(
        duration("5s"),
        flag=f"{_FLAG}.max-concurrent-queue-timeout",
        category="advanced",
        minimum=1,
        help="A request that waited so long for its turn fails.",
    )
    tenant_sync_concurrency: int = setting(
        1,
        flag=f"{_FLAG}.tenant-sync-concurrency",
        category="advanced",
        minimum=1,
        help="Tenants whose bucket indexes are looked at at once.",
    )
    block_sync_concurrency: int = setting(
        4,
        flag=f"{_FLAG}.block-sync-concurrency",
        category="advanced",
        minimum=1,
        help="Blocks that one query looks into at once, and ranges that are read from the bucket at once for it.",
    )
    ignore_deletion_marks_delay: Duration = setting(
        duration("1h"),
        flag=f"{_FLAG}.ignore-deletion-marks-delay",
        category="advanced",
        minimum=0,
        help="Store-gateways leave out blocks that were marked for deletion longer ago.",
    )
    ignore_deletion_marks_while_querying_delay: Duration = setting(
        duration("50m"),
        flag=f"{_FLAG}.ignore-deletion-marks-while-querying-delay",
        category="advanced",
        minimum=0,
        help="Queries leave out blocks that were marked for deletion longer ago. To be shorter than the delay of "
        "store-gateways.",
    )
    ignore_blocks_within: Duration = setting(
        duration("10h"),
        flag=f"{_FLAG}.ignore-blocks-within",
        category="advanced",
        minimum=0,
        help="Blocks whose first sample is younger are not loaded before a query asks for them: ingesters have their "
        "samples. 0 loads all.",
    )
    bucket_index: BucketIndexConfig = block(BucketIndexConfig, help="Bucket indexes in memory.")
    index_cache: IndexCacheConfig = block(IndexCacheConfig, help="Cache of parts of indexes.")
    chunks_cache: ChunksCacheConfig = block(ChunksCacheConfig, help="Cache of chunks. Ours: in memory only.")
    index_header: IndexHeaderConfig = block(IndexHeaderConfig, help="Index headers.")
