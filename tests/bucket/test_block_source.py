from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mimir_ray.bucket import index_header
from mimir_ray.bucket.block_reader import (
    BlockCaches,
    BucketBlock,
    decode_lists,
    entry_lengths,
    keep_among,
    measure_lists,
)
from mimir_ray.bucket.block_source import ReadCounter, estimate_samples, find_all, select_blocks
from mimir_ray.bucket.filesystem import FilesystemBucket
from mimir_ray.bucket.found import FoundCache
from mimir_ray.bucket.index_header import IndexHeaders
from mimir_ray.bucket.ranges import PageCache
from mimir_ray.bucket.store import ObjectNotFound
from mimir_ray.clock import ManualClock
from mimir_ray.encoding.checksum import crc32c
from mimir_ray.errors import Corruption
from mimir_ray.model.labels import Labels, labels_of
from mimir_ray.model.matchers import Matcher, MatchType
from mimir_ray.model.selection import Selection, Shard
from mimir_ray.model.series import SeriesBatch
from mimir_ray.model.tenant import TenantId
from mimir_ray.testing.bucket_blocks import put_block, ulid_of
from mimir_ray.testing.contracts import SERIES_SOURCE_CHECKS, MakeSource, Series
from mimir_ray.testing.sources import ListSource
from mimir_ray.testing.strategies import label_values, series_lists

TENANT = TenantId("team-a")
EVER = (-(1 << 60), 1 << 60)


class Bucket(FilesystemBucket):
    """Counts the ranged reads."""

    is_folder = False

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.reads: list[tuple[str, int, int]] = []

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        self.reads.append((key, offset, length))
        return super().get_range(key, offset, length)

    def local_path(self, key: str) -> str | None:
        return super().local_path(key) if self.is_folder else None


