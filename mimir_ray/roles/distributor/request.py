"""One write request on its way: columns, who gets which part of it, and the batches made of them.

Everything here is pure: no waiting, no clocks. Arrays are shared with the scan of the request where
nothing was left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mimir_ray.encoding.bits import copy_bytes
from mimir_ray.kernel import I32, I64, U8, I32x2, OutI32, OutI64, OutU8, kernel
from mimir_ray.model.boxed import box, is_boxed, unbox
from mimir_ray.model.exemplars import ExemplarColumns
from mimir_ray.model.histogram import HistogramColumns
from mimir_ray.model.metadata import Metadata
from mimir_ray.model.tenant import TenantId
from mimir_ray.roles.api import WriteBatch
from mimir_ray.roles.distributor.label_rules import LabelRules
from mimir_ray.roles.distributor.series_cache import NOBODY, SeriesCache
from mimir_ray.wire.write_scan import SectionWriter

_NONE = np.zeros(0, np.int32)


@dataclass(slots=True)
class PreparedExemplars:
    """E sound exemplars of a write: `series` int64[E] ascending, positions in the write; `timestamps`, `values`.

    The canonical label section of exemplar e is `labels[offsets[e]:offsets[e + 1]]`.
    """

    series: NDArray[np.int64]
    timestamps: NDArray[np.int64]
    values: NDArray[np.float64]
    labels: NDArray[np.uint8]
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.series)


@dataclass(slots=True)
class PreparedWrite:
    """What is left of a request after validation: S series with N samples, each with at least one, or an exemplar.

    `ids`: int32[S] in the tenant's cache of `generation` under `ring_version`. The labels of series s are
    `data[starts[s]:ends[s]]`, in canonical form if `canonical[s]`; `canonicalise` makes it so. `rows`: int32[N]
    ascending, the series of each sample, or None where series s has just sample s. `histograms`: what boxed values are.
    `start_timestamps`: int64[N] or None, `zeros_within_ms`: see `WriteBatch`. `section_writer`: that of the scan, where
    labels are written only when somebody needs them; `starts`, `ends` are then as in wire.write_scan.WriteScan.
    """

    tenant: TenantId
    rules: LabelRules
    data: bytes
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    canonical: NDArray[np.bool_]
    ids: NDArray[np.int32]
    generation: int
    ring_version: int
    rows: NDArray[np.int32] | None
    timestamps: NDArray[np.int64]
    values: NDArray[np.float64]
    metadata: tuple[Metadata, ...] = ()
    histograms: HistogramColumns | None = None
    start_timestamps: NDArray[np.int64] | None = None
    exemplars: PreparedExemplars | None = None
    section_writer: SectionWriter | None = None
    zeros_within_ms: int = 0

    def __len__(self) -> int:
        return len(self.ids)

    def canonicalise(self, series: NDArray[np.integer]) -> None:
        """Gives these series canonical labels, behind the data, where they came in another form or as numbers."""
        if self.section_writer is not None:
            self.data = self.section_writer(self.data, self.starts, self.ends, series)
        rows = series[~self.canonical[series]]
        if not len(rows):
            return
        pieces = [self.data]
        size = len(self.data)
        if self.rules.only_removes:
            data = np.frombuffer(self.data, np.uint8)
            sections, starts, ends = self.rules.sort(data, self.starts[rows], self.ends[rows])
            plain = ends >= 0
            pieces.append(sections.tobytes())
            self.starts[rows[plain]], self.ends[rows[plain]] = starts[plain] + size, ends[plain] + size
            self.canonical[rows[plain]] = True
            size += len(sections)
        rows = rows[~self.canonical[rows]]
        if len(rows):
            rewritten, starts, ends = self.rules.rewrite(self.data, self.starts[rows], self.ends[rows])
            pieces.append(rewritten.tobytes())
            self.starts[rows], self.ends[rows] = starts + size, ends + size
            self.canonical[rows] = True
        self.data = b"".join(pieces)


@dataclass(slots=True)
class Leg:
    """The part of a write for one ingester.

    `items`: positions of its series, then of its metadata (from S on), for the quorum. `known`: its samples whose
    series it has named, with `references`; `fresh`: its samples that go with labels. Both int64, ascending;
    `known` None: all samples of the write.
    """

    ingester: int
    name: str
    items: NDArray[np.int64] | slice
    known: NDArray[np.int64] | None
    references: NDArray[np.int32]
    fresh: NDArray[np.int64]
    metadata: tuple[Metadata, ...] = ()

    def sample_of(self, refused: NDArray[np.int32]) -> NDArray[np.int64]:
        """Which samples of the write those are that the ingester numbers so; see `Refusal.sample`."""
        if self.known is None:
            return refused.astype(np.int64)
        return np.concatenate((self.known, self.fresh))[refused]

    def exemplars_of(self, write: PreparedWrite) -> NDArray[np.int64]:
        """Positions of the write's exemplars that go to this ingester."""
        if write.exemplars is None:
            return np.zeros(0, np.int64)
        if isinstance(self.items, slice):
            return np.arange(len(write.exemplars))
        return np.flatnonzero(np.isin(write.exemplars.series, self.items))


