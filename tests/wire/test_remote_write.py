"""The scanner reads what protobuf reads, and refuses what is malformed."""

from __future__ import annotations

import contextlib
import random
import struct
from typing import Any

import numpy as np
import pytest
import snappy
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from mimir_ray.encoding.varint import encode_uvarint
from mimir_ray.model.labels import labels_of
from mimir_ray.model.metadata import METRIC_TYPES, Metadata
from mimir_ray.wire import protobuf
from mimir_ray.wire.compression import CorruptSnappy, WriteMessageTooLarge, decompress_snappy
from mimir_ray.wire.pb.prompb import remote_pb2, types_pb2
from mimir_ray.wire.protobuf import MalformedProtobuf, encode_labels, parse_labels
from mimir_ray.wire.remote_write import encode_write_request, read_created, scan_write_request
from mimir_ray.wire.write_scan import WriteScan

KEY = (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63)


def _lenient_request(opaque: bool) -> Any:
    """WriteRequest with bytes where it has strings: what a text is made of is not the scanner's business.

    `opaque`: also with bytes where it has exemplars and histograms, which the scanner does not look into.
    """
    pool = descriptor_pool.DescriptorPool()
    for module in (types_pb2, remote_pb2):
        file = descriptor_pb2.FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(file)
        for message in file.message_type:
            for field in message.field:
                if field.type == field.TYPE_STRING or (
                    opaque and message.name == "TimeSeries" and field.name in ("exemplars", "histograms")
                ):
                    field.type = field.TYPE_BYTES
                    field.ClearField("type_name")
        pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("prometheus.WriteRequest"))


LenientRequest = _lenient_request(opaque=False)
OpaqueRequest = _lenient_request(opaque=True)


def content(scan: WriteScan) -> list[tuple[list[tuple[bytes, bytes]], list[tuple[int, bytes]]]]:
    """Labels and samples (values as bits) of each series."""
    offsets = scan.sample_offsets.tolist()
    assert scan.sample_series.tolist() == [s for s in range(len(scan)) for _ in range(offsets[s], offsets[s + 1])]
    return [
        (
            parse_labels(scan.data, int(scan.label_start[s]), int(scan.label_end[s])),
            [(int(scan.timestamps[n]), struct.pack("<d", scan.values[n])) for n in range(offsets[s], offsets[s + 1])],
        )
        for s in range(len(scan))
    ]


def content_of_message(message: Any) -> list[tuple[list[tuple[bytes, bytes]], list[tuple[int, bytes]]]]:
    return [
        (
            [(label.name, label.value) for label in series.labels],
            [(sample.timestamp, struct.pack("<d", sample.value)) for sample in series.samples],
        )
        for series in message.timeseries
    ]


_raw = st.binary(max_size=5)
_long = st.sampled_from([b"v" * 127, b"v" * 128, b"v" * 20000])
_labels = st.lists(st.tuples(_raw, _raw | _long), max_size=4)
_samples = st.lists(st.tuples(st.integers(-(1 << 63), (1 << 63) - 1), st.floats()), max_size=4)


@st.composite
def requests(draw: st.DrawFn) -> Any:
    message = LenientRequest()
    for _ in range(draw(st.integers(0, 4))):
        series = message.timeseries.add()
        for name, value in draw(_labels):
            series.labels.add(name=name, value=value)
        for timestamp, value in draw(_samples):
            series.samples.add(timestamp=timestamp, value=value)
        for _ in range(draw(st.integers(0, 1))):
            series.exemplars.add(value=1.0, timestamp=5).labels.add(name=b"trace", value=b"x")
        for _ in range(draw(st.integers(0, 1))):
            series.histograms.add(sum=1.0, count_int=3, positive_deltas=[1, -2])
    for _ in range(draw(st.integers(0, 2))):
        message.metadata.add(type=draw(st.integers(0, 7)), metric_family_name=draw(st.binary(max_size=3)), help=b"h")
    return message


