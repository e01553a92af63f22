"""Remote write. Upstream: pkg/distributor/push.go, pkg/util/http.go."""

from __future__ import annotations

import random
import re

from sanic import Blueprint, HTTPResponse, Request

from mimir_ray.errors import ClientError, MimirRayError, Unavailable
from mimir_ray.gateway.errors import TEXT, as_text, text
from mimir_ray.gateway.services import services_of
from mimir_ray.roles.distributor.errors import IngesterError, RateLimited
from mimir_ray.wire.remote_write import decompress_snappy

RETRY_AFTER_MIN_S = 6
RETRY_AFTER_DOUBLINGS_MAX = 4


def blueprint() -> Blueprint:
    routes = Blueprint("push")
    routes.add_route(push, "/api/v1/push", methods=("POST",), name="push")
    # vmalert and others add /api/v1/write by themselves
    routes.add_route(push, "/api/v1/write", methods=("POST",), name="write")
    return routes


async def push(request: Request) -> HTTPResponse:
    """Answers when a quorum of each series' ingesters has the samples in its WAL."""
    services = services_of(request)
    try:
        tenant = services.auth.tenant(request)
        protocol = request.content_type.replace(" ", "").lower() if request.content_type else ""
        if ";proto=" in protocol and not protocol.endswith(";proto=prometheus.writerequest"):
            raise UnsupportedProtocol(f"unsupported remote write message type: {request.content_type}")
        config = services.settings.distributor
        data = decompress_snappy(request.body, int(config.max_recv_msg_size))
        outcome = await services.distributor.push(tenant, data)
        if outcome.error is not None:
            return _failed(outcome.error, request)
        return HTTPResponse(status=200, content_type=TEXT)
    except MimirRayError as error:
        return _failed(error, request)
    except Exception as error:  # noqa: BLE001  (the edge)
        return as_text(error, request)


class UnsupportedProtocol(ClientError):
    """A message type that this endpoint does not take."""


def _failed(error: Exception, request: Request) -> HTTPResponse:
    """Status as in `httpgrpc` of pkg/distributor/errors.go, and when to try again."""
    if isinstance(error, RateLimited):
        answer = text(str(error), 429)
    elif isinstance(error, Unavailable):
        # Upstream answers 500 where ingesters failed or an instance limit was hit, 503 where nobody was there to ask.
        answer = text(str(error), 500 if error.id or isinstance(error, IngesterError) else 503)
    else:
        answer = as_text(error, request)
    if answer.status == 429 or answer.status >= 500:
        answer.headers["Retry-After"] = str(retry_after_s(request.headers.get("retry-attempt", "1")))
    return answer


def retry_after_s(attempt: str, jitter: float | None = None) -> int:
    """Seconds: 6 doubling with every attempt up to 96, half of it up or down. Upstream: calculateRetryAfter."""
    number = int(attempt) if re.fullmatch("[0-9]{1,9}", attempt) else 1
    base = RETRY_AFTER_MIN_S << min(max(number - 1, 0), RETRY_AFTER_DOUBLINGS_MAX)
    spread = random.uniform(0.5, 1.5) if jitter is None else jitter
    return max(RETRY_AFTER_MIN_S, min(96, round(base * spread)))
