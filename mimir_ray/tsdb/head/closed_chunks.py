"""The table of closed chunks: one row a chunk, chained per series, append-only.

A row's position says where its bytes are (chunks/files.py). Rows that a reader has seen never change.
Where the disk refused a flush, its bytes stay in memory as segment 0 until `settle` gets them to the disk.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mimir_ray.kernel import I32, OutI32, kernel
from mimir_ray.tsdb.append_file import StorageFailed
from mimir_ray.tsdb.chunks.files import ChunkFiles
from mimir_ray.tsdb.chunks.open_chunks import ClosedChunks

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