@pytest.fixture(autouse=True)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How blocks are read: in `ranges` with a header, with a `whole` index, or mapped from a `folder`."""
    kind: str = getattr(request, "param", "ranges")
    monkeypatch.setattr(Bucket, "is_folder", kind == "folder")
    if kind == "ranges":
        monkeypatch.setattr(index_header, "WHOLE_BYTES", 64)
        monkeypatch.setattr(index_header, "TAIL_BYTES", 64)
    return kind


EACH_KIND = pytest.mark.parametrize("kind", ["ranges", "whole", "folder"], indirect=True)


class Source:
    """Blocks of a bucket as a `SeriesSource`."""

    def __init__(self, root: Path, numbers: Sequence[int], found_bytes: int = 1 << 20, pages: int = 1 << 20) -> None:
        self.bucket = Bucket(root)
        self.headers = IndexHeaders(self.bucket, root.parent / f"{root.name}-headers", ManualClock(0))
        self.caches = BlockCaches(PageCache(pages), PageCache(pages), FoundCache(found_bytes))
        self.blocks = [BucketBlock(self.bucket, TENANT, ulid_of(one), self.headers, self.caches) for one in numbers]
        self.counter = ReadCounter()

    def select(self, selection: Selection) -> Iterator[SeriesBatch]:
        founds = find_all(self.blocks, selection.matchers)
        return select_blocks(self.blocks, founds, selection, self.counter)


def content(source: Source | ListSource, selection: Selection) -> dict[Labels, list[tuple[int, int]]]:
    """Values as bits, so that NaN is equal to itself."""
    found: dict[Labels, list[tuple[int, int]]] = {}
    for batch in source.select(selection):
        assert len(batch) <= selection.batch_series
        bits = np.ascontiguousarray(batch.values).view(np.uint64).tolist()
        times, offsets = batch.timestamps.tolist(), batch.offsets.tolist()
        for row, labels in enumerate(batch.labels.to_labels()):
            assert labels not in found
            part = slice(offsets[row], offsets[row + 1])
            found[labels] = list(zip(times[part], bits[part], strict=True))
    return found


@EACH_KIND
@pytest.mark.parametrize("check", SERIES_SOURCE_CHECKS, ids=lambda check: check.__name__)
def test_a_block_in_a_bucket_is_a_series_source(check: Callable[[MakeSource], None], tmp_path: Path) -> None:
    numbers = itertools.count()

    def make(series: Sequence[Series]) -> Source:
        root = tmp_path / str(next(numbers))
        put_block(root, TENANT, series)
        return Source(root, [0])

    check(make)


@pytest.mark.parametrize("check", SERIES_SOURCE_CHECKS, ids=lambda check: check.__name__)
def test_several_blocks_are_one_series_source(check: Callable[[MakeSource], None], tmp_path: Path) -> None:
    """Block 0 has every third sample, block 1 the others, block 2 all of them once more."""
    numbers = itertools.count()

    def make(series: Sequence[Series]) -> Source:
        root = tmp_path / str(next(numbers))
        put_block(root, TENANT, [(labels, list(points)[::3]) for labels, points in series], 0)
        rest = [(labels, [one for at, one in enumerate(points) if at % 3]) for labels, points in series]
        put_block(root, TENANT, rest, 1)
        put_block(root, TENANT, series, 2)
        return Source(root, [0, 1, 2])

    check(make)


@st.composite
def valid_matchers(draw: st.DrawFn) -> tuple[Matcher, ...]:
    names = st.sampled_from(["a", "b", "job", "__name__", "nowhere"])
    plain = st.builds(Matcher, st.sampled_from([MatchType.EQUAL, MatchType.NOT_EQUAL]), names, label_values())
    patterns = st.sampled_from([".*", ".+", "a|b", "a.*", "1.+", "[ab]", "", "up", "m", "(a|b).*", "ä?"])
    regex = st.builds(Matcher, st.sampled_from([MatchType.REGEX, MatchType.NOT_REGEX]), names, patterns)
    return tuple(draw(st.lists(plain | regex, max_size=3)))


@EACH_KIND
@given(
    series_lists(max_size=12), st.lists(st.integers(0, 6), min_size=12, max_size=12), valid_matchers(),
    st.integers(-100_000, 1_000_000), st.integers(0, 500_000), st.integers(1, 3), st.integers(2, 40),
    st.sampled_from([0, 1 << 20]),
)  # fmt: skip
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_blocks_answer_as_the_list_of_their_samples(
    tmp_path: Path,
    series: list[tuple[Labels, list[tuple[int, float]]]],
    where: list[int],
    wanted: tuple[Matcher, ...],
    mint: int,
    span: int,
    shards: int,
    per_chunk: int,
    cached: int,
) -> None:
    """Each series is in some of three blocks: in one whole, or its samples in turn."""
    root = tmp_path / "bucket"
    shutil.rmtree(tmp_path, ignore_errors=True)
    for block in range(3):
        held = []
        for (labels, points), place in zip(series, where, strict=False):
            if place in (block, 3 + block):
                held.append((labels, points))
            elif place == 6 or place > 2:
                held.append((labels, points[block::3]))
        put_block(root, TENANT, held, block, samples_per_chunk=per_chunk, segment_bytes=2000)
    source = Source(root, [0, 1, 2], found_bytes=cached, pages=cached)
    expected = content(ListSource(series), Selection(wanted, mint, mint + span))
    for _ in range(2):  # asked again it comes from what is kept
        found: dict[Labels, list[tuple[int, int]]] = {}
        for index in range(shards):
            selection = Selection(wanted, mint, mint + span, Shard(index, shards), batch_series=5)
            part = content(source, selection)
            assert not part.keys() & found.keys()
            found |= part
            founds = find_all(source.blocks, selection.matchers)
            assert estimate_samples(founds, selection) * per_chunk >= sum(map(len, part.values()))
        assert found == expected
    names = {name for labels, _ in series for name, _ in labels}
    assert set().union(*(block.label_names(()) for block in source.blocks)) <= names


def wide(series: int, samples: int = 10) -> list[tuple[Labels, list[tuple[int, float]]]]:
    points = [(time * 1000, float(time)) for time in range(samples)]
    return [
        (labels_of({"__name__": "m", "host": f"h{n:05d}", "zone": f"z{n % 3}", "job": "node"}), points)
        for n in range(series)
    ]


def test_names_and_values_need_no_series_where_nothing_is_asked_of_them(tmp_path: Path) -> None:
    put_block(tmp_path / "b", TENANT, wide(100))
    source = Source(tmp_path / "b", [0])
    block = source.blocks[0]
    assert block.label_names(()) == ["__name__", "host", "job", "zone"]
    assert block.label_values("zone", ()) == ["z0", "z1", "z2"]
    assert block.label_values("nothing", ()) == []
    made = len(source.bucket.reads)
    assert block.label_values("zone", (Matcher(MatchType.EQUAL, "host", "h00004"),)) == ["z1"]
    assert block.label_names((Matcher(MatchType.EQUAL, "host", "h00004"),)) == ["__name__", "host", "job", "zone"]
    assert len(source.bucket.reads) > made


def test_one_series_of_many_is_found_with_few_reads(tmp_path: Path) -> None:
    put_block(tmp_path / "b", TENANT, wide(20_000, 3))
    source = Source(tmp_path / "b", [0])
    source.headers.get(TENANT, ulid_of(0))
    source.bucket.reads.clear()
    selection = Selection((Matcher(MatchType.EQUAL, "host", "h00004"), Matcher(MatchType.EQUAL, "job", "node")), *EVER)
    assert [len(points) for points in content(source, selection).values()] == [3]
    read = sum(length for _, _, length in source.bucket.reads)
    # The list of job="node" is longer than the one series that it could leave out.
    assert len(source.bucket.reads) == 3
    assert read <= 6 * 65536
    source.bucket.reads.clear()
    assert content(source, selection)
    assert not source.bucket.reads


def test_a_limit_ends_a_query_before_it_reads_chunks(tmp_path: Path) -> None:
    class Strict(ReadCounter):
        def selected(self, series: int, chunks: int) -> None:
            raise PermissionError(f"{series} series, {chunks} chunks")

    put_block(tmp_path / "b", TENANT, wide(50))
    source = Source(tmp_path / "b", [0])
    source.counter = Strict()
    with pytest.raises(PermissionError, match="50 series, 50 chunks"):
        content(source, Selection((Matcher(MatchType.EQUAL, "job", "node"),), *EVER))


def test_what_is_read_is_counted(tmp_path: Path) -> None:
    class Counting(ReadCounter):
        total = size = 0

        def selected(self, series: int, chunks: int) -> None:
            self.total += chunks

        def read(self, size: int) -> None:
            self.size += size

    put_block(tmp_path / "b", TENANT, wide(50, 250))
    source = Source(tmp_path / "b", [0])
    source.counter = counting = Counting()
    assert content(source, Selection((), 0, 100_000))
    assert counting.total == 50
    assert 50 * 20 < counting.size < 50 * 1000


def test_batches_are_bounded_by_chunks_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mimir_ray.bucket.block_source.CHUNKS_PER_BATCH", 4)
    put_block(tmp_path / "b", TENANT, wide(5, 300))
    batches = list(Source(tmp_path / "b", [0]).select(Selection((), *EVER)))
    assert [len(batch) for batch in batches] == [1, 1, 1, 1, 1]


def test_a_query_stops_between_batches(tmp_path: Path) -> None:
    put_block(tmp_path / "b", TENANT, wide(30))
    source = Source(tmp_path / "b", [0])
    selection = Selection((), *EVER, batch_series=10)
    calls = itertools.count()

    def check() -> None:
        if next(calls) == 1:
            raise InterruptedError

    batches = select_blocks(source.blocks, find_all(source.blocks, selection.matchers), selection,
                            source.counter, check)  # fmt: skip
    assert len(next(batches)) == 10
    with pytest.raises(InterruptedError):
        next(batches)


def test_blocks_are_looked_at_side_by_side(tmp_path: Path) -> None:
    for number in range(4):
        put_block(tmp_path / "b", TENANT, wide(5 + number), number)
    source = Source(tmp_path / "b", range(4))
    with ThreadPoolExecutor(3) as pool:
        founds = find_all(source.blocks, (), pool, 3)
    assert [len(found) for found in founds] == [5, 6, 7, 8]


@EACH_KIND
@pytest.mark.parametrize("few", [False, True])
@pytest.mark.parametrize("file", ["index", "chunks/000001"])
def test_any_damaged_byte_is_noticed_or_does_no_harm(tmp_path: Path, file: str, few: bool) -> None:
    series = wide(6, 200)
    put_block(tmp_path / "b", TENANT, series)
    path = tmp_path / "b" / TENANT / ulid_of(0) / file
    whole = path.read_bytes()
    wanted_hosts = Matcher(MatchType.REGEX, "host", "h.*4|h00001")
    selection = Selection((wanted_hosts, Matcher(MatchType.NOT_EQUAL, "zone", "z9")), *EVER)
    if few:
        selection = Selection((Matcher(MatchType.EQUAL, "job", "node"), Matcher(MatchType.EQUAL, "zone", "z1")), *EVER)
    wanted = content(ListSource(series), selection)
    noticed = 0
    for at in range(5 if file == "index" else 8, len(whole), 37 if file == "index" else 11):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        shutil.rmtree(tmp_path / "b-headers", ignore_errors=True)
        try:
            assert content(Source(tmp_path / "b", [0]), selection) == wanted, at
        except Corruption:
            noticed += 1
    assert noticed > 10
    path.write_bytes(whole[: len(whole) // 2])
    shutil.rmtree(tmp_path / "b-headers", ignore_errors=True)
    with pytest.raises(Corruption):
        content(Source(tmp_path / "b", [0]), selection)


@EACH_KIND
def test_many_blocks_answer_as_one_and_name_what_is_damaged(tmp_path: Path, kind: str) -> None:
    series = wide(3, 60)
    for number in range(6):  # more than are decoded from where they are
        part = [(labels, points[number * 10 : number * 10 + 10]) for labels, points in series]
        put_block(tmp_path / "b", TENANT, part, number)
    selection = Selection((Matcher(MatchType.REGEX, "host", "h0000[01]"),), 5_000, 55_000)
    source = Source(tmp_path / "b", range(6))
    assert content(source, selection) == content(ListSource(series), selection)
    with ThreadPoolExecutor(2) as pool:
        founds = find_all(source.blocks, selection.matchers, pool, 2)
        beside = select_blocks(source.blocks, founds, selection, source.counter, lambda: None, pool, 2)
        one_by_one = select_blocks(source.blocks, founds, selection, source.counter)
        for one, other in zip(beside, one_by_one, strict=True):
            assert one.labels.to_labels() == other.labels.to_labels()
            assert one.timestamps.tolist() == other.timestamps.tolist()
    path = tmp_path / "b" / TENANT / ulid_of(4) / "chunks" / "000001"
    raw = bytearray(path.read_bytes())
    # A sample count of 65,535 in the chunk, which its checksum agrees with.
    raw[10:12] = b"\xff\xff"
    size = raw[8]
    raw[10 + size : 14 + size] = crc32c(bytes(raw[9 : 10 + size])).to_bytes(4, "big")
    path.write_bytes(raw)
    with pytest.raises(Corruption, match=f"{ulid_of(4)}/chunks/000001"):
        content(Source(tmp_path / "b", range(6)), selection)


@EACH_KIND
def test_a_block_that_goes_away_is_not_answered_for(tmp_path: Path, kind: str) -> None:
    for number in range(2):
        put_block(tmp_path / "b", TENANT, wide(5), number)
    source = Source(tmp_path / "b", range(2), found_bytes=0, pages=0)
    matchers = (Matcher(MatchType.EQUAL, "job", "node"),)
    assert all(found is not None for found in find_all(source.blocks, matchers))
    shutil.rmtree(tmp_path / "b" / TENANT / ulid_of(1))
    if kind == "whole":  # its index is still here
        with pytest.raises(ObjectNotFound, match=ulid_of(1)):
            content(source, Selection(matchers, *EVER))
    else:
        assert [found is None for found in find_all(source.blocks, matchers)] == [False, True]


@given(st.lists(st.tuples(st.lists(st.integers(0, (1 << 32) - 1), max_size=4), st.integers(0, 9)), max_size=6))
def test_postings_lists_are_read_as_a_plain_reader_does(lists: list[tuple[list[int], int]]) -> None:
    """Each list as it should be (0-6), with its checksum (7), its count (8) or its length wrong (9)."""
    raw, places, ends, code = b"", [], [], 0
    for number, (references, what) in enumerate(lists):
        body = (len(references) + (what == 8)).to_bytes(4, "big") + b"".join(
            one.to_bytes(4, "big") for one in references
        )
        places.append(len(raw))
        raw += (len(body) + (what == 9)).to_bytes(4, "big") + body + (crc32c(body) ^ (what == 7)).to_bytes(4, "big")
        ends.append(len(raw))
        if not code and what >= 7:
            code = -(2 * number + (2 if what == 7 else 1))
    data, at = np.frombuffer(raw, np.uint8), np.array(places, np.int64)
    counts = np.zeros(len(lists), np.int64)
    assert measure_lists(data, at, np.array(ends, np.int64), counts) == code
    if not code:
        found = np.empty(int(counts.sum()), np.uint32)
        decode_lists(data, at, counts, found)
        assert found.tolist() == [one for references, _ in lists for one in references]


@given(st.lists(st.binary(max_size=40), max_size=8), st.integers(0, 8), st.integers(0, 30))
def test_lengths_of_entries_are_those_of_a_plain_reader(entries: list[bytes], extra: int, cut: int) -> None:
    raw, places, ends, wanted = b"", [], [], []
    for entry in entries:
        places.append(len(raw))
        raw += bytes([len(entry)]) + entry + bytes(extra)
        ends.append(max(places[-1], len(raw) - cut))
        wanted.append(1 + len(entry) + extra if ends[-1] > places[-1] else 16)
    lengths = np.empty(len(entries), np.int64)
    data = np.frombuffer(raw, np.uint8)
    short = entry_lengths(data, np.array(places, np.int64), np.array(ends, np.int64), extra, lengths)
    assert lengths.tolist() == wanted
    assert short == sum(length > end - place for length, place, end in zip(wanted, places, ends, strict=True))


def test_a_length_that_never_ends_is_none() -> None:
    lengths = np.empty(1, np.int64)
    assert entry_lengths(np.full(12, 0xFF, np.uint8), np.zeros(1, np.int64), np.full(1, 12), 4, lengths) == 1
    assert lengths.tolist() == [-1]


@given(st.sets(st.integers(0, 60)), st.sets(st.integers(0, 60)), st.booleans())
def test_what_is_kept_is_what_a_set_keeps(rows: set[int], others: set[int], wanted: bool) -> None:
    kept = np.empty(len(rows), np.int64)
    count = keep_among(np.array(sorted(rows), np.int64), np.array(sorted(others), np.int64), wanted, kept)
    assert kept[:count].tolist() == sorted(rows & others if wanted else rows - others)
