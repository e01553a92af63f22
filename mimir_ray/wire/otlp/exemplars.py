"""Exemplars of OTLP data points: trace and span ids in hexadecimal, and other attributes where there is room.

Upstream: prometheusremotewrite/helper.go getPromExemplars.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mimir_ray.wire.exemplars import ExemplarScan, judge_exemplars
from mimir_ray.wire.protobuf import BYTES, FIXED64, encode_labels, fields

from .values import read_key_value


@dataclass(frozen=True, slots=True)
class Exemplar:
    timestamp_ms: int
    value: float
    labels: tuple[tuple[str, str], ...]


def read_exemplars(data: bytes, start: int, end: int, number: int, runes_max: int) -> Iterator[Exemplar]:
    """The exemplars of a data point, which are its field `number`. Raises `MalformedProtobuf`."""
    for field, wire, _, content, after in fields(data, start, end, "DataPoint"):
        if field == number and wire == BYTES:
            yield _read_exemplar(data, content, after, runes_max)


def _read_exemplar(data: bytes, start: int, end: int, runes_max: int) -> Exemplar:
    time, value = 0, 0.0
    ids: dict[str, str] = {}
    others: list[tuple[str, str]] = []
    for number, wire, _, content, after in fields(data, start, end, "Exemplar"):
        if number == 2 and wire == FIXED64:
            time = int.from_bytes(data[content:after], "little")
        elif number == 3 and wire == FIXED64:
            value = struct.unpack_from("<d", data, content)[0]
        elif number == 6 and wire == FIXED64:
            value = float(int.from_bytes(data[content:after], "little", signed=True))
        elif number in (4, 5) and wire == BYTES and any(data[content:after]):
            ids["span_id" if number == 4 else "trace_id"] = data[content:after].hex()
        elif number == 7 and wire == BYTES:
            others.append(read_key_value(data, content, after))
    if sum(len(name) + len(text) for name, text in (*ids.items(), *others)) > runes_max:
        others = []
    return Exemplar(time // 1_000_000, value, tuple(sorted((ids | dict(others)).items())))


def columns_of(rows: NDArray[np.int64], exemplars: Sequence[Exemplar], runes_max: int) -> ExemplarScan:
    """Exemplars of these series, ascending, as columns."""
    sections = [
        encode_labels((name.encode("utf-8", "replace"), text.encode("utf-8", "replace")) for name, text in one.labels)
        for one in exemplars
    ]
    labels = b"".join(sections)
    offsets = np.zeros(len(sections) + 1, np.int64)
    np.cumsum([len(section) for section in sections], out=offsets[1:])
    timestamps = np.array([one.timestamp_ms for one in exemplars], np.int64)
    problems = np.empty(len(exemplars), np.int64)
    judge_exemplars(np.frombuffer(labels, np.uint8), offsets, timestamps, runes_max, problems)
    return ExemplarScan(rows, timestamps, np.array([one.value for one in exemplars]), labels, offsets, problems)
