"""Answers in Prometheus' JSON."""

from __future__ import annotations

import itertools
import json
import struct
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimir_ray.model.labels import LabelColumns, Labels
from mimir_ray.model.metadata import Metadata
from mimir_ray.model.result import Matrix, QueryResult, QueryStats, SampleCounts, Scalar, String, Timings, Vector
from mimir_ray.wire import query_json


def go_float(value: float) -> str:
    """strconv.FormatFloat(value, 'f' or 'e', -1, 64) by the rule of jsonutil.MarshalFloat: the slow twin."""
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "+Inf" if value > 0 else "-Inf"
    if value and not 1e-6 <= abs(value) < 1e21:
        sign, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
        assert isinstance(exponent, int)
        power = exponent + len(digits) - 1
        text = "".join(map(str, digits))
        mantissa = text[0] + ("." + text[1:] if len(text) > 1 else "")
        return f"{'-' if sign else ''}{mantissa}e{'-' if power < 0 else '+'}{abs(power):02d}"
    text = f"{Decimal(repr(value)):f}"
    return text.removesuffix(".0")


def one_series(values: list[float]) -> list[str]:
    column = np.array(values, np.float64)
    matrix = Matrix(LabelColumns.from_labels([()]), np.array([0, len(column)]), np.zeros(len(column), np.int64), column)
    decoded = json.loads(query_json.encode_value(matrix))
    return [text for _, text in decoded[0].get("values", [])]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.0, "1"),
        (-0.0, "-0"),
        (1e-7, "1e-07"),
        (1.5e-6, "0.0000015"),
        (1e-6, "0.000001"),
        (1e20, "100000000000000000000"),
        (1e21, "1e+21"),
        (123456789012345680.0, "123456789012345680"),
        (5e-324, "5e-324"),
        (float("nan"), "NaN"),
        (float("inf"), "+Inf"),
        (float("-inf"), "-Inf"),
    ],
)
def test_a_value_is_written_as_go_writes_it(value: float, text: str) -> None:
    assert one_series([value]) == [text]
    assert query_json.encode_float(value) == text
    assert go_float(value) == text


@given(
    st.lists(st.floats() | st.integers(0, (1 << 64) - 1).map(lambda n: struct.unpack("<d", struct.pack("<Q", n))[0]))
)
def test_columns_of_values_are_written_as_one_by_one(values: list[float]) -> None:
    assert one_series(values) == [go_float(value) for value in values]
    assert one_series(values) == [query_json.encode_float(value) for value in values]


_by_digits = st.builds(
    lambda sign, digits, power: float(f"{sign}{digits}e{power}"),
    st.sampled_from(["", "-"]),
    st.integers(0, 17).flatmap(lambda places: st.integers(0, 10**places)),
    st.integers(-24, 8) | st.just(-3),
)


@given(st.lists(st.floats() | _by_digits | st.integers(-(10**16), 10**16).map(float), min_size=1))
def test_values_before_others_are_written_as_one_by_one(values: list[float]) -> None:
    # Numbers are copied in words only where others follow.
    behind = [1 / 3] * 3
    assert one_series(values + behind) == [go_float(value) for value in values + behind]


@pytest.mark.parametrize("power", range(-8, 24))
def test_neighbours_of_powers_of_ten_are_written_as_one_by_one(power: int) -> None:
    middle = 10.0**power
    low, high = np.nextafter(middle, 0), np.nextafter(middle, np.inf)
    values = [float(value) * sign for value in (low, middle, high, middle / 8, middle * 1.001) for sign in (1, -1)]
    assert one_series(values + [1 / 3] * 3) == [go_float(value) for value in values] + ["0.3333333333333333"] * 3


@pytest.mark.parametrize("size", [2.0**53, 1e12, 1e15])
def test_the_last_easy_numbers_and_the_first_hard_ones_are_written_alike(size: float) -> None:
    around = size + np.arange(-20, 20) / 8
    values = [*around.tolist(), *(np.round(around * 1000) / 1000).tolist(), *(np.arange(-20, 20) / 1000).tolist()]
    assert one_series(values) == [go_float(value) for value in values]


def matrix_of(times: list[list[int]]) -> Matrix:
    labels = LabelColumns.from_labels([(("at", str(at)),) for at in range(len(times))])
    column = np.array([time for series in times for time in series], np.int64)
    return Matrix(labels, np.cumsum([0, *map(len, times)]), column, np.arange(len(column)) / 7)


