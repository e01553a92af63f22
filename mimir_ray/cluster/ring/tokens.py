"""Tokens: where on the ring of 2^32 points an instance stands."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

TOKENS_PER_INSTANCE = 128
"""Of an ingester, ruler or alertmanager; a store-gateway and a compactor have 512."""
RING_SIZE = 1 << 32


def random_tokens(count: int, taken: NDArray[np.uint32], rng: np.random.Generator) -> NDArray[np.uint32]:
    """`count` tokens that differ from each other and from those in `taken`, ascending.

    Args:
        count: may be 0.
        taken: uint32, any order: the tokens of all other instances in the ring.
        rng: the source of randomness.

    Raises ValueError if the ring has too few free points.
    """
    if count > RING_SIZE - len(taken):
        raise ValueError(f"no room for {count} tokens beside {len(taken)}")
    chosen = np.zeros(0, np.uint32)
    while len(chosen) < count:
        drawn = rng.integers(0, RING_SIZE, size=count - len(chosen), dtype=np.uint32)
        fresh = drawn[~np.isin(drawn, taken)]
        chosen = np.union1d(chosen, fresh)  # sorted, each once
    return chosen
