"""`WriteScan`: what one write request says, as columns, whatever the protocol it came by.

A scanner (remote_write.py, remote_write_v2.py) reads a request's bytes once and makes one of these; the
distributor asks nothing else of a protocol. A series is known by a keyed hash, so its labels are needed in full only
when it is new. Remote write 2.0 sends labels as numbers of symbols: the label section of such a series is written when
somebody asks for it (`build_sections`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mimir_ray.encoding.bits import copy_bytes
from mimir_ray.encoding.varint import read_uvarint, write_uvarint
from mimir_ray.kernel import I64, U8, OutI64, OutU8, device, kernel
from mimir_ray.model.histogram import HistogramColumns
from mimir_ray.model.metadata import METRIC_TYPES, Metadata
from mimir_ray.wire.protobuf import read_length, read_tag, skip_field

if TYPE_CHECKING:
    from mimir_ray.wire.exemplars import ExemplarScan
    from mimir_ray.wire.remote_write_histograms import HistogramScan

HashKey = tuple[int, int, int, int]
"""Four uint64 that key the hash of series; secret, since senders may be hostile."""

SectionWriter = Callable[[bytes, NDArray[np.int64], NDArray[np.int64], NDArray[np.integer]], bytes]
"""(data, starts, ends, rows) to longer data: the sections of these rows stand behind the data, and `starts`, `ends` say
where; rows whose start is not negative have theirs already."""

_TEXT_MAX = 1 << 16
"""Bytes of a symbol that are looked at as a metric family's name, help or unit; validation allows far fewer."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Tags of a protocol: of a series in the request, of histograms and exemplars in a series."""

    series: int
    histogram: int
    exemplar: int


REMOTE_WRITE_1 = Layout(0x0A, 0x22, 0x1A)
REMOTE_WRITE_2 = Layout(0x2A, 0x1A, 0x22)


@dataclass(frozen=True, slots=True)
class Symbols:
    """Y strings of a request: symbol y is `data[starts[y]:ends[y]]` (int64[Y])."""

    starts: NDArray[np.int64]
    ends: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Families:
    """Metadata that stands beside the series: F different ones, of a metric family each, or of a part of it.

    `keys` uint64[F]: a keyed hash of all that one says. `entries` int64[F, 4]: type, and the symbols of the metric's
    name, help and unit.
    """

    keys: NDArray[np.uint64]
    entries: NDArray[np.int64]


@dataclass(slots=True)
class WriteScan:
    """S series, N samples.

    Series s has the label section `data[label_start[s]:label_end[s]]` (int64[S]) with the hash
    (`hash_low[s]`, `hash_high[s]`) (uint64[S]), and samples `sample_offsets[s]:sample_offsets[s + 1]`
    (int64[S + 1]). Sample n belongs to series `sample_series[n]` (int32[N]) and is `timestamps[n]` (int64, ms),
    `values[n]` (float64, bits as sent). `earliest`, `latest`: of all timestamps; 0 where there are no samples.
    `repeated`: how many samples have the timestamp of the one before them in their series.

    `label_start[s]` is negative while the section is not written (`section_writer`); where there are symbols,
    `-1 - label_start[s]` to `label_end[s]` is then the message that names those of the series.
    `start_timestamps`: int64[N], since when each sample counts (ms; 0: not known), or None where none is known;
    `created` int64[S] is what is said of a series as a whole, for its histograms too. `zeros_within_ms`: see
    model/write.py.

    `histograms`: how many there are; once somebody has read them (remote_write_histograms.py), `columns` holds them,
    and samples that are histograms have values that say which. `request_bytes`: where the request ends in `data`.
    `exemplars`: how many there are, see exemplars.py.

    A series whose labels are not in one piece in the request has its section appended to `data`.
    """

    data: bytes
    label_start: NDArray[np.int64]
    label_end: NDArray[np.int64]
    hash_low: NDArray[np.uint64]
    hash_high: NDArray[np.uint64]
    sample_offsets: NDArray[np.int64]
    sample_series: NDArray[np.int32]
    timestamps: NDArray[np.int64]
    values: NDArray[np.float64]
    metadata: tuple[Metadata, ...]
    earliest: int
    latest: int
    repeated: int
    exemplars: int
    histograms: int
    request_bytes: int = 0
    columns: HistogramColumns | None = None
    layout: Layout = field(default=REMOTE_WRITE_1)
    symbols: Symbols | None = None
    families: Families | None = None
    start_timestamps: NDArray[np.int64] | None = None
    created: NDArray[np.int64] | None = None
    zeros_within_ms: int = 0

    def __len__(self) -> int:
        return len(self.label_start)

    @property
    def samples(self) -> int:
        return len(self.timestamps)

    @property
    def one_sample_each(self) -> bool:
        """Series s has exactly sample s; the usual request of a Prometheus."""
        return self.samples == len(self) and bool((self.sample_offsets[:-1] == np.arange(self.samples)).all())

    def own_histograms(self) -> HistogramScan | None:
        """The histograms, where they are not messages of remote write (remote_write_histograms.py reads those)."""
        return None

    def own_exemplars(self, runes_max: int) -> ExemplarScan | None:
        """The exemplars, likewise."""
        return None

    @property
    def section_writer(self) -> SectionWriter | None:
        """Writes label sections that are not there yet; None where all are."""
        symbols = self.symbols
        if symbols is None:
            return None
        return lambda data, starts, ends, rows: build_sections(data, symbols, starts, ends, rows)

    def need_labels(self, rows: NDArray[np.integer]) -> None:
        """Writes the label sections of these series, where they are not there yet."""
        if (writer := self.section_writer) is not None:
            self.data = writer(self.data, self.label_start, self.label_end, rows)

    def read_families(self, rows: NDArray[np.integer]) -> tuple[Metadata, ...]:
        """These of the metadata beside the series, each once."""
        if self.families is None or self.symbols is None:
            return ()
        found: dict[Metadata, None] = {}
        for kind, *texts in self.families.entries[rows].tolist():
            name, help_text, unit = (self._text(one) for one in texts)
            metric_type = METRIC_TYPES[kind] if kind < len(METRIC_TYPES) else "unknown"
            found[Metadata(family_name(name, metric_type), metric_type, help_text, unit)] = None
        return tuple(found)

    def _text(self, symbol: int) -> str:
        assert self.symbols is not None
        start = int(self.symbols.starts[symbol])
        end = min(int(self.symbols.ends[symbol]), start + _TEXT_MAX)
        return self.data[start:end].decode("utf-8", "replace")


