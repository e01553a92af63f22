from __future__ import annotations

import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from mimir_ray.bucket import index_header
from mimir_ray.bucket.filesystem import FilesystemBucket
from mimir_ray.bucket.index_header import HeaderEvents, HeadersBusy, IndexHeaders
from mimir_ray.bucket.store import ObjectNotFound
from mimir_ray.clock import ManualClock
from mimir_ray.encoding.checksum import crc32c
from mimir_ray.errors import Corruption
from mimir_ray.model.labels import labels_of
from mimir_ray.model.matchers import Matcher, MatchType
from mimir_ray.model.tenant import TenantId
from mimir_ray.testing.bucket_blocks import put_block, ulid_of
from mimir_ray.testing.buckets import WatchedBucket
from mimir_ray.tsdb.block.index_reader import IndexFile

TENANT = TenantId("team-a")
BLOCK = ulid_of(0)


class Counting(HeaderEvents):
    def __init__(self) -> None:
        self.told: list[str] = []

    def loaded(self, seconds: float) -> None:
        self.told.append("loaded")

    def load_failed(self) -> None:
        self.told.append("failed")

    def unloaded(self) -> None:
        self.told.append("unloaded")


class Setup:
    def __init__(self, folder: Path, **options: float) -> None:
        series = [
            (labels_of({"__name__": "m", "host": f"h{n:04d}", "empty": "x" * (n % 2)}), [(n, 1.0)]) for n in range(300)
        ]
        put_block(folder / "bucket", TENANT, series)
        self.reads: list[str] = []
        self.size = (folder / "bucket" / TENANT / BLOCK / "index").stat().st_size
        self.bucket = WatchedBucket(FilesystemBucket(folder / "bucket"), lambda name, _key: self.reads.append(name))
        self.clock = ManualClock(0)
        self.events = Counting()
        self.folder = folder / "headers"
        self.options = options
        self.headers = self.fresh()

    def fresh(self) -> IndexHeaders:
        """As after a restart."""
        return IndexHeaders(self.bucket, self.folder, self.clock, events=self.events, **self.options)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def whole_bytes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what size indexes are read whole; none are where a test does not say more."""
    monkeypatch.setattr(index_header, "WHOLE_BYTES", getattr(request, "param", 64))
    monkeypatch.setattr(index_header, "TAIL_BYTES", 64)


@pytest.mark.parametrize("whole_bytes", [64, 5000, 1 << 20], indirect=True)
def test_a_header_takes_few_reads_and_little_disk(tmp_path: Path) -> None:
    setup = Setup(tmp_path)
    header = setup.headers.get(TENANT, BLOCK)
    is_whole = setup.size <= index_header.WHOLE_BYTES + 64
    assert header.is_whole == is_whole
    assert setup.reads.count("get_range") <= (1 if is_whole else 4)
    assert header.values("host") == [f"h{n:04d}" for n in range(300)]
    assert header.values("empty") == ["x"]
    assert header.values("nowhere") == []
    assert header.label_names() == ["__name__", "empty", "host"]
    assert header.memory > 300 * 8
    file = setup.headers.path(TENANT, BLOCK).stat()
    assert file.st_size == (tmp_path / "bucket" / TENANT / BLOCK / "index").stat().st_size == header.size


def test_the_index_serves_where_it_is_a_file(tmp_path: Path) -> None:
    setup = Setup(tmp_path)
    headers = IndexHeaders(FilesystemBucket(tmp_path / "bucket"), setup.folder, setup.clock)
    header = headers.get(TENANT, BLOCK)
    assert header.is_whole
    assert header.values("empty") == ["x"]
    assert not setup.folder.exists()
    shutil.rmtree(tmp_path / "bucket" / TENANT / BLOCK)
    with pytest.raises(ObjectNotFound):
        headers.get(TENANT, BLOCK)


@pytest.mark.parametrize("whole_bytes", [64, 1 << 20], indirect=True)
def test_a_header_survives_a_restart(tmp_path: Path) -> None:
    setup = Setup(tmp_path)
    setup.headers.get(TENANT, BLOCK)
    setup.reads.clear()
    assert setup.fresh().get(TENANT, BLOCK).values("empty") == ["x"]
    assert not setup.reads


@pytest.mark.parametrize("whole_bytes", [64, 1 << 20], indirect=True)
@pytest.mark.parametrize("at", [0, 10, -20, -60, -1])
def test_a_damaged_header_is_made_again(tmp_path: Path, at: int) -> None:
    setup = Setup(tmp_path)
    setup.headers.get(TENANT, BLOCK)
    path = setup.headers.path(TENANT, BLOCK)
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(data)
    assert setup.fresh().get(TENANT, BLOCK).values("empty") == ["x"]


@pytest.mark.parametrize("whole_bytes", [64, 1 << 20], indirect=True)
def test_a_header_cut_short_is_made_again(tmp_path: Path) -> None:
    setup = Setup(tmp_path)
    setup.headers.get(TENANT, BLOCK)
    path = setup.headers.path(TENANT, BLOCK)
    path.write_bytes(path.read_bytes()[:100])
    assert setup.fresh().get(TENANT, BLOCK).values("empty") == ["x"]


@pytest.mark.parametrize("whole_bytes", [64, 1 << 20], indirect=True)
def test_an_index_that_is_damaged_in_the_bucket_is_an_error_each_time(tmp_path: Path) -> None:
    setup = Setup(tmp_path)
    path = tmp_path / "bucket" / TENANT / BLOCK / "index"
    data = bytearray(path.read_bytes())
    data[12] ^= 0xFF
    path.write_bytes(data)
    for _ in range(2):
        with pytest.raises(Corruption):
            setup.headers.get(TENANT, BLOCK)
    path.write_bytes(b"short")
    setup.headers.drop(TENANT, BLOCK)
    with pytest.raises(Corruption):
        setup.headers.get(TENANT, BLOCK)
    assert setup.events.told.count("failed") == 3


def test_a_block_that_is_gone_has_no_header(tmp_path: Path) -> None:
    with pytest.raises(ObjectNotFound):
        Setup(tmp_path).headers.get(TENANT, ulid_of(7))


def test_idle_headers_are_unloaded_and_come_back_from_disk(tmp_path: Path) -> None:
    setup = Setup(tmp_path)
    setup.headers.get(TENANT, BLOCK)
    setup.clock.advance_ms(50_000)
    setup.headers.unload_idle(60)
    assert len(setup.headers) == 1
    assert setup.headers.memory > 0
    setup.clock.advance_ms(20_000)
    setup.headers.unload_idle(60)
    assert len(setup.headers) == 0
    setup.reads.clear()
    setup.headers.get(TENANT, BLOCK)
    assert not setup.reads
    assert setup.events.told == ["loaded", "unloaded", "loaded"]


def test_a_dropped_block_leaves_nothing_behind(tmp_path: Path) -> None:
    setup = Setup(tmp_path)
    setup.headers.get(TENANT, BLOCK)
    setup.headers.drop(TENANT, BLOCK)
    assert not list((tmp_path / "headers" / TENANT).iterdir())
    setup.headers.get(TENANT, BLOCK)
    setup.fresh().keep_only({TENANT: {BLOCK}})
    assert setup.headers.path(TENANT, BLOCK).exists()
    setup.fresh().keep_only({})
    assert not (tmp_path / "headers" / TENANT).exists()


def test_many_who_want_a_header_load_it_once(tmp_path: Path) -> None:
    setup = Setup(tmp_path)
    threads = [threading.Thread(target=setup.headers.get, args=(TENANT, BLOCK)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert setup.events.told == ["loaded"]


def test_too_many_loads_at_once_have_the_last_one_give_up(tmp_path: Path) -> None:
    setup = Setup(tmp_path, concurrency=1, queue_timeout_s=0.01)
    put_block(tmp_path / "bucket", TENANT, [(labels_of({"a": "b"}), [(1, 1.0)])], 1)
    inside, go_on = threading.Event(), threading.Event()

    def before(name: str, key: str) -> None:
        if name == "get_range" and BLOCK in key:
            inside.set()
            go_on.wait(30)

    setup.bucket.before = before
    first = threading.Thread(target=setup.headers.get, args=(TENANT, BLOCK))
    first.start()
    inside.wait(30)
    with pytest.raises(HeadersBusy):
        setup.headers.get(TENANT, ulid_of(1))
    go_on.set()
    first.join()
    assert setup.headers.get(TENANT, ulid_of(1)).values("a") == ["b"]


def test_values_are_judged_as_a_matcher_judges_them(tmp_path: Path) -> None:
    header = Setup(tmp_path).headers.get(TENANT, BLOCK)
    texts = header.values("host")
    first, _ = header.run("host")
    for pattern in (
        "h00.*",
        "h0001|h0299|nobody",
        ".*",
        ".+",
        "h01.+",
        "h0100.*",
        "h0100.+",
        "x.*",
        "h.*9",
        "h0299",
        "",
    ):
        matcher = Matcher(MatchType.REGEX, "host", pattern)
        wanted = [at for at, text in enumerate(texts) if matcher.accepts(text)]
        for _ in range(2):
            assert (header.accepted(matcher) - first).tolist() == wanted, pattern
    assert header.accepted(Matcher(MatchType.EQUAL, "nowhere", "x")).tolist() == []
    for number in range(200):
        assert len(header.accepted(Matcher(MatchType.EQUAL, "host", f"h{number:04d}"))) == 1


def test_lists_in_another_order_end_where_the_next_byte_is_anothers(tmp_path: Path) -> None:
    header = Setup(tmp_path).headers.get(TENANT, BLOCK)
    every = np.arange(len(header.entries), dtype=np.int64)
    starts, ends, size = header.lists(every)
    assert header.places is None
    assert ends.tolist() == [*starts[1:].tolist(), header.file.toc.postings_table]
    assert size == int((ends - starts).sum())
    header.places = np.unique(np.append(starts, header.file.toc.postings_table))
    found = header.lists(every)
    assert (found[0].tolist(), found[1].tolist(), found[2]) == (starts.tolist(), ends.tolist(), size)


def test_a_table_whose_lists_are_in_another_order_serves_as_well(tmp_path: Path) -> None:
    """As other writers may have it: the first two lists of hosts change places."""
    setup = Setup(tmp_path)
    path = tmp_path / "bucket" / TENANT / BLOCK / "index"
    raw = bytearray(path.read_bytes())
    toc = IndexFile(path).toc
    at = toc.postings_table
    size = int.from_bytes(raw[at : at + 4], "big")
    body = bytes(raw[at + 4 : at + 4 + size])
    one, other = body.index(b"h0001"), body.index(b"h0002")
    length = other - one - 12  # of the offset behind the value
    swapped = bytearray(body)
    swapped[one + 5 : one + 5 + length], swapped[other + 5 : other + 5 + length] = (
        body[other + 5 : other + 5 + length],
        body[one + 5 : one + 5 + length],
    )
    raw[at + 4 : at + 8 + size] = bytes(swapped) + crc32c(bytes(swapped)).to_bytes(4, "big")
    straight = setup.headers.get(TENANT, BLOCK)
    path.write_bytes(raw)
    setup.headers.drop(TENANT, BLOCK)
    header = setup.headers.get(TENANT, BLOCK)
    assert header.places is not None
    assert straight.places is None
    first, last = header.run("host")
    every = np.arange(first, last, dtype=np.int64)
    mine, theirs = header.lists(every), straight.lists(every)
    order = [0, 2, 1, *range(3, 300)]
    assert mine[0].tolist() == theirs[0][order].tolist()
    assert mine[1].tolist() == theirs[1][order].tolist()


def test_a_header_without_postings_has_no_names(tmp_path: Path) -> None:
    setup = Setup(tmp_path)
    path = tmp_path / "bucket" / TENANT / BLOCK / "index"
    raw = path.read_bytes()
    toc = bytearray(raw[-52:-4])
    toc[:8] = toc[40:48] = bytes(8)
    path.write_bytes(raw[:-52] + bytes(toc) + crc32c(bytes(toc)).to_bytes(4, "big"))
    header = setup.headers.get(TENANT, BLOCK)
    assert header.label_names() == header.values("host") == []
    assert not header.has_all
    assert len(header.symbols) == 0
    assert header.accepted(Matcher(MatchType.REGEX, "host", "h.*1")).tolist() == []
