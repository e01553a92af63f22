"""Blocks in the folder of a filesystem bucket, made of text and points, and the bucket index over them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from mimir_ray.bucket.bucket_index import BucketIndex, IndexedBlock
from mimir_ray.bucket.layout import bucket_index_key
from mimir_ray.bucket.store import Bucket
from mimir_ray.model.labels import LabelColumns, Labels
from mimir_ray.model.tenant import TenantId
from mimir_ray.tsdb.block.chunk_merge import encode_runs
from mimir_ray.tsdb.block.meta import BlockMeta, make_ulid
from mimir_ray.tsdb.block.writer import write_block

Series = Sequence[tuple[Labels, Sequence[tuple[int, float]]]]


def ulid_of(number: int) -> str:
    """The number-th ULID of a test."""
    return make_ulid(1_700_000_000_000, number.to_bytes(10, "big"))


def put_block(
    root: Path,
    tenant: TenantId,
    series: Series,
    number: int = 0,
    labels: dict[str, str] | None = None,
    samples_per_chunk: int = 120,
    segment_bytes: int = 512 << 20,
) -> BlockMeta:
    """Block `ulid_of(number)` of these series in the bucket at `root`; its range ends behind the last sample."""
    flat = [point for _, points in series for point in points]
    offsets = np.concatenate(([0], np.cumsum([len(points) for _, points in series]))).astype(np.int64)
    times = np.array([time for time, _ in flat], np.int64)
    values = np.array([value for _, value in flat], np.float64)
    table, data = encode_runs(offsets, times, values, samples_per_chunk)
    mint, maxt = (int(times.min()), int(times.max()) + 1) if len(times) else (0, 0)
    columns = LabelColumns.from_labels([one for one, _ in series])
    return write_block(
        root / tenant, ulid_of(number), columns, table, [data], mint, maxt, thanos_labels=labels,
        segment_bytes=segment_bytes,
    )  # fmt: skip


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
    bucket.put(bucket_index_key(tenant), index.to_bytes())
    return index
