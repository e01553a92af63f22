"""Many native histograms as columns, and how samples and cells refer to them.

Spans, deltas and integer counts are encodings (of chunks, of the wire); here every bucket has its index and its
absolute count as a float64. See docs/decisions/0004. One histogram on its own: float_histogram.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .float_histogram import CUSTOM_BUCKETS_SCHEMA, NO_COUNTS, Counts, FloatHistogram, Indexes

Offsets = NDArray[np.int64]


@dataclass(slots=True)
class HistogramColumns:
    """H histograms.

    `schema`, `hint`: int8[H]. `zero_threshold`, `zero_count`, `count`, `sum`: float64[H]. Histogram h has the positive
    (or custom) buckets `positive[positive_offsets[h]:positive_offsets[h + 1]]` (int32, ascending) with
    `positive_counts` (float64) beside them; `negative` likewise. `custom`: int32[H], which of `bounds` are the
    upper bounds of its custom buckets, or -1.
    """

    schema: NDArray[np.int8]
    hint: NDArray[np.int8]
    zero_threshold: Counts
    zero_count: Counts
    count: Counts
    sum: Counts
    positive_offsets: Offsets
    positive: Indexes
    positive_counts: Counts
    negative_offsets: Offsets
    negative: Indexes
    negative_counts: Counts
    custom: NDArray[np.int32]
    bounds: tuple[Counts, ...] = ()

    def __len__(self) -> int:
        return len(self.schema)

    @classmethod
    def from_rows(cls, rows: Sequence[FloatHistogram]) -> HistogramColumns:
        """The histograms in order; equal bounds that follow each other are kept once."""
        bounds: list[Counts] = []
        known: dict[bytes, int] = {}
        custom = np.full(len(rows), -1, np.int32)
        for number, row in enumerate(rows):
            if row.schema == CUSTOM_BUCKETS_SCHEMA:
                key = row.custom_values.tobytes()
                at = known.get(key)
                if at is None:
                    at = known[key] = len(bounds)
                    bounds.append(row.custom_values)
                custom[number] = at
        scalars = np.array(
            [(row.zero_threshold, row.zero_count, row.count, row.sum) for row in rows], np.float64
        ).reshape(len(rows), 4)
        threshold, zero_count, count, total = (np.ascontiguousarray(column) for column in scalars.T)
        return cls(
            np.array([row.schema for row in rows], np.int8),
            np.array([row.hint for row in rows], np.int8),
            threshold, zero_count, count, total,
            _offsets([len(row.positive) for row in rows]),
            _joined([row.positive for row in rows], np.int32),
            _joined([row.positive_counts for row in rows], np.float64),
            _offsets([len(row.negative) for row in rows]),
            _joined([row.negative for row in rows], np.int32),
            _joined([row.negative_counts for row in rows], np.float64),
            custom, tuple(bounds),
        )  # fmt: skip

    def row(self, number: int) -> FloatHistogram:
        """One histogram; its arrays are parts of the columns."""
        low, high = self.positive_offsets[number], self.positive_offsets[number + 1]
        below, above = self.negative_offsets[number], self.negative_offsets[number + 1]
        custom = self.custom[number]
        return FloatHistogram(
            int(self.schema[number]),
            float(self.zero_threshold[number]),
            float(self.zero_count[number]),
            float(self.count[number]),
            float(self.sum[number]),
            int(self.hint[number]),
            self.positive[low:high],
            self.positive_counts[low:high],
            self.negative[below:above],
            self.negative_counts[below:above],
            self.bounds[custom] if custom >= 0 else NO_COUNTS,
        )

    @classmethod
    def concat(cls, parts: Sequence[HistogramColumns]) -> HistogramColumns:
        """All histograms of all parts, in order."""
        if len(parts) == 1:
            return parts[0]
        bounds: list[Counts] = []
        customs = []
        for part in parts:
            customs.append(np.where(part.custom >= 0, part.custom + len(bounds), -1).astype(np.int32))
            bounds += part.bounds

        def joined(name: str) -> NDArray[Any]:
            return np.concatenate([getattr(part, name) for part in parts])

        def offsets(name: str) -> Offsets:
            return _offsets(np.concatenate([np.diff(getattr(part, name)) for part in parts]))

        return cls(
            joined("schema"), joined("hint"), joined("zero_threshold"), joined("zero_count"), joined("count"),
            joined("sum"),
            offsets("positive_offsets"), joined("positive"), joined("positive_counts"),
            offsets("negative_offsets"), joined("negative"), joined("negative_counts"),
            np.concatenate(customs), tuple(bounds),
        )  # fmt: skip

    def take(self, rows: NDArray[np.integer]) -> HistogramColumns:
        """The histograms of these rows, in their order."""
        positive_offsets, positive = _ragged(self.positive_offsets, rows)
        negative_offsets, negative = _ragged(self.negative_offsets, rows)
        return HistogramColumns(
            self.schema[rows], self.hint[rows], self.zero_threshold[rows], self.zero_count[rows], self.count[rows],
            self.sum[rows], positive_offsets, self.positive[positive], self.positive_counts[positive],
            negative_offsets, self.negative[negative], self.negative_counts[negative], self.custom[rows], self.bounds,
        )  # fmt: skip


def _offsets(sizes: Sequence[int] | NDArray[np.int64]) -> Offsets:
    out = np.zeros(len(sizes) + 1, np.int64)
    np.cumsum(sizes, out=out[1:])
    return out


def _joined(arrays: Sequence[NDArray[Any]], dtype: type) -> NDArray[Any]:
    return np.concatenate(arrays).astype(dtype, copy=False) if arrays else np.zeros(0, dtype)


def _ragged(offsets: Offsets, rows: NDArray[np.integer]) -> tuple[Offsets, NDArray[np.int64]]:
    """(offsets of these rows one after another, the indexes of all that they own)."""
    sizes = np.diff(offsets)[rows]
    new = _offsets(sizes)
    return new, np.repeat(offsets[:-1][rows] - new[:-1], sizes) + np.arange(new[-1])


@dataclass(slots=True)
class HistogramPart:
    """Which samples or cells are histograms.

    `which`: int32 of their shape; -1 is a float, else it is a row of `columns`.
    """

    which: NDArray[np.int32]
    columns: HistogramColumns

    @property
    def here(self) -> NDArray[np.bool_]:
        """Where there are histograms (for cells: if they are present)."""
        return self.which >= 0

    def __getitem__(self, index: Any) -> HistogramPart:
        """The part of these samples or cells; buckets are not copied."""
        return HistogramPart(np.ascontiguousarray(self.which[index]), self.columns)

    def at(self, *index: int) -> FloatHistogram:
        """The histogram there; there must be one."""
        return self.columns.row(int(self.which[index]))

    def used(self) -> HistogramPart:
        """The same with only the columns' rows that are referred to."""
        rows, position = np.unique(self.which, return_inverse=True)
        has_floats = int(len(rows) > 0 and rows[0] < 0)
        if len(rows) - has_floats == len(self.columns):
            return self
        which = position.reshape(self.which.shape).astype(np.int32) - np.int32(has_floats)
        return HistogramPart(which, self.columns.take(rows[has_floats:]))

    @classmethod
    def concat(cls, parts: Sequence[tuple[HistogramPart | None, tuple[int, ...]]]) -> HistogramPart | None:
        """Parts one after another along the first axis, each with its shape; None where none has histograms."""
        if all(part is None for part, _ in parts):
            return None
        which, columns, before = [], [], 0
        different: dict[int, int] = {}
        for part, shape in parts:
            if part is None:
                which.append(np.full(shape, -1, np.int32))
                continue
            first = different.get(id(part.columns))
            if first is None:
                first = different[id(part.columns)] = before
                columns.append(part.columns)
                before += len(part.columns)
            which.append(np.where(part.which >= 0, part.which + np.int32(first), np.int32(-1)))
        return cls(np.concatenate(which).astype(np.int32, copy=False), HistogramColumns.concat(columns))


