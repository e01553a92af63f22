"""One native histogram as arrays, and the arithmetic of histograms.

A `FloatHistogram` is a value: nothing here changes what it is given. Buckets are an index (int32, ascending,
each once) and a count (float64) each; a bucket that is listed with count 0 differs from one that is not. With an
exponential schema s (-4..8) bucket i of the positive side is (2^((i-1)/2^s), 2^(i/2^s)]; the negative side mirrors it.
With custom buckets (schema -53) bucket i is (custom_values[i-1], custom_values[i]], the outer bounds infinite.

The order of operations is upstream's, so that results are the same to the bit.
Upstream: model/histogram/float_histogram.go, generic.go; util/kahansum.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Indexes = NDArray[np.int32]
Counts = NDArray[np.float64]

CUSTOM_BUCKETS_SCHEMA = -53
SCHEMA_MIN, SCHEMA_MAX = -4, 8

UNKNOWN, RESET, NOT_RESET, GAUGE = range(4)
"""Counter reset hints. Upstream: histogram.CounterResetHint."""

NO_INDEXES: Indexes = np.zeros(0, np.int32)
NO_COUNTS: Counts = np.zeros(0, np.float64)


class IncompatibleSchemas(Exception):
    """One histogram has exponential buckets, the other custom ones. Upstream: ErrHistogramsIncompatibleSchema."""


@dataclass(frozen=True, slots=True, eq=False)
class FloatHistogram:
    """`positive`, `negative`: indexes of the buckets; `positive_counts`, `negative_counts`: their counts."""

    schema: int = 0
    zero_threshold: float = 0.0
    zero_count: float = 0.0
    count: float = 0.0
    sum: float = 0.0
    hint: int = UNKNOWN
    positive: Indexes = field(default_factory=lambda: NO_INDEXES)
    positive_counts: Counts = field(default_factory=lambda: NO_COUNTS)
    negative: Indexes = field(default_factory=lambda: NO_INDEXES)
    negative_counts: Counts = field(default_factory=lambda: NO_COUNTS)
    custom_values: Counts = field(default_factory=lambda: NO_COUNTS)

    @property
    def has_custom_buckets(self) -> bool:
        return self.schema == CUSTOM_BUCKETS_SCHEMA

    def with_hint(self, hint: int) -> FloatHistogram:
        return self if hint == self.hint else replace(self, hint=hint)

    def mul(self, factor: float) -> FloatHistogram:
        with np.errstate(all="ignore"):
            return replace(
                self,
                zero_count=self.zero_count * factor,
                count=self.count * factor,
                sum=self.sum * factor,
                positive_counts=self.positive_counts * factor,
                negative_counts=self.negative_counts * factor,
                hint=GAUGE if factor < 0 else self.hint,
            )

    def div(self, divisor: float) -> FloatHistogram:
        """Divided by zero, no buckets remain."""
        zero_count, count, total = (_divided(each, divisor) for each in (self.zero_count, self.count, self.sum))
        if divisor == 0:
            return FloatHistogram(
                self.schema, self.zero_threshold, zero_count, count, total, self.hint, custom_values=self.custom_values
            )
        with np.errstate(all="ignore"):
            return replace(
                self,
                zero_count=zero_count,
                count=count,
                sum=total,
                positive_counts=self.positive_counts / divisor,
                negative_counts=self.negative_counts / divisor,
                hint=GAUGE if divisor < 0 else self.hint,
            )

    def compact(self) -> FloatHistogram:
        """Without empty buckets."""
        if self.positive_counts.all() and self.negative_counts.all():
            return self
        above, below = self.positive_counts != 0, self.negative_counts != 0
        return replace(
            self,
            positive=self.positive[above],
            positive_counts=self.positive_counts[above],
            negative=self.negative[below],
            negative_counts=self.negative_counts[below],
        )

    def to_schema(self, schema: int) -> FloatHistogram:
        """With coarser buckets, and no counter reset hint; itself if that is its schema. Upstream: CopyToSchema."""
        if schema == self.schema:
            return self
        assert not self.has_custom_buckets and SCHEMA_MIN <= schema < self.schema
        positive, positive_counts = reduce_resolution(self.positive, self.positive_counts, self.schema, schema)
        negative, negative_counts = reduce_resolution(self.negative, self.negative_counts, self.schema, schema)
        return FloatHistogram(
            schema, self.zero_threshold, self.zero_count, self.count, self.sum, UNKNOWN,
            positive, positive_counts, negative, negative_counts,
        )  # fmt: skip

    @property
    def has_overflow(self) -> bool:
        """Whether anything in it is infinite."""
        scalars = math.isinf(self.zero_count) or math.isinf(self.count) or math.isinf(self.sum)
        arrays = self.positive_counts, self.negative_counts, self.custom_values
        return scalars or any(bool(np.isinf(each).any()) for each in arrays)

    def equals(self, other: FloatHistogram) -> bool:
        """The same numbers to the bit, in the same buckets; hints do not matter."""
        return (
            self.schema == other.schema
            and _bits(self.count, self.sum, self.zero_count) == _bits(other.count, other.sum, other.zero_count)
            and self.zero_threshold == other.zero_threshold
            and (not self.has_custom_buckets or np.array_equal(self.custom_values, other.custom_values))
            and np.array_equal(self.negative, other.negative)
            and np.array_equal(self.positive, other.positive)
            and self.negative_counts.tobytes() == other.negative_counts.tobytes()
            and self.positive_counts.tobytes() == other.positive_counts.tobytes()
        )

    def positive_bounds(self) -> tuple[Counts, Counts]:
        """(lower, upper) of every positive or custom bucket."""
        if self.has_custom_buckets:
            return bounds(self.positive - 1, self), bounds(self.positive, self)
        return _known_bounds(self.positive.tobytes(), self.schema)

    def negative_bounds(self) -> tuple[Counts, Counts]:
        """(lower, upper) of every negative bucket, in the order of the indexes: from zero downwards."""
        low, high = _known_bounds(self.negative.tobytes(), self.schema)
        return -high, -low

    def buckets(self) -> tuple[Counts, Counts, Counts]:
        """(lower, upper, count) of all buckets in the order of their bounds, the zero bucket if it has something.

        Bounds within the zero bucket are moved to its edge. Upstream: AllBucketIterator.
        """
        low, high = self.positive_bounds()
        parts = [(low, high, self.positive_counts)]
        threshold = self.zero_threshold
        if threshold > 0:
            low = np.where((low > 0) & (low < threshold), threshold, low)
            high = np.where((high < 0) & (high > -threshold), -threshold, high)
            parts = [(low, high, self.positive_counts)]
        if self.zero_count > 0:
            parts.insert(0, (np.array([-threshold]), np.array([threshold]), np.array([self.zero_count])))
        if len(self.negative):
            low, high = (each[::-1] for each in self.negative_bounds())
            if threshold > 0:
                high = np.where((high < 0) & (high > -threshold), -threshold, high)
                low = np.where((low > 0) & (low < threshold), threshold, low)
            parts.insert(0, (low, high, self.negative_counts[::-1]))
        if len(parts) == 1:
            return parts[0]
        lower, upper, counts = (np.concatenate(each) for each in zip(*parts, strict=True))
        return lower, upper, counts


def boundaries(histogram: FloatHistogram, lower: float, upper: float) -> tuple[str, str]:
    """The brackets of a bucket: which of its bounds belong to it."""
    if histogram.has_custom_buckets:
        return "[" if lower == -math.inf else "(", "]"
    if lower == -histogram.zero_threshold and upper == histogram.zero_threshold:
        return "[", "]"
    return "[" if lower < 0 else "(", "]" if upper > 0 else ")"


def _divided(value: float, divisor: float) -> float:
    """As IEEE 754 has it: by zero too."""
    with np.errstate(all="ignore"):
        return float(np.divide(value, divisor))


def _bits(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}d", *values)


_LARGEST = float(np.finfo(np.float64).max)

# How many units in the last place upstream's table of schema 8 lies below 2^(i/256 - 1), plus one: its values carry
# the rounding of the way in which they were computed, and that is part of every answer.
_BELOW = (
    "1111112111211111112311222222222211211121122211221122102211221122"
    "1111112222332132112111211112111111121011213311221222112121332222"
    "2121223322322122222222323233323311221121223321332233212232332232"
    "2243223233433343333333444455435422322333324422333243223333543344"
)


@lru_cache(maxsize=1)
def _fractions() -> Counts:
    """float64[256]: upstream's exponentialBounds of schema 8; coarser schemas take every so many-th."""
    exact = np.array([2.0 ** (i / 256 - 1) for i in range(256)])
    return (exact.view(np.int64) + 1 - np.array([int(digit) for digit in _BELOW])).view(np.float64)


