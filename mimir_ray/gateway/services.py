"""What request handlers need: the roles and views that the gateway process holds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, TypeVar

from sanic import Request

from mimir_ray.bucket.store import Bucket
from mimir_ray.clock import Clock
from mimir_ray.cluster.ring.lookup import RingView
from mimir_ray.cluster.ring.model import RingName
from mimir_ray.cluster.transport.base import Client, Transport
from mimir_ray.config.overrides import RuntimeConfig
from mimir_ray.gateway.auth import Authenticator
from mimir_ray.gateway.compaction import Compaction
from mimir_ray.gateway.metrics import GatewayMetrics
from mimir_ray.roles.distributor.distributor import Distributor
from mimir_ray.roles.query_frontend.query_frontend import QueryFrontend

Answer = TypeVar("Answer")


@dataclass(slots=True)
class GatewayServices:
    """One a process; handlers find it in `request.app.ctx.services`."""

    settings: Any
    """deploy.settings.Settings; only its blocks are looked at."""
    defaults: Any
    auth: Authenticator
    clock: Clock
    distributor: Distributor
    frontend: QueryFrontend
    runtime: RuntimeConfig
    transport: Transport
    ring: Client
    ring_view: Callable[[RingName], RingView]
    not_ready: Callable[[], list[str]]
    """Why the deployment cannot take traffic, one sentence a service; blocks."""
    service_states: Callable[[], list[tuple[str, str, str]]]
    """(service, state, detail) of all roles; blocks."""
    expositions: Callable[[], bytes]
    """Metrics of all processes of the deployment; blocks."""
    query_executor: Executor
    metrics: GatewayMetrics
    bucket: Bucket
    """Tenants' blocks."""
    compaction: Compaction

    async def in_thread(self, call: Callable[[], Answer]) -> Answer:
        """Runs blocking work beside the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self.query_executor, call)


def services_of(request: Request) -> GatewayServices:
    return request.app.ctx.services  # type: ignore[no-any-return]
