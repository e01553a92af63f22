"""The engine answers as the slow evaluator does, whatever the data, however series are batched or placed."""

from __future__ import annotations

import dataclasses
import math
import pickle
from collections.abc import Iterator

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mimir_ray.model.labels import Labels, labels_of
from mimir_ray.model.result import Matrix, Vector
from mimir_ray.model.series import STALE_NAN, SeriesBatch
from mimir_ray.promql.engine import Engine, EngineOptions
from mimir_ray.promql.limits import EvaluationError
from mimir_ray.promql.operators.fragment import execute_fragment
from mimir_ray.promql.plan.fragment import Fragment, FragmentPart
from mimir_ray.promql.source import Selection, Shard
from mimir_ray.promql.syntax.parser import parse
from mimir_ray.testing.sources import ListSource

from .slow_engine import Refused, SlowEngine

SCRAPE_MS = 30_000
SAMPLES = 24
START, END, STEP = 60_000, 660_000, 45_000

values = st.one_of(
    st.integers(-3, 5).map(float),
    st.sampled_from([0.5, 1e100, math.nan, math.inf, -math.inf, STALE_NAN]),
)


@st.composite
def sources(draw: st.DrawFn) -> ListSource:
    source = ListSource()
    for name in ("a", "b"):
        for x in ("", "1", "2"):
            for y in ("1", "2"):
                if draw(st.booleans()):
                    samples = draw(st.lists(st.one_of(st.none(), values), min_size=SAMPLES, max_size=SAMPLES))
                    points = [(i * SCRAPE_MS, value) for i, value in enumerate(samples) if value is not None]
                    source.add(labels_of({"__name__": name, "x": x, "y": y}), points)
    return source


selectors = st.sampled_from([
    "a", "b", 'a{x="1"}', 'b{y!="1"}', '{__name__=~"a|b"}', "a offset 1m", "a @ 300", "b offset -90s", "nothing",
])  # fmt: skip
aggregations = st.sampled_from(["sum", "avg", "min", "max", "count", "group", "stddev", "quantile(0.3, "])
groupings = st.sampled_from(["", " by (x)", " without (x)", " by (x, y)", " by (nope)", " without ()"])
operators = st.sampled_from(["+", "-", "*", "/", "==", "!=", "<", ">=", "> bool", "!= bool"])
matchings = st.sampled_from([
    "", " on (x, y)", " on (x)", " ignoring (x)", " on (y) group_left", " on (x) group_right (y)",
    " on () group_left (x)",
])  # fmt: skip
set_operators = st.sampled_from(["and", "or", "unless"])


def _aggregate(op: str, grouping: str, inner: str) -> str:
    return f"quantile{grouping} (0.3, {inner})" if op.startswith("quantile") else f"{op}{grouping} ({inner})"


def _extend(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.builds(_aggregate, aggregations, groupings, inner),
        st.builds(lambda a, op, m, b: f"({a}) {op}{m} ({b})", inner, operators, matchings, inner),
        st.builds(lambda a, op, b: f"({a}) {op} {b}", inner, operators, st.sampled_from(["2", "0", "-1.5"])),
        st.builds(lambda a, op, b: f"{b} {op} ({a})", inner, operators, st.sampled_from(["2", "0"])),
        st.builds(
            lambda a, op, m, b: f"({a}) {op}{m} ({b})",
            inner, set_operators, st.sampled_from(["", " on (x)", " ignoring (x)"]), inner,
        ),
        st.builds(lambda a: f"-({a})", inner),
        st.builds(lambda a: f"max_over_time(({a})[2m:45s])", inner),
    )  # fmt: skip


queries = st.recursive(
    st.one_of(selectors, st.builds(lambda a: f"max_over_time({a}[90s])", st.sampled_from(["a", 'b{x="1"}']))),
    _extend,
    max_leaves=4,
)


def points_of(matrix: Matrix) -> dict[Labels, dict[int, float]]:
    return {labels: dict(points) for labels, points in matrix.items()}


