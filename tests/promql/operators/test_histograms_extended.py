"""Anchored and smoothed windows over native histograms: their counts go the way of floats of the same size."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimir_ray.model.float_histogram import GAUGE, FloatHistogram
from mimir_ray.model.result import Matrix
from mimir_ray.promql.engine import Engine
from mimir_ray.promql.limits import EvaluationError
from mimir_ray.testing.sources import ListSource

SECOND = 1000
counts = st.lists(st.one_of(st.none(), st.integers(0, 60)), min_size=1, max_size=30)


def one(count: float, hint: int = 0) -> FloatHistogram:
    indexes = np.array([0], np.int32)
    buckets = np.array([float(count)])
    return FloatHistogram(0, count=float(count), sum=float(count), positive=indexes, positive_counts=buckets, hint=hint)


def source(values: list[int | None], hint: int = 0) -> ListSource:
    times = [(at * 10 * SECOND, value) for at, value in enumerate(values) if value is not None]
    return ListSource(
        [
            ({"__name__": "f_total"}, [(at, float(value)) for at, value in times]),
            ({"__name__": "h"}, [(at, one(value, hint)) for at, value in times]),
        ]
    )


def points(query: str, data: ListSource) -> list[tuple[int, float]]:
    value = Engine().range(query, data, 0, 400 * SECOND, 7 * SECOND, lookback_ms=45 * SECOND).value
    assert isinstance(value, Matrix)
    return list(zip(value.timestamps.tolist(), value.values.tolist(), strict=True))


def close(left: list[tuple[int, float]], right: list[tuple[int, float]]) -> bool:
    return [at for at, _ in left] == [at for at, _ in right] and np.allclose(
        [value for _, value in left], [value for _, value in right], rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize("modifier", ["anchored", "smoothed"])
@pytest.mark.parametrize("name", ["rate", "increase", "delta"])
@given(values=counts)
def test_counts_of_histograms_change_as_floats_do(name: str, modifier: str, values: list[int | None]) -> None:
    data = source(values, GAUGE if name == "delta" else 0)
    wanted = points(f"{name}(f_total[40s] {modifier})", data)
    assert close(points(f"histogram_count({name}(h[40s] {modifier}))", data), wanted)


@pytest.mark.parametrize("name", ["resets", "changes"])
@given(values=counts)
def test_events_of_histograms_are_those_of_floats(name: str, values: list[int | None]) -> None:
    data = source(values)
    assert close(points(f"{name}(h[40s] anchored)", data), points(f"{name}(f_total[40s] anchored)", data))


@given(values=counts)
def test_a_smoothed_gauge_is_on_the_line_between_histograms(values: list[int | None]) -> None:
    data = source(values, GAUGE)
    assert close(points("histogram_count(h smoothed)", data), points("f_total smoothed", data))


def test_a_window_of_both_kinds_has_no_answer_and_a_warning() -> None:
    data = ListSource([({"__name__": "x_total"}, [(0, 1.0), (10 * SECOND, one(2)), (20 * SECOND, one(3))])])
    for query in ("rate(x_total[15s] smoothed)", "x_total smoothed"):
        result = Engine().instant(query, data, 15 * SECOND, lookback_ms=30 * SECOND)
        assert not len(result.value)  # type: ignore[arg-type]
        assert "mix of histograms and floats" in result.warnings[0]
    # What is too far away to be seen does not count.
    assert len(Engine().instant("x_total smoothed", data, 18 * SECOND, lookback_ms=9 * SECOND).value) == 1  # type: ignore[arg-type]


@pytest.mark.parametrize("modifier", ["anchored", "smoothed"])
def test_a_bare_extended_range_of_histograms_is_an_error(modifier: str) -> None:
    with pytest.raises(EvaluationError, match=f"{modifier} modifier is not supported with histograms"):
        Engine().instant(f"h[20s] {modifier}", source([1, 2, 3]), 20 * SECOND)
