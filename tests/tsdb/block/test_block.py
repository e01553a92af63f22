from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mimir_ray.errors import Corruption
from mimir_ray.model.labels import LabelColumns, Labels, labels_of
from mimir_ray.testing.blocks import ALL, ULID, as_bits, content, make_block, name_is
from mimir_ray.testing.contracts import SERIES_SOURCE_CHECKS, MakeSource, Series
from mimir_ray.tsdb.block.chunk_table import ChunkTable
from mimir_ray.tsdb.block.decode import Samples
from mimir_ray.tsdb.block.encode import encode_runs
from mimir_ray.tsdb.block.errors import DamagedBlock, UnsupportedChunks
from mimir_ray.tsdb.block.meta import read_meta
from mimir_ray.tsdb.block.reader import Block
from mimir_ray.tsdb.block.series_labels import labels_of_columns
from mimir_ray.tsdb.block.tombstones import Tombstones, tombstones_bytes
from mimir_ray.tsdb.block.writer import BlockWriter, write_block

A: Labels = (("__name__", "a"), ("x", "1"))
B: Labels = (("__name__", "a"), ("x", "2"))
LONG = [(time, float(time % 7)) for time in range(500)]


@pytest.mark.parametrize("check", SERIES_SOURCE_CHECKS, ids=lambda check: check.__name__)
def test_a_block_is_a_series_source(check: Callable[[MakeSource], None], tmp_path: Path) -> None:
    numbers = itertools.count()

    def make(series: Sequence[Series]) -> Block:
        parent = tmp_path / str(next(numbers))
        make_block(parent, series)
        return Block(parent / ULID)

    check(make)


texts = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=8)
label_sets = st.dictionaries(texts, texts, max_size=5).map(labels_of)
any_float = st.integers(0, (1 << 64) - 1).map(lambda bits: float(np.uint64(bits).view(np.float64)))
points = st.dictionaries(st.integers(-(1 << 60), 1 << 60), any_float, max_size=20).map(lambda one: sorted(one.items()))


@given(st.dictionaries(label_sets, points, max_size=12), st.integers(1, 5), st.integers(200, 2000))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_written_is_read(
    tmp_path: Path, series: dict[Labels, list[tuple[int, float]]], samples_per_chunk: int, segment_bytes: int
) -> None:
    shutil.rmtree(tmp_path / ULID, ignore_errors=True)
    make_block(tmp_path, list(series.items()), samples_per_chunk=samples_per_chunk, segment_bytes=segment_bytes)
    found = content(Block(tmp_path / ULID))
    assert found == as_bits(list(series.items()))
    raw = [[(name.encode(), value.encode()) for name, value in labels] for labels in found]
    assert raw == sorted(raw), "series are in the order of their label sets"


def test_meta_says_what_is_inside(tmp_path: Path) -> None:
    meta = make_block(tmp_path, [(A, LONG), (B, [(7, 1.0)])], thanos_labels={"__compactor_shard_id__": "1_of_4"})
    assert meta == read_meta(tmp_path / ULID)
    assert (meta.min_time, meta.max_time) == (0, 500)
    assert (meta.stats.samples, meta.stats.series, meta.stats.chunks) == (501, 2, 6)
    assert meta.compaction.level == 1
    assert meta.compaction.sources == [ULID]
    assert meta.thanos is not None
    assert meta.thanos.labels == {"__compactor_shard_id__": "1_of_4"}
    for path, size in meta.thanos.files:
        assert size is None or (tmp_path / ULID / path).stat().st_size == size


def test_segments_are_as_long_as_allowed(tmp_path: Path) -> None:
    series = [((("n", f"{number:03d}"),), LONG) for number in range(20)]
    make_block(tmp_path, series, segment_bytes=2000)
    sizes = [path.stat().st_size for path in sorted((tmp_path / ULID / "chunks").iterdir())]
    assert len(sizes) > 3
    assert max(sizes) <= 2000
    assert content(Block(tmp_path / ULID)) == as_bits(series)


def test_a_block_that_is_not_finished_leaves_nothing(tmp_path: Path) -> None:
    rows = labels_of_columns(LabelColumns.from_labels([A]))
    with pytest.raises(RuntimeError), BlockWriter(tmp_path, ULID, rows.symbols):
        assert [path.name for path in tmp_path.iterdir()] == [ULID + ".tmp-for-creation"]
        raise RuntimeError
    assert not list(tmp_path.iterdir())


