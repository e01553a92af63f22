"""What one Ray task of a wide query does: a fragment on one shard of the series."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache

from prometheus_client import CollectorRegistry

from mimir_ray.cluster.transport.base import Transport
from mimir_ray.model.tenant import TenantId
from mimir_ray.promql.limits import Cancellation
from mimir_ray.promql.operators.fragment import execute_fragment
from mimir_ray.promql.plan.fragment import Fragment, FragmentPart
from mimir_ray.roles.querier.fragments import QueryScope
from mimir_ray.roles.querier.liveness import Liveness
from mimir_ray.roles.querier.metrics import QuerierMetrics
from mimir_ray.roles.querier.source import Blocks, ClusterSource, Ingesters
from mimir_ray.roles.querier.store import Store, TenantStore

FAN_OUT_THREADS = 16


@cache
def _executor() -> ThreadPoolExecutor:
    """One a process: workers are kept warm and run task after task."""
    return ThreadPoolExecutor(FAN_OUT_THREADS, "fan-out")


@cache
def _metrics() -> QuerierMetrics:
    """Nobody scrapes workers."""
    return QuerierMetrics(CollectorRegistry())


@cache
def _liveness(transport: Transport) -> Liveness:
    return Liveness(transport, time.monotonic)


def run_shard(
    transport: Transport, scope: QueryScope, tenant: TenantId, fragment: Fragment, timeout_s: float | None
) -> list[FragmentPart]:
    """Reads the fragment's shard as `scope` says, evaluates it, and returns all parts."""
    cancellation = Cancellation(timeout_s)
    ingesters = Ingesters(
        lambda: scope.ingesters,
        _liveness(transport),
        _executor(),
        scope.minimize,
        scope.hedge_after_s,
        old=lambda: scope.old,
    )
    source = ClusterSource(tenant, ingesters, cancellation, blocks=_blocks(transport, scope, tenant, cancellation))
    return list(execute_fragment(fragment, source, cancellation))


def _blocks(transport: Transport, scope: QueryScope, tenant: TenantId, cancellation: Cancellation) -> Blocks | None:
    rules, shard, index, config = scope.rules, scope.store_shard, scope.index, scope.store
    if rules is None or shard is None or index is None or config is None:
        return None
    store = Store(lambda _tenant: index, lambda _tenant: shard, _liveness(transport), _executor(), config, _metrics())
    return Blocks(rules, TenantStore(store, tenant, rules.now_ms, cancellation))
