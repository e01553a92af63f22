"""Blocks that come in over HTTP: start, files, finish, check. What is there so far is in the bucket and nowhere else.

    nothing ──start──▶ uploading-meta.json ──files──▶ … ──finish──▶ validation.json ──▶ meta.json alone
                                                                        └──▶ validation.json with an error

Any process may serve any step. A check that died is known by its last sign of life, and can be begun again.
Upstream: pkg/compactor/block_upload.go.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import orjson
import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge

from mimir_ray.bucket.layout import META, UPLOADING_META, VALIDATION, block_key, block_prefix
from mimir_ray.bucket.metrics import once
from mimir_ray.bucket.store import Bucket, ObjectNotFound
from mimir_ray.clock import Clock
from mimir_ray.config.limits import Limits
from mimir_ray.errors import MimirRayError
from mimir_ray.model.tenant import TenantId
from mimir_ray.tsdb.block.errors import DamagedBlock
from mimir_ray.tsdb.block.meta import COMPACTOR_SHARD_LABEL, META_VERSION, BlockMeta, is_ulid
from mimir_ray.tsdb.block.verify import verify_block
from mimir_ray.tsdb.compact.plan import DEPRECATED_LABELS, parse_shard

log = structlog.get_logger(__name__)

META_BYTES_MAX = 1 << 20
HEARTBEAT_S = 60.0
STALE_AFTER_MS = 5 * 60_000
SOURCE = "upload"
FILES_AT_ONCE = 8
_PATH = re.compile(r"(index|chunks/[0-9]{6})\Z")


@dataclass(eq=False)
class UploadRefused(MimirRayError):
    """What the client is told, in Mimir's words, and with which status."""

    status: int
    message: str

    def describe(self) -> str:
        return self.message


class State(Enum):
    """Of one block."""

    NOT_STARTED = "not started"
    UPLOADING = "uploading"
    VALIDATING = "validating"
    FAILED = "failed"
    COMPLETE = "complete"


@dataclass(frozen=True, slots=True)
class Progress:
    """`meta`: while it is uploaded. `error`: why the check failed."""

    state: State
    meta: BlockMeta | None = None
    error: str = ""


