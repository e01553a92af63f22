"""S3 behind a proxy that fails at random: what is read is right or an error, what is written is whole or not there."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from mimir_ray.bucket import s3
from mimir_ray.bucket.config import OperationsConfig, S3Config, S3HttpConfig
from mimir_ray.bucket.retry import Retry
from mimir_ray.bucket.s3 import S3Bucket
from mimir_ray.bucket.store import BucketUnavailable, ObjectNotFound
from mimir_ray.clock import ManualClock
from mimir_ray.config.units import Duration
from mimir_ray.testing.faulty_proxy import FAULTS, Fault, FaultyProxy
from tests.s3_server import S3Server

IMPATIENT = S3HttpConfig(response_header_timeout=Duration(500), tls_handshake_timeout=Duration(2000))


def bucket_of(
    config: S3Config, max_retries: int, retried: Counter[str] | None = None, patient: bool = False
) -> S3Bucket:
    """Its retries do not wait; an answer that stalls is given up after 0.5 s unless it is patient."""
    operations = OperationsConfig(timeout=Duration(60_000 if patient else 5000), max_retries=max_retries)
    count = retried if retried is not None else Counter()
    retry = Retry(operations, ManualClock(), random.Random(1).random, lambda operation: count.update([operation]))
    return S3Bucket(config if patient else replace(config, http=IMPATIENT), retry, 8)


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Objects above 64 KiB are read in pieces; parts of uploads are as small as S3 allows."""
    monkeypatch.setattr(s3, "PIECE_BYTES", 64 << 10)


def content(number: int, size: int) -> bytes:
    return random.Random(number).randbytes(size)


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_met_and_overcome(fault: Fault, s3_server: S3Server, small_pieces: None, tmp_path: Path) -> None:
    rate = 0.2 if fault == "stall" else 0.4
    proxy = FaultyProxy(s3_server.endpoint, seed=FAULTS.index(fault), rate=rate, faults=[fault])
    retried: Counter[str] = Counter()
    with proxy.running() as endpoint:
        bucket = bucket_of(s3_server.new_bucket(endpoint), 12, retried)
        for number in range(4):
            data = content(number, 50_000 * number)
            bucket.put(f"t/{number}", data)
            assert bucket.get(f"t/{number}") == data
            assert bucket.get_range(f"t/{number}", 7, 1000) == data[7:1007]
            bucket.download(f"t/{number}", tmp_path / "file")
            assert (tmp_path / "file").read_bytes() == data
        assert [one.size for one in bucket.list_objects("t/")] == [0, 50_000, 100_000, 150_000]
        bucket.delete("t/0")
        assert not bucket.exists("t/0")
    assert proxy.met[fault] >= 2
    assert retried


@pytest.mark.parametrize("seed", range(2))
def test_right_bytes_or_an_error_whatever_happens(
    seed: int, s3_server: S3Server, small_pieces: None, tmp_path: Path
) -> None:
    """With few retries many operations fail; a direct look at the server then shows a whole old or new version."""
    proxy = FaultyProxy(s3_server.endpoint, seed, rate=0.5)
    with proxy.running() as endpoint:
        config = s3_server.new_bucket(endpoint)
        retried: Counter[str] = Counter()
        shaky = bucket_of(config, 1, retried)
        direct = bucket_of(replace(config, endpoint=s3_server.endpoint), 0, patient=True)
        dice = random.Random(seed)
        written: dict[str, bytes] = {}
        # A request that was given up may still be on its way and arrive after a later one, as with any object storage.
        late: dict[str, list[bytes]] = {}
        outcomes: Counter[str] = Counter()
        for step in range(40):
            key = f"t/{dice.randrange(3)}"
            write, whole = dice.random() < 0.5, dice.random() < 0.5
            data = content(step, dice.choice((0, 10, 3000, 150_000)))
            before = sum(retried.values())
            try:
                if write and whole:
                    shaky.put(key, data)
                elif write:
                    (tmp_path / "source").write_bytes(data)
                    shaky.upload(tmp_path / "source", key)
                elif whole:
                    assert shaky.get(key) in (written.get(key), *late.get(key, ()))
                else:
                    shaky.download(key, tmp_path / "target")
                    assert (tmp_path / "target").read_bytes() in (written.get(key), *late.get(key, ()))
                outcomes["done"] += 1
                if write:
                    written[key] = data
            except BucketUnavailable:
                outcomes["failed"] += 1
                if write:
                    late.setdefault(key, []).append(data)
            except ObjectNotFound:
                assert not write and key not in written
            if write and sum(retried.values()) > before:
                late.setdefault(key, []).append(data)
            if direct.exists(key):
                assert direct.get(key) in (written.get(key), *late.get(key, ()))
            else:
                assert key not in written
    assert outcomes["done"] and outcomes["failed"]


