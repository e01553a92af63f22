"""`LabelSets`: labels of what was found in blocks, as bytes and numbers; text only for those that are answered with.

Series of several blocks are brought together by kernels (`join_sets`): strings that are equal get one number, then
label sets that are equal get one, both in hash tables, confirmed on what they stand for. So a series costs Python
nothing for each block that has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mimir_ray.encoding.bits import equal_bytes, multiply_128
from mimir_ray.encoding.hashing import hash64, hash_seeds
from mimir_ray.kernel import I32, I64, U8, I64x2, OutI32, OutI32x2, OutI64, kernel
from mimir_ray.model.labels import LabelColumns, StringTable
from mimir_ray.tsdb.block.series_labels import gathered
from mimir_ray.tsdb.index.columns import strings_of
from mimir_ray.tsdb.index.interning import stable_hashes

_SEED0, _SEED1 = (int(seed >> np.uint64(1)) for seed in hash_seeds()[:2])
# Columns of `bases`: where the strings, cuts, rows' offsets, labels and rows of a part begin among those of all.
_ARENA, _CUTS, _OFFSETS, _CELLS, _ROWS = range(5)


@dataclass(frozen=True, slots=True)
class LabelSets:
    """S label sets over T different strings: string t is arena[cuts[t]:cuts[t + 1]] (uint8, int64[T + 1]).

    Set s has the pairs (names[i], values[i]), int32 numbers of strings, i in offsets[s]:offsets[s + 1] (int64[S + 1]).
    """

    arena: NDArray[np.uint8]
    cuts: NDArray[np.int64]
    offsets: NDArray[np.int64]
    names: NDArray[np.int32]
    values: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def nbytes(self) -> int:
        return sum(one.nbytes for one in (self.arena, self.cuts, self.offsets, self.names, self.values))

    @property
    def strings(self) -> int:
        return len(self.cuts) - 1

    def hashes(self) -> NDArray[np.uint64]:
        """uint64[S]: Prometheus' labels.StableHash."""
        found = np.empty(len(self), np.uint64)
        cells, strings = np.arange(len(self.names), dtype=np.int32), np.arange(self.strings, dtype=np.int32)
        stable_hashes(0, len(self), self.offsets, cells, self.names, self.values, strings, self.arena, self.cuts, found)
        return found

    def label_names(self) -> list[str]:
        """Sorted names of all labels."""
        return sorted(strings_of(np.unique(self.names), self.arena, self.cuts))

    def label_values(self, name: str) -> list[str]:
        """Sorted values of one label."""
        names = np.unique(self.names)
        for number, text in zip(names.tolist(), strings_of(names, self.arena, self.cuts), strict=True):
            if text == name:
                texts = strings_of(np.unique(self.values[self.names == number]), self.arena, self.cuts)
                return sorted(filter(None, texts))
        return []

    def columns(self) -> LabelColumns:
        """The same with text. Python work per string."""
        texts = strings_of(np.arange(self.strings, dtype=np.int32), self.arena, self.cuts)
        names = sorted((texts[number], number) for number in np.unique(self.names).tolist())
        columns = np.full(self.strings, -1, np.int32)
        columns[[number for _, number in names]] = np.arange(len(names), dtype=np.int32)
        codes = np.zeros((len(self), len(names)), np.int32)
        fill_codes(self.offsets, self.names, self.values, columns, self.cuts, codes)
        return LabelColumns(tuple(text for text, _ in names), codes, StringTable(["", *texts]))


@kernel
def number_strings(names: OutI32, values: OutI32, slots: OutI32, used: OutI64) -> int:
    """Numbers symbols by first use, in place.

    Args:
        names, values: int32[N], symbols, each replaced by its number.
        slots: zeros, a power of two, at least twice as many as there may be different ones.
        used: int64, long enough, written: number to symbol.

    Returns how many different ones there are.
    """
    mask = np.int64(len(slots) - 1)
    count = 0
    for i in range(2 * len(names)):
        symbol = np.int64(values[i >> 1]) if i & 1 else np.int64(names[i >> 1])
        slot = symbol & mask
        while slots[slot] != 0 and used[slots[slot] - 1] != symbol:
            slot = (slot + 1) & mask
        if slots[slot] == 0:
            used[count] = symbol
            count += 1
            slots[slot] = count
        if i & 1:
            values[i >> 1] = slots[slot] - 1
        else:
            names[i >> 1] = slots[slot] - 1
    return count


@kernel
def fill_codes(offsets: I64, names: I32, values: I32, columns: I32, cuts: I64, codes: OutI32x2) -> None:
    """codes[s, columns[name]] = 1 + the value's number, for every label whose value is not empty."""
    for s in range(len(offsets) - 1):
        for i in range(offsets[s], offsets[s + 1]):
            value = values[i]
            if cuts[value + 1] > cuts[value]:
                codes[s, columns[names[i]]] = value + 1


@kernel
def find_column(offsets: I64, names: I32, values: I32, name: int, column: OutI32) -> None:
    """column[s]: the value that set s has for the name, -1 for none."""
    for s in range(len(offsets) - 1):
        column[s] = -1
        for i in range(offsets[s], offsets[s + 1]):
            if names[i] == name:
                column[s] = values[i]


