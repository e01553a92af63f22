"""Label sets on their way into a block: sorted symbols, and rows of symbol numbers in the order of the block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from mimir_ray.encoding.bits import copy_bytes
from mimir_ray.kernel import I64, U8, OutU8, kernel
from mimir_ray.model.labels import LabelColumns
from mimir_ray.tsdb.index.columns import IndexView

from .ordering import bytewise_order, differs_from_previous


@dataclass(frozen=True, slots=True)
class Symbols:
    """K different strings in bytewise order: string i is arena[cuts[i]:cuts[i + 1]] (uint8, int64[K + 1])."""

    arena: NDArray[np.uint8]
    cuts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.cuts) - 1

    def texts(self) -> list[str]:
        """All of them; for small tables and tests."""
        cuts = self.cuts.tolist()
        raw = self.arena.tobytes()
        return [raw[start:end].decode("utf-8", "replace") for start, end in pairwise(cuts)]


@dataclass(frozen=True, slots=True)
class SeriesLabels:
    """S label sets: set s has the pairs (names[i], values[i]), symbol numbers, i in offsets[s]:offsets[s + 1].

    Names ascend in a set, and sets ascend (Upstream: model/labels.Compare) once `sorted_sets` was applied.
    """

    symbols: Symbols
    offsets: NDArray[np.int64]
    names: NDArray[np.int32]
    values: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def take(self, rows: NDArray[np.int64]) -> SeriesLabels:
        """The sets of these rows, in their order."""
        offsets, cells = take_ranges(self.offsets, rows)
        return SeriesLabels(self.symbols, offsets, self.names[cells], self.values[cells])

    def keys(self) -> NDArray[np.uint8]:
        """Set s as the string keys[8 * offsets[s]:8 * offsets[s + 1]]: they sort as the sets do."""
        # Symbols are sorted, so pairs compare as numbers, and sets as strings of big-endian ones.
        pairs = np.empty((len(self.names), 2), ">u4")
        pairs[:, 0], pairs[:, 1] = self.names, self.values
        return pairs.view(np.uint8).ravel()

    def order(self) -> NDArray[np.int64]:
        """int64[S]: the rows from the first label set to the last."""
        return bytewise_order(self.keys(), self.offsets * 8)

    def compacted(self) -> SeriesLabels:
        """The same sets over only the symbols that they use."""
        used = np.zeros(len(self.symbols), np.bool_)
        used[self.names] = True
        used[self.values] = True
        if used.all():
            return self
        kept = np.flatnonzero(used)
        numbers = (np.cumsum(used) - 1).astype(np.int32)
        cuts = self.symbols.cuts
        return SeriesLabels(
            gathered(self.symbols.arena, cuts[kept], cuts[kept + 1]),
            self.offsets,
            numbers[self.names],
            numbers[self.values],
        )


def take_ranges(offsets: NDArray[np.int64], rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(offsets of the chosen ranges back to back, int64[N]: where their elements are now)."""
    lengths = offsets[rows + 1] - offsets[rows]
    taken = np.zeros(len(rows) + 1, np.int64)
    np.cumsum(lengths, out=taken[1:])
    return taken, np.arange(taken[-1], dtype=np.int64) + np.repeat(offsets[rows] - taken[:-1], lengths)


@kernel
def gather(arena: U8, starts: I64, ends: I64, cuts: I64, out: OutU8) -> None:
    """Copies arena[starts[i]:ends[i]] to out[cuts[i]:]."""
    for i in range(len(starts)):
        copy_bytes(out, cuts[i], arena, starts[i], ends[i] - starts[i])


def gathered(arena: NDArray[np.uint8], starts: NDArray[np.int64], ends: NDArray[np.int64]) -> Symbols:
    """The strings arena[starts[i]:ends[i]] back to back."""
    cuts = np.zeros(len(starts) + 1, np.int64)
    np.cumsum(ends - starts, out=cuts[1:])
    out = np.empty(int(cuts[-1]), np.uint8)
    gather(arena, starts, ends, cuts, out)
    return Symbols(out, cuts)


