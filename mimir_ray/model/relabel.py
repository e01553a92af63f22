"""Relabelling: rules that rewrite or drop label sets.

A rule becomes one of five kinds of step. Each has a judgement of a text (a joined value, or a label's name), which
depends on nothing else: `Relabelling.apply` asks it for one series, relabel_columns.py once for every different text
of many series.

Specification: https://prometheus.io/docs/prometheus/latest/configuration/configuration/#relabel_config.
Upstream: model/relabel/relabel.go.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

from .labels import is_legacy_label_name, is_utf8
from .matchers import compile_for_bytes, compile_regex
from .regex_template import template_parts

DEFAULT_REGEX = "(.*)"
_LEGACY_TARGET = re.compile(r"(?:(?:[a-zA-Z_]|\$(?:\{\w+\}|\w+))+\w*)+", re.ASCII)
_AFFIXED = re.compile(r"([^\\.+*?()|\[\]{}^$]*)\(\.([*+])\)([^\\.+*?()|\[\]{}^$]*)")
"""Upstream's `.` takes line ends too, and so does ours."""
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
        self.steps = tuple(_ACTIONS[rule.action](rule, utf8) for rule in rules)

    def apply(self, labels: Labels) -> bool:
        """Changes the labels; False: the series is to be dropped. A label that becomes empty is gone."""
        return all(step.apply(labels) for step in self.steps)


@dataclass(frozen=True, slots=True)
class Source:
    """Labels whose values are joined; one that is missing has an empty value."""

    names: tuple[str, ...]
    separator: str

    def of(self, labels: Labels) -> str:
        """The joined value."""
        if len(self.names) == 1:
            return labels.get(self.names[0], "")
        return self.separator.join([labels.get(name, "") for name in self.names])


@dataclass(frozen=True, slots=True)
class Filter:
    """keep, drop. `regex`: what `fits` asks for."""

    source: Source
    regex: str
    fits: Callable[[str], bool]
    wanted: bool

    def apply(self, labels: Labels) -> bool:
        return self.fits(self.source.of(labels)) == self.wanted


@dataclass(frozen=True, slots=True)
class FilterEqual:
    """keepequal, dropequal."""

    source: Source
    target: str
    wanted: bool

    def apply(self, labels: Labels) -> bool:
        return (labels.get(self.target, "") == self.source.of(labels)) == self.wanted


@dataclass(frozen=True, slots=True)
class Write:
    """replace, hashmod, lowercase, uppercase.

    `written`: which label a joined value leads to, and the value of that ("": it goes); None: nothing is written.
    `copied_to`: the label that takes the joined value as it is, if that is all there is to do. `constant`: what
    `written` answers where it does not depend on the joined value, but for whether it fits `regex`.
    """

    source: Source
    written: Callable[[str], tuple[str, str] | None]
    copied_to: str = ""
    constant: tuple[str, str] | None = None
    regex: str = ""

    def apply(self, labels: Labels) -> bool:
        found = self.written(self.source.of(labels))
        if found is not None:
            name, value = found
            if value:
                labels[name] = value
            else:
                labels.pop(name, None)
        return True


@dataclass(frozen=True, slots=True)
class CopyNames:
    """labelmap. `copied_to`: under which name the value of a label stands too, or None."""

    copied_to: Callable[[str], str | None]

    def apply(self, labels: Labels) -> bool:
        for name, value in sorted(labels.items()):
            if (other := self.copied_to(name)) is not None:
                labels[other] = value
        return True


@dataclass(frozen=True, slots=True)
class FilterNames:
    """labeldrop, labelkeep. `stays`: whether a label of this name does."""

    stays: Callable[[str], bool]

    def apply(self, labels: Labels) -> bool:
        for name in [name for name in labels if not self.stays(name)]:
            del labels[name]
        return True


Step = Filter | FilterEqual | Write | CopyNames | FilterNames

REMEMBERED_MAX = 4096
REMEMBERED_LENGTH_MAX = 256


def _remembered(function: Callable[[str], Any]) -> Callable[[str], Any]:
    """The function with a memory for some thousand short texts: names and most values come again and again."""
    known = lru_cache(maxsize=REMEMBERED_MAX)(function)
    return lambda text: known(text) if len(text) <= REMEMBERED_LENGTH_MAX else function(text)


def _matching(regex: str, wanted: bool = True) -> Callable[[str], bool]:
    match = _pattern(regex).match
    return _remembered(lambda text: (match(text) is not None) == wanted)


def _source(rule: Rule) -> Source:
    return Source(rule.source_labels, rule.separator)


def _filter(rule: Rule, _utf8: bool) -> Step:
    return Filter(_source(rule), rule.regex, _matching(rule.regex), rule.action == "keep")


def _filter_equal(rule: Rule, _utf8: bool) -> Step:
    return FilterEqual(_source(rule), rule.target_label, rule.action == "keepequal")


