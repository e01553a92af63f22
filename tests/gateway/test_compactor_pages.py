"""Compactor pages: tenants, planned jobs, deletion of tenants, the ring."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mimir_ray.bucket.bucket_index import BucketIndex, IndexedBlock, write_bucket_index
from mimir_ray.bucket.filesystem import FilesystemBucket
from mimir_ray.bucket.markers import TenantDeletionMark, read_tenant_deletion_mark
from mimir_ray.bucket.store import BucketUnavailable
from mimir_ray.cluster.ring.model import COMPACTOR, InstanceDesc, InstanceId, InstanceState
from mimir_ray.model.tenant import TenantId
from mimir_ray.testing.buckets import WatchedBucket
from tests.gateway.serving import NOW_MS, Gateway, serving, settings_with

HOUR = 3_600_000
A, B, C = (f"01ARZ3NDEKTSV4RRFFQ69G5FA{letter}" for letter in "VWX")
TENANT = TenantId("team-a")
JSON = "application/json"


@pytest.fixture
def bucket(tmp_path: Path) -> FilesystemBucket:
    return FilesystemBucket(tmp_path / "blocks")


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    with serving(settings_with(True, data_dir=str(tmp_path))) as one:
        yield one


def index(bucket: FilesystemBucket) -> None:
    blocks = tuple(IndexedBlock(ulid, 0, 2 * HOUR) for ulid in (A, B))
    write_bucket_index(
        bucket, TENANT, BucketIndex((*blocks, IndexedBlock(C, 0, 2 * HOUR)), {C: 1}, NOW_MS // 1000 - 60)
    )


def test_tenants_are_listed(gateway: Gateway, bucket: FilesystemBucket) -> None:
    empty = {"now": "2023-11-14T22:13:20Z", "tenants": []}
    assert gateway.ask("/compactor/tenants", accept=JSON).json == empty
    bucket.put("team-a/x", b"1")
    bucket.put("team-b/x", b"1")
    bucket.put("__mimir_cluster/mimir_cluster_seed.json", b"{}")
    assert gateway.ask("/compactor/tenants", accept=JSON).json["tenants"] == ["team-a", "team-b"]
    page = gateway.ask("/compactor/tenants")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert 'href="/compactor/tenant/team-a/planned_jobs"' in page.text


def test_planned_jobs_come_from_the_bucket_index(gateway: Gateway, bucket: FilesystemBucket) -> None:
    index(bucket)
    found = gateway.ask("/compactor/tenant/team-a/planned_jobs", accept=JSON).json
    (job,) = found.pop("jobs")
    assert found == {
        "now": "2023-11-14T22:13:20Z",
        "bucket_index_updated": "2023-11-14T22:12:20Z",
        "tenant": "team-a",
        "split_jobs_count": 0,
        "merge_jobs_count": 1,
        "tenant_split_groups": 1,
        "tenant_merge_shards": 0,
    }
    assert job["blocks"] == [A, B] and job["key"].endswith("-merge--0-7200000")
    assert (job["min_time"], job["max_time"]) == ("1970-01-01T00:00:00Z", "1970-01-01T02:00:00Z")


def test_other_numbers_can_be_tried(gateway: Gateway, bucket: FilesystemBucket) -> None:
    index(bucket)
    for name in ("split_count", "merge_shards"):
        found = gateway.ask("/compactor/tenant/team-a/planned_jobs", {name: 4, "split_groups": 1}, accept=JSON).json
        assert (found["split_jobs_count"], found["merge_jobs_count"], found["tenant_merge_shards"]) == (1, 0, 0)
    for nonsense in ("-1", "x", "1e9", "99999999999999999999"):
        found = gateway.ask("/compactor/tenant/team-a/planned_jobs", {"split_count": nonsense}, accept=JSON).json
        assert found["split_jobs_count"] == 0


def test_a_page_shows_blocks_and_compactors_on_demand(gateway: Gateway, bucket: FilesystemBucket) -> None:
    index(bucket)
    path = "/compactor/tenant/team-a/planned_jobs"
    assert A not in gateway.ask(path).text
    page = gateway.ask(path, {"show_blocks": "on", "show_compactors": "on"}).text
    assert A in page and B in page and C not in page and "no compactor of the ring" in page
    tokens = np.array([7], np.uint32)
    desc = InstanceDesc(InstanceId("compactor-0"), "compactor/0", state=InstanceState.ACTIVE, tokens=tokens)
    gateway.ring.register(COMPACTOR, desc)
    jobs = gateway.ask(path, {"show_compactors": "on"}, accept=JSON).json["jobs"]
    assert jobs[0]["compactor"] == "compactor-0 compactor/0"
    shards = gateway.ask("/compactor/ring", accept=JSON).json["shards"]
    assert [one["id"] for one in shards] == ["compactor-0"]


def test_a_tenant_without_a_bucket_index_has_no_jobs_to_show(gateway: Gateway) -> None:
    answer = gateway.ask("/compactor/tenant/team-a/planned_jobs")
    assert (answer.status, answer.text) == (200, "Failed to read bucket index for tenant")
    assert gateway.ask("/compactor/tenant/a%7Cb/planned_jobs").status == 400


def test_a_tenant_is_marked_for_deletion_once(gateway: Gateway, bucket: FilesystemBucket) -> None:
    assert gateway.ask("/compactor/delete_tenant").status == 405
    answer = gateway.ask("/compactor/delete_tenant", method="POST")
    assert (answer.status, answer.text) == (401, "no org id\n")
    for _ in range(2):
        answer = gateway.ask("/compactor/delete_tenant", method="POST", x_scope_orgid="team-a")
        assert (answer.status, answer.body) == (200, b"")
        gateway.clock.advance_ms(5000)
    assert read_tenant_deletion_mark(bucket, TENANT) == TenantDeletionMark(NOW_MS // 1000)


def test_another_sites_page_cannot_delete_a_tenant(gateway: Gateway, bucket: FilesystemBucket) -> None:
    for origin, status in (("cross-site", 403), ("same-site", 403), ("same-origin", 200)):
        answer = gateway.ask("/compactor/delete_tenant", method="POST", x_scope_orgid="team-a", sec_fetch_site=origin)
        assert answer.status == status
        assert (read_tenant_deletion_mark(bucket, TENANT) is not None) == (status == 200)


def test_a_tenant_is_deleted_when_no_block_is_left(gateway: Gateway, bucket: FilesystemBucket) -> None:
    assert gateway.ask("/compactor/delete_tenant_status").status == 400
    bucket.put(f"team-a/{A}/index", b"1")
    answer = gateway.ask("/compactor/delete_tenant_status", x_scope_orgid="team-a")
    assert answer.json == {"tenant_id": "team-a", "blocks_deleted": False}
    bucket.delete(f"team-a/{A}/index")
    bucket.put("team-a/markers/tenant-deletion-mark.json", b"{}")
    assert gateway.ask("/compactor/delete_tenant_status", x_scope_orgid="team-a").json["blocks_deleted"] is True


def test_a_bucket_that_does_not_answer_is_our_fault(gateway: Gateway, bucket: FilesystemBucket) -> None:
    def fail(operation: str, key: str) -> None:
        raise BucketUnavailable(operation, key, "out of order")

    gateway.services.compaction.admin._bucket = WatchedBucket(bucket, fail)
    for path, method in (("delete_tenant", "POST"), ("delete_tenant_status", "GET"), ("tenants", "GET")):
        answer = gateway.ask(f"/compactor/{path}", method=method, x_scope_orgid="team-a")
        assert answer.status == 500 and "out of order" in answer.text
    assert gateway.ask("/compactor/tenant/team-a/planned_jobs").status == 500
