from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from mimir_ray.bucket.markers import read_deletion_mark, read_no_compact_mark
from mimir_ray.bucket.open import BucketSettings, open_bucket
from mimir_ray.bucket.store import Bucket
from mimir_ray.cli import blocks
from mimir_ray.cli.progress import Bar
from mimir_ray.model.labels import labels_of
from mimir_ray.model.tenant import TenantId
from mimir_ray.testing.blocks import make_block
from mimir_ray.tsdb.block.meta import Compaction
from tests.s3_server import S3Server

TENANT = TenantId("team-a")
ONE, TWO, PARTIAL = (f"01ARZ3NDEKTSV4RRFFQ69G5FA{letter}" for letter in "ABC")
START = 1_700_000_000_000


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory whose bucket has two blocks of a tenant, and a part of a third."""
    bucket = open_bucket(BucketSettings(tmp_path / "data" / "blocks"), "test", CollectorRegistry())
    fill(bucket, tmp_path / "made")
    return tmp_path / "data"


def fill(bucket: Bucket, folder: Path) -> None:
    for number, ulid in enumerate((ONE, TWO)):
        points = [(START + number * 7_200_000 + step * 15_000, float(step)) for step in range(300)]
        series = [(labels_of({"__name__": "up", "i": str(i)}), points) for i in range(5)]
        shard = {"__compactor_shard_id__": "1_of_2"} if number else {}
        compaction = Compaction(1 + number, [ulid])
        source = ("receive", "compactor")[number]
        make_block(folder, series, ulid, compaction=compaction, source=source, thanos_labels=shard)
        for path in (folder / ulid).rglob("*"):
            if path.is_file():
                bucket.upload(path, f"{TENANT}/{ulid}/{path.relative_to(folder / ulid).as_posix()}")
    bucket.put(f"{TENANT}/{PARTIAL}/index", b"half")


def run(data: Path, *arguments: str) -> int:
    return blocks.main([arguments[0], f"-data-dir={data}", "--tenant=team-a", *arguments[1:]])


def bucket_of(data: Path) -> Bucket:
    return open_bucket(BucketSettings(data / "blocks"), "test", CollectorRegistry())


def test_list_shows_what_there_is(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(data, "mark", "--no-compact", TWO) == 0
    capsys.readouterr()
    assert run(data, "list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[::5] == ["BLOCK", "SERIES", "MARKS"]
    assert lines[1].split()[0] == PARTIAL and lines[1].endswith("partial: no meta.json")
    assert lines[2].split()[:6] == [ONE, "2023-11-14", "22:13:20Z", "2023-11-14", "23:28:05Z", "1h14m45s1ms"]
    assert lines[2].split()[6:10] == ["1,500", "5", "1", "receive"]
    assert lines[3].split()[6:11] == ["1,500", "5", "2", "1_of_2", "compactor"]
    assert lines[3].endswith("no-compact")
    assert lines[4].startswith("3 blocks of team-a, ")


def test_list_as_json_has_numbers(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(data, "list", "--json") == 0
    rows = {row["ulid"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows[PARTIAL] == {"ulid": PARTIAL, "marks": [], "problem": "partial: no meta.json"}
    row = rows[TWO]
    assert (row["samples"], row["series"], row["level"], row["shard"]) == (1500, 5, 2, "1_of_2")
    assert row["size_bytes"] > 1000


def test_another_tenant_has_no_blocks(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert blocks.main(["list", f"-data-dir={data}"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "0 blocks of anonymous, 0 B"


def test_with_several_tenants_one_has_to_be_named(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert blocks.main(["list", f"-data-dir={data}", "-auth.multitenancy-enabled"]) == 2
    assert f"say whose blocks: --tenant=ID (in the bucket: {TENANT})" in capsys.readouterr().err
    assert run(data, "list", "-auth.multitenancy-enabled") == 0


def test_verify_finds_the_damaged_one_in_the_bucket(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(data, "verify", ONE, TWO) == 0
    assert capsys.readouterr().out.splitlines() == [f"{ONE}: ok", f"{TWO}: ok", "2 blocks verified, 0 damaged"]
    path = data / "blocks" / TENANT / TWO / "chunks" / "000001"
    content = bytearray(path.read_bytes())
    content[40] ^= 1
    path.write_bytes(content)
    assert run(data, "verify") == 1
    out = capsys.readouterr().out
    assert f"{ONE}: ok" in out
    assert f"{TWO}: DAMAGED: " in out and "checksum mismatch" in out
    assert "2 blocks verified, 1 damaged, 1 without a meta.json left out" in out
    assert run(data, "verify", "--no-chunks", TWO) == 0


def test_verify_calls_nothing_damaged_that_is_still_being_uploaded(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(data, "verify") == 0
    out = capsys.readouterr().out
    assert f"{PARTIAL}: upload under way (no meta.json, last written " in out
    assert "2 blocks verified, 0 damaged, 1 without a meta.json left out" in out
    os.utime(data / "blocks" / TENANT / PARTIAL / "index", (START / 1000, START / 1000))
    assert run(data, "verify", PARTIAL) == 0
    assert f"{PARTIAL}: partial: an upload that was not finished (no meta.json, " in capsys.readouterr().out


def test_verify_says_so_where_a_block_that_is_named_is_not_there(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = ONE[:-1] + "Z"
    assert run(data, "verify", missing) == 1
    assert f"{missing}: DAMAGED: there is no object" in capsys.readouterr().out


def test_verify_looks_at_folders_too(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(data, "verify", str(tmp_path / "made"), str(tmp_path / "made" / ONE)) == 0
    assert "3 blocks verified, 0 damaged" in capsys.readouterr().out
    (tmp_path / "made" / ONE / "index").unlink()
    assert run(data, "verify", str(tmp_path / "made" / ONE)) == 1
    assert "index is damaged at byte 0: there is no such file" in capsys.readouterr().out


def test_download_goes_on_where_it_stopped(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "fetched"
    assert run(data, "mark", "--deletion", ONE) == 0
    assert run(data, "download", f"--to={target}", ONE) == 0
    original = tmp_path / "made" / ONE
    files = sorted(path.relative_to(original) for path in original.rglob("*") if path.is_file())
    assert sorted(path.relative_to(target / ONE) for path in (target / ONE).rglob("*") if path.is_file()) == files
    for name in files:
        assert (target / ONE / name).read_bytes() == (original / name).read_bytes()
    kept = (target / ONE / "chunks" / "000001").stat().st_mtime_ns
    (target / ONE / "meta.json").unlink()
    (target / ONE / "index").write_bytes(b"half")
    assert run(data, "download", "--to", str(target), ONE) == 0
    assert (target / ONE / "index").read_bytes() == (original / "index").read_bytes()
    assert (target / ONE / "meta.json").exists()
    assert (target / ONE / "chunks" / "000001").stat().st_mtime_ns == kept
    assert "fetched" in capsys.readouterr().out


def test_marks_are_made_and_taken_back(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bucket = bucket_of(data)
    assert run(data, "mark", "--no-compact", "--reason=critical", "--details=looks odd", ONE, TWO) == 0
    for ulid in (ONE, TWO):
        mark = read_no_compact_mark(bucket, TENANT, ulid)
        assert mark is not None and (mark.reason, mark.details) == ("critical", "looks odd")
    assert run(data, "mark", "--deletion", "--details", "no more needed", ONE) == 0
    deletion = read_deletion_mark(bucket, TENANT, ONE)
    assert deletion is not None and deletion.details == "no more needed"
    assert run(data, "mark", "--remove", "--no-compact", ONE) == 0
    assert read_no_compact_mark(bucket, TENANT, ONE) is None
    assert read_deletion_mark(bucket, TENANT, ONE) == deletion


def test_a_block_that_is_not_there_gets_no_mark(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(data, "mark", "--deletion", ONE, PARTIAL) == 1
    assert "there is no object" in capsys.readouterr().err
    assert read_deletion_mark(bucket_of(data), TENANT, ONE) is None


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["mark", ONE], "one of --deletion and --no-compact"),
        (["mark", "--deletion", "--no-compact", ONE], "one of --deletion and --no-compact"),
        (["mark", "--no-compact", "--reason=because", ONE], "--reason goes with --no-compact and is one of manual"),
        (["mark", "--deletion", "--reason=manual", ONE], "--reason goes with --no-compact"),
        (["mark", "--deletion"], "Its ULID is needed"),
        (["mark", "--deletion", "nonsense"], "'nonsense' is no block's ULID"),
        (["download", ONE], "--to=FOLDER is needed"),
        (["download", "--to"], "--to needs a value"),
        (["verify", "nowhere"], "neither a block's ULID nor a folder"),
        (["list", "something"], "unexpected argument 'something'"),
        (["list", "--nonsense"], "unknown flag"),
        (["list", "--deletion"], "unknown flag"),
    ],
)
def test_what_cannot_be_understood_is_said(
    data: Path, arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(data, *arguments) == 2
    assert text in capsys.readouterr().err


def test_a_tenant_that_leads_elsewhere_is_refused(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert blocks.main(["list", f"-data-dir={data}", "--tenant=../x"]) == 2
    assert "unsupported character" in capsys.readouterr().err


def test_settings_come_from_the_configuration_file_as_serve_reads_it(
    s3_server: S3Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = s3_server.new_bucket()
    path = tmp_path / "mimir.yaml"
    path.write_text(
        "common:\n  storage:\n    backend: s3\n    s3:\n"
        f"      endpoint: {config.endpoint}\n      access_key_id: testing\n      secret_access_key: testing\n"
        f"      insecure: true\nblocks_storage:\n  s3:\n    bucket_name: {config.bucket_name}\n"
    )
    from mimir_ray.config import loader
    from mimir_ray.deploy.settings import Settings

    settings = loader.load(Settings(), ["-config.file", str(path)]).settings
    fill(open_bucket(settings.blocks_bucket, "test", CollectorRegistry()), tmp_path / "made")
    assert blocks.main(["verify", "-config.file", str(path), "--tenant", "team-a", ONE, TWO]) == 0
    assert "2 blocks verified, 0 damaged" in capsys.readouterr().out
    target = tmp_path / "fetched"
    assert blocks.main(["download", "-config.file", str(path), "--tenant=team-a", f"--to={target}", TWO]) == 0
    assert (target / TWO / "index").read_bytes() == (tmp_path / "made" / TWO / "index").read_bytes()


def test_a_bar_is_drawn_on_terminals_only() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for out, shown in ((Terminal(), True), (io.StringIO(), False)):
        bar = Bar("x", out)
        for done in range(5001):
            bar(done, 5000)
        bar.close()
        assert ("x " in out.getvalue()) is shown
        assert out.getvalue().count("\r") == (1002 if shown else 0)


def test_help_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert blocks.main(["--help"]) == 0
    assert "mimir-ray blocks verify" in capsys.readouterr().out
    assert blocks.main([]) == 2