@given(requests())
@settings(deadline=None)  # the first example compiles
def test_it_reads_what_protobuf_writes(message: Any) -> None:
    scan = scan_write_request(message.SerializeToString(), KEY)
    assert content(scan) == content_of_message(message)
    assert scan.exemplars == sum(len(series.exemplars) for series in message.timeseries)
    assert scan.histograms == sum(len(series.histograms) for series in message.timeseries)
    assert scan.metadata == tuple(
        Metadata(one.metric_family_name.decode("utf-8", "replace"), METRIC_TYPES[one.type], "h")
        for one in message.metadata
    )
    timestamps = scan.timestamps.tolist()
    assert (scan.earliest, scan.latest) == ((min(timestamps), max(timestamps)) if timestamps else (0, 0))


def _sample_request(seed: int) -> bytes:
    rng = random.Random(seed)
    message = LenientRequest()
    for _ in range(rng.randrange(4)):
        series = message.timeseries.add()
        for _ in range(rng.randrange(4)):
            series.labels.add(name=rng.randbytes(rng.randrange(4)), value=rng.randbytes(rng.choice((1, 3, 130))))
        for _ in range(rng.randrange(3)):
            series.samples.add(timestamp=rng.randrange(-(1 << 62), 1 << 62), value=rng.random())
    if rng.random() < 0.3:
        message.metadata.add(type=1, metric_family_name=b"family", help=b"help")
    return message.SerializeToString()


def _damaged(body: bytes, rng: random.Random) -> bytes:
    damaged = bytearray(body)
    for _ in range(rng.randrange(1, 4)):
        kind = rng.randrange(4)
        at = rng.randrange(len(damaged) + 1)
        if kind == 0:
            del damaged[at:]
        elif kind == 1 and at < len(damaged):
            damaged[at] = rng.randrange(256)
        elif kind == 2:
            damaged[at:at] = rng.randbytes(rng.randrange(1, 4))
        elif at < len(damaged):
            damaged[at] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def test_damaged_requests_are_refused_or_read_as_protobuf_reads_them() -> None:
    rng = random.Random(20)
    read = refused = 0
    for seed in range(10_000):
        body = _damaged(_sample_request(seed % 500), rng)
        try:
            found = content(scan_write_request(body, KEY))
        except MalformedProtobuf:
            refused += 1
            continue
        message = OpaqueRequest()
        message.ParseFromString(body)  # raises where the scanner was too generous
        assert content_of_message(message) == found
        read += 1
    assert read > 1000 and refused > 1000


def test_what_protobuf_reads_is_refused_only_for_known_reasons() -> None:
    rng = random.Random(21)
    for seed in range(5_000):
        body = _damaged(_sample_request(seed % 500), rng)
        try:
            LenientRequest().ParseFromString(body)
        except DecodeError:
            continue
        try:
            content(scan_write_request(body, KEY))
        except MalformedProtobuf as error:
            assert error.problem in (
                "field of wrong wire type",  # upstream refuses it too; protobuf takes it for unknown
                "malformed sample",  # likewise inside of samples
                "labels of wrong wire type",
                "name or value of wrong wire type",
                "malformed field",  # groups
                "unsupported wire type 3",
                "a field of remote write 2.0",
            ), (error, body)


@given(st.binary(max_size=200))
@settings(max_examples=300)
def test_arbitrary_bytes_never_crash(body: bytes) -> None:
    with contextlib.suppress(MalformedProtobuf):
        content(scan_write_request(body, KEY))


def test_unknown_fields_are_passed_over() -> None:
    labels = encode_labels([(b"a", b"b")])
    sample = b"\x12\x0b\x09" + struct.pack("<d", 2.0) + b"\x10\x05"
    unknown = b"\x38\x96\x01" + b"\x41" + b"8" * 8 + b"\x4a\x02xy" + b"\x55" + b"4" * 4
    series = labels + sample + unknown
    body = b"\x10\x01" + b"\x0a" + bytes((len(series),)) + series + b"\xc0\x3e\x01"
    assert content(scan_write_request(body, KEY)) == [([(b"a", b"b")], [(5, struct.pack("<d", 2.0))])]


def created(moment: int) -> bytes:
    return b"\x30" + encode_uvarint(moment & (1 << 64) - 1)


def plain_created(body: bytes, series: int) -> list[int]:
    """Slow twin of `read_created`, by way of the fields of each message."""
    found = []
    for number, _, _, start, end in protobuf.fields(body, 0, len(body), "WriteRequest"):
        if number == 1:
            moments = [
                int.from_bytes(protobuf.read_uvarint(body, at, after, "").to_bytes(8, "little"), "little", signed=True)
                for field, wire, _, at, after in protobuf.fields(body, start, end, "TimeSeries")
                if field == 6 and wire == protobuf.VARINT
            ]
            found.append(moments[-1] if moments else 0)
    assert len(found) == series
    return found


