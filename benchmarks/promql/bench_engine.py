"""Where the CPU time of queries goes, without network and actors: the engine over one database.

    python benchmarks/promql/bench_engine.py [--series 10000] [--hours 6] [--repeats 20] [--profile] [name part]

The queries and the data are those of benchmarks/system/bench_queries.py. Plans run as in a cluster of one ingester:
fragments are pickled to the owner of the series and parts back. Columns, in µs of one thread, median: `plan` (a
text that was not seen before), `owner` (of that `select`: postings, decoding and labels), `travel` (pickling both
ways), `engine` (the rest), `json`; ended by the sum and the sizes of what travels and of the answer.
"""

from __future__ import annotations

import argparse
import cProfile
import pickle
import pstats
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks" / "system")]

from bench_queries import SUITE  # noqa: E402
from load import series_of, values_of  # noqa: E402

from mimir_ray.clock import SystemClock  # noqa: E402
from mimir_ray.kernel import warm_up  # noqa: E402
from mimir_ray.model.result import QueryResult  # noqa: E402
from mimir_ray.model.selection import Selection  # noqa: E402
from mimir_ray.model.series import SeriesBatch  # noqa: E402
from mimir_ray.model.tenant import DEFAULT_TENANT  # noqa: E402
from mimir_ray.model.write import WriteBatch  # noqa: E402
from mimir_ray.promql.engine import Engine  # noqa: E402
from mimir_ray.promql.operators.fragment import execute_fragment  # noqa: E402
from mimir_ray.promql.plan.fragment import Fragment, FragmentPart  # noqa: E402
from mimir_ray.testing.writes import label_section  # noqa: E402
from mimir_ray.tsdb.database import Database, DatabaseSettings  # noqa: E402
from mimir_ray.tsdb.wal.writer import WalSettings  # noqa: E402
from mimir_ray.wire.query_json import query_response  # noqa: E402

INTERVAL_MS = 15_000
SCRAPES_A_PUSH = 20
EXTRA: dict[str, tuple[str, int, int]] = {
    "long: rate of one metric": ("rate(c12_total[5m])", 3600, 15),
    "long: gauge as it is": ("g40", 3600, 15),
    "long: sum of everything": ('sum(last_over_time({__name__=~"c.*"}[5m]))', 3600, 60),
    "wide: top of all": ("topk(10, g43)", 0, 0),
    "wide: instant of one metric": ("g43", 0, 0),
}


def load(database: Database, series: int, hours: float, end_ms: int) -> None:
    """The history, scrape by scrape."""
    scrapes = int(hours * 3_600_000 / INTERVAL_MS)
    values = values_of(series, scrapes)
    start_ms = end_ms - (scrapes - 1) * INTERVAL_MS
    sections = [label_section(labels) for labels in series_of(series)]
    cuts = np.concatenate(([0], np.cumsum([len(one) for one in sections]))).astype(np.int64)
    none = (np.zeros(0, np.int32), np.zeros(0, np.int64), np.zeros(0, np.float64))
    rows = np.arange(series, dtype=np.int32)
    first = WriteBatch(
        DEFAULT_TENANT, 0, *none, b"".join(sections), cuts, rows, np.full(series, start_ms), values[0].copy()
    )
    references = database.push([first], end_ms)[0].new_references
    for scrape in range(1, scrapes):
        known = WriteBatch(
            DEFAULT_TENANT,
            database.head.incarnation,
            references,
            np.full(series, start_ms + scrape * INTERVAL_MS),
            values[scrape].copy(),
        )
        database.push([known], end_ms)


@dataclass
class Spent:
    """CPU seconds of one query's stages."""

    owner: float = 0.0
    select: float = 0.0
    travel: float = 0.0
    bytes: int = 0


