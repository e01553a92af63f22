"""Calls over sockets, without Ray."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mimir_ray.cluster.transport.direct_client import DirectClient
from mimir_ray.cluster.transport.direct_server import DirectServer
from mimir_ray.cluster.transport.frames import FRAME_BYTES_MAX, Disconnected, TimedOut, frame, receive, send
from mimir_ray.errors import Corruption
from tests.cluster.transport_contract import Slow

HERE, THERE = "this node", "another node"
GROUPS = {"give": "some", "wait": "slow", "thread": "some"}


@pytest.fixture
def slow() -> Slow:
    return Slow()


@pytest.fixture
def server(slow: Slow, tmp_path: Path) -> Iterator[DirectServer]:
    methods = {"give": slow.give, "wait": slow.wait, "thread": threading.get_ident}
    made = DirectServer(methods, GROUPS, {"some": 4, "slow": 1}, HERE, tmp_path, "127.0.0.1")
    yield made
    slow.go()
    made.close()


@pytest.fixture(params=[HERE, THERE])
def client(server: DirectServer, request: pytest.FixtureRequest) -> Iterator[DirectClient]:
    made = DirectClient(server.endpoint, request.param)
    yield made
    made.close()


def soon(seconds: float = 20.0) -> float:
    return time.monotonic() + seconds


@pytest.mark.parametrize("size", [0, 10, 3_000_000])
def test_arrays_of_any_size_come_back(client: DirectClient, size: int) -> None:
    sent = [np.arange(size), np.ones(7), b"x" * size]
    found = client.call("give", (sent,), soon())
    assert np.array_equal(found[0], sent[0])
    assert found[2] == sent[2]
    found = asyncio.run(client.acall("give", (sent,), soon()))
    assert np.array_equal(found[0], sent[0])


def test_a_thousand_pieces_are_one_frame(client: DirectClient) -> None:
    sent = [np.full(3, number) for number in range(3_000)]
    found = client.call("give", (sent,), soon())
    assert all(np.array_equal(one, two) for one, two in zip(sent, found, strict=True))


def test_calls_one_after_the_other_use_one_connection(client: DirectClient) -> None:
    """Each connection has a thread."""
    assert len({client.call("thread", (), soon()) for _ in range(20)}) == 1


def test_several_calls_are_under_way_at_once(client: DirectClient) -> None:
    pending = [client.begin("give", (number,), soon()) for number in range(10)]
    assert [one.result() for one in pending] == list(range(10))


def test_a_late_answer_is_not_taken_for_another_calls(client: DirectClient, slow: Slow) -> None:
    with pytest.raises(TimedOut):
        client.call("wait", (), soon(0.1))
    slow.go()
    assert client.call("give", ("mine",), soon()) == "mine"
    with pytest.raises(TimedOut):
        client.begin("give", (1,), soon(-1.0))


def test_a_late_answer_is_not_taken_for_another_awaited_calls(client: DirectClient, slow: Slow) -> None:
    async def two() -> Any:
        with pytest.raises(TimedOut):
            await client.acall("wait", (), soon(0.1))
        slow.go()
        return await client.acall("give", ("mine",), soon())

    assert asyncio.run(two()) == "mine"


def test_who_waits_for_a_turn_and_hangs_up_is_not_served(slow: Slow, tmp_path: Path) -> None:
    """The group has one thread: the second call waits, gives up, and must not run when the first is done."""
    entered = threading.Event()

    def wait() -> str:
        entered.set()
        return slow.wait()

    methods = {"wait": wait, "give": slow.give}
    server = DirectServer(methods, dict.fromkeys(methods, "slow"), {"slow": 1}, HERE, tmp_path)
    client = DirectClient(server.endpoint, HERE)
    first = client.begin("wait", (), soon())
    assert entered.wait(20)
    with pytest.raises(TimedOut):
        client.call("give", (1,), soon(0.1))
    slow.go()
    assert first.result() == "went"
    assert client.call("give", (2,), soon()) == 2
    assert slow.calls() == 1
    server.close()


def test_after_the_end_of_a_server_calls_are_disconnected(client: DirectClient, server: DirectServer) -> None:
    gone = replace(server.endpoint, path=server.endpoint.path + "x", port=1)
    for one in (DirectClient(gone, HERE), DirectClient(gone, THERE)):
        with pytest.raises(Disconnected):
            one.call("give", (1,), soon())
        with pytest.raises(Disconnected):
            asyncio.run(one.acall("give", (1,), soon()))


def test_without_an_address_other_nodes_have_no_methods(slow: Slow, tmp_path: Path) -> None:
    server = DirectServer({"give": slow.give}, {"give": "some"}, {"some": 1}, HERE, tmp_path)
    assert DirectClient(server.endpoint, THERE).methods == frozenset()
    assert DirectClient(server.endpoint, HERE).methods == {"give"}
    folder = Path(server.endpoint.path).parent
    assert folder.stat().st_mode & 0o077 == 0
    server.close()
    assert not folder.exists()


def test_who_does_not_know_the_token_is_not_heard(client: DirectClient, server: DirectServer) -> None:
    stranger = DirectClient(replace(server.endpoint, token=bytes(32)), THERE)
    with pytest.raises(Disconnected):
        stranger.call("give", (1,), soon())


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.binary(max_size=200), knows=st.booleans())
def test_a_server_bears_whatever_is_sent(server: DirectServer, data: bytes, knows: bool) -> None:
    with socket.create_connection((server.endpoint.host, server.endpoint.port)) as stranger:
        # Behind the token everything is trusted to be ours, but for its length.
        stranger.sendall(server.endpoint.token + struct.pack("<Q", FRAME_BYTES_MAX + 1) + data if knows else data)
        stranger.settimeout(10)
        with suppress(OSError):  # closed before it had read all
            stranger.shutdown(socket.SHUT_WR)
            assert stranger.recv(10) == b""
    assert DirectClient(server.endpoint, HERE).call("give", ("x",), soon()) == "x"


def test_a_frame_that_ends_early_or_is_too_long_is_no_value() -> None:
    one, two = socket.socketpair()
    with one, two:
        send(one, [b"".join(frame("value"))[:-1]])
        one.shutdown(socket.SHUT_WR)
        with pytest.raises(Disconnected):
            receive(two, soon())
    one, two = socket.socketpair()
    with one, two:
        one.sendall(b"\xff" * 8)
        with pytest.raises(Corruption):
            receive(two, soon())


def test_a_reader_that_does_not_read_stops_a_sender_in_time() -> None:
    one, two = socket.socketpair()
    with one, two, pytest.raises(TimeoutError):
        send(one, [bytes(10 << 20)], soon(0.1))
