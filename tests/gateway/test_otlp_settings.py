"""Every limit of OTLP changes what is stored: one request, sent by a tenant with and by one without it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any
from urllib.parse import urlencode

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from mimir_ray.config.limits import Limits
from tests.gateway.serving import NOW_MS
from tests.gateway.standing import Stand, standing

NOW_NS = NOW_MS * 1_000_000
CUMULATIVE, DELTA = 2, 1
_numbers = itertools.count()


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with standing(tmp_path_factory.mktemp("otlp")) as one:
        yield one


def request(change: Callable[[Any], None], **attributes: str) -> ExportMetricsServiceRequest:
    """One metric of one resource and scope; `change` makes it what it is."""
    found = ExportMetricsServiceRequest()
    resource = found.resource_metrics.add()
    for key, value in {"service.name": "shop", "host.name": "h1"}.items():
        resource.resource.attributes.add(key=key).value.string_value = value
    scope = resource.scope_metrics.add()
    scope.scope.name = "library"
    metric = scope.metrics.add(name="http.served", unit="s")
    change(metric)
    kind = metric.WhichOneof("data")
    for point in getattr(metric, kind).data_points:
        point.time_unix_nano = NOW_NS
        for key, value in attributes.items():
            point.attributes.add(key=key).value.string_value = value
    return found


def counter(metric: Any, temporality: int = CUMULATIVE, start_ms: int = 0) -> None:
    metric.sum.is_monotonic, metric.sum.aggregation_temporality = True, temporality
    metric.sum.data_points.add(as_double=5.0, start_time_unix_nano=start_ms * 1_000_000)


def gauge(metric: Any) -> None:
    metric.gauge.data_points.add(as_double=5.0, start_time_unix_nano=(NOW_MS - 60_000) * 1_000_000)


def histogram(metric: Any) -> None:
    metric.histogram.aggregation_temporality = CUMULATIVE
    metric.histogram.data_points.add(
        count=3, sum=4.0, explicit_bounds=[1.0], bucket_counts=[1, 2],
        start_time_unix_nano=(NOW_MS - 60_000) * 1_000_000,
    )  # fmt: skip


def exponential(metric: Any) -> None:
    metric.exponential_histogram.aggregation_temporality = CUMULATIVE
    point = metric.exponential_histogram.data_points.add(
        count=3, sum=4.0, scale=1, start_time_unix_nano=(NOW_MS - 60_000) * 1_000_000
    )
    point.positive.bucket_counts.extend([1, 2])


def delta(metric: Any) -> None:
    counter(metric, DELTA, NOW_MS - 1000)


def begun(metric: Any) -> None:
    counter(metric, start_ms=NOW_MS - 60_000)


def begun_long_ago(metric: Any) -> None:
    counter(metric, start_ms=NOW_MS - 300_001)


def push(stand: Stand, sent: ExportMetricsServiceRequest, **limits: Any) -> tuple[str, int]:
    """(a new tenant with these limits, the status)."""
    tenant = f"tenant-{next(_numbers)}"
    stand.limits[tenant] = Limits(**limits)
    assert not list(stand.limits[tenant].problems())
    status, _, _ = stand.ask(
        "POST", "/otlp/v1/metrics", sent.SerializeToString(), tenant, content_type="application/x-protobuf"
    )
    return tenant, status


def ask(stand: Stand, tenant: str, query: str) -> list[dict[str, Any]]:
    path = f"/prometheus/api/v1/query?{urlencode({'query': query, 'time': NOW_MS / 1000})}"
    status, text, _ = stand.ask("GET", path, None, tenant)
    assert status == 200, text
    return json.loads(text)["data"]["result"]  # type: ignore[no-any-return]


def series(stand: Stand, sent: ExportMetricsServiceRequest, **limits: Any) -> set[str]:
    """What is stored, as text; without job and instance, which are there always."""
    tenant, status = push(stand, sent, **limits)
    assert status == 200
    found = set()
    for one in ask(stand, tenant, '{__name__=~".+"}'):
        labels = {name: value for name, value in one["metric"].items() if name not in ("job", "instance")}
        kind = "histogram" if "histogram" in one else ""
        found.add(" ".join([labels.pop("__name__"), *(f"{n}={v}" for n, v in sorted(labels.items())), kind]).strip())
    return found


TARGET = "target_info host_name=h1"
COUNTER, HISTOGRAM = request(counter), request(histogram)
BUCKETS = {
    "http_served_bucket le=1", "http_served_bucket le=+Inf", "http_served_count", "http_served_sum", TARGET,
}  # fmt: skip
CASES: dict[str, tuple[ExportMetricsServiceRequest, dict[str, Any], set[str], set[str]]] = {
    "otel_metric_suffixes_enabled": (
        COUNTER, {"otel_metric_suffixes_enabled": True},
        {"http_served", TARGET}, {"http_served_seconds_total", TARGET},
    ),
    "name_validation_scheme": (
        COUNTER, {"name_validation_scheme": "utf8"},
        {"http_served", TARGET}, {"http.served", "target_info host.name=h1"},
    ),
    "otel_translation_strategy": (
        COUNTER,
        {
            "otel_translation_strategy": "NoUTF8EscapingWithSuffixes", "name_validation_scheme": "utf8",
            "otel_metric_suffixes_enabled": True,
        },
        {"http_served", TARGET}, {"http.served_seconds_total", "target_info host.name=h1"},
    ),
    "promote_otel_resource_attributes": (
        COUNTER, {"promote_otel_resource_attributes": ("host.name",)},
        {"http_served", TARGET}, {"http_served host_name=h1", TARGET},
    ),
    "otel_keep_identifying_resource_attributes": (
        COUNTER, {"otel_keep_identifying_resource_attributes": True},
        {"http_served", TARGET}, {"http_served", f"{TARGET} service_name=shop"},
    ),
    "otel_convert_histograms_to_nhcb": (
        HISTOGRAM, {"otel_convert_histograms_to_nhcb": True}, BUCKETS, {"http_served histogram", TARGET},
    ),
    "otel_promote_scope_metadata": (
        COUNTER, {"otel_promote_scope_metadata": True},
        {"http_served", TARGET}, {"http_served otel_scope_name=library", TARGET},
    ),
    "otel_label_name_underscore_sanitization": (
        request(counter, _a="1"), {"otel_label_name_underscore_sanitization": False},
        {"http_served key_a=1", TARGET}, {"http_served _a=1", TARGET},
    ),
    "otel_label_name_preserve_underscores": (
        request(counter, a__b="1"), {"otel_label_name_preserve_underscores": False},
        {"http_served a__b=1", TARGET}, {"http_served a_b=1", TARGET},
    ),
}  # fmt: skip
ELSEWHERE = {"otel_native_delta_ingestion", "otel_created_timestamp_zero_ingestion_enabled"}


def test_no_limit_of_otlp_is_left_out() -> None:
    names = {one.name for one in fields(Limits)}
    assert {name for name in names if "otel" in name} <= CASES.keys() | ELSEWHERE


@pytest.mark.parametrize("name", CASES)
def test_a_limit_changes_what_is_stored(stand: Stand, name: str) -> None:
    sent, limits, without, with_it = CASES[name]
    assert name in limits
    assert series(stand, sent) == without
    assert series(stand, sent, **limits) == with_it


def test_deltas_are_refused_or_stored_as_they_come(stand: Stand) -> None:
    assert push(stand, request(delta))[1] == 400
    tenant, status = push(stand, request(delta), otel_native_delta_ingestion=True)
    (one,) = ask(stand, tenant, "http_served")
    assert (status, one["value"][1]) == (200, "5")
    told = stand.ask("GET", "/prometheus/api/v1/metadata", None, tenant)[1]
    assert json.loads(told)["data"]["http_served"][0]["type"] == "unknown"


START = {"otel_created_timestamp_zero_ingestion_enabled": True}


@pytest.mark.parametrize(
    ("kind", "limits", "query", "values"),
    [
        (begun, {}, "http_served[10m]", [[0, "5"]]),
        (begun, START, "http_served[10m]", [[-60, "0"], [0, "5"]]),
        (begun_long_ago, START, "http_served[10m]", [[0, "5"]]),
        (gauge, START, "http_served[10m]", [[0, "5"]]),
        (histogram, START, "http_served_count[10m]", [[-60, "0"], [0, "3"]]),
        (histogram, START, 'http_served_bucket{le="1"}[10m]', [[-60, "0"], [0, "1"]]),
        (histogram, START, "target_info[10m]", [[0, "1"]]),
    ],
)  # fmt: skip
def test_what_is_counted_is_zero_where_it_begins(
    stand: Stand, kind: Callable[[Any], None], limits: dict[str, Any], query: str, values: list[list[Any]]
) -> None:
    tenant, status = push(stand, request(kind), **limits)
    assert status == 200
    (found,) = ask(stand, tenant, query)
    assert [[time - NOW_MS / 1000, value] for time, value in found["values"]] == values


@pytest.mark.parametrize("limits", [{}, {"otel_convert_histograms_to_nhcb": True}])
def test_native_histograms_are_empty_where_they_begin(stand: Stand, limits: dict[str, Any]) -> None:
    kind = histogram if limits else exponential
    tenant, _ = push(stand, request(kind), **START, **limits)
    (found,) = ask(stand, tenant, "http_served[10m]")
    (first, empty), (second, full) = found["histograms"]
    assert (second - first, empty["count"], empty["sum"], full["count"]) == (60, "0", "0", "3")
    (rise,) = ask(stand, tenant, "histogram_count(increase(http_served[10m]))")
    assert float(rise["value"][1]) >= 3


def test_the_first_increase_of_a_counter_is_seen_once(stand: Stand) -> None:
    tenant, _ = push(stand, request(begun), **START)
    for _ in range(2):  # sent again, it changes nothing
        stand.ask(
            "POST", "/otlp/v1/metrics", request(begun).SerializeToString(), tenant,
            content_type="application/x-protobuf",
        )  # fmt: skip
    (found,) = ask(stand, tenant, "http_served[10m]")
    assert len(found["values"]) == 2
    (rise,) = ask(stand, tenant, "increase(http_served[1m1ms])")
    assert float(rise["value"][1]) == pytest.approx(5, rel=1e-3)
