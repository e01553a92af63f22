"""What the labels of a request's first series say of the whole request: its HA pair and its group.

Upstream looks at the first series only too: pkg/distributor/distributor.go findHALabels,
pkg/util/validation/separate_metrics.go GroupLabel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mimir_ray.config.limits import Limits
from mimir_ray.wire.protobuf import parse_labels
from mimir_ray.wire.write_scan import WriteScan

REMEMBERED_MAX = 4096
GROUPS_MAX = 1000
OTHER_GROUP = "other"
"""Upstream: -max-separate-metrics-groups-per-user."""


@dataclass(frozen=True, slots=True)
class About:
    """`cluster`, `replica`: of the HA pair; one of them empty: it is from none. `group`: for the metrics."""

    cluster: str = ""
    replica: str = ""
    group: str = ""


NOTHING = About()


class FirstSeries:
    """Of one tenant. Remembers what it found, as senders begin their requests with the same few hundred series."""

    def __init__(self) -> None:
        self._found: dict[tuple[int, int], About] = {}
        self._names: tuple[bytes, bytes, bytes] = (b"", b"", b"")
        self._groups: set[str] = set()

    def about(self, scan: WriteScan, limits: Limits, pairs: bool) -> About:
        """`pairs`: whether HA pairs matter. Raises `MalformedProtobuf`."""
        if not len(scan) or not (pairs or limits.separate_metrics_group_label):
            return NOTHING
        names = (
            limits.ha_cluster_label.encode() if pairs else b"",
            limits.ha_replica_label.encode() if pairs else b"",
            limits.separate_metrics_group_label.encode(),
        )
        if names != self._names or len(self._found) >= REMEMBERED_MAX:
            self._found.clear()
            self._names = names
        key = int(scan.hash_low[0]), int(scan.hash_high[0])
        found = self._found.get(key)
        if found is None:
            scan.need_labels(np.zeros(1, np.int64))
            raw = dict(parse_labels(scan.data, int(scan.label_start[0]), int(scan.label_end[0])))
            cluster, replica, group = (raw.get(name, b"").decode("utf-8", "replace") if name else "" for name in names)
            found = self._found[key] = About(cluster, replica, self._bounded(group))
        return found

    def _bounded(self, group: str) -> str:
        if group and group not in self._groups:
            if len(self._groups) >= GROUPS_MAX:
                return OTHER_GROUP
            self._groups.add(group)
        return group
