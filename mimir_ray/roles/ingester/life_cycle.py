"""From heads to blocks to object storage, and off this machine: when what is due, tenant by tenant.

`LifeCycle` decides and does; threads and timers are the actor's. Upstream: pkg/ingester/ingester.go
(compactBlocks, shipBlocks, closeAndDeleteIdleUserTSDBs).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import structlog

from mimir_ray.clock import Clock
from mimir_ray.errors import MimirRayError
from mimir_ray.roles.ingester.config import TsdbConfig
from mimir_ray.roles.ingester.metrics import LifeCycleMetrics
from mimir_ray.roles.ingester.tenants import TenantEntry

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Reduction:
    """By how much a tenant's series in memory could be made fewer."""

    entry: TenantEntry
    series: int


def early_compactions(
    reductions: Iterable[Reduction], memory_series: int, allowed: int, percentage: int
) -> list[Reduction]:
    """Whose heads to cut early, so that there are no more than `allowed` series in memory, or as few as can be.

    None where that would save less than a percentage of them. The largest come first.
    Upstream: pkg/ingester/ingester_early_compaction.go filterUsersToCompactToReduceInMemorySeries.
    """
    if not allowed or memory_series < allowed:
        return []
    chosen: list[Reduction] = []
    saved = 0
    for one in sorted(reductions, key=lambda one: -one.series):
        if one.series <= 0 or (saved and memory_series - saved < allowed):
            break
        chosen.append(one)
        saved += one.series
    return chosen if 100 * saved >= percentage * memory_series else []


class LifeCycle:
    """`entries`: the tenants now. `remove`: closes a tenant and deletes its folder, False where it is in use."""

    def __init__(
        self,
        config: TsdbConfig,
        active_ms: int,
        clock: Clock,
        metrics: LifeCycleMetrics,
        entries: Callable[[], list[TenantEntry]],
        remove: Callable[[TenantEntry], bool],
    ) -> None:
        self._config = config
        self._active_ms = active_ms
        self._clock = clock
        self._metrics = metrics
        self._entries = entries
        self._remove = remove

    def compact(self) -> None:
        """Cuts what is due: full ranges, idle heads, and heads with many inactive series if there are too many."""
        now_ms = self._clock.now_ms()
        self._each(
            self._entries(), self._config.head_compaction_concurrency, lambda entry: self._compact(entry, now_ms)
        )
        self._compact_early(now_ms)

    def flush(self, entries: Sequence[TenantEntry]) -> None:
        """Cuts these tenants' heads whole, then ships. Raises the first failure, after trying all."""
        cut = self._each(
            entries,
            self._config.head_compaction_concurrency,
            lambda entry: self._cut(entry, entry.database.compact_whole),
        )
        shipped = self._each(entries, self._config.ship_concurrency, self._ship)
        for failure in (*cut, *shipped):
            raise failure

    def ship(self) -> None:
        """Uploads what is not in object storage yet, drops what has been there for long, closes idle tenants."""
        entries = self._entries()
        self._each(entries, self._config.ship_concurrency, self._ship)
        oldest = [at for entry in entries if entry.shipper and (at := entry.shipper.oldest_unshipped_ms()) is not None]
        self._metrics.oldest_unshipped.set(min(oldest, default=0) / 1000)
        for entry in entries:
            self._retain(entry)
            self._close_if_idle(entry)

    # One tenant

    def _compact(self, entry: TenantEntry, now_ms: int) -> None:
        idle_ms = int(self._config.head_compaction_idle_timeout.ms * (1 + entry.idle_share / 4))
        if idle_ms and now_ms - entry.last_push_ms > idle_ms and entry.database.head.stats.series:
            log.info("idle head is cut", user=entry.tenant)
            self._cut(entry, entry.database.compact_whole)
        else:
            self._cut(entry, entry.database.compact)

    def _compact_early(self, now_ms: int) -> None:
        allowed = self._config.early_head_compaction_min_in_memory_series
        if not allowed:
            return
        until = now_ms - self._active_ms
        reductions = []
        total = 0
        for entry in self._entries():
            series = entry.database.head.stats.series
            total += series
            reductions.append(Reduction(entry, series - entry.database.head.active_since(until)))
        percentage = self._config.early_head_compaction_min_estimated_series_reduction_percentage
        chosen = early_compactions(reductions, total, allowed, percentage)
        if chosen:
            log.info("heads are cut early", series=total, inactive_series=sum(one.series for one in chosen))
        self._each(
            [one.entry for one in chosen],
            self._config.head_compaction_concurrency,
            lambda entry: self._cut(entry, lambda: entry.database.compact(until)),
        )

    def _cut(self, entry: TenantEntry, cut: Callable[[], Sequence[object]]) -> None:
        began = self._clock.monotonic_s()
        self._metrics.compactions_triggered.inc()
        try:
            made = cut()
        except MimirRayError as error:
            self._metrics.compactions_failed.inc()
            log.warning("head compaction failed", user=entry.tenant, error=str(error))
            raise
        if made:
            self._metrics.compactions.inc(len(made))
            self._metrics.compaction_seconds.observe(self._clock.monotonic_s() - began)
            log.info("head cut into blocks", user=entry.tenant, blocks=len(made))

    def _ship(self, entry: TenantEntry) -> None:
        if entry.shipper is not None:
            entry.shipper.ship()

    def _retain(self, entry: TenantEntry) -> None:
        """Counted from the upload; where nothing is uploaded, from a block's end. Upstream: blocksToDelete."""
        before = self._clock.now_ms() - self._config.retention_period.ms
        blocks = entry.database.blocks
        if entry.shipper is not None:
            over = entry.shipper.shipped_before(before)
        else:
            over = [meta.ulid for meta in blocks.metas if meta.max_time < before]
        if over:
            log.info("blocks leave this machine", user=entry.tenant, blocks=over)
            blocks.drop(over)

    def _close_if_idle(self, entry: TenantEntry) -> None:
        result = self._why_open(entry)
        if result in ("idle", "tenant_marked_for_deletion"):
            result = "closed" if self._remove(entry) else "busy"
        self._metrics.idle_closed.labels(result).inc()

    def _why_open(self, entry: TenantEntry) -> str:
        """Upstream: pkg/ingester/user_tsdb.go shouldCloseTSDB."""
        timeout_ms = self._config.close_idle_tsdb_timeout.ms
        if not timeout_ms or self._clock.now_ms() - entry.last_push_ms <= timeout_ms:
            return "not_idle"
        if entry.shipper is not None and entry.shipper.tenant_is_deleted:
            return "tenant_marked_for_deletion"
        if entry.database.head.stats.series:
            return "not_compacted"
        unshipped = entry.database.blocks.metas if entry.shipper is None else entry.shipper.oldest_unshipped_ms()
        return "not_shipped" if unshipped not in (None, []) else "idle"

    def _each(
        self, entries: Sequence[TenantEntry], concurrency: int, work: Callable[[TenantEntry], None]
    ) -> list[MimirRayError]:
        """Does something for every tenant; what failed, which the others do not suffer from."""

        def one(entry: TenantEntry) -> MimirRayError | None:
            try:
                work(entry)
            except MimirRayError as error:
                return error
            return None

        if concurrency == 1 or len(entries) <= 1:
            found = [one(entry) for entry in entries]
        else:
            with ThreadPoolExecutor(min(concurrency, len(entries)), "life-cycle") as pool:
                found = list(pool.map(one, entries))
        return [error for error in found if error is not None]
