"""Blocks: bytes per sample, and samples per CPU-second written, cut from a head, and read.

python benchmarks/tsdb/bench_block.py [series] [samples]
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mimir_ray.model.labels import LabelColumns, labels_of
from mimir_ray.model.selection import Selection
from mimir_ray.testing.writes import write_batch
from mimir_ray.tsdb.block.chunk_merge import encode_runs
from mimir_ray.tsdb.block.decode import Samples
from mimir_ray.tsdb.block.from_head import block_from_head
from mimir_ray.tsdb.block.meta import make_ulid
from mimir_ray.tsdb.block.reader import Block
from mimir_ray.tsdb.block.writer import write_block
from mimir_ray.tsdb.chunks.files import ChunkFiles
from mimir_ray.tsdb.head.head import Head

START, STEP = 1_699_999_200_000, 15_000


def timed(name: str, samples: int, work: Callable[[], Any]) -> Any:
    start, cpu = time.perf_counter(), time.process_time()
    result = work()
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    print(f"{name:34} {samples / cpu / 1e6:8.1f} M samples/CPU-s  cpu {cpu:6.2f} s  wall {wall:6.2f} s")
    return result


def main(series: int, samples: int) -> None:
    rng = np.random.default_rng(1)
    total = series * samples
    times = np.tile(START + np.arange(samples) * STEP, series)
    values = np.cumsum(rng.integers(0, 100, (series, samples)), 1).astype(float).ravel()
    offsets = np.arange(series + 1, dtype=np.int64) * samples
    sets = [
        labels_of(
            {"__name__": f"metric_{n % 100}_total", "instance": f"host-{n // 100}:9100", "job": "node"}
            | {f"label_{k}": f"value_{n % (3 + k)}" for k in range(8)}
        )
        for n in range(series)
    ]
    end = START + samples * STEP
    everything = Selection((), START, end)
    ulids = (make_ulid(START + number, bytes(10)) for number in range(10))
    with tempfile.TemporaryDirectory() as folder:
        parent = Path(folder)
        # Compiles or loads the kernels.
        for _ in range(2):
            small, data = encode_runs(Samples(offsets[:3], times[: 2 * samples], values[: 2 * samples]))
            warm = write_block(parent, next(ulids), LabelColumns.from_labels(sets[:2]), small, [data], START, end)
            list(Block(parent / warm.ulid).select(everything))
        table, data = timed("encode", total, lambda: encode_runs(Samples(offsets, times, values)))
        columns = LabelColumns.from_labels(sets)
        meta = timed("write encoded chunks", total, lambda: write_block(
            parent, next(ulids), columns, table, [data], START, end
        ))  # fmt: skip
        size = Block(parent / meta.ulid)
        index = (parent / meta.ulid / "index").stat().st_size
        print(f"{'':34} {size.bytes / total:8.2f} bytes/sample, index {index / series:.0f} bytes/series")
        head = Head(ChunkFiles(parent / "head"))
        for first in range(0, series, 1000):
            new = [
                (sets[n], list(zip(times[n * samples :][:samples].tolist(), values[n * samples :][:samples].tolist(),
                                   strict=True)))
                for n in range(first, min(series, first + 1000))
            ]  # fmt: skip
            head.push([write_batch(new=new)], 0)
        block_from_head(head, START, START + STEP, parent, next(ulids))
        timed("cut from a head", total, lambda: block_from_head(head, START, end, parent, next(ulids)))
        block = Block(parent / meta.ulid)
        timed("open: read the index", total, block.series)
        read = timed("select everything, cold", total, lambda: sum(b.samples for b in block.select(everything)))
        assert read == total
        timed("select everything, warm", total, lambda: sum(b.samples for b in block.select(everything)))


if __name__ == "__main__":
    main(*(int(one) for one in sys.argv[1:3])) if len(sys.argv) > 2 else main(20_000, 480)
