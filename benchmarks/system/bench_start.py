"""How long a deployment takes to start and to stop, and what it takes while it does nothing.

    python benchmarks/system/bench_start.py [--rounds 3] [--ingesters 0] [--idle-s 20] [--peers FOLDER]

The first round fills the kernel cache where it is empty. Times are from the command to `/ready` answering 200, and from
SIGTERM to the end of the process; CPU is that of the whole tree.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

from servers import Server, busy_s, find_peer, mimir_ray, prometheus


def measure(start: Callable[[], AbstractContextManager[Server]], idle_s: float) -> None:
    began, busy = time.monotonic(), busy_s()
    with start() as server:
        ready_s, ready_cpu_s, all_cpu_s = time.monotonic() - began, server.cpu_s(), busy_s() - busy
        server.settle()
        settled, cpu_s = time.monotonic(), server.cpu_s()
        time.sleep(idle_s)
        idle_share = (server.cpu_s() - cpu_s) / (time.monotonic() - settled)
        memory = server.memory_bytes()
        name, processes = server.name, len(server.pids())
        began = time.monotonic()
    print(
        f"{name}: ready after {ready_s:.2f} s and {ready_cpu_s:.2f} CPU-s ({all_cpu_s:.2f} of the machine); "
        f"idle {memory / 2**20:.0f} MiB in {processes} processes, {1000 * idle_share:.1f} ms CPU/s; "
        f"stopped after {time.monotonic() - began:.2f} s",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ingesters", type=int, default=0, help="0 is automatic")
    parser.add_argument("--idle-s", type=float, default=20.0)
    parser.add_argument("--peers", default="")
    options = parser.parse_args()
    for _ in range(options.rounds):
        measure(lambda: mimir_ray(options.ingesters), options.idle_s)
    if program := find_peer("prometheus", options.peers):
        measure(lambda: prometheus(program), options.idle_s)


if __name__ == "__main__":
    main()
