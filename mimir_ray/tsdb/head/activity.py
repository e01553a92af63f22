"""Which series of a head are active: when each was written to last, and which trackers its labels satisfy.

A column of seconds, written with every sample that is taken; bits per series and tracker, found once for each new
series; buckets per series, from the first native histogram on. By the clock of the ingester, not by the
samples' times: what is backfilled is active too. Not thread-safe: `Head` holds its lock around every call.
Upstream: pkg/ingester/activeseries/active_series.go.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mimir_ray.model.boxed import is_boxed, unbox
from mimir_ray.model.histogram import HistogramColumns
from mimir_ray.model.matchers import Matcher
from mimir_ray.tsdb.index.postings import Postings

Selectors = tuple[tuple[Matcher, ...], ...]
_BITS = 64


@dataclass(frozen=True, slots=True)
class ActiveCounts:
    """How many series, how many of those have native histograms, and how many buckets these have."""

    series: int = 0
    histogram_series: int = 0
    histogram_buckets: int = 0


@dataclass(frozen=True, slots=True)
class ActiveSeries:
    """Of one head; `trackers`: of the series that satisfy each of the selectors, in their order."""

    total: ActiveCounts = ActiveCounts()
    trackers: tuple[ActiveCounts, ...] = ()


_LATEST_S = np.iinfo(np.uint32).max


class Activity:
    """Columns by series reference."""

    def __init__(self) -> None:
        self._seen = np.zeros(64, np.uint32)
        self._buckets: NDArray[np.int32] | None = None
        self._selectors: Selectors = ()
        self._bits = np.zeros((64, 0), np.uint64)
        self._known = 0

    @property
    def bytes(self) -> int:
        return self._seen.nbytes + self._bits.nbytes + (0 if self._buckets is None else self._buckets.nbytes)

    def note(
        self,
        series: int,
        references: NDArray[np.int32],
        values: NDArray[np.float64],
        histograms: HistogramColumns | None,
        now_ms: int,
    ) -> None:
        """Samples of these references (of `series` in all) were taken; boxed ones are rows of `histograms`."""
        if series > len(self._seen):
            self._seen = _longer(self._seen, series, 0)
        self._seen[references] = min(now_ms // 1000, _LATEST_S)  # unit tests of rules go on for centuries
        if histograms is None and self._buckets is None:
            return
        if self._buckets is None:
            self._buckets = np.full(len(self._seen), -1, np.int32)
        elif series > len(self._buckets):
            self._buckets = _longer(self._buckets, len(self._seen), -1)
        self._buckets[references] = -1
        if histograms is not None:
            boxed = is_boxed(values)
            rows = unbox(values[boxed])
            sizes = np.diff(histograms.positive_offsets) + np.diff(histograms.negative_offsets)
            fits = rows < len(sizes)
            self._buckets[references[boxed][fits]] = sizes[rows[fits]]

    def track(self, selectors: Selectors) -> None:
        """What to count by from now on; other selectors than before are looked up for all series anew."""
        if selectors != self._selectors:
            self._selectors = selectors
            self._bits = np.zeros((len(self._seen), -(-len(selectors) // _BITS)), np.uint64)
            self._known = 0

    def learn(self, postings: Postings, series: int) -> None:
        """Finds the bits of the series that came since the last time."""
        if self._selectors and series > self._known:
            if series > len(self._bits):
                self._bits = _longer(self._bits, series, 0)
            for at, matchers in enumerate(self._selectors):
                found = postings.select(matchers, self._known)
                self._bits[found, at // _BITS] |= np.uint64(1 << (at % _BITS))
        self._known = series

    def active(self, since_ms: int, last_times: NDArray[np.int64], dropped: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """bool[S]: who was written to at or after a time. `last_times`: of samples (ms), which count for series that
        nobody wrote to since the start: what a restart brought back has not fallen idle."""
        series = len(dropped)
        if series > len(self._seen):
            self._seen = _longer(self._seen, series, 0)
        seen = self._seen[:series]
        return ((seen >= since_ms // 1000) | ((seen == 0) & (last_times[:series] >= since_ms))) & ~dropped

    def count(self, active: NDArray[np.bool_]) -> ActiveSeries:
        """`active`: bool[S], as above; call `learn` before."""
        series = len(active)
        buckets = None if self._buckets is None else _padded(self._buckets, series, -1)[active]
        total = _counts(np.ones(int(active.sum()), np.bool_), buckets)
        bits = self._bits[:series][active] if self._selectors else None
        return ActiveSeries(
            total,
            tuple(
                _counts((bits[:, at // _BITS] >> np.uint64(at % _BITS) & np.uint64(1)).astype(np.bool_), buckets)
                for at in range(len(self._selectors))
                if bits is not None
            ),
        )

    def renumber(self, kept: NDArray[np.bool_]) -> None:
        """The series of these places have the numbers 0, 1, … now."""
        series = len(kept)
        self._seen = _padded(self._seen, series)[kept]
        if self._buckets is not None:
            self._buckets = _padded(self._buckets, series, -1)[kept]
        self._bits = _padded(self._bits, series)[kept]
        self._known = int(kept[: self._known].sum())


def _counts(which: NDArray[np.bool_], buckets: NDArray[np.int32] | None) -> ActiveCounts:
    if buckets is None:
        return ActiveCounts(int(which.sum()))
    of_histograms = buckets[which & (buckets >= 0)]
    return ActiveCounts(int(which.sum()), len(of_histograms), int(of_histograms.sum()))


def _longer(column: NDArray[Any], length: int, fill: int) -> NDArray[Any]:
    return _padded(column, max(length, len(column) * 3 // 2), fill)


def _padded(column: NDArray[Any], length: int, fill: int = 0) -> NDArray[Any]:
    """Cut or filled up to this length."""
    if len(column) >= length:
        return column[:length]
    longer = np.full((length, *column.shape[1:]), fill, column.dtype)
    longer[: len(column)] = column
    return longer
