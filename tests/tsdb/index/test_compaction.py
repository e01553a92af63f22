"""An index without dropped series answers as one that never had them."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mimir_ray.model.labels import Labels
from mimir_ray.testing.sources import satisfies
from mimir_ray.testing.strategies import label_sets
from mimir_ray.tsdb.index import compaction
from mimir_ray.tsdb.index.compaction import without_dropped
from mimir_ray.tsdb.index.postings import Postings
from mimir_ray.tsdb.index.series_index import SeriesIndex

from .test_index import intern, matchers


@settings(deadline=None, max_examples=60)
@given(
    st.lists(label_sets(), unique=True, max_size=30),
    st.lists(label_sets(), max_size=10),
    st.data(),
    st.lists(matchers, max_size=3),
)
def test_what_is_left_is_found_and_the_rest_is_as_if_it_had_never_been(
    before: list[Labels], after: list[Labels], data: st.DataObject, asked: list[object]
) -> None:
    index = SeriesIndex()
    intern(index, before)
    gone = data.draw(st.sets(st.sampled_from(range(len(before))))) if before else set()
    index.drop(np.array(sorted(gone), np.int32))
    fresh = SeriesIndex()
    left = [labels for number, labels in enumerate(before) if number not in gone]
    intern(fresh, left)
    found = without_dropped(index)
    assert len(index) == len(before), "the old one is as it was"
    assert (len(found), found.live) == (len(left), len(left))
    for one in (found, fresh):
        intern(one, after)
    everything = list(dict.fromkeys([*left, *after]))
    assert found.labels(np.arange(len(found), dtype=np.int32)).to_labels() == everything
    assert found.symbol_bytes <= index.symbol_bytes + sum(len(n) + len(v) for row in after for n, v in row) * 4
    assert found.stable_hashes().tolist() == fresh.stable_hashes().tolist()
    for matcher in asked:
        rows = Postings(found).select([matcher]).tolist()  # type: ignore[list-item]
        assert rows == [row for row, labels in enumerate(everything) if satisfies(labels, [matcher])]  # type: ignore[list-item]
    for name in ("__name__", "a", "b"):
        values = {dict(row)[name] for row in everything if name in dict(row)}
        view, number = found.view(), found.find_name(name)
        rows = np.arange(len(found), dtype=np.int32)
        assert (view.values(rows, number) if number >= 0 else []) == sorted(values)


def test_strings_of_what_was_dropped_are_gone() -> None:
    index = SeriesIndex()
    intern(index, [(("__name__", "m"), ("pod", f"a-long-name-{number}")) for number in range(2000)])
    index.drop(np.arange(1, 2000, dtype=np.int32))
    assert without_dropped(index).bytes < index.bytes / 20
    assert index.live == 1


def test_rows_keep_their_order_and_get_the_pairs_new_numbers() -> None:
    offsets, cells = np.empty(3, np.int64), np.empty(3, np.int32)
    compaction.copy_rows(
        np.array([True, False, True]), np.array([0, 2, 3, 4]), np.array([0, 2, 1, 2], np.int32),
        np.array([7, 8, 9], np.int32), offsets, cells,
    )  # fmt: skip
    assert offsets.tolist() == [0, 2, 3]
    assert cells.tolist() == [7, 9, 9]


def test_strings_are_copied_side_by_side() -> None:
    out, cuts = np.empty(3, np.uint8), np.empty(4, np.int64)
    arena = np.frombuffer(b"abcde", np.uint8)
    compaction.copy_strings(np.array([0, 2, 3]), arena, np.array([0, 1, 3, 4, 5]), out, cuts)
    assert (out.tobytes(), cuts.tolist()) == (b"ade", [0, 1, 2, 3])


def test_pairs_of_a_name_are_chained_from_new_to_old() -> None:
    previous, heads, counts = np.empty(4, np.int32), np.full(2, -1, np.int32), np.zeros(2, np.int32)
    compaction.chain_pairs(np.array([0, 1, 0, 0], np.int32), previous, heads, counts)
    assert (previous.tolist(), heads.tolist(), counts.tolist()) == ([-1, -1, 0, 2], [3, 1], [3, 1])
