"""What is fuzzed, and what counts as a find.

A decoder may refuse an input, with an error of the families that its target allows. Everything else is a find: another
exception, an error that the gateway would answer with 500, more memory than the input's length explains, the end of
the process. Arrays that decoders make of bytes lie directly in front of a page that nobody may read, so a kernel
that looks past its input ends the process instead of being lucky.
"""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import numpy as np

from mimir_ray.errors import ClientError, Corruption, MimirRayError
from mimir_ray.gateway.errors import as_text
from mimir_ray.testing.memory import at_the_edge
from tests.fuzz.mutation import Mutator

MEMORY_CHECKED_EVERY = 16
"""Inputs; watching allocations makes an input several times slower."""


@dataclass(frozen=True)
class Target:
    """`decode` takes one input. `allowed`: what it may raise.

    `bytes_per_byte`, `bytes_more`: how much memory an input may need for a moment.
    """

    name: str
    decode: Callable[[bytes], object]
    seeds: Callable[[], Sequence[bytes]]
    mutate: Mutator
    allowed: tuple[type[MimirRayError], ...] = (ClientError,)
    bytes_per_byte: int = 400
    bytes_more: int = 2 << 20
    share: float = 1.0
    """Of the inputs, compared to other targets."""


@dataclass
class Find(AssertionError):
    """An input that a decoder does not stand."""

    target: str
    data: bytes
    what: str

    def __str__(self) -> str:
        return f"{self.target}: {self.what}\n    ({self.target!r}, bytes.fromhex({self.data.hex()!r}))"


class TooMuchMemory(Find):
    """More than the input's length explains."""


_from_buffer = np.frombuffer


def _edged(buffer: Any, dtype: Any = float, count: int = -1, offset: int = 0) -> Any:
    if dtype is not np.uint8 or not isinstance(buffer, bytes) or count != -1 or offset:
        return _from_buffer(buffer, dtype, count, offset)
    with mock.patch.object(np, "frombuffer", _from_buffer):
        array = at_the_edge(buffer)
    array.flags.writeable = False
    return array


@contextmanager
def at_edges() -> Iterator[None]:
    """Within it, arrays of bytes have unreadable memory behind them."""
    with mock.patch.object(np, "frombuffer", _edged):
        yield


def inputs(target: Target, seed: int) -> Iterator[bytes]:
    """Endless; every seed gives other ones."""
    rng = random.Random(f"{target.name} {seed}")
    sound = list(target.seeds())
    assert sound
    yield from sound
    while True:
        data = rng.choice(sound)
        for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
            data = target.mutate(rng, data, sound)
        yield data[: 1 << 16]


def attempt(target: Target, data: bytes, watch_memory: bool = False) -> bool:
    """Whether the input was taken. Raises `Find`.

    What needs too much memory is tried twice: the first time, kernels may have been loaded.
    """
    try:
        return _attempt(target, data, watch_memory)
    except TooMuchMemory:
        return _attempt(target, data, watch_memory)


def _attempt(target: Target, data: bytes, watch_memory: bool) -> bool:
    if watch_memory:
        tracemalloc.start()
    try:
        target.decode(data)
        return True
    except target.allowed as error:
        status = getattr(error, "status", 0) or as_text(error, None).status  # type: ignore[arg-type]
        if status >= 500 and Corruption not in target.allowed:
            raise Find(target.name, data, f"answered with {status}: {error!r}") from error
        return False
    except Find:
        raise
    except Exception as error:
        raise Find(target.name, data, f"raised {error!r}") from error
    finally:
        if watch_memory:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            if peak > target.bytes_more + target.bytes_per_byte * len(data):
                raise TooMuchMemory(target.name, data, f"needed {peak} bytes for {len(data)}")


@dataclass
class Tally:
    """Of one target's run."""

    inputs: int = 0
    taken: int = 0
    finds: list[Find] = field(default_factory=list)


def fuzz(target: Target, count: int, seed: int, note: Callable[[bytes], None] = lambda data: None) -> Tally:
    """Runs so many inputs. `note` sees each before it is tried. Different finds are kept, at most 20."""
    tally = Tally()
    seen = set()
    with at_edges():
        for number, data in zip(range(count), inputs(target, seed), strict=False):
            note(data)
            tally.inputs += 1
            try:
                tally.taken += attempt(target, data, number % MEMORY_CHECKED_EVERY == MEMORY_CHECKED_EVERY - 1)
            except Find as find:
                kind = find.what[:60]
                if kind not in seen and len(seen) < 20:
                    seen.add(kind)
                    tally.finds.append(find)
    return tally
