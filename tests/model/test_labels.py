"""Label sets as text and as columns: every operation against tuples."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimir_ray.model.labels import (
    LabelColumns,
    Labels,
    StringTable,
    is_legacy_label_name,
    is_legacy_metric_name,
    labels_of,
)
from mimir_ray.testing.strategies import label_names, label_sets

many = st.lists(label_sets() | label_sets(named=False), max_size=8)


def columns(series: list[Labels], table: StringTable | None = None) -> LabelColumns:
    found = LabelColumns.from_labels(series, table)
    assert_sound(found)
    return found


def assert_sound(found: LabelColumns) -> None:
    assert list(found.names) == sorted(set(found.names))
    assert found.codes.dtype == np.int32
    assert found.codes.flags.c_contiguous
    assert found.codes.shape == (len(found), len(found.names))


@given(many)
def test_label_sets_come_back_from_columns(series: list[Labels]) -> None:
    found = columns(series)
    assert found.to_labels() == series
    assert [found.labels(row) for row in range(len(found))] == series


@given(many, st.data())
def test_rows_are_taken_by_index_mask_and_slice(series: list[Labels], data: st.DataObject) -> None:
    found = columns(series)
    rows = data.draw(st.lists(st.integers(0, len(series) - 1), max_size=5) if series else st.just([]))
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=len(series), max_size=len(series))), np.bool_)
    assert found.take(np.array(rows, np.intp)).to_labels() == [series[row] for row in rows]
    assert found.take(mask).to_labels() == [one for one, keep in zip(series, mask, strict=True) if keep]
    assert found.take(slice(1, 3)).to_labels() == series[1:3]


@given(many, st.sets(label_names(), max_size=3))
def test_keeping_and_dropping_labels_share_them_out(series: list[Labels], names: set[str]) -> None:
    found = columns(series)
    kept, dropped = found.keep(names), found.drop(names)
    assert_sound(kept)
    assert_sound(dropped)
    assert kept.to_labels() == [tuple(pair for pair in one if pair[0] in names) for one in series]
    assert dropped.to_labels() == [tuple(pair for pair in one if pair[0] not in names) for one in series]


@given(many, label_names(), st.data())
def test_a_column_is_set_or_replaced_and_an_empty_value_removes_it(
    series: list[Labels], name: str, data: st.DataObject
) -> None:
    found = columns(series)
    values = data.draw(st.lists(st.sampled_from(["", "x", "y"]), min_size=len(series), max_size=len(series)))
    codes = np.array([found.table.code(value) for value in values], np.int32)
    changed = found.with_column(name, codes)
    assert_sound(changed)
    assert changed.to_labels() == [
        labels_of({**dict(one), name: value}) for one, value in zip(series, values, strict=True)
    ]
    assert found.to_labels() == series


@given(many, label_names())
def test_a_column_has_the_values_of_one_label(series: list[Labels], name: str) -> None:
    found = columns(series)
    strings = [found.table.strings[code] for code in found.column(name)]
    assert strings == [dict(one).get(name, "") for one in series]


@given(many, st.permutations(["a", "b", "job", "__name__", "none"]))
def test_aligned_codes_stand_in_the_order_asked_for(series: list[Labels], names: list[str]) -> None:
    found = columns(series)
    aligned = found.align(tuple(names))
    for row, one in enumerate(series):
        assert [found.table.strings[code] for code in aligned[row]] == [dict(one).get(name, "") for name in names]


@given(many, many)
def test_columns_of_two_tables_are_put_together_in_one(first: list[Labels], second: list[Labels]) -> None:
    table = StringTable()
    parts = [columns(first).rebase(table), columns(second).rebase(table)]
    assert all(part.table is table for part in parts)
    together = LabelColumns.concat(parts)
    assert_sound(together)
    assert together.to_labels() == first + second


def test_a_table_learns_only_strings_that_are_used() -> None:
    source = columns([labels_of({"a": "1"}), labels_of({"a": "2"})])
    table = StringTable()
    source.take(slice(1, 2)).rebase(table)
    assert table.strings == ["", "2"]


def test_series_without_labels_have_rows_nevertheless() -> None:
    empty = LabelColumns.empty_sets(3, StringTable())
    assert len(empty) == 3
    assert empty.to_labels() == [(), (), ()]
    assert empty.with_column("a", np.zeros(3, np.int32)).to_labels() == [(), (), ()]


@given(st.lists(st.text(max_size=3), max_size=10), st.lists(st.text(max_size=3), max_size=10))
def test_a_string_keeps_its_code_for_good(first: list[str], second: list[str]) -> None:
    table = StringTable()
    codes = {text: table.code(text) for text in first}
    assert table.add_all(second) == [table.code(text) for text in second]
    assert all(table.find(text) == code for text, code in codes.items())
    assert table.find("") == 0
    assert table.find("not there at all") == -1
    assert len(table) == len(set(table.strings)) == len({"", *first, *second})


@given(st.lists(st.text(max_size=3), max_size=10), st.lists(st.text(max_size=3), max_size=10))
def test_codes_are_translated_from_one_table_to_another(ours: list[str], theirs: list[str]) -> None:
    here, there = StringTable(), StringTable()
    here.add_all(ours)
    there.add_all(theirs)
    translation = here.translate(there)
    assert [here.strings[code] for code in translation] == there.strings


def test_a_table_is_the_same_after_it_travelled() -> None:
    table = StringTable()
    table.add_all(["b", "a"])
    copy = pickle.loads(pickle.dumps(table))
    assert copy.strings == table.strings
    assert copy.code("a") == table.code("a")


def test_a_label_set_is_sorted_and_has_no_empty_values() -> None:
    assert labels_of({"b": "1", "a": "2", "c": ""}) == labels_of([("a", "2"), ("b", "1")]) == (("a", "2"), ("b", "1"))


@pytest.mark.parametrize(
    ("name", "metric", "label"),
    [("up", True, True), ("a:b", True, False), ("_a9", True, True), ("9a", False, False), ("", False, False),
     ("a.b", False, False), ("ä", False, False), ("a\n", False, False)],
)  # fmt: skip
def test_names_that_need_no_quotes_are_told_from_others(name: str, metric: bool, label: bool) -> None:
    assert (is_legacy_metric_name(name), is_legacy_label_name(name)) == (metric, label)
