"""Every limit of docs/limits.md is hit over HTTP, and answered with the id and the status that stand there.

One gateway with real roles in this process; every case is a tenant with limits of its own.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import pytest
import snappy

from mimir_ray.config.instance_limits import DistributorInstanceLimits, IngesterInstanceLimits
from mimir_ray.config.limits import Limits
from mimir_ray.config.units import Bytes, Duration
from mimir_ray.deploy.limits_reference import FIXED, HITS, page, sections
from mimir_ray.deploy.settings import Settings
from mimir_ray.model.metadata import Metadata
from mimir_ray.roles.ingester.instance_limits import EwmaRate
from mimir_ray.testing.writes import write_batch
from mimir_ray.wire.pb.prompb import remote_pb2
from mimir_ray.wire.remote_write import encode_write_request
from tests.gateway.serving import NOW_MS
from tests.gateway.standing import SIZE_MAX, Stand, standing

UP = (("__name__", "up"),)


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with standing(tmp_path_factory.mktemp("limits")) as one:
        yield one


@dataclass(frozen=True)
class Asked:
    """One request: a push unless `path` says otherwise."""

    body: bytes | None
    path: str = "/api/v1/push"
    method: str = "POST"
    headers: tuple[tuple[str, str], ...] = ()


def push(*series: tuple[Any, int], metadata: tuple[Metadata, ...] = ()) -> Asked:
    """(labels, ms from now) each."""
    body = encode_write_request([(labels, [(NOW_MS + at, float(at))]) for labels, at in series], metadata)
    return Asked(snappy.compress(body))


def named(name: str, **labels: str) -> tuple[tuple[str, str], ...]:
    return tuple(sorted({"__name__": name, **labels}.items()))


def wire(*labels: tuple[str, str]) -> Asked:
    """Labels as they are, in their order."""
    request = remote_pb2.WriteRequest()
    series = request.timeseries.add()
    for name, value in labels:
        series.labels.add(name=name, value=value)
    series.samples.add(value=1.0, timestamp=NOW_MS)
    return Asked(snappy.compress(request.SerializeToString()))


def histogram(change: Callable[[Any], None] = lambda _: None, buckets: int = 2, schema: int = 0) -> Asked:
    request = remote_pb2.WriteRequest()
    series = request.timeseries.add()
    series.labels.add(name="__name__", value="h")
    one = series.histograms.add(schema=schema, count_int=buckets, sum=5.0, timestamp=NOW_MS)
    if schema == -53:
        one.custom_values.extend(float(at) for at in range(1, buckets))
    one.positive_spans.add(offset=0, length=buckets)
    one.positive_deltas.extend([1] + [0] * (buckets - 1))
    change(one)
    return Asked(snappy.compress(request.SerializeToString()))


def unsplittable(one: Any) -> None:
    """Two buckets as far apart as can be: they never meet, however coarse."""
    del one.positive_spans[:]
    one.positive_spans.add(offset=-(1 << 20), length=1)
    one.positive_spans.add(offset=1 << 21, length=1)


def exemplar(labels: Mapping[str, str], at: int = NOW_MS, samples: int = 1) -> Asked:
    request = remote_pb2.WriteRequest()
    series = request.timeseries.add()
    series.labels.add(name="__name__", value="up")
    for _ in range(samples):
        series.samples.add(value=1.0, timestamp=NOW_MS)
    one = series.exemplars.add(value=1.0, timestamp=at)
    for name, value in labels.items():
        one.labels.add(name=name, value=value)
    return Asked(snappy.compress(request.SerializeToString()))


def query(text: str) -> Asked:
    return Asked(None, f"/prometheus/api/v1/query?{urlencode({'query': text, 'time': NOW_MS / 1000})}", "GET")


@dataclass(frozen=True)
class Case:
    """The last request is the one that hits the limit; those before are answered with 200, or with `before`."""

    error: str
    status: int
    asked: tuple[Asked, ...]
    limits: Mapping[str, Any] = field(default_factory=dict)
    instance: DistributorInstanceLimits = field(default_factory=DistributorInstanceLimits)
    ingester: IngesterInstanceLimits = field(default_factory=IngesterInstanceLimits)
    aside: str = ""

    def __str__(self) -> str:
        return f"{self.error or self.status}{'-' if self.aside else ''}{self.aside}"


HA = {"accept_ha_samples": True}
SLOW = {"ingestion_rate": 1.0, "ingestion_burst_size": 1}
BUCKETS = {"max_native_histogram_buckets": 1}
EXEMPLARS = {"max_global_exemplars_per_user": 10}
IN_ORDER = {"out_of_order_time_window": Duration(0)}
LARGE = b"x" * (SIZE_MAX + 1)
TWO = push((named("up", n="1"), 0), (named("up", n="2"), 0))

CASES = (
    Case("missing-metric-name", 400, (push(((("job", "x"),), 0)),)),
    Case("metric-name-invalid", 400, (push((named("u-p"), 0)),)),
    Case("label-invalid", 400, (push((named("up", **{"a-b": "1"}), 0)),)),
    Case("max-label-names-per-series", 400, (push((named("up", a="1"), 0)),), {"max_label_names_per_series": 1}),
    Case(
        "max-label-names-per-info-series", 400, (push((named("up_info", a="1"), 0)),),
        {"max_label_names_per_series": 1, "max_label_names_per_info_series": 1},
    ),
    Case("label-name-too-long", 400, (push((named("up", abcdefghi="1"), 0)),), {"max_label_name_length": 8}),
    Case("label-value-too-long", 400, (push((named("up", a="12345"), 0)),), {"max_label_value_length": 4}),
    Case("label-value-invalid", 400, (Asked(snappy.compress(
        encode_write_request([(b"\x0a\x0e\x0a\x08__name__\x12\x02up\x0a\x06\x0a\x01a\x12\x01\xff", [(NOW_MS, 1.0)])])
    )),)),
    Case("duplicate-label-names", 400, (wire(("__name__", "up"), ("a", "1"), ("a", "2")),)),
    Case("too-far-in-future", 400, (push((UP, 700_000)),)),
    Case("too-far-in-past", 400, (push((UP, -61_000)),), {"past_grace_period": Duration(60_000), **IN_ORDER}),
    Case("sample-out-of-order", 400, (push((UP, 0)), push((UP, -1))), IN_ORDER),
    Case(
        "sample-timestamp-too-old", 400, (push((UP, 0)), push((UP, -5000))),
        {"out_of_order_time_window": Duration(1000)},
    ),
    Case("sample-duplicate-timestamp", 400, (push((UP, 0)), Asked(snappy.compress(
        encode_write_request([(UP, [(NOW_MS, 7.0)])])
    )))),
    Case("invalid-native-histogram-schema", 400, (histogram(schema=9),)),
    Case("native-histogram-count-mismatch", 400, (histogram(lambda one: setattr(one, "count_int", 9)),)),
    Case("native-histogram-spans-buckets-mismatch", 400, (histogram(lambda one: one.positive_deltas.append(1)),)),
    Case(
        "max-native-histogram-buckets", 400, (histogram(),),
        {**BUCKETS, "reduce_native_histogram_over_max_buckets": False},
    ),
    Case("not-reducible-native-histogram", 400, (histogram(unsplittable),), BUCKETS),
    Case("native-histogram-custom-buckets-not-reducible", 400, (histogram(schema=-53),), BUCKETS),
    Case("exemplar-labels-missing", 400, (exemplar({}),), EXEMPLARS),
    Case("exemplar-labels-too-long", 400, (exemplar({"a": "x" * 128}),), EXEMPLARS),
    Case("exemplar-timestamp-invalid", 400, (exemplar({"a": "x"}, 0),), EXEMPLARS),
    Case("exemplar-series-missing", 400, (exemplar({"a": "x"}, samples=0),), EXEMPLARS),
    Case("metadata-missing-metric-name", 400, (push(metadata=(Metadata("", "gauge"),)),)),
    Case(
        "metric-name-too-long", 400, (push(metadata=(Metadata("abcde", "gauge"),)),), {"max_metadata_length": 4}
    ),
    Case(
        "unit-too-long", 400, (push(metadata=(Metadata("a", "gauge", unit="bytes"),)),), {"max_metadata_length": 4}
    ),
    Case("max-series-per-user", 400, (TWO,), {"max_global_series_per_user": 1}),
    Case("max-series-per-metric", 400, (TWO,), {"max_global_series_per_metric": 1}),
    Case(
        "max-metadata-per-user", 400, (push(metadata=(Metadata("a", "gauge"), Metadata("b", "gauge"))),),
        {"max_global_metadata_per_user": 1},
    ),
    Case(
        "max-metadata-per-metric", 400, (push(metadata=(Metadata("a", "gauge"), Metadata("a", "counter"))),),
        {"max_global_metadata_per_metric": 1},
    ),
    Case("", 202, tuple(push((named("up", cluster="c", __replica__=one), 0)) for one in "ab"), HA),
    Case(
        "tenant-too-many-ha-clusters", 400,
        tuple(push((named("up", cluster=one, __replica__="a"), 0)) for one in "ab"), {**HA, "ha_max_clusters": 1},
    ),
    Case("tenant-max-request-rate", 429, (TWO, TWO), {"request_rate": 1.0, "request_burst_size": 1}),
    Case("tenant-max-ingestion-rate", 429, (push((UP, 0)), push((UP, 1))), SLOW),
    Case("tenant-max-ingestion-rate", 429, (TWO,), SLOW, aside="burst"),
    Case(
        "tenant-max-ingestion-rate", 429, (TWO,), {"ingestion_rate": 1.0, "ingestion_burst_factor": 1.0},
        aside="factor",
    ),
    Case(
        "tenant-max-ingestion-rate", 529, (TWO,),
        {**SLOW, "service_overload_status_code_on_rate_limit_enabled": True}, aside="529",
    ),
    Case(
        "tenant-max-request-rate", 529, (TWO,),
        {"request_rate": 1.0, "service_overload_status_code_on_rate_limit_enabled": True}, aside="529",
    ),
    Case(
        "distributor-max-inflight-push-requests-bytes", 500, (TWO,),
        instance=DistributorInstanceLimits(max_inflight_push_requests_bytes=Bytes(1)),
    ),
    Case("ingester-max-tenants", 500, (TWO,), ingester=IngesterInstanceLimits(max_tenants=1)),
    Case("ingester-max-series", 500, (TWO,), ingester=IngesterInstanceLimits(max_series=1)),
    Case(
        "ingester-max-inflight-push-requests-bytes", 500, (TWO,),
        ingester=IngesterInstanceLimits(max_inflight_push_requests_bytes=Bytes(1)),
    ),
    Case("distributor-max-write-message-size", 400, (Asked(snappy.compress(LARGE)),)),
    Case("distributor-max-otlp-request-size", 413, (
        Asked(LARGE, "/otlp/v1/metrics", headers=(("content_type", "application/x-protobuf"),)),
    )),
    Case("distributor-max-influx-request-size", 413, (Asked(LARGE, "/api/v1/push/influx/write"),)),
    Case("max-series-per-query", 422, (TWO, query("up")), {"max_fetched_series_per_query": 1}),
    Case("max-chunks-per-query", 422, (TWO, query("up")), {"max_fetched_chunks_per_query": 1}),
    Case("max-chunks-bytes-per-query", 422, (TWO, query("up")), {"max_fetched_chunk_bytes_per_query": Bytes(1)}),
    Case(
        "max-estimated-memory-consumption-per-query", 422, (TWO, query("up + up")),
        {"max_estimated_memory_consumption_per_query": Bytes(1)},
    ),
    Case("max-query-expression-size-bytes", 400, (query("up + up"),), {"max_query_expression_size_bytes": Bytes(3)}),
)  # fmt: skip
_numbers = itertools.count()


def answer(stand: Stand, case: Case) -> tuple[int, str, Any]:
    tenant = f"tenant-{next(_numbers)}"
    stand.limits[tenant] = Limits(**case.limits)
    *before, last = case.asked
    for one in before:
        status, text, _ = stand.ask(one.method, one.path, one.body, tenant, **dict(one.headers))
        assert status == 200, text
    stand.instance, stand.cluster.ingester_limits = case.instance, case.ingester
    try:
        return stand.ask(last.method, last.path, last.body, tenant, **dict(last.headers))
    finally:
        stand.instance, stand.cluster.ingester_limits = DistributorInstanceLimits(), IngesterInstanceLimits()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_limit_is_answered_with_its_id_and_status(stand: Stand, case: Case) -> None:
    status, text, headers = answer(stand, case)
    assert status == case.status, text
    assert f"(err-mimir-{case.error})" in text if case.error else "replicas did not match" in text
    assert ("retry-after" in headers) == (status in (429, 500, 529))


def test_an_instance_takes_so_many_requests_at_once(stand: Stand) -> None:
    stand.distributor._count_inflight(1, 0)  # somebody else's
    try:
        limits = DistributorInstanceLimits(max_inflight_push_requests=1)
        case = Case("distributor-max-inflight-push-requests", 500, (TWO,), instance=limits)
        status, text, _ = answer(stand, case)
    finally:
        stand.distributor._count_inflight(-1, 0)
    assert (status, f"(err-mimir-{case.error})" in text) == (500, True), text


def test_an_instance_takes_so_many_samples_a_second(stand: Stand) -> None:
    stand.distributor._ingestion_rate.add(100, stand.cluster.clock.monotonic_s() - 1)
    limits = DistributorInstanceLimits(max_ingestion_rate=1.0)
    case = Case("distributor-max-ingestion-rate", 500, (TWO,), instance=limits)
    status, text, _ = answer(stand, case)
    assert (status, f"(err-mimir-{case.error})" in text) == (500, True), text


def test_an_ingester_takes_so_many_requests_at_once(stand: Stand) -> None:
    (node,) = stand.cluster.nodes.values()
    batch = write_batch(new=[(UP, [(NOW_MS, 1.0)])])
    case = Case(
        "ingester-max-inflight-push-requests", 500, (TWO,),
        ingester=IngesterInstanceLimits(max_inflight_push_requests=1),
    )  # fmt: skip
    with node.ingester._instance_limits.push([batch]):  # somebody else's
        status, text, _ = answer(stand, case)
    assert (status, f"(err-mimir-{case.error})" in text) == (500, True), text


def test_an_ingester_takes_so_many_samples_a_second(stand: Stand) -> None:
    (node,) = stand.cluster.nodes.values()
    rate = node.ingester._instance_limits._rate = EwmaRate(stand.cluster.clock.monotonic_s() - 1)
    rate.add(100, stand.cluster.clock.monotonic_s() - 1)
    case = Case("ingester-max-ingestion-rate", 500, (TWO,), ingester=IngesterInstanceLimits(max_ingestion_rate=1.0))
    status, text, _ = answer(stand, case)
    assert (status, f"(err-mimir-{case.error})" in text) == (500, True), text


def test_the_page_says_of_every_error_what_was_seen_here() -> None:
    written = {(hit.error, hit.status) for hits in HITS.values() for hit in hits}
    written |= {(hit.error, hit.status) for _, hit, _ in FIXED}
    seen = {(case.error, case.status) for case in CASES if case.status != 529}
    for who in ("distributor", "ingester"):
        seen |= {(f"{who}-max-inflight-push-requests", 500), (f"{who}-max-ingestion-rate", 500)}
    assert written == seen


def test_the_page_has_every_limit_and_who_enforces_it() -> None:
    text = page(Settings())
    assert "| `max_global_series_per_user` | `-ingester.max-global-series-per-user` | `150000` |" in text
    for path in HITS:
        assert path in {one.name for _, settings in sections(Settings()) for one in settings}


# What of a request that is refused is stored, and which checks can be skipped.


def test_the_sound_part_of_a_refused_request_is_stored(stand: Stand) -> None:
    stand.limits["half"] = Limits()
    asked = push((named("u-p"), 0), (named("up", n="1"), 0), ((("job", "x"),), 0), (named("down"), 700_000))
    status, text, _ = stand.ask("POST", asked.path, asked.body, "half")
    assert (status, "metric-name-invalid" in text) == (400, True)
    status, text, _ = stand.ask("GET", query('count({__name__=~".+"})').path, None, "half")
    assert status == 200 and '"1"]' in text


@pytest.mark.parametrize(
    ("header", "labels", "limits"),
    [
        ("X-Mimir-SkipLabelNameValidation", named("up", **{"a-b": "1"}), {}),
        ("X-Mimir-SkipLabelCountValidation", named("up", a="1", b="2"), {"max_label_names_per_series": 1}),
    ],
)
def test_a_header_skips_a_check(stand: Stand, header: str, labels: Any, limits: dict[str, Any]) -> None:
    tenant = f"tenant-{next(_numbers)}"
    stand.limits[tenant] = Limits(**limits)
    asked = push((labels, 0))
    assert stand.ask("POST", asked.path, asked.body, tenant)[0] == 400
    assert stand.ask("POST", asked.path, asked.body, tenant, **{header: "false"})[0] == 400
    assert stand.ask("POST", asked.path, asked.body, tenant, **{header: "true"})[0] == 200


def test_an_answer_that_was_held_back_says_so(stand: Stand) -> None:
    stand.limits["slow"] = Limits(ingestion_artificial_delay=Duration(1))
    asked = push((UP, 0))
    status, _, headers = stand.ask("POST", asked.path, asked.body, "slow")
    assert (status, headers["server-timing"]) == (200, "artificial_delay;dur=1")


def test_elected_replicas_are_shown(stand: Stand) -> None:
    stand.limits["pairs"] = Limits(accept_ha_samples=True)
    asked = push((named("up", cluster="<c>", __replica__="a"), 0))
    assert stand.ask("POST", asked.path, asked.body, "pairs")[0] == 200
    status, text, headers = stand.ask("GET", "/distributor/ha_tracker", None, "", Accept="application/json")
    assert (status, headers["content-type"]) == (200, "application/json")
    (row,) = (one for one in json.loads(text)["elected"] if one["userID"] == "pairs")
    moment = "2023-11-14T22:13:20.000Z"
    assert row == {
        "userID": "pairs", "cluster": "<c>", "replica": "a", "electedAt": moment, "receivedAt": moment,
        "updateDuration": 15_000_000_000, "failoverDuration": 30_000_000_000, "electedChanges": 0,
    }  # fmt: skip
    assert json.loads(text)["now"] == moment
    status, text, _ = stand.ask("GET", "/distributor/ha_tracker", None, "")
    assert status == 200 and "<td>&lt;c&gt;</td><td>a</td>" in text and "<td>15s</td><td>30s</td>" in text
