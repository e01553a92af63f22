"""Chunks of many series: which can be copied as they are, and which must be decoded, merged and packed anew.

Chunks of a series that overlap in time, or stick out of the wanted range, form a cluster that is decoded, cut,
merged (of samples with one timestamp the one of the earliest chunk in the table wins) and encoded again. Any other
chunk is a cluster of its own and keeps its bytes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mimir_ray.kernel import I64, U8, OutBool, OutI64, kernel
from mimir_ray.tsdb.chunks.xor import SAMPLES_PER_CHUNK

from .chunk_table import ChunkTable, Data
from .decode import Samples, decode, name_of
from .encode import encode_runs
from .errors import DamagedBlock
from .tombstones import Tombstones


@kernel
def cluster_chunks(
    offsets: I64, mints: I64, maxts: I64, mint: int, maxt: int, clusters: OutI64, series: OutI64, whole: OutBool
) -> int:
    """Numbers the clusters of all series, ascending in time inside a series; returns how many.

    Args:
        offsets, mints, maxts: as in ChunkTable; chunks of a series in any order.
        clusters: int64[C], written: the cluster of each chunk.
        series, whole: of length C, written by cluster: whose it is, and whether it is one chunk inside [mint, maxt].
    """
    found = 0
    for s in range(len(offsets) - 1):
        start, end = offsets[s], offsets[s + 1]
        ascending = True
        for k in range(start + 1, end):
            if mints[k] < mints[k - 1]:
                ascending = False
        order = np.arange(start, end)
        if not ascending:
            order = start + np.argsort(mints[start:end].copy(), kind="mergesort")
        high = np.int64(0)
        for j in range(end - start):
            k = order[j]
            if j == 0 or mints[k] > high:
                series[found] = s
                whole[found] = mints[k] >= mint and maxts[k] <= maxt
                high = maxts[k]
                found += 1
            else:
                whole[found - 1] = False
                high = max(high, maxts[k])
            clusters[k] = found - 1
    return found


@kernel
def ranges_equal(data: U8, starts: I64, other: U8, other_starts: I64, lengths: I64, out: OutBool) -> None:
    """out[i]: whether data[starts[i]:starts[i] + lengths[i]] are the same bytes as those of `other`."""
    for i in range(len(starts)):
        out[i] = True
        for k in range(lengths[i]):
            if data[starts[i] + k] != other[other_starts[i] + k]:
                out[i] = False
                break


def without_copies(table: ChunkTable, data: Data) -> ChunkTable:
    """The table without chunks that an earlier one of the series equals to the byte, as replicas' chunks do."""
    owners = np.repeat(np.arange(len(table.offsets) - 1), np.diff(table.offsets))
    order = np.lexsort((table.maxts, table.mints, owners))
    one, other = order[1:], order[:-1]
    alike = owners[one] == owners[other]
    for column in (table.mints, table.maxts, table.lengths, table.counts, table.encodings):
        alike &= column[one] == column[other]
    one, other = one[alike], other[alike]
    same = np.zeros(len(one), np.bool_)
    pairs = table.sources[one].astype(np.int64) * len(data) + table.sources[other]
    for pair in np.unique(pairs).tolist():
        mine = pairs == pair
        a, b = one[mine], other[mine]
        found = np.empty(len(a), np.bool_)
        ranges_equal(
            data[pair // len(data)], table.starts[a], data[pair % len(data)], table.starts[b], table.lengths[a], found
        )
        same[mine] = found
    if not same.any():
        return table
    kept = np.ones(len(table), np.bool_)
    kept[one[same]] = False
    offsets = np.zeros(len(table.offsets), np.int64)
    np.cumsum(np.bincount(owners[kept], minlength=len(offsets) - 1), out=offsets[1:])
    return table.take(np.flatnonzero(kept), offsets)


def decode_table(table: ChunkTable, data: Data, names: Sequence[str] = ()) -> Samples:
    """The samples of every chunk, uncut, in the order of the table. Raises `DamagedBlock`, `UnsupportedChunks`."""
    ends = table.starts + table.lengths
    samples = decode(data, table.sources, table.starts, ends, table.encodings, names)
    if (different := np.diff(samples.offsets) != table.counts).any():
        row = int(np.flatnonzero(different)[0])
        name = name_of(names, int(table.sources[row]))
        raise DamagedBlock(name, int(table.starts[row]), "the chunk has another number of samples")
    return samples


def merge_chunks(
    table: ChunkTable,
    data: Data,
    mint: int,
    maxt: int,
    samples_per_chunk: int = SAMPLES_PER_CHUNK,
    names: Sequence[str] = (),
) -> tuple[ChunkTable, list[NDArray[np.uint8]]]:
    """The chunks of the samples in [mint, maxt]: in every series ascending in time and disjoint.

    Args:
        table, data: chunks of a series in order of precedence; they may overlap each other and the range.
        names: of the arrays, for errors.

    Returns a table and its arrays: those given, and one with the chunks that were made. Series may be left without
    any. Raises `DamagedBlock`, and `UnsupportedChunks` where chunks that are not known would have to be decoded.
    """
    clusters, series, whole = _clusters(table, mint, maxt)
    if len(whole) < len(table) and len(smaller := without_copies(table, data)) < len(table):
        table = smaller
        clusters, series, whole = _clusters(table, mint, maxt)
    if len(whole) == len(table) and whole.all() and (clusters[1:] > clusters[:-1]).all():
        return table, list(data)
    merged = np.flatnonzero(~whole[clusters])
    merged = merged[np.argsort(clusters[merged], kind="stable")]
    numbers, sizes = np.unique(clusters[merged], return_counts=True)
    cuts = np.concatenate((np.zeros(1, np.int64), np.cumsum(sizes)))
    samples = decode_table(table.take(merged, cuts), data, names).trimmed(cuts, sizes > 1, mint, maxt)
    made, made_data = encode_runs(samples, samples_per_chunk)
    copied = np.flatnonzero(whole[clusters])
    return _joined(table, data, copied, clusters[copied], made, made_data, numbers, series)


def _clusters(
    table: ChunkTable, mint: int, maxt: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """As `cluster_chunks` writes them, the latter two of as many clusters as there are."""
    count = len(table)
    clusters, series, whole = np.empty(count, np.int64), np.empty(count, np.int64), np.empty(count, np.bool_)
    found = cluster_chunks(table.offsets, table.mints, table.maxts, mint, maxt, clusters, series, whole)
    return clusters, series[:found], whole[:found]


def without_deleted(
    table: ChunkTable,
    data: Data,
    references: NDArray[np.int64],
    stones: Tombstones,
    samples_per_chunk: int = SAMPLES_PER_CHUNK,
    names: Sequence[str] = (),
) -> tuple[ChunkTable, list[NDArray[np.uint8]]]:
    """The chunks without what the tombstones delete; those that they touch are decoded and packed anew.

    `references`: int64[S], of the series of the table, as tombstones name them. Returns and raises as `merge_chunks`.
    """
    owners = np.repeat(references, np.diff(table.offsets))
    firsts = np.searchsorted(stones.references, owners)
    counts = np.searchsorted(stones.references, owners, side="right") - firsts
    # Every chunk beside every tombstone of its series.
    chunks = np.repeat(np.arange(len(table)), counts)
    ranges = np.arange(len(chunks)) - np.repeat(np.cumsum(counts) - counts - firsts, counts)
    both = (table.mints[chunks] <= stones.maxts[ranges]) & (table.maxts[chunks] >= stones.mints[ranges])
    touched = np.zeros(len(table), np.bool_)
    touched[chunks[both]] = True
    if not touched.any():
        return table, list(data)
    rows = np.flatnonzero(touched)
    samples = decode_table(table.take(rows, np.arange(len(rows) + 1)), data, names)
    samples = samples.without_deleted(owners[rows], stones)
    made, made_data = encode_runs(samples, samples_per_chunk)
    copied = np.flatnonzero(~touched)
    series = np.repeat(np.arange(len(references)), np.diff(table.offsets))
    return _joined(table, data, copied, copied, made, made_data, rows, series)


def _joined(
    table: ChunkTable,
    data: Data,
    copied: NDArray[np.int64],
    copied_places: NDArray[np.int64],
    made: ChunkTable,
    made_data: NDArray[np.uint8],
    made_places: NDArray[np.int64],
    series: NDArray[np.int64],
) -> tuple[ChunkTable, list[NDArray[np.uint8]]]:
    """Copied chunks of a table, and runs of chunks that were made, in the order of their places.

    `copied_places`, `made_places`: of each copied chunk and each run, different numbers; `series`: of each place.
    """
    made.sources[:] = len(data)
    places = np.concatenate((copied_places, np.repeat(made_places, np.diff(made.offsets))))
    order = np.argsort(places, kind="stable")
    offsets = np.zeros(len(table.offsets), np.int64)
    np.cumsum(np.bincount(series[places], minlength=len(offsets) - 1), out=offsets[1:])
    both = ChunkTable.concat((table.take(copied, np.array([0, len(copied)])), made))
    return both.take(order, offsets), [*data, made_data]
