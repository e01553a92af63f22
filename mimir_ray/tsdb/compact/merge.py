"""Merges blocks into one, or splits them into several by series: in one pass, batch by batch.

In memory at a time: labels of all series of the blocks (some hundred bytes a series), and chunks of some thousand
series. Chunks that nothing overlaps are copied; what overlaps is merged exactly, one sample a timestamp. Upstream:
tsdb/compact.go PopulateBlock; Mimir splits by the same hash (pkg/compactor/split_merge_grouper.go).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mimir_ray.tsdb.block.chunk_files import SEGMENT_BYTES, XOR
from mimir_ray.tsdb.block.chunk_merge import merge_chunks, without_deleted
from mimir_ray.tsdb.block.chunk_table import ChunkTable, Data
from mimir_ray.tsdb.block.meta import OUT_OF_ORDER_HINT, BlockMeta, Compaction
from mimir_ray.tsdb.block.ordering import bytewise_order, differs_from_previous
from mimir_ray.tsdb.block.reader import Block
from mimir_ray.tsdb.block.series_labels import SeriesLabels, join_labels, labels_of_index, take_ranges
from mimir_ray.tsdb.block.writer import SERIES_PER_BATCH, BlockWriter
from mimir_ray.tsdb.chunks.xor import SAMPLES_PER_CHUNK
from mimir_ray.tsdb.chunks.xor2 import XOR2

WEIGHT_PER_BATCH = 4 << 20
"""Samples, and bits of histograms (each bucket takes one at least), merged at a time, unless a series has more."""
_HINTS_OF_ANY = ("from-stale-series", "from-selected-series")
"""Upstream: tsdb/block.go: hints of blocks that are only merged with their like."""


def merge_blocks(
    blocks: Sequence[Block],
    mint: int,
    maxt: int,
    parent: Path,
    ulid: str,
    *,
    shards: tuple[int, int] | None = None,
    source: str = "compactor",
    compaction: Compaction | None = None,
    labels: dict[str, str] | None = None,
    samples_per_chunk: int = SAMPLES_PER_CHUNK,
    segment_bytes: int = SEGMENT_BYTES,
    check: Callable[[], None] = lambda: None,
) -> BlockMeta | None:
    """Writes the samples of all blocks in [mint, maxt) (ms) as block `<parent>/<ulid>`; None, and no block, if none.

    Args:
        blocks: of a timestamp that several have for one series, the first block's sample is taken. Tombstones count.
        shards: (index, count): only series whose stable hash modulo `count` is `index`, as `Selection.shard`.
        compaction: as `merged_compaction` makes it, unless given. `source`, `labels`: of the `thanos` section.
        check: called between batches; may raise, which ends the merge.

    Raises `DamagedBlock` naming a file of the block that is broken, `UnsupportedChunks` where chunks overlap that
    cannot be decoded, and `StorageFailed`. Nothing is left behind then.
    """
    keep = None if shards is None or shards[1] <= 1 else shards
    metas = _write(
        blocks, mint, maxt, parent, [ulid], keep, source, compaction, labels, samples_per_chunk, segment_bytes, check
    )
    return metas[0]


def split_blocks(
    blocks: Sequence[Block],
    mint: int,
    maxt: int,
    parent: Path,
    ulids: Sequence[str],
    *,
    source: str = "compactor",
    compaction: Compaction | None = None,
    labels: Sequence[dict[str, str]] | None = None,
    samples_per_chunk: int = SAMPLES_PER_CHUNK,
    segment_bytes: int = SEGMENT_BYTES,
    check: Callable[[], None] = lambda: None,
) -> list[BlockMeta | None]:
    """As `merge_blocks`, into len(ulids) blocks by the series' stable hash, in one pass; `labels`: of each."""
    return _write(
        blocks, mint, maxt, parent, ulids, None, source, compaction, labels, samples_per_chunk, segment_bytes, check
    )


def merged_compaction(metas: Sequence[BlockMeta]) -> Compaction:
    """What the meta.json of a block made of these says. Upstream: tsdb/compact.go CompactBlockMetas."""
    hints = {hint for meta in metas for hint in meta.compaction.hints if hint in _HINTS_OF_ANY}
    if all(meta.out_of_order for meta in metas):
        hints.add(OUT_OF_ORDER_HINT)
    return Compaction(
        level=max(meta.compaction.level for meta in metas) + 1,
        sources=sorted({one for meta in metas for one in meta.compaction.sources}),
        parents=[{"ulid": meta.ulid, "minTime": meta.min_time, "maxTime": meta.max_time} for meta in metas],
        hints=sorted(hints),
    )


