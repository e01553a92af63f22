"""What compactors tell about themselves and about tenants' buckets, under Mimir's names."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from mimir_ray.bucket.markers import (
    NO_COMPACT_CRITICAL,
    NO_COMPACT_INDEX_SIZE,
    NO_COMPACT_OUT_OF_ORDER_CHUNKS,
)
from mimir_ray.model.tenant import TenantId

MINUTE = 60
_JOB_BUCKETS_S = tuple(MINUTE * minutes for minutes in (1, 5, 10, 15, 20, 30, 45, 60, 90))


class CompactorMetrics:
    """Upstream: pkg/compactor/compactor.go, bucket_compactor.go, blocks_cleaner.go."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
            return Counter(f"cortex_compactor_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, labels: tuple[str, ...] = ()) -> Gauge:
            return Gauge(f"cortex_compactor_{name}", text, labels, registry=registry)

        self.runs_started = counter("runs_started_total", "Compaction runs started.")
        self.runs_completed = counter("runs_completed_total", "Compaction runs completed without an error.")
        self.runs_failed = counter("runs_failed_total", "Compaction runs that did not end well.", ("reason",))
        self.last_successful_run = gauge("last_successful_run_timestamp_seconds", "When a run last completed.")
        self.interval = gauge("compaction_interval_seconds", "The time between runs that is set.")
        self.tenants_discovered = gauge("tenants_discovered", "Tenants found by the run that is on.")
        self.tenants_skipped = gauge("tenants_skipped", "Tenants that the run that is on passed over.")
        self.tenants_succeeded = gauge("tenants_processing_succeeded", "Tenants that the run that is on has done.")
        self.tenants_failed = gauge("tenants_processing_failed", "Tenants that failed in the run that is on.")
        self.disk_full = counter("disk_out_of_space_errors_total", "Compactions that failed because the disk is full.")

        self.jobs_started = counter("group_compaction_runs_started_total", "Jobs started.")
        self.jobs_completed = counter("group_compaction_runs_completed_total", "Jobs completed.")
        self.compactions = counter("group_compactions_total", "Jobs that made a block.")
        self.jobs_failed = counter("group_compactions_failures_total", "Jobs that failed.")
        self.job_seconds = Histogram(
            "cortex_compactor_compaction_job_duration_seconds",
            "How long completed jobs took.",
            ("type",),
            buckets=_JOB_BUCKETS_S,
            registry=registry,
        )
        self.job_blocks = Histogram(
            "cortex_compactor_compaction_job_blocks",
            "Source blocks of completed jobs.",
            ("type",),
            buckets=(4, 8, 16, 24, 32, 40, 48, 56, 64, 96),
            registry=registry,
        )
        self.samples = counter("compacted_samples_total", "Samples in blocks that were made. Ours.")
        self.uploads_started = counter("block_uploads_started_total", "Blocks whose upload was started.")
        self.uploads_failed = counter("block_uploads_failed_total", "Blocks whose upload failed.")
        self.meta_syncs = counter("meta_syncs_total", "Listings of a tenant's blocks for compaction.")
        self.meta_sync_failures = counter("meta_sync_failures_total", "Listings of a tenant's blocks that failed.")
        self.marked_for_deletion = counter(
            "blocks_marked_for_deletion_total", "Blocks marked for deletion.", ("reason",)
        )
        self.marked_no_compact = counter(
            "blocks_marked_for_no_compaction_total", "Blocks that compactions leave alone from now on.", ("reason",)
        )

        self.cleanups_started = counter("block_cleanup_started_total", "Clean-ups of all tenants started.")
        self.cleanups_completed = counter("block_cleanup_completed_total", "Clean-ups completed without an error.")
        self.cleanups_failed = counter("block_cleanup_failed_total", "Clean-ups in which a tenant failed.")
        self.last_cleanup = gauge(
            "block_cleanup_last_successful_run_timestamp_seconds", "When a clean-up last completed."
        )
        self.blocks_cleaned = counter("blocks_cleaned_total", "Blocks deleted.")
        self.cleanup_failures = counter("block_cleanup_failures_total", "Blocks that could not be deleted.")

        self.blocks = Gauge("cortex_bucket_blocks_count", "Blocks of a tenant.", ("user",), registry=registry)
        self.marked_blocks = Gauge(
            "cortex_bucket_blocks_marked_for_deletion_count",
            "Blocks of a tenant that are marked for deletion.",
            ("user",),
            registry=registry,
        )
        self.partial_blocks = Gauge(
            "cortex_bucket_blocks_partials_count", "Incomplete blocks of a tenant.", ("user",), registry=registry
        )
        self.index_updated = Gauge(
            "cortex_bucket_index_last_successful_update_timestamp_seconds",
            "When a tenant's bucket index was last written.",
            ("user",),
            registry=registry,
        )
        self.estimated_jobs = Gauge(
            "cortex_bucket_index_estimated_compaction_jobs",
            "Jobs that a tenant's bucket index asks for.",
            ("user", "type"),
            registry=registry,
        )
        for reason in ("error", "shutdown"):
            self.runs_failed.labels(reason)
        for reason in ("compaction", "retention", "partial"):
            self.marked_for_deletion.labels(reason)
        for reason in (NO_COMPACT_OUT_OF_ORDER_CHUNKS, NO_COMPACT_CRITICAL, NO_COMPACT_INDEX_SIZE):
            self.marked_no_compact.labels(reason)

    def reset_run(self) -> None:
        """Nothing is being compacted now."""
        for one in (self.tenants_discovered, self.tenants_skipped, self.tenants_succeeded, self.tenants_failed):
            one.set(0)

    def forget(self, tenant: TenantId) -> None:
        """Another compactor, or nobody, tells about this tenant from now on."""
        for family in (self.blocks, self.marked_blocks, self.partial_blocks, self.index_updated):
            _remove(family, tenant)
        for stage in ("split", "merge"):
            _remove(self.estimated_jobs, tenant, stage)


def _remove(family: Gauge, *labels: str) -> None:
    try:
        family.remove(*labels)
    except KeyError:
        return  # it never had a value
