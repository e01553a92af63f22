"""What a running Ray says of its nodes.

`Placements`: which actor was put on which Ray node, kept in the data directory of whoever starts the deployment.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import ray

from mimir_ray.deploy.environment import MALLOC
from mimir_ray.deploy.ingesters import automatic
from mimir_ray.deploy.placement import OWN_LABEL, Place, labelled_nodes, place
from mimir_ray.deploy.settings import Settings
from mimir_ray.deploy.topology import ActorSpec

FILE = "placement.json"


def ingesters_wanted(settings: Settings) -> int:
    """See `ingesters.automatic`, for the nodes that are there now. Needs a connected Ray."""
    return automatic(settings, labelled_nodes(ray.nodes()), int(ray.cluster_resources().get("CPU", 1)))


def runtime_env() -> dict[str, Any] | None:
    """What actors are created with. Needs a connected Ray."""
    ours = any(OWN_LABEL in (node.get("Labels") or {}) for node in ray.nodes())
    return None if ours else {"env_vars": MALLOC}


class Placements:
    """An ingester must come back to the disk that has its data, also when nodes were added meanwhile."""

    def __init__(self, root: Path) -> None:
        self._path = root / FILE

    def place(self, specs: Iterable[ActorSpec]) -> dict[str, Place]:
        """See `placement.place`, for the nodes that are there now; remembers the outcome. Needs a connected Ray."""
        before = self._read()
        places = place(specs, labelled_nodes(ray.nodes()), before)
        if places:
            now = {**before, **{name: one.node.name for name, one in places.items()}}
            fresh = self._path.with_suffix(".new")
            fresh.write_text(json.dumps(now, indent=1, sort_keys=True) + "\n")
            fresh.replace(self._path)
        return places

    def _read(self) -> dict[str, str]:
        try:
            return {str(name): str(node) for name, node in json.loads(self._path.read_text()).items()}
        except FileNotFoundError:
            return {}