def exponential_bounds(indexes: NDArray[np.integer], schema: int) -> Counts:
    """The upper bounds of buckets of an exponential schema. Upstream: generic.go getBoundExponential."""
    index = indexes.astype(np.int64)
    if schema < 0:
        exponent = index << -schema
        out = np.ldexp(1.0, np.minimum(exponent, 1100).astype(np.int32))
        return np.where(exponent == 1024, _LARGEST, out)
    fraction = _fractions()[(index & ((1 << schema) - 1)) << (SCHEMA_MAX - schema)]
    exponent = (index >> schema) + 1
    with np.errstate(over="ignore"):
        out = np.ldexp(fraction, np.clip(exponent, -1100, 1100).astype(np.int32))
    return np.where((fraction == 0.5) & (exponent == 1025), _LARGEST, out)


@lru_cache(maxsize=1 << 16)
def upper_bound(index: int, schema: int) -> float:
    """`exponential_bounds` of one bucket."""
    return float(exponential_bounds(np.array([index]), schema)[0])


@lru_cache(maxsize=4096)
def _known_bounds(indexes: bytes, schema: int) -> tuple[Counts, Counts]:
    """(lower, upper) of exponential buckets; histograms of a metric list the same ones again and again. Read-only."""
    index = np.frombuffer(indexes, np.int32)
    found = exponential_bounds(index - 1, schema), exponential_bounds(index, schema)
    for each in found:
        each.flags.writeable = False
    return found