def one_by_one(matrix: Matrix) -> bytes:
    """The slow twin."""
    series = []
    for row, labels in enumerate(matrix.labels.to_labels()):
        points = [
            f'[{query_json.encode_timestamp(int(matrix.timestamps[at]))},"{go_float(float(matrix.values[at]))}"]'
            for at in range(matrix.offsets[row], matrix.offsets[row + 1])
        ]
        listed = f',"values":[{",".join(points)}]' if points else ""
        series.append(b'{"metric":' + query_json.encode_labels(labels) + listed.encode() + b"}")
    return b"[" + b",".join(series) + b"]"


_INT64 = st.integers(-(1 << 63), (1 << 63) - 1)


@given(
    st.integers(-(10**13), 10**13),
    st.integers(1, 10**6),
    st.lists(st.sets(st.integers(0, 12)).map(sorted), min_size=1, max_size=6),
)
def test_series_with_gaps_share_the_steps_of_a_query(first: int, step: int, seen: list[list[int]]) -> None:
    matrix = matrix_of([[first + at * step for at in series] for series in seen])
    assert query_json.encode_value(matrix) == one_by_one(matrix)


@given(st.lists(st.lists(_INT64 | st.integers(0, 20), max_size=8), min_size=1, max_size=4))
def test_times_on_no_grid_are_written_one_by_one(times: list[list[int]]) -> None:
    matrix = matrix_of(times)
    assert query_json.encode_value(matrix) == one_by_one(matrix)


def test_times_between_the_steps_of_others_are_written_one_by_one() -> None:
    matrix = matrix_of([[0, 1000, 2000, 3000], [1, 1000, 2999, 3000], [500], [3000, 0]])
    assert query_json.encode_value(matrix) == one_by_one(matrix)


def test_a_grid_is_found_only_where_its_texts_are_used_twice() -> None:
    shared, lone, sparse = matrix_of([[5, 20], [5, 20], [20]]), matrix_of([[5, 20, 35]]), matrix_of([[0, 1], [10**15]])
    assert query_json._step_grid(shared.offsets, shared.timestamps)[:3] == (5, 15, 2)
    assert query_json._step_grid(lone.offsets, lone.timestamps).count == 0
    assert query_json._step_grid(sparse.offsets, sparse.timestamps).count == 0


def test_the_longest_answer_fits_its_bound() -> None:
    # Every text as long as its kind gets; what is written past the buffer would end the process or be missing here.
    values = [-123456789012345678901.0, -1.2345678901234567e-6, -9007199254740991.0, -12345678901.123, -1e-300, -np.inf]
    series = [[-(1 << 63)] * 40 for _ in range(3)]
    for value in values:
        matrix = matrix_of(series)
        matrix = Matrix(matrix.labels, matrix.offsets, matrix.timestamps, np.full(120, value))
        assert query_json.encode_value(matrix) == one_by_one(matrix)


@given(st.lists(st.text(st.characters(max_codepoint=127) | st.characters(codec="utf-8"))))
def test_label_values_are_joined_as_one_by_one(texts: list[str]) -> None:
    flat, offsets = query_json._flat_strings(texts)
    found = [flat[first:last].tobytes() for first, last in itertools.pairwise(offsets)]
    assert found == [query_json.encode_string(text, html=False) for text in texts]


@given(st.integers(-18, 24), st.integers(1, 10**17), st.booleans())
def test_values_of_every_magnitude_are_written_as_one_by_one(power: int, digits: int, negative: bool) -> None:
    value = float(f"{'-' if negative else ''}0.{digits}e{power}")
    assert one_series([value]) == [go_float(value)]


@given(st.integers(-(1 << 63) + 1, (1 << 63) - 1))
def test_a_timestamp_has_three_decimals_or_none(timestamp: int) -> None:
    vector = Vector(LabelColumns.from_labels([()]), timestamp, np.zeros(1))
    sign = "-" if timestamp < 0 else ""
    seconds, fraction = divmod(abs(timestamp), 1000)
    text = f"{sign}{seconds}.{fraction:03d}" if fraction else f"{sign}{seconds}"
    assert query_json.encode_value(vector) == b'[{"metric":{},"value":[%s,"0"]}]' % text.encode()
    assert query_json.encode_timestamp(timestamp) == text


_label_sets = st.lists(
    st.dictionaries(
        st.text(st.characters(codec="utf-8"), min_size=1, max_size=3),
        st.text(st.characters(codec="utf-8"), min_size=1, max_size=3),
    ).map(lambda pairs: tuple(sorted(pairs.items()))),
    max_size=5,
)


