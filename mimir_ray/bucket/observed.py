"""`ObservedBucket`: a bucket whose operations are counted, timed, and bounded in number."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mimir_ray.clock import Clock
from mimir_ray.config.units import Duration

from .metrics import BucketMetrics
from .store import Bucket, BucketUnavailable, InvalidKey, ObjectInfo, ObjectNotFound


class Bound:
    """How many operations of a process run at once; others wait, not forever."""

    def __init__(self, concurrency: int, max_wait: Duration) -> None:
        self.max_wait = max_wait
        self.concurrency = concurrency
        self.semaphore = threading.BoundedSemaphore(concurrency)


class ObservedBucket:
    """See `Bucket`. Operations have Thanos' names: iter, get, get_range, exists, upload, attributes, delete."""

    def __init__(self, bucket: Bucket, component: str, metrics: BucketMetrics, bound: Bound, clock: Clock) -> None:
        self._bucket = bucket
        self._component = component
        self._metrics = metrics
        self._bound = bound
        self._clock = clock
        self._in_flight = metrics.in_flight.labels(component)
        self._waiting = metrics.waiting.labels(component)

    @contextmanager
    def _operation(self, name: str, key: str) -> Iterator[None]:
        """Around one operation."""
        both = (name, self._component)
        self._metrics.operations.labels(*both).inc()
        began = self._clock.monotonic_s()
        try:
            self._enter(name, key)
            try:
                with self._in_flight.track_inprogress():
                    yield
            finally:
                self._bound.semaphore.release()
        except (ObjectNotFound, InvalidKey):
            raise
        except BaseException:
            self._metrics.failures.labels(*both).inc()
            raise
        finally:
            self._metrics.seconds.labels(*both).observe(self._clock.monotonic_s() - began)

    def _enter(self, name: str, key: str) -> None:
        if self._bound.semaphore.acquire(blocking=False):
            return
        with self._waiting.track_inprogress():
            if not self._bound.semaphore.acquire(timeout=self._bound.max_wait.seconds):
                reason = f"{self._bound.concurrency} operations are running, for {self._bound.max_wait} and longer"
                raise BucketUnavailable(name, key, reason)

    def _moved(self, operation: str, count: int) -> None:
        self._metrics.bytes.labels(operation, self._component).inc(count)

    def get(self, key: str) -> bytes:
        with self._operation("get", key):
            data = self._bucket.get(key)
        self._moved("get", len(data))
        return data

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        with self._operation("get_range", key):
            data = self._bucket.get_range(key, offset, length)
        self._moved("get_range", len(data))
        return data

    def local_path(self, key: str) -> str | None:
        return self._bucket.local_path(key)  # no operation: a look at a folder

    def download(self, key: str, path: Path) -> None:
        with self._operation("get", key):
            self._bucket.download(key, path)
        self._moved("get", path.stat().st_size)

    def put(self, key: str, data: bytes) -> None:
        with self._operation("upload", key):
            self._bucket.put(key, data)
        self._uploaded(len(data))

    def upload(self, path: Path, key: str) -> None:
        with self._operation("upload", key):
            self._bucket.upload(path, key)
        self._uploaded(path.stat().st_size)

    def _uploaded(self, count: int) -> None:
        self._moved("upload", count)
        self._metrics.last_upload.labels(self._component).set(self._clock.now_ms() / 1000)

    def exists(self, key: str) -> bool:
        with self._operation("exists", key):
            return self._bucket.exists(key)

    def info(self, key: str) -> ObjectInfo:
        with self._operation("attributes", key):
            return self._bucket.info(key)

    def list_folders(self, prefix: str = "") -> list[str]:
        with self._operation("iter", prefix):
            return self._bucket.list_folders(prefix)

    def list_objects(self, prefix: str = "") -> Iterator[ObjectInfo]:
        # Pages are fetched while the reader works, who may use the bucket in between: only fetching takes a place.
        both = ("iter", self._component)
        self._metrics.operations.labels(*both).inc()
        began = self._clock.monotonic_s()
        try:
            objects = self._bucket.list_objects(prefix)
            while True:
                self._enter("iter", prefix)
                try:
                    found = next(objects, None)
                finally:
                    self._bound.semaphore.release()
                if found is None:
                    return
                yield found
        except InvalidKey:
            raise
        except Exception:
            self._metrics.failures.labels(*both).inc()
            raise
        finally:
            self._metrics.seconds.labels(*both).observe(self._clock.monotonic_s() - began)

    def delete(self, key: str) -> None:
        with self._operation("delete", key):
            self._bucket.delete(key)
