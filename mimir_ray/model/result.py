"""Answers to queries: scalar, string, vector or matrix as columns, with annotations and statistics."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .float_histogram import FloatHistogram
from .histogram import HistogramPart
from .labels import LabelColumns, Labels
from .series import SeriesBatch, StepMatrix

ResultType = Literal["scalar", "string", "vector", "matrix"]


@dataclass(frozen=True, slots=True)
class Scalar:
    timestamp: int
    value: float

    type: Literal["scalar"] = "scalar"


@dataclass(frozen=True, slots=True)
class String:
    timestamp: int
    value: str

    type: Literal["string"] = "string"


@dataclass(slots=True)
class Vector:
    """S series, one value each (`values`: float64[S]), all at `timestamp` (ms); `histograms`: which are histograms."""

    labels: LabelColumns
    timestamp: int
    values: NDArray[np.float64]
    histograms: HistogramPart | None = None

    type: Literal["vector"] = "vector"

    def __len__(self) -> int:
        return len(self.labels)

    def items(self) -> Iterator[tuple[Labels, float | FloatHistogram]]:
        """Series by series, for small answers."""
        yield from zip(self.labels.to_labels(), _mixed(self.values, self.histograms), strict=True)


@dataclass(slots=True)
class Matrix:
    """S series with N points in all: series s owns points `offsets[s]:offsets[s + 1]`, ascending by time.

    `offsets`: int64[S + 1], `timestamps`: int64[N] (ms), `values`: float64[N].
    `histograms`: which points are histograms, or None.
    """

    labels: LabelColumns
    offsets: NDArray[np.int64]
    timestamps: NDArray[np.int64]
    values: NDArray[np.float64]
    histograms: HistogramPart | None = None

    type: Literal["matrix"] = "matrix"

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def from_steps(cls, matrix: StepMatrix, times: NDArray[np.int64]) -> Matrix:
        """The present points of a dense matrix; `times`: int64[T]."""
        series, steps = matrix.present.shape
        offsets = np.zeros(series + 1, np.int64)
        np.cumsum(matrix.present.sum(axis=1), out=offsets[1:])
        histograms = None
        if matrix.histograms is not None:
            histograms = matrix.histograms[matrix.present]
            if not histograms.here.any():
                histograms = None
        if offsets[-1] == series * steps:
            return cls(matrix.labels, offsets, np.tile(times, series), matrix.values.ravel(), histograms)
        timestamps = np.broadcast_to(times, (series, steps))[matrix.present]
        return cls(matrix.labels, offsets, timestamps, matrix.values[matrix.present], histograms)

    def as_batch(self) -> SeriesBatch:
        """The same as samples."""
        return SeriesBatch(self.labels, self.offsets, self.timestamps, self.values, self.histograms)

    def items(self) -> Iterator[tuple[Labels, list[tuple[int, float | FloatHistogram]]]]:
        """Series by series with (time, value) points, for small answers."""
        timestamps, values, offsets = (
            self.timestamps.tolist(),
            _mixed(self.values, self.histograms),
            self.offsets.tolist(),
        )
        for row, labels in enumerate(self.labels.to_labels()):
            part = slice(offsets[row], offsets[row + 1])
            yield labels, list(zip(timestamps[part], values[part], strict=True))


def _mixed(values: NDArray[np.float64], histograms: HistogramPart | None) -> list[float | FloatHistogram]:
    out: list[float | FloatHistogram] = values.tolist()
    if histograms is not None:
        for at in np.flatnonzero(histograms.here).tolist():
            out[at] = histograms.at(at)
    return out


Value = Scalar | String | Vector | Matrix


@dataclass(slots=True)
class Timings:
    """Seconds. Upstream: util/stats/query_stats.go queryTimings, whose JSON names these are."""

    evalTotalTime: float = 0.0
    resultSortTime: float = 0.0
    queryPreparationTime: float = 0.0
    innerEvalTime: float = 0.0
    execQueueTime: float = 0.0
    execTotalTime: float = 0.0


@dataclass(slots=True)
class SampleCounts:
    """Upstream: util/stats/query_stats.go querySamples.

    `total`: samples that steps looked at (a window counts at every step it serves); `read`: those of them that the
    step before had not seen; `per_step`, `read_per_step`: int64[T], the same step by step, or None if not asked for.
    `peak`: most points held at once.
    """

    total: int = 0
    read: int = 0
    peak: int = 0
    per_step: NDArray[np.int64] | None = None
    read_per_step: NDArray[np.int64] | None = None


@dataclass(slots=True)
class QueryStats:
    timings: Timings = field(default_factory=Timings)
    samples: SampleCounts = field(default_factory=SampleCounts)


@dataclass(slots=True)
class QueryResult:
    """What a query came to. `warnings` and `infos` are whole texts with positions, each once."""

    value: Value
    warnings: list[str] = field(default_factory=list)
    infos: list[str] = field(default_factory=list)
    stats: QueryStats = field(default_factory=QueryStats)

    @property
    def type(self) -> ResultType:
        return self.value.type
