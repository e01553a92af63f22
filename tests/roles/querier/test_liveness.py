"""An ingester that hangs: it costs a query a moment, it keeps no threads, and it is asked again when it is back."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from mimir_ray.clock import ManualClock
from mimir_ray.cluster.ring.lookup import RingOptions, RingView
from mimir_ray.cluster.ring.model import INGESTER, InstanceDesc, InstanceId, InstanceState, RingDesc
from mimir_ray.cluster.transport.base import PeerTimeout
from mimir_ray.roles.querier import liveness
from mimir_ray.roles.querier.liveness import AVOID_S, PROBE_PERIOD_S, InstanceHangs, Liveness, LivenessMetrics
from mimir_ray.roles.querier.source import Ingesters

NOW = 1_700_000_000_000


@dataclass
class Peers:
    """A transport whose peers answer with their name, until they hang: then nothing comes but time-outs."""

    hanging: set[str] = field(default_factory=set)
    busy: set[str] = field(default_factory=set)
    """These say how they are, and answer the second time that they are waited for."""
    calls: list[tuple[str, str]] = field(default_factory=list)

    def client(self, address: str) -> Peer:
        return Peer(self, address)


@dataclass
class Peer:
    peers: Peers
    name: str

    def call(self, method: str, *_: Any, timeout_s: float) -> Any:
        assert timeout_s > 0
        self.peers.calls.append((self.name, method))
        if self.name in self.peers.hanging:
            raise PeerTimeout(self.name, method, "time-out")
        return {"state": "running"}

    def begin(self, method: str, *_: Any, timeout_s: float) -> Call:
        assert timeout_s > 0
        self.peers.calls.append((self.name, method))
        return Call(self.peers, self.name)


@dataclass
class Call:
    peers: Peers
    name: str
    waited: int = 0

    def ready(self, within_s: float) -> bool:
        self.waited += 1
        return self.name not in self.peers.hanging and (self.name not in self.peers.busy or self.waited > 1)

    def result(self) -> str:
        assert self.name not in self.peers.hanging, "this would block"
        return self.name


def view(replication_factor: int) -> RingView:
    def one(at: int) -> InstanceDesc:
        tokens = np.arange(at, 900, 3, dtype=np.uint32)
        return InstanceDesc(InstanceId(f"i{at}"), f"i{at}", "", InstanceState.ACTIVE, tokens, NOW)

    desc = RingDesc(INGESTER, 1, NOW, {each.id: each for each in map(one, range(3))})
    return RingView(desc, RingOptions(replication_factor))


class Setup:
    def __init__(self, executor: ThreadPoolExecutor, replication_factor: int) -> None:
        self.peers = Peers()
        self.clock = ManualClock(NOW)
        self.registry = CollectorRegistry()
        self.liveness = Liveness(self.peers, self.clock.monotonic_s, LivenessMetrics(self.registry))  # type: ignore[arg-type]
        ring = view(replication_factor)
        self.ingesters = Ingesters(lambda: ring, self.liveness, executor, minimize=True)

    def ask(self) -> set[str]:
        return {answer for _, answer in self.ingesters.ask("label_names")}

    def probes(self, outcome: str) -> float | None:
        return self.registry.get_sample_value("mimir_ray_querier_instance_probes_total", {"outcome": outcome})


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


def test_with_one_copy_a_query_fails_when_an_ingester_is_found_to_hang(executor: ThreadPoolExecutor) -> None:
    setup = Setup(executor, 1)
    setup.peers.hanging.add("i1")
    with pytest.raises(InstanceHangs, match="i1 does not answer"):
        setup.ask()
    assert setup.probes("no answer") == 1


def test_others_fail_at_once_and_one_asks_again_now_and_then(executor: ThreadPoolExecutor) -> None:
    setup = Setup(executor, 1)
    setup.peers.hanging.add("i1")
    for _ in range(5):
        with pytest.raises(InstanceHangs):
            setup.ask()
    assert [call for call in setup.peers.calls if call[0] == "i1"] == [("i1", "label_names"), ("i1", "status")]
    setup.clock.advance_ms(int(PROBE_PERIOD_S * 1000))
    setup.peers.hanging.clear()
    assert setup.ask() == {"i0", "i1", "i2"}
    assert not setup.liveness.hangs(InstanceId("i1"))
    assert setup.probes("answered") == 1


def test_one_that_is_busy_is_waited_for(executor: ThreadPoolExecutor) -> None:
    setup = Setup(executor, 1)
    setup.peers.busy.add("i1")
    assert setup.ask() == {"i0", "i1", "i2"}


def test_with_three_copies_the_others_stand_in_and_are_asked_first_from_then_on(executor: ThreadPoolExecutor) -> None:
    setup = Setup(executor, 3)
    setup.peers.hanging.add("i1")
    while not setup.liveness.hangs(InstanceId("i1")):  # the order is drawn
        assert setup.ask() == {"i0", "i2"}
    asked = len(setup.peers.calls)
    for _ in range(20):
        assert setup.ask() == {"i0", "i2"}
    assert {name for name, _ in setup.peers.calls[asked:]} == {"i0", "i2"}
    setup.peers.hanging.clear()
    setup.clock.advance_ms(int(AVOID_S * 1000))
    answers = [setup.ask() for _ in range(20)]
    assert any("i1" in one for one in answers)


def test_many_that_wait_ask_once_and_none_of_them_goes_on_waiting(executor: ThreadPoolExecutor) -> None:
    setup = Setup(executor, 1)
    setup.peers.hanging.add("i1")
    failures: list[Exception] = []

    def ask() -> None:
        try:
            setup.ask()
        except InstanceHangs as error:
            failures.append(error)

    threads = [threading.Thread(target=ask) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(failures) == 20
    assert setup.probes("no answer") == 1


def test_a_query_is_told_within_seconds() -> None:
    assert liveness.PATIENCE_S + liveness.PROBE_TIMEOUT_S <= 6.0
