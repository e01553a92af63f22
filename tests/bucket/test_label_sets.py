"""Label sets of many blocks brought together (`group_sets`), beside dictionaries of text."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mimir_ray.bucket.label_sets import (
    LabelSets,
    fill_codes,
    find_column,
    join_sets,
    number_strings,
    packed,
)
from mimir_ray.encoding.hashing import xxhash64_of
from mimir_ray.model.labels import Labels, labels_of
from mimir_ray.testing.strategies import label_sets


def sets_of(series: list[Labels]) -> LabelSets:
    """Over the strings in order of their first use."""
    strings: dict[str, int] = {}
    names, values, offsets = [], [], [0]
    for labels in series:
        for name, value in labels:
            names.append(strings.setdefault(name, len(strings)))
            values.append(strings.setdefault(value, len(strings)))
        offsets.append(len(names))
    raw = [text.encode() for text in strings]
    cuts = np.concatenate(([0], np.cumsum([len(one) for one in raw]))).astype(np.int64)
    return LabelSets(
        np.frombuffer(b"".join(raw), np.uint8), cuts, np.array(offsets, np.int64),
        np.array(names, np.int32), np.array(values, np.int32),
    )  # fmt: skip


many = st.lists(label_sets(), max_size=6)


@settings(deadline=None)
@given(many)
def test_columns_names_values_and_hashes_are_those_of_the_text(series: list[Labels]) -> None:
    sets = sets_of(series)
    assert sets.columns().to_labels() == series
    assert sets.label_names() == sorted({name for labels in series for name, _ in labels})
    for name in (*sets.label_names(), "nowhere"):
        assert sets.label_values(name) == sorted({dict(labels)[name] for labels in series if name in dict(labels)})
    assert sets.hashes().tolist() == [
        xxhash64_of(b"".join(name.encode() + b"\xff" + value.encode() + b"\xff" for name, value in labels))
        for labels in series
    ]


@settings(deadline=None)
@given(st.lists(many, min_size=1, max_size=4), st.data())
def test_sets_of_several_blocks_are_joined_as_a_dictionary_joins_them(
    parts: list[list[Labels]], data: st.DataObject
) -> None:
    every = [labels for part in parts for labels in part]
    rows = [row for row in range(len(every)) if data.draw(st.booleans())]
    joined, groups = join_sets([sets_of(part) for part in parts], np.array(rows, np.int64))
    numbers: dict[Labels, int] = {}
    assert groups.tolist() == [numbers.setdefault(every[row], len(numbers)) for row in rows]
    assert joined.columns().to_labels() == list(numbers)
    assert joined.strings == len({text for labels in numbers for pair in labels for text in pair})


def test_equal_bytes_cut_differently_are_different_sets() -> None:
    one, other = labels_of({"ab": "c"}), labels_of({"a": "bc"})
    joined, groups = join_sets([sets_of([one]), sets_of([other, one])], np.arange(3))
    assert groups.tolist() == [0, 1, 0]
    assert joined.columns().to_labels() == [one, other]


def test_an_empty_value_is_an_absent_label() -> None:
    sets = sets_of([(("a", ""), ("b", "x")), (("b", ""),)])
    assert sets.columns().to_labels() == [(("b", "x"),), ()]
    codes = np.zeros((2, 2), np.int32)
    columns = np.array([0, -1, 1, -1], np.int32)
    fill_codes(sets.offsets, sets.names, sets.values, columns, sets.cuts, codes)
    assert codes.tolist() == [[0, 4], [0, 0]]


@given(many, label_sets())
def test_a_column_has_the_value_of_each_set(series: list[Labels], other: Labels) -> None:
    sets = sets_of([*series, other])
    column = np.empty(len(sets), np.int32)
    texts = texts_of(sets)
    for name in {name for name, _ in other} | {"nowhere"}:
        number = texts.index(name) if name in texts else -1
        find_column(sets.offsets, sets.names, sets.values, number, column)
        wanted = [dict(labels).get(name) for labels in [*series, other]]
        assert [texts[value] if value >= 0 else None for value in column.tolist()] == wanted


def texts_of(sets: LabelSets) -> list[str]:
    cuts = sets.cuts.tolist()
    return [sets.arena[a:b].tobytes().decode() for a, b in itertools.pairwise(cuts)]


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=20), st.integers(41, 2000))
def test_symbols_are_numbered_by_first_use(pairs: list[tuple[int, int]], symbols: int) -> None:
    # Symbols that are far apart fall into one slot of a small table.
    spread = [(name * (symbols // 41), value * (symbols // 41)) for name, value in pairs]
    numbers: dict[int, int] = {}
    wanted = [
        (numbers.setdefault(name, len(numbers)), numbers.setdefault(value, len(numbers))) for name, value in spread
    ]
    names, values = (np.array(column, np.int32) for column in (zip(*spread, strict=True) if spread else ((), ())))
    assert packed(names, values, symbols).tolist() == list(numbers)
    assert [*zip(names.tolist(), values.tolist(), strict=True)] == wanted
    names, values = (np.array(column, np.int32) for column in (zip(*spread, strict=True) if spread else ((), ())))
    used = np.empty(len(numbers), np.int64)
    assert number_strings(names, values, np.zeros(128, np.int32), used) == len(numbers)
    assert used.tolist() == list(numbers)
