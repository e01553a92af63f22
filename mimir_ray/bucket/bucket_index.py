"""`BucketIndex`: which blocks a tenant has, in one object, so that readers need not list the bucket.

The compactor writes it at every clean-up; queriers and store-gateways read it. Version 2 of Mimir's format
(gzipped JSON); a missing index means that the tenant has no blocks yet.
Upstream: pkg/storage/tsdb/bucketindex/index.go.
"""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass, field
from typing import Any

import orjson

from mimir_ray.errors import Corruption
from mimir_ray.model.tenant import TenantId
from mimir_ray.tsdb.block.meta import COMPACTOR_SHARD_LABEL, OUT_OF_ORDER_LABEL, BlockMeta, is_ulid

from .layout import bucket_index_key
from .store import Bucket, ObjectNotFound

VERSION = 2
SEGMENTS_1B6D = "1b6d"
"""Chunk segments are called 000001 to N."""


@dataclass(eq=False)
class DamagedIndex(Corruption):
    """A bucket index that cannot be read."""

    key: str
    reason: str

    def describe(self) -> str:
        return f"{self.key}: {self.reason}"


@dataclass(frozen=True, slots=True)
class IndexedBlock:
    """Samples are in [min_time, max_time) (ms); `uploaded_at` and times of marks are unix seconds."""

    ulid: str
    min_time: int
    max_time: int
    uploaded_at: int = 0
    segments: int = 0
    compactor_shard: str = ""
    source: str = ""
    level: int = 1
    out_of_order: bool = False
    labels: dict[str, str] = field(default_factory=dict, hash=False)

    @classmethod
    def of_meta(cls, meta: BlockMeta, uploaded_at: int) -> IndexedBlock:
        """What the index says of a block."""
        thanos = meta.thanos
        labels = dict(thanos.labels) if thanos else {}
        return cls(
            meta.ulid,
            meta.min_time,
            meta.max_time,
            uploaded_at,
            len(thanos.segment_files) if thanos else 0,
            labels.get(COMPACTOR_SHARD_LABEL, ""),
            thanos.source if thanos else "",
            meta.compaction.level,
            meta.out_of_order or labels.get(OUT_OF_ORDER_LABEL) == "true",
            labels,
        )

    def overlaps(self, mint: int, maxt: int) -> bool:
        """Whether it may have samples in [mint, maxt]."""
        return self.min_time <= maxt and mint < self.max_time


@dataclass(frozen=True, slots=True)
class BucketIndex:
    """`deletion_marks`: ULID → when it was marked, unix seconds. `updated_at`: unix seconds."""

    blocks: tuple[IndexedBlock, ...] = ()
    deletion_marks: dict[str, int] = field(default_factory=dict)
    updated_at: int = 0

    def to_bytes(self) -> bytes:
        """The object's content."""
        body = {
            "version": VERSION,
            "blocks": [_block(one) for one in self.blocks],
            "block_deletion_marks": [
                {"block_id": ulid, "deletion_time": at} for ulid, at in sorted(self.deletion_marks.items())
            ],
            "updated_at": self.updated_at,
        }
        return gzip.compress(orjson.dumps(body), mtime=0)

    @classmethod
    def from_bytes(cls, data: bytes, key: str = "bucket-index.json.gz") -> BucketIndex:
        """Raises `DamagedIndex`."""
        try:
            body = orjson.loads(gzip.decompress(data))
            if body["version"] not in (1, VERSION):
                raise ValueError(f"unexpected version {body['version']}")
            blocks = tuple(_parse(one) for one in body.get("blocks") or ())
            marks = {
                _ulid(one["block_id"]): _number(one["deletion_time"]) for one in body.get("block_deletion_marks") or ()
            }
            return cls(blocks, marks, _number(body.get("updated_at") or 0))
        except (OSError, EOFError, zlib.error, ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            raise DamagedIndex(key, f"no bucket index: {error}") from None


def read_bucket_index(bucket: Bucket, tenant: TenantId) -> BucketIndex | None:
    """None where there is none. Raises `DamagedIndex` and `BucketUnavailable`."""
    key = bucket_index_key(tenant)
    try:
        data = bucket.get(key)
    except ObjectNotFound:
        return None
    return BucketIndex.from_bytes(data, key)


def write_bucket_index(bucket: Bucket, tenant: TenantId, index: BucketIndex) -> None:
    bucket.put(bucket_index_key(tenant), index.to_bytes())


def _block(one: IndexedBlock) -> dict[str, Any]:
    body: dict[str, Any] = {
        "block_id": one.ulid,
        "min_time": one.min_time,
        "max_time": one.max_time,
        "segments_format": SEGMENTS_1B6D if one.segments else "",
        "segments_num": one.segments,
        "uploaded_at": one.uploaded_at,
        "compactor_shard_id": one.compactor_shard,
        "source": one.source,
        "compaction_level": one.level,
        "labels": one.labels,
    }
    if one.out_of_order:
        body["out_of_order"] = True
    return body


def _ulid(text: object) -> str:
    if not isinstance(text, str) or not is_ulid(text):
        raise ValueError(f"no ULID: {text!r}")
    return text


def _number(value: Any) -> int:
    number = int(value)
    if not -(1 << 63) <= number < 1 << 63:
        raise ValueError(f"{number} is out of range")
    return number


def _parse(body: dict[str, Any]) -> IndexedBlock:
    return IndexedBlock(
        _ulid(body["block_id"]),
        _number(body["min_time"]),
        _number(body["max_time"]),
        _number(body.get("uploaded_at") or 0),
        _number(body.get("segments_num") or 0),
        str(body.get("compactor_shard_id") or ""),
        str(body.get("source") or ""),
        _number(body.get("compaction_level") or 0),
        bool(body.get("out_of_order")),
        {str(name): str(value) for name, value in (body.get("labels") or {}).items()},
    )
