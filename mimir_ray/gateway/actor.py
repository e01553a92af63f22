"""`GatewayActor`: one process that serves the HTTP API: distributor, query-frontend, pages, and the scraper."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import structlog

from mimir_ray.bucket.index_loader import BucketIndexLoader
from mimir_ray.bucket.open import open_bucket
from mimir_ray.bucket.sharding import tenant_shard
from mimir_ray.clock import SystemClock
from mimir_ray.cluster.ring.elections import Elected
from mimir_ray.cluster.ring.factor import READER_AGE_S, WRITER_AGE_S
from mimir_ray.cluster.ring.lifecycler import Lifecycler
from mimir_ray.cluster.ring.lookup import RingOptions, RingView
from mimir_ray.cluster.ring.model import (
    COMPACTOR,
    DISTRIBUTOR,
    STORE_GATEWAY,
    InstanceDesc,
    InstanceId,
    InstanceState,
    RingName,
)
from mimir_ray.cluster.ring.replication import RingTooOld
from mimir_ray.cluster.ring.shuffle_shard import LookBackCache, ShardCache
from mimir_ray.cluster.ring.watcher import RingWatcher
from mimir_ray.cluster.transport.base import RING, Address, Client, NoSuchPeer, Transport
from mimir_ray.config.overrides import RuntimeConfig, RuntimeDefaults
from mimir_ray.config.server import reachable
from mimir_ray.errors import MimirRayError
from mimir_ray.gateway.app import create_app
from mimir_ray.gateway.auth import Authenticator
from mimir_ray.gateway.compaction import compaction
from mimir_ray.gateway.metrics import GatewayMetrics
from mimir_ray.gateway.server import GatewayServer
from mimir_ray.gateway.services import GatewayServices
from mimir_ray.model.tenant import TenantId
from mimir_ray.promql.caches import shared_caches
from mimir_ray.promql.engine import Engine, EngineOptions
from mimir_ray.roles.api import WriteBatch, WriteResult
from mimir_ray.roles.compactor.actor import ring_options as compactor_ring_options
from mimir_ray.roles.distributor.distributor import Distributor
from mimir_ray.roles.distributor.ha_tracker import HaTracker
from mimir_ray.roles.distributor.ingester_queue import CALL_HELD_S
from mimir_ray.roles.distributor.metrics import DistributorMetrics, HaTrackerMetrics
from mimir_ray.roles.querier.fragments import ShardTasks
from mimir_ray.roles.querier.liveness import Liveness, LivenessMetrics
from mimir_ray.roles.querier.metrics import QuerierMetrics
from mimir_ray.roles.querier.querier import OlderSamples, Querier
from mimir_ray.roles.querier.source import Ingesters
from mimir_ray.roles.querier.store import Store
from mimir_ray.roles.query_frontend.metrics import QueryFrontendMetrics
from mimir_ray.roles.query_frontend.query_frontend import QueryFrontend
from mimir_ray.roles.scraper.scraper import Scraper, Target
from mimir_ray.roles.store_gateway.actor import ring_options as store_gateway_ring_options
from mimir_ray.telemetry.caches import show_caches
from mimir_ray.telemetry.federation import merge
from mimir_ray.telemetry.metrics import expose, process_registry
from mimir_ray.wire.otlp.caches import otlp_caches

log = structlog.get_logger(__name__)

INGESTER_RING = RingName("ingester")
STATUS_TIMEOUT_S = 2.0
HA_CLAIM_TIMEOUT_S = 2.0
AGE_PERIOD_S = 600.0
INDEX_CHECK_PERIOD_S = 60.0


@dataclass(frozen=True, slots=True)
class Peer:
    """An actor of the deployment, and the roles that live in it."""

    address: Address
    roles: tuple[Address, ...]


@dataclass(frozen=True, slots=True)
class GatewaySpec:
    """Everything a gateway process is told. `peers`: the other actors of the deployment."""

    instance: str
    settings: Any
    defaults: Any
    ring: RingOptions
    runtime_defaults: RuntimeDefaults
    engine: EngineOptions
    peers: tuple[Peer, ...]


@dataclass(frozen=True, slots=True)
class _IngesterClient:
    """The distributor's way to one ingester."""

    client: Client
    timeout_s: float

    async def push(self, batches: list[WriteBatch]) -> list[WriteResult]:
        return await self.client.acall("push", *batches, timeout_s=self.timeout_s)  # type: ignore[no-any-return]


