"""`RayActors`: ingester processes of a running deployment, made and ended through Ray. See scale.py `Actors`."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import ray

from mimir_ray.cluster.transport.base import NAMESPACE, Address
from mimir_ray.deploy import actors
from mimir_ray.deploy.placement import located
from mimir_ray.deploy.placements import Placements, runtime_env
from mimir_ray.deploy.settings import Settings
from mimir_ray.deploy.topology import ingester, topology

STOP_TIMEOUT_S = 600.0


class RayActors:
    """Needs a connected Ray."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def create(self, index: int) -> None:
        spec = ingester(self._settings, index)
        # With the others, so that it comes to where there are fewest.
        specs = [*(one for one in topology(self._settings) if one.address != spec.address), spec]
        places = Placements(self._settings.root).place(specs)
        spec = located(specs, places, self._settings.ingester.ring.zone_awareness_enabled)[-1]
        actors.create(spec, self._settings, runtime_env(), places.get(spec.address.actor_name))

    def end(self, address: Address) -> None:
        self._stop(address, no_restart=True)

    def restart(self, address: Address) -> None:
        self._stop(address, no_restart=False)

    def gateways(self) -> list[Address]:
        names = sorted(name for name in ray.util.list_named_actors() if name.startswith("gateway/"))
        return [Address.parse(name) for name in names]

    def _stop(self, address: Address, no_restart: bool) -> None:
        try:
            handle: Any = ray.get_actor(address.actor_name, namespace=NAMESPACE)
        except ValueError:
            return  # has ended already
        with suppress(ray.exceptions.RayError):  # whatever keeps it from stopping, it ends now; its WAL has everything
            ray.get(handle.stop.remote(), timeout=STOP_TIMEOUT_S)
        ray.kill(handle, no_restart=no_restart)
