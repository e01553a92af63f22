"""How fast requests are read and passed on: `python benchmarks/wire/bench_write_path.py`.

Best case: every series is known and canonical. Worst cases: every series is new, or in another form. Ratios are
to protobuf's own parser in the same run. CPU time, medians.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import snappy
import zstandard
from prometheus_client import CollectorRegistry

from mimir_ray.clock import SystemClock
from mimir_ray.cluster.ring.elections import Elected, Elections
from mimir_ray.config.instance_limits import DistributorInstanceLimits
from mimir_ray.config.tenant_rules import RelabelConfig
from mimir_ray.model.labels import LabelColumns, Labels, labels_of
from mimir_ray.model.result import Matrix, QueryResult
from mimir_ray.model.tenant import TenantId
from mimir_ray.roles.api import WriteBatch, WriteResult
from mimir_ray.roles.distributor.ha_tracker import HaTracker
from mimir_ray.roles.distributor.metrics import HaTrackerMetrics
from mimir_ray.wire.compression import decompress
from mimir_ray.wire.exposition import parse_exposition
from mimir_ray.wire.pb.prompb.io.prometheus.write.v2 import types_pb2 as v2
from mimir_ray.wire.pb.prompb.remote_pb2 import WriteRequest
from mimir_ray.wire.protobuf import encode_labels
from mimir_ray.wire.query_json import query_response
from mimir_ray.wire.remote_write import encode_write_request, scan_write_request
from mimir_ray.wire.remote_write_v2 import scan_write_request_v2
from tests.roles.distributor.fakes import NOW_MS, TENANT, Setup

SERIES = 2000
KEY = (3, 5, 7, 9)


def seconds(work: Callable[[], object], rounds: int = 50) -> float:
    """Median CPU seconds of one call."""
    work()
    found = []
    for _ in range(rounds):
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return statistics.median(found)


def request_2_of(metadata: bool = True) -> bytes:
    """The same series by remote write 2.0, with metadata beside each as Prometheus sends it."""
    request = v2.Request(symbols=[""])
    known = {"": 0}

    def symbol(text: str) -> int:
        if text not in known:
            known[text] = len(request.symbols)
            request.symbols.append(text)
        return known[text]

    for at, labels in enumerate(series_labels()):
        one = request.timeseries.add(labels_refs=[symbol(text) for pair in labels for text in pair])
        one.samples.add(timestamp=NOW_MS, value=at * 1.5)
        if metadata:
            one.metadata.type = 1  # type: ignore[assignment]
            one.metadata.help_ref = symbol(f"How many requests came, number {at % 20}.")
    return request.SerializeToString()  # type: ignore[no-any-return]


def series_labels() -> list[Labels]:
    """2,000 series with 11 labels."""
    return [
        labels_of(
            {"__name__": f"http_requests_total_{at % 20}", "pod": f"deploy-{at:06d}-abcde", "instance": f"10.0.0.{at}"}
            | {f"label_{place:02d}": f"value-{place * at % 97:04d}" for place in range(8)}
        )
        for at in range(SERIES)
    ]


def request_of(canonical: bool = True) -> bytes:
    """2,000 series with 11 labels, one sample each."""
    series = []
    for at, labels in enumerate(series_labels()):
        raw = [(name.encode(), value.encode()) for name, value in labels]
        series.append((encode_labels(raw if canonical else raw[::-1]), [(NOW_MS, at * 1.5)]))
    return encode_write_request(series)


class Sink:
    """An ingester that only hands out references."""

    def __init__(self) -> None:
        self._series = 0

    async def push(self, batches: list[WriteBatch]) -> list[WriteResult]:
        results = []
        for batch in batches:
            count = len(batch.label_offsets) - 1
            results.append(WriteResult(1, new_references=np.arange(self._series, self._series + count, dtype=np.int32)))
            self._series += count
        return results


def all_rules() -> dict[str, Any]:
    """Every rule of the distributor at once, as arguments of `Setup`; a twentieth of the series is dropped."""
    elections = Elections(SystemClock())

    async def claim(*asked: Any) -> Elected:
        return elections.claim(*asked)

    return {
        "ha_tracker": HaTracker(claim, SystemClock(), HaTrackerMetrics(CollectorRegistry())),
        "instance_limits": lambda: DistributorInstanceLimits(max_ingestion_rate=1e12),
        "accept_ha_samples": True,
        "ha_cluster_label": "label_00",
        "ha_replica_label": "label_01",
        "drop_labels": ("label_02",),
        "metric_relabel_configs": (
            RelabelConfig(source_labels=("__name__",), regex="http_requests_total_17", action="drop"),
            RelabelConfig(source_labels=("pod",), regex="deploy-(.*)-abcde", target_label="deploy"),
        ),
        "request_rate": 1e12,
        "request_burst_size": 10**12,
        "separate_metrics_group_label": "label_03",
    }


def pushes(body: bytes, ingesters: int, replicas: int, new: bool, version: str = "1.0", **rules: Any) -> float:
    """Median CPU seconds of one push."""
    scan = scan_write_request if version == "1.0" else scan_write_request_v2
    setup = Setup(
        ingesters,
        replicas,
        ingestion_rate=1e12,
        ingestion_burst_size=10**12,
        max_global_exemplars_per_user=1000,
        **rules,
    )
    setup.fakes = {name: Sink() for name in setup.fakes}  # type: ignore[misc]
    found = []

    async def work() -> None:
        await setup.distributor.push(TENANT, body, scan, version)
        await setup.distributor.drain()
        for number in range(50):
            start = time.process_time()
            await setup.distributor.push(TenantId(f"t{number}") if new else TENANT, body, scan, version)
            await setup.distributor.drain()
            found.append(time.process_time() - start)

    asyncio.run(work())
    return statistics.median(found)


def main() -> None:
    body, odd = request_of(), request_of(canonical=False)
    print(f"request: {SERIES} series, {len(body) / SERIES:.0f} bytes each")
    peer = seconds(lambda: WriteRequest.FromString(body))
    scan = seconds(lambda: scan_write_request(body, KEY))
    print(f"scan                  {SERIES / scan / 1e6:8.2f} M samples/s, {peer / scan:.1f} x protobuf's parser")
    body_2 = request_2_of()
    print(f"request of 2.0: {len(body_2) / SERIES:.0f} bytes a series")
    peer_2 = seconds(lambda: v2.Request.FromString(body_2))
    scan_2 = seconds(lambda: scan_write_request_v2(body_2, KEY))
    print(f"scan of 2.0           {SERIES / scan_2 / 1e6:8.2f} M samples/s, {peer_2 / scan_2:.1f} x protobuf's parser")
    for name, sent in (("1.0", body), ("2.0", body_2)):
        for encoding, compress in (("snappy", snappy.compress), ("zstd", zstandard.compress)):
            packed = compress(sent)
            spent = seconds(lambda: decompress(packed, encoding, 1 << 30))  # noqa: B023
            print(f"body of {name}, {encoding:6} {len(packed) / SERIES:4.0f} bytes a series, {spent * 1e6:5.0f} µs")
    for name, sent, new, version in (
        ("known", body, False, "1.0"),
        ("known, 2.0", body_2, False, "2.0"),
        ("known, unsorted", odd, False, "1.0"),
        ("new", body, True, "1.0"),
        ("new, 2.0", body_2, True, "2.0"),
        ("new, unsorted", odd, True, "1.0"),
    ):
        for ingesters, replicas in ((1, 1), (5, 3)):
            spent = pushes(sent, ingesters, replicas, new, version)
            rate = SERIES / spent / 1e6
            print(f"push {name:16} {replicas} of {ingesters} {spent * 1e6:8.0f} µs, {rate:.2f} M samples/s")
    every = RelabelConfig(source_labels=("__name__",), regex=".*", action="drop")
    for name, rules, new in (
        ("known, all rules", all_rules(), False),
        ("new, HA and drop_labels", all_rules() | {"metric_relabel_configs": ()}, True),
        ("new, all rules", all_rules(), True),
        ("known, all dropped", {"metric_relabel_configs": (every,)}, False),
    ):
        spent = pushes(body, 1, 1, new, **rules)
        print(f"push {name:24} 1 of 1 {spent * 1e6:8.0f} µs, {SERIES / spent / 1e6:.2f} M samples/s")
    points = 500_000
    labels = LabelColumns.from_labels([labels_of({"__name__": "m", "pod": f"p{at}"}) for at in range(500)])
    times = np.tile(np.arange(points // 500) * 15_000 + NOW_MS, 500)
    for name, values in (
        ("random", np.random.default_rng(1).random(points) * 1000),
        ("whole", np.arange(points) * 1.0),
    ):
        result = QueryResult(Matrix(labels, np.arange(501) * (points // 500), times, values))
        print(f"query JSON, {name:9} {points / seconds(lambda: query_response(result), 5) / 1e6:8.2f} M points/s")  # noqa: B023
    text = "".join(f'http_bucket{{path="/api/{at}",le="{at}"}} {at * 1.5}\n' for at in range(10_000)).encode()
    print(f"exposition            {seconds(lambda: parse_exposition(text), 10) * 1e3:8.1f} ms for 10,000 samples")


if __name__ == "__main__":
    main()
