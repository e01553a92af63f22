"""One ingester by itself: states, tenants, limits, pages, metrics, folders."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from mimir_ray.clock import ManualClock
from mimir_ray.cluster import paging
from mimir_ray.cluster.paging import NoSuchCursor
from mimir_ray.cluster.ring.lookup import RingOptions, RingView
from mimir_ray.cluster.ring.model import INGESTER, InstanceDesc, InstanceId, InstanceState, RingDesc
from mimir_ray.config.limits import Limits
from mimir_ray.config.units import Bytes
from mimir_ray.errors import Corruption, MimirRayError, Unavailable
from mimir_ray.model.labels import Labels, labels_of
from mimir_ray.model.matchers import Matcher, MatchType
from mimir_ray.model.tenant import InvalidTenant, TenantId
from mimir_ray.promql.engine import Engine
from mimir_ray.promql.plan import nodes
from mimir_ray.promql.plan.fragment import Fragment
from mimir_ray.promql.source import Selection
from mimir_ray.roles.api import NotSoleOwner
from mimir_ray.roles.ingester.config import TsdbConfig
from mimir_ray.roles.ingester.ingester import FolderInUse, Ingester, IngesterNotReady
from mimir_ray.roles.ingester.local_limits import local_limit
from mimir_ray.roles.ingester.metrics import IngesterMetrics
from mimir_ray.roles.ingester.ownership import Ownership
from mimir_ray.testing.writes import write_batch
from mimir_ray.tsdb.chunks.files import ChunkFiles
from mimir_ray.tsdb.head.head import Head

NOW = 1_700_000_000_000
TENANT = TenantId("team-a")
ME = InstanceId("ingester-0")
EVERYTHING = Selection((Matcher(MatchType.REGEX, "__name__", ".+"),), 0, 2 * NOW)


def ring_of(*names: str, replication_factor: int = 1, version: int = 1) -> RingView:
    instances = {
        InstanceId(name): InstanceDesc(
            InstanceId(name),
            name,
            state=InstanceState.ACTIVE,
            tokens=np.sort(np.random.default_rng(len(name) * 100 + at).integers(0, 1 << 32, 32, np.uint32)),
            heartbeat_ms=NOW,
        )
        for at, name in enumerate(names)
    }
    return RingView(RingDesc(INGESTER, version, NOW, instances), RingOptions(replication_factor))


class Setup:
    """An ingester that is open; `ring`, `limits` and `clock` may be changed."""

    def __init__(self, folder: Path, **tsdb: Any) -> None:
        self.folder = folder
        self.tsdb = replace(TsdbConfig(), **tsdb)
        self.clock = ManualClock(NOW)
        self.ring = ring_of(ME)
        self.limits = Limits()
        self.ingester = self.again()
        self.ingester.open()

    def again(self) -> Ingester:
        """Another one on the same folder, not open yet."""
        self.registry = CollectorRegistry()
        return Ingester(
            self.folder,
            self.tsdb,
            60_000,
            self.clock,
            IngesterMetrics(self.registry),
            lambda tenant: self.limits,
            lambda: self.ring,
            ME,
        )

    def push(self, *series: tuple[Labels, list[tuple[int, float]]], tenant: str = TENANT) -> Any:
        (result,) = self.ingester.push([write_batch(new=series, tenant=tenant)])
        return result

    def metric(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0


@pytest.fixture
def setup(tmp_path: Path) -> Iterator[Setup]:
    yield Setup(tmp_path)


def up(number: int = 0) -> Labels:
    """The number is not at the end: FNV-1 leaves series that differ in their last bytes side by side in the ring."""
    return labels_of({"__name__": "up", "instance": f"{number}.host"})


def count(ingester: Ingester, tenant: str = TENANT) -> int:
    return sum(batch.samples for batch in ingester.select(TenantId(tenant), EVERYTHING))


# States and folders.


def test_before_it_is_open_it_refuses_everything(setup: Setup, tmp_path: Path) -> None:
    setup.ingester.close()
    fresh = setup.again()
    assert fresh.state == "starting"
    for call in (
        lambda: fresh.push([write_batch(new=[(up(), [(NOW, 1.0)])])]),
        lambda: fresh.select_page(TENANT, EVERYTHING),
        lambda: fresh.label_names(TENANT, EVERYTHING),
        lambda: fresh.label_values(TENANT, "a", EVERYTHING),
        lambda: fresh.metadata(TENANT),
        lambda: fresh.estimate_samples(TENANT, EVERYTHING),
    ):
        with pytest.raises(IngesterNotReady, match="the ingester is not available: starting"):
            call()


def test_after_its_end_it_refuses_everything(setup: Setup) -> None:
    setup.push((up(), [(NOW, 1.0)]))
    setup.ingester.close()
    with pytest.raises(IngesterNotReady, match="terminated"):
        setup.push((up(), [(NOW, 2.0)]))
    with pytest.raises(IngesterNotReady):
        setup.ingester.select_page(TENANT, EVERYTHING)


def test_what_was_taken_is_there_after_an_orderly_end(setup: Setup) -> None:
    setup.push((up(), [(NOW, 1.0)]))
    setup.push((up(1), [(NOW, 1.0)]), tenant="team-b")
    setup.ingester.close()
    fresh = setup.again()
    said: list[str] = []
    fresh.open(said.append)
    assert (count(fresh), count(fresh, "team-b")) == (1, 1)
    assert said


def test_what_is_taken_while_it_ends_is_there_and_the_rest_was_refused(setup: Setup) -> None:
    taken: list[Labels] = []
    errors: list[Exception] = []
    begun = threading.Event()

    def write(writer: int) -> None:
        for number in range(writer * 1000, writer * 1000 + 200):
            try:
                result = setup.push((up(number), [(NOW, 1.0)]))
            except MimirRayError as error:
                errors.append(error)
                continue
            if result.error is None:
                taken.append(up(number))
                begun.set()
            else:
                errors.append(result.error)

    writers = [threading.Thread(target=write, args=(writer,)) for writer in range(3)]
    for writer in writers:
        writer.start()
    assert begun.wait(20)
    setup.ingester.close()
    for writer in writers:
        writer.join(20)
    assert all(isinstance(error, Unavailable) for error in errors)
    fresh = setup.again()
    fresh.open()
    assert count(fresh) >= len(taken)
    found = {labels for batch in fresh.select(TENANT, EVERYTHING) for labels in batch.labels.to_labels()}
    assert found >= set(taken)


def test_a_folder_belongs_to_one_ingester_at_a_time(setup: Setup) -> None:
    with pytest.raises(FolderInUse, match="is in use by another process"):
        setup.again().open()
    setup.ingester.close()
    setup.again().open()


def test_each_tenant_has_a_folder_and_nothing_outside_of_it(setup: Setup, tmp_path: Path) -> None:
    setup.push((up(), [(NOW, 1.0)]), tenant="team-a")
    setup.push((up(), [(NOW, 1.0)]), tenant="team-b")
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {"team-a", "team-b"}


@pytest.mark.parametrize("tenant", ["../evil", "..", "a/b", "a" * 200])
def test_a_tenant_that_is_no_tenant_id_never_becomes_a_path(setup: Setup, tmp_path: Path, tenant: str) -> None:
    result = setup.push((up(), [(NOW, 1.0)]), tenant=tenant)
    assert isinstance(result.error, InvalidTenant)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]
    assert not (tmp_path.parent / "evil").exists()


def test_a_tenant_that_nobody_wrote_to_is_empty_and_stays_without_a_folder(setup: Setup, tmp_path: Path) -> None:
    other = TenantId("nobody")
    assert setup.ingester.select_page(other, EVERYTHING).batches == []
    assert setup.ingester.label_names(other, EVERYTHING) == setup.ingester.label_values(other, "a", EVERYTHING) == []
    assert setup.ingester.metadata(other) == []
    assert setup.ingester.estimate_samples(other, EVERYTHING) == 0
    assert not (tmp_path / "nobody").exists()


def test_a_checkpoint_that_is_damaged_stops_the_start(setup: Setup, tmp_path: Path) -> None:
    setup.push((up(), [(NOW, 1.0)]))
    setup.ingester.close()
    files = [path for path in (tmp_path / TENANT / "checkpoints").rglob("*") if path.is_file()]
    assert files
    for path in files:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 0xFF
        path.write_bytes(data)
    with pytest.raises(Corruption):
        setup.again().open()


def test_one_tenant_that_fails_does_not_fail_the_others_of_a_call(setup: Setup, tmp_path: Path) -> None:
    (tmp_path / "team-b").write_text("no folder")
    good, bad, last = setup.ingester.push(
        [
            write_batch(new=[(up(), [(NOW, 1.0)])], tenant="team-a"),
            write_batch(new=[(up(), [(NOW, 1.0)])], tenant="team-b"),
            write_batch(new=[(up(1), [(NOW, 1.0)])], tenant="team-a"),
        ]
    )
    assert (good.error, last.error) == (None, None)
    assert isinstance(bad.error, Unavailable)
    assert count(setup.ingester) == 2


# Limits and metrics.


@pytest.mark.parametrize(
    ("total", "instances", "replicas", "local"),
    [(0, 3, 3, 0), (-1, 1, 1, 0), (100, 1, 1, 100), (100, 4, 1, 25), (100, 3, 1, 34), (100, 3, 3, 100), (100, 6, 3, 50),
     (1, 10, 1, 1), (100, 0, 1, 100), (100, 2, 3, 100)],
)  # fmt: skip
def test_a_global_limit_is_shared_by_who_holds_the_series(
    total: int, instances: int, replicas: int, local: int
) -> None:
    assert local_limit(total, instances, replicas) == local


def test_series_over_a_tenants_limit_are_refused_and_known_ones_go_on(setup: Setup) -> None:
    setup.ring = ring_of(ME, "ingester-1")
    setup.limits = Limits(max_global_series_per_user=4)
    result = setup.push(*((up(number), [(NOW, 1.0)]) for number in range(3)))
    assert [(one.reason, one.count, one.limit) for one in result.refusals] == [("max-series-per-user", 1, 4)]
    (again,) = setup.ingester.push(
        [write_batch(result.incarnation, known=[(result.new_references[0], NOW + 1, 2.0)], tenant=TENANT)]
    )
    assert again.refusals == ()
    assert count(setup.ingester) == 3
    labels = {"user": TENANT, "group": "", "reason": "max_series_per_user"}
    assert setup.metric("cortex_discarded_samples_total", **labels) == 1
    assert setup.metric("cortex_ingester_ingested_samples_total", user=TENANT) == 3
    assert setup.metric("cortex_ingester_ingested_samples_failures_total", user=TENANT) == 1


def test_only_samples_that_were_taken_count_as_taken(setup: Setup) -> None:
    first = setup.push((up(), [(NOW, 1.0)]))
    stale = write_batch(first.incarnation + 1, known=[(0, NOW + 1, 1.0)], tenant=TENANT)
    setup.ingester.push([stale])
    assert setup.metric("cortex_ingester_ingested_samples_total", user=TENANT) == 1


def test_a_batch_that_failed_whole_counts_as_failed(setup: Setup) -> None:
    first = setup.push((up(), [(NOW, 1.0)]))
    malformed = write_batch(first.incarnation, known=[(0, NOW + 1, 1.0)], tenant=TENANT)
    malformed.values = malformed.values[:0]
    (result,) = setup.ingester.push([malformed])
    assert isinstance(result.error, MimirRayError)
    assert setup.metric("cortex_ingester_ingested_samples_total", user=TENANT) == 1
    assert setup.metric("cortex_ingester_ingested_samples_failures_total", user=TENANT) == 1


def test_gauges_tell_series_tenants_and_the_newest_sample(setup: Setup) -> None:
    setup.push((up(0), [(NOW - 120_000, 1.0)]))
    setup.clock.advance_ms(120_000)
    setup.push((up(1), [(NOW, 1.0)]))
    setup.push((up(0), [(NOW - 5000, 1.0)]), tenant="team-b")
    setup.ingester.maintain()
    assert setup.metric("cortex_ingester_memory_series") == 3
    assert setup.metric("cortex_ingester_memory_users") == 2
    assert setup.metric("cortex_ingester_active_series", user=TENANT) == 1
    assert setup.metric("cortex_ingester_tsdb_head_max_timestamp_seconds") == NOW / 1000


def test_the_rate_of_a_tenant_is_smoothed(setup: Setup) -> None:
    setup.push((up(), [(NOW + at, 1.0) for at in range(30)]))
    setup.clock.advance_ms(15_000)
    setup.ingester.maintain()
    assert setup.ingester.tenant_stats()[TENANT].ingestion_rate == pytest.approx(2.0)
    setup.clock.advance_ms(15_000)
    setup.ingester.maintain()
    assert setup.ingester.tenant_stats()[TENANT].ingestion_rate == pytest.approx(1.6)
    assert setup.ingester.tenant_stats()[TENANT].series == 1


def test_a_checkpoint_is_written_when_much_was_logged(tmp_path: Path) -> None:
    setup = Setup(tmp_path, wal_checkpoint_size_bytes=Bytes(1))
    setup.push((up(), [(NOW, 1.0)]))
    setup.ingester.maintain()
    assert list((tmp_path / TENANT / "checkpoints").iterdir())


# Pages.


SMALL = replace(EVERYTHING, batch_series=1)


@pytest.fixture
def paged(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> Setup:
    monkeypatch.setattr(paging, "PAGE_BYTES", 1)
    setup.push(*((up(number), [(NOW, 1.0)]) for number in range(3)))
    return setup


def test_a_cursor_leads_to_the_next_page_once(paged: Setup) -> None:
    first = paged.ingester.select_page(TENANT, SMALL)
    second = paged.ingester.next_page(first.cursor)
    assert second.cursor not in ("", first.cursor)
    with pytest.raises(NoSuchCursor):
        paged.ingester.next_page(first.cursor)
    third = paged.ingester.next_page(second.cursor)
    last = paged.ingester.next_page(third.cursor) if third.cursor else third
    assert last.cursor == ""
    batches = [*first.batches, *second.batches, *third.batches]
    assert sorted(labels for batch in batches for labels in batch.labels.to_labels()) == [up(0), up(1), up(2)]


def test_a_lost_cursor_is_a_reason_to_ask_again(paged: Setup) -> None:
    with pytest.raises(Unavailable, match="no such cursor: nothing"):
        paged.ingester.next_page("nothing")


def test_cursors_that_nobody_uses_are_dropped(paged: Setup) -> None:
    old = paged.ingester.select_page(TENANT, SMALL).cursor
    paged.clock.advance_ms(121_000)
    young = paged.ingester.select_page(TENANT, SMALL).cursor
    with pytest.raises(NoSuchCursor):
        paged.ingester.next_page(old)
    assert paged.ingester.next_page(young).batches


def test_no_more_cursors_are_kept_than_allowed(paged: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paging, "CURSORS_MAX", 2)
    cursors = [paged.ingester.select_page(TENANT, SMALL).cursor for _ in range(3)]
    with pytest.raises(NoSuchCursor):
        paged.ingester.next_page(cursors[0])
    assert paged.ingester.next_page(cursors[1]).batches
    assert paged.ingester.next_page(cursors[2]).batches


def test_a_page_shows_the_moment_when_it_was_asked_for(paged: Setup) -> None:
    first = paged.ingester.select_page(TENANT, SMALL)
    paged.push((up(9), [(NOW, 1.0)]))
    seen = len(first.batches)
    cursor = first.cursor
    while cursor:
        page = paged.ingester.next_page(cursor)
        seen, cursor = seen + len(page.batches), page.cursor
    assert seen in (3, 4)  # a series that came later may be there, none of the earlier may be missing


def test_an_estimate_grows_with_series_and_time(setup: Setup) -> None:
    for number in range(4):
        setup.push((up(number), [(NOW - 600_000, 1.0), (NOW, 1.0)]))
    assert setup.ingester.estimate_samples(TENANT, EVERYTHING) == 4 * 40
    assert setup.ingester.estimate_samples(TENANT, replace(EVERYTHING, mint=NOW - 150_000)) == 4 * 10
    only = (Matcher(MatchType.EQUAL, "instance", "1.host"),)
    assert setup.ingester.estimate_samples(TENANT, replace(EVERYTHING, matchers=only)) == 40


# Fragments and ownership.


def fragment(query: str, at_ms: int = NOW) -> Fragment:
    plan = Engine().plan(query, at_ms, at_ms, fragments=True)
    (found,) = (node for node in nodes.walk(plan.root) if isinstance(node, nodes.Exchange))
    return Fragment(found.expr, plan.steps)


def test_a_sole_owner_evaluates(setup: Setup) -> None:
    setup.push(*((up(number), [(NOW, 2.0)]) for number in range(3)))
    (part,) = setup.ingester.evaluate(TENANT, fragment("sum(up)"), 1)
    assert 6.0 in np.concatenate([np.ravel(array) for array in part.arrays])


def test_who_sees_another_version_of_the_ring_does_not_evaluate(setup: Setup) -> None:
    setup.push((up(), [(NOW, 1.0)]))
    with pytest.raises(NotSoleOwner):
        setup.ingester.evaluate(TENANT, fragment("sum(up)"), 2)


def test_who_has_series_of_others_does_not_evaluate(setup: Setup) -> None:
    setup.push(*((up(number), [(NOW, 1.0)]) for number in range(30)))
    setup.ring = ring_of(ME, "ingester-1", version=2)
    with pytest.raises(NotSoleOwner):
        setup.ingester.evaluate(TENANT, fragment("sum(up)"), 2)


def test_who_has_nothing_of_a_tenant_has_no_parts(setup: Setup) -> None:
    assert setup.ingester.evaluate(TENANT, fragment("sum(up)"), 99) == []


@pytest.mark.parametrize("seed", range(5))
def test_ownership_remembers_without_being_wrong(tmp_path: Path, seed: int) -> None:
    """Against asking the ring for every series every time, while series and rings come and go."""
    random = np.random.default_rng(seed)
    head = Head(ChunkFiles(tmp_path))
    ownership = Ownership(TENANT)
    views = [
        ring_of(ME),
        ring_of(ME, "b", version=2),
        ring_of("b", version=3),
        ring_of(ME, version=4),
        ring_of(version=5),
    ]
    for _ in range(60):
        view = views[random.integers(len(views))]
        if random.random() < 0.4:
            head.push([write_batch(new=[(up(int(random.integers(40))), [(NOW, 1.0)])])], NOW)
        tokens = head.series_tokens(0, ownership._seed)
        mine = view.index.get(ME, -2)
        assert ownership.owns_all(head, list, view, ME) == bool((view.owners(tokens)[:, 0] == mine).all())


def test_ownership_begins_anew_with_another_head(tmp_path: Path) -> None:
    ownership = Ownership(TENANT)
    view = ring_of(ME, "b")
    full, empty = Head(ChunkFiles(tmp_path / "a")), Head(ChunkFiles(tmp_path / "b"))
    full.push([write_batch(new=[(up(number), [(NOW, 1.0)]) for number in range(30)])], NOW)
    assert not ownership.owns_all(full, list, view, ME)
    assert ownership.owns_all(empty, list, view, ME)
    assert not ownership.owns_all(full, list, view, ME)


def test_nothing_is_opened_once_it_has_begun_to_stop(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    setup.push((up(), [(NOW, 1.0)]))
    enter = setup.ingester._enter

    def enter_after_close(tenant: TenantId) -> Any:
        monkeypatch.undo()
        setup.ingester.close()
        return enter(tenant)

    monkeypatch.setattr(setup.ingester, "_enter", enter_after_close)
    assert isinstance(setup.push((up(1), [(NOW, 1.0)])).error, Unavailable)
    fresh = setup.again()
    fresh.open()
    assert count(fresh) == 1
