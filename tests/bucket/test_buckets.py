"""Every bucket, by one contract."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
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
    from dataclasses import replace

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
