"""Kernels of counters with start timestamps against their slow twins."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimir_ray.model.series import SeriesBatch
from mimir_ray.promql.functions import RANGE_FUNCTIONS
from mimir_ray.promql.kernels.start_timestamps import find_restarts
from mimir_ray.promql.kernels.windows import Window
from tests.promql.kernels.test_range_kernels import batches, context, same
from tests.promql.kernels.window_twins import divide, extrapolated

Sample = tuple[int, float, int]
"""(time, value, start timestamp)"""


@st.composite
def with_starts(draw: st.DrawFn) -> tuple[SeriesBatch, Window]:
    """Starts unknown, of the series, of deltas, or anything."""
    value = st.integers(0, 9).map(float) | st.just(math.nan)
    batch, window = draw(batches(value))
    starts = [
        draw(st.sampled_from([0, 1, before, before, time - 1, time, time + 5, time - 300]))
        for before, time in zip([1, *batch.timestamps.tolist()], batch.timestamps.tolist(), strict=False)
    ]
    batch.start_timestamps = np.array(starts, np.int64)
    return batch, window


def begins_anew(before: Sample, now: Sample) -> bool:
    (time_before, value_before, start_before), (time, value, start) = before, now
    if value < value_before:
        return True
    if start == 0 or start >= time or start < time_before:
        return False
    return start > time_before or (start_before not in (0, time_before) and start_before < time_before)


def overlaps(before: Sample, now: Sample) -> bool:
    return now[2] != 0 and now[2] < before[0] and now[2] != before[2]


def rate(samples: list[Sample], end: int, range_ms: int, is_rate: bool) -> float | None:
    if not samples:
        return None
    time, value, start = samples[0]
    if start == 0 or not end - range_ms < start < time:
        # As if each fall of the counter stood in the values: then there is nothing new.
        points = [(at, one) for at, one, _ in samples]
        lost = sum(
            before[1] for before, now in pairwise(samples) if begins_anew(before, now) and not now[1] < before[1]
        )
        return _with_lost(points, lost, end, range_ms, is_rate)
    result = samples[-1][1] - value + sum(before[1] for before, now in pairwise(samples) if begins_anew(before, now))
    result += value
    average = (samples[-1][0] - time) / 1000 / (len(samples) - 1) if len(samples) > 1 else 0.0
    to_end = (end - samples[-1][0]) / 1000
    if to_end >= average * 1.1:
        to_end = average / 2
    counted = (samples[-1][0] - start) / 1000
    factor = (counted + to_end) / counted
    return result * (factor / (range_ms / 1000) if is_rate else factor)


def _with_lost(points: list[tuple[int, float]], lost: float, end: int, range_ms: int, is_rate: bool) -> float | None:
    if lost == 0 or len(points) < 2:
        return extrapolated(points, end, range_ms, True, is_rate)
    result = points[-1][1] - points[0][1] + lost
    result += sum(before for (_, before), (_, now) in pairwise(points) if now < before)
    sampled = (points[-1][0] - points[0][0]) / 1000
    average = sampled / (len(points) - 1)
    to_start, to_end = (points[0][0] - end + range_ms) / 1000, (end - points[-1][0]) / 1000
    to_start, to_end = (average / 2 if one >= average * 1.1 else one for one in (to_start, to_end))
    if result > 0 and points[0][1] >= 0:
        to_start = min(to_start, sampled * divide(points[0][1], result))
    factor = (sampled + to_start + to_end) / sampled
    return result * (factor / (range_ms / 1000) if is_rate else factor)


def irate(samples: list[Sample], end: int, range_ms: int) -> float | None:
    if len(samples) < 2:
        return None
    before, now = samples[-2:]
    gained = now[1] if begins_anew(before, now) else now[1] - before[1]
    return gained / ((now[0] - before[0]) / 1000)


def resets(samples: list[Sample], end: int, range_ms: int) -> float | None:
    return float(sum(begins_anew(*pair) for pair in pairwise(samples))) if samples else None


def windows_of(batch: SeriesBatch, window: Window) -> list[list[list[Sample]]]:
    """[S][T] samples."""
    assert batch.start_timestamps is not None
    rows = list(zip(batch.timestamps.tolist(), batch.values.tolist(), batch.start_timestamps.tolist(), strict=True))
    return [
        [[row for row in rows[low:high] if end - window.range_ms < row[0] <= end] for end in window.ends.tolist()]
        for low, high in pairwise(batch.offsets.tolist())
    ]


TWINS: dict[str, Callable[[list[Sample], int, int], float | None]] = {
    "rate": lambda samples, end, range_ms: rate(samples, end, range_ms, True),
    "increase": lambda samples, end, range_ms: rate(samples, end, range_ms, False),
    "irate": irate,
    "resets": resets,
}


@pytest.mark.parametrize("name", TWINS)
@given(case=with_starts())
def test_functions_of_counters_are_what_their_slow_twins_say(name: str, case: tuple[SeriesBatch, Window]) -> None:
    batch, window = case
    values, present = RANGE_FUNCTIONS[name](batch, window, (), context(window))
    for s, windows in enumerate(windows_of(batch, window)):
        for t, samples in enumerate(windows):
            expected = TWINS[name](samples, int(window.ends[t]), window.range_ms)
            assert present[s, t] == (expected is not None), (s, t)
            assert same(float(values[s, t]), expected or 0.0, 1e-12), (s, t, values[s, t], expected)


@given(with_starts())
def test_restarts_and_overlaps_are_those_of_each_pair(case: tuple[SeriesBatch, Window]) -> None:
    batch, _ = case
    assert batch.start_timestamps is not None
    restarted, overlapping = np.empty(batch.samples, np.bool_), np.empty(batch.samples, np.bool_)
    found = find_restarts(batch.offsets, batch.timestamps, batch.start_timestamps, restarted, overlapping)
    rows = list(zip(batch.timestamps.tolist(), [0.0] * batch.samples, batch.start_timestamps.tolist(), strict=True))
    for low, high in pairwise(batch.offsets.tolist()):
        pairs = [(rows[at - 1], rows[at]) if at > low else None for at in range(low, high)]
        assert restarted[low:high].tolist() == [pair is not None and begins_anew(*pair) for pair in pairs]
        assert overlapping[low:high].tolist() == [pair is not None and overlaps(*pair) for pair in pairs]
    assert found == overlapping.sum()


@given(with_starts())
def test_series_and_steps_with_overlapping_starts_are_warned_of_and_counted(case: tuple[SeriesBatch, Window]) -> None:
    batch, window = case
    asked = context(window)
    RANGE_FUNCTIONS["increase"](batch, window, (), asked)
    count = sum(
        any(overlaps(*pair) for pair in pairwise(samples))
        for windows in windows_of(batch, window)
        for samples in windows
    )
    text = 'PromQL warning: sample has start time that overlaps with previous sample timestamp for metric ""'
    many = f" ({count} occurrences)" if count > 1 else ""
    assert asked.annotations.as_strings("")[0] == ([f"{text}{many} (unknown position)"] if count else [])
