"""Blocks in the folder of a filesystem bucket, made of text and points, and the bucket index over them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mimir_ray.bucket.bucket_index import BucketIndex, IndexedBlock, write_bucket_index
from mimir_ray.bucket.store import Bucket
from mimir_ray.model.labels import Labels
from mimir_ray.model.tenant import TenantId
from mimir_ray.tsdb.block.meta import BlockMeta, make_ulid

from .blocks import Points, make_block


def ulid_of(number: int) -> str:
    """The number-th ULID of a test."""
    return make_ulid(1_700_000_000_000, number.to_bytes(10, "big"))


def put_block(
    root: Path, tenant: TenantId, series: Sequence[tuple[Labels, Points]], number: int = 0, **more: Any
) -> BlockMeta:
    """Block `ulid_of(number)` of these series in the bucket at `root`; its range ends behind the last sample."""
    return make_block(root / tenant, series, ulid_of(number), **more)


def put_index(
    bucket: Bucket,
    tenant: TenantId,
    metas: Iterable[BlockMeta],
    updated_s: int,
    uploaded_s: int = 1,
    marks: dict[str, int] | None = None,
) -> BucketIndex:
    """A bucket index of these blocks; `marks`: ULID → when it was marked for deletion, unix seconds."""
    blocks = tuple(IndexedBlock.of_meta(meta, uploaded_s) for meta in metas)
    index = BucketIndex(blocks, marks or {}, updated_s)
    write_bucket_index(bucket, tenant, index)
    return index
