"""Spread-minimizing tokens: equal shares, the same every time, zones apart."""

from __future__ import annotations

import numpy as np
import pytest

from mimir_ray.cluster.ring.spread_tokens import TOKENS, ZONES_MAX, spread_tokens

ZONES = ("zone-a", "zone-b", "zone-c")
NONE = np.zeros(0, np.uint32)


def tokens(number: int, zone: str = "zone-a", count: int = TOKENS, taken: np.ndarray = NONE) -> np.ndarray:
    return spread_tokens(number, zone, ZONES, count, taken)


def shares(instances: int, zone: str) -> np.ndarray:
    """float64[instances], 1 is an equal share."""
    held = np.concatenate([tokens(number, zone) for number in range(instances)])
    owner = np.repeat(np.arange(instances), TOKENS)
    order = np.argsort(held)
    sorted_tokens = held[order].astype(np.int64)
    gaps = np.diff(sorted_tokens, prepend=sorted_tokens[-1] - (1 << 32))
    return np.bincount(owner[order], weights=gaps) / (1 << 32) * instances


def test_the_first_instance_has_tokens_at_equal_distances() -> None:
    """As in dskit's own test: 2^32 / 512 apart, shifted by the zone's number."""
    for number, zone in enumerate(ZONES):
        assert tokens(0, zone).tolist() == [at * 8_388_608 + number for at in range(TOKENS)]


def test_the_second_one_halves_every_part() -> None:
    assert tokens(1).tolist() == [4_194_304 + at * 8_388_608 for at in range(TOKENS)]


@pytest.mark.parametrize("instances", [2, 3, 7])
def test_shares_are_equal(instances: int) -> None:
    found = shares(instances, "zone-b")
    assert 0.99 < found.min() <= found.max() < 1.01


def test_no_token_is_given_twice() -> None:
    held = np.concatenate([tokens(number, zone) for number in range(4) for zone in ZONES])
    assert len(np.unique(held)) == len(held)
    assert set((tokens(3, "zone-c") % ZONES_MAX).tolist()) == {2}


def test_those_of_others_are_passed_over() -> None:
    usual = tokens(2)
    assert tokens(2, count=128).tolist() == usual[:128].tolist()
    assert tokens(2, count=128, taken=usual[:100]).tolist() == usual[100:228].tolist()
    with pytest.raises(ValueError, match="only 412 of 512"):
        tokens(2, taken=usual[:100])


def test_unknown_zones_and_too_many_tokens_are_refused() -> None:
    with pytest.raises(ValueError, match="zone-x"):
        tokens(0, "zone-x")
    with pytest.raises(ValueError, match="at most 512"):
        tokens(0, count=513)
