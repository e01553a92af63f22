from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from mimir_ray.bucket.filesystem import FilesystemBucket
from mimir_ray.bucket.layout import bucket_index_key
from mimir_ray.bucket.store import BucketUnavailable
from mimir_ray.bucket.store_config import BucketStoreConfig
from mimir_ray.clock import ManualClock
from mimir_ray.cluster.paging import NoSuchCursor
from mimir_ray.cluster.ring.lookup import RingView
from mimir_ray.cluster.ring.model import STORE_GATEWAY, InstanceDesc, InstanceId, InstanceState, RingDesc
from mimir_ray.config.limits import Limits
from mimir_ray.config.units import Duration
from mimir_ray.model.labels import labels_of
from mimir_ray.model.matchers import Matcher, MatchType
from mimir_ray.model.selection import Selection
from mimir_ray.model.tenant import TenantId
from mimir_ray.roles.store_gateway.actor import ring_options
from mimir_ray.roles.store_gateway.config import StoreGatewayConfig
from mimir_ray.roles.store_gateway.metrics import StoreGatewayMetrics
from mimir_ray.roles.store_gateway.store_gateway import StoreGateway, StoreGatewayNotReady, TooManyQueries
from mimir_ray.testing.bucket_blocks import put_block, put_index, ulid_of
from mimir_ray.testing.buckets import WatchedBucket
from mimir_ray.tsdb.block.meta import BlockMeta

NOW_MS = 1_700_000_000_000
HOUR = 3_600_000
TENANT = TenantId("team-a")
EVER = Selection((), 0, NOW_MS)


