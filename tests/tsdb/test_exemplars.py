"""The ring of exemplars, against a list."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mimir_ray.tsdb.exemplars import DUPLICATE, OUT_OF_ORDER, SERIES_MISSING, STORED, ExemplarStore, copy_sections

Entry = tuple[int, int, float, bytes]
"""Series, time, value, label section."""


@dataclass
class Twin:
    """Slow: a list from the oldest on, looked through from end to end."""

    capacity: int
    entries: list[Entry] = field(default_factory=list)

    def append(self, entry: Entry, window: int) -> int:
        series, time, value, labels = entry
        if series < 0:
            return SERIES_MISSING
        same = [one for one in self.entries if one[0] == series]
        if same:
            latest = same[0]
            for one in same[1:]:
                if one[1] >= latest[1]:
                    latest = one
            if latest[1:] == entry[1:]:
                return DUPLICATE
            if time < latest[1]:
                if time <= latest[1] - window:
                    return OUT_OF_ORDER
                if any(one[1] == time for one in same):
                    return DUPLICATE
            elif (time, value, labels) < latest[1:]:
                return OUT_OF_ORDER
        self.entries.append(entry)
        del self.entries[: -self.capacity]
        return STORED


def append(store: ExemplarStore, entries: list[Entry], window: int = 0) -> list[int]:
    offsets = np.concatenate(([0], np.cumsum([len(one[3]) for one in entries]))).astype(np.int64)
    return store.append(
        np.array([one[0] for one in entries], np.int32),
        np.array([one[1] for one in entries], np.int64),
        np.array([one[2] for one in entries], np.float64),
        b"".join(one[3] for one in entries),
        offsets,
        window,
    ).tolist()


def content(store: ExemplarStore) -> list[Entry]:
    """From the oldest on."""
    references, timestamps, values, labels, offsets = store.export()
    cuts = offsets.tolist()
    rows = zip(references.tolist(), timestamps.tolist(), values.tolist(), strict=True)
    return [(*row, labels[cuts[at] : cuts[at + 1]]) for at, row in enumerate(rows)]


_entries = st.lists(
    st.tuples(
        st.integers(-1, 3), st.integers(0, 12), st.integers(0, 2).map(float), st.sampled_from([b"", b"a", b"bb"])
    ),
    max_size=40,
)


# The latest one of series 0 makes way for an older one.
@example(
    [(0, 2, 0.0, b""), (0, 1, 0.0, b""), *((1, at, 0.0, b"") for at in range(3)), (0, 0, 0.0, b""), (0, 0, 0.0, b"a")],
    5,
    3,
    1,
)
@given(_entries, st.integers(1, 8), st.sampled_from([0, 3, 1 << 62]), st.integers(1, 5))
@settings(deadline=None, max_examples=300)
def test_it_keeps_what_a_list_would_keep(entries: list[Entry], capacity: int, window: int, piece: int) -> None:
    store, twin = ExemplarStore(capacity), Twin(capacity)
    for at in range(0, len(entries), piece):
        some = entries[at : at + piece]
        assert append(store, some, window) == [twin.append(one, window) for one in some]
        assert content(store) == twin.entries
    assert len(store) == len(twin.entries)
    assert store.series == len({one[0] for one in twin.entries})


@given(_entries, st.integers(1, 8), st.integers(0, 12), st.integers(0, 12))
@settings(deadline=None)
def test_a_selection_is_by_series_and_time(entries: list[Entry], capacity: int, mint: int, maxt: int) -> None:
    store = ExemplarStore(capacity)
    append(store, entries, 1 << 62)
    references, timestamps, values, sections = store.select(np.array([1, 3], np.int32), mint, maxt)
    found = list(zip(references.tolist(), timestamps.tolist(), values.tolist(), sections, strict=True))
    expected = [one for one in content(store) if one[0] in (1, 3) and mint <= one[1] <= maxt]
    assert found == sorted(expected, key=lambda one: one[:2])


@pytest.mark.parametrize(("before", "after"), [(3, 5), (5, 3), (5, 5), (3, 1)])
def test_another_capacity_keeps_the_newest(before: int, after: int) -> None:
    store = ExemplarStore(before)
    entries = [(at % 2, at, 1.0, b"x" * at) for at in range(7)]
    append(store, entries)
    store.resize(after)
    assert store.capacity == after
    assert content(store) == entries[-min(before, after) :]
    assert append(store, [(0, 5, 1.0, b""), (0, 100, 1.0, b"")]) == [OUT_OF_ORDER, STORED]


def test_without_capacity_nothing_is_kept() -> None:
    store = ExemplarStore(4)
    append(store, [(0, 1, 1.0, b"a")])
    store.resize(0)
    assert len(store) == 0 and store.series == 0
    store.add(*ExemplarStore(4).export())
    store.resize(2)
    assert content(store) == []


def test_a_series_that_is_gone_takes_its_exemplars_along() -> None:
    store = ExemplarStore(4)
    append(store, [(0, 1, 1.0, b"a"), (1, 1, 1.0, b"b"), (0, 2, 1.0, b"c")])
    store.forget(np.array([0, 77], np.int32))
    assert content(store) == [(1, 1, 1.0, b"b")]
    assert append(store, [(0, 1, 5.0, b"new")]) == [STORED]
    assert content(store) == [(1, 1, 1.0, b"b"), (0, 1, 5.0, b"new")]


@given(_entries, st.lists(st.booleans(), min_size=4, max_size=4))
@settings(deadline=None)
def test_kept_series_have_their_exemplars_under_new_numbers(entries: list[Entry], kept: list[bool]) -> None:
    store = ExemplarStore(10)
    append(store, entries, 1000)
    store.forget(np.flatnonzero(~np.array(kept)).astype(np.int32))
    before = content(store)
    numbers = (np.cumsum(kept) - 1).tolist()
    store.renumber(np.array(kept))
    assert content(store) == [(numbers[series], *rest) for series, *rest in before]
    assert append(store, [(0, 10**9, 1.0, b"x")]) == [STORED]


def test_the_arena_of_labels_stays_small() -> None:
    store = ExemplarStore(10)
    for at in range(2000):
        append(store, [(at % 7, at, 1.0, b"x" * 200)])
    assert store.nbytes < 20_000


def test_sections_are_copied_back_to_back() -> None:
    out = np.empty(5, np.uint8)
    copy_sections(np.frombuffer(b"abcdef", np.uint8), np.array([4, 0], np.int64), np.array([0, 2, 5], np.int64), out)
    assert out.tobytes() == b"efabc"
