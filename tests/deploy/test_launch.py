"""Parts of the serve command that need no Ray: progress, reasons, the lock, the environment, the greeting."""

from __future__ import annotations

import io
import json
import os
import socket
import stat
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from mimir_ray.config.server import ServerConfig, TenancyConfig
from mimir_ray.deploy import create, launch
from mimir_ray.deploy.environment import MALLOC, prepare_environment
from mimir_ray.deploy.launch import CannotStart, Progress
from mimir_ray.deploy.settings import RUN_FILE, Settings


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


CLEAR = "\r\x1b[2K"


def test_on_a_terminal_steps_replace_each_other_on_one_line() -> None:
    out = Terminal()
    progress = Progress(out)
    progress.step("one")
    progress.step("two")
    progress.say("done")
    progress.say("next")
    assert out.getvalue() == f"{CLEAR}  one{CLEAR}  two{CLEAR}done\nnext\n"


def test_in_a_pipe_every_step_is_a_line() -> None:
    out = io.StringIO()
    progress = Progress(out)
    progress.step("one")
    progress.step("two")
    progress.say("done")
    progress.say()
    assert out.getvalue() == "  one\n  two\ndone\n\n"


@pytest.mark.parametrize("out", [io.StringIO(), Terminal()])
def test_a_step_that_lasts_is_said_once(out: io.StringIO) -> None:
    progress = Progress(out)
    for _ in range(3):
        progress.step("waiting")
    assert out.getvalue().count("waiting") == 1
    progress.say("on")
    progress.step("waiting")
    assert out.getvalue().count("waiting") == 2


def test_a_reason_is_the_last_line_of_a_remote_traceback() -> None:
    error = RuntimeError(
        "The actor died\n  File x\n\nmimir_ray.CannotListen: cannot listen on 127.0.0.1:80: denied\n\n"
    )
    assert create._reason(error) == "cannot start: mimir_ray.CannotListen: cannot listen on 127.0.0.1:80: denied"
    assert create._reason(RuntimeError("")) == "cannot start: RuntimeError('')"


def test_a_data_directory_is_used_by_one_deployment_at_a_time(tmp_path: Path) -> None:
    with (
        launch._data_lock(tmp_path),
        pytest.raises(CannotStart, match=r"is in use by another mimir-ray; stop that one, or choose another -data-dir"),
        launch._data_lock(tmp_path),
    ):
        pass
    with launch._data_lock(tmp_path):
        pass


def test_the_run_file_tells_where_a_deployment_is_while_it_runs(tmp_path: Path) -> None:
    settings = replace(Settings(), data_dir=str(tmp_path))
    with ExitStack() as stack:
        launch._write_run_file(settings, "http://127.0.0.1:1", "/logs", stack)
        run = json.loads((tmp_path / RUN_FILE).read_text())
        assert run == {"pid": os.getpid(), "url": "http://127.0.0.1:1", "logs": "/logs"}
    assert not (tmp_path / RUN_FILE).exists()


def greeting(settings: Settings) -> str:
    out = io.StringIO()
    launch._greet(settings, "http://127.0.0.1:8080/p", "/logs", Progress(out))
    return out.getvalue()


def test_the_greeting_has_what_can_be_copied(tmp_path: Path) -> None:
    text = greeting(replace(Settings(), data_dir=str(tmp_path)))
    assert "http://127.0.0.1:8080/p/api/v1/push" in text
    assert "curl -s 'http://127.0.0.1:8080/p/prometheus/api/v1/query?query=up'" in text
    assert str(tmp_path) in text
    assert "X-Scope-OrgID" not in text


def test_with_tenants_the_greeting_names_one() -> None:
    text = greeting(replace(Settings(), tenancy=TenancyConfig(multitenancy_enabled=True)))
    assert "curl -s -H 'X-Scope-OrgID: demo'" in text
    assert "httpHeaderName1: X-Scope-OrgID" in text


@pytest.mark.parametrize("tenants", [False, True])
def test_the_data_source_in_the_greeting_is_yaml(tenants: bool) -> None:
    import yaml

    text = greeting(replace(Settings(), tenancy=TenancyConfig(multitenancy_enabled=tenants)))
    lines = text[text.index("    apiVersion") :].splitlines()
    (source,) = yaml.safe_load("\n".join(lines[: lines.index("")]))["datasources"]
    assert (source["type"], source["url"]) == ("prometheus", "http://127.0.0.1:8080/p/prometheus")
    assert source["jsonData"]["prometheusType"] == "Mimir"
    assert ("secureJsonData" in source) == tenants


def test_a_taken_port_is_said_before_anything_starts() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(launch.CannotStart, match=f"cannot listen on 127.0.0.1:{port}.*-server.http-listen-port"):
            launch._check_port(ServerConfig(http_listen_port=port))
    launch._check_port(ServerConfig(http_listen_port=port))


# The environment of Ray.


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put back afterwards."""
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH", "RAY_USAGE_STATS_ENABLED", "RAY_DEDUP_LOGS", *MALLOC):
        monkeypatch.setenv(name, "before")
    monkeypatch.setenv("RAY_prestart_worker_first_driver", "before")


@pytest.mark.usefixtures("environment")
def test_the_token_of_a_deployment_is_its_own_secret_and_stays(tmp_path: Path) -> None:
    token = tmp_path / "deep" / "token"
    prepare_environment(token)
    text = token.read_text()
    assert len(text) == 64
    assert stat.S_IMODE(token.stat().st_mode) & 0o077 == 0
    prepare_environment(token)
    assert token.read_text() == text
    assert (os.environ["RAY_AUTH_MODE"], os.environ["RAY_AUTH_TOKEN_PATH"]) == ("token", str(token))


@pytest.mark.usefixtures("environment")
def test_what_the_operator_set_for_the_allocator_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_ARENA_MAX", "7")
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_")
    prepare_environment(tmp_path / "token")
    assert os.environ["MALLOC_ARENA_MAX"] == "7"
    assert os.environ["MALLOC_TRIM_THRESHOLD_"] == MALLOC["MALLOC_TRIM_THRESHOLD_"]
