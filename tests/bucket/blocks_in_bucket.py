"""Blocks as far as bucket indexes look at them: a meta.json in a folder."""

from __future__ import annotations

from mimir_ray.bucket.layout import META, block_key
from mimir_ray.bucket.store import Bucket
from mimir_ray.model.tenant import TenantId
from mimir_ray.tsdb.block.meta import BlockMeta, Compaction, Thanos, make_ulid

TENANT = TenantId("team-a")
NOW_MS = 1_700_000_000_000


def ulid(number: int) -> str:
    return make_ulid(NOW_MS + number, bytes(10))


def put_meta(bucket: Bucket, number: int, tenant: TenantId = TENANT) -> BlockMeta:
    """A block of two hours, the n-th of its tenant."""
    name, start = ulid(number), NOW_MS + number * 7_200_000
    meta = BlockMeta(name, start, start + 7_200_000)
    meta.compaction = Compaction(2, [name])
    meta.thanos = Thanos({"__compactor_shard_id__": "1_of_2"}, "compactor", ["000001"])
    bucket.put(block_key(tenant, name, META), meta.to_json())
    return meta
