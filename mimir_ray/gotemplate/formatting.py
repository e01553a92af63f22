"""`fmt`: Print, Println and Printf on template values. Upstream: fmt/print.go, fmt/format.go.

Pointers to structs print as `&{...}`. Not here: `%p`, `%#v` of containers, complex numbers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mimir_ray.model.matchers import quote

from .errors import FunctionError
from .floats import format_float
from .values import Function, NamedInt, Object, go_type

WIDTH_MAX = 1_000_000
"""Wider is an error of Go's fmt too (`%!(BADWIDTH)`)."""

_SPEC = re.compile(r"([+\-# 0]*)(\[[^\]]*\])?(\*|\d+)?(?:(\.)(\[[^\]]*\])?(\*|\d+)?)?(\[[^\]]*\])?")


@dataclass(frozen=True, slots=True)
class _Flags:
    plus: bool = False
    minus: bool = False
    sharp: bool = False
    space: bool = False
    zero: bool = False
    width: int | None = None
    precision: int | None = None

    def pad(self, text: str) -> str:
        missing = (self.width or 0) - len(text)
        if missing <= 0:
            return text
        if self.minus:
            return text + " " * missing
        return ("0" if self.zero else " ") * missing + text

    def pad_number(self, text: str) -> str:
        """Zeros go between the sign and the digits."""
        missing = (self.width or 0) - len(text)
        if missing <= 0 or self.minus or not self.zero:
            return replace(self, zero=False).pad(text)
        sign = text[:1] if text[:1] in ("+", "-", " ") else ""
        return sign + "0" * missing + text[len(sign) :]


_PLAIN = _Flags()


def go_text(value: object) -> str:
    """As `%v` writes it."""
    return _verb_v(value, _PLAIN, "v", 0)


def printable(value: object) -> object:
    """As an action prints it: nothing is `<no value>`, a pointer what it points to. Upstream: printableValue."""
    if value is None:
        return "<no value>"
    if isinstance(value, Object) and value.is_pointer and value.go_string() is None:
        return _struct(value, _PLAIN, "v", 0).removeprefix("&")
    return value


def sprint(values: Sequence[object]) -> str:
    """A space stands between two operands of which neither is a string."""
    out: list[str] = []
    for at, value in enumerate(values):
        if at and not isinstance(value, str) and not isinstance(values[at - 1], str):
            out.append(" ")
        out.append(go_text(value))
    return "".join(out)


def sprintln(values: Sequence[object]) -> str:
    return " ".join(go_text(value) for value in values) + "\n"


def sprintf(form: str, values: Sequence[object]) -> str:
    """Raises `FunctionError` where a width would make the text larger than any output may be."""
    out: list[str] = []
    at = used = size = 0
    reordered = False
    while at < len(form):
        percent = form.find("%", at)
        if percent < 0:
            out.append(form[at:])
            break
        out.append(form[at:percent])
        found = _SPEC.match(form, percent + 1)
        assert found is not None
        at = found.end()
        flags = found[1]
        width, precision = None, None
        bad = ""
        good_index = True

        def pick(index: str | None) -> None:
            nonlocal used, reordered, good_index
            if index is not None:
                reordered = True
                number = int(index[1:-1]) - 1 if index[1:-1].isdecimal() else -1
                good_index = 0 <= number < len(values)
                used = number if good_index else used

        pick(found[2])
        if found[3] == "*":
            width, used = _star(values, used)
            if width is None:
                bad += "%!(BADWIDTH)"
            elif width < 0:
                flags, width = flags + "-", -width
        elif found[3] is not None:
            width = int(found[3])
            if width > WIDTH_MAX:
                width, bad = None, bad + "%!(BADWIDTH)"
        if found[4] is not None:
            pick(found[5])
            if found[6] == "*":
                precision, used = _star(values, used)
                if precision is None or precision < 0:
                    bad += "%!(BADPREC)" if precision is None else ""
                    precision = None
            else:
                precision = int(found[6] or 0)
                if precision > WIDTH_MAX:
                    precision, bad = None, bad + "%!(BADPREC)"
        pick(found[7])
        out.append(bad)
        if at >= len(form):
            out.append("%!(NOVERB)")
            break
        verb = form[at]
        at += 1
        if verb == "%":
            out.append("%")
        elif not good_index:
            out.append(f"%!{verb}(BADINDEX)")
        elif used >= len(values):
            out.append(f"%!{verb}(MISSING)")
        else:
            minus = "-" in flags
            given = _Flags(
                "+" in flags, minus, "#" in flags, " " in flags, "0" in flags and not minus, width, precision
            )
            out.append(_verb(values[used], given, verb))
            used += 1
        size += len(out[-1])
        if size > 4 * WIDTH_MAX:
            raise FunctionError("formatted text is too large")
    if not reordered and used < len(values):
        extra = ", ".join("<nil>" if value is None else f"{go_type(value)}={go_text(value)}" for value in values[used:])
        out.append(f"%!(EXTRA {extra})")
    return "".join(out)


def _star(values: Sequence[object], used: int) -> tuple[int | None, int]:
    if used >= len(values):
        return None, used
    value = values[used]
    good = isinstance(value, int) and not isinstance(value, bool) and abs(value) <= WIDTH_MAX
    return (value if good else None), used + 1  # type: ignore[return-value]


