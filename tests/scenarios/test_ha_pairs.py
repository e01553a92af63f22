"""Two gateways, one ring: pairs of identical Prometheus servers, their failovers, and the ring's death."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from mimir_ray.cluster.ring.elections import Elected
from mimir_ray.cluster.transport.base import RING
from mimir_ray.config.overrides import RuntimeConfig, RuntimeConfigSettings, RuntimeDefaults
from mimir_ray.errors import Unavailable
from mimir_ray.model.labels import Labels, labels_of
from mimir_ray.roles.distributor.config import DistributorConfig
from mimir_ray.roles.distributor.distributor import Distributor, PushOutcome
from mimir_ray.roles.distributor.errors import ReplicasDidNotMatch
from mimir_ray.roles.distributor.ha_tracker import HaTracker
from mimir_ray.roles.distributor.metrics import DistributorMetrics, HaTrackerMetrics
from mimir_ray.wire.remote_write import encode_write_request
from tests.scenarios.cluster import TENANT, Cluster


class Gateways:
    """Any number of distributors before one cluster; each has its own memory of who is elected."""

    def __init__(self, cluster: Cluster, count: int = 2) -> None:
        self.cluster = cluster
        self.distributors = [self._distributor() for _ in range(count)]

    def _distributor(self) -> Distributor:
        cluster, registry = self.cluster, CollectorRegistry()
        ring = cluster.transport.client(RING)

        async def claim(tenant: str, pair: str, replica: str, failover_ms: int, clusters_max: int) -> Elected:
            return await ring.acall("ha_claim", tenant, pair, replica, failover_ms, clusters_max)  # type: ignore[no-any-return]

        return Distributor(
            DistributorConfig(),
            RuntimeConfig(RuntimeConfigSettings(), RuntimeDefaults(limits=cluster.limits), CollectorRegistry()),
            lambda _tenant: cluster.view,
            cluster._push_client,
            cluster.clock,
            DistributorMetrics(registry),
            ha_tracker=HaTracker(claim, cluster.clock, HaTrackerMetrics(registry), lambda: 0.0),
        )

    def push(self, gateway: int, replica: str) -> PushOutcome:
        """One sample, now, of one replica of a pair."""
        labels = labels_of({"__name__": "up", "cluster": "c", "__replica__": replica})
        body = encode_write_request([(labels, [(self.cluster.clock.now_ms(), float(ord(replica)))])])
        return self.cluster._loop.run_until_complete(self._push(gateway, body))

    async def _push(self, gateway: int, body: bytes) -> PushOutcome:
        outcome = await self.distributors[gateway].push(TENANT, body)
        await self.distributors[gateway].drain()
        return outcome

    def takes(self, gateway: int, replica: str) -> bool:
        outcome = self.push(gateway, replica)
        assert outcome.error is None or isinstance(outcome.error, ReplicasDidNotMatch), outcome.error
        return outcome.error is None


@pytest.fixture
def gateways(tmp_path: Path) -> Gateways:
    cluster = Cluster(tmp_path, 1, 1, accept_ha_samples=True)
    return Gateways(cluster)


def test_all_gateways_listen_to_the_same_replica(gateways: Gateways) -> None:
    assert gateways.takes(0, "a")
    assert not gateways.takes(1, "b")
    assert gateways.takes(1, "a")
    assert not gateways.takes(0, "b")


def test_failover_comes_after_thirty_seconds_of_silence_at_every_gateway(gateways: Gateways) -> None:
    clock = gateways.cluster.clock
    # a sends to the one gateway only, b to both.
    for _ in range(9):
        assert gateways.takes(0, "a")
        assert not gateways.takes(0, "b") and not gateways.takes(1, "b")
        clock.advance_ms(5000)
    # The record was refreshed after 0, 15 and 30 s; the last sample came after 40 s, and now it is 45.
    clock.advance_ms(14_999)
    assert not gateways.takes(1, "b") and not gateways.takes(0, "b")
    clock.advance_ms(1)
    assert gateways.takes(1, "b")
    assert gateways.takes(0, "b")
    assert not gateways.takes(0, "a") and not gateways.takes(1, "a")


def test_never_are_both_replicas_taken_within_a_failover_timeout(gateways: Gateways) -> None:
    """Whichever gateway they come to, whatever it remembers."""
    clock, heard = gateways.cluster.clock, {"a": -(10**9), "b": -(10**9)}
    sent = 0
    for second in range(0, 600, 3):
        # a is silent for two minutes from time to time, b sends always; gateways take turns.
        for replica in "ab" if second // 120 % 2 == 0 else "b":
            sent += 1
            if gateways.takes(sent * 7 // 3 % 2, replica):
                heard[replica] = second
                other = heard["b" if replica == "a" else "a"]
                # From the refresh of the record on, at most 15 s before the last sample.
                assert second == other or second - other >= 30 - 15
        clock.advance_ms(3000)
    assert gateways.cluster.instant('count_over_time(up{cluster="c"}[10m])', clock.now_ms())


def test_who_is_elected_is_still_known_after_the_ring_was_restarted(gateways: Gateways) -> None:
    cluster = gateways.cluster
    assert gateways.takes(0, "a")
    cluster.transport.kill(RING, restarts=False)
    cluster.clock.advance_ms(10_000)
    assert gateways.takes(0, "a")  # it knows by itself
    assert isinstance(gateways.push(1, "b").error, Unavailable)  # it would have to ask
    cluster.clock.advance_ms(10_000)
    assert gateways.takes(0, "a")  # the refresh is due, and can wait
    cluster.start_ring()
    assert not gateways.takes(1, "b")
    cluster.clock.advance_ms(29_000)
    assert not gateways.takes(1, "b")
    cluster.clock.advance_ms(1_000)
    assert gateways.takes(1, "b")


def test_samples_of_a_pair_become_one_series(gateways: Gateways) -> None:
    clock = gateways.cluster.clock
    taken: list[tuple[int, float]] = []
    for step in range(20):
        for replica in "ab" if step < 8 else "b":
            if gateways.takes(step % 2, replica):
                taken.append((clock.now_ms(), float(ord(replica))))
        clock.advance_ms(5000)
    series: Labels = labels_of({"__name__": "up", "cluster": "c"})
    found = gateways.cluster.instant("up[10m]", clock.now_ms())
    assert {labels: [(at, value) for at, value in points] for labels, points in found.items()} == {series: taken}
    assert {value for _, value in taken} == {float(ord("a")), float(ord("b"))}
