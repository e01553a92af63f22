"""Series of several blocks of a tenant, each once: what a store-gateway answers with.

What was found in the blocks is laid one behind the other and worked on as one: hundreds of blocks take as many calls as
one does. The chunks of a series in all blocks are put in order of time and decoded one behind the other; only where
chunks overlap their samples are sorted, and of one timestamp the first is kept. Batches are bounded by series and
chunks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from mimir_ray.model.labels import LabelColumns
from mimir_ray.model.matchers import Matcher
from mimir_ray.model.selection import Selection
from mimir_ray.model.series import SeriesBatch
from mimir_ray.tsdb.block.chunk_files import Located, gather_from_segments, locate_chunks
from mimir_ray.tsdb.block.decode import Samples, decode
from mimir_ray.tsdb.block.errors import DamagedBlock, UnsupportedChunks
from mimir_ray.tsdb.block.series_labels import take_ranges

from .block_reader import BucketBlock, entry_places, segment_file
from .found import Found
from .label_sets import join_sets
from .ranges import RangedObject, WholeObject
from .store import ObjectNotFound

Item = TypeVar("Item")
Answer = TypeVar("Answer")

CHUNKS_PER_BATCH = 32_768
"""About 4 M samples, 63 MB decoded."""
SAMPLES_PER_CHUNK = 120
CHUNK_BYTES_GUESS = 1024
_JOINED_MIN = 4
_SEGMENT = _OFFSET = (1 << 32) - 1
"""Of a reference to a chunk, which has the number of the segment in its upper half."""
_NOTHING = np.empty(0, np.uint8)


class ReadCounter:
    """Hears what a query reads; may raise, which ends the query."""

    def selected(self, series: int, chunks: int) -> None:
        """That so many will be read."""

    def read(self, size: int) -> None:
        """That chunks of so many bytes were read."""


@dataclass(frozen=True, slots=True)
class _Together:
    """What was found in several blocks, one behind the other: S series (rows), of block `blocks[s]` (int64[S]), with
    the chunks offsets[s]:offsets[s + 1] of `mints`, `maxts`, `references`."""

    founds: Sequence[Found]
    blocks: NDArray[np.int64]
    offsets: NDArray[np.int64]
    mints: NDArray[np.int64]
    maxts: NDArray[np.int64]
    references: NDArray[np.int64]

    @classmethod
    def of(cls, founds: Sequence[Found]) -> _Together:
        blocks = np.repeat(np.arange(len(founds)), [len(found) for found in founds])
        if len(founds) == 1:
            one = founds[0]
            return cls(founds, blocks, one.offsets, one.mints, one.maxts, one.references)
        offsets = np.zeros(len(blocks) + 1, np.int64)
        if len(blocks):
            bases = np.cumsum([0, *(len(found.mints) for found in founds)])
            np.concatenate([found.offsets[1:] for found in founds], out=offsets[1:])
            offsets[1:] += bases[blocks]
        chunks = (
            np.concatenate([np.empty(0, np.int64), *(getattr(found, name) for found in founds)])
            for name in ("mints", "maxts", "references")
        )
        return cls(founds, blocks, offsets, *chunks)

    def rows(self, selection: Selection) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The series of the selection's shard that have chunks in its range, and how many each has."""
        touched = np.zeros(len(self.mints) + 1, np.int64)
        np.cumsum((self.mints <= selection.maxt) & (self.maxts >= selection.mint), out=touched[1:])
        counts = np.diff(touched[self.offsets])
        wanted = counts > 0
        shard = selection.shard
        if shard is not None and shard.count > 1:
            hashes = np.concatenate([np.empty(0, np.uint64), *(found.hashes() for found in self.founds)])
            wanted &= hashes % np.uint64(shard.count) == np.uint64(shard.index)
        rows = np.flatnonzero(wanted)
        return rows, counts[rows]


@dataclass(frozen=True, slots=True)
class _Joined:
    """G series over all blocks. Series g is the rows rows[groups[g]:groups[g + 1]] of `found`, and has `chunks[g]`
    chunks in range (int64[G])."""

    found: _Together
    labels: LabelColumns
    groups: NDArray[np.int64]
    rows: NDArray[np.int64]
    chunks: NDArray[np.int64]