def bounds(indexes: NDArray[np.integer], histogram: FloatHistogram) -> Counts:
    """The upper bounds of buckets with these indexes."""
    if not histogram.has_custom_buckets:
        return exponential_bounds(indexes, histogram.schema)
    whole = np.concatenate(((-np.inf,), histogram.custom_values, (np.inf,)))
    return whole[indexes.astype(np.int64) + 1]


def reduce_resolution(indexes: Indexes, counts: Counts, schema: int, to: int) -> tuple[Indexes, Counts]:
    """Buckets of one side in a coarser schema."""
    if not len(indexes):
        return indexes, counts
    coarse = (((indexes - 1) >> (schema - to)) + 1).astype(np.int32)
    first = np.flatnonzero(np.concatenate(((True,), coarse[1:] != coarse[:-1])))
    return coarse[first], np.add.reduceat(counts, first)


def kahan_inc(inc: Counts, total: Counts, rest: Counts) -> tuple[Counts, Counts]:
    """One step of Kahan's summation with Neumaier's change, element by element. Upstream: kahansum.Inc."""
    with np.errstate(all="ignore"):
        new = total + inc
        lost = np.where(np.abs(total) >= np.abs(inc), (total - new) + inc, (inc - new) + total)
        return new, np.where(np.isinf(new), 0.0, rest + lost)


def kahan_inc_one(inc: float, total: float, rest: float) -> tuple[float, float]:
    """`kahan_inc` of single numbers."""
    new = total + inc
    if math.isinf(new):
        return new, 0.0
    return new, rest + ((total - new) + inc if abs(total) >= abs(inc) else (inc - new) + total)


def _above(indexes: Indexes, counts: Counts, schema: int, threshold: float) -> tuple[Indexes, Counts]:
    """Without the buckets that lie wholly within the zero bucket."""
    if threshold <= 0 or not len(indexes) or schema == CUSTOM_BUCKETS_SCHEMA:
        return indexes, counts
    if upper_bound(int(indexes[0]), schema) > threshold:
        return indexes, counts
    start = int(np.searchsorted(exponential_bounds(indexes, schema), threshold, side="right"))
    return indexes[start:], counts[start:]


def _union(left: Indexes, right: Indexes) -> tuple[Indexes, NDArray[np.intp], NDArray[np.intp]]:
    """(all indexes, where the left ones stand among them, where the right ones do)."""
    both = np.union1d(left, right)
    return both, np.searchsorted(both, left), np.searchsorted(both, right)


