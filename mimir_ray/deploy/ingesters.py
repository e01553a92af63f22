"""How many ingesters a deployment starts: what the settings say, or, where that is 0, what its machines call for, and
never fewer than have samples that nobody else has. Decisions are pure; two functions at the end look at the disk.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mimir_ray.cluster.ring.model import INGESTER, InstanceId
from mimir_ray.cluster.ring.persistence import FileStore, decode
from mimir_ray.deploy.placement import RayNode
from mimir_ray.deploy.settings import Settings
from mimir_ray.errors import Unavailable
from mimir_ray.roles.ingester.ingester import has_been_used
from mimir_ray.roles.ingester.leftovers import tenants_with_samples

CORES_AN_INGESTER = 4
MACHINE_MAX = 4
"""Of one machine without labels: a gateway cannot keep more of them busy."""
RING_FILE = "ring.json"


@dataclass(eq=False)
class LeftBehind(Unavailable):
    """Raised before anything is started that would write."""

    instances: tuple[str, ...]
    asked: int
    needed: int

    def describe(self) -> str:
        names = ", ".join(self.instances)
        return (
            f"-deploy.ingesters={self.asked} would leave {names} behind, whose samples queries need: start with "
            f"-deploy.ingesters={self.needed} (or 0), then hand the samples over with "
            f"`mimir-ray scale --address=<of Ray> -deploy.ingesters={self.asked}` and the other settings as here"
        )


@dataclass(frozen=True, slots=True)
class Needed:
    """Ingesters of earlier by their index. `idle`: are in the ring, and nothing is on their disk that is not read from
    the bucket."""

    with_samples: frozenset[int] = frozenset()
    idle: frozenset[int] = frozenset()


def automatic(settings: Settings, nodes: Sequence[RayNode], cores: int) -> int:
    """As many as the machines call for.

    Args:
        nodes: those with labels; then it is one a machine, and as many in each zone as in the one with most machines.
        cores: of all machines; without labels they count as one machine.

    One at least in every zone of the settings, and as many as a fixed replication factor says.
    """
    zones = settings.deploy.zones
    machines = Counter(one.zone for one in nodes if one.zone in zones)
    if nodes:
        found = len(zones) * max(machines.values(), default=1)
    else:
        found = min(MACHINE_MAX, cores // CORES_AN_INGESTER)
    return max(1, found, len(zones), settings.ingester.ring.replication_factor)


def how_many(configured: int, wanted: int, with_samples: Collection[int]) -> int:
    """Ingesters 0 to one less than this are started.

    Args:
        configured: `deploy.ingesters`.
        wanted: what `automatic` says.
        with_samples: indexes of those whose samples queries need.

    Raises `LeftBehind`.
    """
    needed = max(with_samples, default=-1) + 1
    if not configured:
        return max(wanted, needed)
    if needed > configured:
        names = tuple(f"ingester-{one}" for one in sorted(with_samples) if one >= configured)
        raise LeftBehind(names, configured, needed)
    return configured


def with_ingesters(settings: Settings, count: int) -> Settings:
    """The same settings, with a number for which others are worked out."""
    return replace(settings, deploy=replace(settings.deploy, ingesters=count))


def indexes(instances: Iterable[InstanceId]) -> frozenset[int]:
    return frozenset(int(one.rpartition("-")[2]) for one in instances)


def instance(index: int) -> InstanceId:
    return InstanceId(f"ingester-{index}")


def directory_of(settings: Settings, index: int | str) -> Path:
    """The data of an ingester."""
    return settings.tsdb_dir / instance(int(index))


def on_disk(settings: Settings, now_ms: int) -> frozenset[int]:
    """Ingesters whose folders on this machine have samples that are not read from the bucket. Raises OSError."""
    store_after_ms = settings.querier.query_store_after.ms
    found = [one.name for one in settings.tsdb_dir.glob("ingester-*") if one.name.rpartition("-")[2].isdigit()]
    return frozenset(
        index
        for index in indexes(map(InstanceId, found))
        if tenants_with_samples(directory_of(settings, index), store_after_ms, now_ms)
    )


def of_one_machine(settings: Settings, now_ms: int) -> Needed:
    """Where all ingesters have their folders on this machine, and the ring its file. Raises OSError, `Corruption`.

    One that is in the ring and has lost its folder must come back, too: the ring then has queries know of the loss.
    """
    saved = FileStore(settings.root / RING_FILE).load()
    ring = decode(saved).get(INGESTER) if saved is not None else None
    known = indexes(ring.instances) if ring is not None else frozenset()
    with_samples = on_disk(settings, now_ms)
    lost = {one for one in known if not has_been_used(directory_of(settings, one))}
    return Needed(with_samples | lost, known - with_samples - lost)
