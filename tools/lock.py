"""Writes requirements.lock and requirements-test.lock: what setup.cfg's ranges resolve to, wheels only.

    python tools/lock.py python3.10 python3.11 python3.12 python3.13

For each interpreter pip resolves the runtime and test requirements together (so that the tests never move a
runtime version), then the runtime ones within that outcome. Where interpreters differ, a line carries a
marker. Nothing is installed; pip's own configuration says from where.
"""

from __future__ import annotations

import configparser
import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEAD = "# Written by tools/lock.py (make lock) from the ranges in setup.cfg; wheels only.\n"
Pins = dict[str, str]


def requirements() -> tuple[list[str], list[str]]:
    """(runtime, test) requirement lines of setup.cfg."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    return (
        config["options"]["install_requires"].split("\n")[1:],
        config["options.extras_require"]["test"].split("\n")[1:],
    )


def resolve(python: str, wanted: list[str], within: Pins | None = None) -> Pins:
    """The versions that `python`'s pip picks: normalised name -> version."""
    with tempfile.TemporaryDirectory() as folder:
        environment, report = Path(folder) / "venv", Path(folder) / "report.json"
        subprocess.run([python, "-m", "venv", environment], check=True)
        pip = [str(environment / "bin" / "python"), "-m", "pip"]
        subprocess.run([*pip, "install", "--quiet", "--upgrade", "pip"], check=True)
        constraints = Path(folder) / "within.txt"
        constraints.write_text("".join(f"{name}=={version}\n" for name, version in (within or {}).items()))
        subprocess.run(
            [*pip, "install", "--quiet", "--dry-run", "--only-binary", ":all:"]
            + ["--report", str(report), "--constraint", str(constraints), *wanted],
            check=True,
        )
        found = json.loads(report.read_text(encoding="utf-8"))["install"]
    return {normal(one["metadata"]["name"]): one["metadata"]["version"] for one in found}


def normal(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


def version_of(python: str) -> str:
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    return subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def merged(by_version: dict[str, Pins]) -> str:
    """One lock file for several interpreters."""
    lines = []
    for name in sorted(set().union(*by_version.values())):
        chosen: dict[str, list[str]] = {}
        for python, pins in by_version.items():
            if name in pins:
                chosen.setdefault(pins[name], []).append(python)
        for version, pythons in sorted(chosen.items()):
            marks = " or ".join(f'python_version == "{python}"' for python in pythons)
            everywhere = len(pythons) == len(by_version)
            lines.append(f"{name}=={version}" + ("" if everywhere else f" ; {marks}"))
    return HEAD + "\n".join(lines) + "\n"


def main(pythons: list[str]) -> None:
    runtime, test = requirements()
    runtime_pins: dict[str, Pins] = {}
    test_pins: dict[str, Pins] = {}
    for python in pythons:
        version = version_of(python)
        sys.stderr.write(f"resolving for Python {version}\n")
        everything = resolve(python, runtime + test)
        runtime_pins[version] = resolve(python, runtime, everything)
        test_pins[version] = {name: pin for name, pin in everything.items() if name not in runtime_pins[version]}
    (ROOT / "requirements.lock").write_text(merged(runtime_pins), encoding="utf-8")
    (ROOT / "requirements-test.lock").write_text(merged(test_pins), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:] or [sys.executable])
