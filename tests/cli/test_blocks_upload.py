"""The command that uploads blocks, against a gateway on a socket."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import orjson
import pytest

from mimir_ray.bucket.filesystem import FilesystemBucket
from mimir_ray.cli import blocks_upload
from mimir_ray.cli.blocks_upload import Progress, block_files, find_blocks, main
from mimir_ray.config.limits import Limits
from mimir_ray.errors import InvalidArgument
from mimir_ray.model.labels import labels_of
from mimir_ray.testing.blocks import content, make_block
from mimir_ray.tsdb.block.reader import Block
from mimir_ray.tsdb.block.tombstones import TOMBSTONES_FILE, Tombstones, tombstones_bytes
from tests.gateway.serving import NOW_MS, Gateway, serving, settings_with

ULIDS = [f"01ARZ3NDEKTSV4RRFFQ69G5FA{letter}" for letter in "VW"]


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    settings = settings_with(True, data_dir=str(tmp_path / "data"), limits=Limits(compactor_block_upload_enabled=True))
    with serving(settings) as one:
        yield one


@pytest.fixture
def blocks(tmp_path: Path) -> Path:
    """A folder of two blocks as Prometheus writes them: without a list of files."""
    for number, ulid in enumerate(ULIDS):
        series = [(labels_of({"__name__": "up", "b": str(number)}), [(NOW_MS - 10**8 + at, 1.0) for at in range(50)])]
        make_block(tmp_path / "prometheus", series, ulid)
        path = tmp_path / "prometheus" / ulid / "meta.json"
        body = orjson.loads(path.read_bytes())
        del body["thanos"]
        path.write_bytes(orjson.dumps(body))
    (tmp_path / "prometheus" / "wal").mkdir()
    return tmp_path / "prometheus"


def run(gateway: Gateway, *arguments: object, tenant: str = "team-a") -> int:
    address = f"--address=http://127.0.0.1:{gateway.server.port}/"
    return main([*map(str, arguments), address, f"--tenant={tenant}"], lambda seconds: None)


def told(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """A line a block; the gateway of this process logs there, too."""
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith(tuple(ULIDS))]


def test_a_folder_of_blocks_is_uploaded_once(
    gateway: Gateway, blocks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(gateway, blocks) == 0
    lines = told(capsys)
    assert [re.sub(r"\d+ bytes", "N bytes", line) for line in lines] == [
        f"{ULIDS[0]}  1/2  uploaded, N bytes", f"{ULIDS[1]}  2/2  uploaded, N bytes",
    ]  # fmt: skip
    for ulid in ULIDS:
        assert content(Block(tmp_path / "data" / "blocks" / "team-a" / ulid)) == content(Block(blocks / ulid))
    assert run(gateway, blocks / ULIDS[1], blocks) == 0
    assert capsys.readouterr().out.count("was there already") == 2


def test_an_upload_that_broke_off_goes_on_with_what_is_missing(
    gateway: Gateway, blocks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []
    send_file = blocks_upload.Server.send_file

    def recorded(self: blocks_upload.Server, path: str, source: Path, progress: Progress) -> None:
        if source.name == "000001" and not sent.count("stop"):
            sent.append("stop")
            raise KeyboardInterrupt
        sent.append(source.name)
        send_file(self, path, source, progress)

    monkeypatch.setattr(blocks_upload.Server, "send_file", recorded)
    with pytest.raises(KeyboardInterrupt):
        run(gateway, blocks / ULIDS[0])
    assert run(gateway, blocks / ULIDS[0]) == 0
    assert sent == ["index", "stop", "000001"]


def test_a_broken_block_is_told_and_the_others_are_uploaded(
    gateway: Gateway, blocks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = blocks / ULIDS[0] / "chunks" / "000001"
    data = bytearray(path.read_bytes())
    data[12] ^= 0xFF
    path.write_bytes(bytes(data))
    assert run(gateway, blocks) == 1
    first, second = told(capsys)
    assert "failed: error validating block: chunks/000001" in first and "uploaded" in second
    assert run(gateway, blocks / ULIDS[0]) == 1
    assert "found it broken before" in capsys.readouterr().out


def test_a_refusal_is_told(gateway: Gateway, blocks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(gateway, blocks / ULIDS[0], tenant="a/b") == 1
    assert "failed: invalid tenant ID (status 400)" in capsys.readouterr().out


def test_a_server_that_is_not_there_is_told(blocks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pauses: list[float] = []
    assert main([str(blocks), "--address=http://127.0.0.1:9"], pauses.append) == 3
    assert pauses == [1.0, 2.0, 4.0]
    assert "does not answer" in capsys.readouterr().err


def test_a_server_that_is_busy_is_waited_for(gateway: Gateway, blocks: Path) -> None:
    held: list[object] = []
    uploads = gateway.services.compaction.uploads
    uploads._start_thread = held.append
    assert run(gateway, blocks / ULIDS[0], "--no-wait") == 0

    def release(_seconds: float) -> None:
        uploads._start_thread = lambda work: work()
        held.pop()()  # type: ignore[operator]

    address = f"--address=http://127.0.0.1:{gateway.server.port}"
    assert main([str(blocks / ULIDS[1]), address, "--id=team-a"], release) == 0
    bucket = FilesystemBucket(Path(gateway.services.settings.data_dir) / "blocks")
    assert all(bucket.exists(f"team-a/{ulid}/meta.json") for ulid in ULIDS)


def test_what_cannot_be_understood(tmp_path: Path, blocks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), "--address=http://here"]) == 2
    assert main([str(tmp_path / "nowhere"), "--address=http://here"]) == 2
    assert main([str(blocks), "--address=here:80"]) == 2
    assert "expected a URL like http://localhost:8080" in capsys.readouterr().err


def test_deleted_samples_would_be_back(blocks: Path) -> None:
    one = np.array([1])
    (blocks / ULIDS[0] / TOMBSTONES_FILE).write_bytes(tombstones_bytes(Tombstones(one, one, one)))
    with pytest.raises(InvalidArgument, match="clean its tombstones first"):
        block_files(blocks / ULIDS[0])
    assert [path.name for path in find_blocks([blocks, blocks / ULIDS[0]])] == ULIDS


def test_what_a_failed_attempt_sent_does_not_count() -> None:
    shown: list[tuple[int, int]] = []
    progress = Progress(lambda done, total: shown.append((done, total)), 40)  # type: ignore[arg-type]
    progress.sent(10)
    with pytest.raises(OSError), progress:
        progress.sent(10)
        raise OSError
    with progress:
        progress.sent(30)
    assert shown == [(10, 40), (20, 40), (40, 40)]
