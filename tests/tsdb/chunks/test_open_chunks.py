"""Appending in flushes: the same chunks as appending samples one by one."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimir_ray.tsdb.chunks import xor
from mimir_ray.tsdb.chunks.open_chunks import ClosedChunks, OpenChunks

Samples = list[tuple[int, float]]


def slow_chunks(samples: Samples, samples_max: int, range_ms: int) -> list[Samples]:
    """A series' chunks, the last one open."""
    chunks: list[Samples] = []
    for t, value in samples:
        if not chunks or len(chunks[-1]) == samples_max or t // range_ms != chunks[-1][0][0] // range_ms:
            chunks.append([])
        chunks[-1].append((t, value))
    return chunks


def encoded(samples: Samples) -> bytes:
    return xor.encode_chunk(np.array([t for t, _ in samples], np.int64), np.array([v for _, v in samples]))


def collect(found: dict[int, list[bytes]], closed: ClosedChunks) -> None:
    for series, mint, maxt, start, length, count in zip(
        closed.series, closed.mints, closed.maxts, closed.starts, closed.lengths, closed.counts, strict=True
    ):
        chunk = closed.data[start : start + length].tobytes()
        decoded = xor.decode_chunk(chunk)
        assert decoded is not None
        assert (decoded[0][0], decoded[0][-1], len(decoded[0])) == (mint, maxt, count)
        found[int(series)].append(chunk)


def flush(chunks: OpenChunks, runs: dict[int, Samples]) -> ClosedChunks:
    lengths = np.array([len(run) for run in runs.values()], np.int64)
    ends = np.cumsum(lengths)
    flat = [sample for run in runs.values() for sample in run]
    return chunks.append(
        np.array(list(runs), np.int32),
        ends - lengths,
        ends,
        np.array([t for t, _ in flat], np.int64),
        np.array([value for _, value in flat], np.float64),
    )


def open_bytes(chunks: OpenChunks, series: int) -> bytes:
    view = chunks.view()
    return view.arena[view.starts[series] : view.ends[series]].tobytes() if view.counts[series] else b""


@st.composite
def flushes(draw: st.DrawFn) -> list[dict[int, Samples]]:
    now = dict.fromkeys(range(4), draw(st.integers(-(1 << 40), 1 << 41)))
    out = []
    for _ in range(draw(st.integers(1, 6))):
        flushed: dict[int, Samples] = {}
        for series in draw(st.lists(st.integers(0, 3), unique=True)):
            run = []
            for step in draw(st.lists(st.sampled_from([1, 15_000, 15_001, 60_000, 5_000_000]), max_size=25)):
                now[series] += step
                run.append((now[series], draw(st.sampled_from([0.0, 1.0, 1.5, 1e300, -0.0]))))
            flushed[series] = run
        out.append(flushed)
    return out


@given(flushes(), st.integers(1, 9), st.sampled_from([60_000, 7_200_000]))
def test_flushes_give_the_chunks_of_the_slow_twin(
    drawn: list[dict[int, Samples]], samples_max: int, range_ms: int
) -> None:
    chunks = OpenChunks(range_ms, samples_max)
    chunks.reserve(4)
    found: dict[int, list[bytes]] = defaultdict(list)
    written: dict[int, Samples] = defaultdict(list)
    for runs in drawn:
        collect(found, flush(chunks, runs))
        for series, run in runs.items():
            written[series] += run
        for series in range(4):
            expected = [encoded(chunk) for chunk in slow_chunks(written[series], samples_max, range_ms)]
            assert found[series] == expected[:-1]
            assert open_bytes(chunks, series) == (expected[-1] if expected else b"")


@given(flushes(), st.integers(1, 5))
def test_full_buffers_pause_the_kernel_and_change_nothing(drawn: list[dict[int, Samples]], samples_max: int) -> None:
    """The kernel by hand: a new arena each flush, grown byte by byte, and a closed buffer drained a chunk at a time."""
    state = [
        np.zeros(4, dtype)
        for dtype in (
            np.int64,
            np.int32,
            np.int32,
            np.int64,
            np.int64,
            np.int64,
            np.float64,
            np.uint8,
            np.uint8,
        )
    ]
    old = np.zeros(0, np.uint8)
    found: dict[int, list[bytes]] = defaultdict(list)
    written: dict[int, Samples] = defaultdict(list)
    for runs in drawn:
        for series, run in runs.items():
            written[series] += run
        # All series take part, since the old arena goes away.
        all_runs = {series: runs.get(series, []) for series in range(4)}
        lengths = np.array([len(run) for run in all_runs.values()], np.int64)
        ends = np.cumsum(lengths)
        flat = [sample for run in all_runs.values() for sample in run]
        times, values = np.array([t for t, _ in flat], np.int64), np.array([v for _, v in flat], np.float64)
        arena, progress = np.zeros(0, np.uint8), np.zeros(xor.PROGRESS_LENGTH, np.int64)
        closed = np.zeros(samples_max * xor.SAMPLE_BYTES_MAX, np.uint8)
        table = [np.zeros(1, dtype) for dtype in (np.int32, np.int64, np.int64, np.int64, np.int32, np.int32)]
        while True:
            code = xor.append_runs(
                np.arange(4, dtype=np.int32), ends - lengths, ends, times, values, old, arena, *state,
                closed, *table, samples_max, 7_200_000, progress,
            )  # fmt: skip
            if code in (xor.DONE, xor.CLOSED_FULL):
                collect(found, ClosedChunks(*(column[: progress[xor.TABLE]].copy() for column in table), closed.copy()))
                progress[[xor.CLOSED, xor.TABLE]] = 0
            if code == xor.DONE:
                break
            if code == xor.ARENA_FULL:
                longer = np.full(len(arena) + 30, 0xEE, np.uint8)
                longer[: progress[xor.ARENA]] = arena[: progress[xor.ARENA]]
                arena = longer
        old = arena
        for series in range(4):
            expected = [encoded(chunk) for chunk in slow_chunks(written[series], samples_max, 7_200_000)]
            assert found[series] == expected[:-1]
            if expected:
                start, length = state[0][series], (state[1][series] + 7) >> 3
                assert arena[start : start + length].tobytes() == expected[-1]


