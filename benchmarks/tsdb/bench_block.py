"""Blocks: bytes per sample, and samples per CPU-second written, cut from a head, read and merged; histograms too.

python benchmarks/tsdb/bench_block.py [series] [samples]

With promtool (MIMIR_RAY_PEERS, or PATH) its CPU time for reading the same blocks stands beside.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mimir_ray.model.histogram import HistogramColumns, HistogramPart
from mimir_ray.model.labels import LabelColumns, labels_of
from mimir_ray.model.selection import Selection
from mimir_ray.testing.writes import write_batch
from mimir_ray.tsdb.block.decode import Samples, decode
from mimir_ray.tsdb.block.encode import encode_runs
from mimir_ray.tsdb.block.from_head import block_from_head
from mimir_ray.tsdb.block.meta import make_ulid
from mimir_ray.tsdb.block.reader import Block
from mimir_ray.tsdb.block.writer import write_block
from mimir_ray.tsdb.chunks.files import ChunkFiles
from mimir_ray.tsdb.compact.merge import merge_blocks, split_blocks
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
        merging(parent, block, total, START, end)
        histograms(max(1, series // 20), samples)
        compared(parent, Path(folder) / "promtool", {meta.ulid: total})


def merging(parent: Path, block: Block, samples: int, start: int, end: int) -> None:
    """Blocks that follow each other, replicas, and overlapping ones."""
    middle = start + (end - start) // 2 // STEP * STEP
    halves = []
    for number, (mint, maxt) in enumerate([(start, middle), (middle, end), (start + 7 * STEP, end)]):
        ulid = make_ulid(start + number, b"m" * 10)
        merge_blocks([block], mint, maxt, parent, ulid)
        halves.append(Block(parent / ulid))
    ulids = (make_ulid(start + number, b"n" * 10) for number in range(10))
    timed("merge two that follow", samples, lambda: merge_blocks(halves[:2], start, end, parent, next(ulids)))
    timed("merge three replicas", 3 * samples, lambda: merge_blocks([block] * 3, start, end, parent, next(ulids)))
    both = [block, halves[2]]
    timed("merge overlapping, 1 sample off", 2 * samples, lambda: merge_blocks(both, start, end, parent, next(ulids)))
    split = [next(ulids) for _ in range(4)]
    timed("split into four", samples, lambda: split_blocks(halves[:2], start, end, parent, split))


def histograms(series: int, samples: int, buckets: int = 40) -> None:
    """Counters of integer histograms, and the same as float ones."""
    rng = np.random.default_rng(2)
    total = series * samples
    grown = np.cumsum(rng.poisson(0.7, (series, samples, buckets)), 1).astype(np.float64)
    for name, factor in (("integer", 1.0), ("float", 0.7)):
        counts = np.ascontiguousarray((grown * factor).reshape(-1))
        sums = grown.sum(2).ravel() * factor
        none, cuts = np.zeros(total), np.arange(total + 1, dtype=np.int64) * buckets
        columns = HistogramColumns(
            np.full(total, 3, np.int8), np.zeros(total, np.int8), np.full(total, 2.0**-128), none, sums, sums * 1.37,
            cuts, np.tile(np.arange(buckets, dtype=np.int32), total), counts,
            np.zeros(total + 1, np.int64), np.zeros(0, np.int32), np.zeros(0), np.full(total, -1, np.int32),
        )  # fmt: skip
        run = Samples(
            np.arange(series + 1, dtype=np.int64) * samples,
            np.tile(START + np.arange(samples) * STEP, series),
            columns.sum,
            HistogramPart(np.arange(total, dtype=np.int32), columns),
        )
        encode_runs(run)
        table, data = timed(f"encode {name} histograms", total, lambda run=run: encode_runs(run))
        arguments = [data], table.sources, table.starts, table.starts + table.lengths, table.encodings
        decode(*arguments)
        timed(f"decode {name} histograms", total, lambda arguments=arguments: decode(*arguments))
        print(f"{'':34} {len(data) / total:8.2f} bytes/sample of {buckets} buckets")


def compared(parent: Path, folder: Path, blocks: dict[str, int]) -> None:
    """promtool's analysis of blocks, which reads index and chunk headers but decodes no chunk."""
    program = shutil.which(
        "promtool", path=os.pathsep.join([os.environ.get("MIMIR_RAY_PEERS", ""), os.environ["PATH"]])
    )
    if program is None:
        return
    for ulid, samples in blocks.items():
        shutil.copytree(parent / ulid, folder / ulid)
        (folder / "wal").mkdir(exist_ok=True)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        arguments = [program, "tsdb", "analyze", "--extended", str(folder), ulid]
        subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        print(f"{'promtool tsdb analyze --extended':34} {samples / cpu / 1e6:8.1f} M samples/CPU-s  cpu {cpu:6.2f} s")


if __name__ == "__main__":
    main(*(int(one) for one in sys.argv[1:3])) if len(sys.argv) > 2 else main(20_000, 480)
