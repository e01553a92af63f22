"""`Ingester`: the recent samples of all tenants, a part of all series each.

One `Database` (head, WAL and local blocks) per tenant, in a folder of its own, opened by the first write and, after a
restart, before the ingester becomes ACTIVE. Knows no threads and no Ray: any thread may call any method.
"""

from __future__ import annotations

import fcntl
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TextIO

import structlog
from prometheus_client import CollectorRegistry

from mimir_ray.bucket.store import Bucket
from mimir_ray.clock import Clock
from mimir_ray.cluster.paging import Pages
from mimir_ray.cluster.ring.lookup import RingView
from mimir_ray.cluster.ring.model import InstanceId
from mimir_ray.config.instance_limits import IngesterInstanceLimits
from mimir_ray.config.limits import Limits
from mimir_ray.errors import MimirRayError, Unavailable
from mimir_ray.model.exemplars import SeriesExemplars
from mimir_ray.model.matchers import Matcher
from mimir_ray.model.metadata import Metadata
from mimir_ray.model.series import SeriesBatch
from mimir_ray.model.tenant import TenantId, validate_tenant
from mimir_ray.promql.limits import Cancellation
from mimir_ray.promql.operators.fragment import execute_fragment
from mimir_ray.promql.plan.fragment import Fragment, FragmentPart
from mimir_ray.promql.plan.nodes import selections
from mimir_ray.promql.source import Selection
from mimir_ray.roles.api import NotSoleOwner, Page, TenantPage, TenantStats, TsdbPage, WriteBatch, WriteResult
from mimir_ray.roles.ingester.config import IngesterConfig, TsdbConfig
from mimir_ray.roles.ingester.instance_limits import InstanceLimitReached, InstanceLimits, TooManyTenantsHere
from mimir_ray.roles.ingester.life_cycle import LifeCycle
from mimir_ray.roles.ingester.local_limits import local_limit
from mimir_ray.roles.ingester.metrics import IngesterMetrics, LifeCycleMetrics
from mimir_ray.roles.ingester.ownership import Ownership
from mimir_ray.roles.ingester.pages import NoOpenTsdb, tenant_page, tsdb_metrics, tsdb_page
from mimir_ray.roles.ingester.refusal_log import RefusalLog
from mimir_ray.roles.ingester.shipper import Shipper
from mimir_ray.roles.ingester.tenants import TenantEntry
from mimir_ray.roles.ingester.tracking import Tracking
from mimir_ray.tsdb.block.reader import Block
from mimir_ray.tsdb.database import Database, DatabaseSettings
from mimir_ray.tsdb.head.new_series import NoRoomForSeries
from mimir_ray.tsdb.head.settings import HeadSettings, PushLimits
from mimir_ray.tsdb.local_blocks import LoadedIndexes
from mimir_ray.tsdb.wal.writer import WalSettings

log = structlog.get_logger(__name__)

LOCK = "lock"
LOCK_TIMEOUT_S = 20.0
EVALUATE_TIMEOUT_S = 120.0
CLOSED_SUFFIX = "~closed"
"""Of the folder of a tenant that is being removed; no tenant's id has a tilde."""
RATE_PERIOD_S = 15.0
RATE_WEIGHT = 0.2
"""Upstream: pkg/ingester/ingester.go rate smoothing (EWMA 0.2 over 15 s)."""


@dataclass(eq=False)
class IngesterNotReady(Unavailable):
    """The ingester is replaying its WAL, or stopping."""

    state: str

    def describe(self) -> str:
        return f"the ingester is not available: {self.state}"


@dataclass(eq=False)
class TenantClosing(Unavailable):
    """A tenant that was idle for long is being closed; a moment later it can be opened anew."""

    tenant: str

    def describe(self) -> str:
        return f"tenant {self.tenant} is being closed; try again"


@dataclass(eq=False)
class FolderInUse(Unavailable):
    """Another process has this ingester's folder."""

    directory: str

    def describe(self) -> str:
        return f"{self.directory} is in use by another process; stop that one first"


