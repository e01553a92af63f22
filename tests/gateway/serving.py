"""A gateway on a real socket whose roles are fakes: what comes in is recorded, answers come from lists."""

from __future__ import annotations

import asyncio
import http.client
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlencode

from prometheus_client import CollectorRegistry

from mimir_ray.bucket.open import open_bucket
from mimir_ray.clock import ManualClock
from mimir_ray.cluster.ring.actor import RingActor
from mimir_ray.cluster.ring.lookup import RingOptions, RingView
from mimir_ray.cluster.ring.model import COMPACTOR, RingName
from mimir_ray.cluster.transport.base import RING
from mimir_ray.cluster.transport.in_process import InProcessTransport
from mimir_ray.config.overrides import RuntimeConfig, RuntimeDefaults
from mimir_ray.config.server import TenancyConfig
from mimir_ray.deploy.settings import Settings
from mimir_ray.gateway.app import create_app
from mimir_ray.gateway.auth import Authenticator
from mimir_ray.gateway.compaction import compaction
from mimir_ray.gateway.metrics import GatewayMetrics
from mimir_ray.gateway.server import GatewayServer
from mimir_ray.gateway.services import GatewayServices
from mimir_ray.model.exemplars import SeriesExemplars
from mimir_ray.model.matchers import Matcher
from mimir_ray.model.metadata import Metadata
from mimir_ray.model.tenant import TenantId
from mimir_ray.promql.engine import Engine
from mimir_ray.promql.limits import Cancellation
from mimir_ray.promql.source import Selection
from mimir_ray.roles.distributor.distributor import PushOutcome, Scanner
from mimir_ray.roles.distributor.label_rules import USUAL, Form
from mimir_ray.roles.query_frontend.metrics import QueryFrontendMetrics
from mimir_ray.roles.query_frontend.query_frontend import QueryFrontend
from mimir_ray.testing.sources import ListSource, satisfies
from mimir_ray.wire.remote_write import scan_write_request
from mimir_ray.wire.write_scan import WriteScan

NOW_MS = 1_700_000_000_000
_names = itertools.count()


class TenantList(ListSource):
    """A tenant's source over lists."""

    def __init__(self) -> None:
        super().__init__()
        self.entries: list[Metadata] = []
        self.exemplified: list[SeriesExemplars] = []
        self.error: Exception | None = None
        self.selections: list[Selection] = []

    def select(self, selection: Selection) -> Iterator[Any]:
        self.selections.append(selection)
        if self.error is not None:
            raise self.error
        return super().select(selection)

    def label_names(self, selection: Selection) -> list[str]:
        return sorted({name for labels in self._labels(selection) for name, _ in labels})

    def label_values(self, name: str, selection: Selection) -> list[str]:
        return sorted({value for labels in self._labels(selection) for one, value in labels if one == name})

    def metadata(self, family: str = "") -> list[Metadata]:
        return [entry for entry in self.entries if family in ("", entry.family)]

    def exemplars(self, selectors: Sequence[tuple[Matcher, ...]], mint: int, maxt: int) -> list[SeriesExemplars]:
        self.asked_exemplars = (list(selectors), mint, maxt)
        return [
            one
            for one in self.exemplified
            if any(satisfies(one.labels, matchers) for matchers in selectors)
            and any(mint <= exemplar.timestamp <= maxt for exemplar in one.exemplars)
        ]

    def _labels(self, selection: Selection) -> list[Any]:
        self.selections.append(selection)
        if self.error is not None:
            raise self.error
        return [labels for labels in self.series if satisfies(labels, selection.matchers)]


class Lists:
    """A querier over one list a tenant."""

    def __init__(self) -> None:
        self.tenants: dict[str, TenantList] = {}
        self.cancellations: list[Cancellation] = []

    def source(self, tenant: TenantId, cancellation: Cancellation) -> TenantList:
        self.cancellations.append(cancellation)
        return self.of(tenant)

    def of(self, tenant: str = "anonymous") -> TenantList:
        return self.tenants.setdefault(tenant, TenantList())


