"""Rings as bytes, for the store they outlive their process in: JSON, so that an operator can read it."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mimir_ray.cluster.ring.model import (
    InstanceDesc,
    InstanceId,
    InstanceState,
    Loss,
    Period,
    Replication,
    RingName,
)
from mimir_ray.errors import Corruption

FORMAT = 1


class SavedRing(NamedTuple):
    version: int
    instances: dict[InstanceId, InstanceDesc]
    replication: Replication | None = None


class FileStore:
    """A `RingStore` in one file, replaced atomically and synced; its folder is made when needed."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> bytes | None:
        try:
            return self._path.read_bytes()
        except FileNotFoundError:
            return None

    def save(self, state: bytes) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        scratch = self._path.with_name(self._path.name + ".tmp")
        with scratch.open("wb") as file:
            file.write(state)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(self._path)


def encode(
    versions: Mapping[RingName, int],
    rings: Mapping[RingName, Mapping[InstanceId, InstanceDesc]],
    replications: Mapping[RingName, Replication] | None = None,
) -> bytes:
    """Everything but heartbeats: those are worth nothing later. Tokens are base64 of little-endian u32."""
    saved: dict[str, dict[str, Any]] = {
        ring: {"version": versions[ring], "instances": [_encode_instance(one) for one in instances.values()]}
        for ring, instances in rings.items()
    }
    for ring, replication in (replications or {}).items():
        saved[ring]["replication"] = _encode_replication(replication)
    return json.dumps({"format": FORMAT, "rings": saved}).encode()


def decode(data: bytes) -> dict[RingName, SavedRing]:
    """The inverse; all heartbeats are 0. Raises `Corruption`."""
    try:
        state = json.loads(data)
        if state["format"] != FORMAT:
            raise Corruption(f"saved rings have format {state['format']}, expected {FORMAT}")
        found: dict[RingName, SavedRing] = {}
        for ring, saved in state["rings"].items():
            instances = [_decode_instance(one) for one in saved["instances"]]
            replication = _decode_replication(saved["replication"]) if "replication" in saved else None
            by_id = {one.id: one for one in instances}
            found[RingName(ring)] = SavedRing(int(saved["version"]), by_id, replication)
        return found
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise Corruption(f"saved rings cannot be read: {error!r}") from error


def _encode_instance(one: InstanceDesc) -> dict[str, Any]:
    return {
        "id": one.id,
        "address": one.address,
        "zone": one.zone,
        "state": one.state.value,
        "tokens": base64.b64encode(one.tokens.astype("<u4").tobytes()).decode(),
        "registered_ms": one.registered_ms,
        "read_only": one.read_only,
        "read_only_updated_ms": one.read_only_updated_ms,
        "incarnation": one.incarnation,
        "machine": one.machine,
        "empty": one.empty,
    }


def _decode_instance(saved: dict[str, Any]) -> InstanceDesc:
    return InstanceDesc(
        id=InstanceId(str(saved["id"])),
        address=str(saved["address"]),
        zone=str(saved["zone"]),
        state=InstanceState(saved["state"]),
        tokens=np.frombuffer(base64.b64decode(saved["tokens"], validate=True), "<u4").astype(np.uint32),
        registered_ms=int(saved["registered_ms"]),
        read_only=bool(saved["read_only"]),
        read_only_updated_ms=int(saved["read_only_updated_ms"]),
        incarnation=int(saved["incarnation"]),
        machine=str(saved.get("machine", "")),
        empty=bool(saved.get("empty", False)),
    )


def _encode_replication(one: Replication) -> dict[str, Any]:
    return {
        **asdict(one),
        "leaving": sorted(one.leaving),
        "drained": sorted(one.drained),
    }


def _decode_replication(saved: dict[str, Any]) -> Replication:
    numbers = ("factor", "since_ms", "announced", "announced_ms", "settled_ms", "blank_ms")
    return Replication(
        **{name: int(saved[name]) for name in numbers},
        past=tuple(Period(int(one["factor"]), int(one["since_ms"]), int(one["until_ms"])) for one in saved["past"]),
        lost=tuple(
            Loss(InstanceId(str(one["instance"])), int(one["at_ms"]), bool(one["removed"])) for one in saved["lost"]
        ),
        leaving=frozenset(InstanceId(str(one)) for one in saved["leaving"]),
        drained=frozenset(InstanceId(str(one)) for one in saved["drained"]),
    )
