"""The table of closed chunks: one row a chunk, chained per series, append-only.

A row's position says where its bytes are (chunks/files.py). Rows that a reader has seen never change.
Where the disk refused a flush, its bytes stay in memory as segment 0 until `settle` gets them to the disk.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mimir_ray.kernel import I32, I64, Bool, OutBool, OutI32, kernel
from mimir_ray.tsdb.append_file import StorageFailed
from mimir_ray.tsdb.chunks.files import ChunkFiles, segment_of
from mimir_ray.tsdb.chunks.open_chunks import ClosedChunks

from .sample_log import NO_TIME_MIN

_COLUMNS: tuple[tuple[str, Any], ...] = (
    ("mints", np.int64),
    ("maxts", np.int64),
    ("positions", np.int64),
    ("lengths", np.int32),
    ("counts", np.int32),
    ("previous", np.int32),
)


@kernel
def link_chunks(series: I32, first: int, last: OutI32, previous: OutI32) -> None:
    """Appends chunks first, first + 1, … to the chains of their series."""
    for c in range(len(series)):
        previous[first + c] = last[series[c]]
        last[series[c]] = np.int32(first + c)


@kernel
def relink_chunks(kept: Bool, numbers: I32, previous: I32, relinked: OutI32) -> None:
    """relinked[numbers[c]] = for a kept chunk c, the new number of the nearest older kept chunk of its series."""
    for c in range(len(previous)):
        if kept[c]:
            older = np.int64(previous[c])
            while older >= 0 and not kept[older]:
                older = np.int64(previous[older])
            relinked[numbers[c]] = numbers[older] if older >= 0 else np.int32(-1)


@kernel
def relink_ends(kept: Bool, numbers: I32, previous: I32, last: OutI32) -> None:
    """The same for the newest chunk of every series."""
    for s in range(len(last)):
        chunk = np.int64(last[s])
        while chunk >= 0 and not kept[chunk]:
            chunk = np.int64(previous[chunk])
        last[s] = numbers[chunk] if chunk >= 0 else np.int32(-1)


@kernel
def mark_late(late_last: I32, previous: I32, first: int, kept: OutBool) -> None:
    """Sets kept[c] for every chunk c of a late chain: whether it is chunk `first` or a newer one."""
    for s in range(len(late_last)):
        chunk = np.int64(late_last[s])
        while chunk >= 0:
            kept[chunk] = chunk >= first
            chunk = np.int64(previous[chunk])


@kernel
def oldest_time(floor: int, last: I32, mints: I64, maxts: I64, previous: I32) -> int:
    """The smallest time, `floor` or later, that a chunk of these chains may have; 2^63 - 1 where there is none."""
    oldest = np.int64(NO_TIME_MIN)
    for s in range(len(last)):
        chunk = np.int64(last[s])
        while chunk >= 0:
            if maxts[chunk] >= floor:
                oldest = min(oldest, max(mints[chunk], np.int64(floor)))
            chunk = np.int64(previous[chunk])
    return oldest


class ClosedTable:
    """Columns of C rows: `mints`, `maxts` (ms, included), `positions`, `lengths` (bytes), `counts` (samples),
    `previous` (older chunk of the series, -1: none)."""

    def __init__(self, files: ChunkFiles) -> None:
        self._files = files
        self.length = 0
        self.mints: NDArray[np.int64]
        self.maxts: NDArray[np.int64]
        self.positions: NDArray[np.int64]
        self.lengths: NDArray[np.int32]
        self.counts: NDArray[np.int32]
        self.previous: NDArray[np.int32]
        for name, dtype in _COLUMNS:
            setattr(self, name, np.zeros(64, dtype))
        self.spilled: NDArray[np.uint8] = np.zeros(0, np.uint8)

    def __len__(self) -> int:
        return self.length

    @property
    def bytes(self) -> int:
        return self.spilled.nbytes + sum(int(getattr(self, name).nbytes) for name, _ in _COLUMNS)

    def append(self, chunks: ClosedChunks, last: NDArray[np.int32]) -> None:
        """Stores chunks and links them to the chains that end in `last`. Does not fail: see `spilled`."""
        count = len(chunks)
        if not count:
            return
        end = self.length + count
        if end > len(self.mints):
            for name, dtype in _COLUMNS:
                longer = np.zeros(max(end, 2 * self.length), dtype)
                longer[: self.length] = getattr(self, name)[: self.length]
                setattr(self, name, longer)
        try:
            base = self._files.append(chunks.data)
        except StorageFailed:
            base = len(self.spilled)
            self.spilled = np.concatenate((self.spilled, chunks.data))
        rows = slice(self.length, end)
        self.mints[rows] = chunks.mints
        self.maxts[rows] = chunks.maxts
        self.positions[rows] = chunks.starts + base
        self.lengths[rows] = chunks.lengths
        self.counts[rows] = chunks.counts
        link_chunks(chunks.series, self.length, last, self.previous)
        self.length = end

    def settle(self) -> None:
        """Moves what stayed in memory to the disk; raises `StorageFailed` if that still cannot be done."""
        if len(self.spilled):
            base = self._files.append(self.spilled)
            positions = self.positions.copy()
            inside = positions[: self.length] < 1 << 32
            positions[: self.length][inside] += base
            # New arrays, since readers may hold the old ones.
            self.positions, self.spilled = positions, np.zeros(0, np.uint8)

    def drop_before(self, time_ms: int, late_rows: int, last: NDArray[np.int32], late_last: NDArray[np.int32]) -> int:
        """Forgets chunks in order whose samples are all older, and late ones of rows before `late_rows`.

        `last`, `late_last` are the arrays that the chains start from, changed in place. Readers keep the old columns;
        the files stay until the caller drops those before `first_segment`. Returns how many there were.
        """
        kept = self.maxts[: self.length] >= time_ms
        mark_late(late_last, self.previous, late_rows, kept)
        left = int(kept.sum())
        if left == self.length:
            return 0
        numbers = (np.cumsum(kept) - 1).astype(np.int32)
        previous = self.previous[: self.length]
        relinked = np.empty(left, np.int32)
        relink_chunks(kept, numbers, previous, relinked)
        for ends in (last, late_last):
            relink_ends(kept, numbers, previous, ends)
        for name, dtype in _COLUMNS:
            column = np.zeros(left + left // 8 + 64, dtype)
            column[:left] = relinked if name == "previous" else getattr(self, name)[: self.length][kept]
            setattr(self, name, column)
        dropped, self.length = self.length - left, left
        return dropped

    @property
    def first_segment(self) -> int:
        """The lowest segment of the chunk files that has a chunk of the table (or will get the next one)."""
        if not self.length:
            return segment_of(self._files.end)
        return segment_of(int(self.positions[: self.length].min()))

    def columns(self) -> tuple[NDArray[Any], ...]:
        return tuple(getattr(self, name) for name, _ in _COLUMNS)

    def state(self) -> dict[str, NDArray[Any]]:
        return {f"closed.{name}": getattr(self, name)[: self.length] for name, _ in _COLUMNS}

    def restore(self, parts: dict[str, NDArray[Any]]) -> None:
        self.length = len(parts["closed.mints"])
        for name, dtype in _COLUMNS:
            column = np.zeros(self.length + self.length // 8 + 64, dtype)
            column[: self.length] = parts[f"closed.{name}"]
            setattr(self, name, column)
