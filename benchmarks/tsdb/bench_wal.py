"""Samples per second into and out of the write-ahead log, a request of 2,000 samples a record.

python benchmarks/tsdb/bench_wal.py [folder on the disk to measure]
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from mimir_ray.clock import SystemClock
from mimir_ray.encoding.checksum import crc32c
from mimir_ray.tsdb.wal.reader import WalReader
from mimir_ray.tsdb.wal.records import decode_samples, encode_samples
from mimir_ray.tsdb.wal.writer import WalSettings, WalWriter

REQUEST, REQUESTS = 2_000, 1_000


def main() -> None:
    folder = Path(tempfile.mkdtemp(dir=sys.argv[1] if len(sys.argv) > 1 else None))
    references = np.arange(REQUEST, dtype=np.int32)
    times = np.full(REQUEST, 1_700_000_000_000)
    values = np.random.default_rng(1).normal(size=REQUEST)
    try:
        for policy in ("off", "interval", "always"):
            wal = WalWriter(folder / policy, SystemClock(), WalSettings(fsync=policy))
            requests = REQUESTS if policy != "always" else REQUESTS // 10
            wall, cpu = time.perf_counter(), time.process_time()
            for n in range(requests):
                wal.append(encode_samples(references, times + n, values))
                wal.sync()
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            samples, size = requests * REQUEST, wal.bytes_written
            wal.close()
            print(
                f"write, fsync {policy:9} {samples / wall / 1e6:6.1f} M samples/s  {samples / cpu / 1e6:6.1f} M "
                f"samples/CPU-s  {size / samples:.2f} B/sample  {wal.syncs} syncs"
            )
        start = time.perf_counter()
        samples = sum(len(decode_samples(record.payload)) for record in WalReader(folder / "off"))
        seconds = time.perf_counter() - start
        print(f"replay                {samples / seconds / 1e6:6.1f} M samples/s")
        block = values.tobytes() * 1000
        start = time.perf_counter()
        crc32c(block)
        print(f"CRC-32C               {len(block) / (time.perf_counter() - start) / 1e9:6.1f} GB/s")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
