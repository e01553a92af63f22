"""A deployment over several Ray nodes of one machine, as if they were machines in three zones."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.integration.deployment import Answer, Deployment, request

ZONES = ("zone-a", "zone-b", "zone-c")
GATEWAYS = 2


def free_ports(count: int) -> int:
    """The first of so many neighbouring ports that were free a moment ago."""
    while True:
        with socket.socket() as first:
            first.bind(("127.0.0.1", 0))
            port = int(first.getsockname()[1])
            try:
                for offset in range(1, count):
                    with socket.socket() as one:
                        one.bind(("127.0.0.1", port + offset))
            except (OSError, OverflowError):
                continue
            return port


class ZonedDeployment:
    """A node and (by `flags`) one or more ingesters a zone; the first two have a gateway too. What is bound to no zone
    runs on any node."""

    def __init__(self, folder: Path, flags: Sequence[str]) -> None:
        token = folder / "data" / "ray-auth-token"
        token.parent.mkdir(parents=True)
        where = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "RAY_USAGE_STATS_ENABLED": "0"}
        self.nodes: dict[str, list[int]] = {}
        self.deployment = Deployment(folder, (), where, free_ports(GATEWAYS))
        self._ray = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.simulated_nodes", str(token)],
            cwd=folder,
            env=self.deployment.variables(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(folder / "nodes.log").open("wb"),
            text=True,
        )
        self.address: str = self._told()["address"]
        self.flags = (
            f"-deploy.zones={','.join(ZONES)}",
            f"-deploy.gateways={GATEWAYS}",
            "-ingester.ring.zone-awareness-enabled=true",
            *flags,
        )
        self.deployment.flags = (f"--address={self.address}", *self.flags)
        for zone in ZONES:
            self.start_node(zone)

    def start_node(self, zone: str) -> None:
        """The machine of this zone, for the first time or again."""
        assert self._ray.stdin is not None
        self._ray.stdin.write(f"machine-{zone} {zone}\n")
        self._ray.stdin.flush()
        self.nodes[zone] = self._told()["pids"]

    def kill_node(self, zone: str) -> None:
        """All of its processes at once: Ray's, and whatever runs under it."""
        for pid in [*self.nodes[zone], *descendants(self.nodes[zone])]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def signal_actor(self, kind: str, zone: str, number: int = signal.SIGKILL) -> None:
        """Sends a signal to the processes of an actor class on the zone's node."""
        below = descendants(self.nodes[zone])
        found = [pid for pid in self.deployment.pids_of(f"ray::{kind}") if pid in below]
        assert found, f"no {kind} in {zone}"
        for pid in found:
            os.kill(pid, number)

    def scale(self, *arguments: str, timeout_s: float = 240.0) -> str:
        """`mimir-ray scale`; what it said."""
        command = [sys.executable, "-m", "mimir_ray.cli", "scale", f"--address={self.address}"]
        done = subprocess.run(
            [*command, f"-data-dir={self.deployment.data}", *self.flags, *arguments],
            env=self.deployment.variables(),
            cwd=self.deployment.folder,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def ask(self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> Answer:
        """Of the first gateway that answers, as a load balancer does: one that refuses connections is passed over."""
        last: OSError = OSError("no gateway")
        for offset in range(GATEWAYS):
            try:
                return request(self.deployment.port + offset, method, path, body, headers)
            except OSError as error:
                last = error
        raise last

    def ring(self) -> dict[str, str]:
        """Ingester → state."""
        try:
            answer = self.ask("GET", "/ingester/ring", headers={"Accept": "application/json"})
        except OSError:
            return {}
        return {one["id"]: one["state"] for one in answer.json["shards"]}

    def all_active(self, count: int) -> bool:
        states = self.ring()
        return len(states) == count and set(states.values()) == {"ACTIVE"}

    def end(self) -> None:
        """Orderly, then whatever is left."""
        if self.deployment.process is not None and self.deployment.process.poll() is None:
            self.deployment.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.deployment.process.wait(20)
        self.deployment.kill()
        self._ray.wait(10)

    def _told(self) -> Any:
        assert self._ray.stdout is not None
        for line in self._ray.stdout:
            if line.startswith("{"):  # Ray says something there, too, when nodes die
                return json.loads(line)
        raise AssertionError(f"the nodes ended: {(self.deployment.folder / 'nodes.log').read_text()[-3000:]}")


def descendants(pids: Sequence[int]) -> set[int]:
    """All processes below these."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        with suppress(OSError):
            parent = int(Path("/proc", name, "stat").read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(name))
    found: set[int] = set()
    todo = list(pids)
    while todo:
        for child in children.get(todo.pop(), ()):
            if child not in found:
                found.add(child)
                todo.append(child)
    return found
