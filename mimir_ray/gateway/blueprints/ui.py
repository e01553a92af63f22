"""Pages for people: the index, and static files of mimir_ray/ui."""

from __future__ import annotations

import html
import mimetypes

from sanic import Blueprint, HTTPResponse, Request

from mimir_ray.gateway.errors import text
from mimir_ray.gateway.pages import asset, page
from mimir_ray.gateway.services import services_of

ASSETS = frozenset({"style.css", "chart.js", "index.js", "graph.js", "icon.svg"})
CACHE = {"Cache-Control": "max-age=300"}


def blueprint(prometheus: str) -> Blueprint:
    """`prometheus`: the prefix of that API. Clients look there too, to see whether anybody is at home."""
    routes = Blueprint("ui")
    routes.add_route(index, f"{prometheus}/", methods=("GET",), name="prometheus_root")
    routes.add_route(index, "/", methods=("GET",), name="index")
    routes.add_route(graph, "/graph", methods=("GET",), name="graph")
    routes.add_route(static, "/static/<name>", methods=("GET",), name="static")
    return routes


async def index(request: Request) -> HTTPResponse:
    return page(request, "Overview", _filled("index.html", request))


async def graph(request: Request) -> HTTPResponse:
    return page(request, "Graph", _filled("graph.html", request))


async def static(_request: Request, name: str) -> HTTPResponse:
    if name not in ASSETS:
        return text("404 page not found", 404)
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return HTTPResponse(asset(name), content_type=kind, headers=CACHE)


def _filled(name: str, request: Request) -> str:
    settings = services_of(request).settings
    tenant = settings.scraper.tenant if settings.tenancy.multitenancy_enabled else ""
    return (
        asset(name)
        .decode()
        .replace("{{prometheus}}", settings.api.prometheus_http_prefix)
        .replace("{{tenant}}", html.escape(tenant, quote=True))
    )
