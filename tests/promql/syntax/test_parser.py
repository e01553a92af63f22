"""Texts become the trees that PromQL's grammar means."""

from __future__ import annotations

import math

import pytest

from mimir_ray.errors import InvalidArgument
from mimir_ray.model.durations import format_duration, parse_duration
from mimir_ray.model.matchers import Matcher, MatchType
from mimir_ray.promql.syntax.ast import (
    Aggregate,
    Anchor,
    Binary,
    Call,
    Cardinality,
    DurationExpr,
    MatrixSelector,
    NumberLiteral,
    Paren,
    Span,
    StringLiteral,
    Subquery,
    Unary,
    ValueType,
    VectorMatching,
    VectorSelector,
    walk,
)
from mimir_ray.promql.syntax.parser import parse, parse_metric, parse_selector
from mimir_ray.promql.syntax.signatures import SIGNATURES

EQUAL, NOT_EQUAL, REGEX = MatchType.EQUAL, MatchType.NOT_EQUAL, MatchType.REGEX


def selector(name: str, **changes: object) -> VectorSelector:
    return VectorSelector(name, (Matcher(EQUAL, "__name__", name),), **changes)  # type: ignore[arg-type]


def number(value: float, is_duration: bool = False) -> NumberLiteral:
    return NumberLiteral(value, is_duration)


A, B, C = selector("a"), selector("b"), selector("c")
VECTORS = VectorMatching()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("1e3", 1000.0),
        ("0x1F", 31.0),
        ("017", 15.0),
        ("018", 18.0),
        ("1_000.5", 1000.5),
        ("0x_ff", 255.0),
        ("Inf", math.inf),
        ("-iNf", -math.inf),
        ("+-+1", -1.0),
        ("9223372036854775808", 2.0**63),
        ("1h30m", 5400.0),
        ("5ms", 0.005),
        ("1y1w1d", 32_227_200.0),
    ],
)
def test_numbers_have_many_forms(text: str, value: float) -> None:
    node = parse(text)
    assert isinstance(node, NumberLiteral)
    assert node.value == value
    assert node.is_duration == (text[-1] in "smhdwy")


def test_nan_is_a_number() -> None:
    node = parse("NaN")
    assert isinstance(node, NumberLiteral)
    assert math.isnan(node.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('"a\'b"', "a'b"),
        ("'a\"b'", 'a"b'),
        ("'\\''", "'"),
        ("`a\\n\n`", "a\\n\n"),
        ('"\\a\\b\\f\\n\\r\\t\\v\\\\\\""', '\a\b\f\n\r\t\v\\"'),
        ('"\\x41\\101\\u00e9\\U0001F600"', "AAé😀"),
        ('"\\xc3\\xa9"', "é"),
        ('"\\xff"', "\udcff"),
        ('"#"', "#"),
    ],
)
def test_strings_have_gos_escapes(text: str, value: str) -> None:
    assert parse(text) == StringLiteral(value)


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("a + b * c", Binary("+", A, Binary("*", B, C, VECTORS), VECTORS)),
        ("a * b + c", Binary("+", Binary("*", A, B, VECTORS), C, VECTORS)),
        ("a - b - c", Binary("-", Binary("-", A, B, VECTORS), C, VECTORS)),
        ("a ^ b ^ c", Binary("^", A, Binary("^", B, C, VECTORS), VECTORS)),
        ("-a ^ b", Unary("-", Binary("^", A, B, VECTORS))),
        ("-a * b", Binary("*", Unary("-", A), B, VECTORS)),
        ("a ^ -b * c", Binary("*", Binary("^", A, Unary("-", B), VECTORS), C, VECTORS)),
        ("-1 ^ 2", Unary("-", Binary("^", number(1), number(2)))),
        ("-1", number(-1)),
        ("2 ^ -1", Binary("^", number(2), number(-1))),
        ("(a)", Paren(A)),
        ("a atan2 b + c", Binary("+", Binary("atan2", A, B, VECTORS), C, VECTORS)),
        ("a </ 1", Binary("</", A, number(1))),
        ("a >/ 1", Binary(">/", A, number(1))),
        ("1 > bool 2", Binary(">", number(1), number(2), None, True)),
    ],
)
def test_operators_bind_as_in_prometheus(text: str, tree: object) -> None:
    assert parse(text) == tree


