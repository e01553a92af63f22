"""Remote write, 1.0 and 2.0. Upstream: pkg/distributor/push.go, pkg/util/http.go."""

from __future__ import annotations

import random
import re

from sanic import Blueprint, HTTPResponse, Request

from mimir_ray.config.server import ApiConfig
from mimir_ray.errors import ClientError, MimirRayError, Unavailable
from mimir_ray.gateway.errors import TEXT, as_text, text
from mimir_ray.gateway.services import services_of
from mimir_ray.roles.distributor.config import RetryAfterConfig
from mimir_ray.roles.distributor.distributor import PushOutcome, Written
from mimir_ray.roles.distributor.errors import IngesterError, RateLimited, ReplicasDidNotMatch
from mimir_ray.roles.distributor.label_rules import USUAL, Form
from mimir_ray.wire.compression import decompress
from mimir_ray.wire.remote_write_v2 import scan_write_request_v2
from mimir_ray.wire.write_scan import HashKey, WriteScan

MESSAGE_1 = "prometheus.WriteRequest"
MESSAGE_2 = "io.prometheus.write.v2.Request"
SERVICE_OVERLOADED = 529
SKIP_NAMES, SKIP_COUNT = "x-mimir-skiplabelnamevalidation", "x-mimir-skiplabelcountvalidation"
_DOUBLINGS_MAX = 32


def blueprint() -> Blueprint:
    routes = Blueprint("push")
    routes.add_route(push, "/api/v1/push", methods=("POST",), name="push")
    # vmalert and others add /api/v1/write by themselves
    routes.add_route(push, "/api/v1/write", methods=("POST",), name="write")
    return routes


async def push(request: Request) -> HTTPResponse:
    """Answers when a quorum of each series' ingesters has the samples in its WAL."""
    services = services_of(request)
    version_2 = False
    try:
        tenant = services.auth.tenant(request)
        version_2 = is_version_2(request.headers.get("content-type", ""))
        bytes_max = int(services.settings.distributor.max_recv_msg_size)
        # Senders that say nothing send snappy, as upstream takes every body.
        encoding = request.headers.get("content-encoding", "").strip().lower() or "snappy"
        data = decompress(request.body, encoding, bytes_max)
        form = form_of(request, services.settings.api)
        if version_2:

            def scan(body: bytes, key: HashKey) -> WriteScan:
                return scan_write_request_v2(body, key, bytes_max)

            outcome = await services.distributor.push(tenant, data, scan, "2.0", form)
        else:
            outcome = await services.distributor.push(tenant, data, form=form)
        if outcome.error is not None:
            answer = failed(outcome.error, request)
        else:
            answer = with_delay(HTTPResponse(status=200, content_type=TEXT), outcome)
        return _with_written(answer, outcome.written) if version_2 else answer
    except MimirRayError as error:
        answer = failed(error, request)
        return _with_written(answer, Written()) if version_2 else answer
    except Exception as error:  # noqa: BLE001  (the edge)
        return as_text(error, request)


def form_of(request: Request, api: ApiConfig) -> Form:
    """Which checks of labels a request asks to skip, and may."""
    names = api.skip_label_name_validation_header_enabled and request.headers.get(SKIP_NAMES) == "true"
    count = api.skip_label_count_validation_header_enabled and request.headers.get(SKIP_COUNT) == "true"
    return Form(any_names=names, any_count=count) if names or count else USUAL


def with_delay(answer: HTTPResponse, outcome: PushOutcome) -> HTTPResponse:
    """Says for how long an answer was held back, if the tenant's are. Upstream: addSuccessHeaders."""
    if outcome.delay_s is not None:
        answer.headers["Server-Timing"] = f"artificial_delay;dur={outcome.delay_s * 1000:.6f}".rstrip("0").rstrip(".")
    return answer


def is_version_2(content_type: str) -> bool:
    """Whether a content type names the message of remote write 2.0. Raises `UnsupportedProtocol`.

    Other media types, and none, are read as 1.0. Upstream: pkg/distributor/push.go, exp/api/remote ParseProtoMsg.
    """
    media, *parameters = (part.strip() for part in content_type.split(";"))
    if media.lower() != "application/x-protobuf":
        return False
    message = MESSAGE_1
    for parameter in parameters:
        name, equals, value = (part.strip() for part in parameter.partition("="))
        if not equals:
            raise UnsupportedProtocol(
                f"as per https://www.rfc-editor.org/rfc/rfc9110#parameter expected parameters to be key-values, "
                f"got {parameter} in {content_type} content-type"
            )
        if name.lower() == "proto":
            message = value.strip('"')
    if message not in (MESSAGE_1, MESSAGE_2):
        raise UnsupportedProtocol(f"got {content_type} content type; unknown remote write protobuf message {message}")
    return message == MESSAGE_2


def _with_written(answer: HTTPResponse, written: Written) -> HTTPResponse:
    """What a sender of 2.0 is told was stored; without it, it takes the request for lost."""
    for name, count in (
        ("Samples", written.samples),
        ("Histograms", written.histograms),
        ("Exemplars", written.exemplars),
    ):
        answer.headers[f"X-Prometheus-Remote-Write-{name}-Written"] = str(count)
    return answer


class UnsupportedProtocol(ClientError):
    """A message type that this endpoint does not take."""


def failed(error: Exception, request: Request) -> HTTPResponse:
    """What a push that failed is answered, with the status of pkg/distributor/errors.go, and when to try again."""
    if isinstance(error, ReplicasDidNotMatch):
        answer = text(str(error), 202)
    elif isinstance(error, RateLimited):
        answer = text(str(error), SERVICE_OVERLOADED if error.overloaded else 429)
    elif isinstance(error, Unavailable):
        # Upstream answers 500 where ingesters failed or an instance limit was hit, 503 where nobody was there to ask.
        answer = text(str(error), 500 if error.id or isinstance(error, IngesterError) else 503)
    else:
        answer = as_text(error, request)
    config = services_of(request).settings.distributor.retry_after_header
    if config.enabled and (answer.status == 429 or answer.status >= 500):
        answer.headers["Retry-After"] = str(retry_after_s(request.headers.get("retry-attempt", "1"), config))
    return answer


def retry_after_s(attempt: str, config: RetryAfterConfig, jitter: float | None = None) -> int:
    """Whole seconds: the least doubling with every attempt, up to the most; half of it up or down, within both.

    Upstream: calculateRetryAfter.
    """
    number = int(attempt) if re.fullmatch("[0-9]{1,9}", attempt) else 1
    least, most = config.min_backoff.seconds, config.max_backoff.seconds
    base = min(most, least * 2.0 ** min(max(number - 1, 0), _DOUBLINGS_MAX))
    spread = random.uniform(0.5, 1.5) if jitter is None else jitter
    return int(max(least, min(most, round(base * spread))))
