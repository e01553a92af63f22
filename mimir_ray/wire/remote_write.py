"""Remote write 1.0: the bytes of a prometheus.WriteRequest become columns in one pass, and back.

The scanner looks at every byte once and copies none: a series is the byte range of its label section and
a keyed 128-bit hash of it, which is how the distributor recognises series that it has seen. What is inside the
labels is read when a series is new, by whoever asks (`protobuf.parse_labels`).

Specification: https://prometheus.io/docs/specs/prw/remote_write_spec/. Native histograms are
and exemplars are counted, and read by remote_write_histograms.py and exemplars.py where there are any. Mimir's
own field of a series, `created_timestamp = 6`, is when all of its samples began to count.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from mimir_ray.encoding.bits import bits_to_float, load64_le
from mimir_ray.encoding.hashing import hash128
from mimir_ray.encoding.varint import encode_uvarint, read_uvarint
from mimir_ray.kernel import I64, U8, OutF64, OutI32, OutI64, OutU64, kernel, u64
from mimir_ray.model.labels import Labels
from mimir_ray.model.metadata import METRIC_TYPES, Metadata
from mimir_ray.wire import protobuf
from mimir_ray.wire.protobuf import MalformedProtobuf, read_length, read_tag, skip_field
from mimir_ray.wire.write_scan import HashKey, WriteScan

# Where `_scan` puts what it counted.
_SERIES, _SAMPLES, _METADATA, _EXEMPLARS, _HISTOGRAMS, _SCATTERED, _REPEATED = 0, 1, 2, 3, 4, 5, 6
_EARLIEST, _LATEST, _ERROR, _ERROR_AT, _CREATED = 7, 8, 9, 10, 11
_COUNTS = 12

_PROBLEMS = (
    "",
    "illegal tag",
    "length beyond the end",
    "field of wrong wire type",
    "malformed field",
    "malformed sample",
    "a field of remote write 2.0",
)


def scan_write_request(body: bytes, key: HashKey) -> WriteScan:
    """Reads a decompressed prometheus.WriteRequest.

    Raises `MalformedProtobuf`. What is inside Label messages is not looked at, unless the labels of a
    series are not in one piece; unknown fields are passed over.
    """
    data = np.frombuffer(body, np.uint8)
    # Most requests fit the first guess; pages of arrays that stay unused are never touched.
    series_max = len(body) // 64 + 16
    samples_max = len(body) // 16 + 16
    metadata_max = 16
    counts = np.empty(_COUNTS, np.int64)
    seeds = tuple(np.uint64(word) for word in key)
    while True:
        label_start = np.empty(series_max, np.int64)
        label_end = np.empty(series_max, np.int64)
        hash_low = np.empty(series_max, np.uint64)
        hash_high = np.empty(series_max, np.uint64)
        offsets = np.empty(series_max + 1, np.int64)
        owners = np.empty(samples_max, np.int32)
        timestamps = np.empty(samples_max, np.int64)
        values = np.empty(samples_max, np.float64)
        metadata = np.empty(2 * metadata_max, np.int64)
        _scan(
            data,
            *seeds,
            label_start,
            label_end,
            hash_low,
            hash_high,
            offsets,
            owners,
            timestamps,
            values,
            metadata,
            counts,
        )
        found = counts.tolist()
        if found[_ERROR]:
            raise MalformedProtobuf("WriteRequest", _PROBLEMS[found[_ERROR]], found[_ERROR_AT])
        series, samples, families = found[_SERIES], found[_SAMPLES], found[_METADATA]
        if series <= series_max and samples <= samples_max and families <= metadata_max:
            break
        series_max, samples_max, metadata_max = max(series, 1), max(samples, 1), max(families, 1)
    scan = WriteScan(
        body,
        label_start[:series],
        label_end[:series],
        hash_low[:series],
        hash_high[:series],
        offsets[: series + 1],
        owners[:samples],
        timestamps[:samples],
        values[:samples],
        _read_metadata(body, metadata[: 2 * families].tolist()) if families else (),
        found[_EARLIEST],
        found[_LATEST],
        found[_REPEATED],
        found[_EXEMPLARS],
        found[_HISTOGRAMS],
        len(body),
    )
    if found[_SCATTERED]:
        _gather_scattered(scan, seeds)
    if found[_CREATED]:
        scan.created = created_timestamps(scan)
        scan.start_timestamps = scan.created[scan.sample_series]
    return scan


def _gather_scattered(scan: WriteScan, seeds: tuple[np.uint64, ...]) -> None:
    """Gives series whose labels lie in several pieces a label section at the end of `data`."""
    body = scan.data
    pieces = [body]
    size = len(body)
    rows = np.flatnonzero(scan.label_start < 0)
    for row in rows.tolist():
        start, end = -int(scan.label_start[row]) - 1, int(scan.label_end[row])
        section = b"".join(
            body[tag_at:after]
            for number, _, tag_at, _, after in protobuf.fields(body, start, end, "TimeSeries")
            if number == 1
        )
        pieces.append(section)
        scan.label_start[row], scan.label_end[row] = size, size + len(section)
        size += len(section)
    scan.data = b"".join(pieces)
    hash_sections(
        np.frombuffer(scan.data, np.uint8),
        *seeds,
        rows,
        scan.label_start,
        scan.label_end,
        scan.hash_low,
        scan.hash_high,
    )


def _read_metadata(body: bytes, bounds: list[int]) -> tuple[Metadata, ...]:
    found = []
    for start, end in zip(bounds[::2], bounds[1::2], strict=True):
        kind = 0
        texts = {2: "", 4: "", 5: ""}
        for number, wire, tag_at, content, after in protobuf.fields(body, start, end, "MetricMetadata"):
            if number in texts:
                if wire != protobuf.BYTES:
                    raise MalformedProtobuf("MetricMetadata", "field of wrong wire type", tag_at)
                texts[number] = body[content:after].decode("utf-8", "replace")
            elif number == 1:
                if wire != protobuf.VARINT:
                    raise MalformedProtobuf("MetricMetadata", "field of wrong wire type", tag_at)
                kind = protobuf.read_uvarint(body, content, after, "MetricMetadata")
        found.append(
            Metadata(texts[2], METRIC_TYPES[kind] if kind < len(METRIC_TYPES) else "unknown", texts[4], texts[5])
        )
    return tuple(found)


@kernel
def _scan(
    data: U8,
    seed0: u64,
    seed1: u64,
    seed2: u64,
    seed3: u64,
    label_start: OutI64,
    label_end: OutI64,
    hash_low: OutU64,
    hash_high: OutU64,
    sample_offsets: OutI64,
    sample_series: OutI32,
    timestamps: OutI64,
    values: OutF64,
    metadata: OutI64,
    counts: OutI64,
) -> None:
    """One pass over a WriteRequest.

    Args:
        label_start, label_end, hash_low, hash_high: at most so many series are written, all are counted.
            Series with scattered labels: -1 - start of their message, its end; no hash.
        sample_offsets: one longer than label_start.
        sample_series, timestamps, values: at most so many samples are written, all are counted.
        metadata: pairs of start and end, back to back.
        counts: int64[_COUNTS]; nothing else counts if counts[_ERROR] is not zero.
    """
    size = np.int64(len(data))
    series_max = np.int64(len(label_start))
    samples_max = np.int64(len(timestamps))
    metadata_max = np.int64(len(metadata)) // 2
    series = np.int64(0)
    samples = np.int64(0)
    families = np.int64(0)
    exemplars = np.int64(0)
    histograms = np.int64(0)
    scattered = np.int64(0)
    created = np.int64(0)
    repeated = np.int64(0)
    earliest = np.int64(0x7FFFFFFFFFFFFFFF)
    latest = np.int64(-0x7FFFFFFFFFFFFFFF - 1)
    error = 0
    at = np.int64(0)
    while at < size:
        tag, after = read_tag(data, at, size)
        if tag < 0:
            error = 1
            break
        if tag != 0x0A:
            field = tag >> 3
            if (field == 1 or field == 3) and tag & 7 != 2:
                error = 3
                break
            if field == 4 or field == 5:
                # Who sends 2.0 under another name would be told "stored" for nothing.
                error = 6
                break
            stop = skip_field(data, after, size, tag & 7)
            if stop < 0:
                error = 4
                break
            if field == 3:
                length, start = read_length(data, after, size)
                if families < metadata_max:
                    metadata[2 * families] = start
                    metadata[2 * families + 1] = stop
                families += 1
            at = stop
            continue
        length, at = read_length(data, after, size)
        if length < 0:
            error = 2
            break
        message = at
        stop = at + length
        first = np.int64(-1)
        last = np.int64(-1)
        in_pieces = False
        first_sample = samples
        previous = np.int64(0)
        if series < series_max:
            sample_offsets[series] = samples
        while at < stop:
            begin = at
            byte = data[at]
            if byte == 0x0A:
                if first < 0:
                    first = begin
                elif last != begin:
                    in_pieces = True
                # Labels come in a row, nearly all shorter than 128 bytes.
                while at < stop and data[at] == 0x0A:
                    if stop - at > 1 and data[at + 1] < 0x80:
                        length = np.int64(data[at + 1])
                        if length > stop - at - 2:
                            error = 2
                            break
                        at += 2 + length
                    else:
                        length, at = read_length(data, at + 1, stop)
                        if length < 0:
                            error = 2
                            break
                        at += length
                if error != 0:
                    break
                last = at
            elif byte == 0x12:
                length, at = read_length(data, at + 1, stop)
                if length < 0:
                    error = 2
                    break
                end = at + length
                word = np.uint64(0)
                moment = np.uint64(0)
                if length >= 11 and data[at] == 0x09 and data[at + 9] == 0x10:
                    word = load64_le(data, at + 1)
                    moment, at, code = read_uvarint(data, at + 10, end)
                    if code != 0:
                        error = 5
                        break
                while at < end:
                    tag, at = read_tag(data, at, end)
                    if tag == 0x09 and end - at >= 8:
                        word = load64_le(data, at)
                        at += 8
                    elif tag == 0x10:
                        moment, at, code = read_uvarint(data, at, end)
                        if code != 0:
                            error = 5
                            break
                    else:
                        field = tag >> 3
                        if tag < 0 or field == 1 or field == 2:
                            error = 5
                            break
                        skipped = skip_field(data, at, end, tag & 7)
                        if skipped < 0:
                            error = 5
                            break
                        at = skipped
                if error != 0:
                    break
                timestamp = np.int64(moment)
                if samples < samples_max:
                    sample_series[samples] = np.int32(series)
                    timestamps[samples] = timestamp
                    values[samples] = bits_to_float(word)
                if samples > first_sample and timestamp == previous:
                    repeated += 1
                previous = timestamp
                earliest = min(earliest, timestamp)
                latest = max(latest, timestamp)
                samples += 1
            else:
                tag, after = read_tag(data, at, stop)
                field = tag >> 3
                if tag < 0:
                    error = 1
                    break
                if field <= 2 or (field <= 4 and tag & 7 != 2):
                    error = 3
                    break
                skipped = skip_field(data, after, stop, tag & 7)
                if skipped < 0:
                    error = 4
                    break
                exemplars += field == 3
                histograms += field == 4
                created += tag == 0x30
                at = skipped
        if error != 0:
            break
        if series < series_max:
            if in_pieces:
                scattered += 1
                label_start[series] = -1 - message
                label_end[series] = stop
            else:
                if first < 0:
                    first = message
                    last = message
                label_start[series] = first
                label_end[series] = last
                low, high = hash128(data, first, last, seed0, seed1, seed2, seed3)
                hash_low[series] = low
                hash_high[series] = high
        series += 1
    if series <= series_max:
        sample_offsets[series] = samples
    counts[_SERIES] = series
    counts[_SAMPLES] = samples
    counts[_METADATA] = families
    counts[_EXEMPLARS] = exemplars
    counts[_HISTOGRAMS] = histograms
    counts[_SCATTERED] = scattered
    counts[_CREATED] = created
    counts[_REPEATED] = repeated
    counts[_EARLIEST] = earliest if samples > 0 else 0
    counts[_LATEST] = latest if samples > 0 else 0
    counts[_ERROR] = error
    counts[_ERROR_AT] = at


def created_timestamps(scan: WriteScan) -> NDArray[np.int64]:
    """Since when the samples of each series count: int64[S], ms; 0: the sender does not say."""
    created = np.zeros(len(scan), np.int64)
    read_created(np.frombuffer(scan.data, np.uint8)[: scan.request_bytes], created)
    return created


@kernel
def read_created(data: U8, created: OutI64) -> None:
    """The created_timestamp of each series of a request that was scanned before, so it is well-formed.

    Args:
        created: int64[S], zeros; set where a series has the field.
    """
    size = np.int64(len(data))
    at = np.int64(0)
    series = np.int64(0)
    while at < size:
        tag, after = read_tag(data, at, size)
        if tag != 0x0A:
            at = skip_field(data, after, size, tag & 7)
            if at < 0:
                return
            continue
        length, at = read_length(data, after, size)
        stop = at + length
        while at < stop:
            tag, after = read_tag(data, at, stop)
            if tag == 0x30:
                moment, _, _ = read_uvarint(data, after, stop)
                created[series] = np.int64(moment)
            at = skip_field(data, after, stop, tag & 7)
            if at < 0:
                return
        at = stop
        series += 1


@kernel
def hash_sections(
    data: U8,
    seed0: u64,
    seed1: u64,
    seed2: u64,
    seed3: u64,
    rows: I64,
    starts: I64,
    ends: I64,
    hash_low: OutU64,
    hash_high: OutU64,
) -> None:
    """hash_low[r], hash_high[r] of data[starts[r]:ends[r]], for the rows r given."""
    for row in rows:
        low, high = hash128(data, starts[row], ends[row], seed0, seed1, seed2, seed3)
        hash_low[row] = low
        hash_high[row] = high


SeriesToSend = tuple["Labels | bytes", Sequence[tuple[int, float]]]
"""Labels (or their label section) and samples (ms, value)."""


def label_section(labels: Labels) -> bytes:
    """The canonical label section of one series."""
    return protobuf.encode_labels((name.encode(), value.encode()) for name, value in labels)


def encode_write_request(series: Iterable[SeriesToSend], metadata: Iterable[Metadata] = ()) -> bytes:
    """A prometheus.WriteRequest. Labels must be sorted, as `model.labels.labels_of` makes them."""
    out = bytearray()
    for labels, samples in series:
        content = bytearray(labels if isinstance(labels, bytes) else label_section(labels))
        for timestamp, value in samples:
            sample = b"\x09" + struct.pack("<d", value) + b"\x10" + encode_uvarint(timestamp & (1 << 64) - 1)
            content += b"\x12" + bytes((len(sample),)) + sample
        out += b"\n" + encode_uvarint(len(content)) + content
    for family in metadata:
        content = bytearray(b"\x08" + encode_uvarint(METRIC_TYPES.index(family.type)))
        for tag, text in ((b"\x12", family.family), (b"\x22", family.help), (b"\x2a", family.unit)):
            if text:
                raw = text.encode()
                content += tag + encode_uvarint(len(raw)) + raw
        out += b"\x1a" + encode_uvarint(len(content)) + content
    return bytes(out)