def _add_buckets(left: Indexes, left_counts: Counts, right: Indexes, right_counts: Counts) -> tuple[Indexes, Counts]:
    if not len(right):
        return left, left_counts
    with np.errstate(all="ignore"):
        if len(left) == len(right) and (left == right).all():
            return left, left_counts + right_counts
        both, of_left, of_right = _union(left, right)
        counts = np.zeros(len(both))
        counts[of_left] = left_counts
        counts[of_right] += right_counts
    return both, counts


def add(left: FloatHistogram, right: FloatHistogram) -> tuple[FloatHistogram, bool, bool]:
    """(sum, whether counter reset hints contradicted each other, whether custom bounds had to be reconciled).

    Raises `IncompatibleSchemas`. Upstream: FloatHistogram.Add.
    """
    return _combine(left, right, 1.0)


def subtract(left: FloatHistogram, right: FloatHistogram) -> tuple[FloatHistogram, bool, bool]:
    """As `add`, but the difference. Upstream: FloatHistogram.Sub."""
    return _combine(left, right, -1.0)


def _combine(left: FloatHistogram, right: FloatHistogram, sign: float) -> tuple[FloatHistogram, bool, bool]:
    if left.has_custom_buckets != right.has_custom_buckets:
        raise IncompatibleSchemas
    hint, collision = merge_hints(left.hint, right.hint)
    if left.has_custom_buckets:
        count, total = left.count + sign * right.count, left.sum + sign * right.sum
        if np.array_equal(left.custom_values, right.custom_values):
            positive, counts = _add_buckets(
                left.positive, left.positive_counts, right.positive, sign * right.positive_counts
            )
            return (
                replace(left, count=count, sum=total, hint=hint, positive=positive, positive_counts=counts),
                collision,
                False,
            )
        shared = np.intersect1d(left.custom_values, right.custom_values)
        positive, counts, _ = add_mismatched(left, None, right, sign, shared)
        return (
            replace(
                left, count=count, sum=total, hint=hint, positive=positive, positive_counts=counts, custom_values=shared
            ),
            collision,
            True,
        )
    zero_count = right.zero_count
    if left.zero_threshold != right.zero_threshold:
        left, _, zero_count, _ = reconcile_zero_buckets(left, None, right)
    schema = min(left.schema, right.schema)
    sides: list[tuple[Indexes, Counts]] = []
    for mine, my_counts, theirs, their_counts in (
        (left.positive, left.positive_counts, right.positive, right.positive_counts),
        (left.negative, left.negative_counts, right.negative, right.negative_counts),
    ):
        if left.schema > schema:
            mine, my_counts = reduce_resolution(mine, my_counts, left.schema, schema)
        if right.schema > schema:
            theirs, their_counts = reduce_resolution(theirs, their_counts, right.schema, schema)
        theirs, their_counts = _above(theirs, their_counts, schema, left.zero_threshold)
        sides.append(_add_buckets(mine, my_counts, theirs, sign * their_counts))
    (positive, positive_counts), (negative, negative_counts) = sides
    return (
        FloatHistogram(
            schema, left.zero_threshold, left.zero_count + sign * zero_count, left.count + sign * right.count,
            left.sum + sign * right.sum, hint, positive, positive_counts, negative, negative_counts,
        ),
        collision,
        False,
    )  # fmt: skip


def merge_hints(left: int, right: int) -> tuple[int, bool]:
    """(hint of a sum, whether the two contradict each other). Upstream: adjustCounterReset."""
    if left in (right, GAUGE):
        return left, False
    if right == GAUGE:
        return GAUGE, False
    return UNKNOWN, UNKNOWN not in (left, right)


