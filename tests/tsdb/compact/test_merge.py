"""Blocks merged and split, compared to the plain list of samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimir_ray.model.labels import Labels, labels_of
from mimir_ray.model.selection import Selection, Shard
from mimir_ray.testing.blocks import Points, as_bits, content, make_block
from mimir_ray.tsdb.block import chunk_merge
from mimir_ray.tsdb.block.chunk_merge import ranges_equal
from mimir_ray.tsdb.block.errors import DamagedBlock, UnsupportedChunks
from mimir_ray.tsdb.block.meta import BlockMeta, Compaction
from mimir_ray.tsdb.block.ordering import differs_from_previous
from mimir_ray.tsdb.block.reader import Block
from mimir_ray.tsdb.block.series_labels import join_labels, labels_of_index
from mimir_ray.tsdb.block.tombstones import TOMBSTONES_FILE, Tombstones, tombstones_bytes
from mimir_ray.tsdb.block.writer import write_block
from mimir_ray.tsdb.compact import merge
from mimir_ray.tsdb.compact.merge import merge_blocks, merged_compaction, split_blocks

ULIDS = [f"01ARZ3NDEKTSV4RRFFQ69G5F{letter}{other}" for letter in "ABCD" for other in "VWXYZ"]
NEW = "01BX5ZZKBKACTAV9WEVGEMMVS0"


def series(number: int) -> Labels:
    return labels_of({"__name__": f"m{number % 3}", "a": f"é{number}", **({"b": "1"} if number % 2 else {})})


def blocks_of(parent: Path, contents: list[dict[int, Points]], samples_per_chunk: int = 120) -> list[Block]:
    made = []
    for number, content_of_block in enumerate(contents):
        rows = [(series(one), points) for one, points in content_of_block.items() if points]
        if rows:
            make_block(parent, rows, ULIDS[number], samples_per_chunk)
            made.append(Block(parent / ULIDS[number]))
    return made


def expected(contents: list[dict[int, Points]], mint: int, maxt: int) -> dict[Labels, list[tuple[int, int]]]:
    joined: dict[int, dict[int, float]] = {}
    for one in contents:
        for number, points in one.items():
            for time, value in points:
                if mint <= time < maxt:
                    joined.setdefault(number, {}).setdefault(time, value)
    return as_bits([(series(number), sorted(points.items())) for number, points in joined.items()])


points_of_a_series = st.lists(st.integers(0, 60), unique=True, max_size=12).flatmap(
    lambda times: st.tuples(st.just(sorted(times)), st.lists(st.floats(), min_size=len(times), max_size=len(times)))
)
contents_of_blocks = st.lists(
    st.dictionaries(
        st.integers(0, 6),
        points_of_a_series.map(lambda pair: list(zip(*pair, strict=True))),
        max_size=5,
    ),
    min_size=1,
    max_size=4,
)


@given(contents_of_blocks, st.integers(1, 4), st.integers(0, 20), st.integers(30, 70))
def test_a_merged_block_has_the_samples_of_all_and_of_one_timestamp_the_first_block_s(
    tmp_path_factory: pytest.TempPathFactory,
    contents: list[dict[int, Points]],
    samples_per_chunk: int,
    mint: int,
    maxt: int,
) -> None:
    parent = tmp_path_factory.mktemp("blocks")
    blocks = blocks_of(parent, contents, samples_per_chunk)
    wanted = expected(contents, mint, maxt)
    meta = merge_blocks(blocks, mint, maxt, parent, NEW, samples_per_chunk=samples_per_chunk)
    if not wanted:
        assert meta is None and not (parent / NEW).exists()
        return
    assert meta is not None
    merged = Block(parent / NEW)
    found = content(merged)
    assert found == wanted
    assert list(found) == sorted(wanted)
    assert meta.stats.samples == sum(len(points) for points in wanted.values())
    assert (meta.min_time, meta.max_time) == (mint, maxt)
    assert meta.compaction.level == 2 and meta.compaction.sources == sorted(block.meta.ulid for block in blocks)


def numbered(blocks: int, count: int = 60) -> list[dict[int, Points]]:
    """Blocks of which each has some series that others have too."""
    return [
        {one: [(100 * block + time, float(one * time)) for time in range(50)] for one in range(block, count)}
        for block in range(blocks)
    ]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_splitting_gives_the_shards_that_a_selection_gives(tmp_path: Path, count: int) -> None:
    contents = numbered(3)
    blocks = blocks_of(tmp_path, contents)
    ulids = [f"01BX5ZZKBKACTAV9WEVGEMMVS{number}" for number in range(count)]
    metas = split_blocks(blocks, 0, 1000, tmp_path, ulids, labels=[{"shard": str(one)} for one in range(count)])
    together = {}
    for number, (ulid, meta) in enumerate(zip(ulids, metas, strict=True)):
        assert meta is not None and meta.thanos is not None and meta.thanos.labels == {"shard": str(number)}
        found = content(Block(tmp_path / ulid))
        shard = Selection((), 0, 1000, shard=Shard(number, count))
        assert found.keys() == {labels for block in blocks for labels in content(block, shard)}
        alone = tmp_path / str(number)
        assert merge_blocks(blocks, 0, 1000, alone, NEW, shards=(number, count)) is not None
        for name in ("index", "chunks/000001"):
            assert (alone / NEW / name).read_bytes() == (tmp_path / ulid / name).read_bytes()
        together |= found
    assert together == expected(contents, 0, 1000)


def test_a_shard_without_series_becomes_no_block(tmp_path: Path) -> None:
    blocks = blocks_of(tmp_path, [{0: [(1, 1.0)]}])
    metas = split_blocks(blocks, 0, 10, tmp_path, ULIDS[-4:])
    assert sum(meta is not None for meta in metas) == 1
    assert len(list(tmp_path.iterdir())) == 2


def test_what_tombstones_delete_is_gone(tmp_path: Path) -> None:
    contents = numbered(2, 4)
    blocks = blocks_of(tmp_path, contents, samples_per_chunk=7)
    references = blocks[0].series().references
    stones = Tombstones(references[[0, 0, 2]], np.array([5, 20, -1]), np.array([8, 22, 1000]))
    (blocks[0].directory / TOMBSTONES_FILE).write_bytes(tombstones_bytes(stones))
    again = [Block(block.directory) for block in blocks]
    wanted: dict[Labels, list[tuple[int, int]]] = {}
    for block in again:
        for labels, points in content(block).items():
            wanted.setdefault(labels, []).extend(points)
    assert sum(map(len, wanted.values())) == 4 * 50 + 3 * 50 - 7 - 50
    merge_blocks(again, 0, 1000, tmp_path, NEW, samples_per_chunk=7)
    assert content(Block(tmp_path / NEW)) == wanted
    assert len(Block(tmp_path / NEW).tombstones) == 0


def test_small_batches_give_the_same_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = blocks_of(tmp_path, numbered(3), samples_per_chunk=10)
    merge_blocks(blocks, 0, 1000, tmp_path, NEW)
    monkeypatch.setattr(merge, "SERIES_PER_BATCH", 7)
    monkeypatch.setattr(merge, "WEIGHT_PER_BATCH", 30)
    merge_blocks(blocks, 0, 1000, tmp_path, ULIDS[-1])
    for name in ("index", "chunks/000001"):
        assert (tmp_path / NEW / name).read_bytes() == (tmp_path / ULIDS[-1] / name).read_bytes()


def test_replicas_of_a_block_merge_into_one_without_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(chunk_merge, "decode_table")
    contents = numbered(1, 5)
    blocks = blocks_of(tmp_path, contents * 3, samples_per_chunk=20)
    compaction = Compaction(3, ["x"], hints=["from-out-of-order"])
    meta = merge_blocks(blocks, 0, 1000, tmp_path, NEW, compaction=compaction, labels={"a": "b"}, source="test")
    assert meta is not None and meta.compaction == compaction
    assert meta.thanos is not None and (meta.thanos.labels, meta.thanos.source) == ({"a": "b"}, "test")
    assert (tmp_path / NEW / "chunks/000001").read_bytes() == (blocks[0].directory / "chunks/000001").read_bytes()


def test_strings_that_follow_equal_ones_are_known() -> None:
    texts = [b"", b"a", b"", b"ab", b"a"]
    cuts = np.cumsum([0, *map(len, texts)]).astype(np.int64)
    order = np.array([0, 2, 1, 4, 3])
    out = np.empty(5, np.bool_)
    differs_from_previous(np.frombuffer(b"".join(texts), np.uint8), cuts, order, out)
    assert out.tolist() == [i == 0 or texts[order[i]] != texts[order[i - 1]] for i in range(5)]


def test_no_labels_join_to_none(tmp_path: Path) -> None:
    assert merge_blocks([], 0, 1, tmp_path, NEW) is None
    blocks = blocks_of(tmp_path, [{0: [(1, 1.0)], 1: [(1, 1.0)]}])
    part = labels_of_index(blocks[0].series().index.view(), np.arange(2, dtype=np.int32))
    joined = join_labels([part, part])
    assert joined.symbols.texts() == part.symbols.texts()
    assert joined.names.tolist() == part.names.tolist() * 2


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12), st.integers(0, 8)), max_size=5))
def test_ranges_are_equal_where_their_bytes_are(ranges: list[tuple[int, int, int]]) -> None:
    left = np.tile(np.arange(3, dtype=np.uint8), 7)
    right = np.array([0, 1, 2, 0, 1, 1, 2, 0, 1, 2, 0] * 2, np.uint8)
    starts, others, lengths = (np.array([one[k] for one in ranges], np.int64) for k in range(3))
    out = np.empty(len(ranges), np.bool_)
    ranges_equal(left, starts, right, others, lengths, out)
    assert out.tolist() == [bytes(left[a : a + n]) == bytes(right[b : b + n]) for a, b, n in ranges]


def test_a_merged_block_says_where_it_comes_from() -> None:
    def meta(level: int, *hints: str) -> BlockMeta:
        return BlockMeta(ULIDS[level], level, 9, compaction=Compaction(level, [f"s{level}", "s"], hints=list(hints)))

    late, stale = "from-out-of-order", "from-stale-series"
    made = merged_compaction([meta(2, late, stale), meta(1, late)])
    assert made == Compaction(
        3, ["s", "s1", "s2"],
        [{"ulid": ULIDS[2], "minTime": 2, "maxTime": 9}, {"ulid": ULIDS[1], "minTime": 1, "maxTime": 9}],
        hints=[late, stale],
    )  # fmt: skip
    assert merged_compaction([meta(1, late), meta(1)]).hints == []


def test_the_block_that_is_broken_is_named_and_nothing_is_left_behind(tmp_path: Path) -> None:
    blocks = blocks_of(tmp_path, numbered(1, 3), samples_per_chunk=20)
    # Of another encoding than its bytes, with a checksum that is right.
    table, data = blocks[0].chunk_table(np.arange(3, dtype=np.int32), 0, 1000)
    labels = labels_of_index(blocks[0].series().index.view(), np.arange(3, dtype=np.int32))
    for number, encoding in enumerate((2, 9)):
        table.encodings[:] = encoding
        write_block(tmp_path, ULIDS[1 + number], labels, table, data, 0, 1000)
        broken = Block(tmp_path / ULIDS[1 + number])
        with pytest.raises((DamagedBlock, UnsupportedChunks)) as raised:
            merge_blocks([blocks[0], broken], 0, 1000, tmp_path / "made", NEW)
        assert ULIDS[1 + number] in str(raised.value)
    assert not list((tmp_path / "made").iterdir())
