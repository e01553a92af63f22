"""The replication factor that follows the ingesters: what changes it, and that no history leaves a silent hole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mimir_ray.clock import ManualClock
from mimir_ray.cluster.quorum import ReadTracker
from mimir_ray.cluster.ring.factor import (
    ANNOUNCE_MS,
    MARGIN_MS,
    PERIODS_MAX,
    READER_AGE_S,
    WRITER_AGE_S,
    AutomaticFactor,
)
from mimir_ray.cluster.ring.lookup import NOBODY, RingOptions
from mimir_ray.cluster.ring.model import (
    INGESTER,
    WRITE,
    InstanceDesc,
    InstanceId,
    InstanceState,
    Replication,
)
from mimir_ray.cluster.ring.persistence import decode, encode
from mimir_ray.cluster.ring.replication import live_owners, read_set, write_quorum
from mimir_ray.cluster.ring.ring import MemoryStore, RingPolicy, Rings
from mimir_ray.cluster.ring.shuffle_shard import LookBackCache, ShardCache
from mimir_ray.cluster.ring.watcher import RingWatcher
from mimir_ray.errors import Unavailable

START = 1_700_000_000_000
HOUR = 3_600_000
LOOKBACK = 13 * HOUR
OPTIONS = RingOptions(0)
MACHINES = ("m0", "m1", "m2", "m3", "m1")
"""Of each ingester: the last one shares a machine with another."""


def described(at: int, state: InstanceState = InstanceState.ACTIVE, **more: Any) -> InstanceDesc:
    tokens = np.sort(np.random.default_rng(at).integers(0, 1 << 32, 8).astype(np.uint32))
    base = InstanceDesc(InstanceId(f"i{at}"), f"ingester/{at}", state=state, tokens=tokens, machine=MACHINES[at])
    return replace(base, **more)


@dataclass
class Ring:
    """`Rings` with a clock and a store."""

    planned: int = 1
    clock: ManualClock = field(default_factory=lambda: ManualClock(START))
    store: MemoryStore = field(default_factory=MemoryStore)

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        policy = RingPolicy(automatic={INGESTER: AutomaticFactor(self.planned, lookback_ms=LOOKBACK)})
        self.rings = Rings(self.clock, self.store, policy)

    def join(self, at: int, **more: Any) -> None:
        """For the first time, with an empty disk."""
        self.rings.register(INGESTER, described(at, InstanceState.JOINING, empty=True, **more))
        self.rings.heartbeat(INGESTER, described(at, empty=True, **more))

    def pass_ms(self, duration_ms: int, *silent: int) -> None:
        self.clock.advance_ms(duration_ms)
        for one in list(self.rings.snapshot(INGESTER).instances.values()):
            if int(one.id[1:]) not in silent:
                self.rings.heartbeat(INGESTER, one)
        self.rings.sweep()

    @property
    def state(self) -> Replication:
        found = self.rings.snapshot(INGESTER).replication
        assert found is not None
        return found

    @property
    def now(self) -> tuple[int, int]:
        """(copies that writes make, machines that reads may leave out)."""
        return self.state.factor, self.state.failures_max


@pytest.fixture
def ring() -> Ring:
    return Ring()


def test_ingesters_of_one_machine_hold_one_copy(ring: Ring) -> None:
    ring.join(1)
    ring.join(4)
    assert ring.now == (1, 0)


def test_it_grows_with_machines_that_take_writes_to_three_and_no_further(ring: Ring) -> None:
    factors = []
    for at in range(4):
        ring.rings.register(INGESTER, described(at, InstanceState.JOINING, empty=True))
        factors.append(ring.state.factor)
        ring.join(at)
        factors.append(ring.state.factor)
    assert factors == [1, 1, 1, 2, 2, 3, 3, 3]


def test_a_deployment_of_three_machines_starts_with_three_and_may_miss_one_from_the_start() -> None:
    ring = Ring(planned=3)
    for at in range(3):
        assert ring.now == (3, 1)
        ring.join(at)
    ring.pass_ms(10 * 60_000)
    assert ring.now == (3, 1)


def test_machines_that_were_planned_and_never_came_do_not_count_for_ever() -> None:
    ring = Ring(planned=3)
    ring.join(0)
    ring.pass_ms(121_000)
    assert ring.now == (3, 0), "announced"
    ring.pass_ms(ANNOUNCE_MS)
    assert ring.now == (1, 0)


def test_while_one_copy_is_in_the_look_back_all_must_answer(ring: Ring) -> None:
    for at in range(3):
        ring.join(at)
    assert ring.now == (3, 0)
    ring.pass_ms(LOOKBACK + MARGIN_MS - 1000)
    assert ring.now == (3, 0)
    before = ring.rings.snapshot(INGESTER).version
    ring.pass_ms(2000)
    assert ring.now == (3, 1)
    assert ring.rings.snapshot(INGESTER).version > before, "readers hear of it"


def test_one_that_is_silent_or_starts_again_is_still_there() -> None:
    ring = Ring(planned=3)
    for at in range(3):
        ring.join(at)
    ring.pass_ms(10 * 60_000, 1)
    assert ring.now == (3, 1)
    ring.rings.register(INGESTER, described(1, InstanceState.PENDING, incarnation=1))
    assert ring.now == (3, 1)
    ring.rings.heartbeat(INGESTER, described(1, incarnation=1))
    ring.pass_ms(10 * 60_000)
    assert ring.now == (3, 1)
    assert ring.state.past == ()


def test_fewer_copies_are_announced_before_writes_make_them() -> None:
    ring = Ring(planned=2)
    ring.join(0)
    ring.join(1)
    ring.rings.plan_removal(INGESTER, InstanceId("i1"))
    assert ring.now == (2, 0)
    ring.pass_ms(ANNOUNCE_MS - 1000)
    assert ring.now == (2, 0)
    ring.pass_ms(1000)
    assert ring.now == (1, 0)
    ring.rings.set_read_only(INGESTER, InstanceId("i1"), False)
    assert ring.now == (2, 0), "it stays after all"


def test_two_copies_instead_of_three_are_made_at_once(ring: Ring) -> None:
    ring = Ring(planned=3)
    for at in range(3):
        ring.join(at)
    ring.rings.set_read_only(INGESTER, InstanceId("i1"), True)
    assert ring.now == (2, 1)


def leave(ring: Ring, at: int) -> None:
    ring.rings.plan_removal(INGESTER, InstanceId(f"i{at}"))
    ring.rings.set_read_only(INGESTER, InstanceId(f"i{at}"), True)
    ring.rings.set_drained(INGESTER, InstanceId(f"i{at}"))
    ring.rings.unregister(INGESTER, InstanceId(f"i{at}"), 0)


def test_what_left_in_order_is_no_loss() -> None:
    ring = Ring(planned=3)
    for at in range(4):
        ring.join(at)
    leave(ring, 3)
    assert ring.now == (3, 1)
    assert ring.state.leaving == ring.state.drained == frozenset()


def test_one_that_was_read_only_for_the_whole_look_back_has_nothing_to_lose() -> None:
    ring = Ring(planned=3)
    for at in range(4):
        ring.join(at)
    ring.rings.set_read_only(INGESTER, InstanceId("i3"), True)
    ring.pass_ms(LOOKBACK + MARGIN_MS)
    ring.rings.unregister(INGESTER, InstanceId("i3"), 0)
    assert ring.now == (3, 1)


def test_of_what_a_forgotten_one_had_a_copy_is_missing_until_it_comes_back() -> None:
    ring = Ring(planned=3)
    for at in range(4):
        ring.join(at)
    ring.rings.forget(INGESTER, InstanceId("i3"))
    assert ring.now == (3, 0)
    ring.rings.heartbeat(INGESTER, described(3))
    assert ring.now == (3, 1)
    ring.rings.forget(INGESTER, InstanceId("i3"))
    ring.pass_ms(LOOKBACK + MARGIN_MS + 1000)
    assert ring.now == (3, 1)


def test_one_that_comes_back_with_an_empty_disk_has_lost_a_copy() -> None:
    ring = Ring(planned=3)
    for at in range(3):
        ring.join(at)
    ring.rings.register(INGESTER, described(1, InstanceState.PENDING, incarnation=1, empty=True))
    assert ring.now == (3, 0)
    ring.rings.forget(INGESTER, InstanceId("i1"))
    ring.rings.heartbeat(INGESTER, described(1, incarnation=2))
    assert ring.now == (3, 0), "it is back, what its first disk had is not"


def test_one_that_moved_to_another_machine_may_share_that_with_its_copies() -> None:
    ring = Ring(planned=3)
    for at in range(3):
        ring.join(at)
    ring.rings.register(INGESTER, described(1, machine="m0", incarnation=1))
    assert ring.state.failures_max == 0


def test_it_outlives_the_rings_process() -> None:
    ring = Ring(planned=1)
    for at in range(3):
        ring.join(at)
    ring.rings.forget(INGESTER, InstanceId("i2"))
    before = ring.state
    ring.start()
    assert ring.state == before


def test_saved_rings_without_a_history_count_as_having_had_one_copy() -> None:
    ring = Ring(planned=3)
    saved = {INGESTER: {one.id: one for one in map(described, range(3))}}
    ring.store.save(encode({INGESTER: 5}, saved))
    ring.start()
    assert ring.now == (3, 0)


def test_samples_that_a_ring_without_memory_did_not_know_count_as_stored_once() -> None:
    ring = Ring(planned=3)
    ring.join(0)
    ring.rings.heartbeat(INGESTER, described(1))
    assert ring.now == (3, 0)


def test_watchers_tell_a_ring_without_memory_what_was(ring: Ring) -> None:
    ring = Ring(planned=3)
    for at in range(3):
        ring.join(at)
    known = ring.rings.snapshot(INGESTER)
    ring.store, ring.planned = MemoryStore(), 1
    ring.clock.advance_ms(5000)
    ring.start()
    ring.rings.heartbeat(INGESTER, known.instances[InstanceId("i0")])
    assert ring.now == (1, 0)
    for _ in range(2):
        ring.rings.recall(INGESTER, list(known.instances.values()), known.replication)
    assert ring.now == (3, 0), "the ring said one copy for a moment"
    assert [one.factor for one in ring.state.past] == [3, 1], "before, and for a moment"


def test_a_history_is_bounded_by_its_weakest(ring: Ring) -> None:
    ring.join(0)
    for _ in range(PERIODS_MAX * 2):
        ring.join(1)
        leave(ring, 1)
        ring.pass_ms(ANNOUNCE_MS)
        ring.pass_ms(ANNOUNCE_MS)
    assert len(ring.state.past) == PERIODS_MAX
    assert ring.state.past[0].since_ms == START
    assert {one.factor for one in ring.state.past} == {1, 2}


def test_the_history_is_saved_whole() -> None:
    ring = Ring(planned=1)
    for at in range(3):
        ring.join(at)
    ring.rings.forget(INGESTER, InstanceId("i2"))
    ring.rings.plan_removal(INGESTER, InstanceId("i1"))
    desc = ring.rings.snapshot(INGESTER)
    assert desc.replication is not None
    saved = encode({INGESTER: 1}, {INGESTER: desc.instances}, {INGESTER: desc.replication})
    assert decode(saved)[INGESTER].replication == desc.replication


# Any history.


class World:
    """A ring, two gateways that see it more or less late, ingesters with disks, and a bucket."""

    def __init__(self, planned: int, shard_size: int) -> None:
        self.ring = Ring(planned)
        self.clock = self.ring.clock
        self.shard_size = shard_size
        self.watchers = [RingWatcher(self, {INGESTER: OPTIONS}, self.clock) for _ in range(2)]  # type: ignore[arg-type]
        self.writing = [ShardCache() for _ in self.watchers]
        self.reading = [LookBackCache(LOOKBACK) for _ in self.watchers]
        self.disks: dict[InstanceId, set[int]] = {}
        self.alive: dict[InstanceId, InstanceDesc] = {}
        self.bucket: set[int] = set()
        self.acknowledged: dict[int, int] = {}
        """Sample → when it was written."""
        self.written = 0
        self.starts = 0
        self.answered = 0
        for at in range(planned):
            self.start(at)

    def call(self, method: str, *arguments: Any, timeout_s: float) -> Any:
        """As the client of the ring's actor. Long polls end at once."""
        assert timeout_s > 0
        return getattr(self.ring.rings, method)(*arguments)

    def poll(self, *gateways: int) -> None:
        for at in gateways or range(len(self.watchers)):
            self.watchers[at].poll()

    def pass_ms(self, duration_ms: int, gateways: int = 3) -> None:
        """The bits of `gateways` say who hears of it."""
        self.clock.advance_ms(duration_ms)
        for one in self.alive.values():
            self.ring.rings.heartbeat(INGESTER, one)
        self.ring.rings.sweep()
        for at in range(len(self.watchers)):
            if gateways >> at & 1:
                self.watchers[at].poll()
        for sample, at_ms in list(self.acknowledged.items()):
            if self.clock.now_ms() - at_ms > 12 * HOUR:
                # Cut into blocks, uploaded, and read from there.
                if any(sample in disk for disk in self.disks.values()):
                    self.bucket.add(sample)
                del self.acknowledged[sample]

    def start(self, at: int, empty: bool = False) -> None:
        """An ingester, new, or again with what is on its disk."""
        name = described(at).id
        if name in self.alive or (empty and not self.may_lose(name)):
            return
        self.starts += 1
        if empty:
            self.disks.pop(name, None)
        desc = described(at, InstanceState.JOINING, incarnation=self.starts, empty=name not in self.disks)
        self.disks.setdefault(name, set())
        self.ring.rings.register(INGESTER, desc)
        self.poll()
        if any(loss.instance == name for loss in self.ring.state.lost):
            self.pass_ms(ANNOUNCE_MS)
        self.alive[name] = replace(desc, state=InstanceState.ACTIVE)
        self.ring.rings.heartbeat(INGESTER, self.alive[name])

    def may_lose(self, name: InstanceId) -> bool:
        """Whether every sample would still have a copy."""
        members = self.ring.rings.snapshot(INGESTER).instances
        return all(
            any(sample in self.disks[other] for other in members if other != name)
            for sample in self.acknowledged
            if sample not in self.bucket
        )

    def kill(self, at: int) -> None:
        self.alive.pop(described(at).id, None)

    def forget(self, at: int) -> None:
        name = described(at).id
        if name in self.ring.rings.snapshot(INGESTER).instances and name not in self.alive and self.may_lose(name):
            self.ring.rings.forget(INGESTER, name)

    def remove(self, at: int) -> None:
        """As `mimir-ray scale` does it."""
        name = described(at).id
        if name not in self.alive:
            return
        self.ring.rings.plan_removal(INGESTER, name)
        while self.ring.state.announced:
            self.pass_ms(10_000)
        self.poll()
        self.ring.rings.set_read_only(INGESTER, name, True)
        self.poll()
        self.bucket |= self.disks.pop(name)
        self.ring.rings.set_drained(INGESTER, name)
        del self.alive[name]
        self.ring.rings.unregister(INGESTER, name, self.starts)

    def read_only(self, at: int) -> None:
        """As an operator says it, or takes it back; gateways hear of it when they do."""
        one = self.ring.rings.snapshot(INGESTER).instances.get(described(at).id)
        if one is not None:
            self.ring.rings.set_read_only(INGESTER, one.id, not one.read_only)

    def forget_everything(self) -> None:
        """The ring's memory and its store."""
        self.poll()
        self.ring.store = MemoryStore()
        self.clock.advance_ms(1000)  # versions are of the time
        self.ring.start()
        self.poll()

    def write(self, gateway: int, seed: int) -> None:
        watcher = self.watchers[gateway]
        if watcher.age_s() > WRITER_AGE_S:
            return
        view = self.writing[gateway].shard(watcher.view(INGESTER), "t", self.shard_size)
        owners = view.owners(np.array([seed * 2_654_435_761 % (1 << 32)], np.uint32))
        try:
            owners = live_owners(view, owners, view.healthy(WRITE))
        except Unavailable:
            return
        self.written += 1
        taken = 0
        for place, at in enumerate(owners[0].tolist()):
            # Some of the calls are lost.
            if at != NOBODY and view.instances[at].id in self.alive and (seed >> 4 >> place) & 7 != 7:
                self.disks[view.instances[at].id].add(self.written)
                taken += 1
        if taken >= write_quorum(view.replication_factor):
            self.acknowledged[self.written] = self.clock.now_ms()

    def read(self, gateway: int, seed: int) -> None:
        watcher = self.watchers[gateway]
        view = self.reading[gateway].shard(watcher.view(INGESTER), "t", self.shard_size)
        try:
            asked = read_set(view, old=watcher.age_s() > READER_AGE_S)
        except Unavailable:
            return
        tracker: ReadTracker[set[int]] = ReadTracker(asked, minimize=True)
        tracker.shuffle(np.random.default_rng(seed).permutation(tracker.units).tolist())
        todo = tracker.start()
        while todo and not tracker.decided:
            one = todo.pop(0)
            if one.id in self.alive:
                tracker.answered(one, self.disks[one.id])
            else:
                todo += tracker.failed(one, Unavailable())
        if not tracker.succeeded:
            return
        self.answered += 1
        found = self.bucket.union(*tracker.result().values())
        missing = sorted(set(self.acknowledged) - found)
        assert not missing, f"samples {missing} were acknowledged; {sorted(asked.instances, key=lambda x: x.id)}"


