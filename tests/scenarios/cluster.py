"""A whole cluster in one process: ring, ingesters with real files, distributor, querier, engine; time stands still.

Only what runs threads and timers is replaced: the shells. Nothing happens by itself; `refresh` has everyone look
at the ring.
"""

from __future__ import annotations

import asyncio
import itertools
import struct
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry

from mimir_ray.bucket.bucket_index import BucketIndex, read_bucket_index
from mimir_ray.bucket.filesystem import FilesystemBucket
from mimir_ray.bucket.store_config import BucketStoreConfig
from mimir_ray.clock import ManualClock
from mimir_ray.cluster.ring.actor import RingActor
from mimir_ray.cluster.ring.factor import READER_AGE_S, AutomaticFactor
from mimir_ray.cluster.ring.lifecycler import Lifecycler
from mimir_ray.cluster.ring.lookup import RingOptions, RingView
from mimir_ray.cluster.ring.model import INGESTER, STORE_GATEWAY, InstanceDesc, InstanceId
from mimir_ray.cluster.ring.ring import MemoryStore, RingPolicy
from mimir_ray.cluster.ring.shuffle_shard import LookBackCache, ShardCache
from mimir_ray.cluster.ring.watcher import RingWatcher
from mimir_ray.cluster.transport.base import RING, Address, Client, Retry
from mimir_ray.cluster.transport.in_process import InProcessTransport
from mimir_ray.config.instance_limits import IngesterInstanceLimits
from mimir_ray.config.limits import Limits
from mimir_ray.config.overrides import RuntimeConfig, RuntimeConfigSettings, RuntimeDefaults
from mimir_ray.config.units import Duration
from mimir_ray.encoding.varint import encode_uvarint
from mimir_ray.model.labels import Labels
from mimir_ray.model.metadata import Metadata
from mimir_ray.model.result import Matrix, QueryResult, Scalar, Vector
from mimir_ray.model.tenant import TenantId
from mimir_ray.model.write import WriteBatch, WriteResult
from mimir_ray.promql.engine import Engine, EngineOptions
from mimir_ray.promql.limits import Cancellation
from mimir_ray.promql.source import Selection, SeriesSource
from mimir_ray.roles.distributor.config import DistributorConfig
from mimir_ray.roles.distributor.distributor import Distributor, PushOutcome
from mimir_ray.roles.distributor.metrics import DistributorMetrics
from mimir_ray.roles.ingester.config import TsdbConfig
from mimir_ray.roles.ingester.ingester import Ingester, has_been_used
from mimir_ray.roles.ingester.metrics import IngesterMetrics
from mimir_ray.roles.querier.config import QuerierConfig
from mimir_ray.roles.querier.fragments import ShardTasks
from mimir_ray.roles.querier.liveness import Liveness
from mimir_ray.roles.querier.metrics import QuerierMetrics
from mimir_ray.roles.querier.querier import OlderSamples, Querier
from mimir_ray.roles.querier.source import ClusterSource, Ingesters
from mimir_ray.roles.querier.store import Store
from mimir_ray.roles.store_gateway.actor import ring_options as gateway_ring_options
from mimir_ray.roles.store_gateway.config import StoreGatewayConfig
from mimir_ray.roles.store_gateway.metrics import StoreGatewayMetrics
from mimir_ray.roles.store_gateway.store_gateway import StoreGateway
from mimir_ray.testing.bucket_blocks import put_block, put_index
from mimir_ray.testing.sources import ListSource
from mimir_ray.tsdb.block.meta import BlockMeta
from mimir_ray.wire.remote_write import encode_write_request, label_section

NOW_MS = 1_700_000_000_000
TENANT = TenantId("team-a")
TOKENS = 32
Series = Iterable[tuple[Labels, Sequence[tuple[int, float]]]]

_incarnations = itertools.count(1)


