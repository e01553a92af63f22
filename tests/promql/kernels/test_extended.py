"""Anchored and smoothed windows against slow twins that look at one window at a time."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimir_ray.model.series import SeriesBatch
from mimir_ray.promql.functions import EXTENDED_FUNCTIONS
from mimir_ray.promql.kernels.extended import extended_window, smoothed_values
from mimir_ray.promql.kernels.windows import Window, without_stale
from tests.promql.kernels.test_range_kernels import batches, context, points_of
from tests.promql.kernels.window_twins import Point, divide

LOOKBACK = st.sampled_from([1, 1000, 3000, 20_000])


def seen(points: list[Point], start: int, end: int, lookback: int, smoothed: bool) -> list[Point]:
    """What a window sees: from the sample at or before its left edge on, to the one at or after the right edge."""
    far = end + lookback if smoothed else end
    points = [point for point in points if start - lookback < point[0] <= far]
    early = [point for point in points if point[0] <= start]
    points = early[-1:] + [point for point in points if point[0] > start]
    if smoothed:
        late = [point for point in points if point[0] >= end]
        points = [point for point in points if point[0] < end] + late[:1]
    return points


def on_line(a: Point, b: Point, time: int, is_counter: bool) -> float:
    low = 0.0 if is_counter and b[1] < a[1] else a[1]
    return low + divide((b[1] - low) * (time - a[0]), b[0] - a[0])


def edges(points: list[Point], start: int, end: int, smoothed: bool, is_counter: bool) -> tuple[float, float]:
    left, right = points[0][1], points[-1][1]
    if smoothed and points[0][0] < start:
        left = on_line(points[0], points[1], start, is_counter)
    if smoothed and len(points) > 1 and points[-1][0] > end:
        right = on_line(points[-2], points[-1], end, is_counter)
    return left, right


def rate(
    points: list[Point], end: int, range_ms: int, lookback: int, smoothed: bool, is_counter: bool, is_rate: bool
) -> float | None:
    start = end - range_ms
    points = seen(points, start, end, lookback, smoothed)
    if not points or points[-1][0] <= start or (smoothed and points[0][0] > end):
        return None
    left, right = edges(points, start, end, smoothed, is_counter)
    result = right - left
    if is_counter:
        # The first and the last sample count only where they are not what an edge stands for.
        inner = [value for time, value in points if time > start and time < end]
        result += sum((a for a, b in pairwise([left, *inner, right]) if b < a), 0.0)
    return result / (range_ms // 1000 + range_ms % 1000 / 1000) if is_rate else result


def events(points: list[Point], end: int, range_ms: int, lookback: int, resets: bool) -> float | None:
    points = seen(points, end - range_ms, end, lookback, False)
    if not points or points[-1][0] <= end - range_ms:
        return None
    pairs = pairwise(value for _, value in points)
    if resets:
        return float(sum(b < a for a, b in pairs))
    return float(sum(a != b and not (math.isnan(a) and math.isnan(b)) for a, b in pairs))


@settings(deadline=None, max_examples=150)
@given(batches(), LOOKBACK)
@pytest.mark.parametrize("modifier", ["anchored", "smoothed"])
@pytest.mark.parametrize("name", ["rate", "increase", "delta", "resets", "changes"])
def test_functions_of_extended_windows_agree_with_their_twins(
    name: str, modifier: str, drawn: tuple[SeriesBatch, Window], lookback: int
) -> None:
    function = EXTENDED_FUNCTIONS[modifier].get(name)
    if function is None:
        return
    batch, plain = drawn
    window = Window(plain.ends, plain.range_ms, plain.times, lookback)
    values, present = function(batch, window, (), context(window))
    for s in range(len(batch)):
        points = points_of(batch, s)
        for t, end in enumerate(window.ends.tolist()):
            if name in ("resets", "changes"):
                expected = events(points, end, window.range_ms, lookback, name == "resets")
            else:
                smoothed, is_counter = modifier == "smoothed", name != "delta"
                expected = rate(points, end, window.range_ms, lookback, smoothed, is_counter, name == "rate")
            assert present[s, t] == (expected is not None), (s, t)
            if expected is not None:
                assert values[s, t] == pytest.approx(expected, rel=1e-9, nan_ok=True), (s, t)


@settings(deadline=None, max_examples=150)
@given(batches(), LOOKBACK)
def test_a_smoothed_selector_is_on_the_line_between_samples(drawn: tuple[SeriesBatch, Window], lookback: int) -> None:
    batch, window = drawn
    kept = without_stale(batch)
    values = np.empty((len(batch), len(window.ends)))
    present = np.empty(values.shape, np.bool_)
    found = smoothed_values(kept.offsets, kept.timestamps, kept.values, window.ends, lookback, values, present)
    assert found == present.sum()
    for s in range(len(batch)):
        for t, end in enumerate(window.ends.tolist()):
            points = [point for point in points_of(batch, s) if end - lookback < point[0] <= end + lookback]
            before = [point for point in points if point[0] <= end]
            after = [point for point in points if point[0] > end]
            assert present[s, t] == bool(before)
            if before:
                straight = before[-1][0] < end and after
                expected = on_line(before[-1], after[0], end, False) if straight else before[-1][1]
                assert values[s, t] == pytest.approx(expected, rel=1e-9, nan_ok=True)


@settings(deadline=None, max_examples=150)
@given(batches(), LOOKBACK, st.booleans())
def test_a_bare_extended_selector_has_samples_at_its_edges(
    drawn: tuple[SeriesBatch, Window], lookback: int, smoothed: bool
) -> None:
    batch, window = drawn
    kept, end, range_ms = without_stale(batch), int(window.ends[0]), window.range_ms
    offsets = np.empty_like(kept.offsets)
    timestamps = np.empty(kept.samples + 2 * len(kept), np.int64)
    values = np.empty(len(timestamps))
    count = extended_window(
        kept.offsets, kept.timestamps, kept.values, end, range_ms, lookback, smoothed, offsets, timestamps, values
    )
    assert count == offsets[-1]
    for s in range(len(batch)):
        points = seen(points_of(batch, s), end - range_ms, end, lookback, smoothed)
        part = slice(offsets[s], offsets[s + 1])
        expected: list[Point] = []
        if points and points[-1][0] > end - range_ms:
            left, right = edges(points, end - range_ms, end, smoothed, False)
            inner = [point for point in points if end - range_ms < point[0] < end]
            expected = [(end - range_ms, left), *inner, (end, right)]
        assert timestamps[part].tolist() == [time for time, _ in expected]
        assert values[part].tolist() == pytest.approx([value for _, value in expected], rel=1e-9, nan_ok=True)
