"""From a tenant's settings to plans: what planning (tsdb/compact/plan.py) is asked for, here and on admin pages."""

from __future__ import annotations

from collections.abc import Iterable

from mimir_ray.bucket.bucket_index import BucketIndex
from mimir_ray.model.tenant import TenantId
from mimir_ray.tsdb.block.meta import COMPACTOR_SHARD_LABEL
from mimir_ray.tsdb.compact.plan import Job, SourceBlock, group_labels, in_order, plan_jobs

from .config import CompactorConfig


def jobs_of(
    config: CompactorConfig, tenant: TenantId, blocks: Iterable[SourceBlock], shards: int, groups: int, now_ms: int
) -> list[Job]:
    """All jobs of the tenant, whosever they are, in the order in which they are done."""
    ranges_ms = [one.ms for one in config.block_ranges]
    return in_order(plan_jobs(tenant, blocks, ranges_ms, shards, groups, now_ms), config.compaction_jobs_order)


def jobs_of_index(
    config: CompactorConfig,
    tenant: TenantId,
    index: BucketIndex,
    no_compact: frozenset[str],
    shards: int,
    groups: int,
    now_ms: int,
) -> list[Job]:
    """The same by a bucket index: an estimate, as an index does not say which blocks are in which."""
    blocks = [
        SourceBlock(
            one.ulid,
            one.min_time,
            one.max_time,
            one.level,
            one.labels.get(COMPACTOR_SHARD_LABEL, one.compactor_shard),
            group_labels(one.labels),
            out_of_order=one.out_of_order,
        )
        for one in index.blocks
        if one.ulid not in index.deletion_marks and one.ulid not in no_compact
    ]
    return jobs_of(config, tenant, blocks, shards, groups, now_ms)
