"""Samples through their whole life: heads, blocks on ingesters' disks, the bucket, compaction, local retention.

A short story on a local folder and on an S3 server; a long one, in which processes are killed, on an S3 server behind a
proxy that fails at random. At every stage queries find exactly what was acknowledged.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, redirect_stdout, suppress
from dataclasses import dataclass, field, replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import snappy
from prometheus_client import CollectorRegistry

from mimir_ray.bucket.bucket_index import BucketIndex, read_bucket_index
from mimir_ray.bucket.layout import META, block_key
from mimir_ray.bucket.open import open_bucket
from mimir_ray.bucket.store import Bucket, ObjectNotFound
from mimir_ray.cli import blocks
from mimir_ray.config import loader
from mimir_ray.deploy.settings import Settings
from mimir_ray.model.float_histogram import FloatHistogram
from mimir_ray.model.labels import Labels, labels_of
from mimir_ray.model.series import STALE_NAN
from mimir_ray.model.tenant import TenantId
from mimir_ray.promql.engine import Engine, EngineOptions
from mimir_ray.testing.faulty_proxy import FAULTS, FaultyProxy
from mimir_ray.testing.sources import ListSource, Value
from mimir_ray.tsdb.block.meta import BlockMeta
from mimir_ray.wire.pb.prompb import remote_pb2
from mimir_ray.wire.query_json import query_response
from tests.integration.deployment import TENANT, UNLIMITED, Deployment, peer, request, wait_for
from tests.integration.prometheus_peer import running_prometheus
from tests.integration.test_native_histograms_prometheus import difference
from tests.s3_server import S3Server

RANGE_MS = 300_000
STEP_MS = 15_000
WAVES = 2
WAVE_MS = 2 * RANGE_MS
SERIES, HISTOGRAMS = 12, 3
PATIENCE_S = 180
"""A wait is over when what it waits for is there: on a slow machine that may take a while."""
FAULT_RATE = 0.08
DEATHS: dict[str, dict[int, str]] = {"folder": {}, "s3": {}, "faulty s3": {0: "BackendActor", 1: "IngesterActor"}}
"""Of each place: who dies in the middle of which wave. Where somebody does, all do later."""
KEEP = ("--storage.tsdb.retention.time=100y",)
FLAGS = (
    *UNLIMITED,
    "-deploy.ingesters=2",
    "-ingester.ring.replication-factor=2",
    "-ingester.out-of-order-time-window=2h",
    "-blocks-storage.tsdb.block-ranges-period=5m",
    "-blocks-storage.tsdb.head-compaction-interval=1s",
    "-blocks-storage.tsdb.ship-interval=1s",
    "-blocks-storage.bucket-store.bucket-index.max-stale-period=3s",
    "-blocks-storage.bucket-store.bucket-index.update-on-error-interval=1s",
    "-blocks-storage.bucket-store.sync-interval=1s",
    "-blocks-storage.bucket-store.ignore-blocks-within=0s",
    "-compactor.block-ranges=5m,10m,20m",
    "-compactor.split-and-merge-shards=2",
    "-compactor.compaction-interval=2s",
    "-compactor.cleanup-interval=2s",
    "-compactor.new-block-check-interval=500ms",
    "-compactor.first-level-compaction-wait-period=0s",
    # Whoever still asks for a block that is gone gets an error, and asks again with a newer index.
    "-compactor.deletion-delay=6s",
    "-blocks-storage.bucket-store.ignore-deletion-marks-while-querying-delay=2s",
    "-blocks-storage.bucket-store.ignore-deletion-marks-delay=4s",
    "-querier.query-store-after=0s",
    "-querier.query-ingesters-within=0s",
    "-runtime-config.reload-period=1s",
    "-blocks-storage.operations.timeout=3s",
    "-blocks-storage.operations.max-backoff=500ms",
)
KEEPING, DROPPING = "-blocks-storage.tsdb.retention-period=1h", "-blocks-storage.tsdb.retention-period=1s"
"""Ingesters keep what is in the bucket, or drop it. The latter begins when each index that is read then has all blocks:
that compactors write one in time is nothing that a test on a slow machine may build on."""
LIMITS = "limits.yaml"
INDEX_LOADS = "cortex_bucket_index_load_duration_seconds_count"
JSON = {"Accept": "application/json", "X-Scope-OrgID": TENANT}
QUERIES = (
    "written[2h]",
    "sum by (zone) (rate(written[3m]))",
    "count_over_time(written[7m])",
    "max_over_time(sum(written)[20m:1m])",
    "histogram_quantile(0.9, sum(rate(latency[4m])))",
    "histogram_count(latency)",
    "count({__name__=~'.+'}) by (__name__)",
)


def labels(number: int) -> Labels:
    return labels_of({"__name__": "written", "number": str(number), "zone": "abc"[number % 3]})


@dataclass
class Sent:
    """One remote-write request and the samples in it."""

    body: bytes
    samples: list[tuple[Labels, int, Value]] = field(default_factory=list)


def waves(start_ms: int, seed: int) -> list[list[Sent]]:
    """Requests, wave by wave: in order, then late samples of this wave and the one before, then some of all again."""
    chance = random.Random(seed)
    held: list[tuple[Labels, int, Value, Any]] = []
    found = []
    for wave in range(WAVES):
        now: list[tuple[Labels, int, Value, Any]] = []
        late, held = held, []
        for at in range(start_ms + wave * WAVE_MS, start_ms + (wave + 1) * WAVE_MS, STEP_MS):
            for one in _scrape(at, start_ms):
                held.append(one) if chance.random() < 0.1 else now.append(one)
        moment = chance.randrange(len(held)) if wave + 1 < WAVES else len(held)
        late, held = late + held[:moment], held[moment:]
        again = chance.sample(now, 20)
        found.append([_sent(part) for part in (*_by_time(now), late, again)])
    return found


def _scrape(at: int, start_ms: int) -> Iterator[tuple[Labels, int, Value, Any]]:
    step = (at - start_ms) // STEP_MS
    for number in range(SERIES):
        value = float(step * (number + 1) % 500)
        if number == 5 and step % 20 == 19:
            value = STALE_NAN
        # A series that ends, and one that begins later.
        if not (number == 6 and step > 50) and not (number == 7 and step < 60):
            yield labels(number), at, value, None
    for number in range(HISTOGRAMS):
        counts = [step + 3, 2 * step + number, step // 2]
        one = FloatHistogram(
            schema=1,
            zero_threshold=1e-3,
            zero_count=float(step),
            count=float(sum(counts) + step),
            sum=float(7 * step),
            positive=np.arange(1, len(counts) + 1, dtype=np.int32),
            positive_counts=np.array(counts, np.float64),
        )
        yield labels_of({"__name__": "latency", "number": str(number)}), at, one, (counts, step)


def _by_time(samples: Sequence[tuple[Labels, int, Value, Any]]) -> Iterator[list[tuple[Labels, int, Value, Any]]]:
    """Some scrapes a request."""
    times = sorted({at for _, at, _, _ in samples})
    for first in range(0, len(times), 10):
        inside = set(times[first : first + 10])
        yield [one for one in samples if one[1] in inside]


def _sent(samples: Sequence[tuple[Labels, int, Value, Any]]) -> Sent:
    body = remote_pb2.WriteRequest()
    grouped: dict[Labels, list[tuple[int, Value, Any]]] = {}
    for name, at, value, raw in samples:
        grouped.setdefault(name, []).append((at, value, raw))
    for name, points in grouped.items():
        series = body.timeseries.add()
        for label, text in name:
            series.labels.add(name=label, value=text)
        for at, value, raw in sorted(points, key=lambda one: one[0]):
            if isinstance(value, FloatHistogram):
                counts, zero = raw
                one = series.histograms.add(
                    schema=1, sum=value.sum, timestamp=at, zero_threshold=1e-3, zero_count_int=zero
                )
                one.count_int = int(value.count)
                one.positive_spans.add(offset=1, length=len(counts))
                one.positive_deltas.extend(b - a for a, b in zip([0, *counts], counts, strict=False))
            else:
                series.samples.add(value=value, timestamp=at)
    compressed = snappy.compress(body.SerializeToString())
    return Sent(compressed, [(name, at, value) for name, at, value, _ in samples])


@dataclass
class Stage:
    """A deployment on some bucket, and the plain list of what it acknowledged."""

    deployment: Deployment
    deaths: dict[int, str]
    start_ms: int
    proxy: FaultyProxy | None
    written: ListSource = field(default_factory=ListSource)
    engine: Engine = field(default_factory=lambda: Engine(EngineOptions(warnings_max=0, infos_max=0)))

    @property
    def end_ms(self) -> int:
        return self.start_ms + WAVES * WAVE_MS

    def push(self, sent: Sent) -> None:
        """As a sender does it: again, until it is acknowledged."""

        def acknowledged() -> bool:
            try:
                answer = self.deployment.push_raw(sent.body, {"X-Scope-OrgID": TENANT})
            except OSError:
                return False
            assert answer.status < 400 or answer.status >= 500, answer.text
            return answer.status == 200

        wait_for("a push is acknowledged", acknowledged, PATIENCE_S)
        for name, at, value in sent.samples:
            self.written.add(name, [(at, value)])

    def ask(self, path: str, **parameters: str | int | float | Sequence[str]) -> Any:
        """The answer's data; asked again while something is down, never where an answer is wrong."""

        def asked() -> Any:
            try:
                answer = self.deployment.ask(path, **parameters)
            except OSError:
                return None
            assert answer.status == 200 or answer.status >= 500, answer.text
            return answer if answer.status == 200 else None

        return wait_for(f"{path} is answered", asked, PATIENCE_S, 0.3).json["data"]

    def check(self, stage: str) -> None:
        """Queries of all kinds over all times."""
        end, step = self.end_ms, 45_000
        for query in QUERIES:
            found = self.ask("query", query=query, time=end / 1000)
            wanted = json.loads(query_response(self.engine.instant(query, self.written, end)))["data"]
            assert not (text := difference(wanted, found)), f"{stage}: {query}: {text}"
            if query.endswith("h]"):
                continue
            found = self.ask("query_range", query=query, start=self.start_ms / 1000, end=end / 1000, step=step / 1000)
            wanted = json.loads(query_response(self.engine.range(query, self.written, self.start_ms, end, step)))
            assert not (text := difference(wanted["data"], found)), f"{stage}: {query}: {text}"
        where: dict[str, Any] = {"start": self.start_ms / 1000, "end": end / 1000}
        assert self.ask("labels", **where) == sorted({n for one in self.written.series for n, _ in one}), stage
        numbers = {value for one in self.written.series for name, value in one if name == "number"}
        assert self.ask("label/number/values", **where) == sorted(numbers), stage
        found = self.ask("series", match=['{__name__=~".+"}'], **where)
        assert sorted(map(labels_of, found)) == sorted(self.written.series), stage