def add_mismatched(
    left: FloatHistogram, rest: Counts | None, right: FloatHistogram, sign: float, shared: Counts
) -> tuple[Indexes, Counts, Counts]:
    """(indexes, counts, compensations) of a sum in the bounds that both have; `rest` compensates the left counts.

    Upstream: addCustomBucketsWithMismatches.
    """
    counts, rests = [0.0] * (len(shared) + 1), [0.0] * (len(shared) + 1)
    for histogram, of_counts, compensation in (
        (left, left.positive_counts, rest),
        (right, sign * right.positive_counts, None),
    ):
        uppers = bounds(histogram.positive, histogram)
        targets = np.searchsorted(shared, uppers, side="left").tolist()
        for at, (target, value) in enumerate(zip(targets, of_counts.tolist(), strict=True)):
            counts[target], rests[target] = kahan_inc_one(value, counts[target], rests[target])
            if compensation is not None:
                inc = float(compensation[at])
                counts[target], rests[target] = kahan_inc_one(inc, counts[target], rests[target])
    out, lost = np.array(counts), np.array(rests)
    kept = np.flatnonzero((out != 0) | (lost != 0))
    return kept.astype(np.int32), out[kept], lost[kept]


def zero_count_for_larger_threshold(
    histogram: FloatHistogram, threshold: float, rest: FloatHistogram | None
) -> tuple[float, float, float]:
    """(zero count, threshold, compensation) once the zero bucket is widened to at least `threshold`.

    A bucket that is not empty is taken in whole, so the threshold may grow further.
    """
    lost = rest.zero_count if rest is not None else 0.0
    if threshold == histogram.zero_threshold:
        return histogram.zero_count, threshold, lost
    assert threshold > histogram.zero_threshold
    sides = []
    for indexes, counts, rests in (
        (histogram.positive, histogram.positive_counts, None if rest is None else rest.positive_counts),
        (histogram.negative, histogram.negative_counts, None if rest is None else rest.negative_counts),
    ):
        lower = exponential_bounds(indexes - 1, histogram.schema).tolist()
        upper = exponential_bounds(indexes, histogram.schema).tolist()
        more = [0.0] * len(indexes) if rests is None else rests.tolist()
        sides.append(list(zip(lower, upper, counts.tolist(), more, strict=True)))
    while True:
        total = histogram.zero_count
        grown = False
        for number, side in enumerate(sides):
            for low, high, count, more in side:
                if low >= threshold:
                    break
                total, lost = kahan_inc_one(count, total, lost)
                if rest is not None:
                    total, lost = kahan_inc_one(more, total, lost)
                if high > threshold:
                    if count != 0:
                        threshold = high
                        grown = number == 1
                    break
            if grown:
                break
        if not grown:
            return total, threshold, lost


def _trimmed_of_zero_bucket(
    histogram: FloatHistogram, rest: FloatHistogram | None
) -> tuple[FloatHistogram, FloatHistogram | None]:
    """Without the buckets that reach into the zero bucket, and without empty ones."""
    changes: dict[str, NDArray[np.generic]] = {}
    rests: dict[str, NDArray[np.generic]] = {}
    for side in ("positive", "negative"):
        indexes, counts = getattr(histogram, side), getattr(histogram, f"{side}_counts")
        start = int(np.searchsorted(exponential_bounds(indexes - 1, histogram.schema), histogram.zero_threshold))
        indexes, counts = indexes[start:], counts[start:]
        kept = counts != 0
        if rest is not None:
            lost = getattr(rest, f"{side}_counts")[start:]
            kept |= lost != 0
            rests[side], rests[f"{side}_counts"] = indexes[kept], lost[kept]
        changes[side], changes[f"{side}_counts"] = indexes[kept], counts[kept]
    return replace(histogram, **changes), None if rest is None else replace(rest, **rests)  # type: ignore[arg-type]


def reconcile_zero_buckets(
    left: FloatHistogram, rest: FloatHistogram | None, right: FloatHistogram
) -> tuple[FloatHistogram, FloatHistogram | None, float, float]:
    """(left, its compensation, zero count of the right, and what that lost), all for one zero bucket."""
    zero_count, threshold, lost = right.zero_count, right.zero_threshold, 0.0
    while threshold != left.zero_threshold:
        if left.zero_threshold > threshold:
            zero_count, threshold, lost = zero_count_for_larger_threshold(right, left.zero_threshold, None)
        if threshold > left.zero_threshold:
            mine, reached, my_rest = zero_count_for_larger_threshold(left, threshold, rest)
            left = replace(left, zero_count=mine, zero_threshold=reached)
            if rest is not None:
                rest = replace(rest, zero_count=my_rest)
            left, rest = _trimmed_of_zero_bucket(left, rest)
    return left, rest, zero_count, lost


