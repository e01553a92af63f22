"""`/api/v1/query_exemplars` over HTTP."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mimir_ray.model.exemplars import Exemplar, SeriesExemplars, merge_exemplars
from mimir_ray.model.labels import labels_of
from tests.gateway.serving import NOW_MS, Gateway
from tests.gateway.test_query_api import API, error_of

UP = labels_of({"__name__": "up", "job": "a"})
TRACE = labels_of({"trace_id": 'a"b'})
NOW = NOW_MS / 1000


@pytest.fixture
def filled(gateway: Gateway) -> Iterator[Gateway]:
    gateway.lists.of().exemplified = [
        SeriesExemplars(UP, (Exemplar(TRACE, 1.0, NOW_MS), Exemplar(TRACE, float("inf"), NOW_MS + 5))),
        SeriesExemplars(labels_of({"__name__": "down"}), (Exemplar(TRACE, 2.5, NOW_MS),)),
    ]
    yield gateway


@pytest.mark.parametrize("method", ["ask", "form"])
def test_exemplars_of_every_selector_of_a_query_come_back(filled: Gateway, method: str) -> None:
    asked = {"query": "rate(up{job=~'a'}[5m]) / on() (other + down)", "start": NOW - 1, "end": NOW + 1}
    assert getattr(filled, method)(f"{API}/query_exemplars", asked).data == [
        {
            "seriesLabels": {"__name__": "up", "job": "a"},
            "exemplars": [
                {"labels": {"trace_id": 'a"b'}, "value": "1", "timestamp": NOW},
                {"labels": {"trace_id": 'a"b'}, "value": "+Inf", "timestamp": NOW + 0.005},
            ],
        },
        {
            "seriesLabels": {"__name__": "down"},
            "exemplars": [{"labels": {"trace_id": 'a"b'}, "value": "2.5", "timestamp": NOW}],
        },
    ]


def test_grafanas_probe_with_milliseconds_for_seconds_is_answered(filled: Gateway) -> None:
    answer = filled.ask(f"{API}/query_exemplars", {"query": "test", "start": NOW_MS - 1000, "end": NOW_MS})
    assert (answer.status, answer.body) == (200, b'{"status":"success","data":[]}')


def test_without_times_all_are_asked_for(filled: Gateway) -> None:
    assert len(filled.ask(f"{API}/query_exemplars", {"query": "up"}).data) == 1
    _, mint, maxt = filled.lists.of().asked_exemplars
    assert mint < -9_000_000_000_000 and maxt > 9_000_000_000_000


def test_a_query_that_selects_nothing_has_no_data(filled: Gateway) -> None:
    assert filled.ask(f"{API}/query_exemplars", {"query": "1 + 1"}).body == b'{"status":"success"}'


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ({"query": "up{"}, "1:4: parse error: unexpected end of input inside braces"),
        ({}, "unknown position: parse error: no expression found in input"),
        (
            {"query": "up", "start": "x"},
            'invalid parameter "start": invalid time value for \'start\': cannot parse "x" to a valid timestamp',
        ),
        (
            {"query": "up", "end": "x"},
            'invalid parameter "end": invalid time value for \'end\': cannot parse "x" to a valid timestamp',
        ),
        ({"query": "up", "start": 2, "end": 1}, "end timestamp must not be before start timestamp"),
    ],
)
def test_what_makes_no_sense_is_bad_data(filled: Gateway, asked: dict[str, str], text: str) -> None:
    assert error_of(filled.ask(f"{API}/query_exemplars", asked)) == (400, "bad_data", text)


def test_without_a_tenant_nobody_is_answered(gateway: Gateway) -> None:
    assert gateway.ask(f"{API}/query_exemplars", {"query": "up"}, method="PUT").status == 405


def test_answers_of_replicas_are_one() -> None:
    one, other = Exemplar(TRACE, 1.0, 5), Exemplar(TRACE, 2.0, 3)
    down = labels_of({"__name__": "down"})
    assert merge_exemplars(
        [[SeriesExemplars(UP, (one,))], [SeriesExemplars(down, (one,)), SeriesExemplars(UP, (other, one))]]
    ) == [
        SeriesExemplars(down, (one,)),
        SeriesExemplars(UP, (other, one)),
    ]
