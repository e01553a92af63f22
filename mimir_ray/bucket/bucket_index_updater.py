"""A tenant's new bucket index from the old one, a listing and the marks. Reads the bucket and writes nothing.

Blocks and deletion marks do not change once they are there, so only new ones are read.
Upstream: pkg/storage/tsdb/bucketindex/updater.go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import structlog

from mimir_ray.errors import Corruption
from mimir_ray.model.tenant import TenantId
from mimir_ray.tsdb.block.errors import DamagedBlock
from mimir_ray.tsdb.block.meta import META_FILE, BlockMeta, is_ulid

from .bucket_index import BucketIndex, IndexedBlock
from .layout import block_key, tenant_prefix
from .markers import Marks, list_marks, read_deletion_mark
from .store import Bucket, ObjectNotFound

log = structlog.get_logger(__name__)

READS_AT_ONCE = 16

Item = TypeVar("Item")
Read = TypeVar("Read")


@dataclass(eq=False)
class PartialBlock(Corruption):
    """A folder of a block that is not there yet, or no longer: its meta.json is missing or damaged."""

    ulid: str
    reason: str
    meta_missing: bool

    def describe(self) -> str:
        return f"block {self.ulid} is partial: {self.reason}"


@dataclass(frozen=True, slots=True)
class IndexUpdate:
    """`partial`: ULID → what is wrong. `marks`: as they were listed, of blocks that are gone too."""

    index: BucketIndex
    partial: dict[str, PartialBlock]
    marks: Marks


def update_bucket_index(
    bucket: Bucket,
    tenant: TenantId,
    old: BucketIndex | None,
    now_ms: int,
    reads_at_once: int = READS_AT_ONCE,
) -> IndexUpdate:
    """The index as of now. Without an old one everything is read.

    Raises `BucketUnavailable` where the bucket cannot be listed or something new cannot be read: an index without it
    would hide blocks.
    """
    # Marks before blocks: what replaces a block is there before that is marked, so whoever finds the mark finds it.
    # The other way round a block could be passed over as marked while its successor is in no index yet.
    marks = list_marks(bucket, tenant)
    found = {name for name in bucket.list_folders(tenant_prefix(tenant)) if is_ulid(name)}
    kept = {block.ulid: block for block in (old.blocks if old else ()) if block.ulid in found}
    marked = {ulid: at for ulid, at in (old.deletion_marks if old else {}).items() if ulid in marks.deletion}

    partial: dict[str, PartialBlock] = {}
    with ThreadPoolExecutor(max(1, reads_at_once), "bucket-index") as pool:
        for ulid, block in _read(pool, sorted(found - kept.keys()), lambda ulid: _block(bucket, tenant, ulid)):
            if isinstance(block, PartialBlock):
                partial[ulid] = block
            else:
                kept[ulid] = block
        new = sorted(marks.deletion - marked.keys())
        times = _read(pool, new, lambda ulid: _marked(bucket, tenant, ulid))
        marked.update({ulid: at for ulid, at in times if at is not None})
    blocks = tuple(kept[ulid] for ulid in sorted(kept))
    return IndexUpdate(BucketIndex(blocks, marked, now_ms // 1000), partial, marks)


def _read(pool: ThreadPoolExecutor, items: list[Item], read: Callable[[Item], Read]) -> Iterable[tuple[Item, Read]]:
    return zip(items, pool.map(read, items), strict=True)


def _block(bucket: Bucket, tenant: TenantId, ulid: str) -> IndexedBlock | PartialBlock:
    key = block_key(tenant, ulid, META_FILE)
    try:
        data = bucket.get(key)
        # It is the last object of a block, so its time is when the block was complete.
        uploaded_ms = bucket.info(key).modified_ms
        meta = BlockMeta.from_json(data, key)
        if meta.ulid != ulid:
            raise DamagedBlock(key, 0, f"it is of block {meta.ulid}")
    except ObjectNotFound:
        return PartialBlock(ulid, "it has no meta.json", True)
    except DamagedBlock as error:
        log.error("block left out of the bucket index", user=tenant, block=ulid, error=str(error))
        return PartialBlock(ulid, str(error), False)
    return IndexedBlock.of_meta(meta, uploaded_ms // 1000)


def _marked(bucket: Bucket, tenant: TenantId, ulid: str) -> int | None:
    """When it was marked, unix seconds; None where the mark is gone again, or says nothing."""
    try:
        mark = read_deletion_mark(bucket, tenant, ulid)
    except Corruption as error:
        log.error("damaged deletion mark left out of the bucket index", user=tenant, block=ulid, error=str(error))
        return None
    return mark.deletion_time if mark else None
