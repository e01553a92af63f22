"""`Compactor`: goes through tenants and compacts their blocks until nothing is left to be done.

Upstream: pkg/compactor/compactor.go compactUsers, bucket_compactor.go Compact.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import structlog

from mimir_ray.bucket.bucket_index import BucketIndex
from mimir_ray.bucket.markers import (
    DeletionMark,
    NoCompactMark,
    tenant_is_marked,
    write_deletion_mark,
    write_no_compact_mark,
)
from mimir_ray.bucket.store import Bucket
from mimir_ray.clock import Clock
from mimir_ray.config.limits import Limits
from mimir_ray.errors import MimirRayError
from mimir_ray.model.tenant import TenantId
from mimir_ray.tsdb.append_file import StorageFull
from mimir_ray.tsdb.block.meta import BlockMeta
from mimir_ray.tsdb.compact.plan import Job, Patience, SourceBlock, superseded, waits_for

from .cleaner import Cleaner
from .config import CompactorConfig
from .job_run import Interrupted, JobRunner, UnhealthyBlocks
from .metrics import CompactorMetrics
from .ownership import Ownership
from .planner import jobs_of, jobs_of_index
from .tenant_blocks import BlockDescriptions, TenantBlocks, list_tenants

log = structlog.get_logger(__name__)

RETRY_MIN_S = 10.0
RETRY_MAX_S = 60.0
OUTDATED_DETAILS = "outdated block"

Answer = TypeVar("Answer")


class Compactor:
    """`compact_all` is called by one thread, `cleaner` by others. `wait(seconds)`: sleeps; True once it is to stop."""

    def __init__(
        self,
        config: CompactorConfig,
        bucket: Bucket,
        limits: Callable[[TenantId], Limits],
        ownership: Ownership,
        runner: JobRunner,
        clock: Clock,
        metrics: CompactorMetrics,
        rng: np.random.Generator,
        wait: Callable[[float], bool],
    ) -> None:
        self._config = config
        self._bucket = bucket
        self._limits = limits
        self._ownership = ownership
        self._runner = runner
        self._clock = clock
        self._metrics = metrics
        self._rng = rng
        self._wait = wait
        self._descriptions = BlockDescriptions(bucket, config.meta_sync_concurrency)
        self.cleaner = Cleaner(
            config, bucket, limits, ownership.cleans, self._jobs_of_index, clock, metrics, self._stopping
        )
        metrics.interval.set(config.compaction_interval.seconds)

    def _stopping(self) -> bool:
        return self._wait(0)

    def compact_all(self) -> None:
        """One run over all tenants, each by itself: what fails for one leaves the others alone."""
        self._metrics.runs_started.inc()
        try:
            failed = self._run()
        except Interrupted:
            self._metrics.runs_failed.labels("shutdown").inc()
        except MimirRayError as error:
            log.error("tenants cannot be listed", error=str(error))
            self._metrics.runs_failed.labels("error").inc()
        else:
            if failed:
                self._metrics.runs_failed.labels("error").inc()
            else:
                self._metrics.runs_completed.inc()
                self._metrics.last_successful_run.set(self._clock.now_ms() / 1000)
        finally:
            self._metrics.reset_run()

    def _run(self) -> int:
        """How many tenants failed."""
        tenants = self._with_retries(lambda: list_tenants(self._bucket))
        self._metrics.tenants_discovered.set(len(tenants))
        ours: set[TenantId] = set()
        failed = 0
        for at in self._rng.permutation(len(tenants)).tolist():  # compactors begin with different tenants
            tenant = tenants[at]
            if self._stopping():
                raise Interrupted(tenant)
            if not self._ownership.plans_for(tenant):
                self._metrics.tenants_skipped.inc()
                continue
            ours.add(tenant)
            try:
                if tenant_is_marked(self._bucket, tenant):
                    self._metrics.tenants_skipped.inc()
                    continue
                self._with_retries(lambda tenant=tenant: self.compact_tenant(tenant))  # type: ignore[misc]
            except Interrupted:
                raise
            except MimirRayError as error:
                failed += 1
                self._metrics.tenants_failed.inc()
                log.error("a tenant's blocks cannot be compacted", user=tenant, error=str(error))
            except Exception:
                failed += 1
                self._metrics.tenants_failed.inc()
                log.exception("a tenant's blocks cannot be compacted", user=tenant)  # a bug must not stop the others
            else:
                self._metrics.tenants_succeeded.inc()
        self._runner.keep_tenants(ours)
        self._descriptions.keep_only(ours)
        return failed

    def _with_retries(self, call: Callable[[], Answer]) -> Answer:
        pause_s = RETRY_MIN_S
        for attempt in range(self._config.compaction_retries):
            try:
                return call()
            except Interrupted:
                raise
            except MimirRayError as error:
                if isinstance(error, StorageFull):
                    self._metrics.disk_full.inc()
                last = error
                log.warning("compaction will be tried again", attempt=attempt + 1, error=str(error))
            if attempt + 1 < self._config.compaction_retries and self._wait(pause_s):
                raise Interrupted("")
            pause_s = min(RETRY_MAX_S, 2 * pause_s)
        raise last

    def compact_tenant(self, tenant: TenantId) -> None:
        """Runs this compactor's jobs for the tenant, plans again, until there are none or the time is up.

        A job that fails does not keep the others from running; its error is raised when they are done.
        """
        deadline_s = None
        while True:
            blocks = self._sync(tenant)
            jobs = self._ready_jobs(tenant, blocks)
            self._runner.keep_only(tenant, jobs)
            if deadline_s is None:  # planning itself, which may take long, does not count
                most_s = self._config.max_compaction_time.seconds
                deadline_s = self._clock.monotonic_s() + most_s if most_s > 0 else math.inf
            if not self._run_jobs(tenant, jobs, blocks, deadline_s):
                return

    def _run_jobs(self, tenant: TenantId, jobs: list[Job], blocks: TenantBlocks, deadline_s: float) -> bool:
        """Whether there may be more to do. Raises the first error."""
        errors: list[MimirRayError] = []

        def one_job(job: Job) -> bool:
            if self._stopping() or self._clock.monotonic_s() >= deadline_s:
                return False
            try:
                return self._run_job(tenant, job, blocks)
            except MimirRayError as error:
                errors.append(error)
                return False

        progress = self._side_by_side(jobs, one_job)
        if self._stopping():
            raise Interrupted(tenant)
        if errors:
            raise errors[0]
        return any(progress) and self._clock.monotonic_s() < deadline_s

    def _side_by_side(self, jobs: list[Job], work: Callable[[Job], bool]) -> list[bool]:
        if self._config.compaction_concurrency == 1:
            return [work(job) for job in jobs]
        with ThreadPoolExecutor(self._config.compaction_concurrency, "compaction") as pool:
            return list(pool.map(work, jobs))

    def _sync(self, tenant: TenantId) -> TenantBlocks:
        limits = self._limits(tenant)
        lookback = limits.compactor_max_lookback.ms
        # Uploaded blocks may be as old as they like. Upstream: createMetaSyncerForUser.
        first_ms = self._clock.now_ms() - lookback if lookback > 0 and not limits.compactor_block_upload_enabled else 0
        self._metrics.meta_syncs.inc()
        try:
            return self._descriptions.of_tenant(tenant, first_ms)
        except MimirRayError:
            self._metrics.meta_sync_failures.inc()
            raise

    def _ready_jobs(self, tenant: TenantId, blocks: TenantBlocks) -> list[Job]:
        """This compactor's jobs, in the order in which they are to be done. Marks blocks that are in others."""
        sources = {ulid: SourceBlock.of_meta(meta) for ulid, meta in blocks.metas.items()}
        for ulid in sorted(superseded(sources.values())):
            write_deletion_mark(
                self._bucket, tenant, DeletionMark(ulid, self._clock.now_ms() // 1000, OUTDATED_DETAILS)
            )
            self._metrics.marked_for_deletion.labels("compaction").inc()
            log.info("outdated block marked for deletion", user=tenant, block=ulid)
            del sources[ulid]
        limits, now_ms = self._limits(tenant), self._clock.now_ms()
        jobs = jobs_of(
            self._config,
            tenant,
            (one for ulid, one in sources.items() if ulid not in blocks.no_compact),
            limits.compactor_split_and_merge_shards,
            limits.compactor_split_groups,
            now_ms,
        )
        patience = Patience(
            self._config.first_level_compaction_wait_period.ms,
            self._config.first_level_compaction_ooo_wait_period.ms,
            self._config.first_level_compaction_skip_future_max_time,
        )
        uploaded: dict[str, int] = {}

        def uploaded_ms(ulid: str) -> int:
            if ulid not in uploaded:
                uploaded[ulid] = self._descriptions.uploaded_ms(tenant, ulid)
            return uploaded[ulid]

        ours = [job for job in jobs if self._ownership.owns(job)]
        return [job for job in ours if not waits_for(job, uploaded_ms, patience, now_ms)]

    def _jobs_of_index(self, tenant: TenantId, index: BucketIndex, no_compact: frozenset[str]) -> list[Job]:
        limits = self._limits(tenant)
        shards, groups = limits.compactor_split_and_merge_shards, limits.compactor_split_groups
        return jobs_of_index(self._config, tenant, index, no_compact, shards, groups, self._clock.now_ms())

    def _run_job(self, tenant: TenantId, job: Job, blocks: TenantBlocks) -> bool:
        """Whether the tenant has to be planned again."""
        if not self._ownership.owns(job):
            return False  # it has moved to another compactor meanwhile
        metas: dict[str, BlockMeta] = {one.ulid: blocks.metas[one.ulid] for one in job.blocks}
        self._metrics.jobs_started.inc()
        try:
            made = self._runner.run(job, metas)
        except Interrupted:
            raise
        except UnhealthyBlocks as error:
            self._metrics.jobs_failed.inc()
            for ulid in error.ulids:
                mark = NoCompactMark(ulid, self._clock.now_ms() // 1000, error.reason, error.details)
                write_no_compact_mark(self._bucket, tenant, mark)
                self._metrics.marked_no_compact.labels(error.reason).inc()
                log.error(
                    "block left out of compactions", user=tenant, block=ulid, reason=error.reason, error=str(error)
                )
            return True
        except MimirRayError:
            self._metrics.jobs_failed.inc()
            raise
        self._metrics.jobs_completed.inc()
        if made:
            self._metrics.compactions.inc()
        return True
