"""Calls and answers as frames on a stream socket: u64 length, little-endian, then as many bytes of `pack`."""

from __future__ import annotations

import socket
import struct
import time
from typing import Any

import numpy as np

from mimir_ray.cluster.transport.packing import sections, unpack
from mimir_ray.errors import Corruption

LENGTH = struct.Struct("<Q")
FRAME_BYTES_MAX = 2 << 30
"""Longer ones are not read: whoever sends such a length is none of ours, or wants our memory."""
_VECTOR_MAX = 512
"""Pieces a system call; POSIX wants at least 16, Linux takes 1,024."""


class Disconnected(Exception):
    """The other side is not there, or no more."""


class TimedOut(Exception):
    """No answer before the deadline."""


def frame(value: Any) -> list[bytes | memoryview]:
    """A frame as pieces, so that arrays are copied by the kernel alone."""
    pieces = sections(value)
    return [LENGTH.pack(sum(len(piece) for piece in pieces)), *pieces]


def length_of(header: bytes | bytearray | memoryview) -> int:
    """Raises `Corruption` for what no frame of ours has."""
    (length,) = LENGTH.unpack_from(header)
    if length > FRAME_BYTES_MAX:
        raise Corruption(f"a frame of {length} bytes")
    return int(length)


def send(connection: socket.socket, pieces: list[bytes | memoryview], deadline: float | None = None) -> None:
    """Sends all pieces before `deadline` (monotonic, s). Raises TimeoutError, OSError."""
    waiting = [memoryview(piece) for piece in reversed(pieces)]
    while waiting:
        connection.settimeout(_left_s(deadline))
        sent = connection.sendmsg(waiting[: -_VECTOR_MAX - 1 : -1])
        while waiting and sent >= len(waiting[-1]):
            sent -= len(waiting.pop())
        if sent:
            waiting[-1] = waiting[-1][sent:]


def receive(connection: socket.socket, deadline: float | None = None) -> Any:
    """The value in the next frame. Raises `Disconnected`, `Corruption`, TimeoutError, OSError."""
    header = memoryview(bytearray(LENGTH.size))
    fill(connection, header, deadline)
    body = memoryview(np.empty(length_of(header), np.uint8))
    fill(connection, body, deadline)
    return unpack(body)


def fill(connection: socket.socket, buffer: memoryview, deadline: float | None) -> None:
    """Receives as many bytes as fit. Raises `Disconnected`, TimeoutError, OSError."""
    while buffer:
        connection.settimeout(_left_s(deadline))
        count = connection.recv_into(buffer)
        if not count:
            raise Disconnected("closed by the other side")
        buffer = buffer[count:]


def _left_s(deadline: float | None) -> float | None:
    if deadline is None:
        return None
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
