"""`Bucket`: objects by key, in a folder or in object storage. All that we ask of either.

Keys are slash-separated, without a leading slash. An object is there whole or not at all; what was put is seen by
the next read of its key (as S3 promises since 2020). Anything that fails for a reason that may pass is tried again here
until its time is up, so callers do not retry.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mimir_ray.errors import InvalidArgument, NotFound, Unavailable

KEY_BYTES_MAX = 1024
"""What S3 allows."""
_NO_NAMES = frozenset(("", ".", ".."))


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """An object of a listing."""

    key: str
    size: int
    modified_ms: int


@dataclass(eq=False)
class ObjectNotFound(NotFound):
    """There is no object with this key."""

    key: str

    def describe(self) -> str:
        return f"there is no object {self.key!r} in the bucket"


@dataclass(eq=False)
class InvalidKey(InvalidArgument):
    """A key that could mean something outside of where it belongs."""

    key: str

    def describe(self) -> str:
        return f"{self.key!r} is no valid object key"


@dataclass(eq=False)
class BucketUnavailable(Unavailable):
    """Object storage did not do what was asked, in several attempts."""

    operation: str
    key: str
    reason: str

    def describe(self) -> str:
        return f"object storage: cannot {self.operation} {self.key!r}: {self.reason}"


def check_key(key: str) -> str:
    """The key. Raises `InvalidKey` for an empty, `.` or `..` segment (so also for a slash at either end), a key that is
    too long, and one that is no text."""
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        raise InvalidKey(key) from None
    if not _NO_NAMES.isdisjoint(key.split("/")) or "\0" in key or size > KEY_BYTES_MAX:
        raise InvalidKey(key)
    return key


def check_prefix(prefix: str) -> str:
    """The prefix: "", or a valid key and a slash. Raises `InvalidKey`."""
    if prefix:
        if not prefix.endswith("/"):
            raise InvalidKey(prefix)
        check_key(prefix[:-1])
    return prefix


class Bucket(Protocol):
    """Thread-safe. Every method raises `BucketUnavailable`, and `InvalidKey`; those that read one object also
    `ObjectNotFound`."""

    def get(self, key: str) -> bytes:
        """The whole object."""

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        """`length` bytes from `offset` on; fewer only where the object ends."""

    def local_path(self, key: str) -> str | None:
        """Where an object is a file of this machine, to be mapped and never written; None where objects are not."""

    def download(self, key: str, path: Path) -> None:
        """The whole object into a file, without holding it in memory. The file is there whole or not at all."""

    def put(self, key: str, data: bytes) -> None:
        """Makes or replaces an object."""

    def upload(self, path: Path, key: str) -> None:
        """Makes or replaces an object from a file, without holding it in memory."""

    def exists(self, key: str) -> bool: ...

    def info(self, key: str) -> ObjectInfo: ...

    def list_folders(self, prefix: str = "") -> list[str]:
        """Sorted names (not keys, no slash) one level below `prefix`, which is "" or ends with a slash."""

    def list_objects(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """All objects below `prefix`, at any depth, sorted by key; none where the prefix does not exist."""

    def delete(self, key: str) -> None:
        """An object that is not there is no error."""


@dataclass(frozen=True, slots=True)
class PrefixedBucket:
    """The part of a bucket below a prefix ("" or ending with a slash), as a bucket."""

    bucket: Bucket
    prefix: str

    def __post_init__(self) -> None:
        check_prefix(self.prefix)

    def get(self, key: str) -> bytes:
        return self.bucket.get(self.prefix + key)

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        return self.bucket.get_range(self.prefix + key, offset, length)

    def local_path(self, key: str) -> str | None:
        return self.bucket.local_path(self.prefix + key)

    def download(self, key: str, path: Path) -> None:
        self.bucket.download(self.prefix + key, path)

    def put(self, key: str, data: bytes) -> None:
        self.bucket.put(self.prefix + key, data)

    def upload(self, path: Path, key: str) -> None:
        self.bucket.upload(path, self.prefix + key)

    def exists(self, key: str) -> bool:
        return self.bucket.exists(self.prefix + key)

    def info(self, key: str) -> ObjectInfo:
        found = self.bucket.info(self.prefix + key)
        return ObjectInfo(key, found.size, found.modified_ms)

    def list_folders(self, prefix: str = "") -> list[str]:
        return self.bucket.list_folders(self.prefix + prefix)

    def list_objects(self, prefix: str = "") -> Iterator[ObjectInfo]:
        for found in self.bucket.list_objects(self.prefix + prefix):
            yield ObjectInfo(found.key.removeprefix(self.prefix), found.size, found.modified_ms)

    def delete(self, key: str) -> None:
        self.bucket.delete(self.prefix + key)
