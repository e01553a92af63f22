"""What the engine promises beside values: order, errors, limits, annotations, statistics."""

from __future__ import annotations

import pickle
from collections.abc import Iterator

import numpy as np
import pytest

from mimir_ray.errors import InvalidArgument
from mimir_ray.model.float_histogram import FloatHistogram
from mimir_ray.model.labels import Labels, labels_of
from mimir_ray.model.result import Matrix, QueryResult, Scalar, String, Vector
from mimir_ray.model.series import STALE_NAN, SeriesBatch
from mimir_ray.promql.annotations import Annotations, go_float
from mimir_ray.promql.engine import Engine, EngineOptions
from mimir_ray.promql.limits import (
    Cancellation,
    EvaluationError,
    QueryCancelled,
    QueryLimits,
    QueryTimeout,
    TooManySamples,
)
from mimir_ray.promql.source import Selection
from mimir_ray.promql.syntax.ast import Span
from mimir_ray.testing.sources import ListSource

MINUTE = 60_000


def series(text: str) -> Labels:
    """`name a=1 b=2`."""
    name, *rest = text.split()
    return labels_of([("__name__", name), *(tuple(one.split("=")) for one in rest)])


def source(**values: list[float | None]) -> ListSource:
    """Series by `name__a_1__b_2`, a sample each minute."""
    made = ListSource()
    for key, samples in values.items():
        name, *rest = key.split("__")
        labels = series(" ".join([name, *(one.replace("_", "=") for one in rest)]))
        made.add(labels, [(i * MINUTE, value) for i, value in enumerate(samples) if value is not None])
    return made


def instant(query: str, data: ListSource, at: int = 0, **options: object) -> QueryResult:
    return Engine(EngineOptions(**options)).instant(query, data, at)  # type: ignore[arg-type]


def vector(query: str, data: ListSource, at: int = 0) -> list[tuple[Labels, float]]:
    value = instant(query, data, at).value
    assert isinstance(value, Vector)
    return list(value.items())


PODS = source(x__pod_c=[3.0], x__pod_a=[1.0], x__pod_b=[2.0])


def pods(query: str) -> list[str]:
    return [dict(labels)["pod"] for labels, _ in vector(query, PODS)]


def test_results_are_of_the_type_of_the_expression() -> None:
    assert instant("1 + 1", PODS, 5).value == Scalar(5, 2.0)
    assert instant("'text'", PODS, 5).value == String(5, "text")
    assert isinstance(instant("x", PODS).value, Vector)
    assert isinstance(instant("x[5m]", PODS).value, Matrix)


def test_a_vector_is_in_the_order_of_labels() -> None:
    assert pods("x") == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("sort_desc(x)", ["c", "b", "a"]),
        ("sort_desc(x) * 2", ["c", "b", "a"]),
        ("topk(2, x)", ["c", "b"]),
        ("bottomk(2, x)", ["a", "b"]),
        ("sort_desc(x) * on (pod) x", ["c", "b", "a"]),
        ("sort_desc(x) and x", ["c", "b", "a"]),
        ("-sort_desc(x)", ["c", "b", "a"]),
        ("sum by (pod) (sort_desc(x))", ["a", "b", "c"]),
    ],
)
def test_sorting_and_ranking_decide_the_order_of_a_vector(query: str, wanted: list[str]) -> None:
    assert pods(query) == wanted


def test_a_matrix_is_in_the_order_of_labels_whatever_was_sorted() -> None:
    result = Engine().range("sort_desc(x)", PODS, 0, MINUTE, MINUTE)
    assert isinstance(result.value, Matrix)
    assert [dict(labels)["pod"] for labels, _ in result.value.items()] == ["a", "b", "c"]
    assert result.warnings == [
        "PromQL warning: sort is ineffective for range queries since results are always ordered by labels (1:1)"
    ]


def test_a_bare_range_selector_gives_the_samples_but_no_markers() -> None:
    value = instant("x[3m]", source(x=[1.0, 2.0, STALE_NAN, 4.0]), 3 * MINUTE).value
    assert isinstance(value, Matrix)
    assert list(value.items()) == [(series("x"), [(MINUTE, 2.0), (3 * MINUTE, 4.0)])]


def test_a_sample_as_old_as_the_lookback_is_not_seen() -> None:
    data = source(x=[1.0])
    assert vector("x", data, 5 * MINUTE - 1)
    assert not vector("x", data, 5 * MINUTE)
    assert Engine().instant("x", data, 9 * MINUTE, lookback_ms=10 * MINUTE).value.values.tolist() == [1.0]  # type: ignore[union-attr]


