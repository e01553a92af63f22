"""A series index without what was dropped: live series get the references 0, 1, … in the order that they had.

Symbols and pairs that no live series has go too. Everything is renumbered in one pass over each array.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mimir_ray.encoding.bits import copy_bytes
from mimir_ray.kernel import I32, I64, U8, Bool, OutI32, OutI64, OutU8, kernel

from .interning import BYTES, CELLS, CREATED, LIVE, NAMES, PAIRS, SERIES, SYMBOLS
from .series_index import SeriesIndex


@kernel
def copy_rows(kept: Bool, row_offsets: I64, cells: I32, pair_numbers: I32, offsets: OutI64, out: OutI32) -> None:
    """The rows of kept series, back to back, with pairs renumbered; `offsets` int64[kept + 1], written."""
    row = 0
    write = np.int64(0)
    for series in range(len(kept)):
        if kept[series]:
            offsets[row] = write
            for at in range(row_offsets[series], row_offsets[series + 1]):
                out[write] = pair_numbers[cells[at]]
                write += 1
            row += 1
    offsets[row] = write


@kernel
def copy_strings(symbols: I64, arena: U8, cuts: I64, out: OutU8, out_cuts: OutI64) -> None:
    """The bytes of these symbols, back to back; `out_cuts` int64[symbols + 1], written."""
    write = np.int64(0)
    for at in range(len(symbols)):
        start, end = cuts[symbols[at]], cuts[symbols[at] + 1]
        out_cuts[at] = write
        copy_bytes(out, write, arena, start, end - start)
        write += end - start
    out_cuts[len(symbols)] = write


@kernel
def chain_pairs(names: I32, previous: OutI32, heads: OutI32, counts: OutI32) -> None:
    """Chains the pairs of each name from the newest to the oldest. `heads`: -1, `counts`: 0 in every place before."""
    for pair in range(len(names)):
        name = names[pair]
        previous[pair] = heads[name]
        heads[name] = np.int32(pair)
        counts[name] += 1


def without_dropped(index: SeriesIndex) -> SeriesIndex:
    """A new index; the given one is not changed."""
    used = index.used
    series, pairs = len(index), int(used[PAIRS])
    kept = ~index.dropped[:series]
    live = int(kept.sum())
    # Name 0, pair 0 and symbols 0 and 1 are `__name__` and the empty string, whoever has them.
    pairs_kept = index.pair_series[:pairs] > 0
    pairs_kept[0] = True
    names_kept = np.zeros(int(used[NAMES]), np.bool_)
    names_kept[index.pair_names[:pairs][pairs_kept]] = True
    symbols_kept = np.zeros(int(used[SYMBOLS]), np.bool_)
    symbols_kept[:2] = True
    symbols_kept[index.pair_values[:pairs][pairs_kept]] = True
    symbols_kept[index.name_symbols[: len(names_kept)][names_kept]] = True
    pair_numbers, name_numbers, symbol_numbers = _numbers(pairs_kept), _numbers(names_kept), _numbers(symbols_kept)

    symbols = np.flatnonzero(symbols_kept)
    lengths = np.diff(index.symbol_cuts[: len(symbols_kept) + 1])[symbols_kept]
    arena, cuts = np.empty(int(lengths.sum()), np.uint8), np.empty(len(symbols) + 1, np.int64)
    copy_strings(symbols, index.arena, index.symbol_cuts, arena, cuts)
    old_names = index.symbol_names[: len(symbols_kept)][symbols_kept] - 1
    is_name = (old_names >= 0) & names_kept[np.maximum(old_names, 0)]
    symbol_names = np.where(is_name, name_numbers[np.maximum(old_names, 0)] + 1, 0).astype(np.int32)

    pair_names = name_numbers[index.pair_names[:pairs][pairs_kept]]
    previous = np.empty(len(pair_names), np.int32)
    heads, counts = np.full(int(names_kept.sum()), -1, np.int32), np.zeros(int(names_kept.sum()), np.int32)
    chain_pairs(pair_names, previous, heads, counts)

    offsets = np.empty(live + 1, np.int64)
    cells = np.empty(int(np.diff(index.row_offsets[: series + 1])[kept].sum()), np.int32)
    copy_rows(kept, index.row_offsets, index.cells, pair_numbers, offsets, cells)

    now = used.copy()
    now[[SYMBOLS, BYTES, PAIRS, NAMES]] = len(symbols), len(arena), len(pair_names), len(heads)
    now[[SERIES, CELLS, LIVE, CREATED]] = live, len(cells), live, 0
    parts: dict[str, NDArray[Any]] = {
        "used": now,
        "arena": arena,
        "symbol_cuts": cuts,
        "symbol_names": symbol_names,
        "pair_names": pair_names,
        "pair_values": symbol_numbers[index.pair_values[:pairs][pairs_kept]],
        "pair_previous": previous,
        "pair_series": index.pair_series[:pairs][pairs_kept],
        "name_symbols": symbol_numbers[index.name_symbols[: len(names_kept)][names_kept]],
        "name_heads": heads,
        "name_pairs": counts,
        "row_offsets": offsets,
        "cells": cells,
        "dropped": np.zeros(live, np.bool_),
    }
    compacted = SeriesIndex()
    compacted.restore({f"index.{name}": part for name, part in parts.items()})
    return compacted


def _numbers(kept: NDArray[np.bool_]) -> NDArray[np.int32]:
    """What each kept one is called now."""
    return (np.cumsum(kept) - 1).astype(np.int32)
