"""The cache finds what was added, keeps references apart by ingester, and stays within its bound."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mimir_ray.roles.distributor.series_cache import SeriesCache


def keys(numbers: list[int]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Hashes that collide in their low half now and then."""
    low = np.array([number % 7 for number in numbers], np.uint64)
    return low, np.array(numbers, np.uint64)


def cache_with(numbers: list[int], replicas: int = 1, series_max: int = 1000) -> tuple[SeriesCache, NDArray[np.int32]]:
    cache = SeriesCache(series_max)
    cache.use_ring(1, tuple(f"i{at}" for at in range(replicas)), np.zeros((0, replicas), np.int16))
    return cache, add(cache, numbers, replicas)


def add(cache: SeriesCache, numbers: list[int], replicas: int = 1) -> NDArray[np.int32]:
    count = len(numbers)
    owners = np.tile(np.arange(replicas, dtype=np.int16), (count, 1))
    flags = np.ones(count, np.bool_)
    return cache.add(*keys(numbers), np.array(numbers, np.uint32), flags, ~flags, owners)


@given(st.lists(st.lists(st.integers(0, 60), max_size=30), max_size=8))
@settings(deadline=None)
def test_it_finds_what_was_added_and_nothing_else(rounds: list[list[int]]) -> None:
    cache, _ = cache_with([])
    model: dict[int, int] = {}
    for numbers in rounds:
        ids, missing = cache.find(*keys(numbers))
        assert ids.tolist() == [model.get(number, -1) for number in numbers]
        assert missing == sum(number not in model for number in numbers)
        new = [number for number in numbers if number not in model]
        for number, place in zip(new, add(cache, new).tolist(), strict=True):
            assert model.setdefault(number, place) == place
    assert len(cache) == len(model)
    assert all(cache.tokens[place] == number for number, place in model.items())


def test_thousands_of_series_are_found_after_growth() -> None:
    cache, ids = cache_with([])
    rng = np.random.default_rng(1)
    low, high = rng.integers(0, 1 << 63, (2, 20_000), dtype=np.uint64)
    for part in np.array_split(np.arange(20_000), 7):
        owners = np.zeros((len(part), 1), np.int16)
        flags = np.ones(len(part), np.bool_)
        cache.add(low[part], high[part], part.astype(np.uint32), flags, ~flags, owners)
    order = rng.permutation(20_000)
    ids, missing = cache.find(low[order], high[order])
    assert missing == 0 and (ids == order).all()
    assert cache.nbytes / 20_000 < 80


def test_references_are_learnt_for_the_ingester_that_gave_them() -> None:
    cache, ids = cache_with([1, 2], replicas=2)
    cache.learn(0, 1, 1, 7, ids, np.array([5, -1], np.int32))
    assert cache.references[ids].tolist() == [[-1, 5], [-1, -1]]
    assert (cache.incarnation("i1"), cache.incarnation("i0")) == (7, 0)


def test_another_incarnation_forgets_the_references_of_that_ingester_only() -> None:
    cache, ids = cache_with([1, 2], replicas=2)
    for ingester in (0, 1):
        cache.learn(0, 1, ingester, 7, ids, np.array([3, 4], np.int32))
    cache.learn(0, 1, 0, 8, ids[:1], np.array([9], np.int32))
    assert cache.references[ids].tolist() == [[9, 3], [-1, 4]]


def test_a_new_ring_keeps_references_of_ingesters_that_stay_owners() -> None:
    cache, ids = cache_with([1, 2], replicas=2)
    for ingester in (0, 1):
        cache.learn(0, 1, ingester, 7, ids, np.array([3 + ingester, 5 + ingester], np.int32))
    # i0 is gone, i1 has another number, i9 is new.
    cache.use_ring(2, ("i1", "i9"), np.array([[0, 1], [1, 0]], np.int16))
    assert cache.references[ids].tolist() == [[4, -1], [-1, 6]]
    assert cache.incarnation("i0") == 0


def test_nobody_keeps_no_references() -> None:
    cache, ids = cache_with([1], replicas=1)
    cache.use_ring(2, (), np.array([[-1]], np.int16))
    cache.use_ring(3, ("i0",), np.array([[0]], np.int16))
    assert cache.references[ids].tolist() == [[-1]]


def test_answers_from_before_a_change_are_ignored() -> None:
    cache, ids = cache_with([1], replicas=1)
    cache.learn(5, 1, 0, 7, ids, np.array([3], np.int32))
    cache.learn(0, 2, 0, 7, ids, np.array([3], np.int32))
    assert cache.references[ids].tolist() == [[-1]]


def test_lost_references_are_forgotten() -> None:
    cache, ids = cache_with([1, 2], replicas=2)
    for ingester in (0, 1):
        cache.learn(0, 1, ingester, 7, ids, np.array([3, 4], np.int32))
    cache.forget_references(0, 1, 1, ids[:1])
    assert cache.references[ids].tolist() == [[3, -1], [4, 4]]


def test_over_the_bound_what_was_not_seen_lately_is_forgotten() -> None:
    cache, _ = cache_with(list(range(90)), series_max=100)
    cache.learn(0, 1, 0, 7, np.array([80], np.int32), np.array([42], np.int32))
    for _ in range(2):
        cache.age()
        cache.find(*keys([80, 81]))
    assert cache.make_room(20)
    assert len(cache) == 2 and cache.generation == 1
    ids, missing = cache.find(*keys([80, 81, 1]))
    assert missing == 1
    assert cache.references[ids[0]].tolist() == [42] and cache.tokens[ids[1]] == 81


def test_over_the_bound_with_everything_in_use_all_is_forgotten() -> None:
    cache, _ = cache_with(list(range(90)), series_max=100)
    assert not cache.make_room(10)
    assert cache.make_room(11)
    assert len(cache) == 0
    add(cache, [5])
    assert cache.find(*keys([5]))[1] == 0


def test_aging_gives_idle_memory_back() -> None:
    cache, _ = cache_with(list(range(900)))
    before = cache.nbytes
    for _ in range(4):
        cache.age()
        cache.find(*keys([1]))
    assert len(cache) == 1 and cache.nbytes < before


def test_aging_goes_on_for_ever() -> None:
    cache, _ = cache_with([1, 2])
    for _ in range(600):
        cache.age()
        cache.find(*keys([1]))
    cache._series_max = 2
    assert cache.make_room(1)
    assert cache.find(*keys([1, 2]))[0].tolist() == [0, -1]