def test_set_operators_are_many_to_many_and_bind_weakest() -> None:
    many = VectorMatching(Cardinality.MANY_TO_MANY)
    assert parse("a or b and c") == Binary("or", A, Binary("and", B, C, many), many)
    assert parse("a unless on (x) b") == Binary("unless", A, B, VectorMatching(Cardinality.MANY_TO_MANY, ("x",), True))


@pytest.mark.parametrize(
    ("text", "matching"),
    [
        ("a + on (x, y) b", VectorMatching(labels=("x", "y"), on=True)),
        ("a + on () b", VectorMatching(on=True)),
        ("a + ignoring (x,) b", VectorMatching(labels=("x",))),
        ("a + on (x) group_left b", VectorMatching(Cardinality.MANY_TO_ONE, ("x",), True)),
        ("a + on (x) group_right (y) b", VectorMatching(Cardinality.ONE_TO_MANY, ("x",), True, ("y",))),
        ("a + fill (-1) b", VectorMatching(fill_left=-1.0, fill_right=-1.0)),
        ("a + fill_right (1m) b", VectorMatching(fill_right=60.0)),
        (
            "a + on (x) fill_left (1) fill_right (2) b",
            VectorMatching(labels=("x",), on=True, fill_left=1.0, fill_right=2.0),
        ),
        ('a + on ("my.label", by) b', VectorMatching(labels=("my.label", "by"), on=True)),
    ],
)
def test_matching_is_kept_between_vectors(text: str, matching: VectorMatching) -> None:
    assert parse(text) == Binary("+", A, B, matching)


def test_fill_is_a_name_unless_a_parenthesis_follows() -> None:
    fill = selector("fill")
    assert parse("fill + fill") == Binary("+", fill, fill, VECTORS)
    assert parse("fill + fill (1) fill") == Binary("+", fill, fill, VectorMatching(fill_left=1.0, fill_right=1.0))


@pytest.mark.parametrize(
    "name", ["sum", "by", "offset", "and", "unless", "start", "step", "anchored", "topk", "max_of"]
)
def test_most_keywords_are_metric_names_where_one_stands(name: str) -> None:
    assert parse(name) == selector(name)
    assert parse(f"sum({name})") == Aggregate("sum", selector(name))


def test_inside_of_braces_there_are_no_keywords() -> None:
    matchers = tuple(Matcher(EQUAL, name, "x") for name in ("on", "sum", "bool", "inf"))
    assert parse('{on="x", sum="x", bool="x", inf="x"}') == VectorSelector("", matchers)


