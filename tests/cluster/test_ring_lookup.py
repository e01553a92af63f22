"""Owners of keys: the vectorised look-up against a walk that a beginner can check."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimir_ray.cluster.ring.lookup import NOBODY, RingOptions, RingView
from mimir_ray.cluster.ring.model import (
    BLOCKS_READ,
    INGESTER,
    READ,
    WRITE,
    InstanceDesc,
    InstanceId,
    InstanceState,
    RingDesc,
)
from mimir_ray.cluster.ring.replication import (
    EmptyRing,
    TooFewLiveReplicas,
    TooManyUnhealthyInstances,
    live_owners,
    read_set,
    write_quorum,
)
from mimir_ray.cluster.ring.tokens import random_tokens

NOW = 1_000_000_000
ACTIVE = InstanceState.ACTIVE


def instance(
    name: str, tokens: list[int], zone: str = "", state: InstanceState = ACTIVE, heard_ms_ago: int = 0
) -> InstanceDesc:
    return InstanceDesc(
        InstanceId(name), f"ingester/{name}", zone, state, np.array(sorted(tokens), np.uint32), NOW - heard_ms_ago, 1
    )


def view_of(*instances: InstanceDesc, rf: int = 1, zone_aware: bool = False) -> RingView:
    return RingView(RingDesc(INGESTER, 7, NOW, {one.id: one for one in instances}), RingOptions(rf, zone_aware))


def walk(view: RingView, key: int) -> list[int]:
    """The slow twin: walk the tokens clockwise, one at a time."""
    tokens = sorted((int(token), at) for at, one in enumerate(view.instances) for token in one.tokens)
    after = [at for token, at in tokens if token > key] + [at for token, at in tokens if token <= key]
    found: list[int] = []
    for at in after:
        zone = view.instances[at].zone
        zone_taken = view.options.zone_aware and zone and zone in {view.instances[other].zone for other in found}
        if at not in found and not zone_taken and len(found) < view.replication_factor:
            found.append(at)
    return found + [NOBODY] * (view.replication_factor - len(found))


@settings(max_examples=150, deadline=None)
@given(
    zones=st.lists(st.sampled_from(["", "a", "b", "c"]), min_size=0, max_size=7),
    rf=st.integers(1, 4),
    zone_aware=st.booleans(),
    seed=st.integers(0, 1000),
    per_instance=st.integers(0, 6),
)
def test_owners_are_those_that_a_walk_finds(
    zones: list[str], rf: int, zone_aware: bool, seed: int, per_instance: int
) -> None:
    rng = np.random.default_rng(seed)
    tokens = rng.choice(64, size=(len(zones), per_instance), replace=False) * 67_108_863
    ring = view_of(
        *(instance(f"i{at}", tokens[at].tolist(), zone) for at, zone in enumerate(zones)), rf=rf, zone_aware=zone_aware
    )
    keys = np.concatenate([rng.integers(0, 2**32, 20, np.uint32), tokens.ravel().astype(np.uint32)[:20]])
    keys = np.append(keys, np.array([0, 2**32 - 1], np.uint32))
    assert ring.owners(keys).tolist() == [walk(ring, int(key)) for key in keys]
    assert ring.owners(keys).dtype == np.int16
    for key in keys[:5]:
        assert ring.replicas(int(key), WRITE) == [at for at in walk(ring, int(key)) if at != NOBODY]


def test_a_key_equal_to_a_token_belongs_to_the_next_one() -> None:
    ring = view_of(instance("a", [100]), instance("b", [200]))
    assert ring.owners(np.array([99, 100, 199, 200, 2**32 - 1], np.uint32))[:, 0].tolist() == [0, 1, 1, 0, 0]


def test_a_ring_of_hundreds_of_instances_keeps_zones_apart() -> None:
    rng = np.random.default_rng(3)
    ring = view_of(
        *(
            instance(f"i{at}", random_tokens(128, np.zeros(0, np.uint32), rng).tolist(), f"z{at % 3}")
            for at in range(90)
        ),
        rf=3,
        zone_aware=True,
    )
    owners = ring.owners(rng.integers(0, 2**32, 5000, np.uint32))
    zones = np.array([int(one.zone[1]) for one in ring.instances])[owners]
    assert (np.sort(zones, axis=1) == [0, 1, 2]).all()


def test_an_instance_is_healthy_for_writes_when_active_and_heard_of() -> None:
    ring = view_of(
        instance("active", [1]),
        instance("joining", [2], state=InstanceState.JOINING),
        instance("leaving", [3], state=InstanceState.LEAVING),
        instance("silent", [4], heard_ms_ago=60_001),
        instance("slow", [5], heard_ms_ago=60_000),
    )
    names = [one.id for one in ring.instances]
    assert dict(zip(names, ring.healthy(WRITE).tolist(), strict=True)) == {
        "active": True,
        "joining": False,
        "leaving": False,
        "silent": False,
        "slow": True,
    }
    assert dict(zip(names, ring.healthy(READ).tolist(), strict=True))["leaving"]


def test_health_is_judged_as_of_the_snapshot_unless_a_time_is_given() -> None:
    ring = view_of(instance("a", [1]))
    assert ring.healthy(WRITE).all()
    assert not ring.healthy(WRITE, NOW + 60_001).any()


def test_a_newer_snapshot_of_the_same_version_brings_heartbeats_only() -> None:
    before = view_of(instance("a", [1], heard_ms_ago=70_000))
    fresh = instance("a", [1])
    after = RingView(RingDesc(INGESTER, 7, NOW, {fresh.id: fresh}), before.options, before)
    assert after.healthy(WRITE).all()
    assert after.tokens is before.tokens


def test_a_block_s_replicas_are_one_more_for_each_owner_that_has_not_loaded_it() -> None:
    ring = view_of(instance("a", [100], state=InstanceState.JOINING), instance("b", [200]), instance("c", [300]), rf=1)
    assert ring.replicas(50, WRITE) == [0]
    assert ring.replicas(50, BLOCKS_READ) == [0, 1]


def test_an_extension_in_a_zone_aware_ring_may_stay_in_the_zone() -> None:
    ring = view_of(
        instance("a", [100], "z1", InstanceState.JOINING),
        instance("b", [200], "z1"),
        instance("c", [300], "z2"),
        rf=2,
        zone_aware=True,
    )
    assert ring.replicas(50, BLOCKS_READ) == [0, 1, 2]


def test_ownership_adds_up_to_one() -> None:
    ring = view_of(instance("a", [0]), instance("b", [2**31]))
    assert ring.ownership().tolist() == [0.5, 0.5]


def test_states_are_counted_with_the_silent_ones_as_unhealthy() -> None:
    ring = view_of(instance("a", [0]), instance("b", [5], heard_ms_ago=99_999))
    assert ring.state_counts() == {"Unhealthy": 1, "PENDING": 0, "JOINING": 0, "ACTIVE": 1, "LEAVING": 0}


@settings(max_examples=50)
@given(count=st.integers(0, 50), taken=st.lists(st.integers(0, 2**32 - 1), max_size=20), seed=st.integers(0, 99))
def test_random_tokens_are_distinct_sorted_and_free(count: int, taken: list[int], seed: int) -> None:
    drawn = random_tokens(count, np.array(taken, np.uint32), np.random.default_rng(seed)).tolist()
    assert len(set(drawn)) == count
    assert drawn == sorted(drawn)
    assert not set(drawn) & set(taken)


# Replication.


def test_a_write_quorum_is_a_majority() -> None:
    assert [write_quorum(rf) for rf in (1, 2, 3, 4, 5)] == [1, 2, 2, 3, 3]


@given(rf=st.integers(1, 9))
def test_a_write_quorum_and_a_read_always_meet(rf: int) -> None:
    ring = view_of(*(instance(f"i{at}", [at]) for at in range(rf)), rf=rf)
    answering = rf - read_set(ring).failures_max
    assert write_quorum(rf) + answering > rf


def test_owners_that_are_down_are_left_out_as_long_as_a_quorum_remains() -> None:
    ring = view_of(*(instance(f"i{at}", [at * 10], heard_ms_ago=99_999 * (at == 1)) for at in range(3)), rf=3)
    owners = ring.owners(np.array([5], np.uint32))
    assert owners.tolist() == [[1, 2, 0]]
    assert live_owners(ring, owners, ring.healthy(WRITE)).tolist() == [[NOBODY, 2, 0]]


def test_too_few_live_owners_are_an_error_that_names_the_dead() -> None:
    ring = view_of(*(instance(f"i{at}", [at * 10], heard_ms_ago=99_999 * (at > 0)) for at in range(3)), rf=3)
    with pytest.raises(TooFewLiveReplicas) as caught:
        live_owners(ring, ring.owners(np.array([5], np.uint32)), ring.healthy(WRITE))
    assert str(caught.value) == ("at least 2 live replicas required, could only find 1 - unhealthy instances: i1,i2")


def test_one_ingester_cannot_hold_three_replicas() -> None:
    ring = view_of(instance("a", [1]), rf=3)
    with pytest.raises(TooFewLiveReplicas):
        live_owners(ring, ring.owners(np.array([5], np.uint32)), ring.healthy(WRITE))


def test_an_empty_ring_takes_nothing_and_gives_nothing() -> None:
    ring = view_of(rf=3)
    with pytest.raises(EmptyRing, match="empty ring"):
        live_owners(ring, ring.owners(np.array([5], np.uint32)), ring.healthy(WRITE))
    with pytest.raises(EmptyRing):
        read_set(ring)


def test_a_read_tolerates_as_many_failures_as_a_write_quorum_leaves() -> None:
    ring = view_of(*(instance(f"i{at}", [at * 10]) for at in range(5)), rf=3)
    wanted = read_set(ring)
    assert (len(wanted.instances), wanted.failures_max) == (5, 1)


def test_an_unhealthy_instance_uses_up_a_tolerated_failure() -> None:
    ring = view_of(*(instance(f"i{at}", [at * 10], heard_ms_ago=99_999 * (at == 0)) for at in range(5)), rf=3)
    assert (len(read_set(ring).instances), read_set(ring).failures_max) == (4, 0)


def test_two_unhealthy_instances_are_too_many() -> None:
    ring = view_of(*(instance(f"i{at}", [at * 10], heard_ms_ago=99_999 * (at < 2)) for at in range(5)), rf=3)
    with pytest.raises(TooManyUnhealthyInstances):
        read_set(ring)


def test_an_unhealthy_instance_takes_its_zone_with_it() -> None:
    ring = view_of(
        *(instance(f"i{at}", [at * 10], f"z{at % 3}", heard_ms_ago=99_999 * (at in (0, 3))) for at in range(6)),
        rf=3,
        zone_aware=True,
    )
    wanted = read_set(ring)
    assert {one.zone for one in wanted.instances} == {"z1", "z2"}
    assert wanted.zone_failures_max == 0


def test_failures_in_two_zones_are_too_many() -> None:
    ring = view_of(
        *(instance(f"i{at}", [at * 10], f"z{at % 3}", heard_ms_ago=99_999 * (at in (0, 1))) for at in range(6)),
        rf=3,
        zone_aware=True,
    )
    with pytest.raises(TooManyUnhealthyInstances):
        read_set(ring)
