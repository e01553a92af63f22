"""Rewrites keep answers: whatever is asked of whatever data, each on and off; and what they are for."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimir_ray.errors import ClientError
from mimir_ray.promql.engine import Engine, EngineOptions
from mimir_ray.promql.plan import nodes
from mimir_ray.promql.plan.builder import PlanOptions, build
from mimir_ray.promql.plan.durations import QueryTimes
from mimir_ray.promql.plan.explain import explain
from mimir_ray.promql.plan.rewrites import REWRITES, optimise
from mimir_ray.promql.plan.rewrites.matcher_propagation import propagate_matchers
from mimir_ray.promql.source import SeriesSource
from mimir_ray.promql.syntax.parser import parse
from mimir_ray.testing.sources import ListSource
from tests.promql.test_engine_against_slow import END, START, STEP, Owners, points_of, queries, same, sources, usable

TIMES = QueryTimes(START, END, STEP)


class Without(Engine):
    """An engine that leaves some rewrites out."""

    def __init__(self, options: EngineOptions, *without: str) -> None:
        super().__init__(options)
        self._without = without

    def plan(self, query: Any, start_ms: int, end_ms: int, step_ms: int = 0, **_: Any) -> nodes.Plan:
        tree = self.parse(query) if isinstance(query, str) else query
        plan = build(tree, QueryTimes(start_ms, end_ms, step_ms), PlanOptions())
        delayed = self.options.enable_delayed_name_removal
        return optimise(plan, fragments=True, delayed_names=delayed, without=self._without)


def _joined(left: str, op: str, matching: str, right: str) -> str:
    return f"{left} {op} {matching} {right}"


_sides = st.sampled_from([
    'a{x="1"}', 'b{y=~"1|2"}', "a", "b", 'sum by (x) (b)', 'max by (x, y) (a{y!="2"})', 'rate(a{x!=""}[2m])', "-b",
    'sum by (y) (rate(b{y="1"}[2m]))', "count without (x) (a)", '(a{x="2"} > 0)', 'a{x="1"} @ 300', 'a or b{x="2"}',
    'label_replace(b, "x", "1", "", "")', 'last_over_time((a{y="1"})[2m:30s])', "sum(1 + 1 + b) by (x)",
])  # fmt: skip
_joins = st.builds(
    _joined,
    _sides,
    st.sampled_from(["+", "/", ">", "== bool"]),
    st.sampled_from(["", "on (x)", "on (x, y)", "ignoring (y)", "on (y) group_left ()", "on (x) group_right (y)"]),
    _sides,
)
_sets = st.builds(
    _joined, _sides, st.sampled_from(["and", "or", "unless"]), st.sampled_from(["", "on (x)", "ignoring (x)"]), _sides
)


def answer(engine: Engine, query: str, source: SeriesSource) -> object:
    try:
        result = engine.range(query, source, START, END, STEP)
    except ClientError as error:
        # Which of several groups is named first goes by the order in which owners give their series.
        return re.sub(r"\{.*?\}", "{}", str(error).split(":")[0])
    return points_of(result.value), sorted(result.warnings), sorted(result.infos)  # type: ignore[arg-type]


@pytest.mark.parametrize("delayed", [False, True], ids=["names at once", "names at the end"])
@pytest.mark.parametrize("name", REWRITES)
@given(source=sources(), query=st.one_of(queries, _joins, _sets))
def test_a_rewrite_does_not_change_an_answer(name: str, delayed: bool, source: ListSource, query: str) -> None:
    usable(query)
    options = EngineOptions(enable_delayed_name_removal=delayed)
    spread = Owners(source)
    wanted = answer(Without(options, name), query, spread)
    found = answer(Without(options), query, spread)
    if isinstance(wanted, str) or isinstance(found, str):
        assert wanted == found
        return
    assert isinstance(wanted, tuple)
    assert isinstance(found, tuple)
    assert same(found[0], wanted[0]), (query, found[0], wanted[0])
    assert found[1:] == wanted[1:]


def test_every_rewrite_is_a_module_of_that_name() -> None:
    for name in REWRITES:
        __import__(f"mimir_ray.promql.plan.rewrites.{name}")


def selectors_after(query: str) -> list[str]:
    root = propagate_matchers(build(parse(query), TIMES).root)
    return [
        "{" + ",".join(str(each) for each in node.matchers if each.name != "__name__") + "}"
        for node in nodes.walk(root)
        if isinstance(node, nodes.Select | nodes.RangeSelect)
    ]


@pytest.mark.parametrize(
    ("query", "selectors"),
    [
        ('a * on (x) sum by (x) (b{x="1"})', ['{x="1"}', '{x="1"}']),
        ('a{x="1"} * on (x) sum by (x) (b)', ['{x="1"}', '{x="1"}']),
        ('a{x="1"} * on (x) b', ['{x="1"}', "{}"]),  # two series of b with one x are an error, whatever their x
        ('a * on (x) b{x="1"}', ["{}", '{x="1"}']),
        ('a{x="1"} and on (x) b{y="2"}', ['{x="1"}', '{y="2",x="1"}']),
        ('a{x="1"} unless b{y="2"}', ['{x="1"}', '{y="2",x="1"}']),
        ('a{x="1"} or b{y="2"}', ['{x="1"}', '{y="2"}']),
        ('a{x="1"} and ignoring (x) b', ['{x="1"}', "{}"]),
        ('a{x="1"} and on (x) rate(b_total[5m])', ['{x="1"}', '{x="1"}']),
        ('a{x="1"} and on (x) rate(b[5m])', ['{x="1"}', "{}"]),  # which says that b is no counter
        ('a{x="1"} and on (x) label_replace(b, "x", "1", "y", ".*")', ['{x="1"}', "{}"]),
        ('a{x="1"} + on (x) fill(0) sum by (x) (b)', ['{x="1"}', "{}"]),
        ('a{x="1"} * on (x) group_right () b', ['{x="1"}', "{}"]),
        ('sum by (x) (a{x="1"}) * on (x) group_right () b', ['{x="1"}', '{x="1"}']),
    ],
)
def test_conditions_move_to_the_other_side_where_nobody_can_tell(query: str, selectors: list[str]) -> None:
    assert selectors_after(query) == selectors


def test_the_plan_shows_what_each_selector_reads() -> None:
    plan = optimise(build(parse('sum by (x) (rate(a{x="1"}[5m] offset 1m)) + 1'), TIMES))
    text = explain(plan)
    assert 'RangeSelect {x="1", __name__="a"}' in text
    assert f"reads=[{START - 6 * 60_000 + 1}, {END - 15_000 - 60_000}]" in text


def shared_after(query: str, fragments: bool = False) -> list[str]:
    plan = optimise(build(parse(query), TIMES), fragments=fragments)
    return [type(node.expr).__name__ for node in nodes.walk(plan.root) if isinstance(node, nodes.Shared)]


def test_of_what_is_repeated_the_largest_is_kept_and_once() -> None:
    assert shared_after("sum(a + 1) + sum(a + 1)") == ["Aggregate", "Aggregate"]
    assert shared_after("sum(a + 1) + sum(a + 1) + a") == ["Aggregate", "Select", "Aggregate", "Select", "Select"]


def test_what_runs_elsewhere_is_shared_as_a_whole() -> None:
    assert shared_after("sum by (x) (a + 1) + sum by (x) (a + 1)", fragments=True) == ["Exchange", "Exchange"]