class FakeDistributor:
    """Takes everything, unless told otherwise."""

    def __init__(self) -> None:
        self.pushed: list[tuple[str, bytes]] = []
        self.forms: list[Form] = []
        self.scans: list[tuple[str, WriteScan]] = []
        self.discarded: list[tuple[str, str, int]] = []
        self.outcome = PushOutcome()
        self.gate: asyncio.Event | None = None

    async def push(
        self,
        tenant: TenantId,
        body: bytes,
        scanner: Scanner = scan_write_request,
        version: str = "1.0",
        form: Form = USUAL,
    ) -> PushOutcome:
        self.pushed.append((tenant, body))
        self.forms.append(form)
        self.scans.append((version, scanner(body, (1, 2, 3, 4))))
        if self.gate is not None:
            await self.gate.wait()
        return self.outcome

    def discard(self, tenant: TenantId, reason: str, samples: int) -> None:
        self.discarded.append((tenant, reason, samples))

    async def drain(self) -> None:
        return


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def data(self) -> Any:
        assert self.status == 200, self.text
        assert self.json["status"] == "success"
        return self.json["data"]


@dataclass
class Gateway:
    """`ask` it; the rest is to look into and to change."""

    server: GatewayServer
    services: GatewayServices
    lists: Lists
    distributor: FakeDistributor
    clock: ManualClock
    ring: RingActor
    not_ready: list[str] = field(default_factory=list)
    states: list[tuple[str, str, str]] = field(default_factory=list)
    exposition: bytes = b""

    def ask(
        self,
        path: str,
        parameters: Mapping[str, Any] | None = None,
        *,
        method: str = "GET",
        body: bytes | None = None,
        **headers: str,
    ) -> Answer:
        """`parameters` go into the URL. Header names: `accept_encoding` is Accept-Encoding."""
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=20)
        query = f"?{urlencode(parameters, doseq=True)}" if parameters else ""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            connection.request(method, f"{path}{query}", body, sent)
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def form(self, path: str, fields: Mapping[str, Any], parameters: Mapping[str, Any] | None = None) -> Answer:
        """The same with a form as the body."""
        body = urlencode(fields, doseq=True).encode()
        return self.ask(
            path, parameters, method="POST", body=body, content_type="application/x-www-form-urlencoded; charset=utf-8"
        )


def settings_with(multitenancy: bool = False, **blocks: Any) -> Settings:
    """The defaults on a free port; `blocks` are maps of what differs, or values."""
    base = Settings(tenancy=TenancyConfig(multitenancy_enabled=multitenancy))
    base = replace(base, server=replace(base.server, http_listen_port=0))
    for name, changes in blocks.items():
        value = replace(getattr(base, name), **changes) if isinstance(changes, dict) else changes
        base = replace(base, **{name: value})
    return base


@contextmanager
def serving(settings: Settings | None = None) -> Iterator[Gateway]:
    """A gateway that listens, until the block ends."""
    settings = settings or settings_with()
    clock = ManualClock(NOW_MS)
    transport = InProcessTransport(clock)
    ring = RingActor(clock=clock, sweep_period_s=0)
    transport.serve(RING, lambda: ring)
    registry = CollectorRegistry()
    runtime = RuntimeConfig(settings.runtime_config, RuntimeDefaults(limits=settings.limits), CollectorRegistry())
    lists, distributor = Lists(), FakeDistributor()
    executor = ThreadPoolExecutor(4)

    def view(name: RingName) -> RingView:
        return RingView(ring.snapshot(name), RingOptions(1))

    bucket = open_bucket(settings.blocks_bucket, "querier", CollectorRegistry())
    services = GatewayServices(
        settings=settings,
        defaults=Settings(),
        auth=Authenticator(settings.tenancy),
        clock=clock,
        distributor=distributor,  # type: ignore[arg-type]
        frontend=QueryFrontend(Engine(), lists, runtime.limits, clock, QueryFrontendMetrics(registry)),
        runtime=runtime,
        transport=transport,
        ring=transport.client(RING),
        ring_view=view,
        not_ready=lambda: gateway.not_ready,
        service_states=lambda: gateway.states,
        expositions=lambda: gateway.exposition,
        query_executor=executor,
        metrics=GatewayMetrics(registry),
        bucket=bucket,
        compaction=compaction(settings, runtime.limits, lambda: view(COMPACTOR), transport, clock, registry),
    )
    server = GatewayServer(settings.server)
    gateway = Gateway(server, services, lists, distributor, clock, ring)
    gateway.registry = registry  # type: ignore[attr-defined]
    server.start(create_app(services, f"test-{next(_names)}"))
    try:
        yield gateway
    finally:
        server.stop(distributor.drain)
        executor.shutdown(cancel_futures=True)
