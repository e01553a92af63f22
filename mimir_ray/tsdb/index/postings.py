"""Which series satisfy matchers.

Per label name, all matchers together accept a set of pairs, and accept or refuse series without the label.
The smallest accepted set gives candidates, out of an inverted index (pair -> references, built lazily by a
counting sort of the rows, and again when a quarter of all series came later); every candidate's row is
then looked through once for all matchers, with a mark per pair. Series newer than the inverted index are all
candidates. So no list but the smallest is ever read, and what everything satisfies costs nothing.

Values are only ever added, so what a matcher accepted is kept and extended by the values that came since.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mimir_ray.kernel import I32, I64, U8, Bool, OutBool, OutI32, OutI64, kernel
from mimir_ray.model.matchers import Matcher, MatchType

from .columns import strings_of
from .interning import PAIRS
from .series_index import SeriesIndex

_TAIL_MIN = 4096
_CACHED_MATCHERS_MAX = 512
_CACHED_PAIRS_MAX = 1 << 22

_ACCEPTED = 1
_REFUSED = 2


@kernel
def begin_with(values: I32, arena: U8, cuts: I64, prefix: U8, more: bool, fits: OutBool) -> None:
    """fits[i]: the bytes arena[cuts[values[i]]:cuts[values[i] + 1]] begin with `prefix` (and `more` follow)."""
    for i in range(len(values)):
        start = cuts[values[i]]
        fits[i] = cuts[values[i] + 1] - start >= len(prefix) + more
        at = 0
        while fits[i] and at < len(prefix):
            fits[i] = arena[start + at] == prefix[at]
            at += 1


@kernel
def count_postings(series: int, row_offsets: I64, cells: I32, dropped: Bool, starts: OutI64) -> None:
    """starts[p] = where the references of pair p begin; `starts` is int64[pairs + 1], zeros."""
    for s in range(series):
        if not dropped[s]:
            for at in range(row_offsets[s], row_offsets[s + 1]):
                starts[cells[at] + 1] += 1
    for p in range(1, len(starts)):
        starts[p] += starts[p - 1]


@kernel
def fill_postings(
    series: int, row_offsets: I64, cells: I32, dropped: Bool, cursors: OutI64, references: OutI32
) -> None:
    """Writes the references of every pair, ascending; `cursors` starts as `starts` and ends as the ends."""
    for s in range(series):
        if not dropped[s]:
            for at in range(row_offsets[s], row_offsets[s + 1]):
                pair = cells[at]
                references[cursors[pair]] = np.int32(s)
                cursors[pair] += 1


@kernel
def walk_pairs(head: int, stop: int, previous: I32, pairs: OutI32) -> int:
    """The pairs of one name from the newest to before `stop`; returns how many."""
    count = 0
    pair = head
    while pair > stop:
        pairs[count] = np.int32(pair)
        count += 1
        pair = np.int64(previous[pair])
    return count


@kernel
def filter_rows(
    candidates: I32, row_offsets: I64, cells: I32, dropped: Bool, marks: U8, needed: int, kept: OutI32
) -> int:
    """Candidates that are not dropped, have `needed` accepted pairs and no refused one; returns how many."""
    count = 0
    for c in range(len(candidates)):
        series = candidates[c]
        if dropped[series]:
            continue
        accepted = 0
        fits = True
        for at in range(row_offsets[series], row_offsets[series + 1]):
            mark = marks[cells[at]]
            if mark == 1:
                accepted += 1
            elif mark == 2:
                fits = False
                break
        if fits and accepted == needed:
            kept[count] = series
            count += 1
    return count


@dataclass(slots=True)
class _Known:
    """What one matcher accepts of the values of its name, up to pair `newest`."""

    newest: int = -1
    accepted: list[NDArray[np.int32]] = field(default_factory=list)
    refused: list[NDArray[np.int32]] = field(default_factory=list)
    size: int = 0


class Postings:
    """Answers matchers over one `SeriesIndex`; used under the lock that guards the index."""

    def __init__(self, index: SeriesIndex) -> None:
        self._index = index
        self._series = 0
        self._starts = np.zeros(1, np.int64)
        self._references = np.zeros(0, np.int32)
        self._known: OrderedDict[Matcher, _Known] = OrderedDict()
        self._known_pairs = 0
        self._marks = np.zeros(0, np.uint8)
        self._dropped = 0

    @property
    def bytes(self) -> int:
        return self._starts.nbytes + self._references.nbytes + self._marks.nbytes + 4 * self._known_pairs

    def note_dropped(self, count: int) -> None:
        """So many series were dropped; the inverted index leaves them out once it is worth the work."""
        self._dropped += count
        if 4 * self._dropped > self._series:
            self._series = 0
            self._dropped = 0

    def select(self, matchers: Sequence[Matcher], first: int = 0) -> NDArray[np.int32]:
        """Ascending references, from `first` on, of the live series that satisfy all matchers."""
        index = self._index
        by_name: dict[str, list[Matcher]] = {}
        for matcher in matchers:
            by_name.setdefault(matcher.name, []).append(matcher)
        accepted_of: list[NDArray[np.int32]] = []
        refused_of: list[NDArray[np.int32]] = []
        for together in by_name.values():
            together.sort(key=lambda one: one.type is not MatchType.EQUAL)
            if all(one.accepts_empty for one in together):
                refused_of.extend(self._pairs(one)[1] for one in together)
                continue
            positive = [one for one in together if not one.accepts_empty]
            accepted = self._pairs(positive[0])[0]
            for other in positive[1:]:
                accepted = np.intersect1d(accepted, self._pairs(other)[0])
            for other in together:
                if other.accepts_empty and len(accepted):
                    accepted = np.setdiff1d(accepted, self._pairs(other)[1])
            if not len(accepted):
                return np.zeros(0, np.int32)
            accepted_of.append(accepted)
        refused_of = [one for one in refused_of if len(one)]
        if not accepted_of and not refused_of:
            everything = np.arange(first, len(index), dtype=np.int32)
            return everything if index.live == len(index) else everything[~index.dropped[first : len(index)]]
        if first:
            return self._filter(np.arange(first, len(index), dtype=np.int32), accepted_of, refused_of)
        self._refresh()
        sizes = [int(index.pair_series[one].sum()) for one in accepted_of]
        if not all(sizes):
            return np.zeros(0, np.int32)
        if accepted_of:
            candidates = self._union(accepted_of[int(np.argmin(sizes))])
        else:
            candidates = np.arange(self._series, dtype=np.int32)
        if len(accepted_of) == 1 and not refused_of and self._series == len(index) == index.live:
            return candidates
        candidates = np.concatenate((candidates, np.arange(self._series, len(index), dtype=np.int32)))
        return self._filter(candidates, accepted_of, refused_of)

    def _filter(
        self, candidates: NDArray[np.int32], accepted_of: list[NDArray[np.int32]], refused_of: list[NDArray[np.int32]]
    ) -> NDArray[np.int32]:
        index = self._index
        if len(self._marks) < len(index.pair_names):
            self._marks = np.zeros(len(index.pair_names), np.uint8)
        for accepted in accepted_of:
            self._marks[accepted] = _ACCEPTED
        for refused in refused_of:
            self._marks[refused] = _REFUSED
        kept = np.empty(len(candidates), np.int32)
        count = filter_rows(
            candidates, index.row_offsets, index.cells, index.dropped, self._marks, len(accepted_of), kept
        )
        for marked in (*accepted_of, *refused_of):
            self._marks[marked] = 0
        return kept[:count]

    def _union(self, pairs: NDArray[np.int32]) -> NDArray[np.int32]:
        """Ascending references of all these pairs of one name (so their lists have nothing in common)."""
        pairs = pairs[pairs < len(self._starts) - 1]
        if len(pairs) == 1:
            return self._references[self._starts[pairs[0]] : self._starts[pairs[0] + 1]]
        lengths = self._starts[pairs + 1] - self._starts[pairs]
        total = int(lengths.sum())
        at = np.arange(total) + np.repeat(self._starts[pairs] - (np.cumsum(lengths) - lengths), lengths)
        found = self._references[at]
        if total * 8 > self._series:
            member = np.zeros(self._series, np.bool_)
            member[found] = True
            return np.flatnonzero(member).astype(np.int32)
        found.sort()
        return found

    def _refresh(self) -> None:
        """Builds the inverted index anew when too much is missing from it."""
        index = self._index
        count = len(index)
        if self._series and count - self._series <= max(_TAIL_MIN, self._series // 4):
            return
        if count <= _TAIL_MIN and not self._series:
            return
        starts = np.zeros(int(index.used[PAIRS]) + 1, np.int64)
        count_postings(count, index.row_offsets, index.cells, index.dropped, starts)
        references = np.empty(int(starts[-1]), np.int32)
        fill_postings(count, index.row_offsets, index.cells, index.dropped, starts[:-1].copy(), references)
        self._starts, self._references, self._series = starts, references, count

    def _pairs(self, matcher: Matcher) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """(accepted, refused) pairs of the matcher's name. Where the matcher says which values it accepts and wants
        them present, `refused` is left empty; likewise `accepted` where it refuses those only."""
        index = self._index
        nothing = np.zeros(0, np.int32)
        if matcher.alternatives is not None:
            values = index.find_pairs(matcher.name, sorted(value for value in matcher.alternatives if value))
            if not matcher.is_negative and not matcher.accepts_empty:
                return values, nothing
            if matcher.is_negative and matcher.accepts_empty:
                return nothing, values
        name = index.find_name(matcher.name)
        if name < 0:
            return nothing, nothing
        known = self._known.pop(matcher, None) or _Known()
        self._known[matcher] = known
        newest = int(index.name_heads[name])
        if newest > known.newest:
            self._extend(matcher, known, newest)
            while len(self._known) > 1 and (
                len(self._known) > _CACHED_MATCHERS_MAX or self._known_pairs > _CACHED_PAIRS_MAX
            ):
                self._known_pairs -= self._known.popitem(last=False)[1].size
        return (
            known.accepted[0] if known.accepted else nothing,
            known.refused[0] if known.refused else nothing,
        )

    def _extend(self, matcher: Matcher, known: _Known, newest: int) -> None:
        """Judges the values that came since the last time."""
        index = self._index
        name = int(index.pair_names[newest])
        pairs = np.empty(int(index.name_pairs[name]), np.int32)
        pairs = pairs[: walk_pairs(newest, known.newest, index.pair_previous, pairs)][::-1].copy()
        if matcher.prefix is not None:
            literal, more = matcher.prefix
            fits = np.empty(len(pairs), np.bool_)
            prefix = np.frombuffer(literal.encode("utf-8", "surrogateescape"), np.uint8)
            begin_with(index.pair_values[pairs], index.arena, index.symbol_cuts, prefix, more, fits)
        elif matcher.alternatives is not None:
            texts = strings_of(index.pair_values[pairs], index.arena, index.symbol_cuts)
            fits = np.fromiter(map(matcher.alternatives.__contains__, texts), np.bool_, len(texts))
        else:
            values = index.pair_values[pairs]
            fits = matcher.accepted_values(index.arena, index.symbol_cuts[values], index.symbol_cuts[values + 1])
        if matcher.is_negative:
            fits = ~fits
        known.accepted = [np.concatenate((*known.accepted, pairs[fits]))]
        known.refused = [np.concatenate((*known.refused, pairs[~fits]))]
        known.newest = newest
        known.size += len(pairs)
        self._known_pairs += len(pairs)
