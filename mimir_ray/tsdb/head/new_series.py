"""Labels that a push brings: references for series, new ones within limits, and the record of those."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mimir_ray.errors import ClientError, Unavailable
from mimir_ray.model.labels import METRIC_NAME, Labels
from mimir_ray.model.write import WriteBatch
from mimir_ray.tsdb.index.interning import OVER_METRIC_LIMIT
from mimir_ray.tsdb.index.series_index import SeriesIndex
from mimir_ray.tsdb.wal import records as wal_records

from .settings import PushLimits


class MalformedBatch(ClientError):
    """The columns of a WriteBatch do not fit together."""


@dataclass(eq=False)
class NoRoomForSeries(Unavailable):
    """All tenants together have as many series in memory as this process may have. Nothing was stored."""

    id: ClassVar[str] = "ingester-max-series"

    def __str__(self) -> str:
        return (
            "the write request has been rejected because the ingester exceeded the allowed number of in-memory series "
            f"(err-mimir-{self.id}). To adjust the related limit, configure -ingester.instance-limits.max-series, "
            "or contact your service administrator."
        )


def intern_batch(
    index: SeriesIndex, batch: WriteBatch, limits: PushLimits
) -> tuple[NDArray[np.int32], int, wal_records.Record | None]:
    """(references of the batch's R series, how many are new, their record if any is).

    References are negative (interning.OVER_*) where a limit of the tenant forbids a new series. Raises
    `MalformedLabels`, `MalformedBatch`, `NoRoomForSeries`; then nothing has changed.
    """
    offsets = np.ascontiguousarray(batch.label_offsets, np.int64)
    count = len(offsets) - 1
    if len(batch.new_series) and not (batch.new_series.min() >= 0 and batch.new_series.max() < count):
        raise MalformedBatch("a sample of a series that is not in the batch")
    first = len(index)
    references, created = _within_limits(index, batch.label_bytes, offsets, limits)
    if not len(created):
        return references, 0, None
    data: Any = batch.label_bytes
    all_in_order = len(created) == count and bool((created[1:] > created[:-1]).all())
    if not all_in_order or offsets[0] or offsets[-1] != len(data):
        data, offsets = _sections(data, offsets, created)
    return references, len(created), wal_records.encode_series(first, offsets, data)


def _within_limits(
    index: SeriesIndex, label_bytes: Any, offsets: NDArray[np.int64], limits: PushLimits
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """(references, which are new, in the order of their references)."""
    count, series_max = len(offsets) - 1, limits.series_max
    if limits.process_series_max is not None and index.live + count > limits.process_series_max:
        unknown = int((index.find(label_bytes, offsets) < 0).sum())
        allowed = max(0, series_max - index.live) if series_max else unknown
        if unknown and index.live + min(unknown, allowed) > limits.process_series_max:
            raise NoRoomForSeries
    references, created = index.intern(label_bytes, offsets, series_max, limits.metric_series_max)
    over = np.flatnonzero(references == OVER_METRIC_LIMIT)
    if len(over) and limits.metrics_exempt:
        exempt = over[_exempt(label_bytes, offsets, over, limits.metrics_exempt)]
        if len(exempt):
            references[exempt], more = index.intern(*_sections(label_bytes, offsets, exempt), series_max, 0)
            created = np.concatenate((created, exempt[more].astype(np.int32)))
    return references, created


def _exempt(
    label_bytes: Any, offsets: NDArray[np.int64], which: NDArray[np.intp], names: frozenset[str]
) -> NDArray[np.bool_]:
    """bool[which]: whose metric name is one of `names`."""
    index = SeriesIndex()
    references, _ = index.intern(*_sections(label_bytes, offsets, which))
    labels = index.labels(references)
    codes = [code for name in names if (code := labels.table.find(name)) >= 0]
    return np.isin(labels.column(METRIC_NAME), codes)


def _sections(label_bytes: Any, offsets: NDArray[np.int64], which: NDArray[Any]) -> tuple[bytes, NDArray[np.int64]]:
    """The label bytes of these series back to back, and where each begins."""
    parts = [label_bytes[offsets[r] : offsets[r + 1]] for r in which.tolist()]
    cuts = np.zeros(len(parts) + 1, np.int64)
    np.cumsum([len(part) for part in parts], out=cuts[1:])
    return b"".join(parts), cuts


def labels_of_section(batch: WriteBatch, series: int) -> Labels:
    """The labels of a series that was refused, from its bytes (found to be well-formed before)."""
    index = SeriesIndex()
    references, _ = index.intern(*_sections(batch.label_bytes, batch.label_offsets, np.array([series])))
    return index.labels(references).labels(0)
