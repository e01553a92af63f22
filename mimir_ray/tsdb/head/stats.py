"""What a head tells of itself."""

from __future__ import annotations

from dataclasses import dataclass

from mimir_ray.telemetry.caches import CacheStats


@dataclass(frozen=True, slots=True)
class HeadStats:
    series: int
    """Live ones."""
    references: int
    min_time: int | None
    """ms, of any sample ever taken; None: there was none."""
    max_time: int | None
    log_samples: int
    late_log_samples: int
    closed_chunks: int
    bytes: int
    """Memory of all arrays, room that is not used yet included."""
    appended: int
    """Samples taken since the start, and those of them that were late."""
    appended_late: int
    flushes: int
    created: int
    """Series that were made since the start, and that were dropped."""
    removed: int
    symbol_bytes: int
    """Memory of the strings of labels."""
    selections: CacheStats
    """Matchers whose series are remembered."""
