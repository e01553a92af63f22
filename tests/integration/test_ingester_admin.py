"""Ingesters are prepared for shutdown, shut down, restarted and made read-only over HTTP, and nothing is lost."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mimir_ray.model.labels import Labels, labels_of
from tests.integration.deployment import TENANT, UNLIMITED, Deployment, request, wait_for

FLAGS = (*UNLIMITED, "-deploy.ingesters=2")
JSON = {"Accept": "application/json"}


def series(batch: str) -> list[Labels]:
    return [labels_of({"__name__": "kept", "number": str(at), "batch": batch}) for at in range(100)]


def push(deployment: Deployment, batch: str) -> None:
    """100 series of a batch, which must be acknowledged."""
    now_ms = int(time.time() * 1000)
    answer = deployment.push([(one, [(now_ms, 1.0)]) for one in series(batch)])
    assert answer.status == 200, answer.text


def batches(deployment: Deployment) -> dict[str, int]:
    """Batch → samples, each counted once."""
    found = deployment.result("query", query="sum by (batch) (count_over_time(kept[1h]))")["result"]
    return {one["metric"]["batch"]: int(one["value"][1]) for one in found}


def ask(deployment: Deployment, method: str, path: str, **headers: str) -> Any:
    return request(deployment.port, method, f"/ingester/{path}", headers=headers, timeout_s=120)


def ring(deployment: Deployment) -> dict[str, dict[str, Any]]:
    shards = deployment.get("/ingester/ring", JSON).json["shards"]
    return {one["id"]: one for one in shards}


def head_series(deployment: Deployment) -> dict[str, int]:
    tsdbs = deployment.get(f"/ingester/tsdb/{TENANT}", JSON).json["tsdbs"]
    return {one["instance"]: one["head"]["numSeries"] for one in tsdbs}


def blocks_in_bucket(deployment: Deployment) -> list[Path]:
    return list((deployment.data / "blocks" / TENANT).glob("*/meta.json"))


@pytest.fixture
def running(deploy: Callable[..., Deployment]) -> Deployment:
    one = deploy(*FLAGS)
    one.start()
    return one


def test_what_was_prepared_survives_a_power_cut_and_is_done_at_the_next_stop(running: Deployment) -> None:
    push(running, "first")
    assert ask(running, "POST", "prepare-shutdown?instance=ingester-1").status == 204
    assert ask(running, "GET", "prepare-shutdown?instance=ingester-1").text == "set\n"
    assert ask(running, "GET", "prepare-shutdown").text == "unset\n"
    running.kill()
    running.start()
    assert ask(running, "GET", "prepare-shutdown?instance=ingester-1").text == "set\n"
    assert batches(running) == {"first": 100}
    assert not blocks_in_bucket(running)
    before = ring(running)
    running.stop(timeout_s=60)
    assert len(blocks_in_bucket(running)) >= 1
    running.start()
    # It left the ring for good and came as a new one; the other kept its place.
    after = ring(running)
    assert after["ingester-1"]["tokens"] != before["ingester-1"]["tokens"]
    assert after["ingester-0"]["tokens"] == before["ingester-0"]["tokens"]
    assert ask(running, "GET", "prepare-shutdown?instance=ingester-1").text == "unset\n"
    push(running, "second")
    assert batches(running) == {"first": 100, "second": 100}


def test_one_that_is_shut_down_has_flushed_and_left_while_the_other_takes_all_writes(running: Deployment) -> None:
    push(running, "first")
    assert ask(running, "GET", "shutdown").status == 405
    assert ask(running, "POST", "shutdown", Origin="http://evil.example").status == 403
    assert ask(running, "POST", "shutdown?instance=ingester-1").status == 204
    assert wait_for("it leaves the ring", lambda: list(ring(running)) == ["ingester-0"])
    ready = running.get("/ready")
    assert (ready.status, "ingester/1: Terminated" in ready.text) == (503, True)
    assert len(blocks_in_bucket(running)) >= 1
    push(running, "second")
    assert head_series(running)["ingester-0"] >= 100
    assert batches(running)["second"] == 100
    running.stop(timeout_s=60)
    running.start()
    push(running, "third")
    assert batches(running) == {"first": 100, "second": 100, "third": 100}


def test_a_read_only_ingester_answers_but_gets_no_new_writes_until_it_is_set_back(running: Deployment) -> None:
    path = "prepare-instance-ring-downscale"
    push(running, "first")
    before = head_series(running)
    assert min(before.values()) > 0
    since = ask(running, "POST", f"{path}?instance=ingester-1").json["timestamp"]
    assert abs(since - time.time()) < 60
    assert ask(running, "GET", f"{path}?instance=ingester-1").json == {"timestamp": since}
    assert ask(running, "GET", path).json == {"timestamp": 0}
    assert wait_for("the gateway sees it", lambda: ring(running)["ingester-1"]["read_only"])
    push(running, "second")
    assert head_series(running) == {"ingester-0": before["ingester-0"] + 100, "ingester-1": before["ingester-1"]}
    assert batches(running) == {"first": 100, "second": 100}
    running.stop(timeout_s=60)
    running.start()
    assert ask(running, "GET", f"{path}?instance=ingester-1").json == {"timestamp": since}
    assert ask(running, "DELETE", f"{path}?instance=ingester-1").json == {"timestamp": 0}
    assert wait_for("the gateway sees it", lambda: not ring(running)["ingester-1"]["read_only"])
    push(running, "third")
    assert head_series(running)["ingester-1"] > before["ingester-1"]
    assert batches(running) == {"first": 100, "second": 100, "third": 100}


def test_stats_tell_what_a_tenant_has(running: Deployment) -> None:
    push(running, "first")
    stats = request(running.port, "GET", "/api/v1/user_stats", headers={"X-Scope-OrgID": TENANT}).json
    assert stats["numSeries"] == 100
    everyone = request(running.port, "GET", "/distributor/all_user_stats", headers=JSON).json
    assert [(one["userID"], one["numSeries"]) for one in everyone] == [(TENANT, 100)]
    metrics = request(running.port, "GET", "/ingester/tsdb_metrics", headers={"X-Scope-OrgID": TENANT}).text
    assert (
        sum(float(line.split()[1]) for line in metrics.splitlines() if line.startswith("prometheus_tsdb_head_series{"))
        == 100
    )
