"""Which actors a deployment has: settings → specs. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from mimir_ray.cluster.transport.base import RING, Address
from mimir_ray.deploy.settings import Settings, round_robin

PUSH_THREADS = 4
READ_THREADS = 8
BLOCK_THREADS = 8
OTHER_THREADS = 4
WATCHERS = 64
MAX_CONCURRENT_CALLS = 1000


@dataclass(frozen=True, slots=True)
class ActorSpec:
    """One actor: what it runs, and how Ray is to keep it. `zone` is "" for roles that have none.

    `hosts`: the roles that share it, where they are several. `home`: of one of those, the actor that it lives in.
    `machine`: of an ingester, whose loss takes its disk along; "" where Ray chooses. `copies`: of the ring, on how many
    machines, or in how many zones, the ingesters of the deployment are.
    """

    address: Address
    zone: str = ""
    max_concurrency: int = OTHER_THREADS
    concurrency_groups: Mapping[str, int] = field(default_factory=dict)
    hosts: tuple[ActorSpec, ...] = ()
    home: Address | None = None
    machine: str = ""
    copies: int = 1

    @property
    def roles(self) -> tuple[Address, ...]:
        """Who is found here."""
        return tuple(one.address for one in self.hosts) or (self.address,)

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
    """All actors in the order in which they start. How many ingesters there are has been decided (ingesters.py)."""
    assert settings.deploy.ingesters
    ring = ActorSpec(RING, concurrency_groups={"watch": WATCHERS})
    ingesters = [ingester(settings, index) for index in range(settings.deploy.ingesters)]
    gateways = [ActorSpec(Address("gateway", str(index))) for index in range(settings.deploy.gateways)]
    return (ring, *ingesters, *_backends(settings), *gateways)


def ingester(settings: Settings, index: int) -> ActorSpec:
    """The ingester with this index; its zone depends on the index alone."""
    return ActorSpec(
        Address("ingester", str(index)),
        round_robin(settings.deploy.zones, index),
        concurrency_groups={"write": PUSH_THREADS, "read": READ_THREADS},
    )


def _backends(settings: Settings) -> list[ActorSpec]:
    """What works on blocks: the n-th of each role together in one actor, or each in its own."""
    deploy = settings.deploy
    roles: dict[str, tuple[int, dict[str, int]]] = {
        "store-gateway": (deploy.store_gateways, {"blocks": BLOCK_THREADS}),
        "compactor": (deploy.compactors, {}),
    }
    alone = [
        [
            ActorSpec(Address(role, str(index)), round_robin(deploy.zones, index), concurrency_groups=groups)
            for index in range(count)
        ]
        for role, (count, groups) in roles.items()
    ]
    if not deploy.share_processes:
        return [spec for specs in alone for spec in specs]
    together = []
    for index in range(max(len(specs) for specs in alone)):
        members = [specs[index] for specs in alone if index < len(specs)]
        if len(members) == 1:
            together += members
            continue
        home = Address("backend", str(index))
        hosted = tuple(replace(one, home=home) for one in members)
        threads = {name: size for one in members for name, size in one.concurrency_groups.items()}
        together.append(ActorSpec(home, members[0].zone, concurrency_groups=threads, hosts=hosted))
    return together
