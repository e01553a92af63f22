"""Trees are printed so that they can be read back, and as Prometheus prints them."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings

from mimir_ray.promql.syntax.ast import Node, VectorSelector
from mimir_ray.promql.syntax.describe import describe
from mimir_ray.promql.syntax.parser import parse
from mimir_ray.promql.syntax.printer import format_expr, format_number, pretty
from mimir_ray.testing.expressions import expressions

PROPERTY = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def sorted_matchers(node: Node) -> Node:
    """The same tree with every selector's matchers in one order: the canonical form sorts them."""
    changes: dict[str, object] = {}
    for name in type(node).__dataclass_fields__:
        value = getattr(node, name)
        if isinstance(value, Node):
            changes[name] = sorted_matchers(value)
        elif isinstance(value, tuple) and value and isinstance(value[0], Node):
            changes[name] = tuple(sorted_matchers(item) for item in value)
    if isinstance(node, VectorSelector):
        changes["matchers"] = tuple(sorted(node.matchers, key=str))
    return replace(node, **changes)


@PROPERTY
@given(expressions())
def test_the_canonical_form_reads_back_as_the_same_expression(text: str) -> None:
    tree = parse(text)
    again = parse(format_expr(tree))
    assert sorted_matchers(again) == sorted_matchers(tree)
    assert parse(format_expr(again)) == again
    assert format_expr(again) == format_expr(tree)


@PROPERTY
@given(expressions())
def test_the_indented_form_reads_back_as_the_same_expression(text: str) -> None:
    tree = parse(format_expr(parse(text)))
    long = parse(f'label_replace({text}, "a", "{"x" * 100}", "b", "c")') if tree.type.value == "vector" else tree
    assert parse(pretty(tree)) == tree
    assert sorted_matchers(parse(pretty(long))) == sorted_matchers(long)


@PROPERTY
@given(expressions())
def test_every_tree_has_a_description_in_json(text: str) -> None:
    assert json.loads(json.dumps(describe(parse(text))))["type"]


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("sum by() (a)", "sum(a)"),
        ("sum(a) without(b,  c)", "sum without (b, c) (a)"),
        ('sum by ("a.b") (a)', 'sum by ("a.b") (a)'),
        ("topk(5,a)", "topk(5, a)"),
        ("a-on(b)group_left c", "a - on (b) group_left () c"),
        ("a-ignoring()c", "a - c"),
        ("a - on() c", "a - on () c"),
        ("a > bool 1", "a > bool 1"),
        ("a + fill (0) b", "a + fill (0) b"),
        ("a + fill_right (1) fill_left (1) b", "a + fill (1) b"),
        ("a + fill_right (1e6) b", "a + fill_right (1e+06) b"),
        ('{__name__="a"}', '{__name__="a"}'),
        ('a{c="1", b!="2"}', 'a{b!="2",c="1"}'),
        ('{"a.b", c="1"}', '{__name__="a.b",c="1"}'),
        ("a[5m] @ 1.5 offset 1h", "a[5m] @ 1.500 offset 1h"),
        ("a offset -1h @ end()", "a @ end() offset -1h"),
        ("a[60:30] offset 5", "a[1m:30s] offset 5s"),
        ("a[1h:]", "a[1h:]"),
        ("a[5m] anchored offset 1m", "a[5m] anchored offset 1m"),
        ("a smoothed", "a smoothed"),
        ("a[(5m+step())*2]", "a[(5m + step()) * 2]"),
        ("a[(300)]", "a[(300)]"),
        ("a offset max_of(1m,step())", "a offset max_of(1m, step())"),
        ("a offset -(1m)", "a offset -(1m)"),
        ("--1", "1"),
        ("-a^2", "-a ^ 2"),
        ("1e3", "1000"),
        ("90m", "1h30m"),
        ("-1h", "-1h"),
        ("'a\"b'", '"a\\"b"'),
    ],
)
def test_prometheus_prints_this_so(text: str, printed: str) -> None:
    assert format_expr(parse(text)) == printed


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.0, "1"),
        (1e21, "1000000000000000000000"),
        (1.5e-7, "0.00000015"),
        (-2.5e17, "-250000000000000000"),
        (float("inf"), "+Inf"),
        (float("nan"), "NaN"),
    ],
)
def test_numbers_have_no_exponents(value: float, text: str) -> None:
    assert format_number(value) == text


def test_what_fits_in_100_characters_stays_on_one_line() -> None:
    name = "a" * 95
    assert pretty(parse(f"abs({name})")) == f"abs({name})"
    assert pretty(parse(f"abs({name}a)")) == f"abs(\n  {name}a\n)"


def test_long_expressions_are_split_at_operators_calls_and_parentheses() -> None:
    long = "x" * 60
    text = f'sum by (job) (rate({long}{{a="b"}}[5m])) > bool on (job) topk(1, -({long} + max_over_time({long}[5m:1m])))'
    assert pretty(parse(text)) == "\n".join(
        [
            f'  sum by (job) (rate({long}{{a="b"}}[5m]))',
            "> bool on (job)",
            "  topk(",
            "    1,",
            "    -(",
            f"        {long}",
            "      +",
            f"        max_over_time({long}[5m:1m])",
            "    )",
            "  )",
        ]
    )


def test_the_description_has_upstreams_names() -> None:
    tree = parse('sum by (a) (rate(m{b="c"}[5m] offset 1m))')
    selector = {
        "type": "matrixSelector",
        "name": "m",
        "range": 300_000,
        "rangeExpr": None,
        "offset": 60_000,
        "offsetExpr": None,
        "matchers": [
            {"name": "b", "value": "c", "type": "="},
            {"name": "__name__", "value": "m", "type": "="},
        ],
        "timestamp": None,
        "startOrEnd": None,
        "anchored": False,
        "smoothed": False,
    }
    function = {"name": "rate", "argTypes": ["matrix"], "variadic": 0, "returnType": "vector"}
    assert describe(tree) == {
        "type": "aggregation",
        "op": "sum",
        "expr": {"type": "call", "func": function, "args": [selector]},
        "param": None,
        "grouping": ["a"],
        "without": False,
    }


def test_durations_say_in_the_description_how_they_are_written() -> None:
    assert describe(parse("a[max_of(1m, step())]"))["rangeExpr"] == {
        "type": "durationExpr",
        "op": "max_of",
        "lhs": {"type": "numberLiteral", "val": "60", "duration": True},
        "rhs": {"type": "durationExpr", "op": "step", "lhs": None, "rhs": None, "wrapped": False},
        "wrapped": False,
    }
