"""What can be set about a head, and the limits of one push."""

from __future__ import annotations

from dataclasses import dataclass

HOUR_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class HeadSettings:
    chunk_range_ms: int = 2 * HOUR_MS
    """No chunk spans a multiple of this; half of it is how old an in-order sample may be.
    Upstream: tsdb/head.go ChunkRange."""
    samples_per_chunk: int = 120
    log_capacity_min: int = 16_384
    """Samples that gather in memory before they are packed into chunks, at least ..."""
    log_capacity_max: int = 1 << 20
    """... and at most (or twice the number of series, if that is more: every flush copies their open chunks);
    in between, `log_samples_per_series` times the number of series. A larger log means fewer copies, but pushes wait
    for a flush: at 400 k series 15 M samples/s and 250 ms with four times this, 11 M and 100 ms with this."""
    log_samples_per_series: int = 8
    late_log_capacity_max: int = 1 << 20
    dropped_series_min: int = 10_000
    """The memory of dropped series is given back when they are more than this, and more than those that are left."""
    metadata_families_max: int = 100_000
    """More metric families than this are not remembered, whatever the tenant's limit."""
    exemplars_max: int = 0
    """Exemplars that are kept, until a push says otherwise."""


@dataclass(frozen=True, slots=True)
class PushLimits:
    """Of one tenant, at the time of a push; 0: no limit. Only new series are refused."""

    series_max: int = 0
    metric_series_max: int = 0
    metrics_exempt: frozenset[str] = frozenset()
    """Names of metrics that the limit for one metric does not hold for."""
    process_series_max: int | None = None
    """With more series than this in the head, the process had too many of all tenants together; None: no limit."""
    out_of_order_window_ms: int = 0
    """How much older than the newest sample of the head a late sample may be; 0: none are taken."""
    exemplars_max: int = 0
    """Exemplars that are kept; 0: none."""
    ignore_late_exemplars: bool = False
    """Exemplars out of order are dropped without a word."""
    metadata_families_max: int = 0
    family_metadata_max: int = 0


NO_LIMITS = PushLimits()
