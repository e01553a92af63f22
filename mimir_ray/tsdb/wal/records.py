"""What the records of a head's write-ahead log say, as columns.

Encoders give buffers for `WalWriter.append` and copy no arrays but time deltas; decoders give read-only views
into the payload. Every array starts at a multiple of eight bytes of its payload, so kernels take the views as
they are. Decoders check every length and raise `InvalidRecord`; an intact checksum is no proof of origin.

Payloads, little-endian:

- SERIES: count u64, first reference i64, label offsets i64[count + 1], label bytes.
- SAMPLES: count u32, flags u32, base time i64, values f64[count], times i64[count] (or, with flag 1,
  differences to the base i32[count]), references i32[count]. Flag 2: the samples came late.
- METADATA: a JSON list of [family, type, help, unit].
- DROPPED: count u64, references i32[count].
- EXEMPLARS: count u64, label offsets i64[count + 1], times i64[count], values f64[count], references i32[count],
  label bytes.
- HISTOGRAMS: first number u64, newest time i64 (ms), packed histograms (head/histogram_store.py).
- TRUNCATED: time i64 (ms); samples in order that are older are in blocks.
- RENUMBERED: count u64; dropped series gave up their references, the others now have 0, 1, … in the order they had.
- START_TIMESTAMPS: count u64, times i64[count], start timestamps i64[count], references i32[count]
  (head/start_timestamps.py Changes).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mimir_ray.errors import Corruption
from mimir_ray.model.metadata import Metadata

SERIES = 1
SAMPLES = 2
METADATA = 3
DROPPED = 4
HISTOGRAMS = 5
TRUNCATED = 7
RENUMBERED = 8
START_TIMESTAMPS = 6
EXEMPLARS = 9

Record = tuple[int, list[Any]]
"""Type and payload buffers; the buffers must not change until the record is written."""

_SERIES_HEADER = struct.Struct("<Qq")
_SAMPLES_HEADER = struct.Struct("<IIq")
_DROPPED_HEADER = struct.Struct("<Q")
_HISTOGRAMS_HEADER = struct.Struct("<Qq")
_TRUNCATED = struct.Struct("<q")
_RENUMBERED = struct.Struct("<Q")
_EXEMPLARS_HEADER = struct.Struct("<Q")
_STARTS_HEADER = struct.Struct("<Q")
_SHORT_TIMES = 1
_LATE = 2


@dataclass(eq=False)
class InvalidRecord(Corruption):
    """A record of the write-ahead log whose payload is not what its type promises."""

    kind: int
    reason: str

    def describe(self) -> str:
        return f"invalid record of type {self.kind} in the write-ahead log: {self.reason}"


@dataclass(frozen=True, slots=True)
class SeriesRecord:
    """R new series with the references `first_reference`, + 1, …

    The labels of series r are label_bytes[offsets[r]:offsets[r + 1]] (uint8; remote write's repeated field
    `labels = 1`, sorted); `offsets` int64[R + 1] starts at 0.
    """

    first_reference: int
    offsets: NDArray[np.int64]
    label_bytes: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.offsets) - 1


@dataclass(frozen=True, slots=True)
class SamplesRecord:
    """N samples: `references` int32[N], `timestamps` int64[N] (ms), `values` float64[N].

    `late`: none was in order. Where it is False, as in logs from before there was a difference, some may be late.
    """

    references: NDArray[np.int32]
    timestamps: NDArray[np.int64]
    values: NDArray[np.float64]
    late: bool = False

    def __len__(self) -> int:
        return len(self.references)


def encode_series(first_reference: int, offsets: NDArray[np.int64], label_bytes: Any) -> Record:
    """Args: as `SeriesRecord`; `label_bytes` may be any buffer of offsets[-1] bytes."""
    assert len(offsets) and offsets[0] == 0
    return SERIES, [_SERIES_HEADER.pack(len(offsets) - 1, first_reference), _column(offsets, np.int64), label_bytes]


def encode_samples(
    references: NDArray[np.int32], timestamps: NDArray[np.int64], values: NDArray[np.float64], late: bool = False
) -> Record:
    """Args: as `SamplesRecord`. 16 bytes a sample where the times lie within 24 days, else 20."""
    assert len(references) == len(timestamps) == len(values)
    base, flags, times = 0, _LATE if late else 0, _column(timestamps, np.int64)
    if len(timestamps):
        lowest, highest = int(timestamps.min()), int(timestamps.max())
        if highest - lowest < 1 << 31:
            base, flags = lowest, flags | _SHORT_TIMES
            times = (timestamps - lowest).astype(np.int32)
    header = _SAMPLES_HEADER.pack(len(references), flags, base)
    return SAMPLES, [header, _column(values, np.float64), times, _column(references, np.int32)]


def encode_metadata(metadata: Sequence[Metadata]) -> Record:
    rows = [[one.family, one.type, one.help, one.unit] for one in metadata]
    return METADATA, [json.dumps(rows, ensure_ascii=False).encode("utf-8", "surrogatepass")]


def encode_dropped(references: NDArray[np.int32]) -> Record:
    """Series that exist no more; later records may use their references anew."""
    return DROPPED, [_DROPPED_HEADER.pack(len(references)), _column(references, np.int32)]


Exemplars = tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.float64], bytes, NDArray[np.int64]]
"""References, times, values, label sections back to back, and their offsets int64[E + 1]."""


def encode_exemplars(
    references: NDArray[np.int32],
    timestamps: NDArray[np.int64],
    values: NDArray[np.float64],
    labels: bytes,
    offsets: NDArray[np.int64],
) -> Record:
    """Exemplars that were stored, in their order; see `Exemplars`."""
    assert len(offsets) == len(references) + 1 and offsets[0] == 0
    return EXEMPLARS, [
        _EXEMPLARS_HEADER.pack(len(references)),
        _column(offsets, np.int64),
        _column(timestamps, np.int64),
        _column(values, np.float64),
        _column(references, np.int32),
        labels,
    ]


def decode_exemplars(payload: bytes) -> Exemplars:
    """As given to `encode_exemplars`."""
    if len(payload) < _EXEMPLARS_HEADER.size:
        raise InvalidRecord(EXEMPLARS, "too short")
    (count,) = _EXEMPLARS_HEADER.unpack_from(payload)
    times_at = _EXEMPLARS_HEADER.size + 8 * (count + 1)
    values_at, references_at = times_at + 8 * count, times_at + 16 * count
    labels_at = references_at + 4 * count
    if labels_at > len(payload):
        raise InvalidRecord(EXEMPLARS, f"{count} exemplars in {len(payload)} bytes")
    offsets = np.frombuffer(payload, np.int64, count + 1, _EXEMPLARS_HEADER.size)
    labels = bytes(payload[labels_at:])
    if offsets[0] != 0 or offsets[-1] != len(labels) or (offsets[1:] < offsets[:-1]).any():
        raise InvalidRecord(EXEMPLARS, "label offsets do not cut the label bytes")
    references = np.frombuffer(payload, np.int32, count, references_at)
    if count and references.min() < 0:
        raise InvalidRecord(EXEMPLARS, "negative reference")
    timestamps = np.frombuffer(payload, np.int64, count, times_at)
    return references, timestamps, np.frombuffer(payload, np.float64, count, values_at), labels, offsets


def encode_histograms(first: int, newest_ms: int, packed: bytes) -> Record:
    """Histograms that later records of samples refer to by their numbers, which go up from `first`."""
    return HISTOGRAMS, [_HISTOGRAMS_HEADER.pack(first, newest_ms), packed]


def encode_start_timestamps(
    references: NDArray[np.int32], times: NDArray[np.int64], starts: NDArray[np.int64]
) -> Record:
    """From when on (ms) samples of a series count since when (ms), in the order in which that became known."""
    assert len(references) == len(times) == len(starts)
    header = _STARTS_HEADER.pack(len(references))
    return START_TIMESTAMPS, [
        header,
        _column(times, np.int64),
        _column(starts, np.int64),
        _column(references, np.int32),
    ]


def decode_start_timestamps(payload: bytes) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]:
    """As given to `encode_start_timestamps`."""
    if len(payload) < _STARTS_HEADER.size:
        raise InvalidRecord(START_TIMESTAMPS, "too short")
    (count,) = _STARTS_HEADER.unpack_from(payload)
    if len(payload) != _STARTS_HEADER.size + 20 * count:
        raise InvalidRecord(START_TIMESTAMPS, f"{count} changes in {len(payload)} bytes")
    times = np.frombuffer(payload, np.int64, count, _STARTS_HEADER.size)
    starts = np.frombuffer(payload, np.int64, count, _STARTS_HEADER.size + 8 * count)
    references = np.frombuffer(payload, np.int32, count, _STARTS_HEADER.size + 16 * count)
    if count and references.min() < 0:
        raise InvalidRecord(START_TIMESTAMPS, "negative reference")
    return references, times, starts


def decode_histograms(payload: bytes) -> tuple[int, int, bytes]:
    """As given to `encode_histograms`."""
    if len(payload) < _HISTOGRAMS_HEADER.size:
        raise InvalidRecord(HISTOGRAMS, "too short")
    first, newest_ms = _HISTOGRAMS_HEADER.unpack_from(payload)
    return first, newest_ms, bytes(payload[_HISTOGRAMS_HEADER.size :])


def encode_truncated(time_ms: int) -> Record:
    """In-order samples before this time are no longer the head's."""
    return TRUNCATED, [_TRUNCATED.pack(time_ms)]


