"""Appends records to a write-ahead log.

An `append` is one system call straight into the file, no buffer in between: what it returned for
survives the death of the process. Surviving a power failure takes `sync`, whose policy is a setting:
`always` waits for the disk (threads that wait at the same time share one fdatasync), `interval` does
so when the last time is long ago, `off` leaves it to the operating system.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from mimir_ray.clock import Clock
from mimir_ray.errors import Unavailable
from mimir_ray.tsdb.append_file import AppendFile, StorageFailed, buffer_bytes, storage_error, sync_directory

from .format import (
    HEADER,
    PAYLOAD_BYTES_MAX,
    SEGMENT_BYTES,
    record_header,
    segment_numbers,
    segment_path,
    set_aside_paths,
)
from .reader import repair_last_segment

FsyncPolicy = Literal["off", "interval", "always"]


@dataclass(eq=False)
class WalClosed(Unavailable):
    """The log takes no more records: it was closed, or the disk failed to keep what it had been given."""

    directory: str
    reason: str

    def describe(self) -> str:
        return f"write-ahead log {self.directory} is closed: {self.reason}"


class WalPosition(NamedTuple):
    """Where a record starts (or the next one will)."""

    segment: int
    offset: int


@dataclass(frozen=True, slots=True)
class WalSettings:
    segment_bytes: int = SEGMENT_BYTES
    """A segment that would grow past this is followed by a new one."""
    fsync: FsyncPolicy = "interval"
    fsync_interval_s: float = 1.0
    """With `interval`: `sync` waits for the disk when it last did so longer ago."""


class WalWriter:
    """The one writer of one folder; thread-safe.

    Opening repairs a torn end (see reader.py; replay first to have damage reported) and starts a new
    segment, of number `first` or higher: what a checkpoint says to replay from, so that records are found
    again even where older segments are gone. `bytes_written`, `records_written`, `syncs` and `failures`
    only grow, for metrics.
    """

    def __init__(
        self,
        directory: Path,
        clock: Clock,
        settings: WalSettings = WalSettings(),
        first: int = 0,
    ) -> None:
        self.directory = directory
        self.settings = settings
        self.bytes_written = 0
        self.records_written = 0
        self.syncs = 0
        self.failures = 0
        self._clock = clock
        self._write_lock = threading.Lock()
        self._sync_turn = threading.Condition()
        self._syncing = False
        self._synced = 0
        self._last_sync_s = clock.monotonic_s()
        self._closed = ""
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error("create", directory, error) from error
        repair_last_segment(directory)
        numbers = segment_numbers(directory)
        last = numbers[-1] if numbers else -1
        reuse = last >= first and segment_path(directory, last).stat().st_size == 0
        self._segment = last if reuse else max(last + 1, first)
        self._file = AppendFile(segment_path(directory, self._segment), create=not reuse)
        self._sync_names()

    @property
    def position(self) -> WalPosition:
        """Where the next record will start, if it fits."""
        with self._write_lock:
            return WalPosition(self._segment, self._file.size)

    def append(self, *records: tuple[int, Iterable[Any]]) -> WalPosition:
        """Writes records, each a type (0..255) and the buffers of its payload, all or none of them.

        Buffers: bytes, memoryviews, C-contiguous arrays; not copied. Returns the position of the first.
        Raises `StorageFailed`, `StorageFull` or `WalClosed`, and has then written nothing.
        """
        if not records:
            return self.position
        pieces: list[Any] = []
        total = 0
        for kind, payload in records:
            parts = [part for part in payload if buffer_bytes(part)]
            length = sum(buffer_bytes(part) for part in parts)
            assert length <= PAYLOAD_BYTES_MAX
            pieces.append(record_header(kind, parts, length))
            pieces.extend(parts)
            total += HEADER.size + length
        with self._write_lock:
            self._check_open()
            try:
                if self._file.size and self._file.size + total > self.settings.segment_bytes:
                    self._next_segment()
                offset = self._file.append(pieces)
            except StorageFailed:
                self.failures += 1
                raise
            self.bytes_written += total
            self.records_written += len(records)
            return WalPosition(self._segment, offset)

    def sync(self, force: bool = False) -> None:
        """Makes everything appended before the call durable, as far as the policy asks for it (`force`: always).

        Raises `StorageFailed` where the disk could not; the log is then closed, since what it had been
        given may be lost while later attempts would report success.
        """
        policy = self.settings.fsync
        if not force:
            if policy == "off":
                return
            if policy == "interval" and self._clock.monotonic_s() - self._last_sync_s < self.settings.fsync_interval_s:
                return
        with self._write_lock:
            self._check_open()
            target = self.bytes_written
        with self._sync_turn:
            while self._syncing and self._synced < target:
                self._sync_turn.wait()
            if self._synced >= target:
                return
            if self._closed:
                raise WalClosed(str(self.directory), self._closed)
            self._syncing = True
        covered = 0
        try:
            with self._write_lock:
                self._check_open()
                reached, sync_now = self.bytes_written, self._file.prepare_sync()
            self._wait_for_disk(sync_now)
            covered = reached
            self._last_sync_s = self._clock.monotonic_s()
        finally:
            # Also after a failure: those who wait must wake up, and find the log closed.
            with self._sync_turn:
                self._syncing = False
                self._synced = max(self._synced, covered)
                self._sync_turn.notify_all()

    def rotate(self) -> int:
        """Starts a new segment and returns its number; one without records is kept."""
        with self._write_lock:
            self._check_open()
            if self._file.size:
                self._next_segment()
            return self._segment

    def truncate_before(self, segment: int) -> int:
        """Removes all segments of lower numbers, but never the current one; returns how many. Also what was
        set aside from them."""
        removed = 0
        with self._write_lock:
            doomed = [number for number in segment_numbers(self.directory) if number < min(segment, self._segment)]
            aside = [path for number, path in set_aside_paths(self.directory) if number < segment]
            # In ascending order: whenever this stops, what is left has no gap.
            for path in [segment_path(self.directory, number) for number in doomed] + aside:
                try:
                    path.unlink(missing_ok=True)
                except OSError as error:
                    raise storage_error("remove", path, error) from error
                removed += 1
            return removed - len(aside)

    def close(self) -> None:
        """Syncs (unless the policy is `off`) and closes; may be called again."""
        if self.settings.fsync != "off" and not self._closed:
            self.sync(force=True)
        with self._write_lock:
            self._closed = self._closed or "it was shut down"
            self._file.close()

    def _check_open(self) -> None:
        if self._closed:
            raise WalClosed(str(self.directory), self._closed)

    def _next_segment(self) -> None:
        """Caller holds the write lock."""
        if self.settings.fsync != "off":
            self._wait_for_disk(self._file.sync)
        following = AppendFile(segment_path(self.directory, self._segment + 1), create=True)
        self._file.close()
        self._file = following
        self._segment += 1
        self._sync_names()

    def _wait_for_disk(self, sync: Callable[[], None]) -> None:
        try:
            sync()
        except StorageFailed as error:
            self.failures += 1
            self._closed = str(error)
            raise
        self.syncs += 1

    def _sync_names(self) -> None:
        if self.settings.fsync != "off":
            try:
                sync_directory(self.directory)
            except OSError as error:
                raise storage_error("sync", self.directory, error) from error
