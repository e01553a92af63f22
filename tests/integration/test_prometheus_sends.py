"""A real Prometheus scrapes, sends everything here by remote write, and both give the same answers afterwards.

`MIMIR_RAY_SEND_SECONDS` says for how long it sends (40).
"""

from __future__ import annotations

import math
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.integration.deployment import TENANT, UNLIMITED, Deployment, free_port, peer, request, wait_for

FLAGS = UNLIMITED
SEND_SECONDS = float(os.environ.get("MIMIR_RAY_SEND_SECONDS", "40"))
UNDER_WAY_S = 4.0
"""Longer than a sample waits in Prometheus' queue, see `batch_send_deadline`."""
TOLERANCE = 1e-9

CONFIG = """
global: {{scrape_interval: 1s, scrape_timeout: 900ms}}
scrape_configs:
  - {{job_name: prometheus, static_configs: [{{targets: ["127.0.0.1:{prometheus}"]}}]}}
  - {{job_name: node, static_configs: [{{targets: ["127.0.0.1:{node}"]}}]}}
  - {{job_name: nobody, static_configs: [{{targets: ["127.0.0.1:{nobody}"]}}]}}
remote_write:
  - url: http://127.0.0.1:{ours}/api/v1/push
    headers: {{X-Scope-OrgID: {tenant}}}
    queue_config: {{batch_send_deadline: 1s, capacity: 20000}}
    metadata_config: {{send_interval: 5s}}
"""

INSTANT = (
    "1 + 1",
    "up",
    "sum by (job) (up)",
    "count by (__name__) ({__name__=~'node_.*'})",
    "rate(prometheus_tsdb_head_samples_appended_total[20s])",
    "sum by (handler) (increase(prometheus_http_requests_total[30s]))",
    "histogram_quantile(0.9, sum by (le) (rate(prometheus_http_request_duration_seconds_bucket[30s])))",
    "histogram_quantile(0.5, sum by (le, handler) (prometheus_http_request_duration_seconds_bucket))",
    "max_over_time(sum(go_goroutines)[20s:2s])",
    "topk(3, go_memstats_alloc_bytes)",
    "sort_desc(node_cpu_seconds_total{mode='system'})",
    "bottomk(2, node_cpu_seconds_total)",
    'label_replace(up, "host", "$1", "instance", "([^:]*):.*")',
    'label_join(up, "both", "/", "job", "instance")',
    "absent(no_such_metric{job='x'})",
    "absent(up)",
    "go_goroutines offset 10s",
    "go_goroutines @ {at} - go_goroutines",
    "avg_over_time(go_goroutines[20s] @ {at} offset 3s)",
    "up{job!~'no.*'} == 1",
    "up == bool 0",
    "node_filesystem_avail_bytes / node_filesystem_size_bytes",
    "go_goroutines * on (instance) group_left (version) prometheus_build_info",
    "quantile by (mode) (0.75, node_cpu_seconds_total)",
    "stddev(node_cpu_seconds_total) / stdvar by (cpu) (node_cpu_seconds_total) or vector(1)",
    "go_goroutines{job='prometheus'}[10s]",
    "timestamp(up)",
    "scalar(sum(up)) + time()",
    "count_values('alive', up)",
    "changes(process_start_time_seconds[30s]) + resets(go_goroutines[30s])",
    "deriv(go_memstats_alloc_bytes[20s]) + predict_linear(go_memstats_alloc_bytes[20s], 60)",
    "quantile_over_time(0.3, go_goroutines[20s])",
    "node_load1 and on (instance) up{job='node'}",
    "up unless up{job='node'}",
    "sum without (instance, job) ({job='node', __name__=~'node_(memory|vmstat)_.+'})",
    "last_over_time(up{job='nobody'}[30s])",
    "'a string'",
    "rate(scrape_duration_seconds[1d])",
)
RANGE = (
    "up",
    "sum by (job) (up) * 100",
    "rate(node_cpu_seconds_total[10s])",
    "sum without (cpu) (irate(node_cpu_seconds_total[10s]))",
    "avg by (mode) (rate(node_cpu_seconds_total[15s])) > 0.01",
    "histogram_quantile(0.99, sum by (le) (rate(prometheus_http_request_duration_seconds_bucket[20s])))",
    "histogram_quantile(0.5, rate(prometheus_http_request_duration_seconds_bucket[20s]))",
    "topk(2, go_memstats_alloc_bytes)",
    "max_over_time(rate(go_memstats_alloc_bytes_total[10s])[20s:3s])",
    "absent(up{job='nobody'} == 1)",
    "delta(go_goroutines[10s] offset 5s)",
    "go_goroutines @ end() - go_goroutines @ start()",
    "clamp_max(go_goroutines, 40) - on (instance) group_right () go_threads",
    "node_memory_MemAvailable_bytes{job=~'n.de'} / node_memory_MemTotal_bytes",
    "count({__name__=~'go_.+'}) by (job)",
    "time() - process_start_time_seconds",
    "sgn(deriv(go_memstats_heap_inuse_bytes[12s])) + 0 * ln(go_goroutines)",
    "vector(time()) % 7",
    "avg_over_time(up[7s])",
)


