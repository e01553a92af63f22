"""OpenTelemetry's names as Prometheus' names: metrics, units, attributes.

Specification: https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/.
Upstream: github.com/prometheus/otlptranslator.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from mimir_ray.errors import ClientError

Kind = Literal["gauge", "counter", "updown", "histogram", "exponential", "summary"]
"""counter: a monotonic sum, updown: any other sum."""

_UNITS = {
    "d": "days", "h": "hours", "min": "minutes", "s": "seconds", "ms": "milliseconds", "us": "microseconds",
    "ns": "nanoseconds",
    "By": "bytes", "KiBy": "kibibytes", "MiBy": "mebibytes", "GiBy": "gibibytes", "TiBy": "tibibytes",
    "KBy": "kilobytes", "MBy": "megabytes", "GBy": "gigabytes", "TBy": "terabytes",
    "m": "meters", "V": "volts", "A": "amperes", "J": "joules", "W": "watts", "g": "grams",
    "Cel": "celsius", "Hz": "hertz", "1": "", "%": "percent",
}  # fmt: skip
_PER_UNITS = {"s": "second", "m": "minute", "h": "hour", "d": "day", "w": "week", "mo": "month", "y": "year"}
_NO_METRIC_CHARACTER = re.compile("[^a-zA-Z0-9:]")
_NO_METRIC_CHARACTERS = re.compile("[^a-zA-Z0-9:]+")
_NO_NAME_CHARACTERS = re.compile("[^a-zA-Z0-9:_]+")
_NO_LABEL_CHARACTER = re.compile("[^a-zA-Z0-9_]")
_PLAIN_LABEL = re.compile("[a-zA-Z][a-zA-Z0-9_]*")


class UntranslatableName(ClientError):
    """A name of which nothing is left."""


@dataclass(frozen=True, slots=True)
class Naming:
    """How names are translated; the fields are Prometheus' `otlp.translation_strategy` taken apart."""

    suffixes: bool = False
    utf8: bool = False
    label_underscore_sanitization: bool = True
    label_preserve_underscores: bool = True

    def metric(self, name: str, unit: str, kind: Kind) -> str:
        """The metric's name. Raises `UntranslatableName`."""
        if self.utf8:
            return _with_suffixes(name, unit, kind) if self.suffixes else name
        if self.suffixes:
            found = _from_tokens(name, unit, kind)
        else:
            found = "_".join(part for part in _NO_NAME_CHARACTERS.split(name) if part)
        if found[:1].isdigit():
            found = f"_{found}"
        if not found:
            raise UntranslatableName(f'normalization for metric "{name}" resulted in empty name')
        if found != name and not found.strip("_"):
            raise UntranslatableName(f'normalization for metric "{name}" resulted in invalid name "{found}"')
        return found

    def label(self, name: str) -> str:
        """The label's name. Raises `UntranslatableName`."""
        if not name:
            raise UntranslatableName("label name is empty")
        if self.utf8:
            if not name.strip("_"):
                raise UntranslatableName(f'label name "{name}" contains only underscores')
            return name
        if _PLAIN_LABEL.fullmatch(name) and (self.label_preserve_underscores or "__" not in name):
            return name
        found = _NO_LABEL_CHARACTER.sub("_", name)
        if not self.label_preserve_underscores:
            reserved = found.startswith("__") and found.endswith("__") and len(found) > 4
            found = f"__{re.sub('_+', '_', found[2:-2])}__" if reserved else re.sub("_+", "_", found)
        if found[0].isdigit():
            found = f"key_{found}"
        elif self.label_underscore_sanitization and found.startswith("_") and not found.startswith("__"):
            found = f"key{found}"
        if not found.strip("_"):
            raise UntranslatableName(f'normalization for label name "{name}" resulted in invalid name "{found}"')
        return found


def unit_name(unit: str) -> str:
    """The unit as metadata has it: `By/s` is `bytes_per_second`."""
    main, per = (_clean_unit(part) for part in _unit_suffixes(unit))
    text = f"{main}_{per}" if main and per else main or per
    return text.removeprefix("_").removesuffix("_")


def _unit_suffixes(unit: str) -> tuple[str, str]:
    """(suffix of the unit, suffix of what it is per, with `per_`); parts in braces are annotations."""
    first, slash, second = unit.partition("/")
    first, second = first.strip(), second.strip()
    main = "" if "{" in first or "}" in first else _UNITS.get(first, first)
    per = "" if not slash or "{" in second or "}" in second else _PER_UNITS.get(second, second)
    return main, f"per_{per}" if per else ""


def _clean_unit(unit: str) -> str:
    return re.sub("_+", "_", _NO_METRIC_CHARACTER.sub("_", unit)).removeprefix("_")


def _from_tokens(name: str, unit: str, kind: Kind) -> str:
    """Prometheus' name with its unit and type at the end, each only once."""
    tokens = [part for part in _NO_METRIC_CHARACTERS.split(name) if part]
    main, per = (_clean_unit(part) for part in _unit_suffixes(unit))
    if main in tokens:
        main = ""
    per = "" if per == "per_" else per.removesuffix("_")
    if per in tokens:
        per = ""
    if per:
        main = main.removesuffix("_")
    tokens += [part for part in (main, per) if part]
    last = "total" if kind == "counter" else "ratio" if kind == "gauge" and unit == "1" else ""
    if last:
        tokens = [part for part in tokens if part != last] + [last]
    return "_".join(tokens)


def _with_suffixes(name: str, unit: str, kind: Kind) -> str:
    """The name as it is, with its unit and type at the end."""
    last = "total" if kind == "counter" else "ratio" if kind == "gauge" and unit == "1" else ""
    if last:
        name = _without(name, last)
    main, per = _unit_suffixes(unit)
    if per:
        name = _without(name, per)
    if main and not name.endswith(main):
        name = f"{name}_{main}"
    return "_".join(part for part in (name, per, last) if part)


def _without(name: str, suffix: str) -> str:
    """Without the suffix and the one character in front of it."""
    return name[: -len(suffix) - 1] if name.endswith(suffix) and len(name) > len(suffix) + 1 else name
