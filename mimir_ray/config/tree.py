"""From a YAML mapping to an instance of a settings class: names, types, bounds, and what fits together.

Pure: nothing is read from disk or environment here. All problems are collected, so that an operator
mends a file once; each names its path.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from mimir_ray.config import values
from mimir_ray.config.setting import Declaration, fields_of, yaml_name
from mimir_ray.config.upstream import not_here_yet
from mimir_ray.errors import InvalidArgument

Settings = TypeVar("Settings")
Problem = tuple[str, str]
"""(path, what is wrong there); the path is empty where a whole document is meant."""


@dataclass(eq=False)
class ConfigError(InvalidArgument):
    """Settings that cannot be used; every problem found, one line each."""

    problems: tuple[Problem, ...]
    source: str = ""

    def describe(self) -> str:
        lines = [f"{path}: {reason}" if path else reason for path, reason in self.problems]
        start = f"{self.source}: " if self.source else ""
        return start + (lines[0] if len(lines) == 1 else "\n  ".join([f"{len(lines)} problems", *lines]))


def never(_path: str, _value: Any) -> bool:
    """The default of `tolerated`: every unknown key is a problem."""
    return False


def read(
    default: Settings, mapping: Any, path: str = "", tolerated: Callable[[str, Any], bool] = never
) -> tuple[Settings, list[Problem]]:
    """`default` with the values of `mapping` in place of its own.

    Args:
        default: an instance of a settings class.
        mapping: what YAML gave; None stands for an empty block.
        path: of the block, for messages.
        tolerated: asked with (path, value) for each unknown key; True if it shall be passed over.

    Returns the new instance and what could not be read; fields with problems keep their default.
    """
    problems: list[Problem] = []
    return _build(default, mapping, path, tolerated, problems), problems


def build(
    default: Settings, mapping: Any, path: str = "", tolerated: Callable[[str, Any], bool] = never
) -> tuple[Settings, list[Problem]]:
    """`read`, and what the classes find wrong with the outcome."""
    built, problems = read(default, mapping, path, tolerated)
    return built, problems + check(built, path)


def check(settings: Any, path: str = "") -> list[Problem]:
    """What the classes themselves find wrong: bounds of fields, then `problems()`, block by block."""
    found: list[Problem] = []
    for field, declaration, _ in fields_of(type(settings)):
        value, here = getattr(settings, field.name), yaml_name(field, declaration)
        if declaration.is_block:
            found.extend(check(value, path if declaration.inline else join(path, here)))
        elif reason := values.out_of_bounds(value, declaration.minimum, declaration.maximum):
            found.append((join(path, here), reason))
    hook: Callable[[], Iterable[Problem]] | None = getattr(settings, "problems", None)
    if hook:
        found.extend((join(path, where), reason) for where, reason in hook())
    return found


def join(path: str, name: str) -> str:
    return f"{path}.{name}" if path and name else path or name


def unknown(name: str, key: str, known: Iterable[str]) -> str:
    """What is wrong with a setting that is not declared."""
    if not_here_yet(name):
        return "Mimir has this setting, mimir-ray does not have its part yet; take it out"
    return f"unknown setting{suggestion(key, known)}"


def suggestion(name: str, known: Iterable[str]) -> str:
    """`, did you mean ...?` or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.7)
    return f", did you mean {close[0]!r}?" if close else ""


def _build(
    default: Any, mapping: Any, path: str, tolerated: Callable[[str, Any], bool], problems: list[Problem]
) -> Any:
    if mapping is None:
        return default
    if not isinstance(mapping, Mapping):
        problems.append((path, f"expected a map of settings, got {mapping!r}"))
        return default
    known = _keys(type(default))
    changed: dict[str, Any] = {}
    inlined: dict[str, dict[str, Any]] = {}
    for key, value in mapping.items():
        here = join(path, str(key))
        if key not in known:
            if not _passed_over(here, value, tolerated):
                problems.append((here, unknown(here, str(key), known)))
            continue
        field, declaration, kind, owner = known[key]
        if owner:
            inlined.setdefault(owner, {})[key] = value
        elif declaration.is_block:
            changed[field.name] = _build(getattr(default, field.name), value, here, tolerated, problems)
        else:
            try:
                changed[field.name] = values.from_yaml(kind, value)
            except values.BadValue as error:
                problems.append((here + error.path, str(error)))
    for owner, part in inlined.items():
        changed[owner] = _build(getattr(default, owner), part, path, tolerated, problems)
    return dataclasses.replace(default, **changed) if changed else default


def _passed_over(path: str, value: Any, tolerated: Callable[[str, Any], bool]) -> bool:
    """Whether an unknown key, or everything below it, is tolerated."""
    if tolerated(path, value):
        return True
    inside = value.items() if isinstance(value, Mapping) else ()
    return bool(inside) and all(_passed_over(join(path, str(key)), one, tolerated) for key, one in inside)


def _keys(kind: type) -> dict[str, tuple[dataclasses.Field[Any], Declaration, Any, str]]:
    """YAML key -> (field, declaration, type, the inlined field that holds it or "")."""
    found: dict[str, tuple[dataclasses.Field[Any], Declaration, Any, str]] = {}
    for field, declaration, hint in fields_of(kind):
        if declaration.inline:
            for key, (inner, inside, type_inside, _) in _keys(hint).items():
                found[key] = (inner, inside, type_inside, field.name)
        else:
            found[yaml_name(field, declaration)] = (field, declaration, hint, "")
    return found


def put(settings: Any, attributes: tuple[str, ...], value: Any) -> Any:
    """`settings` with one field, however deep, replaced."""
    name, rest = attributes[0], attributes[1:]
    return dataclasses.replace(settings, **{name: put(getattr(settings, name), rest, value) if rest else value})
