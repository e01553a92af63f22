"""`SelectedSeries`: which series satisfy matchers, remembered from query to query.

Dashboards and rules ask for the same series again and again. A series that was there when matchers were resolved
satisfies them for as long as it lives; newer ones are judged when they are asked for next.
"""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray

from mimir_ray.model.matchers import Matcher
from mimir_ray.telemetry.caches import CacheStats
from mimir_ray.tsdb.index.postings import Postings
from mimir_ray.tsdb.index.series_index import SeriesIndex

_SELECTIONS_MAX = 512
_REFERENCES_MAX = 1 << 21
"""Of all selections together, 8 MiB; larger ones than a quarter of it are not kept."""

_Entry = tuple[int, int, NDArray[np.int32]]
"""(series that there were, how many of them were dropped, references)."""

_NOTHING = CacheStats()


class SelectedSeries:
    """Of one index, used under the lock that guards it."""

    def __init__(self, index: SeriesIndex, postings: Postings, before: CacheStats = _NOTHING) -> None:
        """`before`: of its predecessor, whose counts it continues."""
        self._index = index
        self._postings = postings
        self._known: OrderedDict[tuple[Matcher, ...], _Entry] = OrderedDict()
        self._size = 0
        self._requests, self._hits = before.requests, before.hits

    @property
    def stats(self) -> CacheStats:
        return CacheStats(self._requests, self._hits, len(self._known))

    @property
    def bytes(self) -> int:
        """Memory of what is remembered."""
        return 4 * self._size

    def of(self, matchers: tuple[Matcher, ...]) -> NDArray[np.int32]:
        """Ascending references, not to be written to, of the live series that satisfy all matchers."""
        count = len(self._index)
        dropped = count - self._index.live
        entry = self._known.pop(matchers, None)
        self._requests += 1
        if entry is not None:
            self._size -= len(entry[2])
        if entry is None or entry[1] != dropped:
            references = self._postings.select(matchers)
        else:
            self._hits += 1
            references = entry[2]
            if entry[0] < count and len(newer := self._postings.select(matchers, entry[0])):
                references = np.concatenate((references, newer))
        if len(references) <= _REFERENCES_MAX // 4:
            self._known[matchers] = count, dropped, references
            self._size += len(references)
            while len(self._known) > _SELECTIONS_MAX or self._size > _REFERENCES_MAX:
                self._size -= len(self._known.popitem(last=False)[1][2])
        return references
