"""Which replica of each HA pair is elected: a table for people, JSON for programs.

Upstream: pkg/distributor/ha_tracker_http.go. Times until the next refresh and failover are the tenant's, as Go's
durations (ns) in the JSON.
"""

from __future__ import annotations

import html
from datetime import datetime, timezone
from typing import Any

import orjson
from sanic import Blueprint, HTTPResponse, Request

from mimir_ray.cluster.ring.elections import Elected
from mimir_ray.config.units import Duration
from mimir_ray.gateway.answers import JSON, wants_json
from mimir_ray.gateway.errors import as_text
from mimir_ray.gateway.pages import page, table
from mimir_ray.gateway.services import GatewayServices, services_of

_NS_PER_MS = 1_000_000
HEADS = ("Tenant", "Cluster", "Replica", "Elected", "Last received", "Until refresh", "Until failover", "Changes")


def blueprint() -> Blueprint:
    routes = Blueprint("ha_tracker")
    routes.add_route(elected, "/distributor/ha_tracker", methods=("GET",), name="elected")
    return routes


async def elected(request: Request) -> HTTPResponse:
    services = services_of(request)
    try:
        if not services.settings.distributor.ha_tracker.enable_ha_tracker:
            note = "<p>The HA tracker is off: -distributor.ha-tracker.enable turns it on.</p>"
            return page(request, "HA tracker", note)
        records = await services.in_thread(lambda: services.ring.call("ha_records"))
        now_ms = services.clock.now_ms()
        rows = describe(services, records, now_ms)
        if wants_json(request):
            return HTTPResponse(orjson.dumps({"elected": rows, "now": _moment(now_ms)}), content_type=JSON)
        cells = [
            [
                html.escape(row["userID"]),
                html.escape(row["cluster"]),
                html.escape(row["replica"]),
                row["electedAt"],
                row["receivedAt"],
                str(Duration(row["updateDuration"] // _NS_PER_MS)),
                str(Duration(row["failoverDuration"] // _NS_PER_MS)),
                str(row["electedChanges"]),
            ]
            for row in rows
        ]
        return page(request, "HA tracker", f"<p>Now: {_moment(now_ms)}.</p>{table(HEADS, cells)}")
    except Exception as error:  # noqa: BLE001  (the edge)
        return as_text(error, request)


def describe(services: GatewayServices, records: dict[str, dict[str, Elected]], now_ms: int) -> list[dict[str, Any]]:
    """By tenant and cluster; a time that is over is below zero."""
    rows = []
    for tenant, clusters in sorted(records.items()):
        limits = services.runtime.limits(tenant)
        for cluster, record in sorted(clusters.items()):
            age = now_ms - record.received_ms
            rows.append(
                {
                    "userID": tenant,
                    "cluster": cluster,
                    "replica": record.replica,
                    "electedAt": _moment(record.elected_ms),
                    "receivedAt": _moment(record.received_ms),
                    "updateDuration": (limits.ha_tracker_update_timeout.ms - age) * _NS_PER_MS,
                    "failoverDuration": (limits.ha_tracker_failover_timeout.ms - age) * _NS_PER_MS,
                    "electedChanges": record.changes,
                }
            )
    return rows


def _moment(time_ms: int) -> str:
    moment = datetime.fromtimestamp(time_ms / 1000, timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
