"""Settings of compactors: the block `compactor`. Upstream: pkg/compactor/compactor.go Config."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from mimir_ray.config.setting import block, setting
from mimir_ray.config.units import Duration, duration


@dataclass(frozen=True, slots=True)
class CompactorRingConfig:
    """How compactors share tenants and jobs."""

    num_tokens: int = setting(
        512,
        flag="compactor.ring.num-tokens",
        category="advanced",
        minimum=1,
        maximum=4096,
        help="Tokens of each compactor in the ring.",
    )
    heartbeat_period: Duration = setting(
        duration("15s"),
        flag="compactor.ring.heartbeat-period",
        category="advanced",
        minimum=1,
        help="Time between signs of life.",
    )
    heartbeat_timeout: Duration = setting(
        duration("1m"),
        flag="compactor.ring.heartbeat-timeout",
        category="advanced",
        minimum=1,
        help="A compactor without a sign of life for this long gets no jobs.",
    )
    wait_stability_min_duration: Duration = setting(
        Duration(0),
        flag="compactor.ring.wait-stability-min-duration",
        category="advanced",
        minimum=0,
        help="How long the ring has to stay as it is before a compactor that starts takes jobs; 0 does not wait.",
    )
    wait_stability_max_duration: Duration = setting(
        duration("5m"),
        flag="compactor.ring.wait-stability-max-duration",
        category="advanced",
        minimum=0,
        help="After so long it takes jobs though the ring still changes.",
    )


@dataclass(frozen=True, slots=True)
class CompactorConfig:
    """The `compactor` block."""

    block_ranges: tuple[Duration, ...] = setting(
        [duration("2h"), duration("12h"), duration("24h")],
        flag="compactor.block-ranges",
        category="advanced",
        help="Lengths of time that blocks are compacted to, one after the other.",
    )
    block_sync_concurrency: int = setting(
        8,
        flag="compactor.block-sync-concurrency",
        category="advanced",
        minimum=1,
        maximum=256,
        help="Files that are downloaded or uploaded at once for a job.",
    )
    meta_sync_concurrency: int = setting(
        20,
        flag="compactor.meta-sync-concurrency",
        category="advanced",
        minimum=1,
        maximum=256,
        help="Descriptions of blocks that are read from object storage at once.",
    )
    data_dir: str = setting(
        "",
        flag="compactor.data-dir",
        help="Where blocks lie while they are compacted; empty: `compactor` in the data directory.",
    )
    compaction_interval: Duration = setting(
        duration("1h"),
        flag="compactor.compaction-interval",
        category="advanced",
        minimum=1,
        help="Time between runs, give or take 5 %.",
    )
    compaction_retries: int = setting(
        3,
        flag="compactor.compaction-retries",
        category="advanced",
        minimum=1,
        maximum=100,
        help="Attempts for a tenant within a run.",
    )
    compaction_concurrency: int = setting(
        1,
        flag="compactor.compaction-concurrency",
        category="advanced",
        minimum=1,
        maximum=64,
        help="Jobs of a tenant that run at once.",
    )
    first_level_compaction_wait_period: Duration = setting(
        duration("25m"),
        flag="compactor.first-level-compaction-wait-period",
        minimum=0,
        help="How long blocks that ingesters shipped wait for those of the other replicas. Out-of-order blocks do not.",
    )
    first_level_compaction_ooo_wait_period: Duration = setting(
        Duration(0),
        flag="compactor.first-level-compaction-ooo-wait-period",
        category="experimental",
        minimum=0,
        help="The same for out-of-order blocks.",
    )
    first_level_compaction_skip_future_max_time: bool = setting(
        False,
        flag="compactor.first-level-compaction-skip-future-max-time",
        category="experimental",
        help="Whether first-level blocks also wait until their newest sample is as old as the wait period.",
    )
    cleanup_interval: Duration = setting(
        duration("15m"),
        flag="compactor.cleanup-interval",
        category="advanced",
        minimum=1,
        help="How often tenants are tidied up and their bucket index is written.",
    )
    new_block_check_interval: Duration = setting(
        duration("30s"),
        flag="compactor.new-block-check-interval",
        category="advanced",
        minimum=1,
        help="How often the names of a tenant's blocks are listed; where they changed, its bucket index is written "
        "before it is due. Ours.",
    )
    cleanup_concurrency: int = setting(
        20,
        flag="compactor.cleanup-concurrency",
        category="advanced",
        minimum=1,
        maximum=256,
        help="Tenants that are tidied up at once.",
    )
    update_blocks_concurrency: int = setting(
        16,
        flag="compactor.update-blocks-concurrency",
        category="advanced",
        minimum=1,
        maximum=256,
        help="Descriptions of blocks that are read at once for a tenant's bucket index.",
    )
    deletion_delay: Duration = setting(
        duration("12h"),
        flag="compactor.deletion-delay",
        category="advanced",
        minimum=0,
        help="How long a block that is marked for deletion stays, for queries that still use it.",
    )
    tenant_cleanup_delay: Duration = setting(
        duration("6h"),
        flag="compactor.tenant-cleanup-delay",
        category="advanced",
        minimum=0,
        help="How long the marks of a deleted tenant stay after its last block has gone.",
    )
    max_compaction_time: Duration = setting(
        duration("1h"),
        flag="compactor.max-compaction-time",
        category="advanced",
        minimum=0,
        help="For so long jobs of one tenant are begun within a run; 0 is no limit.",
    )
    max_block_upload_validation_concurrency: int = setting(
        1,
        flag="compactor.max-block-upload-validation-concurrency",
        category="advanced",
        minimum=0,
        help="Uploaded blocks that are checked at once; 0 is no limit.",
    )
    enabled_tenants: tuple[str, ...] = setting(
        [], flag="compactor.enabled-tenants", category="advanced", help="Only these tenants are compacted, if any."
    )
    disabled_tenants: tuple[str, ...] = setting(
        [], flag="compactor.disabled-tenants", category="advanced", help="Tenants that are not compacted."
    )
    compaction_jobs_order: Literal["smallest-range-oldest-blocks-first", "newest-blocks-first"] = setting(
        "smallest-range-oldest-blocks-first",
        flag="compactor.compaction-jobs-order",
        category="advanced",
        help="Which jobs of a tenant go first.",
    )
    sharding_ring: CompactorRingConfig = block(CompactorRingConfig, help="The ring of compactors.")

    def problems(self) -> Iterator[tuple[str, str]]:
        for shorter, longer in zip(self.block_ranges, self.block_ranges[1:], strict=False):
            if shorter <= 0 or longer % shorter:
                yield (
                    "block_ranges",
                    "compactor block range periods should be divisible by the previous one, "
                    f"but {longer} is not divisible by {shorter}",
                )
        if not self.block_ranges or self.block_ranges[0] <= 0:
            yield "block_ranges", "at least one positive range is needed"

    def allows(self, tenant: str) -> bool:
        """Whether this tenant is compacted at all."""
        return (not self.enabled_tenants or tenant in self.enabled_tenants) and tenant not in self.disabled_tenants
