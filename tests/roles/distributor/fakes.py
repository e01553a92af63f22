"""Ingesters, rings and limits for tests of the distributor."""

from __future__ import annotations

import asyncio
import itertools
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from prometheus_client import CollectorRegistry

from mimir_ray.clock import ManualClock
from mimir_ray.cluster.ring.lookup import RingOptions, RingView
from mimir_ray.cluster.ring.model import INGESTER, InstanceDesc, InstanceId, InstanceState, RingDesc
from mimir_ray.config.instance_limits import DistributorInstanceLimits
from mimir_ray.config.limits import Limits
from mimir_ray.config.units import Bytes
from mimir_ray.model.exemplars import ExemplarColumns
from mimir_ray.model.labels import Labels, labels_of
from mimir_ray.model.tenant import TenantId
from mimir_ray.roles.api import Refusal, WriteBatch, WriteResult
from mimir_ray.roles.distributor.config import DistributorConfig
from mimir_ray.roles.distributor.distributor import Distributor
from mimir_ray.roles.distributor.ha_tracker import HaTracker
from mimir_ray.roles.distributor.label_rules import LabelRules
from mimir_ray.roles.distributor.metrics import DistributorMetrics
from mimir_ray.wire.protobuf import RawLabel, parse_labels

NOW_MS = 1_700_000_000_000
TENANT = TenantId("team-a")
Stored = tuple[Labels, int, float]
StoredExemplar = tuple[Labels, Labels, int, float]


@dataclass
class FakeIngester:
    """Stores what it gets, as an ingester would; misbehaves as told."""

    name: str
    incarnation: int = 1
    series: list[Labels] = field(default_factory=list)
    stored: list[Stored] = field(default_factory=list)
    metadata: list[str] = field(default_factory=list)
    exemplars: list[StoredExemplar] = field(default_factory=list)
    refused: tuple[int, ...] = ()
    """Numbers of samples that `refusal` is about."""
    refused_exemplars: tuple[int, ...] = ()
    calls: list[list[WriteBatch]] = field(default_factory=list)
    forgotten: set[int] = field(default_factory=set)
    error: Exception | None = None
    """Of the whole call."""
    batch_error: Exception | None = None
    refusal: Refusal | None = None
    gate: asyncio.Event | None = None
    """Calls wait for it."""

    def restart(self) -> None:
        self.incarnation += 1
        self.series = []

    async def push(self, batches: Sequence[WriteBatch]) -> list[WriteResult]:
        self.calls.append(list(batches))
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        return [self._take(batch) for batch in batches]

    def _take(self, batch: WriteBatch) -> WriteResult:
        if self.batch_error is not None:
            return WriteResult(self.incarnation, error=self.batch_error)
        cuts = batch.label_offsets.tolist()
        references = []
        for start, end in itertools.pairwise(cuts):
            raw = parse_labels(batch.label_bytes, start, end)
            labels = tuple((name.decode(), value.decode()) for name, value in raw)
            assert labels == labels_of(labels), "not canonical"
            if labels not in self.series:
                self.series.append(labels)
            references.append(self.series.index(labels))
            self.forgotten.discard(references[-1])
        for place, at, value in zip(
            batch.new_series.tolist(), batch.new_timestamps.tolist(), batch.new_values.tolist(), strict=True
        ):
            self.stored.append((self.series[references[place]], at, value))
        self.metadata += [one.family for one in batch.metadata]
        stale = len(batch.references) > 0 and batch.incarnation != self.incarnation
        unknown = []
        if not stale:
            known = zip(batch.references.tolist(), batch.timestamps.tolist(), batch.values.tolist(), strict=True)
            for place, (reference, at, value) in enumerate(known):
                if reference in self.forgotten:
                    unknown.append(place)
                else:
                    self.stored.append((self.series[reference], at, value))
        if batch.exemplars is not None and not stale and not unknown:
            self.exemplars += exemplars_in(batch.exemplars)
        return WriteResult(
            self.incarnation,
            stale,
            np.array(references, np.int32),
            np.array(unknown, np.int32),
            (self.refusal,) if self.refusal else (),
            np.array(self.refused, np.int32),
            np.array(self.refused_exemplars, np.int32),
        )


