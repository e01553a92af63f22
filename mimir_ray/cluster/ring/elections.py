"""Which replica of each HA pair of senders is listened to. `claim` decides, `Elections` keeps the records of a cluster.

One process holds them (the ring actor), so a claim is atomic and every distributor hears the same. A record is
refreshed every `update_timeout` by whoever takes its replica's samples; another replica is elected once the record is
older than `failover_timeout`, which is the longer of the two: a distributor that goes by a record it has seen within
the update timeout cannot be contradicted by an election.

Elections are saved at once, refreshes with the next sweep. After a restart every elected replica has a whole failover
timeout to speak up. All times are this process'. Upstream: pkg/distributor/ha_tracker.go.
"""

from __future__ import annotations

import json
import threading
from dataclasses import asdict, dataclass, replace
from typing import ClassVar

from prometheus_client import CollectorRegistry, Counter

from mimir_ray.clock import Clock
from mimir_ray.cluster.ring.ring import MemoryStore, RingStore
from mimir_ray.errors import Corruption, LimitExceeded

FORMAT = 1
FORGET_AFTER_MS = 30 * 60_000
"""Pairs that were silent for so long are forgotten. Upstream: deletionTimeout."""


@dataclass(frozen=True, slots=True)
class Elected:
    """`received_ms`: when its samples were last noted; `elected_ms`: since when it is listened to; `changes`: how often
    another replica was elected before."""

    replica: str
    received_ms: int
    elected_ms: int
    changes: int = 0


@dataclass(eq=False)
class TooManyHaClusters(LimitExceeded):
    """The tenant has as many HA pairs as it may."""

    id: ClassVar[str] = "tenant-too-many-ha-clusters"
    flags: ClassVar[tuple[str, ...]] = ("distributor.ha-tracker.max-clusters",)
    allowed: int

    def describe(self) -> str:
        return (
            "the write request has been rejected because the maximum number of high-availability (HA) clusters has "
            f"been reached for this tenant (limit: {self.allowed})"
        )


def claim(record: Elected | None, replica: str, now_ms: int, failover_ms: int) -> Elected:
    """The record of a pair after `replica` sent samples."""
    if record is None:
        return Elected(replica, now_ms, now_ms)
    if record.replica == replica:
        return replace(record, received_ms=max(record.received_ms, now_ms))
    if now_ms - record.received_ms >= failover_ms:
        return Elected(replica, now_ms, now_ms, record.changes + 1)
    return record


class Elections:
    """Tenant → cluster → record. Every method may be called from any thread."""

    def __init__(self, clock: Clock, store: RingStore | None = None, registry: CollectorRegistry | None = None) -> None:
        self._clock = clock
        self._store = store if store is not None else MemoryStore()
        self._lock = threading.Lock()
        self._dirty = False
        saved = self._store.load()
        self._records = {} if saved is None else decode(saved, clock.now_ms())

        def counter(name: str, text: str) -> Counter:
            return Counter(name, text, registry=registry)

        self._cleanups = counter("cortex_ha_tracker_replicas_cleanup_started", "Searches for pairs that went silent.")
        self._deleted = counter("cortex_ha_tracker_replicas_cleanup_deleted", "Pairs forgotten since they went silent.")
        self._failed = counter("cortex_ha_tracker_store_failures", "Times that elections could not be saved.")

    def claim(self, tenant: str, cluster: str, replica: str, failover_ms: int, clusters_max: int) -> Elected:
        """Notes samples of a replica, elects it if it may be; whoever is elected now. `clusters_max`: 0 is any number.

        Raises `TooManyHaClusters` for a cluster that is not known.
        """
        with self._lock:
            clusters = self._records.get(tenant, {})
            before = clusters.get(cluster)
            if before is None and clusters_max and len(clusters) >= clusters_max:
                raise TooManyHaClusters(clusters_max)
            now = claim(before, replica, self._clock.now_ms(), failover_ms)
            if now != before:
                self._records.setdefault(tenant, {})[cluster] = now
                self._dirty = True
                if before is None or before.replica != now.replica:
                    self._save()
            return now

    def records(self) -> dict[str, dict[str, Elected]]:
        with self._lock:
            return {tenant: dict(clusters) for tenant, clusters in self._records.items()}

    def sweep(self) -> None:
        """To be called every few seconds: forgets who went silent, saves what is not saved."""
        with self._lock:
            self._cleanups.inc()
            oldest = self._clock.now_ms() - FORGET_AFTER_MS
            for tenant, clusters in list(self._records.items()):
                silent = [cluster for cluster, record in clusters.items() if record.received_ms < oldest]
                for cluster in silent:
                    del clusters[cluster]
                if silent:
                    self._deleted.inc(len(silent))
                    self._dirty = True
                if not clusters:
                    del self._records[tenant]
            if self._dirty:
                self._save()

    def _save(self) -> None:
        try:
            self._store.save(encode(self._records))
            self._dirty = False
        except OSError:
            self._failed.inc()  # a full disk must not stop writes; `sweep` tries again


def encode(records: dict[str, dict[str, Elected]]) -> bytes:
    saved = {tenant: {name: asdict(one) for name, one in clusters.items()} for tenant, clusters in records.items()}
    return json.dumps({"format": FORMAT, "elected": saved}).encode()


def decode(data: bytes, now_ms: int) -> dict[str, dict[str, Elected]]:
    """The inverse, as if all had been received now. Raises `Corruption`."""
    try:
        state = json.loads(data)
        if state["format"] != FORMAT:
            raise Corruption(f"saved elections have format {state['format']}, expected {FORMAT}")
        return {
            str(tenant): {
                str(cluster): Elected(str(one["replica"]), now_ms, int(one["elected_ms"]), int(one["changes"]))
                for cluster, one in clusters.items()
            }
            for tenant, clusters in state["elected"].items()
        }
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise Corruption(f"saved elections cannot be read: {error!r}") from error
