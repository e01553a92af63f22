from __future__ import annotations

import threading

import pytest
from prometheus_client import CollectorRegistry

from mimir_ray.bucket.bucket_index import BucketIndex, DamagedIndex, IndexedBlock, write_bucket_index
from mimir_ray.bucket.config import BucketIndexConfig
from mimir_ray.bucket.index_loader import BucketIndexLoader, BucketIndexMissing, BucketIndexTooOld
from mimir_ray.bucket.markers import TenantDeletionMark, write_tenant_deletion_mark
from mimir_ray.bucket.store import BucketUnavailable
from mimir_ray.clock import ManualClock
from mimir_ray.model.tenant import TenantId
from mimir_ray.testing.buckets import MemoryBucket, WatchedBucket

from .blocks_in_bucket import NOW_MS, TENANT, ulid

MINUTE_MS = 60_000


class Stage:
    """A loader on a bucket that counts its reads, and fails them while told to."""

    def __init__(self) -> None:
        self.clock = ManualClock(NOW_MS)
        self.registry = CollectorRegistry()
        self.memory = MemoryBucket(self.clock.now_ms)
        self.reads = 0
        self.fails = False
        bucket = WatchedBucket(self.memory, self.before)
        self.loader = BucketIndexLoader(bucket, BucketIndexConfig(), self.clock, self.registry)

    def before(self, operation: str, key: str) -> None:
        self.reads += 1
        if self.fails:
            raise BucketUnavailable(operation, key, "away")

    def write(self, blocks: int) -> BucketIndex:
        found = tuple(IndexedBlock(ulid(number), number, number + 1) for number in range(blocks))
        index = BucketIndex(found, {}, self.clock.now_ms() // 1000)
        write_bucket_index(self.memory, TENANT, index)
        return index

    def metric(self, name: str) -> float | None:
        return self.registry.get_sample_value(f"cortex_bucket_index_{name}")


def test_an_index_is_read_once_and_again_after_the_refresh_interval() -> None:
    stage = Stage()
    first = stage.write(1)
    assert stage.loader.index(TENANT) == stage.loader.fresh_index(TENANT) == first
    second = stage.write(2)
    stage.clock.advance_ms(15 * MINUTE_MS - 1)
    assert stage.loader.index(TENANT) == first
    assert stage.reads == 1
    stage.clock.advance_ms(1)
    assert stage.loader.index(TENANT) == second
    assert stage.reads == 2
    assert (stage.metric("loads_total"), stage.metric("load_failures_total"), stage.metric("loaded")) == (2, 0, 1)


def test_a_missing_index_means_no_blocks_and_is_no_failure() -> None:
    stage = Stage()
    assert stage.loader.fresh_index(TENANT) == BucketIndex()
    assert stage.loader.index(TENANT) == BucketIndex()
    assert (stage.metric("loads_total"), stage.metric("load_failures_total"), stage.metric("loaded")) == (1, 0, 0)
    index = stage.write(0)
    stage.clock.advance_ms(MINUTE_MS - 1)
    assert stage.loader.index(TENANT) == BucketIndex()
    stage.clock.advance_ms(1)
    assert stage.loader.index(TENANT) == index
    assert stage.metric("loaded") == 1


def test_a_missing_index_is_an_error_once_there_are_blocks_for_as_long_as_an_index_may_be_old() -> None:
    """The ingesters that shipped them may have dropped them, and nobody would notice."""
    stage = Stage()
    stage.memory.put(f"{TENANT}/{ulid(1)}/index", b"")
    stage.clock.advance_ms(61 * MINUTE_MS)
    assert stage.loader.fresh_index(TENANT) == BucketIndex(), "not complete"
    stage.memory.put(f"{TENANT}/{ulid(1)}/meta.json", b"{}")
    stage.clock.advance_ms(MINUTE_MS)
    assert stage.loader.fresh_index(TENANT) == BucketIndex(), "it may be on its way into an index"
    stage.clock.advance_ms(60 * MINUTE_MS)
    with pytest.raises(BucketIndexMissing, match="no bucket index though there are blocks since 2023"):
        stage.loader.fresh_index(TENANT)
    assert stage.loader.index(TENANT) == BucketIndex()
    index = stage.write(1)
    stage.clock.advance_ms(MINUTE_MS)
    assert stage.loader.fresh_index(TENANT) == index


def test_blocks_of_a_tenant_that_is_deleted_need_no_index() -> None:
    stage = Stage()
    stage.memory.put(f"{TENANT}/{ulid(1)}/meta.json", b"{}")
    write_tenant_deletion_mark(stage.memory, TENANT, TenantDeletionMark(NOW_MS // 1000, 0))
    stage.clock.advance_ms(61 * MINUTE_MS)
    assert stage.loader.fresh_index(TENANT) == BucketIndex()


def test_a_failure_is_remembered_for_a_minute() -> None:
    stage = Stage()
    stage.fails = True
    for _ in range(3):
        with pytest.raises(BucketUnavailable, match="away"):
            stage.loader.index(TENANT)
    assert stage.reads == 1
    stage.fails = False
    index = stage.write(1)
    stage.clock.advance_ms(MINUTE_MS)
    assert stage.loader.index(TENANT) == index
    assert stage.metric("load_failures_total") == 1


def test_a_damaged_index_is_an_error() -> None:
    stage = Stage()
    stage.memory.put("team-a/bucket-index.json.gz", b"nonsense")
    with pytest.raises(DamagedIndex):
        stage.loader.fresh_index(TENANT)


def test_the_index_that_is_there_is_used_while_a_newer_one_cannot_be_read_until_it_is_too_old() -> None:
    stage = Stage()
    index = stage.write(1)
    assert stage.loader.fresh_index(TENANT) == index
    stage.fails = True
    stage.clock.advance_ms(60 * MINUTE_MS)
    assert stage.loader.fresh_index(TENANT) == index
    stage.clock.advance_ms(1000)
    with pytest.raises(BucketIndexTooOld) as caught:
        stage.loader.fresh_index(TENANT)
    assert str(caught.value) == (
        "the bucket index is too old. It was last updated at 2023-11-14T22:13:20Z, which exceeds the maximum allowed "
        "staleness period of 1h (err-mimir-bucket-index-too-old)"
    )
    assert stage.loader.index(TENANT) == index, "readers that can do with an old one get it"
    stage.fails = False
    fresh = stage.write(2)
    stage.clock.advance_ms(MINUTE_MS)
    assert stage.loader.fresh_index(TENANT) == fresh


def test_a_timer_refreshes_what_is_used_and_drops_what_is_not() -> None:
    stage = Stage()
    stage.write(1)
    stage.loader.index(TENANT)
    stage.loader.index(TenantId("idle"))
    for _ in range(4):
        stage.clock.advance_ms(15 * MINUTE_MS)
        newest = stage.write(3)
        stage.loader.check()
        reads = stage.reads
        assert stage.loader.index(TENANT) == newest
        assert stage.reads == reads, "the timer had read it"
    assert stage.loader.tenants() == [TENANT]
    stage.clock.advance_ms(60 * MINUTE_MS)
    stage.loader.check()
    assert stage.loader.tenants() == []
    assert stage.metric("loaded") == 0


def test_idle_indexes_are_dropped_without_a_timer_too() -> None:
    stage = Stage()
    stage.loader.index(TENANT)
    stage.clock.advance_ms(60 * MINUTE_MS)
    stage.loader.index(TenantId("other"))
    assert stage.loader.tenants() == ["other"]


def test_many_who_ask_at_once_cause_one_load() -> None:
    memory, started, go = MemoryBucket(), threading.Event(), threading.Event()
    reads: list[str] = []

    def slow(operation: str, key: str) -> None:
        reads.append(key)
        started.set()
        assert go.wait(10)

    loader = BucketIndexLoader(
        WatchedBucket(memory, slow), BucketIndexConfig(), ManualClock(NOW_MS), CollectorRegistry()
    )
    index = BucketIndex((IndexedBlock(ulid(1), 1, 2),), {}, NOW_MS // 1000)
    write_bucket_index(memory, TENANT, index)
    found: list[BucketIndex] = []
    threads = [threading.Thread(target=lambda: found.append(loader.index(TENANT))) for _ in range(8)]
    for thread in threads:
        thread.start()
    assert started.wait(10)
    go.set()
    for thread in threads:
        thread.join(10)
    assert found == [index] * 8
    assert len(reads) == 1


def test_nobody_waits_for_a_refresh_that_somebody_else_does() -> None:
    stage = Stage()
    old = stage.write(1)
    stage.loader.index(TENANT)
    stage.clock.advance_ms(15 * MINUTE_MS)
    inside: list[BucketIndex] = []

    def ask_while_loading(operation: str, key: str) -> None:
        if not inside:
            thread = threading.Thread(target=lambda: inside.append(stage.loader.index(TENANT)))
            thread.start()
            thread.join(10)

    stage.loader._bucket = WatchedBucket(stage.memory, ask_while_loading)
    new = stage.write(2)
    assert stage.loader.index(TENANT) == new
    assert inside == [old]


def test_several_loaders_of_one_process_share_its_metrics() -> None:
    registry = CollectorRegistry()
    for _ in range(2):
        loader = BucketIndexLoader(MemoryBucket(), BucketIndexConfig(), ManualClock(NOW_MS), registry)
        loader.index(TENANT)
    assert registry.get_sample_value("cortex_bucket_index_loads_total") == 2
