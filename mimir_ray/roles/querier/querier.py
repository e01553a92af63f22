"""`Querier`: gives queries their sources. One a process; thread-safe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mimir_ray.clock import Clock
from mimir_ray.config.limits import Limits
from mimir_ray.model.tenant import TenantId
from mimir_ray.promql.limits import Cancellation
from mimir_ray.roles.querier.config import QuerierConfig
from mimir_ray.roles.querier.fragments import ClusterFragments, ShardTasks
from mimir_ray.roles.querier.source import Blocks, ClusterSource, Ingesters
from mimir_ray.roles.querier.store import Store, TenantStore
from mimir_ray.roles.querier.time_rules import TimeRules


@dataclass(frozen=True, slots=True)
class OlderSamples:
    """Where samples that left the ingesters are, and when to look there."""

    store: Store
    limits: Callable[[TenantId], Limits]
    clock: Clock


@dataclass(frozen=True, slots=True)
class Querier:
    """See roles/api.py `Querier`. Without `older`, ingesters are all there is."""

    ingesters: Ingesters
    config: QuerierConfig
    tasks: ShardTasks | None = None
    older: OlderSamples | None = None

    def source(self, tenant: TenantId, cancellation: Cancellation) -> ClusterSource:
        blocks = self._blocks(tenant, cancellation)
        ingesters = self.ingesters.of_tenant(tenant)
        fragments = ClusterFragments(tenant, ingesters, self.config, cancellation, self.tasks, blocks)
        return ClusterSource(tenant, ingesters, cancellation, fragments, blocks)

    def _blocks(self, tenant: TenantId, cancellation: Cancellation) -> Blocks | None:
        if self.older is None:
            return None
        now_ms = self.older.clock.now_ms()
        within = self.older.limits(tenant).query_ingesters_within.ms
        rules = TimeRules(now_ms, within, self.config.query_store_after.ms)
        return Blocks(rules, TenantStore(self.older.store, tenant, now_ms, cancellation))
