from __future__ import annotations

import json

import pytest

from mimir_ray.bucket import markers
from mimir_ray.bucket.layout import DELETION_MARK, NO_COMPACT_MARK
from mimir_ray.bucket.markers import DamagedMark, DeletionMark, NoCompactMark, TenantDeletionMark
from mimir_ray.bucket.store import BucketUnavailable
from mimir_ray.testing.buckets import MemoryBucket, WatchedBucket

from .blocks_in_bucket import TENANT, ulid


def test_a_deletion_mark_is_read_back_and_looks_like_mimirs() -> None:
    bucket = MemoryBucket()
    mark = DeletionMark(ulid(1), 1_714_000_000, "compacted into 01X")
    markers.write_deletion_mark(bucket, TENANT, mark)
    assert markers.read_deletion_mark(bucket, TENANT, ulid(1)) == mark
    body = {"id": ulid(1), "version": 1, "details": "compacted into 01X", "deletion_time": 1_714_000_000}
    for key in (f"team-a/markers/{ulid(1)}-deletion-mark.json", f"team-a/{ulid(1)}/deletion-mark.json"):
        assert json.loads(bucket.get(key)) == body


def test_a_no_compact_mark_is_read_back_and_looks_like_mimirs() -> None:
    bucket = MemoryBucket()
    mark = NoCompactMark(ulid(1), 1_714_000_000, markers.NO_COMPACT_OUT_OF_ORDER_CHUNKS, "series 7")
    markers.write_no_compact_mark(bucket, TENANT, mark)
    assert markers.read_no_compact_mark(bucket, TENANT, ulid(1)) == mark
    assert json.loads(bucket.get(f"team-a/{ulid(1)}/no-compact-mark.json")) == {
        "id": ulid(1),
        "version": 1,
        "details": "series 7",
        "no_compact_time": 1_714_000_000,
        "reason": "block-index-out-of-order-chunk",
    }


def test_a_mark_that_is_not_there_is_none() -> None:
    bucket = MemoryBucket()
    assert markers.read_deletion_mark(bucket, TENANT, ulid(1)) is None
    assert markers.read_no_compact_mark(bucket, TENANT, ulid(1)) is None
    assert markers.read_tenant_deletion_mark(bucket, TENANT) is None
    assert not markers.tenant_is_marked(bucket, TENANT)


def test_marks_are_listed_by_kind_and_what_is_none_is_passed_over() -> None:
    bucket = MemoryBucket()
    markers.write_deletion_mark(bucket, TENANT, DeletionMark(ulid(1), 1))
    markers.write_deletion_mark(bucket, TENANT, DeletionMark(ulid(2), 1))
    markers.write_no_compact_mark(bucket, TENANT, NoCompactMark(ulid(2), 1))
    markers.write_tenant_deletion_mark(bucket, TENANT, TenantDeletionMark(5))
    bucket.put("team-a/markers/nonsense-deletion-mark.json", b"{}")
    bucket.put(f"team-b/markers/{ulid(3)}-deletion-mark.json", b"{}")
    assert markers.list_marks(bucket, TENANT) == markers.Marks(frozenset({ulid(1), ulid(2)}), frozenset({ulid(2)}))


def test_the_global_copy_is_written_first_and_removed_last() -> None:
    order: list[tuple[str, str]] = []
    bucket = WatchedBucket(MemoryBucket(), lambda operation, key: order.append((operation, key)))
    markers.write_deletion_mark(bucket, TENANT, DeletionMark(ulid(1), 1))
    markers.remove_mark(bucket, TENANT, ulid(1), DELETION_MARK)
    whole, own = f"team-a/markers/{ulid(1)}-deletion-mark.json", f"team-a/{ulid(1)}/deletion-mark.json"
    assert order == [("put", whole), ("put", own), ("delete", own), ("delete", whole)]


def test_a_mark_counts_when_writing_it_was_interrupted() -> None:
    def fail(operation: str, key: str) -> None:
        if "markers" not in key:
            raise BucketUnavailable(operation, key, "power is gone")

    memory = MemoryBucket()
    with pytest.raises(BucketUnavailable):
        markers.write_no_compact_mark(WatchedBucket(memory, fail), TENANT, NoCompactMark(ulid(1), 1))
    assert markers.list_marks(memory, TENANT).no_compact == {ulid(1)}
    assert markers.read_no_compact_mark(memory, TENANT, ulid(1)) is not None
    markers.remove_mark(memory, TENANT, ulid(1), NO_COMPACT_MARK)
    assert markers.list_marks(memory, TENANT) == markers.Marks()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{",
        b"null",
        json.dumps({"id": "01ARZ3NDEKTSV4RRFFQ69G5FAV", "version": 1, "deletion_time": 1}).encode(),
        json.dumps({"id": ulid(1), "version": 2, "deletion_time": 1}).encode(),
        json.dumps({"id": ulid(1), "version": 1, "deletion_time": "1"}).encode(),
        json.dumps({"id": ulid(1), "version": 1, "deletion_time": 1, "details": 7}).encode(),
    ],
)
def test_a_damaged_mark_is_an_error_that_names_it(content: bytes) -> None:
    bucket = MemoryBucket()
    bucket.put(f"team-a/markers/{ulid(1)}-deletion-mark.json", content)
    with pytest.raises(DamagedMark, match=f"{ulid(1)}-deletion-mark.json: no mark"):
        markers.read_deletion_mark(bucket, TENANT, ulid(1))


def test_a_tenant_deletion_mark_is_read_back_and_looks_like_mimirs() -> None:
    bucket = MemoryBucket()
    markers.write_tenant_deletion_mark(bucket, TENANT, TenantDeletionMark(1_714_000_000))
    assert json.loads(bucket.get("team-a/markers/tenant-deletion-mark.json")) == {"deletion_time": 1_714_000_000}
    assert markers.tenant_is_marked(bucket, TENANT)
    done = TenantDeletionMark(1_714_000_000, 1_714_003_600)
    markers.write_tenant_deletion_mark(bucket, TENANT, done)
    assert markers.read_tenant_deletion_mark(bucket, TENANT) == done
