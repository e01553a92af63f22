"""A bucket in memory, compactors around it, and a plain list of all samples that were ever put in."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from prometheus_client import CollectorRegistry

from mimir_ray.bucket.layout import block_key, block_prefix
from mimir_ray.bucket.markers import list_marks
from mimir_ray.bucket.store import Bucket
from mimir_ray.clock import ManualClock
from mimir_ray.cluster.ring.lookup import RingOptions, RingView
from mimir_ray.cluster.ring.model import COMPACTOR, InstanceDesc, InstanceId, InstanceState, RingDesc
from mimir_ray.config.limits import Limits
from mimir_ray.config.units import Duration
from mimir_ray.model.labels import Labels
from mimir_ray.model.tenant import TenantId
from mimir_ray.roles.compactor.compactor import Compactor
from mimir_ray.roles.compactor.config import CompactorConfig
from mimir_ray.roles.compactor.job_run import JobRunner, is_block_file, upload_block
from mimir_ray.roles.compactor.merging import Merge, Verify, merge_folders
from mimir_ray.roles.compactor.metrics import CompactorMetrics
from mimir_ray.roles.compactor.ownership import Ownership
from mimir_ray.roles.compactor.tenant_blocks import list_blocks
from mimir_ray.testing.blocks import Points, content, make_block
from mimir_ray.testing.buckets import MemoryBucket
from mimir_ray.tsdb.block.meta import BlockMeta, make_ulid
from mimir_ray.tsdb.block.reader import Block
from mimir_ray.tsdb.compact.health import check_index

HOUR = 3_600_000
NOW_MS = 1_700_006_400_000 // (24 * HOUR) * (24 * HOUR)
TENANT = TenantId("team-a")
Content = dict[Labels, list[tuple[int, int]]]


def ring_of(*instances: str, state: InstanceState = InstanceState.ACTIVE) -> RingView:
    """Compactors with tokens spread evenly."""
    tokens = np.linspace(0, 2**32 - 1, 64 * max(1, len(instances))).astype(np.uint32)
    members = {
        InstanceId(name): InstanceDesc(
            InstanceId(name), name, state=state, tokens=tokens[at :: len(instances)], heartbeat_ms=1, registered_ms=1
        )
        for at, name in enumerate(instances)
    }
    return RingView(RingDesc(COMPACTOR, 1, 1, members), RingOptions())


class World:
    """`made` counts ULIDs, so that blocks are in the order in which they were made."""

    def __init__(self, directory: Path, bucket: Bucket | None = None, **config: object) -> None:
        self.directory = directory
        self.clock = ManualClock(NOW_MS)
        self.memory: Bucket = bucket or MemoryBucket(self.clock.now_ms)
        self.bucket = self.memory
        self.config = CompactorConfig(**{"first_level_compaction_wait_period": Duration(0), **config})  # type: ignore[arg-type]
        self.limits: dict[TenantId, Limits] = {}
        self.stop = False
        self.verify: Verify = check_index
        self._numbers = itertools.count(1)

    def randomness(self) -> bytes:
        return next(self._numbers).to_bytes(10, "big")

    def limits_of(self, tenant: TenantId) -> Limits:
        return self.limits.get(tenant, Limits())

    def wait(self, seconds: float) -> bool:
        self.clock.sleep(seconds)
        return self.stop

    def compactor(
        self,
        instance: str = "compactor-0",
        ring: Callable[[], RingView] | None = None,
        merge: Merge = merge_folders,
        bucket: Bucket | None = None,
    ) -> Compactor:
        """A compactor with a registry and a scratch folder of its own, as after a start of its process."""
        only = ring_of(instance)
        self.registry = CollectorRegistry()
        metrics = CompactorMetrics(self.registry)
        ownership = Ownership(
            InstanceId(instance),
            ring or (lambda: only),
            lambda tenant: self.limits_of(tenant).compactor_tenant_shard_size,
            self.config.allows,
        )
        chosen = bucket or self.bucket
        runner = JobRunner(
            chosen, self.directory / "scratch" / instance, merge, self.verify, 2, self.clock, metrics,
            self.randomness, lambda: self.stop,
        )  # fmt: skip
        rng = np.random.default_rng(1)
        return Compactor(self.config, chosen, self.limits_of, ownership, runner, self.clock, metrics, rng, self.wait)

    def ship(
        self, series: Sequence[tuple[Labels, Points]], start_ms: int, hours: float = 2, tenant: TenantId = TENANT,
        **more: object,
    ) -> str:  # fmt: skip
        """Uploads a first-level block for [start_ms, start_ms + hours), as an ingester does; its ULID."""
        ulid = make_ulid(self.clock.now_ms(), self.randomness())
        with TemporaryDirectory(dir=self.directory) as folder:
            meta = make_block(Path(folder), series, ulid, **more)
            meta.min_time, meta.max_time = start_ms, start_ms + int(hours * HOUR)
            (Path(folder) / ulid / "meta.json").write_bytes(meta.to_json())
            upload_block(self.memory, tenant, Path(folder) / ulid, ulid, 1)
        return ulid

    def metas(self, tenant: TenantId = TENANT) -> dict[str, BlockMeta]:
        """Of all complete blocks, marked or not."""
        return {
            ulid: BlockMeta.from_json(self.memory.get(block_key(tenant, ulid, "meta.json")))
            for ulid in sorted(list_blocks(self.memory, tenant))
            if self.memory.exists(block_key(tenant, ulid, "meta.json"))
        }

    def live(self, tenant: TenantId = TENANT) -> dict[str, BlockMeta]:
        """Of those that are not marked for deletion."""
        marked = list_marks(self.memory, tenant).deletion
        return {ulid: meta for ulid, meta in self.metas(tenant).items() if ulid not in marked}

    def content(self, ulids: Iterable[str], tenant: TenantId = TENANT) -> Content:
        """Samples of these blocks; one that several have is there once."""
        found: dict[Labels, dict[int, int]] = {}
        for ulid in ulids:
            for labels, points in self.block_content(ulid, tenant).items():
                for time, bits in points:
                    found.setdefault(labels, {}).setdefault(time, bits)
        return {labels: sorted(points.items()) for labels, points in found.items()}

    def block_content(self, ulid: str, tenant: TenantId = TENANT) -> Content:
        with TemporaryDirectory(dir=self.directory) as folder:
            prefix = block_prefix(tenant, ulid)
            for found in self.memory.list_objects(prefix):
                if is_block_file(name := found.key.removeprefix(prefix)):
                    self.memory.download(found.key, Path(folder) / name)
            return content(Block(Path(folder)))

    def value(self, name: str, **labels: str) -> float | None:
        """A metric of the compactor that was made last."""
        return self.registry.get_sample_value(name, labels)
