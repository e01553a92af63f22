"""How many ingesters there are, and that none with samples is left behind."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from mimir_ray.bucket.filesystem import FilesystemBucket
from mimir_ray.clock import ManualClock
from mimir_ray.cluster.ring.actor import RingActor
from mimir_ray.cluster.ring.factor import AutomaticFactor
from mimir_ray.cluster.ring.model import INGESTER, InstanceDesc, InstanceState
from mimir_ray.cluster.ring.persistence import FileStore
from mimir_ray.cluster.ring.ring import RingPolicy, Rings
from mimir_ray.cluster.transport.base import RING
from mimir_ray.cluster.transport.in_process import InProcessTransport
from mimir_ray.config.limits import Limits
from mimir_ray.config.units import duration
from mimir_ray.deploy.create import leave
from mimir_ray.deploy.ingesters import (
    RING_FILE,
    LeftBehind,
    Needed,
    automatic,
    directory_of,
    how_many,
    instance,
    of_one_machine,
    on_disk,
)
from mimir_ray.deploy.placement import RayNode
from mimir_ray.deploy.settings import Settings
from mimir_ray.model.labels import labels_of
from mimir_ray.roles.ingester.ingester import CLOSED_SUFFIX, Ingester
from mimir_ray.roles.ingester.leftovers import tenants_with_samples
from mimir_ray.roles.ingester.metrics import IngesterMetrics, LifeCycleMetrics
from mimir_ray.testing.writes import write_batch
from tests.roles.ingester.test_ingester import ring_of

NOW = 1_700_000_000_000


def settings(zones: tuple[str, ...] = ("a",), factor: int = 0, root: Path = Path("data")) -> Settings:
    default = Settings()
    ring = replace(default.ingester.ring, replication_factor=factor)
    return replace(
        default,
        data_dir=str(root),
        deploy=replace(default.deploy, zones=zones),
        ingester=replace(default.ingester, ring=ring),
    )


def nodes(*names: str) -> list[RayNode]:
    """`a1` is in zone a."""
    return [RayNode(name, name[0], f"10.0.0.{at}") for at, name in enumerate(names)]


@pytest.mark.parametrize(
    ("cores", "count"), [(0, 1), (1, 1), (2, 1), (4, 1), (7, 1), (8, 2), (12, 3), (16, 4), (96, 4)]
)
def test_a_machine_has_an_ingester_for_every_four_cores(cores: int, count: int) -> None:
    assert automatic(settings(), [], cores) == count


@pytest.mark.parametrize(
    ("zones", "names", "count"),
    [
        (("a",), ("a1",), 1),
        (("a",), ("a1", "a2", "a3"), 3),
        (("a", "b", "c"), ("a1", "b1", "c1"), 3),
        (("a", "b", "c"), ("a1", "a2", "b1", "c1"), 6),
        (("a", "b"), ("a1", "b1", "c1", "c2"), 2),
        (("a", "b", "c"), ("a1",), 3),
    ],
)
def test_nodes_with_labels_have_one_each_and_zones_the_same_number(
    zones: tuple[str, ...], names: tuple[str, ...], count: int
) -> None:
    assert automatic(settings(zones), nodes(*names), cores=64) == count


def test_zones_and_copies_that_are_asked_for_get_their_ingesters_on_any_machine() -> None:
    assert automatic(settings(("a", "b")), [], cores=2) == 2
    assert automatic(settings(factor=3), [], cores=2) == 3


def test_an_automatic_number_is_never_smaller_than_what_has_samples() -> None:
    assert how_many(0, 1, ()) == 1
    assert how_many(0, 1, {0, 2}) == 3
    assert how_many(0, 4, {0, 2}) == 4


def test_a_number_that_leaves_samples_behind_is_refused_with_what_to_do() -> None:
    assert how_many(3, 1, {0, 2}) == 3
    with pytest.raises(LeftBehind) as refused:
        how_many(1, 1, {0, 2})
    text = str(refused.value)
    assert "leave ingester-2 behind" in text
    assert "-deploy.ingesters=3 (or 0)" in text
    assert "`mimir-ray scale --address=<of Ray> -deploy.ingesters=1`" in text


def test_one_that_nobody_needs_leaves_the_ring_and_no_sample_is_missed() -> None:
    clock = ManualClock(NOW)
    transport = InProcessTransport(clock)
    ring = RingActor(policy=RingPolicy(automatic={INGESTER: AutomaticFactor()}), clock=clock, sweep_period_s=0)
    transport.serve(RING, lambda: ring)
    for index in range(2):
        ring.register(INGESTER, InstanceDesc(instance(index), f"ingester/{index}", state=InstanceState.ACTIVE))
    leave(transport.client(RING), 1)
    desc = ring.snapshot(INGESTER)
    assert list(desc.instances) == [instance(0)]
    assert desc.replication is not None
    assert (desc.replication.lost, desc.replication.leaving, desc.replication.drained) == ((), frozenset(), frozenset())


# What is on the disk.


class Past:
    """Ingesters that ran on a data directory and have stopped."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.clock = ManualClock(NOW)
        self.bucket = FilesystemBucket(root / "blocks")
        self.settings = settings(root=root)

    def run(self, index: int, samples: int = 0, flush: bool = False, register: bool = True, stop: bool = True) -> None:
        one = Ingester(
            directory_of(self.settings, index),
            self.settings.blocks_storage.tsdb,
            20 * 60_000,
            self.clock,
            IngesterMetrics(registry := CollectorRegistry()),
            lambda tenant: Limits(),
            lambda: ring_of(instance(index)),
            instance(index),
            LifeCycleMetrics(registry),
            self.bucket,
        )
        one.open()
        labels = labels_of({"__name__": "up", "instance": "a.host"})
        for at in range(samples):
            one.push([write_batch(new=[(labels, [(NOW + at, 1.0)])])])
        if flush:
            one.flush()
        if stop:
            one.close(False)
        if register:
            store = FileStore(self.root / RING_FILE)
            Rings(self.clock, store).register(
                INGESTER, InstanceDesc(instance(index), f"ingester/{index}", state=InstanceState.LEAVING)
            )

    def needed(self, hours_later: int = 0, **querier: Any) -> Needed:
        asked = replace(self.settings, querier=replace(self.settings.querier, **querier))
        return of_one_machine(asked, NOW + hours_later * 3_600_000)