def test_what_a_reader_sees_does_not_change_while_samples_are_appended() -> None:
    chunks = OpenChunks(7_200_000)
    chunks.reserve(50)
    now = 0
    for _ in range(20):
        flush(chunks, {series: [(now + n, float(n * series)) for n in range(1, 9)] for series in range(50)})
        view, before = chunks.view(), [open_bytes(chunks, series) for series in range(50)]
        flush(chunks, {series: [(now + n, float(n)) for n in range(9, 14)] for series in range(0, 50, 2)})
        now += 20
        after = [view.arena[view.starts[s] : view.ends[s]].tobytes() for s in range(50)]
        assert after == before


def test_closing_takes_out_what_is_open_and_the_next_sample_starts_a_chunk() -> None:
    chunks = OpenChunks(7_200_000)
    chunks.reserve(3)
    flush(chunks, {0: [(1, 1.0), (2, 2.0)], 2: [(5, 5.0)]})
    found: dict[int, list[bytes]] = defaultdict(list)
    collect(found, chunks.close(np.array([0, 1], np.int32)))
    assert found == {0: [encoded([(1, 1.0), (2, 2.0)])]}
    assert chunks.counts[:3].tolist() == [0, 0, 1]
    flush(chunks, {0: [(3, 3.0)], 1: [(9, 9.0)]})
    assert open_bytes(chunks, 0) == encoded([(3, 3.0)])
    assert open_bytes(chunks, 1) == encoded([(9, 9.0)])


def test_restored_chunks_go_on_as_if_nothing_had_happened() -> None:
    first, second = OpenChunks(7_200_000), OpenChunks(7_200_000)
    first.reserve(2)
    flush(first, {0: [(1, 1.0), (2, 1.5), (3, 2.5)], 1: [(7, np.inf)]})
    second.restore({name: array.copy() for name, array in first.state().items()})
    for chunks in (first, second):
        flush(chunks, {0: [(4, 2.75)], 1: [(8, 0.0), (9, 0.0)]})
    assert [open_bytes(first, s) for s in range(2)] == [open_bytes(second, s) for s in range(2)]
    assert open_bytes(second, 0) == encoded([(1, 1.0), (2, 1.5), (3, 2.5), (4, 2.75)])


def test_dropped_series_and_old_copies_do_not_pile_up() -> None:
    chunks = OpenChunks(1 << 60)
    chunks.reserve(100)
    rng = np.random.default_rng(1)
    largest = 0
    for round_number in range(200):
        flush(chunks, {series: [(round_number * 10, float(rng.normal()))] for series in range(100)})
        largest = max(largest, len(chunks.arena))
    worst = 100 * 120 * xor.SAMPLE_BYTES_MAX
    assert largest < 2 * worst


def test_a_stale_marker_and_nan_payloads_pass_through_the_state_columns() -> None:
    patterns = np.array([0x7FF0000000000002, 0x7FF0000000000001, 0xFFF8000000000123], np.uint64)
    chunks = OpenChunks(7_200_000)
    chunks.reserve(1)
    for n, value in enumerate(patterns.view(np.float64)):
        one = np.array([n], np.int64)
        chunks.append(np.zeros(1, np.int32), np.zeros(1, np.int64), np.ones(1, np.int64), one, np.array([value]))
    decoded = xor.decode_chunk(open_bytes(chunks, 0))
    assert decoded is not None
    assert decoded[1].view(np.uint64).tolist() == patterns.tolist()


@pytest.mark.parametrize("first", [-(1 << 63), (1 << 63) - 20, -5])
def test_times_at_the_ends_of_their_range_do_not_overflow(first: int) -> None:
    samples = [(first + n, float(n)) for n in range(10)]
    chunks = OpenChunks(8)
    chunks.reserve(1)
    found: dict[int, list[bytes]] = defaultdict(list)
    collect(found, flush(chunks, {0: samples}))
    collect(found, chunks.close(np.zeros(1, np.int32)))
    assert found[0] == [encoded(chunk) for chunk in slow_chunks(samples, 120, 8)]