@dataclass
class Owner:
    """A source whose fragments run on the database behind a pickle's wall."""

    database: Database
    spent: Spent = field(default_factory=Spent)

    @property
    def fragments(self) -> Owner:
        return self

    def select(self, selection: Selection) -> Iterator[SeriesBatch]:
        began = time.thread_time()
        for batch in self.database.select(selection):
            self.spent.select += time.thread_time() - began
            yield batch
            began = time.thread_time()
        self.spent.select += time.thread_time() - began

    def run(self, fragment: Fragment) -> Iterator[FragmentPart]:
        sent = self._travel(fragment)
        began = time.thread_time()
        parts = list(execute_fragment(sent, _Inside(self)))
        self.spent.owner += time.thread_time() - began
        yield from self._travel(parts)

    def _travel(self, what: Any) -> Any:
        began = time.thread_time()
        buffers: list[pickle.PickleBuffer] = []
        data = pickle.dumps(what, protocol=5, buffer_callback=buffers.append)
        self.spent.bytes += len(data) + sum(len(one.raw()) for one in buffers)
        what = pickle.loads(data, buffers=[bytes(one.raw()) for one in buffers])
        self.spent.travel += time.thread_time() - began
        return what


@dataclass
class _Inside:
    """What an owner's fragments read: without fragments of its own."""

    owner: Owner

    def select(self, selection: Selection) -> Iterator[SeriesBatch]:
        return self.owner.select(selection)


def run(engine: Engine, source: Any, query: tuple[str, int, int], end_ms: int) -> QueryResult:
    text, range_s, step_s = query
    if not range_s:
        return engine.instant(text, source, end_ms)
    return engine.range(text, source, end_ms - range_s * 1000, end_ms, step_s * 1000)


def measure(database: Database, name: str, query: tuple[str, int, int], end_ms: int, repeats: int) -> None:
    engine = Engine()
    rows = []
    size = travelled = 0
    for number in range(repeats + 1):
        source = Owner(database)
        back = end_ms - INTERVAL_MS * (number % 60)
        fresh = Engine()
        began = time.thread_time()
        fresh.plan(query[0], back - query[1] * 1000, back, query[2] * 1000, fragments=True)
        plan_s = time.thread_time() - began
        began = time.thread_time()
        result = run(engine, source, query, back)
        query_s = time.thread_time() - began
        began = time.thread_time()
        size = len(query_response(result))
        json_s = time.thread_time() - began
        spent = source.spent
        travelled = spent.bytes
        rest_s = query_s - spent.owner - spent.travel
        if not spent.owner:
            rest_s -= spent.select
        rows.append((plan_s, spent.owner, spent.select, spent.travel, rest_s, json_s, query_s + json_s))
    middle = np.median(np.array(rows[1:]), axis=0) * 1e6
    figures = "".join(f"{one:>8.0f}" for one in middle)
    print(f"{name:<28}{figures} {travelled / 1024:>9.1f} {size / 1024:>9.1f}", flush=True)


def profile(database: Database, name: str, query: tuple[str, int, int], end_ms: int, repeats: int) -> None:
    engine = Engine()
    query_response(run(engine, Owner(database), query, end_ms))
    profiler = cProfile.Profile()
    profiler.enable()
    for _ in range(repeats):
        query_response(run(engine, Owner(database), query, end_ms))
    profiler.disable()
    print(f"== {name}: {query[0]}")
    pstats.Stats(profiler).sort_stats("tottime").print_stats(28)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("part", nargs="?", default="")
    parser.add_argument("--series", type=int, default=10_000)
    parser.add_argument("--hours", type=float, default=6.0)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--profile", action="store_true", help="cProfile of each query instead")
    options = parser.parse_args()
    warm_up()
    end_ms = 1_700_000_000_000 // INTERVAL_MS * INTERVAL_MS
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        database = Database(Path(folder), DatabaseSettings(wal=WalSettings(fsync="off")), SystemClock())
        load(database, options.series, options.hours, end_ms)
        columns = ("plan", "owner", "select", "travel", "engine", "json", "sum")
        print(f"{options.series:,} series, {options.hours:g} h; µs of CPU a query")
        print(f"{'':<28}" + "".join(f"{one:>8}" for one in columns) + f" {'KiB sent':>9} {'KiB out':>9}")
        for name, query in (SUITE | EXTRA).items():
            if options.part in name:
                (profile if options.profile else measure)(database, name, query, end_ms, options.repeats)
        database.close()


if __name__ == "__main__":
    main()
