"""`ChunkTable`: many chunks of many series, as columns beside the arrays that hold their bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Data = Sequence[NDArray[np.uint8]]
_COLUMNS: tuple[tuple[str, Any], ...] = (
    ("mints", np.int64),
    ("maxts", np.int64),
    ("sources", np.int32),
    ("starts", np.int64),
    ("lengths", np.int64),
    ("counts", np.int64),
    ("encodings", np.uint8),
)


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

    @classmethod
    def concat(cls, tables: Sequence[ChunkTable]) -> ChunkTable:
        """The series of all tables one after another."""
        sizes = [np.diff(table.offsets) for table in tables]
        offsets = np.concatenate((np.zeros(1, np.int64), np.cumsum(np.concatenate((np.zeros(0, np.int64), *sizes)))))
        return cls(
            offsets,
            *(
                np.concatenate((np.zeros(0, kind), *(getattr(table, name) for table in tables)))
                for name, kind in _COLUMNS
            ),
        )

    @classmethod
    def interleave(cls, tables: Sequence[ChunkTable], series: Sequence[NDArray[np.int64]], count: int) -> ChunkTable:
        """A table of `count` series, where series k of tables[i] is number series[i][k]; others have no chunks."""
        both = cls.concat(tables)
        numbers = np.repeat(np.concatenate((np.zeros(0, np.int64), *series)), np.diff(both.offsets))
        offsets = np.zeros(count + 1, np.int64)
        np.cumsum(np.bincount(numbers, minlength=count), out=offsets[1:])
        return both.take(np.argsort(numbers, kind="stable"), offsets)
