"""`HistogramStore`: the histograms of one head, by number, in the order in which they came.

A sample of the head that is a histogram is a number in a NaN (model/boxed.py). The newest histograms lie here as
columns; full blocks are compressed, and some of them kept unpacked for who reads them next. Numbers are never used
again. Thread-safe: writes come under the head's lock, reads come without.
"""

from __future__ import annotations

import struct
import threading
import zlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mimir_ray.errors import Corruption
from mimir_ray.model.float_histogram import FloatHistogram
from mimir_ray.model.histogram import HistogramColumns

BLOCK_HISTOGRAMS = 4096
OPEN_MAX = 64
"""Pushes whose histograms lie apart."""
UNPACKED_MAX = 16
"""Full blocks kept as columns too."""

_HEADER = struct.Struct("<IIII")
_SCALARS = (("schema", np.int8), ("hint", np.int8), ("zero_threshold", np.float64), ("zero_count", np.float64))
_COLUMNS: tuple[tuple[str, Any], ...] = (
    *_SCALARS,
    ("count", np.float64),
    ("sum", np.float64),
    ("custom", np.int32),
)
_SIDES = ("positive", "negative")


class DamagedHistograms(Corruption):
    """Stored histograms that cannot be read."""

    def describe(self) -> str:
        return "stored native histograms are damaged"


def pack(columns: HistogramColumns) -> bytes:
    """Histograms as bytes: every column on its own, bytes of equal weight together, then deflated."""
    bounds = np.concatenate([np.zeros(0), *columns.bounds])
    parts = [_HEADER.pack(len(columns), len(columns.positive), len(columns.negative), len(columns.bounds))]
    parts += [_planes(getattr(columns, name).astype(kind, copy=False)) for name, kind in _COLUMNS]
    for side in _SIDES:
        parts.append(_planes(np.diff(getattr(columns, f"{side}_offsets")).astype(np.int32)))
        parts.append(_planes(np.diff(getattr(columns, side), prepend=np.int32(0)).astype(np.int32)))
        parts.append(_planes(getattr(columns, f"{side}_counts")))
    parts.append(_planes(np.array([len(one) for one in columns.bounds], np.int32)))
    parts.append(_planes(bounds))
    return zlib.compress(b"".join(parts), 1)


def unpack(data: bytes) -> HistogramColumns:
    """What was packed. Raises `DamagedHistograms`."""
    try:
        raw = zlib.decompress(data)
        count, positive, negative, lists = _HEADER.unpack_from(raw)
        reader = _Reader(raw, _HEADER.size)
        found: dict[str, Any] = {name: reader.column(kind, count) for name, kind in _COLUMNS}
        for side, size in zip(_SIDES, (positive, negative), strict=True):
            found[f"{side}_offsets"] = _offsets(reader.column(np.int32, count))
            found[side] = np.cumsum(reader.column(np.int32, size), dtype=np.int32)
            found[f"{side}_counts"] = reader.column(np.float64, size)
            if found[f"{side}_offsets"][-1] != size:
                raise ValueError("bucket offsets")
        cuts = _offsets(reader.column(np.int32, lists))
        bounds = reader.column(np.float64, int(cuts[-1]))
        if reader.at != len(raw):
            raise ValueError("length")
    except (zlib.error, ValueError, struct.error) as error:
        raise DamagedHistograms from error
    return HistogramColumns(bounds=tuple(bounds[a:b] for a, b in pairwise(cuts.tolist())), **found)


def _planes(column: NDArray[Any]) -> bytes:
    size = column.itemsize
    return np.ascontiguousarray(column).view(np.uint8).reshape(len(column), size).T.tobytes()


class _Reader:
    def __init__(self, raw: bytes, at: int) -> None:
        self.raw = raw
        self.at = at

    def column(self, kind: Any, count: int) -> NDArray[Any]:
        size = np.dtype(kind).itemsize
        planes = np.frombuffer(self.raw, np.uint8, count * size, self.at)
        self.at += count * size
        return np.ascontiguousarray(planes.reshape(size, count).T).view(kind).ravel()


def _offsets(sizes: NDArray[np.int32]) -> NDArray[np.int64]:
    if len(sizes) and int(sizes.min()) < 0:
        raise ValueError("negative size")
    out = np.zeros(len(sizes) + 1, np.int64)
    np.cumsum(sizes, out=out[1:])
    return out


@dataclass(slots=True)
class _Block:
    """Histograms first .. first + count - 1: as columns, packed, or (neither) dropped. `maxt`: ms."""

    first: int
    count: int
    maxt: int
    columns: HistogramColumns | None
    packed: bytes | None = None


