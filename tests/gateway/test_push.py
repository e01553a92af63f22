"""Remote write over HTTP: what is taken, what is refused, and when to try again."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator

import pytest
import snappy
import zstandard

from mimir_ray.config.units import Bytes, Duration
from mimir_ray.errors import ClientError, Unavailable
from mimir_ray.roles.distributor import errors
from mimir_ray.roles.distributor.config import RetryAfterConfig
from mimir_ray.roles.distributor.distributor import PushOutcome, Written
from mimir_ray.roles.distributor.label_rules import Form
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


V2 = "application/x-protobuf;proto=io.prometheus.write.v2.Request"
WRITTEN = [f"x-prometheus-remote-write-{kind}-written" for kind in ("samples", "histograms", "exemplars")]
REQUEST_2 = b"\x22\x00\x22\x08__name__\x22\x02up\x2a\x04\x0a\x02\x01\x02"


def written_in(answer: Answer) -> list[str | None]:
    return [answer.headers.get(name) for name in WRITTEN]


@pytest.mark.parametrize(
    "content_type",
    [
        V2,
        V2.replace(";", " ; "),
        V2.replace("application", "Application"),
        V2.replace(";proto", "; charset=utf-8;proto"),
    ],
)
def test_version_2_is_chosen_by_the_content_type_and_told_what_was_written(gateway: Gateway, content_type: str) -> None:
    gateway.distributor.outcome = PushOutcome(3, written=Written(1, 2, 3))
    answer = push(gateway, REQUEST_2, content_type=content_type)
    assert (answer.status, written_in(answer)) == (200, ["1", "2", "3"])
    ((version, scan),) = gateway.distributor.scans
    assert version == "2.0" and len(scan) == 1 and scan.symbols is not None


def test_version_1_is_not_told_what_was_written(gateway: Gateway) -> None:
    assert written_in(push(gateway)) == [None] * 3


@pytest.mark.parametrize(
    ("error", "status"), [(ClientError("a bad sample"), 400), (Unavailable("nobody"), 503), (None, 200)]
)
def test_what_was_written_is_told_with_errors_too(gateway: Gateway, error: Exception | None, status: int) -> None:
    gateway.distributor.outcome = PushOutcome(error=error, written=Written(5, 0, 1))  # type: ignore[arg-type]
    answer = push(gateway, REQUEST_2, content_type=V2)
    assert (answer.status, written_in(answer)) == (status, ["5", "0", "1"])


def test_a_body_of_version_2_that_cannot_be_read_is_refused_with_nothing_written(gateway: Gateway) -> None:
    answer = gateway.ask(PATH, method="POST", body=b"\xff" * 9, content_type=V2, content_encoding="snappy")
    assert (answer.status, written_in(answer)) == (400, ["0"] * 3)


@pytest.mark.parametrize(
    "content_type",
    [
        "application/x-protobuf;proto=prometheus.Other",
        "application/x-protobuf;proto=",
        "application/x-protobuf;nothing",
        "application/x-protobuf;proto=io.prometheus.write.v2.request",
    ],
)
def test_a_message_type_that_is_not_taken_makes_senders_give_up(gateway: Gateway, content_type: str) -> None:
    answer = push(gateway, content_type=content_type)
    assert answer.status == 400
    assert "retry-after" not in answer.headers
    assert not gateway.distributor.pushed


@pytest.mark.parametrize(
    ("encoding", "compress"),
    [
        ("snappy", snappy.compress),
        ("zstd", zstandard.compress),
        ("gzip", gzip.compress),
        ("identity", bytes),
        ("ZSTD", zstandard.compress),
    ],
)
def test_bodies_come_in_several_encodings(gateway: Gateway, encoding: str, compress: Callable[[bytes], bytes]) -> None:
    body = compress(REQUEST)
    sent = {"content_type": "application/x-protobuf", "content_encoding": encoding}
    assert gateway.ask(PATH, method="POST", body=body, **sent).status == 200
    assert gateway.ask(PATH, method="POST", body=snappy.compress(REQUEST), content_type="x").status == 200
    assert gateway.distributor.pushed == [("anonymous", REQUEST)] * 2


@pytest.mark.parametrize("encoding", ["lz4", "br", "snappy, gzip"])
def test_an_unknown_encoding_is_refused_so_that_senders_try_another(gateway: Gateway, encoding: str) -> None:
    answer = push(gateway, content_encoding=encoding)
    assert answer.status == 400
    assert "unsupported compression" in answer.text
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


def test_headers_that_skip_checks_are_taken_where_the_operator_allows_it() -> None:
    header = {"x_mimir_skiplabelnamevalidation": "true", "x_mimir_skiplabelcountvalidation": "true"}
    for allowed, form in ((False, Form()), (True, Form(any_names=True, any_count=True))):
        api = {f"skip_label_{what}_validation_header_enabled": allowed for what in ("name", "count")}
        with serving(settings_with(api=api)) as gateway:
            assert push(gateway, **header).status == 200
            assert gateway.distributor.forms == [form]


def test_a_replica_that_is_not_elected_is_told_so_as_if_all_was_well(gateway: Gateway) -> None:
    gateway.distributor.outcome = PushOutcome(error=errors.ReplicasDidNotMatch("b", "a"), written=Written(3))
    answer = push(gateway)
    wanted = "replicas did not match, rejecting sample: replica=b, elected=a\n"
    assert (answer.status, answer.text) == (202, wanted)
    assert "retry-after" not in answer.headers
    answer = gateway.ask(PATH, method="POST", body=snappy.compress(REQUEST_2), content_type=V2)
    assert (answer.status, written_in(answer)) == (202, ["3", "0", "0"])


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"enabled": False}, None),
        ({"min_backoff": Duration(2000), "max_backoff": Duration(2000)}, "2"),
        ({"min_backoff": Duration(90_000), "max_backoff": Duration(90_000)}, "90"),
    ],
)
def test_retry_after_is_as_configured(changes: dict[str, object], wanted: str | None) -> None:
    with serving(settings_with(distributor={"retry_after_header": RetryAfterConfig(**changes)})) as gateway:  # type: ignore[arg-type]
        gateway.distributor.outcome = PushOutcome(error=Unavailable("not now"))
        assert push(gateway).headers.get("retry-after") == wanted


def test_too_fast_is_529_where_the_tenant_wants_that(gateway: Gateway) -> None:
    error = errors.IngestionRateLimited(1.0, 2)
    gateway.distributor.outcome = PushOutcome(error=error)
    assert push(gateway).status == 429
    error.overloaded = True
    answer = push(gateway)
    assert answer.status == 529 and 6 <= int(answer.headers["retry-after"]) <= 96


@pytest.mark.parametrize(
    ("delay_s", "wanted"), [(None, None), (0.0, "0"), (0.25, "250"), (0.0015, "1.5"), (1.1, "1100")]
)
def test_an_answer_that_is_held_back_says_for_how_long(
    gateway: Gateway, delay_s: float | None, wanted: str | None
) -> None:
    gateway.distributor.outcome = PushOutcome(delay_s=delay_s)
    header = push(gateway).headers.get("server-timing")
    assert header == (None if wanted is None else f"artificial_delay;dur={wanted}")
