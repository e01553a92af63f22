"""Labels: of one series as text, and of many series as columns of codes.

One label set is a sorted tuple of (name, value) pairs without empty values. Many label sets are
`LabelColumns`: strings appear once, series are rows of integer codes. Inside the engine everything
(grouping, matching, sharding) works on codes; text appears in the answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

METRIC_NAME = "__name__"
METRIC_TYPE = "__type__"
METRIC_UNIT = "__unit__"

Labels = tuple[tuple[str, str], ...]
"""One label set: sorted by name (bytewise), names unique, no empty values."""

_NOT_UTF8 = re.compile("[\ud800-\udfff]")
_METRIC_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*\Z")
_LABEL_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*\Z")


def is_legacy_metric_name(name: str) -> bool:
    """Whether the name needs no quotes. Upstream: model.IsValidLegacyMetricName."""
    return _METRIC_NAME.match(name) is not None


def is_legacy_label_name(name: str) -> bool:
    """Whether the name needs no quotes. Upstream: model.LabelName.IsValidLegacy."""
    return _LABEL_NAME.match(name) is not None


def is_utf8(text: str) -> bool:
    """Whether the text came from UTF-8: broken bytes are kept as lone surrogates (Python's "surrogateescape")."""
    return text.isascii() or _NOT_UTF8.search(text) is None


def labels_of(pairs: Mapping[str, str] | Iterable[tuple[str, str]]) -> Labels:
    """A label set in its one order, without labels of empty value (which mean: absent)."""
    items = pairs.items() if isinstance(pairs, Mapping) else pairs
    return tuple(sorted((name, value) for name, value in items if value))


class StringTable:
    """Strings of one query or batch, each with a code. Code 0 is the empty string: label absent."""

    __slots__ = ("_codes", "strings")

    def __init__(self, strings: Sequence[str] = ("",)) -> None:
        self.strings: list[str] = list(strings)
        assert self.strings[0] == ""
        self._codes: dict[str, int] | None = None

    def __len__(self) -> int:
        return len(self.strings)

    def __reduce__(self) -> tuple[type[StringTable], tuple[list[str]]]:
        return StringTable, (self.strings,)

    def _index(self) -> dict[str, int]:
        if self._codes is None:
            self._codes = {text: code for code, text in enumerate(self.strings)}
        return self._codes

    def code(self, text: str) -> int:
        """The string's code; a new string is added."""
        codes = self._index()
        code = codes.get(text)
        if code is None:
            code = codes[text] = len(self.strings)
            self.strings.append(text)
        return code

    def add_all(self, texts: Iterable[str]) -> list[int]:
        """The code of each string; new ones are added. As `code` in a loop, faster."""
        codes, strings = self._index(), self.strings
        found = []
        for text in texts:
            code = codes.setdefault(text, len(strings))
            if code == len(strings):
                strings.append(text)
            found.append(code)
        return found

    def adopt(self, other: StringTable) -> None:
        """Takes over all strings of another table, codes and all. This one must hold nothing yet."""
        assert len(self.strings) == 1
        self.strings[1:] = other.strings[1:]
        self._codes = None

    def clear(self) -> None:
        """Forgets all strings; codes given out before mean nothing any more."""
        del self.strings[1:]
        self._codes = None

    def find(self, text: str) -> int:
        """The string's code, or -1 if it is not here."""
        return self._index().get(text, -1)

    def translate(self, other: StringTable) -> NDArray[np.int32]:
        """int32[len(other)]: the code here of each string there, adding what is missing."""
        return np.fromiter((self.code(text) for text in other.strings), np.int32, len(other.strings))


@dataclass(slots=True)
class LabelColumns:
    """Labels of S series.

    `names`: K label names, sorted, unique. `codes`: int32[S, K], C-contiguous; 0 where the series
    has no such label. `table` gives codes their meaning; all columns inside one query share one table.
    """

    names: tuple[str, ...]
    codes: NDArray[np.int32]
    table: StringTable = field(default_factory=StringTable)

    def __len__(self) -> int:
        return int(self.codes.shape[0])

    @classmethod
    def empty_sets(cls, count: int, table: StringTable) -> LabelColumns:
        """`count` series with no labels at all."""
        return cls((), np.zeros((count, 0), np.int32), table)

    @classmethod
    def from_labels(cls, series: Sequence[Labels], table: StringTable | None = None) -> LabelColumns:
        """From label sets as text; for tests and small things."""
        table = table if table is not None else StringTable()
        names = tuple(sorted({name for labels in series for name, _ in labels}))
        at = {name: column for column, name in enumerate(names)}
        codes = np.zeros((len(series), len(names)), np.int32)
        for row, labels in enumerate(series):
            for name, value in labels:
                codes[row, at[name]] = table.code(value)
        return cls(names, codes, table)

    def labels(self, row: int) -> Labels:
        """The label set of one series as text."""
        strings = self.table.strings
        return tuple(
            (name, strings[code]) for name, code in zip(self.names, self.codes[row].tolist(), strict=True) if code
        )

    def to_labels(self) -> list[Labels]:
        """All label sets as text; O(S * K) Python work, for answers and tests."""
        strings = self.table.strings
        return [
            tuple((name, strings[code]) for name, code in zip(self.names, row, strict=True) if code)
            for row in self.codes.tolist()
        ]

    def column(self, name: str) -> NDArray[np.int32]:
        """int32[S]: the codes of one label; zeros where no series has it."""
        if name in self.names:
            return self.codes[:, self.names.index(name)]
        return np.zeros(len(self), np.int32)

    def take(self, rows: NDArray[np.intp] | NDArray[np.bool_] | slice) -> LabelColumns:
        """The series of these rows."""
        return LabelColumns(self.names, np.ascontiguousarray(self.codes[rows]), self.table)

    def keep(self, names: Iterable[str]) -> LabelColumns:
        """Only these labels (those that exist here)."""
        wanted = set(names)
        at = [column for column, name in enumerate(self.names) if name in wanted]
        if len(at) == len(self.names):
            return self
        return LabelColumns(
            tuple(self.names[column] for column in at), np.ascontiguousarray(self.codes[:, at]), self.table
        )

    def drop(self, names: Iterable[str]) -> LabelColumns:
        """All labels but these."""
        unwanted = set(names)
        return self.keep(name for name in self.names if name not in unwanted)

    def with_column(self, name: str, codes: NDArray[np.int32]) -> LabelColumns:
        """With one label set to (or replaced by) these codes; 0 removes it from a series."""
        rest = self.drop((name,))
        names = tuple(sorted((*rest.names, name)))
        at = names.index(name)
        return LabelColumns(names, np.ascontiguousarray(np.insert(rest.codes, at, codes, axis=1)), self.table)

    def align(self, names: tuple[str, ...]) -> NDArray[np.int32]:
        """int32[S, len(names)]: the codes in the order of `names`, zeros for what is not here."""
        if names == self.names:
            return self.codes
        out = np.zeros((len(self), len(names)), np.int32)
        for column, name in enumerate(names):
            if name in self.names:
                out[:, column] = self.codes[:, self.names.index(name)]
        return out

    def rebase(self, table: StringTable) -> LabelColumns:
        """The same labels with codes of another table, which learns the strings that it lacks."""
        if table is self.table:
            return self
        used = np.unique(self.codes)
        translation = np.zeros(len(self.table), np.int32)
        strings = self.table.strings
        for code in used.tolist():
            translation[code] = table.code(strings[code])
        return LabelColumns(self.names, np.ascontiguousarray(translation[self.codes]), table)

    @staticmethod
    def concat(parts: Sequence[LabelColumns]) -> LabelColumns:
        """All series of all parts, in order. The parts share one table."""
        assert parts and all(part.table is parts[0].table for part in parts)
        if len(parts) == 1:
            return parts[0]
        names = tuple(sorted({name for part in parts for name in part.names}))
        return LabelColumns(names, np.concatenate([part.align(names) for part in parts]), parts[0].table)
