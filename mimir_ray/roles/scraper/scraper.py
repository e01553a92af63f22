"""`Scraper`: scrapes a few targets as Prometheus does, and writes what it finds as remote-write requests.

`up`, `scrape_duration_seconds` and the other synthetic series are written for every scrape; series that
are gone, and all series of a target that failed or left, get a staleness marker. Labels with an empty value
are absent. Scrapes of one target never overlap and begin at a fixed offset within the interval.
Upstream: scrape/scrape.go scrapeLoop.
"""

from __future__ import annotations

import hashlib
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import structlog
from prometheus_client import CollectorRegistry, Counter

from mimir_ray.clock import Clock
from mimir_ray.model.labels import METRIC_NAME, Labels, labels_of
from mimir_ray.model.metadata import Metadata
from mimir_ray.model.series import STALE_NAN
from mimir_ray.roles.scraper.config import ScraperConfig
from mimir_ray.wire.exposition import MalformedExposition, parse_exposition
from mimir_ray.wire.remote_write import encode_write_request

log = structlog.get_logger(__name__)

DISCOVERY_PERIOD_S = 5.0
TARGETS_MAX = 1000
ACCEPT = "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
METADATA_EVERY = 6
"""Scrapes between two times that a target's metadata is sent along."""


@dataclass(frozen=True, slots=True)
class Target:
    """`address`: host:port, also the value of `instance`; `labels` are put on all its series (`job` among them)."""

    address: str
    path: str = "/metrics"
    labels: Labels = ()

    @property
    def url(self) -> str:
        return f"http://{self.address}{self.path}"


@dataclass(frozen=True, slots=True)
class Scrape:
    """What a scrape found: None for the body of a target that did not answer properly."""

    body: bytes | None
    content_type: str
    seconds: float


