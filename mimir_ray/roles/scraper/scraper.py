"""`Scraper`: scrapes a few targets as Prometheus does, and writes what it finds as remote-write requests.

`up`, `scrape_duration_seconds` and the other synthetic series are written for every scrape; series that
are gone, and all series of a target that failed or left, get a staleness marker. Labels with an empty value
are absent. Scrapes of one target never overlap and begin at a fixed offset within the interval.
Upstream: scrape/scrape.go scrapeLoop.
"""

from __future__ import annotations

import hashlib
import http.client
import ssl
import threading
import urllib.request
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import structlog
from prometheus_client import CollectorRegistry, Counter

from mimir_ray.clock import Clock
from mimir_ray.model.labels import METRIC_NAME, Labels, labels_of
from mimir_ray.model.series import STALE_NAN
from mimir_ray.roles.scraper.config import ScraperConfig
from mimir_ray.wire.exposition import NO_TIMESTAMP, Exposition, InvalidExposition, parse_exposition, parse_series
from mimir_ray.wire.remote_write import encode_write_request, label_section

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
    scheme: str = "http"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.address}{self.path}"


@dataclass(frozen=True, slots=True)
class Scrape:
    """What a scrape found: None for the body of a target that did not answer properly."""

    body: bytes | None
    content_type: str
    seconds: float


REPORTS = (
    "up",
    "scrape_duration_seconds",
    "scrape_samples_scraped",
    "scrape_samples_post_metric_relabeling",
    "scrape_series_added",
)


class ScrapeLoop:
    """What one target has told so far: which series, as label sections by the text that they had, and which of them
    get a staleness marker when they are gone: those without timestamps of their own."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.scrapes = 0
        self._sections: dict[str, bytes] = {}
        self._live: set[bytes] = set()
        self._own = dict(target.labels) | {"instance": target.address}
        self._reports = {name: self._section(((METRIC_NAME, name),)) for name in REPORTS}

    def request(self, scrape: Scrape, now_ms: int) -> bytes:
        """The remote-write request that a scrape comes to."""
        exposed: Exposition | None = None
        sections: dict[str, bytes] = {}
        if scrape.body is not None:
            try:
                exposed = parse_exposition(scrape.body, scrape.content_type)
                sections = {
                    text: self._sections.get(text) or self._section(parse_series(text)) for text in exposed.series
                }
            except InvalidExposition as error:
                log.warning("target exposes no metrics", target=self.target.url, error=str(error))
                exposed = None
        series: dict[bytes, list[tuple[int, float]]] = {}
        live: set[bytes] = set()
        if exposed is not None:
            times, values = exposed.timestamps.tolist(), exposed.values.tolist()
            for text, time, value in zip(exposed.series, times, values, strict=True):
                # of two samples of one series the first counts, as upstream
                series.setdefault(sections[text], [(now_ms if time == NO_TIMESTAMP else time, value)])
                if time == NO_TIMESTAMP:
                    live.add(sections[text])
        added = len(series.keys() - set(self._sections.values()))
        for gone in self._live - series.keys():
            series[gone] = [(now_ms, STALE_NAN)]
        self._sections, self._live = sections if exposed is not None else {}, live
        scraped = float(len(exposed)) if exposed is not None else 0.0
        reported = (float(exposed is not None), scrape.seconds, scraped, scraped, float(added))
        for name, value in zip(REPORTS, reported, strict=True):
            series[self._reports[name]] = [(now_ms, value)]
        metadata = exposed.metadata if exposed is not None and self.scrapes % METADATA_EVERY == 0 else ()
        self.scrapes += 1
        return encode_write_request(series.items(), metadata)

    def farewell(self, now_ms: int) -> bytes:
        """Staleness markers for everything, when the target leaves."""
        gone = self._live | set(self._reports.values())
        self._sections, self._live = {}, set()
        return encode_write_request((section, [(now_ms, STALE_NAN)]) for section in sorted(gone))

    def _section(self, exposed: Iterable[tuple[str, str]]) -> bytes:
        """The sample's labels and the target's; where both have one, the target's stays, and the sample's becomes
        `exported_…`, or that once more. Upstream: scrape/scrape.go mutateSampleLabels, resolveConflictingExposedLabels.
        """
        sample = {name: value for name, value in exposed if value}
        merged = sample | self._own
        for name in sorted(sample.keys() & self._own.keys(), key=len):
            free = f"exported_{name}"
            while free in merged:
                free = f"exported_{free}"
            merged[free] = sample[name]
        return label_section(labels_of(merged))

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
        # Targets are processes of this deployment, known by address: no proxy, and no name in a certificate to check.
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}),
            urllib.request.HTTPSHandler(context=ssl._create_unverified_context()),  # noqa: S323
        )
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
            with self._opener.open(request, timeout=self._config.scrape_timeout.seconds) as answer:
                body = answer.read(limit + 1)
                if len(body) > limit:
                    raise OSError(f"the body exceeds {limit} bytes")
                if answer.length:
                    raise OSError(f"{answer.length} bytes of the body are missing")
                content_type = answer.headers.get("Content-Type", "")
        except (OSError, http.client.HTTPException, ValueError) as error:
            log.info("scrape failed", target=target.url, error=str(error))
            return Scrape(None, "", self._clock.monotonic_s() - began)
        return Scrape(body, content_type, self._clock.monotonic_s() - began)
