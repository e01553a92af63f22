"""Random native histograms, sent in the same bytes to a real Prometheus and through our write path: equal answers."""

from __future__ import annotations

import json
import math
import random
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import snappy

from mimir_ray.config.limits import Limits
from mimir_ray.model.tenant import DEFAULT_TENANT
from mimir_ray.model.write import WriteBatch
from mimir_ray.promql.engine import Engine, EngineOptions
from mimir_ray.roles.distributor.histograms import admit_histograms
from mimir_ray.tsdb.chunks.files import ChunkFiles
from mimir_ray.tsdb.head.head import Head
from mimir_ray.tsdb.head.settings import HeadSettings
from mimir_ray.wire.pb.prompb import remote_pb2
from mimir_ray.wire.query_json import query_response
from mimir_ray.wire.remote_write import scan_write_request
from tests.integration.prometheus_peer import Prometheus, peer, running_prometheus

PROGRAM = peer("prometheus")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(PROGRAM is None, reason="there is no prometheus to compare with")]

START_MS = 1_700_000_000_000
SCRAPE_MS = 15_000
SCRAPES = 80
BASE = 100_000


def random_request(seed: int) -> Any:
    """Counters with resets, gauges, float and integer ones, changing schemas and zero buckets, gaps, floats."""
    chance = random.Random(seed)
    request = remote_pb2.WriteRequest()
    for number in range(14):
        series = request.timeseries.add()
        name = ("latency", "size", "depth")[number % 3]
        for label, value in (("__name__", name), ("instance", f"i{number}"), ("job", "ab"[number % 2])):
            series.labels.add(name=label, value=value)
        gauge, is_float = name == "depth", number % 4 == 3
        # Never near zero: newer versions do not extrapolate histograms below it.
        counts = [BASE] + [0] * chance.randint(0, 29)
        below = [0] * chance.choice((0, 0, 3))
        first, schema, zero, total = chance.randint(-20, 5), chance.randint(-2, 4), 0, 0.0
        for scrape in range(SCRAPES):
            if chance.random() < 0.03 or (gauge and chance.random() < 0.5):
                counts, below, zero, total = [BASE] + [0] * (len(counts) - 1), [0] * len(below), 0, 0.0
            if chance.random() < 0.02:
                schema = max(-4, schema - 1)
            if chance.random() < 0.1:
                counts.append(0)
            for side in (counts, below):
                for at in range(len(side)):
                    side[at] += chance.choice((0, 0, 1, 5))
            zero += chance.choice((0, 1))
            total += chance.random() * 10
            if chance.random() < 0.05:
                continue
            if number == 5 and scrape % 20 == 10:
                series.samples.add(value=float(scrape), timestamp=START_MS + scrape * SCRAPE_MS)
                continue
            one = series.histograms.add(schema=schema, sum=total, timestamp=START_MS + scrape * SCRAPE_MS)
            one.zero_threshold = 1e-3 if scrape < SCRAPES // 2 or number % 5 else 2e-3
            one.reset_hint = 3 if gauge else 0
            _fill(one, first, counts, below, zero, is_float)
    return request


def _fill(one: Any, first: int, above: list[int], below: list[int], zero: int, is_float: bool) -> None:
    for side, counts in (("positive", above), ("negative", below)):
        if not counts:
            continue
        getattr(one, f"{side}_spans").add(offset=first, length=len(counts))
        if is_float:
            getattr(one, f"{side}_counts").extend(count / 2 for count in counts)
        else:
            getattr(one, f"{side}_deltas").extend(b - a for a, b in zip([0, *counts], counts, strict=False))
    count = sum(above) + sum(below) + zero
    if is_float:
        one.count_float, one.zero_count_float = count / 2, zero / 2
    else:
        one.count_int, one.zero_count_int = count, zero


def by_scrape(request: Any) -> Iterator[Any]:
    """The same as one request a scrape, as a sender would."""
    for scrape in range(SCRAPES):
        at = START_MS + scrape * SCRAPE_MS
        one = remote_pb2.WriteRequest()
        for series in request.timeseries:
            samples = [sample for sample in series.samples if sample.timestamp == at]
            histograms = [histogram for histogram in series.histograms if histogram.timestamp == at]
            if samples or histograms:
                one.timeseries.add(labels=series.labels, samples=samples, histograms=histograms)
        yield one


@dataclass(frozen=True)
class Both:
    theirs: Prometheus
    ours: Head
    engine: Engine


@pytest.fixture(scope="module", params=[1, 2])
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    assert PROGRAM is not None
    bodies = [one.SerializeToString() for one in by_scrape(random_request(request.param))]
    with ExitStack() as stack:
        features = "native-histograms", "promql-experimental-functions"
        theirs = stack.enter_context(running_prometheus(PROGRAM, tmp_path_factory.mktemp("prometheus"), *features))
        headers = {"Content-Encoding": "snappy", "X-Prometheus-Remote-Write-Version": "0.1.0"}
        headers["Content-Type"] = "application/x-protobuf"
        for body in bodies:
            sent = urllib.request.Request(f"{theirs.url}/api/v1/write", snappy.compress(body), headers)
            with urllib.request.urlopen(sent, timeout=30):
                pass
        files = ChunkFiles(tmp_path_factory.mktemp("head"))
        stack.callback(files.close)
        ours = Head(files, HeadSettings())
        for body in bodies:
            push_body(ours, body)
        yield Both(theirs, ours, Engine(EngineOptions(warnings_max=0, infos_max=0)))