@dataclass(frozen=True, slots=True)
class Place:
    """The bucket, seen without the proxy. `flags`: for the command line."""

    flags: Sequence[str]
    bucket: Bucket

    def command(self, command: str, *arguments: str) -> str:
        """`mimir-ray blocks`."""
        with redirect_stdout(StringIO()) as out:
            status = blocks.main([command, f"--tenant={TENANT}", *self.flags, *arguments])
        assert status == 0, out.getvalue()
        return out.getvalue()

    def complete(self) -> dict[str, dict[str, Any]]:
        """What `blocks list` says of those that have a meta.json. A death may leave parts of others behind."""
        rows = json.loads(self.command("list", "--json"))
        return {row["ulid"]: row for row in rows if row.get("problem") != "partial: no meta.json"}

    def index(self) -> BucketIndex:
        return read_bucket_index(self.bucket, TenantId(TENANT)) or BucketIndex()

    def sources(self) -> set[str]:
        """The blocks of ingesters whose samples are in blocks that the index has."""
        found: set[str] = set()
        for one in self.index().blocks:
            key = block_key(TenantId(TENANT), one.ulid, META)
            with suppress(ObjectNotFound):  # replaced since
                found |= {*BlockMeta.from_json(self.bucket.get(key), key).compaction.sources}
        return found


