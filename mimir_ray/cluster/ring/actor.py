"""`RingActor`: runs `Rings` and `Elections` in a threaded actor."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from mimir_ray.clock import Clock, SystemClock
from mimir_ray.cluster.ring.elections import Elected, Elections
from mimir_ray.cluster.ring.model import InstanceDesc, InstanceId, InstanceState, Replication, RingDesc, RingName
from mimir_ray.cluster.ring.ring import RingPolicy, Rings, RingStore
from mimir_ray.telemetry.metrics import expose, on_scrape, process_registry

WATCHERS_MAX = 64
SWEEP_PERIOD_S = 2.0


class RingActor:
    """Threads for long polls and for the sweep; no decisions.

    Options: name `Address("ring", "0").actor_name`, `namespace`, lifetime="detached" (or owned by the
    launcher), `num_cpus=0`, `max_restarts=-1`, `max_task_retries=0` (callers retry by themselves with
    a deadline; Ray's own retries would hold a long poll beyond its time-out), `max_concurrency=4`,
    `concurrency_groups={"watch": WATCHERS_MAX}`. Create it through `on_ray.actor_class`, which puts
    `snapshot` and `watch` into that group: long polls then cannot keep heartbeats waiting.

    More than `watchers_max` long polls at once are answered without waiting; `RingWatcher` then slows down.
    """

    concurrency_groups: ClassVar[dict[str, str]] = {"snapshot": "watch", "watch": "watch"}

    def __init__(
        self,
        store: RingStore | None = None,
        elections_store: RingStore | None = None,
        policy: RingPolicy | None = None,
        clock: Clock | None = None,
        watchers_max: int = WATCHERS_MAX - 4,
        sweep_period_s: float = SWEEP_PERIOD_S,
    ) -> None:
        self._rings = Rings(clock if clock is not None else SystemClock(), store, policy)
        self._waiting = threading.BoundedSemaphore(watchers_max)
        self._stop = threading.Event()
        self._registry = process_registry()
        on_scrape(self._registry, self._members)
        self._elections = Elections(clock if clock is not None else SystemClock(), elections_store, self._registry)
        if sweep_period_s > 0:
            threading.Thread(target=self._sweep, args=(sweep_period_s,), name="ring-sweep", daemon=True).start()

    def register(self, ring: RingName, desc: InstanceDesc) -> InstanceDesc:
        return self._rings.register(ring, desc)

    def heartbeat(self, ring: RingName, desc: InstanceDesc) -> None:
        self._rings.heartbeat(ring, desc)

    def set_state(self, ring: RingName, instance: InstanceId, state: InstanceState, incarnation: int) -> None:
        self._rings.set_state(ring, instance, state, incarnation)

    def set_read_only(self, ring: RingName, instance: InstanceId, read_only: bool) -> None:
        self._rings.set_read_only(ring, instance, read_only)

    def unregister(self, ring: RingName, instance: InstanceId, incarnation: int) -> None:
        self._rings.unregister(ring, instance, incarnation)

    def plan_removal(self, ring: RingName, instance: InstanceId) -> None:
        self._rings.plan_removal(ring, instance)

    def set_drained(self, ring: RingName, instance: InstanceId) -> None:
        self._rings.set_drained(ring, instance)

    def recall(self, ring: RingName, instances: Sequence[InstanceDesc], replication: Replication | None = None) -> None:
        self._rings.recall(ring, instances, replication)

    def forget(self, ring: RingName, instance: InstanceId) -> None:
        self._rings.forget(ring, instance)

    def sweep(self) -> None:
        self._rings.sweep()
        self._elections.sweep()

    def ha_claim(self, tenant: str, cluster: str, replica: str, failover_ms: int, clusters_max: int) -> Elected:
        return self._elections.claim(tenant, cluster, replica, failover_ms, clusters_max)

    def ha_records(self) -> dict[str, dict[str, Elected]]:
        return self._elections.records()

    def snapshot(self, ring: RingName, known_version: int = -1, timeout_s: float = 0.0) -> RingDesc:
        return self.watch({ring: known_version}, timeout_s)[ring]

    def watch(self, known: Mapping[RingName, int], timeout_s: float = 0.0) -> dict[RingName, RingDesc]:
        if timeout_s <= 0 or not self._waiting.acquire(blocking=False):
            return self._rings.watch(known)
        try:
            return self._rings.watch(known, timeout_s)
        finally:
            self._waiting.release()

    def metrics(self) -> bytes:
        """This process' metrics in the text format: members of every ring by state, and the process itself."""
        return expose(self._registry)

    def _members(self) -> Iterable[Metric]:
        family = GaugeMetricFamily("cortex_ring_members", "Instances by state.", labels=("name", "state"))
        copies = GaugeMetricFamily(
            "mimir_ray_ring_replication_factor",
            "Copies that writes make, where that is automatic. Ours.",
            labels=("name",),
        )
        missing = GaugeMetricFamily(
            "mimir_ray_ring_tolerated_failures",
            "Machines, or zones, that reads may leave out, where the replication factor is automatic. Ours.",
            labels=("name",),
        )
        for ring, desc in self._rings.watch(dict.fromkeys(self._rings.versions(), -1)).items():
            counts = Counter(str(one.state) for one in desc.instances.values())
            for state, count in sorted(counts.items()):
                family.add_metric((ring, state), count)
            if desc.replication is not None:
                copies.add_metric((ring,), desc.replication.factor)
                missing.add_metric((ring,), desc.replication.failures_max)
        yield from (family, copies, missing)

    def close(self) -> None:
        self._stop.set()
        self._rings.close()

    def _sweep(self, period_s: float) -> None:
        while not self._stop.wait(period_s):
            self.sweep()
