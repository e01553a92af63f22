"""The open chunk of every series of a head: state columns and the arena, appended to in whole flushes.

A skin over the kernels of xor.py that owns the buffers. Not thread-safe; a reader takes `view()` under the
head's lock and may then read without it, for visible bytes never change.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mimir_ray.encoding.bits import copy_bytes
from mimir_ray.kernel import I32, I64, U8, OutI32, OutI64, OutU8, kernel

from . import xor

_COLUMNS: tuple[tuple[str, Any], ...] = (
    ("starts", np.int64),
    ("bit_lengths", np.int32),
    ("counts", np.int32),
    ("mints", np.int64),
    ("last_timestamps", np.int64),
    ("last_deltas", np.int64),
    ("last_values", np.float64),
    ("leading", np.uint8),
    ("trailing", np.uint8),
)
_TABLE: tuple[Any, ...] = (np.int32, np.int64, np.int64, np.int64, np.int32, np.int32)


@dataclass(slots=True)
class ClosedChunks:
    """C full chunks, in the order of their series' runs, each series' own in order of time.

    `series` int32[C]; `mints`, `maxts` int64[C] (ms, both included); chunk c is
    `data[starts[c]:starts[c] + lengths[c]]` (`starts` int64[C], `lengths` int32[C]); `counts` int32[C]
    samples; `data` uint8.
    """

    series: NDArray[np.int32]
    mints: NDArray[np.int64]
    maxts: NDArray[np.int64]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int32]
    counts: NDArray[np.int32]
    data: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.series)


@dataclass(frozen=True, slots=True)
class OpenChunksView:
    """A consistent look at open chunks: chunk of series p is arena[starts[p]:ends[p]]; counts[p] == 0 means none."""

    arena: NDArray[np.uint8]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    counts: NDArray[np.int32]
    mints: NDArray[np.int64]
    maxts: NDArray[np.int64]


@kernel
def _take(
    series: I32,
    arena: U8,
    starts: I64,
    bit_lengths: I32,
    counts: OutI32,
    closed: OutU8,
    closed_starts: OutI64,
    closed_lengths: OutI32,
) -> int:
    """Copies the series' open chunks to `closed` (long enough) and forgets them; returns the bytes."""
    used = 0
    for r in range(len(series)):
        p = series[r]
        length = (np.int64(bit_lengths[p]) + 7) >> 3
        copy_bytes(closed, used, arena, starts[p], length)
        closed_starts[r] = used
        closed_lengths[r] = length
        counts[p] = 0
        used += length
    return used


