"""The numbers that Go's `math/rand` draws from a seed.

Shuffle sharding is defined by them: to give a tenant the same instances as Mimir does, the same numbers
are needed. The generator is an additive lagged Fibonacci one, x[n] = x[n-607] + x[n-273] mod 2^64, whose
607 start values are a Lehmer generator's output (multiplier 48271) XORed with a fixed table. That table is the
state of the same recurrence, started from seed 1, after 7.8 × 10^12 steps (Upstream: Go
src/math/rand/rng.go, gen_cooked.go). Instead of listing it we jump there: the recurrence is linear, so n
steps are x^n modulo its characteristic polynomial, 43 squarings, 50 ms once a process.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

LENGTH = 607
TAP = 273
COOKING_STEPS = 7_800_000_000_000
_LEHMER_MODULUS = (1 << 31) - 1
_LEHMER_MULTIPLIER = 48271
_SEED_FOR_ZERO = 89482311
_MASK_64 = (1 << 64) - 1
_MASK_63 = (1 << 63) - 1


def _lehmer_words(seed: int, high: int, middle: int) -> list[int]:
    """607 words, each of three 31-bit numbers at bits `high`, `middle` and 0; the first 20 numbers are dropped."""
    words = []
    state = seed
    for _ in range(20):
        state = state * _LEHMER_MULTIPLIER % _LEHMER_MODULUS
    for _ in range(LENGTH):
        word = 0
        for shift in (high, middle, 0):
            state = state * _LEHMER_MULTIPLIER % _LEHMER_MODULUS
            word ^= state << shift
        words.append(word & _MASK_64)
    return words


def _reduced(polynomial: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A polynomial modulo x^607 - x^334 - 1, whose roots the recurrence has: x[n] = x[n-607] + x[n-273]."""
    for power in range(len(polynomial) - 1, LENGTH - 1, -1):
        polynomial[power - LENGTH] += polynomial[power]
        polynomial[power - TAP] += polynomial[power]
    return polynomial[:LENGTH].copy()


def _squared(polynomial: NDArray[np.uint64]) -> NDArray[np.uint64]:
    product = np.zeros(2 * LENGTH - 1, np.uint64)
    for power in np.flatnonzero(polynomial):
        product[power : power + LENGTH] += polynomial[power] * polynomial
    return _reduced(product)


def _state_after(state: list[int], steps: int) -> list[int]:
    """The generator's 607 words after so many draws, `steps` a multiple of nothing in particular.

    A draw n replaces the word at (333 - n) mod 607, so the words in that order are the sequence so far.
    """
    power = np.zeros(LENGTH, np.uint64)
    power[0] = 1
    for bit in f"{steps:b}":
        power = _squared(power)
        if bit == "1":
            power = _reduced(np.concatenate([np.zeros(1, np.uint64), power]))
    sequence = np.zeros(2 * LENGTH, np.uint64)
    sequence[:LENGTH] = [state[(LENGTH - TAP - 1 - n) % LENGTH] for n in range(LENGTH)]
    for n in range(LENGTH, 2 * LENGTH):
        sequence[n] = sequence[n - LENGTH] + sequence[n - TAP]
    after = [0] * LENGTH
    for n in range(LENGTH):
        value = (power * sequence[n : n + LENGTH]).sum(dtype=np.uint64)
        after[(LENGTH - TAP - 1 - (steps + n - LENGTH)) % LENGTH] = int(value)
    return after


@lru_cache(maxsize=1)
def _cooked() -> tuple[int, ...]:
    with np.errstate(over="ignore"):  # arithmetic is modulo 2^64
        return tuple(_state_after(_lehmer_words(1, 20, 10), COOKING_STEPS))


class GoRandom:
    """`rand.New(rand.NewSource(seed))`. A seeding takes 0.3 ms, a draw 0.3 µs."""

    def __init__(self, seed: int) -> None:
        """`seed`: any integer; as in Go only its value modulo 2^31 - 1 counts (signed 64 bits)."""
        signed = (seed & _MASK_63) - (seed & (1 << 63))
        seed = signed % _LEHMER_MODULUS or _SEED_FOR_ZERO
        self._words = [word ^ cooked for word, cooked in zip(_lehmer_words(seed, 40, 20), _cooked(), strict=True)]
        self._tap = 0
        self._feed = LENGTH - TAP

    def uint64(self) -> int:
        self._tap = (self._tap - 1) % LENGTH
        self._feed = (self._feed - 1) % LENGTH
        value = (self._words[self._feed] + self._words[self._tap]) & _MASK_64
        self._words[self._feed] = value
        return value

    def int63(self) -> int:
        return self.uint64() & _MASK_63

    def uint32(self) -> int:
        return self.int63() >> 31