def _ranked(
    arena: NDArray[np.uint8], cuts: NDArray[np.int64], used: NDArray[np.int64]
) -> tuple[Symbols, NDArray[np.int32]]:
    """The used strings (each once) in order, and int32 by old number: the new one."""
    some = gathered(arena, cuts[used], cuts[used + 1])
    order = bytewise_order(some.arena, some.cuts)
    ranks = np.zeros(len(cuts) - 1, np.int32)
    ranks[used[order]] = np.arange(len(used), dtype=np.int32)
    return gathered(some.arena, some.cuts[order], some.cuts[order + 1]), ranks


def labels_of_columns(labels: LabelColumns) -> SeriesLabels:
    """From columns of codes; rows as they come. Python work per string."""
    strings = dict.fromkeys(labels.names)
    table = labels.table.strings
    used = np.unique(labels.codes)
    used = used[used > 0]
    strings.update(dict.fromkeys(table[code] for code in used.tolist()))
    raw = [text.encode("utf-8", "surrogatepass") for text in strings]
    cuts = np.zeros(len(raw) + 1, np.int64)
    np.cumsum([len(one) for one in raw], out=cuts[1:])
    symbols, ranks = _ranked(np.frombuffer(b"".join(raw), np.uint8), cuts, np.arange(len(raw), dtype=np.int64))
    number = dict(zip(strings, ranks.tolist(), strict=True))
    rank_of_code = np.zeros(len(table), np.int32)
    rank_of_code[used] = [number[table[code]] for code in used.tolist()]
    rank_of_name = np.array([number[name] for name in labels.names], np.int32)
    rows, columns = np.nonzero(labels.codes)
    offsets = np.zeros(len(labels) + 1, np.int64)
    np.cumsum(np.bincount(rows, minlength=len(labels)), out=offsets[1:])
    # Columns are sorted as text, which for valid strings is the order of their UTF-8.
    return SeriesLabels(symbols, offsets, rank_of_name[columns], rank_of_code[labels.codes[rows, columns]])


def labels_of_index(view: IndexView, references: NDArray[np.int32]) -> SeriesLabels:
    """From the index of a head, of these series; rows as they come."""
    offsets, cells = take_ranges(view.row_offsets, references.astype(np.int64))
    pairs = view.cells[cells]
    names, values = view.name_symbols[view.pair_names[pairs]], view.pair_values[pairs]
    used = np.zeros(view.symbols, np.bool_)
    used[names] = True
    used[values] = True
    symbols, ranks = _ranked(view.arena, view.symbol_cuts[: view.symbols + 1], np.flatnonzero(used))
    return SeriesLabels(symbols, offsets, ranks[names], ranks[values])


def join_labels(parts: Sequence[SeriesLabels]) -> SeriesLabels:
    """The rows of all parts one after another, over the symbols of all."""
    sizes = [len(part.symbols) for part in parts]
    firsts = np.cumsum([0, *sizes])
    lengths = np.concatenate([np.diff(part.symbols.cuts) for part in parts])
    cuts = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    arena = np.concatenate([part.symbols.arena for part in parts])
    order = bytewise_order(arena, cuts)
    different = np.empty(len(order), np.bool_)
    differs_from_previous(arena, cuts, order, different)
    chosen = order[different]
    ranks = np.empty(len(order), np.int32)
    ranks[order] = (np.cumsum(different) - 1).astype(np.int32)
    rows = np.concatenate([np.diff(part.offsets) for part in parts])
    return SeriesLabels(
        gathered(arena, cuts[chosen], cuts[chosen + 1]),
        np.concatenate(([0], np.cumsum(rows))).astype(np.int64),
        np.concatenate([ranks[part.names + first] for part, first in zip(parts, firsts[:-1], strict=True)]),
        np.concatenate([ranks[part.values + first] for part, first in zip(parts, firsts[:-1], strict=True)]),
    )
