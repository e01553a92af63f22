"""Regular expressions as tables that run over many values at once, where a pattern has small ones.

A pattern (regex_syntax.py) becomes a nondeterministic automaton over the bytes of UTF-8, and that one a deterministic
one: per byte of a value one look-up, whatever the pattern is. Tables have a bound, as has the work to make them; what
goes beyond (`(a|b)*a(a|b){20}` would have a million states) or cannot be read is left to RE2, value by value, which is
as linear and a hundred times slower. A value that is no UTF-8 satisfies no pattern.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mimir_ray.kernel import I32, I64, U8, Bool, OutBool, kernel

from .regex_syntax import Choice, Node, OneOf, Ranges, Repeat, Sequence, Unsupported, parse

NODES_MAX = 4096
CELLS_MAX = 1 << 16
"""Of one table: 256 KiB."""
STEPS_MAX = 60_000
"""Of making a table; a quarter of a microsecond each."""
AUTOMATA_CACHED = 256


@kernel
def run_automaton(
    data: U8, starts: I64, ends: I64, class_of: U8, moves: I32, accepting: Bool, classes: int, fits: OutBool
) -> None:
    """fits[i]: whether the automaton accepts data[starts[i]:ends[i]].

    Args:
        class_of: uint8[256], which column of the table a byte has.
        moves: int32[states * classes]: row * classes of the next state. State 0 is that of no return, 1 the first one.
        accepting: bool[states].

    O(bytes of the values), and less where a value is refused early.
    """
    for i in range(len(starts)):
        row = np.int64(classes)
        for at in range(starts[i], ends[i]):
            row = np.int64(moves[row + np.int64(class_of[data[at]])])
            if row == 0:
                break
        fits[i] = accepting[row // classes]


@dataclass(frozen=True, slots=True)
class Automaton:
    """See `run_automaton`."""

    class_of: NDArray[np.uint8]
    moves: NDArray[np.int32]
    accepting: NDArray[np.bool_]
    classes: int

    def accepts(self, data: NDArray[np.uint8], starts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.bool_]:
        """bool[N]: which of the values data[starts[i]:ends[i]] match as a whole."""
        fits = np.empty(len(starts), np.bool_)
        run_automaton(data, starts, ends, self.class_of, self.moves, self.accepting, self.classes, fits)
        return fits


@lru_cache(maxsize=AUTOMATA_CACHED)
def automaton_of(pattern: str) -> Automaton | None:
    """The tables of a pattern that RE2 accepts; None where there are no small ones."""
    try:
        graph = _Graph()
        first = graph.add(parse(pattern), graph.match)
        return _determined(graph, first)
    except (Unsupported, ValueError):
        return None


class _Graph:
    """The nondeterministic automaton. Node n takes a byte of `edges[n]` (low, high, next node), or none to go on to
    `skips[n]`, or, where the text begins or ends, to `at_begin[n]`, `at_end[n]`."""

    match = 0

    def __init__(self) -> None:
        self.edges: list[list[tuple[int, int, int]]] = []
        self.skips: list[list[int]] = []
        self.at_begin: dict[int, int] = {}
        self.at_end: dict[int, int] = {}
        self._sequences: dict[tuple[int, int, int], int] = {}
        self._spent = 0
        self._node()

    def _node(self) -> int:
        if len(self.edges) >= NODES_MAX:
            raise Unsupported
        self.edges.append([])
        self.skips.append([])
        return len(self.edges) - 1

    def add(self, part: Node, then: int) -> int:
        """A node from which a text of `part` leads to `then`."""
        if isinstance(part, OneOf):
            return self._one_of(part.ranges, then)
        if isinstance(part, Sequence):
            for inner in reversed(part.parts):
                then = self.add(inner, then)
            return then
        if isinstance(part, Repeat):
            return self._repeat(part, then)
        node = self._node()
        if isinstance(part, Choice):
            self.skips[node] = [self.add(inner, then) for inner in part.parts]
        else:
            (self.at_end if part.is_end else self.at_begin)[node] = then
        return node

    def _repeat(self, part: Repeat, then: int) -> int:
        if part.most is None:
            loop = self._node()
            self.skips[loop] = [self.add(part.part, loop), then]
            then = loop
        else:
            end = then
            for _ in range(part.most - part.least):
                maybe = self._node()
                self.skips[maybe] = [self.add(part.part, then), end]
                then = maybe
        for _ in range(part.least):
            then = self.add(part.part, then)
        return then

    def _one_of(self, ranges: Ranges, then: int) -> int:
        node = self._node()
        for low, high in ranges:
            for first, *rest in utf8_sequences(low, high):
                target = then
                for byte_low, byte_high in reversed(rest):
                    target = self._byte(byte_low, byte_high, target)
                self.edges[node].append((*first, target))
        return node

    def _byte(self, low: int, high: int, then: int) -> int:
        """A node that takes one byte of a character; ways that end alike share it."""
        key = low, high, then
        if key not in self._sequences:
            node = self._node()
            self.edges[node].append((low, high, then))
            self._sequences[key] = node
        return self._sequences[key]

    def closure(self, nodes: list[int], is_begin: bool, is_end: bool) -> int:
        """The bits of the nodes that are reached without a byte, and take one, match, or wait for the text's end."""
        seen = set(nodes)
        waiting = list(nodes)
        bits = 0
        while waiting:
            node = waiting.pop()
            if node == self.match or self.edges[node] or node in self.at_end:
                bits |= 1 << node
            further = list(self.skips[node])
            if is_begin and node in self.at_begin:
                further.append(self.at_begin[node])
            if is_end and node in self.at_end:
                further.append(self.at_end[node])
            for one in further:
                if one not in seen:
                    seen.add(one)
                    waiting.append(one)
        self.spend(len(seen))
        return bits

    def spend(self, steps: int) -> None:
        """Raises `Unsupported` where it was too much."""
        self._spent += steps
        if self._spent > STEPS_MAX:
            raise Unsupported