def kahan_add(
    left: FloatHistogram, rest: FloatHistogram | None, right: FloatHistogram
) -> tuple[FloatHistogram, FloatHistogram, bool]:
    """(sum, what it lost so far, whether custom bounds had to be reconciled); `rest`: what `left` lost.

    Raises `IncompatibleSchemas`. Upstream: FloatHistogram.KahanAdd.
    """
    if left.has_custom_buckets != right.has_custom_buckets:
        raise IncompatibleSchemas
    hint, _ = merge_hints(left.hint, right.hint)
    if rest is None:
        rest = replace(
            left,
            hint=hint,
            zero_count=0.0,
            count=0.0,
            sum=0.0,
            positive_counts=np.zeros(len(left.positive)),
            negative_counts=np.zeros(len(left.negative)),
        )
    zero_count, zero_rest = left.zero_count, rest.zero_count
    if not left.has_custom_buckets:
        theirs, their_rest = right.zero_count, 0.0
        if left.zero_threshold != right.zero_threshold:
            left, changed, theirs, their_rest = reconcile_zero_buckets(left, rest, right)
            assert changed is not None
            rest = changed
            zero_count, zero_rest = left.zero_count, rest.zero_count
        zero_count, zero_rest = kahan_inc_one(theirs, zero_count, zero_rest)
        zero_count, zero_rest = kahan_inc_one(their_rest, zero_count, zero_rest)
    count, count_rest = kahan_inc_one(right.count, left.count, rest.count)
    total, total_rest = kahan_inc_one(right.sum, left.sum, rest.sum)
    if left.has_custom_buckets and not np.array_equal(left.custom_values, right.custom_values):
        shared = np.intersect1d(left.custom_values, right.custom_values)
        indexes, counts, rests = add_mismatched(left, rest.positive_counts, right, 1.0, shared)
        return (
            replace(
                left, hint=hint, count=count, sum=total, positive=indexes, positive_counts=counts, custom_values=shared
            ),
            replace(
                rest, count=count_rest, sum=total_rest, positive=indexes, positive_counts=rests, custom_values=shared
            ),
            True,
        )
    schema = left.schema if left.has_custom_buckets else min(left.schema, right.schema)
    above = _kahan_add_side(left, rest, right, "positive", schema)
    below = _kahan_add_side(left, rest, right, "negative", schema)
    shape = schema, left.zero_threshold
    return (
        FloatHistogram(
            *shape, zero_count, count, total, hint, above[0], above[1], below[0], below[1], left.custom_values
        ),
        FloatHistogram(
            *shape,
            zero_rest,
            count_rest,
            total_rest,
            rest.hint,
            above[0],
            above[2],
            below[0],
            below[2],
            left.custom_values,
        ),
        False,
    )


def _kahan_add_side(
    left: FloatHistogram, rest: FloatHistogram, right: FloatHistogram, side: str, schema: int
) -> tuple[Indexes, Counts, Counts]:
    mine, counts, lost = getattr(left, side), getattr(left, f"{side}_counts"), getattr(rest, f"{side}_counts")
    theirs, their_counts = getattr(right, side), getattr(right, f"{side}_counts")
    their_lost = None
    if left.schema > schema:
        mine, counts, lost = _kahan_reduce(mine, counts, lost, left.schema, schema)
    elif right.schema > schema:
        theirs, their_counts, their_lost = _kahan_reduce(
            theirs, their_counts, np.zeros(len(theirs)), right.schema, schema
        )
    if schema != CUSTOM_BUCKETS_SCHEMA:
        before = len(theirs)
        theirs, their_counts = _above(theirs, their_counts, schema, left.zero_threshold)
        if their_lost is not None and len(theirs) < before:
            their_lost = their_lost[before - len(theirs) :]
    if not len(theirs):
        return mine, counts, lost
    if len(mine) != len(theirs) or (mine != theirs).any():
        # A bucket that only the right side has begins as that side's count and compensation.
        both, of_mine, of_theirs = _union(mine, theirs)
        known = np.zeros(len(both), np.bool_)
        known[of_mine] = True
        all_counts, all_lost = np.zeros(len(both)), np.zeros(len(both))
        all_counts[of_mine], all_lost[of_mine] = counts, lost
        fresh = ~known[of_theirs]
        all_counts[of_theirs[fresh]] = their_counts[fresh]
        if their_lost is not None:
            all_lost[of_theirs[fresh]] = their_lost[fresh]
        at, inc = of_theirs[~fresh], their_counts[~fresh]
        all_counts[at], all_lost[at] = kahan_inc(inc, all_counts[at], all_lost[at])
        if their_lost is not None:
            all_counts[at], all_lost[at] = kahan_inc(their_lost[~fresh], all_counts[at], all_lost[at])
        return both, all_counts, all_lost
    counts, lost = kahan_inc(their_counts, counts, lost)
    if their_lost is not None and their_lost.any():
        counts, lost = kahan_inc(their_lost, counts, lost)
    return mine, counts, lost


