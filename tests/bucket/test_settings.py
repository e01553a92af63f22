"""From settings to buckets: names, inheritance, secrets, what is refused, what is counted."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from mimir_ray.bucket.config import OperationsConfig, S3Config, S3HttpConfig, Secret, SseConfig, StorageConfig
from mimir_ray.bucket.metrics import BucketMetrics, once
from mimir_ray.bucket.observed import Bound, ObservedBucket
from mimir_ray.bucket.open import BucketSettings, open_bucket
from mimir_ray.bucket.remote import BackendNotInstalled, open_filesystem
from mimir_ray.bucket.retry import PassingFailure, Retry
from mimir_ray.bucket.store import BucketUnavailable, ObjectNotFound
from mimir_ray.clock import ManualClock
from mimir_ray.config.loader import load
from mimir_ray.config.render import config_page
from mimir_ray.config.tree import ConfigError
from mimir_ray.config.units import Duration
from mimir_ray.deploy.settings import Settings
from mimir_ray.testing.buckets import MemoryBucket, WatchedBucket

FILE = """
common:
  storage:
    backend: s3
    s3: {endpoint: minio:9000, region: eu, bucket_name: everything, access_key_id: key, secret_access_key: hush}
blocks_storage:
  storage_prefix: p1
  s3: {bucket_name: blocks}
