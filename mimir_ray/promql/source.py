"""`SeriesSource`: all that the engine asks of storage."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from mimir_ray.model.matchers import Matcher
from mimir_ray.model.series import SeriesBatch

SERIES_PER_BATCH = 4096


@dataclass(frozen=True, slots=True)
class Shard:
    """Of `count` disjoint parts of all series the one with this index (0-based)."""

    index: int
    count: int


@dataclass(frozen=True, slots=True)
class Selection:
    """Which samples are wanted: of all series that satisfy every matcher, those in [mint, maxt] (ms).

    `labels_only` asks for series with no samples. `limit_series` stops after so many series (0: all).
    """

    matchers: tuple[Matcher, ...]
    mint: int
    maxt: int
    shard: Shard | None = None
    batch_series: int = SERIES_PER_BATCH
    labels_only: bool = False
    limit_series: int = 0


class SeriesSource(Protocol):
    """Where samples come from: a head, an ingester, a cluster, a list in a test.

    Every series appears in exactly one batch, in any order, with its samples complete, ascending by
    time, one sample a timestamp. Series without a sample in range may be left out. Raises, never
    returns less than there is.
    """

    def select(self, selection: Selection) -> Iterator[SeriesBatch]:
        """The selected series, at most `selection.batch_series` at a time."""