def decode_truncated(payload: bytes) -> int:
    """As given to `encode_truncated`."""
    return _only_number(TRUNCATED, _TRUNCATED, payload)


def encode_renumbered(series: int) -> Record:
    """How many references there are afterwards."""
    return RENUMBERED, [_RENUMBERED.pack(series)]


def decode_renumbered(payload: bytes) -> int:
    """As given to `encode_renumbered`."""
    return _only_number(RENUMBERED, _RENUMBERED, payload)


def _only_number(kind: int, form: struct.Struct, payload: bytes) -> int:
    if len(payload) != form.size:
        raise InvalidRecord(kind, f"{len(payload)} bytes")
    return int(form.unpack(payload)[0])


def decode_series(payload: bytes) -> SeriesRecord:
    if len(payload) < _SERIES_HEADER.size:
        raise InvalidRecord(SERIES, "too short")
    count, first_reference = _SERIES_HEADER.unpack_from(payload)
    labels_start = _SERIES_HEADER.size + 8 * (count + 1)
    if labels_start > len(payload):
        raise InvalidRecord(SERIES, f"{count} series in {len(payload)} bytes")
    offsets = np.frombuffer(payload, np.int64, count + 1, _SERIES_HEADER.size)
    label_bytes = np.frombuffer(payload, np.uint8, offset=labels_start)
    if offsets[0] != 0 or offsets[-1] != len(label_bytes) or (offsets[1:] < offsets[:-1]).any():
        raise InvalidRecord(SERIES, "label offsets do not cut the label bytes")
    if first_reference < 0 or first_reference + count > 1 << 31:
        raise InvalidRecord(SERIES, f"{count} references from {first_reference}")
    return SeriesRecord(first_reference, offsets, label_bytes)


