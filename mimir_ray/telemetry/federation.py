"""Expositions of many processes as one valid exposition.

`/metrics` of a gateway answers for all processes of its node, or of the cluster: their texts are merged line by
line, families together, HELP and TYPE once, and every sample gets a label that says whose it is. Nothing is parsed
into objects, as there may be tens of thousands of lines.

Format: https://prometheus.io/docs/instrumenting/exposition_formats/ (text format 0.0.4, quoted UTF-8 names included).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_HEAD = re.compile(r'#[ \t]+(HELP|TYPE)[ \t]+("(?:[^"\\]|\\.)*"|\S+)')
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_PARTS = frozenset({"", "_bucket", "_sum", "_count", "_total", "_created", "_info", "_gcount", "_gsum"})
"""What a sample's name may have after its family's."""


def merge(expositions: Mapping[str, bytes | str], label: str = "pod") -> bytes:
    """One exposition of all.

    Args:
        expositions: instance -> its text; a later one adds to the families of the earlier.
        label: set to the instance on every sample that does not carry it already.

    HELP and TYPE are those of the first process that has the family. Lines that are no samples are left out.
    """
    heads: dict[str, dict[str, str]] = {}
    samples: dict[str, list[str]] = {}
    for instance, text in expositions.items():
        lines = (text.decode("utf-8", "replace") if isinstance(text, bytes) else text).split("\n")
        _collect(lines, label, f'{label}="{_escaped(instance)}"', heads, samples)
    out: list[str] = []
    for family, found in samples.items():
        out.extend(heads.get(family, {}).values())
        out.extend(found)
    return ("\n".join(out) + "\n" if out else "").encode()


def _collect(
    lines: list[str], label: str, pair: str, heads: dict[str, dict[str, str]], samples: dict[str, list[str]]
) -> None:
    """Sorts one process' lines into families, labelled."""
    has_label = re.compile(rf'(?:^|,)\s*(?:{re.escape(label)}|"{re.escape(label)}")\s*=')
    family = ""
    for line in lines:
        if line.startswith("#"):
            if head := _HEAD.match(line):
                family = _unquoted(head.group(2))
                heads.setdefault(family, {}).setdefault(head.group(1), line)
                samples.setdefault(family, [])
            continue
        name, labels, rest = _cut(line)
        if not rest:
            continue
        plain = name or _unquoted(labels.split(",", 1)[0])
        if not (family and plain.startswith(family) and plain[len(family) :] in _PARTS):
            family = plain
        if label not in labels or not has_label.search(_QUOTED.sub(_without_syntax, labels)):
            labels = f"{labels},{pair}" if labels else pair
        samples.setdefault(family, []).append(f"{name}{{{labels}}} {rest}")


def _cut(line: str) -> tuple[str, str, str]:
    """(name, labels, value and timestamp) of a sample line; the last is empty if it is none.

    Only a quoted value can hold a brace, and nothing after the labels does: the last one ends them.
    """
    start, end = line.find("{"), line.rfind("}")
    if start < 0:
        name, _, rest = line.replace("\t", " ").strip().partition(" ")
        return name, "", rest.strip()
    name = line[:start].strip()
    if end < start or " " in name:
        return "", "", ""
    return name, line[start + 1 : end].strip().rstrip(","), line[end + 1 :].strip()


def _unquoted(name: str) -> str:
    return name[1:-1] if name.startswith('"') and name.endswith('"') else name


def _without_syntax(match: re.Match[str]) -> str:
    """A quoted string, emptied if what it holds could be taken for labels."""
    return '""' if re.search(r"[,=\\]", match.group()) else match.group()


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
