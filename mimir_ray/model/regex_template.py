"""Templates of replacements: `$1`, `$name`, `${name}` stand for groups of a regular expression.

Upstream: Go's regexp.Expand.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

_LITERAL_UNTIL_DOLLAR = re.compile(r"[^$]+")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,8}")


def template_parts(template: str, names: Mapping[str, int], groups: int) -> list[str | int]:
    """The template as texts and numbers of groups, one behind the other.

    Args:
        names: the numbers of the groups that have a name.
        groups: how many groups there are, beside group 0, which is the whole match.

    A name is the longest run of letters, digits and `_`; what is no group stands for nothing; `$$` is a dollar, and a
    `$` that starts nothing stands for itself.
    """
    parts: list[str | int] = []
    at = 0
    while at < len(template):
        if literal := _LITERAL_UNTIL_DOLLAR.match(template, at):
            parts.append(literal.group())
            at = literal.end()
            continue
        at += 1
        if template.startswith("$", at):
            parts.append("$")
            at += 1
            continue
        brace = template.startswith("{", at)
        start = end = at + brace
        while end < len(template) and _is_name_char(template[end]):
            end += 1
        if end == start or (brace and not template.startswith("}", end)):
            parts.append("$")
            continue
        name = template[start:end]
        at = end + brace
        group = names.get(name)
        if _NUMBER.fullmatch(name):
            group = int(name) if int(name) <= groups else None
        if group is not None:
            parts.append(group)
    return parts


def _is_name_char(char: str) -> bool:
    category = unicodedata.category(char)
    return char == "_" or category[0] == "L" or category == "Nd"