def decode_samples(payload: bytes) -> SamplesRecord:
    if len(payload) < _SAMPLES_HEADER.size:
        raise InvalidRecord(SAMPLES, "too short")
    count, flags, base = _SAMPLES_HEADER.unpack_from(payload)
    if flags & ~(_SHORT_TIMES | _LATE):
        raise InvalidRecord(SAMPLES, f"unknown flags {flags:#x}")
    time_type = np.dtype(np.int32 if flags & _SHORT_TIMES else np.int64)
    times_start = _SAMPLES_HEADER.size + 8 * count
    references_start = times_start + time_type.itemsize * count
    if len(payload) != references_start + 4 * count:
        raise InvalidRecord(SAMPLES, f"{count} samples in {len(payload)} bytes")
    values = np.frombuffer(payload, np.float64, count, _SAMPLES_HEADER.size)
    timestamps = np.frombuffer(payload, time_type, count, times_start)
    references = np.frombuffer(payload, np.int32, count, references_start)
    if count and references.min() < 0:
        raise InvalidRecord(SAMPLES, "negative reference")
    if flags & _SHORT_TIMES:
        timestamps = timestamps.astype(np.int64) + base
    return SamplesRecord(references, timestamps, values, bool(flags & _LATE))


def decode_metadata(payload: bytes) -> list[Metadata]:
    try:
        rows = json.loads(payload.decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError) as error:
        raise InvalidRecord(METADATA, f"not JSON: {error}") from None
    fits = isinstance(rows, list) and all(
        isinstance(row, list) and len(row) == 4 and all(isinstance(text, str) for text in row) for row in rows
    )
    if not fits:
        raise InvalidRecord(METADATA, "not a list of [family, type, help, unit]")
    return [Metadata(*row) for row in rows]


def decode_dropped(payload: bytes) -> NDArray[np.int32]:
    """int32[N], references."""
    if len(payload) < _DROPPED_HEADER.size:
        raise InvalidRecord(DROPPED, "too short")
    (count,) = _DROPPED_HEADER.unpack_from(payload)
    if len(payload) != _DROPPED_HEADER.size + 4 * count:
        raise InvalidRecord(DROPPED, f"{count} references in {len(payload)} bytes")
    references = np.frombuffer(payload, np.int32, count, _DROPPED_HEADER.size)
    if count and references.min() < 0:
        raise InvalidRecord(DROPPED, "negative reference")
    return references


def _column(array: NDArray[Any], dtype: Any) -> NDArray[Any]:
    """The array itself, if its type and layout are right already."""
    return np.ascontiguousarray(array, dtype)
