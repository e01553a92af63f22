"""Kernels of the head beside slow twins. `append_samples` has its twin in test_database_model.py (`Model.push`)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimir_ray.tsdb.chunks.xor import encode_chunk
from mimir_ray.tsdb.head.closed_chunks import link_chunks, mark_late, oldest_time
from mimir_ray.tsdb.head.reading import ARENA, DamagedChunk, Look, read_samples, trim
from mimir_ray.tsdb.head.sample_log import NO_TIME_MAX, NO_TIME_MIN, WORDS, append_samples, sort_log, sort_runs

SERIES = 5
samples = st.lists(st.tuples(st.integers(0, SERIES - 1), st.integers(-50, 50), st.floats(allow_nan=False)), max_size=40)


def log_of(rows: list[tuple[int, int, float]]) -> tuple[np.ndarray, np.ndarray]:
    """(records, newest record of each series), built one by one."""
    last = [-1] * SERIES
    words: list[int] = []
    for position, (series, time, value) in enumerate(rows):
        words += [time, int(np.array([value]).view(np.int64)[0]), last[series] << 32 | series]
        last[series] = position
    return np.array(words, np.int64), np.array(last, np.int32)


@settings(deadline=None)
@given(samples)
def test_a_log_is_sorted_by_series_and_stays_in_its_order(rows: list[tuple[int, int, float]]) -> None:
    log, last = log_of(rows)
    runs, starts, ends = np.empty(SERIES, np.int32), np.empty(SERIES, np.int64), np.empty(SERIES, np.int64)
    times, values = np.empty(len(rows), np.int64), np.empty(len(rows), np.float64)
    count = sort_log(log, len(rows), last, np.zeros(SERIES + 1, np.int64), runs, starts, ends, times, values)
    found = {
        int(runs[r]): list(zip(times[starts[r] : ends[r]].tolist(), values[starts[r] : ends[r]].tolist(), strict=True))
        for r in range(count)
    }
    assert list(found) == sorted({series for series, _, _ in rows})
    assert found == {series: [(t, v) for s, t, v in rows if s == series] for series in found}
    assert (last == -1).all()


@settings(deadline=None)
@given(
    st.lists(st.lists(st.tuples(st.integers(-9, 9), st.floats(allow_nan=False)), min_size=1, max_size=12), max_size=5)
)
def test_runs_are_ordered_by_time_and_the_first_of_a_timestamp_stays(parts: list[list[tuple[int, float]]]) -> None:
    ends = np.cumsum([len(part) for part in parts], dtype=np.int64)
    starts = ends - np.array([len(part) for part in parts], np.int64)
    times = np.array([t for part in parts for t, _ in part], np.int64)
    values = np.array([v for part in parts for _, v in part], np.float64)
    total = sort_runs(starts, ends, len(parts), times, values)
    expected = []
    for part in parts:
        first: dict[int, float] = {}
        for time, value in part:
            first.setdefault(time, value)
        expected.append(sorted(first.items()))
    assert total == sum(map(len, expected))
    for start, end, one in zip(starts.tolist(), ends.tolist(), expected, strict=True):
        assert list(zip(times[start:end].tolist(), values[start:end].tolist(), strict=True)) == one


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.lists(st.integers(-9, 9), max_size=10), st.booleans()), max_size=5),
    st.integers(-10, 10),
    st.integers(0, 10),
)
def test_series_are_cut_to_the_range_and_late_samples_merged(
    parts: list[tuple[list[int], bool]], mint: int, length: int
) -> None:
    parts = [(part if late else sorted(set(part)), late) for part, late in parts]
    offsets = np.concatenate(([0], np.cumsum([len(part) for part, _ in parts]))).astype(np.int64)
    times = np.array([t for part, _ in parts for t in part], np.int64)
    values = np.arange(len(times), dtype=np.float64)
    expected = []
    for (part, _), start in zip(parts, offsets.tolist(), strict=False):
        first: dict[int, float] = {}
        for at, time in enumerate(part):
            if mint <= time <= mint + length:
                first.setdefault(time, float(start + at))
        expected.append(sorted(first.items()))
    trimmed = np.empty(len(parts) + 1, np.int64)
    late = np.array([late for _, late in parts], np.bool_)
    total = trim(mint, mint + length, offsets, late, times, values, trimmed)
    assert total == trimmed[-1] == sum(map(len, expected))
    for row, one in enumerate(expected):
        part = slice(trimmed[row], trimmed[row + 1])
        assert list(zip(times[part].tolist(), values[part].tolist(), strict=True)) == one


def test_chunks_are_chained_from_new_to_old() -> None:
    last, previous = np.full(3, -1, np.int32), np.full(8, 99, np.int32)
    link_chunks(np.array([0, 2, 0], np.int32), 0, last, previous)
    link_chunks(np.array([2, 1], np.int32), 3, last, previous)
    assert last.tolist() == [2, 4, 3]
    assert previous[:5].tolist() == [-1, -1, 0, 1, -1]


class Stored:
    """Samples of series where a head keeps them, written down one by one."""

    def __init__(self) -> None:
        self.bytes = {0: b"", 2: b""}
        self.table: list[tuple[int, int, int, int, int, int]] = []
        self.last = {False: [-1] * SERIES, True: [-1] * SERIES}
        self.logs: dict[bool, list[int]] = {False: [], True: []}
        self.newest = {False: [-1] * SERIES, True: [-1] * SERIES}
        self.arena = b""
        self.open = [(0, 0, 0, 0, 0)] * SERIES

    def close(self, series: int, late: bool, segment: int, part: list[tuple[int, float]]) -> None:
        times = [time for time, _ in part]
        chunk = encode_chunk(np.array(times), np.array([value for _, value in part]))
        position = segment << 32 | len(self.bytes[segment])
        self.bytes[segment] += chunk
        self.table.append((times[0], times[-1], position, len(chunk), len(part), self.last[late][series]))
        self.last[late][series] = len(self.table) - 1

    def keep_open(self, series: int, part: list[tuple[int, float]]) -> None:
        times = [time for time, _ in part]
        chunk = encode_chunk(np.array(times), np.array([value for _, value in part]))
        start = len(self.arena)
        self.arena += chunk
        self.open[series] = start, start + len(chunk), len(part), times[0], times[-1]

    def log(self, series: int, late: bool, part: list[tuple[int, float]]) -> None:
        for time, value in part:
            bits = int(np.array([value]).view(np.int64)[0])
            self.logs[late] += [time, bits, self.newest[late][series] << 32 | series]
            self.newest[late][series] = len(self.logs[late]) // WORDS - 1

    def look(self, floor: int) -> Look:
        def column(name: int, dtype: type) -> np.ndarray:
            return np.array([one[name] for one in self.open], dtype)

        def of_series(values: list[int]) -> np.ndarray:
            return np.array(values, np.int32)

        types = (np.int64, np.int64, np.int64, np.int32, np.int32, np.int32)
        table = tuple(np.array([row[i] for row in self.table], dtype) for i, dtype in enumerate(types))
        return Look(
            column(0, np.int64), column(1, np.int64), column(2, np.int32), column(3, np.int64), column(4, np.int64),
            of_series(self.newest[False]), of_series(self.newest[True]),
            of_series(self.last[False]), of_series(self.last[True]), np.zeros(SERIES, np.int64), np.zeros(SERIES),
            np.frombuffer(self.arena, np.uint8), {k: np.frombuffer(v, np.uint8) for k, v in self.bytes.items()},
            table, np.array(self.logs[False], np.int64), np.array(self.logs[True], np.int64), floor,
        )  # fmt: skip


times_in_parts = st.lists(st.lists(st.integers(-50, 50), max_size=6, unique=True).map(sorted), min_size=3, max_size=3)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.lists(st.integers(-50, 50), unique=True).map(sorted), times_in_parts), max_size=SERIES),
    st.lists(st.integers(0, 9), min_size=3, max_size=3).map(sorted),
    st.integers(-60, 60),
    st.integers(0, 60),
    st.integers(-60, 60),
)
def test_series_are_read_from_wherever_their_samples_are(
    series: list[tuple[list[int], list[list[int]]]], cuts: list[int], mint: int, length: int, floor: int
) -> None:
    stored = Stored()
    expected: list[dict[int, float]] = []
    maxt = mint + length
    for number, (times, late) in enumerate(series):
        in_order = [(time, float(number * 100 + at)) for at, time in enumerate(times)]
        parts = [in_order[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(in_order)], strict=True)]
        for part, segment in zip(parts[:2], (0, 2), strict=True):
            if part:
                stored.close(number, False, segment, part)
        if parts[2]:
            stored.keep_open(number, parts[2])
        stored.log(number, False, parts[3])
        others = [[(time, float(-1 - 10 * at)) for time in part] for at, part in enumerate(late)]
        for other in others[:2]:
            if other:
                stored.close(number, True, 2, other)
        stored.log(number, True, others[2])
        found: dict[int, float] = {}
        for time, value in [(t, v) for t, v in in_order if t >= floor] + [one for other in others for one in other]:
            if mint <= time <= maxt:
                found.setdefault(time, value)
        expected.append(dict(sorted(found.items())))
    look = stored.look(floor)
    offsets, read_times, read_values = read_samples(look, 0, len(series), mint, maxt)
    for number, one in enumerate(expected):
        part = slice(offsets[number], offsets[number + 1])
        assert dict(zip(read_times[part].tolist(), read_values[part].tolist(), strict=True)) == one


def test_a_damaged_chunk_is_named() -> None:
    for broken in ("closed", "open"):
        stored = Stored()
        stored.close(0, False, 2, [(1, 1.0), (2, 2.0)])
        stored.close(1, False, 2, [(1, 1.5), (2, 2.5)])
        stored.keep_open(1, [(3, 1.0), (4, 2.5)])
        look = stored.look(NO_TIME_MAX)
        if broken == "closed":
            look.table[3][1] = 12  # its bytes end too early
        else:
            look.open_ends[1] -= 6
        with pytest.raises(DamagedChunk) as raised:
            read_samples(look, 0, 2, 0, 9)
        where = (2, int(look.table[2][1]) & 0xFFFFFFFF) if broken == "closed" else (ARENA, int(look.open_starts[1]))
        assert (raised.value.source, raised.value.offset) == where


def test_a_full_log_stops_the_append_at_the_sample_that_found_no_room() -> None:
    marks = np.array([0, 0, 1 << 60, -(1 << 60)], np.int64)
    lowest = np.iinfo(np.int64).min
    last_times, statuses = np.full(1, lowest, np.int64), np.full(3, 77, np.uint8)
    columns = (
        last_times,
        np.zeros(1),
        np.full(1, 1 << 60, np.int64),
        np.full(1, -1, np.int32),
        np.full(1, -1, np.int32),
    )
    stopped = append_samples(
        np.zeros(3, np.int32), np.array([1, 2, 3], np.int64), np.ones(3), 0, False, lowest + 1, 0, lowest + 1,
        1, np.zeros(1, np.bool_), marks, np.zeros(2 * WORDS, np.int64), np.zeros(0, np.int64), *columns,
        statuses, np.zeros(9, np.int64),
    )  # fmt: skip
    assert stopped == 2
    assert marks.tolist() == [2, 0, 1, 2]
    assert statuses.tolist() == [0, 0, 77]


chains = st.lists(st.tuples(st.integers(0, 3), st.integers(-50, 50), st.integers(0, 30)), max_size=30)


def linked(rows: list[tuple[int, int, int]]) -> tuple[np.ndarray, ...]:
    """(last, previous, mints, maxts) of chunks (series, mint, length) in their order."""
    last, previous = np.full(4, -1, np.int32), np.full(len(rows) + 1, -1, np.int32)
    link_chunks(np.array([row[0] for row in rows], np.int32), 0, last, previous)
    mints = np.array([row[1] for row in rows], np.int64)
    return last, previous, mints, mints + np.array([row[2] for row in rows], np.int64)


@given(chains, st.integers(-60, 60))
def test_the_oldest_time_of_chains_is_that_of_a_chunk_that_reaches_the_floor(
    rows: list[tuple[int, int, int]], floor: int
) -> None:
    last, previous, mints, maxts = linked(rows)
    reaching = [max(mint, floor) for _, mint, length in rows if mint + length >= floor]
    assert oldest_time(floor, last, mints, maxts, previous) == min(reaching, default=NO_TIME_MIN)


@given(chains, chains, st.integers(0, 60))
def test_chunks_of_late_chains_are_kept_from_a_row_on(
    in_order: list[tuple[int, int, int]], late: list[tuple[int, int, int]], first: int
) -> None:
    previous = np.full(len(in_order) + len(late) + 1, -1, np.int32)
    last, late_last = np.full(4, -1, np.int32), np.full(4, -1, np.int32)
    link_chunks(np.array([row[0] for row in in_order], np.int32), 0, last, previous)
    link_chunks(np.array([row[0] for row in late], np.int32), len(in_order), late_last, previous)
    kept = np.zeros(len(in_order) + len(late), np.bool_)
    mark_late(late_last, previous, first, kept)
    assert kept.tolist() == [len(in_order) <= row and row >= first for row in range(len(kept))]
