"""One instance in a ring, as a list of events; then its shell against a ring that comes and goes."""

from __future__ import annotations

import numpy as np
import pytest

from mimir_ray.clock import ManualClock
from mimir_ray.cluster.ring.actor import RingActor
from mimir_ray.cluster.ring.lifecycle import (
    Command,
    Event,
    LeaveRequested,
    Lifecycle,
    Register,
    Registered,
    Replayed,
    SendHeartbeat,
    Started,
    Stopped,
    StopProcess,
    Tick,
    Unregister,
    WasFenced,
    advance,
)
from mimir_ray.cluster.ring.lifecycler import Lifecycler
from mimir_ray.cluster.ring.lookup import RingOptions, RingView
from mimir_ray.cluster.ring.model import INGESTER, InstanceDesc, InstanceId, InstanceState
from mimir_ray.cluster.ring.persistence import FileStore
from mimir_ray.cluster.ring.ring import MemoryStore, RingStore
from mimir_ray.cluster.ring.watcher import RingWatcher
from mimir_ray.cluster.transport.base import NO_RETRY, RING
from mimir_ray.cluster.transport.in_process import InProcessTransport
from mimir_ray.errors import Unavailable

TOKENS = np.array([5, 6], np.uint32)
ME = InstanceDesc(InstanceId("a"), "ingester/a", incarnation=1)


def after(*events: Event, now_ms: int = 0) -> tuple[Lifecycle, list[Command]]:
    state, commands = Lifecycle(ME), []
    for event in events:
        state, commands = advance(state, event, now_ms)
    return state, commands


def taken() -> Registered:
    return Registered(ME, TOKENS)


def test_a_start_asks_for_registration_as_pending() -> None:
    state, [command] = after(Started())
    assert isinstance(command, Register)
    assert command.desc.state is state.desc.state is InstanceState.PENDING


def test_a_registration_is_told_back_with_tokens_as_joining() -> None:
    _, [command] = after(Started(), taken())
    assert isinstance(command, SendHeartbeat)
    assert (command.desc.state, command.desc.tokens.tolist()) == (InstanceState.JOINING, [5, 6])


def test_replay_done_makes_it_active() -> None:
    _, [command] = after(Started(), taken(), Replayed())
    assert isinstance(command, SendHeartbeat)
    assert command.desc.state is InstanceState.ACTIVE


def test_a_replay_that_ends_before_the_ring_answers_is_not_forgotten() -> None:
    state, commands = after(Started(), Replayed())
    assert commands == []
    state, [command] = advance(state, taken(), 0)
    assert isinstance(command, SendHeartbeat)
    assert command.desc.state is InstanceState.ACTIVE


def test_a_heartbeat_is_sent_when_due_and_not_before() -> None:
    state, _ = after(Started(), taken(), now_ms=1000)
    assert advance(state, Tick(), 15_999)[1] == []
    state, [command] = advance(state, Tick(), 16_000)
    assert isinstance(command, SendHeartbeat)
    assert advance(state, Tick(), 16_001)[1] == []


def test_as_long_as_it_is_not_registered_a_tick_asks_again() -> None:
    state, _ = after(Started())
    assert advance(state, Tick(), 999)[1] == []
    _, [command] = advance(state, Tick(), 1000)
    assert isinstance(command, Register)


def test_leaving_is_told_at_once_and_only_once() -> None:
    state, [command] = after(Started(), taken(), Replayed(), LeaveRequested())
    assert isinstance(command, SendHeartbeat)
    assert command.desc.state is InstanceState.LEAVING
    assert advance(state, LeaveRequested(), 0)[1] == []
    assert advance(state, Replayed(), 0)[1] == []


@pytest.mark.parametrize(("unregister", "kind"), [(True, Unregister), (False, SendHeartbeat)])
def test_a_stop_takes_it_out_or_leaves_it_leaving(unregister: bool, kind: type) -> None:
    state, [command] = after(Started(), taken(), Replayed(), Stopped(unregister))
    assert isinstance(command, kind)
    assert command.desc.state is InstanceState.LEAVING
    assert state.finished


def test_after_the_end_nothing_is_sent() -> None:
    state, _ = after(Started(), taken(), Stopped())
    for event in (Started(), Tick(), Replayed(), LeaveRequested(), taken(), Stopped(), WasFenced()):
        assert advance(state, event, 10**9) == (state, [])


def test_one_that_is_fenced_must_stop_and_says_nothing_more() -> None:
    state, commands = after(Started(), taken(), WasFenced())
    assert commands == [StopProcess()]
    assert state.fenced
    assert advance(state, Tick(), 10**9)[1] == []


# The shell.


