"""The table of functions, and the functions of instant vectors and scalars."""

from __future__ import annotations

import math
from datetime import datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimir_ray.model.labels import LabelColumns, Labels, StringTable, labels_of
from mimir_ray.model.matchers import Matcher, MatchType
from mimir_ray.model.series import SeriesBatch, StepMatrix
from mimir_ray.promql import functions
from mimir_ray.promql.annotations import Annotations
from mimir_ray.promql.functions import (
    CONVERSIONS,
    JOINS,
    QUERY_CONSTANTS,
    RANGE_FUNCTIONS,
    SCALAR_FUNCTIONS,
    VECTOR_FUNCTIONS,
    FunctionContext,
    InvalidFunctionArgument,
    UnsupportedFunction,
    absent_series,
    query_constant,
    require_supported,
    scalar_of,
    vector_of,
)
from mimir_ray.promql.kernels.windows import Window
from mimir_ray.promql.operators.functions_labels import naturally_less
from mimir_ray.promql.syntax import ast
from mimir_ray.promql.syntax.signatures import SIGNATURES

SELECTOR = ast.VectorSelector("x")


def context_of(
    times: list[int], table: StringTable | None = None, args: tuple[ast.Node, ...] = (ast.Unary("-", SELECTOR),) * 3
) -> FunctionContext:
    return FunctionContext(ast.Call("f", args), np.array(times, np.int64), table or StringTable(), Annotations())


def matrix_of(*series: tuple[dict[str, str], list[float | None]]) -> StepMatrix:
    rows = [values for _, values in series]
    return StepMatrix(
        LabelColumns.from_labels([labels_of(labels) for labels, _ in series]),
        np.array([[math.nan if value is None else value for value in row] for row in rows], np.float64),
        np.array([[value is not None for value in row] for row in rows], np.bool_),
    )


def call(name: str, matrix: StepMatrix, *params: float | str, times: list[int] | None = None) -> StepMatrix:
    steps = matrix.values.shape[1]
    context = context_of(times or [60_000 * t for t in range(steps)], matrix.labels.table)
    arguments = tuple(each if isinstance(each, str) else np.full(steps, float(each)) for each in params)
    return VECTOR_FUNCTIONS[name](matrix, arguments, context)


def values_of(name: str, values: list[float | None], *params: float | str) -> list[float | None]:
    result = call(name, matrix_of(({"a": "b"}, values)), *params)
    return [
        value if there else None
        for value, there in zip(result.values[0].tolist(), result.present[0].tolist(), strict=True)
    ]


def value_of(name: str, value: float, *params: float) -> float:
    (result,) = values_of(name, [value], *params)
    assert result is not None
    return result


def rows_of(matrix: StepMatrix) -> list[tuple[Labels, list[float]]]:
    return list(zip(matrix.labels.to_labels(), matrix.values.tolist(), strict=True))


def bits(value: float) -> bytes:
    return np.float64(value).tobytes()


# The table


def test_every_function_that_can_be_parsed_is_in_exactly_one_table() -> None:
    tables = [RANGE_FUNCTIONS, VECTOR_FUNCTIONS, SCALAR_FUNCTIONS, CONVERSIONS, QUERY_CONSTANTS, JOINS]
    for name in SIGNATURES:
        assert sum(name in table for table in tables) == 1, name
    assert {name for table in tables for name in table} <= set(SIGNATURES)


def test_functions_of_ranges_and_vectors_stand_in_the_table_of_their_argument() -> None:
    for name, signature in SIGNATURES.items():
        takes_range = ast.ValueType.MATRIX in signature.arg_types
        assert (name in RANGE_FUNCTIONS) == takes_range, name


def test_only_functions_that_select_keep_the_metric_name() -> None:
    keeping = {name for name, function in {**RANGE_FUNCTIONS, **VECTOR_FUNCTIONS}.items() if function.keeps_name}
    assert keeping == {
        "first_over_time", "last_over_time", "label_join", "label_replace",
        "sort", "sort_by_label", "sort_by_label_desc", "sort_desc",
    }  # fmt: skip


