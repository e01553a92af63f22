"""Queries over blocks: cold (no header, no cache), warm, and Prometheus on the same blocks.

python benchmarks/bucket/bench_store_gateway.py [series] [hours] [prometheus] [hours a block] [s a sample] [queries]

Without more: blocks of two hours with a sample every 15 s, and all queries, not the first ones. Range queries have at
most 1,440 steps. Ours: one store-gateway and the engine in this process, without Ray and HTTP; Prometheus over HTTP, on
a copy of the folder: just started, and asked again.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from pathlib import Path

import numpy as np
from prometheus_client import CollectorRegistry

from mimir_ray.bucket.filesystem import FilesystemBucket
from mimir_ray.bucket.store_config import BucketStoreConfig
from mimir_ray.clock import SystemClock
from mimir_ray.cluster.ring.lookup import RingView
from mimir_ray.cluster.ring.model import STORE_GATEWAY, InstanceDesc, InstanceId, InstanceState, RingDesc
from mimir_ray.config.limits import Limits
from mimir_ray.model.labels import LabelColumns, labels_of
from mimir_ray.model.tenant import TenantId
from mimir_ray.promql.engine import Engine, EngineOptions
from mimir_ray.promql.source import Selection
from mimir_ray.roles.store_gateway.actor import ring_options
from mimir_ray.roles.store_gateway.config import StoreGatewayConfig
from mimir_ray.roles.store_gateway.metrics import StoreGatewayMetrics
from mimir_ray.roles.store_gateway.store_gateway import StoreGateway
from mimir_ray.testing.bucket_blocks import put_index, ulid_of
from mimir_ray.tsdb.block.chunk_merge import encode_runs
from mimir_ray.tsdb.block.decode import Samples
from mimir_ray.tsdb.block.meta import BlockMeta
from mimir_ray.tsdb.block.writer import write_block

HOUR = 3_600_000
TENANT = TenantId("bench")
QUERIES = (
    ("one series, instant", 'metric_1_total{instance="host-1:9100"}', False),
    ("one series, range", 'rate(metric_1_total{instance="host-1:9100"}[5m])', True),
    ("one metric, sum rate", "sum(rate(metric_1_total[5m]))", True),
    ("regex, sum by", 'sum by (zone) (rate(metric_2_total{instance=~"host-.*[02468]:9100"}[5m]))', True),
    ("regex by RE2, sum by", 'sum by (zone) (rate(metric_2_total{instance=~"\\\\bhost-.*[02468]:9100"}[5m]))', True),
    ("all series, count", "count(last_over_time({job='node'}[5m]))", False),
    ("all series, sum rate", "sum by (zone) (rate({job='node'}[5m]))", True),
)


class Source:
    """The engine's way to one store-gateway, without a querier; which asks, too, for blocks of the time in question."""

    def __init__(self, gateway: StoreGateway, metas: list[BlockMeta]) -> None:
        self.gateway, self.metas = gateway, metas

    def select(self, selection: Selection):
        ulids = [one.ulid for one in self.metas if one.min_time <= selection.maxt and selection.mint < one.max_time]
        page = self.gateway.select_blocks(TENANT, tuple(ulids), selection)
        yield from page.batches
        while page.cursor:
            page = self.gateway.next_blocks_page(page.cursor)
            yield from page.batches


