"""Whole write requests through a distributor: validation, caches, the batches that ingesters get, and the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from mimir_ray.config.tenant_rules import RelabelConfig
from mimir_ray.deploy.settings import Settings
from mimir_ray.gateway.blueprints.push import failed
from mimir_ray.roles.distributor.distributor import PushOutcome, Scanner
from mimir_ray.wire.otlp.translate import scan_otlp
from mimir_ray.wire.remote_write import scan_write_request
from mimir_ray.wire.remote_write_v2 import scan_write_request_v2
from mimir_ray.wire.write_scan import HashKey, WriteScan
from tests.fuzz import messages, wire_targets
from tests.fuzz.mutation import of_protobuf
from tests.fuzz.target import Target
from tests.roles.distributor.fakes import TENANT, Setup

_SERVICES = SimpleNamespace(settings=Settings())
_REQUEST: Any = SimpleNamespace(
    method="POST", path="/api/v1/push", headers={}, app=SimpleNamespace(ctx=SimpleNamespace(services=_SERVICES))
)
SETUP_INPUTS = 100
"""A distributor that has seen so many is replaced by a new one."""


class Pushing:
    """Pushes inputs; every other one again, when its series are known."""

    def __init__(self, scanner: Scanner, version: str, **limits: object) -> None:
        self._scanner, self._version, self._limits = scanner, version, limits
        self._setup: Setup | None = None
        self._inputs = 0
        self._loop: asyncio.AbstractEventLoop | None = None

    def __call__(self, data: bytes) -> None:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
        if self._inputs % SETUP_INPUTS == 0 or self._setup is None:
            self._setup = Setup(ingesters=3, replication_factor=3, **self._limits)
        self._inputs += 1
        setup = self._setup
        errors = [self._loop.run_until_complete(self._push(setup, data)).error for _ in range(2)]
        for fake in setup.fakes.values():
            fake.calls.clear()
        for error in errors:
            if error is not None:
                assert failed(error, _REQUEST).status < 500, repr(error)
        if errors[0] is not None:
            raise errors[0]

    async def _push(self, setup: Setup, data: bytes) -> PushOutcome:
        outcome = await setup.distributor.push(TENANT, data, self._scanner, self._version)
        await setup.distributor.drain()
        return outcome


def _version_2(body: bytes, key: HashKey) -> WriteScan:
    return scan_write_request_v2(body, key, wire_targets.CONTENT_MAX)


def _otlp(body: bytes, key: HashKey) -> WriteScan:
    return scan_otlp(body, key, wire_targets.SETTINGS[1])


ALL_ON = {
    "native_histograms_ingestion_enabled": True,
    "max_global_exemplars_per_user": 1000,
    "ingestion_rate": 1e12,
    "ingestion_burst_size": 1 << 60,
}
FEW = {**ALL_ON, "max_label_names_per_series": 2, "max_label_value_length": 20, "max_native_histogram_buckets": 3}

RELABELLED = {
    "drop_labels": ("instance",),
    "metric_relabel_configs": (
        RelabelConfig(("__name__", "job"), regex="(.*);(.+)", target_label="both", replacement="$2-${1}"),
        RelabelConfig(action="labelmap", regex="l(.)", replacement="m$1"),
        RelabelConfig(("le",), modulus=3, target_label="shard", action="hashmod"),
        RelabelConfig(("job",), regex="1", action="drop"),
    ),
}


def _target(name: str, scanner: Scanner, version: str, seeds: Callable[[], list[bytes]], **limits: object) -> Target:
    decode = Pushing(scanner, version, **limits)
    return Target(f"push-{name}", decode, seeds, of_protobuf, bytes_per_byte=20_000, bytes_more=16 << 20, share=0.5)


TARGETS = (
    _target("1", scan_write_request, "1.0", messages.write_requests, **ALL_ON),
    _target("1-limits", scan_write_request, "1.0", messages.write_requests, **FEW),
    _target("1-relabel", scan_write_request, "1.0", messages.write_requests, **ALL_ON, **RELABELLED),
    _target("2", _version_2, "2.0", messages.write_requests_2, **ALL_ON),
    _target("2-utf8", _version_2, "2.0", messages.write_requests_2, **FEW, name_validation_scheme="utf8"),
    _target("otlp", _otlp, "otlp", messages.otlp_requests, **ALL_ON),
)
