"""`DirectServer`: lets others call some methods of an actor over sockets of its own, beside Ray.

A connection carries one call at a time: a client has as many connections as it has calls under way, and each has a
thread here. Threads of a group run as many calls at once as Ray would let them; others wait for their turn, and are
dropped when their caller has hung up meanwhile.

What arrives is unpickled, so a connection begins with a token that callers have from Ray (`Endpoint`). Callers on the
same node come through a socket in the file system, others over TCP, unencrypted as Ray's own calls are.
"""

from __future__ import annotations

import hmac
import secrets
import select
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from mimir_ray.cluster.transport.frames import Disconnected, fill, frame, receive, send
from mimir_ray.errors import Corruption, MimirRayError

log = structlog.get_logger(__name__)

TOKEN_BYTES = 32
HELLO_TIMEOUT_S = 10.0
SEND_TIMEOUT_S = 60.0
"""Nobody who wants an answer reads it slower."""
CONNECTIONS_MAX = 1024
BACKLOG = 128


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where an actor is called directly. `node`: the Ray node that `path` is on. `host` "": on that node alone.

    `methods`: what may be called; all else goes through Ray.
    """

    node: str
    path: str
    host: str
    port: int
    token: bytes
    methods: frozenset[str]


class DirectServer:
    """Serves from construction on, until `close` or the end of the process."""

    def __init__(
        self,
        methods: Mapping[str, Callable[..., Any]],
        groups: Mapping[str, str],
        group_sizes: Mapping[str, int],
        node: str,
        folder: Path,
        host: str = "",
    ) -> None:
        """`groups`: every method's thread group. `folder`: for the socket; short. `host`: an address of this machine
        that other nodes reach; "" for callers on this node alone."""
        self._methods = methods
        self._turns = {name: threading.Semaphore(size) for name, size in group_sizes.items()}
        self._groups = groups
        self._token = secrets.token_bytes(TOKEN_BYTES)
        self._connections = threading.Semaphore(CONNECTIONS_MAX)
        path = Path(tempfile.mkdtemp(prefix="mray-", dir=folder)) / "calls"  # nobody else may enter the folder
        self._listeners = [socket.socket(socket.AF_UNIX)]
        self._listeners[0].bind(str(path))
        port = 0
        if host:
            self._listeners.append(socket.create_server((host, 0), backlog=BACKLOG))
            port = self._listeners[1].getsockname()[1]
        self.endpoint = Endpoint(node, str(path), host, port, self._token, frozenset(methods))
        for listener in self._listeners:
            listener.listen(BACKLOG)
            threading.Thread(target=self._accept, args=(listener,), name="calls", daemon=True).start()

    def close(self) -> None:
        """Takes no more connections; calls under way are finished."""
        for listener in self._listeners:
            listener.close()
        path = Path(self.endpoint.path)
        path.unlink(missing_ok=True)
        path.parent.rmdir()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return  # closed
            if not self._connections.acquire(blocking=False):
                log.warning("too many connections", allowed=CONNECTIONS_MAX)
                connection.close()
                continue
            threading.Thread(target=self._serve, args=(connection,), name="call", daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection:
                if connection.family != socket.AF_UNIX:
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                token = bytearray(TOKEN_BYTES)
                fill(connection, memoryview(token), time.monotonic() + HELLO_TIMEOUT_S)
                if not hmac.compare_digest(token, self._token):
                    return
                while True:
                    method, args = receive(connection)
                    if (answer := self._run(connection, method, args)) is None:
                        return
                    send(connection, answer, time.monotonic() + SEND_TIMEOUT_S)
        except (Disconnected, Corruption, OSError):
            return  # the caller is gone, and knows; or was none
        finally:
            self._connections.release()

    def _run(self, connection: socket.socket, method: str, args: tuple[Any, ...]) -> list[bytes | memoryview] | None:
        """The frame of the answer; None where nobody waits for it any more."""
        turn = self._turns[self._groups[method]]
        if not turn.acquire(blocking=False):
            turn.acquire()
            if _hung_up(connection):
                turn.release()
                return None
        try:
            return _call(self._methods[method], args)
        finally:
            turn.release()


def _call(method: Callable[..., Any], args: tuple[Any, ...]) -> list[bytes | memoryview]:
    """(True, what it returned) or (False, what it raised)."""
    try:
        return frame((True, method(*args)))
    except MimirRayError as error:
        return frame((False, error))
    except Exception as error:
        log.exception("a call failed", method=getattr(method, "__name__", ""))
        try:
            return frame((False, error))
        except Exception:  # noqa: BLE001  (some errors cannot be pickled; their text can)
            return frame((False, RuntimeError(f"{type(error).__name__}: {error}")))


def _hung_up(connection: socket.socket) -> bool:
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    # Nobody sends before the answer is there, so whatever can be read is the end.
    return bool(poll.poll(0))
