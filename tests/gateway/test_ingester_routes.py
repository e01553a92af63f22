"""Administration of ingesters: one request for all of them, or for one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from mimir_ray.cluster.ring.model import INGESTER, InstanceDesc, InstanceId, InstanceState
from mimir_ray.cluster.transport.base import Address
from mimir_ray.model.tenant import TenantId
from mimir_ray.roles.api import BlockPage, FlushUnderWay, TenantPage, TenantStats, TsdbPage
from mimir_ray.roles.ingester.ingester import IngesterNotReady
from mimir_ray.roles.ingester.pages import NoOpenTsdb

from .serving import NOW_MS, Gateway, serving, settings_with

BLOCK = BlockPage("01H00000000000000000000000", NOW_MS - 7_200_000, NOW_MS, 5, 50, 6, 1234, False, True)


class FakeIngester:
    """Keeps what it is told; raises `failure` whatever it is asked."""

    def __init__(self) -> None:
        self.flushes: list[tuple[tuple[str, ...], bool]] = []
        self.failure: Exception | None = None
        self.prepared = False
        self.unregister = False
        self.read_only_since = 0
        self.shut_down = 0
        self.stats: dict[TenantId, TenantStats] = {}
        self.open: dict[str, TsdbPage] = {}

    def _check(self) -> None:
        if self.failure is not None:
            raise self.failure

    def flush(self, tenants: tuple[str, ...] = (), wait: bool = False) -> None:
        self.flushes.append((tenants, wait))
        self._check()

    def prepare_shutdown(self, prepare: bool | None = None) -> bool:
        self._check()
        self.prepared = self.prepared if prepare is None else prepare
        return self.prepared

    def unregister_on_shutdown(self, change: str = "", unregister: bool = False) -> bool:
        self._check()
        if change:
            self.unregister = unregister if change == "set" else False
        return self.unregister

    def read_only(self, change: bool | None = None) -> int:
        self._check()
        if change is not None:
            self.read_only_since = NOW_MS if change else 0
        return self.read_only_since

    def shutdown(self) -> None:
        self._check()
        self.shut_down += 1

    def tenant_stats(self) -> dict[TenantId, TenantStats]:
        self._check()
        return self.stats

    def tenants(self) -> list[TenantPage]:
        self._check()
        return [TenantPage(one.tenant, len(one.blocks), one.min_time, one.max_time) for one in self.open.values()]

    def tenant_tsdb(self, tenant: TenantId) -> TsdbPage:
        if tenant not in self.open:
            raise NoOpenTsdb(tenant)
        return self.open[tenant]

    def tsdb_metrics(self, tenant: TenantId) -> bytes:
        name = "prometheus_tsdb_head_series"
        return f"# TYPE {name} gauge\n{name} {self.open[tenant].series}\n".encode()


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    with serving(settings_with(multitenancy=True)) as one:
        yield one


def register(gateway: Gateway, number: int, state: InstanceState = InstanceState.ACTIVE) -> None:
    address = Address("ingester", str(number))
    desc = InstanceDesc(InstanceId(f"ingester-{number}"), address.actor_name, state=state, incarnation=1)
    gateway.ring.register(INGESTER, desc)


@pytest.fixture
def ingesters(gateway: Gateway) -> list[FakeIngester]:
    """Two, in the ring."""
    found = []
    for number in range(2):
        fake = FakeIngester()
        gateway.services.transport.serve(Address("ingester", str(number)), lambda fake=fake: fake)  # type: ignore[attr-defined]
        register(gateway, number)
        found.append(fake)
    return found


def test_every_ingester_is_told_which_tenants_and_whether_to_wait(
    gateway: Gateway, ingesters: list[FakeIngester]
) -> None:
    assert gateway.ask("/ingester/flush").status == 204
    assert gateway.ask("/ingester/flush", {"tenant": ["a", "b"], "wait": "true"}, method="POST").status == 204
    assert gateway.form("/ingester/flush", {"tenant": "c", "wait": "yes"}).status == 204
    for one in ingesters:
        assert one.flushes == [((), False), (("a", "b"), True), (("c",), False)]


def test_one_that_is_not_running_makes_it_a_503_after_all_were_asked(
    gateway: Gateway, ingesters: list[FakeIngester]
) -> None:
    ingesters[0].failure = IngesterNotReady("starting")
    answer = gateway.ask("/ingester/flush")
    assert (answer.status, answer.body) == (503, b"the ingester is not available: starting\n")
    assert ingesters[1].flushes == [((), False)]


def test_a_form_that_is_none_is_a_400(gateway: Gateway, ingesters: list[FakeIngester]) -> None:
    answer = gateway.ask(
        "/ingester/flush", method="POST", body=b"\xff", content_type="application/x-www-form-urlencoded"
    )
    assert answer.status == 400
    assert gateway.ask("/ingester/flush", {"tenant": "a/b"}).status == 400
    assert ingesters[0].flushes == []


def test_prepared_for_shutdown_is_said_once_all_are(gateway: Gateway, ingesters: list[FakeIngester]) -> None:
    path, one = "/ingester/prepare-shutdown", {"instance": "ingester-0"}
    answer = gateway.ask(path)
    assert (answer.status, answer.text) == (200, "unset\n")
    assert answer.headers["content-type"].startswith("text/plain")
    answer = gateway.ask(path, one, method="POST")
    assert (answer.status, answer.body) == (204, b"")
    assert gateway.ask(path, one).text == "set\n"
    assert gateway.ask(path).text == "unset\n"
    assert gateway.ask(path, method="POST").status == 204
    assert gateway.ask(path).text == "set\n"
    assert gateway.ask(path, method="DELETE").status == 204
    assert gateway.ask(path).text == "unset\n"
    assert gateway.ask(path, method="PUT").status == 405


def test_shutdown_is_by_post_only_and_for_whom_it_is_meant(gateway: Gateway, ingesters: list[FakeIngester]) -> None:
    assert gateway.ask("/ingester/shutdown").status == 405
    assert gateway.ask("/ingester/shutdown", {"instance": "ingester-1"}, method="POST").status == 204
    assert [one.shut_down for one in ingesters] == [0, 1]
    assert gateway.ask("/ingester/shutdown", method="POST").status == 204
    assert [one.shut_down for one in ingesters] == [1, 2]


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_there_are_no_partitions_to_scale_down(gateway: Gateway, method: str) -> None:
    assert gateway.ask("/ingester/prepare-partition-downscale", method=method).status == 405


def test_read_only_says_since_when_all_of_them_are(gateway: Gateway, ingesters: list[FakeIngester]) -> None:
    path, one = "/ingester/prepare-instance-ring-downscale", {"instance": "ingester-1"}
    assert gateway.ask(path).json == {"timestamp": 0}
    assert gateway.ask(path, one, method="POST").json == {"timestamp": NOW_MS // 1000}
    assert gateway.ask(path).json == {"timestamp": 0}
    assert gateway.ask(path, method="POST").json == {"timestamp": NOW_MS // 1000}
    ingesters[0].read_only_since = NOW_MS - 5000
    assert gateway.ask(path).json == {"timestamp": NOW_MS // 1000}
    assert gateway.ask(path, method="DELETE").json == {"timestamp": 0}
    assert [one.read_only_since for one in ingesters] == [0, 0]


def test_back_to_read_write_during_a_flush_is_a_conflict(gateway: Gateway, ingesters: list[FakeIngester]) -> None:
    ingesters[1].failure = FlushUnderWay("ingester-1")
    answer = gateway.ask("/ingester/prepare-instance-ring-downscale", method="DELETE")
    assert (answer.status, "ingester-1 is flushing" in answer.text) == (409, True)


def test_unregister_is_put_with_a_body_and_always_answered(gateway: Gateway, ingesters: list[FakeIngester]) -> None:
    path, one = "/ingester/unregister-on-shutdown", {"instance": "ingester-0"}
    assert gateway.ask(path).json == {"unregister": False}
    assert gateway.ask(path, one, method="PUT", body=b'{"unregister":true}').json == {"unregister": True}
    assert gateway.ask(path).json == {"unregister": False}
    assert gateway.ask(path, method="PUT", body=b'{"unregister": true}').json == {"unregister": True}
    answer = gateway.ask(path, method="DELETE")
    assert (answer.json, answer.headers["content-type"]) == ({"unregister": False}, "application/json")


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"true", b'{"unregister":"yes"}', b'{"unregister":1}', b"\xff"])
def test_a_body_that_does_not_say_is_a_400(gateway: Gateway, ingesters: list[FakeIngester], body: bytes) -> None:
    assert gateway.ask("/ingester/unregister-on-shutdown", method="PUT", body=body).status == 400
    assert not ingesters[0].unregister


ADMIN = ("prepare-shutdown", "prepare-instance-ring-downscale", "unregister-on-shutdown", "tenants", "tsdb/a")


@pytest.mark.parametrize("name", ADMIN)
def test_one_that_is_not_running_is_a_503_and_one_that_is_not_there_a_404(
    gateway: Gateway, ingesters: list[FakeIngester], name: str
) -> None:
    ingesters[0].failure = IngesterNotReady("stopping")
    assert gateway.ask(f"/ingester/{name}").status == 503
    assert gateway.ask(f"/ingester/{name}", {"instance": "ingester-7"}).status == 404


def test_without_any_ingester_it_is_a_503(gateway: Gateway) -> None:
    assert gateway.ask("/ingester/prepare-shutdown").status == 503


# Pages.


@pytest.fixture
def opened(ingesters: list[FakeIngester]) -> list[FakeIngester]:
    """Tenant `a` in both, `b<c>`'s cousin `b(c)` in the second."""
    ingesters[0].open["a"] = TsdbPage("a", 3, NOW_MS - 1000, NOW_MS, 99, 7, (BLOCK,))
    ingesters[1].open["a"] = TsdbPage("a", 4, None, None, 99, 7, ())
    ingesters[1].open["b(c)"] = TsdbPage("b(c)", 1, NOW_MS, NOW_MS, 99, 7, ())
    return ingesters


