"""A bucket in a folder of this machine."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from .store import BucketUnavailable, ObjectInfo, ObjectNotFound, check_key

TEMPORARY = ".tmp-"


class FilesystemBucket:
    """See `Bucket`. Objects are written beside their place and renamed, so nobody sees half of one."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def _path(self, key: str) -> Path:
        return self._root.joinpath(*check_key(key).split("/"))

    def get(self, key: str) -> bytes:
        try:
            return self._path(key).read_bytes()
        except OSError as error:
            raise _failure("read", key, error) from None

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        try:
            with self._path(key).open("rb") as file:
                return os.pread(file.fileno(), length, offset)
        except OSError as error:
            raise _failure("read", key, error) from None

    def download(self, key: str, path: Path) -> None:
        self._copy("download", key, self._path(key), path)

    def put(self, key: str, data: bytes) -> None:
        path = self._path(key)
        temporary = path.with_name(TEMPORARY + secrets.token_hex(8))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(data)
            temporary.replace(path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise _failure("write", key, error) from None

    def upload(self, path: Path, key: str) -> None:
        self._copy("upload", key, path, self._path(key))

    def _copy(self, operation: str, key: str, source: Path, target: Path) -> None:
        temporary = target.with_name(TEMPORARY + secrets.token_hex(8))
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, temporary)
            temporary.replace(target)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise _failure(operation, key, error) from None

    def exists(self, key: str) -> bool:
        return self._path(key).is_file()

    def info(self, key: str) -> ObjectInfo:
        try:
            found = self._path(key).stat()
        except OSError as error:
            raise _failure("look at", key, error) from None
        return ObjectInfo(key, found.st_size, found.st_mtime_ns // 1_000_000)

    def list_folders(self, prefix: str = "") -> list[str]:
        folder = self._path(prefix.rstrip("/")) if prefix else self._root
        try:
            return sorted(one.name for one in os.scandir(folder) if one.is_dir())
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _failure("list", prefix, error) from None

    def list_objects(self, prefix: str = "") -> Iterator[ObjectInfo]:
        folder = self._path(prefix.rstrip("/")) if prefix else self._root
        keys = sorted(
            path.relative_to(self._root).as_posix()
            for path in folder.rglob("*")
            if path.is_file() and not path.name.startswith(TEMPORARY)
        )
        for key in keys:
            yield self.info(key)

    def delete(self, key: str) -> None:
        path = self._path(key)
        try:
            path.unlink(missing_ok=True)
            for folder in path.parents:
                if folder == self._root or any(folder.iterdir()):
                    break
                folder.rmdir()
        except OSError as error:
            raise _failure("delete", key, error) from None


def _failure(operation: str, key: str, error: OSError) -> Exception:
    if isinstance(error, (FileNotFoundError, NotADirectoryError, IsADirectoryError)) and operation != "write":
        return ObjectNotFound(key)
    return BucketUnavailable(operation, key, error.strerror or str(error))
