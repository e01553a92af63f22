"""`JobRunner`: does one planned job: download, check, merge, check, upload, mark the sources.

Whoever dies in between leaves: files in the scratch folder (the next attempt goes on with what was downloaded whole);
an upload without meta.json, which is no block (the cleaner takes it away); or the new blocks beside their unmarked
sources: samples that are there twice, which queries merge, and the next plan marks the sources (`plan.superseded`).
Sources are marked last of all, so no sample is ever without a block.
Upstream: pkg/compactor/bucket_compactor.go runCompactionJob.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import structlog

from mimir_ray.bucket.layout import INDEX, META, block_key, block_prefix
from mimir_ray.bucket.markers import (
    NO_COMPACT_CRITICAL,
    NO_COMPACT_INDEX_SIZE,
    NO_COMPACT_OUT_OF_ORDER_CHUNKS,
    DeletionMark,
    write_deletion_mark,
)
from mimir_ray.bucket.store import Bucket, ObjectNotFound
from mimir_ray.clock import Clock
from mimir_ray.errors import Corruption, MimirRayError, Unavailable
from mimir_ray.model.tenant import TenantId
from mimir_ray.tsdb.append_file import storage_error
from mimir_ray.tsdb.block.errors import DamagedBlock, UnsupportedChunks
from mimir_ray.tsdb.block.meta import COMPACTOR_SHARD_LABEL, BlockMeta, make_ulid, write_meta
from mimir_ray.tsdb.compact.health import OutOfOrderChunks
from mimir_ray.tsdb.compact.plan import Job, format_shard, group_labels

from .merging import Merge, Verify
from .metrics import CompactorMetrics

log = structlog.get_logger(__name__)

INDEX_BYTES_MAX = 64 << 30
"""References into an index are 32 bits of 16 bytes. Upstream: tsdb/index/index.go."""
SOURCE_DETAILS = "source of compacted block"
_OUTPUT = "out"


@dataclass(eq=False)
class UnhealthyBlocks(Corruption):
    """Blocks that no attempt will ever compact. `reason`: of a no-compact mark."""

    ulids: tuple[str, ...]
    reason: str
    details: str

    def describe(self) -> str:
        return f"{', '.join(self.ulids)}: {self.details}"


@dataclass(eq=False)
class Interrupted(Unavailable):
    """The compactor stops; the job is done by whoever comes next."""

    job: str

    def describe(self) -> str:
        return f"job {self.job} was interrupted"


@dataclass(eq=False)
class SourceGone(Unavailable):
    """A source was deleted after it was planned with: the next plan is made without it."""

    key: str

    def describe(self) -> str:
        return f"{self.key} went away while its block was to be compacted"


@dataclass(eq=False)
class DoubtfulScratch(Unavailable):
    """What an attempt before has left looks damaged: everything is downloaded again before a block is blamed."""

    job: str

    def describe(self) -> str:
        return f"job {self.job}: files of an attempt before are damaged; they are downloaded again"


@dataclass(eq=False)
class SamplesLost(Corruption):
    """What a merge made cannot have all samples of its sources. Nothing is uploaded."""

    job: str
    fewest: int
    most: int
    found: int

    def describe(self) -> str:
        return f"job {self.job} made {self.found} samples of sources that have between {self.fewest} and {self.most}"


class JobRunner:
    """Thread-safe: different jobs may run at once. `stopping`: asked between steps, and in
    a merge between batches; `randomness`: 10 bytes."""

    def __init__(
        self,
        bucket: Bucket,
        directory: Path,
        merge: Merge,
        verify: Verify,
        files_at_once: int,
        clock: Clock,
        metrics: CompactorMetrics,
        randomness: Callable[[], bytes],
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self._bucket = bucket
        self._directory = directory
        self._merge = merge
        self._verify = verify
        self._files_at_once = files_at_once
        self._clock = clock
        self._metrics = metrics
        self._randomness = randomness
        self._stopping = stopping

    def run(self, job: Job, metas: Mapping[str, BlockMeta]) -> list[BlockMeta]:
        """The new blocks; `metas`: of all sources, by ULID.

        Raises `UnhealthyBlocks`, `Interrupted`, `SourceGone`, `DoubtfulScratch`, `SamplesLost`, `BucketUnavailable`,
        `StorageFailed`.
        """
        tenant = TenantId(job.tenant)
        work = self._folder(tenant, job.key)
        began_s = self._clock.monotonic_s()
        self._check_index_sizes(job, metas)
        all_fresh = self._download(tenant, work, job)
        try:
            for source in job.blocks:
                self._go_on(job)
                self._check_source(work / source.ulid, source.ulid)
            made = self._make(job, work)
        except UnhealthyBlocks as error:
            shutil.rmtree(work, ignore_errors=True)
            if not all_fresh:
                raise DoubtfulScratch(job.key) from error
            raise
        found = self._check_output(job, [metas[one.ulid] for one in job.blocks], made, work)
        for meta in made:
            self._go_on(job)
            self._upload(tenant, work / _OUTPUT / meta.ulid, meta)
        for one in job.blocks:
            mark = DeletionMark(one.ulid, self._clock.now_ms() // 1000, SOURCE_DETAILS)
            write_deletion_mark(self._bucket, tenant, mark)
            self._metrics.marked_for_deletion.labels("compaction").inc()
        shutil.rmtree(work, ignore_errors=True)
        seconds = self._clock.monotonic_s() - began_s
        self._metrics.job_seconds.labels(job.stage).observe(seconds)
        self._metrics.job_blocks.labels(job.stage).observe(len(job.blocks))
        self._metrics.samples.inc(found)
        log.info(
            "blocks compacted", user=tenant, stage=job.stage, shard=job.shard, sources=job.ulids,
            blocks=[meta.ulid for meta in made], samples=found, seconds=round(seconds, 3),
        )  # fmt: skip
        return made

    def keep_only(self, tenant: TenantId, jobs: Iterable[Job]) -> None:
        """Removes what lies in the scratch folder for jobs of the tenant that are planned no longer."""
        keys = {job.key for job in jobs}
        folder = self._directory / tenant
        for path in folder.iterdir() if folder.is_dir() else ():
            if path.name not in keys:
                shutil.rmtree(path, ignore_errors=True)

    def keep_tenants(self, tenants: set[TenantId]) -> None:
        """Removes what lies in the scratch folder for anybody else."""
        for path in self._directory.iterdir() if self._directory.is_dir() else ():
            if path.name not in tenants:
                shutil.rmtree(path, ignore_errors=True)

    def _folder(self, tenant: TenantId, key: str) -> Path:
        work = self._directory / tenant / key
        shutil.rmtree(work / _OUTPUT, ignore_errors=True)
        try:
            (work / _OUTPUT).mkdir(parents=True)
        except OSError as error:
            raise storage_error("make", work, error) from error
        return work

    def _go_on(self, job: Job) -> None:
        if self._stopping():
            raise Interrupted(job.key)

    def _check_index_sizes(self, job: Job, metas: Mapping[str, BlockMeta]) -> None:
        """The index of a merge has at most the bytes of all its sources' indexes; too much is known before."""
        if job.shards > 1:
            return
        sizes = {
            one.ulid: size
            for one in job.blocks
            if (thanos := metas[one.ulid].thanos) is not None
            for path, size in thanos.files
            if path == INDEX and size is not None
        }
        if sum(sizes.values()) > INDEX_BYTES_MAX:
            largest = max(sizes, key=lambda ulid: sizes[ulid])
            details = f"index of {sizes[largest]} bytes is too large to be merged with those of {len(sizes) - 1} blocks"
            raise UnhealthyBlocks((largest,), NO_COMPACT_INDEX_SIZE, details)

    def _download(self, tenant: TenantId, work: Path, job: Job) -> bool:
        """Fills a folder for each source. Files that are there whole are not read again; whether there were none."""
        wanted: list[tuple[str, Path]] = []
        all_fresh = True
        for one in job.blocks:
            prefix = block_prefix(tenant, one.ulid)
            for found in self._bucket.list_objects(prefix):
                name = found.key.removeprefix(prefix)
                path = work / one.ulid / name
                if not is_block_file(name):
                    continue
                if path.is_file() and path.stat().st_size == found.size:
                    all_fresh = False
                else:
                    wanted.append((found.key, path))

        def one_file(item: tuple[str, Path]) -> None:
            self._go_on(job)
            try:
                self._bucket.download(*item)
            except ObjectNotFound as error:
                raise SourceGone(item[0]) from error

        with ThreadPoolExecutor(self._files_at_once, "block-sync") as pool:
            for _ in pool.map(one_file, wanted):
                pass
        return all_fresh

    def _check_source(self, folder: Path, ulid: str) -> None:
        try:
            self._verify(folder)
        except (DamagedBlock, UnsupportedChunks) as error:
            raise unhealthy(ulid, error) from error

    def _make(self, job: Job, work: Path) -> list[BlockMeta]:
        """The new blocks, in `<work>/out`."""
        sources = [work / one.ulid for one in job.blocks]
        external = dict(group_labels(dict(job.blocks[0].labels)))
        if job.stage == "split":
            labels = [
                external | {COMPACTOR_SHARD_LABEL: format_shard(index, job.shards)} for index in range(job.shards)
            ]
        else:
            labels = [external | ({COMPACTOR_SHARD_LABEL: job.shard} if job.shard else {})]
        ulids = [make_ulid(self._clock.now_ms(), self._randomness()) for _ in labels]
        self._go_on(job)
        try:
            made = self._merge(sources, work / _OUTPUT, ulids, labels, lambda: self._go_on(job))
        except DamagedBlock as error:
            for one in job.blocks:
                if one.ulid in error.path:
                    raise unhealthy(one.ulid, error) from error
            raise
        except UnsupportedChunks as error:
            damaged = tuple(one.ulid for one in job.blocks if one.ulid in error.path) or tuple(job.ulids)
            raise UnhealthyBlocks(damaged, NO_COMPACT_CRITICAL, str(error)) from error
        blocks = [meta for meta in made if meta is not None]
        for meta in blocks:
            if meta.thanos is not None and job.blocks[0].resolution:
                meta.thanos.resolution = job.blocks[0].resolution
                write_meta(work / _OUTPUT / meta.ulid, meta)
        return blocks

    def _check_output(self, job: Job, sources: Sequence[BlockMeta], made: Sequence[BlockMeta], work: Path) -> int:
        """How many samples were made. Each of these checks has to hold whatever the samples are."""
        found = sum(meta.stats.samples for meta in made)
        most = sum(meta.stats.samples for meta in sources)
        deleted = any((work / one.ulid / "tombstones").stat().st_size > 9 for one in sources
                      if (work / one.ulid / "tombstones").is_file())  # fmt: skip
        fewest = 0 if deleted else max(meta.stats.samples for meta in sources)
        known = all(meta.stats.samples for meta in sources)  # some other writers do not count
        if known and not fewest <= found <= most:
            raise SamplesLost(job.key, fewest, most, found)
        names = {source for meta in sources for source in meta.compaction.sources}
        for meta in made:
            self._go_on(job)
            assert set(meta.compaction.sources) == names, (meta.compaction.sources, names)
            assert meta.min_time >= job.min_time and meta.max_time <= job.max_time, meta
            self._verify(work / _OUTPUT / meta.ulid)
        return found

    def _upload(self, tenant: TenantId, folder: Path, meta: BlockMeta) -> None:
        self._metrics.uploads_started.inc()
        try:
            upload_block(self._bucket, tenant, folder, meta.ulid, self._files_at_once)
        except MimirRayError:
            self._metrics.uploads_failed.inc()
            raise


def is_block_file(name: str) -> bool:
    """Whether an object below a block's prefix is a part of the block, and no mark."""
    return name in (META, INDEX, "tombstones") or name.startswith("chunks/")


def upload_block(bucket: Bucket, tenant: TenantId, folder: Path, ulid: str, files_at_once: int) -> None:
    """Puts a block there: meta.json last, so it is there whole or not at all. Can be done again."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    # Upstream leaves tombstones out: there are none in what was just written.
    parts = [name for name in names if name == INDEX or name.startswith("chunks/")]
    with ThreadPoolExecutor(files_at_once, "block-sync") as pool:
        for _ in pool.map(lambda name: bucket.upload(folder / name, block_key(tenant, ulid, name)), parts):
            pass
    bucket.upload(folder / META, block_key(tenant, ulid, META))


def unhealthy(ulid: str, error: MimirRayError) -> UnhealthyBlocks:
    """What a source block that cannot be read is marked with."""
    reason = NO_COMPACT_OUT_OF_ORDER_CHUNKS if isinstance(error, OutOfOrderChunks) else NO_COMPACT_CRITICAL
    return UnhealthyBlocks((ulid,), reason, str(error))
