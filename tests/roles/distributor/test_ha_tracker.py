"""One distributor's view of HA pairs: what it decides by itself, when it asks, and what it does when nobody answers."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry

from mimir_ray.clock import ManualClock
from mimir_ray.cluster.ring.elections import Elected, Elections, TooManyHaClusters
from mimir_ray.config.limits import Limits
from mimir_ray.config.units import Duration
from mimir_ray.errors import Unavailable
from mimir_ray.model.labels import Labels, labels_of
from mimir_ray.roles.distributor import ha_tracker
from mimir_ray.roles.distributor.distributor import PushOutcome, Written
from mimir_ray.roles.distributor.errors import ReplicasDidNotMatch
from mimir_ray.roles.distributor.ha_tracker import HaTracker, Verdict, judge
from mimir_ray.roles.distributor.metrics import HaTrackerMetrics
from mimir_ray.wire.remote_write import encode_write_request
from tests.roles.distributor.fakes import NOW_MS, TENANT, Setup

LIMITS = Limits(accept_ha_samples=True)
A = Elected("a", 0, 0)


@pytest.mark.parametrize(
    ("record", "replica", "second", "verdict"),
    [
        (None, "a", 0, Verdict.ASK),
        (A, "a", 0, Verdict.TAKE),
        (A, "a", 14.999, Verdict.TAKE),
        (A, "a", 15, Verdict.ASK),
        (A, "b", 0, Verdict.REFUSE),
        (A, "b", 29.999, Verdict.REFUSE),
        (A, "b", 30, Verdict.ASK),
    ],
)
def test_what_is_decided_without_asking(record: Elected | None, replica: str, second: float, verdict: Verdict) -> None:
    assert judge(record, replica, int(second * 1000), 15_000, 30_000) is verdict


class Pairs:
    """A tracker before elections that can be out of reach."""

    def __init__(self, jitter: float = 0.0) -> None:
        self.clock = ManualClock(NOW_MS)
        self.elections = Elections(self.clock)
        self.asked: list[tuple[str, str]] = []
        self.away = False
        self.gate: asyncio.Event | None = None
        self.registry = CollectorRegistry()
        self.tracker = HaTracker(self._claim, self.clock, HaTrackerMetrics(self.registry), lambda: jitter)

    async def _claim(self, tenant: str, cluster: str, replica: str, failover_ms: int, clusters_max: int) -> Elected:
        self.asked.append((cluster, replica))
        if self.gate is not None:
            await self.gate.wait()
        if self.away:
            raise Unavailable("the ring does not answer")
        return self.elections.claim(tenant, cluster, replica, failover_ms, clusters_max)

    def check(self, replica: str, cluster: str = "c", limits: Limits = LIMITS) -> Exception | None:
        try:
            asyncio.run(self.tracker.check(TENANT, cluster, replica, limits))
        except (ReplicasDidNotMatch, TooManyHaClusters, Unavailable) as error:
            return error
        return None

    def metric(self, name: str) -> float | None:
        return self.registry.get_sample_value(name, {"user": TENANT, "cluster": "c"})


def test_the_ring_is_asked_once_and_then_when_a_refresh_is_due() -> None:
    pairs = Pairs()
    for _ in range(30):
        assert pairs.check("a") is None
        assert isinstance(pairs.check("b"), ReplicasDidNotMatch)
        pairs.clock.advance_ms(1000)
    assert pairs.asked == [("c", "a"), ("c", "a")]
    assert pairs.metric("cortex_ha_tracker_kv_store_cas_total") == 2
    assert pairs.metric("cortex_ha_tracker_elected_replica_changes_total") == 1
    assert pairs.metric("cortex_ha_tracker_elected_replica_timestamp_seconds") == NOW_MS / 1000 + 15


def test_jitter_is_added_to_the_update_timeout() -> None:
    pairs = Pairs(jitter=0.5)
    pairs.check("a")
    pairs.clock.advance_ms(17_499)
    pairs.check("a")
    assert len(pairs.asked) == 1
    pairs.clock.advance_ms(1)
    pairs.check("a")
    assert len(pairs.asked) == 2


def test_the_times_are_those_of_the_tenant() -> None:
    pairs = Pairs()
    quick = Limits(
        ha_tracker_update_timeout=Duration(1000),
        ha_tracker_update_timeout_jitter_max=Duration(0),
        ha_tracker_failover_timeout=Duration(2000),
    )
    assert pairs.check("a", limits=quick) is None
    pairs.clock.advance_ms(2000)
    assert pairs.check("b", limits=quick) is None


def test_requests_that_come_at_once_ask_once() -> None:
    pairs = Pairs()

    async def work() -> None:
        pairs.gate = asyncio.Event()
        checks = [asyncio.ensure_future(pairs.tracker.check(TENANT, "c", "a", LIMITS)) for _ in range(20)]
        await asyncio.sleep(0)
        checks[0].cancel()
        await asyncio.sleep(0)
        pairs.gate.set()
        done = await asyncio.gather(*checks, return_exceptions=True)
        assert done[1:] == [None] * 19

    asyncio.run(work())
    assert pairs.asked == [("c", "a")]


def test_while_the_ring_is_away_the_elected_one_is_taken_and_others_are_told_to_try_again() -> None:
    pairs = Pairs()
    assert pairs.check("a") is None
    pairs.away = True
    for _ in range(40):
        pairs.clock.advance_ms(1000)
        assert pairs.check("a") is None
    assert isinstance(pairs.check("b"), Unavailable)
    assert isinstance(pairs.check("a", cluster="new"), Unavailable)
    assert len([one for one in pairs.asked if one == ("c", "a")]) <= 27
    pairs.away = False
    pairs.clock.advance_ms(1000)
    assert pairs.check("a") is None
    assert isinstance(pairs.check("b"), ReplicasDidNotMatch)


def test_a_pair_too_many_is_refused_without_asking_again_at_once() -> None:
    pairs, limits = Pairs(), Limits(accept_ha_samples=True, ha_max_clusters=1)
    assert pairs.check("a", limits=limits) is None
    for _ in range(5):
        assert isinstance(pairs.check("a", "second", limits), TooManyHaClusters)
    assert len(pairs.asked) == 2
    pairs.clock.advance_ms(ha_tracker.REFUSED_MS)
    assert pairs.check("a", "second", LIMITS) is None


def test_pairs_are_remembered_within_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ha_tracker, "PAIRS_MAX", 2)
    pairs = Pairs()
    for cluster in ("c", "d", "c", "e", "c", "d"):
        assert pairs.check("a", cluster) is None
    assert [cluster for cluster, _ in pairs.asked] == ["c", "d", "e", "d"]


# Through a distributor.


def named(name: str, **labels: str) -> Labels:
    return labels_of({"__name__": name} | labels)


def ha_setup(pairs: Pairs | None = None, **limits: object) -> Setup:
    pairs = pairs or Pairs()
    setup = Setup(ha_tracker=pairs.tracker, accept_ha_samples=True, **limits)
    setup.clock = pairs.clock
    return setup


def push(setup: Setup, *series: Labels, at: int = 0) -> PushOutcome:
    async def work() -> PushOutcome:
        body = encode_write_request([(labels, [(NOW_MS + at, 1.0)]) for labels in series])
        outcome = await setup.distributor.push(TENANT, body)
        await setup.distributor.drain()
        return outcome

    return asyncio.run(work())


def test_of_a_pair_one_replica_is_stored_without_its_label() -> None:
    setup = ha_setup()
    both = [(named("up", cluster="c", __replica__=one), named("down", cluster="c", __replica__=one)) for one in "ab"]
    assert push(setup, *both[0]).error is None
    second = push(setup, *both[1])
    assert isinstance(second.error, ReplicasDidNotMatch)
    assert str(second.error) == "replicas did not match, rejecting sample: replica=b, elected=a"
    assert second.written == Written(2)
    assert push(setup, *both[0], at=1).error is None
    assert [labels for labels, _, _ in setup.only.stored] == [named("up", cluster="c"), named("down", cluster="c")] * 2
    assert setup.metric("cortex_distributor_deduped_samples_total", user=TENANT, cluster="c") == 2
    assert setup.metric("cortex_distributor_received_samples_total", user=TENANT) == 4


def test_after_a_failover_the_series_are_the_same() -> None:
    setup = ha_setup()
    push(setup, named("up", cluster="c", __replica__="a"))
    setup.clock.advance_ms(30_000)
    assert push(setup, named("up", cluster="c", __replica__="b"), at=30_000).error is None
    assert isinstance(push(setup, named("up", cluster="c", __replica__="a"), at=30_001).error, ReplicasDidNotMatch)
    assert setup.only.series == [named("up", cluster="c")]


def test_limits_that_change_while_a_request_waits_are_those_of_later_ones() -> None:
    pairs = Pairs()
    setup = ha_setup(pairs)

    async def send(labels: Labels, at: int) -> PushOutcome:
        return await setup.distributor.push(TENANT, encode_write_request([(labels, [(NOW_MS + at, 1.0)])]))

    async def work() -> None:
        pairs.gate = asyncio.Event()
        waiting = asyncio.ensure_future(send(named("up", cluster="c", __replica__="a", job="x"), 0))
        await asyncio.sleep(0)
        setup.tenant_limits = replace(setup.tenant_limits, drop_labels=("job",))
        assert (await send(named("down", job="x"), 0)).error is None
        pairs.gate.set()
        assert (await waiting).error is None
        assert (await send(named("up", cluster="c", __replica__="a", job="x"), 1)).error is None
        await setup.distributor.drain()

    asyncio.run(work())
    assert setup.only.series == [named("down"), named("up", cluster="c", job="x"), named("up", cluster="c")]


@pytest.mark.parametrize("first", [named("up", cluster="c"), named("up", __replica__="a"), named("up")])
def test_without_both_labels_samples_are_taken_as_they_are(first: Labels) -> None:
    setup = ha_setup()
    other = named("down", cluster="c", __replica__="a")
    assert push(setup, first, other).error is None
    assert setup.only.series == [first, other]
    assert setup.metric("cortex_distributor_non_ha_samples_received_total", user=TENANT) == 2
    # The same series are others when they come from an elected replica.
    assert push(setup, other, first, at=1).error is None
    assert named("down", cluster="c") in setup.only.series


def test_only_tenants_that_want_it_are_deduplicated() -> None:
    setup = Setup(ha_tracker=Pairs().tracker)
    for replica in "ab":
        assert push(setup, named("up", cluster="c", __replica__=replica)).error is None
    assert len(setup.only.series) == 2


def test_the_labels_have_the_tenants_names() -> None:
    setup = ha_setup(ha_cluster_label="pair", ha_replica_label="half")
    assert push(setup, named("up", pair="c", half="a", cluster="x")).error is None
    assert isinstance(push(setup, named("up", pair="c", half="b")).error, ReplicasDidNotMatch)
    assert setup.only.series == [named("up", pair="c", cluster="x")]


def test_samples_of_a_pair_too_many_are_refused_and_counted() -> None:
    setup = ha_setup(ha_max_clusters=1)
    push(setup, named("up", cluster="c", __replica__="a"))
    assert isinstance(push(setup, named("up", cluster="d", __replica__="a")).error, TooManyHaClusters)
    reason = {"user": TENANT, "group": "", "reason": "tenant_too_many_ha_clusters"}
    assert setup.metric("cortex_discarded_samples_total", **reason) == 1