def _join(founds: Sequence[Found], selection: Selection) -> _Joined | None:
    """The selected series of all blocks, each once; None where there are none."""
    found = _Together.of(founds)
    rows, chunks = found.rows(selection)
    if not len(rows):
        return None
    parts = [one.labels for one in founds]
    if len(parts) == 1 and len(rows) == len(parts[0]):
        return _Joined(found, parts[0].columns(), np.arange(len(rows) + 1), rows, chunks)
    sets, group = join_sets(parts, rows)
    groups = np.zeros(len(sets) + 1, np.int64)
    np.cumsum(np.bincount(group, minlength=len(sets)), out=groups[1:])
    if len(sets) < len(rows):
        order = np.argsort(group, kind="stable")
        rows, chunks = rows[order], np.add.reduceat(chunks[order], groups[:-1])
    return _Joined(found, sets.columns(), groups, rows, chunks)


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
    return int(_Together.of(founds).rows(selection)[1].sum()) * SAMPLES_PER_CHUNK if founds else 0


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
    joined = _join(founds, selection) if founds else None
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
            samples = _read(blocks, joined, first, last, selection, counter, executor, workers)
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
    joined: _Joined,
    first: int,
    last: int,
    selection: Selection,
    counter: ReadCounter,
    executor: Executor | None,
    workers: int,
) -> Samples:
    """The samples in range of series first..last - 1."""
    mint, maxt, found = selection.mint, selection.maxt, joined.found
    rows = joined.rows[joined.groups[first] : joined.groups[last]]
    groups = np.repeat(np.arange(last - first), np.diff(joined.groups[first : last + 1]))
    offsets, chunks = take_ranges(found.offsets, rows)
    sizes = np.diff(offsets)
    touching = (found.mints[chunks] <= maxt) & (found.maxts[chunks] >= mint)
    chunks, groups = chunks[touching], np.repeat(groups, sizes)[touching]
    where = np.repeat(found.blocks[rows], sizes)[touching]
    mints, maxts, references = found.mints[chunks], found.maxts[chunks], found.references[chunks]
    # Of chunks that begin together the one of the earlier block comes first, and keeps its samples.
    order = np.lexsort((mints, groups))
    groups, mints, maxts, references, where = (one[order] for one in (groups, mints, maxts, references, where))
    cuts = np.searchsorted(groups, np.arange(last - first + 1))
    overlapping = np.zeros(last - first, np.bool_)
    overlapping[groups[1:][(groups[1:] == groups[:-1]) & (mints[1:] <= maxts[:-1])]] = True
    located = _located(blocks, where, references, executor, workers)
    counter.read(int((located.at.ends - located.at.starts).sum()))
    return located.decoded().trimmed(cuts, overlapping, mint, maxt)


@dataclass(frozen=True, slots=True)
class _Chunks:
    """`at`: where in `data`; `pieces`: which block's segments that is of."""

    pieces: Sequence[tuple[BucketBlock, int]]
    data: Sequence[NDArray[np.uint8]]
    at: Located

    def decoded(self) -> Samples:
        """Their samples, a run each. Raises `DamagedBlock`, `UnsupportedChunks`."""
        addresses, sizes, sources, starts, ends, encodings = self.at
        if len(self.data) >= _JOINED_MIN:
            # Decoding takes several calls for each buffer: from many they are brought into one.
            places = np.zeros(len(starts) + 1, np.int64)
            np.cumsum(ends - starts, out=places[1:])
            joined = np.empty(int(places[-1]), np.uint8)
            gather_from_segments(addresses, sizes, sources, starts, ends, places[:-1], joined)
            with suppress(DamagedBlock, UnsupportedChunks):  # below it is said where that is
                return decode([joined], np.zeros(len(starts), np.int32), places[:-1], places[1:], encodings)
        names = [_name(piece) for piece in self.pieces]
        return decode(self.data, sources.astype(np.int32), starts, ends, encodings, names)


def _located(
    blocks: Sequence[BucketBlock],
    where: NDArray[np.int64],
    references: NDArray[np.int64],
    executor: Executor | None,
    workers: int,
) -> _Chunks:
    """The chunks at these references of blocks `where`, checksums looked at. Raises as `BucketBlock` does."""
    keys, sources = np.unique((where << 32) | (references >> 32 & _SEGMENT), return_inverse=True)
    sources = sources.reshape(-1)
    pieces = [(blocks[key >> 32], key & _SEGMENT) for key in keys.tolist()]
    objects = [block.segment(segment) for block, segment in pieces]
    data = [one.data if isinstance(one, WholeObject) else _NOTHING for one in objects]
    places = offsets = references & _OFFSET
    ranged: list[tuple[RangedObject, int, NDArray[np.int64]]] = []
    if any(isinstance(one, RangedObject) for one in objects):
        places = offsets.copy()
        for source, rows in _by_number(sources):
            if isinstance(one := objects[source], RangedObject):
                ranged.append((one, source, rows))

    def read(share: Sequence[tuple[RangedObject, int, NDArray[np.int64]]]) -> None:
        for one, source, rows in share:
            data[source], places[rows] = entry_places(one, offsets[rows], CHUNK_BYTES_GUESS, 5)

    if executor is not None:
        # What takes no request, as far as that is known before, is read here.
        near = [one.is_cached(offsets[rows], np.full(len(rows), CHUNK_BYTES_GUESS)) for one, _, rows in ranged]
        read([one for one, is_near in zip(ranged, near, strict=True) if is_near])
        ranged = [one for one, is_near in zip(ranged, near, strict=True) if not is_near]
    for _ in _shared(read, ranged, executor, workers):
        pass
    return _Chunks(pieces, data, locate_chunks(data, sources, places, lambda source: _name(pieces[source]), offsets))


def _name(piece: tuple[BucketBlock, int]) -> str:
    block, segment = piece
    return block.key(segment_file(segment))


def _by_number(numbers: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """(number, ascending positions that have it), by number."""
    order = np.argsort(numbers, kind="stable")
    firsts = np.flatnonzero(np.diff(numbers[order], prepend=-1))
    for first, last in zip(firsts.tolist(), [*firsts[1:].tolist(), len(order)], strict=True):
        yield int(numbers[order[first]]), order[first:last]
