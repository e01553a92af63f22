"""`mimir-ray serve` and `mimir-ray status` as somebody at a terminal meets them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from mimir_ray.model.labels import labels_of
from tests.integration.deployment import Deployment, wait_for

STOP_TIMEOUT_S = 15.0


def command_line(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mimir_ray.cli", *arguments], check=False, capture_output=True, text=True, timeout=60
    )


@pytest.fixture(scope="module")
def greeted(deployment: Deployment) -> Deployment:
    """Running, and serve knows it: it asks a few times a second."""
    wait_for("serve says so", lambda: "Ctrl-C stops everything" in deployment.output())
    return deployment


def test_it_tells_where_to_push_and_query_once_it_is_ready(greeted: Deployment) -> None:
    deployment, output = greeted, greeted.output()
    assert "mimir-ray is ready." in output
    assert f"{deployment.url}/api/v1/push" in output
    assert f"{deployment.url}/prometheus" in output
    assert str(deployment.data) in output


def test_all_of_it_listens_on_the_loopback_interface_only(deployment: Deployment) -> None:
    inodes = set()
    for pid in deployment.pids():
        for entry in os.scandir(f"/proc/{pid}/fd"):
            try:
                target = os.readlink(entry.path)
            except FileNotFoundError:
                continue  # closed meanwhile
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    listening = []
    for table in ("tcp", "tcp6"):
        with open(f"/proc/net/{table}") as lines:
            for line in list(lines)[1:]:
                fields = line.split()
                if fields[3] == "0A" and fields[9] in inodes:
                    listening.append(fields[1])
    assert any(address.endswith(f":{deployment.port:04X}") for address in listening)
    loopback = ("0100007F:", "0000000000000000FFFF00000100007F:", "00000000000000000000000001000000:")
    assert not [address for address in listening if not address.startswith(loopback)]


def test_status_lists_services_and_the_ring(greeted: Deployment) -> None:
    deployment = greeted
    done = command_line("status", f"-data-dir={deployment.data}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert deployment.url in done.stdout
    for service in ("gateway", "ring", "ingester/0"):
        assert any(service in line and "Running" in line for line in done.stdout.splitlines()), done.stdout
    assert "ACTIVE" in done.stdout


def test_status_of_an_unused_folder_says_that_nothing_runs_there(deployment: Deployment) -> None:
    done = command_line("status", f"-data-dir={deployment.folder / 'elsewhere'}")
    assert done.returncode == 3
    assert "no mimir-ray runs" in done.stdout


def test_a_second_one_on_the_same_data_is_refused(deployment: Deployment, deploy: Callable[..., Deployment]) -> None:
    second = deploy(f"-data-dir={deployment.data}")
    second.start(wait=False)
    assert second.process is not None
    assert second.process.wait(60) == 1
    assert "is in use by another mimir-ray" in second.output()
    assert "Traceback" not in second.output()
    assert deployment.get("/ready").status == 200


def test_a_port_in_use_is_named_before_anything_stays_behind(deploy: Callable[..., Deployment]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        unlucky = deploy(f"-server.http-listen-port={taken.getsockname()[1]}")
        unlucky.start(wait=False)
        assert unlucky.process is not None
        assert unlucky.process.wait(240) == 1
    assert str(taken_port(unlucky)) in unlucky.output()
    assert "in use" in unlucky.output()
    assert "Traceback" not in unlucky.output()
    assert not unlucky.pids()


def taken_port(one: Deployment) -> str:
    return one.flags[0].partition("=")[2]


@pytest.mark.parametrize(
    "flag, words",
    [
        ("-no-such-flag=1", "-no-such-flag"),
        ("-server.http-listen-port=many", "-server.http-listen-port"),
        ("-config.file=/no/such/file.yaml", "/no/such/file.yaml"),
    ],
)
def test_a_wrong_setting_is_named_and_nothing_starts(flag: str, words: str) -> None:
    done = command_line("serve", flag)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("after", ["Ray is up", "starting ingester"])
def test_a_stop_while_it_starts_leaves_nothing_behind(after: str, deploy: Callable[..., Deployment]) -> None:
    hasty = deploy()
    hasty.start(wait=False)
    wait_for(f"it says {after!r}", lambda: after in hasty.output(), timeout_s=120, period_s=0.02)
    hasty.stop(signal.SIGTERM)
    assert not hasty.pids()
    assert "Traceback" not in hasty.output()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["interrupt", "its whole group is told"])
def test_a_stop_ends_all_processes_and_the_data_is_there_again(deployment: Deployment, number: int) -> None:
    now_ms = int(time.time() * 1000)
    up = labels_of({"__name__": f"kept_{int(number)}", "instance": "a"})
    assert deployment.push([(up, [(now_ms - 1000, 1.5), (now_ms, 2.5)])]).status == 200
    before = deployment.pids()
    assert len(before) > 3
    began = time.monotonic()
    assert deployment.stop(number, whole_group=number == signal.SIGTERM) == 0
    took = time.monotonic() - began
    assert not deployment.pids()
    assert took < STOP_TIMEOUT_S
    assert command_line("status", f"-data-dir={deployment.data}").returncode == 3

    deployment.start()
    found = deployment.result("query", query=f"kept_{int(number)}[1h]", time=now_ms / 1000)
    assert found["result"] == [
        {
            "metric": {"__name__": f"kept_{int(number)}", "instance": "a"},
            "values": [[(now_ms - 1000) / 1000, "1.5"], [now_ms / 1000, "2.5"]],
        }
    ]


def test_it_starts_again_at_once_after_its_foreground_process_was_killed(deployment: Deployment) -> None:
    """Ray's processes outlive it for a moment; two ingesters must not write one log."""
    now_ms = int(time.time() * 1000)
    survivor = labels_of({"__name__": "survivor"})
    assert deployment.push([(survivor, [(now_ms, 1.0)])]).status == 200
    before = set(deployment.pids_of("ray::IngesterActor"))
    assert deployment.process is not None
    deployment.process.kill()
    deployment.process.wait(10)
    deployment.start(wait=False)
    wait_for("serve is ready", lambda: "mimir-ray is ready." in deployment.output(), timeout_s=120)
    after = set(deployment.pids_of("ray::IngesterActor"))
    assert len(after) == len(before)
    assert not after & before
    assert deployment.push([(survivor, [(now_ms + 1, 2.0)])]).status == 200
    found = deployment.result("query", query="survivor[1h]", time=now_ms / 1000 + 1)
    assert [value for _, value in found["result"][0]["values"]] == ["1", "2"]


def test_without_the_process_that_forks_ray_starts_workers_itself(deployment: Deployment) -> None:
    (forks,) = deployment.pids_of("mimir_ray.deploy.prepare")
    os.kill(forks, signal.SIGKILL)
    before = set(deployment.pids_of("ray::IngesterActor"))
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    wait_for("another ingester comes", lambda: set(deployment.pids_of("ray::IngesterActor")) - before, timeout_s=120)
    wait_for("it is ready again", lambda: deployment.get("/ready").status == 200, timeout_s=120)
    assert deployment.result("query", query="count_over_time(survivor[1h])")["result"][0]["value"][1] == "2"
    assert deployment.stop() == 0
    assert not deployment.pids()
    deployment.start()


def test_it_says_so_and_ends_when_ray_does(deployment: Deployment) -> None:
    (raylet,) = deployment.pids_of("core/src/ray/raylet/raylet --")
    os.kill(raylet, signal.SIGKILL)
    assert deployment.process is not None
    assert deployment.process.wait(60) == 1
    assert "raylet of Ray has ended" in deployment.output()
    assert "Traceback" not in deployment.output()
    wait_for("all of it ends", lambda: not deployment.pids())
