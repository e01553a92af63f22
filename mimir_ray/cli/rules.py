"""`mimir-ray rules test FILE...` and `rules check [FILE...]`: promtool's, with the same reports and exit codes.

    mimir-ray rules test [--run REGEX] [--diff] [--debug] [--junit FILE] [--ignore-unknown-fields] FILE ...
    mimir-ray rules check [--lint all|duplicate-rules|none] [--lint-fatal] [--ignore-unknown-fields] [FILE ...]

Upstream: cmd/promtool/main.go CheckRules, unittest.go RulesUnitTest.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import re2

from mimir_ray.errors import InvalidArgument
from mimir_ray.gotemplate.times import format_duration
from mimir_ray.model.rules import RuleFileError, parse_rule_file
from mimir_ray.promql.syntax.cursor import ParserOptions
from mimir_ray.promql.syntax.parser import parse
from mimir_ray.roles.ruler.validation import check_groups, duplicates
from mimir_ray.testing.rule_test_file import read_test_file
from mimir_ray.testing.rule_test_report import JunitSuite, junit_xml
from mimir_ray.testing.rule_test_run import TestOptions, run_test_group

FAILED, LINT_FAILED = 1, 3
"""Exit codes. Upstream: failureExitCode, lintErrExitCode."""

_FEATURES = ("promql-experimental-functions", "promql-delayed-name-removal")
_LINTS = ("all", "duplicate-rules", "none")


def main(arguments: Sequence[str]) -> int:
    """Runs one of the two; returns the exit status."""
    options = _arguments().parse_args(list(arguments))
    if missing := [path for path in options.files if not os.path.exists(path)]:
        _complain(f"mimir-ray: error: path '{missing[0]}' does not exist, try --help")
        return FAILED
    return int(options.run_command(options))


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mimir-ray rules", description="Test and check files of rules.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    test = commands.add_parser("test", help="run unit tests of rules, in promtool's format")
    test.add_argument("files", nargs="+", metavar="FILE")
    test.add_argument("--run", action="append", metavar="REGEX", help="only test groups whose names match")
    test.add_argument("--junit", metavar="FILE", help="write results as JUnit XML too")
    test.add_argument("--diff", action="store_true", help="show alerts that differ as a coloured difference")
    test.add_argument("--debug", action="store_true", help="show how long each test took, and all of its data")
    test.set_defaults(run_command=_test)
    check = commands.add_parser("check", help="check files of rules, or standard input")
    check.add_argument("files", nargs="*", metavar="FILE")
    check.add_argument("--lint", default="duplicate-rules", help=f"one or more of {', '.join(_LINTS)}")
    check.add_argument("--lint-fatal", action="store_true", help="findings of the lint fail with exit code 3")
    check.set_defaults(run_command=_check)
    for command in (test, check):
        command.add_argument("--ignore-unknown-fields", action="store_true", help="in files of rules")
        command.add_argument("--enable-feature", action="append", default=[], help=f"of {', '.join(_FEATURES)}")
    return parser


def _complain(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _say(text: str = "") -> None:
    print(text, flush=True)


def _features(given: Sequence[str]) -> set[str]:
    return {feature for each in given for feature in each.split(",")}


def _parser_options(features: set[str]) -> ParserOptions:
    return ParserOptions(
        experimental_functions="promql-experimental-functions" in features,
        duration_expressions=False,
        extended_range_selectors=False,
        binop_fill_modifiers=False,
    )


def _test(given: argparse.Namespace) -> int:
    features = _features(given.enable_feature)
    options = TestOptions(
        diff=given.diff,
        ignore_unknown_fields=given.ignore_unknown_fields,
        parser=_parser_options(features),
        delayed_name_removal="promql-delayed-name-removal" in features,
    )
    try:
        wanted = re2.compile("|".join(given.run)) if given.run else None
    except re2.error as error:
        _complain(f"mimir-ray rules test: --run: {error}")
        return FAILED
    suites = []
    failed = False
    for path in given.files:
        suite = JunitSuite(path)
        suites.append(suite)
        errors = _test_file(path, suite, wanted, options, given.debug)
        if errors:
            failed = True
            _complain("  FAILED:")
            for error in errors:
                _complain(error)
                _say()
        else:
            _say("  SUCCESS")
        _say()
    if given.junit:
        try:
            Path(given.junit).write_text(junit_xml(suites), encoding="utf-8", errors="replace")
        except OSError as error:
            _complain(f"failed to write JUnit XML: {error}")
    return FAILED if failed else 0


def _test_file(path: str, suite: JunitSuite, wanted: object, options: TestOptions, debug: bool) -> list[str]:
    try:
        file = read_test_file(path, lambda text: _complain(f"  WARNING: {text}"))
    except OSError as error:
        reason = f"open {path}: {(error.strerror or str(error)).lower()}"
        suite.abort(reason)
        return [reason]
    except InvalidArgument as error:
        suite.abort(error.describe())
        return [error.describe()]
    suite.timestamp = datetime.now().isoformat(timespec="seconds")
    errors: list[str] = []
    for number, group in enumerate(file.groups):
        if wanted is not None and not wanted.search(group.name):  # type: ignore[attr-defined]
            continue
        name = group.name or f"unnamed#{number}"
        case = suite.case(name)
        started_s = time.perf_counter()
        if debug:
            _complain(f"DEBUG: Starting test {name}")
        found, dump = run_test_group(file, group, options)
        case.failures += found
        errors += found
        if debug:
            for line in dump:
                _complain(line)
            took = format_duration(int((time.perf_counter() - started_s) * 1e9))
            _complain(f"DEBUG: Test {name} finished, took {took}")
    return errors


def _check(given: argparse.Namespace) -> int:
    lints = set(given.lint.split(","))
    if unknown := lints - set(_LINTS):
        _complain(f"mimir-ray rules check: --lint: unknown {', '.join(sorted(unknown))}")
        return FAILED
    lint = "none" not in lints
    failed = broken = False
    for path in given.files or ["-"]:
        _say(f"Checking {path}" if given.files else "Checking standard input")
        options = _parser_options(_features(given.enable_feature))
        prefix = f"{path}: " if given.files else ""
        try:
            text = _read(path) if given.files else sys.stdin.read()
            groups = parse_rule_file(text, strict=not given.ignore_unknown_fields)
            problems = check_groups(groups, lambda expr, options=options: parse(expr, options))
        except OSError as error:
            problems = [f"open {path}: {(error.strerror or '').lower()}"]
        except RuleFileError as error:
            problems = list(error.problems)
        if problems:
            failed = broken = True
            _complain("  FAILED:")
            for problem in problems:
                _complain(prefix + problem)
            continue
        if lint and (found := duplicates(groups)):
            failed = True
            _complain("  FAILED:")
            _complain(_lint_report(found))
        else:
            _say(f"  SUCCESS: {sum(len(group.rules) for group in groups)} rules found")
        _say()
    if broken:
        return FAILED
    return LINT_FAILED if failed and given.lint_fatal else 0


def _read(path: str) -> str:
    """Bytes that are no UTF-8 are left to the YAML reader to refuse."""
    return Path(path).read_text(encoding="utf-8", errors="surrogateescape")


def _lint_report(found: Sequence[tuple[str, Sequence[tuple[str, str]]]]) -> str:
    lines = [f"lint error {len(found)} duplicate rule(s) found."]
    for name, labels in found:
        lines += [f"Metric: {name}", "Label(s):"]
        lines += [f"\t{label}: {value}" for label, value in labels]
    return "\n".join([*lines, "Might cause inconsistency while recording expressions"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
