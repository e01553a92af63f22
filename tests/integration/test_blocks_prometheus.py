"""Blocks with floats and native histograms: Prometheus answers from ours as we do, and we from its as it does."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import snappy

from mimir_ray.promql.engine import Engine, EngineOptions
from mimir_ray.tsdb.block.chunk_merge import decode_table
from mimir_ray.tsdb.block.decode import Samples
from mimir_ray.tsdb.block.encode import encode_runs
from mimir_ray.tsdb.block.from_head import block_from_head
from mimir_ray.tsdb.block.reader import Block
from mimir_ray.tsdb.chunks.files import ChunkFiles
from mimir_ray.tsdb.compact.merge import merge_blocks
from mimir_ray.tsdb.head.head import Head
from mimir_ray.tsdb.head.settings import HeadSettings
from mimir_ray.wire.query_json import query_response
from tests.integration.prometheus_peer import Prometheus, peer, running_prometheus
from tests.integration.test_native_histograms_prometheus import (
    QUERIES,
    SCRAPE_MS,
    SCRAPES,
    START_MS,
    by_scrape,
    difference,
    push_body,
    random_request,
)

PROGRAM, PROMTOOL = peer("prometheus"), peer("promtool")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(PROGRAM is None, reason="there is no prometheus to compare with")]

ULIDS = [f"01ARZ3NDEKTSV4RRFFQ69G5FA{letter}" for letter in "VWXYZ"]
FEATURES = ("native-histograms", "promql-experimental-functions")
FOREVER = ("--storage.tsdb.retention.time=100y", "--web.enable-admin-api")
END_MS = START_MS + SCRAPES * SCRAPE_MS


@dataclass(frozen=True)
class Both:
    """A Prometheus that was started on a copy of a block, and the block."""

    theirs: Prometheus
    ours: Block
    engine: Engine


def bodies(seed: int) -> list[bytes]:
    return [one.SerializeToString() for one in by_scrape(random_request(seed))]


def head_of(folder: Path, seed: int, part: slice) -> Head:
    head = Head(ChunkFiles(folder), HeadSettings())
    for body in bodies(seed)[part]:
        push_body(head, body)
    return head


def from_head(folder: Path) -> Path:
    """Our block, cut from a head."""
    assert block_from_head(head_of(folder / "head", 3, slice(None)), START_MS, END_MS, folder / "ours", ULIDS[0])
    return folder / "ours" / ULIDS[0]


def merged(folder: Path) -> Path:
    """Merged from three blocks, two of which overlap."""
    for number, part in enumerate([slice(None, 40), slice(20, 60), slice(60, None)]):
        head = head_of(folder / f"head{number}", 1, part)
        assert block_from_head(head, START_MS, END_MS, folder / "parts", ULIDS[number])
    blocks = [Block(folder / "parts" / ulid) for ulid in ULIDS[:3]]
    assert merge_blocks(blocks, START_MS, END_MS, folder / "ours", ULIDS[3])
    return folder / "ours" / ULIDS[3]


def snapshot(folder: Path) -> Path:
    """Written by Prometheus, which got the samples by remote write."""
    assert PROGRAM is not None
    with running_prometheus(PROGRAM, folder, *FEATURES, flags=FOREVER) as theirs:
        send(theirs, 5)
        name = theirs.query("admin/tsdb/snapshot")["data"]["name"]
    (directory,) = (path for path in (folder / "data" / "snapshots" / name).iterdir() if path.is_dir())
    return directory


def rewritten(folder: Path) -> Path:
    """The same, merged with itself in another range so that all chunks are packed anew."""
    theirs = Block(snapshot(folder))
    half = theirs.meta.min_time + 40 * SCRAPE_MS + 1
    for ulid, mint, maxt in ((ULIDS[0], START_MS, half), (ULIDS[1], half - 10 * SCRAPE_MS, END_MS)):
        assert merge_blocks([theirs], mint, maxt, folder / "parts", ulid, samples_per_chunk=7)
    parts = [Block(folder / "parts" / ulid) for ulid in ULIDS[:2]]
    assert merge_blocks([parts[1], theirs, parts[0]], START_MS, END_MS, folder / "ours", ULIDS[2])
    return folder / "ours" / ULIDS[2]


def send(theirs: Prometheus, seed: int) -> None:
    headers = {"Content-Encoding": "snappy", "X-Prometheus-Remote-Write-Version": "0.1.0"}
    headers["Content-Type"] = "application/x-protobuf"
    for body in bodies(seed):
        sent = urllib.request.Request(f"{theirs.url}/api/v1/write", snappy.compress(body), headers)
        with urllib.request.urlopen(sent, timeout=30):
            pass


PLACEMENTS = {"our block": from_head, "merged": merged, "their snapshot": snapshot, "rewritten": rewritten}


@pytest.fixture(scope="module", params=PLACEMENTS)
def placed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    assert PROGRAM is not None
    directory = PLACEMENTS[request.param](tmp_path_factory.mktemp("made"))
    folder = tmp_path_factory.mktemp("prometheus")
    shutil.copytree(directory, folder / "data" / directory.name)
    with running_prometheus(PROGRAM, folder, *FEATURES, flags=FOREVER) as theirs:
        yield Both(theirs, Block(directory), Engine(EngineOptions(warnings_max=0, infos_max=0)))


@pytest.mark.parametrize("query", QUERIES)
def test_answers_from_blocks_are_the_same(placed: Both, query: str) -> None:
    middle, end, step = START_MS + 40 * SCRAPE_MS + 5_000, START_MS + 79 * SCRAPE_MS, 47_000
    theirs = placed.theirs.query("query", query=query, time=str(middle / 1000))
    ours = json.loads(query_response(placed.engine.instant(query, placed.ours, middle)))
    assert not difference(theirs["data"], ours["data"])
    if query.endswith("m]"):
        return
    theirs = placed.theirs.query(
        "query_range", query=query, start=str(START_MS / 1000), end=str(end / 1000), step=str(step / 1000)
    )
    ours = json.loads(query_response(placed.engine.range(query, placed.ours, START_MS, end, step)))
    assert not difference(theirs["data"], ours["data"])


def test_chunks_that_prometheus_wrote_come_out_of_our_encoder_byte_for_byte(placed: Both) -> None:
    block = placed.ours
    rows = np.arange(len(block.series().references), dtype=np.int32)
    table, data = block.chunk_table(rows, 0, 1 << 60)
    decoded = decode_table(table, data)
    offsets = decoded.offsets
    assert set(table.encodings.tolist()) == {1, 2, 3}
    for c in range(len(table)):
        inside = np.arange(offsets[c], offsets[c + 1])
        one: Samples = decoded.take(inside, np.array([0, len(inside)]))
        made, out = encode_runs(one, 10_000)
        assert made.encodings.tolist() == [table.encodings[c]]
        start = int(table.starts[c])
        theirs = data[table.sources[c]][start : start + int(table.lengths[c])].tobytes()
        ours = out.tobytes()
        if table.encodings[c] != 1:
            # Why a chunk was begun is known to who saw the one before it.
            theirs, ours = theirs[:2] + theirs[3:], ours[:2] + ours[3:]
        assert ours == theirs


def promtool(*arguments: str) -> str:
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, "tsdb", *arguments], check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def dump(block: Path, folder: Path) -> list[str]:
    """promtool's lines of the samples of one block; it leaves out where a series changes its kind."""
    shutil.copytree(block, folder / block.name)
    (folder / "wal").mkdir()
    return promtool("dump", str(folder)).splitlines()


@pytest.mark.skipif(PROMTOOL is None, reason="there is no promtool")
def test_promtool_finds_the_same_in_our_blocks_as_in_theirs(tmp_path: Path) -> None:
    directory = snapshot(tmp_path)
    theirs = Block(directory)
    meta = block_from_head(head_of(tmp_path / "head", 5, slice(None)), START_MS, END_MS, tmp_path / "ours", ULIDS[0])
    assert meta is not None and meta.stats.histogram_samples > 0 and meta.stats.float_samples > 0
    assert meta.stats.samples == theirs.meta.stats.samples
    assert meta.stats.float_samples == theirs.meta.stats.float_samples or theirs.meta.stats.float_samples == 0
    wanted = dump(directory, tmp_path / "one")
    assert len(wanted) > meta.stats.samples // 2
    assert dump(tmp_path / "ours" / ULIDS[0], tmp_path / "two") == wanted
    assert "Total Series: 14" in promtool("analyze", "--extended", str(tmp_path / "two"), ULIDS[0])
    assert ULIDS[0] in promtool("list", str(tmp_path / "two"))