@pytest.fixture(scope="module", params=list(DEATHS))
def world(
    request: pytest.FixtureRequest, deploy: Callable[..., Deployment], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Stage, Place]]:
    folder = tmp_path_factory.mktemp("deployment")
    flags: list[str] = []
    near = [f"-data-dir={folder / 'data'}"]
    with ExitStack() as stack:
        proxy = None
        if request.param != "folder":
            server: S3Server = request.getfixturevalue("s3_server")
            config = server.new_bucket()
            near += server.flags(config)
            if request.param == "faulty s3":
                proxy = FaultyProxy(server.endpoint, seed=4, rate=FAULT_RATE)
                config = replace(config, endpoint=stack.enter_context(proxy.running()))
            flags = server.flags(config)
        settings = loader.load(Settings(), near).settings
        place = Place(near, open_bucket(settings.blocks_bucket, "tests", CollectorRegistry()))
        (folder / LIMITS).write_text("overrides: {}\n")
        deployment = deploy(*FLAGS, f"-runtime-config.file={folder / LIMITS}", *flags, KEEPING, folder=folder)
        stack.callback(deployment.kill)
        deployment.start()
        longest = 4 * RANGE_MS
        start_ms = (int(time.time() * 1000) - WAVES * WAVE_MS - RANGE_MS) // longest * longest
        yield Stage(deployment, DEATHS[request.param], start_ms, proxy), place


