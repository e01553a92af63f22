"""A real deployment for tests: `mimir-ray serve` in processes of its own, and the plain HTTP that clients speak.

Every process of a deployment carries a marker in its environment, so that all of them are found, and only they.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import snappy

from mimir_ray.model.labels import Labels
from mimir_ray.model.metadata import Metadata
from mimir_ray.wire.remote_write import encode_write_request

ROOT = Path(__file__).resolve().parent.parent.parent
MARKER = "MIMIR_RAY_TEST_DEPLOYMENT"
TENANT = "tests"
READY_TIMEOUT_S = 240.0
"""Generous: the first start on a machine compiles all kernels."""

PUSH_HEADERS = {
    "Content-Type": "application/x-protobuf",
    "Content-Encoding": "snappy",
    "X-Prometheus-Remote-Write-Version": "0.1.0",
}
UNLIMITED = (
    "-distributor.ingestion-rate-limit=1e9",
    "-distributor.ingestion-burst-size=1000000000",
    "-ingester.max-global-series-per-user=0",
)


def peer(name: str) -> str:
    """The path of another system's program; skips the test where there is none."""
    folders = [os.environ.get("MIMIR_RAY_PEERS", ""), str(ROOT / ".peers" / "bin"), str(ROOT.parent / ".peers" / "bin")]
    for folder in filter(None, folders):
        if found := shutil.which(name, path=folder):
            return found
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"needs {name} on PATH or in $MIMIR_RAY_PEERS")
    return found


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def wait_for(what: str, condition: Callable[[], Any], timeout_s: float = 30.0, period_s: float = 0.1) -> Any:
    """The first true value of `condition`; fails when it takes too long."""
    deadline = time.monotonic() + timeout_s
    while True:
        if value := condition():
            return value
        if time.monotonic() > deadline:
            pytest.fail(f"{what}: not within {timeout_s:g} s")
        time.sleep(period_s)


@dataclass(frozen=True, slots=True)
class Answer:
    """Of one HTTP request."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def request(
    port: int,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    timeout_s: float = 30.0,
) -> Answer:
    """One request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        connection.request(method, path, body, dict(headers or {}))
        got = connection.getresponse()
        return Answer(got.status, {name.lower(): value for name, value in got.getheaders()}, got.read())
    finally:
        connection.close()


@dataclass(slots=True)
class Deployment:
    """`mimir-ray serve` on a data directory; started and stopped as often as a test likes."""

    folder: Path
    flags: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    """What its processes find in their environment in addition."""
    port: int = field(default_factory=free_port)
    marker: str = field(default_factory=lambda: uuid.uuid4().hex)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def log(self) -> Path:
        return self.folder / "serve.log"

    def output(self) -> str:
        """What serve has printed since its last start."""
        return self.log.read_text(errors="replace")

    def command(self) -> list[str]:
        return [
            *(sys.executable, "-m", "mimir_ray.cli", "serve"),
            f"-data-dir={self.data}",
            "-server.http-listen-address=127.0.0.1",
            f"-server.http-listen-port={self.port}",
            "-auth.multitenancy-enabled=true",
            "-scraper.enabled=false",
            *self.flags,
        ]

    def variables(self) -> dict[str, str]:
        """The environment of everything that belongs to it."""
        return {**os.environ, **self.environment, MARKER: self.marker, "PYTHONPATH": str(ROOT)}

    def start(self, wait: bool = True) -> None:
        """Starts it, and waits until it takes requests."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self.command(),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.variables(),
                start_new_session=True,
            )
        if wait:
            self.wait_until_ready()

    def wait_until_ready(self) -> None:
        assert self.process is not None
        deadline = time.monotonic() + READY_TIMEOUT_S
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if self.get("/ready").status == 200:
                    return
            except OSError:
                pass  # not yet listening
            time.sleep(0.1)
        pytest.fail(f"not ready; serve said:\n{self.output()[-4000:]}")

    def stop(self, number: int = signal.SIGTERM, timeout_s: float = 30.0, whole_group: bool = False) -> int:
        """Asks it to stop; returns its exit status. `whole_group`: its Ray is told too, as `timeout` and others do."""
        assert self.process is not None
        (os.killpg if whole_group else os.kill)(self.process.pid, number)
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            pytest.fail(f"still runs {timeout_s:g} s after signal {number}; serve said:\n{self.output()[-4000:]}")

    def kill(self) -> None:
        """Ends all of its processes at once, as a power cut would."""
        while pids := self.pids():
            for pid in pids:
                _kill(pid)
            if self.process is not None:
                self.process.poll()
            time.sleep(0.02)
        if self.process is not None:
            self.process.wait(10)

    def pids(self) -> dict[int, str]:
        """Its live processes: pid → command line."""
        wanted = f"{MARKER}={self.marker}".encode()
        found = {}
        for name in os.listdir("/proc"):
            if not name.isdigit():
                continue
            try:
                environment = Path("/proc", name, "environ").read_bytes()
                state = Path("/proc", name, "stat").read_text().rpartition(")")[2].split()[0]
                command = Path("/proc", name, "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue  # it has ended meanwhile, or is another user's
            if state != "Z" and wanted in environment.split(b"\0"):
                found[int(name)] = command.strip()
        return found

    def pids_of(self, part: str) -> list[int]:
        """Its processes whose command line has this in it; Ray names workers after their actor's class."""
        return [pid for pid, command in self.pids().items() if part in command]

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        return request(self.port, "GET", path, headers=headers)

    def ask(self, path: str, tenant: str = TENANT, **parameters: str | int | float | Sequence[str]) -> Answer:
        """GET below the Prometheus prefix. `match` is sent as `match[]`."""
        named = {"match[]" if name == "match" else name: value for name, value in parameters.items()}
        text = urlencode(named, doseq=True)
        return self.get(f"/prometheus/api/v1/{path}?{text}", {"X-Scope-OrgID": tenant})

    def result(self, path: str, tenant: str = TENANT, **parameters: str | int | float | Sequence[str]) -> Any:
        """The `data` of a successful answer."""
        answer = self.ask(path, tenant, **parameters)
        assert answer.status == 200, answer.text
        return answer.json["data"]

    def metric(self, name: str) -> float:
        """The largest value of those series on /metrics that have all parts of `name`; 0 where there is none."""
        parts = name.replace("}", "").split("{")
        lines = (line for line in self.get("/metrics").text.splitlines() if not line.startswith("#"))
        return max((float(line.split()[-1]) for line in lines if all(one in line for one in parts)), default=0.0)

    def push(
        self,
        series: Iterable[tuple[Labels, Sequence[tuple[int, float]]]],
        tenant: str = TENANT,
        metadata: Iterable[Metadata] = (),
    ) -> Answer:
        """Remote-writes samples (ms, value)."""
        return self.push_raw(snappy.compress(encode_write_request(series, metadata)), {"X-Scope-OrgID": tenant})

    def push_raw(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        return request(self.port, "POST", "/api/v1/push", body, {**PUSH_HEADERS, **headers})


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
