"""What every implementation of a protocol must do, as checks that its tests run.

A check takes a function that makes the thing under test and raises AssertionError. Use
`@pytest.mark.parametrize("check", SERIES_SOURCE_CHECKS, ids=lambda check: check.__name__)`, or
`series_source_contract(make)` for all in one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from mimir_ray.model.labels import Labels
from mimir_ray.model.matchers import Matcher, MatchType
from mimir_ray.model.series import STALE_NAN
from mimir_ray.promql.source import Selection, SeriesSource, Shard

from .sources import satisfies

Points = Sequence[tuple[int, float]]
Series = tuple[Labels, Points]
MakeSource = Callable[[Sequence[Series]], SeriesSource]
"""A source that holds these series: labels each once, times ascending, all within one hour before 2 * 10^12 ms."""

_END = 2_000_000_000_000
_STEP = 15_000


def _example() -> list[Series]:
    """40 series of three metrics, 1 to 200 samples each; one has a stale marker, NaN, infinity and negative zero."""
    series: list[Series] = []
    for number in range(40):
        labels = [("__name__", f"m{number % 3}"), ("instance", f"host-{number:02d}")]
        if number % 4:
            labels.append(("job", "a" if number % 2 else "ü"))
        count = (1, 7, 130, 200)[number % 4]
        points = [(_END - (count - i) * _STEP - number, float(i * number)) for i in range(count)]
        if number == 3:
            points[-4:] = [
                (points[-4][0], STALE_NAN),
                (points[-3][0], float("nan")),
                (points[-2][0], float("inf")),
                (points[-1][0], -0.0),
            ]
        series.append((tuple(labels), points))
    return series


def _everything(*matchers: Matcher) -> Selection:
    return Selection(matchers or (Matcher(MatchType.REGEX, "__name__", ".+"),), _END - 3_600_000, _END)


def _read(source: SeriesSource, selection: Selection) -> dict[Labels, list[tuple[int, int]]]:
    """Series by labels, values as bits; checks the shape of every batch on the way."""
    found: dict[Labels, list[tuple[int, int]]] = {}
    for batch in source.select(selection):
        assert 0 < len(batch) <= selection.batch_series, "a batch has at most batch_series series, and some"
        assert batch.offsets[0] == 0 and batch.offsets[-1] == len(batch.timestamps) == len(batch.values)
        assert batch.timestamps.dtype == np.int64 and batch.values.dtype == np.float64
        assert batch.offsets.dtype == np.int64 and batch.labels.codes.dtype == np.int32
        assert batch.labels.codes.flags.c_contiguous
        assert list(batch.labels.names) == sorted(set(batch.labels.names))
        bits = np.ascontiguousarray(batch.values).view(np.uint64).tolist()
        times = batch.timestamps.tolist()
        for labels, start, end in zip(batch.labels.to_labels(), batch.offsets[:-1], batch.offsets[1:], strict=True):
            assert labels not in found, "a series appears once"
            found[labels] = list(zip(times[start:end], bits[start:end], strict=True))
    return found


def _expected(series: Sequence[Series], selection: Selection) -> dict[Labels, list[tuple[int, int]]]:
    found = {}
    for labels, points in series:
        bits = np.array([value for _, value in points]).view(np.uint64).tolist()
        inside = [
            (time, bit) for (time, _), bit in zip(points, bits, strict=True) if selection.mint <= time <= selection.maxt
        ]
        if inside and satisfies(labels, selection.matchers):
            found[labels] = inside
    return found


def _compare(source: SeriesSource, series: Sequence[Series], selection: Selection) -> None:
    found = {labels: points for labels, points in _read(source, selection).items() if points}
    assert found == _expected(series, selection)


def all_series_come_with_all_their_samples_bit_for_bit(make: MakeSource) -> None:
    series = _example()
    _compare(make(series), series, _everything())


def both_ends_of_the_range_are_included(make: MakeSource) -> None:
    series = _example()
    source = make(series)
    times = [time for time, _ in series[7][1]]
    for mint, maxt in ((times[3], times[5]), (times[3] + 1, times[5] - 1), (times[0], times[0]), (_END, _END + 5)):
        _compare(source, series, replace(_everything(), mint=mint, maxt=maxt))


def matchers_mean_what_they_mean_in_promql(make: MakeSource) -> None:
    series = _example()
    source = make(series)
    for matchers in (
        (Matcher(MatchType.EQUAL, "__name__", "m1"),),
        (Matcher(MatchType.EQUAL, "__name__", "m1"), Matcher(MatchType.NOT_EQUAL, "job", "a")),
        (Matcher(MatchType.EQUAL, "__name__", "m1"), Matcher(MatchType.EQUAL, "job", "")),
        (Matcher(MatchType.REGEX, "__name__", "m[01]"), Matcher(MatchType.NOT_REGEX, "instance", "host-[0-2].")),
        (Matcher(MatchType.REGEX, "__name__", ".*"), Matcher(MatchType.REGEX, "job", "ü|")),
        (Matcher(MatchType.REGEX, "job", ".+"), Matcher(MatchType.NOT_EQUAL, "job", "a")),
        (Matcher(MatchType.EQUAL, "nowhere", "x"),),
        (Matcher(MatchType.NOT_EQUAL, "nowhere", "x"), Matcher(MatchType.EQUAL, "instance", "host-07")),
        (Matcher(MatchType.EQUAL, "job", "a"), Matcher(MatchType.EQUAL, "job", "ü")),
    ):
        _compare(source, series, _everything(*matchers))


def batches_are_as_small_as_asked_for(make: MakeSource) -> None:
    series = _example()
    source = make(series)
    for size in (1, 3, 1000):
        _compare(source, series, replace(_everything(), batch_series=size))


def shards_are_disjoint_and_make_up_the_whole(make: MakeSource) -> None:
    series = _example()
    source = make(series)
    whole = _read(source, _everything())
    together: dict[Labels, list[tuple[int, int]]] = {}
    for index in range(3):
        part = _read(source, replace(_everything(), shard=Shard(index, 3)))
        assert part.keys() <= whole.keys() - together.keys()
        together |= part
    assert together == whole


def a_limit_of_series_is_kept(make: MakeSource) -> None:
    series = _example()
    found = _read(make(series), replace(_everything(), limit_series=5, batch_series=2))
    whole = _expected(series, _everything())
    assert len(found) == 5
    assert all(whole[labels] == points for labels, points in found.items())


def labels_alone_come_without_samples(make: MakeSource) -> None:
    series = _example()
    found = _read(make(series), replace(_everything(), labels_only=True))
    assert found.keys() == _expected(series, _everything()).keys()
    assert not any(found.values())


def two_readers_do_not_disturb_each_other(make: MakeSource) -> None:
    series = _example()
    source = make(series)
    selection = replace(_everything(), batch_series=7)
    first, second = source.select(selection), source.select(selection)
    next(first)
    seen = [labels for batch in second for labels in batch.labels.to_labels()]
    assert len(seen) == len(set(seen)) == len(series)
    assert sum(len(batch) for batch in first) == len(series) - 7


def an_empty_source_gives_nothing(make: MakeSource) -> None:
    assert not _read(make([]), _everything())


SERIES_SOURCE_CHECKS: tuple[Callable[[MakeSource], None], ...] = (
    all_series_come_with_all_their_samples_bit_for_bit,
    both_ends_of_the_range_are_included,
    matchers_mean_what_they_mean_in_promql,
    batches_are_as_small_as_asked_for,
    shards_are_disjoint_and_make_up_the_whole,
    a_limit_of_series_is_kept,
    labels_alone_come_without_samples,
    two_readers_do_not_disturb_each_other,
    an_empty_source_gives_nothing,
)


def series_source_contract(make_source: MakeSource) -> None:
    """Runs every check of a SeriesSource."""
    for check in SERIES_SOURCE_CHECKS:
        check(make_source)
