"""What the commands print, and how they end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from mimir_ray import __version__
from mimir_ray.cli import kernels, serve, status
from mimir_ray.cli.__main__ import COMMANDS, main
from tests.gateway.serving import serving


def test_without_a_command_the_usage_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["-h"], ["--help"], ["help"]):
        assert main(arguments) == 0
        shown = capsys.readouterr()
        assert shown.err == ""
        assert all(f"  {name} " in shown.out for name in COMMANDS)


def test_an_unknown_command_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dance"]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "unknown command 'dance'" in shown.err


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_module(name: str) -> None:
    import importlib

    assert callable(importlib.import_module(f"mimir_ray.cli.{name}").main)


@pytest.mark.parametrize("arguments", [["-version"], ["--version"], ["serve", "-version"], ["serve", "--version"]])
def test_the_version_is_told(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 0
    assert capsys.readouterr().out == f"mimir-ray, version {__version__}\n"


@pytest.mark.parametrize(("flag", "advanced"), [("-help", False), ("-h", False), ("-help-all", True)])
def test_settings_are_listed(flag: str, advanced: bool, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", flag]) == 0
    shown = capsys.readouterr().out
    assert "-server.http-listen-port" in shown
    assert ("-ingester.ring.heartbeat-period" in shown) == advanced


def test_the_configuration_in_force_is_printed_instead_of_served(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mimir.yaml"
    file.write_text("multitenancy_enabled: true\nserver: {http_listen_port: 9090}\n")
    assert main(["serve", f"-config.file={file}", "-print.config", "--server.path-prefix=/m"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert shown["multitenancy_enabled"] is True
    assert (shown["server"]["http_listen_port"], shown["server"]["http_path_prefix"]) == (9090, "/m")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-server.http-listen-prot=1"], "server.http-listen-prot"),
        (["-config.file=/does/not/exist"], "/does/not/exist"),
        (["-server.http-listen-port=x"], "server.http-listen-port"),
        (["-target=ingester"], "target"),
    ],
)
def test_settings_that_cannot_be_used_end_with_2_and_the_reason(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", *arguments]) == 2
    assert main(["status", *arguments]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("mimir-ray: ") == 2
    assert said in shown.err


@pytest.mark.parametrize(
    ("arguments", "address", "rest"),
    [
        ([], "", []),
        (["-a=1", "--address=10.0.0.1:6379", "-b"], "10.0.0.1:6379", ["-a=1", "-b"]),
        (["--address", "auto", "-b"], "auto", ["-b"]),
        (["-address=auto"], "auto", []),
        (["--address"], "", []),
        (["-server.http-listen-address=::"], "", ["-server.http-listen-address=::"]),
    ],
)
def test_the_address_of_a_ray_is_told_from_settings(arguments: list[str], address: str, rest: list[str]) -> None:
    assert serve.ray_address(arguments) == (address, rest)


# status


def run_file(folder: Path, url: str) -> list[str]:
    (folder / "run.json").write_text(json.dumps({"pid": 42, "url": url, "logs": ""}))
    return [f"-data-dir={folder}"]


def test_status_of_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status.main([f"-data-dir={tmp_path}"]) == 3
    assert capsys.readouterr().out == f"no mimir-ray runs on {tmp_path}\n"


def test_status_shows_services_and_the_ring(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.gateway.test_pages import register

    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    with serving() as gateway:
        gateway.states[:] = [("gateway", "Running", ""), ("ingester/0", "Running", "")]
        register(gateway, "ingester-0")
        arguments = run_file(tmp_path, f"http://127.0.0.1:{gateway.server.port}")
        assert status.main(arguments) == 0
        shown = capsys.readouterr().out
        assert f"http://127.0.0.1:{gateway.server.port}/  pid 42  data {tmp_path}\n" in shown
        assert "  gateway          Running\n" in shown
        assert "  ingester-0       ACTIVE     zone-a     2 tokens, 100.0%\n" in shown
        gateway.states[1] = ("ingester/0", "Starting", "replaying the WAL")
        assert status.main(arguments) == 1
        assert "  ingester/0       Starting   replaying the WAL\n" in capsys.readouterr().out
    assert status.main(arguments) == 3
    assert "(pid 42) does not answer" in capsys.readouterr().out


def test_status_of_something_else_on_that_port(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving() as gateway:
        assert status.main(run_file(tmp_path, f"http://127.0.0.1:{gateway.server.port}/elsewhere")) == 3
    assert "does not answer: HTTP Error 404" in capsys.readouterr().out


def test_status_with_a_damaged_run_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.json").write_text("{")
    assert status.main([f"-data-dir={tmp_path}"]) == 3
    assert "cannot be read" in capsys.readouterr().out


# kernels


def test_kernels_takes_no_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    assert kernels.main(["all"]) == 2
    assert capsys.readouterr().out == "usage: mimir-ray kernels\n"


def test_kernels_shows_how_far_it_is(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def warm_up(progress: Any) -> int:
        for done, name in enumerate(("a.b", "a.c")):
            progress(done, 2, name)
        return 2

    monkeypatch.setattr(kernels, "warm_up", warm_up)
    assert kernels.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["   1/2 a.b", "   2/2 a.c"]
    assert lines[2].startswith("2 kernels ready after ")


def test_scale_needs_an_address_and_settings_that_can_be_used(capsys: pytest.CaptureFixture[str]) -> None:
    from mimir_ray.cli import scale

    assert scale.main(["-deploy.ingesters=3"]) == 2
    assert "expected --address=HOST:PORT" in capsys.readouterr().err
    assert scale.main(["--address=127.0.0.1:1", "-deploy.ingesters=many"]) == 2
    assert "deploy.ingesters" in capsys.readouterr().err
