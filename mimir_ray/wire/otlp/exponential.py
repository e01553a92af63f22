"""Exponential histograms of OTLP as native histograms.

OTLP's bucket i holds (base^i, base^(i + 1)], Prometheus' bucket i holds (base^(i - 1), base^i]: indexes move up by one.
Scales above 8 are merged down to 8. Upstream: prometheusremotewrite/histograms.go.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mimir_ray.encoding.bits import bits_to_float, load64_le
from mimir_ray.encoding.varint import read_uvarint, read_varint
from mimir_ray.kernel import I64, U8, OutF64, OutI32, OutI64, device, kernel
from mimir_ray.model.float_histogram import SCHEMA_MAX
from mimir_ray.model.series import STALE_NAN_BITS
from mimir_ray.wire.protobuf import read_length, read_tag, skip_field

DEFAULT_ZERO_THRESHOLD = 1e-128


@device
def _put(index: Any, number: Any, indexes: Any, counts: Any, first: Any, used: Any) -> Any:
    """Adds a count to the bucket, which is the last one of those from `first` on or comes after it; the new end."""
    if used > first and indexes[used - 1] == index:
        counts[used - 1] += number
        return used
    if number == 0:
        return used
    indexes[used] = index
    counts[used] = number
    return used + 1


@device
def _buckets(data: Any, at: Any, stop: Any, shift: Any, indexes: Any, counts: Any, used: Any) -> Any:
    """Appends the buckets of one side that are not empty; (new end, sum of counts), end -1 where malformed."""
    offset = np.int64(0)
    bad = np.int64(-1)
    scan = at
    while scan < stop:
        tag, after = read_tag(data, scan, stop)
        following = skip_field(data, after, stop, tag & 7) if tag >= 0 else bad
        if following < 0:
            return bad, 0.0
        if tag == 0x08:
            offset, _, code = read_varint(data, after, stop)
            if code != 0 or not -(1 << 31) <= offset < 1 << 31:
                return bad, 0.0
        scan = following
    first, place, total = used, offset, 0.0
    while at < stop:
        tag, after = read_tag(data, at, stop)
        at = skip_field(data, after, stop, tag & 7)
        if tag == 0x12:
            _, after = read_length(data, after, stop)
            while after < at:
                number, after, code = read_uvarint(data, after, at)
                if code != 0:
                    return bad, 0.0
                used = _put((place >> shift) + 1, np.float64(number), indexes, counts, first, used)
                total += np.float64(number)
                place += 1
        elif tag == 0x10:
            number, _, code = read_uvarint(data, after, at)
            if code != 0:
                return bad, 0.0
            used = _put((place >> shift) + 1, np.float64(number), indexes, counts, first, used)
            total += np.float64(number)
            place += 1
    return used, total


@kernel
def read_exponential(
    data: U8, starts: I64, ends: I64, scales: OutI64, scalars: OutF64,
    positive_offsets: OutI64, positive: OutI32, positive_counts: OutF64,
    negative_offsets: OutI64, negative: OutI32, negative_counts: OutF64, in_buckets: OutF64,
) -> int:  # fmt: skip
    """Reads ExponentialHistogramDataPoints; the position of the first malformed one, or -1.

    Args:
        starts, ends: int64[H], where the messages are.
        scales: int64[H], written: of the native histogram, at most 8; may be too small for one.
        scalars: float64[4 * H], written: zero threshold, zero count, count, sum.
        *_offsets: int64[H + 1], written; buckets with room for all bytes of all messages.
        in_buckets: float64[H], written: how many observations the buckets hold, the zero bucket included.
    """
    above, below = np.int64(0), np.int64(0)
    stale = bits_to_float(np.uint64(STALE_NAN_BITS))
    for h in range(len(starts)):
        stop = ends[h]
        scale, threshold, zero_count, count, total = np.int64(0), 0.0, 0.0, 0.0, 0.0
        flags = np.uint64(0)
        above_at, above_end, below_at, below_end = np.int64(0), np.int64(0), np.int64(0), np.int64(0)
        at = starts[h]
        while at < stop:
            tag, after = read_tag(data, at, stop)
            following = skip_field(data, after, stop, tag & 7)
            code = 0
            if tag == 0x21:
                count = np.float64(load64_le(data, after))
            elif tag == 0x29:
                total = bits_to_float(load64_le(data, after))
            elif tag == 0x30:
                scale, _, code = read_varint(data, after, stop)
            elif tag == 0x39:
                zero_count = np.float64(load64_le(data, after))
            elif tag == 0x42:
                length, above_at = read_length(data, after, stop)
                above_end = above_at + length
            elif tag == 0x4A:
                length, below_at = read_length(data, after, stop)
                below_end = below_at + length
            elif tag == 0x50:
                flags, _, code = read_uvarint(data, after, stop)
            elif tag == 0x71:
                threshold = bits_to_float(load64_le(data, after))
            if code != 0 or not -(1 << 31) <= scale < 1 << 31:
                return at
            at = following
        shift = min(max(scale - SCHEMA_MAX, 0), 62)
        positive_offsets[h] = above
        negative_offsets[h] = below
        above, up = _buckets(data, above_at, above_end, shift, positive, positive_counts, above)
        below, down = _buckets(data, below_at, below_end, shift, negative, negative_counts, below)
        if above < 0 or below < 0:
            return starts[h]
        scales[h] = min(scale, SCHEMA_MAX)
        scalars[4 * h] = threshold if threshold > 0 else DEFAULT_ZERO_THRESHOLD
        scalars[4 * h + 1] = zero_count
        scalars[4 * h + 2] = count
        scalars[4 * h + 3] = stale if flags & np.uint64(1) else total
        in_buckets[h] = up + down + zero_count
    positive_offsets[len(starts)] = above
    negative_offsets[len(starts)] = below
    return -1
