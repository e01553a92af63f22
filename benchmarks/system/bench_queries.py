"""Time and CPU of queries on two hours of history, beside a Prometheus in the same run, and whether answers agree.

python benchmarks/system/bench_queries.py [--series 5000] [--hours 2] [--ingesters 1] [--peers FOLDER]

By name: small ones (what a request costs at least), wide ones (every series of many pods), long ones (many steps).
"""

from __future__ import annotations

import argparse
import http.client
import time
from contextlib import ExitStack

import numpy as np
from load import Template, send, series_of, values_of
from queries import agree, ask
from servers import Server, find_peer, mimir_ray, prometheus

INTERVAL_MS = 15_000
PER_REQUEST = 20

RATE = "rate(c12_total[5m])"
BUCKETS = "rate(latency_seconds_bucket[5m])"
SUITE: dict[str, tuple[str, int, int]] = {
    # name: query, range s (0: instant), step s
    "small: constant": ("1 + 1", 0, 0),
    "small: one series": ('g40{pod="pod-3"}', 0, 0),
    "small: rate of one pod": ('rate(c12_total{pod="pod-3"}[5m])', 0, 0),
    "small: absent": ('absent(g40{pod="nobody"})', 0, 0),
    "wide: count of all": ('count by (__name__) ({__name__=~".+"})', 0, 0),
    # Of sums that differ: which of equal ones are among the ten is not defined.
    "wide: top of sums": ("topk(10, sum by (pod) (avg_over_time(g43[5m])))", 0, 0),
    "wide: increase of 1 h": ("sum by (job) (increase(c20_total[1h]))", 0, 0),
    "long: sum by namespace": (f"sum by (namespace) ({RATE})", 3600, 15),
    "long: sum by pod": (f"sum by (pod) ({RATE})", 3600, 15),
    "long: buckets": (f"sum by (le) ({BUCKETS})", 3600, 60),
    "long: quantile of buckets": (f"histogram_quantile(0.99, sum by (le, job) ({BUCKETS}))", 3600, 60),
    "long: ratio": ("g40 / on (pod) g41", 3600, 60),
    "long: join": (f"{RATE} * on (pod) group_left () g40", 3600, 60),
    "long: over time": ("max by (job) (max_over_time(g42[10m]))", 3600, 60),
    "long: subquery": (f"max_over_time(sum by (namespace) ({RATE})[30m:1m])", 1800, 60),
    "long: subquery of seconds": (f"max_over_time(sum({RATE})[1h:1s])", 0, 0),
}


def load(server: Server, options: argparse.Namespace, end_ms: int) -> None:
    """The history, 20 samples of a series in a request."""
    scrapes = int(options.hours * 3_600_000 / INTERVAL_MS) // PER_REQUEST * PER_REQUEST
    series, values = series_of(options.series), values_of(options.series, scrapes)
    start_ms = end_ms - (scrapes - 1) * INTERVAL_MS
    cuts = range(0, options.series, 500)
    templates = [Template(series[cut : cut + 500], PER_REQUEST) for cut in cuts]
    sent = send(
        server,
        (
            (part.size, template.request([start_ms + (scrape + k) * INTERVAL_MS for k in range(PER_REQUEST)], part))
            for scrape in range(0, scrapes, PER_REQUEST)
            for cut, template in zip(cuts, templates, strict=True)
            if (part := values[scrape : scrape + PER_REQUEST, cut : cut + 500]).size
        ),
        2,
    )
    if sent.errors:
        raise RuntimeError(f"{server.name}: {len(sent.errors)} requests failed: {sent.errors[0]}")
    server.settle()


def parameters(query: str, range_s: int, step_s: int, end_s: int) -> tuple[str, dict[str, str]]:
    if not range_s:
        return "query", {"query": query, "time": str(end_s)}
    return "query_range", {"query": query, "start": str(end_s - range_s), "end": str(end_s), "step": str(step_s)}


def measure(server: Server, query: tuple[str, int, int], end_s: int, seconds: float) -> tuple[float, float]:
    """(p50 ms, CPU ms a query); every repetition ends 15 s earlier, so that no answer is just repeated."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    for back in range(2):
        ask(server, *parameters(*query, end_s - 15 * back), connection)
    took: list[float] = []
    cpu, deadline = server.cpu_s(), time.perf_counter() + seconds
    while time.perf_counter() < deadline or len(took) < 3:
        began = time.perf_counter()
        ask(server, *parameters(*query, end_s - 15 * (len(took) % 60)), connection)
        took.append(time.perf_counter() - began)
    used = server.cpu_s() - cpu
    connection.close()
    return float(np.median(took)) * 1e3, used / len(took) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--series", type=int, default=5_000)
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--seconds", type=float, default=1.0, help="time for each query")
    parser.add_argument("--ingesters", type=int, default=1)
    parser.add_argument("--peers", default="", help="folder with a prometheus")
    options = parser.parse_args()
    end_ms = int(time.time() * 1000) // INTERVAL_MS * INTERVAL_MS
    with ExitStack() as stack:
        servers = [stack.enter_context(mimir_ray(options.ingesters))]
        if program := find_peer("prometheus", options.peers):
            servers.append(stack.enter_context(prometheus(program)))
        for server in servers:
            load(server, options, end_ms)
        print(f"{options.series:,} series, {options.hours:g} h; p50 ms and CPU ms a query")
        print(f"{'':<28}" + "".join(f"{server.name:>12} {'CPU':>7}" for server in servers) + "   ratio   agree")
        ratios = []
        for name, query in SUITE.items():
            figures = [measure(server, query, end_ms // 1000, options.seconds) for server in servers]
            line = f"{name:<28}" + "".join(f"{p50:>12.2f} {cpu:>7.2f}" for p50, cpu in figures)
            if len(figures) > 1:
                ratios.append(figures[0][0] / figures[1][0])
                request = parameters(*query, end_ms // 1000)
                same = 1.0 if name == "small: constant" else agree(*(ask(server, *request) for server in servers))
                line += f"  {ratios[-1]:>5.2f}x  {same:>6.3f}"
            print(line, flush=True)
        if ratios:
            print(f"geometric mean of the ratios: {float(np.exp(np.mean(np.log(ratios)))):.2f}x")


if __name__ == "__main__":
    main()