def test_the_time_of_a_sample_is_its_own() -> None:
    assert vector("timestamp(x)", source(x=[1.0]), MINUTE) == [((), 0.0)]
    assert vector("timestamp(x + 0)", source(x=[1.0]), MINUTE) == [((), 60.0)]


TWO = source(a__k_1__i_1=[1.0], a__k_1__i_2=[2.0], b__k_1__i_1=[3.0], b__k_1__i_2=[4.0], c__k_1=[5.0])


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (
            "c * on (k) a",
            'found duplicate series for the match group {k="1"} on the right hand-side of the operation: '
            '[{__name__="a", i="1", k="1"}, {__name__="a", i="2", k="1"}];many-to-many matching not allowed: '
            "matching labels must be unique on one side",
        ),
        (
            "b * on (k) group_right a",
            'found duplicate series for the match group {k="1"} on the left hand-side of the operation: '
            '[{__name__="b", i="1", k="1"}, {__name__="b", i="2", k="1"}];many-to-many matching not allowed: '
            "matching labels must be unique on one side",
        ),
        (
            "a * on (k) c",
            "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)",
        ),
        (
            "a * on (k) group_left (i) c",
            "multiple matches for labels: grouping labels must ensure unique matches",
        ),
        ('-{__name__=~"a|b"}', "vector cannot contain metrics with the same labelset"),
        ('rate({__name__=~"a|b"}[5m])', "vector cannot contain metrics with the same labelset"),
        ("topk(scalar(nothing), a)", "Parameter value is NaN"),
        ("limit_ratio(NaN, a)", "Ratio value is NaN"),
        ("topk(1e30, a)", "Scalar value 1e+30 overflows int64"),
        ("topk(vector(1), a)", None),
    ],
)
def test_errors_are_upstreams(query: str, message: str | None) -> None:
    two_samples = ListSource([(labels, [(0, 1.0), (1000, 2.0)]) for labels in TWO.series])
    with pytest.raises((EvaluationError, InvalidArgument)) as raised:
        instant(query, two_samples, 2000)
    assert message is None or str(raised.value) == message


def test_a_twin_is_no_error_at_steps_that_have_only_one() -> None:
    data = source(a=[1.0, 1.0], b__i_1=[2.0, None], b__i_2=[STALE_NAN, 3.0])
    data.add(series("b i=1"), [(MINUTE, STALE_NAN)])
    result = Engine().range("a + on () b", data, 0, MINUTE, MINUTE).value
    assert isinstance(result, Matrix)
    assert list(result.items()) == [((), [(0, 3.0), (MINUTE, 4.0)])]


def test_fill_values_stand_in_for_who_is_missing() -> None:
    data = source(a__i_1=[1.0], a__i_2=[2.0], b__i_2=[10.0], b__i_3=[20.0])
    found = [(dict(labels)["i"], value) for labels, value in vector("a + fill_left (100) fill_right (1000) b", data)]
    assert found == [("1", 1001.0), ("2", 12.0), ("3", 120.0)]


def test_names_go_at_once_or_at_the_end() -> None:
    data = source(a__i_1=[1.0], b__i_1=[2.0])
    query = 'label_replace(-{__name__=~"a|b"}, "__name__", "neg_$1", "__name__", "(.*)")'
    with pytest.raises(EvaluationError):
        instant(query, data)
    value = instant(query, data, enable_delayed_name_removal=True).value
    assert isinstance(value, Vector)
    assert [dict(labels)["__name__"] for labels, _ in value.items()] == ["neg_a", "neg_b"]


def test_names_that_are_gone_at_the_end_must_not_leave_twins() -> None:
    with pytest.raises(EvaluationError, match="same labelset"):
        instant('-{__name__=~"a|b"}', source(a=[1.0], b=[2.0]), enable_delayed_name_removal=True)


def test_only_scalars_and_vectors_have_range_queries() -> None:
    with pytest.raises(InvalidArgument, match='invalid expression type "range vector" for range query'):
        Engine().range("x[5m]", PODS, 0, MINUTE, MINUTE)
    with pytest.raises(InvalidArgument, match="zero or negative"):
        Engine().range("x", PODS, 0, MINUTE, 0)


