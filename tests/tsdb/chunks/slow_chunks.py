"""Chunks of histograms and XOR2 chunks bit by bit, as their specification reads: slow twins of the kernels."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from mimir_ray.model.float_histogram import CUSTOM_BUCKETS_SCHEMA, GAUGE, NOT_RESET, UNKNOWN, FloatHistogram
from mimir_ray.model.series import STALE_NAN, STALE_NAN_BITS

SIZES = (0, 3, 6, 9, 12, 18, 25, 56, 64)


def bits_of(value: float) -> int:
    return int(struct.unpack("<Q", struct.pack("<d", value))[0])


def float_of(bits: int) -> float:
    return float(struct.unpack("<d", struct.pack("<Q", bits))[0])


def signed(value: int, size: int = 64) -> int:
    """The number that `size` bits in two's complement are."""
    value &= (1 << size) - 1
    return value - (1 << size) if value >> (size - 1) else value


@dataclass
class Xor:
    """A value that is written as its difference to the last one."""

    last: int = 0
    leading: int = -1
    trailing: int = 0


@dataclass
class Writer:
    bits: list[str] = field(default_factory=list)

    def put(self, value: int, size: int) -> None:
        if size:
            self.bits.append(format(value & ((1 << size) - 1), f"0{size}b"))

    def varbit(self, value: int, unsigned: bool = False) -> None:
        for number, size in enumerate(SIZES):
            if unsigned:
                fits = value < 1 << size
            else:
                fits = value == 0 if size == 0 else -(1 << (size - 1)) + 1 <= value <= 1 << (size - 1)
            if fits or size == 64:
                prefix = "1" * number + ("0" if number < 8 else "")
                self.bits.append(prefix)
                self.put(value, size)
                return

    def uvarint(self, value: int) -> None:
        value &= (1 << 64) - 1
        while value >= 128:
            self.put(value & 127 | 128, 8)
            value >>= 7
        self.put(value, 8)

    def varint(self, value: int) -> None:
        self.uvarint(value << 1 if value >= 0 else (-value << 1) - 1)

    def xor(self, state: Xor, value: int, prefixes: tuple[str, str, str] = ("0", "10", "11")) -> None:
        """`prefixes`: unchanged, the window of before, a new one."""
        change = state.last ^ value
        state.last = value
        if change == 0:
            self.bits.append(prefixes[0])
            return
        leading = min(64 - change.bit_length(), 31)
        trailing = (change & -change).bit_length() - 1
        if state.leading >= 0 and leading >= state.leading and trailing >= state.trailing:
            self.bits.append(prefixes[1])
        else:
            state.leading, state.trailing = leading, trailing
            self.bits.append(prefixes[2])
            self.put(leading, 5)
            self.put(64 - leading - trailing, 6)
        self.put(change >> state.trailing, 64 - state.leading - state.trailing)

    def bytes(self) -> bytes:
        text = "".join(self.bits)
        text += "0" * (-len(text) % 8)
        return int("1" + text, 2).to_bytes(len(text) // 8 + 1, "big")[1:]


class Reader:
    def __init__(self, data: bytes) -> None:
        self.text = "".join(format(byte, "08b") for byte in data)
        self.at = 0

    def take(self, size: int) -> int:
        if self.at + size > len(self.text):
            raise EOFError
        self.at += size
        return int(self.text[self.at - size : self.at] or "0", 2)

    def ones(self, most: int) -> int:
        count = 0
        while count < most and self.take(1):
            count += 1
        return count

    def varbit(self, unsigned: bool = False) -> int:
        size = SIZES[self.ones(8)]
        value = self.take(size)
        if unsigned:
            return value
        if size == 64:
            return signed(value)
        return value - (1 << size) if size and value > 1 << (size - 1) else value

    def uvarint(self) -> int:
        value = shift = 0
        while True:
            byte = self.take(8)
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    def varint(self) -> int:
        raw = self.uvarint()
        return raw >> 1 if raw & 1 == 0 else -(raw >> 1) - 1

    def window(self, state: Xor, new: bool) -> int:
        if new:
            state.leading = self.take(5)
            state.trailing = 64 - state.leading - (self.take(6) or 64)
        size = 64 - max(state.leading, 0) - state.trailing
        state.last ^= self.take(size) << state.trailing
        return state.last

    def xor(self, state: Xor) -> int:
        if not self.take(1):
            return state.last
        return self.window(state, bool(self.take(1)))


@dataclass
class Starts:
    """Start timestamps on their way into or out of a chunk."""

    flags: int = 0
    start: int = 0
    difference: int = 0

    def put(self, out: Writer, n: int, time: int, previous: int, start: int) -> None:
        before, self.start = self.start, start
        if n == 0:
            if start:
                self.flags = 0x80
                out.varint(time - start)
        elif self.flags & 0x7F:
            out.varbit(previous - start - self.difference)
            self.difference = previous - start
        elif start != before or n == 127:
            self.flags |= n
            self.difference = previous - start
            out.varbit(self.difference)

    def take(self, reader: Reader, n: int, time: int, previous: int) -> int:
        since = self.flags & 0x7F
        if n == 0 and self.flags & 0x80:
            self.start = time - reader.varint()
        elif n and since and n >= since:
            change = reader.varbit()
            self.difference = change if n == since else self.difference + change
            self.start = previous - self.difference
        return self.start


Sample = tuple[int, int, FloatHistogram]
"""Time, start timestamp (0: not known), histogram."""


def spans(indexes: Sequence[int]) -> list[tuple[int, int]]:
    """(offset to the end of the span before, length)."""
    found: list[list[int]] = []
    end = 0
    for index in indexes:
        if found and index == end:
            found[-1][1] += 1
        else:
            found.append([index - end, 1])
        end = index + 1
    return [(offset, length) for offset, length in found]


def stale(histogram: FloatHistogram) -> bool:
    return bits_of(histogram.sum) == STALE_NAN_BITS


def buckets(histogram: FloatHistogram, layout: tuple[list[int], list[int]]) -> tuple[list[float], list[float]]:
    positive = dict(zip(histogram.positive.tolist(), histogram.positive_counts.tolist(), strict=True))
    negative = dict(zip(histogram.negative.tolist(), histogram.negative_counts.tolist(), strict=True))
    return [positive.get(one, 0.0) for one in layout[0]], [negative.get(one, 0.0) for one in layout[1]]


def differences(counts: Sequence[float]) -> list[int]:
    return [int(now) - int(before) for before, now in zip([0.0, *counts], counts, strict=False)]


def write_histograms(samples: Sequence[Sample], flags: int, integers: bool, with_start: bool) -> bytes:
    """One chunk; the samples go into it."""
    real = [histogram for _, _, histogram in samples if not stale(histogram)]
    first = real[0] if real and not stale(samples[0][2]) else FloatHistogram()
    layout = (
        sorted({index for one in real for index in one.positive.tolist()}),
        sorted({index for one in real for index in one.negative.tolist()}),
    )
    out = Writer()
    mantissa, exponent = math.frexp(first.zero_threshold)
    if first.zero_threshold == 0:
        out.put(0, 8)
    elif mantissa == 0.5 and -242 <= exponent <= 11:
        out.put(exponent + 243, 8)
    else:
        out.put(255, 8)
        out.put(bits_of(first.zero_threshold), 64)
    out.varbit(first.schema)
    for side in layout:
        out.varbit(len(spans(side)), unsigned=True)
        for offset, length in spans(side):
            out.varbit(length, unsigned=True)
            out.varbit(offset)
    if first.schema == CUSTOM_BUCKETS_SCHEMA:
        out.varbit(len(first.custom_values), unsigned=True)
        for bound in first.custom_values.tolist():
            whole = math.floor(bound * 1000 + 0.5) if 0 <= bound * 1000 <= 33554430 else -1
            if whole >= 0 and whole / 1000 == bound:
                out.varbit(whole + 1, unsigned=True)
            else:
                out.put(0, 1)
                out.put(bits_of(bound), 64)
    width = len(layout[0]) + len(layout[1])
    starts = Starts()
    time = time_delta = 0
    scalars = [0, 0]
    scalar_deltas = [0, 0]
    total = Xor()
    xors = [Xor() for _ in range(2 + width)]
    states, deltas = [0] * width, [0] * width
    for n, (now, start, histogram) in enumerate(samples):
        previous = time
        gone = stale(histogram)
        count, zero = (0.0, 0.0) if gone else (histogram.count, histogram.zero_count)
        out.varbit(now if n == 0 else now - time - time_delta)
        time_delta = now - time if n else 0
        time = now
        if integers:
            for k, value in enumerate((int(count), int(zero))):
                if n == 0:
                    out.varbit(value, unsigned=True)
                elif gone:
                    out.put(0, 1)
                else:
                    delta = value - scalars[k]
                    out.varbit(delta - scalar_deltas[k])
                    scalar_deltas[k] = delta
                scalars[k] = value
        else:
            for k, real_value in enumerate((count, zero)):
                if n == 0:
                    out.put(bits_of(real_value), 64)
                    xors[k].last = bits_of(real_value)
                else:
                    out.xor(xors[k], bits_of(real_value))
        if n == 0:
            out.put(bits_of(histogram.sum), 64)
            total.last = bits_of(histogram.sum)
        else:
            out.xor(total, bits_of(histogram.sum))
        if not gone:
            above, below = buckets(histogram, layout)
            if integers:
                for k, value in enumerate(differences(above) + differences(below)):
                    delta = value - states[k]
                    out.varbit(value if n == 0 else delta - deltas[k])
                    deltas[k] = delta if n else 0
                    states[k] = value
            else:
                for k, real_value in enumerate(above + below):
                    if n == 0:
                        out.put(bits_of(real_value), 64)
                        xors[2 + k].last = bits_of(real_value)
                    else:
                        out.xor(xors[2 + k], bits_of(real_value))
        if with_start:
            starts.put(out, n, now, previous, start)
    head = len(samples) | (flags << 14 if with_start else 0)
    return head.to_bytes(2, "big") + bytes([starts.flags if with_start else flags << 6]) + out.bytes()


def read_histograms(data: bytes, floats: bool, with_start: bool) -> list[Sample]:
    """What is in one chunk."""
    count = int.from_bytes(data[:2], "big")
    flags = (data[0] if with_start else data[2]) >> 6
    starts = Starts(data[2] if with_start else 0)
    count &= 0x3FFF if with_start else 0xFFFF
    reader = Reader(data[3:])
    byte = reader.take(8)
    threshold = 0.0 if byte == 0 else float_of(reader.take(64)) if byte == 255 else math.ldexp(0.5, byte - 243)
    schema = reader.varbit()
    layout: list[list[int]] = []
    for _ in range(2):
        side: list[int] = []
        end = 0
        for _ in range(reader.varbit(unsigned=True)):
            length = reader.varbit(unsigned=True)
            end += reader.varbit()
            side += range(end, end + length)
            end += length
        layout.append(side)
    custom: list[float] = []
    if schema == CUSTOM_BUCKETS_SCHEMA:
        for _ in range(reader.varbit(unsigned=True)):
            raw = reader.varbit(unsigned=True)
            custom.append((raw - 1) / 1000 if raw else float_of(reader.take(64)))
    width = len(layout[0]) + len(layout[1])
    time = time_delta = 0
    scalars, scalar_deltas = [0, 0], [0, 0]
    total = Xor()
    xors = [Xor() for _ in range(2 + width)]
    states, deltas = [0] * width, [0] * width
    samples: list[Sample] = []
    for n in range(count):
        previous = time
        if n == 0:
            time = reader.varbit()
        else:
            time_delta += reader.varbit()
            time += time_delta
        for k in range(2):
            if floats:
                if n == 0:
                    xors[k].last = reader.take(64)
                else:
                    reader.xor(xors[k])
            elif n == 0:
                scalars[k] = reader.varbit(unsigned=True)
            else:
                scalar_deltas[k] += reader.varbit()
                scalars[k] += scalar_deltas[k]
        if n == 0:
            total.last = reader.take(64)
        else:
            reader.xor(total)
        gone = total.last == STALE_NAN_BITS
        if n == 0 or not gone:
            for k in range(width):
                if floats:
                    if n == 0:
                        xors[2 + k].last = reader.take(64)
                    else:
                        reader.xor(xors[2 + k])
                elif n == 0:
                    states[k] = reader.varbit()
                else:
                    deltas[k] += reader.varbit()
                    states[k] += deltas[k]
        start = starts.take(reader, n, time, previous) if with_start else 0
        if gone:
            samples.append((time, start, FloatHistogram(sum=STALE_NAN)))
            continue
        split = len(layout[0])
        if floats:
            counts = [float_of(one.last) for one in xors]
        else:
            counts = [float(one) for one in scalars]
            for side in (states[:split], states[split:]):
                counts += [float(sum(side[: k + 1])) for k in range(len(side))]
        samples.append((time, start, histogram_of(
            schema, threshold, counts[1], counts[0], float_of(total.last),
            GAUGE if flags == 3 else NOT_RESET if n else UNKNOWN,
            (layout[0], counts[2 : 2 + split]), (layout[1], counts[2 + split :]), custom,
        )))  # fmt: skip
    return samples


def histogram_of(
    schema: int,
    threshold: float,
    zero: float,
    count: float,
    total: float,
    hint: int,
    above: tuple[Sequence[int], Sequence[float]],
    below: tuple[Sequence[int], Sequence[float]],
    custom: Sequence[float] = (),
) -> FloatHistogram:
    return FloatHistogram(
        schema, threshold, zero, count, total, hint,
        np.array(above[0], np.int32), np.array(above[1], np.float64),
        np.array(below[0], np.int32), np.array(below[1], np.float64), np.array(custom, np.float64),
    )  # fmt: skip


def write_xor2(samples: Sequence[tuple[int, int, float]]) -> bytes:
    """(time, start timestamp, value) to one chunk."""
    out = Writer()
    starts = Starts()
    state = Xor()
    time = delta = 0
    for n, (now, start, value) in enumerate(samples):
        raw = bits_of(value)
        gone = raw == STALE_NAN_BITS
        previous, change, delta = time, now - time - delta, now - time
        time = now
        if n == 0:
            out.varint(now)
            out.put(raw, 64)
            delta = 0
            state.last = 0 if gone else raw
        elif n > 1 and change == 0:
            if gone:
                out.bits.append("11111")
            else:
                out.xor(state, raw, ("0", "100", "101"))
        else:
            if n == 1:
                out.uvarint(now - previous)
            elif -4096 <= change <= 4095:
                out.bits.append("110")
                out.put(change, 13)
            elif -524288 <= change <= 524287:
                out.bits.append("1110")
                out.put(change, 20)
            else:
                out.bits.append("11110")
                out.put(change, 64)
            if gone:
                out.bits.append("111")
            else:
                out.xor(state, raw, ("0", "10", "110"))
        starts.put(out, n, now, previous, start)
    return len(samples).to_bytes(2, "big") + bytes([starts.flags]) + out.bytes()


def read_xor2(data: bytes) -> list[tuple[int, int, float]]:
    """What is in one chunk."""
    starts = Starts(data[2])
    reader = Reader(data[3:])
    state = Xor()
    time = delta = 0
    samples = []

    def value_of() -> int:
        if not reader.take(1):
            return state.last
        if not reader.take(1):
            return reader.window(state, False)
        return STALE_NAN_BITS if reader.take(1) else reader.window(state, True)

    for n in range(int.from_bytes(data[:2], "big")):
        previous = time
        if n == 0:
            time = reader.varint()
            raw = reader.take(64)
            state.last = 0 if raw == STALE_NAN_BITS else raw
        elif n == 1:
            delta = reader.uvarint()
            time += delta
            raw = value_of()
        else:
            kind = reader.ones(5)
            if kind in (2, 3, 4):
                delta += signed(reader.take((13, 20, 64)[kind - 2]), (13, 20, 64)[kind - 2])
                raw = value_of()
            elif kind == 1:
                raw = reader.window(state, bool(reader.take(1)))
            else:
                raw = state.last if kind == 0 else STALE_NAN_BITS
            time += delta
        samples.append((time, starts.take(reader, n, time, previous), float_of(raw)))
    return samples