def make_legs(
    write: PreparedWrite,
    owners: NDArray[np.int16],
    references: NDArray[np.int32],
    metadata_owners: NDArray[np.int16],
    instances: tuple[str, ...],
) -> list[Leg]:
    """Splits a write by ingester.

    Args:
        owners, references: [S, RF], of each series; NOBODY where nobody takes a replica.
        metadata_owners: int16[len(write.metadata), RF].
    """
    if len(owners) and not len(metadata_owners) and _constant_columns(owners):
        # Every ingester has every series: as many ingesters as replicas.
        return [
            _leg_of_all(write, at, instances[at], np.ascontiguousarray(references[:, replica]))
            for replica, at in enumerate(owners[0].tolist())
            if at != NOBODY
        ]
    rows = np.arange(len(write), dtype=np.int32) if write.rows is None else write.rows
    samples, named, offsets = _deal_samples(rows, owners, references, len(instances))
    if write.rows is None:
        series, series_offsets = samples, offsets
    else:
        series, _, series_offsets = _deal_samples(
            np.arange(len(write), dtype=np.int32), owners, references, len(instances)
        )
    legs = []
    for at, name in enumerate(instances):
        first, middle, last = offsets[2 * at : 2 * at + 3]
        items = series[series_offsets[2 * at] : series_offsets[2 * at + 2]]
        metadata: tuple[Metadata, ...] = ()
        if len(metadata_owners):
            families = np.flatnonzero((metadata_owners == at).any(axis=1))
            items = np.concatenate((items, families + len(write)))
            metadata = tuple(write.metadata[place] for place in families.tolist())
        if len(items):
            known = None if middle - first == len(rows) else samples[first:middle]
            legs.append(Leg(at, name, items, known, named[first:middle], samples[middle:last], metadata))
    return legs


def _constant_columns(owners: NDArray[np.int16]) -> bool:
    return bool((owners == owners[0]).all()) and len(set(owners[0].tolist())) == owners.shape[1]


def _leg_of_all(write: PreparedWrite, ingester: int, name: str, named: NDArray[np.int32]) -> Leg:
    """A leg with every sample; `named`: int32[S], references or UNKNOWN."""
    of_samples = named if write.rows is None else named[write.rows]
    if int(named.min()) >= 0:
        return Leg(ingester, name, slice(None), None, of_samples, np.zeros(0, np.int64))
    known = np.flatnonzero(of_samples >= 0)
    return Leg(ingester, name, slice(None), known, of_samples[known], np.flatnonzero(of_samples < 0))


def _deal_samples(
    rows: NDArray[np.int32], owners: NDArray[np.int16], references: NDArray[np.int32], ingesters: int
) -> tuple[NDArray[np.int64], NDArray[np.int32], list[int]]:
    """(samples, references, offsets): what `_deal` writes, and its 2 * ingesters + 1 offsets."""
    samples = np.empty(len(rows) * owners.shape[1], np.int64)
    named = np.empty(len(samples), np.int32)
    offsets = np.zeros(2 * ingesters + 1, np.int64)
    _deal(rows, owners.astype(np.int32), np.ascontiguousarray(references), samples, named, offsets)
    return samples, named, offsets.tolist()


@kernel
def _deal(rows: I32, owners: I32x2, references: I32x2, samples: OutI64, named: OutI32, offsets: OutI64) -> None:
    """Sorts samples by ingester, and of each ingester those with a reference before those without.

    Args:
        rows: int32[N], the series of each sample.
        owners, references: int32[S, RF]; -1: nobody, no reference.
        samples, named: [N * RF], written: indices of samples, ascending in each part, and their references.
        offsets: int64[2 * I + 1], zeros; ingester i has named samples from offsets[2i] on, others from
            offsets[2i + 1] to offsets[2i + 2].
    """
    for place in range(len(rows)):
        row = rows[place]
        for replica in range(owners.shape[1]):
            owner = owners[row, replica]
            if owner >= 0:
                offsets[2 * owner + (references[row, replica] < 0) + 1] += 1
    for part in range(1, len(offsets)):
        offsets[part] += offsets[part - 1]
    total = offsets[len(offsets) - 1]
    # offsets[p + 1] is the end of part p, and moves down to its start.
    for place in range(len(rows) - 1, -1, -1):
        row = rows[place]
        for replica in range(owners.shape[1]):
            owner = owners[row, replica]
            if owner >= 0:
                end = 2 * owner + (references[row, replica] < 0) + 1
                offsets[end] -= 1
                samples[offsets[end]] = place
                named[offsets[end]] = references[row, replica]
    for part in range(len(offsets) - 1):
        offsets[part] = offsets[part + 1]
    offsets[len(offsets) - 1] = total


