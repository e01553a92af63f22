"""Cuts a time range of a head into a block.

Chunks of a head are Prometheus' XOR chunks already, so those inside the range are copied; those at its edges, and
those that late samples overlap, are merged (chunk_merge.py).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mimir_ray.kernel import I32, I64, OutI32, OutI64, kernel
from mimir_ray.model.selection import Selection
from mimir_ray.tsdb.head.head import Head
from mimir_ray.tsdb.head.pick import HeadPart
from mimir_ray.tsdb.head.reading import ARENA, Look

from .chunk_files import SEGMENT_BYTES, XOR
from .chunk_merge import ChunkTable, merge_chunks
from .errors import UnsupportedChunks
from .meta import BlockMeta, Compaction
from .series_labels import labels_of_index
from .writer import SERIES_PER_BATCH, BlockWriter

HISTOGRAM_ENCODING = 2


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


def block_from_head(
    head: Head,
    mint: int,
    maxt: int,
    parent: Path,
    ulid: str,
    source: str = "receive",
    labels: dict[str, str] | None = None,
    hints: tuple[str, ...] = (),
    segment_bytes: int = SEGMENT_BYTES,
    part: HeadPart = HeadPart.ALL,
) -> BlockMeta | None:
    """Writes the samples of [mint, maxt) (ms) as block `<parent>/<ulid>`; None, and no block, where there are none.

    `part`: only those that came in order, or only the others. `mint` must not be below the head's floor for the former.

    Flushes the head and looks at it at one moment; pushes go on meanwhile, and what they bring is not in the block.
    Nothing is removed from the head. Raises `StorageFailed` and `DamagedBlock`, and `UnsupportedChunks` where the
    head has native histograms: it keeps them in a form of its own, not in Prometheus' chunks.
    """
    if head.has_histograms:
        raise UnsupportedChunks("the head", HISTOGRAM_ENCODING)
    references, view, look = head.snapshot(Selection((), mint, maxt - 1), part)
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
            merged, pieces = merge_chunks(table, data, mint, maxt - 1, head.settings.samples_per_chunk)
            writer.append(rows.take(some), merged, pieces)
        if not writer.stats.samples:
            return None
        return writer.finish(mint, maxt, Compaction(1, [ulid], hints=list(hints)), source, labels)
