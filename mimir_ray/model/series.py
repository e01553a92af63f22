"""Samples of many series: `SeriesBatch` (ragged, as stored) and `StepMatrix` (dense, as evaluated).

Shapes: S series, N samples, T steps. Times are int64 ms, values float64. Absence is a mask, never
NaN: PromQL gives meaning to NaN, and one NaN bit pattern marks a stale series.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .histogram import HistogramPart
from .labels import LabelColumns

STALE_NAN_BITS = 0x7FF0000000000002
"""Upstream: model/value/value.go StaleNaN."""
NORMAL_NAN_BITS = 0x7FF8000000000001
STALE_NAN: float = struct.unpack("<d", struct.pack("<Q", STALE_NAN_BITS))[0]


def is_stale(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which values are staleness markers."""
    return values.view(np.uint64) == np.uint64(STALE_NAN_BITS)


@dataclass(slots=True)
class SeriesBatch:
    """Raw samples of S series.

    `offsets`: int64[S + 1]; series s owns `timestamps[offsets[s]:offsets[s + 1]]`, ascending and
    unique, and the same slice of `values` (float64, staleness markers included). Arrays may be read-only.
    `histograms`: which samples are histograms (their `values` are their sums), or None where none is.
    `start_timestamps`: int64[N], since when each sample counts (ms; 0: not known), or None where none is known or
    the selection did not ask for them.
    """

    labels: LabelColumns
    offsets: NDArray[np.int64]
    timestamps: NDArray[np.int64]
    values: NDArray[np.float64]
    histograms: HistogramPart | None = None
    start_timestamps: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def samples(self) -> int:
        return len(self.timestamps)


def concat_starts(batches: Sequence[SeriesBatch]) -> NDArray[np.int64] | None:
    """The start timestamps of all samples of all batches, or None where no batch has any."""
    if all(batch.start_timestamps is None for batch in batches):
        return None
    return np.concatenate(
        [
            np.zeros(batch.samples, np.int64) if batch.start_timestamps is None else batch.start_timestamps
            for batch in batches
        ]
    )


@dataclass(slots=True)
class StepMatrix:
    """Evaluated values of S series at T steps.

    `values`: float64[S, T], undefined where `present` (bool[S, T]) is False. `drop_name`: bool[S],
    the series loses `__name__` at the end of the query (Prometheus' delayed name removal), or None
    for: no series does.
    `histograms`: which present cells are histograms (`values` mean nothing there), or None.
    """

    labels: LabelColumns
    values: NDArray[np.float64]
    present: NDArray[np.bool_]
    drop_name: NDArray[np.bool_] | None = None
    histograms: HistogramPart | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def floats(self) -> StepMatrix:
        """The same without the cells that are histograms; itself where none is."""
        if self.histograms is None:
            return self
        return StepMatrix(self.labels, self.values, self.present & ~self.histograms.here, self.drop_name)

    def take(self, rows: NDArray[np.intp] | NDArray[np.bool_] | slice) -> StepMatrix:
        """The series of these rows."""
        return StepMatrix(
            self.labels.take(rows),
            np.ascontiguousarray(self.values[rows]),
            np.ascontiguousarray(self.present[rows]),
            None if self.drop_name is None else self.drop_name[rows],
            None if self.histograms is None else self.histograms[rows],
        )
