"""The block upload API over HTTP: every status, every text, and blocks that arrive as they were."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from mimir_ray.bucket.filesystem import FilesystemBucket
from mimir_ray.cluster.ring.model import COMPACTOR, InstanceDesc, InstanceId, InstanceState
from mimir_ray.config.limits import Limits
from mimir_ray.config.units import Bytes, Duration, duration
from mimir_ray.gateway.compaction import Compaction
from mimir_ray.model.labels import labels_of
from mimir_ray.testing.blocks import content, make_block
from mimir_ray.tsdb.block.reader import Block
from tests.gateway.serving import NOW_MS, Answer, Gateway, serving, settings_with

ULID = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
TENANT = "team-a"
HOUR = 3_600_000
START_MS = NOW_MS - 48 * HOUR


class Uploads:
    """A gateway that takes blocks, a block, and a client."""

    def __init__(self, gateway: Gateway, folder: Path, bucket: Path) -> None:
        self.gateway = gateway
        self.bucket = FilesystemBucket(bucket)
        series = [
            (
                labels_of({"__name__": "up", "instance": str(one)}),
                [(START_MS + at * 15_000, one * at) for at in range(40)],
            )
            for one in range(20)
        ]
        self.meta = make_block(folder, series, ULID)
        self.folder = folder / ULID
        self.body: dict[str, Any] = orjson.loads(self.meta.to_json())

    def ask(
        self, step: str, body: bytes | None = None, block: str = ULID, tenant: str = TENANT, **query: str
    ) -> Answer:
        method = "GET" if step == "check" else "POST"
        return self.gateway.ask(
            f"/api/v1/upload/block/{block}/{step}", query, method=method, body=body, x_scope_orgid=tenant
        )

    def start(self, **changes: Any) -> Answer:
        return self.ask("start", orjson.dumps({**self.body, **changes}))

    def start_with(self, **thanos: Any) -> Answer:
        return self.start(thanos={**self.body["thanos"], **thanos})

    def put(self, path: str) -> Answer:
        return self.ask("files", (self.folder / path).read_bytes(), path=path)

    def put_all(self) -> None:
        assert self.start().status == 200
        for path in ("index", "chunks/000001"):
            assert (self.put(path).status, self.put(path).body) == (200, b"")

    def object(self, name: str) -> bytes:
        return self.bucket.get(f"{TENANT}/{ULID}/{name}")

    def wait(self) -> dict[str, str]:
        """What `check` says once it is over."""
        while (found := self.ask("check").json)["result"] == "validating":
            pass
        return found


def limits(**more: Any) -> Limits:
    return Limits(**{"compactor_block_upload_enabled": True, **more})


@pytest.fixture
def uploads(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Uploads]:
    more = getattr(request, "param", {})
    settings = settings_with(True, data_dir=str(tmp_path / "data"), limits=limits(**more))
    with serving(settings) as gateway:
        yield Uploads(gateway, tmp_path / "mine", tmp_path / "data" / "blocks")


def refused(answer: Answer, status: int, message: str) -> None:
    assert (answer.status, answer.text) == (status, f"{message}\n")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"


def test_a_block_arrives_as_it_was(uploads: Uploads, tmp_path: Path) -> None:
    uploads.gateway.services.compaction.uploads._start_thread = lambda work: work()  # over when `finish` answers
    uploads.put_all()
    assert uploads.ask("check").json == {"result": "uploading"}
    answer = uploads.ask("finish")
    assert (answer.status, answer.body) == (200, b"")
    assert uploads.wait() == {"result": "complete"}
    meta = orjson.loads(uploads.object("meta.json"))
    assert meta["thanos"]["source"] == "upload" and meta["compaction"]["sources"] == [ULID]
    assert meta["stats"] == uploads.body["stats"]
    there = tmp_path / "data" / "blocks" / TENANT / ULID
    assert sorted(path.name for path in there.rglob("*") if path.is_file()) == ["000001", "index", "meta.json"]
    assert content(Block(there)) == content(Block(uploads.folder))
    assert not list((tmp_path / "data" / "compactor").rglob("upload-*")), "nothing is left behind"


def test_a_ulid_may_be_spelt_in_lower_case(uploads: Uploads) -> None:
    assert uploads.ask("start", orjson.dumps(uploads.body), block=ULID.lower()).status == 200
    assert uploads.object("uploading-meta.json")


def test_what_is_checked_first(uploads: Uploads) -> None:
    for step in ("start", "files", "finish", "check"):
        refused(uploads.ask(step, b"{}" if step != "check" else None, block="01ARZ"), 400, "invalid block ID")
        refused(uploads.ask(step, b"{}" if step != "check" else None, tenant="a/b"), 400, "invalid tenant ID")
    refused(uploads.gateway.ask(f"/api/v1/upload/block/{ULID}/check"), 401, "no org id")


@pytest.mark.parametrize("uploads", [{"compactor_block_upload_enabled": False}], indirect=True)
def test_tenants_may_upload_only_where_that_is_on(uploads: Uploads) -> None:
    for step in ("start", "files", "finish", "check"):
        refused(uploads.ask(step, b"{}" if step != "check" else None), 400, "block upload is disabled")


def test_descriptions_that_are_refused(uploads: Uploads) -> None:
    files = uploads.body["thanos"]["files"]
    for body in (b"", b"{", b"[]", b'"x"', b'{"version":"1"}', b'{"thanos":{"files":{"a":1}}}', b'{"minTime":true}'):
        refused(uploads.ask("start", body), 400, "malformed request body")
    refused(uploads.ask("start", b"null"), 400, "missing block metadata")
    refused(uploads.start_with(downsample={"resolution": 300000}), 400, "block contains downsampled data")
    refused(
        uploads.start_with(labels={"__compactor_shard_id__": "3_of_2"}),
        400,
        'invalid __compactor_shard_id__ external label: "3_of_2"',
    )
    refused(uploads.start_with(labels={"cluster": "eu"}), 400, "unsupported external label: cluster")
    refused(
        uploads.start_with(files=[*files, {"rel_path": "../x", "size_bytes": 1}]), 400, "file with invalid path: ../x"
    )
    refused(
        uploads.start_with(files=[*files, {"rel_path": "chunks/000002", "size_bytes": 0}]),
        400,
        "file with invalid size: chunks/000002",
    )
    refused(uploads.start_with(files=[*files, {"rel_path": "index"}]), 400, "file with invalid size: index")
    refused(uploads.start(version=2), 400, "version must be 1")
    refused(uploads.start(minTime=5, maxTime=4), 400, "invalid minTime/maxTime: minTime=5, maxTime=4")
    refused(uploads.start(minTime=-5), 400, f"invalid minTime/maxTime: minTime=-5, maxTime={uploads.meta.max_time}")
    refused(
        uploads.start(maxTime=NOW_MS + 1),
        400,
        f"block time(s) greater than the present: minTime={START_MS}, maxTime={NOW_MS + 1}",
    )
    refused(uploads.ask("check"), 404, "block doesn't exist")


def test_a_description_is_cleaned(uploads: Uploads) -> None:
    labels = {"__org_id__": "t", "__ingester_id__": "i", "__shard_id__": "s", "__compactor_shard_id__": ""}
    changes = {
        "ulid": "01BX5ZZKBKACTAV9WEVGEMMVRY",
        "thanos": {**uploads.body["thanos"], "labels": labels, "source": "sidecar"},
        "compaction": {"level": 3, "sources": ["x"], "parents": [{"ulid": "y", "minTime": 0, "maxTime": 1}]},
    }
    assert uploads.start(**changes).status == 200
    meta = orjson.loads(uploads.object("uploading-meta.json"))
    assert (meta["ulid"], meta["thanos"]["labels"], meta["thanos"]["source"]) == (ULID, {}, "upload")
    assert meta["compaction"] == {"level": 3, "sources": [ULID]}
    assert uploads.start_with(labels={"__compactor_shard_id__": "1_of_2"}).status == 200
    assert orjson.loads(uploads.object("uploading-meta.json"))["thanos"]["labels"] == {
        "__compactor_shard_id__": "1_of_2"
    }


def test_a_description_has_a_largest_size(uploads: Uploads) -> None:
    message = "The block metadata was too large (maximum size allowed is 1048576 bytes)"
    refused(uploads.ask("start", b" " * (1 << 20) + b"{}"), 413, message)
    assert uploads.ask("start", orjson.dumps(uploads.body).ljust(1 << 20)).status == 200


@pytest.mark.parametrize("uploads", [{"compactor_block_upload_max_block_size_bytes": Bytes(1000)}], indirect=True)
def test_a_block_has_a_largest_size(uploads: Uploads) -> None:
    refused(uploads.start(), 400, "block exceeds the maximum block size limit of 1000 bytes")


@pytest.mark.parametrize("uploads", [{"compactor_blocks_retention_period": Duration(duration("1d"))}], indirect=True)
def test_blocks_past_retention_are_not_taken(uploads: Uploads) -> None:
    refused(
        uploads.start(minTime=NOW_MS - 30 * HOUR, maxTime=NOW_MS - 25 * HOUR),
        422,
        "block max time (2023-11-13T21:13:20.000Z) older than retention period",
    )
    assert uploads.start(maxTime=NOW_MS - 24 * HOUR).status == 200


def test_files_that_are_refused(uploads: Uploads) -> None:
    refused(uploads.put("index"), 404, "block upload not started")
    assert uploads.start().status == 200
    refused(uploads.ask("files", b"x"), 400, "missing or invalid file path")
    refused(uploads.ask("files", b"x", path="meta.json"), 400, "meta.json is not allowed")
    refused(uploads.ask("files", b"x", path="chunks/meta.json"), 400, "meta.json is not allowed")
    refused(uploads.ask("files", b"x", path="../index"), 400, 'invalid path: "../index"')
    refused(uploads.ask("files", b"x", path="chunks/1"), 400, 'invalid path: "chunks/1"')
    refused(uploads.ask("files", b"", path="index"), 400, "file cannot be empty")
    refused(uploads.ask("files", b"x", path="chunks/000009"), 400, "unexpected file")
    refused(uploads.ask("files", b"x", path="index"), 400, "file size doesn't match meta.json")


def chunked(uploads: Uploads, path: str, pieces: list[bytes]) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", uploads.gateway.server.port, timeout=20)
    url = f"/api/v1/upload/block/{ULID}/files?path={path}"
    try:
        connection.request("POST", url, iter(pieces), {"X-Scope-OrgID": TENANT}, encode_chunked=True)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_a_body_of_unknown_length_is_counted(uploads: Uploads) -> None:
    assert uploads.start().status == 200
    data = (uploads.folder / "index").read_bytes()
    too_much = b"file size doesn't match meta.json\n"
    assert chunked(uploads, "index", [data[:100]]) == (400, too_much)
    assert chunked(uploads, "index", [data, b"x"]) == (400, too_much)
    assert chunked(uploads, "index", [data[:100], data[100:]]) == (200, b"")
    assert uploads.object("index") == data


def test_a_file_may_be_larger_than_any_other_request(tmp_path: Path) -> None:
    settings = settings_with(
        True,
        data_dir=str(tmp_path / "data"),
        limits=limits(compactor_block_upload_validation_enabled=False),
        distributor={"max_recv_msg_size": Bytes(1000)},
    )
    with serving(settings) as gateway:
        uploads = Uploads(gateway, tmp_path / "mine", tmp_path / "data" / "blocks")
        data = bytes(range(256)) * 20_000
        files = [{"rel_path": "chunks/000001", "size_bytes": len(data)}, {"rel_path": "index", "size_bytes": 5}]
        assert uploads.start_with(files=files).status == 200
        assert uploads.ask("files", data, path="chunks/000001").status == 200
        assert uploads.object("chunks/000001") == data


def test_a_finished_block_is_not_taken_again(uploads: Uploads) -> None:
    uploads.put_all()
    assert uploads.ask("finish").status == 200
    assert uploads.wait() == {"result": "complete"}
    for answer in (uploads.start(), uploads.put("index"), uploads.ask("finish")):
        refused(answer, 409, "block already exists")


def test_a_block_that_was_not_started_cannot_be_finished(uploads: Uploads) -> None:
    refused(uploads.ask("finish"), 404, "block upload not started")


def test_a_block_that_is_not_good_says_why(uploads: Uploads) -> None:
    assert uploads.start().status == 200
    assert uploads.put("index").status == 200
    assert uploads.ask("finish").status == 200
    assert uploads.wait() == {
        "result": "failed",
        "error": "failed to stat chunks/000001: no such file or directory",
    }
    for answer in (uploads.start(), uploads.put("index"), uploads.ask("finish")):
        refused(answer, 400, "block validation failed")


@pytest.mark.parametrize(
    ("uploads", "fine"),
    [({}, False), ({"compactor_block_upload_verify_chunks": False}, True)],
    indirect=["uploads"],
)
def test_damaged_chunks_are_found_where_they_are_looked_for(uploads: Uploads, fine: bool) -> None:
    path = uploads.folder / "chunks" / "000001"
    data = bytearray(path.read_bytes())
    data[30] ^= 0xFF
    path.write_bytes(bytes(data))
    uploads.put_all()
    assert uploads.ask("finish").status == 200
    found = uploads.wait()
    if fine:
        assert found == {"result": "complete"}
    else:
        assert found["result"] == "failed" and found["error"].startswith("error validating block: chunks/000001")


@pytest.mark.parametrize("uploads", [{"compactor_block_upload_validation_enabled": False}], indirect=True)
def test_without_checks_a_block_is_complete_when_it_is_finished(uploads: Uploads) -> None:
    assert uploads.start().status == 200
    assert uploads.ask("finish").status == 200
    assert uploads.ask("check").json == {"result": "complete"}


def test_a_check_that_died_can_be_begun_again(uploads: Uploads) -> None:
    uploads.put_all()
    beat = {"LastUpdate": NOW_MS, "Error": ""}
    uploads.bucket.put(f"{TENANT}/{ULID}/validation.json", orjson.dumps(beat))
    assert uploads.ask("check").json == {"result": "validating"}
    for answer in (uploads.start(), uploads.put("index"), uploads.ask("finish")):
        refused(answer, 400, "block validation in progress")
    uploads.gateway.clock.advance_ms(5 * 60_000)
    assert uploads.ask("check").json == {"result": "uploading"}
    assert uploads.ask("finish").status == 200
    assert uploads.wait() == {"result": "complete"}


def test_so_many_checks_run_at_once(uploads: Uploads) -> None:
    uploads.put_all()
    compaction: Compaction = uploads.gateway.services.compaction
    held: list[Any] = []
    compaction.uploads._start_thread = held.append  # a check that goes on until it is told to end
    assert uploads.ask("finish").status == 200
    other = "01BX5ZZKBKACTAV9WEVGEMMVRY"
    body = orjson.dumps(uploads.body)
    assert uploads.ask("start", body, block=other).status == 200
    refused(uploads.ask("finish", block=other), 429, "too many block upload validations in progress, limit is 1")
    held.pop()()
    assert uploads.wait() == {"result": "complete"}
    assert uploads.ask("finish", block=other).status == 200


def test_what_nobody_expects_is_an_error_with_a_number(uploads: Uploads) -> None:
    uploads.bucket.put(f"{TENANT}/{ULID}/uploading-meta.json", b"no json")
    answer = uploads.ask("check")
    assert answer.status == 500
    assert (
        answer.text.startswith("internal server error (id ")
        and len(answer.text) == len("internal server error (id )\n") + 16
    )


def test_a_compactor_checks_the_block_where_there_is_one(uploads: Uploads) -> None:
    asked: list[tuple[str, str]] = []

    class FakeCompactor:
        def finish_block_upload(self, tenant: str, ulid: str) -> None:
            asked.append((tenant, ulid))

    uploads.put_all()
    uploads.gateway.services.compaction.transport.serve("compactor/0", FakeCompactor)  # type: ignore[attr-defined]
    tokens = np.array([7], np.uint32)
    desc = InstanceDesc(InstanceId("compactor-0"), "compactor/0", state=InstanceState.ACTIVE, tokens=tokens)
    uploads.gateway.ring.register(COMPACTOR, desc)
    assert uploads.ask("finish").status == 200
    assert asked == [(TENANT, ULID)]
