"""Columns of native histograms to chunks (see histogram.py), many runs at once.

First it is decided where chunks begin (`cut_histograms`), then which buckets each chunk has (`join_buckets`: all that
any of its histograms has; upstream recodes a chunk whenever a bucket is new, which ends the same), then they are
written. Columns hold floats: a run whose counts are all whole numbers becomes integer chunks, any other float chunks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mimir_ray.encoding.bits import float_to_bits
from mimir_ray.kernel import F64, I8, I32, I64, U8, Bool, OutBool, OutI32, OutI64, OutU8, device, kernel
from mimir_ray.model.float_histogram import CUSTOM_BUCKETS_SCHEMA, GAUGE, RESET
from mimir_ray.model.histogram import HistogramColumns
from mimir_ray.model.series import STALE_NAN_BITS

from .bitstream import NO_WINDOW, append_xor, put_bits, put_long, put_varbit_int, put_varbit_uint
from .histogram import (
    FLOAT_HISTOGRAM,
    FLOAT_HISTOGRAM_ST,
    HEADER_BYTES,
    HISTOGRAM,
    HISTOGRAM_ST,
    ST_COUNT_MASK,
)
from .start_timestamps import put_start_timestamp

SAMPLES_PER_CHUNK = 120
WHOLE_MAX = float(1 << 53)
"""Counts above it are not known to be whole."""

# Flags in a chunk's header. Upstream: chunkenc.CounterResetHeader.
_UNKNOWN, _NOT_RESET, _RESET, _GAUGE = 0b00, 0b01, 0b10, 0b11
_CONTINUES = -1


@kernel
def whole_runs(
    offsets: I64, sums: F64, zero_count: F64, count: F64,
    positive_offsets: I64, positive_counts: F64, negative_offsets: I64, negative_counts: F64, out: OutBool,
) -> None:  # fmt: skip
    """out[r]: whether all counts of the histograms offsets[r]:offsets[r + 1] are whole numbers that an integer holds;
    those of stale markers do not matter."""
    for r in range(len(offsets) - 1):
        whole = True
        for h in range(offsets[r], offsets[r + 1]):
            if float_to_bits(sums[h]) == np.uint64(STALE_NAN_BITS):
                continue
            whole = _is_whole(zero_count[h]) and _is_whole(count[h])
            for k in range(positive_offsets[h], positive_offsets[h + 1]):
                whole = whole and _is_whole(positive_counts[k])
            for k in range(negative_offsets[h], negative_offsets[h + 1]):
                whole = whole and _is_whole(negative_counts[k])
            if not whole:
                break
        out[r] = whole


@device
def _is_whole(value: Any) -> Any:
    # A negative zero is no integer: it would come back as another number.
    return (
        0 <= value <= WHOLE_MAX and value == np.floor(value) and float_to_bits(value) >> np.uint64(63) == np.uint64(0)
    )


@device
def _shrank(before: Any, before_end: Any, after: Any, after_end: Any, indexes: Any, counts: Any) -> Any:
    """Whether a bucket of the histogram with buckets before:before_end is gone or smaller in the one with after:…"""
    while before < before_end:
        while after < after_end and indexes[after] < indexes[before]:
            after += 1
        if after == after_end or indexes[after] != indexes[before]:
            if counts[before] != 0:
                return True
        elif counts[after] < counts[before]:
            return True
        before += 1
    return False


@kernel
def cut_histograms(
    offsets: I64, whole: Bool, schema: I8, hint: I8, zero_threshold: F64, zero_count: F64, count: F64, sums: F64,
    positive_offsets: I64, positive: I32, positive_counts: F64,
    negative_offsets: I64, negative: I32, negative_counts: F64, custom: I32,
    samples_max: int, cuts: OutI64, flags: OutU8, integers: OutBool, runs: OutI64,
) -> int:  # fmt: skip
    """Cuts R runs of histograms into chunks; returns how many.

    Args:
        offsets: int64[R + 1], run r has the histograms offsets[r]:offsets[r + 1], ascending in time.
        whole: bool[R].
        schema .. custom: HistogramColumns; equal bounds have one number.
        samples_max: a chunk of so many is full.
        cuts: int64[H + 1], written: chunk c has the histograms cuts[c]:cuts[c + 1].
        flags: uint8, written: a chunk's flags. integers: bool, `whole` of its run. runs: int64, its run.
    """
    found = 0
    for r in range(len(offsets) - 1):
        first = offsets[r]
        for h in range(offsets[r], offsets[r + 1]):
            verdict = _CONTINUES
            gauge = hint[h] == GAUGE
            p = h - 1
            if h == offsets[r]:
                verdict = _RESET if hint[h] == RESET else _UNKNOWN
            elif gauge != (hint[p] == GAUGE):
                verdict = _UNKNOWN
            elif hint[h] == RESET:
                verdict = _RESET
            elif float_to_bits(sums[h]) != np.uint64(STALE_NAN_BITS):
                if float_to_bits(sums[p]) == np.uint64(STALE_NAN_BITS):
                    verdict = _UNKNOWN
                elif schema[h] != schema[p] or zero_threshold[h] != zero_threshold[p]:
                    verdict = _RESET if not gauge and count[h] < count[p] else _UNKNOWN
                elif custom[h] != custom[p] or (
                    not gauge
                    and (
                        count[h] < count[p]
                        or zero_count[h] < zero_count[p]
                        or _shrank(
                            positive_offsets[p],
                            positive_offsets[h],
                            positive_offsets[h],
                            positive_offsets[h + 1],
                            positive,
                            positive_counts,
                        )
                        or _shrank(
                            negative_offsets[p],
                            negative_offsets[h],
                            negative_offsets[h],
                            negative_offsets[h + 1],
                            negative,
                            negative_counts,
                        )
                    )
                ):
                    verdict = _RESET
            if verdict == _CONTINUES and h - first >= samples_max:
                verdict = _NOT_RESET
            if verdict != _CONTINUES:
                first = h
                cuts[found] = h
                flags[found] = np.uint8(_GAUGE if gauge else verdict)
                integers[found] = whole[r]
                runs[found] = r
                found += 1
    cuts[found] = offsets[len(offsets) - 1]
    return found


@kernel
def join_buckets(cuts: I64, offsets: I64, indexes: I32, sums: F64, joined_offsets: OutI64, joined: OutI32) -> None:
    """Which buckets one side of C chunks has: those of any of its histograms but stale markers, ascending.

    Args:
        cuts: int64[C + 1], see `cut_histograms`.
        offsets, indexes: one side of HistogramColumns.
        joined_offsets: int64[C + 1], joined: int32, as long as `indexes`; written.
    """
    write = np.int64(0)
    for c in range(len(cuts) - 1):
        joined_offsets[c] = write
        end = write
        for h in range(cuts[c], cuts[c + 1]):
            low, high = offsets[h], offsets[h + 1]
            if float_to_bits(sums[h]) == np.uint64(STALE_NAN_BITS):
                continue
            # How many of its buckets are new; the usual answer is none.
            at = write
            new = np.int64(0)
            for k in range(low, high):
                while at < end and joined[at] < indexes[k]:
                    at += 1
                if at == end or joined[at] != indexes[k]:
                    new += 1
            if new == 0:
                continue
            # Merged from the end, in place.
            left = end - 1
            right = high - 1
            end += new
            to = end - 1
            while right >= low:
                if left >= write and joined[left] > indexes[right]:
                    joined[to] = joined[left]
                    left -= 1
                else:
                    joined[to] = indexes[right]
                    if left >= write and joined[left] == indexes[right]:
                        left -= 1
                    right -= 1
                to -= 1
        write = end
    joined_offsets[len(cuts) - 1] = write


@device
def _put_spans(out: Any, bit: Any, joined: Any, low: Any, high: Any) -> Any:
    spans = np.uint64(0)
    for k in range(low, high):
        if k == low or joined[k] != joined[k - 1] + 1:
            spans += np.uint64(1)
    bit = put_varbit_uint(out, bit, spans)
    start = low
    while start < high:
        end = start + 1
        while end < high and joined[end] == joined[end - 1] + 1:
            end += 1
        bit = put_varbit_uint(out, bit, np.uint64(end - start))
        offset = np.int64(joined[start])
        if start > low:
            offset -= np.int64(joined[start - 1]) + 1
        bit = put_varbit_int(out, bit, offset)
        start = end
    return bit


@device
def _put_zero_threshold(out: Any, bit: Any, threshold: Any) -> Any:
    raw = float_to_bits(threshold)
    exponent = np.int64(raw >> np.uint64(52))
    byte = exponent - 1023 + 244
    if threshold == 0:
        return put_bits(out, bit, np.uint64(0), 8)
    if raw & np.uint64((1 << 52) - 1) == np.uint64(0) and 1 <= byte <= 254:
        return put_bits(out, bit, np.uint64(byte), 8)
    return put_long(out, put_bits(out, bit, np.uint64(255), 8), raw, 64)


@device
def _put_bound(out: Any, bit: Any, bound: Any) -> Any:
    thousandths = bound * 1000.0
    if 0 <= thousandths <= 33554430:
        # Upstream rounds half away from zero.
        nearest = np.floor(thousandths)
        if thousandths - nearest >= 0.5:
            nearest += 1.0
        if nearest / 1000.0 == bound:
            return put_varbit_uint(out, bit, np.uint64(nearest) + np.uint64(1))
    return put_long(out, put_bits(out, bit, np.uint64(0), 1), float_to_bits(bound), 64)


@device
def _dense(
    low: Any, high: Any, indexes: Any, counts: Any, joined: Any, first: Any, end: Any, out: Any, at: Any
) -> None:
    """out[at:]: the counts of buckets low:high at the places of joined[first:end], 0 elsewhere."""
    for k in range(first, end):
        if low < high and indexes[low] == joined[k]:
            out[at + k - first] = counts[low]
            low += 1
        else:
            out[at + k - first] = 0.0


@kernel
def encode_histograms(
    cuts: I64, flags: U8, integers: Bool, with_start: bool, timestamps: I64, start_timestamps: I64,
    schema: I8, zero_threshold: F64, zero_count: F64, count: F64, sums: F64,
    positive_offsets: I64, positive: I32, positive_counts: F64,
    negative_offsets: I64, negative: I32, negative_counts: F64, custom: I32,
    bounds: F64, bound_cuts: I64,
    above_offsets: I64, above: I32, below_offsets: I64, below: I32,
    out: OutU8, starts: OutI64,
) -> int:  # fmt: skip
    """Writes C chunks back to back; returns the bytes.

    Args:
        cuts, flags, integers: see `cut_histograms`.
        with_start: whether the chunks have start timestamps.
        timestamps, start_timestamps: int64[H]; the latter only read `with_start`.
        schema .. custom: HistogramColumns, with bounds[bound_cuts[i]:bound_cuts[i + 1]] for custom i.
        above_offsets, above, below_offsets, below: see `join_buckets`.
        out: long enough, see `bytes_max`.
        starts: int64[C + 1], written: chunk c is out[starts[c]:starts[c + 1]].
    """
    end = np.int64(0)
    for c in range(len(cuts) - 1):
        start = end
        starts[c] = start
        samples = cuts[c + 1] - cuts[c]
        out[start] = np.uint8(samples >> 8)
        out[start + 1] = np.uint8(samples & 0xFF)
        out[start + 2] = np.uint8(0 if with_start else flags[c] << 6)
        if with_start:
            out[start] |= np.uint8(flags[c] << 6)
        bit = (start + HEADER_BYTES) << 3
        first = cuts[c]
        above_count = above_offsets[c + 1] - above_offsets[c]
        width = above_count + below_offsets[c + 1] - below_offsets[c]
        empty = float_to_bits(sums[first]) == np.uint64(STALE_NAN_BITS)
        chunk_schema = np.int64(0) if empty else np.int64(schema[first])
        bit = _put_zero_threshold(out, bit, 0.0 if empty else zero_threshold[first])
        bit = put_varbit_int(out, bit, chunk_schema)
        bit = _put_spans(out, bit, above, above_offsets[c], above_offsets[c + 1])
        bit = _put_spans(out, bit, below, below_offsets[c], below_offsets[c + 1])
        if chunk_schema == CUSTOM_BUCKETS_SCHEMA:
            low, high = bound_cuts[custom[first]], bound_cuts[custom[first] + 1]
            bit = put_varbit_uint(out, bit, np.uint64(high - low))
            for k in range(low, high):
                bit = _put_bound(out, bit, bounds[k])
        now = np.zeros(width, np.float64)
        before = np.zeros(width, np.int64)
        delta = np.zeros(width, np.int64)
        floats = not integers[c]
        leading = np.full(3 + width if floats else 1, NO_WINDOW, np.int64)
        trailing = np.zeros(3 + width if floats else 1, np.int64)
        time_delta = np.int64(0)
        whole, whole_delta = np.int64(0), np.int64(0)
        zero, zero_delta = np.int64(0), np.int64(0)
        total = np.uint64(0)
        difference = np.int64(0)
        for n in range(samples):
            h = first + n
            stale = float_to_bits(sums[h]) == np.uint64(STALE_NAN_BITS)
            new_total = float_to_bits(sums[h])
            new_count = 0.0 if stale else count[h]
            new_zero = 0.0 if stale else zero_count[h]
            if n == 0:
                bit = put_varbit_int(out, bit, timestamps[h])
            else:
                step = timestamps[h] - timestamps[h - 1]
                bit = put_varbit_int(out, bit, step - time_delta)
                time_delta = step
            if floats:
                raw_count, raw_zero = float_to_bits(new_count), float_to_bits(new_zero)
                if n == 0:
                    bit = put_long(out, bit, raw_count, 64)
                    bit = put_long(out, bit, raw_zero, 64)
                    bit = put_long(out, bit, new_total, 64)
                else:
                    none = np.uint64(0)
                    bit, leading[0], trailing[0] = append_xor(
                        out, bit, none, 0, raw_count ^ np.uint64(whole), leading[0], trailing[0]
                    )
                    bit, leading[1], trailing[1] = append_xor(
                        out, bit, none, 0, raw_zero ^ np.uint64(zero), leading[1], trailing[1]
                    )
                    bit, leading[2], trailing[2] = append_xor(
                        out, bit, none, 0, new_total ^ total, leading[2], trailing[2]
                    )
                whole, zero = np.int64(raw_count), np.int64(raw_zero)
            elif n == 0:
                whole, zero = np.int64(new_count), np.int64(new_zero)
                bit = put_varbit_uint(out, bit, np.uint64(whole))
                bit = put_varbit_uint(out, bit, np.uint64(zero))
                bit = put_long(out, bit, new_total, 64)
            else:
                if stale:
                    bit = put_bits(out, bit, np.uint64(0), 2)
                else:
                    step = np.int64(new_count) - whole
                    bit = put_varbit_int(out, bit, step - whole_delta)
                    whole_delta = step
                    step = np.int64(new_zero) - zero
                    bit = put_varbit_int(out, bit, step - zero_delta)
                    zero_delta = step
                    whole, zero = np.int64(new_count), np.int64(new_zero)
                bit, leading[0], trailing[0] = append_xor(
                    out, bit, np.uint64(0), 0, new_total ^ total, leading[0], trailing[0]
                )
            total = new_total
            if not stale:
                _dense(
                    positive_offsets[h], positive_offsets[h + 1], positive, positive_counts,
                    above, above_offsets[c], above_offsets[c + 1], now, 0,
                )  # fmt: skip
                _dense(
                    negative_offsets[h], negative_offsets[h + 1], negative, negative_counts,
                    below, below_offsets[c], below_offsets[c + 1], now, above_count,
                )  # fmt: skip
                previous = np.int64(0)
                for k in range(width):
                    if floats:
                        raw = float_to_bits(now[k])
                        if n == 0:
                            bit = put_long(out, bit, raw, 64)
                        else:
                            bit, leading[3 + k], trailing[3 + k] = append_xor(
                                out, bit, np.uint64(0), 0, raw ^ np.uint64(before[k]), leading[3 + k], trailing[3 + k]
                            )
                        before[k] = np.int64(raw)
                        continue
                    # The difference to the bucket before it on its side.
                    if k == above_count:
                        previous = np.int64(0)
                    value = np.int64(now[k]) - previous
                    previous = np.int64(now[k])
                    if n == 0:
                        bit = put_varbit_int(out, bit, value)
                    else:
                        step = value - before[k]
                        bit = put_varbit_int(out, bit, step - delta[k])
                        delta[k] = step
                    before[k] = value
            if with_start:
                bit, difference = put_start_timestamp(
                    out, bit, start + 2, n, timestamps[h], timestamps[max(h - 1, 0)],
                    start_timestamps[h], start_timestamps[max(h - 1, 0)], difference,
                )  # fmt: skip
        end = (bit + 7) >> 3
    starts[len(cuts) - 1] = end
    return end


@dataclass(slots=True)
class HistogramChunks:
    """C chunks: chunk c, of run runs[c], is data[starts[c]:starts[c + 1]] and has the histograms cuts[c]:cuts[c + 1]
    of what was encoded; `encodings` uint8[C]."""

    runs: NDArray[np.int64]
    cuts: NDArray[np.int64]
    encodings: NDArray[np.uint8]
    starts: NDArray[np.int64]
    data: NDArray[np.uint8]


def encode_runs_of_histograms(
    offsets: NDArray[np.int64],
    timestamps: NDArray[np.int64],
    columns: HistogramColumns,
    start_timestamps: NDArray[np.int64] | None = None,
    samples_per_chunk: int = SAMPLES_PER_CHUNK,
) -> HistogramChunks:
    """Packs R runs of histograms, each ascending in time: run r is offsets[r]:offsets[r + 1] (int64[R + 1]).

    With `start_timestamps` (int64[H], 0: not known) the chunks are of the encodings that have room for them.
    """
    assert samples_per_chunk <= ST_COUNT_MASK
    custom, bounds, bound_cuts = _bounds(columns)
    total = len(columns)
    sums, schema = columns.sum, columns.schema
    positive = columns.positive_offsets, columns.positive, columns.positive_counts
    negative = columns.negative_offsets, columns.negative, columns.negative_counts
    whole = np.empty(len(offsets) - 1, np.bool_)
    whole_runs(offsets, sums, columns.zero_count, columns.count, *positive[::2], *negative[::2], whole)
    cuts, flags = np.empty(total + 1, np.int64), np.empty(total, np.uint8)
    integers, runs = np.empty(total, np.bool_), np.empty(total, np.int64)
    chunks = cut_histograms(
        offsets, whole, schema, columns.hint, columns.zero_threshold, columns.zero_count, columns.count, sums,
        *positive, *negative, custom, samples_per_chunk, cuts, flags, integers, runs,
    )  # fmt: skip
    cuts, flags, integers, runs = cuts[: chunks + 1], flags[:chunks], integers[:chunks], runs[:chunks]
    joined = []
    for side_offsets, indexes, _ in (positive, negative):
        joined_offsets, buckets = np.empty(chunks + 1, np.int64), np.empty(len(indexes), np.int32)
        join_buckets(cuts, side_offsets, indexes, sums, joined_offsets, buckets)
        joined += [joined_offsets, buckets[: joined_offsets[-1]]]
    out = np.empty(_bytes_max(cuts, joined[0], joined[2], custom, bound_cuts), np.uint8)
    starts = np.empty(chunks + 1, np.int64)
    with_start = start_timestamps is not None
    size = encode_histograms(
        cuts, flags, integers, with_start, timestamps, timestamps if start_timestamps is None else start_timestamps,
        schema, columns.zero_threshold, columns.zero_count, columns.count, sums, *positive, *negative, custom,
        bounds, bound_cuts, *joined, out, starts,
    )  # fmt: skip
    pair = (HISTOGRAM_ST, FLOAT_HISTOGRAM_ST) if with_start else (HISTOGRAM, FLOAT_HISTOGRAM)
    return HistogramChunks(runs, cuts, np.where(integers, *pair).astype(np.uint8), starts, out[:size].copy())


def _bytes_max(
    cuts: NDArray[np.int64],
    above: NDArray[np.int64],
    below: NDArray[np.int64],
    custom: NDArray[np.int32],
    bound_cuts: NDArray[np.int64],
) -> int:
    """What `encode_histograms` may need: 10 bytes a number, 19 for a span."""
    widths = np.diff(above) + np.diff(below)
    samples = np.diff(cuts)
    first = custom[cuts[:-1]]
    bounds = np.where(first >= 0, np.diff(bound_cuts, append=bound_cuts[-1])[first], 0)
    return int((64 + 19 * widths + 10 * bounds + samples * (50 + 10 * widths)).sum()) + 16


def _bounds(columns: HistogramColumns) -> tuple[NDArray[np.int32], NDArray[np.float64], NDArray[np.int64]]:
    """(number of each histogram's bounds, equal ones having one, or -1; all bounds; where each list starts)."""
    known: dict[bytes, int] = {}
    numbers = np.full(len(columns.bounds) + 1, -1, np.int32)
    lists: list[NDArray[np.float64]] = []
    for number, some in enumerate(columns.bounds):
        key = some.tobytes()
        if key not in known:
            known[key] = len(lists)
            lists.append(some)
        numbers[number] = known[key]
    cuts = np.concatenate(([0], np.cumsum([len(one) for one in lists]))).astype(np.int64)
    return numbers[columns.custom], np.concatenate((np.zeros(0), *lists)), cuts
