"""Which series are active: by the clock, by selectors, with native histograms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimir_ray.model.boxed import box
from mimir_ray.model.float_histogram import FloatHistogram
from mimir_ray.model.histogram import HistogramColumns
from mimir_ray.model.labels import Labels, labels_of
from mimir_ray.model.matchers import Matcher
from mimir_ray.model.selection import Selection
from mimir_ray.model.write import WriteResult
from mimir_ray.promql.syntax.parser import parse_selector
from mimir_ray.testing.sources import satisfies
from mimir_ray.testing.writes import write_batch
from mimir_ray.tsdb.chunks.files import ChunkFiles
from mimir_ray.tsdb.head.activity import ActiveCounts
from mimir_ray.tsdb.head.head import Head
from mimir_ray.tsdb.head.new_series import NoRoomForSeries
from mimir_ray.tsdb.head.settings import HeadSettings, PushLimits

NOW = 1_700_000_000_000
MINUTE = 60_000
EVERYTHING = Selection((), 0, 2 * NOW)


def selectors(*texts: str) -> tuple[tuple[Matcher, ...], ...]:
    return tuple(parse_selector(text) for text in texts)


def series(name: str, **labels: str) -> Labels:
    return labels_of({"__name__": name, **labels})


def head_in(folder: Path) -> Head:
    return Head(ChunkFiles(folder / "chunks"), HeadSettings(dropped_series_min=0))


def push(
    head: Head, *labels: Labels, now: int = NOW, at: int | None = None, limits: PushLimits | None = None
) -> WriteResult:
    batch = write_batch(new=[(one, [(at or now, 1.0)]) for one in labels])
    (result,) = head.push([batch], now, limits or PushLimits())
    return result


def test_a_series_is_active_from_when_it_was_written_whatever_the_samples_time(tmp_path: Path) -> None:
    head = head_in(tmp_path)
    push(head, series("old"), at=NOW - 60 * MINUTE)
    push(head, series("new"), now=NOW + 5 * MINUTE)
    assert head.active_series(NOW).total.series == 2
    assert head.active_series(NOW + MINUTE).total.series == 1
    assert head.active_series(NOW + 6 * MINUTE).total.series == 0


def test_a_sample_that_was_refused_does_not_make_its_series_active(tmp_path: Path) -> None:
    head = head_in(tmp_path)
    push(head, series("a"))
    push(head, series("a"), now=NOW + 5 * MINUTE, at=NOW - 30 * MINUTE)
    assert head.active_series(NOW + MINUTE).total.series == 0
    push(head, series("a"), now=NOW + 5 * MINUTE, at=NOW)  # sent again: that is no refusal
    assert head.active_series(NOW + MINUTE).total.series == 1


def test_trackers_count_active_series_that_satisfy_their_selectors(tmp_path: Path) -> None:
    head = head_in(tmp_path)
    push(head, *(series("up", team=team, at=str(at)) for team in "ab" for at in range(3)))
    wanted = selectors('{team="a"}', '{team=~"a|b",at!="0"}', "down", "{}")
    found = head.active_series(NOW, wanted)
    assert [one.series for one in found.trackers] == [3, 4, 0, 6]
    push(head, series("up", team="a", at="9"), series("down"), now=NOW + MINUTE)
    assert [one.series for one in head.active_series(NOW, wanted).trackers] == [4, 5, 1, 8]
    assert [one.series for one in head.active_series(NOW + 1, wanted).trackers] == [4, 5, 1, 8]
    assert [one.series for one in head.active_series(NOW + MINUTE, wanted).trackers] == [1, 1, 1, 2]


def test_other_trackers_are_found_for_the_series_that_are_there(tmp_path: Path) -> None:
    head = head_in(tmp_path)
    push(head, series("a"), series("b"), series("c"))
    assert [one.series for one in head.active_series(NOW, selectors("a")).trackers] == [1]
    many = selectors(*(["b"] * 70), '{__name__=~"b|c"}')
    assert [one.series for one in head.active_series(NOW, many).trackers] == [1] * 70 + [2]
    assert head.active_series(NOW).trackers == ()


def test_histograms_are_counted_with_their_buckets_until_their_series_gets_a_float(tmp_path: Path) -> None:
    head = head_in(tmp_path)
    batch = write_batch(new=[(series("h"), [(NOW, 0.0)]), (series("f"), [(NOW, 1.0)])])
    batch.new_values[0] = box(np.zeros(1, np.int64))[0]
    batch.histograms = HistogramColumns.from_rows([histogram_of(3)])
    head.push([batch], NOW)
    assert head.active_series(NOW).total == ActiveCounts(2, 1, 3)
    tracked = head.active_series(NOW, selectors("h", "f")).trackers
    assert tracked == (ActiveCounts(1, 1, 3), ActiveCounts(1, 0, 0))
    push(head, series("h"), now=NOW + MINUTE)
    assert head.active_series(NOW).total == ActiveCounts(2, 0, 0)


def histogram_of(buckets: int) -> FloatHistogram:
    return FloatHistogram(
        schema=0,
        count=float(buckets),
        sum=1.0,
        positive=np.arange(buckets, dtype=np.int32),
        positive_counts=np.ones(buckets),
    )


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 5)), max_size=30), st.integers(0, 5), st.integers(0, 7))
def test_counts_are_those_of_a_plain_list_also_after_series_were_dropped_and_renumbered(
    tmp_path_factory: pytest.TempPathFactory, pushes: list[tuple[int, int]], since: int, dropped_before: int
) -> None:
    folder = tmp_path_factory.mktemp("head")
    head = head_in(folder)
    wanted = selectors('{parity="0"}', '{number=~"1.*"}')
    last: dict[Labels, int] = {}
    for number, minute in sorted(pushes, key=lambda one: one[1]):
        one = series("m", number=str(number), parity=str(number % 2))
        push(head, one, now=NOW + minute * MINUTE)
        last[one] = NOW + minute * MINUTE
        head.active_series(NOW, wanted)
    floor = NOW + dropped_before * MINUTE
    if last and dropped_before:
        head.truncate(floor)
        head.collect()
        head.renumber()
        last = {labels: time for labels, time in last.items() if time >= floor}
    begin = NOW + since * MINUTE
    active = [labels for labels, time in last.items() if time >= begin]
    found = head.active_series(begin, wanted)
    assert found.total.series == len(active)
    for selector, counts in zip(wanted, found.trackers, strict=True):
        assert counts.series == sum(satisfies(labels, selector) for labels in active)


def test_metrics_that_are_exempt_may_have_any_number_of_series(tmp_path: Path) -> None:
    head = head_in(tmp_path)
    limits = PushLimits(metric_series_max=2, metrics_exempt=frozenset({"free", "other"}))
    batch = [series(name, at=str(at)) for at in range(4) for name in ("free", "bound")]
    result = push(head, *batch, limits=limits)
    assert [(one.reason, one.count) for one in result.refusals] == [("max-series-per-metric", 2)]
    assert head.series_count(parse_selector("free")) == 4
    assert head.series_count(parse_selector("bound")) == 2
    again = push(head, *batch, limits=limits, now=NOW + 1)
    assert again.new_references.tolist()[::2] == result.new_references.tolist()[::2]


def test_the_log_has_series_in_the_order_of_their_references(tmp_path: Path) -> None:
    """Exempt series come after the others of their request, wherever they stood in it."""
    records: list[tuple[int, bytes]] = []
    head = head_in(tmp_path)
    head.journal = lambda some: records.extend((one[0], b"".join(map(bytes, one[1]))) for one in some)
    limits = PushLimits(metric_series_max=1, metrics_exempt=frozenset({"free"}))
    names = [series("free", at="0"), series("free", at="1"), series("z"), series("free", at="2"), series("y")]
    push(head, *names, limits=limits)
    again = head_in(tmp_path / "again")
    for kind, payload in records:
        again.replay(kind, payload)
    for one in names:
        matchers = parse_selector("{" + ",".join(f'{name}="{value}"' for name, value in one) + "}")
        assert again.series_count(matchers) == 1
    assert again.pick(EVERYTHING).references.tolist() == head.pick(EVERYTHING).references.tolist()
    assert labels_in_order(again) == labels_in_order(head)


def labels_in_order(head: Head) -> list[Labels]:
    return [labels for batch in head.select(EVERYTHING) for labels in batch.labels.to_labels()]


def test_a_process_without_room_for_more_series_takes_nothing_of_a_batch_with_new_ones(tmp_path: Path) -> None:
    head = head_in(tmp_path)
    push(head, series("a"), limits=PushLimits(process_series_max=1))
    result = push(head, series("a"), series("b"), now=NOW + 1, limits=PushLimits(process_series_max=1))
    assert isinstance(result.error, NoRoomForSeries)
    assert "(err-mimir-ingester-max-series)" in str(result.error)
    assert head.stats.appended == 1
    known = push(head, series("a"), now=NOW + 1, limits=PushLimits(process_series_max=1))
    assert known.error is None
