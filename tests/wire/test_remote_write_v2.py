"""The scanner of remote write 2.0 reads what protobuf reads, and refuses what is malformed.

Slow twin of its kernels (`find_symbols`, `hash_symbols` and those below): protobuf's own parser.
"""

from __future__ import annotations

import itertools
import random
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimir_ray.model.metadata import METRIC_TYPES, Metadata
from mimir_ray.wire.compression import WriteMessageTooLarge
from mimir_ray.wire.exemplars import read_exemplars
from mimir_ray.wire.pb.prompb.io.prometheus.write.v2 import types_pb2 as v2
from mimir_ray.wire.protobuf import MalformedProtobuf, encode_labels, parse_labels
from mimir_ray.wire.remote_write import scan_write_request
from mimir_ray.wire.remote_write_histograms import read_histograms
from mimir_ray.wire.remote_write_v2 import scan_write_request_v2
from mimir_ray.wire.write_scan import WriteScan, family_name

KEY = (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63)
Labels = list[tuple[str, str]]


class Writer:
    """Writes requests as a sender does: with one symbol for each text."""

    def __init__(self) -> None:
        self.message = v2.Request(symbols=[""])
        self._known = {"": 0}

    def symbol(self, text: str) -> int:
        if text not in self._known:
            self._known[text] = len(self.message.symbols)
            self.message.symbols.append(text)
        return self._known[text]

    def series(self, labels: Labels, samples: Any = (), **metadata: Any) -> Any:
        refs = [self.symbol(text) for label in labels for text in label]
        one = self.message.timeseries.add(labels_refs=refs)
        for at, value, *start in samples:
            one.samples.add(timestamp=at, value=value, start_timestamp=start[0] if start else 0)
        if metadata:
            one.metadata.type = metadata["type"]
            one.metadata.help_ref = self.symbol(metadata.get("help", ""))
            one.metadata.unit_ref = self.symbol(metadata.get("unit", ""))
        return one

    def bytes(self) -> bytes:
        return self.message.SerializeToString()


def labels_in(scan: WriteScan) -> list[list[tuple[bytes, bytes]]]:
    scan.need_labels(np.arange(len(scan)))
    return [
        parse_labels(scan.data, *cut) for cut in zip(scan.label_start.tolist(), scan.label_end.tolist(), strict=True)
    ]


def samples_in(scan: WriteScan) -> list[list[tuple[int, bytes, int]]]:
    offsets = scan.sample_offsets.tolist()
    starts = np.zeros(scan.samples, np.int64) if scan.start_timestamps is None else scan.start_timestamps
    return [
        [(int(scan.timestamps[n]), struct.pack("<d", scan.values[n]), int(starts[n])) for n in range(first, last)]
        for first, last in itertools.pairwise(offsets)
    ]


def resolved(message: Any) -> list[list[tuple[bytes, bytes]]]:
    """Slow twin: the labels of each series."""
    found = []
    for series in message.timeseries:
        texts = [message.symbols[ref].encode() for ref in series.labels_refs]
        found.append(list(zip(texts[::2], texts[1::2], strict=True)))
    return found


_text = st.sampled_from(["", "a", "b", "__name__", "job", "é" * 70, "v" * 128, "v" * 20000])
_times = st.integers(-(1 << 63), (1 << 63) - 1)


@st.composite
def requests(draw: st.DrawFn) -> Any:
    writer = Writer()
    for _ in range(draw(st.integers(0, 4))):
        labels = draw(st.lists(st.tuples(_text, _text), max_size=4))
        samples = draw(st.lists(st.tuples(_times, st.floats(), st.sampled_from([0, 5, -1])), max_size=3))
        one = writer.series(labels, samples)
        if draw(st.booleans()):
            one.created_timestamp = draw(_times)
        for _ in range(draw(st.integers(0, 2))):
            refs = [writer.symbol(text) for _ in range(draw(st.integers(0, 2))) for text in ("trace", draw(_text))]
            one.exemplars.add(labels_refs=refs, value=draw(st.floats()), timestamp=draw(_times))
        if draw(st.booleans()):
            one.metadata.type = draw(st.integers(0, 7))  # type: ignore[assignment]
            one.metadata.help_ref = writer.symbol(draw(_text))
        for _ in range(draw(st.integers(0, 1))):
            start = draw(st.sampled_from([0, 7]))
            histogram = one.histograms.add(
                sum=1.0, count_int=1, timestamp=draw(_times), positive_deltas=[1], start_timestamp=start
            )
            histogram.positive_spans.add(offset=1, length=1)
    return writer.message


@given(requests())
@settings(deadline=None)  # the first example compiles
def test_it_reads_what_protobuf_writes(message: Any) -> None:
    assert_read(message)


