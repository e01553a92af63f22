"""How much tenants send and have. Upstream: pkg/distributor/http_admin.go, distributor.go (AllUserStats, UserStats)."""

from __future__ import annotations

import html
from typing import Any

import orjson
from sanic import Blueprint, HTTPResponse, Request

from mimir_ray.cluster.ring.model import INGESTER, WRITE
from mimir_ray.errors import InvalidArgument
from mimir_ray.gateway.answers import JSON, wants_json
from mimir_ray.gateway.errors import as_text, text
from mimir_ray.gateway.ingesters import addressed, ask_all
from mimir_ray.gateway.pages import page, table
from mimir_ray.gateway.services import GatewayServices, services_of
from mimir_ray.roles.api import TenantStats

COUNT_METHODS = ("active", "inmemory")


def blueprint() -> Blueprint:
    routes = Blueprint("tenant_stats")
    routes.add_route(all_user_stats, "/distributor/all_user_stats", methods=("GET",), name="all_user_stats")
    routes.add_route(user_stats, "/api/v1/user_stats", methods=("GET",), name="user_stats")
    return routes


async def all_user_stats(request: Request) -> HTTPResponse:
    """All tenants, most series first, replicas counted as often as there are. 500 unless all ingesters are ACTIVE.

    `count_method`: `inmemory` series, or `active` ones.
    """
    services = services_of(request)
    try:
        active = _counts_active(request)
        if missing := _not_active(services):
            return text(f"not all ingesters are ACTIVE: {missing}", 500)
        totals = await services.in_thread(lambda: _totals(services))
    except Exception as error:  # noqa: BLE001  (the edge)
        return as_text(error, request)
    shown = [{"userID": tenant, **_shown(one, active)} for tenant, one in totals.items()]
    shown.sort(key=lambda one: (-one["numSeries"], one["userID"]))
    if wants_json(request):
        return HTTPResponse(orjson.dumps(shown), content_type=JSON)
    rows = [
        [
            html.escape(one["userID"]),
            str(one["numSeries"]),
            *(f"{one[name]:.2f}" for name in ("ingestionRate", "APIIngestionRate", "RuleIngestionRate")),
        ]
        for one in shown
    ]
    replicas = services.ring_view(INGESTER).replication_factor
    heads = ("User", "# Series", "Total ingestion rate", "API ingestion rate", "Rule ingestion rate")
    note = f"<p>Rates are in samples per second. Replicas are counted: the replication factor is {replicas}.</p>"
    return page(request, "Ingester stats", note + table(heads, rows))


async def user_stats(request: Request) -> HTTPResponse:
    """The tenant's own, before replication; zeros for one that no ingester knows."""
    services = services_of(request)
    try:
        tenant = services.auth.tenant(request)
        active = _counts_active(request)
        if missing := _not_active(services):
            return text(f"not all ingesters are ACTIVE: {missing}", 500)
        totals = await services.in_thread(lambda: _totals(services))
    except Exception as error:  # noqa: BLE001  (the edge)
        return as_text(error, request)
    replicas = max(1, min(services.ring_view(INGESTER).replication_factor, len(services.ring_view(INGESTER))))
    shown = _shown(totals.get(tenant, TenantStats(0, 0.0)), active)
    body = {name: value // replicas if name == "numSeries" else value / replicas for name, value in shown.items()}
    return HTTPResponse(orjson.dumps(body), content_type=JSON)


def _shown(stats: TenantStats, active: bool) -> dict[str, Any]:
    return {
        "ingestionRate": stats.ingestion_rate,
        "numSeries": stats.active_series if active else stats.series,
        "APIIngestionRate": stats.ingestion_rate - stats.rule_ingestion_rate,
        "RuleIngestionRate": stats.rule_ingestion_rate,
    }


def _counts_active(request: Request) -> bool:
    method = request.args.get("count_method", "inmemory")
    if method not in COUNT_METHODS:
        raise InvalidArgument(
            f"invalid 'count_method' param '{method}'. valid options are: [{','.join(COUNT_METHODS)}]"
        )
    return bool(method == "active")


def _not_active(services: GatewayServices) -> str:
    view = services.ring_view(INGESTER)
    missing = [one.id for one, fine in zip(view.instances, view.healthy(WRITE).tolist(), strict=True) if not fine]
    return ", ".join(missing)


def _totals(services: GatewayServices) -> dict[str, TenantStats]:
    totals: dict[str, TenantStats] = {}
    for _, answer in ask_all(services, addressed(services), "tenant_stats"):
        for tenant, one in answer.items():
            before = totals.get(tenant, TenantStats(0, 0.0))
            totals[tenant] = TenantStats(
                before.series + one.series,
                before.ingestion_rate + one.ingestion_rate,
                before.rule_ingestion_rate + one.rule_ingestion_rate,
                before.active_series + one.active_series,
            )
    return totals
