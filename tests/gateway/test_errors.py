"""One table from error to status, in two forms."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mimir_ray.cluster.transport.base import PeerUnavailable
from mimir_ray.errors import ClientError, Corruption, InvalidArgument, NotFound, Unavailable
from mimir_ray.gateway.errors import as_api, as_text
from mimir_ray.model.tenant import InvalidTenant, NoTenant, TooManyTenants
from mimir_ray.promql.limits import EvaluationError, QueryCancelled, QueryTimeout, TooManySamples
from mimir_ray.roles.distributor.errors import IngestionRateLimited
from mimir_ray.roles.query_frontend.query_frontend import QueryTooLarge


class FakeRequest:
    method, path = "GET", "/x"


REQUEST: Any = FakeRequest()


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (InvalidArgument("x"), 400, "bad_data"),
        (ClientError("x"), 400, "bad_data"),
        (NotFound("x"), 404, "not_found"),
        (EvaluationError("x"), 422, "execution"),
        (TooManySamples(), 422, "execution"),
        (QueryTooLarge(2, 1), 400, "bad_data"),
        (QueryCancelled(), 499, "canceled"),
        (QueryTimeout(), 503, "timeout"),
        (Unavailable("x"), 503, "unavailable"),
        (PeerUnavailable("a", "b", "c"), 503, "unavailable"),
        (Corruption("x"), 500, "internal"),
        (ValueError("x"), 500, "internal"),
        (AssertionError(), 500, "internal"),
    ],
)
def test_query_apis_answer_json_with_the_type_and_the_status_of_the_error(
    error: Exception, status: int, kind: str
) -> None:
    answer = as_api(error, REQUEST)
    assert (answer.status, answer.content_type) == (status, "application/json")
    body = json.loads(answer.body or b"")
    assert body == {"status": "error", "errorType": kind, "error": str(error) or type(error).__name__}


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (NoTenant(), 401),
        (InvalidTenant("x"), 400),
        (TooManyTenants(2, 1), 422),
        (ClientError("x"), 400),
        (NotFound("x"), 404),
        (IngestionRateLimited(1, 1), 400),  # push answers 429 by itself
        (Unavailable("x"), 503),
        (Corruption("x"), 500),
        (KeyError("x"), 500),
    ],
)
def test_other_routes_answer_plain_text(error: Exception, status: int) -> None:
    answer = as_text(error, REQUEST)
    assert (answer.status, answer.content_type) == (status, "text/plain; charset=utf-8")
    assert answer.body == f"{error}\n".encode()
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("error", [NoTenant(), InvalidTenant("x"), TooManyTenants(2, 1)])
def test_who_is_not_let_in_gets_text_from_query_apis_too(error: Exception) -> None:
    assert as_api(error, REQUEST).content_type == "text/plain; charset=utf-8"


def test_surrogates_of_any_kind_become_replacement_characters() -> None:
    answer = as_text(InvalidArgument("bytes \udcff, JSON \ud800"), REQUEST)
    assert (answer.body or b"").decode() == "bytes \ufffd, JSON \ufffd\n"