def test_what_is_not_there_is_a_clear_error() -> None:
    with pytest.raises(UnsupportedFunction, match="unknown function nonsense"):
        require_supported("nonsense")


def test_what_is_there_is_no_error() -> None:
    for name in SIGNATURES:
        require_supported(name)


# Value by value


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("abs", -2.5, 2.5),
        ("ceil", -0.5, -0.0),
        ("floor", -0.5, -1.0),
        ("sgn", -0.0, -0.0),
        ("sgn", -3, -1.0),
        ("sgn", math.inf, 1.0),
        ("sqrt", -1, math.nan),
        ("sqrt", 9, 3.0),
        ("exp", 0, 1.0),
        ("ln", 0, -math.inf),
        ("ln", -1, math.nan),
        ("ln", math.e, 1.0),
        ("ln", math.inf, math.inf),
        ("log2", 8, 3.0),
        ("log2", 5e-324, -1074.0),
        ("log10", 1000, 3.0),
        ("log10", 100, 2.0),
        ("log10", 0, -math.inf),
        ("deg", math.pi, 180.0),
        ("rad", 180, math.pi),
        ("round", 2.5, 3.0),
        ("round", -2.5, -2.0),
        ("round", math.nan, math.nan),
        ("acos", 2, math.nan),
        ("atanh", 1, math.inf),
    ],
)
def test_functions_of_one_value(name: str, value: float, expected: float) -> None:
    got = value_of(name, value)
    assert math.isnan(got) if math.isnan(expected) else bits(got) == bits(expected)


