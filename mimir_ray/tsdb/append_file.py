"""A file that only grows, where a failed write leaves no trace: what WAL and chunk segments are made of."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mimir_ray.errors import Unavailable

_PIECES_MAX = 1000
"""The kernel refuses more than IOV_MAX = 1024 pieces in one call."""


@dataclass(eq=False)
class StorageFailed(Unavailable):
    """The disk did not do what was asked. What was there before is still there."""

    operation: str
    path: str
    errno: int
    reason: str

    def describe(self) -> str:
        return f"{self.operation} {self.path}: {self.reason}"


class StorageFull(StorageFailed):
    """No space left, or a quota is used up."""


def storage_error(operation: str, path: Path | str, error: OSError) -> StorageFailed:
    """The error to raise for an OSError."""
    kind = StorageFull if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else StorageFailed
    return kind(operation, str(path), error.errno or 0, error.strerror or str(error))


def buffer_bytes(piece: Any) -> int:
    """The bytes of one buffer: bytes, bytearray, memoryview or array."""
    size = getattr(piece, "nbytes", None)
    return len(piece) if size is None else int(size)


def sync_directory(path: Path) -> None:
    """Makes created, renamed and removed names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class AppendFile:
    """One open file, written at its end. Not thread-safe.

    Raises `StorageFailed` (or its `StorageFull`) and then holds exactly what it held before. Where even
    cutting a partial write off fails, every later `append` tries that first.
    """

    def __init__(self, path: Path, create: bool) -> None:
        self.path = path
        flags = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | (os.O_CREAT | os.O_EXCL if create else 0)
        try:
            self._descriptor = os.open(path, flags, 0o644)
            self.size = os.fstat(self._descriptor).st_size
        except OSError as error:
            raise storage_error("open", path, error) from error
        self._has_remains = False

    def append(self, pieces: Sequence[Any]) -> int:
        """Writes the buffers back to back, in one system call if the disk takes them at once; returns their start."""
        if self._has_remains:
            self._cut_remains("append to")
        start = self.size
        total = sum(buffer_bytes(piece) for piece in pieces)
        if len(pieces) > _PIECES_MAX:
            pieces = [b"".join(bytes(piece) if not isinstance(piece, bytes) else piece for piece in pieces)]
        try:
            written = os.writev(self._descriptor, pieces)
            if written < total:
                rest = memoryview(b"".join(bytes(piece) for piece in pieces))
                while written < total:
                    step = os.write(self._descriptor, rest[written:])
                    if step == 0:
                        raise OSError(errno.EIO, "the disk takes no more bytes")
                    written += step
        except OSError as error:
            self._has_remains = True
            try:
                self._cut_remains("cut back")
            except StorageFailed as second:
                raise storage_error("append to", self.path, error) from second
            raise storage_error("append to", self.path, error) from error
        self.size = start + total
        return start

    def _cut_remains(self, operation: str) -> None:
        try:
            os.ftruncate(self._descriptor, self.size)
        except OSError as error:
            raise storage_error(operation, self.path, error) from error
        self._has_remains = False

    def truncate(self, size: int) -> None:
        """Cuts the file to its first `size` bytes."""
        assert size <= self.size
        try:
            os.ftruncate(self._descriptor, size)
        except OSError as error:
            raise storage_error("truncate", self.path, error) from error
        self.size = size

    def sync(self) -> None:
        """Waits until what was appended survives a power failure."""
        self.prepare_sync()()

    def prepare_sync(self) -> Callable[[], None]:
        """A function that does what `sync` does, once, for what is in the file now; it may run beside
        `append` and `close`, and must be called."""
        try:
            descriptor = os.dup(self._descriptor)
        except OSError as error:
            raise storage_error("sync", self.path, error) from error

        def sync() -> None:
            try:
                os.fdatasync(descriptor)
            except OSError as error:
                raise storage_error("sync", self.path, error) from error
            finally:
                os.close(descriptor)

        return sync

    def close(self) -> None:
        """Does not sync."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
