"""Ring tokens of series: FNV-1 over the tenant's id, then every label's name and value in order.

Upstream: pkg/mimirpb/compat_slice.go ShardByAllLabels (multiply, then xor: FNV-1).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mimir_ray.encoding.hashing import fnv1_32
from mimir_ray.kernel import I32, I64, U8, OutU32, kernel, u32
from mimir_ray.tsdb.index.series_index import SeriesIndex


def series_tokens(index: SeriesIndex, first: int, seed: int) -> NDArray[np.uint32]:
    """uint32: the tokens of the series from reference `first` on; `seed` is the hash state after the tenant's id."""
    count = len(index)
    tokens = np.empty(max(0, count - first), np.uint32)
    _tokens(
        first, count, seed, index.row_offsets, index.cells, index.pair_names, index.pair_values,
        index.name_symbols, index.arena, index.symbol_cuts, tokens,
    )  # fmt: skip
    return tokens


@kernel
def _tokens(
    first: int, count: int, seed: u32, row_offsets: I64, cells: I32, names: I32, values: I32, name_symbols: I32,
    arena: U8, cuts: I64, tokens: OutU32,
) -> None:  # fmt: skip
    for series in range(first, count):
        state = np.uint32(seed)
        for at in range(row_offsets[series], row_offsets[series + 1]):
            name = np.int64(name_symbols[names[cells[at]]])
            value = np.int64(values[cells[at]])
            state = fnv1_32(arena, cuts[name], cuts[name + 1], state)
            state = fnv1_32(arena, cuts[value], cuts[value + 1], state)
        tokens[series - first] = state
