"""Makes worker processes for a Ray of ours by forking one that has everything loaded.

A worker that begins at nothing imports Ray (twice, with Ray's set-up script), all roles and numba, and loads kernels: 3
to 4 CPU-seconds each. Forked, it has all that, and shares its memory with the others. The process that forks has one
thread of Python and no connection to Ray, and ends when its standard input does. Without it Ray starts workers its own
way.
"""

from __future__ import annotations

import json
import os
import runpy
import select
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from mimir_ray.deploy.told import tell

REQUEST_TIMEOUT_S = 10.0
REQUEST_BYTES_MAX = 4 << 20
BACKLOG = 128
READ_BY_RAY = ("RAY_RAYLET_PID", "RAY_JOB_ID")
"""What Ray reads from the environment when it is imported, and sets for each worker. One of another job (of `scale`) is
not forked."""


def serve(listener: socket.socket, until: int, run: Callable[[dict[str, Any]], None]) -> Callable[[], None] | None:
    """Forks a process for every request, until there is something to read from the descriptor `until`.

    Returns None in the end; and in each forked process what it is to do, so that nothing of this stays on its stack.
    """
    while True:
        watched: list[Any] = [listener, until]
        if until in select.select(watched, [], [])[0]:
            return None
        connection, _ = listener.accept()
        with connection:
            received = _receive(connection)
            if received is None:
                continue
            descriptors, request = received
            pid = _fork() if _fits(request) else -1
            if pid == 0:
                listener.close()
                os.close(until)
                connection.close()
                return lambda: _become(descriptors, request, run)
            for one in descriptors:
                os.close(one)
            with suppress(OSError):
                connection.sendall(b"+" if pid > 0 else b"-")


def _fits(request: Any) -> bool:
    if not isinstance(request, dict) or not {"work", "arguments", "environment", "folder"} <= request.keys():
        return False
    return all(request["environment"].get(name) == os.environ.get(name) for name in READ_BY_RAY)


def _fork() -> int:
    """-1 where the machine has no room for one more process; the client tries it its own way."""
    try:
        return os.fork()
    except OSError:
        return -1


def _receive(connection: socket.socket) -> tuple[list[int], Any] | None:
    """The client's standard streams, and what it asks for; None where it has gone."""
    connection.settimeout(REQUEST_TIMEOUT_S)
    descriptors: list[int] = []
    try:
        head, descriptors, _, _ = socket.recv_fds(connection, 4, 3)
        length = int.from_bytes(head, "little")
        if len(head) == 4 and len(descriptors) == 3 and length <= REQUEST_BYTES_MAX:
            body = b"".join(_bytes(connection, length))
            return descriptors, json.loads(body)
    except (OSError, ValueError):
        pass  # the client starts its command itself
    for one in descriptors:
        os.close(one)
    return None


def _bytes(connection: socket.socket, length: int) -> Iterator[bytes]:
    while length:
        piece = connection.recv(length)
        if not piece:
            raise ConnectionError
        length -= len(piece)
        yield piece


def _become(descriptors: list[int], request: dict[str, Any], run: Callable[[dict[str, Any]], None]) -> None:
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for target, one in enumerate(descriptors):
        os.dup2(one, target)
        os.close(one)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    run(request)


def run(request: dict[str, Any]) -> None:
    """What processes are forked for."""
    {"worker": _run_worker, "stop": _run_stop}[request["work"]](request["arguments"])


def _run_worker(arguments: list[str]) -> None:
    """As Ray's own worker script."""
    import ray  # noqa: PLC0415  (once it is up)

    from mimir_ray.deploy.worker import spare_imports  # noqa: PLC0415

    spare_imports()
    script = Path(ray.__file__).parent / "_private" / "workers" / "default_worker.py"
    sys.argv = [str(script), *arguments]
    runpy.run_path(str(script), run_name="__main__")


def _run_stop(arguments: list[str]) -> None:
    from mimir_ray.deploy.local_ray import join  # noqa: PLC0415  (once Ray is up)
    from mimir_ray.deploy.stop import stop_actors  # noqa: PLC0415

    join(arguments[0])
    stop_actors(lambda text: tell(step=text))
    tell(stopped=os.getpid())
    os._exit(0)  # Ray is next, and need not be told that this one goes


def listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(BACKLOG)
    return listener
