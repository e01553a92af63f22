"""Stops the actors of a deployment. Who does this has their classes loaded, or loads them: Ray wants them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import ray

from mimir_ray.cluster.transport.base import NAMESPACE, RING

STOP_TIMEOUT_S = 12.0


def stop_actors(step: Callable[[str], None]) -> None:
    """Gateways first, so that nothing comes in; then what writes, all of a role at once; the ring last.

    Needs a connected Ray. `step`: told what is done.
    """
    deadline = time.monotonic() + STOP_TIMEOUT_S
    for role in ("gateway", "backend", "compactor", "store-gateway", "ingester", RING.role):
        threads = []
        for name in _names_of(role):
            try:
                handle = ray.get_actor(name, namespace=NAMESPACE)
            except ValueError:
                continue  # has ended meanwhile
            if role == RING.role:
                ray.kill(handle, no_restart=True)
                continue
            step(f"stopping {name}")
            left = max(1.0, deadline - time.monotonic())
            threads.append(threading.Thread(target=_stop_actor, args=(handle, left)))
            threads[-1].start()
        for thread in threads:
            thread.join()


def _names_of(role: str) -> list[str]:
    """The actors of a role that there are; after `scale` others than the settings say."""
    return sorted(name for name in ray.util.list_named_actors() if name.partition("/")[0] == role)


def _stop_actor(handle: Any, timeout_s: float) -> None:
    """Has an actor stop in an orderly way, then ends its process for good."""
    with suppress(ray.exceptions.RayError):  # whatever keeps it from stopping, it ends now
        ray.get(handle.stop.remote(), timeout=timeout_s)
    ray.kill(handle, no_restart=True)