def test_tenants_are_listed_by_ingester(gateway: Gateway, opened: list[FakeIngester]) -> None:
    answer = gateway.ask("/ingester/tenants", accept="application/json").json
    assert answer["now"] == "2023-11-14T22:13:20.000Z"
    assert [(one["instance"], one["tenant"], one["blocks"]) for one in answer["tenants"]] == [
        ("ingester-0", "a", 1),
        ("ingester-1", "a", 0),
        ("ingester-1", "b(c)", 0),
    ]
    assert answer["tenants"][0]["minTime"] == "2023-11-14T22:13:19.000Z"
    assert answer["tenants"][1]["minTime"] == ""
    shown = gateway.ask("/ingester/tenants")
    assert shown.headers["content-type"].startswith("text/html")
    assert '<a href="/ingester/tsdb/b%28c%29">b(c)</a>' in shown.text


def test_a_tenants_tsdb_is_shown_where_it_is_open(gateway: Gateway, opened: list[FakeIngester]) -> None:
    answer = gateway.ask("/ingester/tsdb/a", accept="application/json").json
    assert [(one["instance"], one["head"]["numSeries"]) for one in answer["tsdbs"]] == [
        ("ingester-0", 3),
        ("ingester-1", 4),
    ]
    assert answer["tsdbs"][0]["blocks"][0]["ulid"] == BLOCK.ulid
    only = gateway.ask("/ingester/tsdb/a", {"instance": "ingester-1"}, accept="application/json").json
    assert [one["instance"] for one in only["tsdbs"]] == ["ingester-1"]
    page = gateway.ask("/ingester/tsdb/b%28c%29").text
    assert "ingester-1" in page
    assert "ingester-0" not in page
    assert BLOCK.ulid in gateway.ask("/ingester/tsdb/a").text