class GatewayActor:
    """Threads, the event loop, hand-over; no decisions."""

    def __init__(
        self,
        spec: GatewaySpec,
        transport: Transport,
        shard_tasks: ShardTasks | None = None,
        ray_targets: Callable[[], list[Target]] | None = None,
        set_up_process: Callable[[str], None] = lambda _: None,
    ) -> None:
        set_up_process(f"gateway/{spec.instance}")
        self._spec = spec
        settings = spec.settings
        self._clock = SystemClock()
        self._transport = transport
        self._registry = process_registry()
        self._runtime = RuntimeConfig(settings.runtime_config, spec.runtime_defaults, self._registry)
        self._rings = {
            INGESTER_RING: spec.ring,
            DISTRIBUTOR: RingOptions(1),
            STORE_GATEWAY: store_gateway_ring_options(settings.store_gateway),
            COMPACTOR: compactor_ring_options(settings.compactor),
        }
        self._watcher = RingWatcher(transport.client(RING), self._rings, self._clock)
        self._watcher.start()
        self._lifecycler = self._join_distributors()
        self._count, self._counted_s = 1, -math.inf
        self._query_executor = ThreadPoolExecutor(settings.querier.max_concurrent, "query")
        self._fan_out = ThreadPoolExecutor(64, "fan-out")
        self._write_shards = ShardCache()
        self._liveness = Liveness(transport, self._clock.monotonic_s, LivenessMetrics(self._registry))
        self._distributor = Distributor(
            settings.distributor,
            self._runtime,
            self._write_ring,
            self._ingester_client,
            self._clock,
            DistributorMetrics(self._registry),
            distributors=self._distributors,
            instance_limits=lambda: self._runtime.current.distributor,
            ha_tracker=self._ha_tracker(),
        )
        ingesters = self._ingesters(settings)
        engine = Engine(spec.engine)
        show_caches(self._registry, {**engine.caches(), **shared_caches(), **otlp_caches()})
        frontend = QueryFrontend(
            engine,
            Querier(ingesters, settings.querier, shard_tasks, self._older_samples(settings)),
            self._runtime.limits,
            self._clock,
            QueryFrontendMetrics(self._registry),
        )
        self._services = GatewayServices(
            settings=settings,
            defaults=spec.defaults,
            auth=Authenticator(settings.tenancy),
            clock=self._clock,
            distributor=self._distributor,
            frontend=frontend,
            runtime=self._runtime,
            transport=transport,
            ring=transport.client(RING),
            ring_view=self._watcher.view,
            not_ready=self.not_ready,
            service_states=self.service_states,
            expositions=self.expositions,
            query_executor=self._query_executor,
            metrics=GatewayMetrics(self._registry),
            bucket=self._bucket,
            compaction=compaction(
                settings,
                self._runtime.limits,
                lambda: self._watcher.view(COMPACTOR),
                transport,
                self._clock,
                self._registry,
            ),
        )
        self._server = GatewayServer(settings.server)
        self._server.start(create_app(self._services, f"mimir-ray-{spec.instance}", only_app=True))
        self._server.every(AGE_PERIOD_S, self._distributor.age)
        self._server.every(INDEX_CHECK_PERIOD_S, lambda: self._fan_out.submit(self._indexes.check))
        self._server.every(1.0, lambda: self._runtime.reload(self._clock.now_ms()))
        self._scraper: Scraper | None = None
        if settings.scraper.enabled:
            self._scraper = self._start_scraper(ray_targets)

    def address(self) -> tuple[str, int]:
        """(host, port) that the server listens on."""
        return self._spec.settings.server.http_listen_address, self._server.port

    def status(self) -> dict[str, Any]:
        return {"state": "running", "progress": "", "failure": "", "pid": os.getpid()}

    def ring_versions(self) -> dict[RingName, int]:
        """Of the rings as this process sees them."""
        return {ring: self._watcher.view(ring).version for ring in self._rings}

    def metrics(self) -> bytes:
        """This process' metrics in the text format."""
        return expose(self._registry)

    def not_ready(self) -> list[str]:
        """What keeps the deployment from taking traffic."""
        return [
            f"{name}: {state}{f': {detail}' if detail else ''}"
            for name, state, detail in self.service_states()
            if state != "Running"
        ]

    def service_states(self) -> list[tuple[str, str, str]]:
        states = [("gateway", "Running", "")]
        answered = self._watcher.age_s() < self._spec.ring.heartbeat_timeout_ms / 1000
        states.append(("ring", "Running" if answered else "Starting", "" if answered else "the ring does not answer"))
        for peer in self._peers():
            found = [self._state_of(role, peer) for role in peer.roles if RingName(role.role) in self._rings]
            states += [state for state in found if state is not None]
        return states

    def _peers(self) -> list[Peer]:
        """The deployment's actors as they were at its start, and the ingesters that have come since."""
        known = {peer.address.actor_name for peer in self._spec.peers}
        instances = self._watcher.view(INGESTER_RING).instances
        added = [Address.parse(one.address) for one in instances if one.address not in known]
        return [*self._spec.peers, *(Peer(address, (address,)) for address in added)]

    def _state_of(self, role: Address, peer: Peer) -> tuple[str, str, str] | None:
        """(service, state, detail) of a role that is in a ring; asks its actor where the ring does not say Running.

        None for one that has left for good: it is in no ring, and there is no such actor.
        """
        name, view = role.actor_name, self._watcher.view(RingName(role.role))
        at = view.index.get(InstanceId(f"{role.role}-{role.instance}"))
        entry = None if at is None else view.instances[at]
        if entry is not None and entry.state is InstanceState.ACTIVE and view.healthy()[at]:
            return name, "Running", ""
        try:
            about = self._transport.client(peer.address).call("status", timeout_s=STATUS_TIMEOUT_S)
        except NoSuchPeer as error:
            return (name, "Failed", str(error)) if entry is not None else None
        except MimirRayError as error:
            return name, "Failed", str(error)
        about = about.get("roles", {}).get(name, about)
        detail = about["failure"] or about["progress"] or f"{entry.state if entry else 'not'} in the ring"
        state = {"stopping": "Stopping", "terminated": "Terminated"}.get(about["state"], "Starting")
        return name, "Failed" if about["failure"] else state, detail

    def expositions(self) -> bytes:
        """The metrics of every process of the deployment that answers, in one text."""

        def one(peer: Peer) -> tuple[str, bytes]:
            name = peer.address.actor_name.replace("/", "-")
            try:
                return name, self._transport.client(peer.address).call("metrics", timeout_s=STATUS_TIMEOUT_S)
            except MimirRayError:
                return name, b""

        texts: Mapping[str, bytes] = {f"gateway-{self._spec.instance}": self.metrics()}
        return merge({**texts, **dict(self._fan_out.map(one, self._peers()))})

    def stop(self) -> None:
        """Takes no more requests, finishes those under way."""
        if self._scraper is not None:
            self._scraper.stop()
        self._server.stop(self._distributor.drain)
        self._lifecycler.stop()
        self._watcher.stop()
        self._services.compaction.close()
        self._query_executor.shutdown(wait=False, cancel_futures=True)
        self._fan_out.shutdown(wait=False, cancel_futures=True)

    def _write_ring(self, tenant: TenantId) -> RingView:
        """The ingesters that take a tenant's writes."""
        size = self._runtime.limits(tenant).ingestion_tenant_shard_size
        view = self._watcher.view(INGESTER_RING)
        if view.replication is not None and self._watcher.age_s() > WRITER_AGE_S:
            raise RingTooOld(INGESTER_RING, self._watcher.age_s())
        return self._write_shards.shard(view, tenant, size)

    def _join_distributors(self) -> Lifecycler:
        """Takes part in the ring of distributors, which share the rates of tenants. Its token owns nothing."""
        name = Address("gateway", self._spec.instance).actor_name
        # A later start of this gateway must have the higher number.
        desc = InstanceDesc(InstanceId(f"gateway-{self._spec.instance}"), name, incarnation=self._clock.now_ms())
        rng = np.random.default_rng()
        found = Lifecycler(DISTRIBUTOR, desc, self._transport.client(RING), self._clock, rng, token_count=1)
        found.start()
        found.replayed()
        return found

    def _distributors(self) -> int:
        """How many distributors are in good health, seen within the last second; at least this one is."""
        now_s = self._clock.monotonic_s()
        if now_s >= self._counted_s + 1:
            self._counted_s = now_s
            self._count = max(1, int(self._watcher.view(DISTRIBUTOR).healthy().sum()))
        return self._count

    def _ha_tracker(self) -> HaTracker | None:
        if not self._spec.settings.distributor.ha_tracker.enable_ha_tracker:
            return None
        ring = self._transport.client(RING)

        async def claim(tenant: str, cluster: str, replica: str, failover_ms: int, clusters_max: int) -> Elected:
            found: Elected = await ring.acall(
                "ha_claim", tenant, cluster, replica, failover_ms, clusters_max, timeout_s=HA_CLAIM_TIMEOUT_S
            )
            return found

        return HaTracker(claim, self._clock, HaTrackerMetrics(self._registry))

    def _ingester_client(self, instance: str) -> _IngesterClient:
        view: RingView = self._watcher.view(INGESTER_RING)
        entry = view.get(instance)  # type: ignore[arg-type]
        address = entry.address if entry is not None else instance
        return _IngesterClient(self._transport.client(address), CALL_HELD_S)

    def _ingesters(self, settings: Any) -> Ingesters:
        """The querier's way to recent samples."""
        querier = settings.querier
        shards = LookBackCache(max(1, settings.blocks_storage.tsdb.retention_period.ms))

        def shard(tenant: TenantId, view: RingView) -> RingView:
            return shards.shard(view, tenant, self._runtime.limits(tenant).ingestion_tenant_shard_size)

        delay = querier.minimize_ingester_requests_hedging_delay
        return Ingesters(
            lambda: self._watcher.view(INGESTER_RING),
            self._liveness,
            self._fan_out,
            querier.minimize_ingester_requests,
            delay.seconds if querier.minimize_ingester_requests and delay.ms else None,
            shard if querier.shuffle_sharding_ingesters_enabled else None,
            lambda: self._watcher.age_s() > READER_AGE_S,
        )

    def _older_samples(self, settings: Any) -> OlderSamples:
        """The querier's way to the bucket."""
        config = settings.blocks_storage.bucket_store
        self._bucket = open_bucket(settings.blocks_bucket, "querier", self._registry)
        self._indexes = BucketIndexLoader(
            self._bucket, config.bucket_index, self._clock, self._registry, config.sync_interval
        )
        shards = ShardCache()

        def shard(tenant: TenantId) -> RingView:
            return tenant_shard(self._watcher.view(STORE_GATEWAY), tenant, self._runtime.limits(tenant), shards)

        metrics = QuerierMetrics(self._registry)
        store = Store(self._indexes.fresh_index, shard, self._liveness, self._fan_out, config, metrics)
        return OlderSamples(store, self._runtime.limits, self._clock)

    def _start_scraper(self, ray_targets: Callable[[], list[Target]] | None) -> Scraper:
        settings = self._spec.settings
        tenant = settings.scraper.tenant if settings.tenancy.multitenancy_enabled else settings.tenancy.no_auth_tenant

        def write(body: bytes) -> None:
            outcome = self._server.run(self._distributor.push(TenantId(tenant), body)).result(60)
            if outcome.error is not None:
                raise outcome.error

        def targets() -> list[Target]:
            host = settings.server.http_listen_address
            own = Target(
                f"{reachable(host)}:{self._server.port}",
                f"{settings.server.http_path_prefix}/metrics",
                (("job", "mimir-ray"),),
                settings.server.scheme,
            )
            return [own, *(ray_targets() if ray_targets else [])]

        scraper = Scraper(settings.scraper, targets, write, self._clock, self._registry)
        scraper.start()
        return scraper
