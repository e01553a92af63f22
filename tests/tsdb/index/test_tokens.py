"""Ring tokens of stored series, against the plain function over one series' labels."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mimir_ray.encoding.hashing import fnv1_32_of, series_token
from mimir_ray.model.labels import Labels
from mimir_ray.testing.strategies import label_sets
from mimir_ray.testing.writes import label_section
from mimir_ray.tsdb.index.series_index import SeriesIndex
from mimir_ray.tsdb.index.tokens import series_tokens


def index_of(series: list[Labels]) -> SeriesIndex:
    index = SeriesIndex()
    sections = [label_section(labels) for labels in series]
    index.intern(b"".join(sections), np.cumsum([0, *map(len, sections)]).astype(np.int64))
    return index


@settings(deadline=None)
@given(st.lists(label_sets(), max_size=20, unique=True), st.sampled_from(["anonymous", "team-a", "x" * 150]), st.data())
def test_tokens_are_those_that_the_distributor_routes_by(
    series: list[Labels], tenant: str, data: st.DataObject
) -> None:
    first = data.draw(st.integers(0, len(series)))
    found = series_tokens(index_of(series), first, fnv1_32_of(tenant.encode()))
    assert found.dtype == np.uint32
    assert found.tolist() == [series_token(tenant, labels) for labels in series[first:]]


def test_there_are_no_tokens_beyond_the_last_series() -> None:
    assert series_tokens(index_of([]), 0, 1).tolist() == []
    assert series_tokens(index_of([(("a", "b"),)]), 5, 1).tolist() == []
