"""Three ingesters with the same samples, cut into blocks, shipped, and compacted by two compactors that share jobs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mimir_ray.config.limits import Limits
from mimir_ray.model.labels import Labels, labels_of
from mimir_ray.roles.compactor.job_run import upload_block
from mimir_ray.testing.blocks import Points, as_bits
from mimir_ray.testing.writes import write_batch
from mimir_ray.tsdb.block.from_head import block_from_head
from mimir_ray.tsdb.block.meta import make_ulid
from mimir_ray.tsdb.block.verify import verify_block
from mimir_ray.tsdb.chunks.files import ChunkFiles
from mimir_ray.tsdb.head.head import Head
from mimir_ray.tsdb.head.settings import PushLimits
from tests.roles.compactor.world import HOUR, NOW_MS, TENANT, World, ring_of

ROOT = Path(__file__).parents[2]
FOLDERS = [os.environ.get("MIMIR_RAY_PEERS", ""), str(ROOT / ".peers" / "bin"), str(ROOT.parent / ".peers" / "bin")]
PROMTOOL = shutil.which("promtool", path=os.pathsep.join([*filter(None, FOLDERS), os.environ["PATH"]]))
START = NOW_MS - 30 * HOUR // (2 * HOUR) * (2 * HOUR)
STALE = float(np.array([0x7FF0000000000002], np.uint64).view(np.float64)[0])


def series_of(number: int) -> Labels:
    return labels_of({"__name__": f"m{number % 3}", "i": str(number)})


def history(rng: np.random.Generator, count: int, hours: int, points: int) -> list[tuple[Labels, Points]]:
    """Samples at random times, some of them stale markers."""
    found: list[tuple[Labels, Points]] = []
    for number in range(count):
        times = np.unique(rng.integers(START, START + hours * HOUR, points))
        values = np.where(rng.random(len(times)) < 0.1, STALE, rng.normal(size=len(times)).round(3))
        found.append((series_of(number), list(zip(times.tolist(), values.tolist(), strict=True))))
    return found


def ship_replicas(
    world: World, samples: list[tuple[Labels, Points]], hours: int, replicas: int, rng: np.random.Generator
) -> None:
    """Each sample reaches a quorum of the ingesters, in two pushes of which the second one comes late."""
    received = [
        [(rng.random(len(points)) < 0.6) | (np.arange(len(points)) % replicas == one) for _, points in samples]
        for one in range(replicas)
    ]
    for one in range(replicas):
        folder = world.directory / f"ingester-{one}"
        head = Head(ChunkFiles(folder / "chunks_head"))
        for second in (False, True):
            part = [
                (labels, [point for at, point in enumerate(points) if kept[at] and (at % 3 == 0) == second])
                for (labels, points), kept in zip(samples, received[one], strict=True)
            ]
            fresh = [(labels, points) for labels, points in part if points]
            head.push([write_batch(new=fresh)], 0, PushLimits(out_of_order_window_ms=1000 * HOUR))
        for start in range(START, START + hours * HOUR, 2 * HOUR):
            ulid = make_ulid(world.clock.now_ms(), world.randomness())
            if block_from_head(head, start, start + 2 * HOUR, folder / "blocks", ulid) is not None:
                upload_block(world.memory, TENANT, folder / "blocks" / ulid, ulid, 2)


def compacted(world: World) -> None:
    """Two compactors, until neither has anything to do."""
    ring = ring_of("a", "b")
    for _ in range(6):
        for name in ("a", "b"):
            world.compactor(name, lambda: ring).compact_all()
            assert world.value("cortex_compactor_runs_completed_total") == 1


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**32), st.sampled_from([0, 2, 4]), st.integers(1, 8), st.integers(1, 40))
def test_compacted_replicas_hold_every_sample_once(
    tmp_path_factory: pytest.TempPathFactory, seed: int, shards: int, count: int, points: int
) -> None:
    world = World(tmp_path_factory.mktemp("world"))
    world.limits[TENANT] = Limits(compactor_split_and_merge_shards=shards)
    rng = np.random.default_rng(seed)
    samples = history(rng, count, 6, points)
    ship_replicas(world, samples, 6, 3, rng)
    compacted(world)
    live = world.live()
    assert world.content(live) == as_bits(samples)
    assert sum(meta.stats.samples for meta in live.values()) == sum(len(points) for _, points in samples)
    days = {(meta.min_time // (24 * HOUR), meta.thanos.labels.get("__compactor_shard_id__")) for meta in live.values()
            if meta.thanos}  # fmt: skip
    assert len(days) == len(live), "one block a day and shard"


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not here")
def test_promtool_accepts_what_compactors_make(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.limits[TENANT] = Limits(compactor_split_and_merge_shards=2)
    rng = np.random.default_rng(1)
    samples = [
        (labels, [point for point in points if point[1] == point[1]]) for labels, points in history(rng, 9, 4, 60)
    ]
    ship_replicas(world, samples, 4, 3, rng)
    compacted(world)
    folder = tmp_path / "compacted"
    (folder / "wal").mkdir(parents=True)
    for ulid in world.live():
        for found in world.memory.list_objects(f"{TENANT}/{ulid}/"):
            world.memory.download(found.key, folder / ulid / found.key.removeprefix(f"{TENANT}/{ulid}/"))
        verify_block(folder / ulid)
    dumped: dict[Labels, list[tuple[int, float]]] = {}
    for line in promtool("dump", str(folder)).splitlines():
        match = re.match(r"\{(.*)\} (\S+) (\d+)\Z", line)
        assert match is not None, line
        labels = labels_of(re.findall(r'(\w+)="([^"]*)"', match[1]))
        dumped.setdefault(labels, []).append((int(match[3]), float(match[2])))
    assert as_bits(list(dumped.items())) == as_bits(samples)
    for ulid in world.live():
        assert f"Block ID: {ulid}" in promtool("analyze", str(folder), ulid)


def promtool(*arguments: str) -> str:
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, "tsdb", *arguments], check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout
