"""Which actors a deployment has: settings → specs. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mimir_ray.cluster.transport.base import RING, Address
from mimir_ray.deploy.settings import Settings, round_robin

PUSH_THREADS = 4
READ_THREADS = 8
OTHER_THREADS = 4
WATCHERS = 64
MAX_CONCURRENT_CALLS = 1000


@dataclass(frozen=True, slots=True)
class ActorSpec:
    """One actor: what it runs, and how Ray is to keep it. `zone` is "" for roles that have none."""

    address: Address
    zone: str = ""
    max_concurrency: int = OTHER_THREADS
    concurrency_groups: Mapping[str, int] = field(default_factory=dict)

    def options(self) -> dict[str, Any]:
        """For `ray.remote`. Actors outlive whoever made them and come back when they die; calls are tried again by
        callers, who know their deadlines."""
        return {
            "name": self.address.actor_name,
            "lifetime": "detached",
            "num_cpus": 0,
            "max_restarts": -1,
            "max_task_retries": 0,
            "max_concurrency": self.max_concurrency,
            **({"concurrency_groups": dict(self.concurrency_groups)} if self.concurrency_groups else {}),
        }


def topology(settings: Settings) -> tuple[ActorSpec, ...]:
    """All actors in the order in which they start."""
    ring = ActorSpec(RING, concurrency_groups={"watch": WATCHERS})
    ingesters = [
        ActorSpec(
            Address("ingester", str(index)),
            round_robin(settings.deploy.zones, index),
            concurrency_groups={"write": PUSH_THREADS, "read": READ_THREADS},
        )
        for index in range(settings.deploy.ingesters)
    ]
    compactors = [
        ActorSpec(Address("compactor", str(index)), round_robin(settings.deploy.zones, index))
        for index in range(settings.deploy.compactors)
    ]
    return (ring, *ingesters, *compactors, ActorSpec(Address("gateway", "0")))
