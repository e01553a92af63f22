"""Functions on text and numbers that the templates of rules and of notifications share: none knows what a metric is.

Upstream: prometheus/template/template.go, github.com/prometheus/common helpers/templates.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import re2

from mimir_ray.model.labels import is_utf8
from mimir_ray.model.matchers import invalid_regex, quote

from .errors import FunctionError
from .floats import format_float, parse_float
from .formatting import go_text
from .times import Duration, Time
from .values import ANY, Function, go_type

_SMALL = ("m", "u", "n", "p", "f", "a", "z", "y")
_LARGE = ("k", "M", "G", "T", "P", "E", "Z", "Y")


class NotFinite(FunctionError):
    """A number that is no time."""


def to_float(value: object) -> float:
    """Upstream: ConvertToFloat."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, str):
        found = parse_float(value)
        if found is None:
            raise FunctionError(f"strconv.ParseFloat: parsing {quote(value)}: invalid syntax")
        if math.isinf(found) and "inf" not in value.lower():
            raise FunctionError(f"strconv.ParseFloat: parsing {quote(value)}: value out of range")
        return found
    if isinstance(value, Duration):
        return value.seconds()
    raise FunctionError(f"can't convert {go_type(value)} to float")


def _short(value: float) -> str:
    return format_float(value, "g", 4)


def _scaled(value: float, base: float, prefixes: tuple[str, ...]) -> str:
    prefix = ""
    for each in prefixes:
        if abs(value) < base:
            break
        prefix = each
        value /= base
    return _short(value) + prefix


def _small(value: float) -> str:
    prefix = ""
    for each in _SMALL:
        if abs(value) >= 1:
            break
        prefix = each
        value *= 1000
    return _short(value) + prefix


def humanize(given: object) -> str:
    value = to_float(given)
    if value == 0 or not math.isfinite(value):
        return _short(value)
    return _scaled(value, 1000.0, _LARGE) if abs(value) >= 1 else _small(value)


def humanize1024(given: object) -> str:
    value = to_float(given)
    if abs(value) <= 1 or not math.isfinite(value):
        return _short(value)
    return _scaled(value, 1024.0, tuple(f"{prefix}i" for prefix in _LARGE))


