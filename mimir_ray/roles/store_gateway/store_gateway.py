"""`StoreGateway`: older samples, out of the blocks in the bucket that fall to it. Knows no timers and no Ray."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

from mimir_ray.bucket.block_reader import BlockCaches, BucketBlock
from mimir_ray.bucket.block_source import ReadCounter, estimate_samples, find_all, select_blocks
from mimir_ray.bucket.found import Found, FoundCache
from mimir_ray.bucket.index_header import IndexHeaders
from mimir_ray.bucket.ranges import PageCache
from mimir_ray.bucket.store import Bucket, ObjectNotFound
from mimir_ray.bucket.store_config import BucketStoreConfig
from mimir_ray.clock import Clock
from mimir_ray.cluster.paging import Pages
from mimir_ray.cluster.ring.lookup import RingView
from mimir_ray.cluster.ring.model import InstanceId
from mimir_ray.config.limits import Limits
from mimir_ray.errors import Unavailable
from mimir_ray.model.matchers import Matcher
from mimir_ray.model.regex_verdicts import RegexVerdicts
from mimir_ray.model.selection import Selection
from mimir_ray.model.series import SeriesBatch
from mimir_ray.model.tenant import TenantId, validate_tenant
from mimir_ray.promql.limits import Cancellation, TooManyChunkBytes, TooManyChunks, TooManySeries
from mimir_ray.roles.api import BlocksNames, BlocksPage
from mimir_ray.roles.store_gateway.catalogue import Catalogue
from mimir_ray.roles.store_gateway.config import StoreGatewayConfig
from mimir_ray.roles.store_gateway.metrics import StoreGatewayMetrics

log = structlog.get_logger(__name__)

SELECT_TIMEOUT_S = 120.0
MAPPED_WORKERS = 4
PREPARE_SHUTDOWN_FILE = "shutdown-requested.txt"
"""In the sync folder, while the next stop is to be for good. Upstream: pkg/util/shutdownmarker."""


@dataclass(eq=False)
class StoreGatewayNotReady(Unavailable):
    """It has not read the bucket indexes yet, or is stopping."""

    state: str

    def describe(self) -> str:
        return f"the store-gateway is not available: {self.state}"


@dataclass(eq=False)
class TooManyQueries(Unavailable):
    """The request waited too long for its turn. Upstream: pkg/storegateway/gate.go timeoutGate."""

    waited_s: float

    def describe(self) -> str:
        return f"timeout waiting for concurrency gate: no turn within {self.waited_s:g} s"


class _Limited(ReadCounter):
    """Ends a query where it would read more than its tenant may."""

    def __init__(self, limits: Limits, metrics: StoreGatewayMetrics) -> None:
        self._limits = limits
        self._metrics = metrics
        self._bytes = 0

    def selected(self, series: int, chunks: int) -> None:
        self._metrics.result_series.observe(series)
        if 0 < (allowed := self._limits.max_fetched_series_per_query) < series:
            self._metrics.queries_dropped.labels("series").inc()
            raise TooManySeries(allowed)
        if 0 < (allowed := self._limits.max_fetched_chunks_per_query) < chunks:
            self._metrics.queries_dropped.labels("chunks").inc()
            raise TooManyChunks(allowed)

    def read(self, size: int) -> None:
        self._bytes += size
        self._metrics.data_touched.labels("chunks").observe(size)
        if 0 < (allowed := int(self._limits.max_fetched_chunk_bytes_per_query)) < self._bytes:
            self._metrics.queries_dropped.labels("chunk-bytes").inc()
            raise TooManyChunkBytes(allowed)


class StoreGateway:
    """See roles/api.py `StoreGateway` for the contract of each method. Any thread may call any method."""

    def __init__(
        self,
        bucket: Bucket,
        directory: Path,
        config: BucketStoreConfig,
        gateway: StoreGatewayConfig,
        clock: Clock,
        metrics: StoreGatewayMetrics,
        limits: Callable[[TenantId], Limits],
        ring: Callable[[], RingView],
        instance: InstanceId,
    ) -> None:
        """
        Args:
            directory: holds index headers, in a folder for each tenant.
            limits: a tenant's limits now.
            ring: the newest view of the ring of store-gateways; `instance` is this one's id in it.
        """
        self._bucket = bucket
        self._directory = directory
        self._config = config
        self._clock = clock
        self._metrics = metrics
        self._limits = limits
        header = config.index_header
        self._headers = IndexHeaders(
            bucket,
            directory,
            clock,
            header.lazy_loading_concurrency,
            header.lazy_loading_concurrency_queue_timeout.seconds,
            metrics,
        )
        # Two pools: what looks into a block waits for ranges, so the two must not wait for each other's threads.
        self._workers = config.block_sync_concurrency
        self._block_pool = ThreadPoolExecutor(self._workers, "blocks")
        self._range_pool = ThreadPoolExecutor(2 * config.block_sync_concurrency, "ranges")
        self._caches = BlockCaches(
            PageCache(int(config.index_cache.inmemory.max_size_bytes), metrics.index_pages),
            PageCache(int(config.chunks_cache.inmemory.max_size_bytes), metrics.chunk_pages),
            FoundCache(int(config.index_cache.decoded_max_size_bytes), metrics.selections),
            self._range_pool,
            metrics.fetched,
            RegexVerdicts(observe=metrics.verdicts),
        )
        metrics.show_caches(
            self._caches,
            lambda: (len(self._headers), self._headers.memory),
        )
        self._catalogue = Catalogue(bucket, config, gateway, clock, metrics, limits, ring, instance, self._headers.drop)
        self._gate = threading.BoundedSemaphore(config.max_concurrent)
        metrics.concurrent_max.set(config.max_concurrent)
        self._pages = Pages(clock.monotonic_s)
        self._state = "starting"

    @property
    def state(self) -> str:
        return self._state

    def open(self) -> None:
        """Reads the bucket indexes; from then on it answers. Raises `BucketUnavailable`: try again."""
        self._directory.mkdir(parents=True, exist_ok=True)
        self._catalogue.sync("initial")
        self._headers.keep_only(self._catalogue.blocks())
        if self._state == "starting":
            self._state = "running"

    def sync(self, reason: str) -> None:
        """Looks for new blocks, and for those that are not ours any more. Raises `BucketUnavailable`."""
        self._catalogue.sync(reason)

    def maintain(self) -> None:
        """What is due now and then."""
        self._headers.unload_idle(self._config.index_header.lazy_loading_idle_timeout.seconds)

    def close(self) -> None:
        """Answers no more."""
        self._state = "stopping"
        self._pages.clear()
        for pool in (self._block_pool, self._range_pool):
            pool.shutdown(wait=False, cancel_futures=True)

    def blocks(self) -> dict[TenantId, set[str]]:
        """Which blocks it has."""
        return self._catalogue.blocks()

    # Preparing to go

    @property
    def prepared_to_stop(self) -> bool:
        """Whether the next stop is for good."""
        return (self._directory / PREPARE_SHUTDOWN_FILE).exists()

    def prepare_to_stop(self, is_for_good: bool) -> None:
        """Raises `StoreGatewayNotReady`."""
        self._check_running()
        marker = self._directory / PREPARE_SHUTDOWN_FILE
        if is_for_good:
            marker.write_text("")
        else:
            marker.unlink(missing_ok=True)

    # Queries

    def select_blocks(self, tenant: TenantId, blocks: tuple[str, ...], selection: Selection) -> BlocksPage:
        with self._turn():
            held, founds = self._find(tenant, blocks, selection.matchers)
            batches = self._select(tenant, held, founds, selection)
            page, cursor = self._pages.first(batches)
        return BlocksPage(page, cursor, tuple(one.ulid for one in held))

    def next_blocks_page(self, cursor: str) -> BlocksPage:
        with self._turn():
            return BlocksPage(*self._pages.next(cursor))

    def estimate_block_samples(self, tenant: TenantId, blocks: tuple[str, ...], selection: Selection) -> int:
        with self._turn():
            return estimate_samples(self._find(tenant, blocks, selection.matchers)[1], selection)

    def block_label_names(self, tenant: TenantId, blocks: tuple[str, ...], selection: Selection) -> BlocksNames:
        return self._names(tenant, blocks, lambda block: block.label_names(selection.matchers))

    def block_label_values(
        self, tenant: TenantId, blocks: tuple[str, ...], name: str, selection: Selection
    ) -> BlocksNames:
        return self._names(tenant, blocks, lambda block: block.label_values(name, selection.matchers))

    def _names(self, tenant: TenantId, ulids: tuple[str, ...], read: Callable[[BucketBlock], list[str]]) -> BlocksNames:
        names: set[str] = set()
        queried = []
        with self._turn():
            for block in self._open(tenant, ulids):
                try:
                    names.update(read(block))
                except ObjectNotFound:
                    self._catalogue.forget(tenant, block.ulid)
                else:
                    queried.append(block.ulid)
        return BlocksNames(sorted(names), tuple(queried))

    def _open(self, tenant: TenantId, ulids: tuple[str, ...]) -> list[BucketBlock]:
        """Those of the blocks that are here."""
        known = self._catalogue.known(validate_tenant(tenant), ulids)
        return [BucketBlock(self._bucket, tenant, ulid, self._headers, self._caches) for ulid in known]

    def _find(
        self, tenant: TenantId, ulids: tuple[str, ...], matchers: tuple[Matcher, ...]
    ) -> tuple[list[BucketBlock], list[Found]]:
        """The blocks that are here, and what the matchers select in each."""
        began = self._clock.monotonic_s()
        blocks = self._open(tenant, ulids)
        held, founds = [], []
        for block, found in zip(
            blocks, find_all(blocks, matchers, self._block_pool, self._workers_for(blocks)), strict=True
        ):
            if found is None:
                self._catalogue.forget(tenant, block.ulid)
            else:
                held.append(block)
                founds.append(found)
        self._metrics.blocks_queried.observe(len(held))
        self._metrics.get_all_seconds.observe(self._clock.monotonic_s() - began)
        return held, founds

    def _workers_for(self, blocks: list[BucketBlock]) -> int:
        """Waiting for a bucket is done by many threads side by side; work on mapped files is none the faster for it."""
        return min(self._workers, MAPPED_WORKERS) if blocks and blocks[0].is_mapped else self._workers

    def _select(
        self, tenant: TenantId, blocks: list[BucketBlock], founds: list[Found], selection: Selection
    ) -> Iterator[SeriesBatch]:
        cancellation = Cancellation(SELECT_TIMEOUT_S, self._clock.monotonic_s)
        counter = _Limited(self._limits(tenant), self._metrics)
        # What is mapped is there at once.
        pool = None if blocks and blocks[0].is_mapped else self._block_pool
        batches = select_blocks(blocks, founds, selection, counter, cancellation.check, pool, self._workers)
        stage = self._metrics.stage_seconds.labels("read")
        while True:
            began = self._clock.monotonic_s()
            try:
                batch = next(batches, None)
            except ObjectNotFound as error:
                # Deleted while it was read: the querier sees to it that the block is asked for elsewhere, or missed.
                for block in blocks:
                    if f"/{block.ulid}/" in error.key:
                        self._catalogue.forget(tenant, block.ulid)
                raise Unavailable(f"a block went away while it was read: {error}") from error
            stage.observe(self._clock.monotonic_s() - began)
            if batch is None:
                return
            yield batch

    def _check_running(self) -> None:
        if self._state != "running":
            raise StoreGatewayNotReady(self._state)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """A place among those who are worked on."""
        self._check_running()
        began = self._clock.monotonic_s()
        timeout_s = self._config.max_concurrent_queue_timeout.seconds
        if not self._gate.acquire(timeout=timeout_s):
            raise TooManyQueries(timeout_s)
        self._metrics.gate_seconds.observe(self._clock.monotonic_s() - began)
        self._metrics.in_flight.inc()
        try:
            yield
        finally:
            self._metrics.in_flight.dec()
            self._gate.release()
