"""The engine passes our PromQL scripts, and upstream's where they are at hand.

What of upstream's does not pass yet is listed in scripts/upstream_failing.txt: a reason, then files with the
lines of their evals. An eval that is not listed must pass, one that is listed must not.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from mimir_ray.cli.promqltest import OPTIONS, main, run_file
from mimir_ray.promql.engine import Engine
from mimir_ray.testing.promql_script_head import HeadStorage
from mimir_ray.testing.promql_script_local import DatabaseStorage
from mimir_ray.testing.promql_script_placed import PlacedStorage
from mimir_ray.testing.promql_script_run import ListStorage, ScriptStorage

HERE = Path(__file__).parent
OURS = sorted((HERE / "scripts").glob("*.test"))
UPSTREAM = sorted((HERE.parents[2] / "shared" / "promqltest").glob("*.test"))
FAILING = HERE / "scripts" / "upstream_failing.txt"


def failing(text: str) -> dict[str, dict[int, str]]:
    """File name -> line of an eval -> reason. Unindented lines are reasons."""
    found: dict[str, dict[int, str]] = {}
    reason = name = ""
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        if not line.startswith(" "):
            reason = line.rstrip(":")
            continue
        head, colon, rest = line.strip().rpartition(":")
        name = head if colon else name
        found.setdefault(name, {}).update(dict.fromkeys(map(int, rest.split()), reason))
    return found


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(OPTIONS)


PLACES = ("list", "head", "local", "local split", "blocks", "split")
"""A plain list; a head; local blocks of an ingester, all or some of it; blocks in a bucket, all or some of it."""
CUTS_MS = (60_000, 600_000, 3_600_000, 6_000_000)


def at_any_time(path: Path, name: str) -> PlacedStorage:
    """A storage that splits at a time drawn for this script, mostly inside of what it loads."""
    rng = random.Random(name)
    cut_ms = rng.choice(CUTS_MS)
    return PlacedStorage(path, rng.randrange(cut_ms), rng.choice([0, 0, cut_ms // 4]), rng.choice([300_000, 3_600_000]))


@pytest.fixture(params=PLACES)
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ScriptStorage]:
    if request.param == "list":
        yield ListStorage()
        return
    made = {
        "head": lambda: HeadStorage(tmp_path),
        "local": lambda: DatabaseStorage(tmp_path),
        "local split": lambda: DatabaseStorage(
            tmp_path, (rng := random.Random(request.node.name)).randrange(rng.choice(CUTS_MS))
        ),
        "blocks": lambda: PlacedStorage(tmp_path, None),
        "split": lambda: at_any_time(tmp_path, request.node.name),
    }
    with closing(made[request.param]()) as placed:
        yield placed


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.stem)
def test_our_scripts_pass(path: Path, storage: ScriptStorage, engine: Engine) -> None:
    outcomes = run_file(path, storage, engine)
    assert outcomes
    assert [f"{outcome.line}: {outcome.query}: {outcome.reason}" for outcome in outcomes if not outcome.passed] == []


@pytest.mark.skipif(not UPSTREAM, reason="upstream's scripts are not beside the repository")
@pytest.mark.parametrize("path", UPSTREAM, ids=lambda path: path.stem)
def test_upstreams_scripts_pass_but_for_what_is_listed(path: Path, storage: ScriptStorage, engine: Engine) -> None:
    listed = failing(FAILING.read_text()).get(path.name, {})
    outcomes = run_file(path, storage, engine)
    wrong = [f"{one.line}: {one.query}: {one.reason}" for one in outcomes if not one.passed and one.line not in listed]
    assert wrong == [], "evals that should pass"
    right = {outcome.line for outcome in outcomes if outcome.passed}
    assert sorted(right & listed.keys()) == [], "evals to take off the list"


def test_the_command_counts_and_says_where_it_failed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = tmp_path / "two.test"
    script.write_text("eval instant at 0 1 + 1\n  2\n\neval instant at 0 1 + 1\n  3\n")
    assert main([str(script)]) == 1
    assert capsys.readouterr().out == f"{script}:4: 1 + 1\n    expected scalar 3.0, got 2.0\n1 passed, 1 failed\n"


def test_a_script_that_is_not_one_fails_and_the_others_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken, fine = tmp_path / "broken.test", tmp_path / "fine.test"
    broken.write_text("what is this")
    fine.write_text("eval instant at 0 1\n  1\n")
    assert main([str(broken), str(fine)]) == 1
    assert capsys.readouterr().out == f"{broken}:1: invalid command 'what is this'\n1 passed, 1 failed\n"
