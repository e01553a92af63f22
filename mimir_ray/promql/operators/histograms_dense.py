"""Rates and sums of many histograms of one layout at once: the usual case, as matrices.

Histograms of one exponential schema and one zero threshold are rows of a matrix, with a column for each bucket that any
of them lists. What does not fit (custom buckets, changing schemas, gauges in rates, resets in a window) is left to the
histogram-by-histogram code, whose results these are to the bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mimir_ray.model.float_histogram import (
    CUSTOM_BUCKETS_SCHEMA,
    GAUGE,
    NOT_RESET,
    RESET,
    UNKNOWN,
    FloatHistogram,
    Indexes,
    kahan_inc,
    upper_bound,
)
from mimir_ray.model.histogram import HistogramColumns, HistogramPart

Matrix = NDArray[np.float64]
Numbers = NDArray[np.int64]

CELLS_MAX = 1 << 23
"""Larger matrices are not made."""
HISTOGRAMS_MIN = 8
"""Fewer are not worth it."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Columns of a matrix: buckets `positive`, then `negative`, then zero count, count and sum."""

    schema: int
    zero_threshold: float
    positive: Indexes
    negative: Indexes

    @classmethod
    def of(cls, columns: HistogramColumns) -> Layout | None:
        """What all these histograms fit into, or None."""
        if not len(columns) or columns.schema[0] == CUSTOM_BUCKETS_SCHEMA:
            return None
        schema, threshold = int(columns.schema[0]), float(columns.zero_threshold[0])
        if (columns.schema != schema).any() or (columns.zero_threshold != threshold).any():
            return None
        positive, negative = np.unique(columns.positive), np.unique(columns.negative)
        if (len(positive) + len(negative) + 3) * len(columns) > CELLS_MAX:
            return None
        # Buckets within the zero bucket are a matter of their own.
        if any(len(side) and upper_bound(int(side[0]), schema) <= threshold for side in (positive, negative)):
            return None
        return cls(schema, threshold, positive, negative)

    def matrix(self, columns: HistogramColumns) -> Matrix:
        """float64[H, len(positive) + len(negative) + 3]."""
        above, below = len(self.positive), len(self.negative)
        out = np.zeros((len(columns), above + below + 3))
        rows = np.arange(len(columns))
        at = np.repeat(rows, np.diff(columns.positive_offsets))
        out[at, np.searchsorted(self.positive, columns.positive)] = columns.positive_counts
        if below:
            at = np.repeat(rows, np.diff(columns.negative_offsets))
            out[at, above + np.searchsorted(self.negative, columns.negative)] = columns.negative_counts
        out[:, -3], out[:, -2], out[:, -1] = columns.zero_count, columns.count, columns.sum
        return out

    def columns(self, matrix: Matrix, listed: NDArray[np.bool_], hint: int) -> HistogramColumns:
        """The rows of a matrix as histograms with the buckets that are `listed` (bool[H, buckets])."""
        count, above = len(matrix), len(self.positive)
        sides = []
        for indexes, where, low in ((self.positive, listed[:, :above], 0), (self.negative, listed[:, above:], above)):
            offsets = np.zeros(count + 1, np.int64)
            np.cumsum(where.sum(axis=1), out=offsets[1:])
            counts = matrix[:, low : low + len(indexes)][where]
            sides.append((offsets, np.broadcast_to(indexes, where.shape)[where].astype(np.int32), counts))
        scalars = (np.ascontiguousarray(matrix[:, at]) for at in (-3, -2, -1))
        return HistogramColumns(
            np.full(count, self.schema, np.int8), np.full(count, hint, np.int8), np.full(count, self.zero_threshold),
            *scalars, *sides[0], *sides[1], np.full(count, -1, np.int32),
        )  # fmt: skip

    def row(self, numbers: Matrix, hint: int) -> FloatHistogram:
        """One row of a matrix as a histogram with all buckets."""
        above, below = len(self.positive), len(self.positive) + len(self.negative)
        return FloatHistogram(
            self.schema, self.zero_threshold, float(numbers[-3]), float(numbers[-2]), float(numbers[-1]), hint,
            self.positive, numbers[:above], self.negative, numbers[above:below],
        )  # fmt: skip


