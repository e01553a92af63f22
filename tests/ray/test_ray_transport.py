"""The contract on real Ray."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from mimir_ray.cluster.ring.actor import RingActor
from mimir_ray.cluster.ring.model import INGESTER, InstanceState
from mimir_ray.cluster.transport.base import RING, Address, Client, PeerTimeout
from mimir_ray.cluster.transport.on_ray import RayClient, RayTransport, actor_class
from tests.cluster.transport_contract import ECHO, Cluster, RingContract, Slow, TransportContract, described
from tests.integration.deployment import wait_for

NAMESPACE = "transport-contract"


class RayCluster:
    """Actors in a namespace of their own; `kill` ends the process as the kernel would."""

    def __init__(self, ray: ModuleType) -> None:
        self._ray = ray
        self._handles: dict[Address, Any] = {}
        self.transport = RayTransport(NAMESPACE)

    def serve(self, address: Address, cls: type, *args: Any) -> None:
        options: dict[str, Any] = {"num_cpus": 0, "max_restarts": -1, "max_concurrency": 4}
        if hasattr(cls, "concurrency_groups"):
            options["concurrency_groups"] = dict.fromkeys(cls.concurrency_groups.values(), 8)
        made = actor_class(cls, **options).options(name=address.actor_name, namespace=NAMESPACE)
        self._handles[address] = made.remote(*args)

    def kill(self, address: Address) -> None:
        os.kill(self.pid(address), signal.SIGKILL)

    def pid(self, address: Address) -> int:
        return int(self._ray.get(self._handles[address].__ray_call__.remote(lambda _actor: os.getpid())))

    def remove(self, address: Address) -> None:
        self._ray.kill(self._handles.pop(address), no_restart=True)


@pytest.fixture(scope="class")
def cluster(ray_session: ModuleType) -> Iterator[Cluster]:
    yield RayCluster(ray_session)


class DirectCluster(RayCluster):
    """All methods are in a thread group, so they are called over sockets."""

    def serve(self, address: Address, cls: type, *args: Any) -> None:
        methods = [name for name in dir(cls) if not name.startswith("_") and callable(getattr(cls, name))]
        super().serve(address, type(cls.__name__, (cls,), {"concurrency_groups": dict.fromkeys(methods, "all")}), *args)

    def remove(self, address: Address) -> None:
        """Until a process is gone it answers, whatever Ray says of it."""
        pid = self.pid(address)
        super().remove(address)
        wait_for("the process is gone", lambda: not Path(f"/proc/{pid}").exists(), 30)


class TestTransportOnRay(TransportContract):
    pass


class TestDirectCalls(TransportContract):
    @pytest.fixture(scope="class")
    @classmethod
    def cluster(cls, ray_session: ModuleType) -> Cluster:
        return DirectCluster(ray_session)

    def test_calls_go_over_sockets(self, cluster: Cluster, echo: Client) -> None:
        echo.call("calls")
        assert isinstance(echo, RayClient)
        assert "calls" in echo.calls_directly

    def test_after_a_death_awaited_calls_go_over_sockets_again(self, cluster: Cluster, echo: Client) -> None:
        asyncio.run(echo.acall("give", 1))
        cluster.kill(ECHO)
        assert asyncio.run(echo.acall("calls", timeout_s=30)) == 0
        assert isinstance(echo, RayClient)
        assert "calls" in echo.calls_directly


class TestRingOnRay(RingContract):
    pass


@pytest.fixture
def slow(cluster: Any) -> Iterator[Any]:
    address = Address("slow", "a")
    cluster.serve(address, Slow)
    yield cluster.transport.client(address)
    cluster.remove(address)


def test_a_call_that_takes_too_long_times_out(slow: Any) -> None:
    slow.call("calls")
    with pytest.raises(PeerTimeout):
        slow.call("wait", timeout_s=0.1)
    slow.call("go")
    assert slow.call("wait") == "went"


def test_an_awaited_call_that_takes_too_long_times_out(slow: Any) -> None:
    slow.call("calls")
    with pytest.raises(PeerTimeout):
        asyncio.run(slow.acall("wait", timeout_s=0.1))


def test_a_big_answer_is_a_view_of_shared_memory(slow: Any) -> None:
    answer = slow.call("give", [np.zeros(1_000_000), np.ones(1000, np.int64)])
    assert not answer[0].flags.owndata
    assert not answer[0].flags.writeable


def test_long_polls_do_not_keep_other_calls_waiting(cluster: Any) -> None:
    cluster.serve(RING, RingActor)
    ring = cluster.transport.client(RING)
    version = ring.call("snapshot", INGESTER).version

    async def more_polls_than_other_threads() -> set[int]:
        polls = [asyncio.create_task(ring.acall("snapshot", INGESTER, version, 60.0)) for _ in range(8)]
        await asyncio.sleep(0)
        await ring.acall("register", INGESTER, described("a"), timeout_s=20)
        return {desc.version - version for desc in await asyncio.gather(*polls)}

    assert asyncio.run(more_polls_than_other_threads()) == {1}
    cluster.remove(RING)


def test_a_ring_without_a_store_fills_by_heartbeats_after_its_death(cluster: Any) -> None:
    cluster.serve(RING, RingActor)
    ring = cluster.transport.client(RING)
    ring.call("register", INGESTER, described("a"))
    before = ring.call("snapshot", INGESTER).version
    cluster.kill(RING)
    ring.call("heartbeat", INGESTER, described("a", state=InstanceState.ACTIVE), timeout_s=30)
    after = ring.call("snapshot", INGESTER, before, 20.0, timeout_s=5)
    assert after.version > before
    assert after.instances["a"].state is InstanceState.ACTIVE
    cluster.remove(RING)


def test_marking_methods_leaves_the_plain_class_unmarked(ray_session: ModuleType) -> None:
    actor_class(RingActor)
    assert "__ray_concurrency_group__" not in vars(RingActor.watch)
