"""What is remembered of metric families, and for how long."""

from __future__ import annotations

from mimir_ray.model.metadata import Metadata
from mimir_ray.tsdb.family_metadata import PER_METRIC, PER_USER, FamilyMetadata

A, OTHER_A, B = Metadata("a", "gauge", "1"), Metadata("a", "counter", "2"), Metadata("b", "gauge")


def test_different_entries_of_a_family_are_all_kept() -> None:
    store = FamilyMetadata(10)
    assert store.learn([A, OTHER_A, A], 0) == ([A, OTHER_A], [])
    assert store.learn([A], 5) == ([], [])
    assert store.of("a") == [A, OTHER_A]
    assert store.learn([B], 6) == ([B], [])
    assert store.of() == [A, OTHER_A, B] and store.of("c") == [] and len(store) == 3


def test_limits_refuse_what_is_new_and_keep_what_is_known() -> None:
    store = FamilyMetadata(10)
    assert store.learn([A, B, OTHER_A], 0, families_max=1) == ([A, OTHER_A], [(B, PER_USER)])
    assert store.learn([A, Metadata("a", "info")], 0, per_family_max=2)[1] == [(Metadata("a", "info"), PER_METRIC)]
    small = FamilyMetadata(1)
    assert small.learn([A, B], 0) == ([A], [])


def test_what_nobody_sends_is_forgotten() -> None:
    store = FamilyMetadata(10)
    store.learn([A, B], 0)
    store.learn([A], 50)
    assert store.drop(100, 60) == 1
    assert store.of() == [A]
    assert store.drop(111, 60) == 1
    assert store.of() == []


def test_what_was_restored_counts_as_seen_from_then_on() -> None:
    store = FamilyMetadata(10)
    store.restore([A])
    assert store.drop(1000, 60) == 0
    assert store.drop(1060, 60) == 0
    assert store.drop(1061, 60) == 1