class OpenChunks:
    """Columns of P rows (grown by `reserve`), one a series, and the arena.

    The columns are public to read; only `append`, `close`, `drop` and `restore` change them.
    """

    def __init__(self, range_ms: int, samples_max: int = xor.SAMPLES_PER_CHUNK) -> None:
        assert range_ms > 0 and 0 < samples_max <= xor.SAMPLES_MAX
        self.range_ms = range_ms
        self.samples_max = samples_max
        self.arena: NDArray[np.uint8] = np.empty(0, np.uint8)
        self.arena_used = 0
        self.starts: NDArray[np.int64]
        self.bit_lengths: NDArray[np.int32]
        self.counts: NDArray[np.int32]
        self.mints: NDArray[np.int64]
        self.last_timestamps: NDArray[np.int64]
        self.last_deltas: NDArray[np.int64]
        self.last_values: NDArray[np.float64]
        self.leading: NDArray[np.uint8]
        self.trailing: NDArray[np.uint8]
        for name, dtype in _COLUMNS:
            setattr(self, name, np.zeros(0, dtype))

    def __len__(self) -> int:
        return len(self.counts)

    def reserve(self, rows: int) -> None:
        """Makes rows 0..rows - 1 exist; new ones have no open chunk. Grows by half at least."""
        if rows <= len(self):
            return
        length = max(rows, len(self) * 3 // 2)
        for name, dtype in _COLUMNS:
            column = np.zeros(length, dtype)
            column[: len(self)] = getattr(self, name)
            # `counts` is the length of all, so it must not change before the others have.
            if name != "counts":
                setattr(self, name, column)
            else:
                counts = column
        self.counts = counts

    def append(
        self,
        series: NDArray[np.int32],
        run_starts: NDArray[np.int64],
        run_ends: NDArray[np.int64],
        timestamps: NDArray[np.int64],
        values: NDArray[np.float64],
    ) -> ClosedChunks:
        """Appends R runs and returns the chunks that this filled.

        Args: as `xor.append_runs`; series without new samples need not be named.
        """
        new_bytes = int((run_ends - run_starts).sum()) * xor.SAMPLE_BYTES_MAX + xor.SLACK_BYTES
        touched = self._open_bytes(series)
        live = np.flatnonzero(self.counts)
        live_bytes = self._open_bytes(live)
        old_arena = self.arena
        if self.arena_used + touched + new_bytes <= len(old_arena) and touched < live_bytes // 4:
            # Few series: their chunks move to the end, the old copies become garbage.
            arena, used = old_arena, self.arena_used
        else:
            # Many, or no room: all move to a new arena, those without new samples too. Pages that nobody
            # writes to take no memory, so room for the worst case may be asked for.
            arena, used = np.empty(live_bytes + live_bytes // 2 + new_bytes, np.uint8), 0
            rest = np.ones(len(self), np.bool_)
            rest[series] = False
            others = live[rest[live]].astype(np.int32)
            none = np.zeros(len(others), np.int64)
            series = np.concatenate([series, others])
            run_starts, run_ends = np.concatenate([run_starts, none]), np.concatenate([run_ends, none])
        table: list[NDArray[Any]] = [np.empty(max(1024, len(series) // 4), dtype) for dtype in _TABLE]
        closed = np.empty(max(1 << 16, self.samples_max * xor.SAMPLE_BYTES_MAX), np.uint8)
        progress = np.zeros(xor.PROGRESS_LENGTH, np.int64)
        progress[xor.ARENA] = used
        while True:
            code = xor.append_runs(
                series, run_starts, run_ends, timestamps, values,
                old_arena, arena, *self._columns(), closed, *table,
                self.samples_max, self.range_ms, progress,
            )  # fmt: skip
            if code == xor.DONE:
                break
            assert code == xor.CLOSED_FULL, "the arena was made long enough"
            rows, used = int(progress[xor.TABLE]), int(progress[xor.CLOSED])
            if rows == len(table[0]):
                table = [_lengthened(column, rows) for column in table]
            else:
                closed = _lengthened(closed, used)
        self.arena, self.arena_used = arena, int(progress[xor.ARENA])
        rows, used = int(progress[xor.TABLE]), int(progress[xor.CLOSED])
        return ClosedChunks(*(column[:rows] for column in table), data=closed[:used])

    def close(self, series: NDArray[np.int32]) -> ClosedChunks:
        """Takes out the open chunks of these series (each at most once) as they are; those without one are left out."""
        series = np.ascontiguousarray(series[self.counts[series] > 0], np.int32)
        count = len(series)
        counts = self.counts[series]
        closed = np.empty(self._open_bytes(series), np.uint8)
        starts, lengths = np.empty(count, np.int64), np.empty(count, np.int32)
        _take(series, self.arena, self.starts, self.bit_lengths, self.counts, closed, starts, lengths)
        return ClosedChunks(series, self.mints[series], self.last_timestamps[series], starts, lengths, counts, closed)

    def drop(self, series: NDArray[np.int32]) -> None:
        """Forgets the open chunks of these series."""
        self.counts[series] = 0

    def keep(self, rows: NDArray[np.bool_]) -> None:
        """Leaves only these of the first rows; those behind had no chunk. The arena stays."""
        for name, _ in _COLUMNS:
            setattr(self, name, getattr(self, name)[: len(rows)][rows])

    def view(self) -> OpenChunksView:
        """Copies of the columns and the arena as it is now, for readers without the lock."""
        ends = self.starts + ((self.bit_lengths.astype(np.int64) + 7) >> 3)
        return OpenChunksView(
            self.arena, self.starts.copy(), ends, self.counts.copy(), self.mints.copy(), self.last_timestamps.copy()
        )

    def state(self) -> dict[str, NDArray[Any]]:
        """Everything, as named arrays for a checkpoint; views, valid until the next `append`."""
        arrays: dict[str, NDArray[Any]] = {name: getattr(self, name) for name, _ in _COLUMNS}
        return arrays | {"arena": self.arena[: self.arena_used]}

    def restore(self, state: dict[str, NDArray[Any]]) -> None:
        """Takes over what `state` gave, copied."""
        for name, dtype in _COLUMNS:
            setattr(self, name, np.array(state[name], dtype))
        self.arena = np.array(state["arena"], np.uint8)
        self.arena_used = len(self.arena)

    def _columns(self) -> tuple[NDArray[Any], ...]:
        return tuple(getattr(self, name) for name, _ in _COLUMNS)

    def _open_bytes(self, series: NDArray[Any]) -> int:
        """Of the open chunks of these series; rows without one may add what they once had."""
        return int(((self.bit_lengths[series].astype(np.int64) + 7) >> 3).sum())


def _lengthened(array: NDArray[Any], used: int) -> NDArray[Any]:
    """The first `used` elements in an array of twice the length."""
    longer = np.empty(2 * len(array), array.dtype)
    longer[:used] = array[:used]
    return longer