@given(st.lists(st.tuples(st.lists(st.integers(-(1 << 63), (1 << 63) - 1), max_size=2), st.integers(0, 3)), max_size=4))
@settings(deadline=None)
def test_all_samples_of_a_series_count_from_its_created_timestamp(series: list[tuple[list[int], int]]) -> None:
    sample = b"\x12\x0b\x09" + struct.pack("<d", 2.0) + b"\x10\x05"
    label = encode_labels([(b"a", b"b")])
    body = b""
    for moments, samples in series:
        content = label + sample * samples + b"".join(created(one) for one in moments)
        body += b"\x0a" + encode_uvarint(len(content)) + content
    scan = scan_write_request(body, KEY)
    by_series = plain_created(body, len(series))
    out = np.zeros(len(series), np.int64)
    read_created(np.frombuffer(body, np.uint8), out)
    assert out.tolist() == by_series
    if any(moments for moments, _ in series):
        assert scan.start_timestamps is not None
        assert scan.start_timestamps.tolist() == [by_series[one] for one in scan.sample_series.tolist()]
    else:
        assert scan.start_timestamps is None


def test_labels_in_several_pieces_are_brought_together() -> None:
    first, second = encode_labels([(b"a", b"b")]), encode_labels([(b"c", b"d")])
    sample = b"\x12\x0b\x09" + struct.pack("<d", 2.0) + b"\x10\x05"
    scattered = first + sample + second
    whole = first + second + sample
    body = b"".join(b"\x0a" + bytes((len(one),)) + one for one in (whole, scattered))
    scan = scan_write_request(body, KEY)
    assert content(scan)[0] == content(scan)[1]
    assert scan.hash_low[0] == scan.hash_low[1] and scan.hash_high[0] == scan.hash_high[1]


def test_the_hash_depends_on_every_byte_of_the_labels_and_on_the_key() -> None:
    hashes = set()
    variants = [b"value"] + [b"value"[:at] + b"X" + b"value"[at + 1 :] for at in range(5)]
    for key in (KEY, (1, 2, 3, 5)):
        for value in variants:
            body = encode_write_request([(encode_labels([(b"name", value)]), [(1, 1.0)])])
            scan = scan_write_request(body, key)
            hashes.add((int(scan.hash_low[0]), int(scan.hash_high[0])))
    assert len(hashes) == 2 * len(variants)


def test_samples_do_not_change_the_hash() -> None:
    labels = labels_of({"a": "b"})
    one, two = (
        scan_write_request(encode_write_request([(labels, samples)]), KEY)
        for samples in ([(1, 1.0)], [(2, 2.0), (3, 3.0)])
    )
    assert one.hash_low[0] == two.hash_low[0] and one.hash_high[0] == two.hash_high[0]


def test_many_small_series_grow_the_columns() -> None:
    body = b"\x0a\x02\x12\x00" * 5000
    scan = scan_write_request(body, KEY)
    assert len(scan) == scan.samples == 5000
    assert scan.one_sample_each


def test_samples_with_the_timestamp_of_the_one_before_are_counted() -> None:
    labels = labels_of({"a": "b"})
    body = encode_write_request([(labels, [(1, 1.0), (1, 2.0), (2, 1.0)]), (labels, [(2, 1.0)])])
    assert scan_write_request(body, KEY).repeated == 1


def test_one_sample_each_needs_every_series_to_have_exactly_one() -> None:
    labels = labels_of({"a": "b"})
    body = encode_write_request([(labels, [(1, 1.0), (2, 1.0)]), (labels, [])])
    assert not scan_write_request(body, KEY).one_sample_each


_text = st.text(st.characters(codec="utf-8"), min_size=1, max_size=5)


