"""Creates the actors of a deployment and waits for them, in a process that then ends.

It imports every role; the process that stays in the foreground (launch.py) imports none. What it tells: told.py.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import ray

from mimir_ray.clock import SystemClock
from mimir_ray.cluster.ring.model import INGESTER
from mimir_ray.cluster.transport.base import NAMESPACE, RING, Address, Client
from mimir_ray.cluster.transport.on_ray import RayTransport
from mimir_ray.deploy import actors
from mimir_ray.deploy.ingesters import Needed, how_many, indexes, instance, of_one_machine, on_disk, with_ingesters
from mimir_ray.deploy.local_ray import join
from mimir_ray.deploy.placement import Place, located
from mimir_ray.deploy.placements import Placements, ingesters_wanted, runtime_env
from mimir_ray.deploy.settings import Settings
from mimir_ray.deploy.told import tell
from mimir_ray.deploy.topology import ActorSpec, topology
from mimir_ray.errors import MimirRayError, Unavailable

CREATE_TIMEOUT_S = 180.0
READY_TIMEOUT_S = 600.0
FAILED_TIMEOUT_S = 30.0
ADDRESS_TIMEOUT_S = 30.0
STATUS_TIMEOUT_S = 10.0


def create(settings: Settings, address: str, ours: bool) -> int:
    """`ours`: whether the Ray at the address is. Returns the exit status: 0 when the ring and the gateway answer."""
    join(address)
    error = create_all(settings, ours) or wait_until_ready()
    if error:
        tell(error=error)
    return 1 if error else 0


def create_all(settings: Settings, ours: bool) -> str:
    """Creates all actors; returns what went wrong, or ""."""
    try:
        specs = _create_all(settings, ours)
    except (MimirRayError, OSError) as failure:
        return str(failure)
    tell(say=f"{len(specs)} actors in namespace {NAMESPACE}: {', '.join(spec.address.actor_name for spec in specs)}.")
    return ""


def _create_all(settings: Settings, ours: bool) -> list[ActorSpec]:
    now_ms = SystemClock().now_ms()
    earlier = of_one_machine(settings, now_ms) if ours else Needed(on_disk(settings, now_ms))
    wanted = ingesters_wanted(settings)
    plan = _plan(settings, how_many(settings.deploy.ingesters, wanted, earlier.with_samples))
    handle = _create(plan, plan.specs[0])
    _wait_for(plan.specs[0], handle)
    ring = RayTransport().client(RING)
    if ours:
        for index in earlier.idle:
            if index >= plan.settings.deploy.ingesters:
                leave(ring, index)
    else:  # its file is on another machine, and so are the ingesters' disks
        members = indexes(ring.call("snapshot", INGESTER, timeout_s=STATUS_TIMEOUT_S).instances)
        plan = _plan(settings, how_many(settings.deploy.ingesters, wanted, earlier.with_samples | members))
    # Those that are no gateways say in their status how they come up.
    handles = [(spec, _create(plan, spec)) for spec in plan.specs[1:]]
    for spec, handle in handles:
        if spec.address.role == "gateway":
            _wait_for(spec, handle)
    return plan.specs


@dataclass(frozen=True, slots=True)
class _Plan:
    """`specs`: the ring first. `settings`: with the number of ingesters."""

    settings: Settings
    specs: list[ActorSpec]
    places: dict[str, Place]


def _plan(settings: Settings, count: int) -> _Plan:
    settings = with_ingesters(settings, count)
    specs = topology(settings)
    places = Placements(settings.root).place(specs)
    return _Plan(settings, located(specs, places, settings.ingester.ring.zone_awareness_enabled), places)


def _create(plan: _Plan, spec: ActorSpec) -> Any:
    tell(step=f"starting {spec.address.actor_name}")
    return actors.create(spec, plan.settings, runtime_env(), plan.places.get(spec.address.actor_name))


def leave(ring: Client, index: int) -> None:
    """Takes an ingester that is not started any more, and has nothing that others would need, out of the ring."""
    name = instance(index)
    for step in ("plan_removal", "set_drained", "forget"):
        ring.call(step, INGESTER, name, timeout_s=STATUS_TIMEOUT_S)
    tell(say=f"{name} has no samples of its own any more and has left the ring.")


def wait_until_ready() -> str:
    """Returns when `/ready` would say so; what went wrong, or ""."""
    gateway = ray.get_actor(Address("gateway", "0").actor_name, namespace=NAMESPACE)
    began = time.monotonic()
    while reasons := _not_ready(gateway):
        waited_s = time.monotonic() - began
        if waited_s > FAILED_TIMEOUT_S and any(": Failed" in reason for reason in reasons):
            return "; ".join(reasons)
        if waited_s > READY_TIMEOUT_S:
            return f"not ready after {READY_TIMEOUT_S:g} s: {'; '.join(reasons)}"
        tell(step="; ".join(reasons))
        time.sleep(0.2)
    address: tuple[str, int] = ray.get(gateway.address.remote(), timeout=ADDRESS_TIMEOUT_S)
    tell(ready={"host": address[0], "port": address[1]})
    return ""


def _not_ready(gateway: Any) -> list[str]:
    """What `/ready` would say, asked of the actor itself: nothing between us and it can be misconfigured."""
    try:
        return ray.get(gateway.not_ready.remote(), timeout=STATUS_TIMEOUT_S)  # type: ignore[no-any-return]
    except ray.exceptions.RayError as error:
        return [f"gateway/0: Starting: {str(error).splitlines()[0]}"]


@dataclass(eq=False)
class _NotCreated(Unavailable):
    actor: str
    reason: str

    def describe(self) -> str:
        return f"{self.actor} {self.reason}"


def _wait_for(spec: ActorSpec, handle: Any) -> None:
    """Until the actor is there. Raises `_NotCreated`."""
    try:
        ray.get(handle.__ray_ready__.remote(), timeout=CREATE_TIMEOUT_S)
    except ray.exceptions.RayActorError as error:
        raise _NotCreated(spec.address.actor_name, _reason(error)) from None
    except ray.exceptions.GetTimeoutError:
        raise _NotCreated(spec.address.actor_name, f"did not start within {CREATE_TIMEOUT_S:g} s") from None


def _reason(error: Exception) -> str:
    """Ray puts the whole remote traceback into the text; its last line says what went wrong."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"cannot start: {lines[-1].strip() if lines else repr(error)}"