_SUFFIXES = {
    "histogram": ("_bucket", "_count", "_sum"),
    "gaugehistogram": ("_bucket", "_gcount", "_gsum", "_count", "_sum"),
    "summary": ("_count", "_sum"),
}


def family_name(metric: str, metric_type: str) -> str:
    """The metric family that a metric of this type belongs to, by its name."""
    for suffix in _SUFFIXES.get(metric_type, ()):
        if metric.endswith(suffix) and len(metric) > len(suffix):
            return metric[: -len(suffix)]
    return metric


def build_sections(
    data: bytes,
    symbols: Symbols,
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    rows: NDArray[np.integer],
) -> bytes:
    """Writes the label sections of these rows behind `data`, where `starts` (int64[S]) says that there are none yet.

    `starts` and `ends` are changed; returns the longer data. The labels stand in the order in which they were sent.
    """
    rows = rows[starts[rows] < 0]
    if not len(rows):
        return data
    sections, offsets = gather_refs(data, symbols, -1 - starts[rows], ends[rows])
    starts[rows] = offsets[:-1] + len(data)
    ends[rows] = offsets[1:] + len(data)
    return data + sections


def gather_refs(
    data: bytes, symbols: Symbols, starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> tuple[bytes, NDArray[np.int64]]:
    """(sections back to back, int64[M + 1] offsets) of messages that were found to be sound."""
    view = np.frombuffer(data, np.uint8)
    offsets = np.zeros(len(starts) + 1, np.int64)
    write_sections(view, symbols.starts, symbols.ends, starts, ends, offsets, np.empty(0, np.uint8))
    out = np.empty(int(offsets[-1]), np.uint8)
    write_sections(view, symbols.starts, symbols.ends, starts, ends, offsets, out)
    return out.tobytes(), offsets


@device
def varint_bytes(value: Any) -> Any:
    """How many bytes a number takes."""
    size = np.int64(1)
    while value >= 128:
        value >>= 7
        size += 1
    return size


@device
def label_bytes(name_bytes: Any, value_bytes: Any) -> Any:
    """How many bytes one label takes in a section, tags and lengths included."""
    inner = 2 + varint_bytes(name_bytes) + name_bytes + varint_bytes(value_bytes) + value_bytes
    return 1 + varint_bytes(inner) + inner


@device
def write_label(data: Any, name: Any, name_end: Any, value: Any, value_end: Any, out: Any, to: Any) -> Any:
    """Writes one `Label labels = 1`; the position after it."""
    name_bytes = name_end - name
    value_bytes = value_end - value
    inner = 2 + varint_bytes(name_bytes) + name_bytes + varint_bytes(value_bytes) + value_bytes
    out[to] = 0x0A
    to = write_uvarint(out, to + 1, np.uint64(inner))
    out[to] = 0x0A
    to = write_uvarint(out, to + 1, np.uint64(name_bytes))
    copy_bytes(out, to, data, name, name_bytes)
    to += name_bytes
    out[to] = 0x12
    to = write_uvarint(out, to + 1, np.uint64(value_bytes))
    copy_bytes(out, to, data, value, value_bytes)
    return to + value_bytes


@kernel
def write_sections(
    data: U8, symbol_starts: I64, symbol_ends: I64, starts: I64, ends: I64, offsets: OutI64, out: OutU8
) -> None:
    """Writes the labels that messages name by `repeated uint32 labels_refs = 1`, as label sections.

    Args:
        symbol_starts, symbol_ends: int64[Y], as in `Symbols`.
        starts, ends: int64[M], the messages, which were found to be sound by a scanner.
        offsets: int64[M + 1]; written while `out` is empty, section m is out[offsets[m]:offsets[m + 1]].
    """
    writes = len(out) > 0
    to = np.int64(0)
    for m in range(len(starts)):
        at, stop = starts[m], ends[m]
        name = np.int64(-1)
        while at < stop:
            tag, at = read_tag(data, at, stop)
            if tag != 0x0A and tag != 0x08:
                at = skip_field(data, at, stop, tag & 7)
                if tag < 0 or at < 0:
                    break
                continue
            until = at
            if tag == 0x0A:
                length, at = read_length(data, at, stop)
                until = at + length
            while at < until or tag == 0x08:
                ref, at, code = read_uvarint(data, at, stop)
                if code != 0:
                    at = stop
                    break
                symbol = np.int64(ref)
                if name < 0:
                    name = symbol
                else:
                    if writes:
                        to = write_label(
                            data,
                            symbol_starts[name],
                            symbol_ends[name],
                            symbol_starts[symbol],
                            symbol_ends[symbol],
                            out,
                            to,
                        )
                    else:
                        to += label_bytes(
                            symbol_ends[name] - symbol_starts[name], symbol_ends[symbol] - symbol_starts[symbol]
                        )
                    name = np.int64(-1)
                if tag == 0x08:
                    break
        if not writes:
            offsets[m + 1] = to
