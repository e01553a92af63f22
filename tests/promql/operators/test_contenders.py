"""Rankings hold only those series that may be kept, and answer as if they held all of them."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimir_ray.model.result import QueryResult
from mimir_ray.model.series import SeriesBatch
from mimir_ray.promql.engine import Engine, EngineOptions
from mimir_ray.promql.limits import TooManySamples
from mimir_ray.promql.operators import contenders
from mimir_ray.promql.source import Selection, SeriesSource
from mimir_ray.testing.sources import ListSource

QUERIES = [
    "topk(3, x)",
    "bottomk(2, x)",
    "topk by (job) (2, x)",
    "bottomk without (pod) (1, x * 2)",
    "topk(scalar(max(y)), x)",
    "topk(2, last_over_time(x[2m]))",
    "limitk(3, x)",
    "limitk by (job) (1, abs(x))",
    "limit_ratio(0.3, x)",
    "limit_ratio(-0.4, x)",
    'count_values("v", x)',
    'count_values by (job) ("v", x > 0)',
    'count_values without (pod) ("pod", x)',
]


class InBatches:
    """A source in batches of a few series each, every one with strings of its own, in the order that it is given."""

    def __init__(self, source: ListSource, order: list[int]) -> None:
        self._source = source
        self._order = order

    def select(self, selection: Selection) -> Iterator[SeriesBatch]:
        every = [(labels, list(points.items())) for labels, points in self._source.series.items()]
        for at in self._order:
            for labels, points in every[at::7]:
                yield from ListSource([(labels, points)]).select(selection)


def answers(query: str, source: SeriesSource, delayed: bool) -> list[QueryResult]:
    engine = Engine(EngineOptions(enable_delayed_name_removal=delayed))
    return [
        engine.instant(query, source, 120_000, stats=True),
        engine.range(query, source, 0, 180_000, 60_000, stats=True),
    ]


def shown(answer: QueryResult) -> object:
    """Everything about an answer that a user sees, the order of its series included."""
    series = [(labels, repr(value)) for labels, value in answer.value.items()]  # type: ignore[union-attr]
    return series, answer.warnings, answer.infos, answer.stats.samples.total


values = st.sampled_from([0.0, 1.0, 1.0, 2.0, 3.0, -1.0, math.nan, math.inf]) | st.floats(-5, 5)


@pytest.mark.parametrize("query", QUERIES)
@settings(max_examples=20)
@given(
    rows=st.lists(st.lists(values | st.none(), min_size=4, max_size=4), min_size=1, max_size=25),
    order=st.permutations(range(7)),
    delayed=st.booleans(),
)
def test_the_answer_is_that_of_all_series(
    query: str, rows: list[list[float | None]], order: list[int], delayed: bool
) -> None:
    source = ListSource(
        (
            {"__name__": "x", "job": f"job-{number % 3}", "pod": f"pod-{number}"},
            [(60_000 * step, value) for step, value in enumerate(row) if value is not None],
        )
        for number, row in enumerate(rows)
    )
    source.add({"__name__": "y"}, [(0, 2.0)])
    batches = InBatches(source, order)
    expected = [shown(answer) for answer in answers(query, batches, delayed)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contenders, "ROWS_MIN", 2)
        assert [shown(answer) for answer in answers(query, batches, delayed)] == expected


def test_equal_values_beyond_what_is_held_are_ranked_as_if_all_were_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which of equal series stay depends on the order in which a heap meets better ones."""
    monkeypatch.setattr(contenders, "ROWS_MIN", 2)
    values = {"a": 1.0, "b": 1.0, "c": 2.0, "d": 0.5, "e": 1.0, "f": 1.0}
    source = ListSource(({"__name__": "x", "pod": pod}, [(0, value)]) for pod, value in values.items())
    (answer, _) = answers("topk(2, x)", InBatches(source, [5, 4, 3, 2, 1, 0, 6]), delayed=False)
    assert [dict(labels)["pod"] for labels, _ in answer.value.items()] == ["c", "b"]  # type: ignore[union-attr]


def test_rankings_need_room_for_what_they_read_and_no_more() -> None:
    source = ListSource(({"__name__": "x", "pod": str(pod)}, [(0, float(pod))]) for pod in range(20))
    for query in ("topk(2, x)", "limitk(2, x)", "limit_ratio(0.5, x)"):
        Engine(EngineOptions(max_samples=20)).instant(query, source, 0)
        with pytest.raises(TooManySamples):
            Engine(EngineOptions(max_samples=19)).instant(query, source, 0)
