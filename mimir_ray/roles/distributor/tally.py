"""`Tally`: which samples and exemplars of a write ingesters refused, so that a sender can be told what was stored."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mimir_ray.roles.distributor.request import PreparedWrite


@dataclass(slots=True)
class Tally:
    """Counts refusals of N samples and E exemplars; so many replicas as are `tolerated` may refuse what was stored."""

    samples: int
    exemplars: int
    tolerated: int = 0
    _samples: NDArray[np.int8] | None = None
    _exemplars: NDArray[np.int8] | None = None

    @classmethod
    def of(cls, write: PreparedWrite) -> Tally:
        return cls(len(write.timestamps), 0 if write.exemplars is None else len(write.exemplars))

    def refuse_samples(self, positions: NDArray[np.int64]) -> None:
        """One ingester refused these, each at most once."""
        if self._samples is None:
            self._samples = np.zeros(self.samples, np.int8)
        self._samples[positions] += 1

    def refuse_exemplars(self, positions: NDArray[np.int64]) -> None:
        if self._exemplars is None:
            self._exemplars = np.zeros(self.exemplars, np.int8)
        self._exemplars[positions] += 1

    def stored_samples(self) -> NDArray[np.bool_]:
        """bool[N]: those that not too many refused."""
        return np.ones(self.samples, np.bool_) if self._samples is None else self._samples <= self.tolerated

    def stored_exemplars(self) -> NDArray[np.bool_]:
        """bool[E]: likewise."""
        return np.ones(self.exemplars, np.bool_) if self._exemplars is None else self._exemplars <= self.tolerated
