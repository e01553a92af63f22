"""Errors as HTTP answers: the one table from error to status, and the two forms of error bodies.

Query APIs answer Prometheus' JSON, everything else plain text (dskit httpgrpc errors). Statuses follow
Mimir: pkg/api/error/error.go, pkg/querier/error_translate_queryable.go, pkg/distributor/push.go.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import orjson
import structlog
from sanic import HTTPResponse, Request
from sanic.exceptions import SanicException

from mimir_ray.errors import ClientError, Corruption, LimitExceeded, MimirRayError, NotFound, Unavailable
from mimir_ray.model.tenant import InvalidTenant, NoTenant, TooManyTenants
from mimir_ray.promql.limits import EvaluationError, QueryCancelled, QueryTimeout
from mimir_ray.roles.api import FlushUnderWay
from mimir_ray.roles.query_frontend.query_frontend import QueryTooLarge


@dataclass(eq=False)
class CrossSite(ClientError):
    """A browser sends this on behalf of a page of somebody else's. Status 403."""

    origin: str

    def describe(self) -> str:
        return f"cross-site request refused: {self.origin}"


log = structlog.get_logger(__name__)

TEXT = "text/plain; charset=utf-8"
STATUS_OF_TYPE = {
    "bad_data": 400,
    "execution": 422,
    "canceled": 499,
    "timeout": 503,
    "internal": 500,
    "not_found": 404,
    "too_many_requests": 429,
    "too_large_entry": 413,
    "not_acceptable": 406,
    "unavailable": 503,
}

# First match counts, so kinds come before their families.
_API_TYPES: tuple[tuple[type[BaseException], str], ...] = (
    (QueryCancelled, "canceled"),
    (QueryTimeout, "timeout"),
    (EvaluationError, "execution"),
    (QueryTooLarge, "bad_data"),
    (LimitExceeded, "execution"),
    (NotFound, "not_found"),
    (ClientError, "bad_data"),
    (Unavailable, "unavailable"),
    (Corruption, "internal"),
)
_TEXT_STATUSES: tuple[tuple[type[BaseException], int], ...] = (
    (NoTenant, 401),
    (TooManyTenants, 422),
    (InvalidTenant, 400),
    (QueryCancelled, 499),
    (NotFound, 404),
    (CrossSite, 403),
    (FlushUnderWay, 409),
    (ClientError, 400),
    (Unavailable, 503),
    (Corruption, 500),
)


_SURROGATES_OF_JSON = re.compile("[\ud800-\udc7f\udd00-\udfff]")


def _printable(message: str) -> str:
    """The message with bytes that are no UTF-8 (surrogates, in strings of queries) replaced, as Go's JSON has them.

    So are surrogates that stand for no byte, which JSON can spell.
    """
    return _SURROGATES_OF_JSON.sub("\ufffd", message).encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def text(message: str, status: int) -> HTTPResponse:
    """A plain text answer as Go's http.Error writes it."""
    return HTTPResponse(
        f"{_printable(message)}\n", status=status, content_type=TEXT, headers={"X-Content-Type-Options": "nosniff"}
    )


def api_error(error_type: str, message: str, status: int | None = None) -> HTTPResponse:
    """An error in Prometheus' JSON."""
    body = orjson.dumps({"status": "error", "errorType": error_type, "error": _printable(message)})
    return HTTPResponse(body, status=status or STATUS_OF_TYPE[error_type], content_type="application/json")


def as_text(error: BaseException, request: Request) -> HTTPResponse:
    """For push, admin and configuration routes."""
    for kind, status in _TEXT_STATUSES:
        if isinstance(error, kind):
            return text(str(error), status)
    return text(_unexpected(error, request), 500)


def as_api(error: BaseException, request: Request) -> HTTPResponse:
    """For query routes. Who is not let in at all gets plain text, as from Mimir's middleware."""
    if isinstance(error, NoTenant | TooManyTenants | InvalidTenant):
        return as_text(error, request)
    for kind, error_type in _API_TYPES:
        if isinstance(error, kind):
            return api_error(error_type, str(error))
    return api_error("internal", _unexpected(error, request))


def _unexpected(error: BaseException, request: Request) -> str:
    if isinstance(error, SanicException):
        return str(error)
    known = isinstance(error, MimirRayError)
    log.error(
        "request failed", method=request.method, path=request.path, error=repr(error), exc_info=None if known else error
    )
    return str(error) or type(error).__name__
