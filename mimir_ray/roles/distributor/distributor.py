"""`Distributor`: takes write requests, sees that they are sound, and has enough ingesters store them.

A request is scanned once into columns (wire/write_scan.py), by whoever knows its protocol. Series that were seen before
are recognised by hash and need no look at their labels; new ones are validated and get their ring token (admission.py).
Each ingester of a replica set gets one batch of columns (delivery.py). The answer comes when every series has its
quorum.

Order of checks: instance limits, request rate, HA pairs, validation, ingestion rate, write. Sound samples of a request
are written even where others are refused; the first refusal is the answer then.
Upstream: pkg/distributor/distributor.go wrapPushWithMiddlewares, prePushValidationMiddleware, push.
"""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mimir_ray.clock import Clock
from mimir_ray.cluster.ring.lookup import RingView
from mimir_ray.config.instance_limits import DistributorInstanceLimits
from mimir_ray.config.limits import Limits
from mimir_ray.encoding.hashing import hash_seeds
from mimir_ray.errors import ClientError, MimirRayError, Unavailable
from mimir_ray.model.boxed import is_boxed
from mimir_ray.model.exemplars import LABELS_RUNES_MAX
from mimir_ray.model.tenant import TenantId
from mimir_ray.roles.distributor import errors
from mimir_ray.roles.distributor.admission import Admission, Refused
from mimir_ray.roles.distributor.config import DistributorConfig
from mimir_ray.roles.distributor.delivery import Delivery
from mimir_ray.roles.distributor.first_series import About, FirstSeries
from mimir_ray.roles.distributor.ha_tracker import HaTracker
from mimir_ray.roles.distributor.histograms import Refusals, admit_histograms
from mimir_ray.roles.distributor.ingester_queue import IngesterClient
from mimir_ray.roles.distributor.label_rules import FORMS, USUAL, Form, LabelRules, decisive
from mimir_ray.roles.distributor.metadata import SentFamilies
from mimir_ray.roles.distributor.metrics import DistributorMetrics, TenantMetrics
from mimir_ray.roles.distributor.rate_limit import EwmaRate, TokenBucket
from mimir_ray.roles.distributor.request import PreparedWrite
from mimir_ray.roles.distributor.series_cache import SeriesCache
from mimir_ray.roles.distributor.tally import Tally
from mimir_ray.roles.distributor.validation import token_seed
from mimir_ray.wire.exemplars import ExemplarScan, read_exemplars
from mimir_ray.wire.remote_write import scan_write_request
from mimir_ray.wire.write_scan import HashKey, WriteScan


class TenantLimits(Protocol):
    """Who knows the limits of tenants: config.overrides.RuntimeConfig."""

    def limits(self, tenant: str) -> Limits: ...


Scanner = Callable[[bytes, HashKey], WriteScan]
"""Reads a request of one protocol. Raises a `ClientError` for what cannot be read."""


@dataclass(frozen=True, slots=True)
class Written:
    """How many floats, histograms and exemplars of a request were stored."""

    samples: int = 0
    histograms: int = 0
    exemplars: int = 0


@dataclass(frozen=True, slots=True)
class PushOutcome:
    """What became of a request. With an `error`, the samples counted may be stored nevertheless.

    `samples`, `metadata`: passed validation and the rate limits. `written`: what a sender may count on. `delay_s`: for
    so long the answer was held back; None: the tenant's answers are not.
    """

    samples: int = 0
    metadata: int = 0
    error: MimirRayError | None = None
    written: Written = field(default=Written(), compare=False)
    delay_s: float | None = field(default=None, compare=False)


@dataclass(slots=True)
class _Tenant:
    cache: SeriesCache
    limits: Limits
    decisive: tuple[Any, ...]
    token_seed: int
    metrics: TenantMetrics
    rules: dict[Form, LabelRules] = field(default_factory=dict)
    first: FirstSeries = field(default_factory=FirstSeries)
    refused: Refused = field(default_factory=dict)
    families: SentFamilies = field(default_factory=SentFamilies)
    requests: TokenBucket = field(default_factory=TokenBucket)
    items: TokenBucket = field(default_factory=TokenBucket)


