"""Administration of ingesters: one request, asked of all of them. Upstream: pkg/ingester/ingester.go FlushHandler."""

from __future__ import annotations

from sanic import Blueprint, HTTPResponse, Request

from mimir_ray.cluster.ring.model import RingName
from mimir_ray.gateway.errors import as_text
from mimir_ray.gateway.parameters import Parameters
from mimir_ray.gateway.services import GatewayServices, services_of
from mimir_ray.model.tenant import TenantId, validate_tenant

FLUSH_TIMEOUT_S = 600.0


def blueprint() -> Blueprint:
    routes = Blueprint("ingester")
    routes.add_route(flush, "/ingester/flush", methods=("GET", "POST"), name="flush")
    return routes


async def flush(request: Request) -> HTTPResponse:
    """204 once all ingesters have begun, or, with `wait=true`, have cut and uploaded blocks of everything.

    `tenant`, any number of times: only of these. 400 for a bad form, 503 where an ingester is not running or fails.
    """
    services = services_of(request)
    try:
        parameters = Parameters(request)
        tenants = tuple(validate_tenant(one) for one in parameters.all("tenant"))
        wait = parameters.get("wait") == "true"
        await services.in_thread(lambda: _flush_all(services, tenants, wait))
    except Exception as error:  # noqa: BLE001  (the edge)
        return as_text(error, request)
    return HTTPResponse(status=204)


def _flush_all(services: GatewayServices, tenants: tuple[TenantId, ...], wait: bool) -> None:
    """Waits for all ingesters and raises the first failure."""
    instances = services.ring_view(RingName("ingester")).instances
    calls = [
        services.transport.client(one.address).begin("flush", tenants, wait, timeout_s=FLUSH_TIMEOUT_S)
        for one in instances
    ]
    failures: list[Exception] = []
    for call in calls:
        try:
            call.result()
        except Exception as error:  # noqa: BLE001  (raised below)
            failures.append(error)
    if failures:
        raise failures[0]