class Node:
    """One ingester process without its threads; what the transport calls."""

    def __init__(self, cluster: Cluster, number: int) -> None:
        self.id = InstanceId(f"ingester-{number}")
        ring = cluster.transport.client(RING)
        self.watcher = RingWatcher(ring, {INGESTER: cluster.options}, cluster.clock)
        self.registry = CollectorRegistry()
        self.ingester = Ingester(
            cluster.directory / self.id,
            cluster.tsdb or TsdbConfig(),
            20 * 60_000,
            cluster.clock,
            IngesterMetrics(self.registry),
            cluster.limits_of,
            lambda: self.watcher.view(INGESTER),
            self.id,
            bucket=cluster.bucket if cluster.tsdb else None,
            instance_limits=lambda: cluster.ingester_limits,
        )
        address = Address("ingester", str(number)).actor_name
        desc = InstanceDesc(
            self.id,
            address,
            zone=cluster.zone_of(number),
            incarnation=next(_incarnations),
            machine=f"machine-{number}",
            empty=not has_been_used(cluster.directory / self.id),
        )
        rng = np.random.default_rng(number)
        self.lifecycler = Lifecycler(INGESTER, desc, ring, cluster.clock, rng, TOKENS)
        self.calls: list[str] = []

    def open(self) -> None:
        self.lifecycler.start(background=False)
        self.ingester.open()
        self.lifecycler.replayed()

    def close(self) -> None:
        """An orderly end; it keeps its place in the ring."""
        self.lifecycler.leave()
        self.ingester.close()
        self.lifecycler.stop(unregister=False)

    def push(self, *batches: WriteBatch) -> list[WriteResult]:
        return self.ingester.push(batches)

    def __getattr__(self, name: str) -> Any:
        if name not in (
            "select_page",
            "next_page",
            "evaluate",
            "estimate_samples",
            "label_names",
            "label_values",
            "metadata",
        ):
            raise AttributeError(name)
        self.calls.append(name)
        return getattr(self.ingester, name)


class Gateway:
    """One store-gateway process without its threads."""

    def __init__(self, cluster: Cluster, number: int) -> None:
        self.id = InstanceId(f"store-gateway-{number}")
        ring = cluster.transport.client(RING)
        self.watcher = RingWatcher(ring, {STORE_GATEWAY: cluster.gateway_options}, cluster.clock)
        self.registry = CollectorRegistry()
        self.gateway = StoreGateway(
            cluster.bucket,
            cluster.directory / self.id,
            cluster.bucket_store,
            StoreGatewayConfig(),
            cluster.clock,
            StoreGatewayMetrics(self.registry),
            lambda tenant: cluster.limits,
            lambda: self.watcher.view(STORE_GATEWAY),
            self.id,
        )
        address = Address("store-gateway", str(number)).actor_name
        desc = InstanceDesc(self.id, address, incarnation=next(_incarnations))
        self.lifecycler = Lifecycler(STORE_GATEWAY, desc, ring, cluster.clock, np.random.default_rng(number), TOKENS)
        self.calls: list[str] = []

    def open(self) -> None:
        self.lifecycler.start(background=False)
        self.watcher.poll()
        self.gateway.open()
        self.lifecycler.replayed()

    def __getattr__(self, name: str) -> Any:
        if name not in (
            "select_blocks",
            "next_blocks_page",
            "estimate_block_samples",
            "block_label_names",
            "block_label_values",
        ):
            raise AttributeError(name)
        self.calls.append(name)
        return getattr(self.gateway, name)


@dataclass(frozen=True, slots=True)
class _PushClient:
    client: Client

    async def push(self, batches: list[WriteBatch]) -> list[WriteResult]:
        return await self.client.acall("push", *batches)  # type: ignore[no-any-return]