def _replace(rule: Rule, utf8: bool) -> Step:
    pattern = _pattern(rule.regex)
    target, replacement = rule.target_label, rule.replacement
    target_of, replacement_of = _template(target, pattern), _template(replacement, pattern)

    def written(text: str) -> tuple[str, str] | None:
        match = pattern.match(text)
        if match is None or not _valid_name(name := target_of(match), utf8):
            return None
        return name, replacement_of(match)

    copied_to, constant = "", None
    if "$" not in target and _valid_name(target, utf8):
        if rule.regex == DEFAULT_REGEX and replacement in ("$1", "${1}", "$0", "${0}"):
            copied_to = target
        elif "$" not in replacement:
            constant = target, replacement
    return Write(_source(rule), _remembered(written), copied_to, constant, rule.regex)


class _Match(Protocol):
    """What a pattern found in the bytes of a text."""

    def group(self, index: int, /) -> bytes | None: ...


@dataclass(frozen=True, slots=True)
class _Affixed:
    """A match of `before(.*)after`."""

    whole: bytes
    inner: bytes

    def group(self, index: int, /) -> bytes:
        return self.inner if index else self.whole


@dataclass(frozen=True, slots=True)
class _Pattern:
    """`match`: of a text as a whole. `groups`: how many there are; `names`: the number of those that have one."""

    match: Callable[[str], _Match | None]
    groups: int
    names: dict[str, int]


def _pattern(regex: str) -> _Pattern:
    """`before(.*)after`, which most rules have, needs no regex engine. Raises `InvalidRegex`."""
    compile_regex(regex)
    found = _AFFIXED.fullmatch(regex)
    if found is None:
        compiled = compile_for_bytes(regex)
        names = {name.decode(): index for name, index in compiled.groupindex.items()}
        return _Pattern(lambda text: compiled.fullmatch(text.encode()), compiled.groups, names)
    before, after = found.group(1).encode(), found.group(3).encode()
    shortest = len(before) + len(after) + (found.group(2) == "+")

    def match(text: str) -> _Match | None:
        raw = text.encode()
        if len(raw) < shortest or not raw.startswith(before) or not raw.endswith(after):
            return None
        return _Affixed(raw, raw[len(before) : len(raw) - len(after)])

    return _Pattern(match, 1, {})


def _template(text: str, pattern: _Pattern) -> Callable[[_Match], str]:
    """What a template stands for, given a match."""
    parts = template_parts(text, pattern.names, pattern.groups)
    if len(parts) == 1 and isinstance(only := parts[0], int):
        return lambda match: _group(match, only)
    if any(isinstance(one, int) for one in parts):
        return lambda match: "".join([one if isinstance(one, str) else _group(match, one) for one in parts])
    whole = "".join(map(str, parts))
    return lambda _: whole


def _group(match: _Match, index: int) -> str:
    return (match.group(index) or b"").decode("utf-8", "replace")


def _case(rule: Rule, _utf8: bool) -> Step:
    target, changed = rule.target_label, lowercase if rule.action == "lowercase" else uppercase
    return Write(_source(rule), _remembered(lambda text: (target, changed(text))))


def lowercase(text: str) -> str:
    """Character by character, as Go's strings.ToLower: no sigma knows that it is the last."""
    return text.lower() if text.isascii() else "".join(["i" if char == "İ" else char.lower() for char in text])


def uppercase(text: str) -> str:
    """As Go's strings.ToUpper: a character that would become two stays, or takes its title case."""
    return text.upper() if text.isascii() else "".join(map(_upper, text))


def _upper(char: str) -> str:
    return next((one for one in (char.upper(), char.title()) if len(one) == 1), char)


def _hashmod(rule: Rule, _utf8: bool) -> Step:
    target, modulus = rule.target_label, rule.modulus

    def written(text: str) -> tuple[str, str]:
        digest = hashlib.md5(text.encode(), usedforsecurity=False).digest()
        return target, str(int.from_bytes(digest[8:], "big") % modulus)

    return Write(_source(rule), _remembered(written))


def _labelmap(rule: Rule, _utf8: bool) -> Step:
    pattern = _pattern(rule.regex)
    replacement_of = _template(rule.replacement, pattern)

    def copied_to(name: str) -> str | None:
        match = pattern.match(name)
        return None if match is None else replacement_of(match)

    return CopyNames(_remembered(copied_to))


def _labelfilter(rule: Rule, _utf8: bool) -> Step:
    return FilterNames(_matching(rule.regex, rule.action == "labelkeep"))


_ACTIONS: dict[str, Callable[[Rule, bool], Step]] = {
    "replace": _replace, "keep": _filter, "drop": _filter, "keepequal": _filter_equal, "dropequal": _filter_equal,
    "hashmod": _hashmod, "labelmap": _labelmap, "labeldrop": _labelfilter, "labelkeep": _labelfilter,
    "lowercase": _case, "uppercase": _case,
}  # fmt: skip
