"""What was acknowledged is found, whatever happens to ingesters and the ring."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mimir_ray.cluster.ring.model import INGESTER
from mimir_ray.cluster.transport.base import RING
from mimir_ray.cluster.transport.in_process import FaultRates
from mimir_ray.errors import Unavailable
from mimir_ray.model.labels import Labels, labels_of
from mimir_ray.model.matchers import Matcher, MatchType
from mimir_ray.model.metadata import Metadata
from mimir_ray.model.tenant import TenantId
from mimir_ray.promql.engine import Engine, EngineOptions
from mimir_ray.promql.source import Selection
from mimir_ray.roles.ingester.ingester import IngesterNotReady
from mimir_ray.testing.sources import ListSource
from tests.scenarios.cluster import NOW_MS, TENANT, Cluster, close_to, read

EVERYTHING = Selection((Matcher(MatchType.REGEX, "__name__", ".+"),), NOW_MS - 10**8, NOW_MS + 10**8)
STEP = 15_000


def series(
    count: int = 40, first: int = 0, start_ms: int = NOW_MS - 120_000, points: int = 6
) -> list[tuple[Labels, list[tuple[int, float]]]]:
    return [
        (
            labels_of({"__name__": f"m{number % 3}", "instance": f"host-{number}", "job": "ab"[number % 2]}),
            [(start_ms + at * STEP, float(number * 100 + at)) for at in range(points)],
        )
        for number in range(first, first + count)
    ]


@pytest.fixture
def cluster(tmp_path: Path) -> Callable[..., Cluster]:
    return lambda ingesters, replication_factor, **more: Cluster(tmp_path, ingesters, replication_factor, **more)


def everything_is_there(cluster: Cluster) -> bool:
    return read(cluster.source(), EVERYTHING) == read(cluster.written, EVERYTHING)


@pytest.mark.parametrize(("ingesters", "replication_factor"), [(1, 1), (2, 1), (3, 3), (4, 3), (5, 2)])
def test_queries_find_exactly_what_was_acknowledged(
    cluster: Callable[..., Cluster], ingesters: int, replication_factor: int
) -> None:
    with cluster(ingesters, replication_factor) as one:
        one.push(series())
        one.push(series(start_ms=NOW_MS))
        assert everything_is_there(one)
        assert one.instant("sum by (job) (m0)") == one.expected("sum by (job) (m0)") != {}


@pytest.mark.parametrize(("ingesters", "replication_factor"), [(2, 1), (3, 3), (4, 3)])
def test_each_series_is_at_as_many_ingesters_as_the_replication_factor_says(
    cluster: Callable[..., Cluster], ingesters: int, replication_factor: int
) -> None:
    with cluster(ingesters, replication_factor) as one:
        one.push(series())
        held = [node.ingester.tenant_stats()[TENANT].series for node in one.nodes.values()]
        assert sum(held) == 40 * replication_factor
        assert all(held)


def test_the_same_samples_sent_again_change_nothing(cluster: Callable[..., Cluster]) -> None:
    with cluster(2, 1) as one:
        one.push(series())
        one.push(series())
        assert everything_is_there(one)


def test_tenants_do_not_see_each_other(cluster: Callable[..., Cluster]) -> None:
    with cluster(2, 1) as one:
        other = TenantId("team-b")
        one.push(series())
        one.push(series(3, first=100), other)
        assert everything_is_there(one)
        assert read(one.source(other), EVERYTHING) == dict(series(3, first=100))
        assert read(one.source(TenantId("team-c")), EVERYTHING) == {}


def test_labels_and_metadata_are_those_of_all_ingesters(cluster: Callable[..., Cluster]) -> None:
    with cluster(3, 1) as one:
        entry = Metadata("m0", "gauge", "A gauge.", "bytes")
        one.try_push(series(), metadata=[entry])
        source = one.source()
        everything = Selection((), NOW_MS - 10**8, NOW_MS)
        assert source.label_names(everything) == ["__name__", "instance", "job"]
        assert source.label_values("instance", everything) == sorted(f"host-{number}" for number in range(40))
        only = Selection((Matcher(MatchType.EQUAL, "__name__", "m1"),), NOW_MS - 10**8, NOW_MS)
        assert source.label_values("instance", only) == sorted(f"host-{n}" for n in range(40) if n % 3 == 1)
        assert source.metadata() == [entry]
        assert source.metadata("m1") == []


@pytest.mark.parametrize(("ingesters", "replication_factor"), [(2, 1), (3, 3)])
def test_counters_say_since_when_they_count_and_go_on_after_a_restart(
    cluster: Callable[..., Cluster], ingesters: int, replication_factor: int
) -> None:
    with cluster(ingesters, replication_factor) as one:
        one.engine = Engine(EngineOptions(use_start_timestamps=True))
        counters = [(labels, points) for labels, points in series() if dict(labels)["__name__"] == "m0"]
        one.push_counters([(labels, points[:3]) for labels, points in counters], NOW_MS - 130_000)
        one.push_counters([(labels, points[3:]) for labels, points in counters], NOW_MS - 80_000)
        for again in (False, True):
            if again:
                one.restart(0)
            for query in ("start_timestamp(m0)", "increase(m0[3m])", "resets(m0[3m])", "sum by (job) (irate(m0[3m]))"):
                assert close_to(one.instant(query), one.expected(query)) and one.expected(query), query
            assert set(one.instant("start_timestamp(m0)").values()) == {(NOW_MS - 80_000) / 1000}
            assert set(one.instant("resets(m0[3m])").values()) == {1.0}
        one.engine = Engine()
        assert one.instant("start_timestamp(m0)") == {}
        assert set(one.instant("resets(m0[3m])").values()) == {0.0}


# An ingester dies.


def test_with_three_replicas_writes_and_reads_go_on_without_one_ingester(cluster: Callable[..., Cluster]) -> None:
    with cluster(3, 3) as one:
        one.push(series())
        one.kill(1)
        one.push(series(start_ms=NOW_MS))
        assert everything_is_there(one)
        one.pass_time(120)  # now the ring has noticed, too
        assert one.view.healthy().tolist() == [True, False, True]
        one.push(series(start_ms=NOW_MS + 10 * STEP))
        assert everything_is_there(one)


def test_with_three_replicas_nothing_is_taken_or_answered_without_two_ingesters(
    cluster: Callable[..., Cluster],
) -> None:
    with cluster(3, 3) as one:
        one.push(series())
        one.kill(0)
        one.kill(1)
        assert isinstance(one.try_push(series(start_ms=NOW_MS)).error, Unavailable)
        with pytest.raises(Unavailable):
            one.instant("sum(m0)")


@pytest.mark.parametrize("noticed", [False, True])
def test_without_replicas_a_query_fails_rather_than_miss_what_a_dead_ingester_has(
    cluster: Callable[..., Cluster], noticed: bool
) -> None:
    with cluster(2, 1) as one:
        one.push(series())
        one.kill(1)
        if noticed:
            one.pass_time(120)
        for query in ("sum(m0)", "m0", "count(rate(m1[1m]))", "sum(m0) + sum(m1)"):
            with pytest.raises(Unavailable):
                one.instant(query)
        with pytest.raises(Unavailable):
            one.source().label_names(EVERYTHING)
        with pytest.raises(Unavailable):
            one.source().metadata()


def test_without_replicas_a_write_fails_where_its_ingester_is_dead_and_succeeds_elsewhere(
    cluster: Callable[..., Cluster],
) -> None:
    with cluster(2, 1) as one:
        one.push(series())
        one.kill(1)
        outcomes = [one.try_push([each]).error for each in series(start_ms=NOW_MS)]
        failed = [error for error in outcomes if error is not None]
        assert 0 < len(failed) < 40
        assert all(isinstance(error, Unavailable) for error in failed)
        one.start(1)
        assert everything_is_there(one)


def test_with_zones_a_whole_zone_may_die(cluster: Callable[..., Cluster]) -> None:
    with cluster(6, 3, zones=("a", "b", "c")) as one:
        one.push(series())
        one.kill(1)
        one.kill(4)
        one.push(series(start_ms=NOW_MS))
        assert everything_is_there(one)
        one.kill(0)
        with pytest.raises(Unavailable):
            one.instant("sum(m0)")


# An ingester comes back.


def test_an_ingester_that_died_has_after_its_replay_what_it_acknowledged(cluster: Callable[..., Cluster]) -> None:
    with cluster(2, 1) as one:
        one.push(series())
        one.restart(0)
        one.restart(1)
        assert everything_is_there(one)


def test_an_ingester_that_stopped_in_order_has_after_its_start_what_it_acknowledged(
    cluster: Callable[..., Cluster],
) -> None:
    with cluster(2, 1) as one:
        one.push(series())
        one.nodes[0].close()
        with pytest.raises(Unavailable):
            one.instant("sum(m0)")
        one.start(0)
        one.push(series(start_ms=NOW_MS))
        assert everything_is_there(one)


def test_references_of_before_a_restart_are_not_taken_for_other_series(cluster: Callable[..., Cluster]) -> None:
    with cluster(1, 1) as one:
        one.push(series())
        one.push(series(start_ms=NOW_MS))  # by reference
        before = one.registry.get_sample_value(
            "cortex_distributor_ingester_appends_total", {"ingester": "ingester-0", "type": "samples"}
        )
        assert before
        one.restart(0)
        one.push(series(40, first=35, start_ms=NOW_MS + 20 * STEP))  # known and new ones, in other places
        assert everything_is_there(one)


def test_an_ingester_that_lost_its_disk_does_not_take_old_references_for_new_series(
    cluster: Callable[..., Cluster], tmp_path: Path
) -> None:
    with cluster(1, 1) as one:
        one.push(series())
        one.kill(0)
        shutil.rmtree(tmp_path / "ingester-0")
        one.start(0)
        one.written = ListSource()
        one.push(reversed(series(count=20, first=20, start_ms=NOW_MS)))
        one.push(series(start_ms=NOW_MS + 10 * STEP))
        assert everything_is_there(one)


def test_an_ingester_keeps_its_tokens_and_its_series_over_a_restart(cluster: Callable[..., Cluster]) -> None:
    with cluster(3, 1) as one:
        one.push(series())
        tokens = one.view.instances[2].tokens.tolist()
        held = one.nodes[2].ingester.tenant_stats()[TENANT].series
        one.restart(2)
        assert one.view.instances[2].tokens.tolist() == tokens
        assert one.nodes[2].ingester.tenant_stats()[TENANT].series == held
        one.push(series(start_ms=NOW_MS))
        assert one.nodes[2].ingester.tenant_stats()[TENANT].series == held


def test_an_ingester_that_missed_writes_does_not_hide_them_after_it_came_back(cluster: Callable[..., Cluster]) -> None:
    with cluster(3, 3) as one:
        one.push(series())
        one.kill(2)
        one.push(series(start_ms=NOW_MS))
        one.start(2)
        one.kill(0)  # what is left: one that has everything, one with a gap
        assert everything_is_there(one)


def test_an_ingester_that_is_not_ready_yet_refuses_and_is_not_passed_over(cluster: Callable[..., Cluster]) -> None:
    with cluster(2, 1) as one:
        one.push(series())
        one.kill(1)
        node = one.start(1)
        node.ingester._state = "starting"
        with pytest.raises(IngesterNotReady):
            one.instant("sum(m0)")


# The ring.


def test_nothing_is_taken_before_there_is_an_ingester(cluster: Callable[..., Cluster]) -> None:
    with cluster(0, 1) as one:
        assert isinstance(one.try_push(series()).error, Unavailable)
        with pytest.raises(Unavailable, match="empty ring"):
            one.instant("up")


def test_without_the_ring_everything_goes_on_by_its_last_word(cluster: Callable[..., Cluster]) -> None:
    with cluster(2, 1) as one:
        one.push(series())
        one.transport.kill(RING, restarts=False)
        one.push(series(50, start_ms=NOW_MS))
        assert everything_is_there(one)
        with pytest.raises(Unavailable):
            one.refresh()


def test_a_ring_that_was_started_again_knows_everyone_and_changes_no_owner(cluster: Callable[..., Cluster]) -> None:
    with cluster(2, 1) as one:
        one.push(series())
        before = one.view
        keys = np.arange(0, 1 << 32, 1 << 24, dtype=np.uint32)
        one.transport.kill(RING, restarts=False)
        one.start_ring()
        one.refresh()
        assert one.view.version != before.version
        assert (one.view.owners(keys) == before.owners(keys)).all()
        one.push(series(start_ms=NOW_MS))
        assert everything_is_there(one)
        assert one.instant("sum(m0)") == one.expected("sum(m0)")


def test_a_ring_that_lost_everything_is_whole_again_after_one_heartbeat_of_each(
    cluster: Callable[..., Cluster],
) -> None:
    with cluster(3, 3) as one:
        one.push(series())
        one.transport.kill(RING, restarts=False)
        one.ring_store = type(one.ring_store)()
        one.start_ring()
        one.pass_time(20)
        assert len(one.view) == 3
        one.push(series(start_ms=NOW_MS))
        assert everything_is_there(one)


# The ring changes while there are samples.


def test_series_whose_owner_changed_are_put_together_from_both(cluster: Callable[..., Cluster]) -> None:
    with cluster(2, 1) as one:
        one.push(series())
        one.start(2)
        one.push(series(start_ms=NOW_MS))
        held = one.nodes[2].ingester.tenant_stats()[TENANT].series
        assert 0 < held < 40
        assert everything_is_there(one)
        for query in ("sum(m0)", "sum by (job) (sum_over_time(m0[5m]))", "count_over_time(m1[10m])", "m2"):
            assert one.instant(query) == one.expected(query) != {}


def test_ingesters_evaluate_by_themselves_until_the_owners_change(cluster: Callable[..., Cluster]) -> None:
    with cluster(2, 1) as one:
        one.push(series())
        assert one.instant("sum(m0)") == one.expected("sum(m0)")
        assert (one.calls("evaluate"), one.calls("select_page")) == (2, 0)
        one.start(2)
        assert one.instant("sum(m0)") == one.expected("sum(m0)")
        assert one.calls("select_page") == 3


def test_a_new_ingester_without_old_series_in_its_range_does_not_stop_push_down(
    cluster: Callable[..., Cluster],
) -> None:
    with cluster(1, 1) as one:
        one.start(1)
        one.push(series())
        one.instant("sum(m0)")
        assert one.calls("select_page") == 0


def test_an_ingester_that_sees_another_ring_does_not_evaluate(cluster: Callable[..., Cluster]) -> None:
    with cluster(2, 1) as one:
        one.push(series())
        one.transport.client(RING).call("set_read_only", INGESTER, one.nodes[0].id, True)
        one.watcher.poll()  # nobody else looks
        assert one.instant("sum(m0)") == one.expected("sum(m0)")
        assert one.calls("select_page") == 2
        one.refresh()
        assert one.instant("sum(m0)") == one.expected("sum(m0)")
        assert one.calls("select_page") == 2


def test_with_replicas_ingesters_are_asked_for_samples(cluster: Callable[..., Cluster]) -> None:
    with cluster(3, 3) as one:
        one.push(series())
        assert one.instant("sum(m0)") == one.expected("sum(m0)")
        assert one.calls("evaluate") == 0


# Calls that get lost.


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("ingesters", "replication_factor"), [(2, 1), (3, 3)])
def test_under_faults_what_was_acknowledged_is_there_and_nothing_is_made_up(
    cluster: Callable[..., Cluster], ingesters: int, replication_factor: int, seed: int
) -> None:
    with cluster(ingesters, replication_factor) as one:
        random = one.transport._rng = np.random.default_rng(seed)
        one.transport.faults = FaultRates(lost_call=0.2, lost_answer=0.2)
        sent = ListSource()
        refused = 0
        for at in range(40):
            request = series(count=5, first=int(random.integers(20)), start_ms=NOW_MS + at * STEP, points=1)
            for labels, points in request:
                sent.add(labels, points)
            refused += one.try_push(request).error is not None
        one.transport.faults = FaultRates()
        assert 0 < refused < 40
        for number in list(one.nodes):
            one.restart(number)
        found, written, all_sent = (read(each, EVERYTHING) for each in (one.source(), one.written, sent))
        assert written
        for labels, points in written.items():
            assert set(points) <= set(found[labels])
        for labels, points in found.items():
            assert set(points) <= set(all_sent[labels])
            assert len(points) == len({time for time, _ in points})