def test_a_quoted_name_in_braces_is_the_metric() -> None:
    matchers = (Matcher(NOT_EQUAL, "a b", "c"), Matcher(EQUAL, "__name__", "my.metric"))
    assert parse('{"a b" != "c", "my.metric",}') == VectorSelector("", matchers)


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("sum(a)", Aggregate("sum", A)),
        ("SUM BY (x) (a)", Aggregate("sum", A, None, ("x",))),
        ("sum(a) without (x, y)", Aggregate("sum", A, None, ("x", "y"), True)),
        ("topk by (x) (3, a)", Aggregate("topk", A, number(3), ("x",))),
        ('count_values("v", a)', Aggregate("count_values", A, StringLiteral("v"))),
        ("limit_ratio(-0.5, a)", Aggregate("limit_ratio", A, number(-0.5))),
    ],
)
def test_groupings_stand_before_or_behind(text: str, tree: Aggregate) -> None:
    assert parse(text) == tree


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("a offset 5m", selector("a", offset_ms=300_000)),
        ("a offset -1.5", selector("a", offset_ms=-1500)),
        ("a @ 1.5 offset 1s", selector("a", at=1500, offset_ms=1000)),
        ("a offset 1s @ -1", selector("a", at=-1000, offset_ms=1000)),
        ("a @ start()", selector("a", at=Anchor.START)),
        ("a[5m] @ end()", MatrixSelector(selector("a", at=Anchor.END), 300_000)),
        ("a[5m] anchored", MatrixSelector(selector("a", anchored=True), 300_000)),
        ("a smoothed offset 1s", selector("a", smoothed=True, offset_ms=1000)),
        ("a[1h:5m] offset 1m @ 0", Subquery(A, 3_600_000, 300_000, 60_000, 0)),
        ("a[1h:]", Subquery(A, 3_600_000)),
        ("-a[5m:]", None),
        ("-a offset 5m", Unary("-", selector("a", offset_ms=300_000))),
        ("a + b offset 5m", Binary("+", A, selector("b", offset_ms=300_000), VECTORS)),
        ("a offset 5m + b", Binary("+", selector("a", offset_ms=300_000), B, VECTORS)),
    ],
)
def test_modifiers_belong_to_the_selector_before_them(text: str, tree: object) -> None:
    if tree is None:
        with pytest.raises(InvalidArgument):
            parse(text)
    else:
        assert parse(text) == tree


STEP = DurationExpr("step")


@pytest.mark.parametrize(
    ("text", "expr"),
    [
        ("5m * 2", DurationExpr("*", number(300, True), number(2))),
        ("1 + 2 ^ step()", DurationExpr("+", number(1), DurationExpr("^", number(2), STEP))),
        ("(5m)", DurationExpr("+", None, number(300, True), True)),
        ("(1 + 2) * 3", DurationExpr("*", DurationExpr("+", number(1), number(2), True), number(3))),
        ("-step()", DurationExpr("-", None, STEP)),
        ("+step()", STEP),
        ("max_of(1, step())", DurationExpr("max", number(1), STEP)),
        ("range() - -1", DurationExpr("-", DurationExpr("range"), number(-1))),
    ],
)
def test_durations_may_be_arithmetic(text: str, expr: DurationExpr) -> None:
    assert parse(f"a[{text}]") == MatrixSelector(A, 0, expr)
    assert parse(f"a[({text}) + 1:1]") == Subquery(A, 0, 1000, range_expr=DurationExpr("+", _wrapped(expr), number(1)))


def _wrapped(expr: DurationExpr) -> DurationExpr:
    return DurationExpr(expr.op, expr.left, expr.right, True)


@pytest.mark.parametrize(
    ("text", "offset", "rest"),
    [
        ("a offset (1 + 2)", DurationExpr("+", number(1), number(2), True), None),
        ("a offset -(1 + 2) ^ 2", DurationExpr("-", None, DurationExpr("+", number(1), number(2), True)), "^"),
        ("a offset (1) + 2", DurationExpr("+", DurationExpr("+", None, number(1), True), number(2)), None),
        ("a offset step() + 2", STEP, "+"),
        ("a offset -range() + 2", DurationExpr("-", None, DurationExpr("range")), "+"),
        ("a offset min_of(1, 2) * 2", DurationExpr("min", number(1), number(2)), "*"),
    ],
)
def test_an_offset_is_one_term_unless_it_starts_with_a_parenthesis(
    text: str, offset: DurationExpr, rest: str | None
) -> None:
    wanted = selector("a", offset_expr=offset)
    assert parse(text) == (wanted if rest is None else Binary(rest, wanted, number(2)))


