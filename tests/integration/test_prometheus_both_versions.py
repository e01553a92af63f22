"""A real Prometheus sends the same by remote write 1.0 and 2.0: samples, native histograms, exemplars, metadata.

What is stored for either is compared with what Prometheus has itself.
"""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlencode

import pytest
import zstandard

from mimir_ray.wire.pb.prompb.io.prometheus.write.v2 import types_pb2 as v2
from tests.integration.deployment import UNLIMITED, Deployment, free_port, peer, request, wait_for

FLAGS = (*UNLIMITED, "-deploy.ingesters=2", "-ingester.max-global-exemplars-per-user=10000")
TENANTS = pytest.mark.parametrize("tenant", ["version-1", "version-2"])
SEND_S = 8.0

CONFIG = """
global: {{scrape_interval: 1s, scrape_timeout: 900ms}}
storage: {{exemplars: {{max_exemplars: 10000}}}}
scrape_configs:
  - {{job_name: self, static_configs: [{{targets: ["127.0.0.1:{prometheus}"]}}]}}
  - {{job_name: target, static_configs: [{{targets: ["127.0.0.1:{target}"]}}]}}
remote_write:
  - url: http://127.0.0.1:{ours}/api/v1/push
    headers: {{X-Scope-OrgID: version-1}}
    protobuf_message: prometheus.WriteRequest
    send_exemplars: true
    send_native_histograms: true
    queue_config: {{batch_send_deadline: 500ms, capacity: 20000}}
    metadata_config: {{send_interval: 1s}}
  - url: http://127.0.0.1:{ours}/api/v1/push
    headers: {{X-Scope-OrgID: version-2}}
    protobuf_message: io.prometheus.write.v2.Request
    send_exemplars: true
    send_native_histograms: true
    queue_config: {{batch_send_deadline: 500ms, capacity: 20000}}
"""

EXPOSITION = """# HELP shelf_orders Orders, of all kinds.
# TYPE shelf_orders counter
shelf_orders_total{{shelf="a b"}} {turn} # {{trace_id="t{turn}"}} 1 {now}
# HELP shelf_seconds Time that an order takes.
# TYPE shelf_seconds histogram
# UNIT shelf_seconds seconds
shelf_seconds_bucket{{le="1"}} {turn} # {{trace_id="low{turn}",span="é"}} 0.5 {now}
shelf_seconds_bucket{{le="+Inf"}} {twice} # {{trace_id="high{turn}"}} 7.25 {now}
shelf_seconds_sum {turn}
shelf_seconds_count {twice}
# HELP shelf_height A gauge.
# TYPE shelf_height gauge
shelf_height{{shelf="empty"}} NaN
# EOF
"""


class Target(BaseHTTPRequestHandler):
    """An OpenMetrics target whose exemplars are new with every scrape."""

    turn = 0

    def do_GET(self) -> None:
        Target.turn += 1
        body = EXPOSITION.format(turn=Target.turn, twice=2 * Target.turn, now=f"{time.time():.3f}").encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/openmetrics-text; version=1.0.0; charset=utf-8")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


@dataclass(frozen=True, slots=True)
class Sender:
    """Prometheus; what it has between the two times (s) has been sent."""

    port: int
    first: float
    last: float

    def ask(self, path: str, **parameters: Any) -> Any:
        answer = request(self.port, "GET", f"/api/v1/{path}?{urlencode(parameters, doseq=True)}")
        assert answer.status == 200, answer.text
        return answer.json["data"]


