"""What native histograms cost in queries and on their way in: `python -m benchmarks.promql.bench_histograms`.

100 series of 240 histograms with 40 buckets each, hints as chunks give them; 49 steps. CPU time of one thread, best of
three.
"""

from __future__ import annotations

import functools
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from mimir_ray.config.limits import Limits
from mimir_ray.model.histogram import HistogramColumns, HistogramPart
from mimir_ray.model.labels import LabelColumns
from mimir_ray.model.selection import Selection
from mimir_ray.model.series import SeriesBatch
from mimir_ray.model.tenant import DEFAULT_TENANT
from mimir_ray.model.write import WriteBatch
from mimir_ray.promql.engine import Engine
from mimir_ray.roles.distributor.histograms import admit_histograms
from mimir_ray.tsdb.chunks.files import ChunkFiles
from mimir_ray.tsdb.head.head import Head
from mimir_ray.wire.pb.prompb import remote_pb2
from mimir_ray.wire.remote_write import scan_write_request

SERIES, SAMPLES, BUCKETS, STEPS = 100, 240, 40, 49
QUERIES = (
    "h",
    "rate(h[5m])",
    "sum by (job) (rate(h[5m]))",
    "histogram_quantile(0.9, sum by (job) (rate(h[5m])))",
    "histogram_quantile(0.9, h)",
    "histogram_count(h)",
    "sum(h)",
    "h + h",
)


def example() -> SeriesBatch:
    """Counters that grow."""
    count = SERIES * SAMPLES
    grown = np.random.default_rng(1).integers(0, 5, (SERIES, SAMPLES, BUCKETS)).cumsum(axis=1)
    buckets = grown.astype(np.float64).reshape(count, BUCKETS)
    hints = np.full((SERIES, SAMPLES), 2, np.int8)
    hints[:, ::120] = 0
    columns = HistogramColumns(
        np.full(count, 3, np.int8), hints.ravel(), np.full(count, 1e-6), np.zeros(count), buckets.sum(axis=1),
        buckets.sum(axis=1) * 2, np.arange(count + 1) * BUCKETS, np.tile(np.arange(BUCKETS, dtype=np.int32), count),
        buckets.ravel(), np.zeros(count + 1, np.int64), np.zeros(0, np.int32), np.zeros(0),
        np.full(count, -1, np.int32),
    )  # fmt: skip
    names = [(("__name__", "h"), ("instance", f"{one:03}"), ("job", str(one % 5))) for one in range(SERIES)]
    times = np.tile(np.arange(SAMPLES, dtype=np.int64) * 15_000, SERIES)
    part = HistogramPart(np.arange(count, dtype=np.int32), columns)
    return SeriesBatch(
        LabelColumns.from_labels(names), np.arange(SERIES + 1) * SAMPLES, times, columns.sum.copy(), part
    )


class Source:
    """One batch, whatever is asked."""

    def __init__(self, batch: SeriesBatch) -> None:
        self.batch = batch

    def select(self, selection: Selection) -> Iterator[SeriesBatch]:
        yield self.batch


def best_cpu_seconds(run: Callable[[], object]) -> float:
    run()
    best = float("inf")
    for _ in range(3):
        began = time.process_time()
        run()
        best = min(best, time.process_time() - began)
    return best


def request(at: int) -> bytes:
    """1,000 integer histograms, as Prometheus sends them."""
    message = remote_pb2.WriteRequest()
    for number in range(1000):
        series = message.timeseries.add()
        for name, value in (("__name__", "h"), ("instance", f"{number:04}")):
            series.labels.add(name=name, value=value)
        one = series.histograms.add(schema=3, sum=1.5, timestamp=at, count_int=BUCKETS * (at // 15_000 + 1))
        one.positive_spans.add(offset=-5, length=BUCKETS)
        one.positive_deltas.extend([at // 15_000 + 1, *([0] * (BUCKETS - 1))])
    return bytes(message.SerializeToString())


def push(head: Head, body: bytes) -> None:
    scan, _ = admit_histograms(scan_write_request(body, (1, 2, 3, 4)), Limits())
    pieces = [scan.data[a:b] for a, b in zip(scan.label_start.tolist(), scan.label_end.tolist(), strict=True)]
    offsets = np.cumsum([0, *map(len, pieces)])
    nothing = np.zeros(0, np.int32), np.zeros(0, np.int64), np.zeros(0)
    batch = WriteBatch(
        DEFAULT_TENANT, 0, *nothing, b"".join(pieces), offsets, scan.sample_series, scan.timestamps, scan.values,
        histograms=scan.columns,
    )  # fmt: skip
    (result,) = head.push([batch], 0)
    assert result.error is None and not result.refusals


def main() -> None:
    source, engine = Source(example()), Engine()
    end = 600_000 + (STEPS - 1) * 60_000
    for query in QUERIES:
        ask = functools.partial(engine.range, query, source, 600_000, end, 60_000)
        seconds = best_cpu_seconds(ask)
        print(f"{query:52} {seconds * 1e3:8.1f} ms {seconds / SERIES / STEPS * 1e6:7.1f} us a cell")
    bodies = [request(turn * 15_000) for turn in range(30)]
    scans = best_cpu_seconds(lambda: admit_histograms(scan_write_request(bodies[0], (1, 2, 3, 4)), Limits()))
    with tempfile.TemporaryDirectory() as folder:
        files = ChunkFiles(Path(folder))
        head = Head(files)
        push(head, bodies[0])
        began = time.process_time()
        for body in bodies[1:]:
            push(head, body)
        stored = (time.process_time() - began) / (len(bodies) - 1)
        size = head.stats.bytes / 1000 / len(bodies)
        files.close()
    print(f"{'read from a request':52} {scans * 1e3:8.1f} us a histogram")
    print(f"{'read and stored':52} {stored * 1e3:8.1f} us a histogram, {size:.0f} B in memory")


if __name__ == "__main__":
    main()
