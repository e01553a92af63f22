"""Kernels of the head beside slow twins. `append_samples` has its twin in test_database_model.py (`Model.push`)."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mimir_ray.tsdb.head.closed_chunks import link_chunks, mark_late, oldest_time
from mimir_ray.tsdb.head.reading import count_pieces, hide_before, plan_pieces, trim
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


@settings(deadline=None)
@given(samples, st.integers(-60, 60), st.integers(0, 60))
def test_a_plan_has_the_samples_of_the_log_that_are_in_range(
    rows: list[tuple[int, int, float]], mint: int, length: int
) -> None:
    newest: dict[int, int] = {}
    in_order, late = [], []
    for series, time, value in rows:
        (in_order if time > newest.get(series, -99) else late).append((series, time, value))
        newest[series] = max(time, newest.get(series, -99))
    log, last = log_of(in_order)
    late_log, late_last = log_of(late)
    none32, none64, no_chunk = np.zeros(SERIES, np.int32), np.zeros(SERIES, np.int64), np.full(SERIES, -1, np.int32)
    no32, no64 = np.zeros(0, np.int32), np.zeros(0, np.int64)
    offsets = np.empty(SERIES + 1, np.int64)
    maxt = mint + length
    assert not count_pieces(
        mint, maxt, mint, 0, none32, none64, none64, last, late_last, no_chunk, no_chunk,
        no64, no64, no32, no32, log, late_log, offsets,
    )  # fmt: skip
    times, values, splits = np.empty(offsets[-1], np.int64), np.empty(offsets[-1]), np.empty(SERIES, np.int64)
    plan_pieces(
        mint, maxt, mint, 0, none64, none64, none32, none64, none64, last, late_last, no_chunk, no_chunk,
        no64, no64, no64, no32, no32, no32, log, late_log, offsets,
        np.empty(0, np.int32), no64.copy(), no64.copy(), no64.copy(), splits, times, values,
    )  # fmt: skip
    for series in range(SERIES):
        part = slice(offsets[series], offsets[series + 1])
        own = [(t, v) for s, t, v in in_order if s == series and mint <= t <= maxt]
        own_late = [(t, v) for s, t, v in late if s == series and mint <= t <= maxt]
        assert list(zip(times[part].tolist(), values[part].tolist(), strict=True)) == own + own_late
        assert splits[series] == offsets[series] + len(own)


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


def test_samples_in_order_below_the_floor_are_hidden_and_late_ones_are_not() -> None:
    times = np.array([1, 5, 9, 2, 3, 4, 8], np.int64)
    hide_before(5, np.array([0, 4, 7], np.int64), np.array([3, 7], np.int64), times)
    assert times.tolist() == [NO_TIME_MAX, 5, 9, 2, NO_TIME_MAX, NO_TIME_MAX, 8]
