"""Float chunks in Prometheus' XOR2 encoding, which has start timestamps: read and written, many at once.

A chunk: big-endian uint16 sample count, a byte that says which samples have a start timestamp (its highest bit: the
first one has; the others: from which sample on all have), then a bit stream. The first two samples are as in XOR; then
one prefix says how the interval changed and whether the value did. Stale markers are a prefix of their own, and values
are XORed with the last one that was none. Upstream: tsdb/chunkenc/xor2.go, st.go; tsdb/docs/format/chunks.md.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mimir_ray.encoding.bits import (
    bits_to_float,
    copy_bytes,
    float_to_bits,
    leading_zeros,
    load64_be,
    trailing_zeros,
)
from mimir_ray.kernel import F64, I64, U8, OutF64, OutI64, OutU8, device, kernel
from mimir_ray.model.series import STALE_NAN_BITS

from .bitstream import (
    NO_WINDOW,
    READ_AHEAD_BYTES,
    put_bits,
    put_long,
    put_uvarint_bits,
    put_varint_bits,
    read_bits,
    read_uvarint_bits,
    read_varint_bits,
)
from .start_timestamps import put_start_timestamp, read_start_timestamp

XOR2 = 4
HEADER_BYTES = 3
SAMPLE_BYTES_MAX = 29
"""No sample takes more: 10 + 8 + 10 for the first, 69 + 78 + 72 bits for later ones."""
SLACK_BYTES = 16


@device
def _read_value(data: Any, bit: Any, changed: Any, base: Any, leading: Any, trailing: Any) -> Any:
    """(bits of the value, of the next one's base, leading, trailing, bit position or -1).

    `changed`: it is known that the value changed and is not stale, so the prefix is shorter.
    """
    if not changed:
        prefix = read_bits(data, bit, 3)
        if prefix < np.uint64(0b100):
            return base, base, leading, trailing, bit + 1
        if prefix == np.uint64(0b111):
            return np.uint64(STALE_NAN_BITS), base, leading, trailing, bit + 3
        window = prefix == np.uint64(0b110)
        bit += 3 if window else 2
    else:
        window = read_bits(data, bit, 1) == np.uint64(1)
        bit += 1
    if window:
        leading = np.int64(read_bits(data, bit, 5))
        significant = np.int64(read_bits(data, bit + 5, 6))
        if significant == 0:
            significant = np.int64(64)
        if leading + significant > 64:
            return base, base, leading, trailing, np.int64(-1)
        trailing = 64 - leading - significant
        bit += 11
    significant = 64 - leading - trailing
    value = base ^ read_bits(data, bit, significant) << np.uint64(trailing)
    return value, value, leading, trailing, bit + significant


@device
def _decode(data: Any, end: Any, count: Any, out: Any, timestamps: Any, values: Any, start_timestamps: Any) -> Any:
    """The chunk data[:end] with `READ_AHEAD_BYTES` behind it; whether its bytes were valid."""
    limit = end << 3
    flags = np.int64(data[2])
    bit = np.int64(HEADER_BYTES << 3)
    time = np.int64(0)
    delta = np.int64(0)
    value = np.uint64(0)
    base = np.uint64(0)
    leading = np.int64(0)
    trailing = np.int64(0)
    difference = np.int64(0)
    start_timestamp = np.int64(0)
    for n in range(count):
        previous = time
        if n == 0:
            time, bit = read_varint_bits(data, bit)
            if bit < 0 or bit > limit:
                return False
            value = read_bits(data, bit, 64)
            bit += 64
            if value != np.uint64(STALE_NAN_BITS):
                base = value
        elif n == 1:
            raw, bit = read_uvarint_bits(data, bit)
            if bit < 0 or bit > limit:
                return False
            delta = np.int64(raw)
            time += delta
            value, base, leading, trailing, bit = _read_value(data, bit, False, base, leading, trailing)
        else:
            ones = leading_zeros(~(load64_be(data, bit >> 3) << np.uint64(bit & 7)))
            if ones == 0:
                value = base
                bit += 1
            elif ones == 1:
                value, base, leading, trailing, bit = _read_value(data, bit + 2, True, base, leading, trailing)
            elif ones >= 5:
                value = np.uint64(STALE_NAN_BITS)
                bit += 5
            else:
                size = 13 if ones == 2 else (20 if ones == 3 else 64)
                bit += ones + 1
                change = np.int64(read_bits(data, bit, size))
                if size < 64 and change >= np.int64(1) << (size - 1):
                    change -= np.int64(1) << size
                bit += size
                delta += change
                if bit > limit:
                    return False
                value, base, leading, trailing, bit = _read_value(data, bit, False, base, leading, trailing)
            time += delta
        if bit < 0 or bit > limit:
            return False
        start_timestamp, difference, bit = read_start_timestamp(
            data, bit, n, flags, time, previous, difference, start_timestamp
        )
        if bit < 0 or bit > limit:
            return False
        timestamps[out + n] = time
        values[out + n] = bits_to_float(value)
        start_timestamps[out + n] = start_timestamp
    return True


@kernel
def decode_xor2(
    data: U8, starts: I64, ends: I64, out_starts: I64, timestamps: OutI64, values: OutF64, start_timestamps: OutI64
) -> int:
    """Decodes C chunks.

    Args:
        data, starts, ends: chunk c is data[starts[c]:ends[c]].
        out_starts: int64[C], where chunk c writes, as many samples as its header counts.
        timestamps, values, start_timestamps: of one length, written.

    Returns 0, or -(c + 1) where chunk c is damaged, or does not fit into the data or the output.
    """
    for c in range(len(starts)):
        start, end = starts[c], ends[c]
        if start < 0 or start + HEADER_BYTES > end or end > len(data):
            return -(c + 1)
        count = np.int64(data[start]) << 8 | np.int64(data[start + 1])
        if out_starts[c] + count > len(timestamps):
            return -(c + 1)
        padded = np.zeros(end - start + READ_AHEAD_BYTES, np.uint8)
        copy_bytes(padded, 0, data, start, end - start)
        if not _decode(padded, end - start, count, out_starts[c], timestamps, values, start_timestamps):
            return -(c + 1)
    return 0


@device
def _put_value(out: Any, bit: Any, changed: Any, value: Any, base: Any, leading: Any, trailing: Any) -> Any:
    """(bit position, leading, trailing); arguments as of `_read_value`."""
    if not changed:
        if value == np.uint64(STALE_NAN_BITS):
            return put_bits(out, bit, np.uint64(0b111), 3), leading, trailing
        if value == base:
            return put_bits(out, bit, np.uint64(0), 1), leading, trailing
    difference = value ^ base
    before = min(leading_zeros(difference), 31)
    after = trailing_zeros(difference)
    if leading != NO_WINDOW and before >= leading and after >= trailing:
        bit = put_bits(out, bit, np.uint64(0), 1) if changed else put_bits(out, bit, np.uint64(0b10), 2)
    else:
        leading = before
        trailing = after
        window = np.uint64(leading << 6 | (64 - leading - trailing) & 63)
        if changed:
            bit = put_bits(out, bit, np.uint64(1 << 11) | window, 12)
        else:
            bit = put_bits(out, bit, np.uint64(0b110 << 11) | window, 14)
    return put_long(out, bit, difference >> np.uint64(trailing), 64 - leading - trailing), leading, trailing


@kernel
def encode_xor2(cuts: I64, timestamps: I64, values: F64, start_timestamps: I64, out: OutU8, starts: OutI64) -> int:
    """Writes C chunks back to back; returns the bytes.

    Args:
        cuts: int64[C + 1], chunk c has the samples cuts[c]:cuts[c + 1], at least one.
        timestamps, values, start_timestamps: the samples (0: not known).
        out: as long as `HEADER_BYTES` a chunk, `SAMPLE_BYTES_MAX` a sample and `SLACK_BYTES` take.
        starts: int64[C + 1], written: chunk c is out[starts[c]:starts[c + 1]].
    """
    end = np.int64(0)
    for c in range(len(cuts) - 1):
        starts[c] = end
        first = cuts[c]
        count = cuts[c + 1] - first
        out[end] = np.uint8(count >> 8)
        out[end + 1] = np.uint8(count & 0xFF)
        out[end + 2] = np.uint8(0)
        header = end + 2
        bit = (end + HEADER_BYTES) << 3
        base = np.uint64(0)
        delta = np.int64(0)
        leading = np.int64(NO_WINDOW)
        trailing = np.int64(0)
        difference = np.int64(0)
        for k in range(count):
            n = first + k
            time = timestamps[n]
            value = float_to_bits(values[n])
            if k == 0:
                bit = put_varint_bits(out, bit, time)
                bit = put_long(out, bit, value, 64)
            elif k == 1:
                delta = time - timestamps[n - 1]
                bit = put_uvarint_bits(out, bit, np.uint64(delta))
                bit, leading, trailing = _put_value(out, bit, False, value, base, leading, trailing)
            else:
                change = time - timestamps[n - 1] - delta
                delta += change
                if change == 0 and value == np.uint64(STALE_NAN_BITS):
                    bit = put_bits(out, bit, np.uint64(0b11111), 5)
                elif change == 0 and value == base:
                    bit = put_bits(out, bit, np.uint64(0), 1)
                elif change == 0:
                    bit = put_bits(out, bit, np.uint64(0b10), 2)
                    bit, leading, trailing = _put_value(out, bit, True, value, base, leading, trailing)
                else:
                    if -4096 <= change <= 4095:
                        bit = put_bits(out, bit, np.uint64(0b110 << 13 | change & 0x1FFF), 16)
                    elif -524288 <= change <= 524287:
                        bit = put_bits(out, bit, np.uint64(0b1110 << 20 | change & 0xFFFFF), 24)
                    else:
                        bit = put_bits(out, bit, np.uint64(0b11110), 5)
                        bit = put_long(out, bit, np.uint64(change), 64)
                    bit, leading, trailing = _put_value(out, bit, False, value, base, leading, trailing)
            bit, difference = put_start_timestamp(
                out, bit, header, k, time, timestamps[max(n - 1, 0)],
                start_timestamps[n], start_timestamps[max(n - 1, 0)], difference,
            )  # fmt: skip
            if value != np.uint64(STALE_NAN_BITS):
                base = value
        end = (bit + 7) >> 3
    starts[len(cuts) - 1] = end
    return end
