"""Data points of OTLP metrics, from wire bytes to columns.

Every data point makes one or more rows, each a sample of one series: a gauge or sum one, a histogram one a bucket and
two or three more, a summary one a quantile and two more, an exponential histogram one (a native histogram). A series is
known by a keyed 128-bit hash of its metric, the bytes of its attributes, and which part of the point it is: attributes
are read where a series is new, nowhere else.

Messages: opentelemetry/proto/metrics/v1/metrics.proto.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mimir_ray.encoding.bits import bits_to_float, float_to_bits, load64_le, multiply_128
from mimir_ray.encoding.hashing import hash128
from mimir_ray.encoding.varint import read_uvarint
from mimir_ray.kernel import (
    I64,
    U8,
    U64,
    OutF64,
    OutI8,
    OutI32,
    OutI64,
    OutU64,
    device,
    kernel,
    u64,
)
from mimir_ray.model.series import STALE_NAN_BITS
from mimir_ray.wire.protobuf import read_length, read_tag, skip_field

GAUGE, SUM, HISTOGRAM, EXPONENTIAL, SUMMARY, NHCB = 0, 1, 2, 3, 4, 5
"""Kinds of metrics; NHCB: a histogram that becomes one native histogram with custom buckets."""
VALUE, TOTAL, COUNT, BUCKET, LAST_BUCKET, QUANTILE, NATIVE = 0, 1, 2, 3, 4, 5, 6
"""Parts of data points. TOTAL: `_sum`; LAST_BUCKET: `le="+Inf"`."""
POINTS, ROWS, TEMPORALITY, MONOTONIC = 0, 1, 2, 3
"""What `measure` writes of each metric."""
FACTS = 4

_MS = np.uint64(1_000_000)
_NO_VALUE = np.uint64(1)


@device
def _list_field(data: Any, at: Any, stop: Any, tag: Any, base: Any, count: Any, stride: Any) -> Any:
    """Adds a field of 8-byte numbers, packed or not, to what was found of them; (base, count, stride, position after).

    `base + stride * i` is number i; position -1 where they are malformed, or not in one piece.
    """
    bad = np.int64(-1)
    if tag & 7 == 2:
        length, start = read_length(data, at, stop)
        if length < 0 or length % 8 or (count and length):
            return base, count, stride, bad
        return (start, length // 8, np.int64(8), start + length) if length else (base, count, stride, start)
    if stop - at < 8 or (count and (stride == 8 or base + stride * count != at)):
        return base, count, stride, bad
    if count == 0:
        return at, np.int64(1), np.int64(9), at + 8
    return base, count + 1, stride, at + 8


@device
def _point_facts(data: Any, kind: Any, at: Any, stop: Any) -> Any:
    """What a point has besides attributes, as far as its kind has it.

    (time ns, start ns, value, count, sum, has sum, flags, bounds base, count, stride, counts base, count, stride,
    position of the error or -1)
    """
    time, start = np.uint64(0), np.uint64(0)
    value, total = 0.0, 0.0
    count, flags = np.uint64(0), np.uint64(0)
    has_sum = kind == SUMMARY
    bounds, bounds_count, bounds_stride = np.int64(0), np.int64(0), np.int64(8)
    counts, counts_count, counts_stride = np.int64(0), np.int64(0), np.int64(8)
    error = np.int64(-1)
    flags_tag = 0x40 if kind <= SUM or kind == SUMMARY else 0x50
    classic = kind in (HISTOGRAM, NHCB)
    while at < stop:
        tag, after = read_tag(data, at, stop)
        following = skip_field(data, after, stop, tag & 7) if tag >= 0 else np.int64(-1)
        if following < 0:
            error = at
            break
        if tag == 0x11:
            start = load64_le(data, after)
        elif tag == 0x19:
            time = load64_le(data, after)
        elif tag == flags_tag:
            flags, _, code = read_uvarint(data, after, stop)
            if code != 0:
                error = at
                break
        elif kind <= SUM:
            if tag == 0x21:
                value = bits_to_float(load64_le(data, after))
            elif tag == 0x31:
                value = np.float64(np.int64(load64_le(data, after)))
        elif tag == 0x21:
            count = load64_le(data, after)
        elif tag == 0x29:
            total = bits_to_float(load64_le(data, after))
            has_sum = True
        elif classic and (tag == 0x32 or tag == 0x31):
            counts, counts_count, counts_stride, following = _list_field(
                data, after, stop, tag, counts, counts_count, counts_stride
            )
            if following < 0:
                error = at
                break
        elif classic and (tag == 0x3A or tag == 0x39):
            bounds, bounds_count, bounds_stride, following = _list_field(
                data, after, stop, tag, bounds, bounds_count, bounds_stride
            )
            if following < 0:
                error = at
                break
        elif kind == SUMMARY and tag == 0x32:
            counts_count += 1
        at = following
    return (
        time, start, value, count, total, has_sum, flags,
        bounds, bounds_count, bounds_stride, counts, counts_count, counts_stride, error,
    )  # fmt: skip


@kernel
def measure(data: U8, kinds: I64, starts: I64, ends: I64, facts: OutI64) -> int:
    """Counts what metrics have; the position of the first malformed field, or -1.

    Args:
        kinds, starts, ends: int64[M], each metric's kind and where its Gauge, Sum, ... message is.
        facts: int64[M * FACTS], written.
    """
    for m in range(len(kinds)):
        at, stop = starts[m], ends[m]
        points, rows = np.int64(0), np.int64(0)
        temporality, monotonic = np.int64(0), np.int64(0)
        while at < stop:
            tag, after = read_tag(data, at, stop)
            following = skip_field(data, after, stop, tag & 7) if tag >= 0 else np.int64(-1)
            if following < 0:
                return at
            if tag == 0x0A:
                length, first = read_length(data, after, stop)
                found = _point_facts(data, kinds[m], first, first + length)
                if found[13] >= 0:
                    return found[13]
                points += 1
                if kinds[m] == HISTOGRAM:
                    rows += min(found[8], found[11]) + (3 if found[5] else 2)
                elif kinds[m] == SUMMARY:
                    rows += found[11] + 2
                else:
                    rows += 1
            elif tag == 0x10 or tag == 0x18:
                number, _, code = read_uvarint(data, after, stop)
                if code != 0:
                    return at
                if tag == 0x10:
                    temporality = np.int64(number & np.uint64(0xFFFF))
                else:
                    monotonic = np.int64(number != np.uint64(0))
            at = following
        facts[m * FACTS + POINTS] = points
        facts[m * FACTS + ROWS] = rows
        facts[m * FACTS + TEMPORALITY] = temporality
        facts[m * FACTS + MONOTONIC] = monotonic
    return -1


@kernel
def find_attributes(data: U8, starts: I64, ends: I64, tags: I64, offsets: OutI64, cuts: OutI64) -> None:
    """Finds the KeyValue messages of data points that `measure` found sound.

    Args:
        starts, ends, tags: int64[P], where the points are, and the tag of their attributes.
        offsets: int64[P + 1], written while `cuts` is empty: point p has attributes offsets[p]:offsets[p + 1].
        cuts: int64[2 * offsets[P]], written: start and end of each message.
    """
    count = np.int64(0)
    fill = len(cuts) > 0
    for p in range(len(starts)):
        at, stop = starts[p], ends[p]
        while at < stop:
            tag, after = read_tag(data, at, stop)
            at = skip_field(data, after, stop, tag & 7)
            if tag == tags[p]:
                if fill:
                    _, cuts[2 * count] = read_length(data, after, stop)
                    cuts[2 * count + 1] = at
                count += 1
        if not fill:
            offsets[p + 1] = count


@device
def _fold(left: Any, right: Any) -> Any:
    high, low = multiply_128(left, right)
    return high ^ low


@kernel
def read_points(
    data: U8, kinds: I64, starts: I64, ends: I64, metric_low: U64, metric_high: U64,
    seed0: u64, seed1: u64, seed2: u64, seed3: u64,
    point_metric: OutI32, point_start: OutI64, point_end: OutI64, times: OutI64, start_times: OutI64,
    exemplars: OutI32,
    row_point: OutI32, parts: OutI8, bounds: OutF64, values: OutF64, low: OutU64, high: OutU64,
) -> None:  # fmt: skip
    """Reads the points of metrics that `measure` found sound.

    Args:
        metric_low, metric_high: uint64[M], hash of what the metrics' series have in common.
        point_metric, point_start, point_end, times, start_times, exemplars: [P], written: its metric, where its
            message is, ms, how many exemplars it has.
        row_point, parts, bounds, values, low, high: [R], written: its point, which part of it, the upper bound or
            quantile (0 where there is none), the value (0 for NATIVE), the hash of the series.
    """
    point, row = np.int64(0), np.int64(0)
    stale = bits_to_float(np.uint64(STALE_NAN_BITS))
    for m in range(len(kinds)):
        kind = kinds[m]
        attribute_tag = 0x3A if kind <= SUM or kind == SUMMARY else (0x0A if kind == EXPONENTIAL else 0x4A)
        exemplar_tag = 0x2A if kind <= SUM else (0x5A if kind == EXPONENTIAL else 0x42)
        at, stop = starts[m], ends[m]
        while at < stop:
            tag, after = read_tag(data, at, stop)
            following = skip_field(data, after, stop, tag & 7)
            if tag != 0x0A:
                at = following
                continue
            length, first = read_length(data, after, stop)
            last = first + length
            at = following
            (
                time, start, value, count, total, has_sum, flags,
                bound_base, bound_count, bound_stride, count_base, count_count, count_stride, _,
            ) = _point_facts(data, kind, first, last)  # fmt: skip
            point_metric[point] = m
            point_start[point] = first
            point_end[point] = last
            times[point] = np.int64(time // _MS)
            start_times[point] = np.int64(start // _MS)
            exemplars[point] = 0
            a, b = metric_low[m], metric_high[m]
            inner = first
            while inner < last:
                tag, after = read_tag(data, inner, last)
                inner = skip_field(data, after, last, tag & 7)
                if tag == attribute_tag:
                    one, other = hash128(data, after, inner, seed0, seed1, seed2, seed3)
                    a = _fold(a ^ one, seed2 ^ other)
                    b = _fold(b ^ other, seed3 ^ one)
                elif tag == exemplar_tag and kind != SUMMARY and kind != GAUGE:
                    exemplars[point] += 1
            first_row = row
            if kind <= SUM:
                parts[row] = VALUE
                bounds[row] = 0.0
                values[row] = value
                row += 1
            elif kind in (EXPONENTIAL, NHCB):
                parts[row] = NATIVE
                bounds[row] = 0.0
                values[row] = 0.0
                row += 1
            else:
                if has_sum:
                    parts[row] = TOTAL
                    bounds[row] = 0.0
                    values[row] = total
                    row += 1
                parts[row] = COUNT
                bounds[row] = 0.0
                values[row] = np.float64(count)
                row += 1
                if kind == HISTOGRAM:
                    so_far = np.uint64(0)
                    for i in range(min(bound_count, count_count)):
                        so_far += load64_le(data, count_base + count_stride * i)
                        parts[row] = BUCKET
                        bounds[row] = bits_to_float(load64_le(data, bound_base + bound_stride * i))
                        values[row] = np.float64(so_far)
                        row += 1
                    parts[row] = LAST_BUCKET
                    bounds[row] = 0.0
                    values[row] = np.float64(count)
                    row += 1
                else:
                    row = _read_quantiles(data, first, last, parts, bounds, values, row)
            for r in range(first_row, row):
                row_point[r] = point
                mark = np.uint64(parts[r] + 1)
                bits = float_to_bits(bounds[r])
                low[r] = _fold(a ^ mark, seed1 ^ bits)
                high[r] = _fold(b ^ mark, seed0 ^ bits)
                if flags & _NO_VALUE:
                    values[r] = stale
            point += 1


@device
def _read_quantiles(data: Any, at: Any, stop: Any, parts: Any, bounds: Any, values: Any, row: Any) -> Any:
    """Rows of a summary's quantiles; the next free row."""
    while at < stop:
        tag, after = read_tag(data, at, stop)
        following = skip_field(data, after, stop, tag & 7)
        if tag == 0x32:
            quantile, value = 0.0, 0.0
            length, inner = read_length(data, after, stop)
            end = inner + length
            while inner < end:
                tag, after = read_tag(data, inner, end)
                beyond = skip_field(data, after, end, tag & 7) if tag >= 0 else np.int64(-1)
                if beyond < 0:
                    break
                if tag == 0x09:
                    quantile = bits_to_float(load64_le(data, after))
                elif tag == 0x11:
                    value = bits_to_float(load64_le(data, after))
                inner = beyond
            parts[row] = QUANTILE
            bounds[row] = quantile
            values[row] = value
            row += 1
        at = following
    return row