class World:
    """A ring with a store, and instances, under a clock that is moved by hand."""

    def __init__(self, store: RingStore | None = None) -> None:
        self.clock = ManualClock(1_700_000_000_000)
        self.store = store if store is not None else MemoryStore()
        self.transport = InProcessTransport(self.clock, retry=NO_RETRY)
        self.transport.serve(RING, lambda: RingActor(self.store, clock=self.clock, sweep_period_s=0))
        self.errors: list[Exception] = []
        self.fenced = False

    def lifecycler(self, name: str = "a", incarnation: int = 1) -> Lifecycler:
        def on_fenced() -> None:
            self.fenced = True

        return Lifecycler(
            INGESTER,
            InstanceDesc(InstanceId(name), f"ingester/{name}", incarnation=incarnation),
            self.transport.client(RING),
            self.clock,
            np.random.default_rng(list(name.encode())),
            on_fenced=on_fenced,
            on_error=self.errors.append,
        )

    def view(self) -> RingView:
        return RingView(self.transport.client(RING).call("snapshot", INGESTER), RingOptions())


def test_an_instance_comes_in_with_128_tokens_of_its_own() -> None:
    world = World()
    for name in "abc":
        one = world.lifecycler(name)
        one.start(background=False)
        one.replayed()
    view = world.view()
    assert len(np.unique(view.tokens)) == 3 * 128
    assert {one.state for one in view.instances} == {InstanceState.ACTIVE}


def test_a_restarted_instance_keeps_its_tokens_and_fences_its_predecessor() -> None:
    world = World()
    first = world.lifecycler()
    first.start(background=False)
    tokens = world.view().tokens
    second = world.lifecycler(incarnation=2)
    second.start(background=False)
    assert world.view().tokens.tolist() == tokens.tolist()
    world.clock.advance_ms(15_000)
    first.tick()
    assert world.fenced
    first.stop()
    assert world.view().instances[0].incarnation == 2


def test_an_instance_outlives_the_ring_and_is_there_again_with_its_next_heartbeat() -> None:
    world = World()
    one = world.lifecycler()
    one.start(background=False)
    one.replayed()
    tokens = one.desc.tokens.tolist()
    world.store.save(b'{"format": 1, "rings": {}}')  # the ring loses its memory as well
    world.transport.kill(RING)
    assert not world.view().instances
    world.clock.advance_ms(15_000)
    one.tick()
    [entry] = world.view().instances
    assert (entry.tokens.tolist(), entry.state) == (tokens, InstanceState.ACTIVE)


def test_a_ring_that_is_away_is_reported_and_tried_again() -> None:
    world = World()
    one = world.lifecycler()
    world.transport.kill(RING, restarts=False)
    one.start(background=False)
    assert [type(error).__mro__[1] for error in world.errors] == [Unavailable]
    assert not one.state.registered
    world.transport.serve(RING, lambda: RingActor(world.store, clock=world.clock, sweep_period_s=0))
    world.clock.advance_ms(15_000)
    one.tick()
    assert one.state.registered


def test_a_stop_unregisters() -> None:
    world = World()
    one = world.lifecycler()
    one.start(background=False)
    one.stop()
    assert not world.view().instances


def test_a_stop_without_unregistering_leaves_it_leaving() -> None:
    world = World()
    one = world.lifecycler()
    one.start(background=False)
    one.stop(unregister=False)
    assert world.view().instances[0].state is InstanceState.LEAVING


def test_a_watcher_keeps_its_view_while_the_ring_is_away(tmp_path: object) -> None:
    from pathlib import Path

    world = World(FileStore(Path(str(tmp_path)) / "rings.json"))
    seen: list[int] = []
    watcher = RingWatcher(
        world.transport.client(RING),
        {INGESTER: RingOptions()},
        world.clock,
        on_change=lambda view: seen.append(len(view)),
    )
    assert watcher.age_s() == float("inf")
    assert watcher.view(INGESTER).version == -1
    one = world.lifecycler()
    one.start(background=False)
    one.replayed()
    watcher.poll()
    before = watcher.view(INGESTER)
    world.transport.kill(RING, restarts=False)
    world.clock.advance_ms(600_000)
    with pytest.raises(Unavailable):
        watcher.poll()
    assert watcher.view(INGESTER) is before
    assert before.healthy().all()
    assert watcher.age_s() == 600
    world.transport.serve(RING, lambda: RingActor(world.store, clock=world.clock, sweep_period_s=0))
    assert watcher.poll()
    assert watcher.view(INGESTER).version > before.version
    assert watcher.age_s() == 0
    assert seen == [1, 1]


def test_a_watcher_s_thread_sees_changes_and_ends() -> None:
    transport = InProcessTransport()
    transport.serve(RING, RingActor)
    ring = transport.client(RING)
    watcher = RingWatcher(ring, {INGESTER: RingOptions()}, transport.clock, poll_s=5)
    watcher.start()
    ring.call("register", INGESTER, ME)
    assert watcher.wait_for(INGESTER, lambda view: len(view) == 1, 10)
    watcher.stop()
    transport.instance(RING).close()
    assert not watcher.wait_for(INGESTER, lambda view: len(view) == 2, 10)
