"""`CompactorActor`: runs one `Compactor` in a threaded actor: threads, timers, the ring. No decisions."""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import structlog

from mimir_ray.bucket.open import BucketSettings, open_bucket
from mimir_ray.clock import SystemClock
from mimir_ray.cluster.ring.lifecycler import Lifecycler
from mimir_ray.cluster.ring.lookup import RingOptions
from mimir_ray.cluster.ring.model import COMPACTOR, InstanceDesc, InstanceId, InstanceState
from mimir_ray.cluster.ring.watcher import RingWatcher
from mimir_ray.cluster.transport.base import RING, Transport
from mimir_ray.config.overrides import RuntimeConfig, RuntimeConfigSettings, RuntimeDefaults
from mimir_ray.model.tenant import TenantId
from mimir_ray.telemetry.metrics import expose, process_registry
from mimir_ray.tsdb.compact.health import check_index

from .block_upload import BlockUploads, clear_scratch
from .compactor import Compactor
from .config import CompactorConfig
from .job_run import JobRunner
from .merging import merge_folders
from .metrics import CompactorMetrics
from .ownership import Ownership
from .schedule import Ended, RingSeen, Schedule, Tick, Work, advance

log = structlog.get_logger(__name__)

TICK_S = 1.0
STOP_S = 30.0
"""How long `stop` waits for a job to come to a point where it can be left."""


@dataclass(frozen=True, slots=True)
class CompactorSpec:
    """Everything a compactor is told. `address`: the name of the actor that runs it; `directory`: for scratch files."""

    instance: str
    address: str
    zone: str
    directory: Path
    bucket: BucketSettings
    compactor: CompactorConfig
    runtime: RuntimeConfigSettings
    defaults: RuntimeDefaults


def ring_options(config: CompactorConfig) -> RingOptions:
    """How the ring of compactors is read, by whoever reads it."""
    return RingOptions(1, False, config.sharding_ring.heartbeat_timeout.ms)


class CompactorActor:
    """Compactions, clean-ups and looks for new blocks have a thread each."""

    concurrency_groups: ClassVar[dict[str, str]] = {}

    def __init__(
        self, spec: CompactorSpec, transport: Transport, set_up_process: Callable[[str], None] = lambda _: None
    ) -> None:
        set_up_process(f"compactor/{spec.instance}")
        self._spec = spec
        self._clock = SystemClock()
        self._registry = process_registry()
        self._runtime = RuntimeConfig(spec.runtime, spec.defaults, self._registry)
        self._stop = threading.Event()
        ring = transport.client(RING)
        self._id = InstanceId(f"compactor-{spec.instance}")
        self._watcher = RingWatcher(ring, {COMPACTOR: ring_options(spec.compactor)}, self._clock)
        bucket = open_bucket(spec.bucket, "compactor", self._registry)
        metrics = CompactorMetrics(self._registry)
        limits = self._runtime.limits
        runner = JobRunner(
            bucket,
            spec.directory / "compact",
            merge_folders,
            check_index,
            spec.compactor.block_sync_concurrency,
            self._clock,
            metrics,
            lambda: secrets.token_bytes(10),
            self._stop.is_set,
        )
        self._compactor = Compactor(
            spec.compactor,
            bucket,
            limits,
            Ownership(
                self._id,
                lambda: self._watcher.view(COMPACTOR),
                lambda tenant: limits(tenant).compactor_tenant_shard_size,
                spec.compactor.allows,
            ),
            runner,
            self._clock,
            metrics,
            np.random.default_rng(),
            self._stop.wait,
        )
        uploads = spec.directory / "uploads"
        clear_scratch(uploads)
        self._uploads = BlockUploads(
            bucket,
            limits,
            uploads,
            spec.compactor.max_block_upload_validation_concurrency,
            self._clock,
            self._registry,
        )
        desc = InstanceDesc(self._id, spec.address, zone=spec.zone, incarnation=time.time_ns())
        self._lifecycler = Lifecycler(
            COMPACTOR,
            desc,
            ring,
            self._clock,
            np.random.default_rng(),
            token_count=spec.compactor.sharding_ring.num_tokens,
            heartbeat_period_ms=spec.compactor.sharding_ring.heartbeat_period.ms,
            on_fenced=lambda: os._exit(1),  # another process has taken this id; this one must not go on
            on_error=lambda error: log.warning("the ring did not answer", error=str(error)),
        )
        self._rng = np.random.default_rng()
        self._lock = threading.Lock()
        self._schedule = Schedule(spec.compactor, self._clock.now_ms())
        self._works: dict[Work, threading.Thread] = {}
        self._watcher.start()
        self._thread = threading.Thread(target=self._run, name="compactor", daemon=True)
        self._thread.start()

    def finish_block_upload(self, tenant: TenantId, ulid: str) -> None:
        """See `BlockUploads.finish`."""
        self._uploads.finish(tenant, ulid)

    def status(self) -> dict[str, Any]:
        """`state`, `progress` (a sentence while it starts), `failure`, `pid`."""
        waits = self._schedule.waits
        return {"state": "starting" if waits else "running", "progress": waits, "failure": "", "pid": os.getpid()}

    def metrics(self) -> bytes:
        """This process' metrics in the text format."""
        return expose(self._registry)

    def stop(self) -> None:
        """Leaves the ring; a job under way is left at its next step, and is done again by whoever owns it then."""
        self._stop.set()
        self._thread.join(STOP_S)
        for thread in list(self._works.values()):
            thread.join(STOP_S)
        self._lifecycler.stop()
        self._watcher.stop()

    def _run(self) -> None:
        self._lifecycler.start()
        self._lifecycler.replayed()  # there is nothing to be read back
        while not self._stop.is_set():
            try:
                self._tick()
            except Exception:
                log.exception("the compactor's timer failed")  # whatever it is, it must go on
            self._stop.wait(TICK_S)

    def _tick(self) -> None:
        now_ms = self._clock.now_ms()
        self._runtime.reload(now_ms)
        self._lifecycler.replayed()  # does nothing once it is ACTIVE
        view = self._watcher.view(COMPACTOR)
        mine = view.get(self._id)
        active = mine is not None and mine.state is InstanceState.ACTIVE
        with self._lock:
            self._schedule, _ = advance(self._schedule, RingSeen(view.version, active), now_ms)
            self._schedule, begun = advance(self._schedule, Tick(float(self._rng.uniform(-1, 1))), now_ms)
        for work in begun:
            thread = threading.Thread(target=self._work, args=(work,), name=f"compactor-{work.value}", daemon=True)
            self._works[work] = thread
            thread.start()

    def _work(self, work: Work) -> None:
        try:
            match work:
                case Work.COMPACT:
                    self._compactor.compact_all()
                case Work.CLEAN_UP:
                    self._compactor.cleaner.clean_all()
                case Work.LOOK_FOR_BLOCKS:
                    self._compactor.cleaner.look_for_blocks()
        except Exception:
            log.exception("a compactor's work failed", work=work.value)
        finally:
            with self._lock:
                self._schedule, _ = advance(self._schedule, Ended(work), self._clock.now_ms())
