"""OTLP from OpenTelemetry's own SDK and HTTP exporter."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource

from tests.integration.deployment import TENANT, Deployment

FLAGS = ("-distributor.otel-metric-suffixes-enabled=true",)
HEADERS = {"X-Scope-OrgID": TENANT}


def values_of(result: list[dict[str, Any]]) -> dict[tuple[tuple[str, str], ...], Any]:
    """Labels → value (or histogram) of an instant query's result."""
    return {
        tuple(sorted(one["metric"].items())): one["value"][1] if "value" in one else one["histogram"][1]
        for one in result
    }


def stored(deployment: Deployment, query: str) -> dict[tuple[tuple[str, str], ...], Any]:
    return values_of(deployment.result("query", query=query)["result"])


def observe(_options: CallbackOptions) -> list[Observation]:
    return [Observation(20.5)]


@pytest.fixture(scope="module")
def sent(deployment: Deployment) -> Deployment:
    """What an application with a counter, a gauge and two histograms sends at its end."""
    exporter = OTLPMetricExporter(endpoint=f"{deployment.url}/otlp/v1/metrics", headers=HEADERS)
    reader = PeriodicExportingMetricReader(exporter, export_interval_millis=600_000)
    resource = Resource({"service.name": "shop", "service.namespace": "web", "service.instance.id": "1", "host": "h"})
    view = View(instrument_name="exp*", aggregation=ExponentialBucketHistogramAggregation(max_scale=3))
    provider = MeterProvider([reader], resource, views=[view])
    meter = provider.get_meter("tests", "1.0")
    meter.create_counter("jobs.done", unit="1", description="Jobs.").add(7, {"queue": "a"})
    meter.create_up_down_counter("jobs.open").add(-3)
    classic = meter.create_histogram("latency", unit="ms", explicit_bucket_boundaries_advisory=[1.0, 10.0])
    exponential = meter.create_histogram("exp.latency", unit="s")
    for value in (0.5, 5.0, 50.0):
        classic.record(value, {"route": "/x"})
        exponential.record(value)
    meter.create_observable_gauge("temperature", [observe], unit="Cel")
    assert provider.force_flush()
    provider.shutdown()
    return deployment


def test_an_application_s_metrics_arrive_as_prometheus_would_name_them(sent: Deployment) -> None:
    about = {"job": "web/shop", "instance": "1"}
    labels = {"__name__": "jobs_done_total", "queue": "a", **about}
    assert stored(sent, "jobs_done_total") == {tuple(sorted(labels.items())): "7"}
    assert list(stored(sent, "jobs_open").values()) == ["-3"]
    assert list(stored(sent, "temperature_celsius").values()) == ["20.5"]
    buckets = {dict(labels)["le"]: value for labels, value in stored(sent, "latency_milliseconds_bucket").items()}
    assert buckets == {"1": "1", "10": "2", "+Inf": "3"}
    assert list(stored(sent, "latency_milliseconds_sum").values()) == ["55.5"]
    assert [found["count"] for found in stored(sent, "exp_latency_seconds").values()] == ["3"]
    (target,) = stored(sent, "target_info")
    assert dict(target)["host"] == "h"
    assert dict(target)["job"] == "web/shop"


def test_metadata_of_an_application_is_kept(sent: Deployment) -> None:
    found = sent.result("metadata", metric="jobs_done_total")
    assert found == {"jobs_done_total": [{"type": "counter", "help": "Jobs.", "unit": ""}]}