def local_blocks(deployment: Deployment) -> list[Path]:
    """On the disks of ingesters."""
    return [path.parent for path in (deployment.data / "tsdb").glob(f"**/{TENANT}/*/meta.json")]


def end_one(deployment: Deployment, actor: str) -> None:
    """Ray starts it again."""
    os.kill(min(deployment.pids_of(f"ray::{actor}")), signal.SIGKILL)


def test_answers_stay_exact_while_heads_are_cut_and_blocks_shipped_and_compacted(world: tuple[Stage, Place]) -> None:
    stage, place = world
    deployment = stage.deployment
    deaths = stage.deaths
    for number, requests in enumerate(waves(stage.start_ms, seed=1)):
        for at, sent in enumerate(requests):
            stage.push(sent)
            if at == len(requests) // 2 and number in deaths:
                end_one(deployment, deaths[number])
        stage.check(f"wave {number}")
    wait_for("blocks are in the bucket", lambda: place.index().blocks, PATIENCE_S)
    if deaths:
        deployment.kill()
        deployment.start()
        stage.check("after the death of everything")


def test_after_a_flush_everything_goes_into_the_bucket_and_leaves_the_ingesters(world: tuple[Stage, Place]) -> None:
    stage, place = world
    deployment = stage.deployment

    def flushed() -> bool:
        answer = request(deployment.port, "POST", f"/ingester/flush?wait=true&tenant={TENANT}", timeout_s=90)
        assert answer.status == 204 or answer.status >= 500, answer.text
        return answer.status == 204

    wait_for("heads are flushed", flushed, PATIENCE_S)
    stage.check("flushed")
    cut = {path.name for path in local_blocks(deployment)}
    assert cut
    wait_for("the index has all blocks", lambda: cut <= place.sources(), PATIENCE_S, 0.5)
    if stage.deaths:
        deployment.kill()
        deployment.flags = [*(flag for flag in deployment.flags if flag != KEEPING), DROPPING]
        deployment.start()
        stage.check("while blocks leave")
        wait_for("blocks leave the ingesters", lambda: not local_blocks(deployment), PATIENCE_S)
    else:  # cheaper than a start: everything is older than what ingesters are asked for
        # Queries go by the index as the gateway holds it: the second load from here began after the wait.
        loads = deployment.metric(INDEX_LOADS)

        def loaded() -> bool:
            return bool(stage.ask("query", query="written")) and deployment.metric(INDEX_LOADS) >= loads + 2

        wait_for("the gateway has the index", loaded, PATIENCE_S)
        (deployment.folder / LIMITS).write_text(f"overrides: {{{TENANT}: {{query_ingesters_within: 1m}}}}\n")
        wait_for("the limit is in effect", lambda: f"{TENANT}:" in deployment.get("/runtime_config").text, PATIENCE_S)
    stage.check("in the bucket alone")