@pytest.mark.parametrize("seed", range(6))
def test_plain_series_and_others_by_turns_are_read_alike(seed: int) -> None:
    """Runs of series as senders have them (`read_plain`, `hash_plain`), and of ones with anything else (`_scan`)."""
    rng = random.Random(seed)
    writer = Writer()
    while len(writer.message.timeseries) < 300:
        plain = rng.random() < 0.5
        for at in range(rng.choice((1, 5, 20, 60))):
            labels = [
                ("__name__", f"n{at % 7}"),
                *((f"l{n}", str(rng.randrange(300))) for n in range(rng.randrange(9))),
            ]
            about = {"type": at % 4, "help": f"h{at % 3}", "unit": rng.choice(("", "s"))} if rng.random() < 0.7 else {}
            sample = (1_700_000_000_000 + at, rng.choice((0.0, 1.5)), rng.choice((0, 0, 1_600_000_000_000)))
            one = writer.series(labels, [sample], **about)
            if not plain:
                match rng.randrange(4):
                    case 0:
                        one.samples.add(timestamp=5, value=2.0)
                    case 1:
                        del one.samples[:]
                    case 2:
                        refs = [writer.symbol("trace"), writer.symbol("x")]
                        one.exemplars.add(labels_refs=refs, value=1.0, timestamp=7)
                    case 3:
                        one.created_timestamp = 9
    scan = assert_read(writer.message)
    assert scan.families is not None
    told = {
        (one.family, one.type, one.help, one.unit) for one in scan.read_families(np.arange(len(scan.families.keys)))
    }
    assert told == {
        (family_name(name, METRIC_TYPES[kind]), METRIC_TYPES[kind], texts[0], texts[1])
        for name, kind, *texts in (
            (
                writer.message.symbols[one.labels_refs[1]], one.metadata.type,
                writer.message.symbols[one.metadata.help_ref], writer.message.symbols[one.metadata.unit_ref],
            )
            for one in writer.message.timeseries
        )
        if kind or texts[0] or texts[1]
    }  # fmt: skip
    odd = Writer()
    for labels in resolved(writer.message):
        odd.series([(name.decode(), value.decode()) for name, value in labels])
    again = scan_write_request_v2(odd.bytes(), KEY)
    assert again.hash_low.tolist() == scan.hash_low.tolist() and again.hash_high.tolist() == scan.hash_high.tolist()


@pytest.mark.parametrize("at", [0, 1, 40, 99])
def test_what_is_malformed_behind_plain_series_is_named(at: int) -> None:
    writer = Writer()
    for number in range(100):
        writer.series([("__name__", str(number))], [(1, 1.0)])
    writer.message.timeseries[at].labels_refs[1] = 1000
    with pytest.raises(MalformedProtobuf, match="invalid label reference"):
        scan_write_request_v2(writer.bytes(), KEY)
    del writer.message.timeseries[at].labels_refs[1]
    with pytest.raises(MalformedProtobuf, match="odd number of label references"):
        scan_write_request_v2(writer.bytes(), KEY)


def assert_read(message: Any) -> WriteScan:
    scan = scan_write_request_v2(message.SerializeToString(), KEY)
    assert labels_in(scan) == resolved(message)
    assert samples_in(scan) == [
        [
            (one.timestamp, struct.pack("<d", one.value), one.start_timestamp or series.created_timestamp)
            for one in series.samples
        ]
        for series in message.timeseries
    ]
    timestamps = scan.timestamps.tolist()
    assert (scan.earliest, scan.latest) == ((min(timestamps), max(timestamps)) if timestamps else (0, 0))
    owners = [at for at, series in enumerate(message.timeseries) for _ in series.samples]
    assert scan.sample_series.tolist() == owners
    assert scan.exemplars == sum(len(series.exemplars) for series in message.timeseries)
    assert scan.histograms == sum(len(series.histograms) for series in message.timeseries)
    histograms = read_histograms(scan)
    starts = np.zeros(scan.histograms, np.int64) if histograms.start_timestamps is None else histograms.start_timestamps
    assert list(zip(histograms.timestamps.tolist(), starts.tolist(), strict=True)) == [
        (one.timestamp, one.start_timestamp or series.created_timestamp)
        for series in message.timeseries
        for one in series.histograms
    ]
    found = read_exemplars(scan, 128)
    expected = [(at, one) for at, series in enumerate(message.timeseries) for one in series.exemplars]
    assert found.series.tolist() == [at for at, _ in expected]
    assert found.timestamps.tolist() == [one.timestamp for _, one in expected]
    assert found.values.tobytes() == np.array([one.value for _, one in expected], np.float64).tobytes()
    cuts = found.offsets.tolist()
    for row, (_, one) in enumerate(expected):
        texts = [message.symbols[ref].encode() for ref in one.labels_refs]
        assert parse_labels(found.labels, cuts[row], cuts[row + 1]) == list(zip(texts[::2], texts[1::2], strict=True))
    return scan


