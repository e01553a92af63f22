"""An HTTP proxy before a server, which fails in all the ways in which networks and servers do.

Which request meets which fault is drawn from a seed; threads that ask at once may be served in another order.
"""

from __future__ import annotations

import http.client
import random
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

Fault = Literal["refuse", "lose answer", "reset", "truncate", "stall", "500", "503", "cut request"]
FAULTS: tuple[Fault, ...] = ("refuse", "lose answer", "reset", "truncate", "stall", "500", "503", "cut request")
_STALL_S_MAX = 10.0
_ERRORS = {
    "500": (500, "InternalError", "We encountered an internal error. Please try again."),
    "503": (503, "SlowDown", "Please reduce your request rate."),
}


class FaultyProxy:
    """`rate`: which part of the requests meets a fault (0 to 1), may be changed while it runs."""

    def __init__(self, upstream: str, seed: int, rate: float, faults: Sequence[Fault] = FAULTS) -> None:
        self.upstream = upstream
        self.rate = rate
        self.faults = tuple(faults)
        self.met: Counter[str] = Counter()
        """How often each fault happened; "" counts the requests that were let through."""
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self.closing = threading.Event()

    def draw(self) -> Fault | Literal[""]:
        with self._lock:
            fault: Fault | Literal[""] = ""
            if self.faults and self._random.random() < self.rate:
                fault = self._random.choice(self.faults)
            self.met[fault] += 1
            return fault

    def part(self) -> float:
        """Of what is on its way, how much arrives: from nothing to all but the last byte."""
        with self._lock:
            return self._random.random()

    @contextmanager
    def running(self) -> Iterator[str]:
        """Gives host:port."""
        proxy = self

        class Handler(_Handler):
            faulty = proxy

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            self.closing.set()
            server.shutdown()
            server.server_close()
            thread.join(10)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    faulty: FaultyProxy

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Not to stderr."""

    def do_GET(self) -> None:
        fault = self.faulty.draw()
        self.close_connection = True
        if fault == "refuse":
            return self._reset()
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if fault in _ERRORS:
            return self._answer_error(*_ERRORS[fault])
        if fault == "cut request":
            self._forward_part(body)
            return self._reset()
        status, reason, headers, answer = self._forward(body)
        if fault == "lose answer":
            return self._reset()
        self._answer(status, reason, headers, answer, fault)
        return None

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET

    def _request(self, length: int) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection(self.faulty.upstream, timeout=30)
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in ("expect", "connection", "content-length"):
                connection.putheader(name, value)
        if length or self.command in ("PUT", "POST"):
            connection.putheader("Content-Length", str(length))
        connection.putheader("Connection", "close")
        connection.endheaders()
        return connection

    def _forward(self, body: bytes) -> tuple[int, str, list[tuple[str, str]], bytes]:
        connection = self._request(len(body))
        if body:
            connection.send(body)
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        return answer.status, answer.reason, answer.getheaders(), data

    def _forward_part(self, body: bytes) -> None:
        """The server sees a request that ends too early."""
        connection = self._request(len(body))
        if body:
            connection.send(body[: int(len(body) * self.faulty.part())])
        with suppress(OSError):
            connection.sock.shutdown(socket.SHUT_WR)
            connection.sock.settimeout(5)
            while connection.sock.recv(65536):
                continue
        connection.close()

    def _answer(self, status: int, reason: str, headers: list[tuple[str, str]], data: bytes, fault: str) -> None:
        self.send_response_only(status, reason)
        sized = False
        for name, value in headers:
            if name.lower() in ("transfer-encoding", "connection"):
                continue
            sized |= name.lower() == "content-length"
            self.send_header(name, value)
        if not sized and status != 204:
            self.send_header("Content-Length", str(len(data)))
        self.send_header("Connection", "close")
        if not fault:
            self.end_headers()
            with suppress(OSError):
                self.wfile.write(data)
            return
        self._headers_buffer.append(b"\r\n")  # type: ignore[attr-defined]
        whole = b"".join(self._headers_buffer) + data  # type: ignore[attr-defined]
        with suppress(OSError):
            self.wfile.write(whole[: int(len(whole) * self.faulty.part())])
            self.wfile.flush()
        if fault == "stall":
            self.faulty.closing.wait(_STALL_S_MAX)
        if fault == "reset":
            self._reset()

    def _answer_error(self, status: int, code: str, message: str) -> None:
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
        if self.command == "HEAD":
            body = b""
        self.send_response_only(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def _reset(self) -> None:
        """The peer sees a reset, not an end."""
        with suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
