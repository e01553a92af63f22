"""Specs → Ray actors. The only place that turns plain classes into actors and tasks."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import ray

from mimir_ray.cluster.ring.actor import RingActor
from mimir_ray.cluster.ring.factor import AutomaticFactor
from mimir_ray.cluster.ring.model import INGESTER
from mimir_ray.cluster.ring.persistence import FileStore
from mimir_ray.cluster.ring.ring import RingPolicy
from mimir_ray.cluster.transport.base import NAMESPACE, RING, Address
from mimir_ray.cluster.transport.on_ray import RayTransport, actor_class
from mimir_ray.config.overrides import RuntimeDefaults
from mimir_ray.deploy.compose import composed
from mimir_ray.deploy.ingesters import RING_FILE, directory_of
from mimir_ray.deploy.placement import Place
from mimir_ray.deploy.settings import Settings
from mimir_ray.deploy.shard_tasks import RayShardTasks
from mimir_ray.deploy.topology import ActorSpec, topology
from mimir_ray.gateway.actor import GatewayActor, GatewaySpec, Peer
from mimir_ray.kernel import load_imported
from mimir_ray.model import regex_automaton  # noqa: F401  (its kernel is loaded with the others)
from mimir_ray.promql.engine import EngineOptions
from mimir_ray.roles.compactor.actor import CompactorActor, CompactorSpec
from mimir_ray.roles.ingester.actor import IngesterActor, IngesterSpec, ring_options
from mimir_ray.roles.scraper.ray_targets import targets_of_file, targets_of_nodes
from mimir_ray.roles.scraper.scraper import Target
from mimir_ray.roles.store_gateway.actor import StoreGatewayActor, StoreGatewaySpec
from mimir_ray.telemetry import logging

_BUSY = ("gateway", "ingester")
"""Roles whose kernels are loaded at the start, 80 MB a process; others load theirs when there is something to do."""


@dataclass(frozen=True, slots=True)
class ProcessSetUp:
    """What every process of ours does first."""

    settings: Settings
    home: Address | None = None
    """The actor that the role shares with others; its name is in the logs then."""

    def __call__(self, name: str) -> None:
        component, _, instance = (self.home.actor_name if self.home else name).partition("/")
        server = self.settings.server
        logging.configure(server.log_level, server.log_format, sys.stderr, component=component, instance=instance)
        if component in _BUSY:
            load_imported()


def engine_options(settings: Settings) -> EngineOptions:
    querier = settings.querier
    return EngineOptions(
        lookback_ms=querier.lookback_delta.ms,
        default_step_ms=querier.default_evaluation_interval.ms,
        max_samples=querier.max_samples,
        timeout_s=querier.timeout.seconds,
    )


def runtime_defaults(settings: Settings) -> RuntimeDefaults:
    return RuntimeDefaults(settings.limits, settings.distributor.instance_limits, settings.ingester.instance_limits)


def create(
    spec: ActorSpec, settings: Settings, runtime_env: dict[str, Any] | None = None, where: Place | None = None
) -> Any:
    """Creates one actor (or finds it, where it is already there); returns its handle. `where`: None is anywhere."""
    if where is not None and where.port_offset and settings.server.http_listen_port:
        port = settings.server.http_listen_port + where.port_offset
        settings = replace(settings, server=replace(settings.server, http_listen_port=port))
    kind, arguments = _kind(spec, settings)
    options = {**spec.options(), "namespace": NAMESPACE, "get_if_exists": True, **(where.options() if where else {})}
    if runtime_env:
        options["runtime_env"] = runtime_env
    # `concurrency_groups` has to be known to the class, everything else to the actor
    groups = options.pop("concurrency_groups", None)
    remote = actor_class(kind, num_cpus=0, **({"concurrency_groups": groups} if groups else {}))
    return remote.options(**options).remote(*arguments)


def _kind(spec: ActorSpec, settings: Settings) -> tuple[type, tuple[Any, ...]]:
    """The class of an actor, and what it is made with."""
    if not spec.hosts:
        return _KINDS[spec.address.role](spec, settings)
    shells = [(one.address.actor_name, *_KINDS[one.address.role](one, settings)) for one in spec.hosts]
    return composed({name: kind for name, kind, _ in shells}), tuple(arguments for _, _, arguments in shells)


def _ring(spec: ActorSpec, settings: Settings) -> tuple[type, tuple[Any, ...]]:
    ring = settings.ingester.ring
    forget = {**RingPolicy().forget_after_periods, INGESTER: ring.auto_forget_unhealthy_periods}
    automatic = {}
    if ring.replication_factor == 0:
        kept_ms = settings.blocks_storage.tsdb.retention_period.ms
        automatic[INGESTER] = AutomaticFactor(spec.copies, ring.zone_awareness_enabled, kept_ms)
    policy = RingPolicy(ring.heartbeat_timeout.ms, forget, automatic)
    return RingActor, (FileStore(settings.root / RING_FILE), FileStore(settings.root / "ha-tracker.json"), policy)


def _ingester(spec: ActorSpec, settings: Settings) -> tuple[type, tuple[Any, ...]]:
    about = IngesterSpec(
        instance=spec.address.instance,
        zone=spec.zone,
        directory=directory_of(settings, spec.address.instance),
        ingester=settings.ingester,
        tsdb=settings.blocks_storage.tsdb,
        runtime=settings.runtime_config,
        defaults=runtime_defaults(settings),
        bucket=settings.blocks_bucket,
        number_in_zone=int(spec.address.instance) // len(settings.deploy.zones),
        machine=spec.machine,
    )
    return IngesterActor, (about, RayTransport(), ProcessSetUp(settings))


def _compactor(spec: ActorSpec, settings: Settings) -> tuple[type, tuple[Any, ...]]:
    about = CompactorSpec(
        instance=spec.address.instance,
        address=(spec.home or spec.address).actor_name,
        zone=spec.zone,
        directory=settings.compactor_dir / f"compactor-{spec.address.instance}",
        bucket=settings.blocks_bucket,
        compactor=settings.compactor,
        runtime=settings.runtime_config,
        defaults=runtime_defaults(settings),
    )
    return CompactorActor, (about, RayTransport(), ProcessSetUp(settings, spec.home))


def _store_gateway(spec: ActorSpec, settings: Settings) -> tuple[type, tuple[Any, ...]]:
    about = StoreGatewaySpec(
        instance=spec.address.instance,
        home=spec.home or spec.address,
        zone=spec.zone,
        directory=settings.sync_dir / f"store-gateway-{spec.address.instance}",
        bucket=settings.blocks_bucket,
        bucket_store=settings.blocks_storage.bucket_store,
        gateway=settings.store_gateway,
        runtime=settings.runtime_config,
        defaults=runtime_defaults(settings),
    )
    return StoreGatewayActor, (about, RayTransport(), ProcessSetUp(settings, spec.home))


def _gateway(spec: ActorSpec, settings: Settings) -> tuple[type, tuple[Any, ...]]:
    about = GatewaySpec(
        instance=spec.address.instance,
        settings=settings,
        defaults=Settings(),
        ring=ring_options(settings.ingester),
        runtime_defaults=runtime_defaults(settings),
        engine=engine_options(settings),
        peers=tuple(Peer(one.address, one.roles) for one in topology(settings) if one.address != spec.address),
    )
    return GatewayActor, (
        about,
        RayTransport(),
        RayShardTasks(RayTransport()),
        partial(_ray_targets, settings.scraper.sd_file),
        ProcessSetUp(settings),
    )


def _ray_targets(sd_file: str) -> list[Target]:
    """Called in the gateway's process."""
    return [*targets_of_nodes(ray.nodes()), *(targets_of_file(Path(sd_file)) if sd_file else [])]


_KINDS: dict[str, Callable[[ActorSpec, Settings], tuple[type, tuple[Any, ...]]]] = {
    RING.role: _ring,
    "ingester": _ingester,
    "compactor": _compactor,
    "store-gateway": _store_gateway,
    "gateway": _gateway,
}
