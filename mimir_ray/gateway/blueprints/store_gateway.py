"""Store-gateways: which blocks tenants have in the bucket, and taking store-gateways out of service.

Upstream: pkg/storegateway/tenants_http.go, blocks_http.go, gateway.go PrepareShutdownHandler.
"""

from __future__ import annotations

import html
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import orjson
from sanic import Blueprint, HTTPResponse, Request

from mimir_ray.bucket.layout import CLUSTER_FOLDER, META, block_key, tenant_prefix
from mimir_ray.bucket.markers import list_marks, read_deletion_mark
from mimir_ray.bucket.store import Bucket, ObjectNotFound
from mimir_ray.cluster.ring.model import STORE_GATEWAY
from mimir_ray.errors import MimirRayError, Unavailable
from mimir_ray.gateway import same_site
from mimir_ray.gateway.answers import JSON, wants_json
from mimir_ray.gateway.errors import TEXT, as_text, text
from mimir_ray.gateway.pages import page, table
from mimir_ray.gateway.parameters import Parameters
from mimir_ray.gateway.services import GatewayServices, services_of
from mimir_ray.model.tenant import TenantId, validate_tenant
from mimir_ray.tsdb.block.meta import is_ulid
from mimir_ray.tsdb.compact.plan import block_token

PREPARE_TIMEOUT_S = 10.0
META_THREADS = 16


def blueprint() -> Blueprint:
    routes = Blueprint("store_gateway", url_prefix="/store-gateway")
    routes.add_route(tenants, "/tenants", methods=("GET",), name="tenants")
    routes.add_route(blocks, "/tenant/<tenant:str>/blocks", methods=("GET",), name="blocks")
    routes.add_route(prepare_shutdown, "/prepare-shutdown", methods=("GET", "POST", "DELETE"), name="prepare_shutdown")
    return routes


async def tenants(request: Request) -> HTTPResponse:
    """Everybody who has anything in the bucket."""
    services = services_of(request)
    try:
        folders = await services.compaction.in_thread(services.bucket.list_folders)
    except MimirRayError as error:
        return text(f"Can't read tenants: {error}", 500)
    found = [one for one in folders if one != CLUSTER_FOLDER]
    now = _moment(services.clock.now_ms())
    if wants_json(request):
        return HTTPResponse(orjson.dumps({"now": now, "tenants": found}), content_type=JSON)
    prefix = services.settings.server.http_path_prefix
    rows = [
        [f'<a href="{prefix}/store-gateway/tenant/{html.escape(one, quote=True)}/blocks">{html.escape(one)}</a>']
        for one in found
    ]
    return page(request, "Store-gateway: bucket tenants", f"<p>Now: {now}.</p>{table(['Tenant'], rows)}")


@dataclass(frozen=True, slots=True)
class _Shown:
    """A block of the page. `meta`: the parsed meta.json; `deleted_s`: when it was marked for deletion, unix seconds."""

    meta: dict[str, Any]
    deleted_s: int | None
    split: int | None

    def described(self) -> dict[str, Any]:
        more: dict[str, Any] = {}
        if self.deleted_s is not None:
            more["deletedTime"] = self.deleted_s
        if self.split is not None:
            more["splitId"] = self.split
        return {**self.meta, **more}


async def blocks(request: Request, tenant: str) -> HTTPResponse:
    """A tenant's blocks, newest first. `show_deleted`, `show_sources`, `show_parents`: `on`; `split_count`."""
    services = services_of(request)
    try:
        name = validate_tenant(tenant)
        asked = Parameters(request)
        given = asked.get("split_count")
        splits = int(given) if given.isdecimal() and len(given) < 10 else 0
        shown = await services.compaction.in_thread(
            lambda: _blocks(services.bucket, name, asked.get("show_deleted") == "on", splits)
        )
    except Unavailable as error:
        return text(f"Failed to read block metadata: {error}", 500)
    except Exception as error:  # noqa: BLE001  (the edge)
        return as_text(error, request)
    now = _moment(services.clock.now_ms())
    if wants_json(request):
        body = {"now": now, "tenant": name, "metas": [one.described() for one in shown]}
        return HTTPResponse(orjson.dumps(body), content_type=JSON)
    return page(request, f"Store-gateway: bucket tenant blocks of {name}", _page(shown, asked, splits, now))


def _blocks(bucket: Bucket, tenant: TenantId, with_deleted: bool, splits: int) -> list[_Shown]:
    marks = list_marks(bucket, tenant).deletion
    ulids = [one for one in bucket.list_folders(tenant_prefix(tenant)) if is_ulid(one)]
    wanted = [one for one in ulids if with_deleted or one not in marks]

    def read(ulid: str) -> _Shown | None:
        try:
            meta = orjson.loads(bucket.get(block_key(tenant, ulid, META)))
        except (ObjectNotFound, orjson.JSONDecodeError):
            return None  # not complete yet, or no block
        if not isinstance(meta, dict):
            return None
        mark = read_deletion_mark(bucket, tenant, ulid) if ulid in marks else None
        return _Shown(meta, mark.deletion_time if mark else None, block_token(ulid) % splits if splits else None)

    with ThreadPoolExecutor(META_THREADS) as pool:
        found = [one for one in pool.map(read, wanted) if one is not None]
    return sorted(found, key=lambda one: (-_number(one.meta, "minTime"), str(one.meta.get("ulid"))))