@pytest.mark.parametrize(
    "name", ["sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "asinh", "atanh"]
)
def test_trigonometric_functions_are_those_of_their_name(name: str) -> None:
    assert value_of(name, 0.3) == pytest.approx(getattr(math, name)(0.3), rel=1e-15)


@given(st.floats(min_value=0, exclude_min=True, allow_infinity=False))
def test_logarithms_are_within_a_rounding_error(value: float) -> None:
    assert value_of("ln", value) == pytest.approx(math.log(value), rel=4e-16, abs=1e-300)
    assert value_of("log2", value) == pytest.approx(math.log2(value), rel=1e-15, abs=1e-15)
    assert value_of("log10", value) == pytest.approx(math.log10(value), rel=1e-15, abs=1e-15)


@pytest.mark.parametrize(
    ("value", "nearest", "expected"), [(7, 5, 5.0), (7.5, 5, 10.0), (0.29, 0.1, 0.3), (-7.5, 5, -5)]
)
def test_round_takes_what_to_round_to(value: float, nearest: float, expected: float) -> None:
    assert value_of("round", value, nearest) == pytest.approx(expected)


def test_clamps_keep_values_between_their_bounds() -> None:
    assert values_of("clamp", [-5.0, 0.5, 5.0, None], 0, 1) == [0.0, 0.5, 1.0, None]
    assert values_of("clamp_min", [-5.0, 5.0], 1) == [1.0, 5.0]
    assert values_of("clamp_max", [-5.0, 5.0], 1) == [-5.0, 1.0]


def test_clamp_with_crossed_bounds_has_no_result() -> None:
    assert values_of("clamp", [1.0], 5, 4) == [None]


def test_clamp_follows_gos_max_and_min_with_nan_and_infinities() -> None:
    assert math.isnan(value_of("clamp_max", 3, math.nan))
    assert value_of("clamp_max", -math.inf, math.nan) == -math.inf
    assert value_of("clamp_min", math.inf, math.nan) == math.inf
    assert math.isnan(value_of("clamp", math.nan, 0, 1))
    assert bits(value_of("clamp_min", -0.0, 0.0)) == bits(0.0)


def test_steps_may_have_bounds_of_their_own() -> None:
    matrix = matrix_of(({}, [5.0, 5.0]))
    result = VECTOR_FUNCTIONS["clamp_max"](matrix, (np.array([1.0, 9.0]),), context_of([0, 1]))
    assert result.values.tolist() == [[1.0, 5.0]]


def test_timestamp_of_an_expression_is_the_evaluation_time() -> None:
    assert call("timestamp", matrix_of(({}, [7.0, 8.0])), times=[1500, 2500]).values.tolist() == [[1.5, 2.5]]


def test_timestamp_of_a_selector_is_what_the_selector_delivers() -> None:
    matrix = matrix_of(({}, [1.25, 2.25]))
    context = context_of([1500, 2500], args=(ast.Paren(SELECTOR),))
    assert VECTOR_FUNCTIONS["timestamp"](matrix, (), context).values.tolist() == [[1.25, 2.25]]


@pytest.mark.parametrize(
    "name", ["histogram_count", "histogram_sum", "histogram_avg", "histogram_stddev", "histogram_stdvar"]
)
def test_functions_of_native_histograms_give_nothing_for_floats(name: str) -> None:
    result = call(name, matrix_of(({"a": "b"}, [1.0, 2.0])))
    assert len(result) == 0
    assert result.values.shape == (0, 2)


def test_functions_leave_their_input_as_it_is() -> None:
    for name in SIGNATURES:
        signature = SIGNATURES[name]
        function = VECTOR_FUNCTIONS.get(name)
        if function is None or ast.ValueType.STRING in signature.arg_types:
            continue
        matrix = matrix_of(({"le": "1"}, [1.5]), ({"le": "+Inf"}, [2.5]))
        for array in (matrix.values, matrix.present, matrix.labels.codes):
            array.flags.writeable = False
        params = tuple(np.array([0.5]) for kind in signature.arg_types if kind is ast.ValueType.SCALAR)
        function(matrix, params, context_of([0], matrix.labels.table))


# Dates

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


@given(st.integers(-62135596800, 253402300799), st.floats(0, 0.999))
def test_parts_of_dates_are_the_calendars(seconds: int, fraction: float) -> None:
    date = EPOCH + timedelta(seconds=seconds)
    value = seconds + (fraction if seconds >= 0 else -fraction if seconds < 0 else 0)  # conversion cuts towards zero
    following = (date.replace(day=28) + timedelta(days=4)).replace(day=1) if date.year < 9999 else None
    expected = {
        "year": date.year,
        "month": date.month,
        "day_of_month": date.day,
        "day_of_week": date.isoweekday() % 7,
        "day_of_year": date.timetuple().tm_yday,
        "hour": date.hour,
        "minute": date.minute,
    }
    if following is not None:
        expected["days_in_month"] = (following - date.replace(day=1)).days
    if abs(value) < 2**52 / 1000:
        assert {name: value_of(name, value) for name in expected} == expected


@pytest.mark.parametrize(
    ("seconds", "days"),
    [(1454284800, 29), (1485907200, 28), (951782400, 29), (-2203977600, 28), (4107456000, 28)],
)
def test_leap_years_have_a_longer_february(seconds: int, days: int) -> None:
    assert value_of("days_in_month", seconds) == days


def test_dates_of_values_that_are_no_times_have_a_result() -> None:
    for name in ("year", "month", "day_of_month", "day_of_week", "day_of_year", "days_in_month", "hour", "minute"):
        for value in (math.nan, math.inf, -math.inf, 1e300, -1e18, 9e18):
            assert math.isfinite(value_of(name, value))


def test_date_functions_take_the_evaluation_time_by_default() -> None:
    for name, signature in SIGNATURES.items():
        expected = signature.variadic == 1 and signature.arg_types == (ast.ValueType.VECTOR,)
        if name in VECTOR_FUNCTIONS:
            assert VECTOR_FUNCTIONS[name].defaults_to_time == expected, name


# Scalars and vectors


def test_scalar_is_the_value_of_the_only_series() -> None:
    matrix = matrix_of(({"a": "1"}, [1.0, None, 3.0, -0.0]), ({"a": "2"}, [None, None, 4.0, None]))
    result = scalar_of(matrix)
    assert result[0] == 1.0
    assert math.isnan(result[1])
    assert math.isnan(result[2])
    assert bits(result[3]) == bits(-0.0)


def test_scalar_of_nothing_is_nan() -> None:
    assert np.isnan(scalar_of(matrix_of(({}, [1.0, 2.0])).take(slice(0, 0)))).tolist() == [True, True]


def test_vector_is_one_series_without_labels() -> None:
    assert rows_of(vector_of(np.array([1.0, 2.0]), context_of([0, 1]))) == [((), [1.0, 2.0])]


def test_time_is_in_seconds() -> None:
    assert SCALAR_FUNCTIONS["time"]((), context_of([0, 1500])).tolist() == [0.0, 1.5]


def test_pi_is_pi_at_every_step() -> None:
    assert SCALAR_FUNCTIONS["pi"]((), context_of([0, 1])).tolist() == [math.pi, math.pi]


def test_the_larger_and_the_smaller_of_two_scalars() -> None:
    left, right = np.array([1.0, math.nan, math.nan]), np.array([2.0, 1.0, math.inf])
    context = context_of([0, 1, 2])
    largest = SCALAR_FUNCTIONS["max_of"]((left, right), context).tolist()
    smallest = SCALAR_FUNCTIONS["min_of"]((left, right), context).tolist()
    assert largest[0] == 2.0 and math.isnan(largest[1]) and largest[2] == math.inf
    assert smallest[0] == 1.0 and math.isnan(smallest[1]) and math.isnan(smallest[2])


def test_query_constants_are_in_seconds_and_an_instant_query_has_no_step() -> None:
    assert [query_constant(name, 1000, 61_000, 15_000) for name in ("start", "end", "range", "step")] == [1, 61, 60, 15]
    assert query_constant("step", 1000, 1000, 15_000) == 0


# Labels


def replaced(labels: dict[str, str], *params: str) -> dict[str, str]:
    (result,) = call("label_replace", matrix_of((labels, [1.0])), *params).labels.to_labels()
    return dict(result)


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        (("dst", "~${1}", "src", "(.*)-.*"), {"src": "source-value-10", "dst": "~source-value"}),
        (("dst", "$1", "src", "value-(.*)"), {"src": "source-value-10"}),
        (("dst", "const", "src", ".*"), {"src": "source-value-10", "dst": "const"}),
        (("dst", "$1x", "src", "(.*)"), {"src": "source-value-10"}),
        (("dst", "${1}x", "src", "(s).*"), {"src": "source-value-10", "dst": "sx"}),
        (("dst", "$name$$", "src", "(?P<name>s).*"), {"src": "source-value-10", "dst": "s$"}),
        (("dst", "a$", "src", ".*"), {"src": "source-value-10", "dst": "a$"}),
        (("dst", "${1", "src", "(s).*"), {"src": "source-value-10", "dst": "${1"}),
        (("dst", "$01-$9-$0", "src", "(s)ource.*"), {"src": "source-value-10", "dst": "--source-value-10"}),
        (("dst", "[$2]", "src", "(s)(x)?.*"), {"src": "source-value-10", "dst": "[]"}),
        (("dst", "new", "absent", ""), {"src": "source-value-10", "dst": "new"}),
        (("src", "", "src", ".*"), {}),
    ],
)
def test_label_replace_fills_in_what_matched(params: tuple[str, ...], expected: dict[str, str]) -> None:
    assert replaced({"src": "source-value-10"}, *params) == expected


