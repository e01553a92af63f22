"""Relabelling: rules that rewrite or drop label sets.

Specification: https://prometheus.io/docs/prometheus/latest/configuration/configuration/#relabel_config.
Upstream: model/relabel/relabel.go.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Protocol

from .labels import is_legacy_label_name, is_utf8
from .matchers import compile_regex

DEFAULT_REGEX = "(.*)"
_VARIABLE = re.compile(r"\$(?:(\$)|(\w+)|\{(\w+)\})", re.ASCII)
_LEGACY_TARGET = re.compile(r"(?:(?:[a-zA-Z_]|\$(?:\{\w+\}|\w+))+\w*)+", re.ASCII)
_NEEDS_TARGET = frozenset(("replace", "hashmod", "keepequal", "dropequal", "lowercase", "uppercase"))
_PLAIN_TARGET = _NEEDS_TARGET - {"replace"}

Labels = dict[str, str]


class Rule(Protocol):
    """A rule as users write it; see config/tenant_rules.py `RelabelConfig`."""

    @property
    def source_labels(self) -> tuple[str, ...]: ...
    @property
    def separator(self) -> str: ...
    @property
    def regex(self) -> str: ...
    @property
    def modulus(self) -> int: ...
    @property
    def target_label(self) -> str: ...
    @property
    def replacement(self) -> str: ...
    @property
    def action(self) -> str: ...


def rule_problem(rule: Rule, utf8: bool = False) -> str:
    """What is wrong with a rule, in Prometheus' words; "" if nothing is. Raises `InvalidRegex`."""
    action, target = rule.action, rule.target_label
    compile_regex(rule.regex)
    if action == "hashmod" and not rule.modulus:
        return "relabel configuration for hashmod requires non-zero modulus"
    if action in _NEEDS_TARGET and not target:
        return f"relabel configuration for {action} action requires 'target_label' value"
    sound = _valid_target(target, utf8) if action == "replace" else _valid_name(target, utf8)
    if action in _NEEDS_TARGET and not sound:
        return f"\"{target}\" is invalid 'target_label' for {action} action"
    if action in _PLAIN_TARGET - {"hashmod"} and rule.replacement != "$1":
        return f"'replacement' can not be set for {action} action"
    if action == "labelmap" and not (is_utf8(rule.replacement) if utf8 else _LEGACY_TARGET.fullmatch(rule.replacement)):
        return f"\"{rule.replacement}\" is invalid 'replacement' for {action} action"
    plain = not rule.modulus and rule.separator == ";" and rule.replacement == "$1"
    if action in ("dropequal", "keepequal") and not (plain and rule.regex == DEFAULT_REGEX):
        return f"{action} action requires only 'source_labels' and `target_label`, and no other fields"
    if action in ("labeldrop", "labelkeep") and not (plain and not rule.source_labels and not target):
        return f"{action} action requires only 'regex', and no other fields"
    return ""


def _valid_name(name: str, utf8: bool) -> bool:
    return bool(name) and is_utf8(name) if utf8 else is_legacy_label_name(name)


def _valid_target(target: str, utf8: bool) -> bool:
    if "$" not in target or utf8:
        return _valid_name(target, utf8)
    return _LEGACY_TARGET.fullmatch(target) is not None


@lru_cache(maxsize=1024)
def relabelling(rules: Sequence[Rule], utf8: bool = False) -> Relabelling:
    """The rules, compiled; they must be hashable and without problems."""
    return Relabelling(rules, utf8)


class Relabelling:
    """Rules that are applied one after the other."""

    def __init__(self, rules: Sequence[Rule], utf8: bool = False) -> None:
        self._steps = [_ACTIONS[rule.action](rule, utf8) for rule in rules]

    def apply(self, labels: Labels) -> bool:
        """Changes the labels; False: the series is to be dropped. A label that becomes empty is gone."""
        return all(step(labels) for step in self._steps)


Step = Callable[[Labels], bool]


def _joined(rule: Rule) -> Callable[[Labels], str]:
    names, separator = rule.source_labels, rule.separator
    if len(names) == 1:
        return lambda labels: labels.get(names[0], "")
    return lambda labels: separator.join([labels.get(name, "") for name in names])