class Ingester:
    """See roles/api.py `Ingester` for the contract of each method."""

    def __init__(
        self,
        directory: Path,
        config: TsdbConfig,
        active_ms: int,
        clock: Clock,
        metrics: IngesterMetrics,
        limits: Callable[[TenantId], Limits],
        ring: Callable[[], RingView],
        instance: InstanceId,
        life_cycle_metrics: LifeCycleMetrics | None = None,
        bucket: Bucket | None = None,
        random: Callable[[], float] = lambda: 0.0,
        metadata_retain_ms: int = 600_000,
        settings: IngesterConfig | None = None,
        instance_limits: Callable[[], IngesterInstanceLimits] = IngesterInstanceLimits,
    ) -> None:
        """
        Args:
            directory: holds a folder for each tenant.
            active_ms: a series is active for this long after it was last written to.
            limits: a tenant's limits now.
            ring: the newest view of the ring of ingesters; `instance` is this one's id in it.
            bucket: where blocks go; None: they stay here.
            random: a number in [0, 1), so that tenants that fell idle together are not cut together.
            instance_limits: those in force now.
        """
        self._directory = directory
        self._config = config
        self._active_ms = active_ms
        self._clock = clock
        self._metrics = metrics
        self._limits = limits
        self._ring = ring
        self._instance = instance
        self._metadata_retain_ms = metadata_retain_ms
        self._lock = threading.Lock()
        self._tenants: dict[TenantId, TenantEntry] = {}
        self._closing: set[TenantId] = set()
        self._bucket = bucket if config.ship_interval.ms else None
        self._random = random
        self._indexes = LoadedIndexes(clock)
        self._life_cycle_metrics = life_cycle_metrics or LifeCycleMetrics(CollectorRegistry())
        self._life_cycle = LifeCycle(
            config, active_ms, clock, self._life_cycle_metrics, self._entries, self._remove_tenant
        )
        settings = settings or IngesterConfig()
        self._exempt = frozenset(filter(None, map(str.strip, settings.ignore_series_limit_for_metric_names.split(","))))
        self._instance_limits = InstanceLimits(instance_limits, clock, metrics.instance)
        self._tracking = Tracking(settings, active_ms, clock, metrics.tracking, limits, ring, instance)
        self._refusal_log = RefusalLog(settings.error_sample_rate)
        self._pages = Pages(clock.monotonic_s)
        self._state = "starting"
        self._folder_lock: TextIO | None = None
        self._rates_at_s = clock.monotonic_s()

    @property
    def state(self) -> str:
        return self._state

    def open(self, progress: Callable[[str], None] = lambda _: None) -> None:
        """Replays what is on disk. Tenants are opened side by side; `progress` hears a sentence now and then."""
        self._directory.mkdir(parents=True, exist_ok=True)
        self._folder_lock = lock_folder(self._directory, self._clock)
        folders = [path for path in self._directory.iterdir() if path.is_dir()]
        for path in folders:
            if path.name.endswith(CLOSED_SUFFIX):
                shutil.rmtree(path)
        found = sorted(path.name for path in folders if not path.name.endswith(CLOSED_SUFFIX))
        done = 0

        def one(name: str) -> None:
            nonlocal done
            tenant = validate_tenant(name)

            def tell(read: int, total: int) -> None:
                tenants = f"{done} of {len(found)} tenants done"
                progress(f"replaying the WAL of tenant {name}: {read >> 20} of {total >> 20} MiB, {tenants}")

            entry = self._open_tenant(tenant, tell)
            with self._lock:
                self._tenants[tenant] = entry
            done += 1

        with ThreadPoolExecutor(self._config.wal_replay_concurrency) as pool:
            list(pool.map(one, found))
        self._state = "running"

    def push(self, batches: Sequence[WriteBatch]) -> list[WriteResult]:
        if self._state != "running":
            raise IngesterNotReady(self._state)
        try:
            with self._instance_limits.push(batches):
                return self._push_all(batches)
        except InstanceLimitReached as error:
            return [WriteResult(0, error=error) for _ in batches]

    def _push_all(self, batches: Sequence[WriteBatch]) -> list[WriteResult]:
        began = self._clock.monotonic_s()
        results: list[WriteResult | None] = [None] * len(batches)
        by_tenant: dict[TenantId, list[int]] = {}
        for at, batch in enumerate(batches):
            by_tenant.setdefault(batch.tenant, []).append(at)
        for tenant, places in by_tenant.items():
            for at, result in zip(places, self._push(tenant, [batches[at] for at in places]), strict=True):
                results[at] = result
        self._metrics.pushes.inc()
        self._metrics.push_seconds.inc(self._clock.monotonic_s() - began)
        return [result for result in results if result is not None]

    def _push(self, tenant: TenantId, batches: list[WriteBatch]) -> list[WriteResult]:
        limits = self._limits(tenant)
        try:
            entry = self._enter(tenant)
        except MimirRayError as error:
            return [WriteResult(0, error=error) for _ in batches]
        try:
            results = entry.database.push(batches, self._clock.now_ms(), self._push_limits(tenant, limits, batches))
        except MimirRayError as error:
            return [WriteResult(0, error=error) for _ in batches]
        except OSError as error:
            return [WriteResult(0, error=Unavailable(f"cannot write to the WAL: {error}")) for _ in batches]
        finally:
            self._leave(entry)
        taken = failed = 0
        for batch, result in zip(batches, results, strict=True):
            if result.error is not None:
                failed += len(batch.references) + len(batch.new_values)
                if isinstance(result.error, NoRoomForSeries):
                    self._instance_limits.rejected(result.error)
                continue
            refused = len(result.refused)
            failed += refused
            taken += len(batch.new_values) - refused
            if not result.stale:
                taken += len(batch.references) - len(result.unknown)
            self._metrics.count_refusals(tenant, result.refusals)
            if batch.metadata:
                self._metrics.ingested_metadata.inc(len(batch.metadata))
            if batch.exemplars is not None and not result.stale and not len(result.unknown):
                self._metrics.ingested_exemplars.inc(len(batch.exemplars) - len(result.refused_exemplars))
                self._metrics.failed_exemplars.inc(len(result.refused_exemplars))
        entry.samples += taken
        self._instance_limits.ingested(taken)
        self._metrics.ingested_samples.labels(tenant).inc(taken)
        if failed:
            self._metrics.failed_samples.labels(tenant).inc(failed)
        return [self._refused(tenant, limits, result) if result.refusals else result for result in results]

    def _refused(self, tenant: TenantId, limits: Limits, result: WriteResult) -> WriteResult:
        result = _with_limits(result, limits)
        for one in result.refusals:
            self._refusal_log.note(tenant, one)
        return result

    def _push_limits(self, tenant: TenantId, limits: Limits, batches: list[WriteBatch]) -> PushLimits:
        """What holds for one push of a tenant, as this ingester's part of it."""
        share = self._tracking.share(limits)
        series_max = local_limit(limits.max_global_series_per_user, *share)
        process_max = None
        if (most := self._instance_limits.now.max_series) and any(len(one.label_offsets) > 1 for one in batches):
            others = (entry.database.head.series_count() for entry in self._entries() if entry.tenant != tenant)
            process_max = most - sum(others)
        return PushLimits(
            series_max=series_max + self._tracking.foreign(tenant) if series_max else 0,
            metric_series_max=local_limit(limits.max_global_series_per_metric, *share),
            metrics_exempt=self._exempt,
            process_series_max=process_max,
            out_of_order_window_ms=limits.out_of_order_time_window.ms,
            exemplars_max=local_limit(limits.max_global_exemplars_per_user, *share),
            ignore_late_exemplars=limits.ignore_ooo_exemplars,
            metadata_families_max=local_limit(limits.max_global_metadata_per_user, *share),
            family_metadata_max=local_limit(limits.max_global_metadata_per_metric, *share),
        )

    def select(self, tenant: TenantId, selection: Selection) -> Iterator[SeriesBatch]:
        entry = self._find(tenant)
        if entry is None:
            return
        for batch in entry.database.select(selection):
            self._metrics.queried_series.inc(len(batch))
            self._metrics.queried_samples.inc(batch.samples)
            yield batch

    def select_page(self, tenant: TenantId, selection: Selection) -> Page:
        """The first batches, and a cursor for the rest."""
        return Page(*self._pages.first(self.select(tenant, selection)))

    def next_page(self, cursor: str) -> Page:
        """The batches that follow. Raises `NoSuchCursor` for one that is used up or was dropped."""
        return Page(*self._pages.next(cursor))

    def evaluate(self, tenant: TenantId, fragment: Fragment, ring_version: int) -> list[FragmentPart]:
        entry = self._find(tenant)
        if entry is None:
            return []
        if not self._owns_all(entry, fragment, ring_version):
            raise NotSoleOwner(self._instance)
        return list(execute_fragment(fragment, entry.database, Cancellation(EVALUATE_TIMEOUT_S)))

    # Blocks; called by timers of their own, one call of each at a time.

    def compact(self) -> None:
        """Cuts into blocks what is due of the heads."""
        if self._state == "running":
            self._life_cycle.compact()

    def ship(self) -> None:
        """Uploads blocks, drops those that have been in object storage for long, closes idle tenants."""
        if self._state == "running":
            self._life_cycle.ship()

    def flush(self, tenants: Sequence[TenantId] = ()) -> None:
        """Cuts heads into blocks whole and uploads those; of all tenants, or of these. Raises the first failure."""
        if self._state != "running":
            raise IngesterNotReady(self._state)
        self._life_cycle.flush([entry for entry in self._entries() if not tenants or entry.tenant in tenants])

    def estimate_samples(self, tenant: TenantId, selection: Selection) -> int:
        entry = self._find(tenant)
        if entry is None:
            return 0
        return entry.database.estimate_samples(selection)

    def label_names(self, tenant: TenantId, selection: Selection) -> list[str]:
        entry = self._find(tenant)
        return entry.database.label_names(selection) if entry else []

    def label_values(self, tenant: TenantId, name: str, selection: Selection) -> list[str]:
        entry = self._find(tenant)
        return entry.database.label_values(name, selection) if entry else []

    def metadata(self, tenant: TenantId, family: str = "") -> list[Metadata]:
        entry = self._find(tenant)
        return entry.database.metadata(family) if entry else []

    def exemplars(
        self, tenant: TenantId, selectors: Sequence[tuple[Matcher, ...]], mint: int, maxt: int
    ) -> list[SeriesExemplars]:
        entry = self._find(tenant)
        found = entry.database.exemplars(selectors, mint, maxt) if entry else []
        self._metrics.queried_exemplars.inc(sum(len(one.exemplars) for one in found))
        return found

    def tenant_stats(self) -> dict[TenantId, TenantStats]:
        with self._lock:
            return {
                tenant: TenantStats(
                    entry.database.head.stats.series,
                    entry.rate,
                    active_series=self._tracking.active(tenant).total.series,
                )
                for tenant, entry in self._tenants.items()
            }

    def maintain(self) -> None:
        """What is due now and then: checkpoints, idle series, rates, gauges."""
        now_ms = self._clock.now_ms()
        now_s = self._clock.monotonic_s()
        with self._lock:
            tenants = list(self._tenants.items())
            self._metrics.memory_users.set(len(tenants))
        elapsed = now_s - self._rates_at_s
        newest = 0
        series = blocks = 0
        self._indexes.sweep()
        self._instance_limits.report()
        self._tracking.update([entry for _, entry in tenants])
        for tenant, entry in tenants:
            try:
                entry.database.maintain(now_ms)
            except MimirRayError as error:  # of one tenant; the others go on, and it is tried again
                log.warning("maintenance failed", user=tenant, error=str(error))
            about = entry.database.stats
            stats = about.head
            self._life_cycle_metrics.count(tenant, entry.seen, about)
            entry.seen = about
            blocks += about.blocks
            series += stats.series
            newest = max(newest, stats.max_time or 0)
            self._metrics.set_exemplars(tenant, entry.database.head.exemplar_store)
            if elapsed >= RATE_PERIOD_S:
                current = (entry.samples - entry.last_samples) / elapsed
                entry.rate = current if not entry.last_samples else entry.rate + RATE_WEIGHT * (current - entry.rate)
                entry.last_samples = entry.samples
        if elapsed >= RATE_PERIOD_S:
            self._rates_at_s = now_s
        self._metrics.memory_series.set(series)
        self._life_cycle_metrics.blocks_loaded.set(blocks)
        self._life_cycle_metrics.loaded_index_bytes.set(self._indexes.bytes)
        if newest > 0:
            self._metrics.head_max_timestamp.set(newest / 1000)

    def close(self, flush: bool | None = None) -> bool:
        """Writes checkpoints, so that the next start is quick, and closes all files. Takes no more writes.

        `flush`: whether to cut and upload everything before; None: as configured. False if that was tried in vain:
        then everything is on the disk, and is shipped after the next start.
        """
        flush = self._config.flush_blocks_on_shutdown if flush is None else flush
        flushed = not flush or self._state == "running"
        flush = flush and flushed
        self._state = "stopping"
        if flush:
            try:
                self._life_cycle.flush(self._entries())
            except MimirRayError as error:
                flushed = False
                log.warning("not everything was flushed", error=str(error))
        with self._lock:
            tenants, self._tenants = self._tenants, {}
        self._pages.clear()
        for tenant, entry in tenants.items():
            try:
                entry.database.checkpoint()
            except MimirRayError as error:  # the WAL has everything; the next start takes longer
                log.warning("no checkpoint written", user=tenant, error=str(error))
            entry.database.close()
        if self._folder_lock is not None:
            self._folder_lock.close()
        self._state = "terminated"
        return flushed

    # For pages of administrators.

    def tenants(self) -> list[TenantPage]:
        """All tenants with an open database, by name."""
        return [tenant_page(entry) for entry in sorted(self._entries(), key=lambda one: one.tenant)]

    def tenant_tsdb(self, tenant: TenantId) -> TsdbPage:
        """What is open of one tenant. Raises `NoOpenTsdb`."""
        entry = self._tenants.get(tenant)
        if entry is None:
            raise NoOpenTsdb(tenant)
        return tsdb_page(entry)

    def tsdb_metrics(self, tenant: TenantId) -> bytes:
        """The metrics of one tenant's database in the text format; of none that is not open. Raises `NoOpenTsdb`."""
        entry = self._tenants.get(tenant)
        if entry is None:
            raise NoOpenTsdb(tenant)
        return tsdb_metrics(entry)

    def _find(self, tenant: TenantId) -> TenantEntry | None:
        if self._state != "running":
            raise IngesterNotReady(self._state)
        return self._tenants.get(tenant)

    def _entries(self) -> list[TenantEntry]:
        with self._lock:
            return list(self._tenants.values())

    def _enter(self, tenant: TenantId) -> TenantEntry:
        """The tenant, opened if need be, which is not closed before `_leave`. Raises `TenantClosing` and more."""
        with self._lock:
            if self._state != "running":  # `close` took the tenants away: none is opened beside what it writes down
                raise IngesterNotReady(self._state)
            if tenant in self._closing:
                raise TenantClosing(tenant)
            entry = self._tenants.get(tenant)
            if entry is None:
                most = self._instance_limits.now.max_tenants
                if most and len(self._tenants) >= most:
                    error = TooManyTenantsHere()
                    self._instance_limits.rejected(error)
                    raise error
                entry = self._tenants[tenant] = self._open_tenant(validate_tenant(tenant))
            entry.calls += 1
            return entry

    def _leave(self, entry: TenantEntry) -> None:
        with self._lock:
            entry.calls -= 1
            entry.last_push_ms = self._clock.now_ms()

    def _remove_tenant(self, entry: TenantEntry) -> bool:
        """Closes an idle tenant and deletes its folder; False if somebody writes or reads there."""
        with self._lock:
            if entry.calls or entry.database.blocks.in_use or self._tenants.get(entry.tenant) is not entry:
                return False
            self._closing.add(entry.tenant)
            del self._tenants[entry.tenant]
        try:
            entry.database.close()
            folder = self._directory / entry.tenant
            gone = folder.with_name(entry.tenant + CLOSED_SUFFIX)
            folder.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)
        except (OSError, MimirRayError) as error:
            log.warning("an idle tenant was not removed", user=entry.tenant, error=str(error))
        finally:
            with self._lock:
                self._closing.discard(entry.tenant)
        self._life_cycle_metrics.forget(entry.tenant)
        self._metrics.forget(entry.tenant)
        self._tracking.forget(entry.tenant)
        log.info("idle tenant closed", user=entry.tenant)
        return True

    def _open_tenant(self, tenant: TenantId, progress: Callable[[int, int], None] | None = None) -> TenantEntry:
        database = self._open_database(tenant, progress)
        shipper = None
        if self._bucket is not None:
            shipper = Shipper(
                tenant,
                self._directory / tenant,
                database.blocks,
                self._bucket,
                self._clock,
                self._life_cycle_metrics,
                lambda: self._limits(tenant).out_of_order_blocks_external_label_enabled,
            )
        return TenantEntry(tenant, database, Ownership(tenant), shipper, self._clock.now_ms(), self._random())

    def _open_database(self, tenant: TenantId, progress: Callable[[int, int], None] | None = None) -> Database:
        limits = self._limits(tenant)
        exemplars = local_limit(limits.max_global_exemplars_per_user, *self._tracking.share(limits))
        settings = DatabaseSettings(
            head=HeadSettings(chunk_range_ms=self._config.block_ranges_period[0].ms, exemplars_max=exemplars),
            metadata_retain_ms=self._metadata_retain_ms,
            wal=WalSettings(int(self._config.wal_segment_size_bytes), self._config.wal_fsync),
            checkpoint_wal_bytes=int(self._config.wal_checkpoint_size_bytes),
        )
        database = Database(self._directory / tenant, settings, self._clock, progress, self._indexes)
        if database.replayed.damage:
            self._metrics.wal_corruptions.inc()
            log.warning("the WAL was damaged", user=tenant, report=str(database.replayed))
        return database

    def _owns_all(self, entry: TenantEntry, fragment: Fragment, ring_version: int) -> bool:
        view = self._ring()
        if view.version != ring_version:
            return False

        def blocks() -> list[Block]:
            local = entry.database.blocks
            leases = [local.lease(mint, maxt) for _, mint, maxt in selections(fragment.node, fragment.steps)]
            return [block for lease in leases if lease is not None for block in lease]

        return entry.ownership.owns_all(entry.database.head, blocks, view, self._instance)


