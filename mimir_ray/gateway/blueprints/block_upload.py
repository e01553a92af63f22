"""Uploads of blocks. A file's body goes through a spool file, a piece at a time, and then into the bucket.

Upstream: pkg/compactor/block_upload.go.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import orjson
import structlog
from sanic import Blueprint, HTTPResponse, Request

from mimir_ray.errors import ClientError
from mimir_ray.gateway.answers import JSON
from mimir_ray.gateway.errors import TEXT, text
from mimir_ray.gateway.parameters import Parameters
from mimir_ray.gateway.services import GatewayServices, services_of
from mimir_ray.model.tenant import NoTenant, TenantId
from mimir_ray.roles.compactor.block_upload import META_BYTES_MAX, UploadRefused

log = structlog.get_logger(__name__)

WRITE_BYTES = 1 << 20
"""Pieces of a body are gathered to about so many before a thread writes them."""
STALL_TIMEOUT_S = 3600.0
"""For the bucket to take what was spooled: longer than any other request may last."""


def blueprint() -> Blueprint:
    routes = Blueprint("block_upload", url_prefix="/api/v1/upload/block")
    routes.add_route(start, "/<block:str>/start", methods=("POST",), name="start", stream=True)
    routes.add_route(files, "/<block:str>/files", methods=("POST",), name="files", stream=True)
    routes.add_route(finish, "/<block:str>/finish", methods=("POST",), name="finish")
    routes.add_route(check, "/<block:str>/check", methods=("GET",), name="check")
    return routes


async def start(request: Request, block: str) -> HTTPResponse:
    """Takes the description of a block."""
    services = services_of(request)
    try:
        tenant, ulid = await _allowed(services, request, block)
        body = bytearray()
        while len(body) <= META_BYTES_MAX and (piece := await _next_piece(request)) is not None:
            body += piece
        await services.compaction.in_thread(lambda: services.compaction.uploads.start(tenant, ulid, bytes(body)))
    except Exception as error:  # noqa: BLE001  (the edge)
        return _failed(error, request)
    return HTTPResponse(status=200, content_type=TEXT)


async def files(request: Request, block: str) -> HTTPResponse:
    """Takes one file."""
    services = services_of(request)
    uploads = services.compaction.uploads
    try:
        tenant, ulid = await _allowed(services, request, block)
        path = Parameters(request).get("path")
        size = _length(request)
        expected = await services.compaction.in_thread(lambda: uploads.expect_file(tenant, ulid, path, size))
        protocol: Any = request.protocol
        protocol.response_timeout = max(protocol.response_timeout, STALL_TIMEOUT_S)
        spool = services.compaction.spool
        with await services.compaction.in_thread(lambda: _spool_file(spool)) as file:
            await _receive(services, request, file, expected)
            await services.compaction.in_thread(lambda: uploads.put_file(tenant, ulid, path, Path(file.name)))
    except Exception as error:  # noqa: BLE001  (the edge)
        return _failed(error, request)
    return HTTPResponse(status=200, content_type=TEXT)


async def finish(request: Request, block: str) -> HTTPResponse:
    """Has the block checked, in the background where checks are on."""
    services = services_of(request)
    try:
        tenant, ulid = await _allowed(services, request, block)
        await services.compaction.in_thread(lambda: services.compaction.finish_upload(tenant, ulid))
    except Exception as error:  # noqa: BLE001  (the edge)
        return _failed(error, request)
    return HTTPResponse(status=200, content_type=TEXT)


async def check(request: Request, block: str) -> HTTPResponse:
    """How the upload stands; with `files=true`, ours, also which files have come."""
    services = services_of(request)
    uploads = services.compaction.uploads
    there: list[str] = []
    try:
        tenant, ulid = await _allowed(services, request, block)
        progress = await services.compaction.in_thread(lambda: uploads.check(tenant, ulid))
        meta = progress.meta
        if meta is not None and Parameters(request).get("files") == "true":
            there = await services.compaction.in_thread(lambda: uploads.files_there(tenant, meta))
    except Exception as error:  # noqa: BLE001  (the edge)
        return _failed(error, request)
    body: dict[str, Any] = {"result": progress.state.value}
    if progress.error:
        body["error"] = progress.error
    if there:
        body["files"] = there
    return HTTPResponse(orjson.dumps(body), content_type=JSON)


async def _allowed(services: GatewayServices, request: Request, block: str) -> tuple[TenantId, str]:
    """Whose block it is, and which. ULIDs may be spelt in lower case. Raises what the client is told."""
    ulid = block.upper()
    try:
        tenant = services.auth.tenant(request)
    except NoTenant:
        raise
    except ClientError as error:
        raise UploadRefused(400, "invalid tenant ID") from error
    services.compaction.uploads.allow(tenant, ulid)
    return tenant, ulid


def _length(request: Request) -> int | None:
    """What Content-Length says; None for a body in chunks of unknown number."""
    stated = request.headers.get("content-length")
    if stated is None:
        return None if "transfer-encoding" in request.headers else 0
    return int(stated) if stated.isdigit() else None


def _spool_file(folder: Path) -> IO[bytes]:
    folder.mkdir(parents=True, exist_ok=True)
    return tempfile.NamedTemporaryFile(prefix="upload-", dir=folder)


async def _receive(services: GatewayServices, request: Request, file: IO[bytes], expected: int) -> None:
    """Writes the whole body to the file; holds a piece or two of it. Raises where it is longer than expected."""
    pieces: list[bytes] = []
    gathered = received = 0
    while True:
        piece = await _next_piece(request)
        if piece is not None:
            received += len(piece)
            gathered += len(piece)
            pieces.append(piece)
            if received > expected:
                raise UploadRefused(400, "file size doesn't match meta.json")
        if gathered >= WRITE_BYTES or piece is None:
            data = b"".join(pieces)
            pieces, gathered = [], 0
            await services.compaction.in_thread(_writer(file, data))
        if piece is None:
            break
    if received == 0:
        raise UploadRefused(400, "file cannot be empty")
    await services.compaction.in_thread(file.flush)


async def _next_piece(request: Request) -> bytes | None:
    """Of the body; None at its end."""
    stream: Any = request.stream
    return await stream.read()  # type: ignore[no-any-return]


def _writer(file: IO[bytes], data: bytes) -> Callable[[], int]:
    return lambda: file.write(data)


def _failed(error: Exception, request: Request) -> HTTPResponse:
    if isinstance(error, UploadRefused):
        return text(error.message, error.status)
    if isinstance(error, NoTenant):
        return text(str(error), 401)
    number = f"{time.time_ns():016x}"
    log.error("block upload failed", path=request.path, error=repr(error), id=number)
    return text(f"internal server error (id {number})", 500)
