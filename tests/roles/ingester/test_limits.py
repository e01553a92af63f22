"""What one ingester takes: its part of tenants' limits, what it owns of them, and what it takes on in all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from mimir_ray.clock import ManualClock
from mimir_ray.cluster.ring.lookup import RingOptions, RingView
from mimir_ray.cluster.ring.model import INGESTER, InstanceDesc, InstanceId, InstanceState, RingDesc
from mimir_ray.cluster.ring.shuffle_shard import shuffle_shard
from mimir_ray.config.instance_limits import IngesterInstanceLimits
from mimir_ray.config.limits import Limits
from mimir_ray.config.units import Bytes, duration
from mimir_ray.model.tenant import TenantId
from mimir_ray.roles.api import Refusal
from mimir_ray.roles.ingester.config import IngesterConfig, TsdbConfig
from mimir_ray.roles.ingester.ingester import Ingester
from mimir_ray.roles.ingester.instance_limits import (
    EwmaRate,
    InstanceLimits,
    TooManyBytesInFlight,
    TooManyRequestsInFlight,
    batch_bytes,
)
from mimir_ray.roles.ingester.local_limits import Shares, sharing_ingesters
from mimir_ray.roles.ingester.metrics import IngesterMetrics, InstanceMetrics
from mimir_ray.roles.ingester.pages import NoOpenTsdb
from mimir_ray.roles.ingester.refusal_log import RefusalLog
from mimir_ray.testing.writes import write_batch

from .test_ingester import ME, NOW, TENANT, ring_of, up


class Setup:
    """An open ingester; `ring`, `limits`, `bounds` and `clock` may be changed."""

    def __init__(self, folder: Path, **config: Any) -> None:
        self.clock = ManualClock(NOW)
        self.ring = ring_of(ME)
        self.limits = Limits()
        self.bounds = IngesterInstanceLimits()
        self.registry = CollectorRegistry()
        self.ingester = Ingester(
            folder,
            TsdbConfig(),
            60_000,
            self.clock,
            IngesterMetrics(self.registry),
            lambda tenant: self.limits,
            lambda: self.ring,
            ME,
            settings=replace(IngesterConfig(), **config),
            instance_limits=lambda: self.bounds,
        )
        self.ingester.open()

    def push(self, *numbers: int, tenant: str = TENANT) -> Any:
        batch = write_batch(new=[(up(number), [(self.clock.now_ms(), 1.0)]) for number in numbers], tenant=tenant)
        (result,) = self.ingester.push([batch])
        return result

    def maintain(self, after_s: float = 60) -> None:
        self.clock.advance_ms(int(after_s * 1000))
        self.ingester.maintain()

    def metric(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(f"cortex_ingester_{name}", labels) or 0.0

    def tracked(self, name: str) -> float | None:
        labels = {"user": TENANT, "name": name}
        return self.registry.get_sample_value("cortex_ingester_active_series_custom_tracker", labels)


# Parts of global limits.


def zones_of(counts: list[int], replicas: int = 3, read_only: int = 0) -> RingView:
    """So many ingesters in each zone; the first ones are read-only."""
    instances = {}
    for zone, count in enumerate(counts):
        for at in range(count):
            name = InstanceId(f"ingester-{zone}-{at}")
            tokens = np.sort(np.random.default_rng(zone * 100 + at).integers(0, 1 << 32, 8, np.uint32))
            instances[name] = InstanceDesc(
                name, name, zone=f"z{zone}", state=InstanceState.ACTIVE, tokens=tokens, heartbeat_ms=NOW,
                read_only=len(instances) < read_only,
            )  # fmt: skip
    return RingView(RingDesc(INGESTER, 1, NOW, instances), RingOptions(replicas, len(counts) > 1))


@pytest.mark.parametrize(
    ("zones", "shard_size", "sharing"),
    [([4], 0, 4), ([4], 3, 3), ([4], 9, 4), ([2, 2, 2], 0, 6), ([2, 5, 5], 0, 6), ([4, 4, 4], 3, 3), ([4, 4, 4], 4, 6)],
)
def test_series_are_spread_over_the_shard_and_evenly_over_zones(
    zones: list[int], shard_size: int, sharing: int
) -> None:
    assert sharing_ingesters(zones_of(zones), InstanceId("ingester-0-0"), shard_size) == sharing


def test_who_takes_no_writes_has_no_part() -> None:
    assert sharing_ingesters(zones_of([4], read_only=1), InstanceId("ingester-0-1"), 0) == 3
    assert sharing_ingesters(zones_of([2, 2, 2], read_only=1), InstanceId("ingester-0-1"), 0) == 3


def test_shares_are_found_anew_when_the_ring_changes() -> None:
    shares = Shares(InstanceId("ingester-0-0"))
    assert shares.of(zones_of([4]), 0) == 4
    later = zones_of([3])
    later.version = 2
    assert shares.of(later, 0) == 3


def test_a_tenant_with_a_shard_has_a_larger_part_in_each_ingester(tmp_path: Path) -> None:
    setup = Setup(tmp_path)
    setup.ring = ring_of(ME, "ingester-1", "ingester-2", "ingester-3")
    setup.limits = Limits(max_global_series_per_user=8, ingestion_tenant_shard_size=2)
    result = setup.push(*range(6))
    assert [(one.reason, one.count) for one in result.refusals] == [("max-series-per-user", 2)]
    setup.maintain()
    assert setup.metric("local_limits", limit="max_global_series_per_user", user=TENANT) == 4


# Owned series.


def owned_by_me(ring: RingView, numbers: range, shard_size: int = 0) -> int:
    """Slowly: by the hash of each series by itself."""
    view = shuffle_shard(ring, TENANT, shard_size) if shard_size else ring
    count = 0
    for number in numbers:
        token = 2166136261
        for text in (TENANT, *(part for pair in up(number) for part in pair)):
            for byte in text.encode():
                token = token * 16777619 % (1 << 32) ^ byte
        owners = view.owners(np.array([token], np.uint32))[0]
        count += ME in [view.instances[at].id for at in owners if at >= 0]
    return count


@pytest.mark.parametrize(("replicas", "shard_size"), [(1, 0), (2, 0), (1, 2)])
def test_owned_are_the_series_whose_token_falls_to_this_ingester_now(
    tmp_path: Path, replicas: int, shard_size: int
) -> None:
    setup = Setup(tmp_path, track_ingester_owned_series=True)
    setup.push(*range(50))
    setup.maintain()
    assert setup.metric("owned_series", user=TENANT) == 50
    setup.ring = ring_of(ME, "ingester-1", "ingester-2", replication_factor=replicas, version=2)
    setup.limits = Limits(ingestion_tenant_shard_size=shard_size)
    setup.maintain()
    assert setup.metric("owned_series", user=TENANT) == owned_by_me(setup.ring, range(50), shard_size)


def test_series_of_others_leave_room_once_owned_series_count_for_limits(tmp_path: Path) -> None:
    for use in (False, True):
        setup = Setup(tmp_path / str(use), use_ingester_owned_series_for_limits=use)
        setup.limits = Limits(max_global_series_per_user=20)
        setup.push(*range(20))
        setup.ring = ring_of(ME, "ingester-1", version=2)
        setup.maintain()
        owned = owned_by_me(setup.ring, range(20))
        result = setup.push(*range(100, 120))
        taken = 20 - sum(one.count for one in result.refusals)
        assert taken == (max(0, 10 - owned) if use else 0)


# What an ingester takes on in all.


def test_a_tenant_too_many_is_refused_and_those_there_go_on(tmp_path: Path) -> None:
    setup = Setup(tmp_path)
    setup.bounds = IngesterInstanceLimits(max_tenants=1)
    assert setup.push(1, tenant="a").error is None
    error = setup.push(1, tenant="b").error
    assert str(error) == (
        "the write request has been rejected because the ingester exceeded the allowed number of tenants "
        "(err-mimir-ingester-max-tenants). To adjust the related limit, configure "
        "-ingester.instance-limits.max-tenants, or contact your service administrator."
    )
    assert setup.push(2, tenant="a").error is None
    assert setup.metric("instance_rejected_requests_total", reason="ingester_max_tenants") == 1


def test_series_of_all_tenants_together_are_bounded(tmp_path: Path) -> None:
    setup = Setup(tmp_path)
    setup.bounds = IngesterInstanceLimits(max_series=3)
    assert setup.push(1, 2, tenant="a").error is None
    error = setup.push(1, 2, tenant="b").error
    assert "exceeded the allowed number of in-memory series (err-mimir-ingester-max-series)" in str(error)
    assert setup.push(1, tenant="b").error is None
    assert setup.push(1, 2, tenant="a").error is None
    assert setup.metric("instance_rejected_requests_total", reason="ingester_max_series") == 1


def test_faster_than_the_rate_is_refused_until_it_has_fallen(tmp_path: Path) -> None:
    setup = Setup(tmp_path)
    setup.bounds = IngesterInstanceLimits(max_ingestion_rate=5)
    assert setup.push(*range(20)).error is None
    setup.clock.advance_ms(1000)
    error = setup.push(1).error
    assert "exceeded the samples ingestion rate limit (err-mimir-ingester-max-ingestion-rate)" in str(error)
    setup.clock.advance_ms(10_000)
    assert setup.push(1).error is None


def test_limits_can_change_while_it_runs_and_are_told(tmp_path: Path) -> None:
    setup = Setup(tmp_path)
    setup.bounds = IngesterInstanceLimits(max_series=7, max_inflight_push_requests_bytes=Bytes(8))
    setup.maintain()
    assert setup.metric("instance_limits", limit="max_series") == 7
    assert setup.metric("instance_limits", limit="max_inflight_push_requests_bytes") == 8
    assert setup.metric("instance_limits", limit="max_inflight_push_requests") == 30_000


def limits_of(**bounds: Any) -> tuple[InstanceLimits, CollectorRegistry]:
    registry = CollectorRegistry()
    bound = IngesterInstanceLimits(**bounds)
    return InstanceLimits(lambda: bound, ManualClock(NOW), InstanceMetrics(registry)), registry


def test_pushes_under_way_are_counted_and_bounded() -> None:
    limits, registry = limits_of(max_inflight_push_requests=2)
    batch = write_batch(new=[(up(), [(NOW, 1.0)])])
    with limits.push([batch]):
        with limits.push([batch]):
            limits.report()
            assert registry.get_sample_value("cortex_ingester_inflight_push_requests") == 2
            with pytest.raises(TooManyRequestsInFlight, match="allowed number of inflight"), limits.push([batch]):
                raise AssertionError("not reached")
        with limits.push([batch]):
            pass
    limits.report()
    assert registry.get_sample_value("cortex_ingester_inflight_push_requests") == 0
    assert registry.get_sample_value("cortex_ingester_inflight_push_requests_bytes") == 0
    reason = {"reason": "ingester_max_inflight_push_requests"}
    assert registry.get_sample_value("cortex_ingester_instance_rejected_requests_total", reason) == 1


def test_bytes_under_way_are_bounded() -> None:
    batch = write_batch(new=[(up(), [(NOW, 1.0)])])
    limits, _ = limits_of(max_inflight_push_requests_bytes=Bytes(batch_bytes(batch) * 2))
    with limits.push([batch]), limits.push([batch]), pytest.raises(TooManyBytesInFlight), limits.push([batch]):
        raise AssertionError("not reached")
    with pytest.raises(TooManyBytesInFlight), limits.push([batch] * 3):
        raise AssertionError("not reached")


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 1000)), max_size=20))
def test_the_rate_is_the_average_of_seconds_with_falling_weight(events: list[tuple[int, int]]) -> None:
    rate, now = EwmaRate(0.0), 0
    seconds: list[int] = [0]
    for pause, count in events:
        now += pause
        seconds += [0] * pause
        rate.add(count, float(now))
        seconds[-1] += count
    expected = 0.0
    for at, count in enumerate(seconds[:-1]):
        expected = count if at == 0 else expected + 0.2 * (count - expected)
    assert rate.rate(float(now)) == pytest.approx(expected)


# The log.


def test_one_refusal_of_many_is_logged_each_reason_by_itself() -> None:
    log = RefusalLog(3)
    logged = [log.note(TENANT, Refusal("sample-out-of-order", 0, NOW, 1)) for _ in range(7)]
    assert logged == [True, False, False, True, False, False, True]
    assert log.note(TENANT, Refusal("max-series-per-user", 0, NOW, 1))
    assert all(RefusalLog(0).note(TENANT, Refusal("x", 0, NOW, 1)) for _ in range(3))


# Trackers.


def test_custom_trackers_follow_the_limits_and_vanish_at_zero(tmp_path: Path) -> None:
    setup = Setup(tmp_path, active_series_metrics_update_period=duration("1m"))
    setup.limits = Limits(
        active_series_custom_trackers={"zero": '{instance="0.host"}', "some": '{instance=~"[01].host"}', "bad": "{"},
        active_series_additional_custom_trackers={"none": "down", "some": '{instance=~"[012].host"}'},
    )
    setup.push(*range(5))
    setup.ingester.maintain()
    assert [setup.tracked(name) for name in ("zero", "some", "none")] == [1, 3, None]
    assert setup.metric("active_series", user=TENANT) == 5
    setup.limits = Limits(active_series_custom_trackers={"all": "{}"})
    setup.maintain(60)
    assert [setup.tracked(name) for name in ("zero", "all")] == [None, 5]
    assert setup.ingester.tenant_stats()[TenantId(TENANT)].active_series == 5
    setup.maintain(120)
    assert setup.registry.get_sample_value("cortex_ingester_active_series", {"user": TENANT}) is None


def test_active_series_are_not_counted_where_that_is_off(tmp_path: Path) -> None:
    setup = Setup(tmp_path, active_series_metrics_enabled=False)
    setup.push(1)
    setup.ingester.maintain()
    assert setup.registry.get_sample_value("cortex_ingester_active_series", {"user": TENANT}) is None


# Pages.


def test_pages_tell_what_is_open_of_a_tenant(tmp_path: Path) -> None:
    setup = Setup(tmp_path)
    setup.push(1, 2, tenant="b")
    setup.push(1, tenant="a")
    assert [(one.tenant, one.max_time) for one in setup.ingester.tenants()] == [("a", NOW), ("b", NOW)]
    page = setup.ingester.tenant_tsdb(TenantId("b"))
    assert (page.series, page.min_time, page.blocks) == (2, NOW, ())
    lines = setup.ingester.tsdb_metrics(TenantId("b")).decode().splitlines()
    assert "prometheus_tsdb_head_series 2.0" in lines
    assert "prometheus_tsdb_head_samples_appended_total 2.0" in lines
    for call in (setup.ingester.tenant_tsdb, setup.ingester.tsdb_metrics):
        with pytest.raises(NoOpenTsdb, match="TSDB not found for tenant nobody"):
            call(TenantId("nobody"))