def test_too_many_samples_are_refused() -> None:
    limits = QueryLimits(max_samples=2)
    with pytest.raises(TooManySamples) as raised:
        Engine().instant("x", PODS, 0, limits=limits)
    text = "query processing would load too many samples into memory in query execution"
    assert str(raised.value) == text == str(pickle.loads(pickle.dumps(raised.value)))
    assert Engine().instant("x", PODS, 0, limits=QueryLimits(max_samples=3)).stats.samples.peak == 3


class Slow:
    """A source during whose answer something happens."""

    def __init__(self, happens: object) -> None:
        self._happens = happens

    def select(self, selection: Selection) -> Iterator[SeriesBatch]:
        for batch in PODS.select(selection):
            self._happens()  # type: ignore[operator]
            yield batch


def test_a_cancelled_query_stops_at_the_next_batch() -> None:
    cancel = Cancellation()
    with pytest.raises(QueryCancelled, match="query was canceled in expression evaluation"):
        Engine().instant("x", Slow(cancel.cancel), 0, cancel=cancel)


def test_a_query_stops_at_its_deadline() -> None:
    now = [0.0]
    engine = Engine(EngineOptions(timeout_s=1.0), monotonic_s=lambda: now[0])

    def wait() -> None:
        now[0] += 2.0

    with pytest.raises(QueryTimeout, match="query timed out in expression evaluation"):
        engine.instant("x", Slow(wait), 0)


def test_the_earlier_of_two_deadlines_counts() -> None:
    now = [0.0]
    outer = Cancellation(10.0, lambda: now[0])
    inner = Cancellation(20.0, lambda: now[0], parent=outer)
    assert inner.remaining_s() == 10.0
    inner.check()
    now[0] = 10.0
    with pytest.raises(QueryTimeout):
        inner.check()


def test_a_callers_cancellation_works_beside_the_engines_deadline() -> None:
    cancel = Cancellation()
    with pytest.raises(QueryCancelled):
        Engine(EngineOptions(timeout_s=60.0)).instant("x", Slow(cancel.cancel), 0, cancel=cancel)


def test_sparse_series_on_very_many_steps_are_refused_before_they_fill_memory() -> None:
    data = ListSource([(series(f"x i={i}"), [(0, 1.0)]) for i in range(10)])
    limits = QueryLimits(max_samples=100)
    for query in ("x", "sum by (i) (x)"):
        assert Engine().range(query, data, 0, 79, 1, lookback_ms=1, limits=limits)
        with pytest.raises(TooManySamples):
            Engine().range(query, data, 0, 80, 1, lookback_ms=1, limits=limits)


def test_a_shared_part_that_the_limit_has_no_room_for_is_evaluated_again() -> None:
    assert len(Engine().instant("count(x) + sum(x)", PODS, 0, limits=QueryLimits(max_samples=5)).value) == 1  # type: ignore[arg-type]


def test_annotations_say_where() -> None:
    data = source(x=[1.0, 2.0, 3.0])
    result = instant("1 +\n  rate(x[5m])", data, 2 * MINUTE)
    assert result.infos == [
        'PromQL info: metric might not be a counter, name does not end in _total/_sum/_count/_bucket: "x" (2:8)'
    ]
    assert instant("quantile(1.5, x)", data).warnings == [
        "PromQL warning: quantile value should be between 0 and 1, got 1.5 (1:10)"
    ]
    assert instant("limit_ratio(-2, x)", data).warnings == [
        "PromQL warning: ratio value should be between -1 and 1, got -2, capping to -1 (1:13)"
    ]


def test_annotations_are_told_once_and_not_too_many() -> None:
    found = Annotations()
    for text in ("a", "b", "b", "c"):
        found.warn(text, Span(0, 1))
    warnings, infos = found.as_strings("xyz", warnings_max=2)
    assert warnings == ["PromQL warning: a (1:1)", "PromQL warning: b (1:1)", "1 more warning annotations omitted"]
    assert infos == []


