from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mimir_ray.model.labels import Labels
from mimir_ray.model.selection import Selection
from mimir_ray.testing.blocks import ULID, content
from mimir_ray.testing.writes import write_batch
from mimir_ray.tsdb.block.errors import UnsupportedChunks
from mimir_ray.tsdb.block.from_head import block_from_head
from mimir_ray.tsdb.block.reader import Block
from mimir_ray.tsdb.chunks.files import ChunkFiles
from mimir_ray.tsdb.head.head import Head
from mimir_ray.tsdb.head.settings import HeadSettings, PushLimits

LIMITS = PushLimits(out_of_order_window_ms=1 << 40)


def labels_of_number(number: int) -> Labels:
    return (("__name__", f"m{number % 2}"), ("n", str(number)))


pushes = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 400), st.floats(allow_nan=False)), min_size=1, max_size=120
)


@given(pushes, st.integers(0, 400), st.integers(1, 400), st.integers(1, 7))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_block_answers_as_the_head_it_was_cut_from(
    tmp_path: Path, samples: list[tuple[int, int, float]], mint: int, length: int, samples_per_chunk: int
) -> None:
    shutil.rmtree(tmp_path)
    head = Head(ChunkFiles(tmp_path / "head"), HeadSettings(samples_per_chunk=samples_per_chunk, chunk_range_ms=100))
    for number, (key, part) in enumerate(itertools.groupby(samples, key=lambda one: one[0])):
        points = [(time, value) for _, time, value in part]
        head.push([write_batch(new=[(labels_of_number(key), points)])], 0, LIMITS)
        if number % 3 == 0:
            head.flush()
    expected = content(head, Selection((), mint, mint + length - 1))
    meta = block_from_head(head, mint, mint + length, tmp_path / "blocks", ULID)
    if meta is None:
        assert not expected
        assert not list((tmp_path / "blocks").iterdir())
        return
    block = Block(tmp_path / "blocks" / ULID)
    assert content(block) == expected
    assert meta.stats.samples == sum(map(len, expected.values()))
    assert meta.stats.series == len(expected)
    series = block.series()
    rows = np.arange(len(series.references), dtype=np.int32)
    table, _ = block.chunk_table(rows, 0, 1 << 40)
    for start, end in itertools.pairwise(table.offsets.tolist()):
        assert (table.maxts[start : end - 1] < table.mints[start + 1 : end]).all(), "chunks are disjoint"


def test_chunks_inside_the_range_keep_their_bytes(tmp_path: Path) -> None:
    head = Head(ChunkFiles(tmp_path / "head"), HeadSettings(chunk_range_ms=1000))
    points = [(time, float(time * time)) for time in range(0, 3000, 5)]
    head.push([write_batch(new=[(labels_of_number(1), points)])], 0)
    head.flush()
    stored = (tmp_path / "head").joinpath("000001").read_bytes()
    meta = block_from_head(head, 1000, 2000, tmp_path, ULID)
    assert meta is not None
    assert meta.stats.chunks == 2
    table, data = Block(tmp_path / ULID).chunk_table(np.zeros(1, np.int32), 0, 3000)
    assert table.counts.tolist() == [120, 80]
    for start, length in zip(table.starts.tolist(), table.lengths.tolist(), strict=True):
        assert data[0][start : start + length].tobytes() in stored


@pytest.mark.parametrize("mint", [501, 1001])
def test_an_empty_range_makes_no_block(tmp_path: Path, mint: int) -> None:
    head = Head(ChunkFiles(tmp_path / "head"))
    head.push([write_batch(new=[(labels_of_number(1), [(500, 1.0)])])], 0)
    assert block_from_head(head, mint, mint + 10, tmp_path / "blocks", ULID) is None
    assert not list((tmp_path / "blocks").iterdir())


def test_a_head_with_native_histograms_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Head, "has_histograms", property(lambda _: True))
    with pytest.raises(UnsupportedChunks, match="histogram"):
        block_from_head(Head(ChunkFiles(tmp_path / "head"), HeadSettings()), 0, 1, tmp_path, ULID)
