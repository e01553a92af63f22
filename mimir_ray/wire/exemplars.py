"""Exemplars of a write request, of both versions of remote write, as columns.

Requests without any never come here: the scanners count them, and who wants them looks a second time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mimir_ray.encoding.bits import bits_to_float, copy_bytes, load64_le
from mimir_ray.encoding.varint import read_uvarint
from mimir_ray.kernel import I64, U8, OutF64, OutI64, OutU8, kernel
from mimir_ray.wire.protobuf import MalformedProtobuf, read_length, read_tag, skip_field
from mimir_ray.wire.remote_write_histograms import find_messages
from mimir_ray.wire.write_scan import WriteScan, gather_refs

# What can be wrong with an exemplar.
OK, LABELS_MISSING, TIMESTAMP_MISSING, LABELS_TOO_LONG, LABELS_MALFORMED = range(5)


@dataclass(slots=True)
class ExemplarScan:
    """E exemplars of a request: `series` int64[E] ascending, `timestamps` int64[E] (ms), `values` float64[E].

    `labels[offsets[e]:offsets[e + 1]]`: the label section of exemplar e, as it was sent. `problems`: int64[E].
    """

    series: NDArray[np.int64]
    timestamps: NDArray[np.int64]
    values: NDArray[np.float64]
    labels: bytes
    offsets: NDArray[np.int64]
    problems: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.series)


def read_exemplars(scan: WriteScan, runes_max: int) -> ExemplarScan:
    """The exemplars of a request. Raises `MalformedProtobuf`."""
    data = np.frombuffer(scan.data, np.uint8)
    count = scan.exemplars
    series, starts, ends = np.empty((3, count), np.int64)
    layout = scan.layout
    found = find_messages(data[: scan.request_bytes], layout.series, layout.exemplar, series, starts, ends)
    assert found == count
    timestamps, values = np.empty(count, np.int64), np.empty(count, np.float64)
    malformed = read_exemplar_numbers(data, starts, ends, timestamps, values)
    if malformed >= 0:
        raise MalformedProtobuf("Exemplar", "malformed field", int(starts[malformed]))
    if scan.symbols is None:
        offsets = np.zeros(count + 1, np.int64)
        np.cumsum(ends - starts, out=offsets[1:])
        out = np.empty(int(offsets[-1]), np.uint8)
        size = gather_label_fields(data, starts, ends, offsets, out)
        labels = out[:size].tobytes()
    else:
        labels, offsets = gather_refs(scan.data, scan.symbols, starts, ends)
    problems = np.empty(count, np.int64)
    judge_exemplars(np.frombuffer(labels, np.uint8), offsets, timestamps, runes_max, problems)
    return ExemplarScan(series, timestamps, values, labels, offsets, problems)


@kernel
def read_exemplar_numbers(data: U8, starts: I64, ends: I64, timestamps: OutI64, values: OutF64) -> int:
    """Reads value = 2 and timestamp = 3 of Exemplar messages; returns -1, or the first that is malformed."""
    for e in range(len(starts)):
        at, stop = starts[e], ends[e]
        word = np.uint64(0)
        moment = np.uint64(0)
        while at < stop:
            tag, at = read_tag(data, at, stop)
            if tag == 0x11 and stop - at >= 8:
                word = load64_le(data, at)
                at += 8
            elif tag == 0x18:
                moment, at, code = read_uvarint(data, at, stop)
                if code != 0:
                    return e
            else:
                if tag < 0 or tag >> 3 == 2 or tag >> 3 == 3:
                    return e
                at = skip_field(data, at, stop, tag & 7)
                if at < 0:
                    return e
        timestamps[e] = np.int64(moment)
        values[e] = bits_to_float(word)
    return -1


@kernel
def gather_label_fields(data: U8, starts: I64, ends: I64, offsets: OutI64, out: OutU8) -> int:
    """Copies the fields `repeated Label labels = 1` of well-formed messages; returns how many bytes those are.

    Args:
        offsets: int64[E + 1], written: where the section of each is in `out`, which has room for all messages.
    """
    to = np.int64(0)
    for e in range(len(starts)):
        offsets[e] = to
        at, stop = starts[e], ends[e]
        while at < stop:
            tag, after = read_tag(data, at, stop)
            following = skip_field(data, after, stop, tag & 7)
            if tag < 0 or following < 0:
                break
            if tag == 0x0A:
                copy_bytes(out, to, data, at, following - at)
                to += following - at
            at = following
    offsets[len(starts)] = to
    return to


@kernel
def judge_exemplars(data: U8, offsets: I64, timestamps: I64, runes_max: int, problems: OutI64) -> None:
    """problems[e] of the label section data[offsets[e]:offsets[e + 1]].

    The order of the checks is upstream's: pkg/distributor/validate.go validateExemplar.
    """
    for e in range(len(timestamps)):
        at, stop = offsets[e], offsets[e + 1]
        if at == stop:
            problems[e] = 1
            continue
        if timestamps[e] == 0:
            problems[e] = 2
            continue
        runes = np.int64(0)
        valid = False
        sound = True
        while at < stop and sound:
            tag, at = read_tag(data, at, stop)
            length, at = read_length(data, at, stop)
            if tag != 0x0A or length < 0:
                sound = False
                break
            end = at + length
            named, valued = False, False
            while at < end:
                tag, at = read_tag(data, at, end)
                if tag != 0x0A and tag != 0x12:
                    at = skip_field(data, at, end, tag & 7)
                    if tag < 0 or at < 0 or tag >> 3 == 1 or tag >> 3 == 2:
                        sound = False
                        break
                    continue
                length, at = read_length(data, at, end)
                if length < 0:
                    sound = False
                    break
                if tag == 0x0A:
                    named = length > 0
                else:
                    valued = length > 0
                for place in range(at, at + length):
                    runes += data[place] & 0xC0 != 0x80
                at += length
            valid = valid or (named and valued)
        if not sound:
            problems[e] = 4
        elif runes > runes_max:
            problems[e] = 3
        elif not valid:
            problems[e] = 1
        else:
            problems[e] = 0