def test_equal_series_have_equal_hashes_whatever_their_symbols_are_numbered() -> None:
    one, other = Writer(), Writer()
    other.symbol("something else")
    labels = [("__name__", "up"), ("job", "a")]
    one.series(labels, [(1, 1.0)])
    for pairs in (labels, labels[::-1], [("__name__", "up"), ("job", "b")], [("__name__", "upjob"), ("a", "")], []):
        other.series(pairs, [(1, 1.0)])
    first = scan_write_request_v2(one.bytes(), KEY)
    rest = scan_write_request_v2(other.bytes(), KEY)
    hashes = list(zip(rest.hash_low.tolist(), rest.hash_high.tolist(), strict=True))
    assert hashes[0] == (int(first.hash_low[0]), int(first.hash_high[0]))
    assert len(set(hashes)) == 5


def test_labels_that_are_not_packed_are_read_too() -> None:
    scan = scan_write_request_v2(_series(b"\x08\x01\x0a\x02\x02\x02\x08\x01"), KEY)
    packed = scan_write_request_v2(_series(b"\x0a\x04\x01\x02\x02\x01"), KEY)
    assert labels_in(scan) == labels_in(packed) == [[(b"a", b"b"), (b"b", b"a")]]
    assert scan.hash_low.tolist() == packed.hash_low.tolist()


def _series(content: bytes) -> bytes:
    return b"\x22\x00\x22\x01a\x22\x01b\x2a" + bytes([len(content)]) + content


def test_symbols_may_follow_their_series() -> None:
    scan = scan_write_request_v2(b"\x2a\x04\x0a\x02\x01\x01\x22\x00\x22\x01a", KEY)
    assert labels_in(scan) == [[(b"a", b"a")]]


def test_metadata_of_the_parts_of_a_family_is_told_once() -> None:
    writer = Writer()
    for suffix in ("_bucket", "_bucket", "_sum", "_count"):
        writer.series([("__name__", f"h{suffix}")], [(1, 1.0)], type=3, help="A histogram.", unit="seconds")
    writer.series([("__name__", "up"), ("job", "x")], [(1, 1.0)], type=2, help="Up.")
    writer.series([("__name__", "up"), ("job", "y")], [(1, 1.0)], type=2, help="Up.")
    writer.series([("__name__", "plain")], [(1, 1.0)])
    scan = scan_write_request_v2(writer.bytes(), KEY)
    assert scan.families is not None
    assert len(scan.families.keys) == 4
    assert scan.read_families(np.arange(4)) == (
        Metadata("h", "histogram", "A histogram.", "seconds"),
        Metadata("up", "gauge", "Up."),
    )
    again = scan_write_request_v2(writer.bytes(), KEY)
    assert again.families is not None and again.families.keys.tolist() == scan.families.keys.tolist()


@pytest.mark.parametrize(
    ("metric", "kind", "family"),
    [
        ("a_bucket", "histogram", "a"),
        ("a_count", "summary", "a"),
        ("a_count", "counter", "a_count"),
        ("a_gsum", "gaugehistogram", "a"),
        ("_sum", "summary", "_sum"),
    ],
)
def test_a_family_is_named_without_the_endings_of_its_parts(metric: str, kind: str, family: str) -> None:
    assert family_name(metric, kind) == family


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"\x22\x01a", "symbols must start with empty string"),
        (_series(b"\x0a\x03\x01\x02\x01"), "odd number of label references"),
        (_series(b"\x0a\x02\x01\x03"), "invalid label reference"),
        (_series(b"\x0a\x05\x01\xff\xff\xff\x7f"), "invalid label reference"),
        (_series(b"\x22\x04\x0a\x02\x01\x09"), "invalid exemplar label reference"),
        (_series(b"\x22\x03\x0a\x01\x01"), "odd number of exemplar label references"),
        (_series(b"\x0a\x02\x01\x02\x2a\x02\x18\x07"), "invalid help reference"),
        (_series(b"\x0a\x02\x01\x02\x2a\x02\x20\x07"), "invalid unit reference"),
        (b"\x0a\x00", "Remote Write 1.0 field"),
        (b"\x22\x05a", "length beyond the end"),
        (_series(b"\x12\x02\x09\x01"), "malformed sample"),
        (_series(b"\x32\x00"), "field of wrong wire type"),
        (b"\x25\x00\x00\x00\x00", "field of wrong wire type"),
    ],
)
def test_what_is_malformed_is_named(body: bytes, problem: str) -> None:
    with pytest.raises(MalformedProtobuf, match=problem):
        scan_write_request_v2(body, KEY)


