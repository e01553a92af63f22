"""The actor classes themselves, threads, timers and sockets included, in one process without Ray."""

from __future__ import annotations

import http.client
import itertools
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import snappy

from mimir_ray.bucket.filesystem import FilesystemBucket
from mimir_ray.clock import SystemClock
from mimir_ray.cluster.ring.actor import RingActor
from mimir_ray.cluster.ring.factor import AutomaticFactor
from mimir_ray.cluster.ring.model import INGESTER
from mimir_ray.cluster.ring.persistence import FileStore
from mimir_ray.cluster.ring.ring import RingPolicy
from mimir_ray.cluster.transport.base import RING, Address, Retry
from mimir_ray.cluster.transport.in_process import InProcessTransport
from mimir_ray.config.overrides import RuntimeDefaults
from mimir_ray.config.units import duration
from mimir_ray.deploy import actors
from mimir_ray.deploy.ingesters import with_ingesters
from mimir_ray.deploy.settings import Settings
from mimir_ray.deploy.topology import ActorSpec, topology
from mimir_ray.gateway import actor as gateway_module
from mimir_ray.gateway.actor import GatewayActor, GatewaySpec, Peer
from mimir_ray.gateway.app import create_app
from mimir_ray.gateway.services import GatewayServices
from mimir_ray.model.labels import labels_of
from mimir_ray.model.tenant import TenantId
from mimir_ray.promql.engine import EngineOptions
from mimir_ray.roles.ingester import actor as ingester_module
from mimir_ray.roles.ingester.actor import IngesterActor, IngesterSpec, ring_options
from mimir_ray.testing.bucket_blocks import put_block, put_index
from mimir_ray.wire.remote_write import encode_write_request, label_section

SOON_S = 30
_names = itertools.count()


def eventually(reached: Callable[[], bool]) -> bool:
    """Whether it comes true before patience ends; threads of actors go at their own pace."""
    waiting = threading.Event()
    deadline = time.monotonic() + SOON_S
    while time.monotonic() < deadline:
        if reached():
            return True
        waiting.wait(0.02)
    return False


class Deployment:
    """A ring, ingesters and a gateway."""

    def __init__(self, folder: Path, **scraper: Any) -> None:
        base = with_ingesters(Settings(data_dir=str(folder)), 2)
        self.settings = replace(
            base,
            server=replace(base.server, http_listen_port=0),
            scraper=replace(base.scraper, **{"enabled": False, **scraper}),
        )
        self.transport = InProcessTransport(SystemClock(), threads=True, retry=Retry(attempts_max=3))
        policy = RingPolicy(automatic={INGESTER: AutomaticFactor()})
        self.ring = RingActor(FileStore(folder / "ring.json"), policy=policy, sweep_period_s=0.05)
        self.transport.serve(RING, lambda: self.ring)
        self.ingesters: dict[str, IngesterActor] = {}
        for spec in topology(self.settings):
            if spec.address.role == "ingester":
                self.start_ingester(spec.address.instance)
            elif spec.hosts:
                self.backend = self._backend(spec)
                self.transport.serve(spec.address, lambda: self.backend)
        about = GatewaySpec(
            "0",
            self.settings,
            Settings(),
            ring_options(self.settings.ingester),
            RuntimeDefaults(limits=self.settings.limits),
            EngineOptions(),
            tuple(Peer(one.address, one.roles) for one in topology(self.settings) if one.address.role != "gateway"),
        )
        self.gateway = GatewayActor(about, self.transport)

    def _backend(self, spec: ActorSpec) -> Any:
        """What deploy/actors.py makes, on this transport."""
        kind, arguments = actors._kind(spec, self.settings)
        return kind(*((about, self.transport) for about, *_ in arguments))

    def start_ingester(self, instance: str) -> None:
        folder = self.settings.tsdb_dir / f"ingester-{instance}"
        defaults = RuntimeDefaults(limits=self.settings.limits)
        spec = IngesterSpec(
            instance,
            "zone-a",
            folder,
            self.settings.ingester,
            self.settings.blocks_storage.tsdb,
            self.settings.runtime_config,
            defaults,
            self.settings.blocks_bucket,
        )
        actor = self.ingesters[instance] = IngesterActor(spec, self.transport)
        self.transport.serve(Address("ingester", instance), lambda: actor, restarts=False)

    def ask(self, path: str, body: bytes | None = None, **headers: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.gateway.address()[1], timeout=SOON_S)
        try:
            connection.request("GET" if body is None else "POST", path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def ready(self) -> bool:
        return self.ask("/ready")[0] == 200

    def push(self, count: int, at_ms: int) -> int:
        series = [
            (label_section(labels_of({"__name__": "m", "instance": f"{number}.host"})), [(at_ms, float(number))])
            for number in range(count)
        ]
        return self.ask("/api/v1/push", snappy.compress(encode_write_request(series)))[0]

    def query(self, text: str) -> Any:
        status, body = self.ask(f"/prometheus/api/v1/query?query={quote(text)}")
        return json.loads(body)["data"]["result"] if status == 200 else status

    def value(self, text: str) -> float | int:
        found = self.query(text)
        return found if isinstance(found, int) else float(found[0]["value"][1]) if found else 0

    def stop(self) -> None:
        self.gateway.stop()
        self.backend.stop()
        for ingester in self.ingesters.values():
            ingester.stop()
        self.ring.close()


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Deployment]]:
    """Starts a deployment that takes traffic."""

    def make_app(services: GatewayServices, name: str, only_app: bool) -> Any:
        assert only_app
        return create_app(services, f"{name}-{next(_names)}")  # there are many in this process

    monkeypatch.setattr(gateway_module, "create_app", make_app)
    running: list[Deployment] = []

    def begin(**scraper: Any) -> Deployment:
        running.append(Deployment(tmp_path, **scraper))
        assert eventually(running[-1].ready)
        return running[-1]

    yield begin
    for one in running:
        one.stop()


