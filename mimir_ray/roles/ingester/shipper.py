"""`Shipper`: brings one tenant's blocks into object storage, and knows which ones are there.

A block is there when its meta.json is, so that goes last. What was shipped stands in `thanos.shipper.json` beside the
blocks; should that be lost, the bucket is asked. Uploading a block again makes the same objects.
Upstream: pkg/ingester/shipper.go.
"""

from __future__ import annotations

import copy
import os
import threading
from collections.abc import Callable
from pathlib import Path

import orjson
import structlog

from mimir_ray.bucket.layout import CHUNKS, INDEX, META, block_key, tenant_deletion_mark_key
from mimir_ray.bucket.store import Bucket
from mimir_ray.clock import Clock
from mimir_ray.errors import MimirRayError
from mimir_ray.model.tenant import TenantId
from mimir_ray.tsdb.append_file import storage_error, sync_directory
from mimir_ray.tsdb.block.meta import OUT_OF_ORDER_LABEL, BlockMeta, is_ulid
from mimir_ray.tsdb.local_blocks import LocalBlocks

from .metrics import LifeCycleMetrics

log = structlog.get_logger(__name__)

SHIPPED_FILE = "thanos.shipper.json"
_VERSION = 1
DELETION_CHECK_PERIOD_S = 3600.0
"""Upstream: pkg/ingester/ingester.go tsdbIdleClosing, deletion marks are looked for once an hour."""


class Shipper:
    """Thread-safe; one caller at a time ships. `label_late`: whether blocks of late samples are labelled so."""

    def __init__(
        self,
        tenant: TenantId,
        directory: Path,
        blocks: LocalBlocks,
        bucket: Bucket,
        clock: Clock,
        metrics: LifeCycleMetrics,
        label_late: Callable[[], bool],
    ) -> None:
        self._tenant = tenant
        self._path = directory / SHIPPED_FILE
        self._blocks = blocks
        self._bucket = bucket
        self._clock = clock
        self._metrics = metrics
        self._label_late = label_late
        self._lock = threading.Lock()
        self._checked_s = -DELETION_CHECK_PERIOD_S
        self.tenant_is_deleted = False
        """The bucket has a mark that says so; nothing is shipped then."""
        self.shipped = self._read()
        """ULID → when it was seen in the bucket, ms; of blocks that are here."""

    def ship(self) -> int:
        """Uploads what is not there yet, oldest first; how many blocks. Raises the first failure after trying all."""
        self._metrics.shipper_syncs.inc()
        with self._lock:
            try:
                return self._ship()
            except MimirRayError:
                self._metrics.shipper_sync_failures.inc()
                raise

    def _ship(self) -> int:
        if self._is_deleted():
            return 0
        uploaded = 0
        failure: MimirRayError | None = None
        metas = {meta.ulid: meta for meta in self._blocks.metas}
        known = {ulid: at for ulid, at in self.shipped.items() if ulid in metas}
        if known != self.shipped:
            self._remember(known)
        for meta in sorted(metas.values(), key=lambda one: one.min_time):
            if meta.ulid in self.shipped:
                continue
            try:
                if self._bucket.exists(block_key(self._tenant, meta.ulid, META)):
                    log.info("block is in the bucket already", user=self._tenant, block=meta.ulid)
                else:
                    self._upload(meta)
                    uploaded += 1
                    self._metrics.shipper_uploads.inc()
                    self._metrics.shipper_last_upload.set(self._clock.now_ms() / 1000)
                self._remember(self.shipped | {meta.ulid: self._clock.now_ms()})
            except MimirRayError as error:
                self._metrics.shipper_upload_failures.inc()
                log.warning("block upload failed", user=self._tenant, block=meta.ulid, error=str(error))
                failure = failure or error
        if failure is not None:
            raise failure
        return uploaded

    def oldest_unshipped_ms(self) -> int | None:
        """When the oldest block that is not in the bucket begins; None: all are there."""
        return min((meta.min_time for meta in self._blocks.metas if meta.ulid not in self.shipped), default=None)

    def shipped_before(self, time_ms: int) -> list[str]:
        """Blocks that are here and have been in the bucket since before a time."""
        return [meta.ulid for meta in self._blocks.metas if self.shipped.get(meta.ulid, time_ms) < time_ms]

    def _is_deleted(self) -> bool:
        now_s = self._clock.monotonic_s()
        if now_s - self._checked_s >= DELETION_CHECK_PERIOD_S:
            self.tenant_is_deleted = self._bucket.exists(tenant_deletion_mark_key(self._tenant))
            self._checked_s = now_s
        return self.tenant_is_deleted

    def _upload(self, meta: BlockMeta) -> None:
        directory = self._blocks.path(meta.ulid)
        try:
            names = [f"{CHUNKS}/{path.name}" for path in sorted((directory / CHUNKS).iterdir())]
        except OSError as error:
            raise storage_error("list", directory / CHUNKS, error) from error
        for name in (INDEX, *names):
            self._bucket.upload(directory / name, block_key(self._tenant, meta.ulid, name))
        self._bucket.put(block_key(self._tenant, meta.ulid, META), self._meta(meta).to_json())
        log.info("block uploaded", user=self._tenant, block=meta.ulid, samples=meta.stats.samples)

    def _meta(self, meta: BlockMeta) -> BlockMeta:
        meta = copy.deepcopy(meta)
        if meta.out_of_order and meta.thanos is not None and self._label_late():
            meta.thanos.labels[OUT_OF_ORDER_LABEL] = "true"
        return meta

    def _read(self) -> dict[str, int]:
        try:
            body = orjson.loads(self._path.read_bytes())
            if body["version"] != _VERSION:
                raise ValueError(f"version {body['version']}")
            return {ulid: int(at) for ulid, at in body["shipped"].items() if is_ulid(ulid)}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("what was shipped is not known, the bucket will be asked", user=self._tenant, error=str(error))
            return {}

    def _remember(self, shipped: dict[str, int]) -> None:
        temporary = self._path.with_name(SHIPPED_FILE + ".tmp")
        try:
            with temporary.open("wb") as file:
                file.write(orjson.dumps({"version": _VERSION, "shipped": shipped}, option=orjson.OPT_INDENT_2))
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._path)
            sync_directory(self._path.parent)
        except OSError as error:
            raise storage_error("write", self._path, error) from error
        self.shipped = shipped
