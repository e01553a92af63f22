"""Command lines as Go's flag package reads them.

`-name value`, `-name=value`, one dash or two; a boolean stands alone or has `=true`. A later flag wins;
flags of list type may be repeated and add up. Upstream: go/src/flag/flag.go parseOne.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, get_origin

from mimir_ray.config import values
from mimir_ray.config.setting import Setting
from mimir_ray.config.tree import Problem, suggestion


def parse(
    arguments: Sequence[str], kinds: Mapping[str, Any], tolerated: Callable[[str], bool]
) -> tuple[list[tuple[str, str]], list[Problem]]:
    """The flags of a command line in order, with their text, and what cannot be read.

    Args:
        arguments: without the program's name.
        kinds: every flag there is -> its type (bool decides whether a value follows).
        tolerated: asked for each unknown flag; such a flag and its value are passed over.
    """
    found: list[tuple[str, str]] = []
    problems: list[Problem] = []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-") or word == "-" or word == "--":
            problems.append(("", f"unexpected argument {word!r}: settings are given as -name=value"))
            break
        name, equals, text = word[2 if word.startswith("--") else 1 :].partition("=")
        if not name or name.startswith("-"):
            problems.append(("", f"bad flag syntax: {word}"))
            continue
        if name not in kinds:
            if not tolerated(name):
                problems.append((f"-{name}", f"unknown flag{suggestion(name, kinds)}"))
            if not equals and rest and not rest[0].startswith("-"):
                rest.pop(0)
            continue
        if not equals and kinds[name] is bool:
            text = "true"
        elif not equals:
            if not rest:
                problems.append((f"-{name}", "flag needs a value"))
                break
            text = rest.pop(0)
        found.append((name, text))
    return found, problems


def resolve(flags: Iterable[tuple[str, str]], settings: Mapping[str, Setting]) -> tuple[dict[str, Any], list[Problem]]:
    """Texts of flags to values of their settings' types; repeated lists are joined."""
    found: dict[str, Any] = {}
    problems: list[Problem] = []
    for name, text in flags:
        one = settings[name]
        try:
            value = values.from_text(one.kind, text)
        except values.BadValue as error:
            problems.append((f"-{name}", str(error)))
            continue
        if get_origin(one.kind) is tuple and name in found:
            value = found[name] + value
        found[name] = value
    return found, problems