def make_blocks(root: Path, series: int, hours: int, end: int, block_hours: int, every_ms: int) -> list[BlockMeta]:
    rng = np.random.default_rng(1)
    sets = LabelColumns.from_labels([
        labels_of(
            {"__name__": f"metric_{n % 20}_total", "instance": f"host-{n}:9100", "job": "node", "zone": f"z{n % 3}"}
        )
        for n in range(series)
    ])  # fmt: skip
    metas = []
    for number in range(hours // block_hours):
        begin = end - (hours // block_hours - number) * block_hours * HOUR
        samples = block_hours * HOUR // every_ms
        times = np.tile(begin + np.arange(samples) * every_ms, series)
        values = np.cumsum(rng.integers(0, 100, (series, samples)), 1).astype(float).ravel()
        offsets = np.arange(series + 1, dtype=np.int64) * samples
        table, data = encode_runs(Samples(offsets, times, values))
        metas.append(
            write_block(root / TENANT, ulid_of(number), sets, table, [data], begin, begin + block_hours * HOUR)
        )
    return metas


def open_gateway(root: Path, folder: Path) -> StoreGateway:
    tokens = np.sort(np.random.default_rng(1).integers(0, 1 << 32, 64, np.uint32))
    me = InstanceDesc(InstanceId("g"), "g", "", InstanceState.ACTIVE, tokens, SystemClock().now_ms(), 1)
    config = StoreGatewayConfig()
    view = RingView(RingDesc(STORE_GATEWAY, 1, SystemClock().now_ms(), {me.id: me}), ring_options(config))
    gateway = StoreGateway(
        FilesystemBucket(root), folder, BucketStoreConfig(), config, SystemClock(),
        StoreGatewayMetrics(CollectorRegistry()), lambda _: Limits(max_fetched_chunks_per_query=0), lambda: view, me.id,
    )  # fmt: skip
    gateway.open()
    return gateway


class Prometheus:
    def __init__(self, binary: str, blocks: Path, folder: Path) -> None:
        self.binary, self.folder = binary, folder
        shutil.copytree(blocks, folder / "data")
        for meta in (folder / "data").iterdir():
            if not (meta / "meta.json").exists():
                shutil.rmtree(meta, ignore_errors=True)
        (folder / "prometheus.yml").write_text("global: {}\n")

    def __enter__(self) -> Prometheus:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.process = subprocess.Popen(
            [self.binary, f"--config.file={self.folder / 'prometheus.yml'}",
             f"--storage.tsdb.path={self.folder / 'data'}",
             f"--web.listen-address=127.0.0.1:{self.port}", "--storage.tsdb.retention.time=10y", "--log.level=error",
             "--query.max-samples=500000000"],
        )  # fmt: skip
        for _ in range(200):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/-/ready", timeout=1).read()
                return self
            except OSError:
                time.sleep(0.1)
        raise RuntimeError("Prometheus did not start")

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait()

    def ask(self, query: str, start: int, end: int, step_ms: int, ranged: bool) -> int:
        what = {"query": query, "time": end / 1000}
        path = "query"
        if ranged:
            path, what = (
                "query_range",
                {"query": query, "start": start / 1000, "end": end / 1000, "step": step_ms / 1000},
            )
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(what)}"
        return len(urllib.request.urlopen(url, timeout=120).read())


def timed(work, times: int = 1) -> float:
    """The median, in ms."""
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return sorted(taken)[len(taken) // 2] * 1000


def main(series: int, hours: int, binary: str, block_hours: int, every_ms: int, first: int) -> None:
    queries = QUERIES[:first]
    end = int(time.time() * 1000) // (24 * HOUR) * 24 * HOUR - 24 * HOUR
    step_ms = max(60_000, hours * HOUR // 1440)
    start = end - hours * HOUR
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        metas = make_blocks(folder / "bucket", series, hours, end, block_hours, every_ms)
        put_index(FilesystemBucket(folder / "bucket"), TENANT, metas, int(time.time()))
        size = sum(path.stat().st_size for path in (folder / "bucket").rglob("*") if path.is_file())
        samples = sum(meta.stats.samples for meta in metas)
        print(f"{len(metas)} blocks, {series} series, {samples / 1e6:.1f} M samples, {size / samples:.2f} B/sample")
        engine = Engine(EngineOptions(max_samples=500_000_000))

        def ours(gateway: StoreGateway, query: str, ranged: bool) -> None:
            source = Source(gateway, metas)
            if ranged:
                engine.range(query, source, start, end - 1, step_ms)
            else:
                engine.instant(query, source, end - 1)

        for _, query, ranged in queries:
            ours(open_gateway(folder / "bucket", folder / "first"), query, ranged)  # loads kernels
        began = time.perf_counter()
        open_gateway(folder / "bucket", folder / "ready")
        print(f"ready after {(time.perf_counter() - began) * 1000:.1f} ms")
        cold, warm = [], []
        for number, (_, query, ranged) in enumerate(queries):
            gateway = open_gateway(folder / "bucket", folder / f"sync-{number}")
            cold.append(timed(lambda: ours(gateway, query, ranged)))  # noqa: B023
            warm.append(timed(lambda: ours(gateway, query, ranged), 3))  # noqa: B023
        their_cold, their_warm = [float("nan")] * len(queries), [float("nan")] * len(queries)
        if binary:
            peer = Prometheus(binary, folder / "bucket" / TENANT, folder / "prometheus")
            for number, (_, query, ranged) in enumerate(queries):
                with peer:
                    their_cold[number] = timed(lambda: peer.ask(query, start, end - 1, step_ms, ranged))  # noqa: B023
                    their_warm[number] = timed(lambda: peer.ask(query, start, end - 1, step_ms, ranged), 3)  # noqa: B023
        print(f"{'ms':26} {'cold':>9} {'warm':>9} | {'Prometheus started':>18} {'again':>9}")
        for row in zip(queries, cold, warm, their_cold, their_warm, strict=True):
            print(f"{row[0][0]:26} {row[1]:9.1f} {row[2]:9.1f} | {row[3]:18.1f} {row[4]:9.1f}")


if __name__ == "__main__":
    arguments = sys.argv[1:]
    main(
        int(arguments[0]) if arguments else 5000,
        int(arguments[1]) if len(arguments) > 1 else 24,
        arguments[2] if len(arguments) > 2 else "",
        int(arguments[3]) if len(arguments) > 3 else 2,
        int(arguments[4]) * 1000 if len(arguments) > 4 else 15_000,
        int(arguments[5]) if len(arguments) > 5 else len(QUERIES),
    )