def test_the_bucket_is_compacted_and_has_every_sample_once(world: tuple[Stage, Place]) -> None:
    stage, place = world

    def settled() -> bool:
        jobs = stage.deployment.get(f"/compactor/tenant/{TENANT}/planned_jobs", JSON)
        index = place.index()
        return jobs.status == 200 and not jobs.json["jobs"] and not index.deletion_marks and len(index.blocks) <= kept

    kept = 2  # one a shard
    wait_for("compactors have nothing left to do", settled, PATIENCE_S, 0.5)
    rows = place.complete()
    samples = sum(len(points) for points in stage.written.series.values())
    assert sum(row["samples"] for row in rows.values()) == samples
    places = {(row["min_time"] // (4 * RANGE_MS), row["shard"]) for row in rows.values()}
    assert len(places) == len(rows) == kept
    assert not any(row["marks"] for row in rows.values())
    index = place.index()
    assert {one.ulid for one in index.blocks} == set(rows)
    for one in index.blocks:
        row = rows[one.ulid]
        assert (one.min_time, one.max_time, one.level) == (row["min_time"], row["max_time"], row["level"])
        assert one.compactor_shard == row["shard"]
    assert place.command("verify", *rows).splitlines()[-1] == f"{kept} blocks verified, 0 damaged"
    stage.check("compacted")
    if stage.proxy is not None:
        assert set(stage.proxy.met) == {"", *FAULTS}


def test_prometheus_answers_the_same_from_the_blocks(world: tuple[Stage, Place], tmp_path: Path) -> None:
    program, promtool = peer("prometheus"), peer("promtool")
    stage, place = world
    data = tmp_path / "data"
    (data / "wal").mkdir(parents=True)
    ulids = list(place.complete())
    place.command("download", f"--to={data}", *ulids)

    def tool(*arguments: object) -> str:
        command = [promtool, "tsdb", *map(str, arguments)]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert all(ulid in tool("list", data) for ulid in ulids)
    for ulid in ulids:
        assert f"Block ID: {ulid}" in tool("analyze", data, ulid)
    lines = tool("dump", data).splitlines()
    # promtool looks for floats, then for float histograms, and does not print what it finds instead.
    assert len(lines) == sum(len(points) for points in stage.written.series.values()) - 2 * HISTOGRAMS
    floats: dict[Labels, list[tuple[int, float]]] = {}
    for line in lines:
        found = re.match(r"\{(.*)\} (\S+) (\d+)\Z", line)
        if found is not None:
            name = labels_of(re.findall(r'(\w+)="([^"]*)"', found[1]))
            floats.setdefault(name, []).append((int(found[3]), float(found[2])))
    assert floats.keys() == {one for one in stage.written.series if ("__name__", "written") in one}
    for name, points in floats.items():
        wanted = sorted((at, value) for at, value in stage.written.series[name].items() if isinstance(value, float))
        assert np.array_equal(np.array(points), np.array(wanted), equal_nan=True)
    end, start = stage.end_ms / 1000, stage.start_ms / 1000
    with running_prometheus(program, tmp_path, "native-histograms", flags=KEEP) as theirs:
        for query in QUERIES:
            wanted_data = theirs.query("query", query=query, time=str(end))["data"]
            assert not (text := difference(wanted_data, stage.ask("query", query=query, time=end))), query + text
            if query.endswith("h]"):
                continue
            wanted_data = theirs.query("query_range", query=query, start=str(start), end=str(end), step="45")["data"]
            found_data = stage.ask("query_range", query=query, start=start, end=end, step=45)
            assert not (text := difference(wanted_data, found_data)), query + text
