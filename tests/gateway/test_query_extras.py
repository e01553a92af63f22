"""What queries over HTTP may ask for beside an answer, and what tenants' limits say there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.gateway.serving import Gateway
from tests.gateway.test_query_api import API, NOW, error_of, fill

RANGE = {"query": "up", "start": NOW - 30, "end": NOW, "step": "15"}


@pytest.fixture
def filled(gateway: Gateway) -> Iterator[Gateway]:
    fill(gateway)
    yield gateway


def test_samples_of_each_step_come_with_all_statistics(filled: Gateway) -> None:
    samples = filled.ask(f"{API}/query_range", RANGE | {"stats": "all"}).data["stats"]["samples"]
    steps = samples["totalQueryableSamplesPerStep"]
    assert steps == [[NOW - 30, 3], [NOW - 15, 3], [NOW, 3]]
    assert samples["totalQueryableSamples"] == 9
    plain = filled.ask(f"{API}/query_range", RANGE | {"stats": "true"}).data["stats"]["samples"]
    assert "totalQueryableSamplesPerStep" not in plain


def test_a_plan_comes_instead_of_an_answer(filled: Gateway) -> None:
    for path, asked in (("query", {"query": "up", "time": "60"}), ("query_range", RANGE)):
        data = filled.ask(f"{API}/{path}", asked | {"explain": "1"}).data
        assert list(data) == ["explain"]
        assert 'Select {__name__="up"}' in data["explain"]


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ('sort_by_label(up, "a")', 'function "sort_by_label" is not enabled for tenant anonymous'),
        ("limitk(1, up)", 'aggregate "limitk" is not enabled for tenant anonymous'),
        ("up smoothed", 'extended range selector modifier "smoothed" is not enabled for tenant anonymous'),
    ],
)
def test_experimental_parts_are_refused_as_bad_data(filled: Gateway, query: str, text: str) -> None:
    answer = filled.ask(f"{API}/query", {"query": query})
    assert error_of(answer) == (400, "bad_data", f'invalid parameter "query": {text}')
