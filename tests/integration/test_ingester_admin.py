"""Ingesters are prepared for shutdown, shut down, restarted and made read-only over HTTP, and nothing is lost."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

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


def assert_kept(deployment: Deployment, *pushed: str) -> None:
    found = batches(deployment)
    assert {one: found.get(one) for one in pushed} == dict.fromkeys(pushed, 100)


def blocks_in_bucket(deployment: Deployment) -> list[Path]:
    return list((deployment.data / "blocks" / TENANT).glob("*/meta.json"))


def running_again(deployment: Deployment) -> None:
    """Starts it, and waits until its ingesters have replayed: the ring remembers them as they were."""
    deployment.start()
    wait_for("ingesters run", lambda: ask(deployment, "GET", "prepare-shutdown").status == 200, 60)


def test_stats_tell_what_a_tenant_has(deployment: Deployment) -> None:
    push(deployment, "stats")
    stats = deployment.get("/api/v1/user_stats", {"X-Scope-OrgID": TENANT}).json
    assert stats["numSeries"] == 100
    everyone = deployment.get("/distributor/all_user_stats", JSON).json
    assert [(one["userID"], one["numSeries"]) for one in everyone] == [(TENANT, 100)]
    lines = deployment.get("/ingester/tsdb_metrics", {"X-Scope-OrgID": TENANT}).text.splitlines()
    series = [float(line.split()[1]) for line in lines if line.startswith("prometheus_tsdb_head_series{")]
    assert (len(series), sum(series)) == (2, 100)


def test_a_read_only_ingester_answers_but_gets_no_new_writes_until_it_is_set_back(deployment: Deployment) -> None:
    path = "prepare-instance-ring-downscale"
    push(deployment, "a")
    before = head_series(deployment)
    assert min(before.values()) > 0
    since = ask(deployment, "POST", f"{path}?instance=ingester-1").json["timestamp"]
    assert abs(since - time.time()) < 60
    assert ask(deployment, "GET", path).json == {"timestamp": 0}
    wait_for("the gateway sees it", lambda: ring(deployment)["ingester-1"]["read_only"])
    push(deployment, "b")
    assert head_series(deployment) == {"ingester-0": before["ingester-0"] + 100, "ingester-1": before["ingester-1"]}
    assert_kept(deployment, "a", "b")
    assert ask(deployment, "GET", f"{path}?instance=ingester-1").json == {"timestamp": since}
    assert ask(deployment, "DELETE", f"{path}?instance=ingester-1").json == {"timestamp": 0}
    wait_for("the gateway sees it", lambda: not ring(deployment)["ingester-1"]["read_only"])
    push(deployment, "c")
    assert head_series(deployment)["ingester-1"] > before["ingester-1"]
    assert_kept(deployment, "a", "b", "c")


def test_what_was_prepared_survives_a_power_cut_and_is_done_at_the_next_stop(deployment: Deployment) -> None:
    push(deployment, "d")
    read_only = "prepare-instance-ring-downscale?instance=ingester-0"
    since = ask(deployment, "POST", read_only).json
    assert ask(deployment, "POST", "prepare-shutdown?instance=ingester-1").status == 204
    assert ask(deployment, "GET", "prepare-shutdown?instance=ingester-1").text == "set\n"
    assert ask(deployment, "GET", "prepare-shutdown").text == "unset\n"
    deployment.kill()
    running_again(deployment)
    assert ask(deployment, "GET", "prepare-shutdown?instance=ingester-1").text == "set\n"
    assert ask(deployment, "GET", read_only).json == since
    assert ask(deployment, "DELETE", read_only).json == {"timestamp": 0}
    assert_kept(deployment, "d")
    assert not blocks_in_bucket(deployment)
    before = ring(deployment)
    deployment.stop(timeout_s=60)
    assert len(blocks_in_bucket(deployment)) >= 1
    running_again(deployment)
    # It left the ring for good and came as a new one; the other kept its place.
    after = ring(deployment)
    assert after["ingester-1"]["tokens"] != before["ingester-1"]["tokens"]
    assert after["ingester-0"]["tokens"] == before["ingester-0"]["tokens"]
    assert ask(deployment, "GET", "prepare-shutdown?instance=ingester-1").text == "unset\n"
    push(deployment, "e")
    assert_kept(deployment, "a", "b", "c", "d", "e")


def test_one_that_is_shut_down_has_flushed_and_left_while_the_other_takes_all_writes(deployment: Deployment) -> None:
    push(deployment, "f")
    blocks = len(blocks_in_bucket(deployment))
    assert ask(deployment, "GET", "shutdown").status == 405
    assert ask(deployment, "POST", "shutdown", Origin="http://evil.example").status == 403
    assert ask(deployment, "POST", "shutdown?instance=ingester-1").status == 204
    wait_for("it leaves the ring", lambda: list(ring(deployment)) == ["ingester-0"])
    ready = deployment.get("/ready")
    assert (ready.status, "ingester/1: Terminated" in ready.text) == (503, True)
    assert len(blocks_in_bucket(deployment)) > blocks
    push(deployment, "g")
    assert_kept(deployment, "g")
    deployment.stop(timeout_s=60)
    running_again(deployment)
    push(deployment, "h")
    assert_kept(deployment, *"abcdefgh")


def test_a_smaller_number_is_refused_while_there_are_samples_and_an_automatic_one_starts_all(
    deployment: Deployment,
) -> None:
    deployment.stop(timeout_s=60)
    deployment.flags = (*UNLIMITED, "-deploy.ingesters=1")
    deployment.start(wait=False)
    assert deployment.process is not None
    assert deployment.process.wait(120) == 1
    assert "-deploy.ingesters=1 would leave ingester-1 behind" in deployment.output()
    assert "Traceback" not in deployment.output()
    assert not deployment.pids()
    deployment.flags = UNLIMITED
    running_again(deployment)
    assert set(ring(deployment)) == {"ingester-0", "ingester-1"}
    assert_kept(deployment, *"abcdefgh")


def test_an_ingester_is_added_while_it_runs(deployment: Deployment) -> None:
    address = deployment.output().partition("Ray is up at ")[2].split()[0].rstrip(".")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mimir_ray.cli", "scale", f"--address={address}"),
            *(*deployment.command()[4:], "-deploy.ingesters=3"),
        ],
        env=deployment.variables(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(ring(deployment)) == {"ingester-0", "ingester-1", "ingester-2"}
    before = head_series(deployment).get("ingester-2", 0)
    push(deployment, "i")
    assert head_series(deployment)["ingester-2"] > before
    assert_kept(deployment, *"abcdefghi")
