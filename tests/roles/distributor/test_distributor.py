"""Pushes through a whole distributor among fake ingesters."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Coroutine
from typing import Any, TypeVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimir_ray.config.units import Duration
from mimir_ray.encoding.hashing import series_token
from mimir_ray.errors import Unavailable
from mimir_ray.model.labels import Labels, labels_of
from mimir_ray.model.metadata import Metadata
from mimir_ray.model.tenant import TenantId
from mimir_ray.roles.api import Refusal
from mimir_ray.roles.distributor import errors
from mimir_ray.roles.distributor.distributor import PushOutcome
from mimir_ray.wire.protobuf import encode_labels
from mimir_ray.wire.remote_write import encode_write_request
from tests.roles.distributor.fakes import NOW_MS, TENANT, Setup, config_with, ring_of

Result = TypeVar("Result")


def run(work: Coroutine[Any, Any, Result]) -> Result:
    return asyncio.run(asyncio.wait_for(work, 20))


def named(name: str, **labels: str) -> Labels:
    return labels_of({"__name__": name} | labels)


def request_of(*samples: tuple[Labels | bytes, int, float], metadata: tuple[Metadata, ...] = ()) -> bytes:
    """One series a sample; times relative to now."""
    return encode_write_request([(labels, [(NOW_MS + at, value)]) for labels, at, value in samples], metadata)


async def push(setup: Setup, body: bytes, tenant: TenantId = TENANT) -> PushOutcome:
    outcome = await setup.distributor.push(tenant, body)
    await setup.distributor.drain()
    return outcome


def push_all(setup: Setup, *bodies: bytes) -> list[PushOutcome]:
    async def work() -> list[PushOutcome]:
        return [await push(setup, body) for body in bodies]

    return run(work())


UP = named("up", job="a")
DOWN = named("down")
ONE = request_of((UP, 0, 1.0), (DOWN, 0, 2.0))
TWO = request_of((UP, 1, 3.0), (DOWN, 1, 4.0))


def test_samples_of_new_series_arrive_with_their_labels() -> None:
    setup = Setup()
    assert push_all(setup, ONE) == [PushOutcome(2)]
    assert setup.only.stored == [(UP, NOW_MS, 1.0), (DOWN, NOW_MS, 2.0)]


def test_known_series_travel_as_references() -> None:
    setup = Setup()
    push_all(setup, ONE, TWO)
    (batch,) = setup.only.calls[1]
    assert batch.references.tolist() == [0, 1] and batch.label_bytes == b"" and batch.incarnation == 1
    assert setup.only.stored[2:] == [(UP, NOW_MS + 1, 3.0), (DOWN, NOW_MS + 1, 4.0)]


def test_known_and_new_series_share_a_batch() -> None:
    setup = Setup()
    push_all(setup, request_of((UP, 0, 1.0)), request_of((DOWN, 1, 2.0), (UP, 1, 3.0)))
    (batch,) = setup.only.calls[1]
    assert len(batch.references) == 1 and batch.new_series.tolist() == [0]
    assert sorted(setup.only.stored[1:]) == [(DOWN, NOW_MS + 1, 2.0), (UP, NOW_MS + 1, 3.0)]


def test_start_timestamps_go_with_their_samples_known_and_new() -> None:
    def series(labels: Labels, start: int) -> bytes:
        (tag, size), content = request_of((labels, 0, 1.0))[:2], request_of((labels, 0, 1.0))[2:]
        return bytes((tag, size + 2)) + content + b"\x30" + bytes((start,))

    setup = Setup()
    push_all(setup, series(UP, 5), series(UP, 5) + series(DOWN, 7) + request_of((named("x"), 0, 1.0)), TWO)
    first, second, third = (batches[0] for batches in setup.only.calls)
    assert first.new_start_timestamps.tolist() == [5]
    assert second.start_timestamps.tolist() == [5] and second.new_start_timestamps.tolist() == [7, 0]
    assert third.start_timestamps is None and third.new_start_timestamps is None


def test_a_series_with_several_samples_is_labelled_once() -> None:
    setup = Setup()
    body = encode_write_request([(UP, [(NOW_MS, 1.0), (NOW_MS + 1, 2.0)]), (DOWN, []), (named("x"), [(NOW_MS, 3.0)])])
    assert push_all(setup, body, body) == [PushOutcome(3)] * 2
    (batch,) = setup.only.calls[0]
    assert batch.new_series.tolist() == [0, 0, 1] and len(batch.label_offsets) == 3
    assert setup.only.calls[1][0].references.tolist() == [0, 0, 1]
    assert DOWN not in setup.only.series


def test_a_series_that_comes_twice_in_a_request_is_one_series() -> None:
    setup = Setup()
    push_all(setup, request_of((UP, 0, 1.0), (UP, 1, 2.0)))
    assert setup.only.series == [UP] and len(setup.only.stored) == 2


def test_a_restarted_ingester_gets_everything_again_with_labels() -> None:
    setup = Setup()
    push_all(setup, ONE)
    setup.only.restart()
    assert push_all(setup, TWO) == [PushOutcome(2)]
    assert setup.only.stored[2:] == [(UP, NOW_MS + 1, 3.0), (DOWN, NOW_MS + 1, 4.0)]
    push_all(setup, request_of((UP, 2, 5.0)))
    assert setup.only.calls[-1][0].references.tolist() == [0]


def test_only_lost_references_are_sent_again() -> None:
    setup = Setup()
    push_all(setup, ONE)
    setup.only.forgotten = {1}
    assert push_all(setup, TWO) == [PushOutcome(2)]
    assert setup.only.stored[2:] == [(UP, NOW_MS + 1, 3.0), (DOWN, NOW_MS + 1, 4.0)]
    assert len(setup.only.calls) == 3 and setup.only.calls[2][0].new_values.tolist() == [4.0]


def test_series_in_another_form_are_made_canonical_each_time_they_need_labels() -> None:
    setup = Setup()
    odd = encode_labels([(b"job", b"a"), (b"empty", b""), (b"__name__", b"up")])
    push_all(setup, request_of((odd, 0, 1.0), (DOWN, 0, 1.0)))
    setup.only.restart()
    push_all(setup, request_of((odd, 1, 2.0), (DOWN, 1, 2.0)))
    assert setup.only.series == [UP, DOWN]
    assert setup.only.stored[2:] == [(UP, NOW_MS + 1, 2.0), (DOWN, NOW_MS + 1, 2.0)]


def test_dropped_labels_never_reach_an_ingester() -> None:
    setup = Setup(drop_labels=("job",))
    push_all(setup, ONE, TWO)
    assert setup.only.series == [named("up"), DOWN]


def test_series_without_labels_are_dropped_without_a_word() -> None:
    setup = Setup()
    assert push_all(setup, request_of((b"", 0, 1.0), (encode_labels([(b"a", b"")]), 0, 1.0))) == [PushOutcome()]
    assert setup.only.calls == []


# What is refused.


def test_sound_series_are_stored_where_others_are_refused() -> None:
    setup = Setup()
    (outcome,) = push_all(setup, request_of((named("a-b"), 0, 1.0), (UP, 0, 2.0), (labels_of({"x": "y"}), 0, 3.0)))
    assert outcome.samples == 1 and isinstance(outcome.error, errors.InvalidMetricName)
    assert setup.only.stored == [(UP, NOW_MS, 2.0)]
    name = "cortex_discarded_samples_total"
    assert setup.metric(name, user=TENANT, group="", reason="metric_name_invalid") == 1
    assert setup.metric(name, user=TENANT, group="", reason="missing_metric_name") == 1


def test_refused_series_are_refused_and_counted_each_time() -> None:
    setup = Setup()
    body = request_of((named("a-b"), 0, 1.0), (named("c-d"), 0, 1.0), (labels_of({"x": "y"}), 0, 1.0))
    for outcome in push_all(setup, body, body, body):
        assert str(outcome.error).startswith("received a series with invalid metric name: 'a-b'")
    assert setup.only.calls == []
    name = "cortex_discarded_samples_total"
    assert setup.metric(name, user=TENANT, group="", reason="metric_name_invalid") == 6
    assert setup.metric(name, user=TENANT, group="", reason="missing_metric_name") == 3


def test_judging_many_odd_series_lets_others_have_their_turn() -> None:
    async def work() -> None:
        setup = Setup()
        odd = [(named("a-b", n=str(n)), 0, 1.0) for n in range(600)]
        first = asyncio.create_task(setup.distributor.push(TENANT, request_of(*odd, (UP, 0, 1.0))))
        await asyncio.sleep(0)
        assert not setup.only.series
        # Meanwhile the ring changes, and another request brings one of the series.
        setup.ring = ring_of(list(setup.fakes), version=2)
        assert (await setup.distributor.push(TENANT, ONE)).error is None
        outcome = await first
        assert outcome.samples == 1 and isinstance(outcome.error, errors.InvalidMetricName)
        assert setup.only.series == [UP, DOWN] and len(setup.only.stored) == 3
        reason = "metric_name_invalid"
        assert setup.metric("cortex_discarded_samples_total", user=TENANT, group="", reason=reason) == 600

    run(work())


def test_refused_series_are_taken_once_the_rules_allow_them() -> None:
    setup = Setup(max_label_names_per_series=1)
    assert isinstance(push_all(setup, ONE)[0].error, errors.TooManyLabels)
    setup.tenant_limits = type(setup.tenant_limits)()
    assert push_all(setup, TWO) == [PushOutcome(2)]


def test_changed_rules_judge_known_series_again() -> None:
    setup = Setup()
    push_all(setup, ONE)
    setup.tenant_limits = type(setup.tenant_limits)(max_label_names_per_series=1)
    (outcome,) = push_all(setup, TWO)
    assert isinstance(outcome.error, errors.TooManyLabels) and outcome.samples == 1


def test_samples_too_far_ahead_are_refused_and_the_others_stored() -> None:
    setup = Setup()
    ahead = 600_001
    (outcome,) = push_all(setup, request_of((UP, ahead, 1.0), (DOWN, ahead - 1, 2.0), (named("x"), ahead, 1.0)))
    assert str(outcome.error).startswith(
        f"received a sample whose timestamp is too far in the future, timestamp: {NOW_MS + ahead} series: 'up'"
    )
    assert setup.only.stored == [(DOWN, NOW_MS + ahead - 1, 2.0)]
    assert setup.metric("cortex_discarded_samples_total", user=TENANT, group="", reason="too_far_in_future") == 2


def test_samples_too_far_behind_are_refused_where_a_limit_is_set() -> None:
    setup = Setup(past_grace_period=Duration(1000), out_of_order_time_window=Duration(500))
    (outcome,) = push_all(setup, request_of((UP, -1501, 1.0), (DOWN, -1500, 2.0)))
    assert isinstance(outcome.error, errors.SampleTooFarInPast)
    assert setup.only.stored == [(DOWN, NOW_MS - 1500, 2.0)]


def test_of_samples_with_one_timestamp_in_a_request_the_first_counts() -> None:
    setup = Setup()
    body = encode_write_request([(UP, [(NOW_MS, 1.0), (NOW_MS, 2.0), (NOW_MS + 1, 3.0)])])
    assert push_all(setup, body) == [PushOutcome(2)]
    assert setup.only.stored == [(UP, NOW_MS, 1.0), (UP, NOW_MS + 1, 3.0)]
    reason = "sample_duplicate_timestamp"
    assert setup.metric("cortex_discarded_samples_total", user=TENANT, group="", reason=reason) == 1


def test_malformed_requests_are_the_senders_fault() -> None:
    setup = Setup()
    for body in (b"\x0a\x05", request_of((b"\x0a\x03\x0a\x09a", 0, 1.0))):
        (outcome,) = push_all(setup, body)
        assert str(outcome.error).startswith("proto: ")
    assert setup.only.calls == []


REFUSALS = {
    "sample-out-of-order": "the sample has been rejected because another sample with a more recent timestamp has "
    "already been ingested and out-of-order samples are not allowed (err-mimir-sample-out-of-order).",
    "sample-timestamp-too-old": "the sample has been rejected because its timestamp is too old "
    "(err-mimir-sample-timestamp-too-old).",
    "sample-duplicate-timestamp": "the sample has been rejected because another sample with the same timestamp, but a "
    "different value, has already been ingested (err-mimir-sample-duplicate-timestamp).",
}


@pytest.mark.parametrize("reason", REFUSALS)
def test_refusals_of_an_ingester_name_the_sample(reason: str) -> None:
    setup = Setup()
    setup.only.refusal = Refusal(reason, 0, 1_575_043_969, 1, '{__name__="test"}')
    (outcome,) = push_all(setup, ONE)
    assert isinstance(outcome.error, errors.IngesterRefused)
    assert str(outcome.error) == (
        f"failed pushing to ingester ingester-0: user=team-a: {REFUSALS[reason]} The affected sample has timestamp "
        '1970-01-19T05:30:43.969Z and is from series {__name__="test"}'
    )
    assert len(setup.only.stored) == 2


def test_a_refusal_outside_of_the_out_of_order_window_names_it() -> None:
    refusal = Refusal("sample-timestamp-too-old", 0, 0, 1, "{}", limit=7_200_000)
    assert errors.describe_refusal(refusal) == (
        "the sample has been rejected because another sample with a more recent timestamp has already been ingested "
        "and this sample is beyond the out-of-order time window of 2h (err-mimir-sample-timestamp-too-old). The "
        "affected sample has timestamp 1970-01-01T00:00:00Z and is from series {}"
    )


def test_series_limits_of_an_ingester_name_the_flag() -> None:
    assert errors.describe_refusal(Refusal("max-series-per-user", 0, 0, 1, "{}", limit=150)) == (
        "per-user series limit of 150 exceeded (err-mimir-max-series-per-user). To adjust the related per-tenant "
        "limit, configure -ingester.max-global-series-per-user, or contact your service administrator."
    )
    assert errors.describe_refusal(Refusal("max-series-per-metric", 0, 0, 1, '{a="b"}', limit=15)) == (
        "per-metric series limit of 15 exceeded (err-mimir-max-series-per-metric). To adjust the related per-tenant "
        "limit, configure -ingester.max-global-series-per-metric, or contact your service administrator. "
        'This is for series {a="b"}'
    )


# Rates and instance limits.


def test_a_tenant_over_its_ingestion_rate_stores_nothing() -> None:
    setup = Setup(ingestion_rate=1.0, ingestion_burst_size=2)
    first, second = push_all(setup, ONE, TWO)
    assert first.error is None
    assert str(second.error) == (
        "the request has been rejected because the tenant exceeded the ingestion rate limit, set to 1 items/s with "
        "a maximum allowed burst of 2. This limit is applied on the total number of samples, exemplars and metadata "
        "received across all distributors (err-mimir-tenant-max-ingestion-rate). To adjust the related per-tenant "
        "limit, configure -distributor.ingestion-rate-limit and -distributor.ingestion-burst-size, or contact your "
        "service administrator."
    )
    assert len(setup.only.stored) == 2
    setup.clock.advance_ms(2000)
    assert push_all(setup, TWO)[0].error is None


def test_a_request_larger_than_the_burst_always_fails() -> None:
    setup = Setup(ingestion_rate=100.0, ingestion_burst_size=1)
    (outcome,) = push_all(setup, ONE)
    assert isinstance(outcome.error, errors.IngestionBurstLimited) and isinstance(outcome.error, errors.RateLimited)
    assert "exceeded the ingestion burst size limit, set to 1, with 2 items." in str(outcome.error)


def test_distributors_share_the_rate() -> None:
    setup = Setup(distributors=lambda: 4, ingestion_rate=4.0, ingestion_burst_size=2)
    push_all(setup, ONE)
    setup.clock.advance_ms(1900)
    assert push_all(setup, TWO)[0].error is not None
    setup.clock.advance_ms(100)
    assert push_all(setup, TWO)[0].error is None


def test_a_burst_factor_overrides_the_burst_size() -> None:
    setup = Setup(ingestion_rate=1.0, ingestion_burst_size=1, ingestion_burst_factor=2.0)
    assert push_all(setup, ONE)[0].error is None


def test_a_tenant_over_its_request_rate_is_told_so() -> None:
    setup = Setup(request_rate=1.0, request_burst_size=1)
    first, second = push_all(setup, ONE, TWO)
    assert first.error is None
    assert str(second.error) == (
        "the request has been rejected because the tenant exceeded the request rate limit, set to 1 requests/s across "
        "all distributors with a maximum allowed burst of 1 (err-mimir-tenant-max-request-rate). To adjust the related "
        "per-tenant limit, configure -distributor.request-rate-limit and -distributor.request-burst-size, or contact "
        "your service administrator."
    )


@pytest.mark.parametrize(
    ("config", "error"),
    [
        (config_with(requests_max=1), errors.TooManyInflightRequests),
        (config_with(request_bytes_max=len(ONE) + 1), errors.TooManyInflightBytes),
    ],
)
def test_a_distributor_takes_on_so_much_at_once(config: Any, error: type[Exception]) -> None:
    async def work() -> None:
        setup = Setup(config=config)
        setup.only.gate = asyncio.Event()
        first = asyncio.create_task(setup.distributor.push(TENANT, ONE))
        await asyncio.sleep(0)
        refused = await setup.distributor.push(TENANT, TWO)
        assert isinstance(refused.error, error) and isinstance(refused.error, Unavailable)
        setup.only.gate.set()
        assert (await first).error is None
        assert (await push(setup, TWO)).error is None

    run(work())


# Replication.


def test_every_replica_gets_every_sample() -> None:
    setup = Setup(ingesters=3, replication_factor=3)
    assert push_all(setup, ONE, TWO) == [PushOutcome(2)] * 2
    assert all(len(fake.stored) == 4 for fake in setup.fakes.values())


@given(st.integers(1, 6), st.sampled_from([1, 3]), st.lists(st.integers(0, 20), min_size=1, max_size=30), st.booleans())
@settings(deadline=None, max_examples=40)
def test_owners_get_what_the_ring_says(ingesters: int, factor: int, numbers: list[int], in_pairs: bool) -> None:
    if ingesters < factor:
        ingesters = factor
    setup = Setup(ingesters, factor)
    series = [named("m", n=str(number)) for number in dict.fromkeys(numbers)]
    times = range(2 if in_pairs else 1)
    bodies = [
        encode_write_request([(labels, [(NOW_MS + at + round_ * 10, 1.0) for at in times]) for labels in series])
        for round_ in range(2)
    ]
    assert [outcome.error for outcome in push_all(setup, *bodies)] == [None, None]
    stored: dict[Labels, list[str]] = {}
    for name, fake in setup.fakes.items():
        for labels, _, _ in fake.stored:
            stored.setdefault(labels, []).append(name)
    for labels in series:
        token = np.array([series_token(TENANT, labels)], np.uint32)
        owners = [setup.ring.instances[at].id for at in setup.ring.owners(token)[0]]
        assert sorted(stored[labels]) == sorted(owners * 2 * len(times))


def test_one_failed_replica_of_three_does_not_matter() -> None:
    setup = Setup(ingesters=3, replication_factor=3)
    setup.fakes["ingester-1"].error = RuntimeError("gone")
    assert push_all(setup, ONE)[0].error is None
    failures = setup.metric("cortex_distributor_ingester_append_failures_total", ingester="ingester-1", type="samples")
    assert failures == 1


def test_two_failed_replicas_of_three_fail_the_push() -> None:
    setup = Setup(ingesters=3, replication_factor=3)
    for name in ("ingester-1", "ingester-2"):
        setup.fakes[name].error = RuntimeError("gone")
    (outcome,) = push_all(setup, ONE)
    assert isinstance(outcome.error, errors.IngesterFailed) and isinstance(outcome.error, Unavailable)
    assert str(outcome.error).endswith(": gone")


def test_one_refusing_replica_of_three_does_not_matter_but_two_do() -> None:
    setup = Setup(ingesters=3, replication_factor=3)
    setup.fakes["ingester-0"].refusal = Refusal("sample-out-of-order", 0, 0, 1)
    assert push_all(setup, ONE)[0].error is None
    setup.fakes["ingester-1"].refusal = Refusal("sample-out-of-order", 0, 0, 1)
    assert isinstance(push_all(setup, TWO)[0].error, errors.IngesterRefused)


def test_the_answer_does_not_wait_for_the_slowest_replica() -> None:
    async def work() -> None:
        setup = Setup(ingesters=3, replication_factor=3)
        slow = setup.fakes["ingester-2"]
        slow.gate = asyncio.Event()
        outcome = await setup.distributor.push(TENANT, ONE)
        assert outcome.error is None and slow.stored == []
        slow.gate.set()
        await setup.distributor.drain()
        assert len(slow.stored) == 2

    run(work())


def test_an_unhealthy_ingester_gets_nothing_and_does_not_matter_in_three() -> None:
    setup = Setup(ingesters=3, replication_factor=3)
    setup.ring = ring_of(list(setup.fakes), 3, dead=("ingester-1",))
    assert push_all(setup, ONE)[0].error is None
    assert setup.fakes["ingester-1"].calls == []


def test_too_few_healthy_ingesters_are_not_written_to() -> None:
    setup = Setup(ingesters=3, replication_factor=3)
    setup.ring = ring_of(list(setup.fakes), 3, dead=("ingester-1", "ingester-2"))
    (outcome,) = push_all(setup, ONE)
    assert "at least 2 live replicas required, could only find 1" in str(outcome.error)
    assert all(fake.calls == [] for fake in setup.fakes.values())


def test_an_empty_ring_is_said_to_be_empty() -> None:
    setup = Setup()
    setup.ring = ring_of([])
    assert str(push_all(setup, ONE)[0].error) == "empty ring"


def test_a_new_owner_gets_labels_and_an_old_one_references() -> None:
    setup = Setup(ingesters=2)
    series = [named("m", n=str(n)) for n in range(50)]
    push_all(setup, request_of(*((labels, 0, 1.0) for labels in series)))
    setup.ring = ring_of(["ingester-0", "ingester-1", "ingester-2"], version=2)
    assert push_all(setup, request_of(*((labels, 1, 1.0) for labels in series)))[0].error is None
    stored = [labels for fake in setup.fakes.values() for labels, at, _ in fake.stored if at == NOW_MS + 1]
    assert sorted(stored) == sorted(series)
    assert all(not batch.label_bytes for name in ("ingester-0", "ingester-1") for batch in setup.fakes[name].calls[1])
    assert len(setup.fakes["ingester-2"].calls[0][0].references) == 0


def test_a_silent_ingester_times_out() -> None:
    async def work() -> None:
        setup = Setup(config=config_with(remote_timeout=Duration(20)))
        setup.only.gate = asyncio.Event()
        outcome = await setup.distributor.push(TENANT, ONE)
        assert isinstance(outcome.error, errors.IngesterTimedOut)
        assert str(outcome.error) == (
            "exceeded configured distributor remote timeout: failed pushing to ingester ingester-0: "
            "context deadline exceeded"
        )
        setup.only.gate.set()

    run(work())


def test_a_failed_batch_is_the_ingesters_fault() -> None:
    setup = Setup()
    setup.only.batch_error = OSError("no space left on device")
    (outcome,) = push_all(setup, ONE)
    assert isinstance(outcome.error, errors.IngesterFailed)
    assert "user=team-a: no space left on device" in str(outcome.error)


# Metadata, tenants, metrics.


def test_metadata_goes_to_the_owners_of_its_family() -> None:
    setup = Setup(ingesters=4, replication_factor=3)
    families = tuple(Metadata(f"family_{at}", "gauge", "help") for at in range(20))
    (outcome,) = push_all(setup, request_of((UP, 0, 1.0), metadata=(*families, Metadata("", "gauge"))))
    assert outcome.metadata == 20 and isinstance(outcome.error, errors.MetadataWithoutName)
    seen = [family for fake in setup.fakes.values() for family in fake.metadata]
    assert sorted(seen) == sorted(one.family for one in families for _ in range(3))
    reason = "metadata_missing_metric_name"
    assert setup.metric("cortex_discarded_metadata_total", user=TENANT, reason=reason) == 1


def test_metadata_alone_is_a_whole_request() -> None:
    setup = Setup(ingesters=3, replication_factor=3)
    assert push_all(setup, encode_write_request([], [Metadata("up", "gauge")])) == [PushOutcome(0, 1)]
    assert all(fake.metadata == ["up"] for fake in setup.fakes.values())


def test_an_empty_request_is_fine() -> None:
    assert push_all(Setup(), b"") == [PushOutcome()]


def test_tenants_do_not_share_references() -> None:
    setup = Setup()
    run(push(setup, ONE))
    run(push(setup, TWO, TenantId("other")))
    assert len(setup.only.calls[1][0].references) == 0


def test_the_tenant_that_was_silent_for_longest_is_forgotten() -> None:
    setup = Setup(config=config_with(tenants_max=2))
    for tenant in ("a", "b", "a", "c", "a"):
        run(push(setup, ONE, TenantId(tenant)))
    assert len(setup.only.calls[-1][0].references) == 2
    run(push(setup, ONE, TenantId("b")))
    assert len(setup.only.calls[-1][0].references) == 0
    assert setup.metric("cortex_distributor_samples_in_total", user="b") == 2


def test_pushes_are_counted() -> None:
    setup = Setup()
    push_all(setup, ONE, request_of((named("a-b"), 0, 1.0)))
    assert setup.metric("cortex_distributor_requests_in_total", user=TENANT, version="1.0") == 2
    assert setup.metric("cortex_distributor_samples_in_total", user=TENANT) == 3
    assert setup.metric("cortex_distributor_received_requests_total", user=TENANT) == 1
    assert setup.metric("cortex_distributor_received_samples_total", user=TENANT) == 2
    assert setup.metric("cortex_distributor_latest_seen_sample_timestamp_seconds", user=TENANT) == NOW_MS / 1000
    assert setup.metric("cortex_distributor_inflight_push_requests") == 0
    setup.distributor.age()
    assert setup.metric("cortex_distributor_series_cache_series", user=TENANT) == 2


def test_a_cancelled_push_leaves_the_distributor_as_it_was() -> None:
    async def work() -> None:
        setup = Setup()
        setup.only.gate = asyncio.Event()
        task = asyncio.create_task(setup.distributor.push(TENANT, ONE))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        setup.only.gate.set()
        assert setup.metric("cortex_distributor_inflight_push_requests") == 0
        assert (await push(setup, TWO)).error is None

    run(work())


def test_more_series_than_the_cache_holds_are_written_all_the_same() -> None:
    setup = Setup(config=config_with(series_cache_series_max=10))
    series = [named("m", n=str(n)) for n in range(25)]
    for round_ in range(3):
        body = request_of(*((labels, round_, 1.0) for labels in series))
        assert push_all(setup, body) == [PushOutcome(25)]
        assert push_all(setup, request_of((UP, round_, 1.0), *((labels, 10 + round_, 1.0) for labels in series[:5])))
    assert sorted({labels for labels, _, _ in setup.only.stored}) == sorted([UP, *series])
    assert len(setup.only.stored) == 3 * 31


def test_errors_cross_actors() -> None:
    error = errors.IngesterRefused("i", "t", Refusal("sample-out-of-order", 0, 5, 1, "{}"))
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
