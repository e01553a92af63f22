"""Go's time.Time and time.Duration for templates. Upstream: time/time.go, time/format.go.

Times are UTC nanoseconds since 1970; layouts are Go's (`2006-01-02 15:04:05`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import ClassVar

from .values import Function, NamedInt, Object

_SECOND = 1_000_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def format_duration(nanoseconds: int) -> str:
    """As Duration.String: `1h0m0s`, `1.5s`, `2ms`, `0s`."""
    if nanoseconds == 0:
        return "0s"
    sign, size = ("-", -nanoseconds) if nanoseconds < 0 else ("", nanoseconds)
    if size < _SECOND:
        for unit, scale in (("ms", 1_000_000), ("µs", 1_000), ("ns", 1)):
            if size >= scale:
                return f"{sign}{_decimal(size, scale)}{unit}"
    minutes, rest = divmod(size, 60 * _SECOND)
    hours, minutes = divmod(minutes, 60)
    seconds = f"{_decimal(rest, _SECOND)}s"
    if hours:
        return f"{sign}{hours}h{minutes}m{seconds}"
    return f"{sign}{minutes}m{seconds}" if minutes else sign + seconds


def _decimal(size: int, scale: int) -> str:
    whole, rest = divmod(size, scale)
    fraction = f"{rest:0{len(str(scale)) - 1}d}".rstrip("0") if rest else ""
    return f"{whole}.{fraction}" if fraction else str(whole)


def _wrapped(nanoseconds: int) -> int:
    """As int64 overflows."""
    return (nanoseconds + (1 << 63)) % (1 << 64) - (1 << 63)


class Duration(Object):
    """A length of time in nanoseconds."""

    go_type = "time.Duration"

    def __init__(self, nanoseconds: int) -> None:
        self.nanoseconds = _wrapped(nanoseconds)

    def go_string(self) -> str:
        return format_duration(self.nanoseconds)

    def seconds(self) -> float:
        return self.nanoseconds / _SECOND

    methods: ClassVar[Mapping[str, Function]] = {
        "Hours": Function(lambda self: self.nanoseconds / (3600 * _SECOND)),
        "Milliseconds": Function(lambda self: int(self.nanoseconds / 1_000_000)),
        "Minutes": Function(lambda self: self.nanoseconds / (60 * _SECOND)),
        "Nanoseconds": Function(lambda self: self.nanoseconds),
        "Seconds": Function(lambda self: self.nanoseconds / _SECOND),
        "String": Function(lambda self: self.go_string()),
    }


_LAYOUT = re.compile(
    r"January|Jan|Monday|Mon|MST|2006|Z07:00|Z0700|-07:00|-0700|-07|[.,]0+(?!\d)|[.,]9+(?!\d)|_2|02|2|01|1(?!5)|15|03|3"
    r"|04|4|05|5|06|PM|pm"
)


class Time(Object):
    """An instant."""

    go_type = "time.Time"

    def __init__(self, nanoseconds: int) -> None:
        self.nanoseconds = _wrapped(nanoseconds)
        self.date = _EPOCH + timedelta(seconds=self.nanoseconds // _SECOND)

    def go_string(self) -> str:
        return self.format("2006-01-02 15:04:05.999999999 -0700 MST")

    def format(self, layout: str) -> str:
        """By a layout that shows how the reference time would look."""
        return _LAYOUT.sub(lambda found: self._part(found[0]), layout)

    def _part(self, part: str) -> str:
        date, nanoseconds = self.date, self.nanoseconds % _SECOND
        if part[0] in ".,":
            digits = f"{nanoseconds:09d}"[: len(part) - 1]
            if part[1] == "9":
                digits = digits.rstrip("0")
            return part[0] + digits if digits else ""
        twelve = date.hour % 12 or 12
        return {
            "January": date.strftime("%B"), "Jan": date.strftime("%b"),
            "Monday": date.strftime("%A"), "Mon": date.strftime("%a"),
            "MST": "UTC", "2006": f"{date.year:04d}", "06": f"{date.year % 100:02d}",
            "Z07:00": "Z", "Z0700": "Z", "-07:00": "+00:00", "-0700": "+0000", "-07": "+00",
            "_2": f"{date.day:2d}", "02": f"{date.day:02d}", "2": str(date.day),
            "01": f"{date.month:02d}", "1": str(date.month),
            "15": f"{date.hour:02d}", "03": f"{twelve:02d}", "3": str(twelve),
            "04": f"{date.minute:02d}", "4": str(date.minute),
            "05": f"{date.second:02d}", "5": str(date.second),
            "PM": "AM" if date.hour < 12 else "PM", "pm": "am" if date.hour < 12 else "pm",
        }[part]  # fmt: skip

    methods: ClassVar[Mapping[str, Function]] = {
        "Add": Function(lambda self, by: Time(self.nanoseconds + by.nanoseconds), ("time.Duration",)),
        "After": Function(lambda self, other: self.nanoseconds > other.nanoseconds, ("time.Time",)),
        "Before": Function(lambda self, other: self.nanoseconds < other.nanoseconds, ("time.Time",)),
        "Day": Function(lambda self: self.date.day),
        "Format": Function(lambda self, layout: self.format(layout), ("string",)),
        "Hour": Function(lambda self: self.date.hour),
        "IsZero": Function(lambda self: self.date.year == 1 and self.date.timetuple().tm_yday == 1),
        "Local": Function(lambda self: self),
        "Minute": Function(lambda self: self.date.minute),
        "Month": Function(lambda self: NamedInt(self.date.month, "time.Month", self.format("January"))),
        "Nanosecond": Function(lambda self: self.nanoseconds % _SECOND),
        "Second": Function(lambda self: self.date.second),
        "String": Function(lambda self: self.go_string()),
        "Sub": Function(lambda self, other: Duration(self.nanoseconds - other.nanoseconds), ("time.Time",)),
        "UTC": Function(lambda self: self),
        "Unix": Function(lambda self: self.nanoseconds // _SECOND),
        "UnixMilli": Function(lambda self: self.nanoseconds // 1_000_000),
        "Weekday": Function(lambda self: NamedInt(self.date.isoweekday() % 7, "time.Weekday", self.format("Monday"))),
        "Year": Function(lambda self: self.date.year),
        "YearDay": Function(lambda self: self.date.timetuple().tm_yday),
    }
