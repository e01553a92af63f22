"""Metric metadata: what a metric family is, as senders describe it."""

from __future__ import annotations

from dataclasses import dataclass

METRIC_TYPES = ("unknown", "counter", "gauge", "histogram", "gaugehistogram", "summary", "info", "stateset")
"""By their number in remote write 1.0 (prometheus.MetricMetadata.MetricType)."""


@dataclass(frozen=True, slots=True)
class Metadata:
    """Of one metric family."""

    family: str
    type: str
    help: str = ""
    unit: str = ""