def test_a_large_file_is_uploaded_in_parts_and_seen_whole_or_not_at_all(s3_server: S3Server, tmp_path: Path) -> None:
    data = content(9, 17 << 20)
    (tmp_path / "source").write_bytes(data)
    proxy = FaultyProxy(s3_server.endpoint, seed=5, rate=0.6, faults=("refuse", "lose answer", "500", "503", "reset"))
    with proxy.running() as endpoint:
        config = replace(s3_server.new_bucket(endpoint), part_size=5 << 20)
        direct = bucket_of(replace(config, endpoint=s3_server.endpoint), 0, patient=True)
        given_up = 0
        for _ in range(4):
            try:
                bucket_of(config, 0).upload(tmp_path / "source", "t/large")
            except BucketUnavailable:
                given_up += 1
            if direct.exists("t/large"):  # perhaps completed by a request whose answer was lost
                assert direct.info("t/large").size == len(data)
                direct.delete("t/large")
        assert given_up, "six requests in a row hardly ever meet no fault"
        proxy.rate = 0.3
        bucket_of(config, 20).upload(tmp_path / "source", "t/large")
        direct.download("t/large", tmp_path / "target")
    assert hashlib.sha256((tmp_path / "target").read_bytes()).digest() == hashlib.sha256(data).digest()


def test_what_is_refused_is_not_tried_again(s3_server: S3Server) -> None:
    retried: Counter[str] = Counter()
    missing = bucket_of(replace(s3_server.new_bucket(), bucket_name="nobody-made-this"), 5, retried, patient=True)
    with pytest.raises(BucketUnavailable, match="NoSuchBucket"):
        missing.get("t/a")
    with pytest.raises(BucketUnavailable, match="NoSuchBucket"):
        list(missing.list_objects())
    with pytest.raises(BucketUnavailable, match="NoSuchBucket"):
        missing.put("t/a", b"")
    with pytest.raises(ObjectNotFound):
        bucket_of(s3_server.new_bucket(), 5, retried, patient=True).get("t/a")
    assert not retried


def test_a_server_that_is_not_there_is_an_error_that_says_how_often_it_was_asked() -> None:
    config = S3Config(endpoint="127.0.0.1:1", bucket_name="b", access_key_id="a", insecure=True)
    with pytest.raises(BucketUnavailable, match=r"cannot get 't/a': .*\(after 3 attempts\)"):
        bucket_of(config, 2).get("t/a")


def test_a_version_is_read_whole_though_it_is_replaced_meanwhile(s3_server: S3Server, small_pieces: None) -> None:
    config = s3_server.new_bucket()
    bucket, other = bucket_of(config, 5, patient=True), bucket_of(config, 5, patient=True)
    old, new = b"o" * 200_000, b"n" * 210_000
    bucket.put("t/a", old)
    asked = bucket._get
    replaced: list[bool] = []

    def get(operation: str, key: str, offset: int, length: int, etag: str = "") -> tuple[bytes, str, int]:
        if offset and not replaced:
            replaced.append(True)
            other.put("t/a", new)
        return asked(operation, key, offset, length, etag)

    bucket._get = get  # type: ignore[method-assign]
    assert bucket.get("t/a") == new
    assert replaced


def test_listings_go_on_where_a_page_ends(s3_server: S3Server) -> None:
    for version in ("v1", "v2"):
        bucket = bucket_of(replace(s3_server.new_bucket(), list_objects_version=version), 0, patient=True)
        for number in range(7):
            bucket.put(f"t/{number}/x", b"")
        pages = []
        request = bucket._request

        # Bound now, as the loop goes on.
        def counted(
            operation: str, key: str, make: object, request: object = request, pages: list[str] = pages
        ) -> object:
            pages.append(operation)
            return request(operation, key, lambda client: make(_Paging(client)))

        bucket._request = counted  # type: ignore[method-assign]
        assert bucket.list_folders("t/") == [str(number) for number in range(7)]
        assert [one.key for one in bucket.list_objects("t/")] == [f"t/{number}/x" for number in range(7)]
        assert len(pages) >= 5, "one for folders, four for objects, at least"


class _Paging:
    """A client that asks for two keys a page."""

    def __init__(self, client: object) -> None:
        self.client = client

    def __getattr__(self, name: str) -> object:
        return lambda **options: getattr(self.client, name)(**options, MaxKeys=2)