class UploadMetrics:
    """Upstream: pkg/compactor/compactor.go."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str) -> Counter:
            return Counter(f"cortex_block_upload_api_{name}_total", text, ("user",), registry=registry)

        self.blocks = counter("blocks", "Blocks that were uploaded and found good.")
        self.bytes = counter("bytes", "Bytes of those blocks.")
        self.files = counter("files", "Files of those blocks.")
        self.validations = Gauge(
            "cortex_block_upload_validations_in_progress", "Uploaded blocks that are being checked.", registry=registry
        )


class BlockUploads:
    """Thread-safe. Everything raises `UploadRefused` with what the client is told, or `BucketUnavailable`."""

    def __init__(
        self,
        bucket: Bucket,
        limits: Callable[[TenantId], Limits],
        directory: Path,
        validations_max: int,
        clock: Clock,
        registry: CollectorRegistry,
        start_thread: Callable[[Callable[[], None]], None] | None = None,
    ) -> None:
        """`directory`: for blocks that are checked. `validations_max`: how many at once, 0: any number."""
        self._bucket = bucket
        self._limits = limits
        self._directory = directory
        self._validations_max = validations_max
        self._clock = clock
        self._metrics = once(UploadMetrics, registry)
        self._start_thread = start_thread or _in_thread
        self._validations = 0
        self._lock = threading.Lock()

    def allow(self, tenant: TenantId, ulid: str) -> None:
        """The checks that every request goes through first."""
        if not is_ulid(ulid):
            raise UploadRefused(400, "invalid block ID")
        if not self._limits(tenant).compactor_block_upload_enabled:
            raise UploadRefused(400, "block upload is disabled")

    def start(self, tenant: TenantId, ulid: str, body: bytes) -> None:
        """`body`: the block's meta.json. Starting again replaces it."""
        self.allow(tenant, ulid)
        self._open(tenant, ulid, started=False)
        if len(body) > META_BYTES_MAX:
            message = f"The block metadata was too large (maximum size allowed is {META_BYTES_MAX} bytes)"
            raise UploadRefused(413, message)
        limits, now_ms = self._limits(tenant), self._clock.now_ms()
        meta = sanitized(body, ulid, int(limits.compactor_block_upload_max_block_size_bytes), now_ms)
        retention = limits.compactor_blocks_retention_period
        if retention > 0 and meta.max_time < now_ms - retention.ms:
            raise UploadRefused(422, f"block max time ({_moment(meta.max_time)}) older than retention period")
        self._bucket.put(block_key(tenant, ulid, UPLOADING_META), meta.to_json())
        log.info("block upload started", user=tenant, block=ulid)

    def expect_file(self, tenant: TenantId, ulid: str, path: str, size: int | None) -> int:
        """The bytes that a file has to have. `size`: what the request says it brings, if it does."""
        self.allow(tenant, ulid)
        if not path:
            raise UploadRefused(400, "missing or invalid file path")
        if path.rpartition("/")[2] == META:
            raise UploadRefused(400, f"{META} is not allowed")
        if not _PATH.match(path):
            raise UploadRefused(400, f"invalid path: {_quoted(path)}")
        if size == 0:
            raise UploadRefused(400, "file cannot be empty")
        meta = self._open(tenant, ulid).meta
        assert meta is not None and meta.thanos is not None
        expected = next((found for name, found in meta.thanos.files if name == path), None)
        if expected is None:
            raise UploadRefused(400, "unexpected file")
        if size is not None and size != expected:
            raise UploadRefused(400, f"file size doesn't match {META}")
        return expected

    def put_file(self, tenant: TenantId, ulid: str, path: str, source: Path) -> None:
        """Takes what `expect_file` allowed; `source` holds it whole."""
        size = source.stat().st_size
        self.expect_file(tenant, ulid, path, size)  # somebody may have finished the upload meanwhile
        self._bucket.upload(source, block_key(tenant, ulid, path))

    def finish(self, tenant: TenantId, ulid: str) -> None:
        """Begins the check and returns; where checks are off, completes the block."""
        self.allow(tenant, ulid)
        meta = self._open(tenant, ulid).meta
        assert meta is not None
        limits = self._limits(tenant)
        if not limits.compactor_block_upload_validation_enabled:
            self._complete(tenant, meta)
            return
        with self._lock:
            if 0 < self._validations_max <= self._validations:
                message = f"too many block upload validations in progress, limit is {self._validations_max}"
                raise UploadRefused(429, message)
            self._validations += 1
            self._metrics.validations.set(self._validations)
        try:
            self._sign_of_life(tenant, ulid)
            self._start_thread(lambda: self._validate(tenant, meta, limits))
        except BaseException:
            self._validation_ended()
            raise

    def check(self, tenant: TenantId, ulid: str) -> Progress:
        """How the upload stands."""
        self.allow(tenant, ulid)
        progress = self.progress(tenant, ulid)
        if progress.state is State.NOT_STARTED:
            raise UploadRefused(404, "block doesn't exist")
        return progress

    def files_there(self, tenant: TenantId, meta: BlockMeta) -> list[str]:
        """Names of the files of an upload that have come whole."""
        prefix = block_prefix(tenant, meta.ulid)
        there = {found.key.removeprefix(prefix): found.size for found in self._bucket.list_objects(prefix)}
        return [name for name, size in (meta.thanos.files if meta.thanos else ()) if there.get(name) == size]

    def progress(self, tenant: TenantId, ulid: str) -> Progress:
        """From what is in the bucket."""
        if self._bucket.exists(block_key(tenant, ulid, META)):
            return Progress(State.COMPLETE)
        try:
            meta = BlockMeta.from_json(self._bucket.get(block_key(tenant, ulid, UPLOADING_META)), UPLOADING_META)
        except ObjectNotFound:
            return Progress(State.NOT_STARTED)
        try:
            body = orjson.loads(self._bucket.get(block_key(tenant, ulid, VALIDATION)))
            error, last_ms = str(body.get("Error") or ""), int(body.get("LastUpdate") or 0)
        except ObjectNotFound:
            return Progress(State.UPLOADING, meta)
        except (ValueError, TypeError, AttributeError):
            return Progress(State.UPLOADING, meta)  # nobody's sign of life: as one that is too old
        if error:
            return Progress(State.FAILED, meta, error)
        recent = self._clock.now_ms() - last_ms < STALE_AFTER_MS
        return Progress(State.VALIDATING if recent else State.UPLOADING, meta)

    def _open(self, tenant: TenantId, ulid: str, started: bool = True) -> Progress:
        """An upload that can go on (or, if it need not be `started`, begin)."""
        progress = self.progress(tenant, ulid)
        match progress.state:
            case State.COMPLETE:
                raise UploadRefused(409, "block already exists")
            case State.VALIDATING:
                raise UploadRefused(400, "block validation in progress")
            case State.FAILED:
                raise UploadRefused(400, "block validation failed")
            case State.NOT_STARTED if started:
                raise UploadRefused(404, "block upload not started")
        return progress

    # The check.

    def _validate(self, tenant: TenantId, meta: BlockMeta, limits: Limits) -> None:
        """Ends with the block complete, or with an error where `check` finds it."""
        ended = threading.Event()
        beats = threading.Thread(
            target=self._beat, args=(tenant, meta.ulid, ended), name="upload-heartbeat", daemon=True
        )
        beats.start()
        try:
            error = self._problem(tenant, meta, limits)
        finally:
            ended.set()
            beats.join()
            self._validation_ended()
        try:
            if error:
                log.warning("uploaded block is not good", user=tenant, block=meta.ulid, error=error)
                self._sign_of_life(tenant, meta.ulid, error)
            else:
                self._complete(tenant, meta)
        except MimirRayError as failure:  # the upload stays as it is, and can be finished again when it is stale
            log.error("uploaded block cannot be completed", user=tenant, block=meta.ulid, error=str(failure))

    def _problem(self, tenant: TenantId, meta: BlockMeta, limits: Limits) -> str:
        """What is wrong with the block, for the client; "" if nothing is."""
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix="upload-", dir=self._directory) as folder:
                self._check_block(tenant, meta, limits, Path(folder))
        except (MimirRayError, OSError) as error:
            return str(error)
        except Exception as error:
            log.exception("an uploaded block cannot be checked", user=tenant, block=meta.ulid)
            return f"error validating block: {error!r}"
        return ""

    def _check_block(self, tenant: TenantId, meta: BlockMeta, limits: Limits, folder: Path) -> None:
        assert meta.thanos is not None
        _check_size(meta.thanos.files, int(limits.compactor_block_upload_max_block_size_bytes))
        prefix = block_prefix(tenant, meta.ulid)
        there = {found.key.removeprefix(prefix): found.size for found in self._bucket.list_objects(prefix)}
        wanted = [(name, size) for name, size in meta.thanos.files if name != META]
        for name, size in wanted:
            if name not in there:
                raise UploadRefused(400, f"failed to stat {name}: no such file or directory")
            if there[name] != size:
                raise UploadRefused(400, f"file size mismatch for {name}")
        with ThreadPoolExecutor(FILES_AT_ONCE, "upload-check") as pool:
            for _ in pool.map(lambda one: self._bucket.download(prefix + one[0], folder / one[0]), wanted):
                pass
        (folder / META).write_bytes(meta.to_json())
        try:
            verify_block(folder, chunks=limits.compactor_block_upload_verify_chunks)
        except MimirRayError as error:
            reason = str(error).replace(f"{folder}/", "")
            raise UploadRefused(400, f"error validating block: {reason}") from error

    def _complete(self, tenant: TenantId, meta: BlockMeta) -> None:
        self._bucket.put(block_key(tenant, meta.ulid, META), meta.to_json())
        for name in (UPLOADING_META, VALIDATION):
            try:
                self._bucket.delete(block_key(tenant, meta.ulid, name))
            except MimirRayError as error:  # harmless: meta.json is what counts
                log.warning("a file of an upload stays behind", user=tenant, block=meta.ulid, error=str(error))
        files = meta.thanos.files if meta.thanos else []
        self._metrics.blocks.labels(tenant).inc()
        self._metrics.files.labels(tenant).inc(len(files))
        self._metrics.bytes.labels(tenant).inc(sum(size or 0 for _, size in files))
        log.info("block upload completed", user=tenant, block=meta.ulid)

    def _sign_of_life(self, tenant: TenantId, ulid: str, error: str = "") -> None:
        body = orjson.dumps({"LastUpdate": self._clock.now_ms(), "Error": error})
        self._bucket.put(block_key(tenant, ulid, VALIDATION), body)

    def _beat(self, tenant: TenantId, ulid: str, ended: threading.Event) -> None:
        while not ended.wait(HEARTBEAT_S):
            try:
                self._sign_of_life(tenant, ulid)
            except MimirRayError as error:
                log.warning("no sign of life of a check", user=tenant, block=ulid, error=str(error))

    def _validation_ended(self) -> None:
        with self._lock:
            self._validations -= 1
            self._metrics.validations.set(self._validations)


