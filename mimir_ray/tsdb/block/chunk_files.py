"""`chunks/000001`, …: the segment files of a block, written and read many chunks at a time.

A file is magic, version, three zero bytes, then chunks: uvarint length of the data, encoding byte, data, CRC-32C of
encoding and data. A reference is `segment << 32 | offset` with segments counted from 0.
Format: prometheus/tsdb/docs/format/chunks.md. Upstream: tsdb/chunks/chunks.go.
"""

from __future__ import annotations

import re
import struct
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mimir_ray.encoding.bits import bytes_at, copy_bytes
from mimir_ray.encoding.crc32c import crc32c_between, load32_be, store32_be
from mimir_ray.encoding.varint import read_uvarint, write_uvarint
from mimir_ray.kernel import I64, U8, OutI64, OutU8, kernel
from mimir_ray.tsdb.append_file import AppendFile, storage_error, sync_directory

from .errors import DamagedBlock
from .mapping import map_file

XOR = 1
SEGMENT_BYTES = 512 << 20
_HEADER = struct.pack(">IB3x", 0x85BD40DD, 1)
_NAME = re.compile(r"\d{6}\Z")
_MALFORMED = 1
_CHECKSUM = 2


@kernel
def pack_chunks(rows: I64, starts: I64, lengths: I64, encodings: U8, data: U8, positions: I64, out: OutU8) -> None:
    """Writes chunks data[starts[r]:starts[r] + lengths[r]] for r in `rows` as records from out[positions[r]]."""
    for k in range(len(rows)):
        r = rows[k]
        at = write_uvarint(out, positions[r], np.uint64(lengths[r]))
        out[at] = encodings[r]
        copy_bytes(out, at + 1, data, starts[r], lengths[r])
        end = at + 1 + lengths[r]
        store32_be(out, end, crc32c_between(out, at, end))


@kernel
def locate_in_segments(
    addresses: I64, sizes: I64, sources: I64, offsets: I64, starts: OutI64, ends: OutI64, encodings: OutU8
) -> int:
    """Finds the data of chunks, and checks their checksums.

    Chunk c begins at offsets[c] of the `sizes[s]` bytes at `addresses[s]`, s = sources[c]; its data is written to
    starts[c], ends[c]. Returns 0, or -(4 * c + what) where record c is malformed (1) or its checksum differs (2).
    """
    for c in range(len(offsets)):
        data = bytes_at(addresses[sources[c]], sizes[sources[c]])
        at = offsets[c]
        if at < 8 or at >= len(data):
            return -(4 * c + _MALFORMED)
        length, at, code = read_uvarint(data, at, min(len(data), at + 5))
        if code != 0 or np.int64(length) > len(data) - at - 5:
            return -(4 * c + _MALFORMED)
        end = at + 1 + np.int64(length)
        if crc32c_between(data, at, end) != load32_be(data, end):
            return -(4 * c + _CHECKSUM)
        starts[c], ends[c], encodings[c] = at + 1, end, data[at]
    return 0


@kernel
def gather_from_segments(
    addresses: I64, sizes: I64, sources: I64, starts: I64, ends: I64, places: I64, out: OutU8
) -> None:
    """Copies the data of located chunks to out[places[c]:]."""
    for c in range(len(starts)):
        data = bytes_at(addresses[sources[c]], sizes[sources[c]])
        copy_bytes(out, places[c], data, starts[c], ends[c] - starts[c])


class Located(NamedTuple):
    """C chunks in S buffers: chunk c is in the `sizes[s]` bytes at `addresses[s]`, s = sources[c], its data from
    starts[c] to ends[c] (all int64); `encodings` uint8[C]."""

    addresses: NDArray[np.int64]
    sizes: NDArray[np.int64]
    sources: NDArray[np.int64]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    encodings: NDArray[np.uint8]


def locate_chunks(
    data: Sequence[NDArray[np.uint8]],
    sources: NDArray[np.int64],
    places: NDArray[np.int64],
    name: Callable[[int], str],
    offsets: NDArray[np.int64] | None = None,
) -> Located:
    """Chunks whose records begin at data[sources[c]][places[c]], once their checksums are right.

    `name`: of a buffer's file, and `offsets` where in it the records are, if not at `places`: for errors. The buffers
    must live as long as addresses are used. Raises `DamagedBlock`.
    """
    addresses = np.array([one.__array_interface__["data"][0] for one in data], np.int64)
    sizes = np.array([len(one) for one in data], np.int64)
    count = len(places)
    starts, ends, encodings = np.empty(count, np.int64), np.empty(count, np.int64), np.empty(count, np.uint8)
    code = locate_in_segments(addresses, sizes, sources, places, starts, ends, encodings)
    if code < 0:
        row, what = divmod(-code, 4)
        reason = "checksum mismatch" if what == _CHECKSUM else "no chunk, or an incomplete one"
        raise DamagedBlock(name(int(sources[row])), int((places if offsets is None else offsets)[row]), reason)
    return Located(addresses, sizes, sources, starts, ends, encodings)


