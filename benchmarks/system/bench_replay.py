"""Many active series: memory, queries while samples come in, and the replay after kill -9 of the ingester.

python benchmarks/system/bench_replay.py [--series 1000000] [--scrapes 6]
"""

from __future__ import annotations

import argparse
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
from bench_ingest import flat, requests_of
from load import Template, send
from queries import ask
from servers import Server, mimir_ray

QUERIES = {
    "count": 'count({__name__=~".+",pod!=""})',
    "sum by": "sum by (namespace) (c20_total)",
    "rate, sum by": "sum by (job) (rate(c20_total[1m]))",
    "one series": 'g40{pod="pod-3"}',
}
REPLAY_TIMEOUT_S = 600.0


def pids_of(server: Server, name: str) -> list[int]:
    """Of the actors with this class."""
    return [
        pid for pid in server.pids() if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(f"ray::{name}".encode())
    ]


def number(server: Server, query: str) -> float:
    result = ask(server, "query", {"query": query})["result"]
    return float(result[0]["value"][1]) if result else 0.0


def query_until(server: Server, stop: threading.Event) -> dict[str, list[float]]:
    """Seconds that each query took, in turn, until told to stop."""
    took: dict[str, list[float]] = {name: [] for name in QUERIES}
    while not stop.is_set():
        for name, query in QUERIES.items():
            began = time.perf_counter()
            ask(server, "query", {"query": query})
            took[name].append(time.perf_counter() - began)
            stop.wait(0.5)
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--series", type=int, default=1_000_000)
    parser.add_argument("--scrapes", type=int, default=6)
    parser.add_argument("--connections", type=int, default=4)
    options = parser.parse_args()
    requests = requests_of(options.series, options.scrapes, 2_000)
    with mimir_ray() as server:
        first = Template([(("__name__", "first"),)])
        send(server, iter([(1, first.request([int(time.time() * 1000)], np.zeros((1, 1))))]), 1)
        server.settle()
        idle = server.memory_bytes()
        new = send(server, iter(requests[0]), options.connections)
        stop, took = threading.Event(), {}
        asking = threading.Thread(target=lambda: took.update(query_until(server, stop)))
        asking.start()
        burst = send(server, flat(requests[1:]), options.connections)
        stop.set()
        asking.join()
        server.settle()
        settled, count = server.memory_bytes(), number(server, QUERIES["count"])
        print(f"{options.series:,} series, {options.scrapes} scrapes; errors: {(new.errors + burst.errors)[:2]}")
        p99_ms = np.quantile(new.latencies_s, 0.99) * 1e3
        print(f"new series/CPU-s   {new.samples / new.cpu_s:12,.0f}, p99 {p99_ms:.0f} ms")
        print(f"samples/CPU-s      {burst.samples / burst.cpu_s:12,.0f}, queries included")
        print(f"memory             {settled / 2**20:12,.0f} MiB, {(settled - idle) / options.series:,.0f} B a series")
        for name, seconds in took.items():
            print(f"{name:<18} {np.median(seconds) * 1e3:12,.0f} ms, {max(seconds) * 1e3:,.0f} at most, while writing")
        (ingester,) = pids_of(server, "IngesterActor")
        cpu, began = server.cpu_s(), time.perf_counter()
        os.kill(ingester, signal.SIGKILL)
        found = 0.0
        while found != count and time.perf_counter() - began < REPLAY_TIMEOUT_S:
            time.sleep(0.5)
            try:
                found = number(server, QUERIES["count"])
            except RuntimeError:
                continue  # it says that it is not ready
        took_s, spent_s = time.perf_counter() - began, server.cpu_s() - cpu
        print(f"replay             {took_s:12.1f} s, {spent_s:.1f} CPU-s, {found:,.0f} series")
        server.settle()
        print(f"memory             {server.memory_bytes() / 2**20:12,.0f} MiB afterwards")


if __name__ == "__main__":
    main()