def first_batch(write: PreparedWrite, leg: Leg, cache: SeriesCache) -> tuple[WriteBatch, NDArray[np.int32]]:
    """What the ingester gets first, and int32[R]: the series (positions in the write) that go with labels."""
    incarnation = cache.incarnation(leg.name)
    if leg.known is None:
        batch = WriteBatch(
            write.tenant, incarnation, leg.references, write.timestamps, write.values, metadata=leg.metadata,
            start_timestamps=write.start_timestamps, zeros_within_ms=write.zeros_within_ms,
        )  # fmt: skip
        _attach_histograms(batch, write.histograms)
        batch.exemplars = exemplar_columns(write, leg.exemplars_of(write))
        return batch, _NONE
    batch, rows = _labelled(write, leg.fresh, incarnation)
    batch.metadata = leg.metadata
    batch.references = leg.references
    batch.timestamps = write.timestamps[leg.known]
    batch.values = write.values[leg.known]
    if write.start_timestamps is not None:
        batch.start_timestamps = write.start_timestamps[leg.known]
    _attach_histograms(batch, write.histograms)
    batch.exemplars = exemplar_columns(write, leg.exemplars_of(write))
    return batch, rows


def labelled_batch(
    write: PreparedWrite, samples: NDArray[np.int64], incarnation: int
) -> tuple[WriteBatch, NDArray[np.int32]]:
    """These samples with the labels of their series; and int32[R], the series in the order of the batch."""
    batch, rows = _labelled(write, samples, incarnation)
    _attach_histograms(batch, write.histograms)
    return batch, rows


def _attach_histograms(batch: WriteBatch, histograms: HistogramColumns | None) -> None:
    """Gives a batch those of the write's histograms that its samples are, numbered anew."""
    if histograms is None:
        return
    known, new = is_boxed(batch.values), is_boxed(batch.new_values)
    numbers = np.unique(np.concatenate((unbox(batch.values[known]), unbox(batch.new_values[new]))))
    if not len(numbers):
        return
    batch.histograms = histograms if len(numbers) == len(histograms) else histograms.take(numbers)
    if len(numbers) < len(histograms):
        batch.values, batch.new_values = batch.values.copy(), batch.new_values.copy()
        for values, boxed in ((batch.values, known), (batch.new_values, new)):
            values[boxed] = box(np.searchsorted(numbers, unbox(values[boxed])))


def exemplar_columns(write: PreparedWrite, rows: NDArray[np.int64]) -> ExemplarColumns | None:
    """These of the write's exemplars, with the labels of their series; None where there are none."""
    found = write.exemplars
    if found is None or not len(rows):
        return None
    series, numbers = np.unique(found.series[rows], return_inverse=True)
    write.canonicalise(series)
    data = np.frombuffer(write.data, np.uint8)
    series_labels, series_offsets = _gathered(data, write.starts[series], write.ends[series])
    labels, offsets = _gathered(found.labels, found.offsets[rows], found.offsets[rows + 1])
    return ExemplarColumns(
        numbers.astype(np.int32), found.timestamps[rows], found.values[rows],
        labels, offsets, series_labels, series_offsets,
    )  # fmt: skip


def _gathered(
    data: NDArray[np.uint8], starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> tuple[bytes, NDArray[np.int64]]:
    """The sections data[starts[i]:ends[i]] back to back, and where each begins."""
    offsets = np.zeros(len(starts) + 1, np.int64)
    np.cumsum(ends - starts, out=offsets[1:])
    sections = np.empty(int(offsets[-1]), np.uint8)
    gather_sections(data, starts, offsets, sections)
    return sections.tobytes(), offsets


def _labelled(
    write: PreparedWrite, samples: NDArray[np.int64], incarnation: int
) -> tuple[WriteBatch, NDArray[np.int32]]:
    of_samples = samples if write.rows is None else write.rows[samples]
    if write.rows is None:
        rows, places = of_samples, np.arange(len(samples), dtype=np.int32)
    else:
        rows, inverse = np.unique(of_samples, return_inverse=True)
        places = inverse.astype(np.int32)
    write.canonicalise(rows)
    data = np.frombuffer(write.data, np.uint8)
    sections, offsets = _gathered(data, write.starts[rows], write.ends[rows])
    batch = WriteBatch(
        write.tenant,
        incarnation,
        _NONE,
        write.timestamps[:0],
        write.values[:0],
        sections,
        offsets,
        places,
        write.timestamps[samples],
        write.values[samples],
        new_start_timestamps=None if write.start_timestamps is None else write.start_timestamps[samples],
        zeros_within_ms=write.zeros_within_ms,
    )
    return batch, rows.astype(np.int32)


@kernel
def gather_sections(data: U8, starts: I64, offsets: I64, out: OutU8) -> None:
    """out[offsets[i]:offsets[i + 1]] = as many bytes of data from starts[i] on."""
    for row in range(len(starts)):
        copy_bytes(out, offsets[row], data, starts[row], offsets[row + 1] - offsets[row])
