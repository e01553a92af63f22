"""Closed chunks of a head on disk: append-only segment files, read through memory maps.

`chunks_head/000001`, … hold regions, one a flush: magic u32, bytes u32, CRC-32C of the data u32, zero
u32, then the data, padded to a multiple of eight. A position is one int64, `segment << 32 | offset`, and
points at data, so a chunk's position is its region's plus its start inside the flush. Unlike the WAL's
these bytes carry no acknowledgement: after a restart the files are cut back to what the head's checkpoint
remembers, and replaying the WAL makes the rest again. Differs: upstream's head chunks have a header and a
checksum a chunk (tsdb/docs/format/head_chunks.md).
"""

from __future__ import annotations

import mmap
import os
import re
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mimir_ray.encoding.checksum import crc32c
from mimir_ray.errors import Corruption
from mimir_ray.tsdb.append_file import AppendFile, buffer_bytes, storage_error, sync_directory

SEGMENT_BYTES = 128 << 20
REGION_BYTES_MAX = 1 << 31
_REGION = struct.Struct("<IIII")
_MAGIC = 0x4B48434D  # "MCHK"
_NAME = re.compile(r"\d{6}\Z")


@dataclass(eq=False)
class DamagedChunkFile(Corruption):
    path: str
    offset: int
    reason: str

    def describe(self) -> str:
        return f"chunk file {self.path} is damaged at byte {self.offset}: {self.reason}"


def position_of(segment: int, offset: int) -> int:
    return segment << 32 | offset


def segment_of(position: int) -> int:
    return position >> 32


def offset_of(position: int) -> int:
    return position & 0xFFFFFFFF


