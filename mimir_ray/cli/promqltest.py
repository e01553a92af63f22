"""`promqltest`: runs scripts in Prometheus' PromQL test language against the engine.

    python -m mimir_ray.cli.promqltest SCRIPT...

Samples go into a real head in a temporary folder. The engine runs in this process with the options that upstream's
scripts expect: 5 minutes of lookback, subquery steps of 1 minute, names removed at the end of a query, start timestamps
used.
"""

from __future__ import annotations

import sys
import tempfile
from contextlib import closing
from pathlib import Path

from mimir_ray.model.result import QueryResult
from mimir_ray.promql.engine import Engine, EngineOptions
from mimir_ray.testing.promql_script import ScriptError, parse_script
from mimir_ray.testing.promql_script_head import HeadStorage
from mimir_ray.testing.promql_script_run import Outcome, ScriptStorage, run_script

OPTIONS = EngineOptions(
    lookback_ms=300_000,
    default_step_ms=60_000,
    timeout_s=100.0,
    enable_delayed_name_removal=True,
    use_start_timestamps=True,
    warnings_max=0,
    infos_max=0,
)


def run_file(path: Path, storage: ScriptStorage, engine: Engine) -> list[Outcome]:
    """The outcomes of one script. Raises `ScriptError` where it is not in the language."""

    def evaluate(query: str, start_ms: int, end_ms: int, step_ms: int | None) -> QueryResult:
        if step_ms is None:
            return engine.instant(query, storage.source(), end_ms)
        return engine.range(query, storage.source(), start_ms, end_ms, step_ms)

    return run_script(parse_script(path.read_text(), str(path)), storage, evaluate, str(path))


def main(paths: list[str]) -> int:
    """Runs scripts, prints what failed with file:line, and ends with the count. 0 if all passed."""
    if not paths or paths[0].startswith("-"):
        print("usage: mimir-ray promqltest FILE ...")
        return 2
    if missing := [path for path in paths if not Path(path).is_file()]:
        print(f"mimir-ray: no such file: {', '.join(missing)}")
        return 2
    passed = failed = 0
    engine = Engine(OPTIONS)
    for path in paths:
        try:
            with tempfile.TemporaryDirectory() as folder, closing(HeadStorage(Path(folder))) as storage:
                outcomes = run_file(Path(path), storage, engine)
        except ScriptError as error:
            print(error)
            failed += 1
            continue
        for outcome in outcomes:
            if outcome.passed:
                passed += 1
            else:
                failed += 1
                print(f"{outcome.file}:{outcome.line}: {outcome.query}\n    {outcome.reason}")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
