"""`scale` on Ray: puts together what scale.py needs."""

from __future__ import annotations

from collections.abc import Callable

import ray

from mimir_ray.bucket.open import open_bucket
from mimir_ray.clock import SystemClock
from mimir_ray.cluster.ring.model import INGESTER, RingDesc
from mimir_ray.cluster.transport.base import RING
from mimir_ray.cluster.transport.on_ray import RayTransport
from mimir_ray.deploy.ingesters import how_many, indexes, with_ingesters
from mimir_ray.deploy.local_ray import join
from mimir_ray.deploy.placements import ingesters_wanted
from mimir_ray.deploy.ray_actors import RayActors
from mimir_ray.deploy.scale import CALL_TIMEOUT_S, BucketDelay, Scaling
from mimir_ray.deploy.settings import Settings
from mimir_ray.roles.compactor.tenant_blocks import list_tenants
from mimir_ray.telemetry.metrics import process_registry


def rescale(settings: Settings, address: str, roll: bool, say: Callable[[str], None]) -> None:
    """Raises `NoRay`, `NoNodeInZone`, and what `Scaling` raises.

    An automatic number adds ingesters for machines that were added, and takes none away.
    """
    join(address)
    try:
        transport = RayTransport()
        if not settings.deploy.ingesters:
            ring: RingDesc = transport.client(RING).call("snapshot", INGESTER, timeout_s=CALL_TIMEOUT_S)
            there = indexes(ring.instances)
            settings = with_ingesters(settings, how_many(0, ingesters_wanted(settings), there))
        bucket = open_bucket(settings.blocks_bucket, "scale", process_registry())
        delay = BucketDelay(
            bucket,
            lambda: list_tenants(bucket),
            settings.querier.query_store_after,
            settings.blocks_storage.bucket_store.sync_interval,
        )
        timeout_s = settings.distributor.remote_timeout.seconds
        min_ready_s = settings.ingester.ring.min_ready_duration.seconds
        scaling = Scaling(transport, RayActors(settings), delay, SystemClock(), say, timeout_s, min_ready_s)
        if roll:
            scaling.roll()
        else:
            scaling.to(settings.deploy.ingesters)
    finally:
        ray.shutdown()
