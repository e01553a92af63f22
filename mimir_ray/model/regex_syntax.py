"""Regular expressions of RE2's syntax as trees, for regex_automaton.py. RE2 has accepted each before.

What is read here is read as RE2 reads it with `dot_nl`; whatever else a pattern may hold (Unicode classes, word
boundaries, `\\Q..\\E`, folding of letters beyond ASCII) is `Unsupported`, and left to RE2 itself.
Syntax: https://github.com/google/re2/wiki/Syntax
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeAlias

POINT_MAX = 0x10FFFF

Ranges: TypeAlias = tuple[tuple[int, int], ...]
"""Of code points, both ends included."""


class Unsupported(Exception):
    """The pattern needs RE2."""


@dataclass(frozen=True, slots=True)
class OneOf:
    """One character of these."""

    ranges: Ranges


@dataclass(frozen=True, slots=True)
class Sequence:
    """One after another; none: the empty text."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    """`most` None: any number of times."""

    part: Node
    least: int
    most: int | None


@dataclass(frozen=True, slots=True)
class Edge:
    """The begin, or the end, of the whole text."""

    is_end: bool


Node: TypeAlias = "OneOf | Sequence | Choice | Repeat | Edge"

_DIGIT = ((0x30, 0x39),)
_SPACE = ((0x09, 0x0A), (0x0C, 0x0D), (0x20, 0x20))
_UPPER, _LOWER = ((0x41, 0x5A),), ((0x61, 0x7A),)
_WORD = (*_DIGIT, *_UPPER, (0x5F, 0x5F), *_LOWER)
_PERL: dict[str, Ranges] = {"d": _DIGIT, "s": _SPACE, "w": _WORD}
_POSIX: dict[str, Ranges] = {
    "alnum": (*_DIGIT, *_UPPER, *_LOWER),
    "alpha": (*_UPPER, *_LOWER),
    "ascii": ((0x00, 0x7F),),
    "blank": ((0x09, 0x09), (0x20, 0x20)),
    "cntrl": ((0x00, 0x1F), (0x7F, 0x7F)),
    "digit": _DIGIT,
    "graph": ((0x21, 0x7E),),
    "lower": _LOWER,
    "print": ((0x20, 0x7E),),
    "punct": ((0x21, 0x2F), (0x3A, 0x40), (0x5B, 0x60), (0x7B, 0x7E)),
    "space": ((0x09, 0x0D), (0x20, 0x20)),
    "upper": _UPPER,
    "word": _WORD,
    "xdigit": (*_DIGIT, (0x41, 0x46), (0x61, 0x66)),
}
_CONTROLS = {"a": 0x07, "f": 0x0C, "n": 0x0A, "r": 0x0D, "t": 0x09, "v": 0x0B}
# Letters beyond ASCII that Unicode folds to one of ASCII: the long s and the Kelvin sign.
_FOLDED_BEYOND = {0x73: 0x17F, 0x6B: 0x212A}


def without(ranges: Ranges) -> Ranges:
    """All other code points."""
    found = []
    first = 0
    for low, high in sorted(ranges):
        if low > first:
            found.append((first, low - 1))
        first = max(first, high + 1)
    if first <= POINT_MAX:
        found.append((first, POINT_MAX))
    return tuple(found)


def folded(ranges: Ranges) -> Ranges:
    """With the other case of each letter. Raises `Unsupported` beyond ASCII."""
    found = list(ranges)
    for low, high in ranges:
        if high > 0x7F:
            raise Unsupported
        for letter in range(0x61, 0x7B):
            if low <= letter <= high or low <= letter - 32 <= high:
                found += [(letter, letter), (letter - 32, letter - 32)]
                if letter in _FOLDED_BEYOND:
                    found.append((_FOLDED_BEYOND[letter], _FOLDED_BEYOND[letter]))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class _Flags:
    folds: bool = False
    dot_takes_newline: bool = True
    by_line: bool = False


def parse(pattern: str) -> Node:
    """The tree of a pattern that RE2 accepts. Raises `Unsupported`."""
    reader = _Reader(pattern)
    tree = reader.choice(_Flags(), 0)
    if reader.more():
        raise Unsupported
    return tree


_DEPTH_MAX = 100


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def more(self) -> bool:
        return self._at < len(self._text)

    def _peek(self, text: str) -> bool:
        return self._text.startswith(text, self._at)

    def _skip(self, text: str) -> bool:
        """Whether it was there."""
        if self._peek(text):
            self._at += len(text)
            return True
        return False

    def _next(self) -> str:
        if not self.more():
            raise Unsupported
        self._at += 1
        return self._text[self._at - 1]

    def _until(self, end: str) -> str:
        stop = self._text.find(end, self._at)
        if stop < 0:
            raise Unsupported
        part, self._at = self._text[self._at : stop], stop + len(end)
        return part

    def choice(self, flags: _Flags, depth: int) -> Node:
        """Up to the end of the group that it stands in."""
        if depth > _DEPTH_MAX:
            raise Unsupported
        branches: list[Node] = []
        parts: list[Node] = []
        while self.more() and not self._peek(")"):
            if self._skip("|"):
                branches.append(Sequence(tuple(parts)))
                parts = []
            elif self._peek("(?") and not self._peek("(?P<") and not self._peek("(?<"):
                self._at += 2
                inner = self._flags(flags)
                if self._text[self._at - 1] == ")":
                    flags = inner
                    if self._bounds() is not None:
                        raise Unsupported  # it is what stands before that RE2 repeats
                else:
                    parts.append(self._repeated(self._group(inner, depth)))
            elif self._skip("("):
                if self._skip("?P<") or self._skip("?<"):
                    self._until(">")
                parts.append(self._repeated(self._group(flags, depth)))
            else:
                parts.append(self._repeated(self._one(flags)))
        branches.append(Sequence(tuple(parts)))
        return branches[0] if len(branches) == 1 else Choice(tuple(branches))

    def _group(self, flags: _Flags, depth: int) -> Node:
        inner = self.choice(flags, depth + 1)
        if self._next() != ")":
            raise Unsupported
        return inner

    def _flags(self, flags: _Flags) -> _Flags:
        """Those behind `(?`, up to `:` or `)`."""
        value = True
        while (flag := self._next()) not in ":)":
            if flag == "-":
                value = False
            elif flag == "i":
                flags = replace(flags, folds=value)
            elif flag == "s":
                flags = replace(flags, dot_takes_newline=value)
            elif flag == "m":
                flags = replace(flags, by_line=value)
            elif flag != "U":  # which of several ways a text matches in does not matter
                raise Unsupported
        return flags

    def _repeated(self, part: Node) -> Node:
        bounds = self._bounds()
        if bounds is None:
            return part
        self._skip("?")
        if self._bounds() is not None:
            raise Unsupported
        return Repeat(part, *bounds)

    def _bounds(self) -> tuple[int, int | None] | None:
        for sign, bounds in (("*", (0, None)), ("+", (1, None)), ("?", (0, 1))):
            if self._skip(sign):
                return bounds
        if not self._peek("{"):
            return None
        before = self._at
        self._at += 1
        least, comma, most = self._text[self._at : self._text.find("}", self._at)].partition(",")
        if "}" not in self._text[self._at :] or not _is_number(least) or not (most == "" or _is_number(most)):
            self._at = before
            return None  # a brace as such
        self._until("}")
        if f"{int(least)}" != least or (most and f"{int(most)}" != most):
            raise Unsupported  # RE2 takes leading zeros for text
        return int(least), int(least) if not comma else int(most) if most else None

    def _one(self, flags: _Flags) -> Node:
        """A character, a class or an assertion."""
        char = self._next()
        if char == ".":
            return OneOf(((0, POINT_MAX),) if flags.dot_takes_newline else without(((0x0A, 0x0A),)))
        if char == "[":
            return OneOf(self._class(flags))
        if char in "^$":
            if flags.by_line:
                raise Unsupported
            return Edge(char == "$")
        if char in "*+?":
            raise Unsupported
        if char == "\\":
            if self._skip("A"):
                return Edge(False)
            if self._skip("z"):
                return Edge(True)
            return OneOf(self._escaped(flags))
        return OneOf(_literal(ord(char), flags))

    def _escaped(self, flags: _Flags) -> Ranges:
        """Behind a backslash, in a class or outside."""
        char = self._next()
        if char.lower() in _PERL:
            ranges = _PERL[char.lower()]
            ranges = folded(ranges) if flags.folds else ranges
            return without(ranges) if char.isupper() else ranges
        return _literal(self._point(char), flags)

    def _point(self, char: str) -> int:
        """The character that this one means behind a backslash."""
        if char in _CONTROLS:
            return _CONTROLS[char]
        if char == "x":
            digits = self._until("}") if self._skip("{") else self._next() + self._next()
            point = int(digits, 16)
            if 0xD800 <= point <= 0xDFFF or point > POINT_MAX:
                raise Unsupported
            return point
        if char.isalnum() or ord(char) > 0x7F:
            raise Unsupported
        return ord(char)

    def _class(self, flags: _Flags) -> Ranges:
        is_negated = self._skip("^")
        ranges: list[tuple[int, int]] = []
        is_first = True
        while is_first or not self._peek("]"):
            is_first = False
            if self._skip("[:"):
                name = self._until(":]")
                named = _POSIX.get(name.removeprefix("^"))
                if named is None:
                    raise Unsupported
                named = folded(named) if flags.folds else named
                ranges += without(named) if name.startswith("^") else named
            elif self._peek("\\") and self._text[self._at + 1 : self._at + 2].lower() in _PERL:
                self._at += 1
                ranges += self._escaped(flags)
            else:
                low = high = self._class_point()
                if self._peek("-") and not self._peek("-]"):
                    self._at += 1
                    high = self._class_point()
                if low > high:
                    raise Unsupported
                ranges += folded(((low, high),)) if flags.folds else ((low, high),)
        self._at += 1
        return without(tuple(ranges)) if is_negated else tuple(ranges)

    def _class_point(self) -> int:
        char = self._next()
        return self._point(self._next()) if char == "\\" else ord(char)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _literal(point: int, flags: _Flags) -> Ranges:
    return folded(((point, point),)) if flags.folds else ((point, point),)