def test_a_tenant_that_is_nowhere_open_is_a_404_and_one_that_cannot_be_a_400(
    gateway: Gateway, opened: list[FakeIngester]
) -> None:
    answer = gateway.ask("/ingester/tsdb/nobody")
    assert (answer.status, answer.text) == (404, "TSDB not found for tenant nobody\n")
    assert gateway.ask("/ingester/tsdb/a%3Cb").status == 400


def test_tsdb_metrics_are_those_of_the_tenant_who_asks(gateway: Gateway, opened: list[FakeIngester]) -> None:
    assert gateway.ask("/ingester/tsdb_metrics").status == 401
    answer = gateway.ask("/ingester/tsdb_metrics", x_scope_orgid="a")
    lines = [line for line in answer.text.splitlines() if not line.startswith("#")]
    assert lines == [
        'prometheus_tsdb_head_series{pod="ingester-0"} 3',
        'prometheus_tsdb_head_series{pod="ingester-1"} 4',
    ]
    nobody = gateway.ask("/ingester/tsdb_metrics", x_scope_orgid="nobody")
    assert (nobody.status, nobody.body) == (200, b"")


# What tenants send and have.


@pytest.fixture
def counted(ingesters: list[FakeIngester]) -> list[FakeIngester]:
    ingesters[0].stats = {TenantId("a"): TenantStats(10, 1.5, 0.5, 4), TenantId("z"): TenantStats(12, 1.0, 0.0, 12)}
    ingesters[1].stats = {TenantId("a"): TenantStats(10, 1.0, 0.0, 3), TenantId("b"): TenantStats(12, 0.0, 0.0, 0)}
    return ingesters


