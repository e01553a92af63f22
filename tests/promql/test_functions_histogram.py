"""Classic histograms: histogram_quantile, histogram_quantiles, histogram_fraction."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimir_ray.model.labels import LabelColumns, Labels, labels_of
from mimir_ray.model.series import StepMatrix
from mimir_ray.promql.annotations import Annotations
from mimir_ray.promql.functions import VECTOR_FUNCTIONS, FunctionContext
from mimir_ray.promql.operators.functions_histogram import counted_by_steps, openmetrics_float, parse_bound
from mimir_ray.promql.syntax import ast

Series = dict[str, str]


def matrix_of(series: list[tuple[Series, list[float | None]]]) -> StepMatrix:
    labels = LabelColumns.from_labels([labels_of(each) for each, _ in series])
    rows = [values for _, values in series]
    return StepMatrix(
        labels,
        np.array([[math.nan if value is None else value for value in row] for row in rows], np.float64),
        np.array([[value is not None for value in row] for row in rows], np.bool_),
    )


def histogram(counts: dict[str, float | None], **labels: str) -> list[tuple[Series, list[float | None]]]:
    return [({**labels, "le": le}, [count]) for le, count in counts.items()]


def call(
    name: str, matrix: StepMatrix, *params: float | str, delayed_names: bool = False
) -> tuple[dict[Labels, list[float | None]], Annotations]:
    steps = matrix.values.shape[1]
    node = ast.Call(name, tuple(ast.VectorSelector() for _ in range(len(params) + 1)))
    times = np.arange(steps, dtype=np.int64) * 60_000
    context = FunctionContext(node, times, matrix.labels.table, Annotations(), delayed_names)
    arguments = tuple(each if isinstance(each, str) else np.full(steps, float(each)) for each in params)
    result = VECTOR_FUNCTIONS[name](matrix, arguments, context)
    rows = {
        labels: [value if there else None for value, there in zip(values, present, strict=True)]
        for labels, values, present in zip(
            result.labels.to_labels(), result.values.tolist(), result.present.tolist(), strict=True
        )
    }
    assert len(rows) == len(result)
    return rows, context.annotations


def quantile_of(counts: dict[str, float | None], q: float) -> float | None:
    rows, _ = call("histogram_quantile", matrix_of(histogram(counts)), q)
    return rows[()][0]


def fraction_of(counts: dict[str, float | None], lower: float, upper: float) -> float | None:
    rows, _ = call("histogram_fraction", matrix_of(histogram(counts)), lower, upper)
    return rows[()][0]


TESTHISTOGRAM = {".1": 5.0, ".2": 7.0, "1e0": 11.0, "+Inf": 12.0}
NEGATIVE = {"-.2": 1.0, "-0.1": 2.0, "0.3": 2.0, "+Inf": 3.0}


@pytest.mark.parametrize(
    ("counts", "q", "expected"),
    [
        (TESTHISTOGRAM, 1.01, math.inf),
        (TESTHISTOGRAM, -0.1, -math.inf),
        (TESTHISTOGRAM, math.nan, math.nan),
        (TESTHISTOGRAM, 0, 0),
        (TESTHISTOGRAM, 0.25, 0.06),
        (TESTHISTOGRAM, 0.5, 0.15),
        (TESTHISTOGRAM, 0.75, 0.6),
        (TESTHISTOGRAM, 1, 1.0),
        (NEGATIVE, 0.2, -0.2),
        (NEGATIVE, 0.5, -0.15),
        (NEGATIVE, 0.8, 0.3),
    ],
)
def test_quantiles_interpolate_inside_their_bucket(counts: dict[str, float | None], q: float, expected: float) -> None:
    assert quantile_of(counts, q) == pytest.approx(expected, nan_ok=True)


def test_without_an_infinite_bucket_the_quantile_is_nan() -> None:
    assert math.isnan(quantile_of({"1": 1.0, "2": 2.0}, 0.5) or 0)


def test_a_single_bucket_gives_nan() -> None:
    assert math.isnan(quantile_of({"+Inf": 5.0}, 0.5) or 0)


def test_no_observations_give_nan() -> None:
    assert math.isnan(quantile_of({"1": 0.0, "+Inf": 0.0}, 0.5) or 0)


def test_buckets_of_one_bound_written_differently_are_added() -> None:
    rows, _ = call("histogram_quantile", matrix_of(histogram({"1": 5.0, "1.0": 5.0, "2": 20.0, "+Inf": 20.0})), 0.25)
    assert rows[()] == [0.5]


def test_falling_counts_are_lifted_and_an_info_says_where() -> None:
    rows, annotations = call(
        "histogram_quantile",
        matrix_of([({"le": le}, counts) for le, counts in
                   {"1": [10.0, 1.0], "2": [8.0, 2.0], "3": [7.0, 3.0], "+Inf": [20.0, 4.0]}.items()]),
        0.5,
    )  # fmt: skip
    assert rows[()] == [1.0, 2.0]
    (info,) = annotations
    assert info.render("q").startswith(
        "PromQL info: input to histogram_quantile needed to be fixed for monotonicity (see "
        "https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile), "
        "from buckets 2 to 3, with a max diff of 3, over 2 samples from 1970-01-01T00:00:00Z to 1970-01-01T00:00:00Z"
    )


def test_lifted_counts_are_told_as_upstream_adds_them_up() -> None:
    """From step to step it merges what it has with itself."""
    assert counted_by_steps([0, 0]) == 0
    assert counted_by_steps([0, 3]) == 3
    assert counted_by_steps([1, 0]) == 2
    assert counted_by_steps([1] * 10) == 1534
    assert counted_by_steps([1] * 63) == -(2**62) - 2  # past what an integer of 64 bits holds


def test_differences_of_rounding_are_lifted_in_silence() -> None:
    rows, annotations = call("histogram_quantile", matrix_of(histogram({"1": 1.0, "2": 1.0 - 1e-14, "+Inf": 2.0})), 0.5)
    assert rows[()] == [1.0]
    assert not len(annotations)


def test_a_quantile_outside_of_0_to_1_warns() -> None:
    _, annotations = call("histogram_quantile", matrix_of(histogram(TESTHISTOGRAM)), 2)
    assert [each.text for each in annotations] == ["quantile value should be between 0 and 1, got 2"]


def test_series_with_a_bad_le_are_left_out_with_a_warning() -> None:
    series = [*histogram(TESTHISTOGRAM), ({"__name__": "x"}, [1.0]), ({"le": "low"}, [1.0]), ({"le": "nope"}, [None])]
    rows, annotations = call("histogram_quantile", matrix_of(series), 0.5)
    assert rows == {(): [pytest.approx(0.15)]}
    assert sorted(each.text for each in annotations) == [
        'bucket label "le" is missing or has a malformed value of ""',
        'bucket label "le" is missing or has a malformed value of "low"',
    ]


def test_warnings_name_the_metric_where_names_are_removed_late() -> None:
    _, annotations = call("histogram_quantile", matrix_of([({"__name__": "x"}, [1.0])]), 0.5, delayed_names=True)
    assert [each.text for each in annotations] == [
        'bucket label "le" is missing or has a malformed value of "" for metric name "x"'
    ]


def test_histograms_are_told_apart_by_all_labels_but_le() -> None:
    series = [*histogram(TESTHISTOGRAM, __name__="a", job="x"), *histogram(NEGATIVE, __name__="a", job="y")]
    rows, _ = call("histogram_quantile", matrix_of(series[::-1]), 0.5)
    assert rows == {
        (("__name__", "a"), ("job", "x")): [pytest.approx(0.15)],
        (("__name__", "a"), ("job", "y")): [pytest.approx(-0.15)],
    }


def test_steps_without_a_bucket_have_no_result() -> None:
    matrix = matrix_of([({"le": "1"}, [1.0, None, 1.0]), ({"le": "+Inf"}, [2.0, None, None])])
    rows, _ = call("histogram_quantile", matrix, 0.25)
    assert rows[()][:2] == [0.5, None]
    assert math.isnan(rows[()][2] or 0)


def test_several_quantiles_get_a_label_each() -> None:
    rows, _ = call("histogram_quantiles", matrix_of(histogram(TESTHISTOGRAM)), "q", 0.25, 1)
    assert rows == {(("q", "0.25"),): [pytest.approx(0.06)], (("q", "1.0"),): [1.0]}


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0.0"), (1, "1.0"), (-1, "-1.0"), (0.5, "0.5"), (1e9, "1e+09"), (math.nan, "NaN"), (math.inf, "+Inf")],
)
def test_label_values_of_quantiles_are_openmetrics_floats(value: float, text: str) -> None:
    assert openmetrics_float(value) == text


@pytest.mark.parametrize(
    ("lower", "upper", "expected"),
    [
        (-math.inf, math.inf, 1.0),
        (0.2, math.inf, 5 / 12),
        (0, 0.2, 7 / 12),
        (0.05, 0.15, (6 - 2.5) / 12),
        (0.2, 0.1, 0.0),
        (math.nan, 1, math.nan),
        (-1, 0, 0.0),
        (0.5, 100.0, (11 - 8.5) / 12),
    ],
)
def test_fractions_interpolate_inside_their_bucket(lower: float, upper: float, expected: float) -> None:
    assert fraction_of(TESTHISTOGRAM, lower, upper) == pytest.approx(expected, nan_ok=True)


def test_a_fraction_below_a_first_bucket_without_lower_bound_counts_all_of_it() -> None:
    assert fraction_of(NEGATIVE, -math.inf, -0.3) == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("text", "bound"),
    [
        ("0.1", 0.1), (".5", 0.5), ("5.", 5.0), ("1e3", 1000.0), ("+Inf", math.inf), ("inf", math.inf),
        ("-Infinity", -math.inf), ("0x1p-2", 0.25), ("", None), ("1e400", None), (" 1", None), ("1_0", None),
        ("\u0661", None), ("0x10", None), ("abc", None), ("1e", None), ("0x_1p0", 1.0), ("0xp1", None),
    ],
)  # fmt: skip
def test_bounds_are_read_as_go_reads_floats(text: str, bound: float | None) -> None:
    assert parse_bound(text) == bound


def slow_quantile(q: float, buckets: list[tuple[float, float]]) -> float:
    """Of (bound, count) pairs, straight from the documentation."""
    merged: dict[float, float] = {}
    for bound, count in buckets:
        merged[bound] = merged.get(bound, 0.0) + count
    ordered = sorted(merged.items())
    if ordered[-1][0] != math.inf:
        return math.nan
    counts = [ordered[0][1]]
    for _, count in ordered[1:]:
        close = abs(count - counts[-1]) / max(abs(count) + abs(counts[-1]), 1e-300) < 1e-12
        counts.append(counts[-1] if close or count < counts[-1] else count)
    if len(ordered) < 2 or counts[-1] == 0:
        return math.nan
    rank = q * counts[-1]
    at = next((i for i, count in enumerate(counts[:-1]) if count >= rank), len(counts) - 1)
    if at == len(counts) - 1:
        return ordered[-2][0]
    if at == 0 and ordered[0][0] <= 0:
        return ordered[0][0]
    begin, below = (ordered[at - 1][0], counts[at - 1]) if at else (0.0, 0.0)
    inside = counts[at] - below
    if inside == 0:
        return math.nan
    return begin + (ordered[at][0] - begin) * ((rank - below) / inside)


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([-2.0, -1.0, 0.0, 0.5, 1.0, 4.0, math.inf]), st.integers(0, 50).map(float)),
        min_size=1, max_size=8,
    ),
    st.floats(0, 1),
)  # fmt: skip
def test_quantiles_equal_their_slow_twin(buckets: list[tuple[float, float]], q: float) -> None:
    series = [({"le": repr(bound), "copy": str(i)}, [count]) for i, (bound, count) in enumerate(buckets)]
    matrix = matrix_of(series)
    matrix.labels = matrix.labels.drop(("copy",))
    rows, _ = call("histogram_quantile", matrix, q)
    expected = slow_quantile(q, buckets)
    got = rows[()][0]
    assert got == expected or (math.isnan(expected) and got is not None and math.isnan(got))


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 50).map(float), min_size=2, max_size=6),
    st.lists(st.sampled_from([-1.0, 0.0, 0.5, 1.0, 2.5, 9.0]), min_size=2, max_size=2),
)
def test_fractions_of_neighbouring_ranges_add_up(counts: list[float], cuts: list[float]) -> None:
    total = np.cumsum(counts).tolist()
    bounds = [*(str(i) for i in range(1, len(total))), "+Inf"]
    histogram_counts = dict(zip(bounds, total, strict=True))
    low, high = sorted(cuts)
    parts = [
        fraction_of(histogram_counts, -math.inf, low),
        fraction_of(histogram_counts, low, high),
        fraction_of(histogram_counts, high, math.inf),
    ]
    if total[-1] == 0:
        assert all(part is not None and math.isnan(part) for part in parts)
    else:
        assert math.fsum(part or 0.0 for part in parts) == pytest.approx(1.0)
