"""Any expression at all: in the ingesters, put together here, or over a plain list, the outcome is the same."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mimir_ray.errors import ClientError
from mimir_ray.model.labels import labels_of
from mimir_ray.testing.expressions import vectors
from tests.scenarios.cluster import NOW_MS, Cluster, close_to

BEGAN = NOW_MS - 3_600_000


@pytest.fixture(scope="module", params=[(2, 1), (3, 3)], ids=["sole owners", "replicas"])
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("cluster"), *request.param) as one:
        names = ("a", "up", "job:x:rate5m", "sum", "step")
        for at, (name, a, b) in enumerate(itertools.product(names, ("x", "y", ""), ("x", "a", ""))):
            labels = labels_of({"__name__": name, "a": a, "b": b, "job": "x" if at % 2 else "aa"})
            one.push([(labels, [(BEGAN + step * 30_000, float((step * (at + 1)) % 17 - 3)) for step in range(120)])])
        yield one


def outcome(call: Callable[[], dict[Any, Any]]) -> dict[Any, Any] | str:
    """The answer, or what went wrong. Of labels in a message the order is nobody's business."""
    try:
        return call()
    except ClientError as error:
        return type(error).__name__


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(query=vectors(), start=st.integers(0, 3600), count=st.integers(0, 6), step=st.sampled_from([1, 60, 1000]))
def test_any_expression_has_one_outcome(cluster: Cluster, query: str, start: int, count: int, step: int) -> None:
    begin = BEGAN + start * 1000
    span = (begin, begin + count * step * 1000, step * 1000)
    wanted = outcome(lambda: cluster.expected_range(query, *span))
    pushed = outcome(lambda: cluster.range(query, *span))
    plain = outcome(lambda: cluster.range(query, *span, fragments=False))
    if isinstance(wanted, str) or isinstance(pushed, str) or isinstance(plain, str):
        assert wanted == pushed == plain
        return
    assert close_to(pushed, wanted)
    assert close_to(plain, wanted)
