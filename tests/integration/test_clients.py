"""Programs of others, as they are: promtool asks and pushes, vmagent scrapes and sends."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import pytest

from mimir_ray.model.labels import labels_of
from tests.integration.deployment import TENANT, Deployment, free_port, peer, request, wait_for

EXPOSITION = """# HELP pushed_total Pushed by hand.
# TYPE pushed_total counter
pushed_total{shelf="a"} 7
# TYPE pushed_seconds histogram
pushed_seconds_bucket{le="1"} 2
pushed_seconds_bucket{le="+Inf"} 3
pushed_seconds_sum 4.5
pushed_seconds_count 3
"""


@pytest.fixture(scope="module")
def now_s() -> int:
    return int(time.time())


@pytest.fixture(scope="module")
def filled(deployment: Deployment, now_s: int) -> Deployment:
    series = [
        (
            labels_of({"__name__": "asked", "shelf": shelf}),
            [((now_s - back) * 1000, float(back)) for back in (30, 15, 0)],
        )
        for shelf in "ab"
    ]
    assert deployment.push(series).status == 200
    return deployment


@pytest.fixture(scope="module")
def header_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("promtool") / "http.yml"
    path.write_text(f"http_headers: {{X-Scope-OrgID: {{values: [{TENANT}]}}}}\n")
    return path


def promtool(*arguments: str, text: str = "") -> str:
    done = subprocess.run(
        [peer("promtool"), *arguments], input=text, check=False, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_promtool_runs_an_instant_query(filled: Deployment, header_file: Path, now_s: int) -> None:
    out = promtool(
        *("query", "instant", f"--http.config.file={header_file}", "--format=json", f"--time={now_s}"),
        *(f"{filled.url}/prometheus", "sum(asked)"),
    )
    assert json.loads(out) == [{"metric": {}, "value": [now_s, "0"]}]


def test_promtool_runs_a_range_query(filled: Deployment, header_file: Path, now_s: int) -> None:
    out = promtool(
        *("query", "range", f"--http.config.file={header_file}", "--format=json"),
        *(f"--start={now_s - 30}", f"--end={now_s}", "--step=15s", f"{filled.url}/prometheus", 'asked{shelf="a"}'),
    )
    (found,) = json.loads(out)
    assert found["values"] == [[now_s - 30, "30"], [now_s - 15, "15"], [now_s, "0"]]


def test_promtool_lists_series_and_label_values(filled: Deployment, header_file: Path) -> None:
    config = f"--http.config.file={header_file}"
    series = promtool("query", "series", config, "--match=asked", f"{filled.url}/prometheus")
    assert len(series.splitlines()) == 2
    assert all(f'shelf="{shelf}"' in series for shelf in "ab")
    values = promtool("query", "labels", config, f"{filled.url}/prometheus", "shelf")
    assert values.split() == ["a", "b"]


def test_promtool_says_that_it_is_healthy_and_ready(filled: Deployment) -> None:
    for what in ("healthy", "ready"):
        promtool("check", what, f"--url={filled.url}/prometheus")


def test_promtool_pushes_metrics(filled: Deployment) -> None:
    promtool(
        *("push", "metrics", f"--header=X-Scope-OrgID={TENANT}", "--label=job=by-hand", f"{filled.url}/api/v1/push"),
        text=EXPOSITION,
    )
    found = filled.result("query", query='{__name__=~"pushed_.*"}')["result"]
    assert {one["metric"]["__name__"]: one["value"][1] for one in found if "le" not in one["metric"]} == {
        "pushed_total": "7",
        "pushed_seconds_sum": "4.5",
        "pushed_seconds_count": "3",
    }
    assert {one["metric"]["le"]: one["value"][1] for one in found if "le" in one["metric"]} == {"1": "2", "+Inf": "3"}
    assert {one["metric"]["job"] for one in found} == {"by-hand"}


@pytest.mark.parametrize("protocol", ["", "-remoteWrite.forceVMProto", "-remoteWrite.forcePromProto"])
def test_vmagent_sends_what_it_scrapes(filled: Deployment, tmp_path: Path, protocol: str) -> None:
    """It begins with zstd and stays with it, unless it is told to send snappy."""
    job = f"vmagent{protocol.lstrip('-').replace('.', '-')}"
    port = free_port()
    config = tmp_path / "scrape.yml"
    config.write_text(
        f"scrape_configs: [{{job_name: {job}, scrape_interval: 1s, "
        f"static_configs: [{{targets: ['127.0.0.1:{port}']}}]}}]"
    )
    with (tmp_path / "vmagent.log").open("wb") as log:
        agent = subprocess.Popen(
            [
                peer("vmagent"),
                f"-httpListenAddr=127.0.0.1:{port}",
                f"-promscrape.config={config}",
                f"-remoteWrite.url={filled.url}/api/v1/push",
                f"-remoteWrite.headers=X-Scope-OrgID:{TENANT}",
                f"-remoteWrite.tmpDataPath={tmp_path / 'queue'}",
                *filter(None, [protocol]),
                "-remoteWrite.flushInterval=1s",
                "-remoteWrite.queues=1",  # several may overtake each other, and late samples are refused
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:

        def samples() -> list[float]:
            found = filled.result("query", query=f'up{{job="{job}"}}[1m]')["result"]
            return [at for at, _ in found[0]["values"]] if found else []

        wait_for("vmagent's samples", lambda: len(samples()) >= 5, timeout_s=40)
        lost = [
            line
            for line in request(port, "GET", "/metrics").text.splitlines()
            if "remotewrite_packets_dropped_total" in line and float(line.rpartition(" ")[2]) > 0
        ]
        said = (tmp_path / "vmagent.log").read_text()
        assert not lost, said
        assert "snappy" not in said and "unsupported" not in said, said
    finally:
        agent.terminate()
        agent.wait(20)
