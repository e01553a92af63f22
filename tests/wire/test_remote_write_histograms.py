"""Native histograms in write requests, against protobuf's own classes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimir_ray.model.boxed import is_boxed, unbox
from mimir_ray.model.float_histogram import FloatHistogram
from mimir_ray.model.series import STALE_NAN
from mimir_ray.wire import remote_write_histograms as wire
from mimir_ray.wire.pb.prompb import remote_pb2
from mimir_ray.wire.protobuf import MalformedProtobuf
from mimir_ray.wire.remote_write import scan_write_request

KEY = (1, 2, 3, 4)


def side(spans: list[tuple[int, int]], numbers: list[float], deltas: bool) -> dict[int, float]:
    """Slow twin: index to count."""
    found, index, place, value = {}, 0, 0, 0.0
    for offset, length in spans:
        index += offset
        for _ in range(length):
            value = value + numbers[place] if deltas else numbers[place]
            found[index] = float(value)
            place += 1
            index += 1
    return found


def buckets(histogram: FloatHistogram) -> tuple[dict[int, float], dict[int, float]]:
    return (
        dict(zip(histogram.positive.tolist(), histogram.positive_counts.tolist(), strict=True)),
        dict(zip(histogram.negative.tolist(), histogram.negative_counts.tolist(), strict=True)),
    )


_spans = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=3)


@st.composite
def sides(draw: st.DrawFn, is_float: bool) -> tuple[list[tuple[int, int]], list[float]]:
    spans = draw(_spans)
    if spans:
        spans[0] = draw(st.integers(-300, 300)), spans[0][1]
    count = sum(length for _, length in spans)
    absolute = draw(st.lists(st.integers(0, 1 << 40), min_size=count, max_size=count))
    if is_float:
        return spans, [float(one) / 4 for one in absolute]
    return spans, [now - before for before, now in zip([0, *absolute], absolute, strict=False)]


@st.composite
def messages(draw: st.DrawFn) -> tuple[Any, dict[int, float], dict[int, float]]:
    is_float = draw(st.booleans())
    message = remote_pb2.WriteRequest().timeseries.add().histograms.add()
    above, below = draw(sides(is_float)), draw(sides(is_float))
    positive, negative = side(*above, not is_float), side(*below, not is_float)
    zero = draw(st.integers(0, 100))
    message.sum, message.schema = draw(st.floats()), draw(st.integers(-4, 8))
    message.zero_threshold, message.timestamp = 0.001, draw(st.integers(-(1 << 62), 1 << 62))
    message.reset_hint = draw(st.integers(0, 3))
    total = sum(positive.values()) + sum(negative.values()) + zero
    for name, (spans, numbers) in (("positive", above), ("negative", below)):
        for offset, length in spans:
            getattr(message, f"{name}_spans").add(offset=offset, length=length)
        getattr(message, f"{name}_{'counts' if is_float else 'deltas'}").extend(numbers)
    if is_float:
        message.count_float, message.zero_count_float = total, zero
    else:
        message.count_int, message.zero_count_int = int(total), zero
    return message, positive, negative


@given(st.lists(messages(), max_size=4))
@settings(deadline=None, max_examples=150)
def test_messages_become_columns(given_messages: list[Any]) -> None:
    request = remote_pb2.WriteRequest()
    for number, (message, *_) in enumerate(given_messages):
        series = request.timeseries.add()
        series.labels.add(name="__name__", value=f"h{number}")
        series.samples.add(value=1.0, timestamp=5)
        series.histograms.append(message)
    found = wire.read_histograms(scan_write_request(request.SerializeToString(), KEY))
    assert found.problems.tolist() == [wire.OK] * len(given_messages)
    assert found.series.tolist() == list(range(len(given_messages)))
    for row, (message, positive, negative) in enumerate(given_messages):
        one = found.columns.row(row)
        assert buckets(one) == (positive, negative)
        assert (one.schema, one.hint, one.zero_threshold) == (message.schema, message.reset_hint, 0.001)
        assert np.float64(one.sum).tobytes() == np.float64(message.sum).tobytes()
        assert one.count == (message.count_int or message.count_float)
        assert one.zero_count == (message.zero_count_int or message.zero_count_float)
        assert found.timestamps[row] == message.timestamp


def read_one(**fields: Any) -> wire.HistogramScan:
    request = remote_pb2.WriteRequest()
    series = request.timeseries.add()
    series.labels.add(name="__name__", value="h")
    spans = {name: fields.pop(name, []) for name in ("positive_spans", "negative_spans")}
    message = series.histograms.add(**fields)
    for name, pairs in spans.items():
        for offset, length in pairs:
            getattr(message, name).add(offset=offset, length=length)
    return wire.read_histograms(scan_write_request(request.SerializeToString(), KEY))


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"schema": 9}, wire.SCHEMA),
        ({"schema": -5}, wire.SCHEMA),
        ({"count_int": 2, "positive_spans": [(0, 1)], "positive_deltas": [1]}, wire.COUNT_MISMATCH),
        ({"count_int": 0, "positive_spans": [(0, 1)], "positive_deltas": [1], "sum": math.nan}, wire.COUNT_TOO_SMALL),
        ({"count_int": 2, "positive_spans": [(0, 1)], "positive_deltas": [1], "sum": math.nan}, wire.OK),
        ({"positive_spans": [(0, 2)], "positive_deltas": [1, -2]}, wire.NEGATIVE_COUNT),
        ({"count_int": 2, "positive_spans": [(0, 1), (-1, 1)], "positive_deltas": [1, 0]}, wire.NEGATIVE_OFFSET),
        ({"count_int": 1, "positive_spans": [(0, 2)], "positive_deltas": [1]}, wire.SPANS),
        ({"positive_spans": [(0, 0xFFFFFFFF)]}, wire.SPANS),
        ({"count_int": 7, "sum": STALE_NAN}, wire.OK),
    ],
)
def test_what_contradicts_itself_is_told_by_its_kind(fields: dict[str, Any], problem: int) -> None:
    assert read_one(**fields).problems.tolist() == [problem]


def test_bytes_that_are_no_histogram_are_malformed() -> None:
    body = b"\x0a\x04\x22\x02\x08\xff"
    with pytest.raises(MalformedProtobuf, match="Histogram"):
        wire.read_histograms(scan_write_request(body, KEY))


def test_histograms_stand_behind_the_floats_of_their_series() -> None:
    request = remote_pb2.WriteRequest()
    for number in range(2):
        series = request.timeseries.add()
        series.labels.add(name="__name__", value=f"h{number}")
        series.samples.add(value=float("nan"), timestamp=1)
        series.histograms.add(timestamp=2, sum=float(number))
    scan = scan_write_request(request.SerializeToString(), KEY)
    merged = wire.with_histograms(scan, wire.read_histograms(scan), np.array([False, True]))
    assert merged.sample_series.tolist() == [0, 1, 1]
    assert merged.timestamps.tolist() == [1, 1, 2]
    assert is_boxed(merged.values).tolist() == [False, False, True]
    assert unbox(merged.values[2:]).tolist() == [1]
    assert merged.sample_offsets.tolist() == [0, 1, 3]


def test_a_float_that_looks_like_a_number_of_a_histogram_becomes_plain_nan() -> None:
    request = remote_pb2.WriteRequest()
    series = request.timeseries.add()
    series.samples.add(value=np.array([0x7FF9_0000_0000_0000], np.uint64).view(np.float64)[0], timestamp=1)
    series.histograms.add(timestamp=2)
    scan = scan_write_request(request.SerializeToString(), KEY)
    merged = wire.with_histograms(scan, wire.read_histograms(scan), np.array([True]))
    assert is_boxed(merged.values).tolist() == [False, True]


def test_too_many_buckets_are_halved_until_they_fit() -> None:
    one = FloatHistogram(2, count=8, positive=np.arange(8, dtype=np.int32), positive_counts=np.ones(8))
    smaller = wire.halved(one, 3)
    assert smaller is not None and smaller.schema == 0
    assert float(smaller.positive_counts.sum()) == 8
    assert wire.halved(one, 0) is None
