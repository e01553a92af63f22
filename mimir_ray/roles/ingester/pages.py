"""What administrators see of one ingester's tenants. Upstream: pkg/ingester (TenantsHandler, TenantTSDBHandler)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from mimir_ray.errors import NotFound
from mimir_ray.roles.api import BlockPage, TenantPage, TsdbPage
from mimir_ray.roles.ingester.tenants import TenantEntry
from mimir_ray.telemetry.metrics import expose, on_scrape


@dataclass(eq=False)
class NoOpenTsdb(NotFound):
    tenant: str

    def describe(self) -> str:
        return f"TSDB not found for tenant {self.tenant}"


def tenant_page(entry: TenantEntry) -> TenantPage:
    head = entry.database.stats.head
    return TenantPage(entry.tenant, len(entry.database.blocks.metas), head.min_time, head.max_time)


def tsdb_page(entry: TenantEntry) -> TsdbPage:
    stats = entry.database.stats
    shipped = entry.shipper.shipped if entry.shipper is not None else {}
    blocks = tuple(
        BlockPage(
            meta.ulid,
            meta.min_time,
            meta.max_time,
            meta.stats.series,
            meta.stats.samples,
            meta.stats.chunks,
            sum(file.stat().st_size for file in entry.database.blocks.path(meta.ulid).rglob("*") if file.is_file()),
            meta.out_of_order,
            meta.ulid in shipped,
        )
        for meta in sorted(entry.database.blocks.metas, key=lambda one: one.min_time)
    )
    head = stats.head
    wal_bytes = stats.wal_bytes_since_checkpoint
    return TsdbPage(entry.tenant, head.series, head.min_time, head.max_time, head.bytes, wal_bytes, blocks)


def tsdb_metrics(entry: TenantEntry) -> bytes:
    """One database's own metrics, under the names that Prometheus gives them."""
    registry = CollectorRegistry(auto_describe=False)
    on_scrape(registry, lambda: _families(entry))
    return expose(registry)


def _families(entry: TenantEntry) -> Iterable[Metric]:
    stats = entry.database.stats
    head = stats.head
    exemplars = entry.database.head.exemplar_store
    gauges = (
        ("head_series", "Series in the head.", head.series),
        ("head_chunks", "Full chunks in the head.", head.closed_chunks),
        ("head_min_time", "Oldest sample of the head, ms.", head.min_time),
        ("head_max_time", "Newest sample of the head, ms.", head.max_time),
        ("symbol_table_size_bytes", "Of the strings of series in the head.", head.symbol_bytes),
        ("blocks_loaded", "Blocks on this machine.", stats.blocks),
        ("storage_blocks_bytes", "Their size.", stats.block_bytes),
        ("head_chunk_files_bytes", "Of the files of full chunks. Ours.", stats.chunk_file_bytes),
        ("head_memory_bytes", "Of the arrays of the head. Ours.", head.bytes),
        ("exemplar_exemplars_in_storage", "Exemplars in memory.", len(exemplars)),
        ("exemplar_series_with_exemplars_in_storage", "Series that have some.", exemplars.series),
        ("exemplar_max_exemplars", "How many are kept.", exemplars.capacity),
    )
    counters = (
        ("head_series_created", "Series made.", head.created),
        ("head_series_removed", "Series dropped.", head.removed),
        ("head_samples_appended", "Samples taken.", head.appended),
        ("head_out_of_order_samples_appended", "Those that came late.", head.appended_late),
        ("checkpoint_creations", "Checkpoints written.", stats.checkpoints),
        ("checkpoint_creations_failed", "Checkpoints not written.", stats.checkpoint_failures),
        ("wal_writes_failed", "Records that the disk refused.", stats.wal_failures),
        ("wal_truncations_failed", "WAL segments not removed.", stats.wal_truncation_failures),
    )
    for name, text, value in gauges:
        if value is not None:
            yield GaugeMetricFamily(f"prometheus_tsdb_{name}", text, value=value)
    for name, text, value in counters:
        yield CounterMetricFamily(f"prometheus_tsdb_{name}", text, value=value)
