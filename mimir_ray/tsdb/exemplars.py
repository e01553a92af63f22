"""`ExemplarStore`: the newest exemplars of one tenant in a ring; the oldest make way.

Columns with one row an exemplar, label sections in an arena of bytes. Every exemplar has a number that goes up;
number n is row n modulo the capacity and is there as long as fewer than that many came after it. Exemplars of one
series are chained from the newest to older ones by these numbers.

Upstream: tsdb/exemplar.go CircularExemplarStorage.
# Differs: of two exemplars with one time and one value, upstream takes the one whose labels have the greater hash for
# the newer, we the one whose labels sort later. Exemplars go when their series goes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mimir_ray.encoding.bits import copy_bytes
from mimir_ray.kernel import F64, I32, I64, U8, OutF64, OutI32, OutI64, OutU8, device, kernel

STORED, DUPLICATE, OUT_OF_ORDER, SERIES_MISSING = range(4)

_ARENA_MIN = 1 << 12
# Positions in `used`: number of the next exemplar, bytes of the arena.
_NEXT, _BYTES = 0, 1


class ExemplarStore:
    """Not thread-safe: the head's lock guards it."""

    def __init__(self, capacity: int = 0) -> None:
        """`capacity`: exemplars; 0 stores none."""
        self._newest = np.full(0, -1, np.int64)
        self._chain = np.full(0, -1, np.int64)
        self._arena: NDArray[np.uint8]
        self._used: NDArray[np.int64]
        self._clear(capacity)

    @property
    def capacity(self) -> int:
        return len(self._references)

    def __len__(self) -> int:
        return len(self._rows())

    @property
    def nbytes(self) -> int:
        columns = self._references, self._timestamps, self._values, self._label_start, self._label_end, self._previous
        return sum(one.nbytes for one in (*columns, self._arena, self._newest, self._chain))

    @property
    def series(self) -> int:
        """With exemplars."""
        return len(np.unique(self._references[self._rows()]))

    def resize(self, capacity: int) -> None:
        """Keeps as many of the newest as there is room for."""
        if capacity == self.capacity:
            return
        kept = self.export()
        self._newest[:] = -1
        self._chain[:] = -1
        self._clear(capacity)
        if capacity:
            self.add(*kept)

    def append(
        self,
        references: NDArray[np.int32],
        timestamps: NDArray[np.int64],
        values: NDArray[np.float64],
        labels: bytes,
        offsets: NDArray[np.int64],
        window_ms: int = 0,
    ) -> NDArray[np.uint8]:
        """Takes exemplars in their order; uint8[E], what became of each. Only with a capacity above 0.

        Args:
            references: int32[E], the series; negative: there is none.
            timestamps, values, labels, offsets: as in model.exemplars.ExemplarColumns.
            window_ms: how much older than the newest of its series an exemplar may be.
        """
        assert self.capacity
        self._reserve(int(references.max(initial=-1)) + 1, int(offsets[-1] - offsets[0]))
        statuses = np.empty(len(references), np.uint8)
        append_exemplars(
            references, timestamps, values, np.frombuffer(labels, np.uint8), offsets, window_ms,
            self._references, self._timestamps, self._values, self._label_start, self._label_end, self._previous,
            self._arena, self._newest, self._chain, self._used, statuses,
        )  # fmt: skip
        return statuses

    def add(
        self,
        references: NDArray[np.int32],
        timestamps: NDArray[np.int64],
        values: NDArray[np.float64],
        labels: bytes,
        offsets: NDArray[np.int64],
    ) -> None:
        """Takes exemplars that were stored before, from a record or another store."""
        if self.capacity and len(references):
            self.append(references, timestamps, values, labels, offsets, 1 << 62)

    def forget(self, references: NDArray[np.int32]) -> None:
        """These series are gone; their references may be given out anew."""
        references = references[references < len(self._chain)]
        if len(references):
            self._references[np.isin(self._references, references)] = -1
            self._chain[references] = -1
            self._newest[references] = -1

    def renumber(self, kept: NDArray[np.bool_]) -> None:
        """The kept series are called 0, 1, … in the order that they had; the others were forgotten before."""
        if not self.capacity:
            return
        references, *rest = self.export()
        numbers = (np.cumsum(kept) - 1).astype(np.int32)
        self._newest, self._chain = np.full((2, 0), -1, np.int64)
        self._clear(self.capacity)
        self.add(numbers[references], *rest)

    def select(
        self, references: NDArray[np.int32], mint: int, maxt: int
    ) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.float64], list[bytes]]:
        """(references, timestamps, values, label sections) of these series between two times, both included.

        By reference, then time, then age.
        """
        rows = self._rows()
        times = self._timestamps[rows]
        rows = rows[(times >= mint) & (times <= maxt) & np.isin(self._references[rows], references)]
        rows = rows[np.lexsort((self._timestamps[rows], self._references[rows]))]
        cuts = zip(self._label_start[rows].tolist(), self._label_end[rows].tolist(), strict=True)
        sections = [self._arena[start:end].tobytes() for start, end in cuts]
        return self._references[rows], self._timestamps[rows], self._values[rows], sections

    def export(
        self,
    ) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.float64], bytes, NDArray[np.int64]]:
        """Everything, from the oldest on, as `add` takes it."""
        rows = self._rows()
        labels, offsets = self._gathered(rows)
        return self._references[rows], self._timestamps[rows], self._values[rows], labels.tobytes(), offsets

    def _rows(self) -> NDArray[np.int64]:
        """Of those that are there, from the oldest on."""
        following, capacity = int(self._used[_NEXT]), self.capacity
        rows = np.arange(max(0, following - capacity), following, dtype=np.int64) % max(capacity, 1)
        return rows[self._references[rows] >= 0]

    def _gathered(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        starts, ends = self._label_start[rows], self._label_end[rows]
        offsets = np.zeros(len(rows) + 1, np.int64)
        np.cumsum(ends - starts, out=offsets[1:])
        out = np.empty(int(offsets[-1]), np.uint8)
        copy_sections(self._arena, starts, offsets, out)
        return out, offsets

    def _reserve(self, series: int, label_bytes: int) -> None:
        if series > len(self._chain):
            more = max(series, len(self._chain) * 3 // 2) - len(self._chain)
            self._chain = np.concatenate((self._chain, np.full(more, -1, np.int64)))
            self._newest = np.concatenate((self._newest, np.full(more, -1, np.int64)))
        if self._used[_BYTES] + label_bytes > len(self._arena):
            rows = self._rows()
            live, offsets = self._gathered(rows)
            self._arena = np.empty(max(_ARENA_MIN, 2 * len(live) + label_bytes), np.uint8)
            self._arena[: len(live)] = live
            self._label_start[rows], self._label_end[rows] = offsets[:-1], offsets[1:]
            self._used[_BYTES] = len(live)

    def _clear(self, capacity: int) -> None:
        self._references = np.full(capacity, -1, np.int32)
        self._timestamps = np.zeros(capacity, np.int64)
        self._values = np.zeros(capacity, np.float64)
        self._label_start = np.zeros(capacity, np.int64)
        self._label_end = np.zeros(capacity, np.int64)
        self._previous = np.full(capacity, -1, np.int64)
        self._arena = np.empty(0, np.uint8)
        self._used = np.zeros(2, np.int64)


@kernel
def copy_sections(data: U8, starts: I64, offsets: I64, out: OutU8) -> None:
    """out[offsets[i]:offsets[i + 1]] = as many bytes of data from starts[i] on."""
    for row in range(len(starts)):
        copy_bytes(out, offsets[row], data, starts[row], offsets[row + 1] - offsets[row])


@device
def _compare(left, start, end, right, right_start, right_end):  # type: ignore[no-untyped-def]
    """-1, 0 or 1: how two byte strings sort."""
    while start < end and right_start < right_end:
        if left[start] != right[right_start]:
            return -1 if left[start] < right[right_start] else 1
        start += 1
        right_start += 1
    if start < end:
        return 1
    return -1 if right_start < right_end else 0


@kernel
def append_exemplars(
    references: I32, timestamps: I64, values: F64, labels: U8, offsets: I64, window_ms: int,
    ring_references: OutI32, ring_timestamps: OutI64, ring_values: OutF64, label_start: OutI64, label_end: OutI64,
    previous: OutI64, arena: OutU8, newest: OutI64, chain: OutI64, used: OutI64, statuses: OutU8,
) -> None:  # fmt: skip
    """Puts exemplars into a ring; statuses[e] is what became of each.

    Args:
        ring_*, label_start, label_end, previous: one row an exemplar; `previous`: the number of the one that its
            series got before it, or -1.
        arena: has room for all of `labels`.
        newest, chain: of each series, the number of the exemplar with the latest time, and of the last one that came;
            numbers that are no longer in the ring count as none.
        used: the next number, and the bytes of the arena in use; both go up.
    """
    capacity = np.int64(len(ring_references))
    for e in range(len(references)):
        reference = np.int64(references[e])
        if reference < 0:
            statuses[e] = 3
            continue
        number = used[0]
        oldest = max(number - capacity, np.int64(0))
        time, value = timestamps[e], values[e]
        first, last = offsets[e], offsets[e + 1]
        latest = newest[reference]
        if latest < oldest:
            latest = np.int64(-1)
            other = chain[reference]
            while other >= oldest:
                if latest < 0 or ring_timestamps[other % capacity] > ring_timestamps[latest % capacity]:
                    latest = other
                other = previous[other % capacity]
        if latest >= 0:
            row = latest % capacity
            order = _compare(labels, first, last, arena, label_start[row], label_end[row])
            same_time = time == ring_timestamps[row]
            if same_time and value == ring_values[row] and order == 0:
                statuses[e] = 1
                continue
            if (
                (time < ring_timestamps[row] and time <= ring_timestamps[row] - window_ms)
                or (same_time and value < ring_values[row])
                or (same_time and value == ring_values[row] and order < 0)
            ):
                statuses[e] = 2
                continue
            if time < ring_timestamps[row]:
                other = chain[reference]
                while other >= oldest and ring_timestamps[other % capacity] != time:
                    other = previous[other % capacity]
                if other >= oldest:
                    statuses[e] = 1
                    continue
        row = number % capacity
        is_latest = latest < 0 or time >= ring_timestamps[latest % capacity]
        # The row that makes way may be the latest one of this very series: then it is looked for anew next time.
        newest[reference] = number if is_latest else latest
        before = chain[reference]
        previous[row] = before if before > number - capacity else np.int64(-1)
        chain[reference] = number
        ring_references[row] = np.int32(reference)
        ring_timestamps[row] = time
        ring_values[row] = value
        copy_bytes(arena, used[1], labels, first, last - first)
        label_start[row] = used[1]
        used[1] += last - first
        label_end[row] = used[1]
        used[0] = number + 1
        statuses[e] = 0
