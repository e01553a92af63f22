"""From text to plan: times resolved, invariant parts hoisted, constants folded, equal parts shared."""

from __future__ import annotations

import pytest

from mimir_ray.promql.plan import nodes
from mimir_ray.promql.plan.builder import PlanOptions, build
from mimir_ray.promql.plan.durations import InvalidDuration, QueryTimes
from mimir_ray.promql.plan.explain import explain
from mimir_ray.promql.plan.rewrites import optimise
from mimir_ray.promql.plan.rewrites.common_subexpressions import share_common
from mimir_ray.promql.plan.rewrites.constant_folding import fold_constants
from mimir_ray.promql.plan.rewrites.label_pruning import prune_labels
from mimir_ray.promql.plan.rewrites.push_down import push_down
from mimir_ray.promql.plan.rewrites.step_invariant import hoist_step_invariant
from mimir_ray.promql.syntax.parser import parse

MINUTE = 60_000
TIMES = QueryTimes(10 * MINUTE, 20 * MINUTE, MINUTE)


def plan(query: str, times: QueryTimes = TIMES) -> nodes.Plan:
    return build(parse(query), times, PlanOptions())


def shape(node: nodes.PlanNode) -> str:
    """The kinds of nodes, as an expression."""
    inner = ", ".join(shape(child) for child in node.children())
    name = node.name if isinstance(node, nodes.FunctionCall) else type(node).__name__
    return f"{name}({inner})" if inner else name


def windows(query: str, times: QueryTimes = TIMES) -> list[tuple[int, int]]:
    """(mint, maxt) of each selector, in minutes and ms over."""
    built = optimise(plan(query, times), without=["common_subexpressions"])
    return [(mint, maxt) for _, mint, maxt in nodes.selections(built.root, built.steps)]


def test_steps_end_at_the_last_that_is_not_after_the_end() -> None:
    steps = nodes.Steps.between(0, 25, 10)
    assert (steps.count, steps.end_ms, steps.times.tolist()) == (3, 20, [0, 10, 20])
    assert nodes.Steps.between(10, 0, 10).count == 0


@pytest.mark.parametrize(
    ("query", "mint", "maxt"),
    [
        ("x", 5 * MINUTE + 1, 20 * MINUTE),
        ("x offset 1m", 4 * MINUTE + 1, 19 * MINUTE),
        ("x offset -1m", 6 * MINUTE + 1, 21 * MINUTE),
        ("x @ 600", 5 * MINUTE + 1, 10 * MINUTE),
        ("x @ end() offset 1m", 14 * MINUTE + 1, 19 * MINUTE),
        ("rate(x[2m])", 8 * MINUTE + 1, 20 * MINUTE),
        ("rate(x[2m] @ start())", 8 * MINUTE + 1, 10 * MINUTE),
        ("max_over_time(x[10m:1m])", -4 * MINUTE + 1, 20 * MINUTE),
        ("max_over_time(x[10m:1m] offset 1m)", -5 * MINUTE + 1, 19 * MINUTE),
        ("max_over_time(rate(x[2m])[10m:1m] @ 1200)", 9 * MINUTE + 1, 20 * MINUTE),
    ],
)
def test_a_selector_reads_what_its_steps_can_see(query: str, mint: int, maxt: int) -> None:
    assert windows(query) == [(mint, maxt)]


def test_a_subquery_runs_on_multiples_of_its_step() -> None:
    root = plan("max_over_time(x[5m:2m])").root
    assert isinstance(root, nodes.FunctionCall)
    subquery = root.args[0]
    assert isinstance(subquery, nodes.Subquery)
    steps = subquery.inner_steps(nodes.Steps(11 * MINUTE, MINUTE, 2))
    assert [at // MINUTE for at in steps.times.tolist()] == [8, 10, 12]


def test_a_subquery_before_the_epoch_excludes_its_left_edge() -> None:
    subquery = nodes.Subquery(nodes.Number(1.0), range_ms=60, step_ms=20)
    assert subquery.inner_steps(nodes.Steps(0, 1, 1)).times.tolist() == [-40, -20, 0]


def test_duration_arithmetic_knows_step_and_range() -> None:
    root = plan("rate(x[step() * 3] offset -(range() / 2))").root
    assert isinstance(root, nodes.FunctionCall)
    select = root.args[0]
    assert isinstance(select, nodes.RangeSelect)
    assert (select.range_ms, select.offset_ms) == (3 * MINUTE, -5 * MINUTE)


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("rate(x[1m - 2m])", "duration must be greater than 0"),
        ("rate(x[5m / (step() * 0)])", "division by zero"),
        ("rate(x[5m % (step() * 0)])", "modulo by zero"),
    ],
)
def test_a_duration_that_comes_out_wrong_is_refused(query: str, reason: str) -> None:
    with pytest.raises(InvalidDuration, match=reason):
        plan(query)


