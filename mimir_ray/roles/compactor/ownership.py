"""Whose tenants and jobs are whose, by the ring of compactors.

Every compactor of a tenant's shard plans its jobs; each job has one owner, and one of the shard cleans up.
An owner that is not well is not replaced until the ring has forgotten it: doing a job twice costs more than doing it
later. Upstream: pkg/compactor/compactor.go splitAndMergeShardingStrategy.
"""

from __future__ import annotations

from collections.abc import Callable

from mimir_ray.cluster.ring.lookup import RingView
from mimir_ray.cluster.ring.model import WRITE, InstanceDesc, InstanceId
from mimir_ray.cluster.ring.shuffle_shard import ShardCache
from mimir_ray.encoding.hashing import fnv1a_32_of
from mimir_ray.model.tenant import TenantId
from mimir_ray.tsdb.compact.plan import Job


class Ownership:
    """Thread-safe. `allows`: whether a tenant is compacted at all; `shard_size`: by how many (0: all)."""

    def __init__(
        self,
        instance: InstanceId,
        view: Callable[[], RingView],
        shard_size: Callable[[TenantId], int],
        allows: Callable[[str], bool] = lambda _: True,
    ) -> None:
        self._instance = instance
        self._view = view
        self._shard_size = shard_size
        self._allows = allows
        self._shards = ShardCache()

    def plans_for(self, tenant: TenantId) -> bool:
        """Whether this compactor is one of the tenant's."""
        return self._allows(tenant) and self._shard(tenant).get(self._instance) is not None

    def cleans(self, tenant: TenantId) -> bool:
        """Whether this compactor, and no other one, cleans up after the tenant."""
        return self._allows(tenant) and self._is_ours(self.owner(tenant, fnv1a_32_of(tenant.encode())))

    def owns(self, job: Job) -> bool:
        """Whether this compactor, and no other one, runs the job."""
        tenant = TenantId(job.tenant)
        return self._allows(tenant) and self._is_ours(self.owner(tenant, job.token))

    def owner(self, tenant: TenantId, token: int) -> InstanceDesc | None:
        """Of a token among the tenant's compactors; None while that one is not well."""
        view = self._shard(tenant)
        found = view.replicas(token, WRITE)
        if not found or not view.healthy(WRITE)[found[0]]:
            return None
        return view.instances[found[0]]

    def _shard(self, tenant: TenantId) -> RingView:
        return self._shards.shard(self._view(), tenant, self._shard_size(tenant))

    def _is_ours(self, owner: InstanceDesc | None) -> bool:
        return owner is not None and owner.id == self._instance
