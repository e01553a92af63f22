"""Compactors over a bucket in memory, with real blocks: nothing is lost, whatever dies or is broken."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mimir_ray.bucket.layout import block_key
from mimir_ray.bucket.markers import (
    NoCompactMark,
    TenantDeletionMark,
    list_marks,
    read_deletion_mark,
    read_no_compact_mark,
    write_no_compact_mark,
    write_tenant_deletion_mark,
)
from mimir_ray.bucket.store import BucketUnavailable
from mimir_ray.config.limits import Limits
from mimir_ray.config.units import Duration, duration
from mimir_ray.model.labels import Labels, labels_of
from mimir_ray.model.tenant import TenantId
from mimir_ray.roles.compactor.merging import merge_folders
from mimir_ray.testing.blocks import Points
from mimir_ray.testing.buckets import WatchedBucket
from mimir_ray.tsdb.append_file import StorageFull
from mimir_ray.tsdb.block.index_reader import IndexFile
from mimir_ray.tsdb.block.meta import BlockMeta
from mimir_ray.tsdb.block.tombstones import Tombstones, tombstones_bytes
from mimir_ray.tsdb.compact.health import OutOfOrderChunks
from tests.roles.compactor.world import HOUR, NOW_MS, TENANT, World, ring_of

LONG_AGO = NOW_MS - 5 * 24 * HOUR
STEP = 60_000


def labels(number: int) -> Labels:
    return labels_of({"__name__": "up", "instance": f"host-{number}"})


def series(start_ms: int, numbers: range = range(6), points: int = 5) -> list[tuple[Labels, Points]]:
    return [
        (labels(number), [(start_ms + at * STEP, float(number + at)) for at in range(points)]) for number in numbers
    ]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_replicas_of_a_block_become_one_block_with_every_sample_once(world: World) -> None:
    shipped = [world.ship(series(LONG_AGO), LONG_AGO) for _ in range(3)]
    before = world.content(shipped)
    world.compactor().compact_all()
    (meta,) = world.live().values()
    assert meta.stats.samples == 30 and world.content([meta.ulid]) == before
    assert (meta.compaction.level, meta.compaction.sources) == (2, sorted(shipped))
    assert [parent["ulid"] for parent in meta.compaction.parents] == sorted(shipped)
    assert meta.thanos is not None and meta.thanos.source == "compactor"
    assert (meta.min_time, meta.max_time) == (LONG_AGO, LONG_AGO + 2 * HOUR)
    mark = read_deletion_mark(world.bucket, TENANT, shipped[0])
    assert mark is not None and mark.details == "source of compacted block"
    assert world.value("cortex_compactor_blocks_marked_for_deletion_total", reason="compaction") == 3
    assert world.value("cortex_compactor_runs_completed_total") == 1
    assert world.value("cortex_compactor_group_compactions_total") == 1


def test_two_days_become_two_blocks_in_one_run(world: World) -> None:
    shipped = [world.ship(series(LONG_AGO + at * 2 * HOUR), LONG_AGO + at * 2 * HOUR) for at in range(24)]
    before = world.content(shipped)
    world.compactor().compact_all()
    live = world.live()
    assert [(meta.min_time, meta.max_time) for meta in live.values()] == [
        (LONG_AGO, LONG_AGO + 24 * HOUR), (LONG_AGO + 24 * HOUR, LONG_AGO + 48 * HOUR),
    ]  # fmt: skip
    assert world.content(live) == before


def test_splitting_makes_a_block_a_shard_and_later_ranges_keep_the_shards(world: World) -> None:
    world.limits[TENANT] = Limits(compactor_split_and_merge_shards=2, compactor_split_groups=2)
    shipped = [
        world.ship(series(LONG_AGO + hours * HOUR), LONG_AGO + hours * HOUR) for hours in (0, 0, 2, 2) for _ in "ab"
    ]
    before = world.content(shipped)
    world.compactor().compact_all()
    live = world.live()
    shards = {meta.thanos.labels["__compactor_shard_id__"]: world.block_content(ulid) for ulid, meta in live.items()
              if meta.thanos}  # fmt: skip
    assert sorted(shards) == ["1_of_2", "2_of_2"]
    assert not shards["1_of_2"].keys() & shards["2_of_2"].keys()
    assert world.content(live) == before
    assert {(meta.min_time, meta.max_time) for meta in live.values()} == {(LONG_AGO, LONG_AGO + 4 * HOUR)}


def test_nothing_is_done_twice(world: World) -> None:
    for _ in range(2):
        world.ship(series(LONG_AGO), LONG_AGO)
    world.compactor().compact_all()
    before = world.metas().keys()
    world.compactor().compact_all()
    assert world.metas().keys() == before
    assert world.value("cortex_compactor_group_compaction_runs_started_total") == 0


def test_blocks_that_came_just_now_wait_for_their_replicas(tmp_path: Path) -> None:
    world = World(tmp_path, first_level_compaction_wait_period=duration("25m"))
    for _ in range(2):
        world.ship(series(LONG_AGO), LONG_AGO)
    world.clock.advance_ms(25 * 60_000 - 1)
    world.compactor().compact_all()
    assert len(world.live()) == 2
    world.clock.advance_ms(1)
    world.compactor().compact_all()
    assert len(world.live()) == 1


def test_blocks_with_a_no_compact_mark_are_left_alone(world: World) -> None:
    shipped = [world.ship(series(LONG_AGO), LONG_AGO) for _ in range(3)]
    write_no_compact_mark(world.bucket, TENANT, NoCompactMark(shipped[0], 1))
    world.compactor().compact_all()
    assert shipped[0] in world.live() and len(world.live()) == 2


def test_a_damaged_block_is_marked_and_the_others_are_compacted_without_it(world: World) -> None:
    shipped = [world.ship(series(LONG_AGO), LONG_AGO) for _ in range(3)]
    key = block_key(TENANT, shipped[1], "chunks/000001")
    data = bytearray(world.memory.get(key))
    data[20] ^= 0xFF
    world.memory.put(key, bytes(data))
    world.compactor().compact_all()
    mark = read_no_compact_mark(world.bucket, TENANT, shipped[1])
    assert mark is not None and mark.reason == "critical"
    live = world.live()
    assert shipped[1] in live and len(live) == 2
    (merged,) = (meta for ulid, meta in live.items() if ulid != shipped[1])
    assert merged.compaction.sources == [shipped[0], shipped[2]]
    assert world.value("cortex_compactor_blocks_marked_for_no_compaction_total", reason="critical") == 1
    assert world.value("cortex_compactor_runs_completed_total") == 1


def test_a_damaged_index_is_marked_too(world: World) -> None:
    shipped = [world.ship(series(LONG_AGO), LONG_AGO) for _ in range(3)]
    key = block_key(TENANT, shipped[2], "index")
    world.memory.put(key, world.memory.get(key)[:-30])
    world.compactor().compact_all()
    assert list_marks(world.bucket, TENANT).no_compact == {shipped[2]}


def test_chunks_outside_of_the_blocks_range_are_not_cut_off(world: World) -> None:
    good = [world.ship(series(LONG_AGO), LONG_AGO) for _ in range(2)]
    bad = world.ship(series(LONG_AGO + 5 * HOUR), LONG_AGO)
    world.compactor().compact_all()
    assert list_marks(world.bucket, TENANT).no_compact == {bad}
    assert list_marks(world.bucket, TENANT).deletion == set(good)


def test_what_is_broken_for_one_tenant_does_not_stop_the_others(world: World) -> None:
    other = TenantId("team-b")
    for tenant in (TENANT, other):
        for _ in range(2):
            world.ship(series(LONG_AGO), LONG_AGO, tenant=tenant)

    def fail(operation: str, key: str) -> None:
        if operation == "download" and key.startswith("team-a/"):
            raise BucketUnavailable(operation, key, "out of order")

    world.compactor(bucket=WatchedBucket(world.memory, fail)).compact_all()
    assert len(world.live()) == 2 and len(world.live(other)) == 1
    assert world.value("cortex_compactor_runs_failed_total", reason="error") == 1
    assert world.value("cortex_compactor_group_compactions_failures_total") == 3, "it was tried three times"


def test_a_full_disk_is_told(world: World) -> None:
    for _ in range(2):
        world.ship(series(LONG_AGO), LONG_AGO)

    def merge(*_: object) -> list[BlockMeta | None]:
        raise StorageFull("write", "chunks", 28, "No space left on device")

    world.compactor(merge=merge).compact_all()
    assert world.value("cortex_compactor_disk_out_of_space_errors_total") == 3
    assert len(world.live()) == 2


def test_a_merge_that_loses_samples_uploads_nothing(world: World) -> None:
    for _ in range(2):
        world.ship(series(LONG_AGO), LONG_AGO)

    def merge(*arguments: object) -> list[BlockMeta | None]:
        made = merge_folders(*arguments)  # type: ignore[arg-type]
        for meta in made:
            if meta is not None:
                meta.stats.samples -= 1
        return made

    world.compactor(merge=merge).compact_all()
    assert len(world.metas()) == 2 and len(world.live()) == 2
    assert world.value("cortex_compactor_runs_failed_total", reason="error") == 1


def test_a_tenant_that_is_being_deleted_is_passed_over(world: World) -> None:
    for _ in range(2):
        world.ship(series(LONG_AGO), LONG_AGO)
    write_tenant_deletion_mark(world.bucket, TENANT, TenantDeletionMark(1))
    world.compactor().compact_all()
    assert len(world.live()) == 2
    assert world.value("cortex_compactor_runs_completed_total") == 1


def test_tenants_can_be_left_out_by_name(tmp_path: Path) -> None:
    world = World(tmp_path, disabled_tenants=(TENANT,))
    for _ in range(2):
        world.ship(series(LONG_AGO), LONG_AGO)
    world.compactor().compact_all()
    assert len(world.live()) == 2


def test_compactors_share_the_jobs_of_a_tenant_and_each_is_done_once(world: World) -> None:
    starts = [LONG_AGO + at * 2 * HOUR for at in range(36)]
    shipped = [world.ship(series(start), start) for start in starts for _ in range(2)]
    before = world.content(shipped)
    ring = ring_of("a", "b", "c")
    done = []
    for name in ("a", "b", "c"):
        world.compactor(name, lambda: ring).compact_all()
        done.append(world.value("cortex_compactor_group_compactions_total"))
    assert all(done), "each has some"
    assert world.content(world.live()) == before
    for _ in range(4):
        for name in ("a", "b", "c"):
            world.compactor(name, lambda: ring).compact_all()
    assert {meta.max_time - meta.min_time for meta in world.live().values()} == {24 * HOUR}
    assert world.content(world.live()) == before


def test_a_compactor_that_stops_leaves_everything_as_it_was(world: World) -> None:
    for _ in range(2):
        world.ship(series(LONG_AGO), LONG_AGO)
    compactor = world.compactor()
    world.stop = True
    compactor.compact_all()
    assert len(world.live()) == 2
    assert world.value("cortex_compactor_runs_failed_total", reason="shutdown") == 1


@pytest.mark.parametrize("shards", [0, 2])
@pytest.mark.parametrize("batch", range(6))
def test_a_merge_is_left_between_two_batches_and_done_by_whoever_comes_next(
    world: World, monkeypatch: pytest.MonkeyPatch, batch: int, shards: int
) -> None:
    monkeypatch.setattr("mimir_ray.tsdb.compact.merge.SERIES_PER_BATCH", 1)
    world.limits[TENANT] = Limits(compactor_split_and_merge_shards=shards)
    shipped = [world.ship(series(LONG_AGO, range(first, first + 4)), LONG_AGO) for first in (0, 2)]
    before = world.content(shipped)
    checks = 0

    def merge(*arguments: object) -> list[BlockMeta | None]:
        *others, go_on = arguments

        def check() -> None:
            nonlocal checks
            world.stop = world.stop or checks == batch
            checks += 1
            go_on()  # type: ignore[operator]

        return merge_folders(*others, check)  # type: ignore[arg-type, call-arg]

    world.compactor(merge=merge).compact_all()
    assert checks == batch + 1, "two for the blocks, then one for each series"
    assert world.value("cortex_compactor_runs_failed_total", reason="shutdown") == 1
    assert world.value("cortex_compactor_group_compactions_total") == 0
    assert sorted(world.live()) == sorted(world.metas()) == sorted(shipped)
    out = list((world.directory / "scratch").rglob("out"))
    assert len(out) == 1 and not list(out[0].iterdir())
    world.stop = False
    world.compactor().compact_all()
    assert not world.live().keys() & {*shipped}
    assert world.content(world.live()) == before


def test_jobs_are_begun_for_as_long_as_is_set(tmp_path: Path) -> None:
    world = World(tmp_path, max_compaction_time=Duration(1000))
    for at in range(4):
        for _ in range(2):
            world.ship(series(LONG_AGO + at * 2 * HOUR), LONG_AGO + at * 2 * HOUR)

    def merge(*arguments: object) -> list[BlockMeta | None]:
        world.clock.advance_ms(600)
        return merge_folders(*arguments)  # type: ignore[arg-type]

    world.compactor(merge=merge).compact_all()
    assert world.value("cortex_compactor_group_compactions_total") == 2
    assert world.value("cortex_compactor_runs_completed_total") == 1


class Died(BaseException):
    """The process is gone: nothing catches this."""


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 60), st.sampled_from([0, 2]))
def test_whenever_a_compactor_dies_nothing_is_lost_and_its_successor_finishes(
    tmp_path_factory: pytest.TempPathFactory, operations: int, shards: int
) -> None:
    """It dies before one of its writes to the bucket."""
    world = World(tmp_path_factory.mktemp("world"))
    world.limits[TENANT] = Limits(compactor_split_and_merge_shards=shards)
    shipped = [
        world.ship(series(start, range(first, first + 3)), start)
        for start in (LONG_AGO, LONG_AGO + 2 * HOUR)
        for first in (0, 2)
    ]
    before = world.content(shipped)
    left = operations

    def count(operation: str, key: str) -> None:
        nonlocal left
        if operation in ("put", "upload", "delete"):
            left -= 1
            if left < 0:
                raise Died

    try:
        world.compactor(bucket=WatchedBucket(world.memory, count)).compact_all()
    except Died:
        assert world.content(world.live()) == before, "complete blocks have it all at any moment"
    world.compactor().compact_all()
    live = world.live()
    assert world.content(live) == before
    assert len(live) == max(1, shards)
    assert sum(meta.stats.samples for meta in live.values()) == sum(len(points) for points in before.values())


def test_downloads_of_an_attempt_before_are_used_again(world: World) -> None:
    for _ in range(2):
        world.ship(series(LONG_AGO), LONG_AGO)
    read: list[str] = []
    broken = True

    def watch(operation: str, key: str) -> None:
        if operation == "download":
            read.append(key)
        if broken and operation == "upload":
            raise Died

    with pytest.raises(Died):
        world.compactor(bucket=WatchedBucket(world.memory, watch)).compact_all()
    first = len(read)
    broken = False
    world.compactor(bucket=WatchedBucket(world.memory, watch)).compact_all()
    assert first > 0 and len(read) == first
    assert len(world.live()) == 1
    assert not list((world.directory / "scratch").rglob("chunks")), "nothing is left behind"


def test_blocks_with_chunks_out_of_order_get_mimirs_reason(world: World) -> None:
    shipped = [world.ship(series(LONG_AGO), LONG_AGO) for _ in range(3)]

    def verify(folder: Path) -> None:
        if folder.name == shipped[0]:
            raise OutOfOrderChunks(str(folder / "index"), 16, "1 series have chunks that are out of order or overlap")

    world.verify = verify
    world.compactor().compact_all()
    mark = read_no_compact_mark(world.bucket, TENANT, shipped[0])
    assert mark is not None and mark.reason == "block-index-out-of-order-chunk" and "out of order" in mark.details
    assert len(world.live()) == 2


def test_an_index_that_would_be_too_large_is_not_made(world: World) -> None:
    shipped = [world.ship(series(LONG_AGO), LONG_AGO) for _ in range(3)]
    key = block_key(TENANT, shipped[1], "meta.json")
    meta = BlockMeta.from_json(world.memory.get(key))
    assert meta.thanos is not None
    meta.thanos.files = [("index", 64 << 30), ("meta.json", None)]
    world.memory.put(key, meta.to_json())
    world.compactor().compact_all()
    mark = read_no_compact_mark(world.bucket, TENANT, shipped[1])
    assert mark is not None and mark.reason == "index-size-exceeding"
    assert len(world.live()) == 2


def test_several_jobs_of_a_tenant_run_at_once_and_one_that_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    world = World(tmp_path, compaction_concurrency=3, compaction_retries=1)
    starts = [LONG_AGO + at * 2 * HOUR for at in range(4)]
    shipped = [world.ship(series(start), start) for start in starts for _ in range(2)]
    before = world.content(shipped)

    def fail(operation: str, key: str) -> None:
        if operation == "download" and shipped[2] in key:
            raise BucketUnavailable(operation, key, "out of order")

    world.compactor(bucket=WatchedBucket(world.memory, fail)).compact_all()
    assert len(world.live()) == 5 and world.content(world.live()) == before
    assert world.value("cortex_compactor_runs_failed_total", reason="error") == 1
    world.compactor().compact_all()
    assert len(world.live()) == 1 and world.content(world.live()) == before


def test_blocks_made_too_long_ago_are_left_alone_where_that_is_set(world: World) -> None:
    for _ in range(2):
        world.ship(series(LONG_AGO), LONG_AGO)
    world.clock.advance_ms(3 * HOUR)
    for _ in range(2):
        world.ship(series(LONG_AGO), LONG_AGO)
    world.limits[TENANT] = Limits(compactor_max_lookback=duration("2h"))
    world.compactor().compact_all()
    assert len(world.live()) == 3
    world.limits[TENANT] = Limits(compactor_max_lookback=duration("2h"), compactor_block_upload_enabled=True)
    world.compactor().compact_all()
    assert len(world.live()) == 1, "uploaded blocks may be old"


def test_a_block_whose_samples_are_all_deleted_goes(world: World) -> None:
    """Nothing would be left of a merge: the sources are marked, no block is made, and planning ends."""
    shipped = [world.ship(series(LONG_AGO, range(1)), LONG_AGO) for _ in range(2)]
    for ulid in shipped:
        with TemporaryDirectory() as folder:
            world.memory.download(block_key(TENANT, ulid, "index"), Path(folder) / "index")
            reference = IndexFile(Path(folder) / "index").series().references
        gone = tombstones_bytes(Tombstones(reference, np.array([0]), np.array([1 << 50])))
        world.memory.put(block_key(TENANT, ulid, "tombstones"), gone)
    world.compactor().compact_all()
    assert world.live() == {} and list_marks(world.memory, TENANT).deletion == set(shipped)
    assert world.value("cortex_compactor_group_compaction_runs_completed_total") == 1
    assert world.value("cortex_compactor_group_compactions_total") == 0


def test_a_bug_that_one_tenant_meets_does_not_stop_the_others(world: World) -> None:
    other = TenantId("team-b")
    for tenant in (TENANT, other):
        for _ in range(2):
            world.ship(series(LONG_AGO), LONG_AGO, tenant=tenant)

    def merge(sources: Sequence[Path], *arguments: object) -> list[BlockMeta | None]:
        if TENANT in str(sources[0]):
            raise RuntimeError("a bug")
        return merge_folders(sources, *arguments)  # type: ignore[arg-type]

    world.compactor(merge=merge).compact_all()
    assert len(world.live()) == 2 and len(world.live(other)) == 1
    assert world.value("cortex_compactor_runs_failed_total", reason="error") == 1


def test_the_resolution_of_downsampled_blocks_is_kept(world: World) -> None:
    shipped = [world.ship(series(LONG_AGO), LONG_AGO) for _ in range(3)]
    for ulid in shipped[:2]:
        key = block_key(TENANT, ulid, "meta.json")
        meta = BlockMeta.from_json(world.memory.get(key))
        assert meta.thanos is not None
        meta.thanos.resolution = 300_000
        world.memory.put(key, meta.to_json())
    world.compactor().compact_all()
    assert sorted((len(meta.compaction.sources), meta.thanos.resolution) for meta in world.live().values()
                  if meta.thanos) == [(1, 0), (2, 300_000)]  # fmt: skip


def test_what_lies_in_the_scratch_folder_is_no_reason_to_blame_a_block(world: World) -> None:
    """A machine that went down may have left files of the right size and wrong content."""
    for _ in range(2):
        world.ship(series(LONG_AGO), LONG_AGO)

    def stop_at_the_upload(operation: str, _key: str) -> None:
        if operation == "upload":
            raise Died

    with pytest.raises(Died):
        world.compactor(bucket=WatchedBucket(world.memory, stop_at_the_upload)).compact_all()
    for path in (world.directory / "scratch").rglob("index"):
        path.write_bytes(bytes(path.stat().st_size))
    world.compactor().compact_all()
    assert len(world.live()) == 1 and not list_marks(world.memory, TENANT).no_compact
