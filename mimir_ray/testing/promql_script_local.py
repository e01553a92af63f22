"""A `ScriptStorage` over one tenant's database as an ingester has it: local blocks and the head.

What scripts load is kept as batches; a database is made of them, and partly cut into blocks, when they are first read.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mimir_ray.clock import SystemClock
from mimir_ray.model.boxed import box
from mimir_ray.model.float_histogram import FloatHistogram
from mimir_ray.model.histogram import HistogramColumns
from mimir_ray.model.labels import Labels
from mimir_ray.model.write import WriteBatch
from mimir_ray.promql.source import SeriesSource
from mimir_ray.tsdb.database import Database, DatabaseSettings
from mimir_ray.tsdb.head.settings import HeadSettings

from .promql_script_head import ANY_AGE, SamplesRefused, one_series

BLOCKS = 3
"""At most so many are cut of what a script loads ..."""
BLOCK_MS_MIN = 3_600_000
"""... and none is shorter: where a chunk begins it is not known whether counters of histograms were reset."""


class DatabaseStorage:
    """`cut_ms`: samples that are older are cut into blocks; None: all are."""

    def __init__(self, directory: Path, cut_ms: int | None = None) -> None:
        self._directory = directory
        self._cut_ms = cut_ms
        self._numbers = itertools.count()
        self._batches: list[WriteBatch] = []
        self._database: Database | None = None

    def append(
        self,
        labels: Labels,
        timestamps: NDArray[np.int64],
        values: NDArray[np.float64],
        starts: NDArray[np.int64] | None = None,
    ) -> None:
        self._keep(one_series(labels, timestamps, values, None, starts))

    def append_histograms(
        self,
        labels: Labels,
        timestamps: NDArray[np.int64],
        histograms: Sequence[FloatHistogram],
        starts: NDArray[np.int64] | None = None,
    ) -> None:
        numbers = np.arange(len(timestamps), dtype=np.int64)
        self._keep(one_series(labels, timestamps, box(numbers), HistogramColumns.from_rows(histograms), starts))

    def clear(self) -> None:
        self.close()
        self._batches.clear()

    def source(self) -> SeriesSource:
        if self._database is None:
            self._database = self._made()
        return self._database

    def close(self) -> None:
        """Closes the files; the folder is the caller's."""
        if self._database is not None:
            self._database.close()
            self._database = None

    def _keep(self, batch: WriteBatch) -> None:
        self.close()
        self._batches.append(batch)

    def _made(self) -> Database:
        times = [int(time) for batch in self._batches for time in batch.new_timestamps[[0, -1]]]
        first, last = min(times, default=0), max(times, default=0)
        # Series are loaded one after the other, and none of them is to come late: of late histograms it is not known
        # whether counters were reset.
        settings = DatabaseSettings(head=HeadSettings(chunk_range_ms=2 * (last - first) + 1))
        database = Database(self._directory / str(next(self._numbers)), settings, SystemClock())
        for result in database.push(self._batches, last, ANY_AGE):
            if result.error is not None:
                raise result.error
            if result.refusals:
                raise SamplesRefused(f"refused: {result.refusals[0]}")
        end = last + 1 if self._cut_ms is None else min(self._cut_ms, last + 1)
        width = max(BLOCK_MS_MIN, (end - first) // BLOCKS + 1)
        for until in (*range(first + width, end, width), end):
            database.compact(until)
        return database
