"""Prometheus' own tool reads what we wrote, and we read what it wrote."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from mimir_ray.model.labels import Labels, labels_of
from mimir_ray.testing.blocks import ULID, Points, as_bits, content, make_block
from mimir_ray.testing.writes import write_batch
from mimir_ray.tsdb.block.from_head import block_from_head
from mimir_ray.tsdb.block.reader import Block
from mimir_ray.tsdb.block.verify import verify_block
from mimir_ray.tsdb.chunks.files import ChunkFiles
from mimir_ray.tsdb.head.head import Head
from mimir_ray.tsdb.head.settings import PushLimits

ROOT = Path(__file__).parents[3]
FOLDERS = [os.environ.get("MIMIR_RAY_PEERS", ""), str(ROOT / ".peers" / "bin"), str(ROOT.parent / ".peers" / "bin")]
PROMTOOL = shutil.which("promtool", path=os.pathsep.join([*filter(None, FOLDERS), os.environ["PATH"]]))
pytestmark = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not here")

START = 1_700_000_000_000
SERIES: list[tuple[Labels, Points]] = [
    (
        labels_of({"__name__": f"m{number % 3}", "i": str(number), "job": "ü" if number % 2 else ""}),
        [(START + step * 15_000, number * step / 7) for step in range(1 + 40 * number)],
    )
    for number in range(20)
]
_LINE = re.compile(r"\{(.*)\} (\S+) (\d+)\Z")


def promtool(*arguments: str) -> str:
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, "tsdb", *arguments], check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def dumped(parent: Path) -> list[tuple[Labels, Points]]:
    (parent / "wal").mkdir(exist_ok=True)
    found: dict[Labels, list[tuple[int, float]]] = {}
    for line in promtool("dump", str(parent)).splitlines():
        match = _LINE.match(line)
        assert match is not None, line
        pairs = re.findall(r'(\w+)="([^"]*)"', match[1])
        found.setdefault(labels_of(pairs), []).append((int(match[3]), float(match[2])))
    return list(found.items())


def test_it_dumps_exactly_the_samples_we_wrote(tmp_path: Path) -> None:
    make_block(tmp_path, SERIES, segment_bytes=20_000)
    assert as_bits(dumped(tmp_path)) == as_bits(SERIES)


def test_it_analyzes_and_lists_our_blocks(tmp_path: Path) -> None:
    make_block(tmp_path, SERIES)
    analysis = promtool("analyze", "--extended", str(tmp_path), ULID)
    assert "Total Series: 20" in analysis
    assert "Postings (unique label pairs): 24" in analysis
    listed = promtool("list", str(tmp_path)).splitlines()[1].split()
    assert listed[0] == ULID
    assert listed[4:7] == ["7620", "77", "20"]


def test_it_dumps_what_was_cut_from_a_head_with_late_samples(tmp_path: Path) -> None:
    head = Head(ChunkFiles(tmp_path / "chunks_head"))
    limits = PushLimits(out_of_order_window_ms=86_400_000)
    for part in (slice(1, None, 2), slice(0, None, 2)):
        head.push([write_batch(new=[(labels, points[part]) for labels, points in SERIES])], 0, limits)
    mint, maxt = START + 600_000, START + 6_000_000
    block_from_head(head, mint, maxt, tmp_path / "blocks", ULID)
    inside = [(labels, [point for point in points if mint <= point[0] < maxt]) for labels, points in SERIES]
    assert as_bits(dumped(tmp_path / "blocks")) == as_bits(inside)


def test_we_read_the_blocks_it_makes(tmp_path: Path) -> None:
    lines = []
    for labels, points in SERIES:
        inside = ",".join(f'{name}="{value}"' for name, value in labels[1:])
        lines += [f"{labels[0][1]}{{{inside}}} {value!r} {time / 1000}" for time, value in points]
    (tmp_path / "in.txt").write_text("\n".join([*lines, "# EOF"]) + "\n")
    promtool("create-blocks-from", "openmetrics", str(tmp_path / "in.txt"), str(tmp_path / "out"))
    found: dict[Labels, list[tuple[int, int]]] = {}
    folders = sorted((tmp_path / "out").iterdir(), key=lambda folder: Block(folder).meta.min_time)
    for folder in folders:
        verify_block(folder)
        for labels, points in content(Block(folder)).items():
            found.setdefault(labels, []).extend(points)
    assert found == as_bits(SERIES)
