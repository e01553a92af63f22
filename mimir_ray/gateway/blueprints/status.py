"""How the system is and what it runs with. Upstream: pkg/api/api.go, pkg/api/handlers.go."""

from __future__ import annotations

import html
import platform

import orjson
from sanic import Blueprint, HTTPResponse, Request

from mimir_ray import __version__
from mimir_ray.config import render
from mimir_ray.config.overrides import user_limits
from mimir_ray.config.server import ApiConfig
from mimir_ray.gateway.answers import JSON, accepts_gzip, encoded, wants_json
from mimir_ray.gateway.errors import TEXT, as_text, text
from mimir_ray.gateway.pages import page, table
from mimir_ray.gateway.services import services_of
from mimir_ray.telemetry.metrics import CONTENT_TYPE

YAML = "text/yaml; charset=utf-8"
MIMIR_VERSION = "2.17.0"
"""The Mimir whose API this is: clients decide by it what they may ask."""


def blueprint(api: ApiConfig) -> Blueprint:
    routes = Blueprint("status")
    prometheus, alertmanager = api.prometheus_http_prefix, api.alertmanager_http_prefix
    for at, path in enumerate(("", prometheus, alertmanager)):
        routes.add_route(buildinfo, f"{path}/api/v1/status/buildinfo", methods=("GET",), name=f"buildinfo{at}")
    routes.add_route(nothing_to_tell, "/api/v1/status/config", methods=("GET",), name="status_config")
    routes.add_route(nothing_to_tell, "/api/v1/status/flags", methods=("GET",), name="status_flags")
    routes.add_route(config, "/config", methods=("GET",), name="config")
    routes.add_route(runtime_config, "/runtime_config", methods=("GET",), name="runtime_config")
    routes.add_route(limits, "/api/v1/user_limits", methods=("GET",), name="user_limits")
    routes.add_route(ready, "/ready", methods=("GET",), name="ready")
    routes.add_route(healthy, f"{prometheus}/-/healthy", methods=("GET",), name="healthy")
    routes.add_route(ready, f"{prometheus}/-/ready", methods=("GET",), name="prometheus_ready")
    routes.add_route(metrics, "/metrics", methods=("GET",), name="metrics")
    routes.add_route(services, "/services", methods=("GET",), name="services")
    return routes


async def buildinfo(_request: Request) -> HTTPResponse:
    """Not Prometheus' shape: Grafana tells Mimir by `application` and `features`. Upstream: pkg/util/version."""
    data = {
        "application": "Grafana Mimir",
        "version": MIMIR_VERSION,
        "revision": f"mimir-ray-{__version__}",
        "branch": "main",
        "goVersion": f"python{platform.python_version()}",
        "features": {"query_sharding": "true"},
    }
    return HTTPResponse(orjson.dumps({"status": "success", "data": data}), content_type=JSON)


async def nothing_to_tell(_request: Request) -> HTTPResponse:
    return HTTPResponse(b'{"status":"success","data":{}}', content_type=JSON)


async def config(request: Request) -> HTTPResponse:
    about = services_of(request)
    return HTTPResponse(
        render.config_page(about.settings, about.defaults, request.args.get("mode", "")), content_type=YAML
    )


async def runtime_config(request: Request) -> HTTPResponse:
    about = services_of(request)
    if not about.settings.runtime_config.file:
        return text("404 page not found", 404)
    return HTTPResponse(about.runtime.current.page(request.args.get("mode", "")), content_type=YAML)


async def limits(request: Request) -> HTTPResponse:
    about = services_of(request)
    if not about.settings.runtime_config.file:
        return text("404 page not found", 404)
    try:
        tenant = about.auth.tenant(request)
    except Exception as error:  # noqa: BLE001  (the edge)
        return as_text(error, request)
    return HTTPResponse(orjson.dumps(user_limits(about.runtime.limits(tenant))), content_type=JSON)


async def ready(request: Request) -> HTTPResponse:
    """200 `ready`, or 503 and what is missing."""
    about = services_of(request)
    reasons = await about.in_thread(about.not_ready)
    if not reasons:
        return HTTPResponse("ready\n", content_type=TEXT)
    return text("Some services are not Running:\n" + "\n".join(reasons), 503)


async def healthy(_request: Request) -> HTTPResponse:
    return HTTPResponse("OK\n", content_type=TEXT)


async def metrics(request: Request) -> HTTPResponse:
    about = services_of(request)
    gzipped = accepts_gzip(request)
    return await about.in_thread(lambda: encoded(about.expositions(), CONTENT_TYPE, gzipped))


async def services(request: Request) -> HTTPResponse:
    """Service → state, of this process and of the roles that it knows."""
    about = services_of(request)
    states = await about.in_thread(about.service_states)
    if wants_json(request):
        shown = [{"service": name, "status": state, "detail": detail} for name, state, detail in states]
        return HTTPResponse(orjson.dumps({"services": shown}), content_type=JSON)
    rows = [
        (html.escape(name), f'<span class="state {state.lower()}">{html.escape(state)}</span>', html.escape(detail))
        for name, state, detail in states
    ]
    return page(request, "Services' status", table(("Service", "Status", ""), rows))