@kernel
def group_sets(
    rows: I64, bases: I64x2, arena: U8, cuts: I64, offsets: I64, names: I32, values: I32, seed0: int, seed1: int,
    ids: OutI32, string_slots: OutI32, starts: OutI64, ends: OutI64,
    set_slots: OutI32, joined: OutI64, joined_names: OutI32, joined_values: OutI32, groups: OutI64, counts: OutI64,
) -> None:  # fmt: skip
    """Numbers different strings, and different sets of them, by first use.

    Args:
        rows: int64[R], ascending: rows of all parts one behind the other.
        bases: int64[parts + 1, 5], where each part begins in the columns of `LabelSets`, which follow each other.
        ids: int32 zeros, as long as `cuts`: of each string that was seen, its number + 1.
        string_slots, set_slots: zeros, powers of two, at least twice as many as there may be strings, and rows.
        starts, ends: written: string number t is arena[starts[t]:ends[t]].
        joined: int64[R + 1], joined_names, joined_values: written: the different sets, as in `LabelSets`.
        groups: int64[R], written: which of them each row is.
        counts: int64[2], written: strings, sets.
    """
    string_mask, set_mask = np.int64(len(string_slots) - 1), np.int64(len(set_slots) - 1)
    key0, key1 = np.uint64(seed0), np.uint64(seed1)
    strings = sets = part = np.int64(0)
    joined[0] = 0
    for r in range(len(rows)):
        row = rows[r]
        while row >= bases[part + 1, _ROWS]:
            part += 1
        at = bases[part, _OFFSETS] + row - bases[part, _ROWS]
        first, last = bases[part, _CELLS] + offsets[at], bases[part, _CELLS] + offsets[at + 1]
        begin = joined[sets]
        key = key0
        for i in range(2 * first, 2 * last):
            which = bases[part, _CUTS] + np.int64(values[i >> 1] if i & 1 else names[i >> 1])
            if ids[which] == 0:
                start, end = bases[part, _ARENA] + cuts[which], bases[part, _ARENA] + cuts[which + 1]
                slot = np.int64(hash64(arena, start, end, key0, key1)) & string_mask
                while string_slots[slot] != 0:
                    known = string_slots[slot] - 1
                    if ends[known] - starts[known] == end - start and equal_bytes(
                        arena, starts[known], arena, start, end - start
                    ):
                        break
                    slot = (slot + 1) & string_mask
                if string_slots[slot] == 0:
                    starts[strings], ends[strings] = start, end
                    strings += 1
                    string_slots[slot] = strings
                ids[which] = string_slots[slot]
            number = ids[which] - 1
            place = begin + (i >> 1) - first
            if i & 1:
                joined_values[place] = number
            else:
                joined_names[place] = number
            high, low = multiply_128(key ^ np.uint64(0x9E3779B97F4A7C15), np.uint64(number) + key1)
            key = high ^ low
        size = last - first
        slot = np.int64(key) & set_mask
        found = np.int64(-1)
        while set_slots[slot] != 0:
            known = np.int64(set_slots[slot]) - 1
            if joined[known + 1] - joined[known] == size:
                same = True
                for i in range(size):
                    same &= joined_names[joined[known] + i] == joined_names[begin + i]
                    same &= joined_values[joined[known] + i] == joined_values[begin + i]
                if same:
                    found = known
                    break
            slot = (slot + 1) & set_mask
        if found < 0:
            found = sets
            sets += 1
            set_slots[slot] = sets
            joined[sets] = begin + size
        groups[r] = found
    counts[0], counts[1] = strings, sets


def _room(count: int) -> int:
    """A power of two that so many entries fill at most half."""
    return 1 << max(4, (2 * count - 1).bit_length())


def packed(names: NDArray[np.int32], values: NDArray[np.int32], symbols: int) -> NDArray[np.int64]:
    """The different symbols of these labels (all below `symbols`); labels become numbers of those, in place."""
    most = min(2 * len(names), symbols)
    used = np.empty(most, np.int64)
    return used[: number_strings(names, values, np.zeros(_room(most), np.int32), used)]


def join_sets(parts: Sequence[LabelSets], rows: NDArray[np.int64]) -> tuple[LabelSets, NDArray[np.int64]]:
    """(the label sets of these rows, each once, in the order of first sight; int64[R]: which of them each row has).

    `rows`: ascending, of all parts one behind the other.
    """
    bases = np.zeros((len(parts) + 1, 5), np.int64)
    np.cumsum(
        [(len(one.arena), len(one.cuts), len(one.offsets), len(one.names), len(one.offsets) - 1) for one in parts],
        axis=0,
        out=bases[1:],
    )
    columns = [
        np.concatenate([getattr(one, name) for one in parts]) if len(parts) > 1 else getattr(parts[0], name)
        for name in ("arena", "cuts", "offsets", "names", "values")
    ]
    arena, cuts, offsets, names, values = columns
    starts, ends = np.empty(len(cuts), np.int64), np.empty(len(cuts), np.int64)
    joined, groups, counts = np.empty(len(rows) + 1, np.int64), np.empty(len(rows), np.int64), np.empty(2, np.int64)
    joined_names, joined_values = np.empty(len(names), np.int32), np.empty(len(names), np.int32)
    group_sets(
        rows, bases, arena, cuts, offsets, names, values, _SEED0, _SEED1,
        np.zeros(len(cuts), np.int32), np.zeros(_room(len(cuts)), np.int32), starts, ends,
        np.zeros(_room(len(rows)), np.int32), joined, joined_names, joined_values, groups, counts,
    )  # fmt: skip
    strings, sets = counts.tolist()
    held = gathered(arena, starts[:strings], ends[:strings])
    cells = int(joined[sets])
    return LabelSets(held.arena, held.cuts, joined[: sets + 1], joined_names[:cells], joined_values[:cells]), groups
