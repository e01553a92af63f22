"""Answers in Prometheus' JSON."""

from __future__ import annotations

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
    result = QueryResult(Scalar(0, 1), stats=QueryStats(Timings(evalTotalTime=0.01), SampleCounts(120, 12)))
    assert b"stats" not in query_json.query_response(result)
    assert query_json.query_response(result, "true").endswith(
        b'"stats":{"timings":{"evalTotalTime":0.01,"resultSortTime":0,"queryPreparationTime":0,"innerEvalTime":0,'
        b'"execQueueTime":0,"execTotalTime":0},"samples":{"totalQueryableSamples":120,"peakSamples":12}}}}'
    )


def test_statistics_of_steps_are_pairs_of_seconds_and_samples() -> None:
    stats = QueryStats(samples=SampleCounts(3, 2, np.array([1, 2])))
    body = query_json.encode_stats(stats, np.array([1500, 2000]))
    assert json.loads(body)["samples"]["totalQueryableSamplesPerStep"] == [[1.5, 1], [2, 2]]


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
