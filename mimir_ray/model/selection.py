"""What is asked of storage: which samples of which series."""

from __future__ import annotations

from dataclasses import dataclass

from mimir_ray.model.matchers import Matcher

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
    `start_timestamps` asks for those of the samples too, where they are known. `newest`: of each series only the newest
    sample in range is wanted; storage may give more. `labels`: the others may be left out, so that series may come out
    equal; None: all.
    """

    matchers: tuple[Matcher, ...]
    mint: int
    maxt: int
    shard: Shard | None = None
    batch_series: int = SERIES_PER_BATCH
    labels_only: bool = False
    limit_series: int = 0
    start_timestamps: bool = False
    newest: bool = False
    labels: tuple[str, ...] | None = None
