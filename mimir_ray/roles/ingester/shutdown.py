"""What an ingester does when it stops: whether it leaves the ring for good, whether it flushes.

A marker file in its folder keeps "prepared for shutdown" over restarts. Upstream: pkg/ingester (PrepareShutdownHandler,
PrepareUnregisterHandler), pkg/util/shutdownmarker.
"""

from __future__ import annotations

import os
import threading
from datetime import datetime, timezone
from pathlib import Path

from mimir_ray.clock import Clock

MARKER = "shutdown-requested.txt"


class ShutdownPlan:
    """Thread-safe. Reads the marker when it is made."""

    def __init__(self, directory: Path, clock: Clock, unregister: bool, flush: bool) -> None:
        """`unregister`, `flush`: as configured."""
        self._path = directory / MARKER
        self._clock = clock
        self._configured = (unregister, flush)
        self._lock = threading.Lock()
        self._prepared = self._path.exists()
        self._unregister = unregister or self._prepared

    @property
    def prepared(self) -> bool:
        return self._prepared

    @property
    def unregister(self) -> bool:
        """Whether it leaves the ring when it stops."""
        return self._unregister

    @property
    def flush(self) -> bool:
        """Whether it cuts and uploads everything when it stops."""
        return self._prepared or self._configured[1]

    def prepare(self) -> None:
        """It stops for good next time: unregisters and flushes. Raises OSError where the marker cannot be written."""
        with self._lock:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            moment = datetime.fromtimestamp(self._clock.now_ms() / 1000, timezone.utc)
            fresh = self._path.with_name(MARKER + ".tmp")
            with fresh.open("w") as file:
                file.write(moment.isoformat(timespec="seconds").replace("+00:00", "Z"))
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self._path)
            _sync(self._path.parent)
            self._prepared = self._unregister = True

    def cancel(self) -> None:
        """Back to what is configured."""
        with self._lock:
            self._remove()
            self._prepared = False
            self._unregister = self._configured[0]

    def finished(self) -> None:
        """It has stopped as it was to; a later start is a new life."""
        with self._lock:
            self._remove()

    def set_unregister(self, unregister: bool | None) -> bool:
        """For the next stop of this process; None: as configured. Returns what holds now."""
        with self._lock:
            self._unregister = self._configured[0] if unregister is None else unregister
            return self._unregister

    def _remove(self) -> None:
        if self._path.exists():
            self._path.unlink()
            _sync(self._path.parent)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
