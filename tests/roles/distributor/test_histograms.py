"""Native histograms through a whole distributor."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from mimir_ray.model.boxed import is_boxed, unbox
from mimir_ray.roles.distributor import errors
from mimir_ray.roles.distributor.distributor import PushOutcome
from mimir_ray.wire.pb.prompb import remote_pb2
from tests.roles.distributor.fakes import NOW_MS, TENANT, Setup


def add(request: Any, name: str, schema: int = 0, counts: tuple[float, ...] = (1.0, 2.0), at: int = 0) -> None:
    series = request.timeseries.add()
    series.labels.add(name="__name__", value=name)
    one = series.histograms.add(schema=schema, count_float=sum(counts), sum=5.0, timestamp=NOW_MS + at)
    one.positive_spans.add(offset=0, length=len(counts))
    one.positive_counts.extend(counts)


def push(setup: Setup, request: Any) -> PushOutcome:
    async def work() -> PushOutcome:
        outcome = await setup.distributor.push(TENANT, request.SerializeToString())
        await setup.distributor.drain()
        return outcome

    return asyncio.run(work())


def test_histograms_arrive_beside_the_floats() -> None:
    setup = Setup()
    request = remote_pb2.WriteRequest()
    add(request, "h")
    request.timeseries[0].samples.add(value=3.0, timestamp=NOW_MS - 5)
    add(request, "g", counts=(4.0,))
    assert push(setup, request) == PushOutcome(3)
    ((batch,),) = setup.only.calls
    boxed = is_boxed(batch.new_values)
    assert boxed.tolist() == [False, True, True]
    assert batch.histograms is not None
    rows = unbox(batch.new_values[boxed])
    assert batch.histograms.count[rows].tolist() == [3.0, 4.0]


def test_a_series_that_is_known_keeps_its_histograms() -> None:
    setup = Setup()
    for at in range(2):
        request = remote_pb2.WriteRequest()
        add(request, "h", at=at)
        push(setup, request)
    (batch,) = setup.only.calls[1]
    assert batch.references.tolist() == [0]
    assert is_boxed(batch.values).all()
    assert batch.histograms is not None and len(batch.histograms) == 1


def test_an_ingester_gets_only_the_histograms_of_its_samples() -> None:
    setup = Setup()
    request = remote_pb2.WriteRequest()
    add(request, "h", counts=(1.0,))
    push(setup, request)
    again = remote_pb2.WriteRequest()
    add(again, "h", schema=99, at=1)
    add(again, "h", counts=(2.0,), at=2)
    push(setup, again)
    (batch,) = setup.only.calls[1]
    assert batch.histograms is not None
    assert batch.histograms.count.tolist() == [2.0]
    assert unbox(batch.values).tolist() == [0]


def test_a_histogram_of_no_known_schema_is_refused_and_the_rest_is_taken() -> None:
    setup = Setup()
    request = remote_pb2.WriteRequest()
    add(request, "bad", schema=9)
    add(request, "good")
    outcome = push(setup, request)
    assert outcome.samples == 1
    assert isinstance(outcome.error, errors.InvalidHistogramSchema)
    assert str(outcome.error).endswith("(err-mimir-invalid-native-histogram-schema)")


def test_a_histogram_that_contradicts_itself_has_the_id_of_its_kind() -> None:
    setup = Setup()
    request = remote_pb2.WriteRequest()
    add(request, "h")
    request.timeseries[0].histograms[0].positive_counts.append(1.0)
    outcome = push(setup, request)
    assert "err-mimir-native-histogram-spans-buckets-mismatch" in str(outcome.error)


@pytest.mark.parametrize(("reduce", "kind"), [(True, None), (False, errors.TooManyBuckets)])
def test_too_many_buckets_are_reduced_or_refused(reduce: bool, kind: Any) -> None:
    setup = Setup(max_native_histogram_buckets=4, reduce_native_histogram_over_max_buckets=reduce)
    request = remote_pb2.WriteRequest()
    add(request, "h", schema=3, counts=(1.0,) * 16)
    outcome = push(setup, request)
    if kind is not None:
        assert isinstance(outcome.error, kind)
        return
    ((batch,),) = setup.only.calls
    assert batch.histograms is not None
    assert len(batch.histograms.positive) <= 4
    assert np.sum(batch.histograms.positive_counts) == 16


def test_a_tenant_without_native_histograms_loses_them_in_silence() -> None:
    setup = Setup(native_histograms_ingestion_enabled=False)
    request = remote_pb2.WriteRequest()
    add(request, "h")
    assert push(setup, request) == PushOutcome()
