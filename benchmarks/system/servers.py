"""Servers to measure, each in a fresh folder: mimir-ray from this repository, and a Prometheus where there is one.

CPU and memory are those of the whole process tree, Ray's own processes included: they carry a marker in their
environment. Memory is PSS: pages that processes share count once.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
MARKER = "MIMIR_RAY_BENCHMARK"
READY_TIMEOUT_S = 300.0


def busy_s() -> float:
    """CPU seconds that the whole machine has worked since it was started, stolen ones too."""
    user, nice, system, _idle, _wait, interrupts, soft, stolen = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + interrupts + soft + stolen) / os.sysconf("SC_CLK_TCK")


@dataclass(slots=True)
class Server:
    """A running one. `push` and `api` are its paths."""

    name: str
    port: int
    push: str
    api: str
    marker: str
    headers: dict[str, str] = field(default_factory=dict)
    _seen: dict[tuple[int, str], float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def pids(self) -> list[int]:
        wanted = f"{MARKER}={self.marker}".encode()
        found = []
        for name in filter(str.isdigit, os.listdir("/proc")):
            try:
                if wanted in Path("/proc", name, "environ").read_bytes().split(b"\0"):
                    found.append(int(name))
            except OSError:
                continue  # it has ended, or is another user's
        return found

    def cpu_s(self) -> float:
        """CPU seconds so far; a process that has ended counts as it was last seen."""
        with self._lock:
            for pid in self.pids():
                try:
                    started = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
                    self._seen[pid, started] = time.clock_gettime(~pid << 3 | 2)
                except OSError:
                    continue
            return sum(self._seen.values())

    def memory_bytes(self) -> int:
        total = 0
        for pid in self.pids():
            try:
                for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                    if line.startswith("Pss:"):
                        total += int(line.split()[1]) * 1024
            except OSError:
                continue
        return total

    def settle(self, limit_s: float = 30.0) -> None:
        """Waits until it does next to nothing."""
        deadline = time.monotonic() + limit_s
        before = self.cpu_s()
        while time.monotonic() < deadline:
            time.sleep(1.0)
            now = self.cpu_s()
            if now - before < 0.1:
                return
            before = now


ALL_RULES = """
distributor:
  ha_tracker: {enable_ha_tracker: true}
limits:
  accept_ha_samples: true
  drop_labels: [node]
  request_rate: 1e9
  request_burst_size: 1000000000
  max_global_series_per_user: 100000000
  max_global_series_per_metric: 100000000
  max_global_metadata_per_user: 1000000
  max_global_exemplars_per_user: 1000
  max_label_names_per_series: 20
  separate_metrics_group_label: job
  metric_relabel_configs:
    - {source_labels: [__name__], regex: "debug_.*", action: drop}
    - {source_labels: [pod], regex: "pod-(.*)", target_label: pod_number}
    - {regex: "internal_.*", action: labeldrop}
    - {source_labels: [job, namespace], separator: /, target_label: owner}
  active_series_custom_trackers:
    api: '{job="api"}'
    buckets: '{__name__=~".*_bucket"}'
    first_pods: '{pod=~"pod-[0-9]{1,2}"}'
"""
"""Every rule of the write path at once: HA pairs, relabelling, labels to drop, all limits, custom trackers."""


@contextmanager
def mimir_ray(ingesters: int = 1, rules: str = "") -> Iterator[Server]:
    """`rules`: YAML, for instance `ALL_RULES`."""
    port, folder = _free_port(), Path(tempfile.mkdtemp(prefix="bench-"))
    (folder / "config.yaml").write_text(rules)
    limits = [] if rules else ["-ingester.max-global-series-per-user=0"]
    command = [
        *(sys.executable, "-m", "mimir_ray.cli", "serve"),
        f"-config.file={folder / 'config.yaml'}",
        f"-data-dir={folder / 'data'}",
        "-server.http-listen-address=127.0.0.1",
        f"-server.http-listen-port={port}",
        "-auth.multitenancy-enabled=true",
        f"-deploy.ingesters={ingesters}",
        "-scraper.enabled=false",
        "-distributor.ingestion-rate-limit=1e9",
        "-distributor.ingestion-burst-size=1000000000",
        *limits,
        "-ingester.out-of-order-time-window=1d",
        "-log.level=warn",
    ]
    name = "mimir-ray, rules" if rules else "mimir-ray"
    server = Server(name, port, "/api/v1/push", "/prometheus/api/v1", "", {"X-Scope-OrgID": "bench"})
    with _running(server, command, "/ready", folder):
        yield server


def find_peer(name: str, folder: str) -> str | None:
    """The program: in the folder given, in $MIMIR_RAY_PEERS, or on PATH."""
    for where in (folder, os.environ.get("MIMIR_RAY_PEERS", ""), str(ROOT / ".peers" / "bin"), None):
        if where != "" and (found := shutil.which(name, path=where)):
            return found
    return None


@contextmanager
def prometheus(program: str) -> Iterator[Server]:
    port, folder = _free_port(), Path(tempfile.mkdtemp(prefix="bench-"))
    config = folder / "prometheus.yml"
    config.write_text("storage: {tsdb: {out_of_order_time_window: 1d}}\n")
    command = [
        program,
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--web.enable-remote-write-receiver",
        "--log.level=warn",
    ]
    server = Server("prometheus", port, "/api/v1/write", "/api/v1", "")
    with _running(server, command, "/-/ready", folder):
        yield server


@contextmanager
def victoria_metrics(program: str) -> Iterator[Server]:
    port, folder = _free_port(), Path(tempfile.mkdtemp(prefix="bench-"))
    command = [
        program,
        f"-storageDataPath={folder / 'data'}",
        f"-httpListenAddr=127.0.0.1:{port}",
        "-retentionPeriod=1y",
        "-search.latencyOffset=0s",
        "-loggerLevel=WARN",
    ]
    with _running(server := Server("victoria", port, "/api/v1/write", "/api/v1", ""), command, "/health", folder):
        yield server


@contextmanager
def _running(server: Server, command: list[str], ready: str, folder: Path) -> Iterator[None]:
    server.marker = uuid.uuid4().hex
    environment = {**os.environ, MARKER: server.marker, "PYTHONPATH": str(ROOT)}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environment
        )
    try:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not _answers(server.port, ready):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{server.name} did not start:\n{(folder / 'log').read_text()[-2000:]}")
            time.sleep(0.2)
        yield
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
        for pid in server.pids():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        shutil.rmtree(folder, ignore_errors=True)


def _answers(port: int, path: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
