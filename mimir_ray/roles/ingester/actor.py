"""`IngesterActor`: runs one `Ingester` in a threaded actor: threads, timers, the ring. No decisions."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import structlog
from numpy.typing import NDArray

from mimir_ray.bucket.open import BucketSettings, open_bucket
from mimir_ray.clock import SystemClock
from mimir_ray.cluster.ring.factor import ANNOUNCE_MS
from mimir_ray.cluster.ring.lifecycler import Lifecycler
from mimir_ray.cluster.ring.lookup import RingOptions
from mimir_ray.cluster.ring.model import InstanceDesc, InstanceId, Replication, RingDesc, RingName
from mimir_ray.cluster.ring.spread_tokens import spread_tokens
from mimir_ray.cluster.ring.watcher import RingWatcher
from mimir_ray.cluster.transport.base import RING, Address, Transport
from mimir_ray.config.overrides import RuntimeConfig, RuntimeConfigSettings, RuntimeDefaults
from mimir_ray.errors import Unavailable
from mimir_ray.model.exemplars import SeriesExemplars
from mimir_ray.model.matchers import Matcher
from mimir_ray.model.metadata import Metadata
from mimir_ray.model.tenant import TenantId
from mimir_ray.promql.caches import shared_caches
from mimir_ray.promql.plan.fragment import Fragment, FragmentPart
from mimir_ray.promql.source import Selection
from mimir_ray.roles.api import FlushUnderWay, Page, TenantPage, TenantStats, TsdbPage, WriteBatch, WriteResult
from mimir_ray.roles.ingester.breakers import Breakers
from mimir_ray.roles.ingester.config import IngesterConfig, TsdbConfig
from mimir_ray.roles.ingester.ingester import Ingester, IngesterNotReady, has_been_used
from mimir_ray.roles.ingester.metrics import IngesterMetrics, LifeCycleMetrics
from mimir_ray.roles.ingester.shutdown import ShutdownPlan
from mimir_ray.telemetry.caches import show_caches
from mimir_ray.telemetry.metrics import expose, process_registry

log = structlog.get_logger(__name__)

RING_NAME = RingName("ingester")
MAINTAIN_PERIOD_S = 5.0
RING_TIMEOUT_S = 5.0
RING_PAUSE_S = 0.2


@dataclass(frozen=True, slots=True)
class IngesterSpec:
    """Everything an ingester process is told."""

    instance: str
    zone: str
    directory: Path
    ingester: IngesterConfig
    tsdb: TsdbConfig
    runtime: RuntimeConfigSettings
    defaults: RuntimeDefaults
    bucket: BucketSettings
    number_in_zone: int = 0
    """How many ingesters of lower numbers its zone has."""
    machine: str = ""
    """The machine that it is bound to; "" where Ray chooses."""


def ring_options(config: IngesterConfig) -> RingOptions:
    """How the ring of ingesters is read, by whoever reads it."""
    return RingOptions(
        config.ring.replication_factor, config.ring.zone_awareness_enabled, config.ring.heartbeat_timeout.ms
    )


class IngesterActor:
    """Writes and reads run in thread groups of their own, so that queries cannot keep samples waiting."""

    concurrency_groups: ClassVar[dict[str, str]] = {
        "push": "write",
        "select_page": "read",
        "next_page": "read",
        "evaluate": "read",
        "estimate_samples": "read",
        "label_names": "read",
        "label_values": "read",
        "metadata": "read",
        "exemplars": "read",
    }

    def __init__(
        self, spec: IngesterSpec, transport: Transport, set_up_process: Callable[[str], None] = lambda _: None
    ) -> None:
        set_up_process(f"ingester/{spec.instance}")
        self._spec = spec
        self._clock = SystemClock()
        self._registry = process_registry()
        self._runtime = RuntimeConfig(spec.runtime, spec.defaults, self._registry)
        ring = transport.client(RING)
        instance = InstanceId(f"ingester-{spec.instance}")
        self._watcher = RingWatcher(ring, {RING_NAME: ring_options(spec.ingester)}, self._clock)
        life_cycle = LifeCycleMetrics(self._registry)
        show_caches(self._registry, {**shared_caches(), "selections": life_cycle.selections})
        self._ingester = Ingester(
            spec.directory,
            spec.tsdb,
            spec.ingester.active_series_metrics_idle_timeout.ms,
            self._clock,
            IngesterMetrics(self._registry),
            self._runtime.limits,
            lambda: self._watcher.view(RING_NAME),
            instance,
            life_cycle,
            open_bucket(spec.bucket, "ingester", self._registry),
            random.random,
            spec.ingester.metadata_retain_period.ms,
            spec.ingester,
            lambda: self._runtime.current.ingester,
        )
        config = spec.ingester
        self._breakers = Breakers(config.push_circuit_breaker, config.read_circuit_breaker, self._clock, self._registry)
        self._plan = ShutdownPlan(
            spec.directory,
            self._clock,
            spec.ingester.ring.unregister_on_shutdown,
            spec.tsdb.flush_blocks_on_shutdown,
        )
        self._ring = ring
        self._stopping = threading.Lock()
        self._counting = threading.Lock()
        self._flushes = 0
        desc = InstanceDesc(
            instance,
            Address("ingester", spec.instance).actor_name,
            zone=spec.zone,
            incarnation=time.time_ns(),
            machine=spec.machine,
            empty=not has_been_used(spec.directory),
        )
        self._lifecycler = Lifecycler(
            RING_NAME,
            desc,
            ring,
            self._clock,
            np.random.default_rng(),
            token_count=spec.ingester.ring.num_tokens,
            heartbeat_period_ms=spec.ingester.ring.heartbeat_period.ms,
            on_fenced=lambda: os._exit(1),  # another process has taken this id; this one must not serve
            on_error=lambda error: log.warning("the ring did not answer", error=str(error)),
            tokens=self._spread_tokens if config.ring.spreads else None,
        )
        self._progress = "starting"
        self._failure = ""
        self._stop = threading.Event()
        self._watcher.start()
        threading.Thread(target=self._run, name="ingester", daemon=True).start()

    def push(self, *batches: WriteBatch) -> list[WriteResult]:
        with self._breakers.pushing() as results:
            results += self._ingester.push(batches)
        return results

    def select_page(self, tenant: TenantId, selection: Selection) -> Page:
        with self._breakers.reading():
            return self._ingester.select_page(tenant, selection)

    def next_page(self, cursor: str) -> Page:
        with self._breakers.reading():
            return self._ingester.next_page(cursor)

    def evaluate(self, tenant: TenantId, fragment: Fragment, ring_version: int) -> list[FragmentPart]:
        with self._breakers.reading():
            return self._ingester.evaluate(tenant, fragment, ring_version)

    def estimate_samples(self, tenant: TenantId, selection: Selection) -> int:
        with self._breakers.reading():
            return self._ingester.estimate_samples(tenant, selection)

    def label_names(self, tenant: TenantId, selection: Selection) -> list[str]:
        with self._breakers.reading():
            return self._ingester.label_names(tenant, selection)

    def label_values(self, tenant: TenantId, name: str, selection: Selection) -> list[str]:
        with self._breakers.reading():
            return self._ingester.label_values(tenant, name, selection)

    def metadata(self, tenant: TenantId, family: str = "") -> list[Metadata]:
        return self._ingester.metadata(tenant, family)

    def tenants(self) -> list[TenantPage]:
        return self._ingester.tenants()

    def tenant_tsdb(self, tenant: TenantId) -> TsdbPage:
        return self._ingester.tenant_tsdb(tenant)

    def tsdb_metrics(self, tenant: TenantId) -> bytes:
        return self._ingester.tsdb_metrics(tenant)

    def prepare_shutdown(self, prepare: bool | None = None) -> bool:
        self._require_running()
        if prepare is not None:
            self._plan.prepare() if prepare else self._plan.cancel()
        return self._plan.prepared

    def unregister_on_shutdown(self, change: str = "", unregister: bool = False) -> bool:
        self._require_running()
        if change:
            return self._plan.set_unregister(unregister if change == "set" else None)
        return self._plan.unregister

    def read_only(self, change: bool | None = None) -> int:
        self._require_running()
        instance = self._lifecycler.desc.id
        if change is not None:
            if not change and self._flushes:
                raise FlushUnderWay(instance)
            self._ring.call("set_read_only", RING_NAME, instance, change, timeout_s=RING_TIMEOUT_S)
        entry = self._ring.call("snapshot", RING_NAME, timeout_s=RING_TIMEOUT_S).instances.get(instance)
        return entry.read_only_updated_ms if entry is not None and entry.read_only else 0

    def shutdown(self) -> None:
        if self._ingester.state == "starting":
            raise IngesterNotReady("starting")
        self._end(unregister=True, flush=True)

    def _require_running(self) -> None:
        if self._ingester.state != "running":
            raise IngesterNotReady(self._ingester.state)

    def flush(self, tenants: Sequence[TenantId] = (), wait: bool = False) -> None:
        """Cuts heads into blocks whole and uploads those, of these tenants or of all. With `wait`, before it returns.

        Raises `IngesterNotReady`, and with `wait` what went wrong.
        """
        self._require_running()
        if wait:
            self._flush(tenants)
            return
        threading.Thread(target=self._flush_alone, args=(tenants,), name="flush", daemon=True).start()

    def _flush(self, tenants: Sequence[TenantId]) -> None:
        with self._counting:
            self._flushes += 1
        try:
            self._ingester.flush(tenants)
        finally:
            with self._counting:
                self._flushes -= 1

    def _flush_alone(self, tenants: Sequence[TenantId]) -> None:
        try:
            self._flush(tenants)
        except Exception:
            log.exception("flush failed")

    def exemplars(
        self, tenant: TenantId, selectors: Sequence[tuple[Matcher, ...]], mint: int, maxt: int
    ) -> list[SeriesExemplars]:
        return self._ingester.exemplars(tenant, selectors, mint, maxt)

    def tenant_stats(self) -> dict[TenantId, TenantStats]:
        return self._ingester.tenant_stats()

    def status(self) -> dict[str, Any]:
        """`state` (of the ingester), `progress` (a sentence while it starts), `failure`, `pid`."""
        return {"state": self._ingester.state, "progress": self._progress, "failure": self._failure, "pid": os.getpid()}

    def metrics(self) -> bytes:
        """This process' metrics in the text format."""
        return expose(self._registry)

    def stop(self) -> None:
        """Leaves the ring, writes everything down. The process may be ended when this returns."""
        self._end(self._plan.unregister, self._plan.flush)
        self._clock.sleep(self._spec.ingester.ring.final_sleep.seconds)
        self._watcher.stop()

    def _end(self, unregister: bool, flush: bool) -> None:
        """Stops once; a second caller waits for the first. What was not flushed keeps its place in the ring."""
        with self._stopping:
            if self._stop.is_set():
                return
            self._stop.set()
            self._lifecycler.leave()
            flushed = self._ingester.close(flush)
            if flushed:
                self._plan.finished()
            else:
                log.error("not unregistered: some samples are on this machine only")
            self._lifecycler.stop(unregister=unregister and flushed)

    def _spread_tokens(self, count: int, taken: NDArray[np.uint32]) -> NDArray[np.uint32]:
        spec = self._spec
        return spread_tokens(spec.number_in_zone, spec.zone, spec.ingester.ring.spread_minimizing_zones, count, taken)

    def _wait_until_known(self) -> None:
        """On an empty disk: until no reader counts on samples that were lost here."""
        if not self._lifecycler.desc.empty:
            return
        known = self._known_replication()
        if known is not None and any(one.instance == self._lifecycler.desc.id for one in known.lost):
            self._tell(f"waiting {ANNOUNCE_MS // 1000} s until queries ask others for the samples that were lost here")
            self._stop.wait(ANNOUNCE_MS / 1000)

    def _known_replication(self) -> Replication | None:
        """As the ring says it when it has heard of this start; waits for that."""
        while not self._stop.is_set():
            try:
                if self._lifecycler.state.registered:
                    desc: RingDesc = self._ring.call("snapshot", RING_NAME, timeout_s=RING_TIMEOUT_S)
                    return desc.replication
            except Unavailable as error:
                log.warning("the ring did not answer", error=str(error))
            self._tell("waiting for the ring")
            self._stop.wait(RING_PAUSE_S)
        return None

    def _tell(self, sentence: str) -> None:
        self._progress = sentence

    def _run(self) -> None:
        try:
            self._lifecycler.start()
            self._wait_until_known()
            self._ingester.open(self._tell)
        except Exception as error:
            self._failure = str(error) or repr(error)
            log.exception("the ingester cannot start")
            return
        self._lifecycler.replayed()
        self._progress = ""
        tsdb = self._spec.tsdb
        self._every("compaction", tsdb.head_compaction_interval.seconds, self._ingester.compact, random.random())
        if tsdb.ship_interval.ms:
            self._every("shipping", tsdb.ship_interval.seconds, self._ingester.ship)
        self._repeat("maintenance", MAINTAIN_PERIOD_S, self._maintain)

    def _maintain(self) -> None:
        self._runtime.reload(self._clock.now_ms())
        self._ingester.maintain()

    def _every(self, name: str, period_s: float, work: Callable[[], None], first: float = 1.0) -> None:
        """Calls `work` in a thread of its own, the first time after a part of the period."""
        threading.Thread(target=self._repeat, args=(name, period_s, work, first), name=name, daemon=True).start()

    def _repeat(self, name: str, period_s: float, work: Callable[[], None], first: float = 1.0) -> None:
        pause_s = period_s * first
        while not self._stop.wait(pause_s):
            pause_s = period_s
            try:
                work()
            except Exception:
                log.exception("failed", task=name)
