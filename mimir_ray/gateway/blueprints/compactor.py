"""Compactors and tenants' blocks: pages for people, JSON for programs. Upstream: pkg/compactor/compactor_http.go,
tenants_http.go, planned_jobs_http.go, tenant_deletion_api.go."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

import orjson
from sanic import Blueprint, HTTPResponse, Request

from mimir_ray.bucket.bucket_index import BucketIndex
from mimir_ray.bucket.store import BucketUnavailable
from mimir_ray.errors import MimirRayError
from mimir_ray.gateway import same_site
from mimir_ray.gateway.answers import JSON, wants_json
from mimir_ray.gateway.errors import TEXT, as_text, text
from mimir_ray.gateway.pages import page, table
from mimir_ray.gateway.parameters import Parameters
from mimir_ray.gateway.services import services_of
from mimir_ray.model.tenant import NoTenant, TenantId, validate_tenant
from mimir_ray.roles.compactor.admin import PlannedJob


def blueprint() -> Blueprint:
    routes = Blueprint("compactor")
    routes.add_route(tenants, "/compactor/tenants", methods=("GET",), name="tenants")
    routes.add_route(planned_jobs, "/compactor/tenant/<tenant:str>/planned_jobs", methods=("GET",), name="planned_jobs")
    routes.add_route(delete_tenant, "/compactor/delete_tenant", methods=("POST",), name="delete_tenant")
    routes.add_route(delete_status, "/compactor/delete_tenant_status", methods=("GET",), name="delete_status")
    return routes


async def tenants(request: Request) -> HTTPResponse:
    """Everybody who has anything in the bucket."""
    services = services_of(request)
    try:
        found = await services.compaction.in_thread(services.compaction.admin.tenants)
    except Exception as error:  # noqa: BLE001  (the edge)
        return _failed(error, request)
    now = _moment(services.clock.now_ms() // 1000)
    if wants_json(request):
        return HTTPResponse(orjson.dumps({"now": now, "tenants": found}), content_type=JSON)
    prefix = services.settings.server.http_path_prefix
    rows = [
        [f'<a href="{prefix}/compactor/tenant/{html.escape(one, quote=True)}/planned_jobs">{html.escape(one)}</a>']
        for one in found
    ]
    return page(request, "Compactor: tenants", f"<p>Now: {now}.</p>{table(['Tenant'], rows)}")


async def planned_jobs(request: Request, tenant: str) -> HTTPResponse:
    """Computed from the bucket index, for the tenant's settings or others that the URL names."""
    services = services_of(request)
    try:
        name = validate_tenant(tenant)
        asked = Parameters(request)
        limits = services.runtime.limits(name)
        shards = _number(asked.get("merge_shards") or asked.get("split_count"), limits.compactor_split_and_merge_shards)
        groups = _number(asked.get("split_groups"), limits.compactor_split_groups)
        with_compactors = asked.get("show_compactors") == "on"
        found = await services.compaction.in_thread(
            lambda: services.compaction.admin.planned_jobs(name, shards, groups, with_compactors)
        )
    except BucketUnavailable as error:
        return _failed(error, request)
    except MimirRayError as error:
        return as_text(error, request)
    if found is None:  # Upstream answers with status 200, too.
        return HTTPResponse("Failed to read bucket index for tenant", content_type=TEXT)
    index, jobs = found
    about = {
        "now": _moment(services.clock.now_ms() // 1000),
        "bucket_index_updated": _moment(index.updated_at),
        "tenant": name,
        "jobs": [_described(one) for one in jobs],
        "split_jobs_count": sum(one.job.stage == "split" for one in jobs),
        "merge_jobs_count": sum(one.job.stage == "merge" for one in jobs),
        "tenant_split_groups": limits.compactor_split_groups,
        "tenant_merge_shards": limits.compactor_split_and_merge_shards,
    }
    if wants_json(request):
        return HTTPResponse(orjson.dumps(about), content_type=JSON)
    show_blocks = asked.get("show_blocks") == "on"
    body = _jobs_page(about, index, shards, groups, show_blocks, with_compactors)
    return page(request, f"Compactor: planned jobs of {name}", body)


def _described(one: PlannedJob) -> dict[str, Any]:
    job = one.job
    about = {
        "key": job.key,
        "min_time": _moment(job.min_time // 1000),
        "max_time": _moment(job.max_time // 1000),
        "blocks": job.ulids,
    }
    return {**about, "compactor": one.compactor} if one.compactor else about


def _jobs_page(
    about: dict[str, Any], index: BucketIndex, shards: int, groups: int, show_blocks: bool, with_compactors: bool
) -> str:
    heads = ["", "Start time", "End time", "Blocks", "Job"]
    rows: list[Sequence[str]] = []
    for number, job in enumerate(about["jobs"], 1):
        blocks = "<br>".join(map(html.escape, job["blocks"])) if show_blocks else str(len(job["blocks"]))
        row = [str(number), job["min_time"], job["max_time"], blocks, html.escape(job["key"])]
        rows.append([*row, html.escape(job["compactor"])] if with_compactors else row)
    if with_compactors:
        heads.append("Compactor")
    fields = (
        f'<label>Split shards <input type="number" min="0" name="split_count" value="{shards}"></label>'
        f'<label>Split groups <input type="number" min="0" name="split_groups" value="{groups}"></label>'
        f"{_box('show_blocks', 'Blocks', show_blocks)}{_box('show_compactors', 'Compactors', with_compactors)}"
    )
    updated = f"Bucket index of {len(index.blocks)} blocks, updated {about['bucket_index_updated']}."
    return (
        f"<p>Now: {about['now']}. {updated}</p>"
        f'<form method="get">{fields} <button>Show</button></form>'
        f"<p>{about['split_jobs_count']} split jobs, {about['merge_jobs_count']} merge jobs.</p>{table(heads, rows)}"
    )


def _box(name: str, title: str, checked: bool) -> str:
    return f'<label><input type="checkbox" name="{name}"{" checked" if checked else ""}> {title}</label>'


async def delete_tenant(request: Request) -> HTTPResponse:
    """Marks the tenant for deletion: 200 without a body; 401 without a tenant; 500 when that cannot be written.

    Without multi-tenancy no header is needed, so a page of anybody's could have a browser ask: 403 for that.
    """
    services = services_of(request)
    try:
        same_site.check(request)
        tenant = services.auth.tenant(request)
        await services.compaction.in_thread(lambda: services.compaction.admin.delete_tenant(tenant))
    except Exception as error:  # noqa: BLE001  (the edge)
        return _failed(error, request)
    return HTTPResponse(status=200, content_type=TEXT)


async def delete_status(request: Request) -> HTTPResponse:
    """Whether all blocks are gone; 400 without a tenant."""
    services = services_of(request)
    try:
        tenant: TenantId = services.auth.tenant(request)
        deleted = await services.compaction.in_thread(lambda: services.compaction.admin.blocks_deleted(tenant))
    except NoTenant as error:
        return text(str(error), 400)
    except Exception as error:  # noqa: BLE001  (the edge)
        return _failed(error, request)
    return HTTPResponse(orjson.dumps({"tenant_id": tenant, "blocks_deleted": deleted}), content_type=JSON)


def _failed(error: Exception, request: Request) -> HTTPResponse:
    """Object storage that does not answer is our fault here. Upstream: tenant_deletion_api.go."""
    return text(str(error), 500) if isinstance(error, BucketUnavailable) else as_text(error, request)


def _number(value: str, default: int) -> int:
    """What Go's Atoi makes of it where its error is ignored: 0 for what is no number."""
    if not value:
        return default
    return min(int(value), 1 << 16) if re.fullmatch(r"[0-9]{1,9}", value) else 0


def _moment(time_s: int) -> str:
    return datetime.fromtimestamp(time_s, timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")