def labels_in(data: bytes, offsets: list[int], at: int, unique: bool = True) -> Labels:
    raw = parse_labels(data, offsets[at], offsets[at + 1])
    labels = tuple((name.decode(), value.decode()) for name, value in raw)
    if unique:
        assert labels == labels_of(labels), "not canonical"
    else:
        names = [name for name, _ in labels]
        assert names == sorted(names) and all(value for _, value in labels), "not canonical"
    return labels


def exemplars_in(columns: ExemplarColumns) -> list[StoredExemplar]:
    """Labels of the series, labels of the exemplar, time, value."""
    series, own = columns.series_offsets.tolist(), columns.label_offsets.tolist()
    rows = zip(columns.series.tolist(), columns.timestamps.tolist(), columns.values.tolist(), strict=True)
    return [
        # Nobody checks that an exemplar's own labels have different names. Upstream: validateExemplar.
        (labels_in(columns.series_labels, series, of), labels_in(columns.labels, own, at, unique=False), time, value)
        for at, (of, time, value) in enumerate(rows)
    ]


def ring_of(
    names: Sequence[str],
    replication_factor: int = 1,
    version: int = 1,
    dead: Sequence[str] = (),
) -> RingView:
    """A ring of active instances with 16 tokens each; `dead` ones stopped their heartbeat."""
    instances = {}
    for name in names:
        seed = zlib.crc32(name.encode())
        tokens = np.sort(np.random.default_rng(seed).integers(0, 1 << 32, 16, dtype=np.uint32))
        instances[InstanceId(name)] = InstanceDesc(
            InstanceId(name),
            name,
            state=InstanceState.ACTIVE,
            tokens=tokens,
            heartbeat_ms=0 if name in dead else NOW_MS,
            registered_ms=1,
        )
    desc = RingDesc(INGESTER, version=version, instances=instances, as_of_ms=NOW_MS)
    return RingView(desc, RingOptions(replication_factor=replication_factor))


class Setup:
    """A distributor among fakes; `ring`, `limits` and `clock` may be changed."""

    def __init__(
        self,
        ingesters: int = 1,
        replication_factor: int = 1,
        config: DistributorConfig | None = None,
        distributors: Callable[[], int] = lambda: 1,
        ha_tracker: HaTracker | None = None,
        instance_limits: Callable[[], DistributorInstanceLimits] | None = None,
        **limits: object,
    ) -> None:
        names = [f"ingester-{at}" for at in range(ingesters)]
        self.ring = ring_of(names, replication_factor)
        self.tenant_limits = Limits(**limits)  # type: ignore[arg-type]
        self.clock = ManualClock(NOW_MS)
        self.registry = CollectorRegistry()
        self.fakes: dict[str, FakeIngester] = {name: FakeIngester(name) for name in names}
        self.distributor = Distributor(
            config or DistributorConfig(),
            self,
            lambda tenant: self.ring,
            lambda name: self.fakes.setdefault(name, FakeIngester(name)),
            self.clock,
            DistributorMetrics(self.registry),
            distributors,
            np.array([3, 5, 7, 9], np.uint64),
            instance_limits,
            ha_tracker,
            self._sleep,
        )

    @property
    def only(self) -> FakeIngester:
        (fake,) = self.fakes.values()
        return fake

    async def _sleep(self, seconds: float) -> None:
        self.clock.sleep(seconds)

    def limits(self, tenant: str) -> Limits:
        return self.tenant_limits

    def metric(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0


def canonical_labels(labels: Sequence[RawLabel], limits: Limits) -> list[RawLabel]:
    """As they are stored by a tenant with these limits."""
    return LabelRules(TENANT, limits).canonical(labels) or []


def config_with(requests_max: int = 2000, request_bytes_max: int = 0, **fields: object) -> DistributorConfig:
    return DistributorConfig(
        instance_limits=DistributorInstanceLimits(
            max_inflight_push_requests=requests_max, max_inflight_push_requests_bytes=Bytes(request_bytes_max)
        ),
        **fields,  # type: ignore[arg-type]
    )