def test_forced_monotonicity_merges_what_it_saw() -> None:
    found = Annotations()
    found.forced_monotonicity("h", Span(0, 1), 60_000, 60_000, 1.0, 2.0, 0.25, 1)
    found.forced_monotonicity("h", Span(0, 1), 0, 0, 0.5, 1.0, 0.125, 2)
    assert found.as_strings("h")[1] == [
        "PromQL info: input to histogram_quantile needed to be fixed for monotonicity (see "
        "https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile) for metric name "
        '"h", from buckets 0.5 to 2, with a max diff of 0.25, over 3 samples from 1970-01-01T00:00:00Z to '
        "1970-01-01T00:01:00Z (1:1)"
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.0, "1"), (-0.5, "-0.5"), (1e6, "1e+06"), (123456.0, "123456"), (1234567.0, "1.234567e+06"), (1e-5, "1e-05"),
     (0.0001, "0.0001"), (float("inf"), "+Inf"), (float("nan"), "NaN"), (-0.0, "-0"), (1e100, "1e+100")],
)  # fmt: skip
def test_numbers_in_texts_are_gos(value: float, text: str) -> None:
    assert go_float(value) == text


@pytest.mark.parametrize("query", ["rate({0}[2m])", "sum by (job) (increase({0}[2m]))"])
def test_with_type_labels_a_counter_is_what_has_its_type(query: str) -> None:
    data = ListSource()
    for name, kind in (("a", "counter"), ("b_total", "gauge"), ("c", ""), ("d", "histogram")):
        labels = {"__name__": name, "job": "x", "of": name} | ({"__type__": kind} if kind else {})
        data.add(labels, [(at * MINUTE, float(at)) for at in range(9)])
    text = 'PromQL info: metric might not be a counter, __type__ label is not set to "counter" or "histogram", got '
    engine = Engine(EngineOptions(enable_type_and_unit_labels=True, enable_delayed_name_removal=True))
    asked = query.format('{__name__=~".+"}')
    where = f"(1:{asked.index('{') + 1})"
    infos = engine.instant(asked, data, 5 * MINUTE).infos
    assert sorted(infos) == [f'{text}"": "c" {where}', f'{text}"gauge": "b_total" {where}']
    limits = QueryLimits(type_labels=False)
    assert len(engine.instant(asked, data, 5 * MINUTE, limits=limits).infos) == 3


def test_statistics_count_what_each_step_looks_at() -> None:
    data = source(x=[1.0] * 10)
    engine = Engine()
    result = engine.range("sum_over_time(x[2m])", data, 0, 4 * MINUTE, 2 * MINUTE, stats=True)
    assert result.stats.samples.per_step is not None
    assert result.stats.samples.per_step.tolist() == [1, 2, 2]
    assert result.stats.samples.total == 5
    twice = engine.range("x + x", data, 0, MINUTE, MINUTE, stats=True)
    assert twice.stats.samples.total == 4
    assert engine.range("x @ 0", data, 0, 2 * MINUTE, MINUTE, stats=True).stats.samples.total == 3


@pytest.mark.parametrize(
    ("query", "total", "read"),
    [
        ("x", [1, 1, 1], [1, 1, 1]),
        ("sum_over_time(x[3m])", [1, 3, 3], [1, 2, 2]),
        ("sum_over_time(x[3m] offset 2m)", [0, 1, 3], [0, 1, 2]),
        ("sum_over_time(x[1m])", [1, 1, 1], [1, 1, 1]),
        ("x @ 0 + 0", [1, 1, 1], [1, 0, 0]),
        ("predict_linear(x[2m] @ 60, 1)", [2, 2, 2], [2, 0, 0]),
        # Of a subquery the windows over its answers count, and what it looked at is read once.
        ("max_over_time(x[3m:1m])", [1, 3, 3], [1, 2, 2]),
        ("max_over_time(x[1m:30s])", [1, 2, 2], [1, 2, 2]),
        ("max_over_time(sum_over_time(x[2m])[3m:1m])", [1, 3, 3], [1, 2, 2]),
        ("max_over_time(vector(1)[3m:1m])", [3, 3, 3], [0, 0, 0]),
        ("sum(x) + scalar(x @ 0)", [2, 2, 2], [2, 1, 1]),
        # A histogram weighs as much as upstream's: (168 + 8 + 8 * (1 span + 2 buckets)) / 16.
        ("h", [12, 12, 12], [12, 12, 12]),
        ("rate(h[3m])", [12, 36, 36], [12, 24, 24]),
        ("histogram_count(rate(h[3m]))", [11, 33, 33], [11, 22, 22]),
        ("count(h)", [12, 12, 12], [12, 12, 12]),
    ],
)
def test_samples_are_counted_as_upstream_counts_them(query: str, total: list[int], read: list[int]) -> None:
    data = source(x=[1.0] * 10)
    buckets = np.array([0, 1], np.int32), np.array([1.0, 1.0])
    histogram = FloatHistogram(0, 0.001, 0.0, 2.0, 1.0, 0, *buckets)
    data.add({"__name__": "h"}, [(at * MINUTE, histogram) for at in range(10)])
    counted = Engine().range(query, data, 0, 4 * MINUTE, 2 * MINUTE, stats=True).stats.samples
    assert counted.per_step is not None and counted.read_per_step is not None
    assert (counted.per_step.tolist(), counted.read_per_step.tolist()) == (total, read)
    assert (counted.total, counted.read) == (sum(total), sum(read))


