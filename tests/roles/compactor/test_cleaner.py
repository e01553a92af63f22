"""Clean-ups of a bucket in memory."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mimir_ray.bucket.bucket_index import BucketIndex, read_bucket_index
from mimir_ray.bucket.layout import (
    block_key,
    block_prefix,
    bucket_index_key,
    debug_meta_key,
    marker_key,
    tenant_deletion_mark_key,
    tenant_prefix,
)
from mimir_ray.bucket.markers import (
    DeletionMark,
    NoCompactMark,
    TenantDeletionMark,
    list_marks,
    read_deletion_mark,
    read_tenant_deletion_mark,
    write_deletion_mark,
    write_no_compact_mark,
    write_tenant_deletion_mark,
)
from mimir_ray.bucket.store import BucketUnavailable
from mimir_ray.config.limits import Limits
from mimir_ray.config.units import duration
from mimir_ray.model.tenant import TenantId
from mimir_ray.testing.buckets import WatchedBucket
from tests.roles.compactor.test_compactor import LONG_AGO, series
from tests.roles.compactor.world import HOUR, NOW_MS, TENANT, World, ring_of

DAY = 24 * HOUR


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def index(world: World, tenant: TenantId = TENANT) -> BucketIndex | None:
    return read_bucket_index(world.memory, tenant)


def listed(world: World, tenant: TenantId = TENANT) -> list[str]:
    found = index(world, tenant)
    assert found is not None
    return [block.ulid for block in found.blocks]


def keys(world: World, prefix: str) -> list[str]:
    return [found.key for found in world.memory.list_objects(prefix)]


def test_the_first_clean_up_makes_the_bucket_index(world: World) -> None:
    shipped = [world.ship(series(LONG_AGO), LONG_AGO) for _ in range(2)]
    world.compactor().cleaner.clean_all()
    found = index(world)
    assert found is not None and [block.ulid for block in found.blocks] == shipped
    assert found.updated_at == NOW_MS // 1000
    assert world.value("cortex_bucket_blocks_count", user=TENANT) == 2
    assert world.value("cortex_bucket_index_last_successful_update_timestamp_seconds", user=TENANT) == NOW_MS // 1000
    assert world.value("cortex_bucket_index_estimated_compaction_jobs", user=TENANT, type="merge") == 1
    assert world.value("cortex_compactor_block_cleanup_completed_total") == 1


def test_a_marked_block_is_deleted_when_the_delay_is_over(world: World) -> None:
    kept, gone = (world.ship(series(LONG_AGO), LONG_AGO) for _ in range(2))
    write_deletion_mark(world.memory, TENANT, DeletionMark(gone, NOW_MS // 1000))
    write_no_compact_mark(world.memory, TENANT, NoCompactMark(gone, NOW_MS // 1000))
    meta = world.memory.get(block_key(TENANT, gone, "meta.json"))
    cleaner = world.compactor().cleaner
    world.clock.advance_ms(12 * HOUR)
    cleaner.clean_all()
    found = index(world)
    assert found is not None and found.deletion_marks == {gone: NOW_MS // 1000} and gone in listed(world)
    world.clock.advance_ms(1000)
    cleaner.clean_all()
    found = index(world)
    assert found is not None and found.deletion_marks == {} and listed(world) == [kept]
    assert keys(world, block_prefix(TENANT, gone)) == [] and list_marks(world.memory, TENANT).no_compact == frozenset()
    assert world.memory.get(debug_meta_key(TENANT, gone)) == meta
    assert world.value("cortex_compactor_blocks_cleaned_total") == 1


def test_without_a_delay_marked_blocks_go_at_the_next_clean_up(tmp_path: Path) -> None:
    world = World(tmp_path, deletion_delay=duration("0s"))
    gone = world.ship(series(LONG_AGO), LONG_AGO)
    write_deletion_mark(world.memory, TENANT, DeletionMark(gone, NOW_MS // 1000))
    world.clock.advance_ms(1)
    world.compactor().cleaner.clean_all()
    assert keys(world, block_prefix(TENANT, gone)) == []


def test_blocks_past_the_tenants_retention_are_marked_once(world: World) -> None:
    old = world.ship(series(NOW_MS - 10 * DAY), NOW_MS - 10 * DAY)
    young = world.ship(series(NOW_MS - 10 * HOUR), NOW_MS - 10 * HOUR)
    other = world.ship(series(NOW_MS - 10 * DAY), NOW_MS - 10 * DAY, tenant=TenantId("team-b"))
    world.limits[TENANT] = Limits(compactor_blocks_retention_period=duration("7d"))
    cleaner = world.compactor().cleaner
    for _ in range(3):
        cleaner.clean_all()
    found = index(world)
    assert found is not None and list(found.deletion_marks) == [old] and young in listed(world)
    assert index(world, TenantId("team-b")).deletion_marks == {} and listed(world, TenantId("team-b")) == [other]
    mark = read_deletion_mark(world.memory, TENANT, old)
    assert mark is not None and mark.details == "block exceeding retention of 1w"
    assert world.value("cortex_compactor_blocks_marked_for_deletion_total", reason="retention") == 1


def partial(world: World) -> str:
    """An upload that never came to its end."""
    ulid = world.ship(series(LONG_AGO), LONG_AGO)
    world.memory.delete(block_key(TENANT, ulid, "meta.json"))
    return ulid


def test_an_incomplete_block_that_nobody_touches_is_marked_and_then_deleted(world: World) -> None:
    whole, half = world.ship(series(LONG_AGO), LONG_AGO), partial(world)
    cleaner = world.compactor().cleaner
    world.clock.advance_ms(DAY - 1)
    cleaner.clean_all()
    assert list_marks(world.memory, TENANT).deletion == frozenset()
    assert world.value("cortex_bucket_blocks_partials_count", user=TENANT) == 1
    world.clock.advance_ms(1)
    cleaner.clean_all()
    mark = read_deletion_mark(world.memory, TENANT, half)
    assert mark is not None and mark.details == "stale partial block"
    cleaner.clean_all()
    assert keys(world, block_prefix(TENANT, half)) == [] and listed(world) == [whole]
    assert list_marks(world.memory, TENANT).deletion == frozenset()


@pytest.mark.parametrize("delay", ["0s", "3h59m"])
def test_incomplete_blocks_stay_where_their_deletion_is_off(world: World, delay: str) -> None:
    half = partial(world)
    world.limits[TENANT] = Limits(compactor_partial_block_deletion_delay=duration(delay))
    world.clock.advance_ms(100 * DAY)
    world.compactor().cleaner.clean_all()
    assert keys(world, block_prefix(TENANT, half)) != [] and read_deletion_mark(world.memory, TENANT, half) is None


def test_a_damaged_bucket_index_is_made_anew(world: World) -> None:
    ulid = world.ship(series(LONG_AGO), LONG_AGO)
    world.memory.put(bucket_index_key(TENANT), b"no index")
    world.compactor().cleaner.clean_all()
    assert listed(world) == [ulid]


def test_new_blocks_are_in_the_index_before_the_next_clean_up_is_due(world: World) -> None:
    first = world.ship(series(LONG_AGO), LONG_AGO)
    cleaner = world.compactor().cleaner
    cleaner.look_for_blocks()
    assert listed(world) == [first]
    half = partial(world)
    cleaner.look_for_blocks()
    assert listed(world) == [first], "it is not complete yet"
    again = world.ship(series(LONG_AGO), LONG_AGO)
    meta = world.memory.get(block_key(TENANT, again, "meta.json")).replace(again.encode(), half.encode())
    cleaner.look_for_blocks()
    world.memory.put(block_key(TENANT, half, "meta.json"), meta)
    cleaner.look_for_blocks()
    assert listed(world) == sorted([first, half, again])


def test_looking_for_blocks_writes_nothing_where_nothing_changed(world: World) -> None:
    world.ship(series(LONG_AGO), LONG_AGO)
    written: list[str] = []

    def watch(operation: str, key: str) -> None:
        if operation in ("put", "upload", "delete"):
            written.append(key)

    cleaner = world.compactor(bucket=WatchedBucket(world.memory, watch)).cleaner
    cleaner.look_for_blocks()
    assert written == [bucket_index_key(TENANT)]
    cleaner.look_for_blocks()
    assert len(written) == 1


def test_a_deleted_tenant_loses_its_index_first_then_its_blocks_then_its_marks(world: World) -> None:
    shipped = [world.ship(series(LONG_AGO), LONG_AGO) for _ in range(2)]
    half = partial(world)
    cleaner = world.compactor().cleaner
    cleaner.clean_all()
    write_tenant_deletion_mark(world.memory, TENANT, TenantDeletionMark(NOW_MS // 1000))
    order: list[str] = []
    watching = world.compactor(bucket=WatchedBucket(world.memory, lambda what, key: order.append(f"{what} {key}")))
    watching.cleaner.clean_all()
    deletes = [one.removeprefix("delete ") for one in order if one.startswith("delete ")]
    assert deletes[0] == bucket_index_key(TENANT) and len(deletes) > 3
    for ulid in (*shipped, half):
        assert keys(world, block_prefix(TENANT, ulid)) == []
    mark = read_tenant_deletion_mark(world.memory, TENANT)
    assert mark == TenantDeletionMark(NOW_MS // 1000, NOW_MS // 1000)
    world.clock.advance_ms(6 * HOUR - 1000)
    cleaner.clean_all()
    assert world.memory.exists(tenant_deletion_mark_key(TENANT))
    world.clock.advance_ms(1000)
    cleaner.clean_all()
    assert keys(world, tenant_prefix(TENANT)) == []


def test_a_block_that_comes_for_a_deleted_tenant_is_deleted_and_the_end_is_put_off(world: World) -> None:
    write_tenant_deletion_mark(world.memory, TENANT, TenantDeletionMark(5, 6))
    late = world.ship(series(LONG_AGO), LONG_AGO)
    world.compactor().cleaner.clean_all()
    assert keys(world, block_prefix(TENANT, late)) == []
    assert read_tenant_deletion_mark(world.memory, TENANT) == TenantDeletionMark(5, NOW_MS // 1000)


def test_a_tenant_whose_last_block_goes_leaves_nothing_behind(world: World) -> None:
    gone = world.ship(series(LONG_AGO), LONG_AGO)
    write_deletion_mark(world.memory, TENANT, DeletionMark(gone, 1))
    write_no_compact_mark(world.memory, TENANT, NoCompactMark(gone, 1))
    cleaner = world.compactor().cleaner
    cleaner.clean_all()
    assert keys(world, tenant_prefix(TENANT)) == []
    cleaner.clean_all()
    assert world.value("cortex_bucket_blocks_count", user=TENANT) is None, "metrics of who is gone are gone"


def test_one_compactor_of_a_tenant_cleans_up(world: World) -> None:
    tenants = [TenantId(f"team-{number}") for number in range(12)]
    for tenant in tenants:
        world.ship(series(LONG_AGO), LONG_AGO, tenant=tenant)
    ring = ring_of("a", "b")
    seen = []
    for name in ("a", "b"):
        world.compactor(name, lambda: ring).cleaner.clean_all()
        seen.append(
            {tenant for tenant in tenants if world.value("cortex_bucket_blocks_count", user=tenant) is not None}
        )
    assert seen[0] and seen[1] and not seen[0] & seen[1] and seen[0] | seen[1] == set(tenants)


def test_what_fails_for_one_tenant_is_told_and_leaves_the_others_alone(world: World) -> None:
    other = TenantId("team-b")
    for tenant in (TENANT, other):
        world.ship(series(LONG_AGO), LONG_AGO, tenant=tenant)

    def fail(operation: str, key: str) -> None:
        if operation == "list_objects" and key.startswith("team-a/"):
            raise BucketUnavailable(operation, key, "out of order")

    world.compactor(bucket=WatchedBucket(world.memory, fail)).cleaner.clean_all()
    assert index(world) is None and index(world, other) is not None
    assert world.value("cortex_compactor_block_cleanup_failed_total") == 1


class Died(BaseException):
    """The process is gone."""


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 14))
def test_whenever_a_cleaner_dies_while_it_deletes_the_next_one_finishes(
    tmp_path_factory: pytest.TempPathFactory, operations: int
) -> None:
    world = World(tmp_path_factory.mktemp("world"))
    kept, gone = (world.ship(series(LONG_AGO), LONG_AGO) for _ in range(2))
    world.compactor().cleaner.clean_all()
    write_deletion_mark(world.memory, TENANT, DeletionMark(gone, 1))
    left = operations

    def count(operation: str, _key: str) -> None:
        nonlocal left
        if operation in ("put", "delete"):
            left -= 1
            if left < 0:
                raise Died

    try:
        world.compactor(bucket=WatchedBucket(world.memory, count)).cleaner.clean_all()
    except Died:
        known = index(world)
        assert known is not None and kept in [block.ulid for block in known.blocks]
    world.compactor().cleaner.clean_all()
    assert listed(world) == [kept]
    assert keys(world, block_prefix(TENANT, gone)) == []
    assert not world.memory.exists(marker_key(TENANT, gone, "deletion-mark.json"))