EVENTS: Mapping[str, int] = {
    "write": 8,
    "read": 6,
    "start": 4,
    "kill": 3,
    "empty": 1,
    "forget": 2,
    "remove": 2,
    "read-only": 3,
    "wait": 5,
    "ring restarts": 1,
    "ring forgets": 1,
}
WAITS_MS = (1_000, 9_000, 16_000, 50_000, 80_000, 700_000, 2 * HOUR, 14 * HOUR)


def happen(world: World, kind: str, number: int) -> None:
    at, gateway = number % len(MACHINES), number % 2
    match kind:
        case "write":
            for more in range(4):
                world.write(gateway, number + more * 7919)
        case "read":
            for more in range(3):
                world.read((gateway + more) % 2, number + more)
        case "start":
            world.start(at)
        case "empty":
            world.kill(at)
            world.start(at, empty=True)
        case "kill":
            world.kill(at)
        case "forget":
            world.forget(at)
        case "remove":
            world.remove(at)
        case "read-only":
            world.read_only(at)
        case "wait":
            world.pass_ms(WAITS_MS[number % len(WAITS_MS)], number >> 3)
        case "ring restarts":
            world.ring.start()
            world.poll()
        case _:
            world.forget_everything()


def test_a_reader_that_has_not_heard_of_one_copy_leaves_nobody_out() -> None:
    world = World(2, 0)
    world.ring.rings.set_read_only(INGESTER, InstanceId("i1"), True)
    for _ in range(8):
        world.pass_ms(10_000, 0b01)
        for seed in range(8):
            world.write(0, seed)
            world.read(1, seed)
    assert world.ring.now == (1, 0)
    assert len(world.acknowledged) == 8, "before, two copies were needed, and one takes no more"
    world.kill(0)
    answered = world.answered
    for seed in range(8):
        world.read(1, seed)
    assert world.answered == answered


@settings(max_examples=100, deadline=None)
@example(  # a shard grew with the factor, and a reader who had not heard of it asked too few
    2, 1, [("wait", 37695), ("start", 56993), ("wait", 47432), ("write", 49316), ("write", 4349)]
)
@given(
    planned=st.integers(1, 3),
    shard_size=st.sampled_from([0, 0, 1, 2]),
    events=st.lists(
        st.tuples(
            st.sampled_from([kind for kind, weight in EVENTS.items() for _ in range(weight)]), st.integers(0, 1 << 16)
        ),
        max_size=60,
    ),
)
def test_any_history_has_no_silent_hole(planned: int, shard_size: int, events: list[tuple[str, int]]) -> None:
    """Every acknowledged sample is in each answer, or there is no answer, as long as a copy of it is left."""
    world = World(planned, shard_size)
    for kind, number in events:
        happen(world, kind, number)
        world.read(number % 2, number)
