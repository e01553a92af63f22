"""Histograms without their buckets, for queries that only read counts and sums.

Upstream: promql/histogram_stats_iterator.go.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mimir_ray.model.float_histogram import NO_COUNTS, NOT_RESET, RESET, UNKNOWN, detect_reset
from mimir_ray.model.histogram import HistogramColumns, HistogramPart
from mimir_ray.model.series import SeriesBatch, is_stale


def counts_only(batch: SeriesBatch) -> SeriesBatch:
    """The batch with histograms of count and sum alone; their hints say where counters were reset."""
    part = batch.histograms
    assert part is not None
    columns = part.columns
    at = np.flatnonzero(part.here)
    rows = part.which[at]
    hints = columns.hint[rows]
    series = np.searchsorted(batch.offsets, at, side="right")
    stale = is_stale(batch.values[at])
    previous = _previous(series, stale)
    for number in np.flatnonzero((hints == UNKNOWN) & (previous >= 0) & ~stale).tolist():
        before = columns.row(int(rows[previous[number]]))
        hints[number] = RESET if detect_reset(columns.row(int(rows[number])), before) else NOT_RESET
    count = len(at)
    zeros, empty = np.zeros(count), np.zeros(count + 1, np.int64)
    nothing = np.zeros(0, np.int32)
    which = np.full(len(part.which), -1, np.int32)
    which[at] = np.arange(count)
    few = HistogramColumns(
        columns.schema[rows], hints, zeros, zeros, columns.count[rows], columns.sum[rows],
        empty, nothing, NO_COUNTS, empty, nothing, NO_COUNTS, np.full(count, -1, np.int32),
    )  # fmt: skip
    return replace(batch, histograms=HistogramPart(which, few))


def _previous(series: np.ndarray, stale: np.ndarray) -> np.ndarray:
    """For each histogram the number of the one before it in its series that is no marker, or -1."""
    numbers = np.where(stale, -1, np.arange(len(series)))
    newest = np.concatenate(((-1,), np.maximum.accumulate(numbers)[:-1])) if len(numbers) else numbers
    same = (newest >= 0) & (series[newest] == series)
    return np.where(same, newest, -1)
