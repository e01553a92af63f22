"""A bucket on any other object storage that has an fsspec filesystem: Google's, Azure's.

Differs from s3.py: the filesystems' own retries are in effect beneath ours, and an object that is replaced while it is
downloaded in pieces is noticed by its size only.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import fsspec
from fsspec.exceptions import FSTimeoutError

from mimir_ray.errors import InvalidArgument

from .config import AzureConfig, GcsConfig
from .filesystem import place
from .retry import PassingFailure, Retry
from .store import BucketUnavailable, ObjectInfo, ObjectNotFound, check_key, check_prefix

Result = TypeVar("Result")

EXTRAS = {"gcs": "gcs", "abfs": "azure"}
"""Protocol → extra of our package that brings it."""
PIECE_BYTES = 16 << 20


class BackendNotInstalled(InvalidArgument):
    """The package that speaks to this object storage is missing."""


class RemoteBucket:
    """See `Bucket`. Thread-safe as far as the filesystem is; `root`: the bucket's name."""

    def __init__(self, filesystem: Any, root: str, retry: Retry) -> None:
        self._filesystem = filesystem
        self._root = root.strip("/")
        self._retry = retry
        # Filesystems with an event loop of their own take a time limit for each call.
        self._limits = {"timeout": retry.config.timeout.seconds} if filesystem.async_impl else {}

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}" if key else self._root

    def _request(self, operation: str, key: str, make: Callable[[], Result]) -> Result:
        def attempt() -> Result:
            try:
                return make()
            except Exception as error:  # noqa: BLE001  (translated, and raised)
                raise _failure(operation, key, error) from None

        return self._retry.run(operation, key, attempt)

    def get(self, key: str) -> bytes:
        path = self._path(check_key(key))
        return self._request("read", key, lambda: bytes(self._filesystem.cat_file(path, **self._limits)))

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        size = self.info(key).size
        end = min(size, offset + length)
        if end <= offset:
            return b""
        path = self._path(key)

        def read() -> bytes:
            data = bytes(self._filesystem.cat_file(path, start=offset, end=end, **self._limits))
            if len(data) != end - offset:
                raise PassingFailure(f"{len(data)} bytes came, of {end - offset}")
            return data

        return self._request("read", key, read)

    def local_path(self, key: str) -> str | None:
        return None

    def download(self, key: str, path: Path) -> None:
        def write(temporary: Path) -> None:
            size = self.info(key).size
            with temporary.open("wb") as file:
                for start in range(0, size, PIECE_BYTES):
                    piece = self.get_range(key, start, min(PIECE_BYTES, size - start))
                    if len(piece) != min(PIECE_BYTES, size - start):
                        raise BucketUnavailable("download", key, "it was replaced meanwhile")
                    file.write(piece)

        try:
            place(path, write, durable=False)
        except OSError as error:
            raise BucketUnavailable("download", key, f"{path}: {error.strerror or error}") from None

    def put(self, key: str, data: bytes) -> None:
        path = self._path(check_key(key))
        self._request("write", key, lambda: self._filesystem.pipe_file(path, data, **self._limits))

    def upload(self, path: Path, key: str) -> None:
        remote = self._path(check_key(key))
        self._request("upload", key, lambda: self._filesystem.put_file(str(path), remote))

    def exists(self, key: str) -> bool:
        try:
            self.info(key)
        except ObjectNotFound:
            return False
        return True

    def info(self, key: str) -> ObjectInfo:
        path = self._path(check_key(key))

        def look() -> ObjectInfo:
            self._filesystem.invalidate_cache()
            found = self._filesystem.info(path, **self._limits)
            if found["type"] != "file":
                raise ObjectNotFound(key)
            return ObjectInfo(key, int(found["size"] or 0), _modified_ms(found))

        return self._request("look at", key, look)

    def list_folders(self, prefix: str = "") -> list[str]:
        check_prefix(prefix)
        path = self._path(prefix.rstrip("/"))

        def look() -> list[str]:
            self._filesystem.invalidate_cache()
            try:
                found = self._filesystem.ls(path, detail=True, **self._limits)
            except FileNotFoundError:
                return []
            names = (one["name"].strip("/").removeprefix(f"{path}/") for one in found if one["type"] == "directory")
            return sorted(name for name in names if name and name != path and "/" not in name)

        return self._request("list", prefix, look)

    def list_objects(self, prefix: str = "") -> Iterator[ObjectInfo]:
        check_prefix(prefix)
        path = self._path(prefix.rstrip("/"))

        def look() -> list[ObjectInfo]:
            self._filesystem.invalidate_cache()
            try:
                found = self._filesystem.find(path, detail=True, **self._limits)
            except FileNotFoundError:
                return []
            root = f"{self._root}/"
            infos = (
                ObjectInfo(name.strip("/").removeprefix(root), int(one["size"] or 0), _modified_ms(one))
                for name, one in found.items()
                if one["type"] == "file"
            )
            return sorted((one for one in infos if one.key.startswith(prefix)), key=lambda one: one.key)

        yield from self._request("list", prefix, look)

    def delete(self, key: str) -> None:
        path = self._path(check_key(key))
        try:
            self._request("delete", key, lambda: self._filesystem.rm_file(path))
        except ObjectNotFound:
            return