def _kahan_reduce(
    indexes: Indexes, counts: Counts, rests: Counts, schema: int, to: int
) -> tuple[Indexes, Counts, Counts]:
    """`reduce_resolution` of counts with their compensations."""
    out: list[int] = []
    totals: list[float] = []
    lost: list[float] = []
    coarse = (((indexes - 1) >> (schema - to)) + 1).tolist()
    for index, count, rest in zip(coarse, counts.tolist(), rests.tolist(), strict=True):
        if out and out[-1] == index:
            totals[-1], lost[-1] = kahan_inc_one(count, totals[-1], lost[-1])
            totals[-1], lost[-1] = kahan_inc_one(rest, totals[-1], lost[-1])
        else:
            out.append(index)
            totals.append(count)
            lost.append(rest)
    return np.array(out, np.int32), np.array(totals, np.float64), np.array(lost, np.float64)


def detect_reset(current: FloatHistogram, previous: FloatHistogram) -> bool:
    """Whether a counter began anew between the two. Upstream: FloatHistogram.DetectReset."""
    if current.hint in (RESET, NOT_RESET):
        return current.hint == RESET
    if current.count < previous.count:
        return True
    if current.has_custom_buckets:
        if not previous.has_custom_buckets:
            return True
        if not np.array_equal(current.custom_values, previous.custom_values):
            return _reset_in_shared_bounds(current, previous)
    if current.schema > previous.schema or current.zero_threshold < previous.zero_threshold:
        return True
    zero_count = previous.zero_count
    if current.zero_threshold != previous.zero_threshold:
        zero_count, threshold, _ = zero_count_for_larger_threshold(previous, current.zero_threshold, None)
        if threshold != current.zero_threshold:
            return True
    if current.zero_count < zero_count:
        return True
    return any(
        _side_was_reset(getattr(current, side), getattr(current, f"{side}_counts"),
                        getattr(previous, side), getattr(previous, f"{side}_counts"), current, previous.schema)
        for side in ("positive", "negative")
    )  # fmt: skip


def _side_was_reset(
    now: Indexes, counts: Counts, before: Indexes, counts_before: Counts, current: FloatHistogram, schema: int
) -> bool:
    if not len(before):
        return False
    if schema > current.schema:
        before, counts_before = reduce_resolution(before, counts_before, schema, current.schema)
    before, counts_before = _above(before, counts_before, current.schema, current.zero_threshold)
    now, counts = _above(now, counts, current.schema, current.zero_threshold)
    if len(now) == len(before) and (now == before).all():
        return bool((counts < counts_before).any())
    if not len(now):
        return bool(counts_before.any())
    at = np.searchsorted(now, before)
    found = now[np.minimum(at, len(now) - 1)] == before
    there = np.where(found, counts[np.minimum(at, len(now) - 1)], np.nan)
    return bool((np.where(found, there < counts_before, counts_before != 0)).any())


def _reset_in_shared_bounds(current: FloatHistogram, previous: FloatHistogram) -> bool:
    """Whether a bucket between bounds that both have lost something."""
    shared = np.intersect1d(current.custom_values, previous.custom_values)
    sums = []
    for histogram in (current, previous):
        target = np.searchsorted(shared, bounds(histogram.positive, histogram), side="left")
        sums.append(np.bincount(target, weights=histogram.positive_counts, minlength=len(shared) + 1))
    return bool((sums[0] < sums[1]).any())
