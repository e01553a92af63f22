"""The Sanic application: routes, and what is the same for all of them."""

from __future__ import annotations

import time

import structlog
from sanic import HTTPResponse, Request, Sanic
from sanic.exceptions import MethodNotAllowed, NotFound, PayloadTooLarge, SanicException

from mimir_ray.gateway.blueprints import (
    block_upload,
    compactor,
    ha_tracker,
    influx,
    ingester,
    otlp,
    prometheus,
    push,
    rings,
    status,
    store_gateway,
    ui,
)
from mimir_ray.gateway.errors import TEXT, as_text, text
from mimir_ray.gateway.services import GatewayServices
from mimir_ray.wire.compression import WriteMessageTooLarge

log = structlog.get_logger(__name__)


def create_app(services: GatewayServices, name: str = "mimir-ray", only_app: bool = False) -> Sanic:
    """Routes and hooks around `services`. Server limits come from `services.settings.server`.

    `only_app`: no other application will be served in this process; Sanic then drops the code (and an empty
    header) of features that are off, which it can do once a process.
    """
    server, distributor = services.settings.server, services.settings.distributor
    app = Sanic(name, configure_logging=False, log_config=None)
    app.ctx.services = services
    app.config.update(
        REQUEST_MAX_SIZE=max(int(distributor.max_recv_msg_size), int(distributor.max_otlp_request_size)) + 1024,
        REQUEST_TIMEOUT=server.http_server_read_timeout.seconds,
        RESPONSE_TIMEOUT=server.http_server_write_timeout.seconds + 10,
        KEEP_ALIVE_TIMEOUT=server.http_server_idle_timeout.seconds,
        GRACEFUL_SHUTDOWN_TIMEOUT=server.graceful_shutdown_timeout.seconds,
        ACCESS_LOG=False,
        OAS=False,
        TOUCHUP=only_app,
    )
    prefix = server.http_path_prefix
    for blueprint in (
        push.blueprint(),
        otlp.blueprint(),
        *([influx.blueprint()] if services.settings.distributor.influx_endpoint_enabled else []),
        prometheus.blueprint(services.settings.api.prometheus_http_prefix),
        status.blueprint(services.settings.api),
        rings.blueprint(),
        ha_tracker.blueprint(),
        store_gateway.blueprint(),
        compactor.blueprint(),
        block_upload.blueprint(),
        ingester.blueprint(),
        ui.blueprint(services.settings.api.prometheus_http_prefix),
    ):
        app.blueprint(blueprint, url_prefix=f"{prefix}{blueprint.url_prefix or ''}" if prefix else None)
    app.exception(Exception)(_unanswered)
    app.on_request(_started)
    app.on_response(_ended)
    return app


async def _unanswered(request: Request, error: Exception) -> HTTPResponse:
    """What no handler answered: unknown paths and methods, bodies that are too large, our own bugs."""
    if isinstance(error, NotFound):
        return text("404 page not found", 404)
    if isinstance(error, MethodNotAllowed):
        return HTTPResponse(status=405, headers=error.headers, content_type=TEXT)
    if isinstance(error, PayloadTooLarge):
        size = request.headers.get("content-length", "")
        distributor = request.app.ctx.services.settings.distributor
        if request.path == f"{_prefix(request)}{otlp.PATH}":
            limit = int(distributor.max_otlp_request_size)
            return otlp.too_large(int(size) if size.isdigit() else limit + 1, limit, request)
        if request.path.startswith(f"{_prefix(request)}/api/v1/"):
            limit = int(distributor.max_recv_msg_size)
            return as_text(WriteMessageTooLarge(int(size) if size.isdigit() else limit + 1, limit), request)
    if isinstance(error, SanicException):
        return text(str(error), error.status_code)
    return as_text(error, request)


def _prefix(request: Request) -> str:
    return str(request.app.ctx.services.settings.server.http_path_prefix)


async def _started(request: Request) -> None:
    request.ctx.began = time.perf_counter()
    request.app.ctx.services.metrics.inflight.inc()


async def _ended(request: Request, response: HTTPResponse) -> None:
    services = request.app.ctx.services
    began = getattr(request.ctx, "began", None)
    if began is None:
        return
    services.metrics.inflight.dec()
    services.metrics.observe(
        request.method, request.uri_template or "other", response.status, time.perf_counter() - began
    )
