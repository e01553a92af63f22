"""However a query runs (in ingesters, here, in shards, page by page), the answer is that of a plain list of samples."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimir_ray.cluster import paging
from mimir_ray.cluster.transport.in_process import FaultRates
from mimir_ray.errors import MimirRayError, Unavailable
from mimir_ray.model.labels import Labels, labels_of
from mimir_ray.model.matchers import Matcher, MatchType
from mimir_ray.model.series import STALE_NAN
from mimir_ray.model.tenant import TenantId
from mimir_ray.promql.limits import Cancellation, QueryCancelled
from mimir_ray.promql.plan.fragment import Fragment, FragmentPart
from mimir_ray.promql.source import Selection, Shard
from mimir_ray.roles.querier.config import QuerierConfig
from mimir_ray.roles.querier.fragments import QueryScope
from mimir_ray.roles.querier.tasks import run_shard
from tests.scenarios.cluster import NOW_MS, Cluster, close_to, plain, read

EVERYTHING = Selection((Matcher(MatchType.REGEX, "__name__", ".+"),), NOW_MS - 10**8, NOW_MS + 10**8)
STEP = 15_000
BEGAN = NOW_MS - 1_800_000

QUERIES = (
    "requests_total",
    'requests_total{job="a"} offset 1m',
    "requests_total @ 1699999000",
    "sum(requests_total)",
    "sum by (job) (rate(requests_total[2m]))",
    "sum without (instance) (increase(requests_total[5m]))",
    "avg by (job) (gauge)",
    "min(gauge) + max(gauge)",
    "count by (job, instance) (gauge > 0)",
    "group by (job) (gauge)",
    "stddev(gauge)",
    "stdvar by (job) (gauge)",
    "topk(3, gauge)",
    "bottomk by (job) (1, gauge)",
    "quantile(0.9, gauge)",
    "quantile by (job) (0.5, rate(requests_total[3m]))",
    'count_values("v", requests_total > bool 100)',
    "histogram_quantile(0.9, sum by (le) (rate(latency_bucket[5m])))",
    "histogram_quantile(0.5, rate(latency_bucket[5m]))",
    "rate(requests_total[1m]) / on (instance, job) gauge",
    "gauge * on (job) group_left () sum by (job) (gauge)",
    "gauge and requests_total",
    'gauge{job="a"} or gauge{job="b"}',
    "gauge unless on (instance) (gauge > 0)",
    "absent(gauge)",
    "absent_over_time(nothing[5m])",
    "avg_over_time(gauge[3m])",
    "quantile_over_time(0.3, gauge[4m])",
    "max_over_time(rate(requests_total[1m])[5m:30s])",
    "deriv(gauge[5m])",
    "changes(gauge[10m])",
    "present_over_time(gauge[30s])",
    "last_over_time(gauge[1m])",
    "abs(-gauge)",
    "clamp(gauge, -1, 1)",
    "timestamp(gauge)",
    "scalar(sum(gauge)) + 1",
    'label_replace(gauge, "x", "$1", "instance", "host-(.*)")',
    "sort_desc(sum by (job) (gauge))",
    "vector(time())",
    "sum(gauge) / count(gauge) - avg(gauge) < 1e-6",
    '{__name__=~"g.*|req.*", job=~"a|c"}',
    "sum by (job) (gauge) + ignoring (instance) sum by (job) (requests_total)",
)


def everything() -> Iterator[tuple[Labels, list[tuple[int, float]]]]:
    """Counters with resets, gauges with gaps and staleness markers, buckets. Sums of values are exact."""
    rng = random.Random(7)
    for number in range(24):
        about = {"instance": f"host-{number}", "job": "abc"[number % 3]}
        times = [BEGAN + at * STEP + number for at in range(120) if rng.random() > 0.1]
        total = 0.0
        counter = []
        for at in times:
            total = 0.0 if rng.random() < 0.02 else total + rng.randrange(50)
            counter.append((at, total))
        yield labels_of({"__name__": "requests_total", **about}), counter
        gauge = [(at, STALE_NAN if rng.random() < 0.03 else float(rng.randrange(-64, 64)) / 4) for at in times]
        yield labels_of({"__name__": "gauge", **about}), gauge
        if number < 6:
            for bucket, le in enumerate(("0.1", "1", "10", "+Inf")):
                grown = [(at, float((place + 1) * (bucket + 1))) for place, at in enumerate(times)]
                yield labels_of({"__name__": "latency_bucket", "le": le, **about}), grown


class Tasks:
    """Ray tasks, one after the other."""

    def __init__(self) -> None:
        self.shards = 0
        self.cluster: Cluster | None = None

    def run(
        self, tenant: TenantId, fragment: Fragment, shards: int, scope: QueryScope, cancellation: Cancellation
    ) -> Iterator[FragmentPart]:
        assert self.cluster is not None
        for index in range(shards):
            self.shards += 1
            part = Fragment(
                fragment.node,
                fragment.steps,
                fragment.delayed_names,
                fragment.max_samples,
                fragment.count_samples,
                Shard(index, shards),
            )
            yield from run_shard(self.cluster.transport, scope, tenant, part, cancellation.remaining_s())


def write_everything(cluster: Cluster) -> None:
    """In requests that cut time, so that some of it lies in older and some in newer owners."""
    found = list(everything())
    for start in range(0, 120, 30):
        low, high = BEGAN + start * STEP, BEGAN + (start + 30) * STEP
        cluster.push(
            [(labels, inside) for labels, points in found if (inside := [p for p in points if low <= p[0] < high])]
        )
        if start == 60 and len(cluster.nodes) < 3:
            cluster.start(2)


@pytest.fixture(scope="module", params=["one ingester", "sole owners", "owners changed", "replicas", "tasks"])
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    tasks = Tasks() if request.param == "tasks" else None
    config = QuerierConfig(wide_query_samples=0, shards=3) if tasks else QuerierConfig()
    count, replication_factor = {"one ingester": (1, 1), "sole owners": (3, 1), "owners changed": (2, 1)}.get(
        request.param, (3, 3)
    )
    folder: Path = tmp_path_factory.mktemp("cluster")
    with Cluster(folder, count, replication_factor, tasks=tasks, querier=config) as one:
        if tasks:
            tasks.cluster = one
        if request.param == "one ingester":
            one.push(everything())
        else:
            write_everything(one)
        one.kind = request.param  # type: ignore[attr-defined]
        yield one


@pytest.mark.parametrize("query", QUERIES)
def test_an_instant_query_answers_as_a_plain_list_of_samples_does(cluster: Cluster, query: str) -> None:
    wanted = cluster.expected(query, NOW_MS - 600_000)
    assert close_to(cluster.instant(query, NOW_MS - 600_000), wanted), query
    assert close_to(cluster.instant(query, NOW_MS - 600_000, fragments=False), wanted), query


@pytest.mark.parametrize("query", QUERIES)
def test_a_range_query_answers_as_a_plain_list_of_samples_does(cluster: Cluster, query: str) -> None:
    span = (BEGAN - 60_000, NOW_MS + 60_000, 47_000)
    wanted = cluster.expected_range(query, *span)
    assert close_to(cluster.range(query, *span), wanted), query
    assert close_to(cluster.range(query, *span, fragments=False), wanted), query


@settings(max_examples=60, deadline=None)
@given(
    query=st.sampled_from(QUERIES),
    start=st.integers(-600, 1800),
    steps=st.integers(0, 40),
    step=st.integers(1, 600),
)
def test_with_any_steps_push_down_does_not_change_an_answer(
    cluster: Cluster, query: str, start: int, steps: int, step: int
) -> None:
    begin = BEGAN + start * 1000
    span = (begin, begin + steps * step * 1000, step * 1000)
    assert close_to(cluster.range(query, *span), cluster.expected_range(query, *span))


@pytest.mark.parametrize(
    "query",
    ["rate(requests_total[5m])", "sum(rate(requests_total[5m]))", "rate(requests_total[1ms])", "sum(irate(load[15s]))",
     "quantile_over_time(2, load[1m])", "sum(max_over_time(rate(load[1m])[5m:1m])) + sum(load @ 0)"],
)  # fmt: skip
def test_what_was_looked_at_and_warned_of_is_told_from_wherever_it_was(cluster: Cluster, query: str) -> None:
    span = (BEGAN, NOW_MS, 47_000)
    found = cluster.engine.range(query, cluster.source(), *span, stats=True)
    wanted = cluster.engine.range(query, cluster.written, *span, stats=True)
    counted, expected = found.stats.samples, wanted.stats.samples
    assert counted.total == expected.total and counted.read == expected.read
    for mine, theirs in ((counted.per_step, expected.per_step), (counted.read_per_step, expected.read_per_step)):
        assert mine is not None and theirs is not None and mine.tolist() == theirs.tolist()
    assert (found.warnings, found.infos) == (wanted.warnings, wanted.infos)


def test_work_is_where_it_is_meant_to_be(cluster: Cluster) -> None:
    before = {name: cluster.calls(name) for name in ("evaluate", "select_page")}
    cluster.instant("sum(rate(requests_total[5m]))")
    evaluated = cluster.calls("evaluate") - before["evaluate"]
    read_out = cluster.calls("select_page") - before["select_page"]
    kind: str = cluster.kind  # type: ignore[attr-defined]
    nodes = len(cluster.nodes)
    assert (evaluated, read_out) == {
        "one ingester": (1, 0),
        "sole owners": (nodes, 0),
        "owners changed": (evaluated, nodes),
        "replicas": (0, 2),
        "tasks": (0, 2 * 3),
    }[kind]
    assert evaluated > 0 or kind in ("replicas", "tasks")


def test_shards_are_disjoint_and_make_up_the_whole_in_a_cluster(cluster: Cluster) -> None:
    together: dict[Labels, list[tuple[int, float]]] = {}
    for index in range(3):
        part = read(cluster.source(), Selection(EVERYTHING.matchers, EVERYTHING.mint, EVERYTHING.maxt, Shard(index, 3)))
        assert part and part.keys().isdisjoint(together)
        together |= part
    assert bits(together) == bits(read(cluster.written, EVERYTHING))


def test_series_alone_come_without_samples_each_once(cluster: Cluster) -> None:
    selection = Selection(EVERYTHING.matchers, EVERYTHING.mint, EVERYTHING.maxt, labels_only=True)
    found = read(cluster.source(), selection)
    assert found.keys() == read(cluster.written, EVERYTHING).keys()
    assert not any(found.values())


def bits(series: dict[Labels, list[tuple[int, float]]]) -> dict[Labels, list[tuple[int, str]]]:
    """Comparable, staleness markers and all."""
    return {labels: [(at, value.hex()) for at, value in points] for labels, points in series.items()}


# Page by page.


@pytest.fixture(params=[(1, 1), (2, 1), (3, 3)])
def paged(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    monkeypatch.setattr(paging, "PAGE_BYTES", 1)
    with Cluster(tmp_path, *request.param) as one:
        one.push(everything())
        yield one


SMALL = Selection(EVERYTHING.matchers, EVERYTHING.mint, EVERYTHING.maxt, batch_series=5)


def test_an_answer_of_many_pages_is_whole(paged: Cluster) -> None:
    assert bits(read(paged.source(), SMALL)) == bits(read(paged.written, EVERYTHING))
    assert paged.calls("next_page") > len(paged.nodes)


def test_no_cursor_is_kept_of_an_answer_that_was_read_to_its_end(paged: Cluster) -> None:
    read(paged.source(), SMALL)
    assert [len(node.ingester._pages) for node in paged.nodes.values()] == [0] * len(paged.nodes)


def test_a_cancelled_query_asks_for_no_further_page(paged: Cluster) -> None:
    cancellation = Cancellation(60)
    batches = paged.querier.source(TenantId("team-a"), cancellation).select(SMALL)
    if len(paged.nodes) == 1:
        next(batches)
    cancellation.cancel()
    with pytest.raises(QueryCancelled):
        list(batches)


def test_two_readers_page_through_the_same_ingester(paged: Cluster) -> None:
    first, second = paged.source().select(SMALL), paged.source().select(SMALL)
    labels = [one for batches in (first, second) for batch in batches for one in batch.labels.to_labels()]
    assert len(labels) == 2 * len(set(labels))


def test_an_ingester_that_restarts_between_two_pages_makes_the_query_fail_as_one_to_try_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paging, "PAGE_BYTES", 1)
    with Cluster(tmp_path, 1, 1) as one:
        one.push(everything())
        batches = one.source().select(SMALL)
        next(batches)
        one.restart(0)
        with pytest.raises(Unavailable):
            list(batches)
        assert bits(read(one.source(), SMALL)) == bits(read(one.written, EVERYTHING))


def test_with_replicas_an_ingester_that_dies_between_two_pages_is_not_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paging, "PAGE_BYTES", 1)
    with Cluster(tmp_path, 3, 3) as one:
        one.push(everything())
        original = one.nodes[1].ingester.select_page

        def dies_after_its_first_page(tenant: TenantId, selection: Selection) -> object:
            page = original(tenant, selection)
            one.kill(1)
            return page

        one.nodes[1].ingester.select_page = dies_after_its_first_page  # type: ignore[method-assign]
        assert bits(read(one.source(), SMALL)) == bits(read(one.written, EVERYTHING))


# Faults.


@pytest.mark.parametrize("seed", range(4))
def test_under_faults_an_answer_is_whole_or_an_error(tmp_path: Path, seed: int) -> None:
    with Cluster(tmp_path, 3, 3) as one:
        one.push(everything())
        wanted = one.expected("sum by (job) (gauge)", NOW_MS - 600_000)
        one.transport.faults = FaultRates(lost_call=0.25, lost_answer=0.25)
        one.transport._rng = np.random.default_rng(seed)
        answered = failed = 0
        for _ in range(25):
            try:
                found = plain(one.engine.instant("sum by (job) (gauge)", one.source(), NOW_MS - 600_000))
            except MimirRayError as error:
                assert isinstance(error, Unavailable)
                failed += 1
            else:
                assert close_to(found, wanted)
                answered += 1
        assert answered and failed
        one.transport.faults = FaultRates()
