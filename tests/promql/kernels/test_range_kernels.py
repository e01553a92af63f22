"""Range kernels against their slow twins, on random series with gaps, resets, NaN, infinities and stale markers."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimir_ray.model.labels import LabelColumns, StringTable
from mimir_ray.model.series import STALE_NAN, SeriesBatch, is_stale
from mimir_ray.promql.annotations import Annotations
from mimir_ray.promql.functions import RANGE_FUNCTIONS, FunctionContext
from mimir_ray.promql.kernels.windows import Window, without_stale
from mimir_ray.promql.syntax import ast
from tests.promql.kernels import window_twins as twins

ODD = st.sampled_from([0.0, -0.0, 1.0, math.nan, math.inf, -math.inf, STALE_NAN, 1e308, -1e308, 5e-324])
VALUE = st.one_of(
    st.integers(-5, 5).map(float),
    st.integers(0, 1000).map(float),
    st.floats(-1e6, 1e6, allow_nan=False),
    ODD,
)


@st.composite
def batches(draw: st.DrawFn, value: st.SearchStrategy[float] = VALUE) -> tuple[SeriesBatch, Window]:
    series = draw(
        st.lists(
            st.lists(st.tuples(st.sampled_from([1, 500, 1000, 1000, 1000, 7000]), value), max_size=25),
            min_size=1,
            max_size=4,
        )
    )
    start = draw(st.integers(-3000, 3000))
    timestamps, values, offsets = [], [], [0]
    for points in series:
        now = start
        for gap, drawn in points:
            now += gap
            timestamps.append(now)
            values.append(drawn)
        offsets.append(len(values))
    batch = SeriesBatch(
        LabelColumns.empty_sets(len(series), StringTable()),
        np.array(offsets, np.int64),
        np.array(timestamps, np.int64),
        np.array(values, np.float64),
    )
    first = start + draw(st.integers(-2000, 5000))
    step = draw(st.sampled_from([0, 1, 300, 1000, 2500, 20000]))
    count = draw(st.integers(1, 12))
    ends = first + step * np.arange(count, dtype=np.int64)
    window = Window(ends, draw(st.sampled_from([1, 999, 1000, 1001, 5000, 15000, 60000])), ends + 1234)
    return batch, window


def context(window: Window, *args: ast.Node) -> FunctionContext:
    args = args or (ast.MatrixSelector(ast.VectorSelector()),) * 3
    return FunctionContext(ast.Call("f", args), window.times, StringTable(), Annotations())


def points_of(batch: SeriesBatch, s: int) -> list[twins.Point]:
    part = slice(batch.offsets[s], batch.offsets[s + 1])
    values = batch.values[part]
    kept = ~is_stale(values)
    return list(zip(batch.timestamps[part][kept].tolist(), values[kept].tolist(), strict=True))


def check(
    name: str,
    batch: SeriesBatch,
    window: Window,
    twin: Callable[[list[twins.Point], int], float | None],
    *params: float,
    relative: float = 0.0,
) -> None:
    arrays = tuple(np.full(len(window.ends), param) for param in params)
    values, present = RANGE_FUNCTIONS[name](batch, window, arrays, context(window))
    assert values.shape == present.shape == (len(batch.offsets) - 1, len(window.ends))
    for s in range(len(batch.offsets) - 1):
        points = points_of(batch, s)
        for t, end in enumerate(window.ends.tolist()):
            expected = twin(twins.window(points, end, window.range_ms), t)
            assert present[s, t] == (expected is not None), (s, t)
            if expected is None:
                assert values[s, t] == 0
                continue
            got = float(values[s, t])
            assert same(got, expected, relative), (s, t, got, expected)


def same(got: float, expected: float, relative: float) -> bool:
    if math.isnan(got) or math.isnan(expected):
        return math.isnan(got) and math.isnan(expected)
    if got == expected:
        return math.copysign(1, got) == math.copysign(1, expected)
    return math.isfinite(got) and abs(got - expected) <= relative * abs(expected)


@given(batches())
def test_stale_markers_are_dropped_and_nothing_else(case: tuple[SeriesBatch, Window]) -> None:
    batch, _ = case
    clean = without_stale(batch)
    assert not is_stale(clean.values).any()
    for s in range(len(batch.offsets) - 1):
        part = slice(clean.offsets[s], clean.offsets[s + 1])
        expected = points_of(batch, s)
        assert clean.timestamps[part].tolist() == [time for time, _ in expected]
        np.testing.assert_array_equal(clean.values[part], [value for _, value in expected])


def test_a_batch_without_stale_markers_is_not_copied() -> None:
    batch = SeriesBatch(
        LabelColumns.empty_sets(1, StringTable()), np.array([0, 300]), np.arange(300), np.full(300, math.nan)
    )
    assert without_stale(batch) is batch


@pytest.mark.parametrize(
    ("name", "is_counter", "is_rate"), [("rate", True, True), ("increase", True, False), ("delta", False, False)]
)
@given(case=batches())
def test_extrapolated_functions_equal_their_twin(
    name: str, is_counter: bool, is_rate: bool, case: tuple[SeriesBatch, Window]
) -> None:
    batch, window = case
    check(
        name, batch, window,
        lambda points, t: twins.extrapolated(points, int(window.ends[t]), window.range_ms, is_counter, is_rate),
    )  # fmt: skip


@given(
    phases=st.lists(st.integers(0, 14_999), min_size=1, max_size=4),
    counters=st.lists(st.integers(0, 60), min_size=40, max_size=40),
    step_ms=st.sampled_from([5000, 15_000, 60_000]),
    lost=st.sets(st.integers(0, 39), max_size=3),
)
def test_rates_of_regular_scrapes_equal_their_twin(
    phases: list[int], counters: list[int], step_ms: int, lost: set[int]
) -> None:
    kept = [i for i in range(40) if i not in lost]
    times = [np.array(kept, np.int64) * 15_000 + phase for phase in (*phases, phases[0])]
    batch = SeriesBatch(
        LabelColumns.empty_sets(len(times), StringTable()),
        np.arange(len(times) + 1, dtype=np.int64) * len(kept),
        np.concatenate(times),
        np.resize(np.array(counters, np.float64)[kept], len(kept) * len(times)),
    )
    ends = np.arange(0, 640_000, step_ms, dtype=np.int64)
    window = Window(ends, 60_000, ends)
    check("rate", batch, window, lambda points, t: twins.extrapolated(points, int(ends[t]), 60_000, True, True))


@pytest.mark.parametrize(("name", "is_rate"), [("irate", True), ("idelta", False)])
@given(case=batches())
def test_functions_of_the_last_two_samples_equal_their_twin(
    name: str, is_rate: bool, case: tuple[SeriesBatch, Window]
) -> None:
    check(name, *case, lambda points, t: twins.instant(points, is_rate))


@pytest.mark.parametrize(("name", "twin"), [("resets", twins.resets), ("changes", twins.changes)])
@given(case=batches())
def test_counts_of_events_equal_their_twin(
    name: str, twin: Callable[[twins.Points], float | None], case: tuple[SeriesBatch, Window]
) -> None:
    check(name, *case, lambda points, t: twin(points))


PICKS: dict[str, Callable[[twins.Points], float]] = {
    "count_over_time": lambda points: float(len(points)),
    "present_over_time": lambda points: 1.0,
    "absent_over_time": lambda points: 1.0,
    "first_over_time": lambda points: points[0][1],
    "last_over_time": lambda points: points[-1][1],
    "ts_of_first_over_time": lambda points: points[0][0] / 1000,
    "ts_of_last_over_time": lambda points: points[-1][0] / 1000,
}


@pytest.mark.parametrize("name", PICKS)
@given(case=batches())
def test_picks_equal_their_twin(name: str, case: tuple[SeriesBatch, Window]) -> None:
    check(name, *case, lambda points, t: PICKS[name](points) if points else None)


EXTREMES = {
    "max_over_time": (operator.gt, False),
    "min_over_time": (operator.lt, False),
    "ts_of_max_over_time": (operator.ge, True),
    "ts_of_min_over_time": (operator.le, True),
}


@pytest.mark.parametrize("name", EXTREMES)
@given(case=batches())
def test_extremes_equal_their_twin(name: str, case: tuple[SeriesBatch, Window]) -> None:
    better, wants_time = EXTREMES[name]
    check(name, *case, lambda points, t: twins.extreme(points, better, wants_time))


@pytest.mark.parametrize(("name", "twin"), [("sum_over_time", twins.total), ("avg_over_time", twins.average)])
@given(case=batches())
def test_sums_of_short_windows_equal_their_twin_bit_by_bit(
    name: str, twin: Callable[[twins.Points], float | None], case: tuple[SeriesBatch, Window]
) -> None:
    check(name, *case, lambda points, t: twin(points))


LONG = st.one_of(
    st.floats(-1e6, 1e6), st.integers(0, 1000).map(float), st.sampled_from([1e17, -1e17, 0.1, 1e-9, 0.0, 1e300])
)


@pytest.mark.parametrize(("name", "twin"), [("sum_over_time", twins.total), ("avg_over_time", twins.average)])
@settings(max_examples=60, deadline=None)
@given(
    pattern=st.lists(LONG, min_size=1, max_size=40),
    scale=st.sampled_from([1.0, 1e-3, 1e200]),
    odd=st.lists(st.tuples(st.integers(0, 399), ODD), max_size=2),
)
def test_sums_that_slide_equal_their_twin(
    name: str,
    twin: Callable[[twins.Points], float | None],
    pattern: list[float],
    scale: float,
    odd: list[tuple[int, float]],
) -> None:
    with np.errstate(over="ignore"):
        samples = np.resize(np.array(pattern) * scale, 400)
    for at, value in odd:
        samples[at] = value
    times = np.arange(400, dtype=np.int64) * 1000
    batch = SeriesBatch(LabelColumns.empty_sets(1, StringTable()), np.array([0, 400]), times, samples)
    ends = np.arange(0, 420_000, 7000, dtype=np.int64)
    check(name, batch, Window(ends, 100_000, ends), lambda points, t: twin(points), relative=1e-15)


@pytest.mark.parametrize(("name", "twin"), [("sum_over_time", twins.total), ("avg_over_time", twins.average)])
@given(
    pattern=st.lists(st.integers(-(2**44), 2**44).map(float), min_size=1, max_size=40),
    range_ms=st.sampled_from([3000, 20_000, 100_000]),
    odd=st.lists(st.tuples(st.integers(0, 399), ODD), max_size=1),
)
def test_sums_of_integers_equal_their_twin_bit_by_bit(
    name: str,
    twin: Callable[[twins.Points], float | None],
    pattern: list[float],
    range_ms: int,
    odd: list[tuple[int, float]],
) -> None:
    samples = np.resize(np.array(pattern), 200)
    for at, value in odd:
        samples[at // 2] = value
    times = np.arange(200, dtype=np.int64) * 1000
    batch = SeriesBatch(LabelColumns.empty_sets(1, StringTable()), np.array([0, 200]), times, samples)
    ends = np.arange(0, 210_000, 700, dtype=np.int64)[::7].copy()
    relative = 1e-15 if odd and range_ms == 100_000 else 0.0
    check(name, batch, Window(ends, range_ms, ends), lambda points, t: twin(points), relative=relative)


@pytest.mark.parametrize(("name", "root"), [("stdvar_over_time", False), ("stddev_over_time", True)])
@given(case=batches())
def test_variances_equal_their_twin_bit_by_bit(name: str, root: bool, case: tuple[SeriesBatch, Window]) -> None:
    check(name, *case, lambda points, t: twins.variance(points, root))


@given(
    case=batches(),
    q=st.one_of(st.sampled_from([0.0, 0.5, 1.0, -0.1, 1.1, math.nan]), st.floats(0, 1)),
)
def test_quantiles_equal_their_twin(case: tuple[SeriesBatch, Window], q: float) -> None:
    batch, window = case
    batch = without_stale(batch)
    batch.values = batch.values + 0.0  # -0 and 0 have no order upstream either
    check("quantile_over_time", batch, window, lambda points, t: twins.quantile_of(points, q), q)


@given(case=batches())
def test_median_absolute_deviations_equal_their_twin(case: tuple[SeriesBatch, Window]) -> None:
    batch, window = case
    batch = without_stale(batch)
    batch.values = batch.values + 0.0
    check("mad_over_time", batch, window, lambda points, t: twins.mad(points))


@given(case=batches())
def test_derivatives_equal_their_twin_bit_by_bit(case: tuple[SeriesBatch, Window]) -> None:
    check("deriv", *case, lambda points, t: twins.derivative(points))


@given(case=batches(), ahead=st.sampled_from([0.0, 3600.0, -10.5, math.inf]))
def test_predictions_equal_their_twin_bit_by_bit(case: tuple[SeriesBatch, Window], ahead: float) -> None:
    batch, window = case
    check(
        "predict_linear", batch, window, lambda points, t: twins.prediction(points, int(window.times[t]), ahead), ahead
    )


@given(case=batches(), factor=st.floats(0.01, 0.99), trend=st.floats(0.01, 0.99))
def test_smoothing_equals_its_twin_bit_by_bit(case: tuple[SeriesBatch, Window], factor: float, trend: float) -> None:
    check("double_exponential_smoothing", *case, lambda points, t: twins.smoothed(points, factor, trend), factor, trend)


@pytest.mark.parametrize("name", sorted(RANGE_FUNCTIONS))
def test_read_only_arrays_and_empty_batches_are_taken(name: str) -> None:
    window = Window(np.arange(0, 5000, 1000, dtype=np.int64), 3000, np.arange(0, 5000, 1000, dtype=np.int64))
    window.ends.flags.writeable = False
    for series in (0, 2):
        batch = SeriesBatch(
            LabelColumns.empty_sets(series, StringTable()),
            np.zeros(series + 1, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float64),
        )  # fmt: skip
        for array in (batch.offsets, batch.timestamps, batch.values):
            array.flags.writeable = False
        half = np.full(5, 0.5)
        values, present = RANGE_FUNCTIONS[name](batch, window, (half, half), context(window))
        assert values.shape == (series, 5)
        assert not present.any()
