"""`Querier`: gives queries their sources. One a process; thread-safe."""

from __future__ import annotations

from dataclasses import dataclass

from mimir_ray.model.tenant import TenantId
from mimir_ray.promql.limits import Cancellation
from mimir_ray.roles.querier.config import QuerierConfig
from mimir_ray.roles.querier.fragments import ClusterFragments, ShardTasks
from mimir_ray.roles.querier.source import ClusterSource, Ingesters


@dataclass(frozen=True, slots=True)
class Querier:
    """See roles/api.py `Querier`."""

    ingesters: Ingesters
    config: QuerierConfig
    tasks: ShardTasks | None = None

    def source(self, tenant: TenantId, cancellation: Cancellation) -> ClusterSource:
        fragments = ClusterFragments(tenant, self.ingesters, self.config, cancellation, self.tasks)
        return ClusterSource(tenant, self.ingesters, cancellation, fragments)
