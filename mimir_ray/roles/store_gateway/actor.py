"""`StoreGatewayActor`: runs one `StoreGateway` in a threaded actor: threads, timers, the ring. No decisions."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import structlog

from mimir_ray.bucket.open import BucketSettings, open_bucket
from mimir_ray.bucket.store_config import BucketStoreConfig
from mimir_ray.clock import SystemClock
from mimir_ray.cluster.ring.lifecycler import Lifecycler
from mimir_ray.cluster.ring.lookup import RingOptions, RingView
from mimir_ray.cluster.ring.model import STORE_GATEWAY, InstanceDesc, InstanceId
from mimir_ray.cluster.ring.watcher import RingWatcher
from mimir_ray.cluster.transport.base import RING, Address, Transport
from mimir_ray.config.overrides import RuntimeConfig, RuntimeConfigSettings, RuntimeDefaults
from mimir_ray.errors import Unavailable
from mimir_ray.model.selection import Selection
from mimir_ray.model.tenant import TenantId
from mimir_ray.promql.caches import shared_caches
from mimir_ray.roles.api import BlocksNames, BlocksPage
from mimir_ray.roles.store_gateway.config import StoreGatewayConfig
from mimir_ray.roles.store_gateway.metrics import StoreGatewayMetrics
from mimir_ray.roles.store_gateway.store_gateway import StoreGateway
from mimir_ray.telemetry.caches import show_caches
from mimir_ray.telemetry.metrics import expose, process_registry

log = structlog.get_logger(__name__)

MAINTAIN_PERIOD_S = 5.0
RETRY_PAUSE_S = 1.0


@dataclass(frozen=True, slots=True)
class StoreGatewaySpec:
    """Everything a store-gateway is told. `home`: the actor that it runs in."""

    instance: str
    home: Address
    zone: str
    directory: Path
    bucket: BucketSettings
    bucket_store: BucketStoreConfig
    gateway: StoreGatewayConfig
    runtime: RuntimeConfigSettings
    defaults: RuntimeDefaults


def ring_options(config: StoreGatewayConfig) -> RingOptions:
    """How the ring of store-gateways is read, by whoever reads it."""
    ring = config.sharding_ring
    return RingOptions(ring.replication_factor, ring.zone_awareness_enabled, ring.heartbeat_timeout.ms)


class StoreGatewayActor:
    """Reads run in a thread group of their own, so that status and metrics answer while they are long."""

    concurrency_groups: ClassVar[dict[str, str]] = {
        "select_blocks": "blocks",
        "next_blocks_page": "blocks",
        "estimate_block_samples": "blocks",
        "block_label_names": "blocks",
        "block_label_values": "blocks",
    }

    def __init__(
        self, spec: StoreGatewaySpec, transport: Transport, set_up_process: Callable[[str], None] = lambda _: None
    ) -> None:
        set_up_process(f"store-gateway/{spec.instance}")
        self._spec = spec
        self._clock = SystemClock()
        self._registry = process_registry()
        self._runtime = RuntimeConfig(spec.runtime, spec.defaults, self._registry)
        show_caches(self._registry, shared_caches())
        ring = transport.client(RING)
        instance = InstanceId(f"store-gateway-{spec.instance}")
        self._changed = threading.Event()
        self._stop = threading.Event()
        self._watcher = RingWatcher(
            ring, {STORE_GATEWAY: ring_options(spec.gateway)}, self._clock, on_change=self._ring_changed
        )
        self._gateway = StoreGateway(
            open_bucket(spec.bucket, "store-gateway", self._registry),
            spec.directory,
            spec.bucket_store,
            spec.gateway,
            self._clock,
            StoreGatewayMetrics(self._registry),
            self._runtime.limits,
            lambda: self._watcher.view(STORE_GATEWAY),
            instance,
        )
        options = spec.gateway.sharding_ring
        self._lifecycler = Lifecycler(
            STORE_GATEWAY,
            InstanceDesc(instance, spec.home.actor_name, zone=spec.zone, incarnation=time.time_ns()),
            ring,
            self._clock,
            np.random.default_rng(),
            token_count=options.num_tokens,
            heartbeat_period_ms=options.heartbeat_period.ms,
            on_fenced=lambda: os._exit(1),  # another process has taken this id; this one must not serve
            on_error=lambda error: log.warning("the ring did not answer", error=str(error)),
        )
        self._progress = "starting"
        self._failure = ""
        self._watcher.start()
        threading.Thread(target=self._run, name="store-gateway", daemon=True).start()

    def select_blocks(self, tenant: TenantId, blocks: tuple[str, ...], selection: Selection) -> BlocksPage:
        return self._gateway.select_blocks(tenant, blocks, selection)

    def next_blocks_page(self, cursor: str) -> BlocksPage:
        return self._gateway.next_blocks_page(cursor)

    def estimate_block_samples(self, tenant: TenantId, blocks: tuple[str, ...], selection: Selection) -> int:
        return self._gateway.estimate_block_samples(tenant, blocks, selection)

    def block_label_names(self, tenant: TenantId, blocks: tuple[str, ...], selection: Selection) -> BlocksNames:
        return self._gateway.block_label_names(tenant, blocks, selection)

    def block_label_values(
        self, tenant: TenantId, blocks: tuple[str, ...], name: str, selection: Selection
    ) -> BlocksNames:
        return self._gateway.block_label_values(tenant, blocks, name, selection)

    def store_gateway_prepared(self) -> bool:
        """Whether the next stop takes it out of the ring for good."""
        return self._gateway.prepared_to_stop

    def store_gateway_prepare(self, is_for_good: bool) -> None:
        self._gateway.prepare_to_stop(is_for_good)

    def status(self) -> dict[str, Any]:
        """`state` (of the store-gateway), `progress` (a sentence while it starts), `failure`, `pid`."""
        return {"state": self._gateway.state, "progress": self._progress, "failure": self._failure, "pid": os.getpid()}

    def metrics(self) -> bytes:
        """Its metrics in the text format."""
        return expose(self._registry)

    def stop(self) -> None:
        """Leaves the ring. The process may be ended when this returns."""
        self._stop.set()
        self._changed.set()
        self._lifecycler.leave()
        self._gateway.close()
        self._lifecycler.stop(
            unregister=self._spec.gateway.sharding_ring.unregister_on_shutdown or self._gateway.prepared_to_stop
        )
        self._watcher.stop()

    def _ring_changed(self, _view: RingView) -> None:
        self._changed.set()

    def _run(self) -> None:
        try:
            self._lifecycler.start()
            # A store-gateway that does not see itself in the ring would take on nothing.
            me = self._lifecycler.desc.id
            while not self._stop.is_set() and not self._watcher.wait_for(
                STORE_GATEWAY, lambda view: (one := view.get(me)) is not None and len(one.tokens) > 0, RETRY_PAUSE_S
            ):
                self._progress = "waits to be in the ring"
            self._open()
        except Exception as error:
            self._failure = str(error) or repr(error)
            log.exception("the store-gateway cannot start")
            return
        self._lifecycler.replayed()
        self._progress = ""
        self._tend()

    def _open(self) -> None:
        while not self._stop.is_set():
            self._progress = "reads the bucket indexes"
            try:
                self._gateway.open()
                return
            except Unavailable as error:
                self._progress = str(error)
                log.warning("the bucket indexes were not read", error=str(error))
                self._stop.wait(RETRY_PAUSE_S)

    def _tend(self) -> None:
        interval_s = self._spec.bucket_store.sync_interval.seconds
        due_s = self._clock.monotonic_s() + interval_s
        while not self._stop.is_set():
            changed = self._changed.wait(min(MAINTAIN_PERIOD_S, max(0.0, due_s - self._clock.monotonic_s())))
            if self._stop.is_set():
                return
            try:
                self._runtime.reload(self._clock.now_ms())
                self._gateway.maintain()
                if changed or self._clock.monotonic_s() >= due_s:
                    self._changed.clear()
                    due_s = self._clock.monotonic_s() + interval_s
                    self._gateway.sync("ring-change" if changed else "periodic")
            except Exception:
                log.exception("a sync failed")
                self._stop.wait(RETRY_PAUSE_S)
