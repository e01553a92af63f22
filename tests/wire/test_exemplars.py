"""Exemplars of remote write 1.0, and which are sound."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimir_ray.wire import exemplars as wire
from mimir_ray.wire.exemplars import judge_exemplars, read_exemplars
from mimir_ray.wire.pb.prompb import remote_pb2
from mimir_ray.wire.protobuf import MalformedProtobuf, RawLabel, encode_labels, parse_labels
from mimir_ray.wire.remote_write import scan_write_request

KEY = (1, 2, 3, 4)
_texts = st.text("abé", max_size=4)


def judged(labels: list[RawLabel], timestamp: int) -> int:
    """Slow twin."""
    if not labels:
        return wire.LABELS_MISSING
    if timestamp == 0:
        return wire.TIMESTAMP_MISSING
    if sum(len(name.decode()) + len(value.decode()) for name, value in labels) > 10:
        return wire.LABELS_TOO_LONG
    return wire.OK if any(name and value for name, value in labels) else wire.LABELS_MISSING


@st.composite
def requests(draw: st.DrawFn) -> Any:
    message = remote_pb2.WriteRequest()
    for _ in range(draw(st.integers(0, 3))):
        series = message.timeseries.add()
        series.labels.add(name="__name__", value="m")
        for _ in range(draw(st.integers(0, 3))):
            one = series.exemplars.add(value=draw(st.floats()), timestamp=draw(st.sampled_from([0, 5, -7, 1 << 60])))
            for name, value in draw(st.lists(st.tuples(_texts, _texts), max_size=3)):
                one.labels.add(name=name, value=value)
        series.samples.add(value=1.0, timestamp=1)
    return message


@given(requests())
@settings(deadline=None)
def test_they_are_read_as_protobuf_reads_them(message: Any) -> None:
    scan = scan_write_request(message.SerializeToString(), KEY)
    found = read_exemplars(scan, 10)
    expected = [(at, one) for at, series in enumerate(message.timeseries) for one in series.exemplars]
    assert found.series.tolist() == [at for at, _ in expected]
    assert found.timestamps.tolist() == [one.timestamp for _, one in expected]
    assert found.values.tobytes() == np.array([one.value for _, one in expected], np.float64).tobytes()
    cuts = found.offsets.tolist()
    for row, (_, one) in enumerate(expected):
        labels = [(label.name.encode(), label.value.encode()) for label in one.labels]
        assert parse_labels(found.labels, cuts[row], cuts[row + 1]) == labels
        assert int(found.problems[row]) == judged(labels, one.timestamp)


@pytest.mark.parametrize("content", [b"\x09" + b"\0" * 8, b"\x11\x01", b"\x1a\x00", b"\x18\xff"])
def test_malformed_ones_are_refused(content: bytes) -> None:
    series = b"\x1a" + bytes([len(content)]) + content
    scan = scan_write_request(b"\x0a" + bytes([len(series)]) + series, KEY)
    if content[0] == 0x09:
        # An unknown wire type of `labels`: not one of ours, so it has none.
        assert read_exemplars(scan, 10).problems.tolist() == [wire.LABELS_MISSING]
        return
    with pytest.raises(MalformedProtobuf):
        read_exemplars(scan, 10)


@given(st.binary(max_size=30))
@settings(deadline=None)
def test_any_label_section_is_judged(section: bytes) -> None:
    problems = np.empty(1, np.int64)
    data = np.frombuffer(section, np.uint8)
    judge_exemplars(data, np.array([0, len(section)], np.int64), np.array([1], np.int64), 10, problems)
    if problems[0] == wire.OK:
        assert any(name and value for name, value in parse_labels(section, 0, len(section)))


def test_a_sound_section_is_judged_by_characters_and_not_by_bytes() -> None:
    problems = np.empty(2, np.int64)
    fits, too_long = (encode_labels([("é".encode(), ("é" * count).encode())]) for count in (9, 10))
    offsets = np.array([0, len(fits), len(fits) + len(too_long)], np.int64)
    judge_exemplars(np.frombuffer(fits + too_long, np.uint8), offsets, np.ones(2, np.int64), 10, problems)
    assert problems.tolist() == [wire.OK, wire.LABELS_TOO_LONG]
