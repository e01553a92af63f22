"""Tokens that spread the ring evenly: the n-th instance of a zone always gets the same ones.

Each new instance takes from those before it, always from who has most, so that after it all of the zone's have an equal
share (within a percent where tokens are 512). Zones are kept apart by the last three bits of their tokens.
Upstream: dskit ring/spread_minimizing_token_generator.go, with equal results.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

RING_SIZE = 1 << 32
TOKENS = 512
"""How many are worked out for each instance; it may hold fewer."""
ZONES_MAX = 8
_TOKEN_MAX = (((1 << 32) - 1) // ZONES_MAX - 1) * ZONES_MAX

_Spans = list[tuple[int, int, int]]
"""A heap of (-length, -token, previous token of anybody): what one instance owns, the longest first."""


def spread_tokens(
    number: int, zone: str, zones: Sequence[str], count: int, taken: NDArray[np.uint32]
) -> NDArray[np.uint32]:
    """The tokens of the instance `number` (from 0) of a zone.

    Args:
        number: instances of lower numbers are taken to be in the ring.
        zones: all there will ever be, at most 8; their order does not matter.
        count: at most 512.
        taken: uint32, any order: tokens of others, which are passed over.

    Returns uint32[count], ascending: the first ones of the 512 that are free, as Mimir does. Costs 1 ms a lower number.
    Raises ValueError for a zone that is not among `zones`, for too many zones or tokens, and where too few are free.
    """
    if zone not in zones or len(zones) > ZONES_MAX:
        raise ValueError(f"zone {zone!r} is not valid: expected one of at most {ZONES_MAX} zones, {', '.join(zones)}")
    if count > TOKENS:
        raise ValueError(f"the number of tokens is at most {TOKENS}, {count} were asked for")
    tokens = _all_tokens(number, sorted(zones).index(zone))
    free = tokens[~np.isin(tokens, taken)][:count]
    if len(free) < count:
        raise ValueError(f"only {len(free)} of {count} tokens are free")
    return free


def _all_tokens(number: int, zone: int) -> NDArray[np.uint32]:
    """uint32[512], ascending."""
    distance = RING_SIZE // TOKENS // ZONES_MAX * ZONES_MAX
    first = [at * distance + zone for at in range(TOKENS)]
    if number == 0:
        return np.array(first, np.uint32)
    spans: list[_Spans] = [[(-_length(first[at - 1], token), -token, first[at - 1]) for at, token in enumerate(first)]]
    heapq.heapify(spans[0])
    # (-share of the ring, -number); of two with the same share the later one is taken from
    shares = [(-RING_SIZE, 0)]
    tokens: list[int] = []
    for one in range(1, number + 1):
        tokens, own, share = _join(one, shares, spans)
        spans.append(own)
        heapq.heappush(shares, (-share, -one))
    return np.sort(np.array(tokens, np.uint32))


def _join(number: int, shares: list[tuple[int, int]], spans: list[_Spans]) -> tuple[list[int], _Spans, int]:
    """Takes the 512 tokens of one more instance out of what the others have: (tokens, spans, share)."""
    wanted_share = RING_SIZE / (number + 1)
    tokens: list[int] = []
    own: _Spans = []
    share = 0
    passed_over: list[tuple[int, int]] = []
    while len(tokens) < TOKENS:
        wanted = int(wanted_share - share) // (TOKENS - len(tokens)) // ZONES_MAX * ZONES_MAX
        if not shares or -shares[0][0] <= wanted:
            raise ValueError(f"no room for token {len(tokens) + 1} of instance {number}")
        richest = spans[-shares[0][1]]
        length, token, before = -richest[0][0], -richest[0][1], richest[0][2]
        if length <= wanted:
            passed_over.append(heapq.heappop(shares))  # its spans are too short, however many
            continue
        new = _token_after(before, wanted)
        tokens.append(new)
        heapq.heappush(own, (-_length(before, new), -new, before))
        left = _length(new, token)
        share += length - left
        heapq.heapreplace(richest, (-left, -token, new))
        heapq.heapreplace(shares, (shares[0][0] + length - left, shares[0][1]))
    for entry in passed_over:
        heapq.heappush(shares, entry)
    return tokens, own, share


def _length(before: int, token: int) -> int:
    """Of the part of the ring that belongs to a token; all of it where there is no other."""
    return token - before if before < token else RING_SIZE - before + token


def _token_after(before: int, distance: int) -> int:
    """The token `distance` further on; around the end in steps that keep the zone's last bits."""
    left = (_TOKEN_MAX - before) % RING_SIZE
    return distance - left if left < distance else (before + distance) % RING_SIZE
