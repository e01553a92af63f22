"""Compactions and clean-ups over S3, behind a proxy that fails, stalls and truncates at random."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mimir_ray.bucket.bucket_index import read_bucket_index
from mimir_ray.bucket.markers import DeletionMark, list_marks, write_deletion_mark
from mimir_ray.config.limits import Limits
from mimir_ray.testing.faulty_proxy import FaultyProxy
from tests.bucket.test_s3_faults import bucket_of
from tests.roles.compactor.test_compactor import LONG_AGO, series
from tests.roles.compactor.world import HOUR, TENANT, World
from tests.s3_server import S3Server

ROUNDS_MAX = 30


@pytest.mark.parametrize("shards", [0, 2])
def test_whatever_object_storage_does_no_block_is_lost_doubled_or_half_there(
    shards: int, s3_server: S3Server, tmp_path: Path
) -> None:
    config = s3_server.new_bucket()
    world = World(tmp_path, bucket_of(config, 5, patient=True), compaction_retries=1)
    world.limits[TENANT] = Limits(compactor_split_and_merge_shards=shards)
    shipped = [world.ship(series(start), start) for start in (LONG_AGO, LONG_AGO + 2 * HOUR) for _ in range(2)]
    before = world.content(shipped)
    proxy = FaultyProxy(s3_server.endpoint, seed=shards, rate=0.1)
    with proxy.running() as endpoint:
        faulty = bucket_of(replace(config, endpoint=endpoint), 1)
        for _ in range(ROUNDS_MAX):
            compactor = world.compactor(bucket=faulty)
            compactor.compact_all()
            assert world.content(world.live()) == before, "complete blocks have it all at any moment"
            compactor.cleaner.clean_all()
            if len(world.live()) == max(1, shards) and world.value("cortex_compactor_runs_completed_total"):
                break
        else:
            raise AssertionError("it does not come to an end")
    assert proxy.met
    world.compactor().cleaner.clean_all()
    index = read_bucket_index(world.memory, TENANT)
    assert index is not None and {block.ulid for block in index.blocks} >= world.live().keys()
    assert index.deletion_marks.keys() == list_marks(world.memory, TENANT).deletion


def test_a_clean_up_that_object_storage_disturbs_is_finished_by_a_later_one(
    s3_server: S3Server, tmp_path: Path
) -> None:
    config = s3_server.new_bucket()
    world = World(tmp_path, bucket_of(config, 5, patient=True))
    kept, gone = (world.ship(series(LONG_AGO), LONG_AGO) for _ in range(2))
    write_deletion_mark(world.memory, TENANT, DeletionMark(gone, 1))
    with FaultyProxy(s3_server.endpoint, seed=7, rate=0.2).running() as endpoint:
        faulty = bucket_of(replace(config, endpoint=endpoint), 1)
        for _ in range(5):
            world.compactor(bucket=faulty).cleaner.clean_all()
    world.compactor().cleaner.clean_all()
    index = read_bucket_index(world.memory, TENANT)
    assert index is not None and [block.ulid for block in index.blocks] == [kept] and not index.deletion_marks
    assert not list(world.memory.list_objects(f"{TENANT}/{gone}/"))
