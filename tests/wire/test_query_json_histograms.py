"""Native histograms in answers, to the letter."""

from __future__ import annotations

import numpy as np

from mimir_ray.model.float_histogram import CUSTOM_BUCKETS_SCHEMA, FloatHistogram
from mimir_ray.model.histogram import HistogramCells
from mimir_ray.model.labels import LabelColumns
from mimir_ray.model.result import Matrix, Vector
from mimir_ray.wire.query_json import encode_histogram, encode_value

ONE = FloatHistogram(
    0, 0.25, 3.0, 45.5, 34.5, 0,
    np.array([0, 1], np.int32), np.array([39.0, 0.0]), np.array([0], np.int32), np.array([3.5]),
)  # fmt: skip
TEXT = '{"count":"45.5","sum":"34.5","buckets":[[1,"-1","-0.5","3.5"],[3,"-0.25","0.25","3"],[0,"0.5","1","39"]]}'


def test_buckets_say_which_bounds_belong_to_them() -> None:
    assert encode_histogram(ONE) == TEXT


def test_a_histogram_without_observations_has_no_buckets() -> None:
    assert encode_histogram(FloatHistogram(sum=float("nan"))) == '{"count":"0","sum":"NaN"}'


def test_custom_buckets_are_closed_above_and_the_first_one_below() -> None:
    one = FloatHistogram(
        CUSTOM_BUCKETS_SCHEMA,
        count=6.0,
        positive=np.arange(3, dtype=np.int32),
        positive_counts=np.array([1.0, 2.0, 3.0]),
        custom_values=np.array([5.0, 10.0]),
    )
    assert encode_histogram(one) == (
        '{"count":"6","sum":"0","buckets":[[3,"-Inf","5","1"],[0,"5","10","2"],[0,"10","+Inf","3"]]}'
    )


def test_vectors_and_matrices_name_the_kind_of_each_point() -> None:
    labels = LabelColumns.from_labels([(("a", "b"),), (("a", "c"),)])
    cells = HistogramCells(2)
    cells.put(0, ONE)
    vector = Vector(labels, 1500, np.array([0.0, 7.0]), cells.part())
    assert encode_value(vector).decode() == (
        f'[{{"metric":{{"a":"b"}},"histogram":[1.500,{TEXT}]}},{{"metric":{{"a":"c"}},"value":[1.500,"7"]}}]'
    )
    cells = HistogramCells(3)
    cells.put(1, ONE)
    times = np.array([1000, 2000, 1000], np.int64)
    matrix = Matrix(labels, np.array([0, 2, 3]), times, np.array([4.0, 0.0, 7.0]), cells.part())
    assert encode_value(matrix).decode() == (
        f'[{{"metric":{{"a":"b"}},"values":[[1,"4"]],"histograms":[[2,{TEXT}]]}},'
        '{"metric":{"a":"c"},"values":[[1,"7"]]}]'
    )
