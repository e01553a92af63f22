"""Parameters of API requests, read as Prometheus reads them.

Upstream: web/api/v1/api.go parseTime, parseDuration, parseLimitParam; net/http Request.ParseForm (on POST
the form and the URL's query are merged, the form first).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import datetime, timezone
from urllib.parse import parse_qs

from sanic import Request

from mimir_ray.errors import InvalidArgument
from mimir_ray.model.durations import parse_duration

MIN_TIME_MS = -(2**63) // 1_000_000
MAX_TIME_MS = (2**63 - 1) // 1_000_000
_MIN_TIME_TEXT = "-292273086-05-16T16:47:06Z"
_MAX_TIME_TEXT = "292277025-08-18T07:12:54.999999999Z"
_TIME_MS_FARTHEST = 1 << 62
"""Times beyond this are taken for it: there are no samples there, and lookbacks and offsets must not overflow."""
_NUMBER = re.compile(r"[+-]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|[iI][nN][fF](?:[iI][nN][iI][tT][yY])?)")
_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\d)[Tt](\d\d:\d\d:\d\d)(\.\d+)?([Zz]|[+-]\d\d:\d\d)\Z")


@dataclass(eq=False)
class BadParameter(InvalidArgument):
    """Upstream: invalidParamError."""

    name: str
    reason: str

    def describe(self) -> str:
        return f'invalid parameter "{self.name}": {self.reason}'


class BadRequest(InvalidArgument):
    """A request that makes no sense as a whole."""


class Parameters:
    """All parameters of one request: of the form, then of the URL."""

    def __init__(self, request: Request) -> None:
        self._values = parse_qs(request.query_string, keep_blank_values=True)
        if request.method == "POST" and request.content_type.partition(";")[0] == "application/x-www-form-urlencoded":
            try:
                text = request.body.decode()
            except UnicodeDecodeError:
                raise BadRequest("error parsing form values: body is not UTF-8") from None
            for name, values in parse_qs(text, keep_blank_values=True).items():
                self._values[name] = values + self._values.get(name, [])

    def get(self, name: str, default: str = "") -> str:
        values = self._values.get(name)
        return values[0] if values else default

    def all(self, name: str) -> list[str]:
        return self._values.get(name, [])

    def time_ms(self, name: str, default: int | None = None) -> int:
        """Milliseconds. A missing value is `default`, or an error where there is none."""
        text = self.get(name)
        if not text and default is not None:
            return default
        try:
            return parse_time_ms(text)
        except ValueError as error:
            # Upstream: web/api/v1 parseTimeParam for what has a default, parseTime for what must be given.
            where = "" if default is None else f"invalid time value for '{name}': "
            raise BadParameter(name, f"{where}{error}") from None

    def duration_ms(self, name: str, default: int | None = None) -> int:
        text = self.get(name)
        if not text and default is not None:
            return default
        try:
            return parse_duration_ms(text)
        except ValueError as error:
            raise BadParameter(name, str(error)) from None

    def limit(self, name: str = "limit") -> int:
        """A number of results; 0 is no limit."""
        text = self.get(name)
        if not text:
            return 0
        if not re.fullmatch(r"[+-]?[0-9]+", text):
            raise BadParameter(name, f'strconv.Atoi: parsing "{text}": invalid syntax')
        if abs(value := int(text)) >= 1 << 63:
            raise BadParameter(name, f'strconv.Atoi: parsing "{text}": value out of range')
        if value < 0:
            raise BadParameter(name, "limit must be non-negative")
        return value


def parse_time_ms(text: str) -> int:
    """Unix seconds or RFC 3339. Raises ValueError with upstream's text."""
    seconds = _number(text)
    if math.isfinite(seconds):
        # Upstream keeps whole milliseconds of the fraction, rounded half away from zero.
        fraction, whole = math.modf(seconds)
        time_ms = int(whole) * 1000 + math.floor(abs(fraction) * 1000 + 0.5) * (1 if fraction >= 0 else -1)
        return max(-_TIME_MS_FARTHEST, min(_TIME_MS_FARTHEST, time_ms))
    if match := _RFC3339.match(text):
        day, clock, fraction_text, zone = match.groups()
        try:
            moment = datetime.fromisoformat(f"{day}T{clock}{'+00:00' if zone in 'Zz' else zone}")
        except ValueError:
            raise ValueError(f'cannot parse "{text}" to a valid timestamp') from None
        whole = int((moment - datetime(1970, 1, 1, tzinfo=timezone.utc)).total_seconds())
        return whole * 1000 + int(f"{(fraction_text or '.')[1:]:0<3}"[:3])
    if text == _MIN_TIME_TEXT:
        return MIN_TIME_MS
    if text == _MAX_TIME_TEXT:
        return MAX_TIME_MS
    raise ValueError(f'cannot parse "{text}" to a valid timestamp')


def parse_duration_ms(text: str) -> int:
    """Seconds or a Prometheus duration. Raises ValueError with upstream's text."""
    seconds = _number(text)
    if not math.isnan(seconds):
        if not abs(seconds * 1e9) <= 2**63 - 1:
            raise ValueError(f'cannot parse "{text}" to a valid duration. It overflows int64')
        return int(seconds * 1000)
    try:
        return parse_duration(text)
    except (ValueError, InvalidArgument):
        raise ValueError(f'cannot parse "{text}" to a valid duration') from None


def _number(text: str) -> float:
    """A decimal number as Go's strconv reads it; NaN for everything else."""
    return float(text) if _NUMBER.fullmatch(text) else math.nan
