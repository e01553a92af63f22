"""Remote write over HTTP: what is taken, what is refused, and when to try again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import snappy

from mimir_ray.config.units import Bytes
from mimir_ray.errors import ClientError, Unavailable
from mimir_ray.roles.distributor import errors
from mimir_ray.roles.distributor.distributor import PushOutcome
from mimir_ray.wire.remote_write import encode_write_request, label_section
from tests.gateway.serving import Answer, Gateway, serving, settings_with

REQUEST = encode_write_request([(label_section((("__name__", "up"),)), [(1_700_000_000_000, 1.0)])])
PATH = "/api/v1/push"


def push(gateway: Gateway, body: bytes = REQUEST, path: str = PATH, **headers: str) -> Answer:
    sent = {"content_type": "application/x-protobuf", "content_encoding": "snappy", **headers}
    return gateway.ask(path, method="POST", body=snappy.compress(body), **sent)


@pytest.fixture
def tenants() -> Iterator[Gateway]:
    with serving(settings_with(multitenancy=True)) as one:
        yield one


@pytest.mark.parametrize("path", [PATH, "/api/v1/write"])
def test_a_request_arrives_decompressed_with_its_tenant(tenants: Gateway, path: str) -> None:
    answer = push(tenants, path=path, x_scope_orgid="team-a")
    assert (answer.status, answer.body) == (200, b"")
    assert tenants.distributor.pushed == [("team-a", REQUEST)]


def test_without_multi_tenancy_the_header_is_not_looked_at(gateway: Gateway) -> None:
    assert push(gateway, x_scope_orgid="../../etc").status == 200
    assert gateway.distributor.pushed == [("anonymous", REQUEST)]


@pytest.mark.parametrize(
    ("tenant", "status", "text"),
    [
        (None, 401, "no org id\n"),
        ("", 401, "no org id\n"),
        ("a|b", 422, "too many tenant IDs present. max: 1 actual: 2\n"),
        ("a/b", 400, "tenant ID 'a/b' contains unsupported character '/'\n"),
        ("..", 400, "tenant ID is '.' or '..'\n"),
        ("a" * 151, 400, "tenant ID is too long: max 150 characters\n"),
    ],
)
def test_a_request_without_one_proper_tenant_is_refused(
    tenants: Gateway, tenant: str | None, status: int, text: str
) -> None:
    answer = push(tenants, **({} if tenant is None else {"x_scope_orgid": tenant}))
    assert (answer.status, answer.text) == (status, text)
    assert not tenants.distributor.pushed
    assert "retry-after" not in answer.headers


@pytest.mark.parametrize(
    "content_type",
    ["application/x-protobuf", "application/x-protobuf;proto=prometheus.WriteRequest",
     "application/x-protobuf; proto=prometheus.WriteRequest", "application/octet-stream", ""],
)  # fmt: skip
def test_the_content_type_is_not_enforced(gateway: Gateway, content_type: str) -> None:
    assert push(gateway, content_type=content_type).status == 200


def test_a_message_type_that_is_not_taken_makes_senders_give_up(gateway: Gateway) -> None:
    answer = push(gateway, content_type="application/x-protobuf;proto=io.prometheus.write.v2.Request")
    assert answer.status in (400, 415)
    assert not gateway.distributor.pushed


@pytest.mark.parametrize("body", [b"", b"\xff" * 20, b"\x05abc", REQUEST])
def test_a_body_that_is_no_snappy_is_refused_for_good(gateway: Gateway, body: bytes) -> None:
    answer = gateway.ask(PATH, method="POST", body=body, content_type="application/x-protobuf", content_encoding="zstd")
    assert answer.status == 400
    assert "retry-after" not in answer.headers
    assert not gateway.distributor.pushed


def test_a_body_that_would_be_too_large_is_refused_by_its_size_alone() -> None:
    with serving(settings_with(distributor={"max_recv_msg_size": Bytes(100_000)})) as one:
        bomb = push(one, b"\0" * 1_000_000)
        assert bomb.status == 400
        assert "err-mimir-distributor-max-write-message-size" in bomb.text
        sent = one.ask(PATH, method="POST", body=b"\x01" * 300_000)
        assert sent.status in (400, 413)
        assert not one.distributor.pushed


@pytest.mark.parametrize(
    ("error", "status", "again"),
    [
        (ClientError("bad sample"), 400, False),
        (errors.IngestionRateLimited(1000, 2000), 429, True),
        (errors.RequestRateLimited(10, 20), 429, True),
        (errors.TooManyInflightRequests(), 500, True),
        (Unavailable("nobody is there"), 503, True),
        (ValueError("a bug"), 500, True),
    ],
)
def test_what_went_wrong_decides_the_status_and_whether_to_try_again(
    gateway: Gateway, error: Exception, status: int, again: bool
) -> None:
    gateway.distributor.outcome = PushOutcome(error=error)  # type: ignore[arg-type]
    answer = push(gateway)
    assert answer.status == status
    assert answer.text == f"{error}\n"
    assert ("retry-after" in answer.headers) == again


def test_the_pause_grows_with_the_attempt_that_the_sender_names(gateway: Gateway) -> None:
    gateway.distributor.outcome = PushOutcome(error=Unavailable("x"))
    first = [int(push(gateway).headers["retry-after"]) for _ in range(5)]
    third = [int(push(gateway, retry_attempt="4").headers["retry-after"]) for _ in range(5)]
    assert all(6 <= one <= 9 for one in first)
    assert all(24 <= one <= 72 for one in third)
    assert push(gateway, retry_attempt="²").status == 503


def test_what_a_handler_did_not_expect_is_an_answer_too(gateway: Gateway) -> None:
    gateway.distributor.push = None  # type: ignore[method-assign,assignment]
    assert push(gateway).status == 500
