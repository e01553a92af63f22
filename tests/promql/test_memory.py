"""Batches stay bounded: what a query holds does not grow with the series that it reads."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mimir_ray.clock import ManualClock
from mimir_ray.model.labels import LabelColumns, StringTable
from mimir_ray.model.result import Vector
from mimir_ray.model.series import SeriesBatch
from mimir_ray.model.tenant import DEFAULT_TENANT
from mimir_ray.model.write import WriteBatch
from mimir_ray.promql.engine import Engine
from mimir_ray.promql.operators import contenders, execution, labels
from mimir_ray.promql.source import SERIES_PER_BATCH, Selection, SeriesSource
from mimir_ray.testing.writes import label_section
from mimir_ray.tsdb.database import Database, DatabaseSettings
from mimir_ray.tsdb.wal.writer import WalSettings

SAMPLES, SCRAPE_MS = 20, 15_000
NOW = SAMPLES * SCRAPE_MS
JOBS = 4


class Endless:
    """So many series, each of a pod of its own, made batch by batch as they are asked for."""

    def __init__(self, series: int) -> None:
        self.series = series

    def select(self, selection: Selection) -> Iterator[SeriesBatch]:
        for first in range(0, self.series, selection.batch_series):
            pods = range(first, min(first + selection.batch_series, self.series))
            table = StringTable(["", "x", *(f"job-{job}" for job in range(JOBS)), *(f"pod-{pod:09}" for pod in pods)])
            count = len(pods)
            codes = np.stack((np.ones(count), 2 + np.array(pods) % JOBS, 2 + JOBS + np.arange(count)), axis=1)
            columns = LabelColumns(("__name__", "job", "pod"), codes.astype(np.int32), table)
            times = np.tile(np.arange(1, SAMPLES + 1) * SCRAPE_MS, count)
            offsets = np.arange(count + 1, dtype=np.int64) * SAMPLES
            values = np.repeat(np.array(pods, np.float64), SAMPLES) + times / 1e6
            yield SeriesBatch(columns, offsets, times, values)


def peak_bytes(query: str, source: SeriesSource) -> int:
    """Of everything that numpy and Python allocate meanwhile."""
    engine = Engine()
    tracemalloc.start()
    try:
        value = engine.instant(query, source, NOW).value
        assert isinstance(value, Vector)
        assert len(value)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "query",
    [
        "sum(rate(x[5m]))",
        "count by (job) (x)",
        "avg by (job) (avg_over_time(x[5m]))",
        "max(x) - min(y)",
        "stddev by (job) (x * 2)",
    ],
)
def test_aggregations_hold_one_batch_however_many_series_there_are(query: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "SERIES_PER_BATCH", 512)
    # Of the last 16 batches the strings are remembered, so that sources may answer in turns.
    few, many = Endless(20 * 512), Endless(60 * 512)
    peak_bytes(query, few)
    small, large = peak_bytes(query, few), peak_bytes(query, many)
    assert large < 1.05 * small + 10_000


@pytest.mark.parametrize(
    "query",
    [
        "topk(10, last_over_time(x[5m]))",
        "bottomk by (job) (3, x)",
        "limitk by (job) (3, x * 2)",
        "limit_ratio(0.001, x)",
        'count_values("value", floor(x / 1e5))',
    ],
)
def test_rankings_hold_those_that_may_be_kept_however_many_series_there_are(
    query: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execution, "SERIES_PER_BATCH", 512)
    monkeypatch.setattr(contenders, "ROWS_MIN", 1024)
    monkeypatch.setattr(labels, "_PASSING_STRINGS_MAX", 1024)
    few, many = Endless(20 * 512), Endless(60 * 512)
    peak_bytes(query, few)
    small, large = peak_bytes(query, few), peak_bytes(query, many)
    assert large < 1.1 * small + 50_000


def test_a_head_gives_a_query_the_look_of_each_series_and_the_samples_of_a_batch(tmp_path: Path) -> None:
    def filled(series: int) -> Database:
        database = Database(tmp_path / str(series), DatabaseSettings(wal=WalSettings(fsync="off")), ManualClock())
        sections = [
            label_section((("__name__", "x"), ("job", f"job-{at % JOBS}"), ("pod", f"pod-{at:09}")))
            for at in range(series)
        ]
        cuts = np.cumsum([0, *map(len, sections)])
        nothing = np.zeros(0, np.int32), np.zeros(0, np.int64), np.zeros(0)
        rows = np.arange(series, dtype=np.int32)
        first = WriteBatch(
            DEFAULT_TENANT, 0, *nothing, b"".join(sections), cuts, rows, np.full(series, SCRAPE_MS), np.zeros(series)
        )
        references = database.push([first], 0)[0].new_references
        for scrape in range(2, SAMPLES + 1):
            values = np.random.default_rng(scrape).random(series)
            times = np.full(series, scrape * SCRAPE_MS)
            database.push([WriteBatch(DEFAULT_TENANT, database.head.incarnation, references, times, values)], 0)
        return database

    few, many = filled(2 * SERIES_PER_BATCH), filled(6 * SERIES_PER_BATCH)
    for query in ("sum(rate(x[5m]))", "count by (job) (x)"):
        peak_bytes(query, few)
        growth = peak_bytes(query, many) - peak_bytes(query, few)
        assert growth < 120 * 4 * SERIES_PER_BATCH
    few.close()
    many.close()