class HistogramStore:
    """Numbers go up from 0."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._full: list[_Block] = []
        self._open: list[_Block] = []
        self._open_count = 0
        self._unpacked: OrderedDict[int, HistogramColumns] = OrderedDict()
        self.end = 0
        """The next number."""

    def __len__(self) -> int:
        return self.end

    def append(self, columns: HistogramColumns, maxt: int) -> int:
        """Takes histograms over, whose samples are not newer than `maxt` (ms); the number of the first."""
        with self._lock:
            first = self.end
            self._open.append(_Block(first, len(columns), maxt, columns))
            self._open_count += len(columns)
            self.end += len(columns)
            if self._open_count >= BLOCK_HISTOGRAMS:
                self._seal()
            elif len(self._open) > OPEN_MAX:
                joined = HistogramColumns.concat([_columns(block) for block in self._open])
                newest = max(block.maxt for block in self._open)
                self._open = [_Block(self._open[0].first, self._open_count, newest, joined)]
            return first

    def _seal(self) -> None:
        if not self._open:
            return
        columns = HistogramColumns.concat([_columns(block) for block in self._open])
        first, maxt = self._open[0].first, max(block.maxt for block in self._open)
        self._full = [*self._full, _Block(first, len(columns), maxt, None, pack(columns))]
        self._remember(first, columns)
        self._open, self._open_count = [], 0

    def _remember(self, first: int, columns: HistogramColumns) -> None:
        self._unpacked[first] = columns
        self._unpacked.move_to_end(first)
        while len(self._unpacked) > UNPACKED_MAX:
            self._unpacked.popitem(last=False)

    def recent(self, number: int) -> FloatHistogram | None:
        """One histogram, if it lies here as columns."""
        with self._lock:
            for block in reversed(self._open):
                if block.first <= number < block.first + block.count:
                    return _columns(block).row(number - block.first)
            for first, columns in self._unpacked.items():
                if first <= number < first + len(columns):
                    return columns.row(number - first)
        return None

    def one(self, number: int) -> FloatHistogram | None:
        """One histogram, or None if it was dropped."""
        columns, found = self.read(np.array([number], np.int64))
        return columns.row(0) if found[0] else None

    def pin(self) -> PinnedHistograms:
        """What is here now, for a reader who does not want to lose what is dropped meanwhile."""
        with self._lock:
            return PinnedHistograms(self, [*self._full, *self._open])

    def read(self, numbers: NDArray[np.int64]) -> tuple[HistogramColumns, NDArray[np.bool_]]:
        """The histograms of these numbers (ascending, each once) that are there, and which those are."""
        return self.pin().read(numbers)

    def _read(self, blocks: Sequence[_Block], numbers: NDArray[np.int64]) -> tuple[HistogramColumns, NDArray[np.bool_]]:
        firsts = np.array([block.first for block in blocks], np.int64)
        at = np.searchsorted(firsts, numbers, side="right") - 1
        found = np.zeros(len(numbers), np.bool_)
        parts = []
        for place in np.unique(at[at >= 0]).tolist():
            block = blocks[place]
            mine = np.flatnonzero((at == place) & (numbers < block.first + block.count))
            columns = self._of(block)
            if columns is None or not len(mine):
                continue
            found[mine] = True
            parts.append(columns.take(numbers[mine] - block.first))
        return HistogramColumns.concat(parts) if parts else HistogramColumns.from_rows([]), found

    def _of(self, block: _Block) -> HistogramColumns | None:
        if block.columns is not None:
            return block.columns
        with self._lock:
            known = self._unpacked.get(block.first)
            if known is not None:
                self._unpacked.move_to_end(block.first)
                return known
        packed = block.packed
        if packed is None:
            return None
        columns = unpack(packed)
        with self._lock:
            self._remember(block.first, columns)
        return columns

    def drop_before(self, time_ms: int) -> None:
        """Forgets full blocks whose samples are all older."""
        with self._lock:
            # A new list: who pinned the old one still reads it.
            self._full = [block for block in self._full if block.maxt >= time_ms]
            kept = {block.first for block in self._full}
            for first in [first for first in self._unpacked if first not in kept]:
                del self._unpacked[first]

    @property
    def bytes(self) -> int:
        """About what it holds in memory."""
        with self._lock:
            packed = sum(len(block.packed or b"") for block in self._full)
            return packed + 600 * (self._open_count + sum(len(columns) for columns in self._unpacked.values()))

    def state(self) -> dict[str, Any]:
        """Named parts for a checkpoint, which later writes do not change."""
        with self._lock:
            self._seal()
            kept = [block for block in self._full if block.packed is not None]
            blocks = np.array([(block.first, block.count, block.maxt) for block in kept], np.int64).reshape(-1, 3)
            parts: dict[str, Any] = {"histograms.end": np.array([self.end], np.int64), "histograms.blocks": blocks}
            return parts | {f"histograms.{block.first}": block.packed for block in kept}

    def restore(self, parts: dict[str, Any]) -> None:
        """Takes over what `state` gave; checkpoints from before there were histograms have none."""
        if "histograms.end" not in parts:
            return
        self.end = int(parts["histograms.end"][0])
        self._full = [
            _Block(first, count, maxt, None, bytes(parts[f"histograms.{first}"]))
            for first, count, maxt in parts["histograms.blocks"].tolist()
        ]


class PinnedHistograms:
    """The histograms of a store as they were at one moment. Any thread may read."""

    def __init__(self, store: HistogramStore, blocks: Sequence[_Block]) -> None:
        self._store = store
        self._blocks = blocks

    def __len__(self) -> int:
        return sum(block.count for block in self._blocks)

    def read(self, numbers: NDArray[np.int64]) -> tuple[HistogramColumns, NDArray[np.bool_]]:
        """The histograms of these numbers (ascending, each once) that are there, and which those are."""
        return self._store._read(self._blocks, numbers)


def _columns(block: _Block) -> HistogramColumns:
    assert block.columns is not None
    return block.columns
