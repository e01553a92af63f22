"""The class that holds all rings: versions, overdue and forgotten instances, its store."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimir_ray.clock import ManualClock, SystemClock
from mimir_ray.cluster.ring.model import (
    COMPACTOR,
    INGESTER,
    RULER,
    InstanceDesc,
    InstanceId,
    InstanceState,
    RingName,
)
from mimir_ray.cluster.ring.persistence import FileStore, decode, encode
from mimir_ray.cluster.ring.ring import Fenced, MemoryStore, Rings, UnknownInstance, UnknownRing
from mimir_ray.errors import Corruption

START = 1_700_000_000_000
MINUTE = 60_000


def described(name: str = "a", **more: object) -> InstanceDesc:
    base = InstanceDesc(InstanceId(name), f"ingester/{name}", tokens=np.array([1, 2], np.uint32))
    return replace(base, **more)  # type: ignore[arg-type]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


@pytest.fixture
def rings(clock: ManualClock) -> Rings:
    return Rings(clock)


def test_an_unknown_ring_is_an_error(rings: Rings) -> None:
    with pytest.raises(UnknownRing):
        rings.snapshot(RingName("moon"))


def test_registering_again_keeps_tokens_registration_time_and_read_only_flag(rings: Rings, clock: ManualClock) -> None:
    rings.register(INGESTER, described())
    rings.set_read_only(INGESTER, InstanceId("a"), True)
    clock.advance_ms(5000)
    entry = rings.register(INGESTER, described(tokens=np.zeros(0, np.uint32), incarnation=1))
    assert entry.tokens.tolist() == [1, 2]
    assert (entry.registered_ms, entry.heartbeat_ms) == (START, START + 5000)
    assert (entry.read_only, entry.read_only_updated_ms) == (True, START)


@pytest.mark.parametrize(
    "change",
    [
        {"state": InstanceState.ACTIVE},
        {"address": "ingester/elsewhere"},
        {"zone": "z"},
        {"tokens": np.array([3], np.uint32)},
        {"incarnation": 9},
    ],
)
def test_a_heartbeat_that_says_something_new_changes_the_version(rings: Rings, change: dict[str, object]) -> None:
    rings.register(INGESTER, described())
    before = rings.snapshot(INGESTER).version
    rings.heartbeat(INGESTER, described(**change))
    assert rings.snapshot(INGESTER).version > before


def test_only_the_changed_ring_gets_a_new_version(rings: Rings) -> None:
    before = rings.versions()
    rings.register(RULER, described())
    changed = {ring for ring, version in rings.versions().items() if version != before[ring]}
    assert changed == {RULER}


def test_setting_the_same_read_only_flag_again_changes_nothing(rings: Rings, clock: ManualClock) -> None:
    rings.register(INGESTER, described())
    rings.set_read_only(INGESTER, InstanceId("a"), True)
    before = rings.snapshot(INGESTER)
    clock.advance_ms(1000)
    rings.set_read_only(INGESTER, InstanceId("a"), True)
    after = rings.snapshot(INGESTER)
    assert after.version == before.version
    assert after.instances["a"].read_only_updated_ms == START


def test_an_overdue_heartbeat_changes_the_version_once_and_its_return_again(rings: Rings, clock: ManualClock) -> None:
    rings.register(INGESTER, described())
    first = rings.snapshot(INGESTER).version
    clock.advance_ms(MINUTE)
    rings.sweep()
    assert rings.snapshot(INGESTER).version == first
    clock.advance_ms(1)
    rings.sweep()
    overdue = rings.snapshot(INGESTER).version
    rings.sweep()
    assert rings.snapshot(INGESTER).version == overdue > first
    rings.heartbeat(INGESTER, described())
    assert rings.snapshot(INGESTER).version > overdue


def test_an_ingester_is_never_forgotten_but_a_compactor_is_after_ten_time_outs(
    rings: Rings, clock: ManualClock
) -> None:
    rings.register(INGESTER, described())
    rings.register(COMPACTOR, described())
    clock.advance_ms(10 * MINUTE)
    rings.sweep()
    assert "a" in rings.snapshot(COMPACTOR).instances
    clock.advance_ms(1)
    rings.sweep()
    assert "a" not in rings.snapshot(COMPACTOR).instances
    assert "a" in rings.snapshot(INGESTER).instances


def test_a_ruler_is_forgotten_after_two_time_outs(rings: Rings, clock: ManualClock) -> None:
    rings.register(RULER, described())
    clock.advance_ms(2 * MINUTE + 1)
    rings.sweep()
    assert not rings.snapshot(RULER).instances


def test_unregistering_twice_is_fine(rings: Rings) -> None:
    rings.register(INGESTER, described())
    rings.unregister(INGESTER, InstanceId("a"), 0)
    rings.unregister(INGESTER, InstanceId("a"), 0)
    assert not rings.snapshot(INGESTER).instances


def test_an_old_process_can_neither_speak_for_its_successor_nor_take_it_out(rings: Rings) -> None:
    rings.register(INGESTER, described(incarnation=2))
    with pytest.raises(Fenced):
        rings.register(INGESTER, described(incarnation=1))
    with pytest.raises(Fenced):
        rings.heartbeat(INGESTER, described(incarnation=1))
    with pytest.raises(Fenced):
        rings.set_state(INGESTER, InstanceId("a"), InstanceState.LEAVING, 1)
    with pytest.raises(Fenced):
        rings.unregister(INGESTER, InstanceId("a"), 1)
    assert rings.snapshot(INGESTER).instances["a"].incarnation == 2


def test_forgetting_an_unknown_instance_is_an_error(rings: Rings) -> None:
    with pytest.raises(UnknownInstance):
        rings.forget(INGESTER, InstanceId("a"))


def test_a_watch_without_a_change_answers_everything_at_its_time_out(rings: Rings) -> None:
    known = rings.versions()
    assert set(rings.watch({INGESTER: known[INGESTER], RULER: known[RULER]}, 0.0)) == {INGESTER, RULER}


def test_a_snapshot_does_not_change_afterwards(rings: Rings) -> None:
    before = rings.snapshot(INGESTER)
    rings.register(INGESTER, described())
    assert not before.instances


def test_closing_answers_those_who_wait() -> None:
    rings = Rings(SystemClock())
    version = rings.snapshot(INGESTER).version
    answers: list[int] = []
    waiting = threading.Thread(target=lambda: answers.append(rings.snapshot(INGESTER, version, 60.0).version))
    waiting.start()
    rings.close()
    waiting.join(10)
    assert answers == [version]


# The store.


class FullDisk(MemoryStore):
    full = True

    def save(self, state: bytes) -> None:
        if self.full:
            raise OSError("no space")
        super().save(state)


def test_a_restarted_ring_knows_what_it_knew_under_a_version_never_used_before(clock: ManualClock) -> None:
    store = MemoryStore()
    first = Rings(clock, store)
    first.register(INGESTER, described(zone="z", state=InstanceState.ACTIVE, incarnation=4))
    before = first.snapshot(INGESTER)
    second = Rings(clock, store)  # within the same millisecond
    after = second.snapshot(INGESTER)
    assert after.version > before.version + 1000
    entry = after.instances["a"]
    assert (entry.zone, entry.state, entry.incarnation, entry.tokens.tolist()) == ("z", InstanceState.ACTIVE, 4, [1, 2])


def test_after_a_restart_everyone_has_a_whole_time_out_to_speak_up(clock: ManualClock) -> None:
    store = MemoryStore()
    Rings(clock, store).register(INGESTER, described())
    clock.advance_ms(60 * MINUTE)
    rings = Rings(clock, store)
    assert rings.snapshot(INGESTER).instances["a"].heartbeat_ms == clock.now_ms()


def test_a_store_that_fails_does_not_stop_the_ring_and_is_tried_again(clock: ManualClock) -> None:
    store = FullDisk()
    rings = Rings(clock, store)
    rings.register(INGESTER, described())
    assert isinstance(rings.store_error, OSError)
    store.full = False
    rings.sweep()
    assert rings.store_error is None
    assert Rings(clock, store).snapshot(INGESTER).instances


def test_a_file_store_keeps_the_last_state(tmp_path: object) -> None:
    from pathlib import Path

    store = FileStore(Path(str(tmp_path)) / "deep" / "rings.json")
    assert store.load() is None
    store.save(b"one")
    store.save(b"two")
    assert store.load() == b"two"


NAMES = st.text(max_size=8)


@given(
    st.lists(
        st.builds(
            InstanceDesc,
            id=NAMES,
            address=NAMES,
            zone=NAMES,
            state=st.sampled_from(InstanceState),
            tokens=st.lists(st.integers(0, 2**32 - 1), max_size=5).map(lambda drawn: np.array(drawn, np.uint32)),
            registered_ms=st.integers(0, 2**50),
            read_only=st.booleans(),
            read_only_updated_ms=st.integers(0, 2**50),
            incarnation=st.integers(0, 2**50),
        ),
        max_size=4,
    )
)
def test_saved_rings_come_back_whole(instances: list[InstanceDesc]) -> None:
    rings = {INGESTER: {one.id: one for one in instances}}
    version, found, _ = decode(encode({INGESTER: 5}, rings))[INGESTER]
    assert version == 5
    assert list(found) == list(rings[INGESTER])
    for name, one in rings[INGESTER].items():
        assert found[name].tokens.tolist() == one.tokens.tolist()
        assert replace(found[name], tokens=one.tokens).__repr__() == one.__repr__()


@given(
    st.binary(max_size=60) | st.sampled_from([b"{}", b"[]", b'{"format": 2, "rings": {}}', b'{"format":1,"rings":3}'])
)
def test_a_damaged_state_is_corruption_and_nothing_else(data: bytes) -> None:
    with pytest.raises(Corruption):
        decode(data)


def test_a_ring_without_a_saved_state_is_forgetful_for_one_time_out(clock: ManualClock) -> None:
    rings = Rings(clock)
    assert rings.snapshot(INGESTER).forgot == rings.snapshot(INGESTER).version
    clock.advance_ms(MINUTE)
    assert not rings.snapshot(INGESTER).forgot
    store = MemoryStore()
    Rings(clock, store).register(INGESTER, described())
    assert not Rings(clock, store).snapshot(INGESTER).forgot


def test_what_is_recalled_fills_gaps_and_overwrites_nobody(clock: ManualClock) -> None:
    rings = Rings(clock)
    rings.register(INGESTER, described("b", state=InstanceState.ACTIVE, incarnation=7))
    old = [
        described("a", registered_ms=START - MINUTE, heartbeat_ms=START - MINUTE, state=InstanceState.ACTIVE),
        described("b", registered_ms=START - MINUTE, incarnation=6, read_only=True, read_only_updated_ms=START - 5),
    ]
    rings.recall(INGESTER, old)
    found = rings.snapshot(INGESTER).instances
    assert (found[old[0].id].state, found[old[0].id].heartbeat_ms) == (InstanceState.ACTIVE, START)
    newer = found[old[1].id]
    assert (newer.incarnation, newer.state) == (7, InstanceState.ACTIVE)
    assert (newer.registered_ms, newer.read_only, newer.read_only_updated_ms) == (START - MINUTE, True, START - 5)
    version = rings.snapshot(INGESTER).version
    rings.recall(INGESTER, old)
    assert rings.snapshot(INGESTER).version == version, "said once is enough"


def test_nothing_is_recalled_later_on(clock: ManualClock) -> None:
    rings = Rings(clock)
    clock.advance_ms(MINUTE)
    rings.recall(INGESTER, [described()])
    assert not rings.snapshot(INGESTER).instances


def test_who_was_removed_since_is_not_recalled(clock: ManualClock) -> None:
    rings = Rings(clock)
    rings.register(INGESTER, described())
    rings.forget(INGESTER, InstanceId("a"))
    rings.recall(INGESTER, [described()])
    assert not rings.snapshot(INGESTER).instances
