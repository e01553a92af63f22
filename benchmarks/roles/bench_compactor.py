"""Whole compactions in a folder: a day of 2 h blocks from some replicas to a block of 24 h, checks and copies included.

python benchmarks/roles/bench_compactor.py [series] [replicas] [shards]

A sample counts once for each job that reads it: for 2 h (where there are replicas or shards), for 12 h and for 24 h.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from prometheus_client import CollectorRegistry

from mimir_ray.bucket.filesystem import FilesystemBucket
from mimir_ray.clock import SystemClock
from mimir_ray.cluster.ring.lookup import RingOptions, RingView
from mimir_ray.cluster.ring.model import COMPACTOR, InstanceDesc, InstanceId, InstanceState, RingDesc
from mimir_ray.config.limits import Limits
from mimir_ray.config.units import Duration
from mimir_ray.model.labels import LabelColumns, labels_of
from mimir_ray.model.tenant import TenantId
from mimir_ray.roles.compactor.compactor import Compactor
from mimir_ray.roles.compactor.config import CompactorConfig
from mimir_ray.roles.compactor.job_run import JobRunner, upload_block
from mimir_ray.roles.compactor.merging import merge_folders
from mimir_ray.roles.compactor.metrics import CompactorMetrics
from mimir_ray.roles.compactor.ownership import Ownership
from mimir_ray.tsdb.block.decode import Samples
from mimir_ray.tsdb.block.encode import encode_runs
from mimir_ray.tsdb.block.meta import make_ulid
from mimir_ray.tsdb.block.writer import write_block
from mimir_ray.tsdb.compact.health import check_index

HOUR, STEP = 3_600_000, 15_000
START = 1_699_920_000_000 // (24 * HOUR) * 24 * HOUR
TENANT = TenantId("bench")


def compactor(bucket: FilesystemBucket, scratch: Path, shards: int, registry: CollectorRegistry) -> Compactor:
    name = InstanceId("compactor-0")
    tokens = np.array([1], np.uint32)
    desc = InstanceDesc(name, "", state=InstanceState.ACTIVE, tokens=tokens, heartbeat_ms=1)
    view = RingView(RingDesc(COMPACTOR, 1, 1, {name: desc}), RingOptions())
    config = CompactorConfig(first_level_compaction_wait_period=Duration(0))
    clock, metrics, rng = SystemClock(), CompactorMetrics(registry), np.random.default_rng(2)
    runner = JobRunner(bucket, scratch, merge_folders, check_index, 4, clock, metrics, lambda: rng.bytes(10))
    limits = Limits(compactor_split_and_merge_shards=shards)
    ownership = Ownership(name, lambda: view, lambda _: 0)
    return Compactor(config, bucket, lambda _: limits, ownership, runner, clock, metrics, rng, lambda _: False)


def fill(bucket: FilesystemBucket, folder: Path, series: int, replicas: int, hours: int) -> int:
    """Ships blocks as ingesters do; how many samples they have."""
    rng = np.random.default_rng(1)
    sets = [
        labels_of({"__name__": f"metric_{n % 100}_total", "instance": f"host-{n // 100}:9100", "job": "node"})
        for n in range(series)
    ]
    columns = LabelColumns.from_labels(sets)
    each = 2 * HOUR // STEP
    offsets = np.arange(series + 1, dtype=np.int64) * each
    for start in range(START, START + hours * HOUR, 2 * HOUR):
        times = np.tile(start + np.arange(each) * STEP, series)
        values = np.cumsum(rng.integers(0, 100, (series, each)), 1).astype(float).ravel()
        table, data = encode_runs(Samples(offsets, times, values))
        for _ in range(replicas):
            ulid = make_ulid(start, rng.bytes(10))
            write_block(folder, ulid, columns, table, [data], start, start + 2 * HOUR)
            upload_block(bucket, TENANT, folder / ulid, ulid, 4)
    return series * each * replicas * hours // 2


def main(series: int, replicas: int, shards: int) -> None:
    with tempfile.TemporaryDirectory() as root:
        for warm_up in (True, False):
            folder = Path(root) / str(warm_up)
            bucket = FilesystemBucket(folder / "blocks")
            hours = 4 if warm_up else 24
            total = fill(bucket, folder / "made", 20 if warm_up else series, replicas, hours)
            registry = CollectorRegistry()
            one = compactor(bucket, folder / "scratch", shards, registry)
            began, cpu = time.perf_counter(), time.process_time()
            one.compact_all()
            wall, cpu = time.perf_counter() - began, time.process_time() - cpu
        made = registry.get_sample_value("cortex_compactor_compacted_samples_total") or 0
        jobs = registry.get_sample_value("cortex_compactor_group_compactions_total") or 0
        first = total if replicas > 1 or shards else 0
        read = first + 2 * total / replicas  # to 12 h, to 24 h
        print(
            f"{total / 1e6:.1f} M samples in {replicas} replicas of {series} series, {jobs:.0f} jobs, {shards} shards"
        )
        print(f"M samples/CPU-s: read {read / cpu / 1e6:.2f}, wrote {made / cpu / 1e6:.2f}")
        print(f"cpu {cpu:.2f} s, wall {wall:.2f} s")
        print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    given = [int(one) for one in sys.argv[1:]]
    main(*given, *(2000, 3, 0)[len(given) :])
