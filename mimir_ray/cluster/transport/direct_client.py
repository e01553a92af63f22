"""`DirectClient`: the callers' side of `DirectServer`, for threads and for asyncio.

What calls cost, next to the same ones through Ray: benchmarks/cluster/bench_transport.py.
"""

from __future__ import annotations

import asyncio
import select
import socket
import threading
import time
from typing import Any
from weakref import WeakKeyDictionary

from mimir_ray.cluster.transport.direct_server import Endpoint
from mimir_ray.cluster.transport.frames import LENGTH, Disconnected, TimedOut, frame, length_of, receive, send
from mimir_ray.cluster.transport.packing import unpack

CONNECT_TIMEOUT_S = 5.0
IDLE_MAX = 32
"""Connections kept for later calls; more are opened and closed as they are needed."""


class DirectClient:
    """Calls one endpoint. From any thread and loop.

    Raises `Disconnected` where the endpoint is not there or went away before it answered, `TimedOut`, and what the
    method raised.
    """

    def __init__(self, endpoint: Endpoint, node: str) -> None:
        """`node`: the Ray node that the caller is on."""
        self.endpoint = endpoint
        self._local = endpoint.node == node
        self._lock = threading.Lock()
        self._idle: list[socket.socket] = []
        self._streams: WeakKeyDictionary[asyncio.AbstractEventLoop, list[_Stream]] = WeakKeyDictionary()

    @property
    def methods(self) -> frozenset[str]:
        """What can be called from here."""
        return self.endpoint.methods if self._local or self.endpoint.host else frozenset()

    def call(self, method: str, args: tuple[Any, ...], deadline: float) -> Any:
        return self.begin(method, args, deadline).result()

    def begin(self, method: str, args: tuple[Any, ...], deadline: float) -> DirectPending:
        """`deadline`: of the whole call, monotonic, s."""
        pieces = frame((method, args))
        connection = self._take(deadline)
        try:
            send(connection, pieces, deadline)
        except TimeoutError:
            connection.close()
            raise TimedOut from None
        except OSError as error:
            connection.close()
            raise Disconnected(str(error)) from error
        return DirectPending(self, connection, deadline)

    async def acall(self, method: str, args: tuple[Any, ...], deadline: float) -> Any:
        data = b"".join(frame((method, args)))
        streams = self._streams.setdefault(asyncio.get_running_loop(), [])
        stream = streams.pop() if streams else await self._open_stream(deadline)
        try:
            answer = await asyncio.wait_for(stream.exchange(data), max(0.0, deadline - time.monotonic()))
        except asyncio.TimeoutError:
            stream.close()
            raise TimedOut from None
        except BaseException:  # cancelled, for one: an answer that may still come must not be another call's
            stream.close()
            raise
        if len(streams) < IDLE_MAX:
            streams.append(stream)
        else:
            stream.close()
        return _outcome(answer)

    def close(self) -> None:
        """Drops idle connections of threads; those of loops are dropped when they are found closed."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def keep(self, connection: socket.socket) -> None:
        """Takes back a connection that carries no call."""
        with self._lock:
            if len(self._idle) < IDLE_MAX:
                self._idle.append(connection)
                return
        connection.close()

    def _take(self, deadline: float) -> socket.socket:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        end = self.endpoint
        connection = socket.socket(socket.AF_UNIX if self._local else socket.AF_INET)
        try:
            connection.settimeout(max(0.001, min(CONNECT_TIMEOUT_S, deadline - time.monotonic())))
            connection.connect(end.path if self._local else (end.host, end.port))
            if not self._local:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sendall(end.token)
        except OSError as error:
            connection.close()
            raise Disconnected(str(error) or type(error).__name__) from error
        return connection

    async def _open_stream(self, deadline: float) -> _Stream:
        loop, end = asyncio.get_running_loop(), self.endpoint
        left_s = max(0.001, min(CONNECT_TIMEOUT_S, deadline - time.monotonic()))
        opening = (
            loop.create_unix_connection(_Stream, end.path)
            if self._local
            else loop.create_connection(_Stream, end.host, end.port)
        )
        try:
            _, stream = await asyncio.wait_for(opening, left_s)
        except (OSError, asyncio.TimeoutError) as error:
            raise Disconnected(str(error) or type(error).__name__) from error
        stream.greet(end.token)
        return stream


class DirectPending:
    """A call that is under way on a connection of its own. See `Pending`."""

    __slots__ = ("_client", "_connection", "_deadline")

    def __init__(self, client: DirectClient, connection: socket.socket, deadline: float) -> None:
        self._client = client
        self._connection = connection
        self._deadline = deadline

    def ready(self, within_s: float) -> bool:
        """Whether an answer begins to arrive by then. Raises `Disconnected`."""
        poll = select.poll()
        poll.register(self._connection, select.POLLIN)
        if not poll.poll(within_s * 1000):
            return False
        try:
            if self._connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
                return True
        except OSError as error:
            self._connection.close()
            raise Disconnected(str(error)) from error
        self._connection.close()
        raise Disconnected("closed by the other side")

    def result(self) -> Any:
        try:
            answer = receive(self._connection, self._deadline)
        except TimeoutError:
            self._connection.close()  # its answer may come later, and would be taken for another's
            raise TimedOut from None
        except OSError as error:
            self._connection.close()
            raise Disconnected(str(error)) from error
        except BaseException:  # half a frame may have been read
            self._connection.close()
            raise
        self._client.keep(self._connection)
        return _outcome(answer)


def _outcome(answer: tuple[bool, Any]) -> Any:
    is_result, value = answer
    if not is_result:
        raise value
    return value


class _Stream(asyncio.Protocol):
    """One connection of a loop."""

    def __init__(self) -> None:
        self._transport: Any = None
        self._received = bytearray()
        self._answer: asyncio.Future[Any] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def greet(self, token: bytes) -> None:
        self._transport.write(token)

    def exchange(self, data: bytes) -> asyncio.Future[Any]:
        """Sends a frame; the value of the next that arrives."""
        self._answer = asyncio.get_running_loop().create_future()
        if self._transport.is_closing():
            self._answer.set_exception(Disconnected("closed by the other side"))
        else:
            self._transport.write(data)
        return self._answer

    def data_received(self, data: bytes) -> None:
        received = self._received
        received += data
        if len(received) < LENGTH.size or self._answer is None:
            return
        try:
            if len(received) < LENGTH.size + length_of(received):
                return
            value = unpack(memoryview(received)[LENGTH.size :])
        except Exception as error:  # noqa: BLE001  (the caller's to see)
            self._end(error)
            return
        self._received = bytearray()
        if not self._answer.done():
            self._answer.set_result(value)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(Disconnected(str(exc) if exc is not None else "closed by the other side"))

    def close(self) -> None:
        self._transport.abort()  # what was not sent yet is of no use any more

    def _end(self, error: Exception) -> None:
        self._transport.close()
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)