def same(found: dict[Labels, dict[int, float]], wanted: dict[Labels, dict[int, float]]) -> bool:
    if {labels: set(points) for labels, points in found.items()} != {
        labels: set(points) for labels, points in wanted.items()
    }:
        return False
    return all(close(found[labels][at], value) for labels, points in wanted.items() for at, value in points.items())


def close(a: float, b: float) -> bool:
    return (math.isnan(a) and math.isnan(b)) or a == b or math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-9)


def usable(query: str) -> object:
    try:
        return parse(query)
    except Exception:  # many a random query is not well typed
        assume(False)
        raise


class SmallBatches:
    """A source in batches of two series, each with strings of its own."""

    def __init__(self, source: ListSource) -> None:
        self._source = source

    def select(self, selection: Selection) -> Iterator[SeriesBatch]:
        for batch in self._source.select(dataclasses.replace(selection, batch_series=2)):
            yield pickle.loads(pickle.dumps(batch))


class Owners(SmallBatches):
    """A source whose series live at three owners that run fragments."""

    def __init__(self, source: ListSource) -> None:
        super().__init__(source)
        self.fragments = self
        self.asked = 0

    def run(self, fragment: Fragment) -> Iterator[FragmentPart]:
        self.asked += 1
        for index in range(3):
            sent = pickle.loads(pickle.dumps(dataclasses.replace(fragment, shard=Shard(index, 3))))
            for part in execute_fragment(sent, self._source):
                yield pickle.loads(pickle.dumps(part))


# Where series of several values that differ by 200 orders meet, sums depend on the order of addition.
tame = sources()


@given(tame, queries)
def test_a_range_query_is_the_slow_evaluation_of_each_step(source: ListSource, query: str) -> None:
    tree = usable(query)
    engine = Engine()
    try:
        wanted = SlowEngine(source).range(tree, START, END, STEP)
    except Refused as refused:
        with pytest.raises(EvaluationError) as raised:
            engine.range(query, source, START, END, STEP)
        assert str(refused).split(":")[0] in str(raised.value) or "same labelset" in str(raised.value)
        return
    found = points_of(engine.range(query, source, START, END, STEP).value)
    assert same(found, wanted), (query, found, wanted)


@given(tame, queries)
def test_batches_and_owners_do_not_change_an_answer(source: ListSource, query: str) -> None:
    usable(query)
    engine = Engine()
    try:
        wanted = points_of(engine.range(query, source, START, END, STEP).value)
    except EvaluationError:
        for other in (SmallBatches(source), Owners(source)):
            with pytest.raises(EvaluationError):
                engine.range(query, other, START, END, STEP)
        return
    for other in (SmallBatches(source), Owners(source)):
        found = points_of(engine.range(query, other, START, END, STEP).value)
        assert same(found, wanted), (query, type(other))


@given(tame, queries)
def test_an_instant_query_is_one_step_of_the_range_query(source: ListSource, query: str) -> None:
    tree = usable(query)
    assume(tree.type.value == "vector")
    engine = Engine()
    try:
        matrix = points_of(engine.range(query, source, START, END, STEP).value)
    except EvaluationError:
        return
    for now in range(START, END + 1, 4 * STEP):
        vector = engine.instant(query, source, now).value
        assert isinstance(vector, Vector)
        wanted = {labels: {now: points[now]} for labels, points in matrix.items() if now in points}
        assert same({labels: {now: value} for labels, value in vector.items()}, wanted)


@given(tame, queries)
def test_sharing_common_parts_does_not_change_an_answer(source: ListSource, query: str) -> None:
    usable(query)
    engine = Engine(EngineOptions(enable_delayed_name_removal=True))
    doubled = f"({query}) or ({query})"
    answers = []
    for stats in (True, False):  # counting samples evaluates every part on its own
        try:
            answers.append(points_of(engine.range(doubled, source, START, END, STEP, stats=stats).value))
        except EvaluationError as error:
            answers.append({(("error", str(error)),): {0: 0.0}})
    assert same(*answers)
