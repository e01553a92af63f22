"""Marks: small objects that say what shall become of a block, or of a tenant.

A block's mark is kept twice: in `markers/`, which is what everybody lists and reads, and in the block's own folder. The
global copy is written first and removed last, so whoever is interrupted leaves a mark that counts and can be written or
removed again. Mimir's JSON. Upstream: pkg/storage/tsdb/block/markers.go, pkg/storage/tsdb/tenant_deletion_mark.go.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import orjson

from mimir_ray.errors import Corruption
from mimir_ray.model.tenant import TenantId
from mimir_ray.tsdb.block.meta import is_ulid

from .layout import (
    DELETION_MARK,
    NO_COMPACT_MARK,
    block_key,
    marker_key,
    markers_prefix,
    tenant_deletion_mark_key,
)
from .store import Bucket, ObjectNotFound

Mark = TypeVar("Mark")

VERSION = 1
NO_COMPACT_MANUAL = "manual"
NO_COMPACT_INDEX_SIZE = "index-size-exceeding"
NO_COMPACT_OUT_OF_ORDER_CHUNKS = "block-index-out-of-order-chunk"
NO_COMPACT_CRITICAL = "critical"
"""Reasons of no-compact marks. Upstream: NoCompactReason."""


@dataclass(eq=False)
class DamagedMark(Corruption):
    """A mark that cannot be read."""

    key: str
    reason: str

    def describe(self) -> str:
        return f"{self.key}: {self.reason}"


@dataclass(frozen=True, slots=True)
class DeletionMark:
    """The block is no longer used, and is deleted some hours after `deletion_time` (unix seconds)."""

    ulid: str
    deletion_time: int
    details: str = ""

    def to_json(self) -> bytes:
        body = {"id": self.ulid, "version": VERSION, "details": self.details, "deletion_time": self.deletion_time}
        return orjson.dumps(body)


@dataclass(frozen=True, slots=True)
class NoCompactMark:
    """The block is left as it is by compactions. `no_compact_time`: unix seconds."""

    ulid: str
    no_compact_time: int
    reason: str = NO_COMPACT_MANUAL
    details: str = ""

    def to_json(self) -> bytes:
        body = {
            "id": self.ulid,
            "version": VERSION,
            "details": self.details,
            "no_compact_time": self.no_compact_time,
            "reason": self.reason,
        }
        return orjson.dumps(body)


@dataclass(frozen=True, slots=True)
class TenantDeletionMark:
    """The tenant's blocks are being deleted. Unix seconds; `finished_time`: when all were, 0 while not."""

    deletion_time: int
    finished_time: int = 0

    def to_json(self) -> bytes:
        body = {"deletion_time": self.deletion_time}
        return orjson.dumps(body | ({"finished_time": self.finished_time} if self.finished_time else {}))


@dataclass(frozen=True, slots=True)
class Marks:
    """Which blocks of a tenant have marks: ULIDs."""

    deletion: frozenset[str] = frozenset()
    no_compact: frozenset[str] = frozenset()


def list_marks(bucket: Bucket, tenant: TenantId) -> Marks:
    """Of all blocks, those that are gone included; one listing. Raises `BucketUnavailable`."""
    found: dict[str, set[str]] = {DELETION_MARK: set(), NO_COMPACT_MARK: set()}
    prefix = markers_prefix(tenant)
    for one in bucket.list_objects(prefix):
        ulid, dash, mark = one.key.removeprefix(prefix).partition("-")
        if dash and mark in found and is_ulid(ulid):
            found[mark].add(ulid)
    return Marks(frozenset(found[DELETION_MARK]), frozenset(found[NO_COMPACT_MARK]))


def write_deletion_mark(bucket: Bucket, tenant: TenantId, mark: DeletionMark) -> None:
    """Raises `BucketUnavailable`; then the mark may count already."""
    _write(bucket, tenant, mark.ulid, DELETION_MARK, mark.to_json())


def write_no_compact_mark(bucket: Bucket, tenant: TenantId, mark: NoCompactMark) -> None:
    """As `write_deletion_mark`."""
    _write(bucket, tenant, mark.ulid, NO_COMPACT_MARK, mark.to_json())


def _write(bucket: Bucket, tenant: TenantId, ulid: str, mark: str, data: bytes) -> None:
    bucket.put(marker_key(tenant, ulid, mark), data)
    bucket.put(block_key(tenant, ulid, mark), data)


def remove_mark(bucket: Bucket, tenant: TenantId, ulid: str, mark: str) -> None:
    """Both copies of `DELETION_MARK` or `NO_COMPACT_MARK`; where there is none, nothing."""
    bucket.delete(block_key(tenant, ulid, mark))
    bucket.delete(marker_key(tenant, ulid, mark))


def read_deletion_mark(bucket: Bucket, tenant: TenantId, ulid: str) -> DeletionMark | None:
    """The global copy; None if there is none. Raises `DamagedMark` and `BucketUnavailable`."""

    def parse(body: dict[str, Any]) -> DeletionMark:
        return DeletionMark(_block(body, ulid), _seconds(body, "deletion_time"), _text(body, "details"))

    return _read(bucket, marker_key(tenant, ulid, DELETION_MARK), parse)


def read_no_compact_mark(bucket: Bucket, tenant: TenantId, ulid: str) -> NoCompactMark | None:
    """As `read_deletion_mark`."""

    def parse(body: dict[str, Any]) -> NoCompactMark:
        seconds = _seconds(body, "no_compact_time")
        return NoCompactMark(_block(body, ulid), seconds, _text(body, "reason"), _text(body, "details"))

    return _read(bucket, marker_key(tenant, ulid, NO_COMPACT_MARK), parse)


def write_tenant_deletion_mark(bucket: Bucket, tenant: TenantId, mark: TenantDeletionMark) -> None:
    bucket.put(tenant_deletion_mark_key(tenant), mark.to_json())


def read_tenant_deletion_mark(bucket: Bucket, tenant: TenantId) -> TenantDeletionMark | None:
    """None if the tenant is not being deleted. Raises `DamagedMark` and `BucketUnavailable`."""

    def parse(body: dict[str, Any]) -> TenantDeletionMark:
        return TenantDeletionMark(_seconds(body, "deletion_time"), _seconds(body, "finished_time"))

    return _read(bucket, tenant_deletion_mark_key(tenant), parse)


def tenant_is_marked(bucket: Bucket, tenant: TenantId) -> bool:
    """Whether the tenant is being, or was, deleted; whatever the mark says."""
    return bucket.exists(tenant_deletion_mark_key(tenant))


def _read(bucket: Bucket, key: str, parse: Callable[[dict[str, Any]], Mark]) -> Mark | None:
    try:
        data = bucket.get(key)
    except ObjectNotFound:
        return None
    try:
        body = orjson.loads(data)
        if not isinstance(body, dict):
            raise ValueError("no JSON object")
        return parse(body)
    except (ValueError, TypeError) as error:
        raise DamagedMark(key, f"no mark: {error}") from None


def _block(body: dict[str, Any], ulid: str) -> str:
    if body.get("version") != VERSION:
        raise ValueError(f"unexpected version {body.get('version')!r}")
    if body.get("id") != ulid:
        raise ValueError(f"it is of block {body.get('id')!r}")
    return ulid


def _seconds(body: dict[str, Any], name: str) -> int:
    value = body.get(name, 0)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{name} is no integer")
    return value


def _text(body: dict[str, Any], name: str) -> str:
    value = body.get(name, "")
    if not isinstance(value, str):
        raise ValueError(f"{name} is no string")
    return value