def _in_thread(work: Callable[[], None]) -> None:
    threading.Thread(target=work, name="upload-validation", daemon=True).start()


def sanitized(body: bytes, ulid: str, size_max: int, now_ms: int) -> BlockMeta:
    """The description that the block will have. Raises `UploadRefused`. Upstream: sanitizeMeta."""
    try:
        read = orjson.loads(body)
        if read is None:
            raise UploadRefused(400, "missing block metadata")
        about = _Description(read)
    except (ValueError, TypeError) as error:
        raise UploadRefused(400, "malformed request body") from error
    if about.resolution > 0:
        raise UploadRefused(400, "block contains downsampled data")
    labels: dict[str, str] = {}
    for name, value in about.labels.items():
        if name in DEPRECATED_LABELS or (name == COMPACTOR_SHARD_LABEL and not value):
            continue
        if name != COMPACTOR_SHARD_LABEL:
            raise UploadRefused(400, f"unsupported external label: {name}")
        if parse_shard(value) is None:
            raise UploadRefused(400, f"invalid {COMPACTOR_SHARD_LABEL} external label: {_quoted(value)}")
        labels[name] = value
    if not about.files:
        raise UploadRefused(400, "missing block files in the thanos section of the block metadata")
    for path, size in about.files:
        if path == META:
            continue
        if not _PATH.match(path):
            raise UploadRefused(400, f"file with invalid path: {path}")
        if size is None or size <= 0:
            raise UploadRefused(400, f"file with invalid size: {path}")
    _check_size(about.files, size_max)
    if about.version != META_VERSION:
        raise UploadRefused(400, f"version must be {META_VERSION}")
    if about.min_time < 0 or about.max_time < 0 or about.max_time < about.min_time:
        raise UploadRefused(400, f"invalid minTime/maxTime: minTime={about.min_time}, maxTime={about.max_time}")
    if about.min_time > now_ms or about.max_time > now_ms:
        message = f"block time(s) greater than the present: minTime={about.min_time}, maxTime={about.max_time}"
        raise UploadRefused(400, message)
    thanos = {**about.thanos, "labels": labels, "source": SOURCE}
    compaction = {**about.compaction, "sources": [ulid], "parents": []}
    try:
        return BlockMeta.from_json(
            orjson.dumps({**read, "ulid": ulid, "compaction": compaction, "thanos": thanos}), META
        )
    except DamagedBlock as error:
        raise UploadRefused(400, "malformed request body") from error