def _with_limits(result: WriteResult, limits: Limits) -> WriteResult:
    """Refusals that name the tenant's limit, as it is set, and not this ingester's part of it."""
    named = {
        "max-series-per-user": limits.max_global_series_per_user,
        "max-series-per-metric": limits.max_global_series_per_metric,
        "sample-timestamp-too-old": limits.out_of_order_time_window.ms,
        "max-metadata-per-user": limits.max_global_metadata_per_user,
        "max-metadata-per-metric": limits.max_global_metadata_per_metric,
    }
    refusals = tuple(replace(one, limit=named.get(one.reason, one.limit)) for one in result.refusals)
    return replace(result, refusals=refusals)


def has_been_used(directory: Path) -> bool:
    """Whether an ingester has run in this folder before."""
    return (directory / LOCK).exists()


def lock_folder(directory: Path, clock: Clock) -> TextIO:
    """Takes the folder for this process; held until the file is closed or the process ends.

    A predecessor that was killed may live on for a moment, and two writers would ruin each other's WAL. Raises
    `FolderInUse` when it is still there after `LOCK_TIMEOUT_S`.
    """
    held = (directory / LOCK).open("a")
    deadline = clock.monotonic_s() + LOCK_TIMEOUT_S
    while True:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return held
        except OSError:
            if clock.monotonic_s() >= deadline:
                held.close()
                raise FolderInUse(str(directory)) from None
            clock.sleep(0.1)
