"""Queries over samples in the bucket, in ingesters, and in both."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mimir_ray.bucket.layout import bucket_index_key
from mimir_ray.bucket.sharding import owners
from mimir_ray.bucket.store_config import BucketStoreConfig
from mimir_ray.cluster import paging
from mimir_ray.cluster.ring.model import STORE_GATEWAY
from mimir_ray.config.units import Duration
from mimir_ray.errors import Corruption, Unavailable
from mimir_ray.model.labels import Labels, labels_of
from mimir_ray.model.matchers import Matcher, MatchType
from mimir_ray.promql.limits import Cancellation, TooManyChunkBytes, TooManyChunks, TooManySeries
from mimir_ray.promql.plan.fragment import Fragment, FragmentPart
from mimir_ray.promql.source import Selection, Shard
from mimir_ray.roles.querier import source as source_module
from mimir_ray.roles.querier.config import QuerierConfig
from mimir_ray.roles.querier.fragments import QueryScope
from mimir_ray.roles.querier.store import StoreConsistencyCheckFailed
from mimir_ray.roles.querier.tasks import run_shard
from mimir_ray.testing.bucket_blocks import ulid_of

from .cluster import NOW_MS, TENANT, Cluster, close_to, read

STEP = 15_000
HOUR = 3_600_000
QUERIES = (
    "m",
    "rate(m[2m])",
    "sum by (zone) (rate(m[5m]))",
    "count_over_time(m[1m])",
    "quantile_over_time(0.7, m[3m])",
    'm{host="h3"} offset 5m',
    "topk(2, sum by (host) (m))",
    "max_over_time(sum(m)[10m:1m])",
)


def everything(series: int = 8, samples: int = 80, seed: int = 1) -> list[tuple[Labels, list[tuple[int, float]]]]:
    """Samples up to now, with gaps."""
    rng = random.Random(seed)
    begin = NOW_MS - samples * STEP
    return [
        (
            labels_of({"__name__": "m", "host": f"h{n}", "zone": f"z{n % 3}"}),
            [(begin + at * STEP, float(at * (n + 1) % 97)) for at in range(samples) if rng.random() > 0.1],
        )
        for n in range(series)
    ]


def between(
    series: Sequence[tuple[Labels, Sequence[tuple[int, float]]]], low: int, high: int
) -> list[tuple[Labels, list[tuple[int, float]]]]:
    """The samples of [low, high)."""
    return [
        (labels, inside) for labels, points in series if (inside := [one for one in points if low <= one[0] < high])
    ]


def check(cluster: Cluster, queries: Sequence[str] = QUERIES) -> None:
    """Whether answers are those of the plain list of samples."""
    start = NOW_MS - 80 * STEP
    for query in queries:
        assert close_to(cluster.instant(query, NOW_MS), cluster.expected(query, NOW_MS)), query
        found = cluster.range(query, start, NOW_MS, 60_000)
        assert close_to(found, cluster.expected_range(query, start, NOW_MS, 60_000)), query


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with Cluster(tmp_path, store_gateways=3) as cluster:
        yield cluster


def test_samples_that_are_in_blocks_only_are_found(cluster: Cluster) -> None:
    cluster.upload(everything())
    cluster.sync()
    check(cluster)


def test_samples_in_blocks_and_ingesters_are_joined_without_gap_or_double(cluster: Cluster) -> None:
    """The two overlap by ten minutes, and blocks overlap each other."""
    found = everything()
    cluster.upload(between(found, 0, NOW_MS - 30 * STEP))
    cluster.upload(between(found, NOW_MS - 60 * STEP, NOW_MS - 20 * STEP))
    cluster.push(between(found, NOW_MS - 60 * STEP, NOW_MS + 1))
    cluster.sync()
    check(cluster)


@given(
    cuts=st.lists(st.tuples(st.integers(0, 80), st.integers(0, 80)), max_size=4),
    seed=st.integers(0, 1 << 16),
    page=st.sampled_from([1, 1 << 20]),
    replicas=st.sampled_from([1, 2]),
)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_wherever_samples_are_the_answer_is_that_of_their_list(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[tuple[int, int]], seed: int, page: int, replicas: int
) -> None:
    """Blocks of any ranges, the rest in ingesters, so that each sample is somewhere and some are in several places."""
    found = everything(seed=seed)
    folder = tmp_path_factory.mktemp("split")
    with (
        pytest.MonkeyPatch.context() as patch,
        Cluster(folder, store_gateways=2, ingesters=2, replication_factor=replicas) as cluster,
    ):
        patch.setattr(paging, "PAGE_BYTES", page)
        patch.setattr(source_module, "SAMPLES_PER_MERGE", 200 if seed % 2 else 1 << 20)
        in_blocks: set[int] = set()
        for low, high in cuts:
            steps = range(min(low, high), max(low, high))
            in_blocks.update(steps)
            if steps:
                cluster.upload(between(found, NOW_MS - (80 - steps.start) * STEP, NOW_MS - (80 - steps.stop) * STEP))
        rng = random.Random(seed)
        rest = [
            (labels, [p for p in points if 80 - (NOW_MS - p[0]) // STEP not in in_blocks or rng.random() < 0.3])
            for labels, points in found
        ]
        cluster.push([one for one in rest if one[1]])
        check(cluster, ("m", "rate(m[2m])", "sum by (zone) (rate(m[5m]))"))


def test_a_block_that_no_sync_brought_is_loaded_when_it_is_asked_for(cluster: Cluster) -> None:
    cluster.upload(everything())
    check(cluster, ("m",))
    registry = next(iter(cluster.gateways.values())).registry
    assert registry.get_sample_value("mimir_ray_storegateway_fresh_looks_total") <= 1


def test_labels_and_values_and_series_of_blocks_are_seen(cluster: Cluster) -> None:
    found = everything()
    cluster.upload(between(found[:4], 0, NOW_MS - 40 * STEP))
    cluster.push(between(found[4:], NOW_MS - 40 * STEP, NOW_MS + 1))
    source = cluster.source()
    selection = Selection((), 0, NOW_MS)
    assert source.label_names(selection) == ["__name__", "host", "zone"]
    assert source.label_values("host", selection) == [f"h{n}" for n in range(8)]
    zone = Selection((Matcher(MatchType.EQUAL, "zone", "z0"),), 0, NOW_MS)
    assert source.label_values("host", zone) == ["h0", "h3", "h6"]
    labels = replace(zone, labels_only=True)
    assert set(read(source, labels)) == {one for one, _ in found if ("zone", "z0") in one}
    older = Selection((), 0, NOW_MS - 50 * STEP)
    cluster.limits = replace(cluster.limits, query_ingesters_within=Duration(10 * STEP))
    assert cluster.source().label_values("host", older) == [f"h{n}" for n in range(4)]


def test_a_dead_store_gateway_is_stood_in_for(cluster: Cluster) -> None:
    for number in range(4):
        cluster.upload(between(everything(), NOW_MS - (80 - 20 * number) * STEP, NOW_MS - (60 - 20 * number) * STEP))
    cluster.sync()
    for number in (0, 1):
        cluster.kill_gateway(number)
        check(cluster, ("m", "rate(m[2m])"))
    cluster.kill_gateway(2)
    with pytest.raises(StoreConsistencyCheckFailed) as raised:
        cluster.instant("m")
    assert str(raised.value).endswith("(err-mimir-store-consistency-check-failed)")
    value = cluster.registry.get_sample_value
    assert value("cortex_querier_blocks_consistency_checks_failed_total") == 1
    assert value("cortex_querier_blocks_found_total") > value("cortex_querier_blocks_queried_total") > 0
    assert value("cortex_querier_storegateway_refetches_per_query_sum") > 0


def test_a_store_gateway_that_dies_between_two_pages_is_stood_in_for(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paging, "PAGE_BYTES", 1)
    cluster.upload(everything())
    cluster.sync()
    first = owners(cluster.watcher.view(STORE_GATEWAY), ulid_of(0))[0].address
    victim = next(one for one in cluster.gateways.values() if one.lifecycler.desc.address == first)

    def forget(cursor: str) -> None:
        raise Unavailable("restarted")

    monkeypatch.setattr(victim.gateway, "next_blocks_page", forget)
    selection = Selection((), 0, NOW_MS, batch_series=2)
    assert len(read(cluster.source(), selection)) == 8
    assert victim.calls.count("select_blocks") == 1


def test_a_block_that_is_gone_from_the_bucket_is_an_error_and_no_hole(cluster: Cluster) -> None:
    cluster.upload(everything())
    cluster.sync()
    check(cluster, ("m",))
    (cluster.bucket_folder / TENANT / ulid_of(0) / "index").unlink()
    for gateway in cluster.gateways.values():
        gateway.gateway._headers.drop(TENANT, ulid_of(0))
        gateway.gateway._caches.found._kept.clear()
    with pytest.raises(StoreConsistencyCheckFailed, match=ulid_of(0)):
        cluster.instant("m")


def test_a_damaged_block_is_an_error_that_names_it(cluster: Cluster) -> None:
    cluster.upload(everything())
    cluster.sync()
    path = cluster.bucket_folder / TENANT / ulid_of(0) / "chunks" / "000001"
    data = bytearray(path.read_bytes())
    data[40] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(Corruption, match="chunks/000001"):
        cluster.instant("m")


def test_a_block_just_uploaded_may_be_missing_and_an_old_one_may_not(cluster: Cluster) -> None:
    """Its samples are still in ingesters."""
    cluster.push(everything())
    meta = cluster.upload(everything(), uploaded_s=NOW_MS // 1000 - 600)
    for gateway in cluster.gateways.values():
        gateway.gateway._catalogue._bucket = _NoIndexes(cluster.bucket)
    check(cluster, ("m",))
    cluster.index_bucket(uploaded_s=NOW_MS // 1000 - 46 * 60)
    with pytest.raises(StoreConsistencyCheckFailed, match=meta.ulid):
        cluster.instant("m")


def test_a_merged_block_may_be_missing_as_long_as_its_sources_are_read(tmp_path: Path) -> None:
    """Whatever the settings: store-gateways are to have it within 45 minutes, and its sources are read for five."""
    config = BucketStoreConfig(
        ignore_blocks_within=Duration(0), ignore_deletion_marks_while_querying_delay=Duration(300_000)
    )
    with Cluster(tmp_path, store_gateways=3, bucket_store=config) as cluster:
        source = cluster.upload(everything())
        cluster.sync()
        merged = cluster.upload(everything())
        cluster.metas[-1] = replace(merged, compaction=replace(merged.compaction, level=2))
        (cluster.bucket_folder / TENANT / merged.ulid / "index").unlink()
        for seconds in (200, 400):
            cluster.marks[source.ulid] = NOW_MS // 1000 - seconds
            cluster.index_bucket(uploaded_s=NOW_MS // 1000 - seconds - 1)
            if seconds < 300:
                check(cluster, ("m",))
            else:
                with pytest.raises(StoreConsistencyCheckFailed, match=merged.ulid):
                    cluster.instant("m")


class _NoIndexes:
    """A bucket in which store-gateways do not see the bucket index yet."""

    def __init__(self, bucket: object) -> None:
        self._bucket = bucket

    def get(self, key: str) -> bytes:
        if key == bucket_index_key(TENANT):
            raise Unavailable("later")
        return self._bucket.get(key)  # type: ignore[attr-defined, no-any-return]


def test_a_block_marked_for_deletion_is_left_out_after_a_while(cluster: Cluster) -> None:
    found = everything()
    cluster.push(found)
    meta = cluster.upload([(labels_of({"__name__": "gone"}), [(NOW_MS - STEP, 1.0)])])
    cluster.sync()
    assert cluster.instant("gone")
    for minutes, is_seen in ((49, True), (51, False), (61, False)):
        cluster.marks[meta.ulid] = NOW_MS // 1000 - minutes * 60
        cluster.index_bucket()
        cluster.sync()
        assert bool(cluster.instant("gone")) == is_seen, minutes
    assert not any(gateway.gateway.blocks() for gateway in cluster.gateways.values())


def test_a_block_let_go_by_store_gateways_may_be_missing_once_its_mark_is_old_enough(cluster: Cluster) -> None:
    cluster.push(everything())
    meta = cluster.upload(everything())
    cluster.marks[meta.ulid] = NOW_MS // 1000 - 40 * 60
    cluster.index_bucket()
    (cluster.bucket_folder / TENANT / meta.ulid / "index").unlink()
    check(cluster, ("m",))
    cluster.marks[meta.ulid] = NOW_MS // 1000 - 20 * 60
    cluster.index_bucket()
    with pytest.raises(StoreConsistencyCheckFailed):
        cluster.instant("m")


def test_recent_samples_come_from_ingesters_and_old_ones_from_the_bucket(tmp_path: Path) -> None:
    """The same series with other values in each, so that it shows who was asked; and nobody is asked in vain."""
    config = QuerierConfig(query_store_after=Duration(12 * HOUR))
    with Cluster(
        tmp_path, store_gateways=1, querier=config, query_ingesters_within=Duration(13 * HOUR),
        out_of_order_time_window=Duration(48 * HOUR),
    ) as cluster:  # fmt: skip
        labels = labels_of({"__name__": "m"})
        times = [NOW_MS - hours * HOUR // 2 for hours in range(48, -1, -1)]
        cluster.push([(labels, [(time, 1.0) for time in times])])
        cluster.upload([(labels, [(time, 2.0) for time in times])])

        def ask(mint: int, maxt: int) -> list[tuple[float, float]]:
            """(hours ago, value)"""
            cluster.nodes[0].calls.clear()
            cluster.gateways[0].calls.clear()
            found = read(cluster.source(), Selection((), NOW_MS - mint * HOUR, NOW_MS - maxt * HOUR))
            return [((NOW_MS - time) / HOUR, value) for time, value in found.get(labels, [])]

        whole = ask(24, 0)
        assert [at for at, _ in whole] == [hours / 2 for hours in range(48, -1, -1)]
        assert {value for at, value in whole if at <= 13} == {1.0}
        assert {value for at, value in whole if at > 13} == {2.0}
        assert [value for _, value in ask(12, 0)] == [1.0] * 25
        assert ask(11, 0)
        assert not cluster.gateways[0].calls
        assert {value for _, value in ask(24, 14)} == {2.0}
        assert not cluster.nodes[0].calls
        # A fragment may run inside of ingesters only where nothing older is asked for.
        cluster.nodes[0].calls.clear()
        cluster.instant("sum(count_over_time(m[11h]))")
        assert cluster.calls("evaluate") > 0
        assert cluster.instant("sum(count_over_time(m[24h]))") == {(): 48.0}
        assert cluster.instant("sum(sum_over_time(m[24h]))") == {(): 27 * 1.0 + 21 * 2.0}


def test_the_fast_path_stays_where_the_bucket_has_nothing(cluster: Cluster) -> None:
    cluster.push(everything())
    check(cluster, ("sum(rate(m[2m]))",))
    assert cluster.calls("evaluate") > 0
    assert not any(gateway.calls for gateway in cluster.gateways.values())


def test_ingesters_older_samples_are_not_seen_by_fragments_either(tmp_path: Path) -> None:
    with Cluster(
        tmp_path, ingesters=1, store_gateways=1, query_ingesters_within=Duration(HOUR),
        out_of_order_time_window=Duration(48 * HOUR),
    ) as cluster:  # fmt: skip
        cluster.push([(labels_of({"__name__": "m"}), [(NOW_MS - 2 * HOUR, 1.0), (NOW_MS - HOUR // 2, 1.0)])])
        for fragments in (True, False):
            assert cluster.instant("count_over_time(m[3h])", fragments=fragments) == {(): 1.0}


@pytest.mark.parametrize("cause", ["series", "chunks", "chunk bytes"])
def test_a_tenant_may_read_only_so_much(tmp_path: Path, cause: str) -> None:
    limits = {
        "series": {"max_fetched_series_per_query": 5},
        "chunks": {"max_fetched_chunks_per_query": 5},
        "chunk bytes": {"max_fetched_chunk_bytes_per_query": 100},
    }
    errors = {"series": TooManySeries, "chunks": TooManyChunks, "chunk bytes": TooManyChunkBytes}
    with Cluster(tmp_path, store_gateways=2, **limits[cause]) as cluster:
        cluster.upload(everything())
        with pytest.raises(errors[cause], match="err-mimir-max-"):
            cluster.instant("m")
        assert sum(gateway.calls.count("select_blocks") for gateway in cluster.gateways.values()) == 1


class Tasks:
    """Ray tasks, one after the other."""

    def __init__(self) -> None:
        self.shards = 0
        self.cluster: Cluster | None = None

    def run(
        self, tenant: str, fragment: Fragment, shards: int, scope: QueryScope, cancellation: Cancellation
    ) -> Iterator[FragmentPart]:
        assert self.cluster is not None
        for index in range(shards):
            self.shards += 1
            part = replace(fragment, shard=Shard(index, shards))
            yield from run_shard(self.cluster.transport, scope, TENANT, part, cancellation.remaining_s())


def test_a_wide_query_over_blocks_is_spread_over_tasks(tmp_path: Path) -> None:
    tasks = Tasks()
    config = QuerierConfig(query_store_after=Duration(0), wide_query_samples=100, shards=4)
    with Cluster(tmp_path, store_gateways=2, querier=config, tasks=tasks) as cluster:
        tasks.cluster = cluster
        found = everything()
        for index in range(2):
            cluster.upload(found, thanos_labels={"__compactor_shard_id__": f"{index + 1}_of_3"})
        cluster.push(between(found, NOW_MS - 20 * STEP, NOW_MS + 1))
        check(cluster, ("sum by (zone) (rate(m[5m]))", "m"))
        assert tasks.shards >= 8


def test_a_new_store_gateway_takes_blocks_over_and_the_old_one_lets_go(tmp_path: Path) -> None:
    with Cluster(tmp_path, store_gateways=1) as cluster:
        for number in range(8):
            cluster.upload(
                between(everything(), NOW_MS - (80 - 10 * number) * STEP, NOW_MS - (70 - 10 * number) * STEP)
            )
        cluster.sync()
        assert len(cluster.gateways[0].gateway.blocks()[TENANT]) == 8
        for number in range(1, 5):
            cluster.start_gateway(number)
        cluster.sync()
        held = [gateway.gateway.blocks().get(TENANT, set()) for gateway in cluster.gateways.values()]
        assert sum(map(len, held)) == 3 * 8
        check(cluster, ("m",))
        # The others die: nobody lets anything go while no owner lives, and who is left takes on what it is asked for.
        for number in range(1, 5):
            cluster.kill_gateway(number)
        cluster.pass_time(120)
        cluster.sync()
        assert held[0] <= cluster.gateways[0].gateway.blocks()[TENANT]
