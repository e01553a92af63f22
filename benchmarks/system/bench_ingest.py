"""Samples per CPU-second and memory per series of a whole deployment, beside a Prometheus in the same run.

python benchmarks/system/bench_ingest.py [--series 20000] [--scrapes 20] [--ingesters 1] [--peers FOLDER]

Best case: the same series in the same order in every request. The scrape that creates the series is timed apart.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator

import numpy as np
from load import Template, send, series_of, values_of
from queries import ask
from servers import Server, find_prometheus, mimir_ray, prometheus

INTERVAL_MS = 15_000


def requests_of(series_count: int, scrapes: int, batch: int) -> list[list[tuple[int, bytes]]]:
    """Per scrape, the requests (samples, body). The last scrape is of now."""
    series, values = series_of(series_count), values_of(series_count, scrapes)
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


def flat(requests: list[list[tuple[int, bytes]]]) -> Iterator[tuple[int, bytes]]:
    return (one for scrape in requests for one in scrape)


def measure(server: Server, requests: list[list[tuple[int, bytes]]], options: argparse.Namespace) -> dict[str, float]:
    # One series first: what a first write starts up belongs to no series.
    send(
        server,
        iter([(1, Template([(("__name__", "first"),)]).request([int(time.time() * 1000)], np.zeros((1, 1))))]),
        1,
    )
    server.settle()
    idle = server.memory_bytes()
    new = send(server, iter(requests[0]), options.connections)
    burst = send(server, flat(requests[1:]), options.connections)
    cpu = server.cpu_s()
    server.settle()
    after, settled = server.cpu_s() - cpu, server.memory_bytes()
    for error in (new.errors + burst.errors)[:3]:
        print(f"  {server.name}: {error}")
    found = 0.0
    for name in {dict(labels)["__name__"] for labels in series_of(50)}:
        data = ask(server, "query", {"query": f"sum(count_over_time({name}[1d]))"})
        found += float(data["result"][0]["value"][1]) if data["result"] else 0.0
    return {
        "samples/CPU-s": burst.samples / (burst.cpu_s + after),
        "new series/CPU-s": new.samples / new.cpu_s,
        "samples/s": burst.samples / burst.wall_s,
        "p50 ms": float(np.median(burst.latencies_s)) * 1e3,
        "p99 ms": float(np.quantile(burst.latencies_s, 0.99)) * 1e3,
        "idle MiB": idle / 2**20,
        "B/series": (settled - idle) / options.series,
        "missing": new.samples + burst.samples - found,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--series", type=int, default=20_000)
    parser.add_argument("--scrapes", type=int, default=20)
    parser.add_argument("--batch", type=int, default=2_000, help="series in a request")
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--ingesters", type=int, default=1)
    parser.add_argument("--peers", default="", help="folder with a prometheus")
    options = parser.parse_args()
    rows: dict[str, dict[str, float]] = {}
    if program := find_prometheus(options.peers):
        with prometheus(program) as server:
            rows[server.name] = measure(server, requests_of(options.series, options.scrapes, options.batch), options)
    with mimir_ray(options.ingesters) as server:
        rows[server.name] = measure(server, requests_of(options.series, options.scrapes, options.batch), options)
    print(f"{options.series:,} series, {options.scrapes} scrapes, {options.connections} connections")
    names = list(rows)
    print(f"{'':>18}" + "".join(f"{name:>14}" for name in names) + ("         ratio" if len(names) > 1 else ""))
    for figure in rows[names[-1]]:
        values = [rows[name][figure] for name in names]
        ratio = f"{values[-1] / values[0]:>13.2f}x" if len(values) > 1 and values[0] else ""
        print(f"{figure:>18}" + "".join(f"{value:>14,.1f}" for value in values) + ratio)


if __name__ == "__main__":
    main()
