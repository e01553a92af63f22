"""Rows of pair ids to `LabelColumns`: which names occur, which strings, and the matrix of their codes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mimir_ray.kernel import I32, I64, OutBool, OutI32, OutI32x2, OutI64, kernel
from mimir_ray.model.labels import LabelColumns, StringTable

from .interning import gather_strings


@kernel
def mark_names(references: I32, row_offsets: I64, cells: I32, pair_names: I32, seen: OutBool) -> None:
    """Sets seen[name id] for every label of these series."""
    for r in range(len(references)):
        series = references[r]
        for at in range(row_offsets[series], row_offsets[series + 1]):
            seen[pair_names[cells[at]]] = True


@kernel
def fill_codes(
    references: I32, row_offsets: I64, cells: I32, pair_names: I32, pair_values: I32, columns: I32,
    code_of: OutI32, used: OutI32, codes: OutI32x2,
) -> int:  # fmt: skip
    """Codes of S series, numbered from 1 by first use.

    Args:
        columns: name id to column, -1 for names that are not wanted.
        code_of: int32[symbols], zeros, written: symbol to code.
        used: long enough, written: code - 1 to symbol.
        codes: int32[S, K], zeros, written.

    Returns the number of strings used.
    """
    count = 0
    for r in range(len(references)):
        series = references[r]
        for at in range(row_offsets[series], row_offsets[series + 1]):
            pair = cells[at]
            column = columns[pair_names[pair]]
            if column < 0:
                continue
            symbol = pair_values[pair]
            code = code_of[symbol]
            if code == 0:
                used[count] = symbol
                count += 1
                code = np.int32(count)
                code_of[symbol] = code
            codes[r, column] = code
    return count


@kernel
def collect_pairs(
    references: I32, row_offsets: I64, cells: I32, pair_names: I32, name: int, seen: OutBool, out: OutI64
) -> int:
    """The different pairs of one name id that these series have, to `out`; `seen` is bool[pairs], False."""
    count = 0
    for r in range(len(references)):
        series = references[r]
        for at in range(row_offsets[series], row_offsets[series + 1]):
            pair = cells[at]
            if pair_names[pair] == name:
                if not seen[pair]:
                    seen[pair] = True
                    out[count] = pair
                    count += 1
                break
    return count


def strings_of(symbols: NDArray[np.int32], arena: NDArray[np.uint8], cuts: NDArray[np.int64]) -> list[str]:
    """The text of symbols; tens of nanoseconds each, unless a string holds a zero byte."""
    if not len(symbols):
        return []
    total = int((cuts[symbols + 1] - cuts[symbols]).sum()) + len(symbols)
    out = np.empty(total, np.uint8)
    gather_strings(symbols, arena, cuts, out)
    texts = out[:-1].tobytes().decode("utf-8", "replace").split("\0")
    if len(texts) == len(symbols):
        return texts
    return [arena[cuts[one] : cuts[one + 1]].tobytes().decode("utf-8", "replace") for one in symbols.tolist()]


@dataclass(frozen=True, slots=True)
class IndexView:
    """A `SeriesIndex` as it was when this was made; the arrays may have grown behind what it knows."""

    arena: NDArray[np.uint8]
    symbol_cuts: NDArray[np.int64]
    pair_names: NDArray[np.int32]
    pair_values: NDArray[np.int32]
    row_offsets: NDArray[np.int64]
    cells: NDArray[np.int32]
    name_symbols: NDArray[np.int32]
    symbols: int
    pairs: int

    def labels(self, references: NDArray[np.int32], wanted: tuple[str, ...] | None = None) -> LabelColumns:
        """The labels of S series with a table of only the strings they use. Python work per string, not per series.

        `wanted`: only these labels, where any series of the index has them.
        """
        if wanted is None:
            seen = np.zeros(len(self.name_symbols), np.bool_)
            mark_names(references, self.row_offsets, self.cells, self.pair_names, seen)
            present = np.flatnonzero(seen)
            texts = strings_of(self.name_symbols[present], self.arena, self.symbol_cuts)
        else:
            every = strings_of(self.name_symbols, self.arena, self.symbol_cuts)
            present = np.array([name for name, text in enumerate(every) if text in wanted], np.intp)
            texts = [every[name] for name in present.tolist()]
        order = sorted(range(len(texts)), key=texts.__getitem__)
        columns = np.full(len(self.name_symbols), -1, np.int32)
        for column, at in enumerate(order):
            columns[present[at]] = column
        codes = np.zeros((len(references), len(order)), np.int32)
        used = np.empty(min(self.symbols, codes.size), np.int32)
        count = fill_codes(
            references, self.row_offsets, self.cells, self.pair_names, self.pair_values, columns,
            np.zeros(self.symbols, np.int32), used, codes,
        )  # fmt: skip
        strings = ["", *strings_of(used[:count], self.arena, self.symbol_cuts)]
        return LabelColumns(tuple(texts[at] for at in order), codes, StringTable(strings))

    def names(self, references: NDArray[np.int32]) -> list[str]:
        """Sorted names of all labels of these series."""
        seen = np.zeros(len(self.name_symbols), np.bool_)
        mark_names(references, self.row_offsets, self.cells, self.pair_names, seen)
        return sorted(strings_of(self.name_symbols[seen], self.arena, self.symbol_cuts))

    def values(self, references: NDArray[np.int32], name_id: int) -> list[str]:
        """Sorted values that these series have of one label."""
        out = np.empty(min(self.pairs, len(references)), np.int64)
        count = collect_pairs(
            references, self.row_offsets, self.cells, self.pair_names, name_id, np.zeros(self.pairs, np.bool_), out
        )
        return sorted(strings_of(self.pair_values[out[:count]], self.arena, self.symbol_cuts))