@dataclass(eq=False)
class ScrapeLoop:
    """What one target has told so far; pure but for its memory of the last scrape."""

    target: Target
    seen: frozenset[Labels] = frozenset()
    scrapes: int = 0

    def request(self, scrape: Scrape, now_ms: int) -> bytes:
        """The remote-write request that a scrape comes to."""
        series: list[tuple[Labels, list[int], list[float]]] = []
        found: set[Labels] = set()
        metadata: tuple[Metadata, ...] = ()
        healthy = scrape.body is not None
        scraped = 0
        if scrape.body is not None:
            try:
                exposed = parse_exposition(scrape.body, scrape.content_type)
            except MalformedExposition as error:
                log.warning("target exposes no metrics", target=self.target.url, error=str(error))
                healthy = False
            else:
                for pairs, value, timestamp_ms in exposed.samples():
                    scraped += 1
                    labels = self._labels(pairs)
                    if labels in found:
                        continue  # the first sample of a series counts, as upstream
                    found.add(labels)
                    series.append((labels, [now_ms if timestamp_ms is None else timestamp_ms], [value]))
                if self.scrapes % METADATA_EVERY == 0:
                    metadata = tuple(exposed.metadata)
        added = len(found - self.seen)
        series += [(labels, [now_ms], [STALE_NAN]) for labels in sorted(self.seen - found)]
        self.seen = frozenset(found)
        self.scrapes += healthy
        report = (
            ("up", float(healthy)),
            ("scrape_duration_seconds", scrape.seconds),
            ("scrape_samples_scraped", float(scraped)),
            ("scrape_samples_post_metric_relabeling", float(scraped)),
            ("scrape_series_added", float(added)),
        )
        series += [(self._labels(((METRIC_NAME, name),)), [now_ms], [value]) for name, value in report]
        return encode_write_request(series, metadata)

    def farewell(self, now_ms: int) -> bytes:
        """Staleness markers for everything, when the target leaves."""
        names = ("up", "scrape_duration_seconds", "scrape_samples_scraped", "scrape_samples_post_metric_relabeling", "scrape_series_added")
        gone = [*sorted(self.seen), *(self._labels(((METRIC_NAME, name),)) for name in names)]
        self.seen = frozenset()
        return encode_write_request([(labels, [now_ms], [STALE_NAN]) for labels in gone])

    def _labels(self, exposed: Iterable[tuple[str, str]]) -> Labels:
        """The sample's labels and the target's; the target's win, the sample's become `exported_…`. Upstream: mutateSampleLabels."""
        own = dict(self.target.labels) | {"instance": self.target.address}
        merged = dict(own)
        for name, value in exposed:
            if value:
                merged[f"exported_{name}" if name in own else name] = value
        return labels_of(merged)

    def offset_s(self, interval_s: float) -> float:
        """Where in the interval this target's scrapes begin, so that not all begin at once."""
        digest = hashlib.blake2b(self.target.url.encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") / 2**64 * interval_s


class Scraper:
    """The shell: a thread for discovery and one for each target."""

    def __init__(
        self,
        config: ScraperConfig,
        targets: Callable[[], list[Target]],
        write: Callable[[bytes], None],
        clock: Clock,
        registry: CollectorRegistry,
    ) -> None:
        """`targets`: asked every few seconds. `write`: stores a remote-write request, or raises."""
        self._config = config
        self._discover = targets
        self._write = write
        self._clock = clock
        self._stop = threading.Event()
        self._loops: dict[Target, tuple[threading.Thread, threading.Event]] = {}
        self._thread = threading.Thread(target=self._run, name="scraper", daemon=True)
        self._scrapes = Counter(
            "mimir_ray_scraper_scrapes_total", "Scrapes, by how they ended.", ("outcome",), registry=registry
        )

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends all threads; writes no staleness markers, as the next start goes on with the same series."""
        self._stop.set()
        for _, left in self._loops.values():
            left.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._follow(self._discover()[:TARGETS_MAX])
            except Exception:
                log.exception("target discovery failed")
            self._stop.wait(DISCOVERY_PERIOD_S)

    def _follow(self, targets: list[Target]) -> None:
        for target in set(self._loops) - set(targets):
            self._loops.pop(target)[1].set()
        for target in targets:
            if target not in self._loops:
                left = threading.Event()
                thread = threading.Thread(target=self._scrape_for_ever, args=(target, left), name="scrape", daemon=True)
                self._loops[target] = thread, left
                thread.start()

    def _scrape_for_ever(self, target: Target, left: threading.Event) -> None:
        loop = ScrapeLoop(target)
        interval_s = self._config.scrape_interval.seconds
        offset_s = loop.offset_s(interval_s)
        while not left.is_set():
            due_s = (self._clock.now_ms() / 1000 - offset_s) % interval_s
            first = loop.scrapes == 0
            if not first and left.wait(interval_s - due_s):
                break
            now_ms = self._clock.now_ms()
            self._deliver(loop, loop.request(self._fetch(target), now_ms))
            if first and left.wait(interval_s - due_s):
                break
        if not self._stop.is_set():
            self._deliver(loop, loop.farewell(self._clock.now_ms()))

    def _deliver(self, loop: ScrapeLoop, request: bytes) -> None:
        try:
            self._write(request)
            self._scrapes.labels("written").inc()
        except Exception as error:  # noqa: BLE001  (the next scrape comes whatever happened to this one)
            self._scrapes.labels("lost").inc()
            log.warning("scraped samples not written", target=loop.target.url, error=str(error))

    def _fetch(self, target: Target) -> Scrape:
        began = self._clock.monotonic_s()
        limit = int(self._config.body_size_limit)
        headers = {"Accept": ACCEPT, "X-Prometheus-Scrape-Timeout-Seconds": f"{self._config.scrape_timeout.seconds:g}"}
        try:
            request = urllib.request.Request(target.url, headers=headers)
            with urllib.request.urlopen(request, timeout=self._config.scrape_timeout.seconds) as answer:
                body = answer.read(limit + 1)
                if len(body) > limit:
                    raise OSError(f"the body exceeds {limit} bytes")
                content_type = answer.headers.get("Content-Type", "")
        except (OSError, urllib.error.URLError, ValueError) as error:
            log.info("scrape failed", target=target.url, error=str(error))
            return Scrape(None, "", self._clock.monotonic_s() - began)
        return Scrape(body, content_type, self._clock.monotonic_s() - began)
