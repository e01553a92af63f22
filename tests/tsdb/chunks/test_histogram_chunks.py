"""Kernels for chunks of histograms, XOR2 chunks and start timestamps against their slow twins, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimir_ray.model.float_histogram import CUSTOM_BUCKETS_SCHEMA, GAUGE, NOT_RESET, RESET, UNKNOWN, FloatHistogram
from mimir_ray.model.histogram import HistogramColumns
from mimir_ray.model.series import STALE_NAN
from mimir_ray.testing.strategies import sample_values
from mimir_ray.tsdb.block.decode import Samples, decode
from mimir_ray.tsdb.block.errors import DamagedBlock, UnsupportedChunks
from mimir_ray.tsdb.chunks.histogram import HistogramsMade, measure_histograms
from mimir_ray.tsdb.chunks.histogram_encode import (
    HistogramChunks,
    cut_histograms,
    encode_runs_of_histograms,
    join_buckets,
    whole_runs,
)
from mimir_ray.tsdb.chunks.histogram_layout import continues_chunk
from mimir_ray.tsdb.chunks.xor2 import HEADER_BYTES, SAMPLE_BYTES_MAX, SLACK_BYTES, encode_xor2

from .slow_chunks import (
    Sample,
    bits_of,
    histogram_of,
    read_histograms,
    read_xor2,
    stale,
    write_histograms,
    write_xor2,
)

WHOLE = st.integers(0, 5) | st.integers(0, 1 << 40)
INTERVALS = st.sampled_from([15_000, 15_000, 15_000, 15_001, 14_990, 60_000, 1 << 33])
START_TIMESTAMPS = st.sampled_from([0, 0, 1_000, 1_000, 1_000, 90_000])


@st.composite
def runs_of_histograms(draw: st.DrawFn) -> list[Sample]:
    """One run as a series has it: mostly growing, now and then reset, stale, of another layout or kind."""
    floats = draw(st.booleans())
    number = st.floats(0, 1e9) if floats else WHOLE.map(float)
    custom = draw(st.booleans())
    samples: list[Sample] = []
    time = draw(st.integers(-(1 << 40), 1 << 40))
    start = 0
    layout: tuple[dict[int, float], dict[int, float]] = ({}, {})
    schema, threshold, zero, gauge = 3, 2.0**-128, 0.0, False
    bounds: list[float] = [0.005, 1.0, 33554.43, 40000.0, -2.5]
    for _ in range(draw(st.integers(1, 12))):
        event = draw(st.integers(0, 30))
        if event == 0:
            schema = draw(st.integers(-4, 8))
        elif event == 1:
            threshold = draw(st.sampled_from([0.0, 0.5, 0.3, 2.0**10, 2.0**11, 2.0**-243, 1e-300]))
        elif event == 2:
            layout, zero = ({}, {}), 0.0
        elif event == 3:
            gauge = not gauge
        elif event == 4:
            bounds = [*bounds, draw(st.floats(0, 1e6))]
        for side in layout[: 1 if custom else 2]:
            for index in draw(st.lists(st.integers(0, 4) if custom else st.integers(-6, 6), max_size=2)):
                side[index] = side.get(index, 0.0) + draw(number)
        zero += draw(number)
        time += draw(INTERVALS)
        start = draw(START_TIMESTAMPS) or start
        hint = GAUGE if gauge else draw(st.sampled_from([UNKNOWN, UNKNOWN, UNKNOWN, NOT_RESET, RESET]))
        total = STALE_NAN if event in (5, 6) else draw(st.floats())
        count = sum(layout[0].values()) + sum(layout[1].values()) + zero
        sides = [(sorted(side), [side[index] for index in sorted(side)]) for side in layout]
        samples.append((time, start, histogram_of(
            CUSTOM_BUCKETS_SCHEMA if custom else schema, 0.0 if custom else threshold, 0.0 if custom else zero, count,
            total, hint, sides[0], ([], []) if custom else sides[1], sorted(bounds) if custom else (),
        )))  # fmt: skip
    return samples


def encoded(runs: list[list[Sample]], with_start: bool, samples_per_chunk: int = 4) -> HistogramChunks:
    offsets = np.concatenate(([0], np.cumsum([len(run) for run in runs]))).astype(np.int64)
    flat = [sample for run in runs for sample in run]
    times, starts = (np.array([sample[k] for sample in flat], np.int64) for k in range(2))
    columns = HistogramColumns.from_rows([sample[2] for sample in flat])
    return encode_runs_of_histograms(offsets, times, columns, starts if with_start else None, samples_per_chunk)


def decoded(chunks: HistogramChunks) -> Samples:
    return decode(
        [np.zeros(0, np.uint8), chunks.data],
        np.ones(len(chunks.runs), np.int32), chunks.starts[:-1], chunks.starts[1:], chunks.encodings,
    )  # fmt: skip


def same(one: FloatHistogram, other: FloatHistogram) -> bool:
    return one.equals(other) and one.hint == other.hint


@given(st.lists(runs_of_histograms(), max_size=4), st.booleans())
def test_chunks_are_what_the_slow_twin_writes_and_reads(runs: list[list[Sample]], with_start: bool) -> None:
    chunks = encoded(runs, with_start)
    flat = [sample for run in runs for sample in run]
    found = decoded(chunks)
    assert found.timestamps.tolist() == [time for time, _, _ in flat]
    assert found.offsets.tolist() == chunks.cuts.tolist()
    if with_start:
        assert found.start_timestamps is None or found.start_timestamps.tolist() == [start for _, start, _ in flat]
    for c, encoding in enumerate(chunks.encodings.tolist()):
        first, last = int(chunks.cuts[c]), int(chunks.cuts[c + 1])
        data = chunks.data[chunks.starts[c] : chunks.starts[c + 1]].tobytes()
        flags = (data[0] if with_start else data[2]) >> 6
        integers = encoding in (2, 5)
        assert data == write_histograms(flat[first:last], flags, integers, with_start)
        slow = read_histograms(data, not integers, with_start)
        for n, (time, start, histogram) in enumerate(slow):
            assert found.histograms is not None
            here = found.histograms.at(first + n)
            assert same(here, histogram)
            assert bits_of(float(found.values[first + n])) == bits_of(histogram.sum)
            original = flat[first + n]
            assert (time, start if with_start else 0) == (original[0], original[1] if with_start else 0)
            if not stale(original[2]):
                assert here.compact().equals(original[2].compact())


@given(runs_of_histograms(), st.integers(1, 5))
def test_a_chunk_ends_where_the_next_histogram_cannot_continue_it(run: list[Sample], samples_max: int) -> None:
    chunks = encoded([run], False, samples_max)
    first, cuts, flags = 0, [], []
    for n, (_, _, histogram) in enumerate(run):
        if n == 0 or n - first == samples_max or not continues_chunk(run[n - 1][2], histogram):
            first = n
            cuts.append(n)
            flags.append(histogram.hint == GAUGE)
    assert chunks.cuts.tolist() == [*cuts, len(run)]
    assert [bool(chunks.data[start + 2] >> 6 == 3) for start in chunks.starts[:-1].tolist()] == flags


def counter(*counts: float, hint: int = UNKNOWN, **more: float) -> FloatHistogram:
    return histogram_of(
        int(more.get("schema", 0)), more.get("threshold", 0.0), 0.0, sum(counts), more.get("sum", 1.0), hint,
        (range(len(counts)), counts), ([], []),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("histograms", "flags"),
    [
        ([counter(1), counter(2)], [0]),
        ([counter(1), counter(2), counter(3)], [0, 1]),
        ([counter(2), counter(1)], [0, 2]),
        ([counter(2, 0), counter(3)], [0]),
        ([counter(2, 1), counter(3)], [0, 2]),
        ([counter(2), counter(3, 4)], [0]),
        ([counter(2, hint=RESET), counter(3)], [2]),
        ([counter(2), counter(3, hint=RESET)], [0, 2]),
        ([counter(2), counter(3, schema=1)], [0, 0]),
        ([counter(2), counter(1, threshold=1.0)], [0, 2]),
        ([counter(2), counter(1, hint=GAUGE), counter(0, hint=GAUGE)], [0, 3]),
        ([counter(2), counter(0, sum=STALE_NAN), counter(3)], [0, 0]),
        ([counter(2), counter(0, sum=STALE_NAN), counter(0, sum=STALE_NAN)], [0, 1]),
    ],
)
def test_the_header_of_a_chunk_says_why_it_was_begun(histograms: list[FloatHistogram], flags: list[int]) -> None:
    chunks = encoded([[(n, 0, one) for n, one in enumerate(histograms)]], False, 2)
    assert [int(chunks.data[start + 2]) >> 6 for start in chunks.starts[:-1].tolist()] == flags


@pytest.mark.parametrize(
    ("value", "whole"),
    [(0.0, True), (-0.0, False), (0.5, False), (2.0**53, True), (2.0**53 + 2, False), (-1.0, False),
     (float("nan"), False), (float("inf"), False)],
)  # fmt: skip
def test_histograms_are_written_as_integers_where_all_counts_of_a_run_are(value: float, whole: bool) -> None:
    def encoding(*histograms: FloatHistogram) -> list[int]:
        return encoded([[(n, 0, one) for n, one in enumerate(histograms)]], False).encodings.tolist()

    plain = counter(1.0)
    for odd in (counter(value), histogram_of(0, 0, value, 1, 1, GAUGE, ([], []), ([1], [1.0])),
                histogram_of(0, 0, 0, 1, 1, GAUGE, ([], []), ([1], [value]))):  # fmt: skip
        assert set(encoding(plain, odd)) == {2 if whole else 3}
    assert encoding(counter(0.5, sum=STALE_NAN)) == [2]


def test_whole_runs_and_buckets_of_none_are_none() -> None:
    none, empty = np.zeros(1, np.int64), np.zeros(0)
    out = np.zeros(0, np.bool_)
    whole_runs(none, empty, empty, empty, none, empty, none, empty, out)
    joined = np.full(1, 7, np.int64)
    join_buckets(none, none, np.zeros(0, np.int32), empty, joined, np.zeros(0, np.int32))
    assert joined.tolist() == [0]
    small = np.zeros(0, np.int8)
    cuts, flags = np.full(1, 7, np.int64), np.zeros(0, np.uint8)
    found = cut_histograms(
        none, out, small, small, empty, empty, empty, empty, none, np.zeros(0, np.int32), empty,
        none, np.zeros(0, np.int32), empty, np.zeros(0, np.int32), 10, cuts, flags, out, np.zeros(0, np.int64),
    )  # fmt: skip
    assert (found, cuts.tolist()) == (0, [0])


def test_finer_schemas_of_newer_versions_are_reduced() -> None:
    fine = histogram_of(10, 0.0, 0.0, 7.0, 1.0, UNKNOWN, ([1, 4, 5, 9], [1.0, 2.0, 3.0, 1.0]), ([], []))
    data = np.frombuffer(write_histograms([(5, 0, fine)], 0, True, False), np.uint8)
    zero = np.zeros(1, np.int64)
    found = decode([data], np.zeros(1, np.int32), zero, np.array([len(data)]), np.array([2], np.uint8))
    assert found.histograms is not None
    assert found.histograms.at(0).equals(
        histogram_of(8, 0.0, 0.0, 7.0, 1.0, UNKNOWN, ([1, 2, 3], [3.0, 3.0, 1.0]), ([], []))
    )


points_with_start = st.lists(
    st.tuples(st.sampled_from([1000, 1000, 1000, 1001, 5000, 600_000, 1 << 40]), START_TIMESTAMPS, sample_values()),
    min_size=1,
    max_size=20,
)


@given(st.lists(points_with_start, max_size=3), st.integers(-(1 << 40), 1 << 40))
def test_xor2_chunks_are_what_the_slow_twin_writes_and_reads(
    lists: list[list[tuple[int, int, float]]], first: int
) -> None:
    chunks = []
    for points in lists:
        time = first
        chunk = []
        for step, start, value in points:
            time += step
            chunk.append((time, start, value))
        chunks.append(chunk)
    check_xor2(chunks)


@pytest.mark.parametrize("start", [0, 500])
@pytest.mark.parametrize("late", [100, 126, 127, 128, 200])
def test_start_timestamps_that_change_late_are_kept(start: int, late: int) -> None:
    check_xor2([[(n * 1000, start + (n >= late), float(n)) for n in range(250)]])
    chunks = encoded([[(n * 1000, start + (n >= late), counter(float(n))) for n in range(250)]], True, 250)
    assert chunks.cuts.tolist() == [0, 250]
    found = decoded(chunks).start_timestamps
    assert found is not None and found.tolist() == [start + (n >= late) for n in range(250)]


def check_xor2(chunks: list[list[tuple[int, int, float]]]) -> None:
    flat = [sample for chunk in chunks for sample in chunk]
    cuts = np.concatenate(([0], np.cumsum([len(chunk) for chunk in chunks]))).astype(np.int64)
    times, starts = (np.array([sample[k] for sample in flat], np.int64) for k in range(2))
    values = np.array([sample[2] for sample in flat], np.float64)
    out = np.full(HEADER_BYTES * len(chunks) + SAMPLE_BYTES_MAX * len(flat) + SLACK_BYTES, 255, np.uint8)
    ends = np.empty(len(chunks) + 1, np.int64)
    size = encode_xor2(cuts, times, values, starts, out, ends)
    found = decode(
        [out[:size].copy()], np.zeros(len(chunks), np.int32), ends[:-1], ends[1:], np.full(len(chunks), 4, np.uint8)
    )
    assert found.timestamps.tolist() == times.tolist()
    assert found.values.view(np.uint64).tolist() == values.view(np.uint64).tolist()
    assert (found.start_timestamps if found.start_timestamps is not None else starts).tolist() == starts.tolist()
    for c, chunk in enumerate(chunks):
        data = out[ends[c] : ends[c + 1]].tobytes()
        assert data == write_xor2(chunk)
        assert [(t, s, bits_of(v)) for t, s, v in read_xor2(data)] == [(t, s, bits_of(v)) for t, s, v in chunk]


@given(st.data())
def test_damaged_chunks_are_told_and_touch_nothing(data: st.DataObject) -> None:
    run = data.draw(runs_of_histograms())
    with_start = data.draw(st.booleans())
    chunks = encoded([run], with_start)
    if data.draw(st.booleans()):
        raw = np.frombuffer(write_xor2([(time, start, one.sum) for time, start, one in run]), np.uint8).copy()
        starts, ends, encodings = np.zeros(1, np.int64), np.array([len(raw)]), np.array([4], np.uint8)
    else:
        raw, starts, ends, encodings = chunks.data.copy(), chunks.starts[:-1], chunks.starts[1:], chunks.encodings
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        ends = ends - data.draw(st.integers(0, 10))
    try:
        found = decode([raw], np.zeros(len(starts), np.int32), starts, ends, encodings)
    except DamagedBlock:
        return
    assert len(found.timestamps) == found.offsets[-1]


def test_encodings_that_nobody_knows_are_refused_by_name() -> None:
    with pytest.raises(UnsupportedChunks, match="segment has chunks of encoding 9"):
        decode(
            [np.zeros(9, np.uint8)], np.zeros(1, np.int32), np.zeros(1, np.int64), np.full(1, 9),
            np.array([9], np.uint8), ["segment"],
        )  # fmt: skip


def test_room_for_a_chunk_is_what_its_samples_take_but_no_more_than_its_bits() -> None:
    run = [(n, 0, counter(float(n), 1.0, 7.0)) for n in range(5)]
    data = encoded([run], False, 10).data
    zero, end = np.zeros(1, np.int64), np.array([len(data)])
    totals = np.zeros(3, np.int64)
    assert measure_histograms(data, zero, end, totals) == 0
    assert totals.tolist() == [15, 0, 0]
    many = data.copy()
    many[:2] = 255
    assert measure_histograms(many, zero, end, totals) == 0
    assert totals[0] - 15 < 8 * len(data)
    assert measure_histograms(data, zero, end + 1, totals) == -1
    assert HistogramsMade().measure(data, zero, np.array([2])) == -1
