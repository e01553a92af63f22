"""Chunks of many series: which can be copied as they are, and which must be decoded, merged and packed anew.

Chunks of a series that overlap in time, or stick out of the wanted range, form a cluster that is decoded, cut,
merged (of samples with one timestamp the one of the earliest chunk in the table wins) and encoded again. Any other
chunk is a cluster of its own and keeps its bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mimir_ray.kernel import I64, OutBool, OutI64, kernel
from mimir_ray.tsdb.chunks.open_chunks import OpenChunks
from mimir_ray.tsdb.chunks.xor import SAMPLES_PER_CHUNK, chunk_counts, decode_chunks
from mimir_ray.tsdb.head.reading import trim

from .chunk_files import XOR
from .errors import DamagedBlock, UnsupportedChunks

_ANY_RANGE = 1 << 62


@dataclass(slots=True)
class ChunkTable:
    """C chunks of S series: series s has rows offsets[s]:offsets[s + 1] (int64[S + 1]).

    `mints`, `maxts` int64 (ms, both included); the bytes are data[sources[c]][starts[c]:starts[c] + lengths[c]] of a
    list of arrays that goes with the table (int32, int64, int64); `counts` int64 samples; `encodings` uint8.
    """

    offsets: NDArray[np.int64]
    mints: NDArray[np.int64]
    maxts: NDArray[np.int64]
    sources: NDArray[np.int32]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    counts: NDArray[np.int64]
    encodings: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.mints)

    def take(self, rows: NDArray[np.int64], offsets: NDArray[np.int64]) -> ChunkTable:
        """These chunks, cut into series by new offsets."""
        return ChunkTable(
            offsets, self.mints[rows], self.maxts[rows], self.sources[rows], self.starts[rows],
            self.lengths[rows], self.counts[rows], self.encodings[rows],
        )  # fmt: skip


Data = Sequence[NDArray[np.uint8]]


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


def encode_runs(
    offsets: NDArray[np.int64],
    timestamps: NDArray[np.int64],
    values: NDArray[np.float64],
    samples_per_chunk: int = SAMPLES_PER_CHUNK,
) -> tuple[ChunkTable, NDArray[np.uint8]]:
    """Packs the samples of S series (as in SeriesBatch) into chunks: the table (source 0) and its bytes."""
    count = len(offsets) - 1
    rows = np.arange(count, dtype=np.int32)
    packer = OpenChunks(_ANY_RANGE, samples_per_chunk)
    packer.reserve(count)
    timestamps, values = np.ascontiguousarray(timestamps, np.int64), np.ascontiguousarray(values, np.float64)
    offsets = np.ascontiguousarray(offsets, np.int64)
    full = packer.append(rows, offsets[:-1].copy(), offsets[1:].copy(), timestamps, values)
    rest = packer.close(rows)
    series = np.concatenate((full.series, rest.series))
    order = np.argsort(series, kind="stable")
    starts = np.concatenate((full.starts, rest.starts + len(full.data)))
    table = ChunkTable(
        np.concatenate((np.zeros(1, np.int64), np.cumsum(np.bincount(series, minlength=count)))),
        np.concatenate((full.mints, rest.mints))[order],
        np.concatenate((full.maxts, rest.maxts))[order],
        np.zeros(len(series), np.int32),
        starts[order],
        np.concatenate((full.lengths, rest.lengths)).astype(np.int64)[order],
        np.concatenate((full.counts, rest.counts)).astype(np.int64)[order],
        np.full(len(series), XOR, np.uint8),
    )
    return table, np.concatenate((full.data, rest.data))


def decode_table(table: ChunkTable, data: Data) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """(offsets int64[C + 1], timestamps, values) of every chunk, uncut, in the order of the table.

    Raises `DamagedBlock` and `UnsupportedChunks`.
    """
    if (other := table.encodings != XOR).any():
        raise UnsupportedChunks("the block", int(table.encodings[other][0]))
    offsets = np.zeros(len(table) + 1, np.int64)
    np.cumsum(table.counts, out=offsets[1:])
    timestamps, values = np.empty(offsets[-1], np.int64), np.empty(offsets[-1], np.float64)
    for source in np.unique(table.sources).tolist():
        rows = np.flatnonzero(table.sources == source)
        starts = table.starts[rows]
        ends = starts + table.lengths[rows]
        counts = np.empty(len(rows), np.int64)
        code = chunk_counts(data[source], starts, ends, counts)
        if code >= 0 and (counts != table.counts[rows]).any():
            code = -1 - int(np.flatnonzero(counts != table.counts[rows])[0])
        if code >= 0:
            code = decode_chunks(data[source], starts, ends, offsets[rows], timestamps, values)
        if code < 0:
            raise DamagedBlock("chunk data", int(starts[-code - 1]), "the chunk cannot be decoded")
    return offsets, timestamps, values


def merge_chunks(
    table: ChunkTable, data: Data, mint: int, maxt: int, samples_per_chunk: int = SAMPLES_PER_CHUNK
) -> tuple[ChunkTable, list[NDArray[np.uint8]]]:
    """The chunks of the samples in [mint, maxt]: in every series ascending in time and disjoint.

    Args:
        table, data: chunks of a series in order of precedence; they may overlap each other and the range.

    Returns a table and its arrays: those given, and one with the chunks that were made. Series may be left without
    any. Raises `DamagedBlock`, and `UnsupportedChunks` where chunks that are not XOR would have to be decoded.
    """
    count = len(table)
    clusters, series, whole = np.empty(count, np.int64), np.empty(count, np.int64), np.empty(count, np.bool_)
    found = cluster_chunks(table.offsets, table.mints, table.maxts, mint, maxt, clusters, series, whole)
    if found == count and whole[:found].all() and (clusters[1:] > clusters[:-1]).all():
        return table, list(data)
    copied = np.flatnonzero(whole[clusters])
    merged = np.flatnonzero(~whole[clusters])
    merged = merged[np.argsort(clusters[merged], kind="stable")]
    numbers, sizes = np.unique(clusters[merged], return_counts=True)
    cuts = np.concatenate((np.zeros(1, np.int64), np.cumsum(sizes)))
    part = table.take(merged, cuts)
    ends, timestamps, values = decode_table(part, data)
    trimmed = np.empty(len(cuts), np.int64)
    total = trim(mint, maxt, ends[cuts], sizes > 1, timestamps, values, trimmed)
    made, bytes_made = encode_runs(trimmed, timestamps[:total], values[:total], samples_per_chunk)
    made.sources[:] = len(data)
    made_clusters = np.repeat(numbers, np.diff(made.offsets))
    all_clusters = np.concatenate((clusters[copied], made_clusters))
    order = np.argsort(all_clusters, kind="stable")
    kept = table.take(copied, table.offsets)
    offsets = np.zeros(len(table.offsets), np.int64)
    np.cumsum(np.bincount(series[all_clusters], minlength=len(offsets) - 1), out=offsets[1:])
    joined = ChunkTable(
        offsets,
        np.concatenate((kept.mints, made.mints))[order],
        np.concatenate((kept.maxts, made.maxts))[order],
        np.concatenate((kept.sources, made.sources))[order],
        np.concatenate((kept.starts, made.starts))[order],
        np.concatenate((kept.lengths, made.lengths))[order],
        np.concatenate((kept.counts, made.counts))[order],
        np.concatenate((kept.encodings, made.encodings))[order],
    )
    return joined, [*data, bytes_made]