def utf8_sequences(low: int, high: int) -> list[list[tuple[int, int]]]:
    """The encodings of a range of code points, as sequences of ranges of bytes; surrogates have none."""
    for first, last in ((0x00, 0x7F), (0x80, 0x7FF), (0x800, 0xD7FF), (0xE000, 0xFFFF), (0x10000, 0x10FFFF)):
        if low < first <= high and not 0xD800 <= low <= 0xDFFF:
            return utf8_sequences(low, first - 1) + utf8_sequences(first, high)
        if low <= last < high:
            return utf8_sequences(low, last) + utf8_sequences(last + 1, high)
    if low > high or 0xD800 <= low <= high <= 0xDFFF:
        return []
    if high < 0x80:
        return [[(low, high)]]
    # Split until all but the last bytes that differ run through all that they can.
    for mask in (0x3F, 0xFFF, 0x3FFFF):
        if low & ~mask != high & ~mask:
            if low & mask:
                return utf8_sequences(low, low | mask) + utf8_sequences((low | mask) + 1, high)
            if high & mask != mask:
                return utf8_sequences(low, (high & ~mask) - 1) + utf8_sequences(high & ~mask, high)
    return [list(zip(chr(low).encode(), chr(high).encode(), strict=True))]


def _determined(graph: _Graph, first: int) -> Automaton:
    """By subsets, which are sets of bits of nodes. Raises `Unsupported` where that takes too much."""
    bounds = sorted({0, 256, *(edge for edges in graph.edges for low, high, _ in edges for edge in (low, high + 1))})
    classes = len(bounds) - 1
    class_at = {bound: number for number, bound in enumerate(bounds)}
    targets = {target for edges in graph.edges for _, _, target in edges}
    reached = {target: graph.closure([target], False, False) for target in targets}
    steps = [[(class_at[low], class_at[high + 1], reached[to]) for low, high, to in edges] for edges in graph.edges]
    accepts = 1 << graph.match
    # The begin of the text is in no other state, though its nodes may be those of one.
    states = [0, graph.closure([first], True, False)]
    accepting = [False, bool(graph.closure([first], True, True) & accepts)]
    numbers = {0: 0}
    moves: list[list[int]] = []
    while len(moves) < len(states):
        if len(states) * classes > CELLS_MAX:
            raise Unsupported
        nexts = [0] * classes
        for node in _members(states[len(moves)]):
            for low, high, bits in steps[node]:
                graph.spend(high - low)
                for at in range(low, high):
                    nexts[at] |= bits
        graph.spend(classes)
        row = []
        for bits in nexts:
            if bits not in numbers:
                numbers[bits] = len(states)
                states.append(bits)
                accepting.append(bool(graph.closure(_members(bits), False, True) & accepts))
            row.append(numbers[bits])
        moves.append(row)
    class_of = np.repeat(np.arange(classes, dtype=np.uint8), np.diff(bounds))
    table = np.array(moves, np.int32).ravel() * np.int32(classes)
    return Automaton(class_of, table, np.array(accepting, np.bool_), classes)


def _members(bits: int) -> list[int]:
    found = []
    while bits:
        lowest = bits & -bits
        found.append(lowest.bit_length() - 1)
        bits ^= lowest
    return found