def _write(
    blocks: Sequence[Block],
    mint: int,
    maxt: int,
    parent: Path,
    ulids: Sequence[str],
    keep: tuple[int, int] | None,
    source: str,
    compaction: Compaction | None,
    labels: Sequence[dict[str, str]] | dict[str, str] | None,
    samples_per_chunk: int,
    segment_bytes: int,
    check: Callable[[], None],
) -> list[BlockMeta | None]:
    if not blocks:
        return [None] * len(ulids)
    compaction = compaction or merged_compaction([block.meta for block in blocks])
    union = _union(blocks, keep, check)
    shards = [np.flatnonzero(union.hashes % np.uint64(len(ulids)) == np.uint64(number)) for number in range(len(ulids))]
    parts = [union.labels.take(rows).compacted() for rows in shards]
    metas: list[BlockMeta | None] = []
    with ExitStack() as stack:
        writers = [
            stack.enter_context(BlockWriter(parent, ulid, part.symbols, segment_bytes))
            for ulid, part in zip(ulids, parts, strict=True)
        ]
        for first, table, data in _batches(blocks, union, mint, maxt - 1, samples_per_chunk):
            check()
            for rows, part, writer in zip(shards, parts, writers, strict=True):
                low, high = np.searchsorted(rows, (first, first + len(table.offsets) - 1)).tolist()
                offsets, chunks = take_ranges(table.offsets, rows[low:high] - first)
                writer.append(part.take(np.arange(low, high)), table.take(chunks, offsets), data)
        for number, writer in enumerate(writers):
            some = labels if labels is None or isinstance(labels, dict) else labels[number]
            written = writer.stats.samples > 0
            metas.append(writer.finish(mint, maxt, compaction, source, some) if written else None)
    return metas


@dataclass(frozen=True, slots=True)
class _Union:
    """G label sets, ascending, with their stable hashes; set g is that of members cuts[g]:cuts[g + 1], which are
    series `rows` (number in its block) of blocks `blocks`, in the order of the blocks."""

    labels: SeriesLabels
    hashes: NDArray[np.uint64]
    cuts: NDArray[np.int64]
    blocks: NDArray[np.int32]
    rows: NDArray[np.int32]


def _union(blocks: Sequence[Block], keep: tuple[int, int] | None, check: Callable[[], None]) -> _Union:
    parts, hashes, owners, numbers = [], [], [], []
    for number, block in enumerate(blocks):
        check()
        index = block.series().index
        some = index.stable_hashes()
        rows = np.arange(len(some), dtype=np.int32)
        if keep is not None:
            rows = rows[some % np.uint64(keep[1]) == np.uint64(keep[0])]
        parts.append(labels_of_index(index.view(), rows))
        hashes.append(some[rows])
        owners.append(np.full(len(rows), number, np.int32))
        numbers.append(rows)
    labels = join_labels(parts)
    keys = labels.keys()
    order = bytewise_order(keys, labels.offsets * 8)
    first = np.empty(len(order), np.bool_)
    differs_from_previous(keys, labels.offsets * 8, order, first)
    firsts = np.flatnonzero(first)
    return _Union(
        labels.take(order[firsts]),
        np.concatenate(hashes)[order[firsts]],
        np.append(firsts, len(order)),
        np.concatenate(owners)[order],
        np.concatenate(numbers)[order],
    )


def _batches(
    blocks: Sequence[Block], union: _Union, mint: int, maxt: int, samples_per_chunk: int
) -> Iterator[tuple[int, ChunkTable, Data]]:
    """(first label set, merged chunks of it and the following ones, their bytes)."""
    for low in range(0, len(union.labels), SERIES_PER_BATCH):
        high = min(low + SERIES_PER_BATCH, len(union.labels))
        table, data, names = _gather(blocks, union, low, high, mint, maxt)
        floats = (table.encodings == XOR) | (table.encodings == XOR2)
        weights = table.counts + np.where(floats, 0, 8 * table.lengths)
        weight = np.concatenate((np.zeros(1, np.int64), np.cumsum(weights)))[table.offsets]
        first, end = 0, high - low
        while first < end:
            last = int(np.searchsorted(weight, weight[first] + WEIGHT_PER_BATCH, side="right")) - 1
            last = min(max(last, first + 1), end)
            chunks = np.arange(table.offsets[first], table.offsets[last])
            part = table.take(chunks, table.offsets[first : last + 1] - table.offsets[first])
            yield low + first, *merge_chunks(part, data, mint, maxt, samples_per_chunk, names)
            first = last


def _gather(
    blocks: Sequence[Block], union: _Union, low: int, high: int, mint: int, maxt: int
) -> tuple[ChunkTable, list[NDArray[np.uint8]], list[str]]:
    """All chunks of the label sets low..high - 1, without what is deleted, of a set in the order of the blocks; their
    bytes, and whose those are."""
    cuts = union.cuts[low : high + 1]
    members = slice(int(cuts[0]), int(cuts[-1]))
    owners, rows = union.blocks[members], union.rows[members]
    tables: list[ChunkTable] = []
    data: list[NDArray[np.uint8]] = []
    names: list[str] = []
    places = []
    for number in np.unique(owners).tolist():
        mine = np.flatnonzero(owners == number)
        block = blocks[number]
        table, pieces = block.chunk_table(rows[mine], mint, maxt)
        references = block.series().references[rows[mine]]
        table, pieces = without_deleted(table, pieces, references, block.tombstones, names=block.segment_names)
        table.sources = table.sources + np.int32(len(data))
        tables.append(table)
        data += pieces
        names += [*block.segment_names, str(block.directory)][: len(pieces)]
        places.append(mine)
    joined = ChunkTable.concat(tables)
    # Series are block after block now; `back` puts them into the order of the label sets.
    back = np.argsort(np.concatenate((np.zeros(0, np.int64), *places)), kind="stable")
    offsets, chunks = take_ranges(joined.offsets, back)
    return joined.take(chunks, offsets[cuts - cuts[0]]), data, names
