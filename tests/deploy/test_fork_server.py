"""Processes are forked as they were asked for; and where none can be, the client becomes the command it was given."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mimir_ray.deploy import fork_client

SERVER = """
import json, os, signal, sys
from pathlib import Path
from mimir_ray.deploy import fork_server

def run(request):
    print(json.dumps({
        "arguments": request["arguments"], "here": os.getcwd(), "greeting": os.environ.get("GREETING"),
        "mine": "ONLY_OF_THE_SERVER" in os.environ, "leads": os.getsid(0) == os.getpid(), "parent": os.getppid(),
        "waits": signal.getsignal(signal.SIGCHLD) is signal.SIG_DFL,
    }), flush=True)
    sys.exit(3)

signal.signal(signal.SIGCHLD, signal.SIG_IGN)
listener = fork_server.listen(Path(sys.argv[1]))
print("listens", flush=True)
job = fork_server.serve(listener, 0, run)
if job is not None:
    job()
print("ends", flush=True)
"""
OF_A_JOB = {"RAY_JOB_ID": "02000000", "RAY_RAYLET_PID": "17"}


class Server:
    def __init__(self, folder: Path) -> None:
        self.path = folder / "fork.sock"
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(self.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **OF_A_JOB, "ONLY_OF_THE_SERVER": "1"},
            text=True,
        )
        assert self.read() == "listens\n"

    def read(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    one = Server(tmp_path)
    yield one
    one.process.kill()
    with one.process:
        pass  # waits, closes the pipes


def ask(path: Path, *arguments: str, folder: Path, **environment: str) -> str:
    """What the client's standard output has in the end: of whoever was forked, or of the command."""
    instead = [sys.executable, "-c", "import sys; print('by itself', *sys.argv[1:])"]
    done = subprocess.run(
        [sys.executable, "-I", "-S", fork_client.__file__, str(path), *instead, *arguments],
        check=True,
        stdout=subprocess.PIPE,
        cwd=folder,
        env={**OF_A_JOB, **environment},
        text=True,
        timeout=60,
    )
    return done.stdout


def test_a_forked_process_has_arguments_environment_folder_and_streams_of_who_asked(
    server: Server, tmp_path: Path
) -> None:
    for number in range(3):
        arguments = (f"--number={number}", "--serialized-runtime-env-context={}", "--language=PYTHON", "--empty=")
        told = json.loads(ask(server.path, *arguments, folder=tmp_path, GREETING="hello"))
        assert told == {
            "arguments": [f"--number={number}", "--empty="],
            "here": str(tmp_path),
            "greeting": "hello",
            "mine": False,
            "leads": True,
            "parent": server.process.pid,
            "waits": True,
        }


def test_the_server_ends_with_its_standard_input(server: Server) -> None:
    assert server.process.stdin is not None
    server.process.stdin.close()
    assert server.read() == "ends\n"
    assert server.process.wait(30) == 0


def test_a_worker_of_another_job_runs_its_own_command(server: Server, tmp_path: Path) -> None:
    assert ask(server.path, "--a=1", folder=tmp_path, RAY_JOB_ID="03000000") == "by itself --a=1\n"
    assert json.loads(ask(server.path, folder=tmp_path))["leads"]


def test_a_worker_with_a_runtime_environment_runs_its_own_command(server: Server, tmp_path: Path) -> None:
    context = '--serialized-runtime-env-context={"env_vars": {"A": "1"}}'
    assert ask(server.path, context, folder=tmp_path) == f"by itself {context}\n"


def test_without_a_server_the_command_is_run(tmp_path: Path) -> None:
    assert ask(tmp_path / "nobody.sock", "x", folder=tmp_path) == "by itself x\n"
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(tmp_path / "gone.sock"))
    assert ask(tmp_path / "gone.sock", "x", folder=tmp_path) == "by itself x\n"


@pytest.mark.parametrize(
    "sent", [b"", b"\1", b"\xff\xff\xff\xff", b"\2\0\0\0[]", b"\2\0\0\0{}", b"\2\0\0\0[]", b"\3\0\0\0nul"]
)
def test_nonsense_is_passed_over(server: Server, tmp_path: Path, sent: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(server.path))
        socket.send_fds(client, [sent], [0, 1, 2])
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) in (b"", b"-")
    assert json.loads(ask(server.path, "--a=1", folder=tmp_path))["arguments"] == ["--a=1"]
