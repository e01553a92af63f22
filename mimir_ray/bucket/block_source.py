"""Series of several blocks of a tenant, each once: what a store-gateway answers with.

The chunks of a series in all blocks are put in order of time and decoded one behind the other; only where chunks
overlap their samples are sorted, and of one timestamp the first is kept. Batches are bounded by series and chunks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from mimir_ray.model.label_groups import equal_rows
from mimir_ray.model.labels import LabelColumns, StringTable
from mimir_ray.model.matchers import Matcher
from mimir_ray.model.selection import Selection
from mimir_ray.model.series import SeriesBatch
from mimir_ray.tsdb.block.decode import Samples, decode
from mimir_ray.tsdb.block.errors import DamagedBlock, UnsupportedChunks
from mimir_ray.tsdb.block.series_labels import gather, take_ranges

from .block_reader import BucketBlock, Found, Located
from .store import ObjectNotFound

Item = TypeVar("Item")
Answer = TypeVar("Answer")

CHUNKS_PER_BATCH = 32_768
"""About 4 M samples, 63 MB decoded."""
SAMPLES_PER_CHUNK = 120
_JOINED_MIN = 4


class ReadCounter:
    """Hears what a query reads; may raise, which ends the query."""

    def selected(self, series: int, chunks: int) -> None:
        """That so many will be read."""

    def read(self, size: int) -> None:
        """That chunks of so many bytes were read."""


@dataclass(frozen=True, slots=True)
class _Joined:
    """G series over all blocks. Member m, of group g where groups[g] <= m < groups[g + 1], is row `rows[m]` of what was
    found in block `blocks[m]`; `chunks`: int64[G], chunks in range."""

    labels: LabelColumns
    groups: NDArray[np.int64]
    blocks: NDArray[np.int64]
    rows: NDArray[np.int64]
    chunks: NDArray[np.int64]


def _join(founds: Sequence[Found], selection: Selection) -> _Joined | None:
    """The selected series of all blocks, each once; None where there are none."""
    parts = [found.rows(selection.shard, selection.mint, selection.maxt) for found in founds]
    holding = [at for at, (rows, _) in enumerate(parts) if len(rows)]
    if not holding:
        return None
    if len(holding) == 1:
        at = holding[0]
        rows, chunks = parts[at]
        labels = founds[at].labels.take(rows)
        numbers = np.arange(len(labels) + 1, dtype=np.int64)
        return _Joined(labels, numbers, np.full(len(labels), at, np.int64), rows, chunks)
    table = StringTable()
    labels = LabelColumns.concat([_taken(founds[at].labels, parts[at][0]).rebase(table) for at in holding])
    order, groups = equal_rows(labels.codes)
    blocks = np.repeat(np.array(holding, np.int64), [len(parts[at][0]) for at in holding])[order]
    rows = np.concatenate([parts[at][0] for at in holding])[order]
    chunks = np.add.reduceat(np.concatenate([parts[at][1] for at in holding])[order], groups[:-1])
    return _Joined(labels.take(order[groups[:-1]]), groups, blocks, rows, chunks)


def _taken(labels: LabelColumns, rows: NDArray[np.int64]) -> LabelColumns:
    return labels if len(rows) == len(labels) else labels.take(rows)


def find_all(
    blocks: Sequence[BucketBlock], matchers: tuple[Matcher, ...], executor: Executor | None = None, workers: int = 1
) -> list[Found | None]:
    """What the matchers select in each block; None where the block is gone.

    With an executor of so many workers, blocks that were not asked this before are read side by side.
    """
    founds = [block.known(matchers) for block in blocks]
    missing = [at for at, found in enumerate(founds) if found is None]

    def read(share: Sequence[int]) -> None:
        for at in share:
            with suppress(ObjectNotFound):
                founds[at] = blocks[at].find(matchers)

    for _ in _shared(read, missing, executor, workers):
        pass
    return founds


def _shared(
    work: Callable[[Sequence[Item]], Answer], items: Sequence[Item], executor: Executor | None, workers: int
) -> Iterator[Answer]:
    """What `work` says of shares of the items. A task for each worker, not for each item: handing blocks over one by
    one costs as much as a small block does."""
    if executor is None or len(items) <= 1:
        return iter((work(items),))
    return executor.map(work, [items[first::workers] for first in range(min(workers, len(items)))])


def estimate_samples(founds: Sequence[Found], selection: Selection) -> int:
    """About how many samples the selection has; copies of a sample in several blocks count each."""
    chunks = 0
    for found in founds:
        chunks += int(found.rows(selection.shard, selection.mint, selection.maxt)[1].sum())
    return chunks * SAMPLES_PER_CHUNK


def select_blocks(
    blocks: Sequence[BucketBlock],
    founds: Sequence[Found],
    selection: Selection,
    counter: ReadCounter,
    check: Callable[[], None] = lambda: None,
    executor: Executor | None = None,
    workers: int = 1,
) -> Iterator[SeriesBatch]:
    """The selected series of these blocks; see SeriesSource.select. `check` is called between batches and may raise.

    With an executor of so many workers, chunks of several blocks that are not cached are read side by side.
    Series without a sample in range are left out; for labels only, those without a chunk in it. Raises as
    `BucketBlock` does.
    """
    joined = _join(founds, selection)
    if joined is None:
        return
    counter.selected(len(joined.labels), 0 if selection.labels_only else int(joined.chunks.sum()))
    ends = np.cumsum(joined.chunks)
    first = given = 0
    while first < len(joined.labels):
        check()
        before = int(ends[first - 1]) if first else 0
        last = int(np.searchsorted(ends, before + CHUNKS_PER_BATCH, side="right"))
        last = min(max(first + 1, last), first + max(1, selection.batch_series), len(joined.labels))
        if selection.labels_only:
            last = min(first + max(1, selection.batch_series), len(joined.labels))
            labels = joined.labels.take(slice(first, last))
            nothing = Samples(np.zeros(len(labels) + 1, np.int64), np.empty(0, np.int64), np.empty(0, np.float64))
            batch = _batch(labels, nothing, selection)
        else:
            samples = _read(blocks, founds, joined, first, last, selection, counter, executor, workers)
            held = np.flatnonzero(samples.offsets[1:] > samples.offsets[:-1])
            labels = joined.labels.take(held + first)
            samples.offsets = np.append(samples.offsets[held], samples.offsets[-1])
            batch = _batch(labels, samples, selection)
        first = last
        if selection.limit_series and given + len(batch) >= selection.limit_series:
            yield _first_series(batch, selection.limit_series - given)
            return
        given += len(batch)
        if len(batch):
            yield batch


def _batch(labels: LabelColumns, samples: Samples, selection: Selection) -> SeriesBatch:
    starts = samples.start_timestamps if selection.start_timestamps else None
    return SeriesBatch(labels, samples.offsets, samples.timestamps, samples.values, samples.histograms, starts)


def _first_series(batch: SeriesBatch, count: int) -> SeriesBatch:
    end = int(batch.offsets[count])
    histograms = None if batch.histograms is None else batch.histograms[:end]
    starts = None if batch.start_timestamps is None else batch.start_timestamps[:end]
    return SeriesBatch(
        batch.labels.take(slice(0, count)), batch.offsets[: count + 1], batch.timestamps[:end], batch.values[:end],
        histograms, starts,
    )  # fmt: skip


def _read(
    blocks: Sequence[BucketBlock],
    founds: Sequence[Found],
    joined: _Joined,
    first: int,
    last: int,
    selection: Selection,
    counter: ReadCounter,
    executor: Executor | None,
    workers: int,
) -> Samples:
    """The samples in range of series first..last - 1."""
    mint, maxt = selection.mint, selection.maxt
    members = slice(int(joined.groups[first]), int(joined.groups[last]))
    sizes = np.diff(joined.groups[first : last + 1])
    group = np.repeat(np.arange(last - first), sizes)
    columns = []
    for at, mine in _by_number(joined.blocks[members]):
        found = founds[at]
        offsets, chunks = take_ranges(found.offsets, joined.rows[members][mine])
        groups = np.repeat(group[mine], np.diff(offsets))
        touching = (found.mints[chunks] <= maxt) & (found.maxts[chunks] >= mint)
        chunks = chunks[touching]
        where = np.full(len(chunks), at, np.int64)
        columns.append((groups[touching], found.mints[chunks], found.maxts[chunks], found.references[chunks], where))
    groups, mints, maxts, references, where = (np.concatenate(column) for column in zip(*columns, strict=True))
    # Of chunks that begin together the one of the earlier block comes first, and keeps its samples.
    order = np.lexsort((mints, groups))
    groups, mints, maxts, references, where = (one[order] for one in (groups, mints, maxts, references, where))
    cuts = np.searchsorted(groups, np.arange(last - first + 1))
    overlapping = np.zeros(last - first, np.bool_)
    overlapping[groups[1:][(groups[1:] == groups[:-1]) & (mints[1:] <= maxts[:-1])]] = True

    def read(share: Sequence[tuple[int, NDArray[np.int64]]]) -> list[tuple[NDArray[np.int64], Located]]:
        return [(mine[one.rows], one) for at, mine in share for one in blocks[at].chunks(references[mine])]

    far, near = list(_by_number(where)), []
    if executor is not None:
        kept = [blocks[at].has_chunks(references[mine]) for at, mine in far]
        near = [one for one, here in zip(far, kept, strict=True) if here]
        far = [one for one, here in zip(far, kept, strict=True) if not here]
    located = [*read(near), *(one for found in _shared(read, far, executor, workers) for one in found)]
    counter.read(sum(int((one.ends - one.starts).sum()) for _, one in located))
    return _decoded(located, len(groups)).trimmed(cuts, overlapping, mint, maxt)


def _by_number(numbers: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """(number, ascending positions that have it), by number."""
    order = np.argsort(numbers, kind="stable")
    firsts = np.flatnonzero(np.diff(numbers[order], prepend=-1))
    for first, last in zip(firsts.tolist(), [*firsts[1:].tolist(), len(order)], strict=True):
        yield int(numbers[order[first]]), order[first:last]


def _decoded(located: Sequence[tuple[NDArray[np.int64], Located]], count: int) -> Samples:
    """The samples of `count` chunks, in the order of the rows that they are found with."""
    sources, encodings = np.empty(count, np.int32), np.empty(count, np.uint8)
    starts, ends = np.empty(count, np.int64), np.empty(count, np.int64)
    for source, (rows, one) in enumerate(located):
        sources[rows], starts[rows], ends[rows], encodings[rows] = source, one.starts, one.ends, one.encodings
    data, names = [one.data for _, one in located], [one.name for _, one in located]
    if len(located) < _JOINED_MIN:
        return decode(data, sources, starts, ends, encodings, names)
    # Decoding takes several calls for each buffer: from many they are brought into one.
    places = np.zeros(count + 1, np.int64)
    np.cumsum(ends - starts, out=places[1:])
    joined = np.empty(int(places[-1]), np.uint8)
    for rows, one in located:
        gather(one.data, one.starts, one.ends, places[rows], joined)
    try:
        return decode([joined], np.zeros(count, np.int32), places[:-1], places[1:], encodings)
    except (DamagedBlock, UnsupportedChunks):
        return decode(data, sources, starts, ends, encodings, names)  # which says where that is
