"""A tenant's blocks as compaction sees them: their descriptions, and which are marked.

Descriptions never change, so each is read once; a bucket index would be cheaper, but may be a quarter of an hour old.
Upstream: pkg/storage/tsdb/block/fetcher.go.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import structlog
from ulid import ULID

from mimir_ray.bucket.layout import CLUSTER_FOLDER, META, block_key, tenant_prefix
from mimir_ray.bucket.markers import list_marks
from mimir_ray.bucket.store import Bucket, ObjectNotFound
from mimir_ray.model.tenant import InvalidTenant, TenantId, validate_tenant
from mimir_ray.tsdb.block.errors import DamagedBlock
from mimir_ray.tsdb.block.meta import BlockMeta, is_ulid

log = structlog.get_logger(__name__)


def list_tenants(bucket: Bucket) -> list[TenantId]:
    """Everybody who has anything in the bucket. Folders that are no tenants' are passed over."""
    found = []
    for name in bucket.list_folders():
        try:
            if name != CLUSTER_FOLDER:
                found.append(validate_tenant(name))
        except InvalidTenant as error:
            log.warning("a folder of the bucket is no tenant's", folder=name, error=str(error))
    return found


def list_blocks(bucket: Bucket, tenant: TenantId) -> set[str]:
    """ULIDs of all blocks, incomplete ones too; one listing."""
    return {name for name in bucket.list_folders(tenant_prefix(tenant)) if is_ulid(name)}


@dataclass(frozen=True, slots=True)
class TenantBlocks:
    """Complete blocks that are not marked for deletion, by ULID; `no_compact`: which of them are left alone."""

    metas: Mapping[str, BlockMeta]
    no_compact: frozenset[str] = frozenset()


class BlockDescriptions:
    """Reads meta.json files, each once. Thread-safe.

    Keeps those of the tenants that were asked for; of a tenant those that its last listing had, so as many as the
    bucket has blocks of this compactor's tenants.
    """

    def __init__(self, bucket: Bucket, reads_at_once: int) -> None:
        self._bucket = bucket
        self._reads_at_once = reads_at_once
        self._known: dict[TenantId, dict[str, BlockMeta]] = {}
        self._lock = threading.Lock()

    def of_tenant(self, tenant: TenantId, not_before_ms: int = 0) -> TenantBlocks:
        """As of now. Blocks made before `not_before_ms`, and damaged descriptions, are left out.

        Raises `BucketUnavailable`.
        """
        # Blocks first: one that is compacted in between is then listed with its mark, its successor next time.
        found = list_blocks(self._bucket, tenant)
        marks = list_marks(self._bucket, tenant)
        wanted = {ulid for ulid in found - marks.deletion if not_before_ms <= 0 or _made_ms(ulid) >= not_before_ms}
        with self._lock:
            known = {ulid: meta for ulid, meta in self._known.get(tenant, {}).items() if ulid in wanted}
        missing = sorted(wanted - known.keys())
        if missing:
            with ThreadPoolExecutor(min(self._reads_at_once, len(missing)), "meta-sync") as pool:
                read = pool.map(lambda ulid: self._read(tenant, ulid), missing)
                known |= {meta.ulid: meta for meta in read if meta is not None}
        with self._lock:
            self._known[tenant] = known
        return TenantBlocks(dict(known), marks.no_compact & known.keys())

    def uploaded_ms(self, tenant: TenantId, ulid: str) -> int:
        """When a block was complete."""
        return self._bucket.info(block_key(tenant, ulid, META)).modified_ms

    def keep_only(self, tenants: set[TenantId]) -> None:
        """Forgets everybody else."""
        with self._lock:
            self._known = {tenant: known for tenant, known in self._known.items() if tenant in tenants}

    def _read(self, tenant: TenantId, ulid: str) -> BlockMeta | None:
        key = block_key(tenant, ulid, META)
        try:
            meta = BlockMeta.from_json(self._bucket.get(key), key)
            if meta.ulid != ulid:
                raise DamagedBlock(key, 0, f"it is of block {meta.ulid}")
        except ObjectNotFound:
            return None  # still being uploaded, or being deleted
        except DamagedBlock as error:
            log.error("block left out of compaction", user=tenant, block=ulid, error=str(error))
            return None
        return meta


def _made_ms(ulid: str) -> int:
    return ULID.from_str(ulid).milliseconds