def record_bytes(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """int64[C]: what chunks of so many bytes (< 2^35) take in a segment."""
    extra = np.full(len(lengths), 6, np.int64)
    for bits in (7, 14, 21, 28):
        extra += lengths >= 1 << bits
    return lengths + extra


class ChunkSegmentWriter:
    """Writes the segments of one block into a folder, which it makes. Not thread-safe."""

    def __init__(self, directory: Path, segment_bytes: int = SEGMENT_BYTES) -> None:
        assert len(_HEADER) < segment_bytes < 1 << 32
        self.directory = directory
        self.segment_bytes = segment_bytes
        self.sizes: list[int] = []
        """Bytes of the segments, the one being written included."""
        self._file: AppendFile | None = None
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error("make", directory, error) from error

    def append(
        self,
        data: Sequence[NDArray[np.uint8]],
        sources: NDArray[np.int32],
        starts: NDArray[np.int64],
        lengths: NDArray[np.int64],
        encodings: NDArray[np.uint8],
    ) -> NDArray[np.int64]:
        """Writes C chunks, c being data[sources[c]][starts[c]:starts[c] + lengths[c]]; their references, ascending.

        Raises `StorageFailed`; the block cannot be completed then.
        """
        count = len(starts)
        references = np.empty(count, np.int64)
        ends = np.cumsum(record_bytes(lengths))
        first = 0
        while first < count:
            room = self.segment_bytes - self.sizes[-1] if self._file is not None else 0
            before = int(ends[first - 1]) if first else 0
            last = max(first, int(np.searchsorted(ends, before + room, side="right")))
            if last == first:
                if self._file is not None and self.sizes[-1] == len(_HEADER):
                    last = first + 1  # larger than a whole segment: it gets one of its own
                else:
                    self._open_next()
                    continue
            rows = slice(first, last)
            positions = np.concatenate((np.zeros(1, np.int64), ends[rows][:-1] - before))
            out = np.empty(int(ends[last - 1]) - before, np.uint8)
            for source in np.unique(sources[rows]).tolist():
                chosen = np.flatnonzero(sources[rows] == source)
                pack_chunks(chosen, starts[rows], lengths[rows], encodings[rows], data[source], positions, out)
            assert self._file is not None
            at = self._file.append([out])
            self.sizes[-1] = self._file.size
            references[rows] = positions + (at | (len(self.sizes) - 1) << 32)
            first = last
        return references

    def finish(self) -> None:
        """Makes everything durable and closes."""
        if self._file is not None:
            self._file.sync()
        self.close()
        try:
            sync_directory(self.directory)
        except OSError as error:
            raise storage_error("sync", self.directory, error) from error

    def close(self) -> None:
        """Does not sync."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open_next(self) -> None:
        if self._file is not None:
            self._file.sync()
            self._file.close()
        self._file = AppendFile(self.directory / f"{len(self.sizes) + 1:06d}", create=True)
        self._file.append([_HEADER])
        self.sizes.append(self._file.size)


class ChunkSegments:
    """The segments of a block, mapped when first needed. Thread-safe."""

    def __init__(self, directory: Path) -> None:
        try:
            names = sorted(path.name for path in directory.iterdir() if _NAME.match(path.name))
        except OSError as error:
            raise storage_error("list", directory, error) from error
        # Upstream: tsdb/chunks/chunks.go sequenceFiles: the n-th file is segment n, whatever its name.
        self.paths = [directory / name for name in names]
        self._views: dict[int, NDArray[np.uint8]] = {}
        self._lock = threading.Lock()

    def view(self, segment: int) -> NDArray[np.uint8]:
        """The bytes of one segment. Raises `DamagedBlock` where there is none, or its header is wrong."""
        if not 0 <= segment < len(self.paths):
            directory = str(self.paths[0].parent) if self.paths else "chunks"
            raise DamagedBlock(directory, 0, f"chunk segment {segment + 1} of {len(self.paths)} is referred to")
        with self._lock:
            view = self._views.get(segment)
            if view is None:
                view = map_file(self.paths[segment])
                if view[:5].tobytes() != _HEADER[:5] or len(view) < len(_HEADER):
                    raise DamagedBlock(str(self.paths[segment]), 0, "no chunk segment of version 1")
                self._views[segment] = view
        return view

    def locate(
        self, references: NDArray[np.int64]
    ) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8]]:
        """(segments, starts, ends, encodings) of C chunks whose checksums are right. Raises `DamagedBlock`."""
        segments = references >> 32
        numbers, sources = np.unique(segments, return_inverse=True)
        views = [self.view(segment) for segment in numbers.tolist()]
        found = locate_chunks(
            views, sources.reshape(-1), references & 0xFFFFFFFF, lambda source: str(self.paths[numbers[source]])
        )
        return segments.astype(np.int32), found.starts, found.ends, found.encodings

    def close(self) -> None:
        """Forgets the maps; arrays that somebody holds stay valid."""
        with self._lock:
            self._views.clear()
