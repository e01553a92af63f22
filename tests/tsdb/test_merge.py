"""Series that several ingesters hold, put together by time."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mimir_ray.model.labels import Labels, StringTable, labels_of
from mimir_ray.model.series import STALE_NAN, SeriesBatch
from mimir_ray.testing.sources import batch_of
from mimir_ray.testing.strategies import label_sets, points
from mimir_ray.tsdb.merge import merge_batches, merge_groups

Series = tuple[Labels, list[tuple[int, float]]]


def merge_groups_slowly(
    starts: Sequence[int],
    ends: Sequence[int],
    groups: Sequence[int],
    timestamps: Sequence[int],
    values: Sequence[float],
) -> tuple[list[int], list[int], list[float]]:
    """(offsets, timestamps, values): the first member that has a timestamp counts."""
    offsets, merged_timestamps, merged_values = [0], [], []
    for first, last in itertools.pairwise(groups):
        found: dict[int, float] = {}
        for member in range(first, last):
            for at in range(starts[member], ends[member]):
                found.setdefault(timestamps[at], values[at])
        merged_timestamps += sorted(found)
        merged_values += [found[time] for time in sorted(found)]
        offsets.append(len(merged_timestamps))
    return offsets, merged_timestamps, merged_values


@settings(deadline=None)
@given(st.lists(st.lists(st.sets(st.integers(0, 12), max_size=6), min_size=1, max_size=4), max_size=5), st.randoms())
def test_the_kernel_merges_groups_as_its_slow_twin(drawn: list[list[set[int]]], random: object) -> None:
    members = [sorted(times) for group in drawn for times in group]
    cuts = np.cumsum([0, *(len(times) for times in members)])
    groups = np.cumsum([0, *(len(group) for group in drawn)], dtype=np.int64)
    order = list(range(len(members)))
    random.shuffle(order)  # type: ignore[attr-defined]
    starts, ends = cuts[:-1][order].astype(np.int64), cuts[1:][order].astype(np.int64)
    timestamps = np.array([time for times in members for time in times], np.int64)
    values = np.arange(len(timestamps), dtype=np.float64)
    offsets = np.zeros(len(groups), np.int64)
    merged_timestamps, merged_values = np.empty_like(timestamps), np.empty_like(values)
    count = merge_groups(starts, ends, groups, timestamps, values, offsets, merged_timestamps, merged_values)
    found = offsets.tolist(), merged_timestamps[:count].tolist(), merged_values[:count].tolist()
    assert found == merge_groups_slowly(starts, ends, groups, timestamps.tolist(), values.tolist())


def read(batches: Sequence[SeriesBatch]) -> dict[Labels, list[tuple[int, str]]]:
    """Values as text, so that a NaN equals itself and markers differ from it."""
    found: dict[Labels, list[tuple[int, str]]] = {}
    for batch in batches:
        assert batch.offsets[0] == 0
        assert batch.offsets[-1] == len(batch.timestamps) == len(batch.values)
        bits = np.ascontiguousarray(batch.values).view(np.uint64).tolist()
        for row, labels in enumerate(batch.labels.to_labels()):
            assert labels not in found
            part = slice(batch.offsets[row], batch.offsets[row + 1])
            found[labels] = list(zip(batch.timestamps[part].tolist(), map(hex, bits[part]), strict=True))
    return found


def union(holders: Sequence[Sequence[Sequence[Series]]]) -> dict[Labels, list[tuple[int, str]]]:
    together: dict[Labels, dict[int, float]] = {}
    for batches in holders:
        for batch in batches:
            for labels, samples in batch:
                found = together.setdefault(labels, {})
                for time, value in samples:
                    found.setdefault(time, value)
    return {
        labels: [(time, hex(np.array([value]).view(np.uint64)[0])) for time, value in sorted(samples.items())]
        for labels, samples in together.items()
    }


@st.composite
def one_holder(draw: st.DrawFn) -> list[list[Series]]:
    """Some batches; a series is in one of them."""
    found = draw(st.lists(st.tuples(label_sets(), points(max_size=6)), max_size=5, unique_by=lambda one: one[0]))
    cut = draw(st.integers(0, len(found)))
    return [found[:cut], found[cut:]]


@settings(deadline=None)
@given(st.lists(one_holder(), max_size=4))
def test_what_all_holders_have_comes_once(holders: list[list[list[Series]]]) -> None:
    batches = [[batch_of(batch, StringTable()) for batch in one] for one in holders]
    assert read(list(merge_batches(batches))) == union(holders)


def series(name: str, *samples: tuple[int, float]) -> Series:
    return labels_of({"__name__": name}), list(samples)


def test_the_first_holder_wins_where_both_have_a_timestamp() -> None:
    first, second = batch_of([series("a", (1, 1.0), (3, 3.0))]), batch_of([series("a", (1, 9.0), (2, 2.0))])
    (merged,) = merge_batches([[first], [second]])
    assert merged.values.tolist() == [1.0, 2.0, 3.0]


def test_a_staleness_marker_is_a_sample_like_others() -> None:
    first, second = batch_of([series("a", (1, STALE_NAN))]), batch_of([series("a", (1, 5.0))])
    assert read(list(merge_batches([[first], [second]]))) == read([first])


def test_series_are_told_apart_by_all_their_labels() -> None:
    ones = [(labels_of({"a": "1"}), [(1, 1.0)]), (labels_of({"b": "1"}), [(1, 2.0)]), ((), [(1, 3.0)])]
    twos = [(labels_of({"a": "1", "b": "1"}), [(1, 4.0)]), ((), [(2, 5.0)])]
    (merged,) = merge_batches([[batch_of(ones)], [batch_of(twos)]])
    assert len(merged) == 4
    assert sorted(merged.values.tolist()) == [1.0, 2.0, 3.0, 4.0, 5.0]


def test_series_without_any_label_are_merged_too() -> None:
    (merged,) = merge_batches([[batch_of([((), [(1, 1.0)])])], [batch_of([((), [(2, 2.0)])])]])
    assert (len(merged), merged.timestamps.tolist()) == (1, [1, 2])


def test_nobody_has_anything() -> None:
    assert list(merge_batches([])) == []
    assert list(merge_batches([[], [batch_of([])]])) == []


def test_series_that_nobody_shares_are_not_copied_sample_by_sample() -> None:
    first, second = batch_of([series("a", (1, 1.0))]), batch_of([series("b", (0, 2.0), (5, 3.0))])
    (merged,) = merge_batches([[first], [second]])
    assert merged.offsets.tolist() == [0, 1, 3]
    assert merged.labels.to_labels() == [labels_of({"__name__": "a"}), labels_of({"__name__": "b"})]


def test_what_came_in_is_not_changed() -> None:
    first, second = batch_of([series("a", (1, 1.0), (3, 3.0))]), batch_of([series("a", (2, 2.0))])
    for array in (first.timestamps, first.values, second.timestamps, second.values):
        array.flags.writeable = False
    list(merge_batches([[first], [second]]))
    assert first.labels.to_labels() == second.labels.to_labels()


def test_start_timestamps_go_with_the_samples_that_stay() -> None:
    def holder(name: str, points: list[tuple[int, float]], starts: list[int] | None) -> SeriesBatch:
        batch = batch_of([(labels_of({"__name__": name}), points)])
        batch.start_timestamps = None if starts is None else np.array(starts, np.int64)
        return batch

    one = holder("x", [(1, 1.0), (3, 3.0)], [10, 30])
    other = holder("x", [(1, 1.0), (2, 2.0)], [99, 20])
    bare = holder("x", [(4, 4.0)], None)
    (merged,) = merge_batches([[one], [other], [bare]])
    assert merged.start_timestamps is not None
    assert merged.timestamps.tolist() == [1, 2, 3, 4] and merged.values.tolist() == [1.0, 2.0, 3.0, 4.0]
    assert merged.start_timestamps.tolist() == [10, 20, 30, 0]
    (apart,) = merge_batches([[one], [holder("y", [(1, 1.0)], None)]])
    assert apart.start_timestamps is not None and apart.start_timestamps.tolist() == [10, 30, 0]
    (plain,) = merge_batches([[bare], [holder("x", [(5, 1.0)], None)]])
    assert plain.start_timestamps is None
