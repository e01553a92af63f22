"""Cuts a time range of a head into a block.

Chunks of a head are XOR chunks. Of series of floats those are Prometheus' already, so those inside the range are
copied; those at its edges, and those that late samples overlap, are merged (chunk_merge.py). Native histograms stand in
them as numbers in NaNs (model/boxed.py), start timestamps beside them: series that have some are decoded and packed in
the encodings for that.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mimir_ray.kernel import I32, I64, OutI32, OutI64, kernel
from mimir_ray.model.boxed import is_boxed
from mimir_ray.model.selection import Selection
from mimir_ray.tsdb.head.head import Head
from mimir_ray.tsdb.head.pick import HeadPart
from mimir_ray.tsdb.head.reading import ARENA, Look
from mimir_ray.tsdb.head.start_timestamps import StartsLook

from .chunk_files import SEGMENT_BYTES, XOR
from .chunk_merge import decode_table, merge_chunks
from .chunk_table import ChunkTable, Data
from .encode import encode_runs
from .meta import BlockMeta, Compaction
from .series_labels import labels_of_index, take_ranges
from .writer import SERIES_PER_BATCH, BlockWriter

SAMPLES_PER_BATCH = 1 << 17
"""Histograms, and samples with start timestamps, that are packed at a time, unless a single series has more."""


@kernel
def list_chunks(
    mint: int, maxt: int, rows: I64, fill: bool,
    open_starts: I64, open_ends: I64, open_counts: I32, open_mints: I64, open_maxts: I64,
    chunk_last: I32, late_chunk_last: I32, chunk_mints: I64, chunk_maxts: I64, chunk_positions: I64,
    chunk_lengths: I32, chunk_counts: I32, chunk_previous: I32,
    offsets: OutI64, mints: OutI64, maxts: OutI64, sources: OutI32, starts: OutI64, lengths: OutI64, counts: OutI64,
) -> None:  # fmt: skip
    """The chunks of series `rows` of a look that touch [mint, maxt]: in order from old to new, then late ones.

    Called twice: without `fill` it writes `offsets` int64[B + 1], with it the columns of offsets[B] rows.
    """
    total = np.int64(0)
    for b in range(len(rows)):
        s = rows[b]
        # Chains go from new to old, so a series' rows are filled from their end.
        write = offsets[b + 1] if fill else np.int64(0)
        found = 0
        chunk = np.int64(late_chunk_last[s])
        late = True
        while True:
            if chunk < 0 or (not late and chunk_maxts[chunk] < mint):
                if not late:
                    break
                late = False
                chunk = np.int64(chunk_last[s])
                if open_counts[s] > 0 and open_mints[s] <= maxt and open_maxts[s] >= mint:
                    found += 1
                    if fill:
                        write -= 1
                        mints[write] = open_mints[s]
                        maxts[write] = open_maxts[s]
                        sources[write] = ARENA
                        starts[write] = open_starts[s]
                        lengths[write] = open_ends[s] - open_starts[s]
                        counts[write] = open_counts[s]
                continue
            if chunk_mints[chunk] <= maxt and chunk_maxts[chunk] >= mint:
                found += 1
                if fill:
                    write -= 1
                    mints[write] = chunk_mints[chunk]
                    maxts[write] = chunk_maxts[chunk]
                    sources[write] = np.int32(chunk_positions[chunk] >> 32)
                    starts[write] = chunk_positions[chunk] & np.int64(0xFFFFFFFF)
                    lengths[write] = chunk_lengths[chunk]
                    counts[write] = chunk_counts[chunk]
            chunk = np.int64(chunk_previous[chunk])
        if not fill:
            offsets[b] = total
            total += found
    if not fill:
        offsets[len(rows)] = total


def _table(look: Look, rows: NDArray[np.int64], mint: int, maxt: int) -> ChunkTable:
    """Of these series; sources as in the look."""
    offsets = np.empty(len(rows) + 1, np.int64)
    count = 0
    for fill in (False, True):
        times = np.empty(count, np.int64), np.empty(count, np.int64)
        sources = np.empty(count, np.int32)
        rest = tuple(np.empty(count, np.int64) for _ in range(3))
        list_chunks(
            mint, maxt, rows, fill,
            look.open_starts, look.open_ends, look.open_counts, look.open_mints, look.open_maxts,
            look.chunk_last, look.late_chunk_last, *look.table,
            offsets, *times, sources, *rest,
        )  # fmt: skip
        count = int(offsets[-1])
    return ChunkTable(offsets, *times, sources, *rest, np.full(count, XOR, np.uint8))


def _packed(
    head: Head,
    references: NDArray[np.int32],
    starts: StartsLook | None,
    table: ChunkTable,
    data: Data,
    mint: int,
    maxt: int,
) -> tuple[ChunkTable, list[NDArray[np.uint8]]]:
    """The chunks of the samples in [mint, maxt] of these series, as a block has them."""
    samples_per_chunk = head.settings.samples_per_chunk
    if starts is None and not head.has_histograms:
        return merge_chunks(table, data, mint, maxt, samples_per_chunk)
    samples = decode_table(table, data)
    cuts = samples.offsets[table.offsets]
    if starts is not None:
        samples.start_timestamps = _start_timestamps(starts, references, cuts, samples.timestamps)
    others = is_boxed(samples.values)
    if samples.start_timestamps is not None:
        others |= samples.start_timestamps != 0
    weights = np.diff(np.concatenate((np.zeros(1, np.int64), np.cumsum(others)))[cuts])
    if not weights.any():
        return merge_chunks(table, data, mint, maxt, samples_per_chunk)
    plain, anew = np.flatnonzero(weights == 0), np.flatnonzero(weights)
    offsets, chunks = take_ranges(table.offsets, plain)
    copied, pieces = merge_chunks(table.take(chunks, offsets), data, mint, maxt, samples_per_chunk)
    tables, series = [copied], [plain]
    batches = np.cumsum(weights[anew]) // SAMPLES_PER_BATCH
    for batch in np.split(anew, np.flatnonzero(np.diff(batches)) + 1):
        sample_offsets, rows = take_ranges(cuts, batch)
        runs = np.arange(len(batch) + 1)
        part = samples.take(rows, sample_offsets).trimmed(runs, np.ones(len(batch), np.bool_), mint, maxt)
        part.values, part.histograms = head.resolve(part.values)
        made, made_data = encode_runs(part, samples_per_chunk)
        made.sources[:] = len(pieces)
        tables.append(made)
        series.append(batch)
        pieces.append(made_data)
    return ChunkTable.interleave(tables, series, len(weights)), pieces


def _start_timestamps(
    starts: StartsLook, references: NDArray[np.int32], offsets: NDArray[np.int64], timestamps: NDArray[np.int64]
) -> NDArray[np.int64] | None:
    """Of samples whose order inside a series is that of chunks, which may overlap."""
    series = np.repeat(np.arange(len(references)), np.diff(offsets))
    order = np.lexsort((timestamps, series))
    found = starts.of(references, offsets, timestamps[order])
    if found is None:
        return None
    out = np.empty_like(found)
    out[order] = found
    return out


def block_from_head(
    head: Head,
    mint: int,
    maxt: int,
    parent: Path,
    ulid: str,
    source: str = "receive",
    labels: dict[str, str] | None = None,
    hints: tuple[str, ...] = (),
    start_timestamps: bool = True,
    segment_bytes: int = SEGMENT_BYTES,
    part: HeadPart = HeadPart.ALL,
) -> BlockMeta | None:
    """Writes the samples of [mint, maxt) (ms) as block `<parent>/<ulid>`; None, and no block, where there are none.

    `part`: only those that came in order, or only the others. `mint` must not be below the head's floor for the former.

    Flushes the head and looks at it at one moment; pushes go on meanwhile, and what they bring is not in the block.
    Nothing is removed from the head. Without `start_timestamps` they are left out: their encodings are read by
    Prometheus from 3.11 (floats) and 3.14 (histograms) on. Raises `StorageFailed` and `DamagedBlock`.
    """
    references, view, look, starts = head.snapshot(Selection((), mint, maxt - 1), part)
    if not start_timestamps:
        starts = None
    rows = labels_of_index(view, references)
    order = rows.order()
    numbers = sorted(look.segments)
    data = [look.arena, *(look.segments[number] for number in numbers)]
    source_of = np.zeros(max(numbers, default=0) + 2, np.int32)
    source_of[[number + 1 for number in numbers]] = range(1, len(numbers) + 1)
    with BlockWriter(parent, ulid, rows.symbols, segment_bytes) as writer:
        for first in range(0, len(order), SERIES_PER_BATCH):
            some = order[first : first + SERIES_PER_BATCH]
            table = _table(look, some, mint, maxt - 1)
            table.sources = source_of[table.sources - ARENA]
            writer.append(rows.take(some), *_packed(head, references[some], starts, table, data, mint, maxt - 1))
        if not writer.stats.samples:
            return None
        return writer.finish(mint, maxt, Compaction(1, [ulid], hints=list(hints)), source, labels)