class ChunkFiles:
    """The files of one folder. One thread appends; any thread reads.

    Arrays from `view` stay valid (and in memory maps) as long as somebody holds them, also after
    `drop_before` and `close`.
    """

    def __init__(self, directory: Path, segment_bytes: int = SEGMENT_BYTES) -> None:
        self.directory = directory
        self.segment_bytes = segment_bytes
        self._views: dict[int, NDArray[np.uint8]] = {}
        self._lock = threading.Lock()
        self._file: AppendFile | None = None
        try:
            directory.mkdir(parents=True, exist_ok=True)
            numbers = sorted(int(path.name) for path in directory.iterdir() if _NAME.match(path.name))
            self._sizes = {number: self._path(number).stat().st_size for number in numbers}
        except OSError as error:
            raise storage_error("open", directory, error) from error

    @property
    def segments(self) -> list[int]:
        """Their numbers, ascending."""
        return sorted(self._sizes)

    @property
    def bytes(self) -> int:
        """On disk, of all segments."""
        return sum(self._sizes.values())

    @property
    def end(self) -> int:
        """The position behind everything appended: what a checkpoint remembers, 0 for none."""
        if not self._sizes:
            return 0
        last = max(self._sizes)
        return position_of(last, self._sizes[last])

    def append(self, data: Any) -> int:
        """Writes one flush (any buffer of 1..`REGION_BYTES_MAX` bytes, not copied); returns its position.

        Raises `StorageFailed` or `StorageFull`, and then holds what it held before.
        """
        size = buffer_bytes(data)
        assert 0 < size <= REGION_BYTES_MAX
        total = _REGION.size + size + -size % 8
        number = max(self._sizes, default=0)
        if number == 0 or (self._sizes[number] and self._sizes[number] + total > self.segment_bytes):
            number += 1
            self._open(number, create=True)
        elif self._file is None:
            self._open(number, create=False)
        assert self._file is not None
        start = self._file.append([_REGION.pack(_MAGIC, size, crc32c(data), 0), data, bytes(-size % 8)])
        self._sizes[number] = self._file.size
        return position_of(number, start + _REGION.size)

    def view(self, segment: int) -> NDArray[np.uint8]:
        """uint8, read-only: everything appended to one segment so far. Raises KeyError if it does not exist."""
        size = self._sizes[segment]
        with self._lock:
            view = self._views.get(segment)
            if view is None or len(view) < size:
                view = self._views[segment] = self._map(segment, size)
        return view

    def sync(self) -> None:
        """Makes what was appended durable; older segments were synced when the next one began."""
        if self._file is not None:
            self._file.sync()

    def prepare_sync(self) -> Callable[[], None]:
        """A function that does what `sync` does, for what was appended until now; it must be called, beside appends."""
        return self._file.prepare_sync() if self._file is not None else lambda: None

    def truncate_to(self, position: int) -> int:
        """Removes everything behind a position that `end` gave once; returns the bytes removed.

        Only before anything was viewed: a map of bytes that are gone kills the process. Raises
        `DamagedChunkFile` where the files end before it already.
        """
        assert not self._views, "truncate_to comes before reading"
        segment, offset = segment_of(position), offset_of(position)
        if position and self._sizes.get(segment, -1) < offset:
            raise DamagedChunkFile(str(self._path(segment)), self._sizes.get(segment, 0), f"expected {offset} bytes")
        removed = 0
        self._close_file()
        for number in reversed(self.segments):
            if number > segment:
                removed += self._remove(number)
        if position and (surplus := self._sizes[segment] - offset):
            self._open(segment, create=False)
            assert self._file is not None
            self._file.truncate(offset)
            self._sizes[segment] = offset
            removed += surplus
        return removed

    def drop_before(self, segment: int) -> int:
        """Removes all segments of lower numbers but the last; returns the bytes removed. Views stay valid."""
        doomed = [number for number in self.segments[:-1] if number < segment]
        return sum(self._remove(number) for number in doomed)

    def verify(self) -> int:
        """Reads everything and checks each region; returns their number, or raises `DamagedChunkFile`."""
        regions = 0
        for number in self.segments:
            data = self.view(number)
            at = 0
            while at < len(data):
                if at + _REGION.size > len(data):
                    raise DamagedChunkFile(str(self._path(number)), at, "incomplete region header")
                magic, size, checksum, zero = _REGION.unpack_from(data, at)
                end = at + _REGION.size + size
                if magic != _MAGIC or zero != 0 or end + -size % 8 > len(data):
                    raise DamagedChunkFile(str(self._path(number)), at, "no region, or an incomplete one")
                if crc32c(data[at + _REGION.size : end]) != checksum:
                    raise DamagedChunkFile(str(self._path(number)), at, "checksum mismatch")
                at = end + -size % 8
                regions += 1
        return regions

    def close(self) -> None:
        """Closes the file being written; does not sync."""
        self._close_file()
        with self._lock:
            self._views.clear()

    def _path(self, number: int) -> Path:
        return self.directory / f"{number:06d}"

    def _open(self, number: int, create: bool) -> None:
        if self._file is not None:
            self._file.sync()
        following = AppendFile(self._path(number), create=create)
        self._close_file()
        self._file = following
        if create:
            self._sizes[number] = 0
            try:
                sync_directory(self.directory)
            except OSError as error:
                raise storage_error("sync", self.directory, error) from error

    def _close_file(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _remove(self, number: int) -> int:
        try:
            self._path(number).unlink(missing_ok=True)
        except OSError as error:
            raise storage_error("remove", self._path(number), error) from error
        with self._lock:
            self._views.pop(number, None)
        return self._sizes.pop(number)

    def _map(self, segment: int, size: int) -> NDArray[np.uint8]:
        if size == 0:
            return np.empty(0, np.uint8)
        try:
            descriptor = os.open(self._path(segment), os.O_RDONLY | os.O_CLOEXEC)
            try:
                mapped = mmap.mmap(descriptor, size, prot=mmap.PROT_READ)
            finally:
                os.close(descriptor)
        except (OSError, ValueError) as error:
            problem = error if isinstance(error, OSError) else OSError(0, str(error))
            raise storage_error("map", self._path(segment), problem) from error
        # The array holds the map, and the map its pages, whatever happens to the name.
        return np.frombuffer(mapped, np.uint8)
