"""What a Ray of ours runs as a worker's command: has the fork server make the process, and ends.

    python -I -S fork_client.py SOCKET <the command that Ray would run>

Where nobody answers at the socket, or the worker is to have an environment of its own, it becomes that command.
Standard library only, and little of it: this runs once a worker, before anything else.
"""

import json
import os
import socket
import sys

TIMEOUT_S = 60.0
"""The fork server may be loading kernels still."""
RUNTIME_ENV = "--serialized-runtime-env-context="
OF_THE_SET_UP = (RUNTIME_ENV, "--language=")


def main(path: str, command: list[str]) -> None:
    environments = [one.removeprefix(RUNTIME_ENV) for one in command if one.startswith(RUNTIME_ENV)]
    if all(one in ("", "{}") for one in environments) and _forked(path, command):
        return
    os.execv(command[0], command)  # noqa: S606  (no shell is what is wanted)


def _forked(path: str, command: list[str]) -> bool:
    """Python, Ray's set-up script, the worker's and its arguments: the last are what the fork server needs."""
    arguments = [one for one in command[3:] if not one.startswith(OF_THE_SET_UP)]
    request = {"work": "worker", "arguments": arguments, "environment": dict(os.environ), "folder": os.getcwd()}
    return ask(path, request, (0, 1, 2))


def ask(path: str, request: dict[str, object], streams: tuple[int, int, int]) -> bool:
    """Whether a process was forked for it. `streams`: descriptors that become its standard streams."""
    body = json.dumps(request).encode()
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.settimeout(TIMEOUT_S)
            server.connect(path)
            socket.send_fds(server, [len(body).to_bytes(4, "little")], list(streams))
            server.sendall(body)
            return server.recv(1) == b"+"
    except OSError:
        return False


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
