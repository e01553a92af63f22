"""`StartTimestamps`: since when the samples of one head count, kept beside them.

A start timestamp changes when a counter was reset, so what is stored is changes: from time t on, samples of a series
count since `start` (0: not known), until the next change. A sample that comes late gets a change of its own and, one
millisecond later, one back, so that its neighbours keep theirs (sent again with another one, the newer counts).
Series of deltas have one change a sample. Heads without start timestamps pay a comparison a batch.

Changes are append-only columns with a chain per series, newest first: what a reader has taken along never changes.
Knows no lock: `Head` holds its own around every call.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mimir_ray.kernel import I32, I64, U8, OutI32, OutI64, kernel

from .sample_log import IN_ORDER, NO_TIME_MAX, OUT_OF_ORDER

Changes = tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]
"""Series, from when on (ms), start timestamps (ms; 0: not known): [C] each, in the order in which they came."""
_COMPACT_MIN = 1024


@kernel
def note_changes(
    references: I32, timestamps: I64, starts: I64, statuses: U8, count: int, newest: OutI32, last_times: OutI64,
    last_starts: OutI64, series: OutI32, times: OutI64, values: OutI64, previous: OutI32,
) -> int:  # fmt: skip
    """Adds what changes with the samples that were taken behind `count` changes; returns how many there are then.

    Args:
        statuses: uint8[N], of sample_log.append_samples.
        newest, last_times, last_starts: per series its newest change (-1: none), the latest time of one, and the start
            timestamp from there on.
        series, times, values, previous: the changes, with room for two more a sample; `previous`: of the same series.
    """
    for i in range(len(references)):
        if statuses[i] > OUT_OF_ORDER:
            continue
        s = references[i]
        time = timestamps[i]
        start = starts[i]
        if statuses[i] == IN_ORDER and time > last_times[s]:
            if start != last_starts[s]:
                series[count] = s
                times[count] = time
                values[count] = start
                previous[count] = newest[s]
                newest[s] = np.int32(count)
                last_times[s] = time
                last_starts[s] = start
                count += 1
            continue
        # The value at this time, from the latest change at or before it; of equal times the one that came last.
        found = np.int64(NO_TIME_MAX)
        value = np.int64(0)
        ends = False
        at = newest[s]
        while at >= 0:
            if found < times[at] <= time:
                found = times[at]
                value = values[at]
            ends |= times[at] == time + 1
            at = previous[at]
        if value == start:
            continue
        for back in range(1 if ends else 2):
            series[count] = s
            times[count] = time + back
            values[count] = value if back else start
            previous[count] = newest[s]
            newest[s] = np.int32(count)
            if time + back >= last_times[s]:
                last_times[s] = time + back
                last_starts[s] = values[count]
            count += 1
    return count


@kernel
def link_changes(
    series: I32, times: I64, values: I64, newest: OutI32, last_times: OutI64, last_starts: OutI64, previous: OutI32,
    first: int,
) -> None:  # fmt: skip
    """Makes the chains of changes first .. C - 1; the per-series columns as of `note_changes`."""
    for at in range(first, len(series)):
        s = series[at]
        previous[at] = newest[s]
        newest[s] = np.int32(at)
        if times[at] >= last_times[s]:
            last_times[s] = times[at]
            last_starts[s] = values[at]


@kernel
def starts_of_samples(
    heads: I32, times: I64, values: I64, previous: I32, offsets: I64, timestamps: I64, out: OutI64,
) -> int:  # fmt: skip
    """Since when each sample counts.

    Args:
        heads: int32[S], the newest change of each series, -1 for none.
        offsets: int64[S + 1]; timestamps: int64[N], ascending per series.
        out: int64[N], written.

    Returns how many are known.
    """
    longest = 0
    for s in range(len(offsets) - 1):
        count = 0
        at = heads[s]
        while at >= 0:
            count += 1
            at = previous[at]
        longest = max(longest, count)
    scratch_times = np.empty(longest, np.int64)
    scratch_values = np.empty(longest, np.int64)
    known = 0
    for s in range(len(offsets) - 1):
        count = 0
        at = heads[s]
        while at >= 0:
            # Sorted by time, latest first; of equal times the one that came last is met first, and stays in front.
            place = count
            while place > 0 and scratch_times[place - 1] < times[at]:
                scratch_times[place] = scratch_times[place - 1]
                scratch_values[place] = scratch_values[place - 1]
                place -= 1
            scratch_times[place] = times[at]
            scratch_values[place] = values[at]
            count += 1
            at = previous[at]
        at = 0
        for i in range(offsets[s + 1] - 1, offsets[s] - 1, -1):
            while at < count and scratch_times[at] > timestamps[i]:
                at += 1
            out[i] = scratch_values[at] if at < count else 0
            known += out[i] != 0
    return known


@dataclass(frozen=True, slots=True)
class StartsLook:
    """The changes as of one moment. `newest`: of every series."""

    newest: NDArray[np.int32]
    times: NDArray[np.int64]
    values: NDArray[np.int64]
    previous: NDArray[np.int32]

    def of(
        self, references: NDArray[np.int32], offsets: NDArray[np.int64], timestamps: NDArray[np.int64]
    ) -> NDArray[np.int64] | None:
        """int64[N], ms, of the samples of these series; None where none is known. Args: as of `SeriesBatch`."""
        heads = np.full(len(references), -1, np.int32)
        there = references < len(self.newest)
        heads[there] = self.newest[references[there]]
        if not (heads >= 0).any():
            return None
        out = np.empty(len(timestamps), np.int64)
        known = starts_of_samples(heads, self.times, self.values, self.previous, offsets, timestamps, out)
        return out if known else None


class StartTimestamps:
    """The changes of one head."""

    def __init__(self) -> None:
        self._count = 0
        self._compact_at = _COMPACT_MIN
        self._forget()

    def _forget(self) -> None:
        self._newest = np.full(0, -1, np.int32)
        self._last_times = np.full(0, NO_TIME_MAX, np.int64)
        self._last_starts = np.zeros(0, np.int64)
        self._series = np.zeros(0, np.int32)
        self._times = np.zeros(0, np.int64)
        self._values = np.zeros(0, np.int64)
        self._previous = np.zeros(0, np.int32)

    def __len__(self) -> int:
        return self._count

    def take(
        self,
        references: NDArray[np.int32],
        timestamps: NDArray[np.int64],
        starts: NDArray[np.int64] | None,
        statuses: NDArray[np.uint8],
        series: int,
    ) -> Changes | None:
        """Notes the start timestamps of samples that were taken; what changed, for the write-ahead log.

        Args:
            starts: None for a batch without any, whose samples say that they are not known.
            statuses: uint8[N], what became of the samples.
            series: how many there are.
        """
        if starts is None:
            if not self._count:
                return None
            starts = np.zeros(len(references), np.int64)
        self._reserve(series, self._count + 2 * len(references))
        first = self._count
        self._count = note_changes(
            references, timestamps, np.ascontiguousarray(starts), statuses, first, self._newest, self._last_times,
            self._last_starts, self._series, self._times, self._values, self._previous,
        )  # fmt: skip
        if self._count == first:
            return None
        new = slice(first, self._count)
        return self._series[new].copy(), self._times[new].copy(), self._values[new].copy()

    def add(self, changes: Changes, series: int) -> None:
        """Takes over what `take` gave, or a checkpoint. `series`: how many there are, more than any that changes."""
        first, self._count = self._count, self._count + len(changes[0])
        self._reserve(series, self._count)
        for column, added in zip((self._series, self._times, self._values), changes, strict=True):
            column[first : self._count] = added
        link_changes(
            self._series[: self._count], self._times, self._values, self._newest, self._last_times, self._last_starts,
            self._previous, first,
        )  # fmt: skip

    def look(self) -> StartsLook | None:
        """What a reader needs, as of now; None where there is nothing."""
        if not self._count:
            return None
        count = self._count
        return StartsLook(self._newest.copy(), self._times[:count], self._values[:count], self._previous[:count])

    def drop(self, references: NDArray[np.int32]) -> None:
        """Forgets what is known of these series."""
        references = references[references < len(self._newest)]
        self._newest[references] = -1
        self._last_times[references] = NO_TIME_MAX
        self._last_starts[references] = 0
        changes = self._series[: self._count]
        changes[np.isin(changes, references)] = -1

    def drop_before(self, time_ms: int) -> None:
        """Forgets changes that no sample at or after this time depends on, now and then."""
        if self._count < self._compact_at:
            return
        series, times, values = self.changes()
        order = np.lexsort((np.arange(len(series)), times, series))
        over = np.zeros(len(order), np.bool_)
        over[:-1] = (series[order[1:]] == series[order[:-1]]) & (times[order[1:]] <= time_ms)
        kept = np.sort(order[~over])
        length = len(self._newest)
        self._count = 0
        self._forget()
        self.add((series[kept], times[kept], values[kept]), length)
        self._compact_at = max(_COMPACT_MIN, 2 * self._count)

    def renumber(self, kept: NDArray[np.bool_]) -> None:
        """Forgets series; the others are called 0, 1, … in the order that they had. Readers keep what they have."""
        if not self._count:
            return
        series, times, values = self.changes()
        there = kept[series]
        numbers = (np.cumsum(kept) - 1).astype(np.int32)
        self._count = 0
        self._forget()
        self.add((numbers[series[there]], times[there], values[there]), int(kept.sum()))

    def changes(self) -> Changes:
        """Those of all series that were not dropped; copies."""
        count = self._count
        alive = self._series[:count] >= 0
        return self._series[:count][alive], self._times[:count][alive], self._values[:count][alive]

    @property
    def bytes(self) -> int:
        """Memory of all arrays."""
        per_series = self._newest.nbytes + self._last_times.nbytes + self._last_starts.nbytes
        return per_series + self._series.nbytes + self._times.nbytes + self._values.nbytes + self._previous.nbytes

    def state(self) -> dict[str, Any]:
        """Named parts for a checkpoint; none where there is nothing."""
        if not self._count:
            return {}
        names = ("starts.series", "starts.times", "starts.values")
        return dict(zip(names, self.changes(), strict=True))

    def restore(self, parts: dict[str, Any], series: int) -> None:
        """Takes over what `state` gave."""
        if "starts.series" in parts:
            self.add((parts["starts.series"], parts["starts.times"], parts["starts.values"]), series)

    def _reserve(self, series: int, changes: int) -> None:
        """Room for so many of each. Readers keep the arrays they have."""
        if series > len(self._newest):
            length = max(series, len(self._newest) * 3 // 2)
            self._newest = _longer(self._newest, length, -1)
            self._last_times = _longer(self._last_times, length, NO_TIME_MAX)
            self._last_starts = _longer(self._last_starts, length, 0)
        if changes > len(self._series):
            length = max(changes, len(self._series) * 3 // 2, 64)
            for name in ("_series", "_times", "_values", "_previous"):
                setattr(self, name, _longer(getattr(self, name), length, 0))


def _longer(column: NDArray[Any], length: int, initial: int) -> NDArray[Any]:
    longer = np.full(length, initial, column.dtype)
    longer[: len(column)] = column
    return longer