def test_samples_go_in_and_come_out_over_http(start: Callable[..., Deployment]) -> None:
    one = start()
    now_ms = SystemClock().now_ms()
    assert one.push(100, now_ms) == 200
    assert one.value("sum(m)") == sum(range(100))
    assert one.value("count(m)") == 100
    assert len(one.query("m")) == 100
    status, body = one.ask("/prometheus/api/v1/label/instance/values")
    assert (status, len(json.loads(body)["data"])) == (200, 100)


def test_everybody_shows_up_in_services_the_ring_and_the_metrics(start: Callable[..., Deployment]) -> None:
    one = start()
    services = json.loads(one.ask("/services", Accept="application/json")[1])["services"]
    assert [(each["service"], each["status"]) for each in services] == [
        ("gateway", "Running"),
        ("ring", "Running"),
        ("ingester/0", "Running"),
        ("ingester/1", "Running"),
        ("store-gateway/0", "Running"),
        ("compactor/0", "Running"),
    ]
    shards = json.loads(one.ask("/ingester/ring", Accept="application/json")[1])["shards"]
    assert [(each["id"], each["state"], len(each["tokens"])) for each in shards] == [
        ("ingester-0", "ACTIVE", 128),
        ("ingester-1", "ACTIVE", 128),
    ]
    (shard,) = json.loads(one.ask("/store-gateway/ring", Accept="application/json")[1])["shards"]
    assert (shard["id"], shard["state"], shard["address"]) == ("store-gateway-0", "ACTIVE", "backend/0")
    assert len(shard["tokens"]) == 512
    metrics = one.ask("/metrics")[1]
    assert 'cortex_bucket_stores_tenants_synced{pod="store-gateway-0"} 0.0' in metrics
    for pod in ("gateway-0", "ring-0", "ingester-0", "ingester-1", "backend-0"):
        assert f'process_cpu_seconds_total{{pod="{pod}"}}' in metrics
    assert 'cortex_ring_members{name="ingester",state="ACTIVE",pod="ring-0"} 2.0' in metrics
    assert metrics.count("# TYPE process_cpu_seconds_total counter\n") == 1


def test_a_gateway_is_in_the_ring_of_distributors_and_counts_itself(start: Callable[..., Deployment]) -> None:
    one = start()

    def states() -> list[tuple[str, str]]:
        shards = json.loads(one.ask("/distributor/ring", Accept="application/json")[1])["shards"]
        return [(each["id"], each["state"]) for each in shards]

    assert eventually(lambda: states() == [("gateway-0", "ACTIVE")])
    assert one.gateway._distributors() == 1
    assert "The HA tracker is off" in one.ask("/distributor/ha_tracker")[1]


