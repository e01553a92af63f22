"""A `ScriptStorage` over the real head: samples go in as a distributor sends them, and come out of chunks."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mimir_ray.errors import ClientError
from mimir_ray.model.boxed import box
from mimir_ray.model.float_histogram import FloatHistogram
from mimir_ray.model.histogram import HistogramColumns
from mimir_ray.model.labels import Labels
from mimir_ray.model.tenant import DEFAULT_TENANT
from mimir_ray.promql.source import SeriesSource
from mimir_ray.roles.api import WriteBatch
from mimir_ray.tsdb.chunks.files import ChunkFiles
from mimir_ray.tsdb.head.head import Head
from mimir_ray.tsdb.head.settings import HeadSettings, PushLimits
from mimir_ray.wire.remote_write import label_section

# Scripts load series after series, each from time 0: whatever is older than the newest sample comes late.
ANY_AGE = PushLimits(out_of_order_window_ms=1 << 50)


class SamplesRefused(ClientError):
    """The head did not take samples of a script."""


def one_series(
    labels: Labels,
    timestamps: NDArray[np.int64],
    values: NDArray[np.float64],
    histograms: HistogramColumns | None,
    starts: NDArray[np.int64] | None,
    incarnation: int = 0,
) -> WriteBatch:
    """What a distributor sends of one new series."""
    section = label_section(labels)
    return WriteBatch(
        tenant=DEFAULT_TENANT,
        incarnation=incarnation,
        references=np.zeros(0, np.int32),
        timestamps=np.zeros(0, np.int64),
        values=np.zeros(0, np.float64),
        label_bytes=section,
        label_offsets=np.array([0, len(section)], np.int64),
        new_series=np.zeros(len(timestamps), np.int32),
        new_timestamps=timestamps,
        new_values=values,
        histograms=histograms,
        new_start_timestamps=starts,
    )


class HeadStorage:
    """One head at a time, in a folder of its own below `directory`; `clear` begins a new one."""

    def __init__(self, directory: Path, settings: HeadSettings | None = None) -> None:
        self._directory = directory
        self._settings = settings or HeadSettings()
        self._numbers = itertools.count()
        self._files: ChunkFiles | None = None
        self._head = self._new_head()

    def _new_head(self) -> Head:
        self.close()
        self._files = ChunkFiles(self._directory / str(next(self._numbers)))
        return Head(self._files, self._settings)

    def append(
        self,
        labels: Labels,
        timestamps: NDArray[np.int64],
        values: NDArray[np.float64],
        starts: NDArray[np.int64] | None = None,
    ) -> None:
        self._push(labels, timestamps, values, None, starts)

    def _push(
        self,
        labels: Labels,
        timestamps: NDArray[np.int64],
        values: NDArray[np.float64],
        histograms: HistogramColumns | None,
        starts: NDArray[np.int64] | None,
    ) -> None:
        batch = one_series(labels, timestamps, values, histograms, starts, self._head.incarnation)
        now_ms = int(timestamps[-1])
        (result,) = self._head.push([batch], now_ms, ANY_AGE)
        if result.error is not None:
            raise result.error
        if result.refusals:
            raise SamplesRefused(f"refused: {result.refusals[0]}")

    def append_histograms(
        self,
        labels: Labels,
        timestamps: NDArray[np.int64],
        histograms: Sequence[FloatHistogram],
        starts: NDArray[np.int64] | None = None,
    ) -> None:
        numbers = np.arange(len(timestamps), dtype=np.int64)
        self._push(labels, timestamps, box(numbers), HistogramColumns.from_rows(histograms), starts)

    def clear(self) -> None:
        self._head = self._new_head()

    @property
    def head(self) -> Head:
        """The one in use."""
        return self._head

    def source(self) -> SeriesSource:
        return self._head

    def close(self) -> None:
        """Closes the files; the folder is the caller's."""
        if self._files is not None:
            self._files.close()
            self._files = None
