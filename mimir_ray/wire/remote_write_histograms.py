"""Native histograms of remote write: messages of a request become columns.

Requests without any never come here: the scanner (remote_write.py) counts histograms, and who wants them looks a second
time. Integer histograms become float ones, spans and deltas become indexes and counts.
Specification: prometheus.Histogram (prompb/types.proto), which remote write 2.0 shares.
Upstream: model/histogram Validate.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mimir_ray.encoding.bits import bits_to_float, load64_le
from mimir_ray.encoding.varint import read_uvarint, read_varint
from mimir_ray.kernel import I64, U8, OutF64, OutI32, OutI64, device, kernel
from mimir_ray.model.boxed import box, without_boxes
from mimir_ray.model.float_histogram import CUSTOM_BUCKETS_SCHEMA, SCHEMA_MAX, SCHEMA_MIN, FloatHistogram
from mimir_ray.model.histogram import HistogramColumns
from mimir_ray.model.series import STALE_NAN_BITS
from mimir_ray.wire.protobuf import MalformedProtobuf, read_length, read_tag, skip_field
from mimir_ray.wire.write_scan import WriteScan

# What can be wrong with a histogram, by the id under which Mimir refuses it.
(
    OK,
    SCHEMA,
    COUNT_MISMATCH,
    COUNT_TOO_SMALL,
    NEGATIVE_COUNT,
    NEGATIVE_OFFSET,
    SPANS,
    BOUNDS,
    BOUNDS_INFINITE,
    BOUNDS_FEW,
) = range(10)
_SPANS_MAX = 1 << 20


@dataclass(slots=True)
class HistogramScan:
    """H histograms of a request: `series` int64[H] ascending, `timestamps` int64[H] (ms), `problems` int64[H].

    `start_timestamps`: int64[H], since when each counts (ms; 0: not known), or None where none is known.
    """

    series: NDArray[np.int64]
    timestamps: NDArray[np.int64]
    problems: NDArray[np.int64]
    columns: HistogramColumns
    start_timestamps: NDArray[np.int64] | None = None


@kernel
def find_messages(data: U8, series_tag: int, wanted_tag: int, series: OutI64, starts: OutI64, ends: OutI64) -> int:
    """Finds messages of one kind in a request that was scanned before, so it is well-formed; returns their number.

    Args:
        series_tag, wanted_tag: of a series in the request, and of what is looked for in a series.
        series, starts, ends: int64[H], written: the series of each, and where its content is.
    """
    size = np.int64(len(data))
    at = np.int64(0)
    number = np.int64(0)
    found = np.int64(0)
    while at < size:
        tag, after = read_tag(data, at, size)
        if tag != series_tag:
            at = skip_field(data, after, size, tag & 7)
            if at < 0:
                return found
            continue
        length, at = read_length(data, after, size)
        stop = at + length
        while at < stop:
            tag, after = read_tag(data, at, stop)
            following = skip_field(data, after, stop, tag & 7)
            if following < 0:
                return found
            if tag == wanted_tag and found < len(series):
                length, start = read_length(data, after, stop)
                series[found] = number
                starts[found] = start
                ends[found] = start + length
                found += 1
            at = following
        at = stop
        number += 1
    return found


@device
def _read_floats(data, at, stop, out, count):  # type: ignore[no-untyped-def]
    """Appends packed doubles; the new count, or -1."""
    if (stop - at) % 8:
        return np.int64(-1)
    while at < stop:
        out[count] = bits_to_float(load64_le(data, at))
        count += 1
        at += 8
    return count


@device
def _read_deltas(data, at, stop, out, count):  # type: ignore[no-untyped-def]
    """Appends packed sint64 as floats; the new count, or -1."""
    while at < stop:
        value, at, code = read_varint(data, at, stop)
        if code != 0:
            return np.int64(-1)
        out[count] = np.float64(value)
        count += 1
    return count


@device
def _read_span(data, at, stop, spans, count):  # type: ignore[no-untyped-def]
    """Appends (offset, length); whether the message was sound."""
    offset = np.int64(0)
    length = np.int64(0)
    while at < stop:
        tag, at = read_tag(data, at, stop)
        if tag == 0x08:
            offset, at, code = read_varint(data, at, stop)
            if code != 0:
                return False
        elif tag == 0x10:
            raw, at, code = read_uvarint(data, at, stop)
            if code != 0:
                return False
            length = np.int64(raw & np.uint64(0xFFFFFFFF))
        else:
            if tag < 0:
                return False
            at = skip_field(data, at, stop, tag & 7)
            if at < 0:
                return False
    spans[2 * count] = offset
    spans[2 * count + 1] = length
    return True


@device
def _resolve_side(spans, span_count, numbers, count, deltas, custom, indexes, counts, used):  # type: ignore[no-untyped-def]
    """Writes the buckets of one side behind the `used` ones; (problem, how many, their sum)."""
    total = np.int64(0)
    for s in range(span_count):
        if spans[2 * s] < 0 and (s > 0 or custom):
            return np.int64(5), np.int64(0), 0.0
        total += spans[2 * s + 1]
        if total > _SPANS_MAX:
            return np.int64(6), np.int64(0), 0.0
    if total != count:
        return np.int64(6), np.int64(0), 0.0
    index = np.int64(0)
    place = np.int64(0)
    value = 0.0
    sum_of_all = 0.0
    for s in range(span_count):
        index += spans[2 * s]
        for _ in range(spans[2 * s + 1]):
            value = value + numbers[place] if deltas else numbers[place]
            if value < 0:
                return np.int64(4), np.int64(0), 0.0
            if not -2147483648 <= index <= 2147483647:
                return np.int64(6), np.int64(0), 0.0
            indexes[used + place] = np.int32(index)
            counts[used + place] = value
            sum_of_all += value
            place += 1
            index += 1
    return np.int64(0), place, sum_of_all


@kernel
def read_histogram_messages(
    data: U8, starts: I64, ends: I64, timestamps: OutI64, starts_at: OutI64, problems: OutI64, schemas: OutI64,
    hints: OutI64,
    scalars: OutF64, positive_offsets: OutI64, positive: OutI32, positive_counts: OutF64,
    negative_offsets: OutI64, negative: OutI32, negative_counts: OutF64, bounds_offsets: OutI64, bounds: OutF64,
    scratch: OutF64, spans: OutI64,
) -> int:  # fmt: skip
    """Reads prometheus.Histogram messages; returns -1, or the first that is malformed.

    Args:
        timestamps, starts_at, problems, schemas, hints: int64[H], written.
        scalars: float64[4 * H]: zero threshold, zero count, count, sum of each.
        *_offsets: int64[H + 1]; buckets of both sides and custom bounds, with room for all bytes of all messages.
        scratch, spans: room for twice, four times the bytes of the longest message.
    """
    above = np.int64(0)
    below = np.int64(0)
    listed = np.int64(0)
    half = np.int64(len(scratch)) // 2
    half_spans = np.int64(len(spans)) // 2
    for h in range(len(starts)):
        at, stop = starts[h], ends[h]
        timestamp = np.int64(0)
        start_timestamp = np.int64(0)
        schema = np.int64(0)
        hint = np.int64(0)
        threshold, zero_count, count, total = 0.0, 0.0, 0.0, 0.0
        is_float = False
        above_numbers, below_numbers = np.int64(0), np.int64(0)
        above_spans, below_spans = np.int64(0), np.int64(0)
        above_deltas, below_deltas = False, False
        first_bound = listed
        while at < stop:
            tag, at = read_tag(data, at, stop)
            if tag < 0:
                return h
            wire = tag & 7
            if wire == 1:
                if stop - at < 8:
                    return h
                number = bits_to_float(load64_le(data, at))
                at += 8
                if tag >> 3 == 2:
                    count = number
                    is_float = True
                elif tag >> 3 == 3:
                    total = number
                elif tag >> 3 == 5:
                    threshold = number
                elif tag >> 3 == 7:
                    zero_count = number
                    is_float = True
                elif tag >> 3 == 10:
                    scratch[half + below_numbers] = number
                    below_numbers += 1
                elif tag >> 3 == 13:
                    scratch[above_numbers] = number
                    above_numbers += 1
                elif tag >> 3 == 16:
                    bounds[listed] = number
                    listed += 1
            elif wire == 0:
                raw, at, code = read_uvarint(data, at, stop)
                if code != 0:
                    return h
                signed = np.int64(raw >> np.uint64(1)) ^ -np.int64(raw & np.uint64(1))
                if tag >> 3 == 1:
                    count = np.float64(raw)
                elif tag >> 3 == 4:
                    schema = signed
                elif tag >> 3 == 6:
                    zero_count = np.float64(raw)
                elif tag >> 3 == 9:
                    scratch[half + below_numbers] = np.float64(signed)
                    below_numbers += 1
                    below_deltas = True
                elif tag >> 3 == 12:
                    scratch[above_numbers] = np.float64(signed)
                    above_numbers += 1
                    above_deltas = True
                elif tag >> 3 == 14:
                    hint = np.int64(raw & np.uint64(3))
                elif tag >> 3 == 15:
                    timestamp = np.int64(raw)
                elif tag >> 3 == 17:
                    start_timestamp = np.int64(raw)
            elif wire == 2:
                length, at = read_length(data, at, stop)
                if length < 0:
                    return h
                end = at + length
                field = tag >> 3
                if field == 8:
                    if not _read_span(data, at, end, spans[half_spans:], below_spans):
                        return h
                    below_spans += 1
                elif field == 11:
                    if not _read_span(data, at, end, spans, above_spans):
                        return h
                    above_spans += 1
                elif field == 9:
                    below_numbers = _read_deltas(data, at, end, scratch[half:], below_numbers)
                    below_deltas = True
                elif field == 12:
                    above_numbers = _read_deltas(data, at, end, scratch, above_numbers)
                    above_deltas = True
                elif field == 10:
                    below_numbers = _read_floats(data, at, end, scratch[half:], below_numbers)
                elif field == 13:
                    above_numbers = _read_floats(data, at, end, scratch, above_numbers)
                elif field == 16:
                    listed = _read_floats(data, at, end, bounds, listed)
                if above_numbers < 0 or below_numbers < 0 or listed < 0:
                    return h
                at = end
            else:
                at = skip_field(data, at, stop, wire)
                if at < 0:
                    return h
        timestamps[h] = timestamp
        starts_at[h] = start_timestamp
        schemas[h] = schema
        hints[h] = hint
        scalars[4 * h] = threshold
        scalars[4 * h + 1] = zero_count
        scalars[4 * h + 2] = count
        scalars[4 * h + 3] = total
        positive_offsets[h] = above
        negative_offsets[h] = below
        bounds_offsets[h] = first_bound
        custom = schema == -53
        problem, some_above, sum_above = _resolve_side(
            spans, above_spans, scratch, above_numbers, above_deltas, custom, positive, positive_counts, above
        )
        some_below, sum_below = np.int64(0), 0.0
        if problem == 0:
            problem, some_below, sum_below = _resolve_side(
                spans[half_spans:], below_spans, scratch[half:], below_numbers, below_deltas, custom,
                negative, negative_counts, below,
            )  # fmt: skip
        if problem == 0:
            above += some_above
            below += some_below
            if not is_float:
                in_all = sum_above + sum_below + zero_count
                if total != total:
                    if in_all > count:
                        problem = np.int64(3)
                elif in_all != count:
                    problem = np.int64(2)
            elif count < 0 or zero_count < 0:
                problem = np.int64(4)
        problems[h] = problem
        if not custom:
            listed = first_bound
    positive_offsets[len(starts)] = above
    negative_offsets[len(starts)] = below
    bounds_offsets[len(starts)] = listed
    return -1


def read_histograms(scan: WriteScan) -> HistogramScan:
    """The histograms of a request. Raises `MalformedProtobuf`."""
    data = np.frombuffer(scan.data, np.uint8)
    count = scan.histograms
    series, starts, ends = (np.empty(count, np.int64) for _ in range(3))
    layout = scan.layout
    found = find_messages(data[: scan.request_bytes], layout.series, layout.histogram, series, starts, ends)
    assert found == count
    room = int((ends - starts).sum()) + 1
    longest = int((ends - starts).max(initial=0)) + 2
    timestamps, starts_at, problems, schemas, hints = (np.zeros(count, np.int64) for _ in range(5))
    scalars = np.empty(4 * count, np.float64)
    above, below, listed = (np.empty(count + 1, np.int64) for _ in range(3))
    positive, negative = np.empty(room, np.int32), np.empty(room, np.int32)
    positive_counts, negative_counts, bounds = (np.empty(room, np.float64) for _ in range(3))
    malformed = read_histogram_messages(
        data, starts, ends, timestamps, starts_at, problems, schemas, hints, scalars, above, positive, positive_counts,
        below, negative, negative_counts, listed, bounds, np.empty(2 * longest), np.empty(4 * longest, np.int64),
    )  # fmt: skip
    if malformed >= 0:
        raise MalformedProtobuf("Histogram", "malformed field", int(starts[malformed]))
    threshold, zero_count, total_count, total = (np.ascontiguousarray(one) for one in scalars.reshape(count, 4).T)
    custom, lists = _bound_lists(schemas, listed, bounds)
    columns = HistogramColumns(
        np.clip(schemas, -128, 127).astype(np.int8), hints.astype(np.int8), threshold, zero_count, total_count, total,
        above, positive[: above[-1]], positive_counts[: above[-1]],
        below, negative[: below[-1]], negative_counts[: below[-1]], custom, lists,
    )  # fmt: skip
    _check(columns, schemas, problems)
    if scan.created is not None:
        starts_at[starts_at == 0] = scan.created[series][starts_at == 0]
    return HistogramScan(series, timestamps, problems, columns, starts_at if starts_at.any() else None)


def _bound_lists(
    schemas: NDArray[np.int64], offsets: NDArray[np.int64], bounds: NDArray[np.float64]
) -> tuple[NDArray[np.int32], tuple[NDArray[np.float64], ...]]:
    custom = np.full(len(schemas), -1, np.int32)
    lists: list[NDArray[np.float64]] = []
    known: dict[bytes, int] = {}
    for row in np.flatnonzero(schemas == CUSTOM_BUCKETS_SCHEMA).tolist():
        one = bounds[offsets[row] : offsets[row + 1]].copy()
        at = known.setdefault(one.tobytes(), len(lists))
        if at == len(lists):
            lists.append(one)
        custom[row] = at
    return custom, tuple(lists)


def _check(columns: HistogramColumns, schemas: NDArray[np.int64], problems: NDArray[np.int64]) -> None:
    """Problems that are not of one message's numbers alone. Staleness markers have nothing but a sum."""
    exponential = (schemas >= SCHEMA_MIN) & (schemas <= SCHEMA_MAX)
    custom = schemas == CUSTOM_BUCKETS_SCHEMA
    problems[~exponential & ~custom] = SCHEMA
    for row in np.flatnonzero(custom & (problems == OK)).tolist():
        one = columns.row(row)
        values = one.custom_values
        if np.isnan(values).any() or (np.diff(values) <= 0).any():
            problems[row] = BOUNDS
        elif len(values) and values[-1] == np.inf:
            problems[row] = BOUNDS_INFINITE
        elif len(one.positive) and int(one.positive[-1]) > len(values):
            problems[row] = BOUNDS_FEW
        elif len(one.negative) or one.zero_count or one.zero_threshold:
            problems[row] = BOUNDS
    stale = columns.sum.view(np.uint64) == np.uint64(STALE_NAN_BITS)
    problems[stale & (problems != SCHEMA)] = OK


