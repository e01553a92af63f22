"""What a tenant may ask, and what its limits do to a query."""

from __future__ import annotations

import dataclasses

import pytest
from prometheus_client import CollectorRegistry

from mimir_ray.clock import SystemClock
from mimir_ray.config.limits import Limits
from mimir_ray.config.units import Bytes
from mimir_ray.errors import MimirRayError
from mimir_ray.model.labels import labels_of
from mimir_ray.model.result import Matrix, Vector
from mimir_ray.model.tenant import TenantId
from mimir_ray.promql.engine import Engine
from mimir_ray.promql.limits import (
    SAMPLE_CHUNK_BYTES,
    Cancellation,
    TooManyChunkBytes,
    TooManyChunks,
    TooManySeries,
    TooMuchMemory,
)
from mimir_ray.promql.source import SeriesSource
from mimir_ray.roles.query_frontend.experimental import NotEnabled
from mimir_ray.roles.query_frontend.metrics import QueryFrontendMetrics
from mimir_ray.roles.query_frontend.query_frontend import QueryFrontend
from mimir_ray.testing.sources import ListSource

TENANT = TenantId("team")
MINUTE = 60_000
CHUNK_BYTES = 5 * 300 * SAMPLE_CHUNK_BYTES


class OneSource:
    """A querier whose tenants all have the same few series: five pods, a sample every minute for five hours."""

    def __init__(self) -> None:
        self._source = ListSource()
        for pod in range(5):
            labels = labels_of({"__name__": "x", "pod": str(pod)})
            points = [(minute * MINUTE, float(minute)) for minute in range(300)]
            self._source.add(labels, points, [(time, 60_000) for time, _ in points])

    def source(self, tenant: TenantId, cancellation: Cancellation) -> SeriesSource:
        return self._source


def frontend(**limits: object) -> QueryFrontend:
    allowed = dataclasses.replace(Limits(), **limits)  # type: ignore[arg-type]
    metrics = QueryFrontendMetrics(CollectorRegistry())
    return QueryFrontend(Engine(), OneSource(), lambda _: allowed, SystemClock(), metrics)  # type: ignore[arg-type]


def ask(query: str, **limits: object) -> Matrix:
    value = frontend(**limits).range(TENANT, query, 0, 299 * MINUTE, MINUTE, Cancellation()).value
    assert isinstance(value, Matrix)
    return value


@pytest.mark.parametrize(
    ("query", "setting", "name", "text"),
    [
        ('sort_by_label(x, "pod")', "experimental_functions", "sort_by_label", 'function "sort_by_label"'),
        ("sum(1 + max_of(1, 2) + x)", "experimental_functions", "max_of", 'function "max_of"'),
        ("limitk(1, x)", "experimental_functions", "limitk", 'aggregate "limitk"'),
        ("rate(x[5m] anchored)", "extended_range_selectors", "anchored", 'extended range selector modifier "anchored"'),
        ("rate(x[5m] smoothed)", "extended_range_selectors", "smoothed", 'extended range selector modifier "smoothed"'),
        ("x smoothed", "extended_range_selectors", "smoothed", 'extended range selector modifier "smoothed"'),
        ("x + fill(0) x", "binop_fill_modifiers", "fill", 'binop fill modifier "fill"'),
        ("x + fill_left(0) x", "binop_fill_modifiers", "fill_left", 'binop fill modifier "fill_left"'),
    ],
)
def test_experimental_parts_are_for_tenants_that_have_them_enabled(
    query: str, setting: str, name: str, text: str
) -> None:
    with pytest.raises(NotEnabled) as caught:
        ask(query)
    assert str(caught.value) == f'invalid parameter "query": {text} is not enabled for tenant team'
    for enabled in (("info", name), ("all",)):
        assert len(ask(query, **{f"enabled_promql_{setting}": enabled}))


def test_what_is_stable_needs_nobodys_permission() -> None:
    assert len(ask("sum by (pod) (rate(x[5m])) / on (pod) x")) == 5


