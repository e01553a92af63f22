"""Ring pages: a table for people, JSON for programs, `forget` for an instance that will not come back.

Upstream: dskit/ring/http.go.
"""

from __future__ import annotations

import html
from datetime import datetime, timezone
from functools import partial
from typing import Any

import orjson
from sanic import Blueprint, HTTPResponse, Request
from sanic.response import redirect

from mimir_ray.cluster.ring.lookup import RingView
from mimir_ray.cluster.ring.model import COMPACTOR, DISTRIBUTOR, INGESTER, STORE_GATEWAY, InstanceId, RingName
from mimir_ray.gateway.answers import JSON, wants_json
from mimir_ray.gateway.errors import as_text
from mimir_ray.gateway.pages import page, table
from mimir_ray.gateway.same_site import protect
from mimir_ray.gateway.services import services_of

PAGES = (
    (INGESTER, "Ingester"),
    (DISTRIBUTOR, "Distributor"),
    (STORE_GATEWAY, "Store-gateway"),
    (COMPACTOR, "Compactor"),
)
"""The rings that have a page, at /<ring>/ring."""


def blueprint() -> Blueprint:
    routes = Blueprint("rings")
    protect(routes)
    for ring, title in PAGES:
        show = partial(ring_page, ring=ring, title=title)
        routes.add_route(show, f"/{ring}/ring", methods=("GET", "POST"), name=ring.replace("-", "_"))
    return routes


async def ring_page(request: Request, ring: RingName, title: str) -> HTTPResponse:
    """GET shows the ring; POST `forget=<id>` removes an instance and comes back."""
    services = services_of(request)
    try:
        if request.method == "POST":
            name = InstanceId((request.form or {}).get("forget", ""))
            await services.in_thread(lambda: services.ring.call("forget", ring, name))
            return redirect(request.path)
        view = services.ring_view(ring)
        now_ms = services.clock.now_ms()
        if wants_json(request):
            return HTTPResponse(orjson.dumps(describe(view, now_ms)), content_type=JSON)
        return page(request, f"{title} ring status", _table(view, now_ms))
    except Exception as error:  # noqa: BLE001  (the edge)
        return as_text(error, request)


def describe(view: RingView, now_ms: int) -> dict[str, Any]:
    """The JSON form of a ring page."""
    healthy = view.healthy()
    shares = view.ownership()
    return {
        "shards": [
            {
                "id": one.id,
                "state": str(one.state)
                if one.heartbeat_within(view.options.heartbeat_timeout_ms, now_ms)
                else "UNHEALTHY",
                "address": one.address,
                "timestamp": _moment(one.heartbeat_ms),
                "registered_timestamp": _moment(one.registered_ms),
                "read_only": one.read_only,
                "read_only_updated_timestamp": _moment(one.read_only_updated_ms) if one.read_only_updated_ms else "",
                "zone": one.zone,
                "tokens": one.tokens.tolist(),
                "healthy": bool(fine),
                "ownership": float(share),
            }
            for one, fine, share in zip(view.instances, healthy, shares, strict=True)
        ],
        "now": _moment(now_ms),
        **({"replication_factor": view.replication_factor} if view.replication is not None else {}),
    }


def _table(view: RingView, now_ms: int) -> str:
    shown = describe(view, now_ms)
    rows = [
        [
            html.escape(one["id"]),
            html.escape(one["zone"]),
            f'<span class="state {one["state"].lower()}">{one["state"]}</span>',
            html.escape(one["address"]),
            one["timestamp"],
            one["registered_timestamp"],
            "yes" if one["read_only"] else "no",
            str(len(one["tokens"])),
            f"{one['ownership']:.1%}",
            '<form method="post"><button name="forget" '
            f'value="{html.escape(one["id"], quote=True)}">Forget</button></form>',
        ]
        for one in shown["shards"]
    ]
    heads = [
        "Instance",
        "Zone",
        "State",
        "Address",
        "Last heartbeat",
        "Registered",
        "Read-only",
        "Tokens",
        "Ownership",
        "",
    ]
    return f"<p>Now: {shown['now']}. {html.escape(copies(view))}</p>{table(heads, rows)}"


def copies(view: RingView) -> str:
    """How many copies of a sample there are, in a sentence or two."""
    known, unit = view.replication, "zone" if view.options.zone_aware else "machine"
    if known is None:
        return f"Replication factor {view.replication_factor}."
    said = [f"Replication factor {known.factor}, automatic, since {_moment(known.since_ms)}."]
    if known.announced:
        said.append(f"It will be {known.announced} from {_moment(known.announced_ms)} on.")
    if known.past:
        before = ", ".join(f"{one.factor} until {_moment(one.until_ms)}" for one in known.past)
        said.append(f"Within the look-back it was {before}.")
    if known.lost:
        lost = ", ".join(f"{one.instance} at {_moment(one.at_ms)}" for one in known.lost)
        said.append(f"Copies of recent samples were lost with {lost}.")
    may = f"one {unit}" if known.failures_max else f"no {unit}"
    said.append(f"Queries may leave out {may}.")
    return " ".join(said)


def _moment(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")
