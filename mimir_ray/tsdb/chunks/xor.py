"""Float chunks in Prometheus' XOR encoding: read and appended to, many series at once.

A chunk is a big-endian uint16 sample count and a bit stream (Upstream: tsdb/chunkenc/xor.go,
tsdb/docs/bstream.md). First sample: zigzag varint time, 64 value bits. Second: uvarint delta, value.
Then: delta of delta in one of five lengths, value. A value is written as what XOR leaves of it:
`0` = unchanged, `10` = the meaningful bits lie inside the previous window, `11` = a new window of five
bits of leading zeros and six of length.

Reading: `chunk_counts`, then `decode_chunks`. Bytes are judged, not trusted: nothing outside a
chunk's range is interpreted, nothing outside the array is touched.

Appending: `append_runs`, called once per flush of the head. Open chunks live back to back in a byte
*arena*; what is needed to go on with one is a row of state columns (below). Series of the call are copied
from `old_arena` to the end of `arena` and their samples appended; full chunks move to a *closed* buffer with
a table. `old_arena` may be `arena` itself: then old copies become garbage behind readers who still
look at them, and the caller changes to a fresh arena (passing every series with an open chunk, with
an empty run where nothing is new) when too much has gathered. Either way bytes that were visible
before the call are never changed, so a reader that took the columns keeps a consistent view.

Buffers are bounded, and running full is not an error but a pause: `append_runs` returns
`ARENA_FULL` or `CLOSED_FULL`, the caller makes room (a longer arena with the first `progress[ARENA]` bytes
copied; the closed buffer longer, or drained and `progress[CLOSED]`, `progress[TABLE]` set to 0) and
calls again with the same `progress`. `open_chunks.OpenChunks` does all that.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mimir_ray.encoding.bits import bits_to_float, copy_bytes, float_to_bits, leading_zeros, load64_be, store64_be
from mimir_ray.encoding.varint import read_uvarint, read_varint, write_uvarint, write_varint
from mimir_ray.kernel import F64, I32, I64, U8, OutF64, OutI32, OutI64, OutU8, device, kernel

from .bitstream import NO_WINDOW, READ_AHEAD_BYTES, append_xor, put_bits, put_long, read_bits

SAMPLES_PER_CHUNK = 120
"""Upstream: tsdb/db.go DefaultSamplesPerChunk."""
SAMPLES_MAX = 65_535
"""What the header can count."""
HEADER_BYTES = 2
SAMPLE_BYTES_MAX = 20
"""No sample takes more: 2 + 10 + 8 for the first with its header, less for the others."""
FIRST_TIME, LAST_TIME = np.iinfo(np.int64).min, np.iinfo(np.int64).max
SLACK_BYTES = 8
"""Room that writing needs behind the last byte of an arena."""

DONE = 0
ARENA_FULL = 1
CLOSED_FULL = 2

RUN = 0
"""`progress[RUN]`: runs finished; start with all of `progress` (int64[5]) zero, except `ARENA`."""
ARENA = 1
"""`progress[ARENA]`: bytes of the arena in use; the next chunk starts there."""
CLOSED = 2
"""`progress[CLOSED]`: bytes of the closed buffer in use."""
TABLE = 3
"""`progress[TABLE]`: rows of the closed table in use."""
SAMPLE = 4
"""`progress[SAMPLE]`: samples of run `progress[RUN]` already appended before a pause."""
PROGRESS_LENGTH = 5


@kernel
def chunk_counts(data: U8, starts: I64, ends: I64, counts: OutI64) -> int:
    """Reads the sample count of C chunks from their headers.

    Args:
        data: the bytes that hold the chunks.
        starts, ends: int64[C], chunk c is data[starts[c]:ends[c]].
        counts: int64[C], written.

    Returns the sum, or -(c + 1) where chunk c does not fit into the data.
    """
    total = 0
    for c in range(len(starts)):
        start = starts[c]
        if start < 0 or start + HEADER_BYTES > ends[c] or ends[c] > len(data):
            return -(c + 1)
        counts[c] = np.int64(data[start]) << 8 | np.int64(data[start + 1])
        total += counts[c]
    return total


@device
def _decode(data: Any, start: Any, end: Any, count: Any, timestamps: Any, values: Any, out: Any) -> Any:
    """Decodes one chunk to timestamps[out:], values[out:]; `READ_AHEAD_BYTES` after `end` are readable.

    Returns whether the bytes were valid. At most 158 bits (20 bytes) are looked at between two checks of `limit`.
    """
    t, at, code = read_varint(data, start + HEADER_BYTES, end)
    if code != 0 or at + 8 > end:
        return False
    value = load64_be(data, at)
    at += 8
    timestamps[out] = t
    values[out] = bits_to_float(value)
    if count == 1:
        return True
    first_delta, at, code = read_uvarint(data, at, end)
    if code != 0:
        return False
    delta = np.int64(first_delta)
    bit = at << 3
    limit = end << 3
    significant = np.int64(64)
    trailing = np.uint64(0)
    done = 1
    while done < count:
        word = load64_be(data, bit >> 3) << np.uint64(bit & 7)  # at least 57 bits are real
        if done > 1:
            kind = word >> np.uint64(62)
            if kind == np.uint64(0):
                # Neither interval nor value changed. Such samples are two zero bits each, often many in a row.
                same = min(leading_zeros(word | np.uint64(64)) >> 1, count - done)
                unchanged = bits_to_float(value)
                for _ in range(same):
                    t += delta
                    timestamps[out + done] = t
                    values[out + done] = unchanged
                    done += 1
                bit += 2 * same
                if bit > limit:
                    return False
                continue
            if kind == np.uint64(1):
                bit += 1
                word <<= np.uint64(1)
            else:
                # The ranges lean to the positive side: of `size` bits 2^(size-1) itself is positive.
                if kind == np.uint64(2):
                    change = np.int64(word << np.uint64(2)) >> 50
                    change = np.int64(8192) if change == -8192 else change
                    bit += 16
                elif word >> np.uint64(61) == np.uint64(0b110):
                    change = np.int64(word << np.uint64(3)) >> 47
                    change = np.int64(65536) if change == -65536 else change
                    bit += 20
                elif word >> np.uint64(60) == np.uint64(0b1110):
                    change = np.int64(word << np.uint64(4)) >> 44
                    change = np.int64(524288) if change == -524288 else change
                    bit += 24
                else:
                    change = np.int64(read_bits(data, bit + 4, 64))
                    bit += 68
                delta += change
                word = load64_be(data, bit >> 3) << np.uint64(bit & 7)
        t += delta
        if word >> np.uint64(63) == np.uint64(0):
            bit += 1
        else:
            if word >> np.uint64(62) == np.uint64(0b11):
                leading = np.int64((word >> np.uint64(57)) & np.uint64(31))
                significant = np.int64((word >> np.uint64(51)) & np.uint64(63))
                if significant == 0:
                    significant = np.int64(64)
                if leading + significant > 64:
                    return False
                trailing = np.uint64(64 - leading - significant)
                bit += 13
                word <<= np.uint64(13)
            else:
                bit += 2
                word <<= np.uint64(2)
            if significant <= 43:  # 57 less the interval's bit and these 13
                word >>= np.uint64(64 - significant)
            else:
                word = read_bits(data, bit, significant)
            value ^= word << trailing
            bit += significant
        if bit > limit:
            return False
        timestamps[out + done] = t
        values[out + done] = bits_to_float(value)
        done += 1
    return True


@device
def decode_between(
    data: Any, start: Any, end: Any, mint: Any, maxt: Any, timestamps: Any, values: Any, out: Any
) -> Any:
    """Decodes of the chunk data[start:end] the samples in [mint, maxt] to timestamps[out:], values[out:].

    There is room for all that its header counts. Returns where the next sample goes, or -1 where the chunk is damaged,
    or does not fit into the data or the output.
    """
    if start < 0 or start + HEADER_BYTES > end or end > len(data):
        return np.int64(-1)
    count = np.int64(data[start]) << 8 | np.int64(data[start + 1])
    if count == 0:
        return out
    if out < 0 or out + count > min(len(timestamps), len(values)):
        return np.int64(-1)
    if end + READ_AHEAD_BYTES <= len(data):
        valid = _decode(data, start, end, count, timestamps, values, out)
    else:
        # Only the last chunks of an array: reading ahead would leave it.
        padded = np.zeros(end - start + READ_AHEAD_BYTES, np.uint8)
        copy_bytes(padded, 0, data, start, end - start)
        valid = _decode(padded, 0, end - start, count, timestamps, values, out)
    if not valid:
        return np.int64(-1)
    stop = out + count
    while stop > out and timestamps[stop - 1] > maxt:
        stop -= 1
    first = out
    while first < stop and timestamps[first] < mint:
        first += 1
    if first > out:
        for at in range(first, stop):
            timestamps[out + at - first] = timestamps[at]
            values[out + at - first] = values[at]
    return out + stop - first


@kernel
def decode_chunks(data: U8, starts: I64, ends: I64, out_starts: I64, timestamps: OutI64, values: OutF64) -> int:
    """Decodes C chunks.

    Args:
        data: the bytes that hold the chunks.
        starts, ends: int64[C], chunk c is data[starts[c]:ends[c]].
        out_starts: int64[C], chunk c writes from timestamps[out_starts[c]], as many samples as its header counts.
        timestamps, values: int64 and float64 of one length, written; value bits are kept exactly.

    Returns the number of samples, or -(c + 1) where chunk c is damaged, or does not fit into the data
    or the output; the output of chunks before c is complete, of c undefined, of others untouched.
    """
    total = 0
    for c in range(len(starts)):
        stop = decode_between(data, starts[c], ends[c], FIRST_TIME, LAST_TIME, timestamps, values, out_starts[c])
        if stop < 0:
            return -(c + 1)
        total += stop - out_starts[c]
    return total


@device
def _append_interval(out: Any, bit: Any, change: Any) -> Any:
    """The delta of delta of a third or later sample: (bit position, bits still to be written, their number)."""
    if change == 0:
        return bit, np.uint64(0), 1
    if -8191 <= change <= 8192:
        return bit, np.uint64(0b10 << 14 | change & 0x3FFF), 16
    if -65535 <= change <= 65536:
        return bit, np.uint64(0b110 << 17 | change & 0x1FFFF), 20
    if -524287 <= change <= 524288:
        return bit, np.uint64(0b1110 << 20 | change & 0xFFFFF), 24
    bit = put_bits(out, bit, np.uint64(0b1111), 4)
    return put_long(out, bit, np.uint64(change), 64), np.uint64(0), 0


@kernel
def append_runs(
    series: I32,
    run_starts: I64,
    run_ends: I64,
    new_timestamps: I64,
    new_values: F64,
    old_arena: U8,
    arena: OutU8,
    starts: OutI64,
    bit_lengths: OutI32,
    counts: OutI32,
    mints: OutI64,
    last_timestamps: OutI64,
    last_deltas: OutI64,
    last_values: OutF64,
    leading: OutU8,
    trailing: OutU8,
    closed: OutU8,
    closed_series: OutI32,
    closed_mints: OutI64,
    closed_maxts: OutI64,
    closed_starts: OutI64,
    closed_lengths: OutI32,
    closed_counts: OutI32,
    samples_max: int,
    range_ms: int,
    progress: OutI64,
) -> int:
    """Copies R series' open chunks to the end of `arena` and appends their new samples.

    Args:
        series: int32[R], rows of the state columns, each at most once.
        run_starts, run_ends: int64[R], series r gets new_timestamps[run_starts[r]:run_ends[r]]; may be empty.
        new_timestamps, new_values: the samples; inside a series ascending and after what it has.
        old_arena, arena: where open chunks are and go to; may be the same array. A call needs at most
            sum(open bytes) + `SAMPLE_BYTES_MAX` a new sample + `SLACK_BYTES` beyond `progress[ARENA]`.
        starts .. trailing: the state columns, of one length P, read and written. Row p: the open chunk is
            arena[starts[p] : starts[p] + (bit_lengths[p] + 7) // 8], `counts[p]` samples (0: no open
            chunk, the rest of the row means nothing) from `mints[p]` to `last_timestamps[p]`; its
            header is up to date. `leading[p]` and `trailing[p]` are the value window.
        closed: gets full chunks back to back; at least `SAMPLE_BYTES_MAX` * `samples_max` long.
        closed_series .. closed_counts: of one length >= 1; a row a closed chunk: series, first and last time,
            first byte in `closed`, bytes, samples.
        samples_max: a chunk of so many samples is full; 1..`SAMPLES_MAX`.
        range_ms: a chunk does not cross multiples of it; > 0.
        progress: int64[5], see the constants above.

    Returns `DONE`, or `ARENA_FULL` or `CLOSED_FULL` (make room and call again with the same arguments).
    O(bytes of the open chunks + samples), one pass.
    """
    # Upstream: tsdb/head_append.go appendPreprocessor; its estimate of the chunk's end is left out.
    used = progress[ARENA]
    closed_used = progress[CLOSED]
    row = progress[TABLE]
    for r in range(progress[RUN], len(series)):
        p = series[r]
        first = run_starts[r] + progress[SAMPLE]
        last = run_ends[r]
        count = np.int64(counts[p])
        start = used
        bit = start << 3
        if progress[SAMPLE] > 0:
            # Paused inside this run: its chunk is the last one in the arena already.
            start = starts[p]
            bit = (start << 3) + bit_lengths[p]
        room = np.int64(len(arena)) - start - SLACK_BYTES - min(last - first, samples_max) * SAMPLE_BYTES_MAX
        if count > 0:
            room -= (np.int64(bit_lengths[p]) + 7) >> 3
        if room < 0:
            progress[RUN] = r
            progress[ARENA] = used
            progress[CLOSED] = closed_used
            progress[TABLE] = row
            return ARENA_FULL
        if count > 0 and progress[SAMPLE] == 0:
            copy_bytes(arena, start, old_arena, starts[p], (np.int64(bit_lengths[p]) + 7) >> 3)
            bit += bit_lengths[p]
        t = last_timestamps[p]
        delta = last_deltas[p]
        value = float_to_bits(last_values[p])
        before = np.int64(leading[p])
        after = np.int64(trailing[p])
        # How far after its first sample the chunk's range ends; differences are exact as unsigned numbers.
        span = np.uint64(range_ms - mints[p] % range_ms)
        paused = False
        for n in range(first, last):
            new_t = new_timestamps[n]
            new_value = float_to_bits(new_values[n])
            if count > 0 and (count >= samples_max or np.uint64(new_t - mints[p]) >= span):
                length = ((bit + 7) >> 3) - start
                if row >= len(closed_series) or closed_used + length > len(closed):
                    progress[SAMPLE] += n - first
                    paused = True
                    break
                arena[start] = np.uint8(count >> 8)
                arena[start + 1] = np.uint8(count & 0xFF)
                copy_bytes(closed, closed_used, arena, start, length)
                closed_series[row] = p
                closed_mints[row] = mints[p]
                closed_maxts[row] = t
                closed_starts[row] = closed_used
                closed_lengths[row] = length
                closed_counts[row] = count
                closed_used += length
                row += 1
                count = 0
            if count == 0:
                bit = write_varint(arena, start + HEADER_BYTES, new_t) << 3
                store64_be(arena, bit >> 3, new_value)
                bit += 64
                mints[p] = new_t
                span = np.uint64(range_ms - new_t % range_ms)
                delta = np.int64(0)
                before = np.int64(NO_WINDOW)
                after = np.int64(0)
            else:
                new_delta = new_t - t
                if count == 1:
                    bit = write_uvarint(arena, bit >> 3, np.uint64(new_delta)) << 3
                    head = np.uint64(0)
                    size = 0
                else:
                    bit, head, size = _append_interval(arena, bit, new_delta - delta)
                delta = new_delta
                bit, before, after = append_xor(arena, bit, head, size, new_value ^ value, before, after)
            t = new_t
            value = new_value
            count += 1
        # A pause before the run's first sample leaves the row as it was: the next call starts it anew.
        if count > 0 and not (paused and progress[SAMPLE] == 0):
            arena[start] = np.uint8(count >> 8)
            arena[start + 1] = np.uint8(count & 0xFF)
            starts[p] = start
            bit_lengths[p] = bit - (start << 3)
            counts[p] = count
            last_timestamps[p] = t
            last_deltas[p] = delta
            last_values[p] = bits_to_float(value)
            leading[p] = np.uint8(before)
            trailing[p] = np.uint8(after)
            used = (bit + 7) >> 3
        if paused:
            progress[RUN] = r
            progress[ARENA] = used
            progress[CLOSED] = closed_used
            progress[TABLE] = row
            return CLOSED_FULL
        progress[SAMPLE] = 0
    progress[RUN] = len(series)
    progress[ARENA] = used
    progress[CLOSED] = closed_used
    progress[TABLE] = row
    return DONE


@kernel
def _encode(timestamps: I64, values: F64, out: OutU8) -> int:
    """One chunk of all samples to `out`; returns its bytes."""
    count = len(timestamps)
    out[0] = np.uint8(count >> 8)
    out[1] = np.uint8(count & 0xFF)
    bit = HEADER_BYTES << 3
    before = np.int64(NO_WINDOW)
    after = np.int64(0)
    delta = np.int64(0)
    for n in range(count):
        value = float_to_bits(values[n])
        if n == 0:
            bit = write_varint(out, HEADER_BYTES, timestamps[0]) << 3
            store64_be(out, bit >> 3, value)
            bit += 64
            continue
        new_delta = timestamps[n] - timestamps[n - 1]
        if n == 1:
            bit = write_uvarint(out, bit >> 3, np.uint64(new_delta)) << 3
            head = np.uint64(0)
            size = 0
        else:
            bit, head, size = _append_interval(out, bit, new_delta - delta)
        delta = new_delta
        changed = value ^ float_to_bits(values[n - 1])
        bit, before, after = append_xor(out, bit, head, size, changed, before, after)
    return (bit + 7) >> 3


def encode_chunk(timestamps: NDArray[np.int64], values: NDArray[np.float64]) -> bytes:
    """One chunk of at most `SAMPLES_MAX` samples."""
    timestamps = np.ascontiguousarray(timestamps, np.int64)
    values = np.ascontiguousarray(values, np.float64)
    assert len(timestamps) == len(values) <= SAMPLES_MAX
    out = np.empty(HEADER_BYTES + SAMPLE_BYTES_MAX * len(timestamps) + SLACK_BYTES, np.uint8)
    return out[: _encode(timestamps, values, out)].tobytes()


def decode_chunk(data: bytes | memoryview | NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.float64]] | None:
    """(timestamps, values) of one chunk, or None if it is damaged."""
    array = np.frombuffer(data, np.uint8)
    starts, ends, counts = np.zeros(1, np.int64), np.array([len(array)], np.int64), np.zeros(1, np.int64)
    if chunk_counts(array, starts, ends, counts) < 0:
        return None
    timestamps, values = np.empty(counts[0], np.int64), np.empty(counts[0], np.float64)
    if decode_chunks(array, starts, ends, starts, timestamps, values) < 0:
        return None
    return timestamps, values
