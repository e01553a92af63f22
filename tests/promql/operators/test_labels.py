"""Label columns inside a query: taking over codes, grouping, order, twins."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimir_ray.model.labels import LabelColumns, Labels, StringTable, labels_of
from mimir_ray.model.series import StepMatrix
from mimir_ray.promql.limits import EvaluationError
from mimir_ray.promql.operators.labels import (
    DistinctLabels,
    Groups,
    Intake,
    label_order,
    merge_same_labels,
    without_names,
)

label_sets = st.dictionaries(st.sampled_from("abcdé"), st.sampled_from(["1", "2", "10", "z", "ü"])).map(labels_of)


def matrix(series: list[Labels], values: list[list[float | None]], table: StringTable | None = None) -> StepMatrix:
    array = np.array([[0.0 if value is None else value for value in row] for row in values])
    present = np.array([[value is not None for value in row] for row in values], np.bool_)
    return StepMatrix(LabelColumns.from_labels(series, table), array, present)


@given(st.lists(label_sets, max_size=12))
def test_the_order_of_rows_is_the_order_of_label_sets(series: list[Labels]) -> None:
    order = label_order(LabelColumns.from_labels(series))
    assert [series[row] for row in order.tolist()] == sorted(series)


@given(st.lists(st.lists(label_sets, min_size=1, max_size=6), min_size=1, max_size=4), st.booleans())
def test_labels_of_any_table_arrive_as_they_were(batches: list[list[Labels]], many: bool) -> None:
    intake = Intake(StringTable())
    shared = StringTable()
    for series in batches:
        repeated = series * (400 if many else 1)  # both ways of translating
        taken = intake.take(LabelColumns.from_labels(repeated, shared))
        assert taken.table is intake.table
        assert taken.to_labels() == repeated


def test_any_number_of_tables_can_take_turns() -> None:
    intake = Intake(StringTable())
    batches = [[labels_of({"a": str(table), "b": str(i)}) for i in range(300)] for table in range(40)]
    tables = [StringTable() for _ in batches]
    for _ in range(2):
        for series, table in zip(batches, tables, strict=True):
            assert intake.take(LabelColumns.from_labels(series, table)).to_labels() == series


@given(st.lists(st.lists(label_sets, max_size=6), max_size=4), st.booleans())
def test_groups_have_the_labels_they_are_named_by(batches: list[list[Labels]], without: bool) -> None:
    table = StringTable()
    groups = Groups(("a", "c"), without, table)
    keys: dict[Labels, int] = {}
    for series in batches:
        found = groups.assign(LabelColumns.from_labels(series, table))
        wanted = [tuple(pair for pair in labels if (pair[0] in ("a", "c")) != without) for labels in series]
        assert found.tolist() == [keys.setdefault(key, len(keys)) for key in wanted]
    assert groups.labels().to_labels() == list(keys)


def test_equal_series_that_never_meet_become_one() -> None:
    twin = labels_of({"a": "1"})
    merged = merge_same_labels(matrix([twin, labels_of({"b": "1"}), twin], [[1, None], [5, 5], [None, 2]]))
    assert merged.labels.to_labels() == [twin, labels_of({"b": "1"})]
    assert merged.values[0].tolist() == [1, 2]


def test_of_equal_series_the_one_that_begins_first_says_whether_the_name_goes() -> None:
    twin, other = labels_of({"a": "1"}), labels_of({"b": "1"})
    both = matrix([twin, other, twin], [[None, 1, None], [5, 5, 5], [0, None, 2]])
    both.drop_name = np.array([True, True, False])
    merged = merge_same_labels(both)
    assert merged.labels.to_labels() == [twin, other]
    assert merged.drop_name is not None
    assert merged.drop_name.tolist() == [False, True]


def test_equal_series_that_meet_are_refused() -> None:
    twin = labels_of({"a": "1"})
    with pytest.raises(EvaluationError, match="vector cannot contain metrics with the same labelset"):
        merge_same_labels(matrix([twin, twin], [[1, None], [3, 2]]))


def test_twins_in_different_batches_are_found_even_if_labels_differ_in_number() -> None:
    table = StringTable()
    check = DistinctLabels(table)
    check.check(matrix([labels_of({"a": "1"})], [[1.0]], table))
    check.check(matrix([labels_of({"a": "1", "b": "2"})], [[1.0]], table))
    with pytest.raises(EvaluationError):
        check.check(matrix([labels_of({"a": "1"})], [[1.0]], table))


def test_a_series_without_a_value_is_nobodys_twin() -> None:
    twin = labels_of({"a": "1"})
    DistinctLabels(StringTable()).check(matrix([twin, twin], [[1.0], [None]]))


def test_a_name_goes_with_type_and_unit() -> None:
    labels = LabelColumns.from_labels([labels_of({"__name__": "x", "__type__": "counter", "__unit__": "s", "a": "1"})])
    assert without_names(labels).to_labels() == [labels_of({"a": "1"})]
