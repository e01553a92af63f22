"""`ListSource`: a `SeriesSource` over plain lists, so simple that other sources are compared with it."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mimir_ray.model.float_histogram import FloatHistogram
from mimir_ray.model.histogram import HistogramCells
from mimir_ray.model.labels import LabelColumns, Labels, StringTable, labels_of
from mimir_ray.model.matchers import Matcher
from mimir_ray.model.series import SeriesBatch
from mimir_ray.promql.source import Selection, Shard

Value = float | FloatHistogram
Points = Sequence[tuple[int, Value]]
"""(time in ms, value) of one series."""


class ListSource:
    """Series from lists; samples of equal labels add up, of equal times the last one counts."""

    def __init__(self, series: Iterable[tuple[Labels | Mapping[str, str], Points]] = ()) -> None:
        self.series: dict[Labels, dict[int, Value]] = {}
        self.starts: dict[Labels, dict[int, int]] = {}
        """Start timestamps of samples by their times (ms)."""
        for labels, points in series:
            self.add(labels, points)

    def add(self, labels: Labels | Mapping[str, str], points: Points, starts: Iterable[tuple[int, int]] = ()) -> None:
        """More samples of one series; `starts`: (time, start timestamp) of some of them."""
        self.series.setdefault(labels_of(labels), {}).update(points)
        self.starts.setdefault(labels_of(labels), {}).update(starts)

    def select(self, selection: Selection) -> Iterator[SeriesBatch]:
        """Batches in the order of labels; a series without a sample in range is left out."""
        found: list[tuple[Labels, list[tuple[int, Value]]]] = []
        for labels, samples in sorted(self.series.items()):
            times = sorted(t for t in samples if selection.mint <= t <= selection.maxt)
            inside = [(t, samples[t]) for t in times]
            if inside and satisfies(labels, selection.matchers) and in_shard(labels, selection.shard):
                found.append((labels, [] if selection.labels_only else inside))
        if selection.limit_series:
            found = found[: selection.limit_series]
        table = StringTable()
        for start in range(0, len(found), selection.batch_series):
            batch = batch_of(found[start : start + selection.batch_series], table)
            if selection.start_timestamps:
                batch.start_timestamps = self._starts(batch)
            yield batch

    def _starts(self, batch: SeriesBatch) -> NDArray[np.int64] | None:
        known = [
            self.starts[labels].get(at, 0)
            for labels, (low, high) in zip(batch.labels.to_labels(), itertools.pairwise(batch.offsets), strict=True)
            for at in batch.timestamps[low:high].tolist()
        ]
        return np.array(known, np.int64) if any(known) else None


def satisfies(labels: Labels, matchers: Sequence[Matcher]) -> bool:
    """Whether a label set passes every matcher; an absent label is an empty value."""
    values = dict(labels)
    return all(matcher.accepts(values.get(matcher.name, "")) for matcher in matchers)


def in_shard(labels: Labels, shard: Shard | None) -> bool:
    """Whether a label set belongs to the part; any stable hash will do."""
    if shard is None:
        return True
    digest = hashlib.blake2b(repr(labels).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") % shard.count == shard.index


def batch_of(series: Sequence[tuple[Labels, Points]], table: StringTable | None = None) -> SeriesBatch:
    """Series with points ascending by time as columns."""
    offsets = np.cumsum([0, *(len(points) for _, points in series)], dtype=np.int64)
    timestamps = np.array([t for _, points in series for t, _ in points], np.int64)
    samples = [v for _, points in series for _, v in points]
    values = np.array([v.sum if isinstance(v, FloatHistogram) else v for v in samples], np.float64)
    cells = HistogramCells(len(samples))
    for at, value in enumerate(samples):
        if isinstance(value, FloatHistogram):
            cells.put(at, value)
    labels = LabelColumns.from_labels([labels for labels, _ in series], table)
    return SeriesBatch(labels, offsets, timestamps, values, cells.part())