class _Description:
    """A meta.json that may say anything. Raises ValueError and TypeError where a field has the wrong type."""

    def __init__(self, body: Any) -> None:
        known = _typed(body, dict)
        self.version = _typed(known.get("version", 0), int)
        self.min_time = _typed(known.get("minTime", 0), int)
        self.max_time = _typed(known.get("maxTime", 0), int)
        self.compaction = _typed(known.get("compaction") or {}, dict)
        self.thanos = _typed(known.get("thanos") or {}, dict)
        self.resolution = _typed(_typed(self.thanos.get("downsample") or {}, dict).get("resolution", 0), int)
        self.labels = {
            name: _typed(value, str) for name, value in _typed(self.thanos.get("labels") or {}, dict).items()
        }
        self.files: list[tuple[str, int | None]] = []
        for one in _typed(self.thanos.get("files") or [], list):
            size = _typed(one, dict).get("size_bytes")
            self.files.append((_typed(one.get("rel_path", ""), str), None if size is None else _typed(size, int)))


def _typed(value: Any, kind: type) -> Any:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f"{value!r} is no {kind.__name__}")
    return value


def _check_size(files: list[tuple[str, int | None]], size_max: int) -> None:
    if 0 < size_max < sum(size or 0 for _, size in files):
        raise UploadRefused(400, f"block exceeds the maximum block size limit of {size_max} bytes")


def _quoted(text: str) -> str:
    return orjson.dumps(text).decode()


def _moment(time_ms: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time_ms // 1000)) + f".{time_ms % 1000:03d}Z"


def clear_scratch(directory: Path) -> None:
    """Removes what checks that died have left."""
    shutil.rmtree(directory, ignore_errors=True)