class Cluster:
    """`written` has every sample that was acknowledged: what queries must find, no more and no less."""

    def __init__(
        self,
        directory: Path,
        ingesters: int = 2,
        replication_factor: int = 1,
        zones: Sequence[str] = ("",),
        tasks: ShardTasks | None = None,
        querier: QuerierConfig | None = None,
        store_gateways: int = 0,
        bucket_store: BucketStoreConfig | None = None,
        tsdb: TsdbConfig | None = None,
        **limits: object,
    ) -> None:
        """Each ingester has a machine of its own. A `replication_factor` of 0 is automatic.

        With `store_gateways` queries read the bucket too, for all times unless `limits` and `querier` differ.
        With `tsdb` ingesters ship into the bucket."""
        self.directory = directory
        self.clock = ManualClock(NOW_MS)
        defaults = {"out_of_order_time_window": Duration(3_600_000), "query_ingesters_within": Duration(0)}
        self.limits = Limits(**{**defaults, **limits})  # type: ignore[arg-type]
        self.ingester_limits = IngesterInstanceLimits()
        self.tsdb = tsdb
        self.zones = zones
        self.options = RingOptions(replication_factor, zone_aware=len(zones) > 1)
        self.policy = RingPolicy()
        if replication_factor == 0:
            automatic = AutomaticFactor(min(ingesters, len(zones)) if len(zones) > 1 else ingesters, len(zones) > 1)
            self.policy = RingPolicy(automatic={INGESTER: automatic})
        # Few attempts: each one's pause would move the clock, and nobody sends heartbeats meanwhile.
        self.transport = InProcessTransport(self.clock, retry=Retry(attempts_max=2))
        self.ring_store, self.elections_store = MemoryStore(), MemoryStore()
        self.start_ring()
        self.nodes: dict[int, Node] = {}
        self.gateways: dict[int, Gateway] = {}
        self.gateway_options = gateway_ring_options(StoreGatewayConfig())
        rings = {INGESTER: self.options, STORE_GATEWAY: self.gateway_options}
        self.watcher = RingWatcher(self.transport.client(RING), rings, self.clock)
        self.bucket_folder = directory / "bucket"
        self.bucket = FilesystemBucket(self.bucket_folder)
        self.bucket_store = bucket_store or BucketStoreConfig(ignore_blocks_within=Duration(0))
        self.metas: list[BlockMeta] = []
        self.marks: dict[str, int] = {}
        self.written = ListSource()
        self._loop = asyncio.new_event_loop()
        self._executor = ThreadPoolExecutor(8)
        self.registry = CollectorRegistry()
        self.write_shards = ShardCache()
        self.distributor = Distributor(
            DistributorConfig(),
            RuntimeConfig(RuntimeConfigSettings(), RuntimeDefaults(limits=self.limits), CollectorRegistry()),
            lambda tenant: self.write_shards.shard(self.view, tenant, self.limits.ingestion_tenant_shard_size),
            self._push_client,
            self.clock,
            DistributorMetrics(self.registry),
        )
        shards = LookBackCache(13 * 3_600_000)
        liveness = Liveness(self.transport, self.clock.monotonic_s)
        self.ingesters = Ingesters(
            lambda: self.view,
            liveness,
            self._executor,
            minimize=True,
            shard=lambda tenant, view: shards.shard(view, tenant, self.limits.ingestion_tenant_shard_size),
            old=lambda: self.watcher.age_s() > READER_AGE_S,
        )
        store = Store(
            lambda tenant: read_bucket_index(self.bucket, tenant) or BucketIndex(),
            lambda tenant: self.watcher.view(STORE_GATEWAY),
            liveness,
            self._executor,
            self.bucket_store,
            QuerierMetrics(self.registry),
        )
        older = OlderSamples(store, lambda tenant: self.limits, self.clock) if store_gateways else None
        config = querier or QuerierConfig(query_store_after=Duration(0))
        self.querier = Querier(self.ingesters, config, tasks, older)
        self.engine = Engine(EngineOptions())
        for number in range(ingesters):
            self.start(number)
        for number in range(store_gateways):
            self.start_gateway(number)

    def __enter__(self) -> Cluster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.run_until_complete(self.distributor.drain())
        self._loop.close()
        self._executor.shutdown(cancel_futures=True)

    def limits_of(self, tenant: str) -> Limits:
        return self.limits

    # The cluster's life

    def zone_of(self, number: int) -> str:
        return self.zones[number % len(self.zones)]

    def start_ring(self) -> None:
        """Also after its death: from what it saved."""
        stores = self.ring_store, self.elections_store
        self.transport.serve(RING, lambda: RingActor(*stores, policy=self.policy, clock=self.clock, sweep_period_s=0))

    def start(self, number: int) -> Node:
        """An ingester, new or again; it replays what is on its disk."""
        node = Node(self, number)
        node.open()
        self.transport.serve(node.lifecycler.desc.address, lambda: node)
        self.nodes[number] = node
        self.refresh()
        return node

    def kill(self, number: int) -> None:
        """Its memory is gone, and nobody starts it again. Files stay as they are."""
        node = self.nodes.pop(number)
        self.transport.kill(node.lifecycler.desc.address, restarts=False)
        if node.ingester._folder_lock is not None:
            node.ingester._folder_lock.close()  # as the kernel does when a process ends

    def restart(self, number: int) -> Node:
        self.kill(number)
        return self.start(number)

    def start_gateway(self, number: int) -> Gateway:
        """A store-gateway, new or again; it reads the bucket indexes."""
        gateway = Gateway(self, number)
        self.transport.serve(gateway.lifecycler.desc.address, lambda: gateway)
        gateway.open()
        self.gateways[number] = gateway
        self.refresh()
        return gateway

    def kill_gateway(self, number: int) -> None:
        gateway = self.gateways.pop(number)
        self.transport.kill(gateway.lifecycler.desc.address, restarts=False)

    def upload(self, series: Series, tenant: TenantId = TENANT, uploaded_s: int = 1, **more: Any) -> BlockMeta:
        """A block of these samples in the bucket, known to the bucket index."""
        held = [(labels, list(points)) for labels, points in series]
        meta = put_block(self.bucket_folder, tenant, held, len(self.metas), **more)
        self.metas.append(meta)
        self.index_bucket(tenant, uploaded_s)
        for labels, points in held:
            self.written.add(labels, points)
        return meta

    def index_bucket(self, tenant: TenantId = TENANT, uploaded_s: int = 1) -> None:
        put_index(self.bucket, tenant, self.metas, self.clock.now_ms() // 1000, uploaded_s, self.marks)

    def sync(self) -> None:
        """All store-gateways look at the bucket index."""
        for gateway in self.gateways.values():
            gateway.gateway.sync("periodic")

    def pass_time(self, seconds: float) -> None:
        """In steps shorter than a heartbeat period, so that the living stay healthy."""
        for _ in range(int(seconds // 10) or 1):
            self.clock.advance_ms(min(10_000, int(seconds * 1000)))
            for one in (*self.nodes.values(), *self.gateways.values()):
                one.lifecycler.tick()
        self.transport.client(RING).call("sweep")
        self.refresh()

    def refresh(self) -> None:
        """Everyone learns the newest ring."""
        self.watcher.poll()
        for one in (*self.nodes.values(), *self.gateways.values()):
            one.watcher.poll()

    @property
    def view(self) -> RingView:
        return self.watcher.view(INGESTER)

    # Its use

    def try_push(self, series: Series, tenant: TenantId = TENANT, metadata: Iterable[Metadata] = ()) -> PushOutcome:
        """What became of one request, once everything is quiet again."""
        series = list(series)

        async def push() -> PushOutcome:
            outcome = await self.distributor.push(tenant, encode_write_request(series, metadata))
            await self.distributor.drain()
            return outcome

        outcome = self._loop.run_until_complete(push())
        if outcome.error is None and tenant == TENANT:
            for labels, points in series:
                self.written.add(labels, points)
        return outcome

    def push_counters(self, series: Series, created_ms: int) -> None:
        """Pushes samples that count since then."""
        series = list(series)
        body = b""
        for one in series:
            content = label_section(one[0]) + b"".join(
                b"\x12" + bytes((len(sample),)) + sample
                for sample in (
                    b"\x09" + struct.pack("<d", value) + b"\x10" + encode_uvarint(time) for time, value in one[1]
                )
            )
            content += b"\x30" + encode_uvarint(created_ms)
            body += b"\x0a" + encode_uvarint(len(content)) + content
        self.push_raw(body)
        for labels, points in series:
            self.written.add(labels, points, [(time, created_ms) for time, _ in points])

    def push_raw(self, body: bytes) -> None:
        """A whole request, of which the caller tells `written`."""
        outcome = self._loop.run_until_complete(self.distributor.push(TENANT, body))
        self._loop.run_until_complete(self.distributor.drain())
        assert outcome.error is None, outcome.error

    def push(self, series: Series, tenant: TenantId = TENANT) -> None:
        outcome = self.try_push(series, tenant)
        assert outcome.error is None, outcome.error

    def source(self, tenant: TenantId = TENANT, fragments: bool = True) -> ClusterSource:
        source = self.querier.source(tenant, Cancellation(60))
        if not fragments:
            source.fragments = None
        return source

    def instant(self, query: str, time_ms: int | None = None, fragments: bool = True) -> dict[Labels, Any]:
        at = self.clock.now_ms() if time_ms is None else time_ms
        return plain(self.engine.instant(query, self.source(fragments=fragments), at))

    def range(self, query: str, start_ms: int, end_ms: int, step_ms: int, fragments: bool = True) -> dict[Labels, Any]:
        return plain(self.engine.range(query, self.source(fragments=fragments), start_ms, end_ms, step_ms))

    def expected(self, query: str, time_ms: int | None = None) -> dict[Labels, Any]:
        """The same from a plain list of the samples that were acknowledged."""
        at = self.clock.now_ms() if time_ms is None else time_ms
        return plain(self.engine.instant(query, self.written, at))

    def expected_range(self, query: str, start_ms: int, end_ms: int, step_ms: int) -> dict[Labels, Any]:
        return plain(self.engine.range(query, self.written, start_ms, end_ms, step_ms))

    def calls(self, method: str) -> int:
        """How often ingesters were asked so."""
        return sum(node.calls.count(method) for node in self.nodes.values())

    def _push_client(self, instance: str) -> _PushClient:
        entry = self.view.get(InstanceId(instance))
        return _PushClient(self.transport.client(entry.address if entry is not None else instance))


def plain(result: QueryResult) -> dict[Labels, Any]:
    """Series → value, or points."""
    value = result.value
    if isinstance(value, Scalar):
        return {(): value.value}
    assert isinstance(value, Vector | Matrix), value
    found = dict(value.items())
    assert len(found) == len(value), "a series appears twice"
    return found


def read(source: SeriesSource, selection: Selection) -> dict[Labels, list[tuple[int, float]]]:
    """All samples of a selection."""
    found: dict[Labels, list[tuple[int, float]]] = {}
    for batch in source.select(selection):
        times, values, offsets = batch.timestamps.tolist(), batch.values.tolist(), batch.offsets.tolist()
        for row, labels in enumerate(batch.labels.to_labels()):
            assert labels not in found, "a series appears twice"
            part = slice(offsets[row], offsets[row + 1])
            found[labels] = list(zip(times[part], values[part], strict=True))
    return found


def close_to(found: Mapping[Labels, Any], wanted: Mapping[Labels, Any]) -> bool:
    """Equal up to what the order of additions may change."""
    if found.keys() != wanted.keys():
        return False
    for labels, one in found.items():
        ours, theirs = np.atleast_1d(np.asarray(one, float)), np.atleast_1d(np.asarray(wanted[labels], float))
        if ours.shape != theirs.shape or not np.allclose(ours, theirs, rtol=1e-12, atol=1e-12, equal_nan=True):
            return False
    return True
