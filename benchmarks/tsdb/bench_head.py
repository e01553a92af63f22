"""A tenant's database: new series, known samples, reads, checkpoint, restart.

    python benchmarks/tsdb/bench_head.py [series] [scrapes] [samples a push]

Per CPU-second of one thread; the WAL is written (no fsync) to a folder in memory if there is one.
The push of known samples is shown beside a plain copy of the same columns.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from mimir_ray.clock import SystemClock
from mimir_ray.kernel import REGISTRY
from mimir_ray.model.matchers import Matcher, MatchType
from mimir_ray.model.selection import Selection
from mimir_ray.model.tenant import DEFAULT_TENANT
from mimir_ray.model.write import WriteBatch
from mimir_ray.testing.writes import label_section
from mimir_ray.tsdb.database import Database, DatabaseSettings
from mimir_ray.tsdb.wal.writer import WalSettings

START_MS = 1_700_000_000_000
SCRAPE_MS = 15_000
SETTINGS = DatabaseSettings(wal=WalSettings(fsync="off"))


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def section(number: int) -> bytes:
    """Eleven labels, a third of them telling series apart."""
    return label_section(
        (
            ("__name__", f"metric_{number % 200}_total"), ("az", "eu-central-1a"), ("cluster", "production"),
            ("container", "app"), ("instance", f"10.0.{number // 51_200}.{number // 200 % 256}:9090"),
            ("job", "node-exporter"), ("mode", f"m{number % 8}"), ("namespace", "monitoring"),
            ("pod", f"pod-{number // 100}-x7k2p"), ("region", "eu-central-1"), ("zone", "a"),
        )
    )  # fmt: skip


def main(series: int, scrapes: int, push: int) -> None:
    for one in REGISTRY.values():
        one.compile_now()
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        measure(Path(folder), series, scrapes, push)


def measure(directory: Path, series: int, scrapes: int, push: int) -> None:
    database = Database(directory, SETTINGS, SystemClock())
    none = (np.zeros(0, np.int32), np.zeros(0, np.int64), np.zeros(0, np.float64))
    batches = []
    for first in range(0, series, push):
        sections = [section(number) for number in range(first, min(first + push, series))]
        cuts = np.concatenate(([0], np.cumsum([len(one) for one in sections]))).astype(np.int64)
        rows = np.arange(len(sections), dtype=np.int32)
        batches.append(
            WriteBatch(
                DEFAULT_TENANT,
                0,
                *none,
                b"".join(sections),
                cuts,
                rows,
                np.full(len(rows), START_MS),
                np.ones(len(rows)),
            )
        )
    before = resident_bytes()
    references = []
    spent = 0.0
    for batch in batches:
        started = time.thread_time()
        result = database.push([batch], START_MS)[0]
        spent += time.thread_time() - started
        references.append(result.new_references)
    print(f"new series           {series / spent / 1e3:9.0f} k/s")

    rng = np.random.default_rng(1)
    took, copies = [], 0.0
    incarnation = database.head.incarnation
    for scrape in range(1, scrapes):
        values = np.round(rng.normal(50, 10, push), 2)
        for some in references:
            batch = WriteBatch(
                DEFAULT_TENANT,
                incarnation,
                some,
                np.full(len(some), START_MS + scrape * SCRAPE_MS),
                values[: len(some)],
            )
            started = time.thread_time()
            database.push([batch], START_MS)
            took.append(time.thread_time() - started)
            started = time.thread_time()
            batch.references.copy(), batch.timestamps.copy(), batch.values.copy()
            copies += time.thread_time() - started
        if scrape == 20:
            stats = database.stats.head
            print(
                f"memory at 20 samples {(resident_bytes() - before) / series:9.0f} B/series resident, "
                f"{stats.bytes / series:.0f} B in arrays"
            )
    times = np.array(took) * 1e6
    rate = series * (scrapes - 1) / times.sum()
    print(f"known samples        {rate:9.2f} M/s, {times.sum() / 1e6 / copies:.0f} x a copy")
    print(
        f"a push of {push:<10,} {np.median(times):9.0f} us, p99 {np.percentile(times, 99):.0f}, most {times.max():.0f}"
    )

    for name, value in (("one metric", "metric_7_total"), ("everything", ".+")):
        kind = MatchType.REGEX if name == "everything" else MatchType.EQUAL
        selection = Selection((Matcher(kind, "__name__", value),), 0, 1 << 60)
        best, count = np.inf, 0
        for _ in range(3):
            started = time.thread_time()
            count = sum(batch.samples for batch in database.select(selection))
            best = min(best, time.thread_time() - started)
        print(f"read {name:15} {count / best / 1e6:9.1f} M samples/s, {best * 1e3:.1f} ms for {count}")

    database.close()
    started = time.thread_time()
    database = Database(directory, SETTINGS, SystemClock())
    print(f"replay of the WAL    {time.thread_time() - started:9.2f} s")
    started = time.thread_time()
    database.checkpoint()
    print(f"checkpoint           {time.thread_time() - started:9.2f} s")
    database.close()
    started = time.thread_time()
    Database(directory, SETTINGS, SystemClock()).close()
    print(f"start from it        {time.thread_time() - started:9.2f} s")


if __name__ == "__main__":
    main(*(int(one) for one in sys.argv[1:]), *(100_000, 60, 2_000)[len(sys.argv) - 1 :])
