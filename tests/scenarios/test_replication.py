"""Replication, shuffle sharding and a ring without memory, in a cluster in one process whose clock stands still."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mimir_ray.cluster.ring.model import INGESTER, InstanceId
from mimir_ray.cluster.ring.replication import TooFewLiveReplicas, TooManyUnhealthyInstances
from mimir_ray.cluster.ring.ring import MemoryStore
from mimir_ray.cluster.transport.base import RING
from mimir_ray.errors import Unavailable
from mimir_ray.model.labels import labels_of
from tests.scenarios.cluster import NOW_MS, Cluster, Series

ZONES = ("a", "b", "c")


def samples(metric: str, at_ms: int = NOW_MS, count: int = 40) -> Series:
    return [(labels_of({"__name__": metric, "number": str(one)}), [(at_ms, float(one))]) for one in range(count)]


def test_two_of_three_replicas_are_enough_and_one_is_not(tmp_path: Path) -> None:
    with Cluster(tmp_path, ingesters=3, replication_factor=3, zones=ZONES) as cluster:
        cluster.push(samples("all"))
        cluster.kill(0)
        cluster.push(samples("without_a"))
        assert cluster.instant("sum by (__name__) ({number!=''})") == cluster.expected(
            "sum by (__name__) ({number!=''})"
        )
        cluster.pass_time(70)
        cluster.push(samples("still", cluster.clock.now_ms()))
        cluster.kill(1)
        outcome = cluster.try_push(samples("too_few", cluster.clock.now_ms()))
        assert outcome.error is not None
        cluster.pass_time(70)
        assert isinstance(cluster.try_push(samples("too_few")).error, TooFewLiveReplicas)
        with pytest.raises(TooManyUnhealthyInstances):
            cluster.instant("all")


def test_two_ingesters_of_three_take_everything_and_one_alone_refuses(tmp_path: Path) -> None:
    """As Mimir: the quorum is that of the replication factor, however few there are."""
    with Cluster(tmp_path / "two", ingesters=2, replication_factor=3, zones=ZONES) as cluster:
        cluster.push(samples("up"))
        assert cluster.instant("count(up)") == cluster.expected("count(up)")
        cluster.start(2)  # the third one has nothing, and may be the only one that is asked beside one of the others
        for _ in range(10):
            assert cluster.instant("sum(up)", fragments=False) == cluster.expected("sum(up)")
    with Cluster(tmp_path / "one", ingesters=1, replication_factor=3, zones=ZONES) as cluster:
        error = cluster.try_push(samples("up")).error
        assert str(error).startswith("at least 2 live replicas required across different availability zones")


def test_a_read_only_ingester_takes_no_writes_and_is_still_read(tmp_path: Path) -> None:
    with Cluster(tmp_path, ingesters=3) as cluster:
        cluster.push(samples("up"))
        cluster.transport.client(RING).call("set_read_only", INGESTER, InstanceId("ingester-1"), True)
        cluster.refresh()
        before = cluster.nodes[1].ingester.tenant_stats()
        assert any(stats.series for stats in before.values())
        cluster.push(samples("new"))
        assert cluster.nodes[1].ingester.tenant_stats() == before
        for query in ("sum(up)", "sum(new)", "count({number!=''})"):
            assert cluster.instant(query) == cluster.expected(query)


def test_a_tenant_in_a_shard_is_asked_for_in_its_shard_only(tmp_path: Path) -> None:
    with Cluster(tmp_path, ingesters=5, ingestion_tenant_shard_size=2) as cluster:
        cluster.pass_time(14 * 3600)  # nobody counts as new
        now = cluster.clock.now_ms()
        cluster.push(samples("up", now))
        holding = [number for number, node in cluster.nodes.items() if node.ingester.tenant_stats()]
        assert len(holding) == 2
        assert cluster.instant("sum(up)") == cluster.expected("sum(up)")
        asked = [number for number, node in cluster.nodes.items() if node.calls]
        assert asked == holding


def test_samples_from_before_a_shard_changed_are_found_within_the_look_back(tmp_path: Path) -> None:
    with Cluster(tmp_path, ingesters=4, ingestion_tenant_shard_size=2) as cluster:
        cluster.pass_time(14 * 3600)
        for step in range(6):
            cluster.push(samples("up", cluster.clock.now_ms()))
            if step < 3:
                cluster.start(4 + step)
            cluster.pass_time(60)
            assert cluster.instant("sum(count_over_time(up[1h]))") == cluster.expected("sum(count_over_time(up[1h]))")


def test_the_number_of_copies_follows_the_machines(tmp_path: Path) -> None:
    """One, then three; what was stored once is never missed, and no ingester is asked for nothing afterwards."""
    with Cluster(tmp_path, ingesters=1, replication_factor=0) as cluster:
        cluster.push(samples("one"))
        for number in (1, 2):
            cluster.start(number)
        cluster.push(samples("three"))
        held = [sum(stats.series for stats in node.ingester.tenant_stats().values()) for node in cluster.nodes.values()]
        assert held == [80, 40, 40]
        for query in ("sum(one)", "sum(three)", "count({number!=''})"):
            assert cluster.instant(query) == cluster.expected(query)
        cluster.kill(2)
        with pytest.raises(Unavailable):
            cluster.instant("sum(one)")
        cluster.push(samples("two_of_three"))
        cluster.start(2)
        cluster.pass_time(15 * 3600)
        cluster.push(samples("later", cluster.clock.now_ms()))
        cluster.kill(0)
        assert cluster.instant("sum(later)") == cluster.expected("sum(later)")


def test_one_machine_keeps_one_copy_and_evaluates_where_the_series_are(tmp_path: Path) -> None:
    with Cluster(tmp_path, ingesters=1, replication_factor=0) as cluster:
        cluster.push(samples("up"))
        assert cluster.instant("sum(up)") == cluster.expected("sum(up)")
        assert "evaluate" in cluster.nodes[0].calls


def test_a_disk_that_was_lost_is_not_counted_on(tmp_path: Path) -> None:
    """Two have every sample, one of them starts with nothing: it must not stand in for the other."""
    with Cluster(tmp_path, ingesters=3, replication_factor=0) as cluster:
        cluster.push(samples("up"))
        cluster.kill(1)
        shutil.rmtree(tmp_path / "ingester-1")
        cluster.start(1)
        for _ in range(10):
            assert cluster.instant("sum(up)", fragments=False) == cluster.expected("sum(up)")
        cluster.kill(2)
        with pytest.raises(Unavailable):
            cluster.instant("sum(up)")


def test_a_ring_that_lost_its_memory_hides_no_samples(tmp_path: Path) -> None:
    """Two of three have spoken up since; the third one's samples would be missing from a plain answer."""
    with Cluster(tmp_path, ingesters=3) as cluster:
        cluster.push(samples("up"))
        cluster.ring_store = MemoryStore()
        cluster.clock.advance_ms(1_000)
        cluster.start_ring()
        for number in (0, 1):
            cluster.nodes[number].lifecycler.tick()
        cluster.clock.advance_ms(16_000)
        for number in (0, 1):
            cluster.nodes[number].lifecycler.tick()
        cluster.watcher.poll()
        assert len(cluster.view) == 3
        assert cluster.instant("sum(up)") == cluster.expected("sum(up)")
        cluster.pass_time(70)
        assert cluster.view.healthy().all()
