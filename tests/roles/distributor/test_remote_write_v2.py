"""Remote write 2.0, exemplars of both versions, metadata beside series, and what senders are told was written."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mimir_ray.config.units import Duration
from mimir_ray.errors import ClientError
from mimir_ray.model.labels import Labels, labels_of
from mimir_ray.roles.api import Refusal
from mimir_ray.roles.distributor.distributor import PushOutcome, Written
from mimir_ray.roles.distributor.metadata import REPEAT_S
from mimir_ray.wire.pb.prompb import remote_pb2
from mimir_ray.wire.remote_write_v2 import scan_write_request_v2
from tests.roles.distributor.fakes import NOW_MS, TENANT, Setup
from tests.wire.test_remote_write_v2 import Writer

ExemplarOf = tuple[dict[str, str], float, int]
UP, DOWN = labels_of({"__name__": "up", "job": "a"}), labels_of({"__name__": "down"})
TRACE = {"trace_id": "abc", "span": "1"}


class Both:
    """Writes the same series in both versions."""

    def __init__(self) -> None:
        self.first = remote_pb2.WriteRequest()
        self.second = Writer()

    def series(self, labels: Any, samples: Any = (), exemplars: list[ExemplarOf] = [], **metadata: Any) -> Both:  # noqa: B006
        one = self.first.timeseries.add()
        for name, value in labels:
            one.labels.add(name=name, value=value)
        for at, value in samples:
            one.samples.add(timestamp=at, value=value)
        other = self.second.series(labels, samples, **metadata)
        for pairs, value, at in exemplars:
            written = one.exemplars.add(value=value, timestamp=at)
            for pair in pairs.items():
                written.labels.add(name=pair[0], value=pair[1])
            refs = [self.second.symbol(text) for pair in pairs.items() for text in pair]
            other.exemplars.add(labels_refs=refs, value=value, timestamp=at)
        return self

    def histogram(self, labels: Labels, at: int, count: int = 1) -> Both:
        for one in (self.first.timeseries.add(), self.second.series(list(labels))):
            histogram = one.histograms.add(count_int=count, sum=1.0, timestamp=at, positive_deltas=[1])
            histogram.positive_spans.add(offset=0, length=1)
        for name, value in labels:
            self.first.timeseries[-1].labels.add(name=name, value=value)
        return self


Way = Callable[[Setup, Both], Any]


async def by_version_1(setup: Setup, request: Both) -> PushOutcome:
    return await setup.distributor.push(TENANT, request.first.SerializeToString())


async def by_version_2(setup: Setup, request: Both) -> PushOutcome:
    return await setup.distributor.push(TENANT, request.second.bytes(), scan_write_request_v2, "2.0")


WAYS = pytest.mark.parametrize("way", [by_version_1, by_version_2])


def push(setup: Setup, way: Way, *requests: Both) -> list[PushOutcome]:
    async def work() -> list[PushOutcome]:
        outcomes = []
        for request in requests:
            outcomes.append(await way(setup, request))
            await setup.distributor.drain()
        return outcomes

    return asyncio.run(asyncio.wait_for(work(), 20))


_names = st.sampled_from(["__name__", "job", "a", "b c", "é"])
_values = st.sampled_from(["", "up", "x", "v" * 3000, "é"])


@given(
    st.lists(
        st.lists(
            st.tuples(
                st.lists(st.tuples(_names, _values), max_size=4),
                st.lists(st.tuples(st.sampled_from([0, 1, 2, 10_000_000]), st.floats(0, 9)), max_size=2),
                st.lists(st.tuples(st.just(TRACE), st.floats(0, 9), st.sampled_from([0, 1, 5])), max_size=2),
            ),
            max_size=4,
        ),
        min_size=1,
        max_size=3,
    ),
    st.sampled_from([(1, 1), (3, 1), (3, 3)]),
)
@example([[([("__name__", ""), ("__name__", "up")], [(10_000_000, 0.0)], [])]], (1, 1))
def test_both_versions_store_the_same(series: list[Any], shape: tuple[int, int]) -> None:
    requests = []
    for some in series:
        request = Both()
        for labels, samples, exemplars in some:
            request.series(
                labels,
                [(NOW_MS + at, value) for at, value in samples],
                [(labels_of_one, value, NOW_MS + at) for labels_of_one, value, at in exemplars],
            )
        requests.append(request)
    one, other = (Setup(*shape, max_global_exemplars_per_user=100) for _ in range(2))
    first, second = push(one, by_version_1, *requests), push(other, by_version_2, *requests)
    assert [(o.samples, str(o.error), o.written) for o in first] == [
        (o.samples, str(o.error), o.written) for o in second
    ]
    for name, fake in one.fakes.items():
        assert fake.stored == other.fakes[name].stored
        assert fake.exemplars == other.fakes[name].exemplars


@WAYS
def test_labels_are_sent_once(way: Way) -> None:
    setup = Setup()
    requests = [Both().series(UP, [(NOW_MS + at, 1.0)]).series(DOWN, [(NOW_MS + at, 2.0)]) for at in range(3)]
    push(setup, way, *requests)
    batches = [batch for call in setup.only.calls for batch in call]
    assert [len(batch.label_bytes) > 0 for batch in batches] == [True, False, False]
    assert [len(batch.references) for batch in batches] == [0, 2, 2]


@WAYS
def test_labels_are_sent_again_to_an_ingester_that_was_started_anew(way: Way) -> None:
    setup = Setup(max_global_exemplars_per_user=10)
    push(setup, way, Both().series(UP, [(NOW_MS, 1.0)]))
    setup.only.restart()
    (outcome,) = push(setup, way, Both().series(UP, [(NOW_MS + 1, 2.0)], [(TRACE, 3.0, NOW_MS)]))
    assert outcome.error is None
    assert setup.only.stored == [(UP, NOW_MS, 1.0), (UP, NOW_MS + 1, 2.0)]
    assert setup.only.exemplars == [(UP, labels_of(TRACE), NOW_MS, 3.0)]


def test_start_timestamps_of_samples_and_series_travel_along() -> None:
    setup = Setup()
    request = Both().series(UP, [(NOW_MS, 1.0)]).series(DOWN, [(NOW_MS, 1.0)])
    request.second.message.timeseries[0].samples[0].start_timestamp = 5
    request.second.message.timeseries[1].created_timestamp = 6
    push(setup, by_version_2, request)
    ((batch,),) = setup.only.calls
    assert batch.new_start_timestamps is not None and batch.new_start_timestamps.tolist() == [5, 6]


@WAYS
def test_labels_in_another_order_are_sorted(way: Way) -> None:
    setup = Setup(max_global_exemplars_per_user=10)
    exemplar = {"z": "1", "a": "2", "empty": ""}
    request = Both().series(
        [("job", "a"), ("__name__", "up"), ("gone", "")], [(NOW_MS, 1.0)], [(exemplar, 1.0, NOW_MS)]
    )
    push(setup, way, request)
    assert setup.only.stored == [(UP, NOW_MS, 1.0)]
    assert setup.only.exemplars == [(UP, labels_of({"a": "2", "z": "1"}), NOW_MS, 1.0)]


@WAYS
def test_exemplars_go_to_every_replica_of_their_series(way: Way) -> None:
    setup = Setup(5, 3, max_global_exemplars_per_user=10)
    request = Both()
    for at in range(20):
        request.series(labels_of({"__name__": "m", "n": str(at)}), [(NOW_MS, 1.0)], [(TRACE, float(at), NOW_MS)])
    push(setup, way, request)
    found = [(fake.name, one[0]) for fake in setup.fakes.values() for one in fake.exemplars]
    assert sorted(found) == sorted((fake.name, one[0]) for fake in setup.fakes.values() for one in fake.stored)
    assert len(found) == 60


@WAYS
def test_an_exemplar_may_come_without_samples(way: Way) -> None:
    setup = Setup(max_global_exemplars_per_user=10)
    (outcome,) = push(setup, way, Both().series(UP, [], [(TRACE, 3.0, NOW_MS)]).series(DOWN, [(NOW_MS, 1.0)]))
    assert outcome.written == Written(1, 0, 1)
    assert setup.only.exemplars == [(UP, labels_of(TRACE), NOW_MS, 3.0)]


@WAYS
def test_without_room_for_exemplars_none_are_looked_at(way: Way) -> None:
    setup = Setup()
    (outcome,) = push(setup, way, Both().series(UP, [(NOW_MS, 1.0)], [({}, 3.0, 0)]))
    assert (outcome.error, outcome.written) == (None, Written(1, 0, 0))
    assert setup.only.exemplars == []
    assert setup.metric("cortex_distributor_exemplars_in_total", user=TENANT) == 1


@WAYS
@pytest.mark.parametrize(
    ("labels", "at", "kind", "text"),
    [
        (
            {},
            5,
            "exemplar-labels-missing",
            'received an exemplar with no valid labels, timestamp: 5 series: {__name__="up", job="a"} labels: {} '
            "(err-mimir-exemplar-labels-missing)",
        ),
        ({"a": ""}, 5, "exemplar-labels-missing", 'labels: {a=""}'),
        (
            TRACE,
            0,
            "exemplar-timestamp-invalid",
            'received an exemplar with no timestamp, timestamp: 0 series: {__name__="up", job="a"} '
            'labels: {trace_id="abc", span="1"} (err-mimir-exemplar-timestamp-invalid)',
        ),
        ({"a": "é" * 128}, 5, "exemplar-labels-too-long", "exceeds the limit of 128 characters, timestamp: 5"),
    ],
)
def test_an_exemplar_that_is_not_sound_costs_nothing_but_itself(
    way: Way, labels: dict[str, str], at: int, kind: str, text: str
) -> None:
    setup = Setup(max_global_exemplars_per_user=10)
    request = Both().series(UP, [(NOW_MS, 1.0)], [(labels, 1.0, at), (TRACE, 2.0, NOW_MS)])
    (outcome,) = push(setup, way, request)
    assert isinstance(outcome.error, ClientError) and outcome.error.id == kind
    assert text in str(outcome.error)
    assert outcome.written == Written(1, 0, 1)
    assert setup.only.exemplars == [(UP, labels_of(TRACE), NOW_MS, 2.0)]
    assert setup.metric("cortex_discarded_exemplars_total", user=TENANT, reason=kind.replace("-", "_")) == 1


@WAYS
def test_exemplars_that_are_too_old_too_new_or_too_many_are_dropped_in_silence(way: Way) -> None:
    setup = Setup(
        max_global_exemplars_per_user=10,
        max_exemplars_per_series_per_request=2,
        creation_grace_period=Duration(1000),
    )
    times = [NOW_MS - 300_001, NOW_MS + 1001, NOW_MS - 2, NOW_MS - 1, NOW_MS]
    (outcome,) = push(setup, way, Both().series(UP, [(NOW_MS, 1.0)], [(TRACE, 1.0, at) for at in times]))
    assert outcome.error is None
    assert [at for _, _, at, _ in setup.only.exemplars] == [NOW_MS - 2, NOW_MS - 1]
    reasons = ("exemplar_too_old", "exemplar_too_far_in_future", "too_many_exemplars_per_series_per_request")
    assert [setup.metric("cortex_discarded_exemplars_total", user=TENANT, reason=one) for one in reasons] == [1, 1, 1]


@WAYS
def test_written_counts_leave_out_what_was_refused_here_and_by_ingesters(way: Way) -> None:
    setup = Setup(max_global_exemplars_per_user=10, native_histograms_ingestion_enabled=True)
    bad = [("job", "no name")]
    request = Both().series(UP, [(NOW_MS, 1.0), (NOW_MS, 1.0), (NOW_MS + 1, 2.0)], [(TRACE, 1.0, NOW_MS)])
    request.series(bad, [(NOW_MS, 1.0)]).series(DOWN, [(NOW_MS, 1.0), (NOW_MS + 10**9, 1.0)])
    request.histogram(labels_of({"__name__": "h"}), NOW_MS).histogram(labels_of({"__name__": "i"}), NOW_MS, count=7)
    setup.only.refusal = Refusal("sample-out-of-order", 0, NOW_MS, 1)
    setup.only.refused, setup.only.refused_exemplars = (0, 3), (0,)
    (outcome,) = push(setup, way, request)
    # Stored: up (its second one; the repeated one counts as its equal), down. The ingester refused the histogram.
    assert outcome.written == Written(3, 0, 0)
    assert isinstance(outcome.error, ClientError)


def test_what_one_of_three_replicas_refused_counts_as_written() -> None:
    setup = Setup(3, 3)
    one = next(iter(setup.fakes.values()))
    one.refusal, one.refused = Refusal("sample-out-of-order", 0, NOW_MS, 1), (0,)
    request = Both().series(UP, [(NOW_MS, 1.0)]).series(DOWN, [(NOW_MS, 1.0)])
    (outcome,) = push(setup, by_version_2, request)
    assert outcome.written == Written(2, 0, 0)
    for fake in setup.fakes.values():
        fake.refusal, fake.refused = Refusal("sample-out-of-order", 0, NOW_MS, 1), (0,)
    (outcome,) = push(setup, by_version_2, request)
    assert outcome.written == Written(1, 0, 0) and outcome.error is not None


def test_nothing_counts_as_written_when_nobody_took_it() -> None:
    setup = Setup()
    setup.only.error = ConnectionError("gone")
    (outcome,) = push(setup, by_version_2, Both().series(UP, [(NOW_MS, 1.0)]))
    assert outcome.written == Written() and outcome.error is not None


def test_metadata_beside_series_goes_on_when_it_is_new_and_now_and_then() -> None:
    setup = Setup()
    request = Both().series(UP, [(NOW_MS, 1.0)], type=2, help="Up.").series(DOWN, [(NOW_MS, 1.0)], type=2)
    assert [one.metadata for one in push(setup, by_version_2, request, request)] == [2, 0]
    assert setup.only.metadata == ["up", "down"]
    changed = Both().series(UP, [(NOW_MS, 1.0)], type=2, help="Really up.")
    assert [one.metadata for one in push(setup, by_version_2, changed)] == [1]
    setup.clock.advance_ms(int(REPEAT_S * 1000) + 1)
    assert [one.metadata for one in push(setup, by_version_2, request)] == [2]


def test_metadata_that_did_not_arrive_goes_again() -> None:
    setup = Setup()
    request = Both().series(UP, [(NOW_MS, 1.0)], type=2, help="Up.")
    setup.only.error = ConnectionError("gone")
    push(setup, by_version_2, request)
    setup.only.error = None
    push(setup, by_version_2, request)
    assert setup.only.metadata == ["up"]


@WAYS
def test_an_exemplar_whose_labels_are_no_text_is_refused(way: Way) -> None:
    setup = Setup(max_global_exemplars_per_user=10)
    long = {"a": "é" * 126}  # its length is no ASCII
    request = Both().series(UP, [(NOW_MS, 1.0)], [({"a": "mark"}, 1.0, NOW_MS), (long, 2.0, NOW_MS)])

    async def work() -> PushOutcome:
        if way is by_version_1:
            return await setup.distributor.push(TENANT, request.first.SerializeToString().replace(b"mark", b"m\xffrk"))
        body = request.second.bytes().replace(b"mark", b"m\xffrk")
        return await setup.distributor.push(TENANT, body, scan_write_request_v2, "2.0")

    outcome = asyncio.run(work())
    assert isinstance(outcome.error, ClientError) and outcome.error.id == "exemplar-labels-missing"
    assert setup.only.exemplars == [(UP, labels_of(long), NOW_MS, 2.0)]


def test_requests_are_counted_by_version() -> None:
    setup = Setup()
    request = Both().series(UP, [(NOW_MS, 1.0)])
    push(setup, by_version_1, request)
    push(setup, by_version_2, request, request)
    counts = [setup.metric("cortex_distributor_requests_in_total", user=TENANT, version=one) for one in ("1.0", "2.0")]
    assert counts == [1, 2]


@given(st.binary(max_size=80), st.booleans())
@settings(deadline=None, max_examples=200)
def test_any_bytes_are_written_or_refused_as_the_senders_fault(body: bytes, framed: bool) -> None:
    """Whatever comes: no exception, no error that a sender would try again for."""
    setup = Setup(max_global_exemplars_per_user=10, native_histograms_ingestion_enabled=True)
    if framed:
        body = b"\x22\x00\x22\x08__name__\x22\x02up\x2a" + bytes([len(body)]) + body

    async def work() -> list[PushOutcome]:
        return [
            await setup.distributor.push(TENANT, body),
            await setup.distributor.push(TENANT, body, scan_write_request_v2, "2.0"),
        ]

    for outcome in asyncio.run(work()):
        assert outcome.error is None or isinstance(outcome.error, ClientError)


@given(st.data())
@settings(deadline=None, max_examples=200)
def test_damaged_requests_are_written_or_refused_as_the_senders_fault(data: st.DataObject) -> None:
    setup = Setup(max_global_exemplars_per_user=10, native_histograms_ingestion_enabled=True)
    request = Both().series(UP, [(NOW_MS, 1.0)], [(TRACE, 1.0, NOW_MS)], type=2, help="Up.", unit="s")
    request.histogram(DOWN, NOW_MS).series([("job", "x"), ("__name__", "y")], [(NOW_MS, 1.0), (NOW_MS + 1, 2.0)])
    bodies = []
    for whole in (request.first.SerializeToString(), request.second.bytes()):
        damaged = bytearray(whole)
        for _ in range(data.draw(st.integers(1, 3))):
            damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
        bodies.append(bytes(damaged))

    async def work() -> list[PushOutcome]:
        return [
            await setup.distributor.push(TENANT, bodies[0]),
            await setup.distributor.push(TENANT, bodies[1], scan_write_request_v2, "2.0"),
        ]

    for outcome in asyncio.run(work()):
        assert outcome.error is None or isinstance(outcome.error, ClientError), str(outcome.error)