def rates(
    histograms: HistogramColumns,
    timestamps: Numbers,
    resets: NDArray[np.bool_],
    first: Numbers,
    last: Numbers,
    ends: Numbers,
    range_ms: int,
    per_second: bool,
) -> tuple[NDArray[np.intp], HistogramColumns] | None:
    """rate or increase of the windows in which no counter was reset: (which windows, their results), or None.

    Args:
        histograms, timestamps, resets: of N samples of one series.
        first, last: int64[W]: window w is the samples first[w] .. last[w] - 1, at least two.
        ends: int64[W], ms, where the windows end.
    """
    if len(first) < HISTOGRAMS_MIN or (histograms.hint == GAUGE).any():
        return None
    before = np.zeros(len(resets) + 1, np.int64)
    np.cumsum(resets, out=before[1:])
    plain = np.flatnonzero(before[last] == before[first + 1])
    layout = Layout.of(histograms) if len(plain) else None
    if layout is None:
        return None
    first, last, ends = first[plain], last[plain], ends[plain]
    matrix = layout.matrix(histograms)
    with np.errstate(all="ignore"):
        found = matrix[last - 1] - matrix[first]
        to_start = (timestamps[first] - (ends - range_ms)) / 1000
        to_end = (ends - timestamps[last - 1]) / 1000
        sampled = (timestamps[last - 1] - timestamps[first]) / 1000
        average = sampled / (last - 1 - first)
        threshold = average * 1.1
        to_start = np.where(to_start >= threshold, average / 2, to_start)
        count, start_count = found[:, -2], matrix[first, -2]
        to_zero = np.where((count > 0) & (start_count >= 0), sampled * (start_count / count), to_start)
        to_start = np.minimum(to_start, to_zero)
        to_end = np.where(to_end >= threshold, average / 2, to_end)
        factor = (sampled + to_start + to_end) / sampled
        if per_second:
            factor = factor / (range_ms / 1000)
        listed = found[:, :-3] != 0
        return plain, layout.columns(found * factor[:, None], listed, GAUGE)


@dataclass(frozen=True, slots=True)
class Total:
    """What `totals` found for one group and step."""

    value: FloatHistogram
    rest: FloatHistogram | None
    count: int
    seen_reset: bool
    seen_not_reset: bool


def totals(
    part: HistogramPart, here: NDArray[np.bool_], groups: NDArray[np.int32]
) -> dict[tuple[int, int], Total] | None:
    """Sums by (group, step) of the cells that are `here` (bool[S, T]), or None where they do not fit a layout."""
    used = part.which[here]
    if len(used) < HISTOGRAMS_MIN:
        return None
    numbers = np.unique(used)
    columns = part.columns if len(numbers) == len(part.columns) else part.columns.take(numbers)
    layout = Layout.of(columns)
    if layout is None:
        return None
    matrix = layout.matrix(columns)
    if not np.isfinite(matrix).all():
        return None
    cells = np.where(here, np.searchsorted(numbers, part.which), -1)
    hints = columns.hint
    found: dict[tuple[int, int], Total] = {}
    steps = here.shape[1]
    for group in np.unique(groups[here.any(axis=1)]).tolist():
        total, rest = np.zeros((steps, matrix.shape[1])), np.zeros((steps, matrix.shape[1]))
        counts = np.zeros(steps, np.int64)
        by_hint = np.zeros((4, steps), np.int64)
        for row in np.flatnonzero((groups == group) & here.any(axis=1)).tolist():
            present = here[row]
            at = np.flatnonzero(present)
            total[at], rest[at] = kahan_inc(matrix[cells[row, at]], total[at], rest[at])
            counts += present
            by_hint[hints[cells[row, at]], at] += 1
        if np.isinf(total).any():
            return None
        for t in np.flatnonzero(counts).tolist():
            hint = _hint(by_hint[:, t])
            lost = layout.row(rest[t], hint) if counts[t] > 1 else None
            found[group, t] = Total(
                layout.row(total[t], hint), lost, int(counts[t]), bool(by_hint[RESET, t]), bool(by_hint[NOT_RESET, t])
            )
    return found


def _hint(seen: Numbers) -> int:
    """The hint of a sum of histograms with these numbers of hints. Upstream: adjustCounterReset, one after another."""
    if seen[GAUGE]:
        return GAUGE
    return int(seen.argmax()) if np.count_nonzero(seen) == 1 else UNKNOWN