@pytest.mark.parametrize(("query", "total"), [("x[3m]", 3), ("x[3m:30s]", 6), ("h[3m]", 36), ("h[3m:1m]", 36)])
def test_samples_of_a_range_vector_are_counted_once(query: str, total: int) -> None:
    data = source(x=[1.0] * 10)
    buckets = np.array([0, 1], np.int32), np.array([1.0, 1.0])
    data.add(
        {"__name__": "h"}, [(at * MINUTE, FloatHistogram(0, 0.001, 0.0, 2.0, 1.0, 0, *buckets)) for at in range(9)]
    )
    counted = Engine().instant(query, data, 4 * MINUTE, stats=True).stats.samples
    assert counted.per_step is not None
    assert counted.per_step.tolist() == [total] and counted.read == total


def test_parsed_queries_are_remembered_and_forgotten() -> None:
    parsed: list[str] = []

    def parse_query(text: str) -> object:
        from mimir_ray.promql.syntax.parser import parse

        parsed.append(text)
        return parse(text)

    engine = Engine(EngineOptions(parsed_queries=2), parse_query=parse_query)  # type: ignore[arg-type]
    for query in ("1", "2", "1", "3", "1", "2"):
        engine.instant(query, PODS, 0)
    assert parsed == ["1", "2", "3", "2"]


def test_count_values_prints_numbers_without_exponent() -> None:
    data = source(x__i_1=[1e21], x__i_2=[1e21], x__i_3=[-0.0], x__i_4=[1e-7], x__i_5=[float("inf")])
    found = {dict(labels)["v"]: value for labels, value in vector('count_values("v", x)', data)}
    assert found == {"1000000000000000000000": 2.0, "-0": 1.0, "0.0000001": 1.0, "+Inf": 1.0}


def test_limit_ratio_and_its_complement_share_the_series_out() -> None:
    data = ListSource([(series(f"x i={i}"), [(0, 1.0)]) for i in range(200)])
    part = {labels for labels, _ in vector("limit_ratio(0.3, x)", data)}
    rest = {labels for labels, _ in vector("limit_ratio(-0.7, x)", data)}
    assert part | rest == set(data.series) and not part & rest
    assert 40 < len(part) < 80


def test_an_answer_of_dense_steps_leaves_holes_out() -> None:
    data = source(x__i_1=[1.0, STALE_NAN, 3.0], x__i_2=[1.0, 2.0, 3.0])
    value = Engine().range("x", data, 0, 2 * MINUTE, MINUTE).value
    assert isinstance(value, Matrix)
    assert value.offsets.tolist() == [0, 2, 5]
    assert value.timestamps.tolist() == [0, 2 * MINUTE, 0, MINUTE, 2 * MINUTE]
    np.testing.assert_array_equal(value.values, [1.0, 3.0, 1.0, 2.0, 3.0])


def test_a_plan_is_made_once_where_it_does_not_speak_of_the_querys_times() -> None:
    engine = Engine()
    for query, same in (
        ("sum(rate(x[5m]))", True),
        ("x @ 10 + (x offset 5m)", True),
        ("x @ start()", False),
        ("max_over_time(x[10m:1m] @ end())", False),
        ("vector(step())", False),
        ("rate(x[step() * 2])", False),
        ("x + on () vector(range())", False),
    ):
        roots = [engine.plan(query, at, 100_000, step).root for at, step in ((0, 1000), (90_000, 2000))]
        assert (roots[0] is roots[1]) == same, query
        assert (roots[0] == roots[1]) == (same or "end()" in query), query
    assert engine.plan("x", 0, 60_000, 1000).steps != engine.plan("x", 0, 60_000, 2000).steps
    assert engine.plan("x", 0, 0).root is not engine.plan("x", 0, 0, lookback_ms=1000).root
    assert engine.plan("rate(x[5m])", 0, 0, fragments=True).root != engine.plan("rate(x[5m])", 0, 0).root
