"""The contract in one process, and what only this transport has: faults."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from mimir_ray.clock import ManualClock
from mimir_ray.cluster.transport.base import NO_RETRY, Address, PeerTimeout, PeerUnavailable
from mimir_ray.cluster.transport.in_process import FaultRates, InProcessTransport
from tests.cluster.transport_contract import ECHO, Cluster, Echo, RingContract, TransportContract


class InProcessCluster:
    def __init__(self) -> None:
        self.transport = InProcessTransport()

    def serve(self, address: Address, cls: type, *args: Any) -> None:
        self.transport.serve(address, lambda: cls(*args))

    def kill(self, address: Address) -> None:
        self.transport.kill(address)

    def remove(self, address: Address) -> None:
        self.transport.remove(address)


@pytest.fixture(scope="class")
def cluster() -> Iterator[Cluster]:
    yield InProcessCluster()


class TestTransportInProcess(TransportContract):
    pass


class TestRingInProcess(RingContract):
    pass


def served(faults: FaultRates, **more: Any) -> InProcessTransport:
    transport = InProcessTransport(ManualClock(), np.random.default_rng(1), faults, **more)
    transport.serve(ECHO, Echo)
    return transport


def test_a_lost_call_is_made_again_until_it_arrives() -> None:
    transport = served(FaultRates(lost_call=0.7))
    client = transport.client(ECHO)
    assert [client.call("give", number) for number in range(20)] == list(range(20))
    assert transport.instance(ECHO).calls() == 20


def test_a_lost_answer_makes_a_call_run_twice() -> None:
    transport = served(FaultRates(lost_answer=0.5))
    client = transport.client(ECHO)
    for number in range(20):
        client.call("give", number)
    assert transport.instance(ECHO).calls() > 20


def test_a_death_builds_the_instance_anew() -> None:
    transport = served(FaultRates(die=0.5))
    client = transport.client(ECHO)
    for number in range(20):
        client.call("give", number)
    assert transport.starts(ECHO) > 1


def test_an_instance_that_does_not_restart_stays_away() -> None:
    transport = served(FaultRates())
    transport.kill(ECHO, restarts=False)
    with pytest.raises(PeerUnavailable):
        transport.client(ECHO).call("give", 1)


def test_without_retries_the_first_loss_is_final() -> None:
    transport = served(FaultRates(lost_call=1.0), retry=NO_RETRY)
    with pytest.raises(PeerUnavailable):
        transport.client(ECHO).call("give", 1)
    assert transport.clock.now_ms() == 0


def test_a_call_that_takes_longer_than_allowed_times_out_when_its_time_is_up() -> None:
    transport = served(FaultRates(delay_s_max=1000.0))
    with pytest.raises(PeerTimeout):
        transport.client(ECHO).call("give", 1, timeout_s=2)
    assert transport.clock.now_ms() == 2000


def test_the_same_seed_gives_the_same_faults() -> None:
    def runs() -> list[int]:
        transport = served(FaultRates(lost_call=0.2, lost_answer=0.2, die=0.1))
        return [transport.client(ECHO).call("give", number) * transport.starts(ECHO) for number in range(30)]

    assert runs() == runs()
