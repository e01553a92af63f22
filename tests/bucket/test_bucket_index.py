from __future__ import annotations

import contextlib
import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimir_ray.bucket.bucket_index import (
    BucketIndex,
    DamagedIndex,
    IndexedBlock,
    read_bucket_index,
    write_bucket_index,
)
from mimir_ray.bucket.bucket_index_updater import update_bucket_index
from mimir_ray.bucket.markers import DeletionMark, remove_mark, write_deletion_mark
from mimir_ray.bucket.store import BucketUnavailable
from mimir_ray.testing.buckets import MemoryBucket, WatchedBucket

from .blocks_in_bucket import NOW_MS, TENANT, put_meta, ulid

blocks = st.builds(
    IndexedBlock,
    st.integers(0, 9).map(ulid),
    st.integers(0, 1 << 50),
    st.integers(0, 1 << 50),
    st.integers(0, 1 << 40),
    st.integers(0, 20),
    st.sampled_from(["", "1_of_4"]),
    st.sampled_from(["receive", "compactor"]),
    st.integers(1, 9),
    st.booleans(),
    st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=2),
)


@given(
    st.lists(blocks, max_size=4), st.dictionaries(st.integers(0, 9).map(ulid), st.integers(0, 1 << 40)), st.integers(0)
)
def test_an_index_is_read_back(found: list[IndexedBlock], marks: dict[str, int], updated_at: int) -> None:
    index = BucketIndex(tuple(found), marks, updated_at % (1 << 40))
    assert BucketIndex.from_bytes(index.to_bytes()) == index


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", gzip.compress(b"{", mtime=0), gzip.compress(b"[]", mtime=0), gzip.compress(b'{"version":3}', mtime=0)],
)
def test_what_is_no_index_is_an_error_that_names_it(data: bytes) -> None:
    bucket = MemoryBucket()
    bucket.put("team-a/bucket-index.json.gz", data)
    with pytest.raises(DamagedIndex, match=r"team-a/bucket-index\.json\.gz: no bucket index"):
        read_bucket_index(bucket, TENANT)


@given(st.data())
def test_an_index_that_was_cut_or_flipped_is_never_taken_for_another(data: st.DataObject) -> None:
    whole = BucketIndex((IndexedBlock(ulid(1), 1, 2),), {ulid(1): 3}, 4)
    raw = bytearray(whole.to_bytes())
    at = data.draw(st.integers(0, len(raw) - 1))
    if data.draw(st.booleans()):
        del raw[at:]
    else:
        raw[at] ^= 1 << data.draw(st.integers(0, 7))
    with contextlib.suppress(DamagedIndex):
        assert BucketIndex.from_bytes(bytes(raw)) == whole


def test_an_update_finds_blocks_marks_and_partial_blocks() -> None:
    bucket = MemoryBucket(lambda: NOW_MS)
    for number in (2, 1, 3):
        put_meta(bucket, number)
    bucket.put(f"team-a/{ulid(4)}/index", b"...")
    bucket.put(f"team-a/{ulid(5)}/meta.json", b"{")
    bucket.put(f"team-a/{ulid(6)}/meta.json", bucket.get(f"team-a/{ulid(1)}/meta.json"))
    bucket.put("team-a/debug/metas/x.json", b"{}")
    put_meta(bucket, 7, TENANT.__class__("team-b"))
    write_deletion_mark(bucket, TENANT, DeletionMark(ulid(2), 77))
    write_deletion_mark(bucket, TENANT, DeletionMark(ulid(4), 78))
    bucket.put(f"team-a/markers/{ulid(3)}-deletion-mark.json", b"nonsense")

    update = update_bucket_index(bucket, TENANT, None, NOW_MS + 5_000)
    assert [block.ulid for block in update.index.blocks] == [ulid(1), ulid(2), ulid(3)]
    first = update.index.blocks[0]
    start = NOW_MS + 7_200_000
    assert first == IndexedBlock(
        ulid(1), start, start + 7_200_000, NOW_MS // 1000, 1, "1_of_2", "compactor", 2, False,
        {"__compactor_shard_id__": "1_of_2"},
    )  # fmt: skip
    assert update.index.deletion_marks == {ulid(2): 77, ulid(4): 78}
    assert update.index.updated_at == NOW_MS // 1000 + 5
    assert {name: one.meta_missing for name, one in update.partial.items()} == {
        ulid(4): True,
        ulid(5): False,
        ulid(6): False,
    }
    assert update.marks.deletion == {ulid(2), ulid(3), ulid(4)}


def test_only_what_is_new_is_read() -> None:
    memory = MemoryBucket(lambda: NOW_MS)
    put_meta(memory, 1)
    put_meta(memory, 2)
    write_deletion_mark(memory, TENANT, DeletionMark(ulid(1), 1))
    old = update_bucket_index(memory, TENANT, None, NOW_MS).index
    put_meta(memory, 3)
    write_deletion_mark(memory, TENANT, DeletionMark(ulid(2), 2))
    memory.delete(f"team-a/{ulid(1)}/meta.json")
    memory.delete(f"team-a/{ulid(1)}/deletion-mark.json")
    remove_mark(memory, TENANT, ulid(1), "deletion-mark.json")

    read: list[str] = []
    bucket = WatchedBucket(memory, lambda operation, key: read.append(key) if operation == "get" else None)
    update = update_bucket_index(bucket, TENANT, old, NOW_MS)
    assert sorted(read) == sorted([f"team-a/{ulid(3)}/meta.json", f"team-a/markers/{ulid(2)}-deletion-mark.json"])
    assert update.index == update_bucket_index(memory, TENANT, None, NOW_MS).index


def test_an_update_that_could_not_read_a_block_fails_instead_of_hiding_it() -> None:
    def fail(operation: str, key: str) -> None:
        if operation == "get" and ulid(2) in key:
            raise BucketUnavailable(operation, key, "busy")

    memory = MemoryBucket()
    put_meta(memory, 1)
    put_meta(memory, 2)
    with pytest.raises(BucketUnavailable):
        update_bucket_index(WatchedBucket(memory, fail), TENANT, None, NOW_MS)


def test_a_tenant_without_anything_has_an_empty_index() -> None:
    bucket = MemoryBucket()
    assert read_bucket_index(bucket, TENANT) is None
    update = update_bucket_index(bucket, TENANT, None, NOW_MS)
    write_bucket_index(bucket, TENANT, update.index)
    assert read_bucket_index(bucket, TENANT) == BucketIndex((), {}, NOW_MS // 1000)
    body = json.loads(gzip.decompress(bucket.get("team-a/bucket-index.json.gz")))
    assert body == {"version": 2, "blocks": [], "block_deletion_marks": [], "updated_at": NOW_MS // 1000}


@pytest.mark.parametrize("moment", range(12))
def test_no_index_has_a_block_as_marked_without_the_one_that_replaced_it(moment: int) -> None:
    memory = MemoryBucket(lambda: NOW_MS)
    put_meta(memory, 1)
    seen = 0

    def replace_at_that_moment(operation: str, key: str) -> None:
        nonlocal seen
        if seen == moment:
            put_meta(memory, 2)
            write_deletion_mark(memory, TENANT, DeletionMark(ulid(1), NOW_MS // 1000, "compacted"))
        seen += 1

    index = update_bucket_index(WatchedBucket(memory, replace_at_that_moment), TENANT, None, NOW_MS).index
    assert ulid(1) not in index.deletion_marks or ulid(2) in {block.ulid for block in index.blocks}
