"""Rates: shared among distributors, of one distributor, and answers that are held back."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimir_ray.config.instance_limits import DistributorInstanceLimits
from mimir_ray.config.units import Duration
from mimir_ray.errors import Unavailable
from mimir_ray.model.labels import labels_of
from mimir_ray.roles.distributor.distributor import PushOutcome
from mimir_ray.roles.distributor.errors import (
    IngestionBurstLimited,
    IngestionRateLimited,
    InstanceIngestionRateReached,
    RateLimited,
    RequestRateLimited,
)
from mimir_ray.roles.distributor.rate_limit import EwmaRate
from mimir_ray.wire.remote_write import encode_write_request
from tests.roles.distributor.fakes import NOW_MS, TENANT, Setup


def push(setup: Setup, samples: int = 1) -> PushOutcome:
    series = [(labels_of({"__name__": "m", "n": str(at)}), [(NOW_MS, 1.0)]) for at in range(samples)]

    async def work() -> PushOutcome:
        outcome = await setup.distributor.push(TENANT, encode_write_request(series))
        await setup.distributor.drain()
        return outcome

    return asyncio.run(work())


def test_distributors_share_a_rate_and_each_has_the_whole_burst() -> None:
    count = 1
    setup = Setup(distributors=lambda: count, ingestion_rate=100.0, ingestion_burst_size=100)
    assert push(setup, 100).error is None
    count = 4
    setup.clock.advance_ms(1000)
    assert isinstance(push(setup, 26).error, IngestionRateLimited)
    assert push(setup, 25).error is None
    error = push(setup, 101).error
    assert isinstance(error, IngestionBurstLimited) and (error.burst, error.items) == (100, 101)


def test_a_burst_factor_is_of_the_rate_of_one_distributor() -> None:
    setup = Setup(distributors=lambda: 2, ingestion_rate=100.0, ingestion_burst_factor=3.0)
    assert push(setup, 150).error is None
    error = push(setup, 151).error
    assert isinstance(error, IngestionBurstLimited) and error.burst == 150


def test_request_rates_are_shared_too() -> None:
    setup = Setup(distributors=lambda: 2, request_rate=2.0, request_burst_size=1)
    assert push(setup).error is None
    setup.clock.advance_ms(999)
    assert isinstance(push(setup).error, RequestRateLimited)
    setup.clock.advance_ms(1)
    assert push(setup).error is None
    assert setup.metric("cortex_discarded_requests_total", user=TENANT, reason="rate_limited") == 1


@pytest.mark.parametrize("overloaded", [False, True])
def test_a_tenant_chooses_what_too_fast_is_called(overloaded: bool) -> None:
    name = "service_overload_status_code_on_rate_limit_enabled"
    for limits in ({"request_rate": 1.0}, {"ingestion_burst_size": 0}):
        error = push(Setup(**{**limits, name: overloaded})).error
        assert isinstance(error, RateLimited) and error.overloaded is overloaded


def test_instance_limits_are_those_in_force_now() -> None:
    limits = DistributorInstanceLimits()
    setup = Setup(instance_limits=lambda: limits)
    limits = DistributorInstanceLimits(max_ingestion_rate=10.0)
    assert push(setup, 60).error is None
    assert push(setup, 1).error is None  # the average is taken once a second
    setup.clock.advance_ms(1000)
    refused = push(setup).error
    assert isinstance(refused, InstanceIngestionRateReached) and isinstance(refused, Unavailable)
    assert str(refused) == (
        "the write request has been rejected because the distributor exceeded the ingestion rate limit "
        "(err-mimir-distributor-max-ingestion-rate). To adjust the related limit, configure "
        "-distributor.instance-limits.max-ingestion-rate, or contact your service administrator."
    )
    rejected = "cortex_distributor_instance_rejected_requests_total"
    assert setup.metric(rejected, reason="distributor_max_ingestion_rate") == 1
    assert setup.metric("cortex_distributor_instance_limits", limit="max_ingestion_rate") == 10.0
    assert setup.metric("cortex_distributor_ingestion_rate_samples_per_second") == 61.0
    setup.clock.advance_ms(20_000)
    assert push(setup).error is None


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 100)), max_size=20))
def test_the_average_is_that_of_one_tick_after_the_other(events: list[tuple[int, int]]) -> None:
    rate, second, counts = EwmaRate(), 0, [0]
    rate.add(0, 0.0)
    for pause, items in events:
        second += pause
        counts += [0] * pause
        counts[-1] += items
        rate.add(items, float(second))
    wanted = None
    for count in counts[:-1]:
        wanted = float(count) if wanted is None else wanted + 0.2 * (count - wanted)
    assert rate.rate(float(second)) == pytest.approx(wanted or 0.0)


def test_answers_are_held_back_until_they_took_long_enough() -> None:
    setup = Setup(ingestion_artificial_delay=Duration(250))
    began = setup.clock.now_ms()
    outcome = push(setup)
    assert (outcome.error, outcome.delay_s) == (None, 0.25)
    assert setup.clock.now_ms() == began + 250
    assert push(Setup()).delay_s is None
