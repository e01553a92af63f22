"""The actor class with its threads and timers, over a folder, without Ray."""

from __future__ import annotations

from pathlib import Path

import pytest

from mimir_ray.bucket.bucket_index import read_bucket_index
from mimir_ray.bucket.filesystem import FilesystemBucket
from mimir_ray.bucket.layout import block_key
from mimir_ray.bucket.markers import list_marks
from mimir_ray.bucket.open import BucketSettings
from mimir_ray.clock import SystemClock
from mimir_ray.cluster.ring.actor import RingActor
from mimir_ray.cluster.ring.model import COMPACTOR, InstanceId, InstanceState
from mimir_ray.cluster.transport.base import RING
from mimir_ray.cluster.transport.in_process import InProcessTransport
from mimir_ray.config.limits import Limits
from mimir_ray.config.overrides import RuntimeConfigSettings, RuntimeDefaults
from mimir_ray.config.units import duration
from mimir_ray.roles.compactor import actor as module
from mimir_ray.roles.compactor.actor import CompactorActor, CompactorSpec
from mimir_ray.roles.compactor.config import CompactorConfig
from mimir_ray.roles.compactor.job_run import upload_block
from mimir_ray.testing.blocks import make_block
from tests.roles.compactor.test_compactor import LONG_AGO, series
from tests.roles.compactor.world import TENANT
from tests.scenarios.test_actors import eventually

ULIDS = [f"01ARZ3NDEKTSV4RRFFQ69G5FA{letter}" for letter in "VWX"]


@pytest.fixture
def actor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CompactorActor:
    monkeypatch.setattr(module, "TICK_S", 0.02)
    bucket = FilesystemBucket(tmp_path / "blocks")
    for ulid in ULIDS[:2]:
        make_block(tmp_path / "made", series(LONG_AGO), ulid)
        upload_block(bucket, TENANT, tmp_path / "made" / ulid, ulid, 2)
    transport = InProcessTransport(SystemClock(), threads=True)
    ring = RingActor(sweep_period_s=0.05)
    transport.serve(RING, lambda: ring)
    spec = CompactorSpec(
        "0",
        "compactor/0",
        "zone-a",
        tmp_path / "scratch",
        BucketSettings(tmp_path / "blocks"),
        CompactorConfig(first_level_compaction_wait_period=duration("0s"), new_block_check_interval=duration("20ms")),
        RuntimeConfigSettings(),
        RuntimeDefaults(limits=Limits(compactor_block_upload_enabled=True)),
    )
    one = CompactorActor(spec, transport)
    one.ring, one.bucket = ring, bucket  # type: ignore[attr-defined]
    return one


def test_a_compactor_joins_compacts_indexes_and_leaves(actor: CompactorActor, tmp_path: Path) -> None:
    bucket: FilesystemBucket = actor.bucket  # type: ignore[attr-defined]

    def indexed() -> set[str]:
        found = read_bucket_index(bucket, TENANT)
        return {block.ulid for block in found.blocks} if found else set()

    assert eventually(lambda: list_marks(bucket, TENANT).deletion == set(ULIDS[:2]))
    assert eventually(lambda: len(indexed()) == 3), "what compaction made is in the index, before a clean-up is due"
    assert actor.status()["state"] == "running" and actor.status()["progress"] == ""
    entry = actor.ring.snapshot(COMPACTOR).instances[InstanceId("compactor-0")]  # type: ignore[attr-defined]
    assert (entry.state, entry.address, entry.zone, len(entry.tokens)) == (
        InstanceState.ACTIVE, "compactor/0", "zone-a", 512,
    )  # fmt: skip

    meta = make_block(tmp_path / "made", series(LONG_AGO), ULIDS[2])
    upload_block(bucket, TENANT, tmp_path / "made" / ULIDS[2], ULIDS[2], 2)
    bucket.delete(block_key(TENANT, ULIDS[2], "meta.json"))
    bucket.put(block_key(TENANT, ULIDS[2], "uploading-meta.json"), meta.to_json())
    actor.finish_block_upload(TENANT, ULIDS[2])
    assert eventually(lambda: ULIDS[2] in indexed())
    assert eventually(lambda: b"cortex_block_upload_api_blocks_total{" in actor.metrics())
    text = actor.metrics()
    assert b"cortex_compactor_runs_completed_total 1.0" in text
    assert b"cortex_compactor_block_cleanup_completed_total 1.0" in text
    actor.stop()
    assert not actor.ring.snapshot(COMPACTOR).instances  # type: ignore[attr-defined]
