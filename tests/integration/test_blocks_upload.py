"""Blocks that promtool made, sent by the command, compacted by a compactor on Ray that is killed meanwhile."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.deployment import ROOT, TENANT, Deployment, peer, request, wait_for
from tests.integration.prometheus_peer import running_prometheus
from tests.integration.test_native_histograms_prometheus import difference

FLAGS = (
    "-compactor.block-upload-enabled=true",
    "-compactor.compaction-interval=2s",
    "-compactor.cleanup-interval=2s",
    "-compactor.new-block-check-interval=500ms",
    "-compactor.first-level-compaction-wait-period=0s",
    "-compactor.split-and-merge-shards=2",
)
HOURS = 6
REPLICAS = 3
QUERIES = (
    "up[7h]",
    "sum(rate(up[5m]))",
    "quantile_over_time(0.9, up[11m])",
    'max by (instance) (up{instance=~"host-1.*"} offset 17m)',
)
SHORT_LIVED = "short-lived"
"""A tenant with a retention of its own."""
JSON = {"Accept": "application/json", "X-Scope-OrgID": TENANT}


def promtool(*arguments: object) -> str:
    done = subprocess.run(
        [peer("promtool"), "tsdb", *map(str, arguments)], check=False, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def dumped(folder: Path) -> list[str]:
    """Every sample of the blocks in a folder once, whatever block has it."""
    (folder / "wal").mkdir(exist_ok=True)
    return sorted(set(promtool("dump", folder).splitlines()))


@pytest.fixture(scope="module")
def limits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of tenants' limits; nothing in it yet."""
    path = tmp_path_factory.mktemp("limits") / "limits.yaml"
    path.write_text("overrides: {}\n")
    return path


