"""A bucket in a folder of this machine."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from mimir_ray.clock import SystemClock
from mimir_ray.tsdb.append_file import sync_directory

from .store import BucketUnavailable, InvalidKey, ObjectInfo, ObjectNotFound, check_key, check_prefix

TEMPORARY = ".tmp-"
ABANDONED_S = 24 * 3600
"""A temporary file this old is of a writer that died."""
_ATTEMPTS = 20
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR)


class FilesystemBucket:
    """See `Bucket`. Objects are written beside their place, made durable and renamed: nobody sees half of one, and one
    that was acknowledged survives the machine's crash. Folders come with their first object and go with their last."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def _path(self, key: str) -> Path:
        parts = check_key(key).split("/")
        if any(part.startswith(TEMPORARY) for part in parts):
            raise InvalidKey(key)
        return self._root.joinpath(*parts)

    def _folder(self, prefix: str) -> Path:
        return self._path(check_prefix(prefix)[:-1]) if prefix else self._root

    def get(self, key: str) -> bytes:
        try:
            return self._path(key).read_bytes()
        except OSError as error:
            raise _failure("read", key, error) from None

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        try:
            with self._path(key).open("rb", buffering=0) as file:
                found: list[bytes] = []
                while length > 0 and (some := os.pread(file.fileno(), length, offset)):
                    found.append(some)
                    offset, length = offset + len(some), length - len(some)
                return found[0] if len(found) == 1 else b"".join(found)
        except OSError as error:
            raise _failure("read", key, error) from None

    def local_path(self, key: str) -> str | None:
        path = f"{self._root}/{check_key(key)}"
        if TEMPORARY in key:
            raise InvalidKey(key)
        if not os.path.isfile(path):
            raise ObjectNotFound(key)
        return path

    def download(self, key: str, path: Path) -> None:
        source = self._path(key)
        try:
            place(path, lambda temporary: shutil.copyfile(source, temporary), durable=False)
        except OSError as error:
            raise _failure("download", key, error, source) from None

    def put(self, key: str, data: bytes) -> None:
        try:
            place(self._path(key), lambda temporary: temporary.write_bytes(data))
        except OSError as error:
            raise _failure("write", key, error) from None

    def upload(self, path: Path, key: str) -> None:
        try:
            place(self._path(key), lambda temporary: shutil.copyfile(path, temporary))
        except OSError as error:
            raise _failure("upload", key, error) from None

    def exists(self, key: str) -> bool:
        try:
            self.info(key)
        except ObjectNotFound:
            return False
        return True

    def info(self, key: str) -> ObjectInfo:
        try:
            found = self._path(key).stat()
        except OSError as error:
            raise _failure("look at", key, error) from None
        if not os.path.isfile(self._path(key)):
            raise ObjectNotFound(key)
        return ObjectInfo(key, found.st_size, found.st_mtime_ns // 1_000_000)

    def list_folders(self, prefix: str = "") -> list[str]:
        """Folders without an object are none, as in object storage: what a dead writer left keeps nothing alive."""
        try:
            with os.scandir(self._folder(prefix)) as entries:
                folders = [Path(one.path) for one in entries if one.is_dir()]
            found = []
            for one in folders:
                if _has_object(one):
                    found.append(one.name)
                else:
                    _remove_abandoned(one)
            return sorted(found)
        except OSError as error:
            if error.errno in _GONE:
                return []
            raise _failure("list", prefix, error) from None

    def list_objects(self, prefix: str = "") -> Iterator[ObjectInfo]:
        def failed(error: OSError) -> None:
            if error.errno not in _GONE:
                raise _failure("list", prefix, error) from None

        keys = [
            Path(folder, name).relative_to(self._root).as_posix()
            for folder, _, names in os.walk(self._folder(prefix), onerror=failed)
            for name in names
            if not name.startswith(TEMPORARY)
        ]
        for key in sorted(keys):
            try:
                yield self.info(key)
            except ObjectNotFound:
                continue  # it was deleted since

    def delete(self, key: str) -> None:
        path = self._path(key)
        try:
            path.unlink(missing_ok=True)
            for folder in path.parents:
                if folder == self._root or not _remove_if_empty(folder):
                    break
        except OSError as error:
            if error.errno not in _GONE:
                raise _failure("delete", key, error) from None


def place(target: Path, write: Callable[[Path], object], durable: bool = True) -> None:
    """Makes or replaces a file that `write` fills, in one step; durably, its name included. Raises OSError."""
    temporary = target.with_name(TEMPORARY + secrets.token_hex(8))
    for left in reversed(range(_ATTEMPTS)):
        try:
            made = _make_folders(target.parent)
            try:
                write(temporary)
                if durable:
                    _sync(temporary)
                temporary.replace(target)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
            if durable:
                for folder in (target.parent, *(one.parent for one in made)):
                    sync_directory(folder)
            return
        except FileNotFoundError:
            # Whoever deletes a folder's last object removes the folder, also one that somebody just made.
            if not left:
                raise


def _make_folders(folder: Path) -> list[Path]:
    """Those that were not there yet, the inner one first."""
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for one in reversed(missing):
        one.mkdir(exist_ok=True)
    return missing


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_if_empty(folder: Path) -> bool:
    """Whether it is gone. Files that a writer left behind when it died do not count."""
    try:
        with os.scandir(folder) as entries:
            for one in entries:
                if (
                    not one.name.startswith(TEMPORARY)
                    or SystemClock().now_ms() / 1000 - one.stat().st_mtime < ABANDONED_S
                ):
                    return False
                os.unlink(one.path)
        folder.rmdir()
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        if error.errno != errno.ENOENT:
            raise
    return True


def _has_object(folder: Path) -> bool:
    return any(not name.startswith(TEMPORARY) for _, _, names in os.walk(folder) for name in names)


def _remove_abandoned(folder: Path) -> None:
    """Removes a folder without an object, unless somebody may be about to write one."""
    for one, _, _ in os.walk(folder, topdown=False):
        _remove_if_empty(Path(one))


def _failure(operation: str, key: str, error: OSError, source: Path | None = None) -> Exception:
    reading = operation in ("read", "look at") or (source is not None and not source.is_file())
    if error.errno in _GONE and reading:
        return ObjectNotFound(key)
    return BucketUnavailable(operation, key, error.strerror or str(error))
