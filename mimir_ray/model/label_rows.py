"""`LabelRows`: labels of many series as ragged columns, made to be rewritten.

Where `labels.LabelColumns` gives every value a code and every name a column, here a label is a place: the code of its
name, and where its value stands in a text. Nothing is looked up in a dictionary but the names, so that labels come in
and go out again for the price of copying them; values are compared where a rule asks for them (`group`).

Room for further labels is kept in each row, and a label without a value is none: writing and taking off are done in
place.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mimir_ray.encoding.bits import copy_bytes, equal_bytes
from mimir_ray.encoding.hashing import hash64, hash_seeds
from mimir_ray.kernel import I32, I64, U8, Bool, OutI32, OutI64, OutU8, device, kernel, u64

NO_NAME = -1
"""Code of a place that is not used."""

_SEEDS = hash_seeds().tolist()


class Text:
    """Bytes that grow at their end: `data[:size]`."""

    __slots__ = ("data", "size")

    def __init__(self, data: NDArray[np.uint8], size: int) -> None:
        """`data` is taken over; what it has beyond `size` is room."""
        self.data = data
        self.size = size

    def reserve(self, count: int) -> int:
        """Makes the text so many bytes longer, to be written by the caller; where they begin."""
        start = self.size
        self.size += count
        if self.size > len(self.data):
            longer = np.empty(self.size + self.size // 2, np.uint8)
            longer[:start] = self.data[:start]
            self.data = longer
        return start

    def append(self, pieces: Sequence[bytes]) -> NDArray[np.int64]:
        """int64[len(pieces) + 1]: where each stands now, behind what was there."""
        added = b"".join(pieces)
        start = self.reserve(len(added))
        self.data[start : self.size] = np.frombuffer(added, np.uint8)
        places = np.empty(len(pieces) + 1, np.int64)
        places[0] = start
        np.cumsum(np.fromiter(map(len, pieces), np.int64, len(pieces)), out=places[1:])
        places[1:] += start
        return places


@dataclass(frozen=True, slots=True)
class Groups:
    """Series by the values of some labels.

    `of`: int32[M], the group of each series, -1 where it does not take part. `spans`: int64[G, K, 2], where the values
    of the K labels of a group begin and end.
    """

    of: NDArray[np.int32]
    spans: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.spans)


@dataclass(slots=True)
class LabelRows:
    """Labels of M series, of P places.

    The places `offsets[m]:offsets[m + 1]` (int64[M + 1]) are those of series m. A place has the name
    `names[codes[p]]` (int32[P]; `NO_NAME`: free) and the value `text.data[starts[p]:ends[p]]` (int64[P]); where that is
    empty there is no such label, and the place is free too. All is UTF-8, names of one series differ, and their order
    means nothing. Every series has at least one free place for each label that is to be written.

    `alive`: bool[M]; series that are not are left as they are.
    """

    text: Text
    names: list[bytes]
    offsets: NDArray[np.int64]
    codes: NDArray[np.int32]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    alive: NDArray[np.bool_]
    _code_of: dict[bytes, int] = field(init=False)

    def __post_init__(self) -> None:
        self._code_of = {name: code for code, name in enumerate(self.names)}

    def __len__(self) -> int:
        return len(self.alive)

    def find(self, name: bytes) -> int:
        """The code of a name; `NO_NAME` if no series has it."""
        return self._code_of.get(name, NO_NAME)

    def code(self, name: bytes) -> int:
        """The code of a name, which is added if need be."""
        code = self._code_of.setdefault(name, len(self.names))
        if code == len(self.names):
            self.names.append(name)
        return code

    def ranks(self) -> NDArray[np.int32]:
        """int32[len(names)]: how many names sort before each."""
        ranks = np.empty(len(self.names), np.int32)
        ranks[sorted(range(len(self.names)), key=self.names.__getitem__)] = np.arange(len(self.names))
        return ranks

    def group(self, names: Sequence[bytes]) -> Groups:
        """The series that are alive by the values of these labels."""
        wanted = np.array([self.find(name) for name in names], np.int32)
        of = np.empty(len(self), np.int32)
        spans = np.zeros(((len(self) + 1) * len(names), 2), np.int64)
        slots = np.full(1 << (2 * len(self)).bit_length(), -1, np.int32)
        count = group_rows(
            self.text.data, self.offsets, self.codes, self.starts, self.ends, self.alive, wanted, _SEEDS[0], _SEEDS[1],
            slots, of, spans.ravel(),
        )  # fmt: skip
        return Groups(of, spans[: count * len(names)].reshape(count, len(names), 2))

    def join(self, groups: Groups, separator: bytes) -> NDArray[np.int64]:
        """int64[G + 1]: where in the text the joined values of each group stand, back to back."""
        count, labels, _ = groups.spans.shape
        offsets = np.zeros(count + 1, np.int64)
        lengths = (groups.spans[:, :, 1] - groups.spans[:, :, 0]).sum(axis=1) + len(separator) * max(0, labels - 1)
        np.cumsum(lengths, out=offsets[1:])
        offsets += self.text.reserve(int(offsets[-1]))
        join_spans(groups.spans.ravel(), labels, np.frombuffer(separator, np.uint8), offsets, self.text.data)
        return offsets

    def texts(self, offsets: NDArray[np.int64]) -> list[str]:
        """Parts of the text that stand back to back."""
        first = int(offsets[0])
        whole = self.text.data[first : int(offsets[-1])].tobytes()
        cuts = (offsets - first).tolist()
        if whole.isascii():
            text = whole.decode()
            return [text[start:end] for start, end in itertools.pairwise(cuts)]
        return [whole[start:end].decode() for start, end in itertools.pairwise(cuts)]

    def write(
        self, groups: NDArray[np.int32], codes: NDArray[np.int32], starts: NDArray[np.int64], ends: NDArray[np.int64]
    ) -> None:
        """Writes a label to every series that is alive.

        Args:
            groups: int32[M].
            codes, starts, ends: of each group: the label's name, or `NO_NAME`, which leaves its series alone, and where
                its value stands in the text; an empty one takes the label off.
        """
        write_rows(groups, codes, starts, ends, self.alive, self.offsets, self.codes, self.starts, self.ends)

    def write_all(self, name: bytes, value: bytes) -> None:
        """Writes one and the same label to every series that is alive."""
        places = self.text.append((value,))
        groups = np.zeros(len(self), np.int32)
        self.write(groups, np.array([self.code(name)], np.int32), places[:1], places[1:])

    def take_off(self, gone: NDArray[np.bool_]) -> None:
        """Takes labels off every series: those with a name that is to go (bool[len(names)])."""
        if gone.any():
            places = np.append(gone, False)[self.codes]  # the last one answers for NO_NAME
            self.ends[places] = self.starts[places]

    def take_off_named(self, names: Iterable[bytes]) -> None:
        """The same by the names themselves."""
        gone = np.zeros(len(self.names), np.bool_)
        gone[[code for name in names if (code := self.find(name)) >= 0]] = True
        self.take_off(gone)

    def copy_names(self, other: NDArray[np.int32]) -> None:
        """Gives labels named i a second name `other[i]` (int32, `NO_NAME`: none) in the series that are alive.

        In the order of the names; each value is the one from before.
        """
        copied = np.append(other, NO_NAME)[self.codes] != NO_NAME
        copied &= self.ends > self.starts
        sums = np.zeros(len(self.codes) + 1, np.int64)
        np.cumsum(copied, out=sums[1:])
        offsets = self.offsets + sums[self.offsets]
        places = int(offsets[-1])
        codes, starts, ends = np.empty(places, np.int32), np.empty(places, np.int64), np.empty(places, np.int64)
        copy_rows(
            self.offsets, self.codes, self.starts, self.ends, self.alive, other, self.ranks(),
            np.empty(places + 1, np.int64), offsets, codes, starts, ends,
        )  # fmt: skip
        self.offsets, self.codes, self.starts, self.ends = offsets, codes, starts, ends


@kernel
def group_rows(
    text: U8,
    offsets: I64,
    codes: I32,
    starts: I64,
    ends: I64,
    alive: Bool,
    wanted: I32,
    seed: u64,
    other_seed: u64,
    slots: OutI32,
    of: OutI32,
    spans: OutI64,
) -> int:
    """Numbers the series by their values of the labels `wanted`; returns how many groups there are.

    Args:
        wanted: int32[K], codes of names; -1: no series has it.
        slots: int32, a power of two long and more than M, -1 everywhere: a table with linear probing.
        of: int32[M], written.
        spans: int64[(M + 1) * K * 2], zeros; written for the groups, the rest is scratch.
    """
    mask = np.uint64(len(slots) - 1)
    width = 2 * len(wanted)
    count = 0
    for row in range(len(alive)):
        if not alive[row]:
            of[row] = -1
            continue
        mine = count * width
        state = seed
        for label in range(len(wanted)):
            start, end = np.int64(0), np.int64(0)
            code = wanted[label]
            if code >= 0:
                for place in range(offsets[row], offsets[row + 1]):
                    if codes[place] == code:
                        start, end = starts[place], ends[place]
                        break
            spans[mine + 2 * label], spans[mine + 2 * label + 1] = start, end
            state = hash64(text, start, end, state | np.uint64(1), other_seed)
        slot = state & mask
        while slots[slot] >= 0:
            theirs = np.int64(slots[slot]) * width
            same = True
            for at in range(0, width, 2):
                start, other = spans[mine + at], spans[theirs + at]
                length = spans[mine + at + 1] - start
                if spans[theirs + at + 1] - other != length or not equal_bytes(text, start, text, other, length):
                    same = False
                    break
            if same:
                break
            slot = (slot + np.uint64(1)) & mask
        if slots[slot] < 0:
            slots[slot] = np.int32(count)
            count += 1
        of[row] = slots[slot]
    return count


@kernel
def join_spans(spans: I64, labels: int, separator: U8, offsets: I64, text: OutU8) -> None:
    """Writes the values of group g with separators between them to text[offsets[g]:offsets[g + 1]].

    Args:
        spans: int64[G * labels * 2], where in `text` each value begins and ends.
    """
    for group in range(len(offsets) - 1):
        to = offsets[group]
        for label in range(labels):
            if label > 0:
                copy_bytes(text, to, separator, 0, len(separator))
                to += len(separator)
            start = spans[2 * (group * labels + label)]
            length = spans[2 * (group * labels + label) + 1] - start
            copy_bytes(text, to, text, start, length)
            to += length


@device
def _place_of(code: Any, first: Any, last: Any, codes: Any, starts: Any, ends: Any) -> Any:
    """Which of the places first..last - 1 has a label of this name; the first free one where none has."""
    free: Any = np.int64(-1)
    for place in range(first, last):
        if codes[place] == code:
            return place
        if free < 0 and starts[place] == ends[place]:
            free = place
    return free


@kernel
def write_rows(
    groups: I32,
    new_codes: I32,
    new_starts: I64,
    new_ends: I64,
    alive: Bool,
    offsets: I64,
    codes: OutI32,
    starts: OutI64,
    ends: OutI64,
) -> None:
    """See `LabelRows.write`."""
    for row in range(len(alive)):
        if not alive[row] or new_codes[groups[row]] < 0:
            continue
        group = groups[row]
        code = new_codes[group]
        to = _place_of(code, offsets[row], offsets[row + 1], codes, starts, ends)
        codes[to], starts[to], ends[to] = code, new_starts[group], new_ends[group]


@kernel
def copy_rows(
    offsets: I64,
    codes: I32,
    starts: I64,
    ends: I64,
    alive: Bool,
    other: I32,
    ranks: I32,
    order: OutI64,
    new_offsets: I64,
    new_codes: OutI32,
    new_starts: OutI64,
    new_ends: OutI64,
) -> None:
    """See `LabelRows.copy_names`; writes the rows at their new places.

    Args:
        order: int64, scratch, as many as a row has places.
    """
    for row in range(len(alive)):
        to = new_offsets[row]
        matched = 0
        for place in range(offsets[row], offsets[row + 1]):
            new_codes[to], new_starts[to], new_ends[to] = codes[place], starts[place], ends[place]
            to += 1
            code = codes[place]
            if code < 0 or other[code] < 0 or starts[place] == ends[place]:
                continue
            at = matched
            while at > 0 and ranks[codes[order[at - 1]]] > ranks[code]:
                order[at] = order[at - 1]
                at -= 1
            order[at] = place
            matched += 1
        for place in range(to, new_offsets[row + 1]):
            new_codes[place], new_starts[place], new_ends[place] = -1, 0, 0
        if not alive[row]:
            continue
        for at in range(matched):
            place = order[at]
            code = other[codes[place]]
            there = _place_of(code, new_offsets[row], new_offsets[row + 1], new_codes, new_starts, new_ends)
            new_codes[there], new_starts[there], new_ends[there] = code, starts[place], ends[place]