def test_all_user_stats_are_sums_over_ingesters_with_most_series_first(
    gateway: Gateway, counted: list[FakeIngester]
) -> None:
    answer = gateway.ask("/distributor/all_user_stats", accept="application/json")
    assert answer.json[0] == {
        "userID": "a",
        "ingestionRate": 2.5,
        "numSeries": 20,
        "APIIngestionRate": 2.0,
        "RuleIngestionRate": 0.5,
    }
    assert [one["userID"] for one in answer.json] == ["a", "b", "z"]
    active = gateway.ask("/distributor/all_user_stats", {"count_method": "active"}, accept="application/json")
    assert [(one["userID"], one["numSeries"]) for one in active.json] == [("z", 12), ("a", 7), ("b", 0)]
    page = gateway.ask("/distributor/all_user_stats")
    assert "the replication factor is 1" in page.text
    assert page.headers["content-type"].startswith("text/html")


def test_user_stats_are_the_tenants_own(gateway: Gateway, counted: list[FakeIngester]) -> None:
    assert gateway.ask("/api/v1/user_stats").status == 401
    assert gateway.ask("/api/v1/user_stats", x_scope_orgid="a").json == {
        "ingestionRate": 2.5,
        "numSeries": 20,
        "APIIngestionRate": 2.0,
        "RuleIngestionRate": 0.5,
    }
    assert gateway.ask("/api/v1/user_stats", x_scope_orgid="nobody").json["numSeries"] == 0
    bad = gateway.ask("/api/v1/user_stats", {"count_method": "x"}, x_scope_orgid="a")
    assert (bad.status, bad.text) == (
        400,
        "invalid 'count_method' param 'x'. valid options are: [active,inmemory]\n",
    )


def test_stats_need_all_ingesters_to_be_active(gateway: Gateway, counted: list[FakeIngester]) -> None:
    register(gateway, 1, InstanceState.JOINING)
    for path in ("/distributor/all_user_stats", "/api/v1/user_stats"):
        answer = gateway.ask(path, x_scope_orgid="a")
        assert (answer.status, answer.text) == (500, "not all ingesters are ACTIVE: ingester-1\n")


def test_the_ring_of_distributors_has_a_page(gateway: Gateway) -> None:
    assert gateway.ask("/distributor/ring", accept="application/json").json["shards"] == []
    assert "Distributor ring status" in gateway.ask("/distributor/ring").text


# Cross-site requests.

CHANGES = [
    ("POST", "/ingester/shutdown"),
    ("POST", "/ingester/prepare-shutdown"),
    ("DELETE", "/ingester/prepare-shutdown"),
    ("PUT", "/ingester/unregister-on-shutdown"),
    ("POST", "/ingester/prepare-instance-ring-downscale"),
    ("GET", "/ingester/flush"),
    ("POST", "/ingester/ring"),
]


@pytest.mark.parametrize(("method", "path"), CHANGES)
@pytest.mark.parametrize(
    "headers",
    [
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site", "origin": "http://other.example"},
        {"origin": "http://evil.example"},
        {"origin": "null"},
    ],
)
def test_a_page_of_another_site_cannot_change_anything(
    gateway: Gateway, ingesters: list[FakeIngester], method: str, path: str, headers: dict[str, Any]
) -> None:
    answer = gateway.ask(path, method=method, body=b'{"unregister":true}', **headers)
    assert answer.status == 403
    assert "cross-site request refused" in answer.text
    for one in ingesters:
        assert (one.shut_down, one.prepared, one.unregister, one.read_only_since, one.flushes) == (
            0,
            False,
            False,
            0,
            [],
        )


@pytest.mark.parametrize(
    "headers", [{}, {"sec_fetch_site": "same-origin", "origin": "http://x"}, {"sec_fetch_site": "none"}]
)
def test_our_own_pages_and_programs_can(
    gateway: Gateway, ingesters: list[FakeIngester], headers: dict[str, Any]
) -> None:
    assert gateway.ask("/ingester/prepare-shutdown", method="POST", **headers).status == 204
    own = f"http://127.0.0.1:{gateway.server.port}"
    assert gateway.ask("/ingester/prepare-shutdown", method="POST", origin=own).status == 204
    assert ingesters[0].prepared


def test_reading_is_not_guarded(gateway: Gateway, ingesters: list[FakeIngester]) -> None:
    assert gateway.ask("/ingester/prepare-shutdown", sec_fetch_site="cross-site").status == 200
    assert gateway.ask("/ingester/ring", sec_fetch_site="cross-site").status == 200