@pytest.fixture(scope="module")
def sender(deployment: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sender]:
    folder = tmp_path_factory.mktemp("prometheus")
    program = peer("prometheus")
    target = ThreadingHTTPServer(("127.0.0.1", 0), Target)
    threading.Thread(target=target.serve_forever, daemon=True).start()
    port = free_port()
    config = folder / "prometheus.yml"
    config.write_text(CONFIG.format(prometheus=port, target=target.server_port, ours=deployment.port))
    command = [
        program,
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--enable-feature=exemplar-storage,native-histograms,metadata-wal-records",
        "--log.level=warn",
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        wait_for("Prometheus is ready", lambda: is_ready(port))
        first = time.time() + 1
        time.sleep(SEND_S)
        last = time.time()

        def arrived() -> bool:
            asked = {"query": "timestamp(shelf_orders_total)"}
            return all(
                float(found[0]["value"][1]) >= last
                for tenant in ("version-1", "version-2")
                if (found := deployment.result("query", tenant, **asked)["result"] or [{"value": [0, "0"]}])
            )

        wait_for("everything has arrived", arrived)
        yield Sender(port, first, last - 1)
        assert not [
            line
            for line in (folder / "log").read_text().splitlines()
            if "level=ERROR" in line or 'msg="non-recoverable' in line
        ]
    finally:
        process.terminate()
        process.wait(30)
        target.shutdown()


def is_ready(port: int) -> bool:
    try:
        return request(port, "GET", "/-/ready").status == 200
    except OSError:
        return False


def by_labels(answer: Any) -> dict[str, Any]:
    return {str(sorted(one["metric"].items())): one for one in answer["result"]}


@TENANTS
@pytest.mark.parametrize("job", ["target", "self"])
def test_all_samples_and_histograms_are_there(deployment: Deployment, sender: Sender, tenant: str, job: str) -> None:
    span = int(sender.last - sender.first)
    asked = {"query": f'{{job="{job}"}}[{span}s]', "time": f"{sender.last:.3f}"}
    theirs, ours = by_labels(sender.ask("query", **asked)), by_labels(deployment.result("query", tenant, **asked))
    assert len(theirs) > (5 if job == "target" else 300)
    assert ours.keys() == theirs.keys()
    assert ours == theirs
    if job == "self":
        assert any("histograms" in one for one in theirs.values())


@TENANTS
def test_all_exemplars_are_there(deployment: Deployment, sender: Sender, tenant: str) -> None:
    asked = {"query": '{job="target"}', "start": f"{sender.first:.3f}", "end": f"{sender.last:.3f}"}
    theirs, ours = sender.ask("query_exemplars", **asked), deployment.result("query_exemplars", tenant, **asked)
    assert {one["seriesLabels"]["__name__"] for one in theirs} == {"shelf_orders_total", "shelf_seconds_bucket"}
    assert min(len(one["exemplars"]) for one in theirs) >= 2
    assert sorted(ours, key=str) == sorted(theirs, key=str)


@TENANTS
def test_metadata_is_there(deployment: Deployment, sender: Sender, tenant: str) -> None:
    theirs, ours = sender.ask("metadata"), deployment.result("metadata", tenant)
    assert ours["shelf_seconds"] == theirs["shelf_seconds"]
    assert ours["shelf_seconds"] == [{"type": "histogram", "help": "Time that an order takes.", "unit": "seconds"}]
    # In 1.0 a counter's family is named as in OpenMetrics; in 2.0 there is only the metric's own name.
    counter = "shelf_orders" if tenant == "version-1" else "shelf_orders_total"
    assert ours[counter] == [{"type": "counter", "help": "Orders, of all kinds.", "unit": ""}]
    assert ours["prometheus_build_info"] == theirs["prometheus_build_info"]
    one = deployment.result("metadata", tenant, metric="shelf_height")
    assert one == {"shelf_height": [{"type": "gauge", "help": "A gauge.", "unit": ""}]}


def test_nothing_failed_and_nothing_had_to_be_sent_again(sender: Sender) -> None:
    text = request(sender.port, "GET", "/metrics").text
    failures = [
        line
        for line in text.splitlines()
        if line.startswith("prometheus_remote_storage_")
        and any(word in line for word in ("failed_total", "dropped_total", "retried_total"))
        and float(line.rpartition(" ")[2]) > 0
    ]
    assert not failures
    sent = [line for line in text.splitlines() if line.startswith("prometheus_remote_storage_exemplars_total{")]
    assert len(sent) == 2 and all(float(line.rpartition(" ")[2]) > 0 for line in sent)


def test_the_versions_are_told_apart(deployment: Deployment, sender: Sender) -> None:
    text = deployment.get("/metrics").text
    for tenant, version in (("version-1", "1.0"), ("version-2", "2.0")):
        (line,) = [
            one
            for one in text.splitlines()
            if one.startswith("cortex_distributor_requests_in_total")
            and f'user="{tenant}"' in one
            and f'"{version}"' in one
        ]
        assert float(line.rpartition(" ")[2]) > 2


def test_a_sender_is_told_what_was_written_of_a_request_that_is_refused_in_part(deployment: Deployment) -> None:
    now = int(time.time() * 1000)

    def push(*points: tuple[str, int]) -> tuple[int, list[str], str]:
        message = v2.Request(symbols=["", "__name__", "partly", "n", "0", "1", "trace_id", "x"])
        for n, at in points:
            one = message.timeseries.add(labels_refs=[1, 2, 3, list(message.symbols).index(n)])
            one.samples.add(timestamp=at, value=at / 7)
            one.exemplars.add(labels_refs=[6, 7], timestamp=at, value=1.0)
        headers = {
            "X-Scope-OrgID": "partly",
            "Content-Type": "application/x-protobuf;proto=io.prometheus.write.v2.Request",
            "Content-Encoding": "zstd",
            "X-Prometheus-Remote-Write-Version": "2.0.0",
        }
        body = zstandard.compress(message.SerializeToString())
        answer = request(deployment.port, "POST", "/api/v1/push", body, headers)
        counts = [
            answer.headers[f"x-prometheus-remote-write-{one}-written"] for one in ("samples", "histograms", "exemplars")
        ]
        return answer.status, counts, answer.text

    assert push(("0", now), ("1", now)) == (200, ["2", "0", "2"], "")
    status, counts, text = push(("0", now - 1), ("1", now + 1))
    assert (status, counts) == (400, ["1", "0", "1"])
    assert "err-mimir-sample-out-of-order" in text
    found = deployment.result("query_exemplars", "partly", query="partly")
    assert [len(one["exemplars"]) for one in found] == [1, 2]