@dataclass(frozen=True, slots=True)
class Sender:
    """Prometheus, which has sent for a while and goes on."""

    port: int
    first_ms: int
    last_ms: int
    """Of the samples between these times none is under way any more."""

    def ask(self, path: str, **parameters: Any) -> Any:
        named = {"match[]" if name == "match" else name: value for name, value in parameters.items()}
        answer = request(self.port, "GET", f"/api/v1/{path}?{urlencode(named, doseq=True)}")
        assert answer.status == 200, answer.text
        return answer.json["data"]


@pytest.fixture(scope="module")
def sender(deployment: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sender]:
    folder = tmp_path_factory.mktemp("prometheus")
    port, node, nobody = free_port(), free_port(), free_port()
    config = folder / "prometheus.yml"
    config.write_text(CONFIG.format(prometheus=port, node=node, nobody=nobody, ours=deployment.port, tenant=TENANT))
    commands = [
        [peer("prometheus-node-exporter"), f"--web.listen-address=127.0.0.1:{node}", "--log.level=error"],
        [
            peer("prometheus"),
            f"--config.file={config}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=warn",
        ],
    ]
    processes = [start(command, folder) for command in commands]
    try:
        wait_for("prometheus is ready", lambda: answers(port, "/-/ready"))
        began_ms = int(time.time() * 1000)
        time.sleep(SEND_SECONDS)
        last_ms = int(time.time() * 1000) - 1500  # a scrape that began before has ended by now
        time.sleep(UNDER_WAY_S)
        wait_for("everything is sent", lambda: newest_ms(deployment) >= last_ms)
        one = Sender(port, began_ms + 2000, last_ms)
        yield one
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(20)


def start(command: list[str], folder: Path) -> subprocess.Popen[bytes]:
    with (folder / f"{Path(command[0]).name}.log").open("wb") as log:
        return subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT)


def answers(port: int, path: str) -> bool:
    try:
        return request(port, "GET", path).status == 200
    except OSError:
        return False


def newest_ms(deployment: Deployment) -> float:
    found = deployment.result("query", query="max(timestamp(up))")["result"]
    return float(found[0]["value"][1]) * 1000 if found else 0.0


def own_metrics(port: int) -> dict[str, float]:
    """Prometheus' exposition: the sum of each metric over its label sets."""
    sums: dict[str, float] = {}
    for line in request(port, "GET", "/metrics").text.splitlines():
        if not line.startswith("#"):
            name, value = line.partition("{")[0].split(" ")[0], line.rpartition(" ")[2]
            sums[name] = sums.get(name, 0.0) + float(value)
    return sums


def test_nothing_failed_was_dropped_or_sent_twice(sender: Sender) -> None:
    metrics = own_metrics(sender.port)
    assert metrics["prometheus_remote_storage_samples_total"] > 500 * SEND_SECONDS
    for kind in ("samples", "metadata", "histograms", "exemplars"):
        for fate in ("failed", "retried", "dropped"):
            assert metrics.get(f"prometheus_remote_storage_{kind}_{fate}_total", 0.0) == 0.0, (kind, fate)


def test_every_sample_arrived_as_it_was_scraped(sender: Sender, deployment: Deployment) -> None:
    seconds = (sender.last_ms - sender.first_ms) // 1000
    asked = {"query": f"{{__name__!=''}}[{seconds}s]", "time": sender.last_ms / 1000}
    theirs = by_labels(sender.ask("query", **asked)["result"])
    ours = by_labels(deployment.result("query", **asked)["result"])
    assert ours == theirs
    assert len(theirs) > 800
    assert max(len(one["values"]) for one in theirs.values()) > seconds / 2