def test_label_replace_matches_newlines() -> None:
    assert replaced({"src": "a\nb"}, "dst", "$1", "src", "(.*)")["dst"] == "a\nb"


@pytest.mark.parametrize(
    ("params", "text"),
    [
        (("dst", "", "src", "(.*"), "invalid regular expression in label_replace(): (.*"),
        (("", "", "src", ".*"), "invalid destination label name in label_replace(): "),
    ],
)
def test_label_replace_refuses_what_upstream_refuses(params: tuple[str, ...], text: str) -> None:
    with pytest.raises(InvalidFunctionArgument) as error:
        replaced({}, *params)
    assert str(error.value) == text


def test_a_metric_name_that_was_just_written_is_kept() -> None:
    matrix = matrix_of(({"a": "yes"}, [1.0]), ({"a": "no"}, [1.0]))
    matrix.drop_name = np.array([True, True])
    result = call("label_replace", matrix, "__name__", "fresh", "a", "yes")
    assert result.drop_name is not None
    assert result.drop_name.tolist() == [False, True]
    assert call("label_join", matrix, "__name__", "", "a").drop_name.tolist() == [False, False]  # type: ignore[union-attr]


def test_label_join_joins_also_what_is_absent() -> None:
    matrix = matrix_of(({"a": "x", "b": "y"}, [1.0]), ({"a": "z"}, [1.0]))
    result = call("label_join", matrix, "dst", "-", "a", "b", "c")
    assert [dict(labels)["dst"] for labels in result.labels.to_labels()] == ["x-y-", "z--"]


