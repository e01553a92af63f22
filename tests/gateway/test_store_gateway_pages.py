from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from mimir_ray.bucket.layout import META, block_key
from mimir_ray.bucket.markers import DeletionMark, write_deletion_mark
from mimir_ray.cluster.ring.model import STORE_GATEWAY, InstanceDesc, InstanceId, InstanceState
from mimir_ray.errors import Unavailable
from mimir_ray.model.labels import labels_of
from mimir_ray.model.tenant import TenantId
from mimir_ray.testing.bucket_blocks import put_block, ulid_of

from .serving import Gateway, serving, settings_with

TENANT = TenantId("team-a")
AS_JSON = {"accept": "application/json"}
HOUR = 3_600_000


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    with serving(settings_with(data_dir=str(tmp_path))) as gateway:
        for number in range(3):
            points = [(number * 2 * HOUR, 1.0), (number * 2 * HOUR + HOUR, 2.0)]
            put_block(tmp_path / "blocks", TENANT, [(labels_of({"__name__": "m"}), points)], number,
                      thanos_labels={"__compactor_shard_id__": f"{number + 1}_of_3"})  # fmt: skip
        write_deletion_mark(gateway.services.bucket, TENANT, DeletionMark(ulid_of(1), 1_700_000_000))
        yield gateway


class FakeStoreGateway:
    def __init__(self) -> None:
        self.prepared = False
        self.failure: Exception | None = None

    def store_gateway_prepared(self) -> bool:
        return self.prepared

    def store_gateway_prepare(self, is_for_good: bool) -> None:
        if self.failure is not None:
            raise self.failure
        self.prepared = is_for_good


def joined(gateway: Gateway, number: int = 0) -> FakeStoreGateway:
    """A store-gateway in the ring."""
    fake, name = FakeStoreGateway(), f"store-gateway/{number}"
    gateway.services.transport.serve(name, lambda: fake)  # type: ignore[attr-defined]
    desc = InstanceDesc(InstanceId(f"store-gateway-{number}"), name, "", InstanceState.ACTIVE, incarnation=1)
    gateway.ring.register(STORE_GATEWAY, desc)
    return fake


def blocks(gateway: Gateway, **parameters: str) -> list[dict[str, Any]]:
    answer = gateway.ask(f"/store-gateway/tenant/{TENANT}/blocks", parameters, **AS_JSON)
    assert answer.status == 200
    body = orjson.loads(answer.body)
    assert body["tenant"] == TENANT
    assert body["now"].endswith("Z")
    return body["metas"]


def test_tenants_are_listed(gateway: Gateway) -> None:
    body = orjson.loads(gateway.ask("/store-gateway/tenants", **AS_JSON).body)
    assert body["tenants"] == [TENANT]
    page = gateway.ask("/store-gateway/tenants")
    assert page.headers["content-type"].startswith("text/html")
    assert b'href="/store-gateway/tenant/team-a/blocks"' in page.body


def test_blocks_are_listed_newest_first_without_those_that_are_marked(gateway: Gateway) -> None:
    found = blocks(gateway)
    assert [one["ulid"] for one in found] == [ulid_of(2), ulid_of(0)]
    assert found[0]["stats"]["numSamples"] == 2
    assert "deletedTime" not in found[0]
    assert "splitId" not in found[0]


def test_marked_blocks_and_splits_are_told_on_demand(gateway: Gateway) -> None:
    found = blocks(gateway, show_deleted="on", split_count="4")
    assert [one.get("deletedTime") for one in found] == [None, 1_700_000_000, None]
    assert {one["splitId"] for one in found} <= set(range(4))
    assert [one["ulid"] for one in blocks(gateway, split_count="-1")] == [ulid_of(2), ulid_of(0)]


def test_the_page_of_blocks_shows_what_is_asked_for(gateway: Gateway) -> None:
    path = f"/store-gateway/tenant/{TENANT}/blocks"
    plain = gateway.ask(path).body.decode()
    assert ulid_of(2) in plain
    assert ulid_of(1) not in plain
    assert "1970-01-01T04:00:00Z" in plain
    assert "__compactor_shard_id__=3_of_3" in plain
    assert "<th>Sources</th>" not in plain
    asked = {"show_deleted": "on", "show_sources": "on", "show_parents": "on", "split_count": "2"}
    whole = gateway.ask(path, asked).body.decode()
    for head in ("Sources", "Parents", "Deletion time", "Split"):
        assert f"<th>{head}</th>" in whole
    assert "2023-11-14T22:13:20Z" in whole
    assert 'name="show_sources" checked' in whole


def test_blocks_that_are_not_complete_or_make_no_sense_do_not_break_the_page(gateway: Gateway) -> None:
    bucket = gateway.services.bucket
    bucket.put(block_key(TENANT, ulid_of(7), "index"), b"x")
    bucket.put(block_key(TENANT, ulid_of(8), META), b"no json")
    bucket.put(block_key(TENANT, ulid_of(9), META), b"[1]")
    strange = {
        "ulid": "<b>",
        "minTime": 1 << 62,
        "maxTime": "x",
        "compaction": 3,
        "thanos": {"files": [1], "labels": []},
    }
    bucket.put(block_key(TENANT, ulid_of(6), META), orjson.dumps(strange))
    assert [one["ulid"] for one in blocks(gateway)] == ["<b>", ulid_of(2), ulid_of(0)]
    assert b"&lt;b&gt;" in gateway.ask(f"/store-gateway/tenant/{TENANT}/blocks").body


def test_a_tenant_that_cannot_be_is_refused(gateway: Gateway) -> None:
    assert gateway.ask("/store-gateway/tenant/a%2Fb/blocks").status in (400, 404)
    assert gateway.ask("/store-gateway/tenant/a:b/blocks").status == 400
    assert gateway.ask("/store-gateway/tenant/nobody/blocks", **AS_JSON).status == 200


def test_the_ring_has_a_page(gateway: Gateway) -> None:
    joined(gateway)
    body = orjson.loads(gateway.ask("/store-gateway/ring", **AS_JSON).body)
    assert [one["id"] for one in body["shards"]] == ["store-gateway-0"]
    assert b"Store-gateway ring status" in gateway.ask("/store-gateway/ring").body
    assert gateway.form("/store-gateway/ring", {"forget": "store-gateway-0"}).status == 302
    assert not orjson.loads(gateway.ask("/store-gateway/ring", **AS_JSON).body)["shards"]
    assert gateway.ask("/compactor/ring").status == gateway.ask("/ingester/ring").status == 200


def test_store_gateways_are_prepared_to_stop_and_not_any_more(gateway: Gateway) -> None:
    path = "/store-gateway/prepare-shutdown"
    assert gateway.ask(path).status == 503
    first, second = joined(gateway), joined(gateway, 1)
    assert (gateway.ask(path).status, gateway.ask(path).body) == (200, b"unset\n")
    assert gateway.ask(path, method="POST", sec_fetch_site="cross-site").status == 403
    assert not first.prepared
    answer = gateway.ask(path, method="POST")
    assert (answer.status, answer.body) == (204, b"")
    assert first.prepared
    assert second.prepared
    assert gateway.ask(path).body == b"set\n"
    first.failure = Unavailable("the store-gateway is not available: starting")
    assert gateway.ask(path, method="DELETE").status == 503
    assert not second.prepared
    assert gateway.ask(path).body == b"unset\n"
    first.failure = None
    assert gateway.ask(path, method="DELETE").status == 204
