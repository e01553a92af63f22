"""One gateway with real roles in this process, whose tenants have limits of their own."""

from __future__ import annotations

import http.client
import itertools
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from mimir_ray.bucket.open import open_bucket
from mimir_ray.cluster.ring.elections import Elected
from mimir_ray.cluster.transport.base import RING
from mimir_ray.config.instance_limits import DistributorInstanceLimits
from mimir_ray.config.limits import Limits
from mimir_ray.config.units import Bytes
from mimir_ray.deploy.settings import Settings
from mimir_ray.gateway.app import create_app
from mimir_ray.gateway.auth import Authenticator
from mimir_ray.gateway.compaction import compaction
from mimir_ray.gateway.metrics import GatewayMetrics
from mimir_ray.gateway.server import GatewayServer
from mimir_ray.gateway.services import GatewayServices
from mimir_ray.promql.engine import Engine
from mimir_ray.roles.distributor.config import HaTrackerConfig
from mimir_ray.roles.distributor.distributor import Distributor
from mimir_ray.roles.distributor.ha_tracker import HaTracker
from mimir_ray.roles.distributor.metrics import DistributorMetrics, HaTrackerMetrics
from mimir_ray.roles.query_frontend.metrics import QueryFrontendMetrics
from mimir_ray.roles.query_frontend.query_frontend import QueryFrontend
from tests.gateway.serving import NOW_MS, settings_with
from tests.scenarios.cluster import Cluster

_names = itertools.count()
SIZE_MAX = 20_000
"""Bytes of a request to write."""


@dataclass
class Stand:
    """The gateway; `limits` of tenants and of the instance may be changed."""

    server: GatewayServer
    cluster: Cluster
    distributor: Distributor
    limits: dict[str, Limits] = field(default_factory=dict)
    instance: DistributorInstanceLimits = field(default_factory=DistributorInstanceLimits)

    def ask(self, method: str, path: str, body: bytes | None, tenant: str, **headers: str) -> tuple[int, str, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)
        sent = {"X-Scope-OrgID": tenant, **{name.replace("_", "-"): value for name, value in headers.items()}}
        try:
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            return answer.status, answer.read().decode("utf-8", "replace"), answer.headers
        finally:
            connection.close()


class Tenants(Cluster):
    """A cluster whose tenants have limits of their own."""

    tenants: Mapping[str, Limits]

    def limits_of(self, tenant: str) -> Limits:
        return self.tenants.get(tenant, self.limits)


@contextmanager
def standing(folder: Path) -> Iterator[Stand]:
    settings = settings_with(multitenancy=True, data_dir=str(folder))
    settings = replace(
        settings,
        api=replace(
            settings.api,
            skip_label_name_validation_header_enabled=True,
            skip_label_count_validation_header_enabled=True,
        ),
        distributor=replace(
            settings.distributor,
            max_recv_msg_size=Bytes(SIZE_MAX),
            max_otlp_request_size=Bytes(SIZE_MAX),
            max_influx_request_size=Bytes(SIZE_MAX),
            influx_endpoint_enabled=True,
            ha_tracker=HaTrackerConfig(enable_ha_tracker=True),
        ),
    )
    cluster = Tenants(folder, 1, 1)
    assert cluster.clock.now_ms() == NOW_MS
    registry, executor = CollectorRegistry(), ThreadPoolExecutor(4)
    ring = cluster.transport.client(RING)

    async def claim(tenant: str, pair: str, replica: str, failover_ms: int, clusters_max: int) -> Elected:
        return await ring.acall("ha_claim", tenant, pair, replica, failover_ms, clusters_max)  # type: ignore[no-any-return]

    class Runtime:
        def limits(self, tenant: str) -> Limits:
            return cluster.limits_of(tenant)

    distributor = Distributor(
        settings.distributor,
        Runtime(),
        lambda _tenant: cluster.view,
        cluster._push_client,
        cluster.clock,
        DistributorMetrics(registry),
        instance_limits=lambda: stand.instance,
        ha_tracker=HaTracker(claim, cluster.clock, HaTrackerMetrics(registry)),
    )
    services = GatewayServices(
        settings=settings,
        defaults=Settings(),
        auth=Authenticator(settings.tenancy),
        clock=cluster.clock,
        distributor=distributor,
        frontend=QueryFrontend(
            Engine(), cluster.querier, Runtime().limits, cluster.clock, QueryFrontendMetrics(registry)
        ),
        runtime=Runtime(),  # type: ignore[arg-type]
        transport=cluster.transport,
        ring=ring,
        ring_view=lambda _: cluster.view,
        not_ready=list,
        service_states=list,
        expositions=lambda: b"",
        query_executor=executor,
        metrics=GatewayMetrics(registry),
        bucket=open_bucket(settings.blocks_bucket, "querier", CollectorRegistry()),
        compaction=compaction(
            settings, cluster.limits_of, lambda: cluster.view, cluster.transport, cluster.clock, registry
        ),
    )
    server = GatewayServer(settings.server)
    stand = Stand(server, cluster, distributor)
    cluster.tenants = stand.limits
    server.start(create_app(services, f"standing-{next(_names)}"))  # Sanic keeps all names of a process
    try:
        yield stand
    finally:
        server.stop(distributor.drain)
        services.compaction.close()
        executor.shutdown(cancel_futures=True)
