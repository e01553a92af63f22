"""What a head remembers of selections, and what it gives of less than all: newest samples, some labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimir_ray.model.labels import Labels, labels_of
from mimir_ray.model.matchers import Matcher, MatchType
from mimir_ray.model.selection import Selection
from mimir_ray.model.series import STALE_NAN
from mimir_ray.telemetry.caches import CacheStats
from mimir_ray.testing.writes import write_batch
from mimir_ray.tsdb.chunks.files import ChunkFiles
from mimir_ray.tsdb.head import selected
from mimir_ray.tsdb.head.head import Head
from mimir_ray.tsdb.head.settings import HeadSettings, PushLimits

PODS = (Matcher(MatchType.EQUAL, "__name__", "x"), Matcher(MatchType.REGEX, "pod", "a.*|b"))


def pod(name: str, metric: str = "x") -> Labels:
    return labels_of({"__name__": metric, "pod": name, "job": f"of {name}"})


def found(head: Head, selection: Selection) -> dict[Labels, list[tuple[int, float]]]:
    samples = {}
    for batch in head.select(selection):
        for row, labels in enumerate(batch.labels.to_labels()):
            part = slice(batch.offsets[row], batch.offsets[row + 1])
            samples[labels] = list(zip(batch.timestamps[part].tolist(), batch.values[part].tolist(), strict=True))
    return samples


def test_series_that_come_and_go_after_a_selection_are_in_the_next_one_or_not(tmp_path: Path) -> None:
    head = Head(ChunkFiles(tmp_path))
    asked = Selection(PODS, 0, 100)
    head.push([write_batch(new=[(pod(name), [(1, 1.0)]) for name in ("a1", "b", "c")])], 0)
    assert set(found(head, asked)) == {pod("a1"), pod("b")}
    head.push([write_batch(new=[(pod(name), [(50, 2.0)]) for name in ("a2", "d")])], 0)
    head.push([write_batch(new=[(pod("a3", "y"), [(50, 2.0)])])], 0)
    assert set(found(head, asked)) == {pod("a1"), pod("b"), pod("a2")}
    head.truncate(20)
    head.collect()
    assert set(found(head, asked)) == {pod("a2")}
    head.push([write_batch(new=[(pod("b"), [(60, 3.0)])])], 0)
    assert set(found(head, asked)) == {pod("a2"), pod("b")}
    assert head.stats.bytes > 0


def test_remembered_selections_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selected, "_SELECTIONS_MAX", 3)
    monkeypatch.setattr(selected, "_REFERENCES_MAX", 8)
    head = Head(ChunkFiles(tmp_path))
    head.push([write_batch(new=[(pod(f"p{at}"), [(1, 1.0)]) for at in range(6)])], 0)
    known = head._selected
    for at in range(6):
        one = Selection((Matcher(MatchType.EQUAL, "pod", f"p{at}"),), 0, 9)
        assert list(found(head, one)) == [pod(f"p{at}")]
        assert known.bytes <= 3 * 4
    everything = Selection((Matcher(MatchType.REGEX, "pod", "p.*"),), 0, 9)
    assert len(found(head, everything)) == 6  # too many to be kept
    assert known.bytes == 3 * 4


times = st.lists(st.integers(0, 60), max_size=12)


@settings(deadline=None)
@given(
    st.lists(times, min_size=1, max_size=4), st.booleans(), st.integers(-5, 65), st.integers(0, 40), st.integers(0, 60)
)
def test_the_newest_sample_of_each_series_is_the_last_one_of_all(
    tmp_path_factory: pytest.TempPathFactory, series: list[list[int]], flushed: bool, maxt: int, length: int, floor: int
) -> None:
    head = Head(ChunkFiles(tmp_path_factory.mktemp("head")), HeadSettings(samples_per_chunk=4))
    limits = PushLimits(out_of_order_window_ms=1000)
    for number, own in enumerate(series):
        points = [(at, STALE_NAN if at % 7 == 3 else at + number / 8) for at in own]
        head.push([write_batch(new=[(pod(f"p{number}"), [one]) for one in points])], 0, limits)
        if flushed and number % 2:
            head.flush()
    if floor > 30:
        head.truncate(floor)
    asked = Selection((Matcher(MatchType.EQUAL, "__name__", "x"),), maxt - length, maxt)
    expected = {labels: [samples[-1]] for labels, samples in found(head, asked).items()}
    newest = found(head, replace(asked, newest=True))
    assert newest.keys() == expected.keys()
    for labels, samples in expected.items():
        np.testing.assert_equal(newest[labels], samples)


def test_only_wanted_labels_are_given(tmp_path: Path) -> None:
    head = Head(ChunkFiles(tmp_path))
    head.push([write_batch(new=[(pod("a1"), [(1, 1.0)]), (labels_of({"__name__": "x", "job": "j"}), [(1, 2.0)])])], 0)
    asked = Selection((Matcher(MatchType.EQUAL, "__name__", "x"),), 0, 9, labels=("__name__", "job", "none"))
    (batch,) = head.select(asked)
    assert batch.labels.names == ("__name__", "job")
    assert batch.labels.to_labels() == [(("__name__", "x"), ("job", "of a1")), (("__name__", "x"), ("job", "j"))]
    assert sorted(batch.labels.table.strings) == ["", "j", "of a1", "x"]


def test_selections_that_were_remembered_are_counted_over_a_renumbering(tmp_path: Path) -> None:
    head = Head(ChunkFiles(tmp_path), HeadSettings(dropped_series_min=0))
    head.push([write_batch(new=[(pod(name), [(1, 1.0)]) for name in ("a1", "b", "c")])], 0)
    asked = Selection(PODS, 0, 100)
    for _ in range(3):
        found(head, asked)
    assert head.stats.selections == CacheStats(requests=3, hits=2, items=1)
    head.push([write_batch(new=[(pod("a2"), [(50, 2.0)])])], 0)
    head.truncate(20)
    assert head.collect() == 3 and head.renumber()
    assert head.stats.selections == CacheStats(requests=3, hits=2, items=0)
    assert set(found(head, asked)) == {pod("a2")}
    assert head.stats.selections == CacheStats(requests=4, hits=2, items=1)
