"""Reads from several: whom to ask, when it is enough, when it is lost."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimir_ray.cluster.quorum import ReadTimeout, ReadTracker, read_in_threads, read_until_quorum
from mimir_ray.cluster.ring.model import InstanceDesc, InstanceId
from mimir_ray.cluster.ring.replication import ReadSet
from mimir_ray.cluster.transport.base import PeerUnavailable
from mimir_ray.errors import InvalidArgument

DEAD = PeerUnavailable("ingester/x", "select", "dead")


def instances(*names: str) -> tuple[InstanceDesc, ...]:
    """`a1`: instance a1 in zone a."""
    return tuple(InstanceDesc(InstanceId(name), f"ingester/{name}", name[0]) for name in names)


def plain(failures: int, *names: str) -> ReadSet:
    return ReadSet(instances(*names), failures_max=failures)


def zoned(failures: int, *names: str) -> ReadSet:
    return ReadSet(instances(*names), zone_failures_max=failures, zone_aware=True)


def names_of(asked: list[InstanceDesc]) -> list[str]:
    return [one.id for one in asked]


def test_all_are_asked_and_all_but_the_tolerated_must_answer() -> None:
    tracker: ReadTracker[str] = ReadTracker(plain(1, "a", "b", "c"))
    a, b, _ = tracker.start()
    tracker.answered(a, "A")
    assert not tracker.decided
    tracker.answered(b, "B")
    assert tracker.succeeded
    assert tracker.result() == {"a": "A", "b": "B"}


def test_one_failure_too_many_loses_with_that_error() -> None:
    tracker: ReadTracker[str] = ReadTracker(plain(1, "a", "b", "c"))
    a, b, _ = tracker.start()
    tracker.failed(a, PeerUnavailable("a", "select", "first"))
    assert not tracker.decided
    tracker.failed(b, DEAD)
    assert tracker.error is DEAD


def test_the_callers_fault_is_final_at_once() -> None:
    tracker: ReadTracker[str] = ReadTracker(plain(1, "a", "b", "c"))
    wrong = InvalidArgument("bad matcher")
    tracker.failed(tracker.start()[0], wrong)
    assert tracker.error is wrong


def test_minimized_only_as_many_as_needed_are_asked_and_the_next_on_failure() -> None:
    tracker: ReadTracker[str] = ReadTracker(plain(1, "a", "b", "c"), minimize=True, order=[2, 0, 1])
    asked = tracker.start()
    assert names_of(asked) == ["c", "a"]
    assert names_of(tracker.failed(asked[0], DEAD)) == ["b"]
    assert tracker.hedge() == []


def test_hedging_asks_the_next_while_the_first_still_count() -> None:
    tracker: ReadTracker[str] = ReadTracker(plain(1, "a", "b", "c"), minimize=True)
    a, _ = tracker.start()
    [c] = tracker.hedge()
    tracker.answered(c, "C")
    tracker.answered(a, "A")
    assert tracker.result() == {"a": "A", "c": "C"}


def test_a_zone_counts_when_all_of_it_has_answered() -> None:
    tracker: ReadTracker[str] = ReadTracker(zoned(1, "a1", "a2", "b1", "c1"))
    a1, a2, b1, _ = tracker.start()
    tracker.answered(a1, "A1")
    tracker.answered(b1, "B1")
    assert not tracker.decided
    tracker.answered(a2, "A2")
    assert tracker.succeeded


def test_a_failed_instance_takes_the_answers_of_its_zone_with_it() -> None:
    tracker: ReadTracker[str] = ReadTracker(zoned(1, "a1", "a2", "b1", "c1"))
    a1, a2, b1, c1 = tracker.start()
    tracker.answered(a1, "A1")
    tracker.failed(a2, DEAD)
    tracker.answered(b1, "B1")
    tracker.answered(c1, "C1")
    assert tracker.result() == {"b1": "B1", "c1": "C1"}


def test_more_failures_in_a_lost_zone_cost_nothing() -> None:
    tracker: ReadTracker[str] = ReadTracker(zoned(1, "a1", "a2", "b1", "c1"))
    a1, a2, _, _ = tracker.start()
    tracker.failed(a1, DEAD)
    assert tracker.failed(a2, DEAD) == []
    assert not tracker.decided


def test_nobody_to_ask_is_a_success_with_nothing() -> None:
    tracker: ReadTracker[str] = ReadTracker(ReadSet(()))
    assert tracker.start() == []
    assert tracker.result() == {}
    assert tracker.succeeded


def test_an_order_that_is_no_permutation_is_refused() -> None:
    with pytest.raises(ValueError, match="permutation"):
        ReadTracker(plain(0, "a", "b"), order=[0, 0])


@given(
    fates=st.lists(st.booleans(), min_size=1, max_size=6),
    tolerated=st.integers(0, 6),
    minimize=st.booleans(),
    data=st.data(),
)
def test_a_read_succeeds_exactly_when_the_failures_are_tolerated(
    fates: list[bool], tolerated: int, minimize: bool, data: st.DataObject
) -> None:
    tolerated = min(tolerated, len(fates) - 1)
    wanted = plain(tolerated, *(f"i{at}" for at in range(len(fates))))
    order = data.draw(st.permutations(range(len(fates))))
    tracker: ReadTracker[bool] = ReadTracker(wanted, minimize, order)
    waiting = tracker.start()
    while not tracker.decided:
        one = waiting.pop()
        if fates[int(one.id[1:])]:
            tracker.answered(one, True)
        else:
            waiting += tracker.failed(one, DEAD)
    assert tracker.succeeded == (fates.count(False) <= tolerated)
    if tracker.succeeded:
        assert len(tracker.result()) == len(fates) - tolerated


# Both ways to carry it out.


class Peers:
    """Answers by name; `hang` never answer until released."""

    def __init__(self, dead: str = "", hang: str = "") -> None:
        self.dead, self.hang = dead, hang
        self.asked: list[str] = []
        self.cancelled: list[str] = []
        self.release = threading.Event()

    def call(self, instance: InstanceDesc) -> str:
        self.asked.append(instance.id)
        if instance.id in self.hang:
            self.release.wait()
        if instance.id in self.dead:
            raise DEAD
        return instance.id.upper()

    async def acall(self, instance: InstanceDesc) -> str:
        if instance.id in self.hang:
            self.asked.append(instance.id)
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled.append(instance.id)
                raise
        return self.call(instance)


Run = Callable[[ReadTracker[str], Peers, float | None], dict[str, str]]


def _with_asyncio(tracker: ReadTracker[str], peers: Peers, hedge_after_s: float | None) -> dict[str, str]:
    return asyncio.run(read_until_quorum(tracker, peers.acall, hedge_after_s))  # type: ignore[return-value]


def _with_threads(tracker: ReadTracker[str], peers: Peers, hedge_after_s: float | None) -> dict[str, str]:
    with ThreadPoolExecutor(4) as executor:
        try:
            return read_in_threads(tracker, peers.call, executor, 20.0, hedge_after_s)  # type: ignore[return-value]
        finally:
            peers.release.set()


@pytest.fixture(params=[_with_asyncio, _with_threads], ids=["asyncio", "threads"])
def run(request: pytest.FixtureRequest) -> Run:
    return request.param  # type: ignore[no-any-return]


def test_it_returns_without_the_one_that_hangs(run: Run) -> None:
    peers = Peers(hang="c")
    assert run(ReadTracker(plain(1, "a", "b", "c")), peers, None) == {"a": "A", "b": "B"}


def test_a_tolerated_death_is_made_up_for_by_another(run: Run) -> None:
    peers = Peers(dead="a")
    assert run(ReadTracker(plain(1, "a", "b", "c"), minimize=True), peers, None) == {"b": "B", "c": "C"}


def test_the_error_that_decided_is_raised(run: Run) -> None:
    with pytest.raises(PeerUnavailable) as caught:
        run(ReadTracker(plain(1, "a", "b", "c")), Peers(dead="ab"), None)
    assert caught.value is DEAD


def test_a_slow_one_is_hedged(run: Run) -> None:
    peers = Peers(hang="a")
    assert run(ReadTracker(plain(1, "a", "b", "c"), minimize=True), peers, 0.01) == {"b": "B", "c": "C"}
    assert set(peers.asked) == {"a", "b", "c"}


def test_what_is_not_needed_any_more_is_cancelled() -> None:
    peers = Peers(hang="c")
    _with_asyncio(ReadTracker(plain(1, "a", "b", "c")), peers, None)
    assert peers.cancelled == ["c"]


def test_threads_give_up_at_the_time_out_and_say_who_is_missing() -> None:
    peers = Peers(hang="b")
    with ThreadPoolExecutor(2) as executor:
        with pytest.raises(ReadTimeout) as caught:
            read_in_threads(ReadTracker(plain(0, "a", "b")), peers.call, executor, 0.05)
        peers.release.set()
    assert caught.value.missing == ("b",)


def test_a_single_instance_is_asked_in_the_callers_own_thread() -> None:
    threads: list[threading.Thread] = []

    def call(instance: InstanceDesc) -> str:
        threads.append(threading.current_thread())
        return "A"

    with ThreadPoolExecutor(1) as executor:
        read_in_threads(ReadTracker(plain(0, "a")), call, executor, 1.0)
    assert threads == [threading.current_thread()]
