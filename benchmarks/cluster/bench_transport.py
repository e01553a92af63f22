"""What a call of an actor costs, through Ray and over sockets of our own, both in one run on a Ray of its own.

Wall time is the median, CPU the mean of all threads of the calling process and of the actor's, all in ms a call.
"""

from __future__ import annotations

import argparse
import os
import secrets
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

token = Path(tempfile.mkdtemp(prefix="mray-")) / "token"
token.touch(mode=0o600)
token.write_text(secrets.token_hex(32))
os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=str(token), RAY_USAGE_STATS_ENABLED="0")

import numpy as np  # noqa: E402
import ray  # noqa: E402

from mimir_ray.cluster.transport.on_ray import RayTransport, actor_class  # noqa: E402


class Echo:
    def give(self, *values: Any) -> Any:
        return values[0] if values else None

    def take(self, *values: Any) -> int:
        return len(values)

    def cpu_s(self) -> float:
        return time.process_time()


class Direct(Echo):
    concurrency_groups = {"give": "all", "take": "all"}


CALLS: dict[str, tuple[str, tuple[Any, ...]]] = {
    "no argument": ("take", ()),
    "40 kB there (2,000 samples)": ("take", tuple(np.zeros(2_000 // 3) for _ in range(8))),
    "500 kB there": ("take", tuple(np.zeros(8_000) for _ in range(8))),
    "1 MB there and back": ("give", (np.zeros(125_000),)),
    "10 MB there and back": ("give", (np.zeros(1_250_000),)),
}


def measured(call: Callable[[], Any], cpu_s: Callable[[], float], seconds: float) -> tuple[float, float, float]:
    for _ in range(20):
        call()
    walls = []
    actor, own, end = cpu_s(), time.process_time(), time.perf_counter() + seconds
    while time.perf_counter() < end:
        before = time.perf_counter()
        call()
        walls.append(time.perf_counter() - before)
    own = time.process_time() - own
    count = len(walls)
    return sorted(walls)[count // 2] * 1e3, own / count * 1e3, (cpu_s() - actor) / count * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.0, help="for each figure")
    seconds = parser.parse_args().seconds
    ray.init(
        address="local",
        namespace="mimir-ray",
        include_dashboard=False,
        object_store_memory=300_000_000,
        log_to_driver=False,
        _node_ip_address="127.0.0.1",
        _temp_dir=tempfile.mkdtemp(prefix="mray-"),
    )
    transport = RayTransport()
    print(f"{'ms a call':30} {'wall':>14} {'caller CPU':>14} {'actor CPU':>14}   (through Ray, direct)")
    actors = {}
    for name, kind in (("ray/0", Echo), ("direct/0", Direct)):
        groups = {"concurrency_groups": {"all": 8}} if kind is Direct else {}
        actors[name] = actor_class(kind, num_cpus=0, **groups).options(name=name, max_concurrency=4).remote()
    for title, (method, args) in CALLS.items():
        rows = []
        for name in actors:
            client = transport.client(name)
            rows.append(measured(partial(client.call, method, *args), partial(client.call, "cpu_s"), seconds))
        print(f"{title:30} " + " ".join(f"{one:6.2f} {two:6.2f} " for one, two in zip(*rows, strict=True)), flush=True)
    ray.shutdown()


if __name__ == "__main__":
    main()
