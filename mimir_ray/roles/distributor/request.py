"""One write request on its way: columns, who gets which part of it, and the batches made of them.

Everything here is pure: no waiting, no clocks. Arrays are shared with the scan of the request where
nothing was left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mimir_ray.config.limits import Limits
from mimir_ray.encoding.bits import copy_bytes
from mimir_ray.kernel import I64, U8, OutU8, kernel
from mimir_ray.model.metadata import Metadata
from mimir_ray.model.tenant import TenantId
from mimir_ray.roles.api import WriteBatch
from mimir_ray.roles.distributor.series_cache import NOBODY, UNKNOWN, SeriesCache
from mimir_ray.roles.distributor.validation import canonical_labels
from mimir_ray.wire.protobuf import encode_labels, parse_labels

_NONE = np.zeros(0, np.int32)


@dataclass(slots=True)
class PreparedWrite:
    """What is left of a request after validation: S series with N samples, each series has at least one.

    `ids`: int32[S] in the tenant's cache of `generation` under `ring_version`. The labels of series s are
    `data[starts[s]:ends[s]]`, in canonical form if `canonical[s]`; `canonicalise` makes it so. `rows`: int32[N]
    ascending, the series of each sample, or None where series s has just sample s.
    """

    tenant: TenantId
    limits: Limits
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

    def __len__(self) -> int:
        return len(self.ids)

    def canonicalise(self, series: NDArray[np.integer]) -> None:
        """Gives these series canonical labels, behind the data, where they came in another form."""
        sections = []
        size = len(self.data)
        for row in series[~self.canonical[series]].tolist():
            raw = parse_labels(self.data, int(self.starts[row]), int(self.ends[row]))
            section = encode_labels(canonical_labels(raw, self.limits))
            self.starts[row], self.ends[row] = size, size + len(section)
            self.canonical[row] = True
            sections.append(section)
            size += len(section)
        if sections:
            self.data = b"".join((self.data, *sections))


@dataclass(slots=True)
class Leg:
    """The part of a write for one ingester.

    `items`: positions of its series, then of its metadata (from S on), for the quorum. `known`: its samples whose
    series it has named, with `references`; `fresh`: its samples that go with labels. Both int64, ascending;
    `known` None: all samples of the write.
    """

    ingester: int
    name: str
    items: NDArray[np.intp] | slice
    known: NDArray[np.intp] | None
    references: NDArray[np.int32]
    fresh: NDArray[np.intp]
    metadata: tuple[Metadata, ...] = ()


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
            _leg(write, at, instances[at], slice(None), None, np.ascontiguousarray(references[:, replica]), ())
            for replica, at in enumerate(owners[0].tolist())
            if at != NOBODY
        ]
    legs = []
    for at in np.union1d(owners, metadata_owners).tolist():
        if at == NOBODY:
            continue
        hit = owners == at
        mine = hit.any(axis=1)
        named = np.full(len(write), UNKNOWN, np.int32)
        named[mine] = references[hit]
        families = np.flatnonzero((metadata_owners == at).any(axis=1))
        items = np.concatenate((np.flatnonzero(mine), families + len(write)))
        metadata = tuple(write.metadata[place] for place in families.tolist())
        legs.append(_leg(write, at, instances[at], items, None if mine.all() else mine, named, metadata))
    return legs


def _constant_columns(owners: NDArray[np.int16]) -> bool:
    return bool((owners == owners[0]).all()) and len(set(owners[0].tolist())) == owners.shape[1]


def _leg(
    write: PreparedWrite,
    ingester: int,
    name: str,
    items: NDArray[np.intp] | slice,
    mine: NDArray[np.bool_] | None,
    named: NDArray[np.int32],
    metadata: tuple[Metadata, ...],
) -> Leg:
    """`mine`: bool[S], or None for all; `named`: int32[S]."""
    of_samples = named if write.rows is None else named[write.rows]
    if mine is None and (not len(named) or int(named.min()) >= 0):
        return Leg(ingester, name, items, None, of_samples, _NONE.astype(np.intp), metadata)
    is_known = of_samples >= 0
    is_fresh = ~is_known
    if mine is not None:
        chosen = mine if write.rows is None else mine[write.rows]
        is_known &= chosen
        is_fresh &= chosen
    known = np.flatnonzero(is_known)
    return Leg(ingester, name, items, known, of_samples[known], np.flatnonzero(is_fresh), metadata)


def first_batch(write: PreparedWrite, leg: Leg, cache: SeriesCache) -> tuple[WriteBatch, NDArray[np.int32]]:
    """What the ingester gets first, and int32[R]: the series (positions in the write) that go with labels."""
    incarnation = cache.incarnation(leg.name)
    if leg.known is None:
        batch = WriteBatch(
            write.tenant, incarnation, leg.references, write.timestamps, write.values, metadata=leg.metadata
        )
        return batch, _NONE
    batch, rows = labelled_batch(write, leg.fresh, incarnation)
    batch.metadata = leg.metadata
    batch.references = leg.references
    batch.timestamps = write.timestamps[leg.known]
    batch.values = write.values[leg.known]
    return batch, rows


def labelled_batch(
    write: PreparedWrite, samples: NDArray[np.intp], incarnation: int
) -> tuple[WriteBatch, NDArray[np.int32]]:
    """These samples with the labels of their series; and int32[R], the series in the order of the batch."""
    of_samples = samples if write.rows is None else write.rows[samples]
    if write.rows is None:
        rows, places = of_samples, np.arange(len(samples), dtype=np.int32)
    else:
        rows, inverse = np.unique(of_samples, return_inverse=True)
        places = inverse.astype(np.int32)
    write.canonicalise(rows)
    starts, ends = write.starts[rows], write.ends[rows]
    offsets = np.zeros(len(rows) + 1, np.int64)
    np.cumsum(ends - starts, out=offsets[1:])
    sections = np.empty(int(offsets[-1]), np.uint8)
    gather_sections(np.frombuffer(write.data, np.uint8), starts, offsets, sections)
    batch = WriteBatch(
        write.tenant,
        incarnation,
        _NONE,
        write.timestamps[:0],
        write.values[:0],
        sections.tobytes(),
        offsets,
        places,
        write.timestamps[samples],
        write.values[samples],
    )
    return batch, rows.astype(np.int32)


@kernel
def gather_sections(data: U8, starts: I64, offsets: I64, out: OutU8) -> None:
    """out[offsets[i]:offsets[i + 1]] = as many bytes of data from starts[i] on."""
    for row in range(len(starts)):
        copy_bytes(out, offsets[row], data, starts[row], offsets[row + 1] - offsets[row])
