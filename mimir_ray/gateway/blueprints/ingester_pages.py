"""What ingesters have: tenants, one tenant's database, its metrics. JSON where asked for, pages otherwise.

Upstream: pkg/ingester (TenantsHandler, TenantTSDBHandler), pkg/api.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any
from urllib.parse import quote, unquote

import orjson
from sanic import HTTPResponse, Request

from mimir_ray.cluster.ring.model import InstanceDesc
from mimir_ray.errors import NotFound
from mimir_ray.gateway.answers import JSON, wants_json
from mimir_ray.gateway.errors import as_text
from mimir_ray.gateway.ingesters import CALL_TIMEOUT_S, addressed, ask_all
from mimir_ray.gateway.pages import page, table
from mimir_ray.gateway.services import GatewayServices, services_of
from mimir_ray.model.tenant import TenantId, validate_tenant
from mimir_ray.roles.api import TsdbPage
from mimir_ray.telemetry.federation import merge
from mimir_ray.telemetry.metrics import CONTENT_TYPE


async def tenants(request: Request) -> HTTPResponse:
    """Tenants with an open TSDB, by ingester."""
    services = services_of(request)
    try:
        wanted = request.args.get("instance", "")
        answers = await services.in_thread(lambda: ask_all(services, addressed(services, wanted), "tenants"))
    except Exception as error:  # noqa: BLE001  (the edge)
        return as_text(error, request)
    shown = [
        {
            "instance": instance.id,
            "tenant": one.tenant,
            "blocks": one.blocks,
            "minTime": moment(one.min_time),
            "maxTime": moment(one.max_time),
        }
        for instance, found in answers
        for one in found
    ]
    now = moment(services.clock.now_ms())
    if wants_json(request):
        return HTTPResponse(orjson.dumps({"now": now, "tenants": shown}), content_type=JSON)
    prefix = html.escape(services.settings.server.http_path_prefix)
    rows = [
        [
            html.escape(one["instance"]),
            f'<a href="{prefix}/ingester/tsdb/{quote(one["tenant"], safe="")}">{html.escape(one["tenant"])}</a>',
            str(one["blocks"]),
            one["minTime"],
            one["maxTime"],
        ]
        for one in shown
    ]
    body = f"<p>Now: {now}.</p>{table(('Ingester', 'Tenant', 'Blocks', 'Oldest sample', 'Newest sample'), rows)}"
    return page(request, "Ingester tenants", body)


async def tenant_tsdb(request: Request, tenant: str) -> HTTPResponse:
    """One tenant's open TSDB, by ingester. 404 where none of the ingesters has one."""
    services = services_of(request)
    try:
        who = validate_tenant(unquote(tenant))
        wanted = request.args.get("instance", "")
        answers = await services.in_thread(lambda: _where_open(services, wanted, "tenant_tsdb", who))
    except Exception as error:  # noqa: BLE001  (the edge)
        return as_text(error, request)
    now = moment(services.clock.now_ms())
    if wants_json(request):
        shown = [{"instance": instance.id, **_json(found)} for instance, found in answers]
        return HTTPResponse(orjson.dumps({"now": now, "tenant": who, "tsdbs": shown}), content_type=JSON)
    return page(request, f"TSDB of tenant {who}", "".join(_section(instance, found) for instance, found in answers))


async def tsdb_metrics(request: Request) -> HTTPResponse:
    """The metrics of the tenant's TSDBs, with a label `pod` for the ingester, as in /metrics. None without a TSDB."""
    services = services_of(request)
    try:
        who = services.auth.tenant(request)
        wanted = request.args.get("instance", "")
        answers = await services.in_thread(lambda: _where_open(services, wanted, "tsdb_metrics", who))
        body = merge({instance.id: text for instance, text in answers})
    except NotFound:
        return HTTPResponse(b"", content_type=CONTENT_TYPE)
    except Exception as error:  # noqa: BLE001  (the edge)
        return as_text(error, request)
    return HTTPResponse(body, content_type=CONTENT_TYPE)


def _where_open(
    services: GatewayServices, instance: str, method: str, tenant: TenantId
) -> Sequence[tuple[InstanceDesc, Any]]:
    """The answers of the ingesters that have the tenant. Raises NotFound if none has, or the first other failure."""
    instances = addressed(services, instance)
    open_there = ask_all(services, instances, "tenants")
    holding = [one for one, found in open_there if any(page.tenant == tenant for page in found)]
    if not holding:
        raise NotFound(f"TSDB not found for tenant {tenant}")
    return ask_all(services, holding, method, tenant, timeout_s=CALL_TIMEOUT_S)


def _json(found: TsdbPage) -> dict[str, Any]:
    return {
        "head": {
            "numSeries": found.series,
            "minTime": moment(found.min_time),
            "maxTime": moment(found.max_time),
            "memoryBytes": found.memory_bytes,
            "walBytes": found.wal_bytes,
        },
        "blocks": [
            asdict(one) | {"min_time": moment(one.min_time), "max_time": moment(one.max_time)} for one in found.blocks
        ],
    }


def _section(instance: InstanceDesc, found: TsdbPage) -> str:
    rows = [
        [
            one.ulid,
            moment(one.min_time),
            moment(one.max_time),
            str(one.series),
            str(one.samples),
            str(one.size_bytes),
            "yes" if one.out_of_order else "no",
            "yes" if one.uploaded else "no",
        ]
        for one in found.blocks
    ]
    heads = ("Block", "From", "To", "Series", "Samples", "Bytes", "Out of order", "Uploaded")
    head = (
        f"Head: {found.series} series, {moment(found.min_time) or 'no samples'} to {moment(found.max_time)}, "
        f"{found.memory_bytes} bytes in memory, {found.wal_bytes} bytes of WAL since the last checkpoint."
    )
    return f"<h2>{html.escape(instance.id)}</h2><p>{head}</p>{table(heads, rows)}"


def moment(time_ms: int | None) -> str:
    """RFC 3339 to the ms; "" for no time, and for one that no calendar has."""
    if time_ms is None or not -62_135_596_800_000 <= time_ms < 253_402_300_800_000:
        return ""
    text = datetime.fromtimestamp(time_ms / 1000, timezone.utc).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")
