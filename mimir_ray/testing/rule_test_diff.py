"""A coloured difference of two lists of alerts, as `promtool test rules --diff` shows it.

Upstream: github.com/nsf/jsondiff Compare with its console options.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from .rule_test_report import LabelsAndAnnotations

_ADDED, _REMOVED, _CHANGED, _END = "\033[0;32m", "\033[0;31m", "\033[0;33m", "\033[0m"
_INDENT = "    "


def diff_alerts(expected: Sequence[LabelsAndAnnotations], got: Sequence[LabelsAndAnnotations]) -> str:
    """Empty if there is none."""
    left, right = _json(expected), _json(got)
    return "" if left == right else "\n".join(_Diff().both(left, right))


def _json(alerts: Sequence[LabelsAndAnnotations]) -> list[dict[str, dict[str, str]]]:
    """No alerts are shown as one without labels."""
    shown = [{"Labels": dict(labels), "Annotations": dict(annotations)} for labels, annotations in alerts]
    return shown or [{"Labels": {}, "Annotations": {}}]


def _scalar(value: Any) -> str:
    return orjson.dumps(value).decode()


class _Diff:
    """Lines of a difference: what is only on one side or differs is coloured as a whole line."""

    def both(self, left: Any, right: Any, level: int = 0, key: str = "", comma: str = "") -> list[str]:
        start = _INDENT * level + key
        if isinstance(left, dict) and isinstance(right, dict):
            names = sorted({*left, *right})
            if not names:
                return [f"{start}{{}}{comma}"]
            lines = [f"{start}{{"]
            for at, name in enumerate(names):
                lines += self._entry(left, right, name, level + 1, "," if at < len(names) - 1 else "")
            return [*lines, f"{_INDENT * level}}}{comma}"]
        if isinstance(left, list) and isinstance(right, list):
            count = max(len(left), len(right))
            lines = [f"{start}["]
            for at in range(count):
                lines += self._item(left, right, at, level + 1, "," if at < count - 1 else "")
            return [*lines, f"{_INDENT * level}]{comma}"]
        if left == right:
            return [f"{start}{_scalar(left)}{comma}"]
        return [f"{start}{_CHANGED}{_scalar(left)} => {_scalar(right)}{_END}{comma}"]

    def _entry(self, left: dict[str, Any], right: dict[str, Any], name: str, level: int, comma: str) -> list[str]:
        key = f"{_scalar(name)}: "
        if name in left and name in right:
            return self.both(left[name], right[name], level, key, comma)
        side, colour = (left, _REMOVED) if name in left else (right, _ADDED)
        return [f"{_INDENT * level}{colour}{key}{_scalar(side[name])}{_END}{comma}"]

    def _item(self, left: list[Any], right: list[Any], at: int, level: int, comma: str) -> list[str]:
        if at < len(left) and at < len(right):
            return self.both(left[at], right[at], level, "", comma)
        side, colour = (left, _REMOVED) if at < len(left) else (right, _ADDED)
        return self._whole(side[at], level, colour, comma)

    def _whole(self, value: Any, level: int, colour: str, comma: str) -> list[str]:
        lines = self.both(value, value, level)
        coloured = [_coloured(line, colour) for line in lines]
        coloured[-1] += comma
        return coloured


def _coloured(line: str, colour: str) -> str:
    text = line.lstrip(" ")
    return f"{line[: len(line) - len(text)]}{colour}{text}{_END}"