def test_label_join_of_nothing_removes_the_label() -> None:
    assert call("label_join", matrix_of(({"dst": "old"}, [1.0])), "dst", ",").labels.to_labels() == [()]


def test_label_join_refuses_empty_names() -> None:
    with pytest.raises(InvalidFunctionArgument, match=r"invalid source label name in label_join\(\): $"):
        call("label_join", matrix_of(({}, [1.0])), "dst", ",", "")
    with pytest.raises(InvalidFunctionArgument, match=r"invalid destination label name in label_join\(\): $"):
        call("label_join", matrix_of(({}, [1.0])), "", ",", "a")


def test_sort_orders_by_value_with_nan_last() -> None:
    matrix = matrix_of(
        ({"a": "1"}, [2.0]), ({"a": "2"}, [math.nan]), ({"a": "3"}, [-1.0]), ({"a": "4"}, [None]), ({"a": "5"}, [7.0])
    )
    order = [dict(labels)["a"] for labels in call("sort", matrix).labels.to_labels()]
    assert order == ["3", "1", "5", "2"]
    assert [dict(labels)["a"] for labels in call("sort_desc", matrix).labels.to_labels()] == ["5", "1", "3", "2"]


@pytest.mark.parametrize("name", ["sort", "sort_desc", "sort_by_label", "sort_by_label_desc"])
def test_sorts_warn_in_range_queries_and_change_nothing(name: str) -> None:
    matrix = matrix_of(({"a": "2"}, [2.0, 1.0]), ({"a": "1"}, [1.0, 2.0]))
    context = context_of([0, 1], matrix.labels.table)
    result = VECTOR_FUNCTIONS[name](matrix, ("a",) if "label" in name else (), context)
    assert rows_of(result) == rows_of(matrix)
    assert [each.text for each in context.annotations] == [
        "sort is ineffective for range queries since results are always ordered by labels"
    ]


def test_sort_by_label_orders_numbers_in_text_naturally() -> None:
    matrix = matrix_of(*(({"i": text, "z": str(k)}, [1.0]) for k, text in enumerate(["n10", "n2", "n2", "n", "m1"])))
    order = [(dict(labels)["i"], dict(labels)["z"]) for labels in call("sort_by_label", matrix, "i").labels.to_labels()]
    assert order == [("m1", "4"), ("n", "3"), ("n2", "1"), ("n2", "2"), ("n10", "0")]
    backwards = call("sort_by_label_desc", matrix, "i").labels.to_labels()
    assert [(dict(labels)["i"], dict(labels)["z"]) for labels in backwards] == order[::-1]


@pytest.mark.parametrize(
    ("a", "b"), [("a2", "a10"), ("a", "a1"), ("1", "a"), ("a1b2", "a1b10"), ("", "a"), ("9", "10")]
)
def test_natural_order(a: str, b: str) -> None:
    assert naturally_less(a, b) or a == ""
    assert not naturally_less(b, a)


# Absence


def equal(name: str, value: str) -> Matcher:
    return Matcher(MatchType.EQUAL, name, value)


def test_absent_is_1_where_nothing_is_and_has_the_labels_that_were_asked_for() -> None:
    selector = ast.VectorSelector(
        "x",
        (equal("__name__", "x"), equal("job", "a"), equal("twice", "1"), equal("twice", "2"), equal("empty", ""),
         Matcher(MatchType.REGEX, "re", "b.*")),
    )  # fmt: skip
    for arg in (selector, ast.MatrixSelector(selector), ast.Paren(selector)):
        result = absent_series(np.array([True, False, True]), context_of([0, 1, 2], args=(arg,)))
        assert rows_of(result) == [((("job", "a"),), [1.0, 1.0, 1.0])]
        assert result.present.tolist() == [[False, True, False]]