@pytest.mark.parametrize(
    ("limits", "query", "error", "text"),
    [
        (
            {"max_fetched_series_per_query": 4}, "sum(x)", TooManySeries,
            "the query exceeded the maximum number of series (limit: 4 series) (err-mimir-max-series-per-query). "
            "Consider reducing the time range and/or number of series selected by the query. One way to reduce the "
            "number of selected series is to add more label matchers to the query. Otherwise, to adjust the related "
            "per-tenant limit, configure -querier.max-fetched-series-per-query, or contact your service administrator.",
        ),
        (
            {"max_fetched_chunks_per_query": 14}, "sum(x)", TooManyChunks,
            "the query exceeded the maximum number of chunks (limit: 14 chunks) (err-mimir-max-chunks-per-query)",
        ),
        (
            {"max_fetched_chunk_bytes_per_query": Bytes(CHUNK_BYTES - 1)}, "sum(x)", TooManyChunkBytes,
            f"the query exceeded the aggregated chunks size limit (limit: {CHUNK_BYTES - 1} bytes) "
            "(err-mimir-max-chunks-bytes-per-query)",
        ),
        (
            {"max_estimated_memory_consumption_per_query": Bytes(10_000)}, "sum(x)", TooMuchMemory,
            "the query exceeded the maximum allowed estimated amount of memory consumed by a single query "
            "(limit: 10000 bytes) (err-mimir-max-estimated-memory-consumption-per-query). To adjust the related "
            "per-tenant limit, configure -querier.max-estimated-memory-consumption-per-query, or contact your service "
            "administrator.",
        ),
    ],
)  # fmt: skip
def test_a_query_beyond_its_limits_is_told_so(
    limits: dict[str, object], query: str, error: type[MimirRayError], text: str
) -> None:
    with pytest.raises(error) as caught:
        ask(query, **limits)
    assert str(caught.value).startswith(text)


@pytest.mark.parametrize(
    "limits",
    [
        {"max_fetched_series_per_query": 5},
        {"max_fetched_chunks_per_query": 15},
        {"max_fetched_chunk_bytes_per_query": Bytes(CHUNK_BYTES)},
        {"max_estimated_memory_consumption_per_query": Bytes(100_000)},
    ],
)
def test_a_query_within_its_limits_is_answered(limits: dict[str, object]) -> None:
    # Series that two selectors with the same matchers read are counted once.
    assert len(ask("sum(x) / sum(rate(x[5m]))", **limits)) == 1


def test_names_go_at_the_end_of_the_query_where_the_tenant_has_it_so() -> None:
    replaced = 'label_replace(rate(x[5m]), "name", "$1", "__name__", "(.+)")'
    assert "name" not in ask(replaced).labels.names
    assert "name" in ask(replaced, enable_delayed_name_removal=True).labels.names


def test_start_timestamps_are_used_where_the_tenant_has_it_so() -> None:
    functions = {"enabled_promql_experimental_functions": ("start_timestamp",)}
    assert len(ask("start_timestamp(x)", **functions)) == 0
    found = ask("start_timestamp(x)", use_start_timestamps=True, **functions)
    assert len(found) == 5 and set(found.values.tolist()) == {60.0}
    assert "start_timestamps=True" in frontend(use_start_timestamps=True).explain(
        TENANT, "rate(x[5m])", 0, MINUTE, MINUTE
    )


def test_samples_are_counted_step_by_step_where_that_is_asked_for() -> None:
    front = frontend()
    counted = front.range(TENANT, "x", 0, 2 * MINUTE, MINUTE, Cancellation(), stats=True).stats.samples
    assert counted.per_step is not None
    assert counted.per_step.tolist() == [5, 5, 5]
    assert counted.total == 15
    assert front.range(TENANT, "x", 0, 2 * MINUTE, MINUTE, Cancellation()).stats.samples.per_step is None


def test_the_lookback_of_a_request_counts() -> None:
    front = frontend()
    at = 299 * MINUTE + 10 * MINUTE
    short = front.instant(TENANT, "x", at, Cancellation()).value
    long = front.instant(TENANT, "x", at, Cancellation(), lookback_ms=11 * MINUTE).value
    assert isinstance(short, Vector)
    assert isinstance(long, Vector)
    assert (len(short), len(long)) == (0, 5)


def test_a_plan_is_explained_without_being_run() -> None:
    text = frontend().explain(TENANT, "sum by (pod) (rate(x[5m]))", 0, 10 * MINUTE, MINUTE)
    assert text.splitlines()[0] == "11 steps of 60000 ms from 0"
    assert "RangeSelect" in text
    with pytest.raises(NotEnabled):
        frontend().explain(TENANT, "limitk(1, x)", 0, 0)
