from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from ulid import ULID

from mimir_ray.bucket.sharding import allowed, keeps, may_hold, owners, shard_is_compatible, tenant_shard
from mimir_ray.cluster.ring.lookup import RingOptions, RingView
from mimir_ray.cluster.ring.model import STORE_GATEWAY, InstanceDesc, InstanceId, InstanceState, RingDesc
from mimir_ray.cluster.ring.shuffle_shard import ShardCache
from mimir_ray.config.limits import Limits
from mimir_ray.model.selection import Shard
from mimir_ray.model.tenant import TenantId
from mimir_ray.testing.bucket_blocks import ulid_of
from mimir_ray.tsdb.compact.plan import block_token

NOW = 1_000_000
ME = InstanceId("g0")


def ring(*states: InstanceState, replicas: int = 2, dead: tuple[int, ...] = (), zones: int = 1) -> RingView:
    instances = {}
    for number, state in enumerate(states):
        tokens = np.sort(np.random.default_rng(number).integers(0, 1 << 32, 32, np.uint32))
        name = InstanceId(f"g{number}")
        heard = NOW - 120_000 if number in dead else NOW
        instances[name] = InstanceDesc(name, name, f"z{number % zones}", state, tokens, heard, 1)
    return RingView(RingDesc(STORE_GATEWAY, 1, NOW, instances), RingOptions(replicas, zones > 1))


ACTIVE, JOINING, LEAVING = InstanceState.ACTIVE, InstanceState.JOINING, InstanceState.LEAVING


def test_a_block_token_is_fnv_1_of_the_ulid_bytes() -> None:
    raw = ULID.from_str("01ARZ3NDEKTSV4RRFFQ69G5FAV").bytes
    wanted = 0x811C9DC5
    for byte in raw:
        wanted = wanted * 0x01000193 % 2**32 ^ byte
    assert block_token("01ARZ3NDEKTSV4RRFFQ69G5FAV") == wanted
    assert block_token("00000000000000000000000000") == 0x811C9DC5 * 0x01000193**16 % 2**32


def test_a_block_has_as_many_owners_as_there_are_to_be_or_gateways() -> None:
    for gateways, replicas, wanted in ((1, 3, 1), (2, 3, 2), (5, 3, 3), (5, 1, 1)):
        view = ring(*[ACTIVE] * gateways, replicas=replicas)
        assert {len(owners(view, ulid_of(number))) for number in range(50)} == {wanted}


def test_one_more_is_asked_where_an_owner_has_not_loaded_the_block_yet() -> None:
    view = ring(ACTIVE, JOINING, ACTIVE, LEAVING, ACTIVE)
    for number in range(50):
        found = owners(view, ulid_of(number))
        assert len(found) == 2
        assert {one.state for one in found} == {ACTIVE}


def test_who_joins_takes_its_blocks_on_before_it_is_asked() -> None:
    view = ring(JOINING, ACTIVE, ACTIVE)
    assert any(keeps(view, ulid_of(number), ME, False) for number in range(50))
    assert not any(one.id == ME for number in range(50) for one in owners(view, ulid_of(number)))


def test_a_block_that_is_not_ours_is_kept_until_an_owner_can_be_asked() -> None:
    joining, active, dead = ring(ACTIVE, JOINING, replicas=1), ring(ACTIVE, ACTIVE, replicas=1), None
    dead = ring(ACTIVE, ACTIVE, replicas=1, dead=(1,))
    others = [ulid for number in range(50) if not keeps(active, ulid := ulid_of(number), ME, False)]
    assert others
    for ulid in others:
        assert not keeps(active, ulid, ME, True)
        assert keeps(dead, ulid, ME, True)
        assert not keeps(dead, ulid, ME, False)
        assert not keeps(joining, ulid, ME, True), "a joining owner has others asked in its place: us"


def test_an_unhealthy_store_gateway_lets_nothing_go() -> None:
    view = ring(ACTIVE, replicas=1, dead=(0,))
    assert keeps(view, ulid_of(0), ME, True)
    assert not keeps(view, ulid_of(0), ME, False)
    assert keeps(ring(), ulid_of(0), ME, True)


@given(st.integers(0, 1 << 64), st.integers(1, 40), st.integers(1, 40))
def test_no_block_is_left_out_that_may_have_a_series_of_the_shard(series: int, blocks: int, shards: int) -> None:
    compactor = f"{series % blocks + 1}_of_{blocks}"
    assert may_hold(compactor, Shard(series % shards, shards))


def test_blocks_are_left_out_where_the_counts_divide() -> None:
    assert [may_hold(f"{number}_of_4", Shard(1, 2)) for number in range(1, 5)] == [False, True, False, True]
    assert [may_hold("2_of_2", Shard(index, 4)) for index in range(4)] == [False, True, False, True]
    assert may_hold("1_of_3", Shard(1, 4))
    assert not shard_is_compatible("1_of_3", Shard(1, 4))
    assert shard_is_compatible("1_of_2", Shard(1, 4))
    assert shard_is_compatible("", Shard(1, 4))
    for text in ("", "0_of_2", "3_of_2", "x", "1_of_x", "_of_"):
        assert may_hold(text, Shard(0, 2)), text
    assert may_hold("2_of_2", None)


def test_a_tenant_has_a_shard_of_the_store_gateways() -> None:
    view = ring(*[ACTIVE] * 6, zones=3)
    tenant, cache = TenantId("t"), ShardCache()
    assert len(tenant_shard(view, tenant, Limits(), cache)) == 6
    assert len(tenant_shard(view, tenant, Limits(store_gateway_tenant_shard_size=3), cache)) == 3
    assert len(tenant_shard(view, tenant, Limits(store_gateway_tenant_shard_size_per_zone=1), cache)) == 3


def test_tenants_may_be_named_or_left_out() -> None:
    assert allowed("a", (), ())
    assert not allowed("a", ("b",), ())
    assert not allowed("a", ("a",), ("a",))
