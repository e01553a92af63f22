"""Making blocks of text and points, and reading them back as such."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mimir_ray.model.labels import LabelColumns, Labels
from mimir_ray.model.matchers import Matcher, MatchType
from mimir_ray.model.selection import Selection
from mimir_ray.tsdb.block.decode import Samples
from mimir_ray.tsdb.block.encode import encode_runs
from mimir_ray.tsdb.block.meta import BlockMeta
from mimir_ray.tsdb.block.writer import write_block

ULID = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
ALL = Selection((), -(1 << 62), 1 << 62)
Points = Sequence[tuple[int, float]]


def name_is(value: str) -> tuple[Matcher, ...]:
    return (Matcher(MatchType.EQUAL, "__name__", value),)


def make_block(
    parent: Path, series: Sequence[tuple[Labels, Points]], ulid: str = ULID, samples_per_chunk: int = 120, **more: Any
) -> BlockMeta:
    """A block of these series; its range ends behind the last sample."""
    flat = [point for _, points in series for point in points]
    offsets = np.concatenate(([0], np.cumsum([len(points) for _, points in series]))).astype(np.int64)
    times = np.array([time for time, _ in flat], np.int64)
    values = np.array([value for _, value in flat], np.float64)
    table, data = encode_runs(Samples(offsets, times, values), samples_per_chunk)
    mint, maxt = (int(times.min()), int(times.max()) + 1) if len(times) else (0, 0)
    labels = LabelColumns.from_labels([labels for labels, _ in series])
    return write_block(parent, ulid, labels, table, [data], mint, maxt, **more)


def content(source: Any, selection: Selection = ALL) -> dict[Labels, list[tuple[int, int]]]:
    """Values as bits, so that NaN is equal to itself."""
    found: dict[Labels, list[tuple[int, int]]] = {}
    for batch in source.select(selection):
        bits = np.ascontiguousarray(batch.values).view(np.uint64).tolist()
        times = batch.timestamps.tolist()
        for row, labels in enumerate(batch.labels.to_labels()):
            start, end = int(batch.offsets[row]), int(batch.offsets[row + 1])
            assert labels not in found
            found[labels] = list(zip(times[start:end], bits[start:end], strict=True))
    return found


def as_bits(series: Sequence[tuple[Labels, Points]]) -> dict[Labels, list[tuple[int, int]]]:
    """What `content` gives for these; series without points are left out."""
    return {
        labels: [(time, int(np.float64(value).view(np.uint64))) for time, value in points]
        for labels, points in series
        if points
    }
