"""`SentFamilies`: which metadata that stands beside series went to ingesters lately.

Senders of remote write 2.0 repeat it with every sample. It goes on when it is new, and again often enough for ingesters
not to forget it (`-ingester.metadata-retain-period`).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

REPEAT_S = 120.0
KEYS_MAX = 100_000


class SentFamilies:
    """Of one tenant. A key is a keyed hash of all that an entry says."""

    def __init__(self) -> None:
        self._sent_s: dict[int, float] = {}

    def due(self, keys: NDArray[np.uint64], now_s: float) -> NDArray[np.intp]:
        """Positions of those that were not sent lately."""
        sent = self._sent_s
        before = now_s - REPEAT_S
        return np.array([at for at, key in enumerate(keys.tolist()) if sent.get(key, -math.inf) < before], np.intp)

    def sent(self, keys: NDArray[np.uint64], now_s: float) -> None:
        """These have reached their ingesters, at the time that `due` was asked with."""
        before = now_s - REPEAT_S
        if len(self._sent_s) + len(keys) > KEYS_MAX:
            self._sent_s = {key: at for key, at in self._sent_s.items() if at >= before}
        if len(self._sent_s) + len(keys) > KEYS_MAX:
            self._sent_s.clear()
        for key in keys.tolist():
            if self._sent_s.get(key, -math.inf) < before:
                self._sent_s[key] = now_s