def humanize_duration(given: object) -> str:
    value = to_float(given)
    if not math.isfinite(value):
        return _short(value)
    if value == 0:
        return f"{_short(value)}s"
    if abs(value) < 1:
        return f"{_small(value)}s"
    sign, value = ("-", -value) if value < 0 else ("", value)
    minutes, seconds = divmod(int(value), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{sign}{days}d {hours}h {minutes}m {seconds}s"
    if hours:
        return f"{sign}{hours}h {minutes}m {seconds}s"
    return f"{sign}{minutes}m {seconds}s" if minutes else f"{sign}{_short(value)}s"


def humanize_percentage(given: object) -> str:
    return f"{_short(to_float(given) * 100)}%"


def humanize_timestamp(given: object) -> str:
    value = to_float(given)
    return go_text(float_to_time(value)) if math.isfinite(value) else _short(value)


def float_to_time(value: float) -> Time:
    """Seconds since 1970; Prometheus' times are whole milliseconds."""
    if not math.isfinite(value):
        raise NotFinite("value is NaN or Inf")
    nanoseconds = value * 1e9
    if not -(2.0**63) <= nanoseconds <= 2.0**63:
        text = format_float(value, "g")
        raise FunctionError(f"{text} cannot be represented as a nanoseconds timestamp since it overflows int64")
    # Go's integer division rounds toward zero.
    milliseconds = abs(int(nanoseconds)) // 1_000_000
    return Time((-milliseconds if value < 0 else milliseconds) * 1_000_000)


def to_duration(given: object) -> Duration:
    value = to_float(given) * 1e9
    if not -(2.0**63) <= value < 2.0**63:
        return Duration(-(1 << 63))  # what the conversion of Go gives on amd64
    return Duration(int(value))


def _utf8(text: str) -> str:
    """What RE2 can look at: bytes that are no UTF-8 (kept as lone surrogates) become U+FFFD."""
    return text if is_utf8(text) else text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


@lru_cache(maxsize=512)
def _compiled(pattern: str, function: str) -> Any:
    options = re2.Options()
    options.log_errors = False
    options.max_mem = 16 << 20
    try:
        return re2.compile(_utf8(pattern), options)
    except re2.error as error:
        said = invalid_regex(error, pattern).describe()
        if function == "reReplaceAll":
            quoted = f"`{pattern}`" if "`" not in pattern else quote(pattern)
            said = f"regexp: Compile({quoted}): {said}"
        raise FunctionError(said) from None


def match(pattern: str, text: str) -> bool:
    return _compiled(pattern, "match").search(_utf8(text)) is not None


_REFERENCE = re.compile(r"\$(?:(\$)|\{(\w+)\}|(\w+))")


def replace_all(pattern: str, replacement: str, text: str) -> str:
    """With Go's `$1`, `${1}`, `$name` and `$$`; what names no group is empty."""
    compiled = _compiled(pattern, "reReplaceAll")

    def expand(found: Any) -> str:
        def reference(each: re.Match[str]) -> str:
            if each[1]:
                return "$"
            name = each[2] or each[3]
            if name.isdecimal():
                number = int(name)
                return (found.group(number) or "") if number <= compiled.groups else ""
            return (found.group(name) or "") if name in compiled.groupindex else ""

        return _REFERENCE.sub(reference, replacement)

    return str(compiled.sub(expand, _utf8(text)))


_WORDS = re.compile(r"[^\W_](?:[\w]|['’.](?=[^\W\d_]))*")


_LETTER = re.compile(r"[^\W\d_]")


def title(text: str) -> str:
    """The first letter of every word in upper case, the rest as it is."""
    return _WORDS.sub(lambda word: _LETTER.sub(lambda letter: letter[0].title(), word[0], count=1), text)


def _split_host_port(text: str) -> tuple[str, str] | None:
    """Upstream: net.SplitHostPort; None where it errs."""
    host, colon, port = text.rpartition(":")
    if not colon or "]" in port:
        return None
    if text.startswith("["):
        if text.find("]") != len(host) - 1:
            return None
        host = host[1:-1]
    elif ":" in host:
        return None
    return None if any(mark in host + port for mark in "[]") else (host, port)


def strip_port(text: str) -> str:
    found = _split_host_port(text)
    return text if found is None else found[0]


def strip_domain(text: str) -> str:
    host, port = _split_host_port(text) or (text, "")
    try:
        ipaddress.ip_address(host)
    except ValueError:
        host = host.split(".")[0]
        if not port:
            return host
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return text


TEXT_FUNCTIONS: Mapping[str, Function] = {
    "args": Function(lambda *args: {f"arg{at}": arg for at, arg in enumerate(args)}, (), ANY),
    "humanize": Function(humanize, (ANY,)),
    "humanize1024": Function(humanize1024, (ANY,)),
    "humanizeDuration": Function(humanize_duration, (ANY,)),
    "humanizePercentage": Function(humanize_percentage, (ANY,)),
    "humanizeTimestamp": Function(humanize_timestamp, (ANY,)),
    "match": Function(match, ("string", "string")),
    "reReplaceAll": Function(replace_all, ("string", "string", "string")),
    "safeHtml": Function(lambda text: text, ("string",)),
    "stripDomain": Function(strip_domain, ("string",)),
    "stripPort": Function(strip_port, ("string",)),
    "title": Function(title, ("string",)),
    "toDuration": Function(to_duration, (ANY,)),
    "toLower": Function(str.lower, ("string",)),
    "toTime": Function(lambda given: float_to_time(to_float(given)), (ANY,)),
    "toUpper": Function(str.upper, ("string",)),
}
