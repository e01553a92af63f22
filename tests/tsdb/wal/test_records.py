"""Typed records: columns in, the same columns out, nothing believed unchecked."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimir_ray.model.metadata import Metadata
from mimir_ray.tsdb.append_file import buffer_bytes
from mimir_ray.tsdb.wal.records import (
    DROPPED,
    EXEMPLARS,
    METADATA,
    SAMPLES,
    SERIES,
    START_TIMESTAMPS,
    InvalidRecord,
    Record,
    decode_dropped,
    decode_exemplars,
    decode_metadata,
    decode_renumbered,
    decode_samples,
    decode_series,
    decode_start_timestamps,
    decode_truncated,
    encode_dropped,
    encode_exemplars,
    encode_metadata,
    encode_renumbered,
    encode_samples,
    encode_series,
    encode_start_timestamps,
    encode_truncated,
)

DECODERS = [
    decode_series,
    decode_samples,
    decode_metadata,
    decode_dropped,
    decode_truncated,
    decode_renumbered,
    decode_exemplars,
    decode_start_timestamps,
]


def payload(record: Record) -> bytes:
    return b"".join(bytes(piece) for piece in record[1])


references = st.integers(0, (1 << 31) - 1)
times = st.one_of(st.integers(-(1 << 63), (1 << 63) - 1), st.integers(1_700_000_000_000, 1_700_000_100_000))
rows = st.one_of(
    st.lists(st.tuples(references, times, st.integers(0, (1 << 64) - 1)), max_size=20),
    st.lists(st.tuples(references, st.integers(0, 1000), st.integers(0, (1 << 64) - 1)), max_size=20),
)


@given(rows, st.booleans())
def test_samples_come_back_with_every_bit(drawn: list[tuple[int, int, int]], late: bool) -> None:
    columns = (
        np.array([row[0] for row in drawn], np.int32),
        np.array([row[1] for row in drawn], np.int64),
        np.array([row[2] for row in drawn], np.uint64).view(np.float64),
    )
    record = encode_samples(*columns, late)
    assert record[0] == SAMPLES
    decoded = decode_samples(payload(record))
    assert decoded.references.tolist() == columns[0].tolist()
    assert decoded.timestamps.tolist() == columns[1].tolist()
    assert decoded.values.tobytes() == columns[2].tobytes()
    assert decoded.late == late
    assert all(one.flags.aligned for one in (decoded.references, decoded.timestamps, decoded.values))


def test_samples_near_in_time_take_sixteen_bytes_each() -> None:
    count = 1000
    record = encode_samples(np.arange(count, dtype=np.int32), np.arange(count) + (1 << 40), np.zeros(count))
    assert sum(buffer_bytes(piece) for piece in record[1]) == 16 + 16 * count


def test_encoding_samples_copies_neither_values_nor_references() -> None:
    references_, values = np.arange(10, dtype=np.int32), np.zeros(10)
    _, pieces = encode_samples(references_, np.arange(10), values)
    assert pieces[1] is values and pieces[3] is references_


@given(st.integers(0, 1 << 30), st.lists(st.binary(max_size=30), max_size=10))
def test_series_come_back(first: int, labels: list[bytes]) -> None:
    offsets = np.cumsum([0] + [len(one) for one in labels])
    record = encode_series(first, offsets, b"".join(labels))
    assert record[0] == SERIES
    decoded = decode_series(payload(record))
    assert (decoded.first_reference, len(decoded)) == (first, len(labels))
    assert [
        decoded.label_bytes[start:end].tobytes()
        for start, end in zip(decoded.offsets[:-1], decoded.offsets[1:], strict=True)
    ] == labels


@given(st.lists(st.tuples(st.text(), st.text(), st.text(), st.text()), max_size=5))
def test_metadata_come_back(drawn: list[tuple[str, str, str, str]]) -> None:
    metadata = [Metadata(*row) for row in drawn]
    record = encode_metadata(metadata)
    assert record[0] == METADATA
    assert decode_metadata(payload(record)) == metadata


@given(st.lists(references, max_size=20))
def test_dropped_references_come_back(drawn: list[int]) -> None:
    record = encode_dropped(np.array(drawn, np.int32))
    assert record[0] == DROPPED
    assert decode_dropped(payload(record)).tolist() == drawn


def test_times_and_numbers_come_back() -> None:
    assert decode_truncated(payload(encode_truncated(-(1 << 40)))) == -(1 << 40)
    assert decode_renumbered(payload(encode_renumbered(12))) == 12


@given(st.lists(st.tuples(references, times, st.floats(allow_nan=False), st.binary(max_size=9)), max_size=9))
def test_exemplars_come_back(drawn: list[tuple[int, int, float, bytes]]) -> None:
    offsets = np.cumsum([0] + [len(one[3]) for one in drawn])
    columns = [np.array([one[at] for one in drawn], kind) for at, kind in enumerate((np.int32, np.int64, np.float64))]
    record = encode_exemplars(columns[0], columns[1], columns[2], b"".join(one[3] for one in drawn), offsets)
    assert record[0] == EXEMPLARS
    *numbers, labels, cuts = decode_exemplars(payload(record))
    pieces = [labels[start:end] for start, end in itertools.pairwise(cuts.tolist())]
    assert list(zip(*(one.tolist() for one in numbers), pieces, strict=True)) == drawn


@given(st.lists(st.tuples(references, st.integers(-(1 << 63), (1 << 63) - 1)), max_size=20))
def test_start_timestamps_come_back(drawn: list[tuple[int, int]]) -> None:
    of_series = np.array([one for one, _ in drawn], np.int32)
    moments = np.array([time for _, time in drawn], np.int64)
    record = encode_start_timestamps(of_series, moments, moments[::-1])
    assert record[0] == START_TIMESTAMPS
    found = decode_start_timestamps(payload(record))
    assert [column.tolist() for column in found] == [of_series.tolist(), moments.tolist(), moments[::-1].tolist()]


EXAMPLES = [
    (decode_series, payload(encode_series(5, np.array([0, 3, 3, 9]), b"aaabbbbbb"))),
    (decode_samples, payload(encode_samples(np.arange(3, dtype=np.int32), np.arange(3), np.ones(3)))),
    (decode_dropped, payload(encode_dropped(np.arange(3, dtype=np.int32)))),
    (decode_truncated, payload(encode_truncated(-5))),
    (decode_renumbered, payload(encode_renumbered(7))),
    (
        decode_exemplars,
        payload(
            encode_exemplars(
                np.arange(2, dtype=np.int32), np.arange(2), np.ones(2), b"aabbb", np.array([0, 2, 5], np.int64)
            )
        ),
    ),
    (decode_start_timestamps, payload(encode_start_timestamps(np.arange(3, dtype=np.int32), np.arange(3), np.ones(3)))),
    (decode_metadata, payload(encode_metadata([Metadata("a", "counter", "help", "s")]))),
]


@pytest.mark.parametrize(("decode", "whole"), EXAMPLES)
def test_every_other_length_is_refused(decode: object, whole: bytes) -> None:
    decode(whole)  # type: ignore[operator]
    for length in range(len(whole)):
        with pytest.raises(InvalidRecord):
            decode(whole[:length])  # type: ignore[operator]
    with pytest.raises(InvalidRecord):
        decode(whole + b"x")  # type: ignore[operator]


@given(st.data())
def test_altered_bytes_are_refused_or_give_columns_of_one_length(data: st.DataObject) -> None:
    decode, whole = data.draw(st.sampled_from(EXAMPLES))
    altered = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 3))):
        altered[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = decode(bytes(altered))
    except InvalidRecord:
        return
    if decode is decode_samples:
        assert len(found.references) == len(found.timestamps) == len(found.values) and (found.references >= 0).all()
    if decode is decode_series:
        assert (np.diff(found.offsets) >= 0).all() and found.offsets[-1] == len(found.label_bytes)


@given(st.binary(max_size=100), st.sampled_from(DECODERS))
def test_made_up_payloads_never_raise_anything_else(raw: bytes, decode: object) -> None:
    try:
        decode(raw)  # type: ignore[operator]
    except InvalidRecord as error:
        assert str(error).startswith("invalid record of type")


@pytest.mark.parametrize("raw", [b"{}", b"[1]", b"[[]]", b'[["a","b","c",1]]', b"[" * 100_000, b"\xff"])
def test_metadata_of_another_shape_are_refused(raw: bytes) -> None:
    with pytest.raises(InvalidRecord):
        decode_metadata(raw)
