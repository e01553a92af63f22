"""How fast OTLP requests are read: `python benchmarks/wire/bench_otlp.py`.

Best case: every series is known, so labels are not looked at. Worst case: every series is new and its labels are
translated. Beside them protobuf's own parser, which translates nothing. CPU time, medians.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from mimir_ray.wire.otlp.translate import OtlpSettings, scan_otlp

KEY = (3, 5, 7, 9)
METRICS, POINTS = 50, 100
ATTRIBUTES = ("http.request.method", "http.route", "server.address", "k8s.pod.name", "status")


def request(kind: str) -> bytes:
    """50 metrics of 100 data points with five attributes each."""
    message = ExportMetricsServiceRequest()
    about = message.resource_metrics.add()
    for key in ("service.name", "service.namespace", "service.instance.id", "host.name"):
        about.resource.attributes.add(key=key).value.string_value = f"value-of-{key}"
    metrics = about.scope_metrics.add().metrics
    for number in range(METRICS):
        metric = metrics.add(name=f"app.metric.{number}", unit="s", description="A metric.")
        data = getattr(metric, kind)
        data.aggregation_temporality = 2
        for at in range(POINTS):
            point = data.data_points.add(time_unix_nano=1_700_000_000_000_000_000, start_time_unix_nano=1)
            for key in ATTRIBUTES:
                point.attributes.add(key=key).value.string_value = f"{key}-{at}"
            if kind == "sum":
                point.as_double = at
                continue
            point.count, point.sum = at, at / 2
            if kind == "histogram":
                point.explicit_bounds.extend([0.1, 0.5, 1, 5, 10])
                point.bucket_counts.extend([0, 0, 0, 0, 0, at])
            else:
                point.scale = 3
                point.positive.bucket_counts.extend([1] * at)
    return message.SerializeToString()


def seconds(work: Callable[[], object], rounds: int = 20) -> float:
    work()
    found = []
    for _ in range(rounds):
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return statistics.median(found)


def main() -> None:
    print(f"{'':24}{'samples/s known':>18}{'samples/s new':>18}{'protobuf, points/s':>20}")
    for kind in ("sum", "histogram", "exponential_histogram"):
        body = request(kind)
        settings = OtlpSettings()
        scan = scan_otlp(body, KEY, settings)
        samples = scan.samples + scan.histograms

        def new(body: bytes = body, settings: OtlpSettings = settings) -> None:
            found = scan_otlp(body, KEY, settings)
            found.need_labels(np.arange(len(found)))

        known = seconds(lambda body=body, settings=settings: scan_otlp(body, KEY, settings))
        parsed = seconds(lambda body=body: ExportMetricsServiceRequest.FromString(body))
        print(
            f"{kind:24}{samples / known:>18,.0f}{samples / seconds(new, 5):>18,.0f}{METRICS * POINTS / parsed:>20,.0f}"
        )


if __name__ == "__main__":
    main()