def push_body(head: Head, body: bytes) -> None:
    scan = scan_write_request(body, (1, 2, 3, 4))
    scan, refusals = admit_histograms(scan, Limits())
    assert not refusals
    pieces = [scan.data[a:b] for a, b in zip(scan.label_start.tolist(), scan.label_end.tolist(), strict=True)]
    batch = WriteBatch(
        DEFAULT_TENANT,
        0,
        np.zeros(0, np.int32),
        np.zeros(0, np.int64),
        np.zeros(0),
        b"".join(pieces),
        np.cumsum([0, *map(len, pieces)]),
        scan.sample_series,
        scan.timestamps,
        scan.values,
        histograms=scan.columns,
    )
    (result,) = head.push([batch], START_MS)
    assert result.error is None and not result.refusals


QUERIES = [
    "latency",
    "size[3m]",
    "rate(latency[2m])",
    "increase(size[5m])",
    "irate(size[2m])",
    "delta(depth[2m])",
    "idelta(depth[2m])",
    "sum(rate(latency[2m]))",
    "sum by (job) (latency)",
    # Means of different schemas have buckets that exceed the count in the oldest version that we compare with.
    "histogram_sum(avg by (job) (rate(size[4m])))",
    "histogram_count(avg(depth))",
    "count(latency) by (job)",
    "group(latency)",
    "histogram_quantile(0.9, rate(latency[2m]))",
    "histogram_quantile(0.1, latency)",
    "histogram_quantile(0.5, sum(rate(latency[5m])))",
    "histogram_quantile(0.99, sum by (job) (size))",
    "histogram_fraction(0.1, 3, rate(latency[3m]))",
    "histogram_fraction(-1, 0.01, size)",
    "histogram_count(rate(size[2m]))",
    "histogram_sum(increase(size[2m]))",
    "histogram_avg(latency)",
    "histogram_stddev(latency)",
    "histogram_stdvar(sum(size))",
    "sum_over_time(depth[3m])",
    "histogram_avg(avg_over_time(depth[3m]))",
    "count_over_time(size[3m])",
    "last_over_time(size[3m])",
    "present_over_time(latency[1m])",
    "resets(latency[10m])",
    "resets(depth[10m])",
    "changes(size[10m])",
    "latency * 2",
    "3 * size",
    "latency / 4",
    "-latency",
    "latency + latency",
    "latency - ignoring(instance) group_left() sum by (job, __name__) (latency)",
    "latency == latency",
    "latency != latency",
    "latency and size",
    "latency or size",
    "latency unless on (instance) size",
    "timestamp(latency)",
    "absent(latency)",
    "label_replace(latency, 'x', '$1', 'job', '(.*)')",
    "rate(latency[2m:30s])",
    "histogram_quantile(0.8, sum(rate(size[5m:1m])))",
    "max(latency)",
    "topk(2, size)",
    "count_values('v', histogram_count(latency))",
    "scalar(latency)",
    "sort(latency)",
    "abs(latency)",
]


@pytest.mark.parametrize("query", QUERIES)
def test_histograms_have_prometheus_answers(both: Both, query: str) -> None:
    middle, end, step = START_MS + 40 * SCRAPE_MS + 5_000, START_MS + 79 * SCRAPE_MS, 47_000
    theirs = both.theirs.query("query", query=query, time=str(middle / 1000))
    ours = json.loads(query_response(both.engine.instant(query, both.ours, middle)))
    assert not difference(theirs["data"], ours["data"])
    if query.endswith("m]"):
        return
    theirs = both.theirs.query(
        "query_range", query=query, start=str(START_MS / 1000), end=str(end / 1000), step=str(step / 1000)
    )
    ours = json.loads(query_response(both.engine.range(query, both.ours, START_MS, end, step)))
    assert not difference(theirs["data"], ours["data"])


def difference(wanted: Any, found: Any, path: str = "") -> str:
    """Where two answers differ; numbers nearly, the order of series does not matter."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        if wanted.keys() != found.keys():
            return f"{path}: {sorted(wanted)} became {sorted(found)}"
        return next((text for key in wanted if (text := difference(wanted[key], found[key], f"{path}.{key}"))), "")
    if isinstance(wanted, list) and isinstance(found, list):
        if len(wanted) != len(found):
            return f"{path}: {len(wanted)} became {len(found)}: {wanted} / {found}"
        if wanted and isinstance(wanted[0], dict):
            wanted, found = (sorted(each, key=lambda one: sorted(one["metric"].items())) for each in (wanted, found))
        pairs = enumerate(zip(wanted, found, strict=True))
        return next((text for at, (a, b) in pairs if (text := difference(a, b, f"{path}[{at}]"))), "")
    if wanted == found:
        return ""
    try:
        close = math.isclose(float(wanted), float(found), rel_tol=1e-9, abs_tol=1e-12)
    except (TypeError, ValueError):
        close = False
    return "" if close else f"{path}: {wanted!r} became {found!r}"