def test_names_and_values_are_those_of_the_selected_series(tmp_path: Path) -> None:
    make_block(tmp_path, [(A, LONG), ((("__name__", "b"), ("y", "3")), LONG), (B, LONG)])
    block = Block(tmp_path / ULID)
    assert block.label_names(ALL) == ["__name__", "x", "y"]
    assert block.label_values("x", ALL) == ["1", "2"]
    only_b = replace(ALL, matchers=name_is("b"))
    assert block.label_names(only_b) == ["__name__", "y"]
    assert block.label_values("x", only_b) == []
    assert block.label_values("nowhere", ALL) == []


def test_deleted_samples_are_not_read(tmp_path: Path) -> None:
    make_block(tmp_path, [(A, LONG), (B, LONG)])
    second = Block(tmp_path / ULID).series().references[1]
    stones = Tombstones(*(np.array(one, np.int64) for one in ([second, second], [0, 300], [99, 300])))
    (tmp_path / ULID / "tombstones").write_bytes(tombstones_bytes(stones))
    left = [(time, value) for time, value in LONG if time > 99 and time != 300]
    assert content(Block(tmp_path / ULID)) == as_bits([(A, LONG), (B, left)])


def test_chunks_of_other_encodings_are_carried_and_not_decoded(tmp_path: Path) -> None:
    table, data = encode_runs(Samples(np.array([0, 3]), np.array([1, 2, 3]), np.zeros(3)))
    table.encodings[:] = 9
    write_block(tmp_path, ULID, LabelColumns.from_labels([A]), table, [data], 1, 4)
    block = Block(tmp_path / ULID)
    with pytest.raises(UnsupportedChunks, match="encoding 9"):
        content(block)
    again, pieces = block.chunk_table(np.zeros(1, np.int32), 0, 9)
    start = int(again.starts[0])
    assert pieces[0][start : start + int(again.lengths[0])].tobytes() == data.tobytes()
    assert again.encodings.tolist() == [9]


@given(st.data())
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damage_is_an_error_or_changes_nothing(tmp_path: Path, data: st.DataObject) -> None:
    whole = tmp_path / "whole"
    series = [((("n", f"{number}"), ("m", "x" * number)), LONG[: 1 + 150 * number]) for number in range(3)]
    series = [(labels_of(labels), some) for labels, some in series]
    if not whole.exists():
        make_block(whole, series)
    folder = tmp_path / "damaged"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(whole / ULID, folder)
    path = folder / data.draw(st.sampled_from(["index", "chunks/000001", "tombstones"]))
    raw = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        del raw[data.draw(st.integers(0, len(raw) - 1)) :]
    else:
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(raw)
    try:
        found = content(Block(folder))
    except Corruption as error:
        assert "damaged at byte" in str(error)
    else:
        assert found == as_bits(series)


def test_overlapping_chunks_of_others_are_merged_when_read(tmp_path: Path) -> None:
    table, data = encode_runs(
        Samples(np.array([0, 3, 6]), np.array([1, 5, 9, 3, 5, 7]), np.array([1.0, 5, 9, 3, 50, 7]))
    )
    one = ChunkTable(
        np.array([0, 2]), table.mints, table.maxts, table.sources, table.starts, table.lengths, table.counts,
        table.encodings,
    )  # fmt: skip
    write_block(tmp_path, ULID, LabelColumns.from_labels([A]), one, [data], 1, 10)
    assert content(Block(tmp_path / ULID)) == as_bits([(A, [(1, 1.0), (3, 3.0), (5, 5.0), (7, 7.0), (9, 9.0)])])


def test_a_folder_without_an_index_is_refused(tmp_path: Path) -> None:
    make_block(tmp_path, [(A, LONG)])
    (tmp_path / ULID / "index").write_bytes(b"")
    with pytest.raises(DamagedBlock):
        Block(tmp_path / ULID)


@pytest.mark.parametrize(("version", "readable"), [(1, False), (2, True), (3, True), (4, False)])
def test_index_versions_that_prometheus_reads_are_read(tmp_path: Path, version: int, readable: bool) -> None:
    make_block(tmp_path, [(A, LONG)])
    path = tmp_path / ULID / "index"
    raw = bytearray(path.read_bytes())
    raw[4] = version
    path.write_bytes(raw)
    if readable:
        assert content(Block(tmp_path / ULID)) == as_bits([(A, LONG)])
    else:
        with pytest.raises(DamagedBlock, match=f"index version {version} is not supported"):
            Block(tmp_path / ULID)
