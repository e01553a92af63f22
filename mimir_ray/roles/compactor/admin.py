"""What people ask about compactions and tenants. Reads the bucket; a deletion mark is all it writes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mimir_ray.bucket.bucket_index import BucketIndex, read_bucket_index
from mimir_ray.bucket.markers import (
    TenantDeletionMark,
    list_marks,
    read_tenant_deletion_mark,
    write_tenant_deletion_mark,
)
from mimir_ray.bucket.store import Bucket
from mimir_ray.clock import Clock
from mimir_ray.config.limits import Limits
from mimir_ray.model.tenant import TenantId
from mimir_ray.tsdb.compact.plan import Job

from .config import CompactorConfig
from .ownership import Ownership
from .planner import jobs_of_index
from .tenant_blocks import list_blocks, list_tenants


@dataclass(frozen=True, slots=True)
class PlannedJob:
    """`compactor`: whose job it is: id and address, or why nobody's; "" unless asked for."""

    job: Job
    compactor: str = ""


class CompactorAdmin:
    """Thread-safe; every method raises `BucketUnavailable`."""

    def __init__(
        self,
        config: CompactorConfig,
        bucket: Bucket,
        limits: Callable[[TenantId], Limits],
        ownership: Ownership,
        clock: Clock,
    ) -> None:
        self._config = config
        self._bucket = bucket
        self._limits = limits
        self._ownership = ownership
        self._clock = clock

    def tenants(self) -> list[TenantId]:
        """Everybody who has blocks, or had some lately."""
        return list_tenants(self._bucket)

    def planned_jobs(
        self, tenant: TenantId, shards: int, groups: int, with_compactors: bool
    ) -> tuple[BucketIndex, list[PlannedJob]] | None:
        """By the bucket index, in the order in which they are done; None if there is none. Raises `DamagedIndex`."""
        index = read_bucket_index(self._bucket, tenant)
        if index is None:
            return None
        no_compact = list_marks(self._bucket, tenant).no_compact
        jobs = jobs_of_index(self._config, tenant, index, no_compact, shards, groups, self._clock.now_ms())
        return index, [PlannedJob(job, self._owner(tenant, job) if with_compactors else "") for job in jobs]

    def _owner(self, tenant: TenantId, job: Job) -> str:
        found = self._ownership.owner(tenant, job.token)
        return "no compactor of the ring can run it now" if found is None else f"{found.id} {found.address}"

    def delete_tenant(self, tenant: TenantId) -> None:
        """Everything of the tenant's is deleted by the next clean-ups. Asking again changes nothing."""
        if read_tenant_deletion_mark(self._bucket, tenant) is None:
            write_tenant_deletion_mark(self._bucket, tenant, TenantDeletionMark(self._clock.now_ms() // 1000))

    def blocks_deleted(self, tenant: TenantId) -> bool:
        """Whether nothing of any block is left."""
        return not list_blocks(self._bucket, tenant)
