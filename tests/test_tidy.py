"""Rules of the house that no linter knows."""

from __future__ import annotations

import ast
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mimir_ray.config.loader import flags_of
from mimir_ray.config.reference import page
from mimir_ray.config.setting import walk
from mimir_ray.deploy import limits_reference
from mimir_ray.deploy.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "mimir_ray"
GENERATED = PACKAGE / "wire" / "pb"
LINES_MAX = 700


def sources(*folders: str) -> Iterator[Path]:
    """Our own Python files below some folders, generated ones left out."""
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if GENERATED not in path.parents and "__pycache__" not in path.parts:
                yield path


def kernels() -> Iterator[tuple[Path, str]]:
    """Every function under a bare `@kernel`, with the file it stands in."""
    for path in sources("mimir_ray"):
        text = path.read_text(encoding="utf-8")
        if "@kernel" not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and any(
                isinstance(one, ast.Name) and one.id == "kernel" for one in node.decorator_list
            ):
                yield path, node.name


# Kernels that tests reach through a table of functions, each of which has a slow twin there.
THROUGH_TABLES = {
    "mimir_ray.promql.kernels.dates": "tests/promql/test_functions.py",
    "mimir_ray.promql.kernels.elementwise": "tests/promql/test_functions.py",
    "mimir_ray.promql.kernels.histogram_classic": "tests/promql/test_functions_histogram.py",
    "mimir_ray.promql.kernels.over_time": "tests/promql/kernels/test_range_kernels.py",
    "mimir_ray.promql.kernels.quantile": "tests/promql/kernels/test_range_kernels.py",
    "mimir_ray.promql.kernels.rate": "tests/promql/kernels/test_range_kernels.py",
    "mimir_ray.promql.kernels.regression": "tests/promql/kernels/test_range_kernels.py",
    "mimir_ray.roles.distributor.request": "tests/roles/distributor/test_distributor.py",
}


def test_every_kernel_is_known_to_a_test() -> None:
    """By name, or through tests of its module: a private kernel is reached by the function that calls it."""
    assert all((ROOT / path).exists() for path in THROUGH_TABLES.values())
    tests = {path: path.read_text(encoding="utf-8") for path in sources("tests")}
    missing = []
    for path, name in kernels():
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        parent, _, last = module.rpartition(".")
        known = re.compile(
            rf"\b{re.escape(name)}\b|from {re.escape(module)} import|import {re.escape(module)}\b"
            rf"|from {re.escape(parent)} import [^\n]*\b{re.escape(last)}\b"
        )
        if module not in THROUGH_TABLES and not any(known.search(text) for text in tests.values()):
            missing.append(f"{module}.{name}")
    assert not missing, "no test imports the module of these kernels or names them"


def test_every_kernel_has_a_benchmark() -> None:
    table = runpy.run_path(str(ROOT / "benchmarks" / "kernels" / "table.py"))["KERNELS"]
    workloads = ast.parse((ROOT / "benchmarks" / "kernels" / "workloads.py").read_text(encoding="utf-8"))
    functions = {node.name for node in workloads.body if isinstance(node, ast.FunctionDef)}
    names = {".".join((*path.relative_to(PACKAGE).with_suffix("").parts, name)) for path, name in kernels()}
    assert names == table.keys()
    assert set(table.values()) <= functions


def test_no_file_is_longer_than_a_reader_likes() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for path in sources("mimir_ray", "tests", "tools")
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > LINES_MAX
    }
    assert not long, f"more than {LINES_MAX} lines; look for a seam"


def test_no_unfinished_work_is_left_in_the_code() -> None:
    marks = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in sources("mimir_ray", "tools")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if marks.search(line)
    ]
    assert not found


def test_no_error_is_swallowed_in_silence() -> None:
    found = []
    for path in sources("mimir_ray", "tools"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            broad = isinstance(node, ast.ExceptHandler) and (
                node.type is None
                or (isinstance(node.type, ast.Name) and node.type.id in ("Exception", "BaseException"))
            )
            if broad and all(isinstance(statement, ast.Pass) for statement in node.body):
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not found


def test_every_module_says_what_it_is_for() -> None:
    missing = [
        str(path.relative_to(ROOT))
        for path in sources("mimir_ray", "tools")
        if (text := path.read_text(encoding="utf-8")).strip() and not ast.get_docstring(ast.parse(text))
    ]
    assert not missing


def test_every_role_says_what_it_owns_and_how_it_fails() -> None:
    roles = [path for path in (PACKAGE / "roles").iterdir() if (path / "__init__.py").exists()]
    assert roles
    assert not [role.name for role in roles if not (role / "README.md").exists()], "README.md of the role"


def test_only_the_system_clock_asks_what_time_it_is() -> None:
    asking = re.compile(r"\btime\.(time|time_ns|monotonic|monotonic_ns|sleep)\(|datetime\.(now|utcnow|today)\(")
    edges = ("deploy", "cli", "testing", "gateway", "telemetry", "cluster")
    found = [
        str(path.relative_to(ROOT))
        for path in sources("mimir_ray")
        if path.name not in ("clock.py", "actor.py")
        and path.relative_to(PACKAGE).parts[0] not in edges
        and asking.search(path.read_text(encoding="utf-8"))
    ]
    assert not found, "time comes as an argument"


def test_imports_respect_the_layers() -> None:
    pytest.importorskip("importlinter")
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    outcome = subprocess.run(
        [sys.executable, "-c", code, "--no-cache"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stdout[-3000:] + outcome.stderr[-1000:]


def test_the_page_of_settings_is_fresh() -> None:
    written = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert written == page(Settings()), "run `make docs`"


def test_the_page_of_limits_is_fresh() -> None:
    written = (ROOT / "docs" / "limits.md").read_text(encoding="utf-8")
    assert written == limits_reference.page(Settings()), "run `make docs`"


def test_flags_are_unique_and_every_setting_says_what_it_means() -> None:
    assert flags_of(Settings())
    assert not [one.name for one in walk(Settings()) if not one.declaration.help]


def test_links_in_the_documents_lead_somewhere() -> None:
    link = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
    documents = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *PACKAGE.rglob("*.md")]
    dead = [
        f"{document.relative_to(ROOT)}: {target}"
        for document in documents
        for target in link.findall(document.read_text(encoding="utf-8"))
        if "://" not in target and not (document.parent / target).exists()
    ]
    assert documents
    assert not dead


def test_the_compatibility_page_uses_known_states() -> None:
    text = (ROOT / "docs" / "compatibility.md").read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in text.splitlines() if re.match(r"\| .* \| `(GET|POST|DELETE)", line)]
    assert len(rows) > 80
    assert {row[3].strip() for row in rows} <= {"works", "partly", "not yet", "not here"}


def test_locked_versions_have_no_addresses_in_them() -> None:
    for name in ("requirements.lock", "requirements-test.lock"):
        for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
            assert line.startswith("#") or re.fullmatch(r"[a-z0-9-]+==[\w.]+( ; python_version .*)?", line), line


def test_the_project_does_not_speak_of_the_machine_it_is_built_on() -> None:
    files = [
        *sources("mimir_ray", "tools"),
        ROOT / "README.md",
        ROOT / "ARCHITECTURE.md",
        *(ROOT / "docs").rglob("*.md"),
    ]
    private = re.compile(r"/wo" + r"rk/|/ro" + r"ot/|\.\./sha" + r"red")
    assert not [str(path.relative_to(ROOT)) for path in files if private.search(path.read_text(encoding="utf-8"))]
