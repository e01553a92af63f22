"""OTLP through a distributor: labels of series that it knows are written only when somebody needs them."""

from __future__ import annotations

import asyncio
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from mimir_ray.wire.otlp.translate import OtlpScan, OtlpSettings, scan_otlp
from mimir_ray.wire.write_scan import HashKey
from tests.roles.distributor.fakes import NOW_MS, TENANT, Setup

SERIES = (("__name__", "jobs_done"), ("queue", "a"))


def request(offset_ms: int) -> bytes:
    message = ExportMetricsServiceRequest()
    metric: Any = message.resource_metrics.add().scope_metrics.add().metrics.add(name="jobs.done")
    metric.sum.aggregation_temporality = 2
    point = metric.sum.data_points.add(time_unix_nano=(NOW_MS + offset_ms) * 1_000_000, as_double=offset_ms)
    point.attributes.add(key="queue").value.string_value = "a"
    point.exemplars.add(time_unix_nano=(NOW_MS + offset_ms) * 1_000_000, as_double=7, trace_id=bytes(range(16)))
    return message.SerializeToString()


def push(setup: Setup, offset_ms: int) -> None:
    def scan(data: bytes, key: HashKey) -> OtlpScan:
        return scan_otlp(data, key, OtlpSettings())

    async def work() -> None:
        outcome = await setup.distributor.push(TENANT, request(offset_ms), scan, "otlp")
        assert outcome.error is None, outcome.error
        await setup.distributor.drain()

    asyncio.run(work())


def test_exemplars_of_a_known_series_go_with_its_labels() -> None:
    setup = Setup(max_global_exemplars_per_user=100)
    for at in range(3):
        push(setup, at)
    assert [(series, time) for series, _, time, _ in setup.only.exemplars] == [(SERIES, NOW_MS + at) for at in range(3)]


def test_an_ingester_that_has_restarted_gets_the_labels_again() -> None:
    setup = Setup()
    push(setup, 0)
    setup.only.restart()
    push(setup, 1)
    assert setup.only.stored == [(SERIES, NOW_MS, 0.0), (SERIES, NOW_MS + 1, 1.0)]