@pytest.fixture(scope="module")
def deployment(deploy: Callable[..., Deployment], limits: Path) -> Deployment:
    one = deploy(*FLAGS, "-runtime-config.reload-period=1s", f"-runtime-config.file={limits}")
    one.start()
    return one


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three times the same samples of six hours, three days ago: 9 blocks, all in one range of the largest size."""
    folder = tmp_path_factory.mktemp("made")
    start = (int(time.time()) // 86_400 - 3) * 86_400
    lines = ["# TYPE up gauge"]
    for series in range(20):
        lines += [f'up{{instance="host-{series}"}} {series + at} {start + at}' for at in range(0, HOURS * 3600, 60)]
    (folder / "samples.txt").write_text("\n".join([*lines, "# EOF\n"]))
    for _ in range(REPLICAS):
        promtool("create-blocks-from", "openmetrics", folder / "samples.txt", folder / "blocks")
    return folder / "blocks"


def uploaded(deployment: Deployment, folder: Path, tenant: str = TENANT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mimir_ray.cli", "blocks", "upload", str(folder)]
    where = [f"--address={deployment.url}", f"--tenant={tenant}"]
    return subprocess.run(
        [*command, *where],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def bucket(deployment: Deployment, tenant: str = TENANT) -> Path:
    return deployment.data / "blocks" / tenant


def live(deployment: Deployment, tenant: str = TENANT) -> list[Path]:
    """Folders of complete blocks that are not marked for deletion."""
    folder = bucket(deployment, tenant)
    marked = {path.name.partition("-")[0] for path in (folder / "markers").glob("*-deletion-mark.json")}
    return [path.parent for path in folder.glob("*/meta.json") if path.parent.name not in marked]


def test_uploaded_blocks_are_compacted_and_hold_the_same_samples(
    deployment: Deployment, made: Path, tmp_path: Path
) -> None:
    done = uploaded(deployment, made)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("uploaded") == REPLICAS * HOURS // 2

    for pid in deployment.pids_of("CompactorActor") or deployment.pids_of("BackendActor"):
        os.kill(pid, signal.SIGKILL)  # Ray starts it again

    wait_for("blocks are compacted", lambda: len(live(deployment)) == 2, 90)
    for folder in live(deployment):
        shutil.copytree(folder, tmp_path / folder.name)
    assert dumped(tmp_path) == dumped(made)
    listed = promtool("list", tmp_path)
    assert all(folder.name in listed for folder in live(deployment))

    assert uploaded(deployment, made).stdout.count("was there already") == REPLICAS * HOURS // 2


def test_answers_from_uploaded_blocks_are_those_of_prometheus_on_the_same_blocks(
    deployment: Deployment, made: Path, tmp_path: Path
) -> None:
    times = [json.loads(path.read_bytes()) for path in made.glob("*/meta.json")]
    start, end = min(one["minTime"] for one in times) // 1000, max(one["maxTime"] for one in times) // 1000
    shutil.copytree(made, tmp_path / "data")
    with running_prometheus(peer("prometheus"), tmp_path, flags=("--storage.tsdb.retention.time=100y",)) as theirs:
        for query in QUERIES:
            wanted = theirs.query("query", query=query, time=str(end))["data"]
            assert wanted["result"]
            assert not (text := difference(wanted, deployment.result("query", query=query, time=end))), query + text
            if query.endswith("h]"):
                continue
            wanted = theirs.query("query_range", query=query, start=str(start), end=str(end), step="97")["data"]
            found = deployment.result("query_range", query=query, start=start, end=end, step=97)
            assert not (text := difference(wanted, found)), query + text


def test_blocks_past_their_tenants_own_retention_go(
    deployment: Deployment, made: Path, limits: Path, tmp_path: Path
) -> None:
    """Those are three days old; with that retention they would not have been taken."""
    first, second = (path.parent for path in sorted(made.glob("*/meta.json"))[:2])
    shutil.copytree(first, tmp_path / "first" / first.name)
    shutil.copytree(second, tmp_path / "second" / second.name)
    done = uploaded(deployment, tmp_path / "first", SHORT_LIVED)
    assert done.returncode == 0, done.stdout + done.stderr
    limits.write_text(f"overrides: {{{SHORT_LIVED}: {{compactor_blocks_retention_period: 48h}}}}\n")
    wait_for("its samples are marked", lambda: not live(deployment, SHORT_LIVED), 60)
    marks = (bucket(deployment, SHORT_LIVED) / "markers").glob("*-deletion-mark.json")
    assert any("retention" in json.loads(mark.read_bytes())["details"] for mark in marks)
    assert live(deployment)
    done = uploaded(deployment, tmp_path / "second", SHORT_LIVED)
    assert done.returncode == 1
    assert "older than retention period (status 422)" in done.stdout


def test_what_is_left_of_an_upload_that_nobody_finished_goes(deployment: Deployment) -> None:
    """Untouched for longer than a day; a younger one stays."""
    old, young = (bucket(deployment) / f"01ARZ3NDEKTSV4RRFFQ69G5FA{letter}" for letter in "VW")
    for folder, age_s in ((old, 2 * 86_400), (young, 60)):
        (folder / "chunks").mkdir(parents=True)
        for file in (folder / "index", folder / "chunks" / "000001"):
            file.write_bytes(b"cut sho")
            os.utime(file, (time.time() - age_s,) * 2)
    wait_for("the old one is gone", lambda: not old.exists(), 60)
    assert (young / "index").exists()


def test_the_pages_show_what_there_is(deployment: Deployment) -> None:
    assert TENANT in deployment.get("/compactor/tenants", JSON).json["tenants"]
    assert deployment.get("/compactor/ring", JSON).json["shards"][0]["state"] == "ACTIVE"
    jobs = deployment.get(f"/compactor/tenant/{TENANT}/planned_jobs", JSON).json
    assert jobs["jobs"] == [] and jobs["tenant_merge_shards"] == 2


def test_a_tenant_can_be_deleted(deployment: Deployment) -> None:
    answer = request(deployment.port, "POST", "/compactor/delete_tenant", headers=JSON)
    assert (answer.status, answer.body) == (200, b"")

    def deleted() -> bool:
        return bool(deployment.get("/compactor/delete_tenant_status", JSON).json["blocks_deleted"])

    wait_for("blocks are deleted", deleted, 30)
    assert not (bucket(deployment) / "bucket-index.json.gz").exists()
    assert (bucket(deployment) / "markers" / "tenant-deletion-mark.json").exists()