def test_a_request_of_version_1_does_not_take_fields_of_version_2_in_silence() -> None:
    writer = Writer()
    writer.series([("__name__", "up")], [(1, 1.0)])
    with pytest.raises(MalformedProtobuf, match=r"a field of remote write 2\.0"):
        scan_write_request(writer.bytes(), KEY)


def test_labels_that_would_be_huge_when_written_out_are_refused_by_their_size() -> None:
    """A few bytes name a long symbol over and over."""
    body = b"\x22\x00\x22\x90\x4e" + b"x" * 10000 + (b"\x2a\x06\x0a\x04\x01\x01\x01\x01") * 1000
    with pytest.raises(WriteMessageTooLarge) as caught:
        scan_write_request_v2(body, KEY, 1 << 20)
    assert caught.value.actual > 20_000_000
    assert len(scan_write_request_v2(body, KEY, 1 << 30)) == 1000


def test_sections_are_written_only_for_those_who_are_asked_for() -> None:
    writer = Writer()
    for at in range(3):
        writer.series([("__name__", "up"), ("job", str(at))], [(1, 1.0)])
    body = writer.bytes()
    scan = scan_write_request_v2(body, KEY)
    scan.need_labels(np.array([1]))
    assert (scan.label_start < 0).tolist() == [True, False, True]
    section = encode_labels([(b"__name__", b"up"), (b"job", b"1")])
    assert scan.data == body + section
    scan.need_labels(np.array([1]))
    assert scan.data == body + section


def _damaged(body: bytes, rng: random.Random) -> bytes:
    damaged = bytearray(body)
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(damaged) + 1)
        kind = rng.randrange(4)
        if kind == 0:
            del damaged[at:]
        elif kind == 1:
            damaged[at:at] = rng.randbytes(rng.randrange(1, 4))
        elif kind == 2 and at < len(damaged):
            damaged[at] = rng.randrange(256)
        else:
            del damaged[at : at + rng.randrange(1, 4)]
    return bytes(damaged)


def _take(body: bytes) -> None:
    """Reads all there is; every number that comes out is inside of what it points to."""
    try:
        scan = scan_write_request_v2(body, KEY, 1 << 20)
        scan.need_labels(np.arange(len(scan)))
        assert (scan.label_start >= 0).all() and (scan.label_end <= len(scan.data)).all()
        if scan.families is not None:
            assert all(one.type in METRIC_TYPES for one in scan.read_families(np.arange(len(scan.families.keys))))
        read_exemplars(scan, 128)
        read_histograms(scan)
    except (MalformedProtobuf, WriteMessageTooLarge):
        return
    assert scan.sample_offsets[-1] == scan.samples


@given(requests(), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=300)
def test_damaged_requests_are_read_or_refused(message: Any, rng: random.Random) -> None:
    _take(_damaged(message.SerializeToString(), rng))


@given(st.binary(max_size=60))
@settings(deadline=None, max_examples=300)
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    _take(body)
    _take(b"\x22\x00\x22\x01a" + body)
    if len(body) < 128:
        _take(_series(body))


def test_a_request_with_more_than_was_guessed_is_read_again() -> None:
    writer = Writer()
    for at in range(40):
        writer.series([("__name__", str(at))], [(n, 1.0) for n in range(5)], type=1, help="h")
    body = writer.bytes() + b"\x2a\x00" * 3000 + b"\x22\x00" * 3000
    scan = scan_write_request_v2(body, KEY)
    assert (len(scan), scan.samples) == (3040, 200)
    assert scan.families is not None and len(scan.families.keys) == 40
    first = scan_write_request_v2(writer.bytes(), KEY)
    assert first.hash_low.tolist() == scan.hash_low[:40].tolist()
    assert first.families is not None and first.families.keys.tolist() == scan.families.keys.tolist()


def test_what_was_read_before_is_not_changed_by_what_is_read_next() -> None:
    one, other = Writer(), Writer()
    one.series([("__name__", "one")], [(1, 1.0)], type=1)
    other.series([("__name__", "another")], [(2, 2.0, 9)], type=2)
    first = scan_write_request_v2(one.bytes(), KEY)
    before = (samples_in(first), first.hash_low.tolist())
    scan_write_request_v2(other.bytes(), KEY)
    assert (samples_in(first), first.hash_low.tolist()) == before
    assert labels_in(first) == [[(b"__name__", b"one")]]
    assert first.read_families(np.arange(1))[0].type == "counter"
