"""Administration of ingesters. One gateway fronts several: a request is for all of them, or for one with `?instance=`.

In Mimir each of these acts on the process that is asked. Here something is "set" where it is for every ingester that
the request is for; a failure of one is the answer once all were asked. Upstream: pkg/ingester/ingester.go.
"""

from __future__ import annotations

from typing import Any

import orjson
from sanic import Blueprint, HTTPResponse, Request

from mimir_ray.errors import InvalidArgument
from mimir_ray.gateway.answers import JSON
from mimir_ray.gateway.blueprints.ingester_pages import tenant_tsdb, tenants, tsdb_metrics
from mimir_ray.gateway.errors import TEXT, as_text
from mimir_ray.gateway.ingesters import ask
from mimir_ray.gateway.parameters import Parameters
from mimir_ray.gateway.same_site import protect
from mimir_ray.model.tenant import validate_tenant

FLUSH_TIMEOUT_S = 600.0


def blueprint() -> Blueprint:
    routes = Blueprint("ingester")
    protect(routes, ("/ingester/flush",))
    for handler, name, methods in (
        (flush, "flush", ("GET", "POST")),
        (prepare_shutdown, "prepare-shutdown", ("GET", "POST", "DELETE")),
        (shutdown, "shutdown", ("POST",)),
        (prepare_partition_downscale, "prepare-partition-downscale", ("GET", "POST", "DELETE")),
        (prepare_instance_ring_downscale, "prepare-instance-ring-downscale", ("GET", "POST", "DELETE")),
        (unregister_on_shutdown, "unregister-on-shutdown", ("GET", "PUT", "DELETE")),
        (tenants, "tenants", ("GET",)),
        (tenant_tsdb, "tsdb/<tenant:str>", ("GET",)),
        (tsdb_metrics, "tsdb_metrics", ("GET",)),
    ):
        routes.add_route(handler, f"/ingester/{name}", methods=methods, name=handler.__name__)
    return routes


async def flush(request: Request) -> HTTPResponse:
    """204 once all ingesters have begun, or, with `wait=true`, have cut and uploaded blocks of everything.

    `tenant`, any number of times: only of these. 400 for a bad form, 503 where an ingester is not running or fails.
    """
    try:
        parameters = Parameters(request)
        only = tuple(validate_tenant(one) for one in parameters.all("tenant"))
        await ask(request, "flush", only, parameters.get("wait") == "true", timeout_s=FLUSH_TIMEOUT_S)
    except Exception as error:  # noqa: BLE001  (the edge)
        return as_text(error, request)
    return HTTPResponse(status=204)


async def prepare_shutdown(request: Request) -> HTTPResponse:
    """GET: `set` or `unset`. POST: unregister and flush when stopped, over restarts too. DELETE: as configured."""
    try:
        change = {"POST": True, "DELETE": False}.get(request.method)
        prepared = await ask(request, "prepare_shutdown", change)
    except Exception as error:  # noqa: BLE001  (the edge)
        return as_text(error, request)
    if change is not None:
        return HTTPResponse(status=204)
    return HTTPResponse("set\n" if all(prepared) else "unset\n", content_type=TEXT)


async def shutdown(request: Request) -> HTTPResponse:
    """Flushes, leaves the ring, serves no more; the process stays. 204 when that is done."""
    try:
        await ask(request, "shutdown", timeout_s=FLUSH_TIMEOUT_S)
    except Exception as error:  # noqa: BLE001  (the edge)
        return as_text(error, request)
    return HTTPResponse(status=204)


async def prepare_partition_downscale(_request: Request) -> HTTPResponse:
    """Partitions are of ingest storage, which is not in use."""
    return HTTPResponse(status=405, content_type=TEXT)


async def prepare_instance_ring_downscale(request: Request) -> HTTPResponse:
    """POST: takes no new writes. DELETE: does again; 409 during a flush. All say since when (s), or 0."""
    try:
        since = await ask(request, "read_only", {"POST": True, "DELETE": False}.get(request.method))
    except Exception as error:  # noqa: BLE001  (the edge)
        return as_text(error, request)
    return _json({"timestamp": max(since) // 1000 if all(since) else 0})


async def unregister_on_shutdown(request: Request) -> HTTPResponse:
    """PUT `{"unregister":true}`: what the next stop does. DELETE: as configured. All say what holds."""
    try:
        change: tuple[Any, ...] = {"DELETE": ("reset",)}.get(request.method, ())
        if request.method == "PUT":
            change = ("set", _wanted(request.body))
        states = await ask(request, "unregister_on_shutdown", *change)
    except Exception as error:  # noqa: BLE001  (the edge)
        return as_text(error, request)
    return _json({"unregister": all(states)})


def _wanted(body: bytes) -> bool:
    try:
        wanted = orjson.loads(body).get("unregister")
    except (orjson.JSONDecodeError, AttributeError):
        raise InvalidArgument('expected a JSON object {"unregister": true} or {"unregister": false}') from None
    if not isinstance(wanted, bool):
        raise InvalidArgument("unregister must be true or false")
    return wanted


def _json(body: Any) -> HTTPResponse:
    return HTTPResponse(orjson.dumps(body), content_type=JSON)
