"""Samples on their way into a head, and what became of them.

How samples travel. The distributor reads a request once. To each ingester of the replica set it sends
a `WriteBatch`: samples of series that this ingester has named before go as (reference, timestamp,
value) columns; series that are new to it go with their label bytes and come back with a reference.
References are good for one `incarnation` of one tenant's head; after a restart or a series clean-up the
incarnation differs, the ingester refuses the referenced part untouched, and the distributor sends it
again with labels. Pushing a batch twice changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pickle import PickleBuffer
from typing import Any, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from mimir_ray.model.exemplars import ExemplarColumns
from mimir_ray.model.histogram import HistogramColumns
from mimir_ray.model.metadata import Metadata
from mimir_ray.model.tenant import TenantId

# Batches and results are pickled for every request. numpy's own way takes 5 us an array there and back, and most of
# their arrays are empty: a column travels as a buffer, and an empty one as no bytes.
_FORMAT_MIN = 5
"""The first version of pickle that knows buffers."""


def _sent(column: NDArray[Any] | None, dtype: Any) -> PickleBuffer | bytes | None:
    if column is None:
        return None
    contiguous: Any = np.ascontiguousarray(column, dtype)  # a buffer, which Python 3.10 has no type for
    return PickleBuffer(contiguous) if len(column) else b""


def _received(buffer: Any, dtype: Any) -> Any:
    return buffer if buffer is None else np.frombuffer(buffer, dtype) if len(buffer) else np.zeros(0, dtype)


def _batch(tenant: TenantId, incarnation: int, columns: tuple[Any, ...], label_bytes: bytes, *rest: Any) -> WriteBatch:
    references, timestamps, values, offsets, series, new_timestamps, new_values, starts, new_starts = (
        _received(one, dtype) for one, dtype in zip(columns, _BATCH_COLUMNS, strict=True)
    )
    metadata, histograms, exemplars, zeros_within_ms = rest
    return WriteBatch(
        tenant, incarnation, references, timestamps, values, label_bytes, offsets, series, new_timestamps, new_values,
        metadata, histograms, starts, new_starts, exemplars, zeros_within_ms,
    )  # fmt: skip


_BATCH_COLUMNS = (
    np.int32, np.int64, np.float64, np.int64, np.int32, np.int64, np.float64, np.int64, np.int64,
)  # fmt: skip


@dataclass(slots=True)
class WriteBatch:
    """Samples of one tenant for one ingester, from one request.

    Known series: `references` int32[N], `timestamps` int64[N] (ms), `values` float64[N], in the order
    of the request. New series: `label_bytes` holds the label sections of R series back to back (remote
    write's repeated `Label labels = 1` fields: valid, sorted by name, no empty values), `label_offsets`
    int64[R + 1] cuts them; `new_series` int32[M] says which of the R each of M samples belongs to,
    with `new_timestamps` int64[M], `new_values` float64[M]. `histograms`: those that boxed values
    (model/boxed.py) are the rows of, or None where all samples are floats. `start_timestamps` int64[N],
    `new_start_timestamps` int64[M]: since when each sample counts (ms; 0: not known), or None where none is known.
    `zeros_within_ms`: where a series that counts since at most this long before its sample has none that is as new, it
    gets one of value 0 at that time; 0: none does.
    `exemplars`: of series that are in the ingester once the samples are; looked at only where no known sample is
    refused for its reference, since the batch comes again then.
    """

    tenant: TenantId
    incarnation: int
    references: NDArray[np.int32]
    timestamps: NDArray[np.int64]
    values: NDArray[np.float64]
    label_bytes: bytes = b""
    label_offsets: NDArray[np.int64] = field(default_factory=lambda: np.zeros(1, np.int64))
    new_series: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    new_timestamps: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    new_values: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0, np.float64))
    metadata: tuple[Metadata, ...] = ()
    histograms: HistogramColumns | None = None
    start_timestamps: NDArray[np.int64] | None = None
    new_start_timestamps: NDArray[np.int64] | None = None
    exemplars: ExemplarColumns | None = None
    zeros_within_ms: int = 0

    def __reduce_ex__(self, version: SupportsIndex) -> Any:
        if int(version) < _FORMAT_MIN:
            return object.__reduce_ex__(self, version)
        columns = (
            self.references, self.timestamps, self.values, self.label_offsets, self.new_series, self.new_timestamps,
            self.new_values, self.start_timestamps, self.new_start_timestamps,
        )  # fmt: skip
        sent = tuple(_sent(one, dtype) for one, dtype in zip(columns, _BATCH_COLUMNS, strict=True))
        rest = self.metadata, self.histograms, self.exemplars, self.zeros_within_ms
        return _batch, (self.tenant, self.incarnation, sent, self.label_bytes, *rest)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Samples, exemplars or metadata that an ingester did not take, of one reason: the first one, and how many.

    `reason`: Mimir's error id without prefix (`sample-out-of-order`, `sample-timestamp-too-old`,
    `sample-duplicate-timestamp`, `max-series-per-user`, `max-series-per-metric`, `exemplar-series-missing`,
    `max-metadata-per-user`, `max-metadata-per-metric`; `exemplar-out-of-order`, which is none of Mimir's). `sample`:
    index of the first refused sample: 0..N-1 among the known ones, N + m for new ones; of an exemplar, its own.
    """

    reason: str
    sample: int
    timestamp: int
    count: int
    series: str = ""
    """The labels of the series of the first refused sample, as `{__name__="a", b="c"}`."""
    limit: int = 0
    exemplar: str = ""
    """The labels of the exemplar, where it is one."""


@dataclass(slots=True)
class WriteResult:
    """What became of a `WriteBatch`.

    `incarnation`: of the head that answered. `stale`: it differs from the batch's, the known samples
    were not looked at. `new_references`: int32[R]; -1 for a series that was refused. `unknown`: int32,
    indices of known samples whose reference no longer exists (send them again with labels).
    """

    incarnation: int
    stale: bool = False
    new_references: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    unknown: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    refusals: tuple[Refusal, ...] = ()
    refused: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    """Which samples `refusals` are about, in the numbering of `Refusal.sample`."""
    refused_exemplars: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    """Which exemplars were not stored, whether or not that is said in `refusals`."""
    error: Exception | None = None
    """The whole batch failed (for instance: the tenant's disk is full); nothing was stored."""

    def __reduce_ex__(self, version: SupportsIndex) -> Any:
        if int(version) < _FORMAT_MIN:
            return object.__reduce_ex__(self, version)
        columns = self.new_references, self.unknown, self.refused, self.refused_exemplars
        sent = tuple(_sent(one, np.int32) for one in columns)
        return _result, (self.incarnation, self.stale, sent, self.refusals, self.error)


def _result(
    incarnation: int, stale: bool, columns: tuple[Any, ...], refusals: tuple[Refusal, ...], error: Exception | None
) -> WriteResult:
    new_references, unknown, refused, refused_exemplars = (_received(one, np.int32) for one in columns)
    return WriteResult(incarnation, stale, new_references, unknown, refusals, refused, refused_exemplars, error)