def _page(shown: list[_Shown], asked: Parameters, splits: int, now: str) -> str:
    sources, parents = asked.get("show_sources") == "on", asked.get("show_parents") == "on"
    deleted = asked.get("show_deleted") == "on"
    heads = ["Block", "Split", "ULID time", "Min time", "Max time", "Duration", "Level", "Size", "Labels"]
    heads = [one for one in heads if one != "Split" or splits]
    heads += ["Deletion time"] * deleted + ["Sources"] * sources + ["Parents"] * parents
    rows = []
    for one in shown:
        meta = one.meta
        compaction, thanos = _part(meta, "compaction"), _part(meta, "thanos")
        low, high = _number(meta, "minTime"), _number(meta, "maxTime")
        labels = _part(thanos, "labels")
        row = [html.escape(str(meta.get("ulid", "")))]
        if splits:
            row.append(f"{(one.split or 0) + 1}_of_{splits}")
        row += [
            _moment(_ulid_ms(str(meta.get("ulid", "")))),
            _moment(low),
            _moment(high),
            f"{(high - low) / 3_600_000:g} h",
            str(_number(compaction, "level")),
            _size(sum(_number(file, "size_bytes") for file in thanos.get("files") or [] if isinstance(file, dict))),
            html.escape(", ".join(f"{name}={value}" for name, value in labels.items())),
        ]
        if deleted:
            row.append("" if one.deleted_s is None else _moment(one.deleted_s * 1000))
        if sources:
            row.append("<br>".join(html.escape(str(ulid)) for ulid in compaction.get("sources") or []))
        if parents:
            named = [parent.get("ulid") for parent in compaction.get("parents") or [] if isinstance(parent, dict)]
            row.append("<br>".join(html.escape(str(ulid)) for ulid in named))
        rows.append(row)
    boxes = "".join(
        f'<label><input type="checkbox" name="{field}"{" checked" if on else ""}> {title}</label>'
        for field, title, on in (
            ("show_deleted", "Deleted", deleted),
            ("show_sources", "Sources", sources),
            ("show_parents", "Parents", parents),
        )
    )
    fields = f'{boxes}<label>Split count <input type="number" min="0" name="split_count" value="{splits}"></label>'
    return f'<p>Now: {now}.</p><form method="get">{fields} <button>Show</button></form>{table(heads, rows)}'


async def prepare_shutdown(request: Request) -> HTTPResponse:
    """Whether the next stop of the store-gateways is for good: GET tells, POST says so, DELETE takes it back.

    503 unless all of them are running; 403 where another site's page has a browser ask.
    """
    services = services_of(request)
    try:
        if request.method != "GET":
            same_site.check(request)
        else:
            prepared: list[bool] = await services.in_thread(lambda: _ask_all(services, "store_gateway_prepared"))
            return HTTPResponse("set\n" if prepared and all(prepared) else "unset\n", content_type=TEXT)
        await services.in_thread(lambda: _ask_all(services, "store_gateway_prepare", request.method == "POST"))
    except Exception as error:  # noqa: BLE001  (the edge)
        return as_text(error, request)
    return HTTPResponse(status=204)


def _ask_all(services: GatewayServices, method: str, *arguments: Any) -> list[Any]:
    """The answers of all store-gateways; raises the first failure when all have answered."""
    instances = services.ring_view(STORE_GATEWAY).instances
    if not instances:
        raise Unavailable("no store-gateway is running")
    calls = [
        services.transport.client(one.address).begin(method, *arguments, timeout_s=PREPARE_TIMEOUT_S)
        for one in instances
    ]
    answers: list[Any] = []
    failures: list[Exception] = []
    for call in calls:
        try:
            answers.append(call.result())
        except Exception as error:  # noqa: BLE001  (raised below)
            failures.append(error)
    if failures:
        raise failures[0]
    return answers


def _part(body: dict[str, Any], name: str) -> dict[str, Any]:
    found = body.get(name)
    return found if isinstance(found, dict) else {}


def _number(body: dict[str, Any], name: str) -> int:
    found = body.get(name)
    return found if isinstance(found, int) else 0


def _size(count: int) -> str:
    """As people read it."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            break
        size /= 1024
    return f"{size:.4g} {unit}"


def _ulid_ms(ulid: str) -> int:
    """When it was made."""
    number = 0
    for char in ulid[:10]:
        number = number * 32 + max(0, "0123456789ABCDEFGHJKMNPQRSTVWXYZ".find(char))
    return number


def _moment(time_ms: int) -> str:
    """RFC 3339; times that no calendar has are told in ms."""
    try:
        moment = datetime.fromtimestamp(time_ms / 1000, timezone.utc)
    except (OverflowError, ValueError, OSError):
        return f"{time_ms} ms"
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")