class HistogramCells:
    """A `HistogramPart` in the making."""

    __slots__ = ("_many", "rows", "which")

    def __init__(self, shape: tuple[int, ...] | int) -> None:
        self.which = np.full(shape, -1, np.int32)
        self.rows: list[FloatHistogram] = []
        self._many: list[tuple[Any, HistogramColumns]] = []

    def put(self, index: tuple[int, ...] | int, histogram: FloatHistogram) -> None:
        self.which[index] = len(self.rows)
        self.rows.append(histogram)

    def put_many(self, index: Any, columns: HistogramColumns) -> None:
        """All histograms of the columns, in the order of an index that picks as many."""
        self._many.append((index, columns))

    def part(self) -> HistogramPart | None:
        """None where nothing was put."""
        if not self.rows and not self._many:
            return None
        parts = [HistogramColumns.from_rows(self.rows)] if self.rows else []
        before = len(self.rows)
        for index, columns in self._many:
            self.which[index] = np.arange(before, before + len(columns))
            before += len(columns)
            parts.append(columns)
        return HistogramPart(self.which, HistogramColumns.concat(parts))


def histograms_of(part: HistogramPart) -> Iterator[tuple[tuple[int, ...], FloatHistogram]]:
    """(index, histogram) of all there are."""
    for index in zip(*(each.tolist() for each in np.nonzero(part.which >= 0)), strict=True):
        yield index, part.at(*index)
