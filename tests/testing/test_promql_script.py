"""The test language means what Prometheus' runner makes of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from mimir_ray.errors import InvalidArgument
from mimir_ray.model.float_histogram import GAUGE
from mimir_ray.model.labels import LabelColumns, Labels
from mimir_ray.model.result import Matrix, QueryResult, Scalar, String, Vector
from mimir_ray.model.series import STALE_NAN
from mimir_ray.promql.source import Selection
from mimir_ray.promql.syntax.ast import NumberLiteral, VectorSelector
from mimir_ray.promql.syntax.parser import parse
from mimir_ray.testing.promql_script import (
    Clear,
    Eval,
    Expectation,
    HistogramLiteral,
    HistogramValue,
    Load,
    ScriptError,
    parse_script,
)
from mimir_ray.testing.promql_script_histograms import of_literal
from mimir_ray.testing.promql_script_judge import agrees, almost_equal
from mimir_ray.testing.promql_script_run import HistogramsRefused, ListStorage, Outcome, at_modifier_cases, run_script


def load_of(text: str) -> Load:
    (command,) = parse_script(text)
    assert isinstance(command, Load)
    return command


def eval_of(text: str) -> Eval:
    (command,) = parse_script(text)
    assert isinstance(command, Eval)
    return command


def values_of(text: str) -> tuple:
    return load_of(f"load 1m\n  m {text}").series[0].values


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1 -.3 1e3 Inf -inf", (1.0, -0.3, 1000.0, math.inf, -math.inf)),
        ("_ 1 _x3 2", (None, 1.0, None, None, None, 2.0)),
        ("7x3", (7.0, 7.0, 7.0, 7.0)),
        ("1+2x3 9-2x2", (1.0, 3.0, 5.0, 7.0, 9.0, 7.0, 5.0)),
        ("-2-1x1", (-2.0, -3.0)),
        ("0+0x10", (0.0,) * 11),
        ("0x2", (0.0, 0.0, 0.0)),
    ],
)
def test_values_are_written_one_by_one_repeated_or_as_ramps(text: str, values: tuple) -> None:
    assert values_of(text) == values


def test_stale_is_a_staleness_marker() -> None:
    (value,) = values_of("stale")
    assert np.float64(value).view(np.uint64) == np.float64(STALE_NAN).view(np.uint64)


def test_a_histogram_keeps_what_it_says() -> None:
    text = "{{schema:1 sum:-0.3 count:3.1 z_bucket:7.1 z_bucket_w:0.05 buckets:[5.1 10 7] offset:-3 n_buckets:[4.1] }}"
    (value,) = values_of(text)
    literal = HistogramLiteral(1, -0.3, 3.1, 7.1, 0.05, (5.1, 10.0, 7.0), -3, (4.1,))
    assert value == HistogramValue(literal)
    assert literal.counter_reset_hint is None


def test_a_histogram_ramp_keeps_how_often_the_step_is_added() -> None:
    base, step = HistogramLiteral(sum=5.0), HistogramLiteral(count=2.0, counter_reset_hint="gauge")
    values = values_of("{{sum:5}}-{{count:2 counter_reset_hint:gauge}}x2 {{}}")
    assert values == (
        HistogramValue(base),
        HistogramValue(base, step, -1),
        HistogramValue(base, step, -2),
        HistogramValue(HistogramLiteral()),
    )


def test_names_may_be_quoted_and_hold_spaces_and_braces() -> None:
    (series,) = load_of('load 5s\n  {"my.metric", "a b"="}} 1"} 1 2').series
    assert dict(series.labels) == {"__name__": "my.metric", "a b": "}} 1"}
    assert series.values == (1.0, 2.0)


def test_start_timestamps_are_relative_to_their_samples() -> None:
    (series,) = load_of('load 1m\n  m{a="b"}@st -30s _ 0s-1sx1\n  m{a="b"} 1 2 3 4').series
    assert series.starts == (-30_000, None, 0, -1000)


def test_a_comment_ends_a_command() -> None:
    commands = parse_script("load 1m\n  a 1\n# b 1\nclear\n\neval instant at 0 a\n  a 1")
    assert [type(command) for command in commands] == [Load, Clear, Eval]


def test_old_and_new_forms_of_expectations_mean_the_same() -> None:
    old = eval_of("eval_fail instant at 0 x\n  expected_fail_message no")
    new = eval_of("eval instant at 0 x\n  expect fail msg:no")
    assert old.fail[-1] == new.fail[-1] == Expectation(message="no")
    assert eval_of("eval_ordered instant at 0 x").ordered
    assert eval_of("eval_warn instant at 0 x").some == {"warn"}
    assert eval_of("eval instant at 0 x\n  expect warn regex: a.c\n  expect no_info").exactly == {
        "warn": [Expectation(pattern="a.c")]
    }


def test_a_range_vector_moves_the_evaluation_to_its_end() -> None:
    command = eval_of("eval instant at 9m x[1m]\n  expect range vector from 10s to 1m step 10s\n  x 1 2")
    assert (command.start_ms, command.end_ms, command.points_step_ms, command.step_ms) == (10_000, 60_000, 10_000, None)


def test_the_older_way_to_expect_an_error_may_say_which_one_in_the_newer_way() -> None:
    (command,) = parse_script("eval_fail instant at 0 x\n  expect fail msg: no")
    assert isinstance(command, Eval)
    assert [str(one) for one in command.fail] == ["/.*/", "no"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("nonsense", 1),
        ("load\n", 1),
        ("load 5x", 1),
        ("\nload 1m\n  a 1 b", 3),
        ("load 1m\n  a{ 1", 2),
        ("load 1m\n  a {{sum:x}}", 2),
        ("load 1m\n  a {{sum:1 sum:2}}", 2),
        ("load 1m\n  a@st 1m 2m\n  a 1", 3),
        ("load 1m\n  a@st 1m\n  b 1", 3),
        ("eval instant at 0 x\n  x 1 2", 2),
        ("eval instant at 0 x\n  expect nothing", 2),
        ("eval instant at 0 x\n  expect info\n  expect no_info", 3),
        ("eval instant at 0 x\n  expect fail\n  expect fail", 3),
        ("eval_fail instant at 0 x\n  expect fail\n  expect fail", 3),
        ("eval range from 5m to 1m step 1m x", 1),
    ],
)
def test_what_is_not_in_the_language_is_told_with_its_line(text: str, line: int) -> None:
    with pytest.raises(ScriptError) as caught:
        parse_script(text, "some.test")
    assert str(caught.value).startswith(f"some.test:{line}: ")


@pytest.mark.parametrize(
    ("left", "right", "equal"),
    [
        (1.0, 1.0000001, True),
        (1.0, 1.00001, False),
        (0.0, 1e-300, False),
        (math.nan, math.nan, True),
        (math.nan, STALE_NAN, False),
        (STALE_NAN, STALE_NAN, True),
        (math.inf, 1e308, False),
        (-1e308, 1e308, False),
    ],
)
def test_floats_agree_within_a_millionth(left: float, right: float, equal: bool) -> None:
    assert almost_equal(left, right) is equal
    assert almost_equal(right, left) is equal


def test_at_modifiers_pin_selectors_but_not_those_inside_of_pinned_subqueries() -> None:
    cases = list(at_modifier_cases(parse("sum(a) + b @ 5 + max_over_time(rate(c[1m])[5m:])"), 10_000))
    pinned = "sum(a @ 10.000) + b @ 5.000 + max_over_time(rate(c[1m])[5m:] @ 10.000)"
    assert cases == [(pinned, at) for at in (-100_000, 0, 2_000, 10_000, 100_000)]


def test_functions_of_the_evaluation_time_are_not_asked_at_other_times() -> None:
    assert not list(at_modifier_cases(parse("a + time()"), 10_000))


class SelectorsOnly:
    """A tiny engine: numbers, strings, and selectors without lookback that look at exact times."""

    def __init__(self, storage: ListStorage) -> None:
        self.storage = storage
        self.asked: list[str] = []
        self.warnings: list[str] = []

    def __call__(self, query: str, start_ms: int, end_ms: int, step_ms: int | None) -> QueryResult:
        self.asked.append(query)
        tree = parse(query)
        times = [end_ms] if step_ms is None else list(range(start_ms, end_ms + 1, step_ms))
        if isinstance(tree, NumberLiteral):
            if step_ms is None:
                return QueryResult(Scalar(end_ms, tree.value), list(self.warnings))
            return QueryResult(matrix([((), [(time, tree.value) for time in times])]), list(self.warnings))
        if not isinstance(tree, VectorSelector):
            return QueryResult(String(end_ms, "text"))
        series = []
        for batch in self.storage.source().select(Selection(tree.matchers, -(1 << 60), 1 << 60)):
            for row, labels in enumerate(batch.labels.to_labels()):
                part = slice(batch.offsets[row], batch.offsets[row + 1])
                samples = dict(zip(batch.timestamps[part].tolist(), batch.values[part].tolist(), strict=True))
                at = [(time, time if tree.at is None else tree.at) for time in times]
                points = [(time, samples[seen]) for time, seen in at if seen in samples]
                if points:
                    series.append((labels, points))
        if step_ms is not None:
            return QueryResult(matrix(series), list(self.warnings))
        columns = LabelColumns.from_labels([labels for labels, _ in series])
        values = np.array([points[0][1] for _, points in series])
        return QueryResult(Vector(columns, end_ms, values), list(self.warnings))


def matrix(series: list[tuple[Labels, list[tuple[int, float]]]]) -> Matrix:
    offsets = np.cumsum([0, *(len(points) for _, points in series)])
    flat = [point for _, points in series for point in points]
    columns = LabelColumns.from_labels([labels for labels, _ in series])
    return Matrix(columns, offsets, np.array([at for at, _ in flat], np.int64), np.array([value for _, value in flat]))


def run(
    text: str, change: Callable[[SelectorsOnly], None] | None = None, storage: ListStorage | None = None
) -> list[Outcome]:
    storage = storage or ListStorage()
    engine = SelectorsOnly(storage)
    if change:
        change(engine)
    return run_script(parse_script(text), storage, engine)


GOOD = """
load 1m
  m{a="x"} 1 2 3
  m{a="y"} 5 _ 7

