"""Custom trackers of active series: names and selectors out of a tenant's limits.

Upstream: pkg/ingester/activeseries/custom_trackers_config.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import structlog

from mimir_ray.config.limits import Limits
from mimir_ray.errors import MimirRayError
from mimir_ray.model.matchers import Matcher
from mimir_ray.promql.syntax.parser import parse_selector

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Trackers:
    """`names` beside `selectors`, sorted by name."""

    names: tuple[str, ...] = ()
    selectors: tuple[tuple[Matcher, ...], ...] = ()


class TrackerReader:
    """The trackers of one tenant, parsed again only when its limits change."""

    def __init__(self, tenant: str) -> None:
        self._tenant = tenant
        self._configured: dict[str, str] = {}
        self._trackers = Trackers()

    def read(self, limits: Limits) -> Trackers:
        """The base trackers with the additional ones on top. A selector that cannot be parsed is left out, with a word
        in the log: the runtime configuration may bring one at any time."""
        configured = {**limits.active_series_custom_trackers, **limits.active_series_additional_custom_trackers}
        if configured != self._configured:
            self._configured, self._trackers = configured, self._parse(configured)
        return self._trackers

    def _parse(self, configured: Mapping[str, str]) -> Trackers:
        found: list[tuple[str, tuple[Matcher, ...]]] = []
        for name, text in sorted(configured.items()):
            try:
                found.append((name, parse_selector(text)))
            except MimirRayError as error:
                log.error("custom tracker left out", user=self._tenant, tracker=name, error=str(error))
        return Trackers(tuple(name for name, _ in found), tuple(selector for _, selector in found))
