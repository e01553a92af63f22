"""Chunks of native histograms, integer and float, with and without start timestamps: decoded, many at once, to columns.

A chunk: big-endian uint16 sample count, a byte of flags, then a bit stream: the layout that all its samples have
(zero threshold, schema, spans of either side, custom bounds), and samples. Of an integer chunk a sample is time,
count, zero count and buckets (each the difference to the one before it) as deltas of deltas, and the sum XORed; of a
float chunk all but the time is XORed. A stale marker has no buckets.
With start timestamps the flags are in the count's upper two bits, and their byte says which samples have one.
Upstream: tsdb/chunkenc/histogram.go, float_histogram.go, histogram_meta.go, st.go; tsdb/docs/format/chunks.md.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mimir_ray.encoding.bits import bits_to_float, copy_bytes
from mimir_ray.kernel import I64, U8, OutF64, OutI8, OutI32, OutI64, device, kernel
from mimir_ray.model.float_histogram import CUSTOM_BUCKETS_SCHEMA, GAUGE, NOT_RESET, SCHEMA_MAX, UNKNOWN
from mimir_ray.model.histogram import HistogramColumns
from mimir_ray.model.series import STALE_NAN_BITS

from .bitstream import (
    READ_AHEAD_BYTES,
    read_bits,
    read_varbit_int,
    read_varbit_uint,
    read_xor,
)
from .start_timestamps import read_start_timestamp

HISTOGRAM, FLOAT_HISTOGRAM, HISTOGRAM_ST, FLOAT_HISTOGRAM_ST = 2, 3, 5, 6
HEADER_BYTES = 3
GAUGE_FLAGS = 0b11
SCHEMA_RESERVED_MIN, SCHEMA_RESERVED_MAX = -9, 52
"""Upstream: model/histogram/generic.go; resolutions above `SCHEMA_MAX` are reduced to it on reading."""
ST_COUNT_MASK = 0x3FFF

# Progress of `decode_histograms`: rows and buckets written.
_ROW, _POSITIVE, _NEGATIVE, _BOUND, _PROGRESS = 0, 1, 2, 3, 4


@device
def _measure_spans(data: Any, bit: Any, limit: Any) -> Any:
    """(buckets, bit position after the spans); -1 for spans that cannot be."""
    spans, bit = read_varbit_uint(data, bit)
    total = np.int64(0)
    done = np.uint64(0)
    while done < spans:
        if bit > limit:
            return np.int64(-1), bit
        length, bit = read_varbit_uint(data, bit)
        if bit > limit:
            return np.int64(-1), bit
        offset, bit = read_varbit_int(data, bit)
        if length > np.uint64(limit) or (done > np.uint64(0) and offset < 0):
            return np.int64(-1), bit
        total += np.int64(length)
        if total > limit:
            return np.int64(-1), bit
        done += np.uint64(1)
    return total, bit


@device
def _read_spans(data: Any, bit: Any, indexes: Any) -> None:
    """The indexes of the buckets of spans that were measured."""
    spans, bit = read_varbit_uint(data, bit)
    at = 0
    index = np.int64(0)
    for _ in range(np.int64(spans)):
        length, bit = read_varbit_uint(data, bit)
        offset, bit = read_varbit_int(data, bit)
        index += offset
        for _ in range(np.int64(length)):
            indexes[at] = np.int32(index)
            at += 1
            index += 1


@device
def _zero_threshold(data: Any, bit: Any) -> Any:
    """(threshold, bit position after it)."""
    byte = np.int64(read_bits(data, bit, 8))
    if byte == 0:
        return 0.0, bit + 8
    if byte == 255:
        return bits_to_float(read_bits(data, bit + 8, 64)), bit + 72
    # 2^(byte - 244), a normal number: only its exponent is not zero.
    return bits_to_float(np.uint64(byte - 244 + 1023) << np.uint64(52)), bit + 8


@device
def _layout(data: Any, limit: Any) -> Any:
    """(ok, schema, zero threshold, positive spans at, buckets, negative spans at, buckets, bounds at, bounds, end)."""
    none = np.int64(0)
    threshold, bit = _zero_threshold(data, np.int64(HEADER_BYTES << 3))
    schema, bit = read_varbit_int(data, bit)
    known = SCHEMA_RESERVED_MIN <= schema <= SCHEMA_RESERVED_MAX or schema == CUSTOM_BUCKETS_SCHEMA
    if bit > limit or not known:
        return False, none, threshold, none, none, none, none, none, none, bit
    positive_at = bit
    positive, bit = _measure_spans(data, bit, limit)
    if bit > limit or positive < 0:
        return False, none, threshold, none, none, none, none, none, none, bit
    negative_at = bit
    negative, bit = _measure_spans(data, bit, limit)
    if bit > limit or negative < 0:
        return False, none, threshold, none, none, none, none, none, none, bit
    bounds_at = bit
    bounds = np.int64(0)
    if schema == CUSTOM_BUCKETS_SCHEMA:
        raw, bit = read_varbit_uint(data, bit)
        if raw > np.uint64(limit):
            return False, none, threshold, none, none, none, none, none, none, bit
        bounds = np.int64(raw)
        bounds_at = bit
        for _ in range(bounds):
            if bit > limit:
                break
            raw, bit = read_varbit_uint(data, bit)
            if raw == np.uint64(0):
                bit += 64
    valid = bit <= limit and positive + negative <= limit - bit
    return valid, schema, threshold, positive_at, positive, negative_at, negative, bounds_at, bounds, bit


@kernel
def measure_histograms(data: U8, starts: I64, ends: I64, totals: OutI64) -> int:
    """How much room the samples of C chunks of histograms take.

    Args:
        data, starts, ends: as of `decode_histograms`.
        totals: int64[3], added to: at most so many positive buckets, negative buckets, and custom bounds.

    Returns 0, or -(c + 1) where chunk c is damaged.
    """
    for c in range(len(starts)):
        start, end = starts[c], ends[c]
        if start < 0 or start + HEADER_BYTES > end or end > len(data):
            return -(c + 1)
        padded = np.zeros(end - start + READ_AHEAD_BYTES, np.uint8)
        copy_bytes(padded, 0, data, start, end - start)
        limit = (end - start) << 3
        count = np.int64(data[start]) << 8 | np.int64(data[start + 1])
        if count == 0:
            continue
        valid, _, _, _, positive, _, negative, _, bounds, bit = _layout(padded, limit)
        if not valid:
            return -(c + 1)
        # No bucket takes less than a bit, so bytes that promise more are wrong.
        totals[0] += min(count * positive, limit - bit)
        totals[1] += min(count * negative, limit - bit)
        totals[2] += bounds
    return 0


@device
def _read_integers(data: Any, bit: Any, limit: Any, first: Any, state: Any, delta: Any) -> Any:
    """The buckets of an integer histogram; the bit position after them, -1 if they do not end before the limit."""
    for k in range(len(state)):
        change, bit = read_varbit_int(data, bit)
        if bit > limit:
            return np.int64(-1)
        if not first:
            change += delta[k]
            delta[k] = change
        state[k] += change
    return bit


@device
def _read_floats(data: Any, bit: Any, limit: Any, first: Any, state: Any, leading: Any, trailing: Any) -> Any:
    """The same of a float histogram; windows of buckets begin at 3."""
    for k in range(len(state)):
        if first:
            state[k] = np.int64(read_bits(data, bit, 64))
            bit += 64
        else:
            raw, leading[3 + k], trailing[3 + k], bit = read_xor(
                data, bit, np.uint64(state[k]), leading[3 + k], trailing[3 + k]
            )
            state[k] = np.int64(raw)
        if bit < 0 or bit > limit:
            return np.int64(-1)
    return bit


@device
def _put_buckets(
    floats: Any, indexes: Any, state: Any, first: Any, count: Any, at: Any, out: Any, out_counts: Any
) -> None:
    """Writes `count` buckets from `first` of the state as columns have them, to out[at:], out_counts[at:]."""
    current = np.int64(0)
    for k in range(count):
        out[at + k] = indexes[first + k]
        if floats:
            out_counts[at + k] = bits_to_float(np.uint64(state[first + k]))
        else:
            current += state[first + k]
            out_counts[at + k] = np.float64(current)


@device
def _decode(
    data: Any, end: Any, floats: Any, with_start: Any, count: Any, out: Any, timestamps: Any, sums: Any,
    start_timestamps: Any, schema_out: Any, hint: Any, threshold_out: Any, zero_counts: Any, counts: Any, custom: Any,
    positive_offsets: Any, positive: Any, positive_counts: Any,
    negative_offsets: Any, negative: Any, negative_counts: Any,
    bounds: Any, list_number: Any, progress: Any,
) -> Any:  # fmt: skip
    """The chunk data[:end], with `READ_AHEAD_BYTES` behind it; whether its bytes were valid."""
    limit = end << 3
    valid, schema, threshold, positive_at, above, negative_at, below, bounds_at, bound_count, bit = _layout(data, limit)
    if not valid:
        return False
    if bound_count > 0:
        at = bounds_at
        for _ in range(bound_count):
            raw, at = read_varbit_uint(data, at)
            if raw == np.uint64(0):
                bounds[progress[_BOUND]] = bits_to_float(read_bits(data, at, 64))
                at += 64
            else:
                bounds[progress[_BOUND]] = np.float64(raw - np.uint64(1)) / 1000.0
            progress[_BOUND] += 1
    width = above + below
    indexes = np.empty(width, np.int32)
    _read_spans(data, positive_at, indexes[:above])
    _read_spans(data, negative_at, indexes[above:])
    # Of a float chunk bits and window, of an integer chunk difference to the bucket before and its delta.
    state = np.zeros(width, np.int64)
    delta = np.zeros(width, np.int64)
    leading = np.zeros(3 + width if floats else 1, np.int64)
    trailing = np.zeros(3 + width if floats else 1, np.int64)
    flags = np.int64(data[0] if with_start else data[2]) >> 6
    changes = np.int64(data[2]) if with_start else np.int64(0)
    time = np.int64(0)
    time_delta = np.int64(0)
    whole = np.int64(0)
    whole_delta = np.int64(0)
    zero = np.int64(0)
    zero_delta = np.int64(0)
    total = np.uint64(0)
    difference = np.int64(0)
    start_timestamp = np.int64(0)
    for n in range(count):
        previous = time
        change, bit = read_varbit_int(data, bit)
        if bit > limit:
            return False
        if n == 0:
            time = change
        else:
            time_delta += change
            time += time_delta
        if floats:
            if n == 0:
                whole = np.int64(read_bits(data, bit, 64))
                zero = np.int64(read_bits(data, bit + 64, 64))
                bit += 128
                if bit > limit:
                    return False
                total = read_bits(data, bit, 64)
                bit += 64
            else:
                raw, leading[0], trailing[0], bit = read_xor(data, bit, np.uint64(whole), leading[0], trailing[0])
                whole = np.int64(raw)
                if bit < 0 or bit > limit:
                    return False
                raw, leading[1], trailing[1], bit = read_xor(data, bit, np.uint64(zero), leading[1], trailing[1])
                zero = np.int64(raw)
                if bit < 0 or bit > limit:
                    return False
                total, leading[2], trailing[2], bit = read_xor(data, bit, total, leading[2], trailing[2])
        else:
            if n == 0:
                raw, bit = read_varbit_uint(data, bit)
                whole = np.int64(raw)
                if bit > limit:
                    return False
                raw, bit = read_varbit_uint(data, bit)
                zero = np.int64(raw)
                if bit > limit:
                    return False
                total = read_bits(data, bit, 64)
                bit += 64
            else:
                change, bit = read_varbit_int(data, bit)
                whole_delta += change
                whole += whole_delta
                if bit > limit:
                    return False
                change, bit = read_varbit_int(data, bit)
                zero_delta += change
                zero += zero_delta
                if bit > limit:
                    return False
                total, leading[0], trailing[0], bit = read_xor(data, bit, total, leading[0], trailing[0])
        if bit < 0 or bit > limit:
            return False
        row = progress[_ROW]
        timestamps[out + n] = time
        sums[out + n] = bits_to_float(total)
        stale = total == np.uint64(STALE_NAN_BITS)
        if n == 0 or not stale:
            if floats:
                bit = _read_floats(data, bit, limit, n == 0, state, leading, trailing)
            else:
                bit = _read_integers(data, bit, limit, n == 0, state, delta)
            if bit < 0:
                return False
        if with_start:
            start_timestamp, difference, bit = read_start_timestamp(
                data, bit, n, changes, time, previous, difference, start_timestamp
            )
            if bit < 0 or bit > limit:
                return False
            start_timestamps[out + n] = start_timestamp
        progress[_ROW] = row + 1
        if stale:
            # Upstream: AtFloatHistogram: of a stale marker only the sum is given.
            schema_out[row] = 0
            hint[row] = UNKNOWN
            threshold_out[row] = 0.0
            zero_counts[row] = 0.0
            counts[row] = 0.0
            custom[row] = -1
        else:
            schema_out[row] = schema
            hint[row] = GAUGE if flags == GAUGE_FLAGS else (NOT_RESET if n > 0 else UNKNOWN)
            threshold_out[row] = threshold
            custom[row] = list_number if schema == CUSTOM_BUCKETS_SCHEMA else -1
            if floats:
                zero_counts[row] = bits_to_float(np.uint64(zero))
                counts[row] = bits_to_float(np.uint64(whole))
            else:
                zero_counts[row] = np.float64(np.uint64(zero))
                counts[row] = np.float64(np.uint64(whole))
            above_end = progress[_POSITIVE] + above
            below_end = progress[_NEGATIVE] + below
            if above_end > len(positive) or below_end > len(negative):
                return False
            _put_buckets(floats, indexes, state, 0, above, progress[_POSITIVE], positive, positive_counts)
            _put_buckets(floats, indexes, state, above, below, progress[_NEGATIVE], negative, negative_counts)
            progress[_POSITIVE] = above_end
            progress[_NEGATIVE] = below_end
        positive_offsets[row + 1] = progress[_POSITIVE]
        negative_offsets[row + 1] = progress[_NEGATIVE]
    return True


@kernel
def decode_histograms(
    data: U8, starts: I64, ends: I64, encodings: U8, out_starts: I64,
    timestamps: OutI64, sums: OutF64, start_timestamps: OutI64, rows: OutI32,
    schema: OutI8, hint: OutI8, zero_threshold: OutF64, zero_count: OutF64, count: OutF64, custom: OutI32,
    positive_offsets: OutI64, positive: OutI32, positive_counts: OutF64,
    negative_offsets: OutI64, negative: OutI32, negative_counts: OutF64,
    bounds: OutF64, bound_cuts: OutI64, first_list: int, progress: OutI64,
) -> int:  # fmt: skip
    """Decodes C chunks of histograms.

    Args:
        data: the bytes that hold the chunks.
        starts, ends: int64[C], chunk c is data[starts[c]:ends[c]].
        encodings: uint8[C], one of the four.
        out_starts: int64[C], where in `timestamps`, `sums`, `start_timestamps` and `rows` chunk c writes.
        rows: int32, written: the number of each sample's histogram.
        schema .. negative_counts: columns as in HistogramColumns, written from where `progress` says; long enough for
            what `chunk_counts` and `measure_histograms` gave, with [0] of the offsets 0.
        bounds, bound_cuts: custom bounds of chunk first_list + c are bounds[bound_cuts[l]:bound_cuts[l + 1]], l that
            number, which is what `custom` says.
        progress: int64[4], zeros at the beginning of a set of calls: rows, positive, negative buckets, bounds so far.

    Returns 0, or -(c + 1) where chunk c is damaged; outputs mean nothing then.
    """
    for c in range(len(starts)):
        start, end = starts[c], ends[c]
        if start < 0 or start + HEADER_BYTES > end or end > len(data):
            return -(c + 1)
        floats = encodings[c] == FLOAT_HISTOGRAM or encodings[c] == FLOAT_HISTOGRAM_ST
        with_start = encodings[c] == HISTOGRAM_ST or encodings[c] == FLOAT_HISTOGRAM_ST
        samples = np.int64(data[start]) << 8 | np.int64(data[start + 1])
        if with_start:
            samples &= ST_COUNT_MASK
        first = progress[_ROW]
        if first + samples > len(schema) or out_starts[c] + samples > len(timestamps):
            return -(c + 1)
        if samples > 0:
            padded = np.zeros(end - start + READ_AHEAD_BYTES, np.uint8)
            copy_bytes(padded, 0, data, start, end - start)
            if not _decode(
                padded, end - start, floats, with_start, samples, out_starts[c], timestamps, sums, start_timestamps,
                schema, hint, zero_threshold, zero_count, count, custom,
                positive_offsets, positive, positive_counts, negative_offsets, negative, negative_counts,
                bounds, first_list + c, progress,
            ):  # fmt: skip
                return -(c + 1)
        for n in range(samples):
            rows[out_starts[c] + n] = first + n
        bound_cuts[first_list + c + 1] = progress[_BOUND]
    return 0


class HistogramsMade:
    """Room for the histograms of some chunks: `measure` and then `decode` are called for the same sets of chunks."""

    def __init__(self) -> None:
        self._totals = np.zeros(3, np.int64)
        self._progress = np.zeros(_PROGRESS, np.int64)
        self._lists = 0
        self._columns: tuple[NDArray[Any], ...] = ()

    def measure(self, data: NDArray[np.uint8], starts: NDArray[np.int64], ends: NDArray[np.int64]) -> int:
        """See `measure_histograms`."""
        return measure_histograms(data, starts, ends, self._totals)

    def reserve(self, samples: int, chunks: int) -> None:
        """After all have been measured."""
        above, below, bounds = self._totals.tolist()
        self._columns = (
            np.empty(samples, np.int8), np.empty(samples, np.int8),
            *(np.empty(samples, np.float64) for _ in range(3)), np.empty(samples, np.int32),
            np.zeros(samples + 1, np.int64), np.empty(above, np.int32), np.empty(above, np.float64),
            np.zeros(samples + 1, np.int64), np.empty(below, np.int32), np.empty(below, np.float64),
        )  # fmt: skip
        self._bounds = np.empty(bounds, np.float64)
        self._bound_cuts = np.zeros(chunks + 1, np.int64)

    def decode(
        self,
        data: NDArray[np.uint8],
        starts: NDArray[np.int64],
        ends: NDArray[np.int64],
        encodings: NDArray[np.uint8],
        out_starts: NDArray[np.int64],
        timestamps: NDArray[np.int64],
        sums: NDArray[np.float64],
        start_timestamps: NDArray[np.int64],
        rows: NDArray[np.int32],
    ) -> int:
        """See `decode_histograms`."""
        code = decode_histograms(
            data, starts, ends, encodings, out_starts, timestamps, sums, start_timestamps, rows,
            *self._columns, self._bounds, self._bound_cuts, self._lists, self._progress,
        )  # fmt: skip
        self._lists += len(starts)
        return code

    def columns(self, sums: NDArray[np.float64]) -> HistogramColumns:
        """All that were decoded; `sums`: of each, in the order of rows."""
        (
            schema,
            hint,
            threshold,
            zero,
            count,
            custom,
            above_cuts,
            above,
            above_counts,
            below_cuts,
            below,
            below_counts,
        ) = self._columns
        known: dict[bytes, int] = {}
        lists: list[NDArray[np.float64]] = []
        numbers = np.full(self._lists + 1, -1, np.int32)
        for number in np.unique(custom[custom >= 0]).tolist():
            some = self._bounds[self._bound_cuts[number] : self._bound_cuts[number + 1]]
            key = some.tobytes()
            if key not in known:
                known[key] = len(lists)
                lists.append(some)
            numbers[number] = known[key]
        columns = HistogramColumns(
            schema, hint, threshold, zero, count, sums,
            above_cuts, above[: above_cuts[-1]], above_counts[: above_cuts[-1]],
            below_cuts, below[: below_cuts[-1]], below_counts[: below_cuts[-1]],
            numbers[custom], tuple(lists),
        )  # fmt: skip
        if not (schema > SCHEMA_MAX).any():
            return columns
        # From a newer Prometheus with finer schemas. Upstream: histogramIterator.AtFloatHistogram.
        rows = [columns.row(number) for number in range(len(columns))]
        return HistogramColumns.from_rows(
            [row.to_schema(SCHEMA_MAX).with_hint(row.hint) if row.schema > SCHEMA_MAX else row for row in rows]
        )
