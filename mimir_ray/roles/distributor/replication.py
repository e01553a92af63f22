"""`WriteQuorum`: whether every item of a write has been taken by enough replicas.

Upstream: dskit ring/batch.go itemTracker. Failures are counted in two families: the caller's fault (the
item would be refused again) and ours. An item has failed when one family makes its quorum impossible, or when
all replicas have answered and too few took it (then the family of the last error decides). The write fails with the
first error of the family that decided.
"""

from __future__ import annotations

import asyncio

import numpy as np
from numpy.typing import NDArray

from mimir_ray.errors import ClientError, MimirRayError


class WriteQuorum:
    """Belongs to one event loop. `done` resolves to None or the error, once."""

    def __init__(self, replicas: NDArray[np.int8], needed: int) -> None:
        """`replicas`: int8[items], how many will answer for each, at least `needed` (> 0)."""
        self.done: asyncio.Future[MimirRayError | None] = asyncio.get_running_loop().create_future()
        self._needed = needed
        self._remaining = replicas.copy()
        self._tolerated = replicas - np.int8(needed)
        self._taken = np.zeros(len(replicas), np.int8)
        self._failed = {True: np.zeros(len(replicas), np.int8), False: np.zeros(len(replicas), np.int8)}
        self._errors: list[tuple[NDArray[np.int64] | slice, MimirRayError]] = []
        if len(replicas) == 0:
            self.done.set_result(None)

    def record(self, items: NDArray[np.int64] | slice, error: MimirRayError | None) -> None:
        """One replica has answered for these items (each at most once)."""
        self._remaining[items] -= 1
        if error is None:
            self._taken[items] += 1
        else:
            self._failed[isinstance(error, ClientError)][items] += 1
        if self.done.done():
            return
        if error is not None:
            self._errors.append((items, error))
            family = self._failed[isinstance(error, ClientError)]
            lost = (family[items] > self._tolerated[items]) | (self._remaining[items] == 0)
            self._fail_if(items, lost & (self._taken[items] < self._needed))
        elif bool((self._taken >= self._needed).all()):
            self.done.set_result(None)
        else:
            self._fail_if(items, (self._remaining[items] == 0) & (self._taken[items] < self._needed))

    def _fail_if(self, items: NDArray[np.int64] | slice, lost: NDArray[np.bool_]) -> None:
        """`lost`: bool, of each of `items`; whether it cannot be stored any more."""
        if not bool(lost.any()):
            return
        count = len(self._taken)
        item = int(np.arange(count)[items][int(lost.argmax())])
        met = [error for among, error in self._errors if item in np.arange(count)[among]]
        decisive = isinstance(met[-1], ClientError)
        self.done.set_result(next(error for error in met if isinstance(error, ClientError) is decisive))