@given(
    st.lists(st.tuples(st.dictionaries(_text, _text).map(labels_of), _samples), max_size=3),
    st.lists(st.builds(Metadata, _text, st.sampled_from(METRIC_TYPES), _text, _text), max_size=2),
)
def test_what_is_encoded_is_what_protobuf_reads(series: list[Any], metadata: list[Metadata]) -> None:
    body = encode_write_request(series, metadata)
    message = remote_pb2.WriteRequest.FromString(body)
    assert [[(label.name, label.value) for label in one.labels] for one in message.timeseries] == [
        list(labels) for labels, _ in series
    ]
    assert [[s.timestamp for s in one.samples] for one in message.timeseries] == [
        [timestamp for timestamp, _ in samples] for _, samples in series
    ]
    assert scan_write_request(body, KEY).metadata == tuple(metadata)


def test_metadata_of_an_unknown_type_is_unknown() -> None:
    assert scan_write_request(b"\x1a\x05\x08\x63\x12\x01a", KEY).metadata == (Metadata("a", "unknown"),)


@pytest.mark.parametrize(
    "body", [b"\x0a", b"\x0a\x05", b"\x0a\x02\x0a\x05", b"\x08\x01", b"\x00", b"\xff" * 11, b"\x0a\x02\x12\x05"]
)
def test_a_malformed_request_says_so(body: bytes) -> None:
    with pytest.raises(MalformedProtobuf, match="proto: WriteRequest: "):
        scan_write_request(body, KEY)


# Snappy.


def test_snappy_bodies_are_decompressed() -> None:
    assert decompress_snappy(snappy.compress(b"abc" * 100), 1000) == b"abc" * 100
    assert decompress_snappy(snappy.compress(b""), 10) == b""


def test_the_declared_length_is_checked_before_anything_is_decompressed() -> None:
    bomb = b"\xff\xff\xff\xff\x0f" + b"\x00"
    with pytest.raises(WriteMessageTooLarge) as caught:
        decompress_snappy(bomb, 100)
    assert str(caught.value) == (
        "the incoming push request has been rejected because its message size of 4294967295 bytes is larger than the "
        "allowed limit of 100 bytes (err-mimir-distributor-max-write-message-size). To adjust the related limit, "
        "configure -distributor.max-recv-msg-size, or contact your service administrator."
    )


def test_a_compressed_body_over_the_limit_is_refused() -> None:
    with pytest.raises(WriteMessageTooLarge):
        decompress_snappy(b"x" * 101, 100)


@pytest.mark.parametrize("body", [b"", b"\xff" * 6, b"\x05\x00", b"\x80", b"not snappy at all"])
def test_corrupt_snappy_is_refused(body: bytes) -> None:
    with pytest.raises(CorruptSnappy, match="snappy: corrupt input"):
        decompress_snappy(body, 1 << 20)


@given(st.binary(max_size=100))
def test_arbitrary_bodies_decompress_or_are_refused(body: bytes) -> None:
    with contextlib.suppress(CorruptSnappy, WriteMessageTooLarge):
        decompress_snappy(body, 1000)


# Label sections.


@given(_labels)
def test_label_sections_decode_to_what_went_in(labels: list[tuple[bytes, bytes]]) -> None:
    section = encode_labels(labels)
    assert parse_labels(section, 0, len(section)) == labels


def test_of_a_name_written_twice_the_last_counts() -> None:
    inner = b"\x0a\x01a\x0a\x01b\x12\x01v"
    section = b"\x0a" + bytes((len(inner),)) + inner
    assert parse_labels(section, 0, len(section)) == [(b"b", b"v")]


@pytest.mark.parametrize("inner", [b"\x08\x01", b"\x0a\x05a", b"\x0b", b"\x02"])
def test_malformed_labels_are_refused(inner: bytes) -> None:
    section = b"\x0a" + bytes((len(inner),)) + inner
    with pytest.raises(MalformedProtobuf):
        parse_labels(section, 0, len(section))


def test_numbers_of_more_than_64_bits_are_refused() -> None:
    with pytest.raises(MalformedProtobuf, match="more than 64 bits"):
        list(protobuf.fields(b"\x08" + b"\xff" * 9 + b"\x02", 0, 11, "Message"))


def test_values_keep_their_bits() -> None:
    bits = np.array([0x7FF0000000000002, 0x8000000000000000, 0x7FF8000000000001], np.uint64)
    body = encode_write_request(
        [(labels_of({"a": "b"}), [(at, value) for at, value in enumerate(bits.view(np.float64))])]
    )
    assert scan_write_request(body, KEY).values.view(np.uint64).tolist() == bits.tolist()