@pytest.fixture
def past(tmp_path: Path) -> Past:
    return Past(tmp_path)


def test_a_new_data_directory_needs_nobody(past: Past) -> None:
    assert past.needed() == Needed()


@pytest.mark.parametrize("stop", [True, False])
def test_samples_in_the_head_are_needed_however_the_ingester_ended(past: Past, stop: bool) -> None:
    past.run(0, samples=3)
    past.run(1, samples=3, stop=stop)
    assert past.needed() == Needed(frozenset({0, 1}))
    shutil.rmtree(past.settings.tsdb_dir / "ingester-0")
    (past.root / RING_FILE).unlink()
    assert past.needed() == Needed(frozenset({1}))


def test_who_never_got_a_sample_may_leave(past: Past) -> None:
    past.run(0, samples=3)
    past.run(1)
    assert past.needed() == Needed(frozenset({0}), idle=frozenset({1}))


def test_blocks_are_needed_until_the_bucket_is_asked_for_them(past: Past) -> None:
    past.run(1, samples=3, flush=True)
    assert past.needed(hours_later=11) == Needed(frozenset({1}))
    assert past.needed(hours_later=13) == Needed(idle=frozenset({1}))
    assert past.needed(query_store_after=duration("0s"), hours_later=1) == Needed(idle=frozenset({1}))


def test_blocks_that_were_not_uploaded_are_needed(past: Past) -> None:
    past.run(1, samples=3, flush=True)
    (shipped,) = directory_of(past.settings, 1).glob("*/thanos.shipper.json")
    for text in ('{"version": 1, "shipped": {}}', "damaged", '{"version": 1}', "[]"):
        shipped.write_text(text)
        assert past.needed(hours_later=13) == Needed(frozenset({1})), text
    shipped.unlink()
    assert past.needed(hours_later=13) == Needed(frozenset({1}))


def test_who_is_out_of_the_ring_and_drained_is_no_matter(past: Past) -> None:
    past.run(1, samples=3, flush=True, register=False)
    assert past.needed(hours_later=13) == Needed()


def test_who_is_out_of_the_ring_with_samples_is_needed(past: Past) -> None:
    past.run(1, samples=3, register=False)
    assert past.needed() == Needed(frozenset({1}))


def test_a_lost_folder_is_needed_so_that_the_ring_hears_of_the_loss(past: Past) -> None:
    past.run(1, samples=3)
    shutil.rmtree(directory_of(past.settings, 1))
    assert past.needed() == Needed(frozenset({1}))


def test_a_damaged_checkpoint_counts_as_samples(past: Past) -> None:
    past.run(1, samples=3, flush=True)
    assert not tenants_with_samples(directory_of(past.settings, 1), 0, NOW + 1000)
    (checkpoint,) = directory_of(past.settings, 1).glob("*/checkpoints/checkpoint.*")
    checkpoint.write_bytes(b"")
    assert len(tenants_with_samples(directory_of(past.settings, 1), 0, NOW + 1000)) == 1


def test_other_folders_are_left_alone(past: Past) -> None:
    past.run(1, samples=3)
    past.run(2, samples=3)
    (tenant,) = (one for one in directory_of(past.settings, 2).iterdir() if one.is_dir())
    tenant.rename(tenant.with_name(tenant.name + CLOSED_SUFFIX))
    (past.settings.tsdb_dir / "ingester-old").mkdir()
    (past.settings.tsdb_dir / "notes").mkdir()
    assert on_disk(past.settings, NOW) == {1}