def test_samples_in_the_bucket_come_out_over_http(start: Callable[..., Deployment]) -> None:
    """A block of a day ago that nobody told the store-gateway of."""
    one = start()
    now_ms = SystemClock().now_ms()
    assert one.push(10, now_ms) == 200
    labels = labels_of({"__name__": "m", "instance": "old"})
    day_ago = now_ms - 24 * 3_600_000
    meta = put_block(one.settings.root / "blocks", TenantId("anonymous"), [(labels, [(day_ago, 5.0)])])
    bucket = FilesystemBucket(one.settings.root / "blocks")
    put_index(bucket, TenantId("anonymous"), [meta], now_ms // 1000)
    assert one.value("sum_over_time(m{instance='old'}[25h])") == 5
    assert one.value("count(count_over_time(m[25h]))") == 11
    assert one.value(f"m @ {day_ago / 1000:.3f}") == 5
    status, body = one.ask("/prometheus/api/v1/label/instance/values")
    assert (status, "old" in json.loads(body)["data"]) == (200, True)
    assert one.ask("/store-gateway/prepare-shutdown") == (200, "unset\n")
    put_index(bucket, TenantId("anonymous"), [meta], now_ms // 1000 - 7200)
    one.gateway._indexes.forget(TenantId("anonymous"))
    status, body = one.ask(f"/prometheus/api/v1/query?query={quote('m[25h]')}")
    assert (status, json.loads(body)["errorType"]) == (500, "internal")
    assert "err-mimir-bucket-index-too-old" in body


def test_an_ingester_that_stops_is_missed_until_it_is_back_with_its_samples(start: Callable[..., Deployment]) -> None:
    one = start()
    assert one.push(100, SystemClock().now_ms()) == 200
    one.ingesters["0"].stop()
    one.transport.kill(Address("ingester", "0"), restarts=False)
    assert eventually(lambda: one.ask("/ready")[0] == 503)
    assert "ingester/0: " in one.ask("/ready")[1]
    assert one.query("sum(m)") == 503
    one.start_ingester("0")
    assert eventually(one.ready)
    assert one.value("sum(m)") == sum(range(100))


def test_an_ingester_that_lost_its_disk_waits_until_queries_know(
    start: Callable[..., Deployment], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingester_module, "ANNOUNCE_MS", 1_000)
    one = start()
    assert one.push(10, SystemClock().now_ms()) == 200
    one.ingesters["0"].stop()
    shutil.rmtree(one.settings.tsdb_dir / "ingester-0")
    one.start_ingester("0")
    waiting = one.ingesters["0"]
    assert eventually(lambda: "samples that were lost here" in waiting.status()["progress"])
    assert waiting.status()["state"] == "starting"
    assert eventually(lambda: waiting.status()["state"] == "running")
    known = one.ring.snapshot(INGESTER).replication
    assert known is not None
    assert [loss.instance for loss in known.lost] == ["ingester-0"]


def test_a_flush_puts_everything_into_the_bucket_and_changes_no_answer(start: Callable[..., Deployment]) -> None:
    one = start()
    now_ms = SystemClock().now_ms()
    assert one.push(100, now_ms) == 200
    assert one.ask("/ingester/flush?wait=true")[0] == 204
    metas = list((one.settings.blocks_bucket.directory / "anonymous").glob("*/meta.json"))
    assert len(metas) == 2, "one an ingester"
    assert sum(json.loads(path.read_bytes())["stats"]["numSamples"] for path in metas) == 100
    assert one.value("sum(m)") == sum(range(100))
    assert len(one.query("m")) == 100
    assert one.push(100, now_ms + 1) == 200
    assert one.value("count(m)") == 100
    assert one.value("sum(count_over_time(m[5m]))") == 200
    assert 'cortex_ingester_shipper_uploads_total{pod="ingester-0"} 1.0' in one.ask("/metrics")[1]


def test_an_ingester_that_cannot_start_says_why(start: Callable[..., Deployment]) -> None:
    one = start()
    one.ingesters["1"].stop()
    one.transport.kill(Address("ingester", "1"), restarts=False)
    (one.settings.tsdb_dir / "ingester-1" / "no tenant").mkdir()
    one.start_ingester("1")
    assert eventually(lambda: one.ingesters["1"].status()["failure"] != "")
    assert eventually(lambda: "ingester/1: Failed: tenant ID 'no tenant' contains" in one.ask("/ready")[1])
    (one.settings.tsdb_dir / "ingester-1" / "no tenant").rmdir()


def test_it_scrapes_itself(start: Callable[..., Deployment]) -> None:
    one = start(enabled=True, scrape_interval=duration("100ms"))
    assert eventually(lambda: one.value('up{job="mimir-ray"}') == 1)
    assert eventually(lambda: one.value("sum(cortex_distributor_received_samples_total)") > 100)
    pods = {each["metric"]["pod"] for each in one.query("process_cpu_seconds_total")}
    assert pods == {"gateway-0", "ring-0", "ingester-0", "ingester-1", "backend-0"}


def test_forgetting_an_instance_takes_it_out_of_the_ring(start: Callable[..., Deployment]) -> None:
    one = start()
    one.ingesters["1"].stop()
    one.transport.kill(Address("ingester", "1"), restarts=False)
    status, _ = one.ask("/ingester/ring", b"forget=ingester-1", **{"Content-Type": "application/x-www-form-urlencoded"})
    assert status == 302

    def only_one() -> bool:
        return len(json.loads(one.ask("/ingester/ring", Accept="application/json")[1])["shards"]) == 1

    assert eventually(only_one)
    assert one.push(100, SystemClock().now_ms()) == 200
    assert one.value("count(m)") == 100
