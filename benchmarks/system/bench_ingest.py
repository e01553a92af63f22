"""Samples and new series per CPU-second, memory per series, latency of writes: a whole deployment beside its peers.

python benchmarks/system/bench_ingest.py [--series 20000] [--scrapes 20] [--rules none|all|both] [--rounds 1]
    [--ingesters 1] [--peers FOLDER]

Peers are a Prometheus and a VictoriaMetrics, where they are found. Best case: the same series in the same order in
every request. The scrape that creates the series is timed apart. Every server gets the same requests; with rules they
carry the label of an HA replica.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial

import numpy as np
from load import Template, send, series_of, values_of
from queries import ask
from servers import ALL_RULES, Server, busy_s, find_peer, mimir_ray, prometheus, victoria_metrics

INTERVAL_MS = 15_000
VISIBLE_AFTER_S = 5.0
"""VictoriaMetrics shows samples to queries only after some seconds."""
Requests = list[list[tuple[int, bytes]]]


def requests_of(series_count: int, scrapes: int, batch: int, replica: str = "") -> Requests:
    """Per scrape, the requests (samples, body). The last scrape is of now."""
    series, values = series_of(series_count, replica), values_of(series_count, scrapes)
    first_ms = int(time.time()) * 1000 - (scrapes - 1) * INTERVAL_MS
    cuts = range(0, series_count, batch)
    templates = [Template(series[cut : cut + batch]) for cut in cuts]
    return [
        [
            (len(part), template.request([first_ms + scrape * INTERVAL_MS], part[None]))
            for cut, template in zip(cuts, templates, strict=True)
            if len(part := values[scrape, cut : cut + batch])
        ]
        for scrape in range(scrapes)
    ]


def flat(requests: Requests) -> Iterator[tuple[int, bytes]]:
    return (one for scrape in requests for one in scrape)


def measure(server: Server, requests: Requests, options: argparse.Namespace) -> dict[str, float]:
    # One series first: what a first write starts up belongs to no series.
    first = [(("__name__", "first"), ("__replica__", "a"), ("cluster", "cluster-0"))]
    send(server, iter([(1, Template(first).request([int(time.time() * 1000)], np.zeros((1, 1))))]), 1)
    server.settle()
    idle, cpu = server.memory_bytes(), server.cpu_s()
    time.sleep(2.0)
    idle_cpu = (server.cpu_s() - cpu) / 2
    new = send(server, iter(requests[0]), options.connections)
    busy, own, began = busy_s(), server.cpu_s() + time.process_time(), time.monotonic()
    burst = send(server, flat(requests[1:]), options.connections)
    foreign = (busy_s() - busy - (server.cpu_s() + time.process_time() - own)) / (time.monotonic() - began)
    cpu, began = server.cpu_s(), time.monotonic()
    server.settle()
    after = server.cpu_s() - cpu - idle_cpu * (time.monotonic() - began)
    settled = server.memory_bytes()
    for error in (new.errors + burst.errors)[:3]:
        print(f"  {server.name}: {error}")
    time.sleep(VISIBLE_AFTER_S)
    found = 0.0
    for name in {dict(labels)["__name__"] for labels in series_of(50)}:
        data = ask(server, "query", {"query": f"sum(count_over_time({name}[1d]))"})
        found += float(data["result"][0]["value"][1]) if data["result"] else 0.0
    return {
        "samples/CPU-s": burst.samples / (burst.cpu_s + max(0.0, after)),
        "new series/CPU-s": new.samples / new.cpu_s,
        "samples/s": burst.samples / burst.wall_s,
        "p50 ms": float(np.median(burst.latencies_s)) * 1e3,
        "p99 ms": float(np.quantile(burst.latencies_s, 0.99)) * 1e3,
        "idle MiB": idle / 2**20,
        "idle CPU %": idle_cpu * 100,
        "B/series": (settled - idle) / options.series,
        "missing": new.samples + burst.samples - found,
        "foreign CPUs": foreign,
    }


def servers_of(options: argparse.Namespace) -> list[Callable[[], AbstractContextManager[Server]]]:
    found: list[Callable[[], AbstractContextManager[Server]]] = []
    if program := find_peer("prometheus", options.peers):
        found.append(partial(prometheus, program))
    if program := find_peer("victoria-metrics", options.peers):
        found.append(partial(victoria_metrics, program))
    if options.rules != "all":
        found.append(partial(mimir_ray, options.ingesters))
    if options.rules != "none":
        found.append(partial(mimir_ray, options.ingesters, ALL_RULES))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--series", type=int, default=20_000)
    parser.add_argument("--scrapes", type=int, default=20)
    parser.add_argument("--batch", type=int, default=2_000, help="series in a request")
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--ingesters", type=int, default=1)
    parser.add_argument("--rules", choices=("none", "all", "both"), default="none", help="HA, relabelling, limits, …")
    parser.add_argument("--rounds", type=int, default=1, help="servers take turns so many times; medians are shown")
    parser.add_argument("--peers", default="", help="folder with a prometheus and a victoria-metrics")
    options = parser.parse_args()
    replica = "" if options.rules == "none" else "a"
    rows: dict[str, list[dict[str, float]]] = {}
    for _ in range(options.rounds):
        requests = requests_of(options.series, options.scrapes, options.batch, replica)
        for start in servers_of(options):
            with start() as server:
                rows.setdefault(server.name, []).append(measure(server, requests, options))
    report(rows, options)


def report(rows: dict[str, list[dict[str, float]]], options: argparse.Namespace) -> None:
    """Medians, and behind each figure but the first column's its ratio to the first column."""
    print(f"{options.series:,} series, {options.scrapes} scrapes, {options.connections} connections")
    print(f"{'':>18}" + "".join(f"{name:>22}" for name in rows))
    for figure in next(iter(rows.values()))[0]:
        values = [float(np.median([one[figure] for one in several])) for several in rows.values()]
        ratios = ["", *(f"{value / values[0]:.2f}x" if values[0] > 0 else "" for value in values[1:])]
        print(f"{figure:>18}" + "".join(f"{v:>14,.1f} {r:>7}" for v, r in zip(values, ratios, strict=True)))


if __name__ == "__main__":
    main()