def test_functions_of_the_query_are_numbers() -> None:
    root = plan("end() - start() + step() + range()").root
    folded = fold_constants(root)
    assert folded == nodes.Number(600.0 + 60.0 + 600.0)


def test_the_step_of_an_instant_query_is_zero() -> None:
    assert plan("step()", QueryTimes(0, 0, 0)).root == nodes.Number(0.0)


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("x @ 1", "StepInvariant(Select)"),
        ("sum(rate(x[5m] @ 1)) / y", "Join(StepInvariant(Aggregate(rate(RangeSelect))), Select)"),
        ("x @ 1 + y @ 2", "StepInvariant(Join(Select, Select))"),
        ("timestamp(x @ 1)", "StepInvariant(timestamp(Select))"),
        ("timestamp(abs(x @ 1))", "timestamp(StepInvariant(abs(Select)))"),
        ("predict_linear(x[5m] @ 1, 60)", "predict_linear(RangeSelect, Number)"),
        ("max_over_time(vector(1)[5m:1m])", "max_over_time(Subquery(StepInvariant(vector(Number))))"),
        ("max_over_time(x[5m:1m] @ 1)", "StepInvariant(max_over_time(Subquery(Select)))"),
        ("x + 1", "VectorScalar(Select, Number)"),
        ("vector(time())", "vector(time)"),
    ],
)
def test_what_is_the_same_at_every_step_is_evaluated_once(query: str, wanted: str) -> None:
    assert shape(hoist_step_invariant(plan(query).root)) == wanted


def test_constants_fold_through_scalars_only() -> None:
    assert shape(fold_constants(plan("x * (2 ^ 3 - 1)").root)) == "VectorScalar(Select, Number)"
    assert fold_constants(plan("-(1 / 0)").root) == nodes.Number(float("-inf"))


def test_equal_parts_are_shared_wherever_they_stand() -> None:
    root = share_common(plan("sum(rate(x[5m])) / count(rate(x[5m]))").root)
    assert shape(root) == "Join(Aggregate(Shared(rate(RangeSelect))), Aggregate(Shared(rate(RangeSelect))))"
    assert shape(share_common(plan("x + (x offset 1m)").root)) == "Join(Select, Select)"


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("sum(rate(x[5m]))", "Exchange(Aggregate(rate(RangeSelect)))"),
        ("topk(3, rate(x[5m]))", "Aggregate(Exchange(rate(RangeSelect)), Number)"),
        ("avg by (a) (x * 2) > 1", "VectorScalar(Exchange(Aggregate(VectorScalar(Select, Number))), Number)"),
        ("x", "Exchange(Select)"),
        ("abs(x)", "Exchange(abs(Select))"),
        ("x / on (a) y", "Join(Exchange(Select), Exchange(Select))"),
        ('sum({a="1"} * 2)', "Aggregate(VectorScalar(Exchange(Select), Number))"),
        ("sum(x * scalar(y))", "Aggregate(VectorScalar(Exchange(Select), scalar(Exchange(Select))))"),
        (
            'sum(label_replace(x, "a", "", "", ""))',
            "Aggregate(label_replace(Exchange(Select), Text, Text, Text, Text))",
        ),
        ("absent_over_time(x[5m])", "absent_over_time(RangeSelect)"),
        ("histogram_quantile(0.9, rate(x[5m]))", "histogram_quantile(Number, Exchange(rate(RangeSelect)))"),
        ("stddev(x)", "Aggregate(Exchange(Select))"),
    ],
)
def test_per_series_work_and_aggregations_in_parts_move_to_the_series(query: str, wanted: str) -> None:
    children = shape(push_down(plan(query).root))
    assert children == wanted


@pytest.mark.parametrize(
    ("query", "labels"),
    [
        ("sum by (b, a) (rate(x[5m]))", ("__name__", "a", "b")),
        ("sum(x)", ("__name__",)),
        ("max by (a) (abs(x) * 2)", ("__name__", "a")),
        ("sum without (a) (x)", None),
        ("sum by (a) (topk(1, x))", None),
        ('sum by (a) (rate({b="1"}[5m]))', None),
        ("topk by (a) (1, x)", None),
        ("x", None),
    ],
)
def test_labels_that_nobody_reads_are_not_carried(query: str, labels: tuple[str, ...] | None) -> None:
    found = [node for node in nodes.walk(prune_labels(plan(query).root)) if hasattr(node, "matchers")]
    assert [node.labels for node in found] == [labels]


def test_explain_tells_kinds_settings_and_ranges() -> None:
    text = explain(optimise(plan("sum by (a) (rate(x[5m] offset 1m))")))
    assert text.splitlines() == [
        "11 steps of 60000 ms from 600000",
        "  Aggregate op=sum grouping=(a)",
        "    FunctionCall name=rate",
        '      RangeSelect {__name__="x"} range_ms=300000 offset_ms=60000 labels=(__name__, a) reads=[240001, 1140000]',
    ]
