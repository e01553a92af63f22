"""The caches that all OTLP requests of a process share."""

from __future__ import annotations

from mimir_ray.telemetry.caches import CacheSource, of_function

from .translate import encoded_label
from .values import remembered_attribute


def otlp_caches() -> dict[str, CacheSource]:
    """By name; each has a bound of entries where it is declared."""
    return {"otlp-attributes": of_function(remembered_attribute), "otlp-labels": of_function(encoded_label)}
