"""Reads a write-ahead log back, and repairs it where it ends in damage.

A process that dies in the middle of a write leaves an incomplete last record: a torn tail, cut
off without loss, since nobody was told that it was written. Anything else that does not add up is corruption:
records up to it are returned, what follows is set aside (`*.corrupt`), because records build on
earlier ones, and the report says so.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from mimir_ray.tsdb.append_file import AppendFile, storage_error, sync_directory

from .format import HEADER, is_intact, segment_numbers, segment_path

_WINDOW_BYTES = 4 << 20
_TORN_BYTES_MAX = 16 << 20
"""No single write is longer; a longer incomplete record has a damaged length and good ones behind it."""


class WalRecord(NamedTuple):
    """One record; `payload` starts at an address divisible by eight."""

    type: int
    payload: bytes
    segment: int
    offset: int


@dataclass(slots=True)
class WalReport:
    """What reading found; complete once the iterator is exhausted."""

    segments: int = 0
    records: int = 0
    bytes_read: int = 0
    torn_bytes: int = 0
    """Cut off the last segment's end: a record that was never acknowledged."""
    bytes_lost: int = 0
    """Set aside because of corruption, segments behind it included."""
    damage: str = ""
    """Where and what the corruption is; empty if there is none."""
    set_aside: list[Path] = field(default_factory=list)


class WalReader:
    """Iterates over the records of all segments from number `first` (None: the lowest there is) in order.

    Memory: one window of 4 MiB or one record, whichever is larger. No writer may be open. `report` tells the
    rest. Raises `StorageFailed` where the disk cannot be read or the repair cannot be made.
    """

    def __init__(self, directory: Path, first: int | None = None) -> None:
        self.directory = directory
        self.report = WalReport()
        self._first = first

    def __iter__(self) -> Iterator[WalRecord]:
        report = self.report = WalReport()
        numbers = [n for n in segment_numbers(self.directory) if self._first is None or n >= self._first]
        expected = numbers[0] if numbers and self._first is None else self._first
        for at, number in enumerate(numbers):
            if number != expected:
                report.damage = f"segment {expected:08d} is missing"
                self._set_segments_aside(numbers[at:])
                return
            expected = number + 1
            path = segment_path(self.directory, number)
            segment = _Segment(path, number)
            try:
                for record in segment.records():
                    report.records += 1
                    report.bytes_read += HEADER.size + len(record.payload)
                    yield record
                report.segments += 1
                if segment.good_end == segment.size:
                    continue
                last = at == len(numbers) - 1
                if last and segment.is_torn():
                    report.torn_bytes = segment.size - segment.good_end
                else:
                    report.damage = f"segment {number:08d} at byte {segment.good_end}: {segment.problem}"
                    report.bytes_lost = segment.size - segment.good_end
                    report.set_aside.append(segment.copy_rest())
            finally:
                segment.close()
            # Later segments go first: should this be interrupted, the damage is still there to be found.
            self._set_segments_aside(numbers[at + 1 :])
            _cut(path, segment.good_end)
            return

    def _set_segments_aside(self, numbers: list[int]) -> None:
        # The highest first: what stays behind an interruption has no gap.
        for number in reversed(numbers):
            path = segment_path(self.directory, number)
            aside = path.with_name(f"{path.name}.corrupt")
            try:
                self.report.bytes_lost += path.stat().st_size
                path.rename(aside)
            except OSError as error:
                raise storage_error("set aside", path, error) from error
            self.report.set_aside.append(aside)
        if numbers:
            _sync_names(self.directory)


def repair_last_segment(directory: Path) -> int:
    """Cuts damage off the end of the last segment (set aside unless it is a torn tail); returns the bytes cut.

    A writer does this before it appends behind bytes that would hide its own.
    """
    numbers = segment_numbers(directory)
    if not numbers:
        return 0
    path = segment_path(directory, numbers[-1])
    segment = _Segment(path, numbers[-1])
    try:
        for _ in segment.records():
            pass
        cut = segment.size - segment.good_end
        if cut and not segment.is_torn():
            segment.copy_rest()
    finally:
        segment.close()
    if cut:
        _cut(path, segment.good_end)
    return cut


class _Segment:
    """One segment being read. `good_end`: after the last intact record so far."""

    def __init__(self, path: Path, number: int) -> None:
        self.path = path
        self.number = number
        self.good_end = 0
        self.problem = ""
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            self.size = os.fstat(self._descriptor).st_size
        except OSError as error:
            raise storage_error("open", path, error) from error

    def records(self) -> Iterator[WalRecord]:
        """Intact records up to the first damage or the end."""
        window = b""
        window_start = 0
        while self.good_end < self.size:
            at = self.good_end - window_start
            if len(window) - at < HEADER.size:
                window, window_start, at = self._read(self.good_end, _WINDOW_BYTES), self.good_end, 0
            if len(window) - at < HEADER.size:
                self.problem = "incomplete record header"
                return
            length, checksum, kind = HEADER.unpack_from(window, at)
            end = HEADER.size + length
            if self.good_end + end > self.size:
                self.problem = f"a record of {length} bytes, but the segment ends before"
                return
            if len(window) - at < end:
                window, window_start, at = self._read(self.good_end, max(_WINDOW_BYTES, end)), self.good_end, 0
                if len(window) < end:
                    self.problem = "the segment became shorter while it was read"
                    return
            payload = window[at + HEADER.size : at + end]
            if not is_intact(length, checksum, kind, payload):
                self.problem = "checksum mismatch"
                return
            start = self.good_end
            self.good_end += end
            yield WalRecord(kind, payload, self.number, start)

    def is_torn(self) -> bool:
        """Whether the bytes behind `good_end` look like one write that did not finish: a record that needs
        more bytes than there are or just as many, or zeros (space that was allocated, but never filled)."""
        header = self._read(self.good_end, HEADER.size)
        if len(header) < HEADER.size:
            return True
        length, _, _ = HEADER.unpack(header)
        rest = self.size - self.good_end
        return (HEADER.size + length >= rest and rest <= _TORN_BYTES_MAX) or self._only_zeros()

    def copy_rest(self) -> Path:
        """Copies the bytes from `good_end` on to a file beside the segment."""
        aside = self.path.with_name(f"{self.path.name}-{self.good_end}.corrupt")
        try:
            with aside.open("wb") as out:
                for chunk in self._rest():
                    out.write(chunk)
                out.flush()
                os.fsync(out.fileno())
        except OSError as error:
            raise storage_error("set aside", aside, error) from error
        return aside

    def close(self) -> None:
        os.close(self._descriptor)

    def _only_zeros(self) -> bool:
        return all(not chunk.strip(b"\0") for chunk in self._rest())

    def _rest(self) -> Iterator[bytes]:
        at = self.good_end
        while chunk := self._read(at, _WINDOW_BYTES):
            yield chunk
            at += len(chunk)

    def _read(self, offset: int, count: int) -> bytes:
        try:
            return os.pread(self._descriptor, min(count, self.size - offset), offset)
        except OSError as error:
            raise storage_error("read", self.path, error) from error


def _cut(path: Path, size: int) -> None:
    file = AppendFile(path, create=False)
    try:
        file.truncate(size)
        file.sync()
    finally:
        file.close()


def _sync_names(directory: Path) -> None:
    try:
        sync_directory(directory)
    except OSError as error:
        raise storage_error("sync", directory, error) from error
