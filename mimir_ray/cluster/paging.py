"""Answers in pages: the first batches at once, the rest when the reader asks for it with a cursor.

An actor call has one answer, and a wide selection is larger than one should be. So whoever answers keeps the iterator
of what follows under a cursor for a while. A reader that went away does not ask again, and nothing more is read.
"""

from __future__ import annotations

import threading
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mimir_ray.errors import Unavailable
from mimir_ray.model.series import SeriesBatch

PAGE_BYTES = 48 << 20
CURSORS_MAX = 256
CURSOR_IDLE_S = 120.0


@dataclass(eq=False)
class NoSuchCursor(Unavailable):
    """A page is no longer kept (its owner restarted, the reader was slow); ask again from the start."""

    cursor: str

    def describe(self) -> str:
        return f"no such cursor: {self.cursor}"


@dataclass(slots=True)
class _Cursor:
    batches: Iterator[SeriesBatch]
    used_s: float


class Pages:
    """Thread-safe. At most `CURSORS_MAX` answers are kept, each for `CURSOR_IDLE_S` after it was last asked for."""

    def __init__(self, monotonic_s: Callable[[], float]) -> None:
        self._monotonic_s = monotonic_s
        self._lock = threading.Lock()
        self._cursors: OrderedDict[str, _Cursor] = OrderedDict()

    def __len__(self) -> int:
        """Answers that somebody may ask the rest of."""
        return len(self._cursors)

    def first(self, batches: Iterator[SeriesBatch]) -> tuple[list[SeriesBatch], str]:
        """The first batches, up to about `PAGE_BYTES`, and a cursor for the rest, "" where there is none."""
        page: list[SeriesBatch] = []
        size = 0
        for batch in batches:
            page.append(batch)
            size += batch.timestamps.nbytes + batch.values.nbytes + batch.labels.codes.nbytes
            size += 0 if batch.start_timestamps is None else batch.start_timestamps.nbytes
            if size >= PAGE_BYTES:
                break
        else:
            return page, ""
        cursor = uuid.uuid4().hex
        now = self._monotonic_s()
        with self._lock:
            self._cursors[cursor] = _Cursor(batches, now)
            while len(self._cursors) > CURSORS_MAX or next(iter(self._cursors.values())).used_s < now - CURSOR_IDLE_S:
                self._cursors.popitem(last=False)
        return page, cursor

    def next(self, cursor: str) -> tuple[list[SeriesBatch], str]:
        """The batches that follow. Raises `NoSuchCursor` for one that is used up or was dropped."""
        with self._lock:
            found = self._cursors.pop(cursor, None)
        if found is None:
            raise NoSuchCursor(cursor)
        return self.first(found.batches)

    def clear(self) -> None:
        """Nobody will be told more."""
        with self._lock:
            self._cursors.clear()
