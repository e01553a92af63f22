"""Batches and results arrive as they were sent, whatever of them is empty."""

from __future__ import annotations

import pickle
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimir_ray.cluster.transport.packing import pack, unpack
from mimir_ray.model.tenant import TenantId
from mimir_ray.model.write import Refusal, WriteBatch, WriteResult


def column(dtype: Any) -> st.SearchStrategy[Any]:
    return st.lists(st.integers(0, 1000), max_size=4).map(lambda values: np.array(values, dtype))


def there_and_back(value: Any) -> Any:
    packed = pack(value)
    assert packed is not None
    return unpack(packed)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray):
        return isinstance(other, np.ndarray) and one.dtype == other.dtype and np.array_equal(one, other)
    return bool(one == other)


def assert_same(one: Any, other: Any) -> None:
    for each in fields(one):
        assert same(getattr(one, each.name), getattr(other, each.name)), each.name


BATCHES = st.builds(
    WriteBatch,
    tenant=st.just(TenantId("t")),
    incarnation=st.integers(0, 2**63),
    references=column(np.int32),
    timestamps=column(np.int64),
    values=column(np.float64),
    label_bytes=st.binary(max_size=5),
    label_offsets=column(np.int64),
    new_series=column(np.int32),
    new_timestamps=column(np.int64),
    new_values=column(np.float64),
    start_timestamps=st.none() | column(np.int64),
    new_start_timestamps=st.none() | column(np.int64),
    zeros_within_ms=st.integers(0, 300_000),
)
RESULTS = st.builds(
    WriteResult,
    incarnation=st.integers(0, 2**63),
    stale=st.booleans(),
    new_references=column(np.int32),
    unknown=column(np.int32),
    refusals=st.just(()) | st.just((Refusal("sample-out-of-order", 1, 2, 3),)),
    refused=column(np.int32),
    refused_exemplars=column(np.int32),
)


@given(BATCHES | RESULTS)
def test_what_is_sent_arrives(message: Any) -> None:
    assert_same(message, there_and_back(message))


@given(BATCHES | RESULTS)
@pytest.mark.parametrize("version", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_every_version_of_pickle_knows_them(version: int, message: Any) -> None:
    assert_same(message, pickle.loads(pickle.dumps(message, version)))


def test_a_column_that_is_a_part_of_another_array_arrives() -> None:
    every_second = np.arange(10, dtype=np.int64)[::2]
    batch = WriteBatch(TenantId("t"), 1, np.arange(5, dtype=np.int32), every_second, np.ones(5))
    assert there_and_back(batch).timestamps.tolist() == [0, 2, 4, 6, 8]


def test_no_known_sample_and_nothing_known_of_start_timestamps_are_two_things() -> None:
    none, empty = np.zeros(0, np.int32), np.zeros(0, np.int64)
    batch = WriteBatch(TenantId("t"), 1, none, empty, np.zeros(0), start_timestamps=empty)
    arrived = there_and_back(batch)
    assert arrived.start_timestamps is not None and arrived.new_start_timestamps is None
