"""On which Ray nodes actors run: specs and nodes → places. Pure.

Nodes say with labels where they are: `mimir-ray/zone=…` and, where a zone has several, `mimir-ray/node=…`, a name that
the machine keeps when its Ray is started again. Ingesters have their data on their node's disk: they run in their zone,
on the node they were first put on, and wait for it when it is away. A ring, store-gateways and compactors run anywhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mimir_ray.cluster.transport.base import RING
from mimir_ray.deploy.topology import ActorSpec
from mimir_ray.errors import Unavailable

ZONE_LABEL = "mimir-ray/zone"
NODE_LABEL = "mimir-ray/node"
OWN_LABEL = "mimir-ray/own"
"""Of the node of a Ray that `serve` has started: its workers have our environment, and can have no other."""


@dataclass(eq=False)
class NoNodeInZone(Unavailable):
    """Raised before anything is created."""

    actor: str
    zone: str

    def describe(self) -> str:
        return (
            f"no Ray node for {self.actor}: none has the label {ZONE_LABEL}={self.zone}; "
            f"start one with `ray start --labels={ZONE_LABEL}={self.zone}`, or change -deploy.zones"
        )


@dataclass(frozen=True, slots=True)
class RayNode:
    """A live node with a zone. `name`: of its machine, unique within the cluster. `address`: its IP."""

    name: str
    zone: str
    address: str
    named: bool = True
    """Whether the name is a label that actors can ask for; without, a zone is as exact as it gets."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where one actor runs. `port_offset`: gateways on one machine take one port after the other."""

    node: RayNode
    port_offset: int = 0

    def options(self) -> dict[str, Any]:
        """For `ray.remote`: a restarted actor goes to the same node, or waits for it."""
        labels = {ZONE_LABEL: self.node.zone}
        return {"label_selector": {**labels, NODE_LABEL: self.node.name} if self.node.named else labels}


def labelled_nodes(nodes: Iterable[Mapping[str, Any]]) -> list[RayNode]:
    """Those of `ray.nodes()` that are alive and have a zone, by name."""
    found = []
    for node in nodes:
        labels = node.get("Labels") or {}
        if not node["Alive"] or ZONE_LABEL not in labels:
            continue
        name = labels.get(NODE_LABEL, "")
        address = str(node["NodeManagerAddress"])
        found.append(RayNode(name or f"{labels[ZONE_LABEL]}/{address}", labels[ZONE_LABEL], address, bool(name)))
    return sorted(found, key=lambda one: one.name)


def place(specs: Iterable[ActorSpec], nodes: list[RayNode], before: Mapping[str, str]) -> dict[str, Place]:
    """Actor name → where it is to run; actors that run anywhere are not in it.

    Args:
        specs: all actors of the deployment.
        nodes: those that are there. Without any (Ray was started without our labels) nothing is pinned.
        before: actor name → node name, of earlier. Who has been on a node that is there stays.

    Raises `NoNodeInZone`. An actor whose node of before is away goes to another of its zone, where its disk is empty:
    to be called for actors that do not exist yet only.
    """
    if not nodes:
        return {}
    by_name = {one.name: one for one in nodes}
    pinned = [spec for spec in specs if spec.address.role in ("ingester", "gateway")]
    chosen: dict[str, RayNode] = {}
    for spec in pinned:
        node = by_name.get(before.get(spec.address.actor_name, ""))
        if node is not None and spec.zone in ("", node.zone):
            chosen[spec.address.actor_name] = node
    load = Counter((name.partition("/")[0], node.name) for name, node in chosen.items())
    for spec in pinned:
        name, role = spec.address.actor_name, spec.address.role
        if name in chosen:
            continue
        fitting = [one for one in nodes if spec.zone in ("", one.zone)]
        if not fitting:
            raise NoNodeInZone(name, spec.zone)
        chosen[name] = min(fitting, key=lambda one: (load[role, one.name], one.name))
        load[role, chosen[name].name] += 1
    ports: Counter[str] = Counter()
    places = {}
    for spec in pinned:
        name = spec.address.actor_name
        offset = ports[chosen[name].address] if spec.address.role == "gateway" else 0
        ports[chosen[name].address] += spec.address.role == "gateway"
        places[name] = Place(chosen[name], offset)
    return places


def located(specs: Sequence[ActorSpec], places: Mapping[str, Place], zone_aware: bool) -> list[ActorSpec]:
    """The same specs; ingesters know their machines, and the ring how many copies of a sample can be kept apart."""
    found = []
    for spec in specs:
        where = places.get(spec.address.actor_name) if spec.address.role == "ingester" else None
        if where is None:
            found.append(spec)
            continue
        # Without a name of its own an actor may come back on any machine of its zone.
        found.append(replace(spec, machine=where.node.name if where.node.named else where.node.zone))
    ingesters = [spec for spec in found if spec.address.role == "ingester"]
    copies = len({spec.zone if zone_aware else spec.machine for spec in ingesters})
    return [replace(spec, copies=copies) if spec.address == RING else spec for spec in found]
