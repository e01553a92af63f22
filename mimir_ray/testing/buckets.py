"""Buckets for tests: one in memory, and one that fails when told to."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from mimir_ray.bucket.store import Bucket, ObjectInfo, ObjectNotFound, check_key, check_prefix


class MemoryBucket:
    """See `Bucket`. `now_ms`: gives the times of objects."""

    def __init__(self, now_ms: Callable[[], int] = lambda: 0) -> None:
        self._now_ms = now_ms
        self._objects: dict[str, tuple[bytes, int]] = {}
        self._lock = threading.Lock()

    def get(self, key: str) -> bytes:
        with self._lock:
            try:
                return self._objects[check_key(key)][0]
            except KeyError:
                raise ObjectNotFound(key) from None

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        return self.get(key)[offset : offset + length]

    def local_path(self, key: str) -> str | None:
        return None

    def download(self, key: str, path: Path) -> None:
        data = self.get(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def put(self, key: str, data: bytes) -> None:
        check_key(key)
        with self._lock:
            self._objects[key] = bytes(data), self._now_ms()

    def upload(self, path: Path, key: str) -> None:
        self.put(check_key(key), path.read_bytes())

    def exists(self, key: str) -> bool:
        return check_key(key) in self._objects

    def info(self, key: str) -> ObjectInfo:
        with self._lock:
            try:
                data, modified_ms = self._objects[check_key(key)]
            except KeyError:
                raise ObjectNotFound(key) from None
        return ObjectInfo(key, len(data), modified_ms)

    def list_folders(self, prefix: str = "") -> list[str]:
        check_prefix(prefix)
        with self._lock:
            below = [key.removeprefix(prefix) for key in self._objects if key.startswith(prefix)]
        return sorted({key.partition("/")[0] for key in below if "/" in key})

    def list_objects(self, prefix: str = "") -> Iterator[ObjectInfo]:
        check_prefix(prefix)
        with self._lock:
            found = [
                ObjectInfo(key, len(data), modified_ms)
                for key, (data, modified_ms) in sorted(self._objects.items())
                if key.startswith(prefix)
            ]
        yield from found

    def delete(self, key: str) -> None:
        check_key(key)
        with self._lock:
            self._objects.pop(key, None)


class WatchedBucket:
    """A bucket before whose every operation somebody is asked: `before(operation, key)` may raise or count."""

    def __init__(self, bucket: Bucket, before: Callable[[str, str], None]) -> None:
        self.bucket = bucket
        self.before = before

    def get(self, key: str) -> bytes:
        self.before("get", key)
        return self.bucket.get(key)

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        self.before("get_range", key)
        return self.bucket.get_range(key, offset, length)

    def local_path(self, key: str) -> str | None:
        """None: every read is an operation, that it may be watched."""
        return None

    def download(self, key: str, path: Path) -> None:
        self.before("download", key)
        self.bucket.download(key, path)

    def put(self, key: str, data: bytes) -> None:
        self.before("put", key)
        self.bucket.put(key, data)

    def upload(self, path: Path, key: str) -> None:
        self.before("upload", key)
        self.bucket.upload(path, key)

    def exists(self, key: str) -> bool:
        self.before("exists", key)
        return self.bucket.exists(key)

    def info(self, key: str) -> ObjectInfo:
        self.before("info", key)
        return self.bucket.info(key)

    def list_folders(self, prefix: str = "") -> list[str]:
        self.before("list_folders", prefix)
        return self.bucket.list_folders(prefix)

    def list_objects(self, prefix: str = "") -> Iterator[ObjectInfo]:
        self.before("list_objects", prefix)
        return self.bucket.list_objects(prefix)

    def delete(self, key: str) -> None:
        self.before("delete", key)
        self.bucket.delete(key)