class Setup:
    """One store-gateway on a bucket in a folder, alone in its ring."""

    def __init__(self, folder: Path, gateway: StoreGatewayConfig | None = None, **store: object) -> None:
        self.folder = folder
        self.clock = ManualClock(NOW_MS)
        self.before: Callable[[str, str], None] = lambda _name, _key: None
        self.files = FilesystemBucket(folder / "bucket")
        self.bucket = WatchedBucket(self.files, self.watch)
        self.gateway_config = gateway or StoreGatewayConfig()
        self.store = BucketStoreConfig(**store)  # type: ignore[arg-type]
        self.metas: dict[TenantId, list[BlockMeta]] = {}
        self.limits = Limits()
        self.start()

    def watch(self, name: str, key: str) -> None:
        self.before(name, key)

    def start(self) -> None:
        self.registry = CollectorRegistry()
        self.gateway = StoreGateway(
            self.bucket, self.folder / "sync", self.store, self.gateway_config, self.clock,
            StoreGatewayMetrics(self.registry), lambda tenant: self.limits, self.ring, InstanceId("g0"),
        )  # fmt: skip

    def ring(self) -> RingView:
        tokens = np.sort(np.random.default_rng(1).integers(0, 1 << 32, 16, np.uint32))
        me = InstanceDesc(InstanceId("g0"), "g0", "", InstanceState.ACTIVE, tokens, self.clock.now_ms(), 1)
        return RingView(RingDesc(STORE_GATEWAY, 1, self.clock.now_ms(), {me.id: me}), ring_options(self.gateway_config))

    def upload(
        self, tenant: TenantId = TENANT, age_h: int = 24, series: int = 3, marks: dict[str, int] | None = None
    ) -> str:
        """A block with a sample a minute for two hours."""
        metas = self.metas.setdefault(tenant, [])
        number = sum(map(len, self.metas.values()))
        begin = NOW_MS - age_h * HOUR
        points = [(begin + minute * 60_000, float(minute)) for minute in range(120)]
        held = [(labels_of({"__name__": "m", "n": str(n)}), points) for n in range(series)]
        metas.append(put_block(self.folder / "bucket", tenant, held, number))
        put_index(self.files, tenant, metas, NOW_MS // 1000, marks=marks)
        return ulid_of(number)

    def value(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0


def test_nothing_is_answered_before_the_bucket_indexes_were_read(tmp_path: Path) -> None:
    setup = Setup(tmp_path)
    block = setup.upload()
    for ask in (
        lambda: setup.gateway.select_blocks(TENANT, (block,), EVER),
        lambda: setup.gateway.block_label_names(TENANT, (block,), EVER),
        lambda: setup.gateway.next_blocks_page("x"),
        lambda: setup.gateway.prepare_to_stop(True),
    ):
        with pytest.raises(StoreGatewayNotReady, match="starting"):
            ask()
    setup.gateway.open()
    assert setup.gateway.select_blocks(TENANT, (block,), EVER).queried == (block,)
    setup.gateway.close()
    with pytest.raises(StoreGatewayNotReady, match="stopping"):
        setup.gateway.select_blocks(TENANT, (block,), EVER)


def test_it_is_ready_without_reading_anything_of_blocks(tmp_path: Path) -> None:
    setup = Setup(tmp_path)
    for _ in range(5):
        setup.upload()
    seen: list[str] = []
    setup.before = lambda name, key: seen.append(f"{name} {key}")
    setup.gateway.open()
    assert seen == ["list_folders ", f"get {bucket_index_key(TENANT)}"]
    assert len(setup.gateway.blocks()[TENANT]) == 5
    assert setup.value("cortex_bucket_store_blocks_loaded", user=TENANT) == 5
    assert setup.value("cortex_bucket_stores_tenants_discovered") == 1
    assert setup.value("cortex_bucket_stores_blocks_last_successful_sync_timestamp_seconds") == NOW_MS / 1000


def test_labels_values_and_estimates_name_the_blocks_that_they_are_of(tmp_path: Path) -> None:
    setup = Setup(tmp_path)
    first, second = setup.upload(), setup.upload(series=5)
    setup.gateway.open()
    nowhere = ulid_of(77)
    found = setup.gateway.block_label_values(TENANT, (first, second, nowhere), "n", EVER)
    assert (found.names, found.queried) == (["0", "1", "2", "3", "4"], (first, second))
    found = setup.gateway.block_label_names(
        TENANT, (first,), replace(EVER, matchers=(Matcher(MatchType.EQUAL, "n", "1"),))
    )
    assert (found.names, found.queried) == (["__name__", "n"], (first,))
    assert setup.gateway.estimate_block_samples(TENANT, (first, second, nowhere), EVER) == 8 * 120
    assert setup.gateway.estimate_block_samples(TENANT, (first,), replace(EVER, maxt=1000)) == 0


def test_what_re2_said_of_values_in_one_block_serves_in_the_next(tmp_path: Path) -> None:
    setup = Setup(tmp_path)
    blocks = tuple(setup.upload(series=70) for _ in range(3))
    setup.gateway.open()
    selection = replace(EVER, matchers=(Matcher(MatchType.REGEX, "n", "\\b[0-9]*[02468]\\b"),))
    page = setup.gateway.select_blocks(TENANT, blocks, selection)
    assert sum(len(batch) for batch in page.batches) == 35
    kind = {"item_type": "RegexVerdicts"}
    assert setup.value("thanos_store_index_cache_requests_total", **kind) == 3 * 70
    assert setup.value("thanos_store_index_cache_hits_total", **kind) == 2 * 70
    assert setup.value("mimir_ray_storegateway_cache_bytes", cache="regex-verdicts") > 70
    assert setup.value("mimir_ray_storegateway_cache_bytes", cache="index-headers") >= 3 * 8 * 72


def test_young_blocks_are_left_to_ingesters_until_somebody_asks(tmp_path: Path) -> None:
    setup = Setup(tmp_path)
    old, young = setup.upload(age_h=11), setup.upload(age_h=9)
    setup.gateway.open()
    assert setup.gateway.blocks() == {TENANT: {old}}
    assert setup.gateway.select_blocks(TENANT, (old, young), EVER).queried == (old, young)
    assert setup.gateway.blocks() == {TENANT: {old, young}}
    setup.gateway.sync("periodic")
    assert setup.gateway.blocks() == {TENANT: {old}}
    setup.clock.advance_ms(2 * HOUR)
    setup.gateway.sync("periodic")
    assert setup.gateway.blocks() == {TENANT: {old, young}}
    assert Setup(tmp_path / "all", ignore_blocks_within=Duration(0))


def test_bucket_indexes_are_not_read_for_every_unknown_block(tmp_path: Path) -> None:
    setup = Setup(tmp_path)
    setup.upload()
    setup.gateway.open()
    for _ in range(5):
        assert setup.gateway.select_blocks(TENANT, (ulid_of(50),), EVER).queried == ()
    assert setup.value("mimir_ray_storegateway_fresh_looks_total") == 1
    setup.clock.advance_ms(6000)
    late = setup.upload()
    assert setup.gateway.select_blocks(TENANT, (late,), EVER).queried == (late,)


def test_a_block_marked_for_deletion_goes_after_the_delay_with_its_header(tmp_path: Path) -> None:
    setup = Setup(tmp_path)
    block = setup.upload()
    setup.gateway.open()
    assert setup.gateway.select_blocks(TENANT, (block,), EVER).batches
    header = tmp_path / "sync" / TENANT / block
    assert header.exists()
    for minutes, is_there in ((59, True), (61, False)):
        put_index(setup.files, TENANT, setup.metas[TENANT], 1, marks={block: NOW_MS // 1000 - minutes * 60})
        setup.gateway.sync("periodic")
        assert (block in setup.gateway.blocks().get(TENANT, set())) == is_there
    assert not header.exists()
    assert setup.value("cortex_bucket_store_block_drops_total") == 1
    assert setup.gateway.select_blocks(TENANT, (block,), EVER).queried == ()


def test_an_index_that_cannot_be_read_leaves_what_was_known(tmp_path: Path) -> None:
    setup = Setup(tmp_path)
    block = setup.upload()
    setup.gateway.open()
    key = bucket_index_key(TENANT)
    whole = setup.files.get(key)
    setup.files.put(key, b"damaged")
    setup.gateway.sync("periodic")
    assert setup.gateway.blocks() == {TENANT: {block}}
    assert setup.value("mimir_ray_storegateway_bucket_sync_failures_total") == 1
    setup.files.put(key, whole)
    setup.files.delete(key)
    setup.gateway.sync("periodic")
    assert setup.gateway.blocks() == {}


def test_a_bucket_that_does_not_answer_keeps_it_from_starting(tmp_path: Path) -> None:
    setup = Setup(tmp_path)
    block = setup.upload()

    def fail(name: str, key: str) -> None:
        raise BucketUnavailable(name, key, "down")

    setup.before = fail
    with pytest.raises(BucketUnavailable):
        setup.gateway.open()
    assert setup.gateway.state == "starting"
    setup.before = lambda _name, _key: None
    setup.gateway.open()
    assert setup.gateway.blocks() == {TENANT: {block}}


def test_folders_that_are_no_tenants_and_tenants_left_out_have_no_blocks(tmp_path: Path) -> None:
    other = TenantId("other")
    setup = Setup(tmp_path, StoreGatewayConfig(disabled_tenants=("other",)))
    block, hidden = setup.upload(), setup.upload(other)
    (tmp_path / "bucket" / "no tenant at all").mkdir()
    (tmp_path / "bucket" / "__mimir_cluster").mkdir()
    setup.gateway.open()
    assert setup.gateway.blocks() == {TENANT: {block}}
    assert setup.gateway.select_blocks(other, (hidden,), EVER).queried == ()


def test_a_restart_finds_its_headers_and_removes_those_of_others(tmp_path: Path) -> None:
    setup = Setup(tmp_path)
    block = setup.upload()
    setup.gateway.open()
    setup.gateway.select_blocks(TENANT, (block,), EVER)
    stale = tmp_path / "sync" / TENANT / ulid_of(99)
    stale.mkdir()
    setup.start()
    setup.gateway.open()
    assert not stale.exists()
    seen: list[str] = []
    setup.before = lambda name, key: seen.append(key)
    assert setup.gateway.block_label_names(TENANT, (block,), EVER).names == ["__name__", "n"]
    assert not seen
    setup.clock.advance_ms(2 * HOUR)
    setup.gateway.maintain()
    assert setup.value("cortex_bucket_store_indexheader_lazy_unload_total") == 1


def test_too_many_requests_at_once_have_the_last_one_give_up(tmp_path: Path) -> None:
    setup = Setup(tmp_path, max_concurrent=1, max_concurrent_queue_timeout=Duration(10))
    block = setup.upload()
    setup.gateway.open()
    inside, go_on = threading.Event(), threading.Event()

    def hold(_name: str, _key: str) -> None:
        inside.set()
        go_on.wait(30)

    setup.before = hold
    first = threading.Thread(target=setup.gateway.select_blocks, args=(TENANT, (block,), EVER))
    first.start()
    inside.wait(30)
    assert setup.value("cortex_bucket_stores_gate_queries_in_flight") == 1
    with pytest.raises(TooManyQueries):
        setup.gateway.select_blocks(TENANT, (block,), EVER)
    go_on.set()
    first.join()
    assert setup.gateway.select_blocks(TENANT, (block,), EVER).batches


def test_pages_follow_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mimir_ray.cluster.paging.PAGE_BYTES", 1)
    setup = Setup(tmp_path)
    block = setup.upload(series=5)
    setup.gateway.open()
    page = setup.gateway.select_blocks(TENANT, (block,), replace(EVER, batch_series=2))
    assert page.queried == (block,)
    sizes = [len(page.batches[0])]
    last = ""
    while page.cursor:
        last = page.cursor
        page = setup.gateway.next_blocks_page(last)
        sizes += [len(batch) for batch in page.batches]
    assert sizes == [2, 2, 1]
    with pytest.raises(NoSuchCursor):
        setup.gateway.next_blocks_page(last)


def test_it_can_be_told_that_the_next_stop_is_for_good(tmp_path: Path) -> None:
    setup = Setup(tmp_path)
    setup.gateway.open()
    assert not setup.gateway.prepared_to_stop
    setup.gateway.prepare_to_stop(True)
    setup.start()
    assert setup.gateway.prepared_to_stop
    setup.gateway.open()
    setup.gateway.prepare_to_stop(False)
    setup.gateway.prepare_to_stop(False)
    assert not setup.gateway.prepared_to_stop
