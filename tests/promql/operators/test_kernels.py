"""Kernels of selection, grouping, aggregation and matching against twins that a beginner can check."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from mimir_ray.model.series import STALE_NAN
from mimir_ray.promql.kernels import aggregations
from mimir_ray.promql.kernels.aggregations import are_tied, merge_rows, select_extremes, select_first
from mimir_ray.promql.kernels.grouping import RowIndex, presence_by_group, rows_by_group
from mimir_ray.promql.kernels.joins import first_clash
from mimir_ray.promql.kernels.label_hash import xxhash64
from mimir_ray.promql.kernels.steps import newest_samples, select_window, window_sizes
from mimir_ray.promql.operators.accumulators import ACCUMULATORS, MERGEABLE

numbers = st.one_of(st.integers(-4, 4).map(float), st.floats(width=32), st.sampled_from([math.nan, math.inf, 1e308]))


@st.composite
def ragged(draw: st.DrawFn):  # type: ignore[no-untyped-def]
    """(offsets, timestamps, values) of up to 4 series."""
    series = draw(st.lists(st.lists(st.integers(0, 60), unique=True, max_size=12).map(sorted), min_size=1, max_size=4))
    offsets = np.cumsum([0, *map(len, series)]).astype(np.int64)
    timestamps = np.array([t for one in series for t in one], np.int64)
    values = draw(
        st.lists(st.sampled_from([1.0, 2.0, math.nan, STALE_NAN]), min_size=len(timestamps), max_size=len(timestamps))
    )
    return offsets, timestamps, np.array(values, np.float64)


def is_marker(value: float) -> bool:
    return bool(np.float64(value).view(np.uint64) == np.float64(STALE_NAN).view(np.uint64))


ends = st.lists(st.integers(-5, 70), min_size=1, max_size=6).map(lambda each: np.array(sorted(each), np.int64))


@given(ragged(), ends, st.integers(1, 30), st.booleans())
def test_a_step_sees_the_newest_sample_of_its_lookback_unless_it_is_a_marker(samples, ends, lookback, times) -> None:
    offsets, timestamps, values = samples
    out = np.empty((len(offsets) - 1, len(ends)))
    present = np.empty(out.shape, np.bool_)
    bits = values.view(np.uint64)
    found = newest_samples(offsets, timestamps, values, bits, ends, lookback, times, out, present)
    for s in range(len(offsets) - 1):
        mine = list(zip(timestamps[offsets[s] : offsets[s + 1]], values[offsets[s] : offsets[s + 1]], strict=True))
        for t, end in enumerate(ends):
            seen = [(at, value) for at, value in mine if end - lookback < at <= end]
            expected = bool(seen) and not is_marker(seen[-1][1])
            assert present[s, t] == expected
            if expected:
                np.testing.assert_equal(out[s, t], seen[-1][0] / 1000 if times else seen[-1][1])
    assert found == present.sum()


@given(ragged(), ends, st.integers(1, 30), st.booleans())
def test_window_sizes_weigh_samples_but_no_markers(samples, ends, range_ms, weighted) -> None:
    offsets, timestamps, values = samples
    sizes = np.zeros(len(ends), np.int64)
    weights = np.arange(len(values) if weighted else 0, dtype=np.int64)
    window_sizes(offsets, timestamps, values.view(np.uint64), weights, ends, range_ms, sizes)
    counts = [0 if is_marker(value) else at if weighted else 1 for at, value in enumerate(values)]
    wanted = [
        sum(count for at, count in zip(timestamps, counts, strict=True) if end - range_ms < at <= end) for end in ends
    ]
    assert sizes.tolist() == wanted


@given(ragged(), st.integers(0, 60), st.integers(0, 40))
def test_a_window_selects_what_is_inside_and_no_marker(samples, start, length) -> None:
    offsets, timestamps, values = samples
    out_offsets, keep = np.empty_like(offsets), np.empty(len(timestamps), np.int64)
    count = select_window(offsets, timestamps, values.view(np.uint64), start, start + length, out_offsets, keep)
    wanted = [i for i, at in enumerate(timestamps) if start < at <= start + length and not is_marker(values[i])]
    assert keep[:count].tolist() == wanted
    assert out_offsets.tolist() == [sum(i < offset for i in wanted) for offset in offsets]


@given(st.lists(nps.arrays(np.int32, st.tuples(st.integers(0, 40), st.just(2)), elements=st.integers(0, 3))))
def test_rows_are_numbered_in_order_of_first_sight_over_all_batches(batches) -> None:
    index, known = RowIndex(2), {}
    for batch in batches:
        wanted = [known.setdefault(tuple(row), len(known)) for row in batch.tolist()]
        assert index.add(batch).tolist() == wanted
    assert [tuple(key) for key in index.keys.tolist()] == list(known)
    probe = np.array([[a, b] for a in range(4) for b in range(4)], np.int32)
    assert index.find(probe).tolist() == [known.get(tuple(row), -1) for row in probe.tolist()]


def test_an_index_of_no_columns_has_one_row() -> None:
    index = RowIndex(0)
    assert index.find(np.zeros((2, 0), np.int32)).tolist() == [-1, -1]
    assert index.add(np.zeros((3, 0), np.int32)).tolist() == [0, 0, 0]
    assert index.count == 1


@given(nps.arrays(np.int32, st.integers(0, 20), elements=st.integers(0, 4)))
def test_rows_by_group_lists_every_row_once_in_order(groups) -> None:
    starts, rows = np.zeros(6, np.int64), np.empty(len(groups), np.int64)
    rows_by_group(groups, starts, rows)
    for group in range(5):
        assert rows[starts[group] : starts[group + 1]].tolist() == np.flatnonzero(groups == group).tolist()


@st.composite
def grouped(draw: st.DrawFn, elements=numbers):  # type: ignore[no-untyped-def]
    """(values, present, groups) of up to 8 series, 3 steps, 3 groups."""
    series = draw(st.integers(1, 8))
    values = draw(nps.arrays(np.float64, (series, 3), elements=elements))
    present = draw(nps.arrays(np.bool_, (series, 3)))
    groups = draw(nps.arrays(np.int32, series, elements=st.integers(0, 2)))
    return values, present, groups


def twin(op: str, values: list[float]) -> float:
    """One group at one step."""
    with np.errstate(all="ignore"):
        array = np.array(values)
        numbers = array[~np.isnan(array)]
        match op:
            case "sum":
                return math.fsum(values) if np.isfinite(array).all() else float(array.sum())
            case "avg":
                return (
                    math.fsum(value / len(values) for value in values)
                    if np.isfinite(array).all()
                    else float(array.mean())
                )
            case "min" | "max":
                if not len(numbers):
                    return math.nan
                return float(numbers.min() if op == "min" else numbers.max())
            case "count":
                return float(len(values))
            case "group":
                return 1.0
            case "stdvar":
                return float(np.mean((array - array.mean()) ** 2))
            case "stddev":
                return math.sqrt(np.mean((array - array.mean()) ** 2))
    raise AssertionError(op)


def result_of(op: str, cases) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[no-untyped-def]
    accumulator = ACCUMULATORS[op](3)
    for values, present, groups in cases:
        accumulator.grow(3)
        accumulator.fold(values, present, groups)
    return accumulator.result()


finite = st.one_of(st.integers(-50, 50).map(float), st.floats(-1e6, 1e6), st.just(math.nan))


@pytest.mark.parametrize("op", sorted(ACCUMULATORS))
@given(cases=st.lists(grouped(finite), min_size=1, max_size=3))
def test_folding_batches_is_folding_all_values_of_a_group(op, cases) -> None:
    found, present = result_of(op, cases)
    for group in range(3):
        for step in range(3):
            members = [
                float(values[s, step])
                for values, there, groups in cases
                for s in range(len(values))
                if there[s, step] and groups[s] == group
            ]
            assert present[group, step] == bool(members)
            if members:
                np.testing.assert_allclose(found[group, step], twin(op, members), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("op", sorted(MERGEABLE))
@given(cases=st.lists(grouped(), min_size=2, max_size=4))
def test_merging_what_two_owners_hold_is_folding_it_all(op, cases) -> None:
    whole, whole_present = result_of(op, cases)
    merged = ACCUMULATORS[op](3)
    merged.grow(3)
    for part in (cases[:1], cases[1:]):
        owner = ACCUMULATORS[op](3)
        owner.grow(3)
        for values, present, groups in part:
            owner.fold(values, present, groups)
        merged.merge(owner.state(), np.arange(3, dtype=np.int32))
    found, present = merged.result()
    assert (present == whole_present).all()
    with np.errstate(all="ignore"):
        fine = ~present | np.isclose(found, whole, rtol=1e-9, equal_nan=True)
        # Sums that leave the range of floats do so in one order of addition and not in another.
        extreme = max(float(np.nanmax(np.abs(values), initial=0.0)) for values, _, _ in cases) >= 1e300
    assert fine.all() or (extreme and op in ("sum", "avg"))


def test_a_sum_keeps_what_plain_addition_loses() -> None:
    values = np.array([[1e100], [1.0], [-1e100]])
    found, _ = result_of_one(values, "sum")
    assert found[0, 0] == 1.0


def test_an_average_does_not_overflow() -> None:
    found, _ = result_of_one(np.full((4, 1), 1.5e308), "avg")
    assert found[0, 0] == pytest.approx(1.5e308)


def result_of_one(values: np.ndarray, op: str) -> tuple[np.ndarray, np.ndarray]:
    accumulator = ACCUMULATORS[op](values.shape[1])
    accumulator.grow(1)
    accumulator.fold(values, np.ones(values.shape, np.bool_), np.zeros(len(values), np.int32))
    return accumulator.result()


class GoHeap:
    """Go's container/heap over (value, row), as upstream orders it."""

    def __init__(self, bottom: bool) -> None:
        self.items: list[tuple[float, int]] = []
        self.bottom = bottom

    def less(self, i: int, j: int) -> bool:
        a, b = self.items[i][0], self.items[j][0]
        return math.isnan(a) or (a > b if self.bottom else a < b)

    def push(self, item: tuple[float, int]) -> None:
        self.items.append(item)
        j = len(self.items) - 1
        while j > 0 and self.less(j, (j - 1) // 2):
            i = (j - 1) // 2
            self.items[i], self.items[j] = self.items[j], self.items[i]
            j = i

    def replace_first(self, item: tuple[float, int]) -> None:
        self.items[0] = item
        i, n = 0, len(self.items)
        while 2 * i + 1 < n:
            j = 2 * i + 1
            if j + 1 < n and self.less(j + 1, j):
                j += 1
            if not self.less(j, i):
                break
            self.items[i], self.items[j] = self.items[j], self.items[i]
            i = j


@given(grouped(), nps.arrays(np.int64, 3, elements=st.integers(0, 4)), st.booleans())
def test_topk_and_bottomk_keep_what_upstreams_heap_keeps(case, ks, bottom) -> None:
    values, present, groups = case
    starts, rows = np.zeros(4, np.int64), np.empty(len(groups), np.int64)
    rows_by_group(groups, starts, rows)
    keep = np.zeros(present.shape, np.bool_)
    ranked = np.empty(len(groups), np.int64)
    size = len(groups)
    listed = select_extremes(
        values, present, starts, rows, ks, bottom,
        np.empty((3, size)), np.empty((3, size), np.int64), np.empty(3, np.int64), keep, ranked,
    )  # fmt: skip
    order = []
    for group in range(3):
        for step in range(3):
            heap = GoHeap(bottom)
            k = min(int(ks[step]), int((groups == group).sum()))
            for row in np.flatnonzero(groups == group).tolist() if k > 0 else []:
                value = float(values[row, step])
                if not present[row, step]:
                    continue
                if len(heap.items) < k:
                    heap.push((value, row))
                else:
                    worst = heap.items[0][0]
                    better = value < worst if bottom else value > worst
                    if better or (math.isnan(worst) and not math.isnan(value)):
                        heap.replace_first((value, row))
            kept = [row for _, row in heap.items]
            assert np.flatnonzero(keep[:, step] & (groups == group)).tolist() == sorted(kept)
            if step == 2:
                order += [value for value, _ in sorted(heap.items, key=lambda one: sort_key(one[0], bottom))]
    assert listed == len(order)
    np.testing.assert_array_equal(values[ranked[:listed], 2], order)


def extremes_of(values, present, ks, bottom, order):  # type: ignore[no-untyped-def]
    """(kept cells, kept rows of the last step) of one group whose rows come in this order."""
    size, steps = values.shape
    keep, ranked = np.zeros(present.shape, np.bool_), np.empty(size, np.int64)
    listed = select_extremes(
        values, present, np.array([0, size], np.int64), order, ks, bottom, np.empty((steps, size)),
        np.empty((steps, size), np.int64), np.empty(steps, np.int64), keep, ranked,
    )  # fmt: skip
    return keep, ranked[:listed]


@given(st.data(), st.integers(1, 6), st.integers(1, 2), st.booleans())
def test_what_is_kept_depends_on_the_order_of_rows_only_where_values_are_tied(
    data: st.DataObject, size: int, steps: int, bottom: bool
) -> None:
    few = st.one_of(st.integers(-9, 9).map(float), st.sampled_from([math.nan, math.inf, -0.0]))
    values = data.draw(nps.arrays(np.float64, (size, steps), elements=few))
    present = data.draw(nps.arrays(np.bool_, (size, steps)))
    ks = data.draw(nps.arrays(np.int64, steps, elements=st.integers(0, 4)))
    rows = np.arange(size)
    keep, ranked = extremes_of(values, present, ks, bottom, rows)
    tied = are_tied(values, present, np.array([0, size], np.int64), rows, keep)
    other = np.array(data.draw(st.permutations(range(size))), np.int64)
    keep_then, ranked_then = extremes_of(values, present, ks, bottom, other)
    if not tied:
        assert keep_then.tolist() == keep.tolist()
        assert steps > 1 or ranked_then.tolist() == ranked.tolist()
    seen = values[present]
    distinct = not np.isnan(seen).any() and len(np.unique(seen)) == len(seen)
    assert not (tied and distinct)


def sort_key(value: float, bottom: bool) -> tuple[bool, float]:
    return math.isnan(value), 0.0 if math.isnan(value) else value if bottom else -value


@given(grouped(), nps.arrays(np.int64, 3, elements=st.integers(-1, 4)))
def test_limitk_keeps_the_first_of_each_group(case, ks) -> None:
    _, present, groups = case
    starts, rows = np.zeros(4, np.int64), np.empty(len(groups), np.int64)
    rows_by_group(groups, starts, rows)
    keep = np.zeros(present.shape, np.bool_)
    select_first(present, starts, rows, ks, keep)
    for step in range(3):
        for group in range(3):
            there = np.flatnonzero(present[:, step] & (groups == group)).tolist()
            kept = np.flatnonzero(keep[:, step] & (groups == group)).tolist()
            assert kept == there[: max(0, int(ks[step]))]


@given(grouped(), nps.arrays(np.float64, 3, elements=st.sampled_from([0.0, 0.3, 0.5, 1.0, -1.0, 2.0, math.nan])))
def test_a_quantile_lies_between_order_statistics_and_nan_comes_first(case, quantiles) -> None:
    values, present, groups = case
    starts, rows = np.zeros(4, np.int64), np.empty(len(groups), np.int64)
    rows_by_group(groups, starts, rows)
    out, out_present = np.empty((3, 3)), np.empty((3, 3), np.bool_)
    aggregations.fold_quantile(values, present, starts, rows, quantiles, out, out_present, np.empty(len(groups)))
    for group in range(3):
        for step, q in enumerate(quantiles.tolist()):
            members = values[present[:, step] & (groups == group), step].tolist()
            assert out_present[group, step] == bool(members)
            if members:
                ordered = sorted(members, key=lambda value: (not math.isnan(value), value))
                np.testing.assert_equal(out[group, step], quantile_twin(q, ordered))


def quantile_twin(q: float, ordered: list[float]) -> float:
    if not 0 <= q <= 1:
        return math.nan if math.isnan(q) else math.copysign(math.inf, q)
    rank = q * (len(ordered) - 1)
    low = math.floor(rank)
    high = min(len(ordered) - 1, low + 1)
    with np.errstate(all="ignore"):
        return float(np.float64(ordered[low]) * (1 - (rank - low)) + np.float64(ordered[high]) * (rank - low))


@given(grouped())
def test_rows_of_one_group_merge_unless_they_meet(case) -> None:
    values, present, groups = case
    out, out_present = np.zeros((3, 3)), np.zeros((3, 3), np.bool_)
    clash = merge_rows(values, present, groups, out, out_present)
    meeting = [t for t in range(3) for g in range(3) if (present[:, t] & (groups == g)).sum() > 1]
    assert clash == min(meeting, default=-1)
    for group in range(3):
        for step in range(3):
            there = values[present[:, step] & (groups == group), step]
            assert out_present[group, step] == (len(there) > 0)
            if len(there):
                np.testing.assert_equal(out[group, step], there[-1])


@given(grouped(), nps.arrays(np.bool_, 3))
def test_the_first_clash_is_at_the_earliest_active_step(case, active) -> None:
    _, present, groups = case
    found = np.empty(3, np.int64)
    first_clash(present, groups, active, np.full((3, 3), -1, np.int64), found)
    meeting = [t for t in range(3) for g in range(3) if active[t] and (present[:, t] & (groups == g)).sum() > 1]
    assert found[0] == min(meeting, default=-1)
    if meeting:
        step, a, b = found.tolist()
        assert a != b and groups[a] == groups[b] and present[a, step] and present[b, step]


@given(grouped())
def test_presence_of_a_group_is_that_of_any_member(case) -> None:
    _, present, groups = case
    out = np.zeros((3, 3), np.bool_)
    presence_by_group(present, groups, out)
    for group in range(3):
        assert (out[group] == present[groups == group].any(axis=0)).all()


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (b"", 0xEF46DB3751D8E999),
        (b"a", 0xD24EC4F1A98C6E5B),
        (b"abc", 0x44BC2CF5AD770999),
        (b"xxhash is a fast non-cryptographic hash algorithm", None),
    ],
)
def test_xxhash64_has_the_published_values(text: bytes, wanted: int | None) -> None:
    out = np.empty(1, np.uint64)
    xxhash64(np.frombuffer(text or b"\0", np.uint8), np.array([0, len(text)], np.int64), out)
    assert int(out[0]) == (wanted if wanted is not None else slow_xxhash64(text))


