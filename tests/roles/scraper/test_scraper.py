"""The scraper's threads against real targets on the loopback, and who is to be scraped."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from mimir_ray.clock import SystemClock
from mimir_ray.config.units import Bytes, duration
from mimir_ray.roles.scraper import scraper as module
from mimir_ray.roles.scraper.config import ScraperConfig
from mimir_ray.roles.scraper.ray_targets import targets_of_file, targets_of_nodes
from mimir_ray.roles.scraper.scraper import Scrape, Scraper, Target
from mimir_ray.wire.pb.prompb import remote_pb2

SOON_S = 20
CONFIG = ScraperConfig(scrape_interval=duration("20ms"), scrape_timeout=duration("2s"), body_size_limit=Bytes(10_000))


@contextmanager
def target(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[Target]:
    """A server on the loopback that answers so."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        def log_message(self, *_: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield Target(f"127.0.0.1:{server.server_port}", "/metrics", (("job", "x"),))
    finally:
        server.shutdown()
        server.server_close()


def exposing(body: bytes, status: int = 200, **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"Content-Type": "text/plain", "Content-Length": str(len(body)), **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def raw(sent: bytes) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(sent)
        handler.close_connection = True

    return answer


def fetch(one: Target, config: ScraperConfig = CONFIG) -> Scrape:
    return Scraper(config, list, lambda body: None, SystemClock(), CollectorRegistry())._fetch(one)


def test_a_target_is_asked_for_text_and_told_how_long_it_has() -> None:
    seen: list[dict[str, str]] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        seen.append({"path": handler.path, **{name.lower(): value for name, value in handler.headers.items()}})
        exposing(b"a 1\n")(handler)

    with target(answer) as one:
        found = fetch(one)
    assert (found.body, found.content_type) == (b"a 1\n", "text/plain")
    assert 0 < found.seconds < SOON_S
    assert seen[0]["path"] == "/metrics"
    assert seen[0]["x-prometheus-scrape-timeout-seconds"] == "2"
    assert seen[0]["accept"].startswith("text/plain;version=0.0.4")


@pytest.mark.parametrize(
    "answer",
    [
        exposing(b"a 1\n", 500),
        exposing(b"", 404),
        exposing(b"x" * 10_001),
        exposing(b"a 1\n", **{"Content-Length": "100"}),
        raw(b"no http at all\r\n\r\n"),
        raw(b""),
        raw(b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 1000 + b"\r\n"),
    ],
    ids=["500", "404", "too large", "cut short", "nonsense", "nothing", "headers without end"],
)
def test_a_target_that_does_not_answer_properly_has_failed(answer: Callable[[BaseHTTPRequestHandler], None]) -> None:
    with target(answer) as one:
        assert fetch(one).body is None


def test_a_target_that_is_not_there_has_failed() -> None:
    with target(exposing(b"")) as one:
        pass
    assert fetch(one).body is None


def test_a_body_of_just_the_allowed_size_is_taken() -> None:
    with target(exposing(b"#" * 10_000)) as one:
        assert fetch(one).body == b"#" * 10_000


def test_proxies_of_the_environment_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    with target(exposing(b"a 1\n")) as one:
        assert fetch(one).body == b"a 1\n"


class Running:
    """A scraper with what it wrote; `targets` and `fail` may be changed."""

    def __init__(self, *targets: Target) -> None:
        self.targets = list(targets)
        self.fail = False
        self.written: queue.Queue[dict[str, float]] = queue.Queue()
        self.registry = CollectorRegistry()
        self.scraper = Scraper(CONFIG, self._discover, self._write, SystemClock(), self.registry)

    def _discover(self) -> list[Target]:
        return list(self.targets)

    def _write(self, body: bytes) -> None:
        if self.fail:
            raise OSError("the disk is full")
        message = remote_pb2.WriteRequest.FromString(body)
        names = {
            next(one.value for one in series.labels if one.name == "__name__"): series for series in message.timeseries
        }
        self.written.put({name: series.samples[0].value for name, series in names.items()})

    def next(self, wanted: Callable[[dict[str, float]], bool] = lambda _: True) -> dict[str, float]:
        """The next request that is so, among the next few hundred."""
        for _ in range(300):
            found = self.written.get(timeout=SOON_S)
            if wanted(found):
                return found
        raise AssertionError("no such request was written")

    def outcomes(self, outcome: str) -> float:
        return self.registry.get_sample_value("mimir_ray_scraper_scrapes_total", {"outcome": outcome}) or 0

    def __enter__(self) -> Running:
        self.scraper.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.scraper.stop()


@pytest.fixture(autouse=True)
def quick_discovery(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DISCOVERY_PERIOD_S", 0.01)


def test_targets_are_scraped_again_and_again() -> None:
    with target(exposing(b"a 1\n")) as one, Running(one) as running:
        for _ in range(3):
            found = running.next()
            assert (found["up"], found["a"]) == (1.0, 1.0)


def test_a_target_that_failed_is_scraped_again() -> None:
    answers = [raw(b"nonsense"), exposing(b"", 500), exposing(b"{"), exposing(b"a 1\n")]

    def answer(handler: BaseHTTPRequestHandler) -> None:
        (answers.pop(0) if len(answers) > 1 else answers[0])(handler)

    with target(answer) as one, Running(one) as running:
        assert [running.next()["up"] for _ in range(4)] == [0.0, 0.0, 0.0, 1.0]


def test_a_target_that_left_is_ended_and_a_new_one_begins() -> None:
    with target(exposing(b"a 1\n")) as first, target(exposing(b"b 1\n")) as second, Running(first) as running:
        running.next()
        running.targets = [second]
        ended = running.next(lambda found: "a" in found and found["a"] != found["a"])
        assert set(ended) == {"a", *module.REPORTS}
        assert running.next(lambda found: "b" in found)["up"] == 1.0


def test_samples_that_could_not_be_written_are_counted_and_the_next_come() -> None:
    with target(exposing(b"a 1\n")) as one, Running(one) as running:
        running.next()
        running.fail = True
        while not running.outcomes("lost"):
            threading.Event().wait(0.005)
        running.fail = False
        before = running.outcomes("written")
        while running.outcomes("written") <= before:
            running.next()


def test_a_stopped_scraper_writes_no_staleness_markers() -> None:
    with target(exposing(b"a 1\n")) as one:
        with Running(one) as running:
            running.next()
        threads = [thread for thread, _ in running.scraper._loops.values()]
        for thread in threads:
            thread.join(SOON_S)
            assert not thread.is_alive()
        while not running.written.empty():
            assert running.written.get()["a"] == 1.0


def test_discovery_that_fails_leaves_known_targets_alone() -> None:
    with target(exposing(b"a 1\n")) as one, Running(one) as running:
        running.next()
        running.targets = None  # type: ignore[assignment]
        assert [running.next()["a"] for _ in range(3)] == [1.0] * 3


# Who is to be scraped.


def test_every_live_node_with_an_agent_is_a_target() -> None:
    nodes = [
        {"NodeManagerAddress": "10.0.0.1", "MetricsExportPort": 8000, "Alive": True},
        {"NodeManagerAddress": "10.0.0.2", "MetricsExportPort": 8000, "Alive": False},
        {"NodeManagerAddress": "10.0.0.3", "MetricsExportPort": 0, "Alive": True},
        {"NodeManagerAddress": "10.0.0.4", "MetricsExportPort": -1, "Alive": True},
        {"NodeManagerAddress": "10.0.0.5", "Alive": True},
    ]
    assert targets_of_nodes(nodes) == [Target("10.0.0.1:8000", "/metrics", (("job", "ray"),))]


def test_a_service_discovery_file_names_targets_and_labels(tmp_path: Path) -> None:
    file = tmp_path / "sd.json"
    file.write_text(json.dumps([{"labels": {"job": "a", "b": 1}, "targets": ["x:1", "y:2"]}, {"targets": ["z:3"]}]))
    labels = (("b", "1"), ("job", "a"))
    assert targets_of_file(file) == [Target("x:1", labels=labels), Target("y:2", labels=labels), Target("z:3")]


@pytest.mark.parametrize(
    "text", ["", "{", "3", "[1]", "[{}]", '[{"targets": 3}]', '[{"targets": ["a:1"], "labels": 3}]', "\xff"]
)
def test_a_damaged_service_discovery_file_has_no_targets(tmp_path: Path, text: str) -> None:
    file = tmp_path / "sd.json"
    file.write_bytes(text.encode("latin-1"))
    assert targets_of_file(file) == []


def test_a_missing_service_discovery_file_has_no_targets(tmp_path: Path) -> None:
    assert targets_of_file(tmp_path / "nothing") == []
