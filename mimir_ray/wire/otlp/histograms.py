"""Native histograms of an OTLP request as columns: exponential ones, and explicit ones as custom buckets."""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

from mimir_ray.model.float_histogram import CUSTOM_BUCKETS_SCHEMA, SCHEMA_MIN, FloatHistogram
from mimir_ray.model.histogram import HistogramColumns
from mimir_ray.model.series import STALE_NAN, STALE_NAN_BITS
from mimir_ray.wire.protobuf import BYTES, FIXED64, VARINT, MalformedProtobuf, fields, read_uvarint
from mimir_ray.wire.remote_write_histograms import COUNT_MISMATCH, COUNT_TOO_SMALL, OK, SCHEMA, HistogramScan

from .exponential import read_exponential


def read_exponentials(
    data: bytes,
    rows: NDArray[np.int64],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    times: NDArray[np.int64],
    hints: NDArray[np.int8],
) -> HistogramScan:
    """ExponentialHistogramDataPoints `data[starts[h]:ends[h]]` of the series `rows`. Raises `MalformedProtobuf`."""
    count = len(starts)
    room = int((ends - starts).sum()) + 1
    scales, scalars, in_buckets = np.empty(count, np.int64), np.empty(4 * count), np.empty(count)
    above, below = np.empty(count + 1, np.int64), np.empty(count + 1, np.int64)
    positive, negative = np.empty(room, np.int32), np.empty(room, np.int32)
    positive_counts, negative_counts = np.empty(room), np.empty(room)
    malformed = read_exponential(
        np.frombuffer(data, np.uint8), starts, ends, scales, scalars, above, positive, positive_counts,
        below, negative, negative_counts, in_buckets,
    )  # fmt: skip
    if malformed >= 0:
        raise MalformedProtobuf("ExponentialHistogramDataPoint", "malformed field", malformed)
    threshold, zero_count, total_count, total = (np.ascontiguousarray(one) for one in scalars.reshape(count, 4).T)
    columns = HistogramColumns(
        np.clip(scales, -128, 127).astype(np.int8), hints, threshold, zero_count, total_count, total,
        above, positive[: above[-1]], positive_counts[: above[-1]],
        below, negative[: below[-1]], negative_counts[: below[-1]], np.full(count, -1, np.int32),
    )  # fmt: skip
    problems = _problems(columns, in_buckets)
    problems[scales < SCHEMA_MIN] = SCHEMA
    return HistogramScan(rows, times, problems, columns)


def read_explicit(
    data: bytes,
    rows: NDArray[np.int64],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    times: NDArray[np.int64],
    hints: NDArray[np.int8],
) -> HistogramScan:
    """HistogramDataPoints as native histograms with custom buckets; otherwise as `read_exponentials`."""
    found = [
        _custom(data, start, end, int(hint))
        for start, end, hint in zip(starts.tolist(), ends.tolist(), hints.tolist(), strict=True)
    ]
    columns = HistogramColumns.from_rows(found)
    in_buckets = np.array([one.positive_counts.sum() for one in found], np.float64)
    return HistogramScan(rows, times, _problems(columns, in_buckets), columns)


def _custom(data: bytes, start: int, end: int, hint: int) -> FloatHistogram:
    count, total, stale = 0, 0.0, False
    counts, bounds = b"", b""
    for number, wire, _, content, after in fields(data, start, end, "HistogramDataPoint"):
        if number == 4 and wire == FIXED64:
            count = int.from_bytes(data[content:after], "little")
        elif number == 5 and wire == FIXED64:
            total = struct.unpack_from("<d", data, content)[0]
        elif number == 6 and wire in (BYTES, FIXED64):
            counts += data[content:after]
        elif number == 7 and wire in (BYTES, FIXED64):
            bounds += data[content:after]
        elif number == 10 and wire == VARINT:
            stale = bool(read_uvarint(data, content, after, "HistogramDataPoint") & 1)
    numbers = np.frombuffer(counts, np.uint64).astype(np.float64)
    used = np.flatnonzero(numbers)
    return FloatHistogram(
        CUSTOM_BUCKETS_SCHEMA,
        count=float(count),
        sum=STALE_NAN if stale else total,
        hint=hint,
        positive=used.astype(np.int32),
        positive_counts=numbers[used],
        custom_values=np.frombuffer(bounds, np.float64),
    )


def _problems(columns: HistogramColumns, in_buckets: NDArray[np.float64]) -> NDArray[np.int64]:
    """Whether the buckets hold as many observations as the histogram says."""
    problems = np.full(len(columns), OK, np.int64)
    no_number = np.isnan(columns.sum)
    problems[~no_number & (in_buckets != columns.count)] = COUNT_MISMATCH
    problems[no_number & (in_buckets > columns.count)] = COUNT_TOO_SMALL
    problems[columns.sum.view(np.uint64) == np.uint64(STALE_NAN_BITS)] = OK
    return problems
