"""Head compaction: CPU-seconds of cutting two hours of many series, and how long pushes wait meanwhile.

    python benchmarks/tsdb/bench_compaction.py [series] [scrapes in two hours]

Prints a row each for the compaction and for pushes of 2,000 samples before and during it.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mimir_ray.clock import SystemClock
from mimir_ray.kernel import load_imported
from mimir_ray.model.labels import labels_of
from mimir_ray.model.tenant import TenantId
from mimir_ray.model.write import WriteBatch
from mimir_ray.testing.writes import label_section
from mimir_ray.tsdb.database import Database, DatabaseSettings
from mimir_ray.tsdb.wal.writer import WalSettings

BATCH = 2000
START_MS = 1_700_006_400_000
RANGE_MS = 2 * 3_600_000
TENANT = TenantId("bench")


def labels(number: int) -> bytes:
    return label_section(
        labels_of(
            {
                "__name__": f"m{number % 50}",
                "instance": f"{number // 50}.host",
                "job": "j",
                "namespace": f"ns{number % 20}",
                "pod": f"pod-{number}",
                "cluster": "c",
                "zone": "z",
            }
        )
    )


class Load:
    """All series, known to the database."""

    def __init__(self, database: Database, series: int) -> None:
        self.database = database
        self.values = np.zeros(series)
        self.references: list[NDArray[np.int32]] = []
        none = np.zeros(0, np.int32)
        for first in range(0, series, BATCH):
            sections = [labels(number) for number in range(first, first + BATCH)]
            cuts = np.concatenate(([0], np.cumsum([len(one) for one in sections]))).astype(np.int64)
            batch = WriteBatch(
                TENANT, 0, none, none.astype(np.int64), np.zeros(0), b"".join(sections), cuts,
                np.arange(BATCH, dtype=np.int32), np.full(BATCH, START_MS, np.int64), np.zeros(BATCH),
            )  # fmt: skip
            self.references.append(database.push([batch], 0)[0].new_references)

    def scrape(self, at_ms: int, pause_s: float = 0.0) -> list[float]:
        """A sample for every series; how long each push took, in seconds."""
        self.values += np.arange(len(self.values)) % 7
        took = []
        for number, references in enumerate(self.references):
            values = self.values[number * BATCH : (number + 1) * BATCH]
            batch = WriteBatch(
                TENANT, self.database.head.incarnation, references, np.full(BATCH, at_ms, np.int64), values
            )
            began = time.perf_counter()
            result = self.database.push([batch], 0)[0]
            took.append(time.perf_counter() - began)
            assert not result.refusals
            time.sleep(pause_s)
        return took


def row(name: str, took: list[float]) -> str:
    p50, p99 = np.percentile(took, (50, 99)) * 1000
    return f"{name:>16}: {len(took)} pushes, p50 {p50:.2f} ms, p99 {p99:.2f} ms, longest {1000 * max(took):.0f} ms"


def main(series: int, scrapes: int) -> None:
    load_imported()
    step = RANGE_MS // scrapes
    with tempfile.TemporaryDirectory() as folder:
        database = Database(Path(folder), DatabaseSettings(wal=WalSettings(fsync="off")), SystemClock())
        load = Load(database, series)
        at = START_MS
        before: list[float] = []
        while at <= START_MS + RANGE_MS * 3 // 2:
            at += step
            before = [*before, *load.scrape(at)][-2000:]
        cpu: list[float] = []

        def compact() -> None:
            began = time.thread_time()
            (meta,) = database.compact()
            cpu.append(time.thread_time() - began)
            size = sum(path.stat().st_size for path in database.blocks.path(meta.ulid).rglob("*") if path.is_file())
            rate = meta.stats.samples / cpu[0] / 1e6
            print(f"{'compaction':>16}: {cpu[0]:.2f} CPU-s, {meta.stats.samples} samples, {rate:.1f} M samples/CPU-s, "
                  f"{size / meta.stats.samples:.2f} B/sample")  # fmt: skip

        thread = threading.Thread(target=compact)
        thread.start()
        during: list[float] = []
        while thread.is_alive():
            at += 1000
            during += load.scrape(at, 0.002)
        thread.join()
        print(row("pushes before", before))
        print(row("pushes meanwhile", during))
        database.close()


if __name__ == "__main__":
    main(*(int(one) for one in (*sys.argv[1:], *("100000", "480")[len(sys.argv) - 1 :])))
