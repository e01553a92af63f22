"""Samples of series to chunks of the encodings that they need.

Floats become XOR chunks, histograms chunks of their own; a series of which a start timestamp is known gets the
encodings that have room for it (read by Prometheus from 3.11 for floats, from 3.14 for histograms).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mimir_ray.tsdb.chunks.histogram_encode import encode_runs_of_histograms
from mimir_ray.tsdb.chunks.open_chunks import OpenChunks
from mimir_ray.tsdb.chunks.xor import SAMPLES_PER_CHUNK
from mimir_ray.tsdb.chunks.xor2 import HEADER_BYTES, SAMPLE_BYTES_MAX, SLACK_BYTES, XOR2, encode_xor2

from .chunk_files import XOR
from .chunk_table import ChunkTable
from .decode import Samples
from .series_labels import take_ranges

_ANY_RANGE = 1 << 62
_HISTOGRAM, _WITH_START = 1, 2
"""Bits of a kind of run."""


def encode_runs(samples: Samples, samples_per_chunk: int = SAMPLES_PER_CHUNK) -> tuple[ChunkTable, NDArray[np.uint8]]:
    """Packs the samples of S series into chunks: the table (source 0) and its bytes.

    Every series' samples are ascending. A chunk holds samples of one kind, so those of a series that changes between
    floats and histograms are cut where it does.
    """
    if samples.histograms is None and samples.start_timestamps is None:
        return _encode_floats(samples, samples_per_chunk)
    cuts, series, kinds = _runs(samples)
    tables, pieces, runs = [], [], []
    before = 0
    for kind in np.unique(kinds).tolist():
        chosen = np.flatnonzero(kinds == kind)
        offsets, rows = take_ranges(cuts, chosen)
        part = samples.take(rows, offsets)
        if kind & _HISTOGRAM:
            table, data = _encode_histograms(part, bool(kind & _WITH_START), samples_per_chunk)
        elif kind & _WITH_START:
            table, data = _encode_with_start(part, samples_per_chunk)
        else:
            table, data = _encode_floats(part, samples_per_chunk)
        table.starts += before
        before += len(data)
        tables.append(table)
        pieces.append(data)
        runs.append(chosen)
    table = ChunkTable.interleave(tables, runs, len(kinds))
    table.offsets = table.offsets[np.searchsorted(series, np.arange(len(samples.offsets)))]
    return table, np.concatenate((np.zeros(0, np.uint8), *pieces))


def _runs(samples: Samples) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """(int64[R + 1] where runs of one kind start, the series of each, its kind)."""
    sizes = np.diff(samples.offsets)
    owners = np.repeat(np.arange(len(sizes)), sizes)
    kinds = np.zeros(len(samples.timestamps), np.int64)
    if samples.histograms is not None:
        kinds |= np.where(samples.histograms.here, _HISTOGRAM, 0)
    if samples.start_timestamps is not None:
        known = np.zeros(len(sizes), np.bool_)
        known[owners[samples.start_timestamps != 0]] = True
        kinds |= np.where(known[owners], _WITH_START, 0)
    firsts = np.flatnonzero(np.diff(owners, prepend=-1) | np.diff(kinds, prepend=-1))
    return np.append(firsts, len(kinds)), owners[firsts], kinds[firsts]


def _table(
    runs: NDArray[np.int64],
    count: int,
    mints: NDArray[np.int64],
    maxts: NDArray[np.int64],
    starts: NDArray[np.int64],
    lengths: NDArray[np.int64],
    counts: NDArray[np.int64],
    encodings: NDArray[np.uint8],
) -> ChunkTable:
    """Of chunks of `count` runs, ascending by run."""
    offsets = np.concatenate((np.zeros(1, np.int64), np.cumsum(np.bincount(runs, minlength=count))))
    return ChunkTable(offsets, mints, maxts, np.zeros(len(runs), np.int32), starts, lengths, counts, encodings)


def _encode_floats(samples: Samples, samples_per_chunk: int) -> tuple[ChunkTable, NDArray[np.uint8]]:
    count = len(samples.offsets) - 1
    rows = np.arange(count, dtype=np.int32)
    packer = OpenChunks(_ANY_RANGE, samples_per_chunk)
    packer.reserve(count)
    timestamps = np.ascontiguousarray(samples.timestamps, np.int64)
    values = np.ascontiguousarray(samples.values, np.float64)
    offsets = np.ascontiguousarray(samples.offsets, np.int64)
    full = packer.append(rows, offsets[:-1].copy(), offsets[1:].copy(), timestamps, values)
    rest = packer.close(rows)
    runs = np.concatenate((full.series, rest.series))
    order = np.argsort(runs, kind="stable")
    table = _table(
        runs[order],
        count,
        np.concatenate((full.mints, rest.mints))[order],
        np.concatenate((full.maxts, rest.maxts))[order],
        np.concatenate((full.starts, rest.starts + len(full.data)))[order],
        np.concatenate((full.lengths, rest.lengths)).astype(np.int64)[order],
        np.concatenate((full.counts, rest.counts)).astype(np.int64)[order],
        np.full(len(runs), XOR, np.uint8),
    )
    return table, np.concatenate((full.data, rest.data))


def _encode_with_start(samples: Samples, samples_per_chunk: int) -> tuple[ChunkTable, NDArray[np.uint8]]:
    assert samples.start_timestamps is not None
    sizes = np.diff(samples.offsets)
    chunks = -(-sizes // samples_per_chunk)
    runs = np.repeat(np.arange(len(sizes)), chunks)
    number = np.arange(len(runs)) - np.repeat(np.cumsum(chunks) - chunks, chunks)
    cuts = np.append(samples.offsets[runs] + number * samples_per_chunk, samples.offsets[-1])
    out = np.empty(HEADER_BYTES * len(runs) + SAMPLE_BYTES_MAX * len(samples.timestamps) + SLACK_BYTES, np.uint8)
    starts = np.empty(len(runs) + 1, np.int64)
    size = encode_xor2(cuts, samples.timestamps, samples.values, samples.start_timestamps, out, starts)
    times = samples.timestamps
    return _table(
        runs, len(sizes), times[cuts[:-1]], times[cuts[1:] - 1], starts[:-1], np.diff(starts), np.diff(cuts),
        np.full(len(runs), XOR2, np.uint8),
    ), out[:size].copy()  # fmt: skip


def _encode_histograms(
    samples: Samples, with_start: bool, samples_per_chunk: int
) -> tuple[ChunkTable, NDArray[np.uint8]]:
    assert samples.histograms is not None
    which, columns = samples.histograms.which, samples.histograms.columns
    if len(which) != len(columns) or (which[1:] != which[:-1] + 1).any():
        columns = columns.take(which)
    starts = samples.start_timestamps if with_start else None
    times = samples.timestamps
    made = encode_runs_of_histograms(samples.offsets, times, columns, starts, samples_per_chunk)
    return _table(
        made.runs, len(samples.offsets) - 1, times[made.cuts[:-1]], times[made.cuts[1:] - 1],
        made.starts[:-1], np.diff(made.starts), np.diff(made.cuts), made.encodings,
    ), made.data  # fmt: skip