def _modified_ms(found: dict[str, Any]) -> int:
    """Filesystems call it differently, and give times or texts."""
    for name in ("LastModified", "last_modified", "updated", "mtime", "created"):
        value = found.get(name)
        if isinstance(value, str):
            value = datetime.fromisoformat(value.replace("Z", "+00:00"))
        if isinstance(value, datetime):
            return int(value.timestamp() * 1000)
    return 0


def _failure(operation: str, key: str, error: Exception) -> Exception:
    if isinstance(error, FileNotFoundError):
        return ObjectNotFound(key)
    if isinstance(error, (PermissionError, FileExistsError, NotADirectoryError, IsADirectoryError)):
        return BucketUnavailable(operation, key, str(error))
    if isinstance(error, (asyncio.TimeoutError, FSTimeoutError)):
        return PassingFailure("it took too long")
    status = getattr(error, "status", None) or getattr(error, "status_code", None) or getattr(error, "code", None)
    if isinstance(status, int) and 400 <= status < 500 and status not in (408, 429):
        return ObjectNotFound(key) if status == 404 else BucketUnavailable(operation, key, str(error))
    if isinstance(error, (OSError, EOFError)) or isinstance(status, int):
        return PassingFailure(str(error) or type(error).__name__)
    return error


def open_filesystem(protocol: str, **options: Any) -> Any:
    """The filesystem of a protocol. Raises `BackendNotInstalled` with the command that helps."""
    try:
        return fsspec.filesystem(protocol, skip_instance_cache=True, use_listings_cache=False, **options)
    except ImportError as error:
        extra = EXTRAS.get(protocol, protocol)
        raise BackendNotInstalled(
            f"object storage {extra!r} needs a package that is not here: pip install 'mimir-ray[{extra}]' ({error})"
        ) from None


def open_gcs(config: GcsConfig, retry: Retry) -> RemoteBucket:
    token: Any = str(config.service_account) or None
    if token and token.lstrip().startswith("{"):
        token = json.loads(token)
    return RemoteBucket(open_filesystem("gcs", token=token), config.bucket_name, retry)


def open_azure(config: AzureConfig, retry: Retry) -> RemoteBucket:
    options: dict[str, Any] = {"account_name": config.account_name or None, "anon": False}
    if config.connection_string:
        options["connection_string"] = str(config.connection_string)
    if config.account_key:
        options["account_key"] = str(config.account_key)
    if config.endpoint_suffix:
        options["account_host"] = f"{config.account_name}.{config.endpoint_suffix}"
    return RemoteBucket(open_filesystem("abfs", **options), config.container_name, retry)
