"""Samples as columns, and the one NaN that ends a series."""

from __future__ import annotations

import math

import numpy as np

from mimir_ray.model.labels import LabelColumns, labels_of
from mimir_ray.model.series import NORMAL_NAN_BITS, STALE_NAN, StepMatrix, is_stale
from mimir_ray.testing.sources import batch_of


def test_a_staleness_marker_is_one_bit_pattern_among_all_nans() -> None:
    normal = np.array([NORMAL_NAN_BITS], np.uint64).view(np.float64)[0]
    values = np.array([STALE_NAN, normal, math.nan, 1.0, math.inf, -0.0])
    assert math.isnan(STALE_NAN)
    assert is_stale(values).tolist() == [True, False, False, False, False, False]


def test_a_batch_counts_its_series_and_its_samples() -> None:
    batch = batch_of([(labels_of({"a": "1"}), [(1, 1.0), (2, 2.0)]), (labels_of({"a": "2"}), [])])
    assert (len(batch), batch.samples) == (2, 2)


def test_rows_of_a_matrix_are_taken_with_everything_that_belongs_to_them() -> None:
    labels = LabelColumns.from_labels([labels_of({"a": str(row)}) for row in range(3)])
    values = np.arange(6, dtype=np.float64).reshape(3, 2)
    present = values % 2 == 0
    matrix = StepMatrix(labels, values, present, np.array([True, False, True]))
    taken = matrix.take(np.array([2, 0]))
    assert taken.labels.to_labels() == [labels_of({"a": "2"}), labels_of({"a": "0"})]
    assert taken.values.tolist() == [[4, 5], [0, 1]]
    assert taken.present.tolist() == [[True, False], [True, False]]
    assert taken.drop_name is not None
    assert taken.drop_name.tolist() == [True, True]
    assert taken.values.flags.c_contiguous
    assert StepMatrix(labels, values, present).take(slice(0, 1)).drop_name is None
