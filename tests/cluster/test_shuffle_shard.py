"""Go's random numbers, and the shards drawn with them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimir_ray.cluster.ring.go_random import GoRandom, _cooked, _lehmer_words, _state_after
from mimir_ray.cluster.ring.lookup import RingOptions, RingView
from mimir_ray.cluster.ring.model import INGESTER, InstanceDesc, InstanceId, InstanceState, RingDesc
from mimir_ray.cluster.ring.shuffle_shard import LookBackCache, ShardCache, seed, shard_members, shuffle_shard
from mimir_ray.cluster.ring.tokens import random_tokens

NOW = 10_000_000_000
HOUR = 3_600_000


def instance(name: str, zone: str = "", tokens: int = 16, **more: object) -> InstanceDesc:
    drawn = random_tokens(tokens, np.zeros(0, np.uint32), np.random.default_rng(list(name.encode())))
    base = InstanceDesc(InstanceId(name), f"ingester/{name}", zone, InstanceState.ACTIVE, drawn, NOW, 1_000)
    return replace(base, **more)  # type: ignore[arg-type]


def view_of(*instances: InstanceDesc, zone_aware: bool = False, rf: int = 1) -> RingView:
    return RingView(RingDesc(INGESTER, 1, NOW, {one.id: one for one in instances}), RingOptions(rf, zone_aware))


def members(view: RingView, tenant: str, size: int, **more: int) -> set[str]:
    return {view.instances[at].id for at in shard_members(view, tenant, size, **more)}


def test_seed_1_draws_the_numbers_that_go_documents_everywhere() -> None:
    random = GoRandom(1)
    assert [random.int63() for _ in range(5)] == [
        5577006791947779410,
        8674665223082153551,
        6129484611666145821,
        4037200794235010051,
        3916589616287113937,
    ]


def test_uint32_takes_the_upper_bits() -> None:
    assert GoRandom(1).uint32() == 5577006791947779410 >> 31


def test_seeds_are_signed_and_count_modulo_the_lehmer_prime() -> None:
    prime = (1 << 31) - 1
    assert GoRandom(-1).int63() == GoRandom(prime - 1).int63()
    assert GoRandom((1 << 64) - 1).int63() == GoRandom(-1).int63()
    assert GoRandom(0).int63() == GoRandom(89482311).int63() == GoRandom(prime).int63()


def test_the_jump_is_as_many_single_steps() -> None:
    words = _lehmer_words(1, 20, 10)
    tap, feed = 0, 607 - 273
    stepped = list(words)
    for _ in range(2000):
        tap, feed = (tap - 1) % 607, (feed - 1) % 607
        stepped[feed] = (stepped[feed] + stepped[tap]) & ((1 << 64) - 1)
    with np.errstate(over="ignore"):
        assert _state_after(words, 2000) == stepped


def test_the_seeding_table_is_go_s() -> None:
    table = _cooked()
    assert table[0] - (1 << 64) == -4181792142133755926
    assert table[606] == 4152330101494654406


def test_a_seed_is_the_first_half_of_an_md5() -> None:
    assert seed("") == 0xD41D8CD98F00B204
    assert seed("a", "z") != seed("a") == 0x0CC175B9C0F1B6A8


def test_a_shard_has_the_size_asked_for_and_zero_is_everyone() -> None:
    ring = view_of(*(instance(f"i{at}") for at in range(10)))
    assert len(members(ring, "t", 4)) == 4
    assert len(members(ring, "t", 0)) == len(members(ring, "t", 40)) == 10


def test_a_zone_aware_shard_is_rounded_up_to_the_same_number_in_each_zone() -> None:
    ring = view_of(*(instance(f"i{at}", f"z{at % 3}") for at in range(12)), zone_aware=True)
    zones = sorted(ring.instances[at].zone for at in shard_members(ring, "t", 4))
    assert zones == ["z0", "z0", "z1", "z1", "z2", "z2"]


def test_tenants_get_different_shards() -> None:
    ring = view_of(*(instance(f"i{at}") for at in range(20)))
    assert len({frozenset(members(ring, f"t{at}", 4)) for at in range(20)}) > 10


@settings(max_examples=30, deadline=None)
@given(
    tenant=st.text(min_size=1, max_size=8), size=st.integers(1, 8), gone=st.integers(0, 11), zone_aware=st.booleans()
)
def test_one_instance_less_changes_a_shard_by_at_most_one(tenant: str, size: int, gone: int, zone_aware: bool) -> None:
    everyone = [instance(f"i{at}", f"z{at % 3}") for at in range(12)]
    fewer = [one for at, one in enumerate(everyone) if at != gone]
    before = members(view_of(*everyone, zone_aware=zone_aware), tenant, size)
    after = members(view_of(*fewer, zone_aware=zone_aware), tenant, size)
    assert len(before - after) <= 1


@settings(max_examples=30, deadline=None)
@given(tenant=st.text(min_size=1, max_size=8), size=st.integers(1, 10))
def test_a_larger_shard_holds_the_smaller_one(tenant: str, size: int) -> None:
    ring = view_of(*(instance(f"i{at}") for at in range(12)))
    assert members(ring, tenant, size) <= members(ring, tenant, size + 1)


def test_read_only_instances_take_no_writes_but_are_read_while_in_the_look_back() -> None:
    readonly = instance("i0", read_only=True, read_only_updated_ms=NOW - HOUR)
    ring = view_of(readonly, *(instance(f"i{at}") for at in range(1, 5)))
    assert "i0" not in members(ring, "t", 0)
    assert "i0" in members(ring, "t", 5, lookback_ms=2 * HOUR)
    assert "i0" not in members(ring, "t", 4, lookback_ms=HOUR // 2)


@pytest.mark.parametrize("tenant", [f"t{at}" for at in range(8)])
def test_a_look_back_shard_holds_the_shard_from_before_an_instance_came(tenant: str) -> None:
    older = [instance(f"i{at}") for at in range(9)]
    newer = instance("new", registered_ms=NOW - HOUR)
    before = members(view_of(*older), tenant, 3)
    now = view_of(*older, newer)
    looking_back = members(now, tenant, 3, lookback_ms=2 * HOUR)
    assert before | members(now, tenant, 3) <= looking_back


def test_look_ups_in_a_shard_stay_within_it() -> None:
    ring = view_of(*(instance(f"i{at}") for at in range(10)), rf=2)
    shard = shuffle_shard(ring, "t", 3)
    assert len(shard.instances) == 3
    owners = shard.owners(np.arange(0, 2**32, 2**24, dtype=np.uint32))
    assert owners.min() >= 0
    assert owners.max() < 3


def test_an_empty_ring_has_empty_shards() -> None:
    assert shard_members(view_of(), "t", 3) == []
    assert shard_members(view_of(zone_aware=True), "t", 3, lookback_ms=HOUR) == []


def test_a_cached_shard_is_kept_until_the_ring_changes_and_follows_its_heartbeats() -> None:
    ring = view_of(*(instance(f"i{at}") for at in range(10)))
    cache = ShardCache()
    first = cache.shard(ring, "t", 3)
    assert cache.shard(ring, "t", 3) is first
    desc = RingDesc(INGESTER, 1, NOW + 90_000, {one.id: one for one in ring.instances})
    later = cache.shard(RingView(desc, ring.options, ring), "t", 3)
    assert [one.id for one in later.instances] == [one.id for one in first.instances]
    assert first.healthy().all()
    assert not later.healthy().any()
    smaller = RingView(RingDesc(INGESTER, 2, NOW, {"i0": ring.instances[0]}), ring.options)
    assert len(cache.shard(smaller, "t", 3)) == 1


def test_without_a_size_only_read_only_instances_are_left_out() -> None:
    everyone = view_of(*(instance(f"i{at}") for at in range(4)))
    cache = ShardCache()
    assert cache.shard(everyone, "t", 0) is everyone
    some = view_of(instance("i0", read_only=True), *(instance(f"i{at}") for at in range(1, 4)))
    assert [one.id for one in ShardCache().shard(some, "t", 0).instances] == ["i1", "i2", "i3"]


def test_the_cache_is_bounded() -> None:
    ring = view_of(*(instance(f"i{at}") for at in range(5)))
    cache = ShardCache(entries_max=4)
    for at in range(20):
        cache.shard(ring, f"t{at}", 2)
        assert len(cache._shards) <= 4


def test_a_writer_notices_another_shard_size_by_the_version() -> None:
    view = view_of(*(instance(f"ingester-{at}") for at in range(6)))
    cache = ShardCache()
    versions = {size: cache.shard(view, "team-a", size).version for size in (0, 2, 3)}
    assert len(set(versions.values())) == 3
    assert versions[0] == view.version
    assert cache.shard(view, "team-a", 2).version == versions[2]


def test_readers_ask_who_was_in_the_shard_within_the_look_back() -> None:
    """One more ingester changes who is written to; who was written to before is still asked."""
    old = [instance(f"ingester-{at}", registered_ms=NOW - 48 * HOUR) for at in range(6)]
    before = view_of(*old)
    cache = LookBackCache(13 * HOUR)
    for number in range(40):
        tenant = f"team-{number}"
        written = members(before, tenant, 3)
        grown = view_of(*old, instance("ingester-new", registered_ms=NOW - HOUR))
        asked = set(cache.shard(grown, tenant, 3).index)
        assert written | members(grown, tenant, 3) <= asked
        assert len(asked) <= 4


def test_readers_go_on_to_ask_who_turned_read_only() -> None:
    leaving = instance("ingester-2", registered_ms=1, read_only=True, read_only_updated_ms=NOW - HOUR)
    view = view_of(*(instance(f"ingester-{at}", registered_ms=1) for at in (0, 1, 3, 4)), leaving)
    plain = view_of(*view.instances[:2], replace(leaving, read_only=False, read_only_updated_ms=0), *view.instances[3:])
    for number in range(40):
        tenant = f"team-{number}"
        asked = set(LookBackCache(13 * HOUR).shard(view, tenant, 2).index)
        assert members(plain, tenant, 2) <= asked
        assert members(view, tenant, 2) <= asked
        assert "ingester-2" not in ShardCache().shard(view, tenant, 2).index


def test_a_kept_look_back_shard_has_fresh_heartbeats_and_is_drawn_again_in_time() -> None:
    recent = [instance(f"ingester-{at}", registered_ms=NOW - 13 * HOUR + 30_000) for at in range(3)]
    old = [instance(f"old-{at}", registered_ms=1) for at in range(3)]
    cache = LookBackCache(13 * HOUR)

    def at(later_ms: int) -> RingView:
        moved = [replace(one, heartbeat_ms=NOW + later_ms) for one in (*recent, *old)]
        return RingView(RingDesc(INGESTER, 1, NOW + later_ms, {one.id: one for one in moved}), RingOptions())

    tenant = next(name for name in map(str, range(99)) if len(cache.shard(at(0), name, 1)) > 1)
    first = cache.shard(at(0), tenant, 1)
    kept = cache.shard(at(40_000), tenant, 1)
    assert {one.heartbeat_ms for one in kept.instances} == {NOW + 40_000}
    assert set(kept.index) == set(first.index)
    assert len(cache.shard(at(70_000), tenant, 1)) == 1
