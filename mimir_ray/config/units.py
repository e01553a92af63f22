"""Durations and sizes as operators write them.

`Duration` reads what Go's time.ParseDuration reads (`1h30m`, `1.5s`, `-5m`) plus `d`, `w` and `y` as
Prometheus' durations have them, and prints the shortest form. `Bytes` reads a number of bytes or a
number with a unit (`512KiB`, `64MB`). Both are ints, so they compare and compute as what they are.
"""

from __future__ import annotations

import re
from fractions import Fraction

_MS = {
    "ns": Fraction(1, 1_000_000),
    "us": Fraction(1, 1000),
    "µs": Fraction(1, 1000),
    "μs": Fraction(1, 1000),
    "ms": Fraction(1),
    "s": Fraction(1000),
    "m": Fraction(60_000),
    "h": Fraction(3_600_000),
    "d": Fraction(86_400_000),
    "w": Fraction(7 * 86_400_000),
    "y": Fraction(365 * 86_400_000),
}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h|d|w|y)")
_WHOLE = re.compile(rf"([+-]?)((?:{_PART.pattern})+)")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kKMGTP]?i?[bB]?)")
_PREFIXES = "kmgtp"
MAX_DURATION_MS = (2**63 - 1) // 1_000_000
"""What fits into Go's time.Duration (292 years); a longer one is refused."""


class Duration(int):
    """A length of time; the int is milliseconds."""

    __slots__ = ()

    @property
    def ms(self) -> int:
        return int(self)

    @property
    def seconds(self) -> float:
        return int(self) / 1000

    @classmethod
    def parse(cls, text: str) -> Duration:
        """Reads `1h30m`, `2d`, `1.5s`, `0`; ValueError with a reason for people otherwise."""
        if text in ("0", "+0", "-0"):
            return cls(0)
        match = _WHOLE.fullmatch(text)
        if not match:
            raise ValueError(f"not a valid duration: {text!r} (examples: 30s, 5m, 1h30m, 7d)")
        total = sum((Fraction(number) * _MS[unit] for number, unit in _PART.findall(match.group(2))), Fraction(0))
        if total.denominator != 1:
            raise ValueError(f"duration {text!r} is finer than one millisecond")
        if total > MAX_DURATION_MS:
            raise ValueError(f"duration {text!r} is longer than 292 years")
        return cls(-int(total) if match.group(1) == "-" else int(total))

    def __str__(self) -> str:
        """The shortest form. Upstream: prometheus/common model.Duration String."""
        left = abs(int(self))
        if not left:
            return "0s"
        parts = ["-"] if self < 0 else []
        for unit, exact in (("y", True), ("w", True), ("d", False), ("h", False), ("m", False), ("s", False)):
            size = int(_MS[unit])
            if left >= size and (not exact or left % size == 0):
                parts.append(f"{left // size}{unit}")
                left %= size
        if left:
            parts.append(f"{left}ms")
        return "".join(parts)

    def __repr__(self) -> str:
        return f"duration({str(self)!r})"


class Bytes(int):
    """A number of bytes."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Bytes:
        """Reads `104857600`, `100MiB` (1024s), `100MB` (1000s); ValueError otherwise."""
        match = _SIZE.fullmatch(text.strip())
        if not match:
            raise ValueError(f"not a valid size: {text!r} (examples: 1048576, 512KiB, 100MB)")
        number, unit = Fraction(match.group(1)), match.group(2).lower()
        power = _PREFIXES.index(unit[0]) + 1 if unit and unit[0] in _PREFIXES else 0
        if not power and unit.startswith("i"):
            raise ValueError(f"not a valid size: {text!r} (examples: 1048576, 512KiB, 100MB)")
        total = number * (1024 if "i" in unit else 1000) ** power
        if total.denominator != 1:
            raise ValueError(f"size {text!r} is not a whole number of bytes")
        if total >= 2**63:
            raise ValueError("the size does not fit into 64 bits")
        return cls(int(total))

    def __repr__(self) -> str:
        return f"Bytes({int(self)})"


def duration(text: str) -> Duration:
    """For declarations: `duration("30s")`."""
    return Duration.parse(text)


def size(text: str) -> Bytes:
    """For declarations: `size("100MiB")`."""
    return Bytes.parse(text)
