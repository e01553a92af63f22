"""What a transport promises, whatever carries the calls: run in process and on real Ray."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest

from mimir_ray.clock import SystemClock
from mimir_ray.cluster.ring.actor import RingActor
from mimir_ray.cluster.ring.lookup import RingOptions
from mimir_ray.cluster.ring.model import INGESTER, RULER, InstanceDesc, InstanceId, InstanceState
from mimir_ray.cluster.ring.persistence import FileStore
from mimir_ray.cluster.ring.ring import Fenced, UnknownInstance
from mimir_ray.cluster.ring.watcher import RingWatcher
from mimir_ray.cluster.transport.base import RING, Address, Client, PeerUnavailable, Transport
from mimir_ray.errors import ClientError

ECHO = Address("echo", "a")


@dataclass(eq=False)
class Refused(ClientError):
    what: str
    limit: int

    def describe(self) -> str:
        return f"{self.what} is over {self.limit}"


class Echo:
    """A role with every kind of answer."""

    def __init__(self) -> None:
        self._calls = 0

    def give(self, value: Any) -> Any:
        self._calls += 1
        return value

    def calls(self) -> int:
        return self._calls

    def is_writeable(self, array: np.ndarray) -> bool:
        return bool(array.flags.writeable)

    def count_to(self, last: int) -> Iterator[int]:
        yield from range(last)

    def refuse(self, what: str) -> None:
        raise Refused(what, 3)

    def divide(self, by: int) -> float:
        return 1 / by

    def pid(self) -> int:
        return os.getpid()


class Slow(Echo):
    """Answers when told to."""

    def __init__(self) -> None:
        super().__init__()
        self._go = threading.Event()

    def wait(self) -> str:
        self._go.wait()
        return "went"

    def go(self) -> None:
        self._go.set()


class Relay:
    """A role that calls another one."""

    def __init__(self, transport: Transport) -> None:
        self._echo = transport.client(ECHO)

    def relay(self, value: Any) -> Any:
        return self._echo.call("give", value)

    def relay_refusal(self) -> Any:
        return self._echo.call("refuse", "relay")


class Cluster(Protocol):
    """What each kind of cluster has to offer to the contract."""

    transport: Transport

    def serve(self, address: Address, cls: type, *args: Any) -> None:
        """Starts a named instance that starts again after a death."""

    def kill(self, address: Address) -> None:
        """Kills its process, hard."""

    def remove(self, address: Address) -> None:
        """Ends it for good."""


def described(name: str, **more: Any) -> InstanceDesc:
    return InstanceDesc(InstanceId(name), f"ingester/{name}", tokens=np.array([10, 20], np.uint32), **more)


class TransportContract:
    """Subclasses give the fixture `cluster`, of class scope."""

    @pytest.fixture(scope="class")
    @classmethod
    def echo(cls, cluster: Cluster) -> Iterator[Client]:
        cluster.serve(ECHO, Echo)
        yield cluster.transport.client(ECHO)
        cluster.remove(ECHO)

    def test_a_value_comes_back_as_it_was_sent(self, echo: Client) -> None:
        assert echo.call("give", {"a": [1, 2.5, b"x", None]}) == {"a": [1, 2.5, b"x", None]}

    def test_a_value_comes_back_to_an_awaiting_caller(self, echo: Client) -> None:
        assert asyncio.run(echo.acall("give", "x")) == "x"

    def test_many_calls_at_once_each_get_their_own_answer(self, echo: Client) -> None:
        async def all_of_them() -> list[int]:
            return await asyncio.gather(*(echo.acall("give", number) for number in range(40)))

        assert asyncio.run(all_of_them()) == list(range(40))

    @pytest.mark.parametrize("size", [3, 200_000])
    def test_arrays_arrive_read_only_on_both_sides(self, echo: Client, size: int) -> None:
        sent = np.arange(size)
        assert not echo.call("is_writeable", sent)
        assert not echo.call("give", sent).flags.writeable
        assert sent.flags.writeable

    def test_an_iterator_arrives_as_a_list(self, echo: Client) -> None:
        assert echo.call("count_to", 3) == [0, 1, 2]

    def test_our_errors_arrive_as_themselves_with_their_facts(self, echo: Client) -> None:
        with pytest.raises(Refused) as caught:
            echo.call("refuse", "series")
        assert type(caught.value) is Refused
        assert (caught.value.what, caught.value.limit, str(caught.value)) == ("series", 3, "series is over 3")

    def test_an_awaiting_caller_gets_our_errors_as_themselves(self, echo: Client) -> None:
        with pytest.raises(Refused) as caught:
            asyncio.run(echo.acall("refuse", "series"))
        assert type(caught.value) is Refused

    def test_builtin_errors_arrive_as_themselves(self, echo: Client) -> None:
        with pytest.raises(ZeroDivisionError) as caught:
            echo.call("divide", 0)
        assert type(caught.value) is ZeroDivisionError

    def test_one_role_reaches_another_through_the_transport_it_was_given(self, cluster: Cluster, echo: Client) -> None:
        relay = Address("relay", "a")
        cluster.serve(relay, Relay, cluster.transport)
        assert cluster.transport.client(relay).call("relay", "x") == "x"
        with pytest.raises(Refused) as caught:
            cluster.transport.client(relay).call("relay_refusal")
        assert caught.value.what == "relay"
        cluster.remove(relay)

    def test_nobody_of_that_name_is_unavailable_within_the_time(self, cluster: Cluster) -> None:
        with pytest.raises(PeerUnavailable) as caught:
            cluster.transport.client("echo/nobody").call("give", 1, timeout_s=0.3)
        assert caught.value.peer == "echo/nobody"

    def test_awaiting_nobody_is_unavailable_within_the_time(self, cluster: Cluster) -> None:
        with pytest.raises(PeerUnavailable):
            asyncio.run(cluster.transport.client("echo/nobody").acall("give", 1, timeout_s=0.3))

    def test_an_instance_that_appears_later_is_found_by_the_same_client(self, cluster: Cluster) -> None:
        later = Address("echo", "later")
        client = cluster.transport.client(later)
        with pytest.raises(PeerUnavailable):
            client.call("give", 1, timeout_s=0.1)
        cluster.serve(later, Echo)
        assert client.call("give", 1) == 1
        cluster.remove(later)

    def test_after_a_death_the_same_client_reaches_the_new_process(self, cluster: Cluster, echo: Client) -> None:
        for number in range(3):
            echo.call("give", number)
        cluster.kill(ECHO)
        assert echo.call("calls", timeout_s=30) == 0

    def test_after_a_death_an_awaiting_caller_reaches_the_new_process(self, cluster: Cluster, echo: Client) -> None:
        echo.call("give", 1)
        cluster.kill(ECHO)
        assert asyncio.run(echo.acall("calls", timeout_s=30)) == 0

    def test_one_that_was_removed_and_built_anew_is_found_again(self, cluster: Cluster) -> None:
        address = Address("echo", "anew")
        client = cluster.transport.client(address)
        for _ in range(2):
            cluster.serve(address, Echo)
            assert client.call("calls", timeout_s=30) == 0
            assert client.call("give", 5) == 5
            cluster.remove(address)


class RingContract:
    """The ring behind a transport."""

    @pytest.fixture
    def ring(self, cluster: Cluster, tmp_path: Path) -> Iterator[Client]:
        cluster.serve(RING, RingActor, FileStore(tmp_path / "rings.json"))
        yield cluster.transport.client(RING)
        cluster.remove(RING)

    def test_what_registers_is_in_the_snapshot(self, ring: Client) -> None:
        ring.call("register", INGESTER, described("a", zone="z"))
        found = ring.call("snapshot", INGESTER).instances["a"]
        assert (found.id, found.zone, found.state, found.tokens.tolist()) == ("a", "z", InstanceState.PENDING, [10, 20])
        assert found.registered_ms > 0

    def test_a_watcher_is_answered_at_once_when_it_knows_an_old_version(self, ring: Client) -> None:
        before = ring.call("snapshot", INGESTER).version
        ring.call("register", INGESTER, described("a"))
        after = ring.call("snapshot", INGESTER, before, 20.0, timeout_s=5)
        assert after.version > before
        assert set(after.instances) == {"a"}

    def test_a_change_wakes_a_waiting_watcher(self, ring: Client) -> None:
        known = ring.call("watch", {INGESTER: -1, RULER: -1})
        versions = {name: desc.version for name, desc in known.items()}

        async def change_while_one_waits() -> dict[str, Any]:
            waiting = asyncio.create_task(asyncio.to_thread(ring.call, "watch", versions, 20.0, timeout_s=15))
            await asyncio.to_thread(ring.call, "register", RULER, described("r"))
            return await waiting

        answer = asyncio.run(change_while_one_waits())
        assert set(answer) == {RULER}

    def test_heartbeats_alone_do_not_change_the_version(self, ring: Client) -> None:
        ring.call("register", INGESTER, described("a"))
        before = ring.call("snapshot", INGESTER)
        ring.call("heartbeat", INGESTER, described("a"))
        after = ring.call("snapshot", INGESTER)
        assert after.version == before.version
        assert after.instances["a"].heartbeat_ms >= before.instances["a"].heartbeat_ms

    def test_an_unknown_instance_is_an_error_of_its_own(self, ring: Client) -> None:
        with pytest.raises(UnknownInstance) as caught:
            ring.call("set_state", INGESTER, "x", InstanceState.ACTIVE, 0)
        assert caught.value.instance == "x"

    def test_an_older_incarnation_is_fenced(self, ring: Client) -> None:
        ring.call("register", INGESTER, described("a", incarnation=2))
        with pytest.raises(Fenced):
            ring.call("heartbeat", INGESTER, described("a", incarnation=1))

    def test_after_a_death_the_ring_is_as_it_was_and_its_version_is_higher(
        self, cluster: Cluster, ring: Client
    ) -> None:
        ring.call("register", INGESTER, described("a", zone="z"))
        before = ring.call("snapshot", INGESTER)
        cluster.kill(RING)
        after = ring.call("snapshot", INGESTER, before.version, 20.0, timeout_s=30)
        assert after.version > before.version
        assert after.instances["a"].zone == "z"
        assert after.instances["a"].registered_ms == before.instances["a"].registered_ms

    def test_an_instance_that_was_forgotten_comes_back_with_its_heartbeat(self, ring: Client) -> None:
        ring.call("register", INGESTER, described("a"))
        ring.call("forget", INGESTER, "a")
        assert not ring.call("snapshot", INGESTER).instances
        ring.call("heartbeat", INGESTER, described("a", state=InstanceState.ACTIVE))
        assert ring.call("snapshot", INGESTER).instances["a"].state is InstanceState.ACTIVE

    def test_a_watcher_follows_the_ring_through_its_death(self, cluster: Cluster, ring: Client) -> None:
        watcher = RingWatcher(ring, {INGESTER: RingOptions()}, SystemClock())
        ring.call("register", INGESTER, described("a"))
        watcher.poll()
        assert [one.id for one in watcher.view(INGESTER).instances] == ["a"]
        cluster.kill(RING)
        ring.call("register", INGESTER, described("b"), timeout_s=30)
        watcher.poll()
        assert [one.id for one in watcher.view(INGESTER).instances] == ["a", "b"]
        assert watcher.age_s() < 30