def test_types_follow_from_the_parts() -> None:
    types = {
        text: parse(text).type for text in ("1 + 1", "1 + a", "(a[5m])", "-a", "'x'", "scalar(a)", "a[5m:]", "sum(a)")
    }
    assert list(types.values()) == [
        ValueType.SCALAR,
        ValueType.VECTOR,
        ValueType.MATRIX,
        ValueType.VECTOR,
        ValueType.STRING,
        ValueType.SCALAR,
        ValueType.MATRIX,
        ValueType.VECTOR,
    ]


def test_calls_know_what_they_return() -> None:
    assert parse("rate(a[5m])") == Call("rate", (MatrixSelector(A, 300_000),), ValueType.VECTOR)
    assert parse("time()") == Call("time", (), ValueType.SCALAR)


def test_the_second_argument_of_info_may_select_everything() -> None:
    assert parse('info(a, {b=~".*"})') == Call("info", (A, VectorSelector("", (Matcher(REGEX, "b", ".*"),))))


def test_spans_are_bytes_of_the_text() -> None:
    text = '  sum by (x) (rate(a{b="é"}[5m] offset 1m)) / -(c) # end'
    tree = parse(text)
    shown = {text.encode()[node.span.start : node.span.end].decode() for node in walk(tree)}
    assert shown == {
        'sum by (x) (rate(a{b="é"}[5m] offset 1m)) / -(c)',
        'sum by (x) (rate(a{b="é"}[5m] offset 1m))',
        'rate(a{b="é"}[5m] offset 1m)',
        'a{b="é"}[5m] offset 1m',
        'a{b="é"}',
        "-(c)",
        "(c)",
        "c",
    }
    assert tree.span == Span(2, 51)


def test_comments_and_line_breaks_are_spaces() -> None:
    assert parse("a # first\r\n+ # second\n\tb{ # third\n}") == parse("a + b")


def test_a_selector_gives_its_matchers_with_the_name_last() -> None:
    assert parse_selector('a{b=~"c",}') == (Matcher(REGEX, "b", "c"), Matcher(EQUAL, "__name__", "a"))
    assert parse_selector("{}") == ()


def test_a_metric_gives_sorted_labels() -> None:
    assert parse_metric('m{z="1",b="2",e=""}') == (("__name__", "m"), ("b", "2"), ("z", "1"))
    assert parse_metric('{"a.b", "c d"="e"}') == (("__name__", "a.b"), ("c d", "e"))
    assert parse_metric("{}") == ()


def test_the_table_of_functions_is_complete() -> None:
    assert len(SIGNATURES) == 90
    assert sum(signature.experimental for signature in SIGNATURES.values()) == 17
    label_join, hour = SIGNATURES["label_join"], SIGNATURES["hour"]
    assert (label_join.args_min, label_join.args_max, label_join.arg_type(9)) == (3, None, ValueType.STRING)
    assert (hour.args_min, hour.args_max) == (0, 1)


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (0, "0s"),
        (1, "1ms"),
        (90_000, "1m30s"),
        (5_400_000, "1h30m"),
        (86_400_000 * 7, "1w"),
        (86_400_000 * 8, "8d"),
        (86_400_000 * 365, "1y"),
        (86_400_000 * 366, "366d"),
        (-60_000, "-1m"),
    ],
)
def test_durations_are_written_as_prometheus_does(milliseconds: int, text: str) -> None:
    assert format_duration(milliseconds) == text
    if milliseconds >= 0:
        assert parse_duration(text) == milliseconds


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty duration string"),
        ("1", 'not a valid duration string: "1"'),
        ("-1m", 'not a valid duration string: "-1m"'),
        ("1m1h", 'not a valid duration string: "1m1h"'),
        ("1.5h", 'unknown unit "." in duration "1.5h"'),
        ("1x", 'unknown unit "x" in duration "1x"'),
        ("293y", "duration out of range"),
    ],
)
def test_what_is_no_duration_is_refused(text: str, reason: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse_duration(text)
    assert str(caught.value) == reason
