"""Rates and sums as matrices have the answers of the code that takes histogram by histogram."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimir_ray.model.float_histogram import NOT_RESET, UNKNOWN, FloatHistogram
from mimir_ray.model.histogram import HistogramColumns
from mimir_ray.model.result import Matrix
from mimir_ray.promql.engine import Engine
from mimir_ray.promql.operators import histograms_dense
from mimir_ray.testing.sources import ListSource

STEP = 15_000
QUERIES = [
    "rate(h[1m])",
    "increase(h[2m])",
    "sum(h)",
    "sum by (job) (rate(h[1m]))",
    "avg by (job) (h)",
    "avg(increase(h[1m]))",
]


@st.composite
def sources(draw: st.DrawFn) -> ListSource:
    """Series that grow, with resets, gaps, changes of schema, negative buckets, and fractions."""
    source = ListSource()
    for number in range(draw(st.integers(1, 4))):
        schema, first = draw(st.integers(0, 2)), draw(st.integers(-3, 3))
        changes = draw(st.booleans())
        width = draw(st.integers(1, 5))
        counts = np.zeros(width + 2)
        points = []
        for scrape in range(draw(st.integers(2, 16))):
            if draw(st.integers(0, 9)) == 0:
                counts[:] = 0
            more = st.lists(st.sampled_from([0, 0.1, 1, 7]), min_size=width + 2, max_size=width + 2)
            counts = counts + np.array(draw(more))
            if draw(st.integers(0, 5)) == 0:
                continue
            one = FloatHistogram(
                schema - (1 if changes and scrape > 5 else 0), 1e-3, counts[-1], float(counts.sum()), float(scrape),
                NOT_RESET if not counts.any() and draw(st.booleans()) else UNKNOWN,
                np.arange(first, first + width, dtype=np.int32), counts[:width].copy(),
                np.array([2], np.int32), counts[-2:-1].copy(),
            )  # fmt: skip
            points.append((scrape * STEP, one))
        source.add((("__name__", "h"), ("job", "ab"[number % 2]), ("n", str(number))), points)
    return source


def answer(source: ListSource, query: str) -> Iterator[tuple[object, int, FloatHistogram]]:
    value = Engine().range(query, source, 0, 16 * STEP, STEP).value
    assert isinstance(value, Matrix)
    for labels, points in value.items():
        for at, one in points:
            assert isinstance(one, FloatHistogram)
            yield labels, at, one


@pytest.mark.parametrize("query", QUERIES)
@given(source=sources())
@settings(deadline=None, max_examples=40)
def test_matrices_change_no_answer(query: str, source: ListSource) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(histograms_dense, "HISTOGRAMS_MIN", 1 << 60)
        wanted = list(answer(source, query))
        patch.setattr(histograms_dense, "HISTOGRAMS_MIN", 1)
        found = list(answer(source, query))
    assert [(labels, at) for labels, at, _ in found] == [(labels, at) for labels, at, _ in wanted]
    for (_, at, one), (_, _, other) in zip(found, wanted, strict=True):
        assert one.hint == other.hint, at
        assert one.equals(other), (at, one, other)


def test_what_has_no_common_layout_is_left_alone() -> None:
    one = FloatHistogram(0, positive=np.array([1], np.int32), positive_counts=np.ones(1))
    finer = FloatHistogram(1)
    within_zero = FloatHistogram(0, 8.0, positive=np.array([1], np.int32), positive_counts=np.ones(1))
    assert histograms_dense.Layout.of(HistogramColumns.from_rows([one])) is not None
    assert histograms_dense.Layout.of(HistogramColumns.from_rows([one, finer])) is None
    assert histograms_dense.Layout.of(HistogramColumns.from_rows([within_zero])) is None
    assert histograms_dense.Layout.of(HistogramColumns.from_rows([])) is None
