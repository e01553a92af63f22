"""Durations as Prometheus writes them: `1h30m`, `90s`, `5ms`.

Upstream: github.com/prometheus/common model/time.go ParseDuration, Duration.String.
"""

from __future__ import annotations

import re

from mimir_ray.errors import InvalidArgument

from .matchers import quote

_UNITS = {
    "y": 31_536_000_000,
    "w": 604_800_000,
    "d": 86_400_000,
    "h": 3_600_000,
    "m": 60_000,
    "s": 1_000,
    "ms": 1,
}
_ORDER = {unit: at for at, unit in enumerate(_UNITS)}
_PART = re.compile(r"([0-9]+)([^0-9]+)")
MAX_DURATION_MS = ((1 << 63) - 1) // 1_000_000
"""Prometheus' durations are 63 bits of nanoseconds."""


def parse_duration(text: str) -> int:
    """A duration in ms. Units go from large to small, each at most once; a bare `0` needs none.

    Raises `InvalidArgument` with Prometheus' text.
    """
    if text == "0":
        return 0
    if not text:
        raise InvalidArgument("empty duration string")
    total = at = 0
    smallest = -1
    while at < len(text):
        part = _PART.match(text, at)
        if part is None:
            raise InvalidArgument(f"not a valid duration string: {quote(text)}")
        unit = part[2]
        if unit not in _UNITS:
            raise InvalidArgument(f"unknown unit {quote(unit)} in duration {quote(text)}")
        if _ORDER[unit] <= smallest:
            raise InvalidArgument(f"not a valid duration string: {quote(text)}")
        smallest = _ORDER[unit]
        total += int(part[1]) * _UNITS[unit]
        if total > MAX_DURATION_MS:
            raise InvalidArgument("duration out of range")
        at = part.end()
    return total


def format_duration(milliseconds: int) -> str:
    """The shortest form that Prometheus writes: years and weeks only where they are exact."""
    if milliseconds == 0:
        return "0s"
    out = []
    rest = abs(milliseconds)
    for unit, size in _UNITS.items():
        if unit in ("y", "w") and rest % size:
            continue
        count, rest = divmod(rest, size)
        if count:
            out.append(f"{count}{unit}")
    return ("-" if milliseconds < 0 else "") + "".join(out)