def test_absent_of_an_expression_has_no_labels() -> None:
    assert rows_of(absent_series(np.array([False]), context_of([0]))) == [((), [1.0])]


def test_absent_of_what_is_always_there_has_no_series() -> None:
    assert len(absent_series(np.array([True, True]), context_of([0, 1]))) == 0


def test_absent_of_no_series_is_1_everywhere() -> None:
    matrix = matrix_of(({}, [1.0, 2.0])).take(slice(0, 0))
    assert call("absent", matrix).values.tolist() == [[1.0, 1.0]]


# What range functions say beside their values


def batch_of(name: str, values: list[float]) -> SeriesBatch:
    return SeriesBatch(
        LabelColumns.from_labels([labels_of({"__name__": name})]),
        np.array([0, len(values)], np.int64),
        np.arange(len(values), dtype=np.int64) * 1000,
        np.array(values, np.float64),
    )


def evaluate(
    name: str, batch: SeriesBatch, *params: float, ends: tuple[int, ...] = (5000,)
) -> tuple[list[float | None], list[str]]:
    times = np.array(ends, np.int64)
    context = context_of(list(ends), batch.labels.table, (ast.MatrixSelector(SELECTOR),) * 3)
    arguments = tuple(np.full(len(ends), each) for each in params)
    values, present = RANGE_FUNCTIONS[name](batch, Window(times, 10_000, times), arguments, context)
    found = [value if there else None for value, there in zip(values[0].tolist(), present[0].tolist(), strict=True)]
    return found, [each.text for each in context.annotations]


@pytest.mark.parametrize("function", ["rate", "increase"])
def test_a_rate_of_what_is_not_named_like_a_counter_is_noted(function: str) -> None:
    text = 'metric might not be a counter, name does not end in _total/_sum/_count/_bucket: "x"'
    assert evaluate(function, batch_of("x", [1.0, 2.0]))[1] == [text]
    assert evaluate(function, batch_of("x", [1.0]))[1] == []
    assert evaluate(function, batch_of("", [1.0, 2.0]))[1] == []
    for name in ("x_total", "x_sum", "x_count", "x_bucket"):
        assert evaluate(function, batch_of(name, [1.0, 2.0]))[1] == []


def test_a_counter_reset_inside_the_window_adds_the_value_before_it() -> None:
    assert evaluate("increase", batch_of("x_total", [0.0, 10.0, 2.0, 5.0]), ends=(3000,))[0] == [15.0]


def test_an_invalid_quantile_over_time_warns_where_it_was_used() -> None:
    assert evaluate("quantile_over_time", batch_of("x", [1.0]), 1.5) == (
        [math.inf],
        ["quantile value should be between 0 and 1, got 1.5"],
    )
    assert evaluate("quantile_over_time", batch_of("x", [1.0]), 1.5, ends=(-5,)) == ([None], [])


@pytest.mark.parametrize(
    ("sf", "tf", "text"),
    [
        (0.0, 0.5, "invalid smoothing factor. Expected: 0 < sf < 1, got: 0.000000"),
        (0.5, 1.5, "invalid trend factor. Expected: 0 < tf < 1, got: 1.500000"),
        (math.inf, 0.5, "invalid smoothing factor. Expected: 0 < sf < 1, got: +Inf"),
    ],
)
def test_smoothing_refuses_factors_outside_of_0_to_1_once_there_is_a_sample(sf: float, tf: float, text: str) -> None:
    with pytest.raises(InvalidFunctionArgument) as error:
        evaluate("double_exponential_smoothing", batch_of("x", [1.0]), sf, tf)
    assert str(error.value) == text
    assert evaluate("double_exponential_smoothing", batch_of("x", [1.0]), sf, tf, ends=(-5,))[0] == [None]


def test_the_module_tells_callers_of_every_table() -> None:
    for name in (
        "RANGE_FUNCTIONS",
        "VECTOR_FUNCTIONS",
        "SCALAR_FUNCTIONS",
        "CONVERSIONS",
        "QUERY_CONSTANTS",
        "JOINS",
    ):
        assert name in (functions.__doc__ or "")
