"""Which blocks of a tenant are compacted together: split and merge, as Mimir plans it. Pure.

    level 1 blocks of a range of the smallest length ──split──▶ one block a shard ──merge──▶ … ──merge──▶ largest range

Blocks with different external labels or resolutions never meet. Ranges are aligned to their length and planned in
ascending order, so that a longer one waits for the shorter ones inside it.
Upstream: pkg/compactor/split_merge_grouper.go, split_merge_job.go, job_sorting.go.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from ulid import ULID

from mimir_ray.encoding.hashing import fnv1_32_of, fnv1a_32_of, xxhash64_of
from mimir_ray.tsdb.block.meta import COMPACTOR_SHARD_LABEL, OUT_OF_ORDER_LABEL, BlockMeta

Stage = Literal["split", "merge"]
Order = Literal["smallest-range-oldest-blocks-first", "newest-blocks-first"]

DEPRECATED_LABELS = ("__org_id__", "__ingester_id__", "__shard_id__")
"""External labels of older versions: kept out of grouping and out of compacted blocks."""
_SHARD = re.compile(r"([1-9][0-9]{0,8})_of_([1-9][0-9]{0,8})\Z")


def format_shard(index: int, count: int) -> str:
    """The label value of shard `index`, counted from 0."""
    return f"{index + 1}_of_{count}"


def parse_shard(text: str) -> tuple[int, int] | None:
    """(index from 0, count) of a shard label; None if it is none."""
    found = _SHARD.match(text)
    if found is None or int(found[1]) > int(found[2]):
        return None
    return int(found[1]) - 1, int(found[2])


@dataclass(frozen=True, slots=True)
class SourceBlock:
    """What planning looks at. Samples are in [min_time, max_time) (ms). `labels`: external ones, sorted,
    without deprecated ones and the shard's, which is `shard`."""

    ulid: str
    min_time: int
    max_time: int
    level: int = 1
    shard: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    resolution: int = 0
    out_of_order: bool = False
    sources: frozenset[str] = field(default=frozenset())

    @classmethod
    def of_meta(cls, meta: BlockMeta) -> SourceBlock:
        labels = meta.thanos.labels if meta.thanos else {}
        return cls(
            meta.ulid,
            meta.min_time,
            meta.max_time,
            meta.compaction.level,
            labels.get(COMPACTOR_SHARD_LABEL, ""),
            group_labels(labels),
            meta.thanos.resolution if meta.thanos else 0,
            meta.out_of_order or labels.get(OUT_OF_ORDER_LABEL) == "true",
            frozenset(meta.compaction.sources),
        )

    @property
    def group(self) -> str:
        """Equal for blocks that may be compacted together. Upstream: defaultGroupKey."""
        text = b"".join(name.encode() + b"\xff" + value.encode() + b"\xff" for name, value in self.labels)
        return f"{self.resolution}@{xxhash64_of(text)}"


def group_labels(labels: dict[str, str]) -> tuple[tuple[str, str], ...]:
    """The external labels that keep blocks apart."""
    ignored = (COMPACTOR_SHARD_LABEL, *DEPRECATED_LABELS)
    return tuple(sorted((name, value) for name, value in labels.items() if name not in ignored))


@dataclass(frozen=True, slots=True)
class Job:
    """Blocks that become one block, or one a shard. `shard`: of a merge, that of all its blocks; of a split, which
    group of blocks it is. `shards`: how many a split makes; 0 for a merge. `blocks`: ascending by min_time."""

    tenant: str
    stage: Stage
    shard: str
    range_start: int
    range_end: int
    blocks: tuple[SourceBlock, ...]
    shards: int = 0

    @property
    def key(self) -> str:
        """Unique among the jobs of a tenant; fit for a file name."""
        return f"{self.blocks[0].group}-{self.stage}-{self.shard}-{self.range_start}-{self.range_end}"

    @property
    def sharding_key(self) -> str:
        """Its FNV-1a hash is looked up in the ring. Upstream: job.shardingKey."""
        return f"{self.tenant}-{self.stage}-{self.range_start}-{self.range_end}-{self.shard}"

    @property
    def token(self) -> int:
        """Whose job it is: that of the ring's owner of this key."""
        return fnv1a_32_of(self.sharding_key.encode())

    @property
    def min_time(self) -> int:
        return self.blocks[0].min_time

    @property
    def max_time(self) -> int:
        return max(one.max_time for one in self.blocks)

    @property
    def range_length(self) -> int:
        return self.range_end - self.range_start

    @property
    def ulids(self) -> list[str]:
        return sorted(one.ulid for one in self.blocks)

    def conflicts(self, other: Job) -> bool:
        """Whether the two, of one group, must not be planned together."""
        if self.range_start >= other.range_end or other.range_start >= self.range_end:
            return False
        return self.stage != other.stage or self.shard == other.shard


def plan_jobs(
    tenant: str, blocks: Iterable[SourceBlock], ranges_ms: Sequence[int], shards: int, split_groups: int, now_ms: int
) -> list[Job]:
    """All jobs that can run now, side by side, on whichever compactors own them; sorted by sharding key.

    Args:
        blocks: without those that are marked for deletion or not to be compacted, and those that others supersede.
        ranges_ms: ascending, each a multiple of the one before.
        shards: 0 does not split; rounded up to a power of two.
        split_groups: into how many jobs the blocks of one range are spread when they are split.
    """
    if shards > 0:
        shards = 1 << (shards - 1).bit_length()
    groups: defaultdict[str, list[SourceBlock]] = defaultdict(list)
    newest = None
    for one in blocks:
        groups[one.group].append(one)
        newest = one.max_time if newest is None else max(newest, one.max_time)
    jobs: list[Job] = []
    for members in groups.values():
        members.sort(key=lambda one: (one.min_time, one.shard, one.ulid))
        planned: list[Job] = []
        for length in ranges_ms:
            for job in _jobs_of_range(tenant, members, length, length == ranges_ms[0], shards, split_groups):
                if not any(job.conflicts(other) for other in planned):
                    planned.append(job)
        jobs += planned
    assert newest is not None or not jobs
    ready = [job for job in jobs if newest is not None and not _premature(job, newest, now_ms)]
    return sorted(ready, key=lambda job: (job.sharding_key, job.blocks[0].group))


