"""Every bucket, by one contract."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest
from prometheus_client import CollectorRegistry

from mimir_ray.bucket.config import OperationsConfig, StorageBackendConfig, StorageConfig
from mimir_ray.bucket.filesystem import FilesystemBucket
from mimir_ray.bucket.open import BucketSettings, open_bucket
from mimir_ray.bucket.remote import RemoteBucket
from mimir_ray.bucket.retry import Retry
from mimir_ray.bucket.store import Bucket
from mimir_ray.testing.bucket_contract import BUCKET_CHECKS, Check
from mimir_ray.testing.buckets import MemoryBucket

_numbers = itertools.count()


@pytest.fixture(autouse=True)
def disk_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def on_memory(request: pytest.FixtureRequest, tmp_path: Path) -> Bucket:
    return MemoryBucket()


def on_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Bucket:
    return FilesystemBucket(tmp_path / "bucket")


def on_any_fsspec_filesystem(request: pytest.FixtureRequest, tmp_path: Path) -> Bucket:
    return RemoteBucket(fsspec.filesystem("memory"), f"/bucket-{next(_numbers)}", Retry(OperationsConfig()))


def opened_from_settings(request: pytest.FixtureRequest, tmp_path: Path) -> Bucket:
    return open_bucket(
        BucketSettings(tmp_path / "bucket", StorageConfig(storage_prefix="below")), "test", CollectorRegistry()
    )


def on_s3(request: pytest.FixtureRequest, tmp_path: Path) -> Bucket:
    config = request.getfixturevalue("s3_server").new_bucket()
    storage = StorageConfig(StorageBackendConfig("s3", s3=config))
    return open_bucket(BucketSettings(tmp_path, storage), "test", CollectorRegistry())


def on_s3_listed_the_old_way(request: pytest.FixtureRequest, tmp_path: Path) -> Bucket:
    config = replace(
        request.getfixturevalue("s3_server").new_bucket(), list_objects_version="v1", send_content_md5=True
    )
    storage = StorageConfig(StorageBackendConfig("s3", s3=config), storage_prefix="below")
    return open_bucket(BucketSettings(tmp_path, storage), "test", CollectorRegistry())


MAKERS = (on_memory, on_disk, on_any_fsspec_filesystem, opened_from_settings, on_s3, on_s3_listed_the_old_way)


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
@pytest.mark.parametrize("check", BUCKET_CHECKS, ids=lambda check: check.__name__)
def test_a_bucket_keeps_the_contract(
    check: Check,
    make: Callable[[pytest.FixtureRequest, Path], Bucket],
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    check(make(request, tmp_path), folder)


def test_a_folder_that_empties_while_somebody_writes_into_it_loses_nothing(tmp_path: Path) -> None:
    bucket = FilesystemBucket(tmp_path / "bucket")
    wrong: list[BaseException] = []

    def work(own: int) -> None:
        try:
            for number in range(60):
                bucket.put(f"t/x/{own}", bytes([number]))
                assert bucket.get(f"t/x/{own}") == bytes([number])
                list(bucket.list_objects("t/"))
                bucket.delete(f"t/x/{own}")
        except BaseException as error:  # noqa: BLE001  (it ends in the assertion)
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(own,)) for own in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert bucket.list_folders() == []
