"""Arithmetic of native histograms, beside a twin with dictionaries."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimir_ray.model.float_histogram import (
    CUSTOM_BUCKETS_SCHEMA,
    GAUGE,
    NOT_RESET,
    RESET,
    UNKNOWN,
    FloatHistogram,
    IncompatibleSchemas,
    add,
    detect_reset,
    exponential_bounds,
    kahan_add,
    merge_hints,
    subtract,
)
from mimir_ray.model.histogram import HistogramCells, HistogramColumns, HistogramPart
from mimir_ray.model.histogram_trim import trim

Side = dict[int, float]


def histogram(schema: int, above: Side, below: Side, zero: float = 0.0, threshold: float = 0.0) -> FloatHistogram:
    def arrays(side: Side) -> tuple[np.ndarray, np.ndarray]:
        return np.array(sorted(side), np.int32), np.array([side[index] for index in sorted(side)], np.float64)

    count = sum(above.values()) + sum(below.values()) + zero
    return FloatHistogram(schema, threshold, zero, count, count / 3, UNKNOWN, *arrays(above), *arrays(below))


def custom(bounds: list[float], counts: Side) -> FloatHistogram:
    indexes = np.array(sorted(counts), np.int32)
    values = np.array([counts[index] for index in sorted(counts)], np.float64)
    return FloatHistogram(
        CUSTOM_BUCKETS_SCHEMA, count=float(values.sum()), positive=indexes, positive_counts=values,
        custom_values=np.array(bounds),
    )  # fmt: skip


_sides = st.dictionaries(st.integers(-40, 40), st.integers(0, 1000).map(float), max_size=6)
histograms = st.builds(histogram, st.integers(-4, 8), _sides, _sides, st.integers(0, 9).map(float))


def coarse(side: Side, schema: int, to: int) -> Side:
    """Slow twin: bucket i of a schema lies in bucket ceil(i / 2^(schema - to)) of a coarser one."""
    found: Side = {}
    for index, count in side.items():
        target = math.ceil(index / (1 << (schema - to)))
        found[target] = found.get(target, 0.0) + count
    return found


def sides(one: FloatHistogram) -> tuple[Side, Side]:
    return (
        dict(zip(one.positive.tolist(), one.positive_counts.tolist(), strict=True)),
        dict(zip(one.negative.tolist(), one.negative_counts.tolist(), strict=True)),
    )


def merged(left: Side, right: Side, sign: int) -> Side:
    return {index: left.get(index, 0.0) + sign * right.get(index, 0.0) for index in {*left, *right}}


@given(histograms, histograms)
@settings(deadline=None)
def test_sums_and_differences_are_those_of_the_buckets_in_the_coarser_schema(
    left: FloatHistogram, right: FloatHistogram
) -> None:
    schema = min(left.schema, right.schema)
    for operation, sign in ((add, 1), (subtract, -1)):
        found, _, reconciled = operation(left, right)
        assert not reconciled
        assert found.schema == schema
        assert found.count == left.count + sign * right.count
        assert found.zero_count == left.zero_count + sign * right.zero_count
        for side, mine, theirs in zip(sides(found), sides(left), sides(right), strict=True):
            assert side == merged(coarse(mine, left.schema, schema), coarse(theirs, right.schema, schema), sign)


@given(st.lists(histograms, min_size=1, max_size=5))
@settings(deadline=None)
def test_a_compensated_sum_is_the_sum(rows: list[FloatHistogram]) -> None:
    total, rest = rows[0], None
    plain = rows[0]
    for row in rows[1:]:
        total, rest, _ = kahan_add(total, rest, row)
        plain, _, _ = add(plain, row)
    found = total if rest is None else add(total, rest)[0]
    assert found.sum == pytest.approx(plain.sum)
    assert replace(found, sum=0.0).equals(replace(plain, sum=0.0))


def test_a_compensated_sum_keeps_what_a_plain_one_loses() -> None:
    big, small = histogram(0, {1: 1e16}, {}), histogram(0, {1: 1.0}, {})
    total, rest, _ = kahan_add(big, None, small)
    total, rest, _ = kahan_add(total, rest, small)
    assert add(total, rest)[0].positive_counts.tolist() == [1e16 + 2]


@given(histograms, histograms)
@settings(deadline=None)
def test_nothing_changes_what_it_is_given(left: FloatHistogram, right: FloatHistogram) -> None:
    before = HistogramColumns.from_rows([left, right])
    add(left, right)
    subtract(left, right)
    kahan_add(left, None, right)
    detect_reset(left, right)
    trim(left, 1.5, upper=True)
    left.mul(2.0)
    left.compact()
    assert before.row(0).equals(left) and before.row(1).equals(right)


@given(histograms, histograms)
@settings(deadline=None)
def test_what_only_grows_is_no_reset(left: FloatHistogram, more: FloatHistogram) -> None:
    grown, _, _ = add(left, more)
    assert not detect_reset(grown, left)


@pytest.mark.parametrize(
    ("now", "before", "expected"),
    [
        (histogram(0, {1: 5.0}, {}), histogram(0, {1: 6.0}, {}), True),
        (histogram(0, {1: 5.0, 2: 9.0}, {}), histogram(0, {1: 6.0}, {}), True),
        (histogram(0, {2: 9.0}, {}), histogram(0, {1: 6.0}, {}), True),
        (histogram(0, {2: 9.0}, {}), histogram(0, {1: 0.0}, {}), False),
        (histogram(1, {2: 9.0}, {}), histogram(0, {1: 6.0}, {}), True),
        (histogram(0, {1: 9.0}, {}), histogram(1, {1: 3.0, 2: 4.0}, {}), False),
        (histogram(0, {1: 9.0}, {}), histogram(1, {1: 6.0, 2: 4.0}, {}), True),
        (histogram(0, {}, {}, 5.0, 0.5), histogram(0, {}, {}, 5.0, 1.0), True),
        (custom([1, 2], {0: 5.0}), custom([1, 2], {1: 3.0}), True),
        (custom([1, 2], {0: 5.0, 1: 1.0}), custom([1, 3], {0: 4.0}), False),
        (histogram(0, {1: 6.0}, {}).with_hint(RESET), histogram(0, {1: 5.0}, {}), True),
        (histogram(0, {1: 5.0}, {}).with_hint(NOT_RESET), histogram(0, {1: 6.0}, {}), False),
    ],
)
def test_resets_are_seen_in_count_schema_zero_bucket_and_buckets(
    now: FloatHistogram, before: FloatHistogram, expected: bool
) -> None:
    assert detect_reset(now, before) == expected


def test_different_zero_buckets_become_the_wider_one() -> None:
    narrow = histogram(0, {-3: 2.0, 1: 4.0}, {}, 1.0, 0.001)
    wide = histogram(0, {1: 1.0}, {}, 3.0, 0.125)
    found, _, _ = add(narrow, wide)
    assert (found.zero_threshold, found.zero_count) == (0.125, 6.0)
    assert sides(found)[0] == {1: 5.0}


def test_custom_bounds_that_differ_are_reduced_to_what_both_have() -> None:
    found, _, reconciled = add(custom([1, 2, 3], {0: 1.0, 1: 2.0, 3: 4.0}), custom([2, 3, 5], {0: 8.0, 2: 16.0}))
    assert reconciled
    assert found.custom_values.tolist() == [2, 3]
    assert sides(found)[0] == {0: 11.0, 2: 20.0}


def test_exponential_and_custom_buckets_do_not_mix() -> None:
    for operation in (add, subtract, lambda left, right: kahan_add(left, None, right)):
        with pytest.raises(IncompatibleSchemas):
            operation(histogram(0, {}, {}), custom([1], {}))


def test_hints_of_a_sum() -> None:
    assert merge_hints(RESET, NOT_RESET) == (UNKNOWN, True)
    assert merge_hints(RESET, GAUGE) == (GAUGE, False)
    assert merge_hints(UNKNOWN, RESET) == (UNKNOWN, False)
    assert merge_hints(NOT_RESET, NOT_RESET) == (NOT_RESET, False)


def test_bounds_are_powers_of_two_with_upstreams_rounding() -> None:
    assert exponential_bounds(np.array([-1, 0, 1, 1024]), 0).tolist() == [0.5, 1.0, 2.0, np.finfo(float).max]
    assert exponential_bounds(np.array([1]), 1).tolist() == [2 * 0.7071067811865475]
    assert exponential_bounds(np.array([-1, 1]), -2).tolist() == [0.0625, 16.0]


@given(histograms, st.floats(0.01, 100), st.booleans())
@settings(deadline=None)
def test_trimming_leaves_no_bucket_beyond_the_bound(one: FloatHistogram, bound: float, upper: bool) -> None:
    found = trim(one, bound, upper)
    lower_bounds, upper_bounds, counts = found.buckets()
    beyond = (lower_bounds >= bound if upper else upper_bounds <= bound) & (counts != 0)
    assert not beyond.any()
    assert found.count <= one.count * (1 + 1e-12)


@given(st.lists(histograms, max_size=5), st.lists(histograms, max_size=5), st.data())
@settings(deadline=None)
def test_columns_keep_rows_through_concat_and_take(
    left: list[FloatHistogram], right: list[FloatHistogram], data: st.DataObject
) -> None:
    rows = left + right
    whole = HistogramColumns.concat([HistogramColumns.from_rows(left), HistogramColumns.from_rows(right)])
    chosen = data.draw(st.lists(st.sampled_from(range(len(rows))), max_size=6)) if rows else []
    taken = whole.take(np.array(chosen, np.int64))
    assert all(taken.row(place).equals(rows[number]) for place, number in enumerate(chosen))


def test_parts_are_put_together_and_shared_columns_are_not_copied() -> None:
    cells = HistogramCells((2, 2))
    cells.put((0, 1), custom([1], {0: 1.0}))
    cells.put((1, 0), custom([2], {0: 2.0}))
    part = cells.part()
    assert part is not None
    whole = HistogramPart.concat([(part[:1], (1, 2)), (None, (1, 2)), (part[1:], (1, 2))])
    assert whole is not None
    assert whole.which.tolist() == [[-1, 0], [-1, -1], [1, -1]]
    assert whole.columns is part.columns
    assert whole[2:].used().columns.count.tolist() == [2.0]