"""


def read(text: str, *flags: str) -> Settings:
    return load(Settings(), ["-config.file=x", *flags], read=lambda path: text).settings


def test_common_storage_fills_every_store_and_the_store_may_say_otherwise() -> None:
    where = read(FILE).blocks_storage.storage.where
    assert (where.backend, where.s3.bucket_name, where.s3.region) == ("s3", "blocks", "eu")
    assert str(where.s3.secret_access_key) == "hush"
    assert read(FILE + "  backend: filesystem\n").blocks_storage.storage.where.backend == "filesystem"


def test_a_flag_of_common_storage_counts_unless_the_store_has_its_own() -> None:
    s3 = read(
        FILE, "-common.storage.s3.region=us", "-common.storage.s3.bucket-name=all"
    ).blocks_storage.storage.where.s3
    assert (s3.region, s3.bucket_name) == ("us", "all")
    own = read(FILE, "-blocks-storage.s3.bucket-name=mine", "-common.storage.s3.bucket-name=all")
    assert own.blocks_storage.storage.where.s3.bucket_name == "mine"
    assert own.common.storage.s3.bucket_name == "all"


def test_secrets_show_nowhere() -> None:
    settings = read(FILE)
    for text in (config_page(settings, Settings()), config_page(settings, Settings(), "diff"), repr(settings)):
        assert "hush" not in text
        assert "********" in text
    assert pickle.loads(pickle.dumps(settings.blocks_bucket)) == settings.blocks_bucket


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (["-blocks-storage.backend=swift"], "use backend s3 with the S3 interface"),
        (["-blocks-storage.backend=s3"], "blocks_storage.s3.bucket_name: is needed with backend s3"),
        (["-blocks-storage.backend=azure"], "blocks_storage.azure.container_name: is needed"),
        (["-blocks-storage.backend=tape"], 'expected "filesystem" or "s3"'),
        (["-blocks-storage.storage-prefix=a/b"], "may only contain digits and English letters"),
        (["-blocks-storage.s3.part-size=1000"], "must be 0 or at least 5 MiB"),
        (["-blocks-storage.s3.storage-class=COLD"], "expected one of STANDARD"),
        (["-blocks-storage.s3.sse.kms-encryption-context=[]"], "expected a JSON object of strings"),
        (["-blocks-storage.s3.bucket-name=b", "-blocks-storage.s3.endpoint=b.s3.amazonaws.com"], "must not start with"),
        (["-blocks-storage.s3.http.tls-cert-path=x"], "a certificate needs its key"),
    ],
)
def test_what_cannot_work_is_refused_when_settings_are_read(flags: list[str], problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(Settings(), flags)
    assert problem in str(caught.value)


def test_what_only_mimirs_client_needs_is_passed_over_with_a_warning() -> None:
    text = "blocks_storage: {s3: {http: {max_idle_connections: 3, expect_continue_timeout: 1s}}}"
    warnings = load(Settings(), ["-config.file=x"], read=lambda path: text).warnings
    assert len(warnings) == 2


def test_a_backend_that_is_not_installed_names_the_extra_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("gcsfs", "adlfs"):
        monkeypatch.setitem(sys.modules, module, None)
    for protocol, extra in (("gcs", "gcs"), ("abfs", "azure")):
        with pytest.raises(BackendNotInstalled, match=rf"pip install 'mimir-ray\[{extra}\]'"):
            open_filesystem(protocol)


def test_a_process_that_uses_a_folder_does_not_import_s3() -> None:
    code = (
        "import sys, pathlib\n"
        "from prometheus_client import CollectorRegistry\n"
        "from mimir_ray.bucket.open import *\n"
        "open_bucket(BucketSettings(pathlib.Path('/nowhere')), 'x', CollectorRegistry())\n"
        "print([name for name in ('s3fs', 'botocore', 'aiohttp', 'fsspec') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_s3_settings_reach_the_client() -> None:
    from mimir_ray.bucket.s3 import put_options, session_options

    config = S3Config(
        endpoint="minio:9000", bucket_name="b", access_key_id="k", secret_access_key=Secret("s"), insecure=True,
        storage_class="STANDARD_IA", sse=SseConfig("SSE-KMS", "key-1", '{"a":"b"}'),
        http=S3HttpConfig(insecure_skip_verify=True, response_header_timeout=Duration(7000)),
    )  # fmt: skip
    options = session_options(config, 9)
    assert (options["endpoint_url"], options["key"], options["secret"]) == ("http://minio:9000", "k", "s")
    assert options["client_kwargs"] == {"region_name": "us-east-1", "verify": False}
    assert options["config_kwargs"]["s3"] == {"addressing_style": "path"}
    assert options["config_kwargs"]["read_timeout"] == 7
    assert options["use_listings_cache"] is False
    assert put_options(config) == {
        "StorageClass": "STANDARD_IA",
        "ServerSideEncryption": "aws:kms",
        "SSEKMSKeyId": "key-1",
        "SSEKMSEncryptionContext": "eyJhIjoiYiJ9",
    }
    aws = session_options(S3Config(bucket_name="b", region="eu-west-1", native_aws_auth_enabled=True), 9)
    assert (aws["endpoint_url"], aws["key"], aws["client_kwargs"]) == (None, None, {"region_name": "eu-west-1"})
    assert aws["config_kwargs"]["s3"] == {"addressing_style": "auto"}


class Counted:
    """A bucket in memory with metrics; `fails` by operation."""

    def __init__(self, concurrency: int = 4) -> None:
        self.registry = CollectorRegistry()
        self.fails: set[str] = set()
        inner = WatchedBucket(MemoryBucket(), self.before)
        metrics, clock = once(BucketMetrics, self.registry), ManualClock(5_000)
        self.bucket = ObservedBucket(inner, "test", metrics, Bound(concurrency, Duration(1)), clock)
        self.inside = lambda: None

    def before(self, operation: str, key: str) -> None:
        self.inside()
        if operation in self.fails:
            raise BucketUnavailable(operation, key, "away")

    def value(self, name: str, **labels: str) -> float | None:
        labels.setdefault("component", "test")
        return self.registry.get_sample_value(f"thanos_objstore_bucket_{name}", labels)


def test_operations_are_counted_under_thanos_names(tmp_path: Path) -> None:
    counted = Counted()
    bucket = counted.bucket
    bucket.put("a", b"xyz")
    bucket.get("a")
    bucket.get_range("a", 0, 2)
    bucket.info("a")
    bucket.exists("b")
    bucket.list_folders()
    assert len(list(bucket.list_objects())) == 1
    bucket.download("a", tmp_path / "a")
    bucket.upload(tmp_path / "a", "c")
    bucket.delete("a")
    expected = {"upload": 2, "get": 2, "get_range": 1, "attributes": 1, "exists": 1, "iter": 2, "delete": 1}
    assert {name: counted.value("operations_total", operation=name) for name in expected} == expected
    assert counted.value("operation_duration_seconds_count", operation="get") == 2
    assert counted.value("last_successful_upload_time") == 5
    moved = "mimir_ray_bucket_operation_transferred_bytes_total"
    assert counted.registry.get_sample_value(moved, {"operation": "get", "component": "test"}) == 6


def test_failures_are_counted_and_what_is_not_there_is_none() -> None:
    counted = Counted()
    with pytest.raises(ObjectNotFound):
        counted.bucket.get("a")
    assert counted.value("operation_failures_total", operation="get") is None
    counted.fails = {"get", "list_objects"}
    with pytest.raises(BucketUnavailable):
        counted.bucket.get("a")
    with pytest.raises(BucketUnavailable):
        list(counted.bucket.list_objects())
    assert counted.value("operation_failures_total", operation="get") == 1
    assert counted.value("operation_failures_total", operation="iter") == 1


def test_no_more_operations_run_than_allowed_and_waiting_ends() -> None:
    counted = Counted(concurrency=2)
    both, go = threading.Barrier(3), threading.Event()

    def inside() -> None:
        both.wait(10)
        assert go.wait(10)

    counted.inside = inside
    threads = [threading.Thread(target=counted.bucket.exists, args=("a",)) for _ in range(2)]
    for thread in threads:
        thread.start()
    both.wait(10)
    counted.inside = lambda: None
    with pytest.raises(BucketUnavailable, match="2 operations are running"):
        counted.bucket.exists("b")
    in_flight = "mimir_ray_bucket_operations_in_flight"
    assert counted.registry.get_sample_value(in_flight, {"component": "test"}) == 2
    go.set()
    for thread in threads:
        thread.join(10)
    assert counted.bucket.exists("b") is False
    assert counted.registry.get_sample_value(in_flight, {"component": "test"}) == 0


def test_roles_of_one_process_share_the_metrics_and_the_bound(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    buckets = [
        open_bucket(BucketSettings(tmp_path, StorageConfig()), name, registry) for name in ("ingester", "querier")
    ]
    for bucket in buckets:
        bucket.exists("a")
    for component in ("ingester", "querier"):
        labels = {"operation": "exists", "component": component}
        assert registry.get_sample_value("thanos_objstore_bucket_operations_total", labels) == 1
    assert buckets[0]._bound is buckets[1]._bound  # type: ignore[attr-defined]


def test_pauses_double_up_to_a_bound_and_have_jitter() -> None:
    config = OperationsConfig(max_retries=5, min_backoff=Duration(100), max_backoff=Duration(500))
    low, high = Retry(config, random=lambda: 0.0), Retry(config, random=lambda: 1.0)
    assert [high.pause_s(done) for done in range(5)] == [0.1, 0.2, 0.4, 0.5, 0.5]
    assert [low.pause_s(done) for done in range(5)] == [0.05, 0.1, 0.2, 0.25, 0.25]
    assert high.pause_s(10_000) == 0.5


def test_attempts_end() -> None:
    clock, asked = ManualClock(), []

    def attempt() -> None:
        asked.append(clock.now_ms())
        raise PassingFailure("busy")

    config = OperationsConfig(max_retries=3, min_backoff=Duration(100), max_backoff=Duration(10_000))
    with pytest.raises(BucketUnavailable, match=r"cannot read 'k': busy \(after 4 attempts\)"):
        Retry(config, clock, lambda: 1.0).run("read", "k", attempt)
    assert asked == [0, 100, 300, 700]


def test_what_was_acknowledged_survives_a_crash_of_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each file is synced before it is renamed, and then every folder that got a new name."""
    synced: list[str] = []
    real_open, names = os.open, {}

    def opened(path: object, *arguments: object, **more: object) -> int:
        descriptor = real_open(path, *arguments, **more)  # type: ignore[arg-type]
        names[descriptor] = str(path)
        return descriptor

    monkeypatch.setattr(os, "open", opened)
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(Path(names[descriptor]).name))
    bucket = open_bucket(BucketSettings(tmp_path / "bucket"), "test", CollectorRegistry())
    (tmp_path / "bucket").mkdir()
    bucket.put("t/u/k", b"data")
    assert synced[0].startswith(".tmp-")
    assert synced[1:] == ["u", "t", "bucket"]


def test_what_writers_left_when_they_died_is_not_seen_and_goes_with_the_folder(tmp_path: Path) -> None:
    bucket = open_bucket(BucketSettings(tmp_path), "test", CollectorRegistry())
    bucket.put("t/a", b"")
    bucket.put("u/a", b"")
    (tmp_path / "t" / ".tmp-1").write_bytes(b"half")
    (tmp_path / "u" / ".tmp-1").write_bytes(b"half")
    os.utime(tmp_path / "t" / ".tmp-1", (0, 0))
    assert [one.key for one in bucket.list_objects()] == ["t/a", "u/a"]
    bucket.delete("t/a")
    bucket.delete("u/a")
    assert not (tmp_path / "t").exists()
    assert bucket.list_folders() == []
    assert (tmp_path / "u").exists(), "a temporary file of today may be in use"
    os.utime(tmp_path / "u" / ".tmp-1", (0, 0))
    assert bucket.list_folders() == []
    assert not (tmp_path / "u").exists()
