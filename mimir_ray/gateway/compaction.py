"""What the gateway has of compactors: the bucket's admin side, uploads of blocks, and the way to a compactor."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

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
THREADS = 8

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Compaction:
    """`spool`: a folder for bodies on their way into the bucket. `threads`: of their own, as large files take long and
    must not keep queries waiting."""

    admin: CompactorAdmin
    uploads: BlockUploads
    spool: Path
    owner: Callable[[TenantId, str], str]
    """The actor that checks an uploaded block; "" where no compactor is well."""
    transport: Transport
    threads: Executor

    async def in_thread(self, call: Callable[[], Answer]) -> Answer:
        """Runs blocking work beside the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self.threads, call)

    def close(self) -> None:
        """What has not begun does not begin any more."""
        self.threads.shutdown(wait=False, cancel_futures=True)

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

    threads = ThreadPoolExecutor(THREADS, "blocks-api")

    def owner(tenant: TenantId, ulid: str) -> str:
        found = ownership.owner(tenant, block_token(ulid))
        return found.address if found else ""

    return Compaction(
        CompactorAdmin(config, bucket, limits, ownership, clock), uploads, spool, owner, transport, threads
    )