REMEMBERED_MAX = 4096
REMEMBERED_LENGTH_MAX = 256


def _remembered(function: Callable[[str], Any]) -> Callable[[str], Any]:
    """The function with a memory for some thousand short texts: names and most values come again and again."""
    known = lru_cache(maxsize=REMEMBERED_MAX)(function)
    return lambda text: known(text) if len(text) <= REMEMBERED_LENGTH_MAX else function(text)


def _matching(regex: str) -> Callable[[str], bool]:
    matches = compile_regex(regex)
    return _remembered(lambda text: matches(text) is not None)


def _set(labels: Labels, name: str, value: str) -> None:
    if value:
        labels[name] = value
    else:
        labels.pop(name, None)


def _filter(rule: Rule, _utf8: bool) -> Step:
    value, matches, wanted = _joined(rule), _matching(rule.regex), rule.action == "keep"
    return lambda labels: matches(value(labels)) == wanted


def _filter_equal(rule: Rule, _utf8: bool) -> Step:
    value, target, wanted = _joined(rule), rule.target_label, rule.action == "keepequal"
    return lambda labels: (labels.get(target, "") == value(labels)) == wanted


def _replace(rule: Rule, utf8: bool) -> Step:
    value, matches = _joined(rule), compile_regex(rule.regex)
    target_of, replacement_of = _template(rule.target_label), _template(rule.replacement)

    def written(text: str) -> tuple[str, str] | None:
        """Which label a joined value leads to, and its value."""
        match = matches(text)
        if match is None or not _valid_name(target := target_of(match), utf8):
            return None
        return target, replacement_of(match)

    known = _remembered(written)

    def step(labels: Labels) -> bool:
        found = known(value(labels))
        if found is not None:
            _set(labels, *found)
        return True

    return step


def _template(text: str) -> Callable[[Any], str]:
    """What `$1`, `${1}`, `$name` and `$$` of a text stand for, given a match. Go's Regexp.Expand."""
    if "$" not in text:
        return lambda _: text
    whole = _VARIABLE.fullmatch(text)
    if whole and (whole.group(2) or whole.group(3)):
        name = whole.group(2) or whole.group(3)
        return lambda match: _group(match, name)
    return lambda match: _VARIABLE.sub(
        lambda found: "$" if found.group(1) else _group(match, found.group(2) or found.group(3)), text
    )


def _group(match: Any, name: str) -> str:
    """A group of a match by number or name; "" where there is none."""
    try:
        return match.group(int(name) if name.isdigit() else name) or ""
    except (IndexError, KeyError):
        return ""


def _case(rule: Rule, _utf8: bool) -> Step:
    value, target = _joined(rule), rule.target_label
    changed = str.lower if rule.action == "lowercase" else str.upper

    def step(labels: Labels) -> bool:
        _set(labels, target, changed(value(labels)))
        return True

    return step


def _hashmod(rule: Rule, _utf8: bool) -> Step:
    value, target, modulus = _joined(rule), rule.target_label, rule.modulus

    def step(labels: Labels) -> bool:
        digest = hashlib.md5(value(labels).encode(), usedforsecurity=False).digest()
        labels[target] = str(int.from_bytes(digest[8:], "big") % modulus)
        return True

    return step


def _labelmap(rule: Rule, _utf8: bool) -> Step:
    matches, replacement_of = compile_regex(rule.regex), _template(rule.replacement)

    def step(labels: Labels) -> bool:
        for name, value in sorted(labels.items()):
            if (match := matches(name)) is not None:
                labels[replacement_of(match)] = value
        return True

    return step


def _labelfilter(rule: Rule, _utf8: bool) -> Step:
    matches, wanted = _matching(rule.regex), rule.action == "labelkeep"

    def step(labels: Labels) -> bool:
        for name in [name for name in labels if matches(name) != wanted]:
            del labels[name]
        return True

    return step


_ACTIONS: dict[str, Callable[[Rule, bool], Step]] = {
    "replace": _replace, "keep": _filter, "drop": _filter, "keepequal": _filter_equal, "dropequal": _filter_equal,
    "hashmod": _hashmod, "labelmap": _labelmap, "labeldrop": _labelfilter, "labelkeep": _labelfilter,
    "lowercase": _case, "uppercase": _case,
}  # fmt: skip