@given(_label_sets, st.data())
def test_a_matrix_decodes_to_what_went_in(series: list[Labels], data: st.DataObject) -> None:
    counts = data.draw(st.lists(st.integers(0, 3), min_size=len(series), max_size=len(series)))
    offsets = np.cumsum([0, *counts]).astype(np.int64)
    times = np.arange(offsets[-1], dtype=np.int64) * 1000
    matrix = Matrix(LabelColumns.from_labels(series), offsets, times, times / 8)
    expected = []
    for row, labels in enumerate(series):
        entry: dict[str, object] = {"metric": dict(labels)}
        if counts[row]:
            entry["values"] = [[t, go_float(t * 125.0)] for t in range(offsets[row], offsets[row + 1])]
        expected.append(entry)
    assert json.loads(query_json.encode_value(matrix)) == expected


def test_a_vector_answers_with_one_value_a_series() -> None:
    labels = LabelColumns.from_labels([(("__name__", "up"), ("job", 'a"<b')), (("job", "c"),)])
    result = QueryResult(Vector(labels, 1714000000500, np.array([1.0, 0.25])))
    assert query_json.query_response(result) == (
        b'{"status":"success","data":{"resultType":"vector","result":['
        b'{"metric":{"__name__":"up","job":"a\\"<b"},"value":[1714000000.500,"1"]},'
        b'{"metric":{"job":"c"},"value":[1714000000.500,"0.25"]}]}}'
    )


def test_an_empty_answer_is_an_empty_list() -> None:
    empty = Matrix(LabelColumns.from_labels([]), np.zeros(1, np.int64), np.zeros(0, np.int64), np.zeros(0))
    assert query_json.query_response(QueryResult(empty)) == (
        b'{"status":"success","data":{"resultType":"matrix","result":[]}}'
    )


def test_scalars_and_strings_are_points() -> None:
    assert query_json.encode_value(Scalar(1000, 0.5)) == b'[1,"0.5"]'
    assert query_json.encode_value(String(1001, "a\n")) == b'[1.001,"a\\n"]'


def test_warnings_come_before_infos_and_after_the_data() -> None:
    body = query_json.success(b"[]", ["w<"], ["i"])
    assert body == b'{"status":"success","data":[],"warnings":["w\\u003c"],"infos":["i"]}'


def test_an_error_has_its_fields_in_order() -> None:
    assert query_json.error("bad_data", 'x "y"') == b'{"status":"error","errorType":"bad_data","error":"x \\"y\\""}'


def test_statistics_are_left_out_unless_asked_for() -> None:
    result = QueryResult(Scalar(0, 1), stats=QueryStats(Timings(evalTotalTime=0.01), SampleCounts(120, 80, 12)))
    assert b"stats" not in query_json.query_response(result)
    assert query_json.query_response(result, "true").endswith(
        b'"stats":{"timings":{"evalTotalTime":0.01,"resultSortTime":0,"queryPreparationTime":0,"innerEvalTime":0,'
        b'"execQueueTime":0,"execTotalTime":0},"samples":{"totalQueryableSamples":120,"samplesRead":80,"peakSamples":12}}}}'
    )


def test_statistics_of_steps_are_pairs_of_seconds_and_samples() -> None:
    stats = QueryStats(samples=SampleCounts(3, 2, 2, np.array([1, 2]), np.array([1, 1])))
    body = query_json.encode_stats(stats, np.array([1500, 2000]))
    samples = json.loads(body)["samples"]
    assert samples["totalQueryableSamplesPerStep"] == [[1.5, 1], [2, 2]]
    assert samples["samplesReadPerStep"] == [[1.5, 1], [2, 1]]


def test_numbers_of_statistics_have_short_exponents() -> None:
    assert query_json.encode_number(1.5e-7) == "1.5e-7"
    assert query_json.encode_number(1.5e-12) == "1.5e-12"


@given(st.lists(st.text(st.characters(codec="utf-8"))))
def test_lists_of_strings_decode_to_what_went_in(texts: list[str]) -> None:
    body = query_json.encode_strings(texts)
    assert json.loads(body) == texts
    assert not set(b"<>&") & set(body)


def test_series_are_objects_without_html_escapes() -> None:
    assert query_json.encode_series([(("a", "<b>"),), ()]) == b'[{"a":"<b>"},{}]'


def test_metadata_is_listed_by_family() -> None:
    families = {"b": [Metadata("b", "gauge", "h", "s")], "a": [Metadata("a", "counter")]}
    assert query_json.encode_metadata(families) == (
        b'{"a":[{"type":"counter","help":"","unit":""}],"b":[{"type":"gauge","help":"h","unit":"s"}]}'
    )


def test_control_characters_are_escaped_as_json_iterator_does() -> None:
    assert query_json.encode_string("\b\t\x00\u2028") == b'"\\u0008\\t\\u0000\\u2028"'