@given(st.binary(max_size=100))
def test_xxhash64_is_its_twin(text: bytes) -> None:
    out = np.empty(1, np.uint64)
    xxhash64(np.frombuffer(text or b"\0", np.uint8), np.array([0, len(text)], np.int64), out)
    assert int(out[0]) == slow_xxhash64(text)


P = (11400714785074694791, 14029467366897019727, 1609587929392839161, 9650029242287828579, 2870177450012600261)
MASK = 2**64 - 1


def rotate(value: int, bits: int) -> int:
    value &= MASK
    return (value << bits | value >> (64 - bits)) & MASK


def slow_xxhash64(text: bytes) -> int:
    """The specification in Python's integers."""
    rest = text
    if len(text) >= 32:
        lanes = [(P[0] + P[1]) & MASK, P[1], 0, -P[0] & MASK]
        while len(rest) >= 32:
            for i in range(4):
                word = int.from_bytes(rest[8 * i : 8 * i + 8], "little")
                lanes[i] = rotate(lanes[i] + word * P[1], 31) * P[0] & MASK
            rest = rest[32:]
        h = sum(rotate(lane, bits) for lane, bits in zip(lanes, (1, 7, 12, 18), strict=True)) & MASK
        for lane in lanes:
            h = ((h ^ rotate(lane * P[1], 31) * P[0]) * P[0] + P[3]) & MASK
    else:
        h = P[4]
    h = (h + len(text)) & MASK
    while len(rest) >= 8:
        k = rotate(int.from_bytes(rest[:8], "little") * P[1], 31) * P[0] & MASK
        h = (rotate(h ^ k, 27) * P[0] + P[3]) & MASK
        rest = rest[8:]
    if len(rest) >= 4:
        h = (rotate(h ^ (int.from_bytes(rest[:4], "little") * P[0] & MASK), 23) * P[1] + P[2]) & MASK
        rest = rest[4:]
    for byte in rest:
        h = rotate(h ^ (byte * P[4] & MASK), 11) * P[0] & MASK
    h = (h ^ h >> 33) * P[1] & MASK
    h = (h ^ h >> 29) * P[2] & MASK
    return h ^ h >> 32
