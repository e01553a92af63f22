"""The list source honours every field of a selection."""

from __future__ import annotations

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from mimir_ray.model.matchers import Matcher, MatchType
from mimir_ray.promql.source import Selection, Shard
from mimir_ray.testing.sources import ListSource
from mimir_ray.testing.strategies import list_sources

ALL = (Matcher(MatchType.REGEX, "__name__", ".*"),)
LOWEST, HIGHEST = -(1 << 62), 1 << 62


def contents(source: ListSource, selection: Selection) -> dict:
    """Labels -> points of what a selection gives, with NaN as text so that it compares."""
    found = {}
    for batch in source.select(selection):
        assert 0 < len(batch) <= selection.batch_series
        for row, labels in enumerate(batch.labels.to_labels()):
            assert labels not in found
            part = slice(batch.offsets[row], batch.offsets[row + 1])
            values = [str(value) if math.isnan(value) else value for value in batch.values[part].tolist()]
            found[labels] = list(zip(batch.timestamps[part].tolist(), values, strict=True))
    return found


SERIES = ListSource(
    [
        ({"__name__": "up", "job": "a"}, [(0, 1.0), (10, 2.0), (20, 3.0)]),
        ({"__name__": "up", "job": "b"}, [(10, 5.0)]),
        ({"__name__": "down"}, [(30, 6.0)]),
    ]
)


def test_both_ends_of_the_time_range_belong_to_it() -> None:
    found = contents(SERIES, Selection(ALL, 10, 20))
    assert sorted(found.values()) == [[(10, 2.0), (20, 3.0)], [(10, 5.0)]]


def test_every_matcher_must_accept() -> None:
    matchers = (Matcher(MatchType.EQUAL, "__name__", "up"), Matcher(MatchType.NOT_EQUAL, "job", "a"))
    assert list(contents(SERIES, Selection(matchers, 0, 100))) == [(("__name__", "up"), ("job", "b"))]


def test_an_absent_label_is_an_empty_value() -> None:
    assert list(contents(SERIES, Selection((Matcher(MatchType.EQUAL, "job", ""),), 0, 100))) == [
        (("__name__", "down"),)
    ]


def test_labels_only_gives_series_without_samples() -> None:
    assert list(contents(SERIES, Selection(ALL, 0, 10, labels_only=True)).values()) == [[], []]


def test_samples_of_the_same_series_add_up() -> None:
    source = ListSource([({"a": "b"}, [(5, 1.0)]), ({"a": "b", "c": ""}, [(1, 2.0), (5, 3.0)])])
    assert contents(source, Selection(ALL, 0, 10)) == {(("a", "b"),): [(1, 2.0), (5, 3.0)]}


@settings(deadline=None)
@given(list_sources(), st.integers(1, 4))
def test_shards_are_disjoint_and_complete(source: ListSource, count: int) -> None:
    whole = contents(source, Selection(ALL, LOWEST, HIGHEST))
    parts = [contents(source, Selection(ALL, LOWEST, HIGHEST, Shard(index, count))) for index in range(count)]
    assert sum(len(part) for part in parts) == len(whole)
    assert {labels: points for part in parts for labels, points in part.items()} == whole


@settings(deadline=None)
@given(list_sources(), st.integers(1, 3), st.integers(0, 4))
def test_batches_and_limits_change_nothing_but_the_grouping(source: ListSource, batch: int, limit: int) -> None:
    whole = contents(source, Selection(ALL, LOWEST, HIGHEST))
    limited = contents(source, Selection(ALL, LOWEST, HIGHEST, batch_series=batch, limit_series=limit))
    assert limited.items() <= whole.items()
    assert len(limited) == (min(limit, len(whole)) if limit else len(whole))
