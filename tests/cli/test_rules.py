"""`rules test` and `rules check` against promtool, on files that pass and fail in many ways.

`rules/promtool.yml` says what promtool 3.5.3 printed; where promtool is here, it is asked again.
`python -m tests.cli.test_rules` writes that file anew.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from mimir_ray.cli.rules import main

FOLDER = Path(__file__).parent / "rules"
GOLDEN = FOLDER / "promtool.yml"
ROOT = Path(__file__).parents[2]
FOLDERS = [os.environ.get("MIMIR_RAY_PEERS", ""), str(ROOT / ".peers" / "bin"), str(ROOT.parent / ".peers" / "bin")]
PROMTOOL = shutil.which("promtool", path=os.pathsep.join([*filter(None, FOLDERS), os.environ["PATH"]]))

CASES = [
    *(["test", path.name] for path in sorted(FOLDER.glob("t_*.yml"))),
    ["test", "--diff", "t_diff.yml"],
    ["test", "--run", "zz", "t_diff.yml"],
    ["test", "--run", "^x", "--run", "^d", "t_diff.yml", "t_longint.yml"],
    *(["check", path.name] for path in sorted(FOLDER.glob("c_*.yml"))),
    ["check", "r.yml", "c_dup.yml", "c_noname.yml"],
    ["check", "--lint=none", "c_dup.yml"],
    ["check", "--lint-fatal", "c_dup.yml"],
    ["check", "--ignore-unknown-fields", "c_unknown.yml", "c_types.yml"],
]
_TIMESTAMP = re.compile(r'timestamp="[^"]+"')


def ask_promtool(arguments: list[str]) -> dict[str, Any]:
    assert PROMTOOL is not None
    command = [PROMTOOL, arguments[0], "rules", *arguments[1:]]
    done = subprocess.run(command, check=False, cwd=FOLDER, capture_output=True, text=True, timeout=60)
    return {"arguments": arguments, "status": done.returncode, "out": done.stdout, "err": done.stderr}


@pytest.fixture(autouse=True)
def _in_the_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FOLDER)


@pytest.mark.parametrize("case", yaml.safe_load(GOLDEN.read_text()), ids=lambda case: " ".join(case["arguments"]))
def test_the_report_and_the_status_are_promtools(case: dict[str, Any], capfd: pytest.CaptureFixture[str]) -> None:
    status = main(case["arguments"])
    shown = capfd.readouterr()
    assert shown.err == case["err"]
    assert shown.out == case["out"]
    assert status == case["status"]


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not here")
@pytest.mark.slow
def test_promtool_still_says_what_is_written_down() -> None:
    known = {tuple(case["arguments"]): case for case in yaml.safe_load(GOLDEN.read_text())}
    assert set(known) == {tuple(case) for case in CASES}
    for case in CASES:
        assert ask_promtool(case) == known[tuple(case)]


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not here")
def test_the_junit_file_is_promtools(tmp_path: Path) -> None:
    files = ["t_diff.yml", "t_empty.yml", "t_badser1.yml", "t_syntax.yml"]
    ask_promtool(["test", f"--junit={tmp_path / 'theirs'}", *files])
    main(["test", f"--junit={tmp_path / 'ours'}", *files])
    ours, theirs = (_TIMESTAMP.sub("", (tmp_path / name).read_text()) for name in ("ours", "theirs"))
    assert ours == theirs


def test_a_test_may_begin_at_a_time_of_its_own(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "start.yml"
    path.write_text(
        'tests:\n  - start_timestamp: "2024-01-01T00:00:00Z"\n    input_series: [{series: a, values: "10+10x15"}]\n'
        "    promql_expr_test:\n"
        '      - {expr: "a @ 1704067320", eval_time: 5m, exp_samples: [{labels: a, value: 30}]}\n'
        "      - {expr: timestamp(a), eval_time: 5m, exp_samples: [{value: 1704067500}]}\n"
        "  - start_timestamp: soon\n"
    )
    assert main(["test", str(path)]) == 1
    assert 'cannot parse "soon" to a valid timestamp' in capfd.readouterr().err
    path.write_text(path.read_text().replace("soon", "1609459200.5"))
    assert main(["test", str(path)]) == 0


def test_debug_shows_all_data_on_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    main(["test", "--debug", "t_offset.yml"])
    shown = capfd.readouterr().err
    assert "DEBUG: Starting test unnamed#0\nDEBUG: Dump of all data (input_series and rules) at 3m1s:\n" in shown
    assert '{__name__="x"} =>\n2 @[60000]\n3 @[120000]\n' in shown
    assert "DEBUG: Test unnamed#0 finished, took " in shown


def test_mimirs_own_fields_of_groups_are_known(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rules.yml"
    path.write_text(
        "namespace: n\ngroups:\n- name: g\n  source_tenants: [a, b]\n  align_evaluation_time_on_interval: true\n"
        "  evaluation_delay: 5m\n  rules: [{record: x, expr: up}]\n"
    )
    assert main(["check", str(path)]) == 0
    assert "SUCCESS: 1 rules found" in capfd.readouterr().out


def test_files_that_are_not_there_are_named(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["test", "nope.yml"]) == 1
    assert "path 'nope.yml' does not exist" in capfd.readouterr().err


def test_experimental_functions_need_their_feature(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rules.yml"
    path.write_text("groups: [{name: g, rules: [{record: x, expr: 'mad_over_time(x[5m])'}]}]\n")
    assert main(["check", str(path)]) == 1
    assert "experimental" in capfd.readouterr().err
    assert main(["check", "--enable-feature=promql-experimental-functions", str(path)]) == 0


if __name__ == "__main__":
    GOLDEN.write_text(yaml.safe_dump([ask_promtool(case) for case in CASES], width=100, sort_keys=False))
    sys.exit(0)
