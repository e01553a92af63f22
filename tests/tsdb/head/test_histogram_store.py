"""Histograms of a head by number: what goes in comes out, through blocks, restarts and retention."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimir_ray.model.float_histogram import CUSTOM_BUCKETS_SCHEMA, FloatHistogram
from mimir_ray.model.histogram import HistogramColumns
from mimir_ray.tsdb.head import histogram_store
from mimir_ray.tsdb.head.histogram_store import DamagedHistograms, HistogramStore, pack, unpack

_counts = st.lists(st.floats(0, 1e12), max_size=5)


@st.composite
def histograms(draw: st.DrawFn) -> FloatHistogram:
    above, below = draw(_counts), draw(_counts)
    if draw(st.booleans()):
        bounds = sorted(draw(st.sets(st.floats(-100, 100), max_size=4)))
        return FloatHistogram(
            CUSTOM_BUCKETS_SCHEMA,
            count=sum(above),
            sum=draw(st.floats()),
            positive=np.arange(len(above), dtype=np.int32),
            positive_counts=np.array(above),
            custom_values=np.array(bounds),
        )
    first = draw(st.integers(-500, 500))
    return FloatHistogram(
        draw(st.integers(-4, 8)),
        draw(st.floats(0, 1)),
        draw(st.floats(0, 10)),
        sum(above) + sum(below),
        draw(st.floats()),
        draw(st.integers(0, 3)),
        np.arange(first, first + len(above), dtype=np.int32),
        np.array(above, np.float64),
        np.arange(-first, -first + len(below), dtype=np.int32),
        np.array(below, np.float64),
    )


def same(one: FloatHistogram, other: FloatHistogram) -> bool:
    return one.equals(other) and one.hint == other.hint


@given(st.lists(histograms(), max_size=8))
@settings(deadline=None)
def test_what_is_packed_can_be_unpacked(rows: list[FloatHistogram]) -> None:
    found = unpack(pack(HistogramColumns.from_rows(rows)))
    assert len(found) == len(rows)
    assert all(same(found.row(number), row) for number, row in enumerate(rows))


@given(st.lists(st.lists(histograms(), min_size=1, max_size=4), max_size=6), st.data())
@settings(deadline=None, max_examples=50)
def test_numbers_find_what_was_appended_whatever_block_it_is_in(
    batches: list[list[FloatHistogram]], data: st.DataObject
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(histogram_store, "BLOCK_HISTOGRAMS", 5)
        patch.setattr(histogram_store, "UNPACKED_MAX", 1)
        patch.setattr(histogram_store, "OPEN_MAX", data.draw(st.sampled_from([0, 1, 64])))
        store = HistogramStore()
        rows: list[FloatHistogram] = []
        for batch in batches:
            assert store.append(HistogramColumns.from_rows(batch), 0) == len(rows)
            rows += batch
        if data.draw(st.booleans()):
            restored = HistogramStore()
            restored.restore(store.state())
            store = restored
        numbers = sorted(data.draw(st.sets(st.sampled_from(range(len(rows)))))) if rows else []
        columns, found = store.read(np.array(numbers, np.int64))
        assert found.all()
        assert store.end == len(rows)
        assert all(same(columns.row(place), rows[number]) for place, number in enumerate(numbers))


def test_what_is_older_than_retention_is_gone_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(histogram_store, "BLOCK_HISTOGRAMS", 1)
    store = HistogramStore()
    for time_ms in (10, 20):
        store.append(HistogramColumns.from_rows([FloatHistogram(sum=float(time_ms))]), time_ms)
    store.drop_before(15)
    columns, found = store.read(np.array([0, 1], np.int64))
    assert found.tolist() == [False, True]
    assert columns.sum.tolist() == [20.0]


def test_damaged_bytes_are_corruption() -> None:
    packed = pack(HistogramColumns.from_rows([FloatHistogram(count=1.0)]))
    for bad in (packed[:-3], b"", b"nonsense"):
        with pytest.raises(DamagedHistograms):
            unpack(bad)
