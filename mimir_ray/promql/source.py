"""`SeriesSource`: all that the engine asks of storage."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from mimir_ray.model.selection import SERIES_PER_BATCH, Selection, Shard
from mimir_ray.model.series import SeriesBatch

__all__ = ["SERIES_PER_BATCH", "Selection", "SeriesSource", "Shard"]


class SeriesSource(Protocol):
    """Where samples come from: a head, an ingester, a cluster, a list in a test.

    Every series appears in exactly one batch, in any order, with its samples complete, ascending by
    time, one sample a timestamp. Series without a sample in range may be left out. Raises, never
    returns less than there is.
    """

    def select(self, selection: Selection) -> Iterator[SeriesBatch]:
        """The selected series, at most `selection.batch_series` at a time."""
