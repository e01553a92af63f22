"""What the gateway has of compactors: the bucket's admin side, uploads of blocks, and the way to a compactor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from mimir_ray.bucket.open import open_bucket
from mimir_ray.clock import Clock
from mimir_ray.cluster.ring.lookup import RingView
from mimir_ray.cluster.ring.model import InstanceId
from mimir_ray.cluster.transport.base import Transport
from mimir_ray.config.limits import Limits
from mimir_ray.model.tenant import TenantId
from mimir_ray.roles.compactor.admin import CompactorAdmin
from mimir_ray.roles.compactor.block_upload import BlockUploads, clear_scratch
from mimir_ray.roles.compactor.ownership import Ownership
from mimir_ray.tsdb.compact.plan import block_token

FINISH_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Compaction:
    """`spool`: a folder for bodies on their way into the bucket."""

    admin: CompactorAdmin
    uploads: BlockUploads
    spool: Path
    owner: Callable[[TenantId, str], str]
    """The actor that checks an uploaded block; "" where no compactor is well."""
    transport: Transport

    def finish_upload(self, tenant: TenantId, ulid: str) -> None:
        """Has a compactor check the block; where there is none, this process does. Blocks."""
        self.uploads.allow(tenant, ulid)
        if actor := self.owner(tenant, ulid):
            self.transport.client(actor).call("finish_block_upload", tenant, ulid, timeout_s=FINISH_TIMEOUT_S)
        else:
            self.uploads.finish(tenant, ulid)


def compaction(
    settings: Any,
    limits: Callable[[TenantId], Limits],
    ring: Callable[[], RingView],
    transport: Transport,
    clock: Clock,
    registry: CollectorRegistry,
) -> Compaction:
    """Of one gateway process. `settings`: deploy.settings.Settings."""
    config = settings.compactor
    bucket = open_bucket(settings.blocks_bucket, "compactor", registry)
    ownership = Ownership(
        InstanceId(""), ring, lambda tenant: limits(tenant).compactor_tenant_shard_size, config.allows
    )
    spool = settings.compactor_dir / "gateway"
    clear_scratch(spool)
    uploads = BlockUploads(
        bucket,
        limits,
        spool,
        config.max_block_upload_validation_concurrency,
        clock,
        registry,
    )

    def owner(tenant: TenantId, ulid: str) -> str:
        found = ownership.owner(tenant, block_token(ulid))
        return found.address if found else ""

    return Compaction(CompactorAdmin(config, bucket, limits, ownership, clock), uploads, spool, owner, transport)
