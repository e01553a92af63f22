"""An ingester's tenants from head to blocks to the bucket, and off the disk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from mimir_ray.bucket.bucket_index import IndexedBlock
from mimir_ray.bucket.filesystem import FilesystemBucket
from mimir_ray.bucket.layout import tenant_deletion_mark_key
from mimir_ray.bucket.store import BucketUnavailable
from mimir_ray.clock import ManualClock
from mimir_ray.config.limits import Limits
from mimir_ray.config.units import duration
from mimir_ray.errors import Unavailable
from mimir_ray.model.labels import Labels, labels_of
from mimir_ray.model.matchers import Matcher, MatchType
from mimir_ray.model.tenant import TenantId
from mimir_ray.promql.source import Selection
from mimir_ray.roles.api import NotSoleOwner
from mimir_ray.roles.ingester.config import TsdbConfig
from mimir_ray.roles.ingester.ingester import CLOSED_SUFFIX, Ingester, IngesterNotReady, TenantClosing
from mimir_ray.roles.ingester.life_cycle import Reduction, early_compactions
from mimir_ray.roles.ingester.metrics import IngesterMetrics, LifeCycleMetrics
from mimir_ray.roles.ingester.shipper import SHIPPED_FILE
from mimir_ray.telemetry.caches import CacheStats
from mimir_ray.testing.writes import write_batch
from mimir_ray.tsdb.block.meta import BlockMeta
from mimir_ray.tsdb.block.reader import Block

from .test_ingester import ME, fragment, ring_of

HOUR = 3_600_000
NOW = 1_700_006_400_000
"""A multiple of two hours."""
TENANT = TenantId("team-a")
EVERYTHING = Selection((Matcher(MatchType.REGEX, "__name__", ".+"),), 0, 2 * NOW)


class MoodyBucket(FilesystemBucket):
    """Fails the uploads whose keys have the text `refuses` in them."""

    refuses = ""

    def _check(self, key: str) -> None:
        if self.refuses and self.refuses in key:
            raise BucketUnavailable("upload", key, "moody")

    def upload(self, path: Path, key: str) -> None:
        self._check(key)
        super().upload(path, key)

    def put(self, key: str, data: bytes) -> None:
        self._check(key)
        super().put(key, data)


class Setup:
    """An open ingester with a bucket; `limits`, `ring` and `clock` may be changed."""

    def __init__(self, folder: Path, **tsdb: Any) -> None:
        self.folder = folder / "tsdb"
        self.bucket = MoodyBucket(folder / "blocks")
        self.config = replace(TsdbConfig(), **tsdb)
        self.clock = ManualClock(NOW)
        self.ring = ring_of(ME)
        self.limits = Limits()
        self.start()

    def start(self) -> None:
        self.registry = CollectorRegistry()
        self.life_cycle = LifeCycleMetrics(self.registry)
        self.ingester = Ingester(
            self.folder,
            self.config,
            20 * 60_000,
            self.clock,
            IngesterMetrics(self.registry),
            lambda tenant: self.limits,
            lambda: self.ring,
            ME,
            self.life_cycle,
            self.bucket,
        )
        self.ingester.open()

    def push(self, *points: tuple[int, float], labels: Labels | None = None, tenant: str = TENANT) -> Any:
        labels = labels or labels_of({"__name__": "up", "instance": "a.host"})
        (result,) = self.ingester.push([write_batch(new=[(labels, points)], tenant=tenant)])
        return result

    def hours(self, count: int) -> None:
        """A sample a minute, from the clock's time on; the clock moves along."""
        for _ in range(60 * count):
            assert not self.push((self.clock.now_ms(), 1.0)).refusals
            self.clock.advance_ms(60_000)

    def count(self, tenant: str = TENANT) -> int:
        return sum(batch.samples for batch in self.ingester.select(TenantId(tenant), EVERYTHING))

    def metric(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(f"cortex_ingester_{name}", labels) or 0.0

    def in_bucket(self, tenant: str = TENANT) -> list[BlockMeta]:
        """Of the blocks that are there whole, by time."""
        found = []
        for name in self.bucket.list_folders(f"{tenant}/"):
            if self.bucket.exists(f"{tenant}/{name}/meta.json"):
                found.append(BlockMeta.from_json(self.bucket.get(f"{tenant}/{name}/meta.json")))
        return sorted(found, key=lambda one: (one.min_time, one.out_of_order))


@pytest.fixture
def setup(tmp_path: Path) -> Iterator[Setup]:
    yield Setup(tmp_path)


def test_a_range_becomes_a_block_once_the_head_spans_one_and_a_half_and_is_shipped(setup: Setup) -> None:
    setup.hours(3)
    setup.ingester.compact()
    setup.ingester.ship()
    assert setup.in_bucket() == []
    setup.hours(1)
    setup.ingester.compact()
    setup.ingester.ship()
    (meta,) = setup.in_bucket()
    assert (meta.min_time, meta.max_time) == (NOW, NOW + 2 * HOUR)
    assert (meta.stats.samples, meta.stats.series) == (120, 1)
    assert meta.compaction.level == 1
    assert meta.compaction.sources == [meta.ulid]
    assert meta.thanos is not None
    assert (meta.thanos.source, meta.thanos.labels) == ("receive", {})
    assert [path for path, _ in meta.thanos.files] == ["chunks/000001", "index", "meta.json"]
    assert IndexedBlock.of_meta(meta, 0).segments == 1
    copy = Block(setup.folder.parent / "blocks" / TENANT / meta.ulid)
    assert sum(batch.samples for batch in copy.select(EVERYTHING)) == 120
    assert setup.count() == 240
    assert setup.metric("tsdb_compactions_total") == 1
    assert setup.metric("shipper_uploads_total") == 1
    assert setup.metric("shipper_last_successful_upload_timestamp_seconds") == setup.clock.now_ms() / 1000
    setup.ingester.maintain()
    assert setup.metric("tsdb_storage_blocks_bytes", user=TENANT) > 0
    assert setup.metric("oldest_unshipped_block_timestamp_seconds") == 0


def test_late_samples_get_blocks_of_their_own_with_a_label_where_that_is_set(setup: Setup) -> None:
    setup.limits = replace(
        setup.limits, out_of_order_time_window=duration("5h"), out_of_order_blocks_external_label_enabled=True
    )
    setup.hours(3)
    for minute in range(30):
        assert not setup.push((NOW + 60_000 * minute + 1, 2.0)).refusals
    setup.ingester.flush()
    in_order, late, rest = setup.in_bucket()
    assert (in_order.out_of_order, late.out_of_order, rest.out_of_order) == (False, True, False)
    assert late.stats.samples == 30
    assert late.thanos is not None
    assert late.thanos.labels == {"__out_of_order__": "true"}
    assert setup.count() == 210
    setup.ingester.maintain()
    assert setup.metric("tsdb_out_of_order_samples_appended_total", user=TENANT) == 30


def test_a_flush_takes_the_heads_of_the_named_tenants(setup: Setup) -> None:
    setup.push((NOW, 1.0))
    setup.push((NOW, 1.0), tenant="team-b")
    setup.ingester.flush([TenantId("team-b"), TenantId("nobody")])
    assert (len(setup.in_bucket()), len(setup.in_bucket("team-b"))) == (0, 1)
    setup.ingester.flush()
    assert len(setup.in_bucket()) == 1
    assert setup.push((NOW, 1.0)).refusals[0].reason == "sample-timestamp-too-old"
    assert not setup.push((NOW + 1, 1.0)).refusals
    assert setup.count() == 2


def test_an_idle_head_is_cut_whole(setup: Setup) -> None:
    setup.push((NOW, 1.0))
    setup.clock.advance_ms(HOUR)
    setup.ingester.compact()
    assert setup.metric("tsdb_compactions_total") == 0
    setup.clock.advance_ms(1)
    setup.ingester.compact()
    assert setup.metric("tsdb_compactions_total") == 1
    setup.ingester.maintain()
    assert setup.metric("memory_series") == 0
    assert setup.metric("memory_series_removed_total", user=TENANT) == 1
    assert setup.count() == 1


def test_heads_are_cut_early_where_that_drops_enough_inactive_series(tmp_path: Path) -> None:
    setup = Setup(tmp_path, early_head_compaction_min_in_memory_series=4)
    labels = [labels_of({"__name__": "m", "n": str(number)}) for number in range(4)]
    for one in labels:
        setup.push((NOW, 1.0), labels=one)
    setup.clock.advance_ms(30 * 60_000)
    setup.push((setup.clock.now_ms(), 1.0), labels=labels[0])
    setup.ingester.compact()
    setup.ingester.maintain()
    assert setup.metric("memory_series") == 1
    assert setup.count() == 5
    assert not setup.push((setup.clock.now_ms() - 60_000, 1.0), labels=labels[1]).refusals


@given(st.lists(st.integers(-5, 100), max_size=6), st.integers(0, 200), st.integers(0, 100))
def test_early_compaction_takes_the_largest_first_and_only_if_that_is_worth_it(
    inactive: list[int], allowed: int, percentage: int
) -> None:
    total = 200
    chosen = [
        one.series
        for one in early_compactions(
            [Reduction(None, series) for series in inactive],  # type: ignore[arg-type]
            total,
            allowed,
            percentage,
        )
    ]
    assert chosen == sorted((one for one in inactive if one > 0), reverse=True)[: len(chosen)]
    if chosen:
        assert 0 < allowed <= total
        assert 100 * sum(chosen) >= percentage * total
        assert total - sum(chosen[:-1]) >= allowed, "not more than needed"


def test_a_failed_upload_is_tried_again_and_nothing_is_seen_of_it_meanwhile(setup: Setup) -> None:
    setup.push((NOW, 1.0))
    for refused in ("index", "chunks", "meta.json"):
        setup.bucket.refuses = refused
        with pytest.raises(BucketUnavailable):
            setup.ingester.flush()
        assert setup.in_bucket() == []
    setup.ingester.ship()
    assert setup.metric("shipper_upload_failures_total") == 4
    assert setup.metric("shipper_dir_sync_failures_total") == 4
    assert setup.metric("oldest_unshipped_block_timestamp_seconds") == NOW / 1000
    setup.bucket.refuses = ""
    setup.ingester.ship()
    assert len(setup.in_bucket()) == 1


def test_a_block_that_is_in_the_bucket_is_not_uploaded_again(setup: Setup) -> None:
    setup.push((NOW, 1.0))
    setup.ingester.flush()
    setup.ingester.close()
    setup.bucket.refuses = "/"
    setup.start()
    setup.ingester.ship()
    (setup.folder / TENANT / SHIPPED_FILE).write_bytes(b"{damaged")
    setup.ingester.close()
    setup.start()
    setup.ingester.ship()
    assert setup.metric("shipper_uploads_total") == 0
    assert setup.metric("shipper_upload_failures_total") == 0


def test_blocks_leave_the_disk_when_they_have_been_in_the_bucket_for_the_retention(setup: Setup) -> None:
    setup.push((NOW, 1.0))
    setup.bucket.refuses = "index"
    with pytest.raises(BucketUnavailable):
        setup.ingester.flush()
    setup.clock.advance_ms(12 * HOUR)
    setup.push((setup.clock.now_ms(), 2.0))
    setup.clock.advance_ms(2 * HOUR)
    setup.ingester.ship()
    assert setup.count() == 2, "it was never shipped"
    setup.bucket.refuses = ""
    setup.ingester.ship()
    setup.clock.advance_ms(10 * HOUR)
    setup.push((setup.clock.now_ms(), 3.0))
    setup.clock.advance_ms(3 * HOUR)
    setup.ingester.ship()
    assert setup.count() == 3
    setup.clock.advance_ms(1)
    setup.ingester.ship()
    assert setup.count() == 2
    setup.ingester.maintain()
    assert [path.name for path in (setup.folder / TENANT).iterdir() if len(path.name) == 26] == []


def test_without_shipping_blocks_leave_by_their_end(tmp_path: Path) -> None:
    setup = Setup(tmp_path, ship_interval=duration("0s"))
    setup.push((NOW, 1.0))
    setup.ingester.flush()
    assert setup.in_bucket() == []
    setup.clock.advance_ms(13 * HOUR + 1)
    setup.ingester.ship()
    assert setup.count() == 1
    setup.clock.advance_ms(1)
    setup.ingester.ship()
    assert setup.count() == 0


def test_an_idle_tenant_is_closed_and_deleted_when_all_of_it_is_in_the_bucket(setup: Setup) -> None:
    setup.push((NOW, 1.0))
    setup.clock.advance_ms(13 * HOUR + 1)
    setup.ingester.ship()
    assert setup.metric("idle_tsdb_checks_total", result="not_compacted") == 1
    setup.bucket.refuses = "index"
    setup.ingester.compact()
    setup.ingester.ship()
    assert setup.metric("idle_tsdb_checks_total", result="not_shipped") == 1
    setup.bucket.refuses = ""
    reader = setup.ingester.select(TENANT, EVERYTHING)
    assert next(reader).samples == 1
    setup.ingester.ship()
    assert setup.metric("idle_tsdb_checks_total", result="busy") == 1
    del reader
    setup.ingester.ship()
    assert setup.metric("idle_tsdb_checks_total", result="closed") == 1
    assert not (setup.folder / TENANT).exists()
    assert setup.ingester.tenant_stats() == {}
    assert not setup.push((setup.clock.now_ms(), 1.0)).refusals
    assert setup.count() == 1
    assert len(setup.in_bucket()) == 1


def test_a_tenant_with_a_deletion_mark_is_not_shipped_and_closed_when_idle(setup: Setup) -> None:
    setup.bucket.put(tenant_deletion_mark_key(TENANT), b"{}")
    setup.push((NOW, 1.0))
    setup.ingester.flush()
    assert setup.in_bucket() == []
    setup.clock.advance_ms(13 * HOUR + 1)
    setup.ingester.ship()
    assert not (setup.folder / TENANT).exists()


def test_a_push_to_a_tenant_that_is_being_closed_is_asked_to_come_again(setup: Setup) -> None:
    setup.ingester._closing.add(TENANT)
    assert isinstance(setup.push((NOW, 1.0)).error, TenantClosing)
    assert isinstance(setup.push((NOW, 1.0)).error, Unavailable)


def test_what_was_left_of_closing_a_tenant_is_removed_at_the_start(setup: Setup) -> None:
    setup.ingester.close()
    left = setup.folder / f"{TENANT}{CLOSED_SUFFIX}" / "wal"
    left.mkdir(parents=True)
    setup.start()
    assert not left.parent.exists()


def test_everything_is_flushed_at_the_end_where_that_is_set(tmp_path: Path) -> None:
    setup = Setup(tmp_path, flush_blocks_on_shutdown=True)
    setup.push((NOW, 1.0))
    setup.ingester.close()
    assert len(setup.in_bucket()) == 1
    with pytest.raises(IngesterNotReady):
        setup.ingester.flush()


def test_small_ranges_are_a_setting(tmp_path: Path) -> None:
    setup = Setup(tmp_path, block_ranges_period=(duration("10s"),))
    for second in range(40):
        setup.push((NOW + 1000 * second, 1.0))
    setup.ingester.compact()
    setup.ingester.ship()
    assert [(one.min_time - NOW, one.max_time - NOW) for one in setup.in_bucket()] == [
        (0, 10_000),
        (10_000, 20_000),
        (20_000, 30_000),
    ]
    assert setup.count() == 40


def test_fragments_see_blocks_and_prove_that_their_series_are_ours(setup: Setup) -> None:
    for number in range(20):
        setup.push((NOW, 1.0), labels=labels_of({"__name__": "m", "n": f"{number}.host"}))
    setup.ingester.flush()
    assert setup.ingester.evaluate(TENANT, fragment("sum(m)", NOW), 1)[0].arrays[0].tolist() == [[20.0]]
    setup.ring = ring_of(ME, "ingester-1", version=2)
    with pytest.raises(NotSoleOwner):
        setup.ingester.evaluate(TENANT, fragment("sum(m)", NOW), 2)
    # They have left the head, and this range has no block: so nothing of others is read.
    assert setup.ingester.evaluate(TENANT, fragment("sum(m)", NOW + HOUR), 2) == []


def test_remembered_selections_of_tenants_that_were_closed_are_still_counted(setup: Setup) -> None:
    for tenant in ("team-a", "team-b"):
        setup.push((NOW, 1.0), tenant=tenant)
        for _ in range(3):
            setup.count(tenant)
    setup.ingester.maintain()
    assert setup.life_cycle.selections() == CacheStats(requests=6, hits=4, items=2)
    setup.life_cycle.forget("team-a")
    assert setup.life_cycle.selections() == CacheStats(requests=6, hits=4, items=1)
