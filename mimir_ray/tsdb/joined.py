"""Reads series that several holders have parts of: a head and blocks, put together by time.

What is selected is cut into parts by the series' stable hashes, so that a part of every holder fits into memory
and every series is whole in one part; the parts are merged one after the other (merge.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np

from mimir_ray.model.selection import Selection, Shard
from mimir_ray.model.series import SeriesBatch

from .block.reader import Block
from .head.pick import HeadPick
from .merge import merge_batches

SAMPLES_PER_PART = 1 << 22
SERIES_PER_PART = 1 << 16
INTERVAL_GUESS_MS = 15_000


class Holder(Protocol):
    """Somebody who has samples of a selection."""

    def sizes(self) -> tuple[int, int]:
        """(series, about how many samples of them are in range)"""

    def read(self, shard: Shard | None) -> Iterator[SeriesBatch]:
        """Those of the selected series that are in the shard too."""


class HeadHolder:
    """What was picked from a head."""

    def __init__(self, pick: HeadPick) -> None:
        self._pick = pick

    def sizes(self) -> tuple[int, int]:
        selection, series = self._pick.selection, len(self._pick)
        length = min(selection.maxt - max(selection.mint, self._pick.look.floor), 24 * 3_600_000)
        return series, series * max(1, length // INTERVAL_GUESS_MS)

    def read(self, shard: Shard | None) -> Iterator[SeriesBatch]:
        if shard is None:
            return self._pick.batches()
        hashes = self._pick.hashes()
        return self._pick.take(np.flatnonzero(hashes % np.uint64(shard.count) == np.uint64(shard.index))).batches()


class BlockHolder:
    """A block, asked for a selection."""

    def __init__(self, block: Block, selection: Selection) -> None:
        self._block = block
        self._selection = selection

    def sizes(self) -> tuple[int, int]:
        meta, selection = self._block.meta, self._selection
        series = self._block.series_count(selection)
        covered = min(meta.max_time, selection.maxt + 1) - max(meta.min_time, selection.mint)
        share = covered / max(1, meta.max_time - meta.min_time)
        return series, int(series * share * meta.stats.samples / max(1, meta.stats.series))

    def read(self, shard: Shard | None) -> Iterator[SeriesBatch]:
        return self._block.select(replace(self._selection, shard=shard or self._selection.shard))


def join(holders: Sequence[Holder], selection: Selection) -> Iterator[SeriesBatch]:
    """All series of all holders, each once; of samples with one time the first holder's stays.

    Args:
        holders: of this selection, but without its `limit_series` unless it is for labels only.
    """
    sizes = [holder.sizes() for holder in holders]
    holders = [holder for holder, (series, _) in zip(holders, sizes, strict=True) if series]
    if not holders:
        return
    samples = 0 if selection.labels_only else sum(one for _, one in sizes)
    parts = max(1, -(-samples // SAMPLES_PER_PART), -(-max(one for one, _ in sizes) // SERIES_PER_PART))
    whole = selection.shard or Shard(0, 1)
    given = 0
    for part in range(1 if len(holders) == 1 else parts):
        # hash % (c n) == i + c part  is  hash % c == i, and (hash // c) % n == part.
        shard = Shard(whole.index + whole.count * part, whole.count * parts) if parts > 1 and len(holders) > 1 else None
        if len(holders) == 1:
            found = holders[0].read(None)
        else:
            found = merge_batches([list(holder.read(shard)) for holder in holders])
        for batch in found:
            for some in _slices(batch, max(1, selection.batch_series)):
                if selection.limit_series and given + len(some) >= selection.limit_series:
                    yield _rows(some, 0, selection.limit_series - given)
                    return
                given += len(some)
                yield some


def _slices(batch: SeriesBatch, size: int) -> Iterator[SeriesBatch]:
    if len(batch) <= size:
        yield batch
        return
    for first in range(0, len(batch), size):
        yield _rows(batch, first, min(first + size, len(batch)))


def _rows(batch: SeriesBatch, first: int, last: int) -> SeriesBatch:
    if first == 0 and last == len(batch):
        return batch
    samples = slice(int(batch.offsets[first]), int(batch.offsets[last]))
    return SeriesBatch(
        batch.labels.take(slice(first, last)),
        batch.offsets[first : last + 1] - batch.offsets[first],
        batch.timestamps[samples],
        batch.values[samples],
        None if batch.histograms is None else batch.histograms[samples].used(),
        None if batch.start_timestamps is None else batch.start_timestamps[samples],
    )
