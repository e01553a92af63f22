"""`Cleaner`: keeps a tenant's part of the bucket tidy, and its bucket index up to date.

In this order: mark what is past retention, look what is there, delete what was marked long enough ago, deal with
incomplete blocks, write the index. Deleting a block removes its meta.json first and its mark last, so whoever dies in
between leaves a marked incomplete block, which the next clean-up deletes.
Upstream: pkg/compactor/blocks_cleaner.go.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace

import structlog

from mimir_ray.bucket.bucket_index import BucketIndex, DamagedIndex, read_bucket_index, write_bucket_index
from mimir_ray.bucket.bucket_index_updater import PartialBlock, update_bucket_index
from mimir_ray.bucket.layout import (
    DELETION_MARK,
    META,
    NO_COMPACT_MARK,
    block_key,
    block_prefix,
    bucket_index_key,
    debug_meta_key,
    marker_key,
    markers_prefix,
    tenant_deletion_mark_key,
    tenant_prefix,
)
from mimir_ray.bucket.markers import (
    DeletionMark,
    TenantDeletionMark,
    read_tenant_deletion_mark,
    tenant_is_marked,
    write_deletion_mark,
    write_tenant_deletion_mark,
)
from mimir_ray.bucket.store import Bucket, ObjectNotFound
from mimir_ray.clock import Clock
from mimir_ray.config.limits import Limits
from mimir_ray.config.units import Duration, duration
from mimir_ray.errors import MimirRayError
from mimir_ray.model.tenant import TenantId
from mimir_ray.tsdb.compact.plan import Job

from .config import CompactorConfig
from .metrics import CompactorMetrics
from .tenant_blocks import list_blocks, list_tenants

log = structlog.get_logger(__name__)

DELETES_AT_ONCE = 16
PARTIAL_DELAY_MIN = duration("4h")
"""A shorter delay would take blocks that are still being uploaded. Upstream: MinCompactorPartialBlockDeletionDelay."""
PARTIAL_DETAILS = "stale partial block"
WATCHED_PARTIALS_MAX = 64

PlanOfIndex = Callable[[TenantId, BucketIndex, frozenset[str]], list[Job]]
"""The jobs that a bucket index asks for; the set: ULIDs with a no-compact mark."""


class Cleaner:
    """Thread-safe; a tenant is cleaned by one thread at a time, a second one passes it over."""

    def __init__(
        self,
        config: CompactorConfig,
        bucket: Bucket,
        limits: Callable[[TenantId], Limits],
        owns: Callable[[TenantId], bool],
        plan: PlanOfIndex,
        clock: Clock,
        metrics: CompactorMetrics,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        """`owns`: whether this cleaner, and no other one, is the tenant's."""
        self._config = config
        self._bucket = bucket
        self._limits = limits
        self._owns = owns
        self._plan = plan
        self._clock = clock
        self._metrics = metrics
        self._stopping = stopping
        self._busy: set[TenantId] = set()
        self._lock = threading.Lock()
        self._owned: set[TenantId] = set()
        self._seen: dict[TenantId, set[str]] = {}
        """ULIDs of each tenant at its last clean-up."""
        self._partial: dict[TenantId, tuple[str, ...]] = {}

    # All tenants.

    def clean_all(self) -> None:
        """One clean-up of every tenant that is ours. What fails for one tenant is told and leaves the others alone."""
        self._metrics.cleanups_started.inc()
        try:
            tenants = [tenant for tenant in list_tenants(self._bucket) if self._owns(tenant)]
        except MimirRayError as error:
            log.error("tenants cannot be listed", error=str(error))
            self._metrics.cleanups_failed.inc()
            return
        for gone in self._owned - set(tenants):
            self._metrics.forget(gone)
            self._seen.pop(gone, None)
            self._partial.pop(gone, None)
        self._owned = set(tenants)
        if all(self._side_by_side(tenants, self._clean_safely)):
            self._metrics.cleanups_completed.inc()
            self._metrics.last_cleanup.set(self._clock.now_ms() / 1000)
        else:
            self._metrics.cleanups_failed.inc()

    def look_for_blocks(self) -> None:
        """Cleans up tenants whose blocks are others than at their last clean-up: new ones are in the index soon."""
        try:
            tenants = [tenant for tenant in list_tenants(self._bucket) if self._owns(tenant)]
        except MimirRayError as error:
            log.warning("tenants cannot be listed", error=str(error))
            return
        self._owned |= set(tenants)
        self._side_by_side(tenants, self._look)

    def _side_by_side(self, tenants: Sequence[TenantId], work: Callable[[TenantId], bool]) -> list[bool]:
        if not tenants:
            return []
        with ThreadPoolExecutor(min(self._config.cleanup_concurrency, len(tenants)), "cleanup") as pool:
            return list(pool.map(work, tenants))

    def _clean_safely(self, tenant: TenantId) -> bool:
        if self._stopping():
            return False
        with self._lock:
            if tenant in self._busy:
                return True
            self._busy.add(tenant)
        try:
            if tenant_is_marked(self._bucket, tenant):
                self.delete_tenant(tenant)
            else:
                self.clean_tenant(tenant)
        except MimirRayError as error:
            log.error("clean-up failed", user=tenant, error=str(error))
            return False
        except Exception:
            log.exception("clean-up failed", user=tenant)  # a bug must not stop the others
            return False
        finally:
            with self._lock:
                self._busy.discard(tenant)
        return True

    def _look(self, tenant: TenantId) -> bool:
        try:
            changed = list_blocks(self._bucket, tenant) != self._seen.get(tenant)
            changed = changed or any(
                self._bucket.exists(block_key(tenant, ulid, META)) for ulid in self._partial.get(tenant, ())
            )
            if not changed or tenant_is_marked(self._bucket, tenant):
                return True
        except MimirRayError as error:
            log.warning("blocks cannot be listed", user=tenant, error=str(error))
            return False
        return self._clean_safely(tenant)

    # One tenant.

    def clean_tenant(self, tenant: TenantId) -> BucketIndex:
        """One clean-up; the index as it was written. Raises `BucketUnavailable`."""
        now_ms = self._clock.now_ms()
        limits = self._limits(tenant)
        try:
            old = read_bucket_index(self._bucket, tenant)
        except DamagedIndex as error:
            log.warning("a damaged bucket index is made anew", user=tenant, error=str(error))
            old = None
        if old is not None:  # marks that are written now are read below, as part of the new index
            self._apply_retention(tenant, old, limits.compactor_blocks_retention_period, now_ms)
        update = update_bucket_index(self._bucket, tenant, old, now_ms, self._config.update_blocks_concurrency)
        index, partial = update.index, dict(update.partial)
        self._seen[tenant] = {block.ulid for block in index.blocks} | partial.keys()

        expired = [
            ulid for ulid, at in index.deletion_marks.items() if now_ms - at * 1000 > self._config.deletion_delay.ms
        ]
        removed = self._delete_blocks(tenant, expired)
        rest = {ulid: found for ulid, found in partial.items() if ulid not in removed}
        removed |= self._clean_partial(tenant, rest, update.marks.deletion, limits, now_ms)
        index = without(index, removed)
        left = partial.keys() - removed
        if not index.blocks and not left and not index.deletion_marks:
            self._delete_rest(tenant, keep=tenant_deletion_mark_key(tenant))
        else:
            write_bucket_index(self._bucket, tenant, index)
        self._seen[tenant] -= removed
        self._partial[tenant] = tuple(sorted(left)[-WATCHED_PARTIALS_MAX:])

        self._metrics.blocks.labels(tenant).set(len(index.blocks))
        self._metrics.marked_blocks.labels(tenant).set(len(index.deletion_marks))
        self._metrics.partial_blocks.labels(tenant).set(len(left))
        self._metrics.index_updated.labels(tenant).set(index.updated_at)
        jobs = self._plan(tenant, index, update.marks.no_compact)
        for stage in ("split", "merge"):
            self._metrics.estimated_jobs.labels(tenant, stage).set(sum(job.stage == stage for job in jobs))
        return index

    def delete_tenant(self, tenant: TenantId) -> None:
        """One step towards the end of a tenant that is marked for deletion. Raises `BucketUnavailable`."""
        self._bucket.delete(bucket_index_key(tenant))  # first: for readers there are no blocks any more
        self._metrics.forget(tenant)
        self._seen.pop(tenant, None)
        self._partial.pop(tenant, None)
        ulids = sorted(list_blocks(self._bucket, tenant))
        removed = self._delete_blocks(tenant, ulids)
        if len(removed) < len(ulids):
            self._metrics.blocks.labels(tenant).set(len(ulids) - len(removed))
            self._metrics.marked_blocks.labels(tenant).set(len(ulids) - len(removed))
            return
        mark = read_tenant_deletion_mark(self._bucket, tenant)
        now_s = self._clock.now_ms() // 1000
        if mark is None:
            return  # somebody took it away meanwhile
        if ulids or not mark.finished_time:
            write_tenant_deletion_mark(self._bucket, tenant, TenantDeletionMark(mark.deletion_time, now_s))
            log.info("all blocks of a deleted tenant are gone", user=tenant, blocks=len(ulids))
        elif (now_s - mark.finished_time) * 1000 >= self._config.tenant_cleanup_delay.ms:
            self._delete_rest(tenant)
            log.info("a deleted tenant is gone", user=tenant)

    def _apply_retention(self, tenant: TenantId, index: BucketIndex, retention: Duration, now_ms: int) -> None:
        if retention <= 0:
            return
        for block in index.blocks:
            if block.max_time < now_ms - retention.ms and block.ulid not in index.deletion_marks:
                self._mark(tenant, block.ulid, f"block exceeding retention of {retention}", "retention", now_ms)

    def _mark(self, tenant: TenantId, ulid: str, details: str, reason: str, now_ms: int) -> None:
        write_deletion_mark(self._bucket, tenant, DeletionMark(ulid, now_ms // 1000, details))
        self._metrics.marked_for_deletion.labels(reason).inc()
        log.info("block marked for deletion", user=tenant, block=ulid, reason=details)

    def _clean_partial(
        self, tenant: TenantId, partial: dict[str, PartialBlock], marked: frozenset[str], limits: Limits, now_ms: int
    ) -> set[str]:
        """Deletes incomplete blocks that are marked, and marks those that nobody has touched for long."""
        missing = [ulid for ulid, found in partial.items() if found.meta_missing]
        removed = self._delete_blocks(tenant, [ulid for ulid in missing if ulid in marked])
        delay = limits.compactor_partial_block_deletion_delay
        if 0 < delay < PARTIAL_DELAY_MIN:
            log.warning(
                "partial blocks are not deleted: the delay is too short",
                user=tenant, delay=str(delay), minimum=str(PARTIAL_DELAY_MIN),
            )  # fmt: skip
        elif delay > 0:
            for ulid in missing:
                if ulid in marked:
                    continue
                touched = [found.modified_ms for found in self._bucket.list_objects(block_prefix(tenant, ulid))]
                if touched and max(touched) <= now_ms - delay.ms:
                    self._mark(tenant, ulid, PARTIAL_DETAILS, "partial", now_ms)
        return removed

    def _delete_blocks(self, tenant: TenantId, ulids: Iterable[str]) -> set[str]:
        """Those that could be deleted."""
        wanted = list(ulids)
        if not wanted:
            return set()
        with ThreadPoolExecutor(min(DELETES_AT_ONCE, len(wanted)), "delete-block") as pool:
            done = pool.map(lambda ulid: self._delete_block(tenant, ulid), wanted)
            return {ulid for ulid, fine in zip(wanted, done, strict=True) if fine}

    def _delete_block(self, tenant: TenantId, ulid: str) -> bool:
        try:
            delete_block(self._bucket, tenant, ulid)
        except MimirRayError as error:
            self._metrics.cleanup_failures.inc()
            log.warning("a block cannot be deleted", user=tenant, block=ulid, error=str(error))
            return False
        self._metrics.blocks_cleaned.inc()
        log.info("block deleted", user=tenant, block=ulid)
        return True

    def _delete_rest(self, tenant: TenantId, keep: str = "") -> None:
        """What is left of a tenant without blocks, but one key. Marks go last: one says that the tenant is deleted."""
        self._bucket.delete(bucket_index_key(tenant))
        for prefix in (f"{tenant_prefix(tenant)}debug/", markers_prefix(tenant)):
            for found in list(self._bucket.list_objects(prefix)):
                if found.key != keep:
                    self._bucket.delete(found.key)


def delete_block(bucket: Bucket, tenant: TenantId, ulid: str) -> None:
    """Removes a block for good, and keeps a copy of its meta.json for people. Can be done again."""
    meta_key = block_key(tenant, ulid, META)
    with suppress(ObjectNotFound):  # it was never complete, or somebody began to delete it
        bucket.put(debug_meta_key(tenant, ulid), bucket.get(meta_key))
    bucket.delete(meta_key)
    mark = block_key(tenant, ulid, DELETION_MARK)
    for found in list(bucket.list_objects(block_prefix(tenant, ulid))):
        if found.key != mark:
            bucket.delete(found.key)
    bucket.delete(marker_key(tenant, ulid, NO_COMPACT_MARK))
    bucket.delete(mark)
    bucket.delete(marker_key(tenant, ulid, DELETION_MARK))


def without(index: BucketIndex, ulids: set[str]) -> BucketIndex:
    """The index without these blocks and their marks."""
    if not ulids:
        return index
    return replace(
        index,
        blocks=tuple(block for block in index.blocks if block.ulid not in ulids),
        deletion_marks={ulid: at for ulid, at in index.deletion_marks.items() if ulid not in ulids},
    )
