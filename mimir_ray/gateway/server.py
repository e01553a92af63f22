"""`GatewayServer`: the HTTP server in a thread with an event loop of its own."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

import uvloop
from sanic import Sanic

from mimir_ray.config.server import ServerConfig
from mimir_ray.errors import Unavailable

Answer = TypeVar("Answer")
START_TIMEOUT_S = 30.0
BACKLOG = 1024


class CannotListen(Unavailable):
    """The address is taken or not ours."""


class GatewayServer:
    """Serves a Sanic application until it is stopped. Methods may be called from any thread but the loop's."""

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="gateway-loop", daemon=True)
        self._thread.start()
        self._server: Any = None
        self.port = 0

    def run(self, work: Coroutine[Any, Any, Answer]) -> Future[Answer]:
        """Runs a coroutine in the server's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def every(self, period_s: float, work: Callable[[], None]) -> None:
        """Calls `work` in the loop again and again."""

        def tick() -> None:
            self._loop.call_later(period_s, tick)
            work()

        self._loop.call_soon_threadsafe(self._loop.call_later, period_s, tick)

    def start(self, app: Sanic) -> None:
        """Returns when the socket listens. Raises `CannotListen`."""
        self.run(self._start(app)).result(START_TIMEOUT_S)

    def stop(self, drain: Callable[[], Awaitable[None]]) -> None:
        """Takes no more connections, lets requests under way end, then awaits `drain`."""
        timeout_s = self._config.graceful_shutdown_timeout.seconds
        self.run(self._stop(drain, timeout_s)).result(timeout_s + 10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    async def _start(self, app: Sanic) -> None:
        tls = self._config.http_tls_config
        context = None
        if tls.cert_file:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=tls.client_ca_file or None)
            context.load_cert_chain(tls.cert_file, tls.key_file)
            if tls.client_ca_file:
                context.verify_mode = ssl.CERT_REQUIRED
        self._server = await app.create_server(
            sock=self._listen(),
            return_asyncio_server=True,
            access_log=False,
            ssl=context,
            asyncio_server_kwargs={"start_serving": False},
        )
        await self._server.startup()
        await self._server.before_start()
        await self._server.start_serving()
        await self._server.after_start()
        self.port = self._server.server.sockets[0].getsockname()[1]

    def _listen(self) -> socket.socket:
        """A socket of our own: Sanic takes port 0 for "not said"."""
        host, port = self._config.http_listen_address, self._config.http_listen_port
        try:
            return socket.create_server(
                (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=BACKLOG
            )
        except OSError as error:
            raise CannotListen(f"cannot listen on {host}:{port}: {error.strerror or error}") from None

    async def _stop(self, drain: Callable[[], Awaitable[None]], timeout_s: float) -> None:
        if self._server is not None:
            self._server.close()
            deadline = self._loop.time() + timeout_s
            connections: set[Any] = getattr(self._server, "connections", set())
            for connection in list(connections):
                connection.close_if_idle()
            while connections and self._loop.time() < deadline:
                await asyncio.sleep(0.05)
                for connection in list(connections):
                    connection.close_if_idle()
        await asyncio.wait_for(drain(), timeout_s)