eval instant at 1m m
  m{a="x"} 2

eval range from 0 to 2m step 1m m
  m{a="x"} 1 2 3
  m{a="y"} 5 _ 7

eval instant at 0 5
  5

eval instant at 0 "text"
  expect string "text"

eval instant at 0 m +
  expect fail msg: 1:4: parse error: unexpected end of input

clear

eval instant at 1m m
"""


def test_a_right_answer_passes() -> None:
    assert [outcome.reason for outcome in run(GOOD)] == [""] * 6


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ('m{a="x"} 2\n', 'm{a="x"} 2.1\n'),
        ('m{a="x"} 2\n', 'm{a="z"} 2\n'),
        ('m{a="x"} 2\n', 'm{a="x"} 2\n  m{a="y"} 5\n'),
        ("5 _ 7\n\neval instant at 0 5", "5 6 7\n\neval instant at 0 5"),
        ("at 0 5\n  5", "at 0 5\n  6"),
        ('"text"\n\n', '"other"\n\n'),
        ("unexpected end of input", "something else"),
        ("clear", ""),
    ],
)
def test_a_wrong_answer_fails(right: str, wrong: str) -> None:
    assert right in GOOD
    assert sum(not outcome.passed for outcome in run(GOOD.replace(right, wrong, 1))) == 1


def test_each_instant_query_is_asked_as_a_range_and_pinned_to_its_time() -> None:
    storage = ListStorage()
    engine = SelectorsOnly(storage)
    outcomes = run_script(parse_script("load 1m\n m 1 2\n\neval instant at 1m m\n  m 2"), storage, engine)
    assert outcomes == [Outcome("script", 4, "m", True)]
    assert engine.asked == ["m"] * 2 + ["m @ 60.000"] * 10


def test_annotations_of_a_kind_must_be_all_expected_and_all_there() -> None:
    def warn(engine: SelectorsOnly) -> None:
        engine.warnings += ["first", "second"]

    text = "eval instant at 0 1\n  {}\n  1\n"
    passed = {
        lines: run(text.format(lines), warn)[0].passed
        for lines in (
            "expect warn",
            "expect warn msg: first\n expect warn regex: sec",
            "expect warn msg: first",
            "expect warn msg: third\n expect warn",
            "expect no_warn",
            "expect info",
        )
    }
    assert list(passed.values()) == [True, True, False, False, False, False]


def test_an_engine_that_crashes_fails_the_eval_and_not_the_run() -> None:
    def evaluate(query: str, start_ms: int, end_ms: int, step_ms: int | None) -> QueryResult:
        if query == "1":
            raise ZeroDivisionError("bad")
        return (
            QueryResult(Scalar(end_ms, 2.0))
            if step_ms is None
            else QueryResult(matrix([((), [(end_ms - 60_000, 2.0)])]))
        )

    text = "eval instant at 0 1\n  expect fail\n\neval instant at 0 2\n  2"
    outcomes = run_script(parse_script(text), ListStorage(), evaluate)
    assert [outcome.passed for outcome in outcomes] == [False, True]
    assert outcomes[0].reason == "crashed: ZeroDivisionError: bad"


def test_a_failure_that_was_not_expected_is_told() -> None:
    def evaluate(query: str, start_ms: int, end_ms: int, step_ms: int | None) -> QueryResult:
        raise InvalidArgument("not today")

    (outcome,) = run_script(parse_script("eval instant at 0 m\n  m 1"), ListStorage(), evaluate)
    assert outcome.reason == "failed: not today"


def test_a_histogram_is_compared_by_its_buckets_and_by_the_hint_if_there_is_one() -> None:
    text = "load 1m\n h {{schema:1 count:3 sum:4 buckets:[1 2]}} {{schema:1 count:3 sum:4 buckets:[2 1]}}"
    wanted, other = load_of(text).series[0].values
    assert isinstance(wanted, HistogramValue) and isinstance(other, HistogramValue)
    found = of_literal(wanted.base)
    assert agrees(wanted, found)
    assert agrees(wanted, found.with_hint(GAUGE))
    assert not agrees(other, found)
    assert not agrees(1.0, found)
    hinted = HistogramValue(replace(wanted.base, counter_reset_hint="reset"))
    assert not agrees(hinted, found)


class NoHistograms(ListStorage):
    def append_histograms(self, labels: Labels, timestamps: object, histograms: object, starts: object = None) -> None:
        raise HistogramsRefused("this storage has no native histograms")


def test_histograms_that_storage_refuses_fail_only_what_needs_them() -> None:
    outcomes = run(
        "load 1m\n h {{sum:1}}\n m 1\n\neval instant at 0 h\n\neval instant at 0 m\n  m 1\n", storage=NoHistograms()
    )
    assert [outcome.passed for outcome in outcomes] == [False, True]
    assert outcomes[0].reason == "needs h, which could not be loaded: this storage has no native histograms"


def test_classic_histograms_loaded_with_native_ones_need_both() -> None:
    load = 'load_with_nhcb 1m\n h_bucket{le="+Inf"} 1'
    text = load + '\n\neval instant at 0 h\n\neval instant at 0 h_bucket\n  h_bucket{le="+Inf"} 1'
    assert [outcome.passed for outcome in run(text)] == [False, True]
