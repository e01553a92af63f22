"""The samples of a head: two logs, open and full chunks, and the per-series columns that tie them together.

`SampleMemory` knows series by their number only, and no lock: `Head` holds its own around every call.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mimir_ray.tsdb.chunks.files import ChunkFiles
from mimir_ray.tsdb.chunks.open_chunks import OpenChunks

from . import sample_log
from .closed_chunks import ClosedTable, mark_late, oldest_time
from .reading import Look
from .sample_log import LATE_LENGTH, LOG_LENGTH, MAX_TIME, MIN_TIME, NO_TIME_MAX, NO_TIME_MIN, WORDS, SampleLog, pages
from .settings import HeadSettings

_COLUMNS: tuple[tuple[str, Any, int], ...] = (
    ("last_times", np.int64, NO_TIME_MAX),
    ("last_values", np.float64, 0),
    ("min_times", np.int64, NO_TIME_MIN),
    ("log_last", np.int32, -1),
    ("late_last", np.int32, -1),
    ("chunk_last", np.int32, -1),
    ("late_chunk_last", np.int32, -1),
)
_STORED = ("last_times", "last_values", "min_times", "chunk_last", "late_chunk_last")
_FIRST_CAPACITY = 1024


class SampleMemory:
    """Columns by series: `last_times`, `last_values` of the last sample in order, `min_times` of the first one,
    the newest record in either log, the newest full chunk of either chain (-1: none). `marks`: sample_log.py."""

    def __init__(self, files: ChunkFiles, settings: HeadSettings) -> None:
        self.settings = settings
        self.series = 0
        self.flushes = 0
        self.open = OpenChunks(settings.chunk_range_ms, settings.samples_per_chunk)
        self.closed = ClosedTable(files)
        self.marks = np.array([0, 0, NO_TIME_MIN, NO_TIME_MAX], np.int64)
        self.floor = NO_TIME_MAX
        """Samples in order that are older (ms) are in blocks; readers do not see them here."""
        self._files = files
        self._log = SampleLog(min(_FIRST_CAPACITY, settings.log_capacity_min))
        self._late_log = SampleLog(min(64, settings.late_log_capacity_max))
        self.last_times: NDArray[np.int64]
        self.last_values: NDArray[np.float64]
        self.min_times: NDArray[np.int64]
        self.log_last: NDArray[np.int32]
        self.late_last: NDArray[np.int32]
        self.chunk_last: NDArray[np.int32]
        self.late_chunk_last: NDArray[np.int32]
        for name, dtype, initial in _COLUMNS:
            setattr(self, name, np.full(64, initial, dtype))

    def reserve(self, count: int) -> None:
        """So many series there are; makes their columns at least this long."""
        self.series = count
        length = len(self.last_times)
        if count > length:
            for name, dtype, initial in _COLUMNS:
                longer = np.full(max(count, length * 3 // 2), initial, dtype)
                longer[:length] = getattr(self, name)
                setattr(self, name, longer)

    def store(
        self,
        references: NDArray[np.int32],
        timestamps: NDArray[np.int64],
        values: NDArray[np.float64],
        dropped: NDArray[np.bool_],
        replay: bool,
        min_valid: int,
        late_window: int,
        late_min: int,
        counts: NDArray[np.int64],
    ) -> NDArray[np.uint8]:
        """The status of each sample; flushes and grows as needed. Args: as `sample_log.append_samples`."""
        statuses = np.empty(len(references), np.uint8)
        at = 0
        while True:
            at = sample_log.append_samples(
                references, timestamps, values, at, replay, min_valid, late_window, late_min,
                self.series, dropped, self.marks, self._log.records, self._late_log.records,
                self.last_times, self.last_values, self.min_times, self.log_last, self.late_last,
                statuses, counts,
            )  # fmt: skip
            if at == len(references):
                return statuses
            self._make_room()

    def _make_room(self) -> None:
        """Grows a log that is full, or flushes it once it has the size that suits the number of series."""
        settings = self.settings
        wanted = settings.log_samples_per_series * self.series
        wanted = min(max(wanted, settings.log_capacity_min), max(settings.log_capacity_max, 2 * self.series))
        if self.marks[LOG_LENGTH] == self._log.capacity:
            if self._log.capacity < wanted // 2:
                self._log.grow(min(wanted, 4 * self._log.capacity))
            else:
                self._flush_log(wanted)
        if self.marks[LATE_LENGTH] == self._late_log.capacity:
            wanted = min(wanted // 2, settings.late_log_capacity_max)
            if self._late_log.capacity < wanted:
                self._late_log.grow(min(wanted, 4 * self._late_log.capacity))
            else:
                self.flush_late()

    def flush(self) -> None:
        """Packs both logs into chunks. What readers look at is not touched."""
        self._flush_log(self._log.capacity)
        self.flush_late()

    def _flush_log(self, capacity: int) -> None:
        length = int(self.marks[LOG_LENGTH])
        if length:
            runs, starts, ends, timestamps, values = self._sorted(self._log, length, self.log_last)
            self.open.reserve(self.series)
            self.closed.append(self.open.append(runs, starts, ends, timestamps, values), self.chunk_last)
            self.marks[LOG_LENGTH] = 0
            self.flushes += 1
        self._log.clear(capacity)

    def flush_late(self) -> None:
        """Packs the log of late samples into chunks."""
        length = int(self.marks[LATE_LENGTH])
        if not length:
            return
        runs, starts, ends, timestamps, values = self._sorted(self._late_log, length, self.late_last)
        total = sample_log.sort_runs(starts, ends, len(runs), timestamps, values)
        packer = OpenChunks(self.settings.chunk_range_ms, self.settings.samples_per_chunk)
        packer.reserve(len(runs))
        rows = np.arange(len(runs), dtype=np.int32)
        for chunks in (packer.append(rows, starts, ends, timestamps[:total], values[:total]), packer.close(rows)):
            chunks.series = runs[chunks.series]
            self.closed.append(chunks, self.late_chunk_last)
        self.marks[LATE_LENGTH] = 0
        self._late_log.clear(self._late_log.capacity)

    def _sorted(self, log: SampleLog, length: int, last: NDArray[np.int32]) -> tuple[Any, ...]:
        series = self.series
        most = min(series, length)
        runs = np.empty(most, np.int32)
        starts, ends = np.empty(most, np.int64), np.empty(most, np.int64)
        timestamps, values = pages(length, np.int64), pages(length, np.float64)
        count = sample_log.sort_log(
            log.records, length, last, np.zeros(series + 1, np.int64), runs, starts, ends, timestamps, values
        )
        return runs[:count], starts[:count], ends[:count], timestamps, values

    def look(self, references: NDArray[np.int32]) -> Look:
        """What a reader of these series needs, as of now."""
        self.open.reserve(self.series)
        chunks = self.open
        starts = chunks.starts[references]
        look = Look(
            starts,
            starts + ((chunks.bit_lengths[references].astype(np.int64) + 7) >> 3),
            chunks.counts[references],
            chunks.mints[references],
            chunks.last_timestamps[references],
            self.log_last[references],
            self.late_last[references],
            self.chunk_last[references],
            self.late_chunk_last[references],
            self.last_times[references],
            self.last_values[references],
            chunks.arena,
            {0: self.closed.spilled} | {one: self._files.view(one) for one in self._files.segments},
            self.closed.columns(),
            self._log.records,
            self._late_log.records,
            self.floor,
        )
        self._log.pin(look)
        self._late_log.pin(look)
        return look

    def drop(self, references: NDArray[np.int32]) -> None:
        """Forgets the samples of these series."""
        self.flush()
        self.open.reserve(self.series)
        self.open.drop(references)
        self.chunk_last[references] = -1
        self.late_chunk_last[references] = -1

    def oldest(self) -> tuple[int, int]:
        """(of the samples in order that are not below the floor, of the late ones) the smallest time; 2^63 - 1: none.

        Exact but for chunks that begin below the floor, which count as if they had a sample there.
        """
        closed, opened, floor = self.closed, self.open, self.floor
        first = oldest_time(floor, self.chunk_last[: self.series], closed.mints, closed.maxts, closed.previous)
        live = (opened.counts > 0) & (opened.last_timestamps >= floor)
        if live.any():
            first = min(first, max(int(opened.mints[live].min()), floor))
        late = oldest_time(
            NO_TIME_MAX, self.late_chunk_last[: self.series], closed.mints, closed.maxts, closed.previous
        )
        for log, length in ((self._log, LOG_LENGTH), (self._late_log, LATE_LENGTH)):
            times = log.records[: self.marks[length] * WORDS : WORDS]
            if not len(times):
                continue
            if log is self._late_log:
                late = min(late, int(times.min()))
            elif (times := times[times >= floor]).size:
                first = min(first, int(times.min()))
        return first, late

    def late_ranges(self, range_ms: int) -> list[int]:
        """Which multiples of `range_ms` late chunks begin in, ascending. The late log must be empty."""
        late = np.zeros(self.closed.length, np.bool_)
        mark_late(self.late_chunk_last[: self.series], self.closed.previous, 0, late)
        return np.unique(self.closed.mints[: self.closed.length][late] // range_ms).tolist()  # type: ignore[no-any-return]

    def without_samples(self) -> NDArray[np.bool_]:
        """bool[series]: those with no sample that is the head's."""
        count = self.series
        last = self.last_times[:count]
        over = (last < self.floor) | (last == NO_TIME_MAX)
        return over & (self.late_chunk_last[:count] < 0) & (self.late_last[:count] < 0)

    def renumber(self, kept: NDArray[np.bool_]) -> None:
        """Forgets series; the others are called 0, 1, … in the order that they had. Readers keep the old columns."""
        self.flush()
        self.open.reserve(self.series)
        self.open.keep(kept)
        for name, _, _ in _COLUMNS:
            setattr(self, name, getattr(self, name)[: self.series][kept])
        self.series = int(kept.sum())

    def drop_before_floor(self, late_rows: int) -> int:
        """Forgets full chunks below the floor, and late chunks of rows before `late_rows`; returns how many."""
        opened = self.open
        opened.reserve(self.series)
        over = np.flatnonzero((opened.counts > 0) & (opened.last_timestamps < self.floor))
        opened.drop(over)
        dropped = self.closed.drop_before(self.floor, late_rows, self.chunk_last, self.late_chunk_last)
        if self.marks[MAX_TIME] != NO_TIME_MAX:
            oldest = min(*self.oldest(), int(self.marks[MAX_TIME]))
            self.marks[MIN_TIME] = max(int(self.marks[MIN_TIME]), oldest)
        return dropped

    @property
    def bytes(self) -> int:
        """Memory of all arrays."""
        columns = sum(int(getattr(self, name).nbytes) for name, *_ in _COLUMNS)
        opened = sum(int(part.nbytes) for part in self.open.state().values())
        logs = self._log.records.nbytes + self._late_log.records.nbytes
        return columns + opened + logs + self.closed.bytes

    def state(self) -> dict[str, Any]:
        """Named arrays for a checkpoint, which later writes do not change. Both logs are empty (`flush`).

        Raises `StorageFailed` while full chunks cannot be written to the disk.
        """
        self.closed.settle()
        self.open.reserve(self.series)
        parts: dict[str, Any] = {
            f"open.{name}": column.copy() for name, column in self.open.state().items() if name != "arena"
        }
        parts["open.arena"] = self.open.arena[: self.open.arena_used]
        parts |= self.closed.state()
        for name in _STORED:
            parts[f"head.{name}"] = getattr(self, name)[: self.series].copy()
        return parts | {"head.marks": self.marks.copy(), "head.floor": np.array([self.floor], np.int64)}

    def restore(self, parts: dict[str, Any], series: int) -> None:
        """Takes over what `state` gave."""
        self.open.restore({name[5:]: part for name, part in parts.items() if name.startswith("open.")})
        self.closed.restore(parts)
        self.reserve(series)
        for name in _STORED:
            getattr(self, name)[:series] = parts[f"head.{name}"]
        self.marks = np.array(parts["head.marks"])
        if "head.floor" in parts:  # else from before there were blocks
            self.floor = int(parts["head.floor"][0])
