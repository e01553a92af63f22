"""Requests as senders write them: every header in its order and spelling, and nothing that they do not send."""

from __future__ import annotations

import gzip
import socket
from collections.abc import Sequence
from http.client import HTTPResponse

from mimir_ray.model.labels import Labels
from tests.gateway.serving import Answer, Gateway
from tests.roles.distributor.fakes import Setup

TENANT = "team-a"
Headers = Sequence[tuple[str, str]]


def send(gateway: Gateway, line: str, headers: Headers, body: bytes = b"") -> Answer:
    """`line`: method and target. Host comes first, and Content-Length where there is a body, as Go writes them."""
    method = line.split(" ", 1)[0]
    lines = [f"{line} HTTP/1.1", f"Host: 127.0.0.1:{gateway.server.port}"]
    lines += [f"{name}: {value}" for name, value in headers]
    if body or method == "POST":
        lines.append(f"Content-Length: {len(body)}")
    with socket.create_connection(("127.0.0.1", gateway.server.port), timeout=20) as connection:
        connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        response = HTTPResponse(connection, method=method)
        response.begin()
        found = {name.lower(): value for name, value in response.getheaders()}
        content = response.read()
    if found.get("content-encoding") == "gzip":
        assert any(name.lower() == "accept-encoding" and "gzip" in value for name, value in headers)
        content = gzip.decompress(content)
    return Answer(response.status, found, content)


def stored(gateway: Gateway) -> list[tuple[Labels, int, float]]:
    """What the ingester got since the test began."""
    setup: Setup = gateway.setup  # type: ignore[attr-defined]
    return setup.only.stored


def setup_of(gateway: Gateway) -> Setup:
    return gateway.setup  # type: ignore[attr-defined, no-any-return]
