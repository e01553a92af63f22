"""Metrics of one process: a registry that is handed around, and what every process exposes.

There is no global registry. A package's `metrics.py` takes the process' registry and makes its families
with prometheus_client. An increment there costs about a microsecond and a lock: fine once per request or
batch, never per sample; code that counts more often adds to a `Tally`, or counts in its own fields and
shows them with `on_scrape`.
"""

from __future__ import annotations

import platform
import resource
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from prometheus_client import CollectorRegistry, ProcessCollector, disable_created_metrics, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from mimir_ray import __version__

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

DURATION_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100)
"""Of `*_duration_seconds` histograms, in seconds. Upstream: dskit instrument.DefBuckets."""


def process_registry() -> CollectorRegistry:
    """A new registry with the metrics of the process itself: CPU, memory, descriptors, build."""
    disable_created_metrics()  # Mimir has no `*_created` series, and they double the size of a scrape
    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)
    on_scrape(registry, _process_extras)
    return registry


def expose(registry: CollectorRegistry) -> bytes:
    """Everything in the registry in the text exposition format."""
    return generate_latest(registry)


def on_scrape(registry: CollectorRegistry, families: Callable[[], Iterable[Metric]]) -> None:
    """Has `families()` called at every scrape; for values that exist elsewhere already."""
    registry.register(_OnScrape(families))


class _OnScrape:
    def __init__(self, families: Callable[[], Iterable[Metric]]) -> None:
        self._families = families

    def describe(self) -> Iterable[Metric]:
        return ()  # not asked at registration: names are the callback's business

    def collect(self) -> Iterable[Metric]:
        return self._families()


class Cell:
    """One number of a `Tally`; write to `value` directly."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0


class Tally:
    """A counter family without locks: `cell.value += n` costs an attribute access.

    Each cell has one writer at a time: add where the lock that guards the counted thing is held, or in
    the only thread that does. Scrapes read without a lock. `remove` forgets a label set (a tenant that
    left); a later `cell` starts it at 0 again, which Prometheus takes for a restart.
    """

    def __init__(self, registry: CollectorRegistry, name: str, help: str, labels: Sequence[str] = ()) -> None:  # noqa: A002
        """`name` with its `_total`."""
        assert name.endswith("_total"), name
        self._name, self._help, self._labels = name, help, tuple(labels)
        self._cells: dict[tuple[str, ...], Cell] = {}
        on_scrape(registry, self._collect)
        if not labels:
            self.cell()

    def cell(self, *labels: str) -> Cell:
        """The cell of a label set; keep it where it is used often."""
        found = self._cells.get(labels)
        if found is None:
            assert len(labels) == len(self._labels), f"{self._name} has labels {self._labels}, got {labels}"
            found = self._cells.setdefault(labels, Cell())
        return found

    def remove(self, *labels: str) -> None:
        self._cells.pop(labels, None)

    def _collect(self) -> Iterable[Metric]:
        family = CounterMetricFamily(self._name, self._help, labels=self._labels)
        for labels, cell in list(self._cells.items()):
            family.add_metric(labels, cell.value)
        yield family


def _process_extras() -> Iterable[Metric]:
    for name in ("cortex_build_info", "mimir_build_info"):
        build = GaugeMetricFamily(name, "Version of this program.", labels=("version", "pythonversion"))
        build.add_metric((__version__, platform.python_version()), 1)
        yield build
    usage = resource.getrusage(resource.RUSAGE_SELF)
    peak = GaugeMetricFamily("process_resident_memory_peak_bytes", "Largest resident memory so far in bytes.")
    peak.add_metric((), usage.ru_maxrss * 1024)
    yield peak
    try:
        areas = Path("/proc/self/maps").read_bytes().count(b"\n")
        limit = int(Path("/proc/sys/vm/max_map_count").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return  # not Linux
    used = GaugeMetricFamily("process_memory_map_areas", "Memory map areas of this process.")
    used.add_metric((), areas)
    yield used
    allowed = GaugeMetricFamily("process_memory_map_areas_limit", "Memory map areas that a process may have.")
    allowed.add_metric((), limit)
    yield allowed