@pytest.mark.parametrize("query", INSTANT)
def test_an_instant_query_answers_the_same(query: str, sender: Sender, deployment: Deployment) -> None:
    middle = (sender.first_ms + sender.last_ms) // 2
    text = query.replace("{at}", f"{middle / 1000}")
    for at_ms in (sender.last_ms, middle + 333):
        asked = {"query": text, "time": at_ms / 1000}
        assert_same(sender.ask("query", **asked), deployment.result("query", **asked), ordered=text.startswith("sort"))


@pytest.mark.parametrize("query", RANGE)
def test_a_range_query_answers_the_same(query: str, sender: Sender, deployment: Deployment) -> None:
    for step in ("1", "7"):
        asked = {"query": query, "start": sender.first_ms / 1000, "end": sender.last_ms / 1000, "step": step}
        assert_same(sender.ask("query_range", **asked), deployment.result("query_range", **asked), ordered=True)


def test_queries_that_have_answers_are_most_of_them(sender: Sender, deployment: Deployment) -> None:
    at = sender.last_ms / 1000
    empty = [
        query
        for query in INSTANT
        if not deployment.result("query", query=query.replace("{at}", str(at)), time=at)["result"]
    ]
    assert len(empty) <= 2, "absent(up) and what a sender without self-monitoring lacks"


@pytest.mark.parametrize(
    "path, parameters",
    [
        ("series", {"match": ["up", "go_goroutines"]}),
        ("series", {"match": "{job='node',__name__=~'node_cpu.*'}"}),
        ("labels", {}),
        ("labels", {"match": "up"}),
        ("label/__name__/values", {}),
        ("label/job/values", {}),
        ("label/mode/values", {"match": "node_cpu_seconds_total{cpu='0'}"}),
        ("label/nothing/values", {}),
    ],
)
def test_what_there_is_looks_the_same(
    path: str, parameters: dict[str, Any], sender: Sender, deployment: Deployment
) -> None:
    span = {"start": sender.first_ms / 1000, "end": sender.last_ms / 1000}
    theirs, ours = sender.ask(path, **parameters, **span), deployment.result(path, **parameters, **span)
    if path == "series":
        theirs, ours = (sorted(found, key=lambda labels: sorted(labels.items())) for found in (theirs, ours))
    assert ours == theirs


def test_metadata_of_every_family_is_the_same(sender: Sender, deployment: Deployment) -> None:
    theirs = {
        name: {(entry["type"], entry["help"]) for entry in entries} for name, entries in sender.ask("metadata").items()
    }

    def ours() -> dict[str, set[tuple[str, str]]]:
        found = deployment.result("metadata")
        return {name: {(entry["type"], entry["help"]) for entry in entries} for name, entries in found.items()}

    deadline = time.monotonic() + 15  # three times the interval at which metadata is sent
    while not set(theirs) <= set(ours()) and time.monotonic() < deadline:
        time.sleep(1.0)
    assert ours() == theirs


def assert_same(theirs: Any, ours: Any, ordered: bool) -> None:
    assert ours["resultType"] == theirs["resultType"]
    if theirs["resultType"] in ("scalar", "string"):
        assert_point(theirs["result"], ours["result"])
        return
    if ordered:
        assert [one["metric"] for one in ours["result"]] == [one["metric"] for one in theirs["result"]]
    found = by_labels(ours["result"])
    wanted = by_labels(theirs["result"])
    assert set(found) == set(wanted)
    for labels, one in wanted.items():
        other = found[labels]
        assert one.keys() == other.keys()
        if "value" in one:
            assert_point(one["value"], other["value"])
            continue
        assert [time for time, _ in other["values"]] == [time for time, _ in one["values"]], labels
        for point, ours_point in zip(one["values"], other["values"], strict=True):
            assert_point(point, ours_point)


def by_labels(result: list[Any]) -> dict[tuple[tuple[str, str], ...], Any]:
    found = {tuple(sorted(one["metric"].items())): one for one in result}
    assert len(found) == len(result), "the same labels twice"
    return found


def assert_point(theirs: Any, ours: Any) -> None:
    assert ours[0] == theirs[0]
    if theirs[1] == ours[1]:
        return
    left, right = float(theirs[1]), float(ours[1])
    assert math.isclose(left, right, rel_tol=TOLERANCE, abs_tol=1e-300), f"at {theirs[0]}: {left} and {right}"
