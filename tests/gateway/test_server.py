"""The server itself: where it listens, how it stops, what happens when a client goes away."""

from __future__ import annotations

import asyncio
import http.client
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import snappy

from mimir_ray.config.server import ServerConfig
from mimir_ray.config.units import duration
from mimir_ray.gateway.server import CannotListen, GatewayServer
from mimir_ray.promql.source import Selection
from tests.gateway.serving import Gateway, serving, settings_with

SOON_S = 20


def eventually(reached: Callable[[], bool]) -> bool:
    """Whether it comes true before patience ends; for what another thread does by itself."""
    waiting = threading.Event()
    for _ in range(SOON_S * 100):
        if reached():
            return True
        waiting.wait(0.01)
    return False


async def nothing() -> None:
    return


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(CannotListen, match=f"cannot listen on 127.0.0.1:{port}: Address already in use"),
            serving(settings_with(server={"http_listen_port": port})),
        ):
            pass


def test_an_address_that_is_not_ours_is_named() -> None:
    with (
        pytest.raises(CannotListen, match=r"cannot listen on 192\.0\.2\.1:0"),
        serving(settings_with(server={"http_listen_port": 0, "http_listen_address": "192.0.2.1"})),
    ):
        pass


def test_two_gateways_on_port_zero_get_ports_of_their_own() -> None:
    with serving() as first, serving() as second:
        assert first.server.port != second.server.port
        assert first.server.port > 0
        assert first.ask("/ready").status == second.ask("/ready").status == 200


def test_after_the_stop_nobody_answers() -> None:
    with serving() as one:
        assert one.ask("/ready").status == 200
    with pytest.raises(ConnectionRefusedError):
        one.ask("/ready")


@pytest.fixture
def slow_push() -> Iterator[tuple[Gateway, asyncio.Event]]:
    settings = settings_with(server={"http_listen_port": 0, "graceful_shutdown_timeout": duration("10s")})
    with serving(settings) as one:
        one.distributor.gate = asyncio.Event()
        yield one, one.distributor.gate
        one.server.run(asyncio.sleep(0)).result(5)
        one.server._loop.call_soon_threadsafe(one.distributor.gate.set)


def push(gateway: Gateway) -> int:
    return gateway.ask("/api/v1/push", method="POST", body=snappy.compress(b"")).status


def test_a_request_under_way_is_finished_before_the_server_stops(
    slow_push: tuple[Gateway, asyncio.Event],
) -> None:
    gateway, gate = slow_push
    with ThreadPoolExecutor(2) as pool:
        answer = pool.submit(push, gateway)
        assert eventually(lambda: len(gateway.distributor.pushed) == 1)
        drained: list[bool] = []

        async def drain() -> None:
            drained.append(answer.done() or gate.is_set())

        stopping = pool.submit(gateway.server.run(gateway.server._stop(drain, 10)).result, SOON_S)
        assert eventually(lambda: not gateway.server._server.is_serving())
        assert not stopping.done()
        gateway.server._loop.call_soon_threadsafe(gate.set)
        assert answer.result(SOON_S) == 200
        stopping.result(SOON_S)
        assert drained == [True]


def test_requests_under_way_do_not_wait_for_each_other(slow_push: tuple[Gateway, asyncio.Event]) -> None:
    gateway, gate = slow_push
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(push, gateway)
        assert eventually(lambda: len(gateway.distributor.pushed) == 1)
        assert gateway.ask("/prometheus/api/v1/query?query=1").status == 200
        gateway.server._loop.call_soon_threadsafe(gate.set)
        assert answer.result(SOON_S) == 200


class Blocked:
    """A source whose samples do not come until they are let."""

    fragments = None

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.go_on = threading.Event()

    def select(self, selection: Selection) -> Iterator[Any]:
        self.asked.set()
        self.go_on.wait(SOON_S)
        return iter(())


def test_a_query_whose_client_went_away_is_cancelled(gateway: Gateway) -> None:
    source = Blocked()
    cancellations: list[Any] = []

    def give(tenant: str, cancellation: Any) -> Blocked:
        cancellations.append(cancellation)
        return source

    gateway.lists.source = give  # type: ignore[assignment,method-assign]
    connection = http.client.HTTPConnection("127.0.0.1", gateway.server.port, timeout=SOON_S)
    connection.request("GET", "/prometheus/api/v1/query?query=up")
    assert source.asked.wait(SOON_S)
    connection.close()
    try:
        assert eventually(lambda: cancellations[0].cancelled)
    finally:
        source.go_on.set()
    assert eventually(lambda: gateway.registry.get_sample_value("cortex_inflight_requests") == 0)  # type: ignore[attr-defined]


def test_a_connection_serves_one_request_after_the_other(gateway: Gateway) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", gateway.server.port, timeout=SOON_S)
    for path, status in (
        ("/ready", 200),
        ("/nowhere", 404),
        ("/prometheus/api/v1/query?query=(", 400),
        ("/ready", 200),
    ):
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == status
    connection.close()


@pytest.mark.parametrize("sent", [b"nonsense\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\0" * 100 + b"\r\n\r\n"])
def test_what_is_no_http_hurts_nobody(gateway: Gateway, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", gateway.server.port), timeout=SOON_S) as raw:
        raw.sendall(sent)
        raw.recv(1000)
    assert gateway.ask("/ready").status == 200


def test_a_timer_goes_on_after_its_work_failed() -> None:
    server = GatewayServer(replace(ServerConfig(), http_listen_port=0))
    calls = 0
    enough = threading.Event()

    def work() -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            enough.set()
        raise RuntimeError("expected")

    server.run(asyncio.sleep(0)).result(5)
    server._loop.call_soon_threadsafe(server._loop.set_exception_handler, lambda loop, context: None)
    server.every(0.001, work)
    assert enough.wait(SOON_S)
    server.stop(nothing)