class Distributor:
    """Belongs to one event loop; every method is called in it."""

    def __init__(
        self,
        config: DistributorConfig,
        limits: TenantLimits,
        ring: Callable[[TenantId], RingView],
        clients: Callable[[str], IngesterClient],
        clock: Clock,
        metrics: DistributorMetrics,
        distributors: Callable[[], int] = lambda: 1,
        hash_key: NDArray[np.uint64] | None = None,
        instance_limits: Callable[[], DistributorInstanceLimits] | None = None,
        ha_tracker: HaTracker | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """
        Args:
            ring: the newest view of the ingesters that a tenant's series may go to. Views of one tenant with equal
                versions must have equal owners.
            clients: how to reach the ingester of this id.
            distributors: how many healthy distributors share the tenants' rates.
            hash_key: uint64[4]; random if not given.
            instance_limits: those in force; if not given, those of `config`.
            ha_tracker: who decides between replicas of HA pairs; without one all are taken.
            sleep: how answers are held back.
        """
        self._config = config
        self._limits = limits
        self._ring = ring
        self._clock = clock
        self._metrics = metrics
        self._distributors = distributors
        self._delivery = Delivery(config, clients, metrics)
        seeds = (hash_key if hash_key is not None else hash_seeds()).tolist()
        self._hash_key: tuple[int, int, int, int] = (seeds[0], seeds[1], seeds[2], seeds[3])
        # Series are other ones to the cache when their labels are treated in another way.
        self._salts = np.frombuffer(os.urandom(16 * FORMS), np.uint64).reshape(FORMS, 2)
        self._instance_limits = instance_limits or (lambda: config.instance_limits)
        self._ha_tracker = ha_tracker
        self._sleep = sleep
        self._ingestion_rate = EwmaRate()
        self._tenants: OrderedDict[TenantId, _Tenant] = OrderedDict()
        self._inflight = 0
        self._inflight_bytes = 0
        for name in ("max_inflight_push_requests", "max_inflight_push_requests_bytes", "max_ingestion_rate"):
            metrics.instance_limits.labels(name).set_function(lambda name=name: getattr(self._instance_limits(), name))
        metrics.ingestion_rate.set_function(lambda: self._ingestion_rate.rate(clock.monotonic_s()))

    async def push(
        self,
        tenant: TenantId,
        body: bytes,
        scanner: Scanner = scan_write_request,
        version: str = "1.0",
        form: Form = USUAL,
    ) -> PushOutcome:
        """Writes a decompressed request, by default a prometheus.WriteRequest.

        Whatever is wrong with it is the outcome's `error`. `version`: the protocol, for the metrics. `form`: which
        checks the sender asks to skip.

        Errors: `MalformedProtobuf`, those of errors.py, and of cluster.ring.replication (`EmptyRing`,
        `TooFewLiveReplicas`).
        """
        began_s = self._clock.monotonic_s()
        refused = self._over_instance_limits(len(body))
        if refused is not None:
            self._metrics.instance_rejected.labels(refused.id.replace("-", "_")).inc()
            return PushOutcome(error=refused)
        self._count_inflight(1, len(body))
        try:
            outcome = await self._push(tenant, body, scanner, version, form)
        except MimirRayError as error:
            outcome = PushOutcome(error=error)
        finally:
            self._count_inflight(-1, -len(body))
        held_back = self._limits.limits(tenant).ingestion_artificial_delay
        if held_back > 0:
            delay_s = max(0.0, held_back.seconds - (self._clock.monotonic_s() - began_s))
            await self._sleep(delay_s)
            outcome = replace(outcome, delay_s=delay_s)
        return outcome

    def age(self) -> None:
        """Lets go of series that nobody sends any more; to be called every ten minutes or so."""
        ingesters: set[str] = set()
        for name, tenant in self._tenants.items():
            tenant.cache.age()
            self._metrics.cached_series.labels(name).set(len(tenant.cache))
            ingesters.update(tenant.cache.instances)
        self._delivery.prune(ingesters)

    def forget(self, tenant: TenantId) -> None:
        """Forgets a tenant: its series, its rates, its metrics."""
        if self._tenants.pop(tenant, None):
            self._metrics.forget_tenant(tenant)

    def discard(self, tenant: TenantId, reason: str, samples: int) -> None:
        """Counts samples that were refused before they came here."""
        self._metrics.discarded_samples.labels(tenant, "", reason).inc(samples)

    async def drain(self) -> None:
        """Returns when nothing is under way to ingesters any more."""
        await self._delivery.drain()

    async def _push(self, tenant: TenantId, body: bytes, scanner: Scanner, version: str, form: Form) -> PushOutcome:
        limits = self._limits.limits(tenant)
        state = self._tenant(tenant, limits)
        # These belong to the limits: should those change while this request waits, others go on with new ones.
        cache, rules_of, refused = state.cache, state.rules, state.refused
        state.metrics.requests_in[version].inc()
        state.metrics.body_bytes.observe(len(body))
        self._check_request_rate(tenant, state, limits)
        scan = scanner(body, self._hash_key)
        now_s = self._clock.monotonic_s()
        if scan.families is not None:
            scan.metadata += scan.read_families(state.families.due(scan.families.keys, now_s))
        self._count_scan(state, scan)
        tracker = self._ha_tracker if limits.accept_ha_samples else None
        about = state.first.about(scan, limits, tracker is not None)
        if tracker is not None and len(scan):
            try:
                form = await self._dedupe(tracker, state, scan, about, limits, form)
            except errors.ReplicasDidNotMatch as error:
                # The elected replica sends the same: to the sender it is written.
                return PushOutcome(error=error, written=Written(scan.samples, scan.histograms, scan.exemplars))
        refusals: Refusals = []
        if scan.histograms and limits.native_histograms_ingestion_enabled:
            scan, refusals = admit_histograms(scan, limits)
        now_ms = self._clock.now_ms()
        exemplars: ExemplarScan | None = None
        if scan.exemplars and limits.max_global_exemplars_per_user:
            exemplars = scan.own_exemplars(LABELS_RUNES_MAX) or read_exemplars(scan, LABELS_RUNES_MAX)
        if form.number:
            low, high = self._salts[form.number]
            scan.hash_low, scan.hash_high = scan.hash_low ^ low, scan.hash_high ^ high
        rules = rules_of.get(form)
        if rules is None:
            rules = rules_of[form] = LabelRules(tenant, limits, form)
        admission = Admission(
            tenant, state.token_seed, cache, refused, rules, about.group, now_ms, self._metrics, scan, exemplars
        )
        await admission.judge()
        admission.refuse_histograms(refusals)
        # From here to the write nobody else has a turn: ring, cache and ids belong together.
        view = self._ring(tenant)
        self._use_ring(cache, view)
        write = admission.prepare(view.owners)
        samples, families = len(write.timestamps), len(write.metadata)
        some = 0 if write.exemplars is None else len(write.exemplars)
        if samples + families + some == 0:
            return PushOutcome(error=admission.error, written=Written(admission.ignored))
        self._check_ingestion_rate(tenant, about.group, state, limits, samples + families + some)
        self._ingestion_rate.add(samples + families + some, now_s)
        state.metrics.received_requests.inc()
        state.metrics.received_samples.inc(samples)
        state.metrics.received_metadata.inc(families)
        if some:
            state.metrics.received_exemplars.inc(some)
        tally = Tally.of(write)
        error = await self._delivery.write(write, cache, view, tally)
        if error is None and scan.families is not None:
            state.families.sent(scan.families.keys, now_s)
        written = Written() if isinstance(error, Unavailable) else _written(write, tally, admission.ignored)
        return PushOutcome(samples, families, error or admission.error, written)

    def _tenant(self, name: TenantId, limits: Limits) -> _Tenant:
        state = self._tenants.get(name)
        series_max = self._config.series_cache_series_max
        if state is None:
            if len(self._tenants) >= self._config.tenants_max:
                self.forget(next(iter(self._tenants)))
            seed, metrics = token_seed(name), TenantMetrics(self._metrics, name)
            state = self._tenants[name] = _Tenant(SeriesCache(series_max), limits, decisive(limits), seed, metrics)
        elif state.limits is not limits:
            before, state.limits, state.decisive = state.decisive, limits, decisive(limits)
            state.rules = {}
            if state.decisive != before:
                # What was sound under other rules may not be now.
                state.cache, state.refused = SeriesCache(series_max), {}
        self._tenants.move_to_end(name)
        return state

    def _use_ring(self, cache: SeriesCache, view: RingView) -> None:
        if cache.ring_version != view.version:
            names = tuple(one.id for one in view.instances)
            cache.use_ring(view.version, names, view.owners(cache.tokens[: len(cache)]))
            self._metrics.replication_factor.set(view.replication_factor)

    def _count_scan(self, state: _Tenant, scan: WriteScan) -> None:
        metrics = state.metrics
        metrics.samples_in.inc(scan.samples + scan.histograms)
        if scan.latest:
            metrics.latest_timestamp.set(scan.latest / 1000)
        if scan.metadata:
            metrics.metadata_in.inc(len(scan.metadata))
        if scan.exemplars:
            metrics.exemplars_in.inc(scan.exemplars)

    async def _dedupe(
        self, tracker: HaTracker, state: _Tenant, scan: WriteScan, about: About, limits: Limits, form: Form
    ) -> Form:
        """The form of a request that is to be taken. Raises what is wrong with its HA pair."""
        tenant, samples = state.metrics.tenant, scan.samples + scan.histograms
        if not about.cluster or not about.replica:
            state.metrics.non_ha_samples.inc(samples)
            return form
        try:
            await tracker.check(tenant, about.cluster, about.replica, limits)
        except errors.ReplicasDidNotMatch:
            self._metrics.deduped_samples.labels(tenant, about.cluster).inc(samples)
            raise
        except ClientError as error:
            reason = errors.discard_reason(error)
            self._metrics.discarded_samples.labels(tenant, about.group, reason).inc(samples)
            raise
        return replace(form, one_replica=True)

    def _check_request_rate(self, tenant: TenantId, state: _Tenant, limits: Limits) -> None:
        if limits.request_rate <= 0:
            return
        rate = limits.request_rate / max(1, self._distributors())
        if not state.requests.take(1, rate, limits.request_burst_size, self._clock.monotonic_s()):
            self._metrics.discarded_requests.labels(tenant, "rate_limited").inc()
            raise _rate_limited(errors.RequestRateLimited(limits.request_rate, limits.request_burst_size), limits)

    def _check_ingestion_rate(self, tenant: TenantId, group: str, state: _Tenant, limits: Limits, items: int) -> None:
        """All or nothing: a request over the rate is refused whole."""
        rate = limits.ingestion_rate / max(1, self._distributors())
        burst = limits.ingestion_burst_size
        if limits.ingestion_burst_factor > 0:
            burst = int(rate * limits.ingestion_burst_factor)
        if state.items.take(items, rate, burst, self._clock.monotonic_s()):
            return
        self._metrics.discarded_samples.labels(tenant, group, "rate_limited").inc(items)
        if items > burst:
            raise _rate_limited(errors.IngestionBurstLimited(burst, items), limits)
        raise _rate_limited(errors.IngestionRateLimited(limits.ingestion_rate, burst), limits)

    def _over_instance_limits(self, size: int) -> Unavailable | None:
        limits = self._instance_limits()
        if limits.max_inflight_push_requests and self._inflight >= limits.max_inflight_push_requests:
            return errors.TooManyInflightRequests()
        rate_max = limits.max_ingestion_rate
        if rate_max and self._ingestion_rate.rate(self._clock.monotonic_s()) >= rate_max:
            return errors.InstanceIngestionRateReached()
        bytes_max = limits.max_inflight_push_requests_bytes
        if bytes_max and self._inflight_bytes + size > bytes_max:
            return errors.TooManyInflightBytes()
        return None

    def _count_inflight(self, requests: int, size: int) -> None:
        self._inflight += requests
        self._inflight_bytes += size
        self._metrics.inflight.set(self._inflight)
        self._metrics.inflight_bytes.set(self._inflight_bytes)


def _rate_limited(error: errors.RateLimited, limits: Limits) -> errors.RateLimited:
    error.overloaded = limits.service_overload_status_code_on_rate_limit_enabled
    return error


def _written(write: PreparedWrite, tally: Tally, ignored: int) -> Written:
    stored = tally.stored_samples()
    if write.histograms is None:
        return Written(int(stored.sum()) + ignored, 0, int(tally.stored_exemplars().sum()))
    boxed = is_boxed(write.values)
    return Written(
        int((stored & ~boxed).sum()) + ignored, int((stored & boxed).sum()), int(tally.stored_exemplars().sum())
    )
