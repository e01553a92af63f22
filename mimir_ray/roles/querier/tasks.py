"""What one Ray task of a wide query does: a fragment on one shard of the series."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache

from mimir_ray.cluster.ring.lookup import RingView
from mimir_ray.cluster.transport.base import Transport
from mimir_ray.model.tenant import TenantId
from mimir_ray.promql.limits import Cancellation
from mimir_ray.promql.operators.fragment import execute_fragment
from mimir_ray.promql.plan.fragment import Fragment, FragmentPart
from mimir_ray.roles.querier.source import ClusterSource, Ingesters

FAN_OUT_THREADS = 16


@cache
def _executor() -> ThreadPoolExecutor:
    """One a process: workers are kept warm and run task after task."""
    return ThreadPoolExecutor(FAN_OUT_THREADS, "fan-out")


def run_shard(
    transport: Transport, view: RingView, tenant: TenantId, fragment: Fragment, timeout_s: float | None
) -> list[FragmentPart]:
    """Reads the fragment's shard from the ingesters of `view`, evaluates it, and returns all parts."""
    cancellation = Cancellation(timeout_s)
    source = ClusterSource(tenant, Ingesters(lambda: view, transport, _executor()), cancellation)
    return list(execute_fragment(fragment, source, cancellation))