def _premature(job: Job, newest_ms: int, now_ms: int) -> bool:
    """Whether more blocks of the same range are to be expected."""
    if job.range_end <= newest_ms or job.range_end + job.range_length <= now_ms:
        return False
    if all(one.level == 1 for one in job.blocks):
        return False
    return job.max_time - job.min_time != job.range_length


def _jobs_of_range(
    tenant: str, blocks: Sequence[SourceBlock], length: int, smallest: bool, shards: int, split_groups: int
) -> list[Job]:
    by_range: defaultdict[int, list[SourceBlock]] = defaultdict(list)
    for one in blocks:
        start = one.min_time // length * length
        if one.max_time <= start + length:  # one that sticks out is longer, or not aligned: left alone
            by_range[start].append(one)
    jobs = []
    for start, members in by_range.items():
        whole = [one for one in members if not one.shard]
        if smallest and shards > 0 and whole:
            jobs += _splits(tenant, whole, start, start + length, shards, max(1, split_groups))
            continue
        by_shard: defaultdict[str, list[SourceBlock]] = defaultdict(list)
        for one in members:
            by_shard[one.shard].append(one)
        jobs += [
            Job(tenant, "merge", shard, start, start + length, tuple(some))
            for shard, some in by_shard.items()
            if len(some) >= 2
        ]
    return jobs


def _splits(tenant: str, blocks: Sequence[SourceBlock], start: int, end: int, shards: int, groups: int) -> list[Job]:
    by_group: defaultdict[int, list[SourceBlock]] = defaultdict(list)
    for one in blocks:
        by_group[block_token(one.ulid) % groups].append(one)
    return [
        Job(tenant, "split", format_shard(group, groups), start, end, tuple(some), shards)
        for group, some in by_group.items()
    ]


def block_token(ulid: str) -> int:
    """FNV-1 of the 16 bytes of a ULID. Upstream: mimir_tsdb.HashBlockID."""
    return fnv1_32_of(ULID.from_str(ulid).bytes)


def in_order(jobs: Iterable[Job], order: Order) -> list[Job]:
    """Which job goes first.

    `smallest-range-oldest-blocks-first`: splits first (merges wait for them), oldest first; then merges, the
    shortest first, the oldest of those. `newest-blocks-first`: by newest end, the shortest first.
    """
    if order == "newest-blocks-first":
        return sorted(jobs, key=lambda job: (-job.max_time, job.max_time - job.min_time, job.key))
    return sorted(
        jobs,
        key=lambda job: (
            job.stage != "split",
            0 if job.stage == "split" else job.max_time - job.min_time,
            job.min_time,
            job.key,
        ),
    )


@dataclass(frozen=True, slots=True)
class Patience:
    """How long first-level blocks wait for those of the other replicas, from their upload on; `out_of_order_ms`: those
    with late samples. `until_past`: also until the newest sample that a block may have is `wait_ms` old."""

    wait_ms: int = 0
    out_of_order_ms: int = 0
    until_past: bool = False


def waits_for(job: Job, uploaded_ms: Callable[[str], int], patience: Patience, now_ms: int) -> str:
    """The ULID of a first-level block that came so lately that its replicas may still be on their way; "" if none.

    `uploaded_ms`: of a block, by its ULID. Upstream: jobWaitPeriodElapsed.
    """
    if min(one.level for one in job.blocks) > 1:
        return ""
    for one in job.blocks:
        wait_ms = patience.out_of_order_ms if one.out_of_order else patience.wait_ms
        if wait_ms > 0 and uploaded_ms(one.ulid) > now_ms - wait_ms:
            return one.ulid
        if patience.until_past and one.max_time > now_ms - patience.wait_ms:
            return one.ulid
    return ""


def superseded(blocks: Iterable[SourceBlock]) -> set[str]:
    """The ULIDs of blocks whose samples are all in others of these: what a compactor that died left unmarked.

    A block is in another one that has all of its sources and, if it has a shard, that shard. A block without a
    shard is also in a complete set of shards. Upstream: ShardAwareDeduplicateFilter, which counts shards
    of different counts together; we do not.
    """
    groups: defaultdict[str, list[SourceBlock]] = defaultdict(list)
    for one in blocks:
        if one.sources:
            groups[one.group].append(one)
    found: set[str] = set()
    for members in groups.values():
        having: defaultdict[str, list[SourceBlock]] = defaultdict(list)
        for one in members:
            for source in one.sources:
                having[source].append(one)
        for one in members:
            rarest = min((having[source] for source in one.sources), key=len)
            if _is_in(one, [other for other in rarest if other is not one and one.sources <= other.sources]):
                found.add(one.ulid)
    return found


def _is_in(block: SourceBlock, others: Sequence[SourceBlock]) -> bool:
    """`others` have all sources of the block. Of two with the same sources and shard the older one goes."""
    shards: defaultdict[int, set[int]] = defaultdict(set)
    for other in others:
        if other.shard == block.shard and (len(other.sources), other.ulid) > (len(block.sources), block.ulid):
            return True
        if not block.shard and (shard := parse_shard(other.shard)) is not None:
            shards[shard[1]].add(shard[0])
    return any(len(indices) == count for count, indices in shards.items())