def _verb(value: object, flags: _Flags, verb: str) -> str:
    if verb == "T":
        return flags.pad(_cut(go_type(value), flags))
    if value is None:
        return flags.pad("<nil>") if verb == "v" else _wrong(value, verb)
    return _verb_v(value, flags, verb, 0)


def _verb_v(value: object, flags: _Flags, verb: str, depth: int) -> str:
    """One value under any verb but %T; containers hand the verb on to what is in them."""
    if value is None:
        return flags.pad("<nil>") if (verb in "vs" and depth == 0) or verb == "v" else _wrong(value, verb)
    if isinstance(value, Object):
        said = value.go_string() if verb in "vsqxX" else None
        if said is not None:
            return _string(said, flags, verb)
        if value.is_pointer and depth and verb != "v":
            return f"%!{verb}({value.go_type}={_struct(value, flags, 'v', 0)})"
        return _struct(value, flags, verb, depth)
    if isinstance(value, bool):
        return flags.pad("true" if value else "false") if verb in "tv" else _wrong(value, verb)
    if isinstance(value, NamedInt) and verb in "vsq":
        return _string(value.text, flags, verb)
    if isinstance(value, int):
        return _integer(value, flags, verb)
    if isinstance(value, float):
        return _float(value, flags, verb)
    if isinstance(value, str):
        return _string(value, flags, verb)
    if isinstance(value, Function):
        return _wrong(value, verb)
    if isinstance(value, Mapping):
        items = (
            f"{_verb_v(key, flags, verb, depth + 1)}:{_verb_v(value[key], flags, verb, depth + 1)}"
            for key in sorted(value)
        )
        return f"map[{' '.join(items)}]"
    assert isinstance(value, Sequence), value
    return f"[{' '.join(_verb_v(one, flags, verb, depth + 1) for one in value)}]"


def _struct(value: Object, flags: _Flags, verb: str, depth: int) -> str:
    # Differs: inside of containers Go shows the address of a pointer.
    inside = " ".join(_field(value, name, flags, verb, depth) for name in value.fields)
    return f"{'&' if value.is_pointer else ''}{{{inside}}}"


def _field(value: Object, name: str, flags: _Flags, verb: str, depth: int) -> str:
    text = _verb_v(getattr(value, name), flags, verb, depth + 1)
    return f"{name}:{text}" if flags.plus else text


def _wrong(value: object, verb: str) -> str:
    return f"%!{verb}(<nil>)" if value is None else f"%!{verb}({go_type(value)}={go_text(value)})"


def _cut(text: str, flags: _Flags) -> str:
    return text if flags.precision is None else text[: flags.precision]


def _string(value: str, flags: _Flags, verb: str) -> str:
    if verb in "vs":
        return flags.pad(quote(value) if verb == "v" and flags.sharp else _cut(value, flags))
    if verb == "q":
        cut = _cut(value, flags)
        return flags.pad(f"`{cut}`" if flags.sharp and "`" not in cut else quote(cut))
    if verb in "xX":
        data = value.encode("utf-8", "surrogateescape")[: flags.precision]
        text = data.hex(" ") if flags.space else data.hex()
        if flags.sharp and text:
            text = "0x" + (text.replace(" ", " 0x") if flags.space else text)
        return flags.pad(text.upper() if verb == "X" else text)
    return _wrong(value, verb)


_BASES = {"b": "b", "o": "o", "O": "o", "d": "d", "v": "d", "x": "x", "X": "X"}
_PREFIXES = {"b": "0b", "o": "0", "x": "0x", "X": "0X"}


def _integer(value: int, flags: _Flags, verb: str) -> str:
    if verb in _BASES:
        digits = format(abs(value), _BASES[verb])
        if flags.precision is not None:
            digits = "" if flags.precision == 0 and value == 0 else digits.zfill(flags.precision)
            flags = replace(flags, zero=False)
        if flags.sharp:
            digits = _PREFIXES.get(verb, "") + digits
        if verb == "O":
            digits = "0o" + digits
        sign = "-" if value < 0 else "+" if flags.plus else " " if flags.space else ""
        return flags.pad_number(sign + digits)
    if verb in "cqU":
        if not 0 <= value <= 0x10FFFF or 0xD800 <= value < 0xE000:
            value = 0xFFFD
        if verb == "c":
            return flags.pad(chr(value))
        if verb == "U":
            return flags.pad(f"U+{value:04X}" + (f" '{chr(value)}'" if flags.sharp else ""))
        char = chr(value)
        inner = "\\'" if char == "'" else '"' if char == '"' else quote(char)[1:-1]
        return flags.pad(f"'{inner}'")
    return _wrong(value, verb)


def _float(value: float, flags: _Flags, verb: str) -> str:
    if verb not in "vgGeEfF":
        return _wrong(value, verb)
    form = "g" if verb == "v" else verb
    default = -1 if verb in "vgG" else 6
    text = format_float(value, form, default if flags.precision is None else flags.precision)
    finite = text[-1].isdigit()
    bare = text.removeprefix("+")
    if not bare.startswith("-"):
        bare = ("+" if flags.plus else " " if flags.space else "+" if bare == "Inf" and verb != "" else "") + bare
    return flags.pad_number(bare) if finite else replace(flags, zero=False).pad(bare)