def with_histograms(scan: WriteScan, found: HistogramScan, kept: NDArray[np.bool_]) -> WriteScan:
    """The scan with these of its histograms (bool[H]) behind the floats of their series; see model/boxed.py."""
    rows = np.flatnonzero(kept)
    series = np.concatenate((scan.sample_series.astype(np.int64), found.series[rows]))
    order = np.argsort(series, kind="stable")
    timestamps = np.concatenate((scan.timestamps, found.timestamps[rows]))[order]
    values = np.concatenate((without_boxes(scan.values), box(rows.astype(np.int64))))[order]
    owners = series[order].astype(np.int32)
    offsets = np.zeros(len(scan) + 1, np.int64)
    np.cumsum(np.bincount(owners, minlength=len(scan)), out=offsets[1:])
    starts = None
    if scan.start_timestamps is not None or found.start_timestamps is not None:
        of_floats = np.zeros(scan.samples, np.int64) if scan.start_timestamps is None else scan.start_timestamps
        of_histograms = np.zeros(len(kept), np.int64) if found.start_timestamps is None else found.start_timestamps
        starts = np.concatenate((of_floats, of_histograms[rows]))[order]
    repeated = int(((owners[1:] == owners[:-1]) & (timestamps[1:] == timestamps[:-1])).sum())
    some = len(timestamps) > 0
    return replace(
        scan,
        sample_offsets=offsets,
        sample_series=owners,
        timestamps=timestamps,
        values=values,
        earliest=int(timestamps.min()) if some else 0,
        latest=int(timestamps.max()) if some else 0,
        repeated=repeated,
        columns=found.columns,
        start_timestamps=starts,
    )


def halved(histogram: FloatHistogram, buckets_max: int) -> FloatHistogram | None:
    """In the finest resolution that has no more buckets than that, or None where no schema is coarse enough."""
    while len(histogram.positive) + len(histogram.negative) > buckets_max:
        if histogram.schema <= SCHEMA_MIN:
            return None
        histogram = histogram.to_schema(histogram.schema - 1).with_hint(histogram.hint)
    return histogram
