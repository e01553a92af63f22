"""A YAML file and a command line become one root settings object. Flags win over the file.

The file is Mimir's (`-config.file`, comma list merged left to right; `-config.expand-env` replaces
`${VAR}` and `${VAR:default}` before it is parsed). Unknown keys and flags are errors that name their path;
what only Mimir's Go process needs is passed over with a warning (upstream.py).
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import yaml

from mimir_ray.config import flags as flag_syntax
from mimir_ray.config import tree, upstream
from mimir_ray.config.setting import Setting, walk
from mimir_ray.config.tree import ConfigError, Problem

Settings = TypeVar("Settings")

CONTROL_FLAGS: dict[str, type] = {
    "config.file": str,
    "config.expand-env": bool,
    "help": bool,
    "h": bool,
    "help-all": bool,
    "modules": bool,
    "version": bool,
    "print.config": bool,
}
"""Flags that are no settings: where settings come from, and what to print instead of starting."""

_VARIABLE = re.compile(r"\$\{([^}:]+)(?::([^}]*))?\}")


@dataclass(frozen=True, slots=True)
class Loaded(Generic[Settings]):
    """The settings, what the operator should know, and which of `-help`, `-version`, ... were asked for."""

    settings: Settings
    warnings: tuple[str, ...] = ()
    requests: frozenset[str] = frozenset()


def read_text(path: str) -> str:
    """The text of a file; one whose name ends in .gz is unpacked."""
    data = Path(path).read_bytes()
    return (gzip.decompress(data) if path.endswith(".gz") else data).decode("utf-8")


def load(
    default: Settings,
    arguments: Sequence[str],
    environment: Mapping[str, str] | None = None,
    read: Callable[[str], str] = read_text,
) -> Loaded[Settings]:
    """Settings from a command line and the files that it names.

    Args:
        default: an instance of the root class; what nobody sets stays as it is there.
        arguments: the command line without the program's name.
        environment: for `${VAR}`.
        read: path -> text of a file.

    Raises ConfigError with every problem found.
    """
    by_flag = flags_of(default)
    warnings: list[str] = []

    def passed_over(kind: str, name: str) -> bool:
        reason = upstream.only_for_go(name)
        if reason:
            warnings.append(f"{kind} {name} has no effect: {reason}")
        return bool(reason)

    kinds: dict[str, Any] = {name: one.kind for name, one in by_flag.items()} | CONTROL_FLAGS
    given, problems = flag_syntax.parse(arguments, kinds, lambda name: passed_over("flag", f"-{name}"))
    control = {name: text for name, text in given if name in CONTROL_FLAGS}
    overrides, bad = flag_syntax.resolve(((name, text) for name, text in given if name not in control), by_flag)
    problems += bad
    for name, kind in CONTROL_FLAGS.items():
        if kind is bool and control.get(name, "false") not in ("true", "false"):
            problems.append((f"-{name}", f"expected boolean, got {control[name]!r}"))
    if problems:
        raise ConfigError(tuple(problems), "command line")
    on = frozenset(name for name, text in control.items() if text == "true" and CONTROL_FLAGS[name] is bool)

    document: Any = {}
    path = control.get("config.file", "")
    for one in filter(None, path.split(",")):
        text = read_config(one, read)
        if "config.expand-env" in on:
            text = expand(text, environment or {})
        document = merge(document, parse_yaml(text, one))
    inherited: Mapping[str, Sequence[str]] = getattr(default, "inherited", {})
    document = with_inherited(document, inherited)
    overrides = with_inherited_flags(overrides, inherited, by_flag)
    settings, problems = tree.read(default, document, tolerated=lambda name, _: passed_over("setting", name))
    for name, value in overrides.items():
        settings = tree.put(settings, by_flag[name].attributes, value)
    problems += tree.check(settings)
    if problems:
        raise ConfigError(tuple(problems), path)
    return Loaded(settings, tuple(warnings), on - {"config.expand-env"})


def flags_of(default: Any) -> dict[str, Setting]:
    """Every setting that has a flag, by its flag. Two settings with one flag are our bug."""
    found: dict[str, Setting] = {}
    for one in walk(default):
        if one.flag:
            assert one.flag not in found, f"-{one.flag} is declared by {one.name} and {found[one.flag].name}"
            assert one.flag not in CONTROL_FLAGS, f"-{one.flag} of {one.name} has another meaning"
            found[one.flag] = one
    return found


def expand(text: str, environment: Mapping[str, str]) -> str:
    """Replaces `${VAR}` and `${VAR:default}`; an unset or empty variable gives its default, or nothing.

    Differs: `$VAR` without braces stays, so that `$1` in relabelling rules needs no escape.
    """
    return _VARIABLE.sub(lambda match: environment.get(match.group(1)) or match.group(2) or "", text)


def merge(below: Any, above: Any) -> Any:
    """Two YAML documents as one: maps key by key, anything else from `above`."""
    if isinstance(below, dict) and isinstance(above, dict):
        merged = dict(below)
        for key, value in above.items():
            merged[key] = merge(below[key], value) if key in below else value
        return merged
    return below if above is None else above


def with_inherited(document: Any, inherited: Mapping[str, Sequence[str]]) -> Any:
    """The document where what stands in a common block stands in the blocks that inherit from it, beneath their own.

    `inherited`: YAML path of a common block → names of blocks at the root.
    """
    for source, heirs in inherited.items():
        common = document
        for name in source.split("."):
            common = common.get(name) if isinstance(common, dict) else None
        if isinstance(common, dict) and isinstance(document, dict):
            document = document | {heir: merge(common, document.get(heir)) for heir in heirs}
    return document


def with_inherited_flags(
    overrides: Mapping[str, Any], inherited: Mapping[str, Sequence[str]], by_flag: Mapping[str, Setting]
) -> dict[str, Any]:
    """The same for values by flag: a common one counts for the heirs, before what their own flag says.

    Upstream: pkg/mimir/mimir.go InheritCommonFlagValues.
    """
    found: dict[str, Any] = {}
    for name, value in overrides.items():
        for source, heirs in inherited.items():
            prefix = source.replace("_", "-") + "."
            for heir in heirs if name.startswith(prefix) else ():
                own = heir.replace("_", "-") + "." + name.removeprefix(prefix)
                if own in by_flag:
                    found[own] = value
    return found | dict(overrides)


class _StrictLoader(yaml.SafeLoader):
    """YAML without duplicate keys, which PyYAML would let pass in silence."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key that is no text", key.start_mark)
            if key.value in seen and key.tag != "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(None, None, f"key {key.value!r} is set twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def parse_yaml(text: str, source: str = "") -> Any:
    """The document in `text`; ConfigError with line and column if it is none."""
    try:
        document = yaml.load(text, Loader=_StrictLoader) or {}  # noqa: S506  (a SafeLoader)
        if _contains_itself(document):
            raise ValueError("an anchor contains an alias of itself")
        return document
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # also what its scalars cannot be
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        problem: Problem = ("", f"not valid YAML: {where}{getattr(error, 'problem', None) or error}")
        raise ConfigError((problem,), source) from error


def _contains_itself(document: Any) -> bool:
    """Whether a list or map is inside itself; what stands in several places is looked at once."""
    done: set[int] = set()
    above: set[int] = set()
    waiting = [(document, False)]
    while waiting:
        value, left = waiting.pop()
        if left:
            above.discard(id(value))
            done.add(id(value))
        elif isinstance(value, list | dict) and id(value) not in done:
            if id(value) in above:
                return True
            above.add(id(value))
            waiting.append((value, True))
            waiting += [(one, False) for one in (value.values() if isinstance(value, dict) else value)]
    return False


def read_config(path: str, read: Callable[[str], str] = read_text) -> str:
    """The text of a configuration file; ConfigError if there is none."""
    try:
        return read(path)
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError((("", f"cannot read the configuration file: {reason}"),), path) from error
