"""OTLP metrics become samples: fast translation against its slow twin, and what each kind of metric turns into."""

from __future__ import annotations

import contextlib
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric

from mimir_ray.errors import MimirRayError
from mimir_ray.model.series import is_stale
from mimir_ray.wire.otlp.names import Naming
from mimir_ray.wire.otlp.translate import OtlpScan, OtlpSettings, scan_otlp
from mimir_ray.wire.protobuf import MalformedProtobuf, parse_labels
from mimir_ray.wire.remote_write_histograms import OK, SCHEMA
from tests.wire.otlp.slow_translation import LISTS, Sample, samples_of

KEY = (3, 5, 7, 9)
NOW_NS = 1_700_000_000_123_456_789
CUMULATIVE, DELTA = 2, 1


def labels_of(scan: OtlpScan, row: int) -> tuple[tuple[str, str], ...]:
    scan.need_labels(np.array([row]))
    raw = parse_labels(scan.data, int(scan.label_start[row]), int(scan.label_end[row]))
    return tuple((name.decode(), value.decode()) for name, value in raw)


def samples_in(scan: OtlpScan) -> list[Sample]:
    begun = scan.start_timestamps if scan.start_timestamps is not None else np.zeros(scan.samples, np.int64)
    return [
        (labels_of(scan, int(row)), int(time), int(start), struct.pack("<d", value))
        for row, time, start, value in zip(scan.sample_series, scan.timestamps, begun, scan.values, strict=True)
    ]


def is_target(sample: Sample) -> bool:
    return dict(sample[0]).get("__name__") == "target_info"


def one_metric(**resource: str) -> tuple[ExportMetricsServiceRequest, Metric]:
    request = ExportMetricsServiceRequest()
    about = request.resource_metrics.add()
    for key, value in resource.items():
        about.resource.attributes.add(key=key.replace("__", ".")).value.string_value = value
    metric = about.scope_metrics.add().metrics.add(name="requests.served")
    return request, metric


def scan_of(request: ExportMetricsServiceRequest, **settings: Any) -> OtlpScan:
    return scan_otlp(request.SerializeToString(), KEY, OtlpSettings(**settings))


TEXTS = st.sampled_from(["", "a", "b.c", "b_c", "_x", "9", "é", "__name__", "le"])
NUMBERS = st.sampled_from([0.0, -0.0, 1.0, 2.5, 1e-9, 1e300, float("inf"), float("nan")])
TIMES = st.sampled_from([0, 1_000_000, NOW_NS, NOW_NS + 15_000_000_000])
COUNTS = st.integers(0, (1 << 64) - 1)


@st.composite
def requests(draw: Any) -> ExportMetricsServiceRequest:
    request = ExportMetricsServiceRequest()

    def attributes(target: Any) -> None:
        for key in draw(st.lists(TEXTS.filter(bool), max_size=3, unique=True)):
            value = target.add(key=key).value
            kind = draw(st.sampled_from(["string_value", "bool_value", "int_value", "double_value", "list", ""]))
            if kind == "string_value":
                value.string_value = draw(TEXTS)
            elif kind == "bool_value":
                value.bool_value = draw(st.booleans())
            elif kind == "int_value":
                value.int_value = draw(st.integers(-(1 << 63), (1 << 63) - 1))
            elif kind == "double_value":
                value.double_value = draw(NUMBERS)
            elif kind == "list":
                value.array_value.values.add().string_value = draw(TEXTS)

    for _ in range(draw(st.integers(0, 2))):
        about = request.resource_metrics.add()
        for key in draw(st.lists(st.sampled_from(["service.name", "service.namespace", "host"]), unique=True)):
            about.resource.attributes.add(key=key).value.string_value = draw(TEXTS)
        for _ in range(draw(st.integers(0, 2))):
            scope = about.scope_metrics.add()
            for _ in range(draw(st.integers(0, 3))):
                metric = scope.metrics.add(name=draw(st.sampled_from(["m", "m.n", "n_total"])), unit=draw(TEXTS))
                kind = draw(st.sampled_from([*LISTS[:3], "summary"]))
                data = getattr(metric, kind)
                if kind in ("sum", "histogram"):
                    data.aggregation_temporality = CUMULATIVE
                if kind == "sum":
                    data.is_monotonic = draw(st.booleans())
                for _ in range(draw(st.integers(1, 3))):
                    point = data.data_points.add(
                        time_unix_nano=draw(TIMES), start_time_unix_nano=draw(TIMES), flags=draw(st.integers(0, 1))
                    )
                    attributes(point.attributes)
                    if kind in ("gauge", "sum"):
                        if draw(st.booleans()):
                            point.as_int = draw(st.integers(-(1 << 63), (1 << 63) - 1))
                        else:
                            point.as_double = draw(NUMBERS)
                        continue
                    point.count = draw(COUNTS)
                    if kind == "summary" or draw(st.booleans()):
                        point.sum = draw(NUMBERS)
                    if kind == "summary":
                        for _ in range(draw(st.integers(0, 2))):
                            point.quantile_values.add(quantile=draw(NUMBERS), value=draw(NUMBERS))
                    else:
                        point.bucket_counts.extend(draw(st.lists(st.integers(0, 1 << 40), max_size=3)))
                        point.explicit_bounds.extend(draw(st.lists(NUMBERS, max_size=3)))
    return request


@given(requests(), st.booleans())
def test_fast_and_slow_translation_agree(request: ExportMetricsServiceRequest, suffixes: bool) -> None:
    naming = Naming(suffixes=suffixes)
    scan = scan_of(request, naming=naming)
    assert [one for one in samples_in(scan) if not is_target(one)] == samples_of(request, naming)
    assert scan.problems == ()


@given(requests())
def test_equal_series_have_equal_hashes_and_others_have_others(request: ExportMetricsServiceRequest) -> None:
    scan = scan_of(request)
    by_hash: dict[tuple[int, int], set[Any]] = {}
    for row in range(len(scan)):
        by_hash.setdefault((int(scan.hash_low[row]), int(scan.hash_high[row])), set()).add(labels_of(scan, row))
    assert all(len(found) == 1 for found in by_hash.values())


@given(st.binary(max_size=200))
def test_any_bytes_are_a_request_or_an_error_that_says_so(body: bytes) -> None:
    with contextlib.suppress(MimirRayError):
        scan = scan_otlp(body, KEY, OtlpSettings())
        scan.need_labels(np.arange(len(scan)))


@given(requests(), st.data())
def test_damaged_requests_do_no_harm(request: ExportMetricsServiceRequest, data: Any) -> None:
    body = bytearray(request.SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        if body:
            body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(body[: data.draw(st.integers(0, len(body)))])
    with contextlib.suppress(MimirRayError):
        scan = scan_otlp(cut, KEY, OtlpSettings(convert_histograms_to_nhcb=data.draw(st.booleans())))
        scan.need_labels(np.arange(len(scan)))


def test_a_resource_with_more_than_its_identity_is_described_by_target_info() -> None:
    request, metric = one_metric(service__name="shop", service__namespace="web", service__instance__id="i1", host="h")
    metric.gauge.data_points.add(time_unix_nano=NOW_NS, as_double=1)
    metric.gauge.data_points.add(time_unix_nano=NOW_NS + 300_000_000_000, as_double=2)
    found = [one for one in samples_in(scan_of(request)) if is_target(one)]
    expected = (("__name__", "target_info"), ("host", "h"), ("instance", "i1"), ("job", "web/shop"))
    assert {labels for labels, *_ in found} == {expected}
    first = NOW_NS // 1_000_000
    assert [time for _, time, *_ in found] == [first, first + 150_000, first + 300_000]
    kept = scan_of(request, keep_identifying_resource_attributes=True)
    last = next(labels for labels, *_ in samples_in(kept) if dict(labels)["__name__"] == "target_info")
    assert ("service_name", "shop") in last


def test_an_identity_alone_needs_no_target_info() -> None:
    request, metric = one_metric(service__name="shop")
    metric.gauge.data_points.add(time_unix_nano=NOW_NS, as_double=1)
    assert not any(is_target(one) for one in samples_in(scan_of(request)))


def test_timestamps_far_apart_are_no_flood_of_target_info() -> None:
    request, metric = one_metric(service__name="shop", host="h")
    metric.gauge.data_points.add(time_unix_nano=0, as_double=1)
    metric.gauge.data_points.add(time_unix_nano=(1 << 63) - 1, as_double=1)
    assert scan_of(request).samples < 1100


def test_resource_and_scope_become_labels_where_the_tenant_wants_that() -> None:
    request, metric = one_metric(service__name="shop", host__name="h", zone="z")
    scope = request.resource_metrics[0].scope_metrics[0]
    scope.scope.name, scope.scope.version, scope.schema_url = "lib", "1.2", "http://s"
    scope.scope.attributes.add(key="own").value.int_value = 7
    metric.gauge.data_points.add(time_unix_nano=NOW_NS, as_double=1).attributes.add(key="zone").value.string_value = "p"
    scan = scan_of(request, promote_resource_attributes=("host.name", "zone"), promote_scope_metadata=True)
    assert dict(labels_of(scan, 0)) == {
        "__name__": "requests_served", "host_name": "h", "zone": "p", "job": "shop", "otel_scope_name": "lib",
        "otel_scope_version": "1.2", "otel_scope_schema_url": "http://s", "otel_scope_own": "7",
    }  # fmt: skip


def test_delta_metrics_are_refused_by_name_and_the_rest_is_taken() -> None:
    request, metric = one_metric()
    metric.sum.aggregation_temporality = DELTA
    metric.sum.data_points.add(time_unix_nano=NOW_NS, as_double=1)
    metric.sum.data_points.add(time_unix_nano=NOW_NS, as_double=1)
    other = request.resource_metrics[0].scope_metrics[0].metrics.add(name="other")
    other.gauge.data_points.add(time_unix_nano=NOW_NS, as_double=1)
    scan = scan_of(request)
    assert scan.problems == ('invalid temporality and type combination for metric "requests.served"',)
    assert scan.rejected == 2
    assert [dict(labels)["__name__"] for labels, *_ in samples_in(scan)] == ["other"]
    taken = scan_of(request, native_delta=True)
    assert taken.problems == () and taken.samples == 3
    assert {one.family: one.type for one in taken.metadata} == {"requests_served": "gauge", "other": "gauge"}


def test_a_metric_without_data_is_named() -> None:
    request, _ = one_metric()
    assert "requests.served" in scan_of(request).problems[0]


def test_exponential_histograms_become_native_ones() -> None:
    request, metric = one_metric()
    metric.exponential_histogram.aggregation_temporality = CUMULATIVE
    point = metric.exponential_histogram.data_points.add(
        time_unix_nano=NOW_NS, count=12, sum=20.5, scale=3, zero_count=2, zero_threshold=0.25
    )
    point.positive.offset = -3
    point.positive.bucket_counts.extend([1, 0, 4])
    point.negative.offset = 5
    point.negative.bucket_counts.extend([5])
    scan = scan_of(request)
    assert scan.histograms == 1 and scan.native is not None and scan.native.problems.tolist() == [OK]
    found = scan.native.columns.row(0)
    assert (found.schema, found.count, found.sum, found.zero_count, found.zero_threshold) == (3, 12, 20.5, 2, 0.25)
    assert dict(zip(found.positive.tolist(), found.positive_counts.tolist(), strict=True)) == {-2: 1.0, 0: 4.0}
    assert dict(zip(found.negative.tolist(), found.negative_counts.tolist(), strict=True)) == {6: 5.0}
    assert labels_of(scan, int(scan.native.series[0])) == (("__name__", "requests_served"),)


@given(st.integers(-20, 20), st.integers(-100, 100), st.lists(st.integers(0, 3), max_size=20))
def test_finer_scales_are_merged_down_to_eight(scale: int, offset: int, counts: list[int]) -> None:
    request, metric = one_metric()
    metric.exponential_histogram.aggregation_temporality = CUMULATIVE
    point = metric.exponential_histogram.data_points.add(time_unix_nano=NOW_NS, count=sum(counts), scale=scale)
    point.positive.offset = offset
    point.positive.bucket_counts.extend(counts)
    scan = scan_of(request)
    assert scan.native is not None
    expected: dict[int, int] = {}
    shift = max(0, scale - 8)
    for at, count in enumerate(counts, offset):
        expected[(at >> shift) + 1] = expected.get((at >> shift) + 1, 0) + count
    found = scan.native.columns.row(0)
    assert dict(zip(found.positive.tolist(), found.positive_counts.tolist(), strict=True)) == {
        at: float(count) for at, count in expected.items() if count
    }
    assert found.zero_threshold == 1e-128
    assert scan.native.problems.tolist() == [SCHEMA if scale < -4 else OK]


def test_explicit_histograms_become_custom_buckets_where_the_tenant_wants_that() -> None:
    request, metric = one_metric()
    metric.histogram.aggregation_temporality = CUMULATIVE
    point = metric.histogram.data_points.add(time_unix_nano=NOW_NS, count=6, sum=7.5)
    point.explicit_bounds.extend([0.5, 1, 5])
    point.bucket_counts.extend([0, 2, 0, 4])
    scan = scan_of(request, convert_histograms_to_nhcb=True)
    assert scan.native is not None and scan.native.problems.tolist() == [OK]
    found = scan.native.columns.row(0)
    assert found.custom_values.tolist() == [0.5, 1, 5]
    assert dict(zip(found.positive.tolist(), found.positive_counts.tolist(), strict=True)) == {1: 2.0, 3: 4.0}


def test_a_point_without_a_value_is_a_stale_marker() -> None:
    request, metric = one_metric()
    metric.exponential_histogram.aggregation_temporality = CUMULATIVE
    metric.exponential_histogram.data_points.add(time_unix_nano=NOW_NS, flags=1)
    other = request.resource_metrics[0].scope_metrics[0].metrics.add(name="other")
    other.gauge.data_points.add(time_unix_nano=NOW_NS, flags=1)
    scan = scan_of(request)
    assert is_stale(scan.values).tolist() == [True]
    assert scan.native is not None and is_stale(scan.native.columns.sum).tolist() == [True]


def test_metadata_has_the_type_the_help_and_the_unit() -> None:
    request, metric = one_metric()
    metric.description, metric.unit = "What it served.", "By"
    metric.sum.aggregation_temporality, metric.sum.is_monotonic = CUMULATIVE, True
    metric.sum.data_points.add(time_unix_nano=NOW_NS, as_int=1)
    (found,) = scan_of(request, naming=Naming(suffixes=True)).metadata
    assert (found.family, found.type) == ("requests_served_bytes_total", "counter")
    assert (found.help, found.unit) == ("What it served.", "bytes")


def test_numbers_that_are_not_packed_are_read_too() -> None:
    request, metric = one_metric()
    metric.histogram.aggregation_temporality = CUMULATIVE
    point = metric.histogram.data_points.add(time_unix_nano=NOW_NS, count=3)
    packed = point.SerializeToString()
    loose = packed + b"".join(b"\x31" + struct.pack("<Q", one) for one in (1, 2))
    loose += b"".join(b"\x39" + struct.pack("<d", one) for one in (0.5,))
    whole = request.SerializeToString()
    nested = whole.replace(b"\x0a" + bytes([len(packed)]) + packed, b"\x0a" + bytes([len(loose)]) + loose)
    # Every enclosing length grows by as much.
    grown = bytearray(nested)
    for at in range(nested.index(loose)):
        inside = whole[at + 1 :]
        if at + 1 < len(whole) and whole[at] == len(inside):
            grown[at] += len(loose) - len(packed)
    try:
        scan = scan_otlp(bytes(grown), KEY, OtlpSettings())
    except MalformedProtobuf as error:
        pytest.fail(str(error))
    assert scan.values.tolist() == [3.0, 1.0, 3.0]


def test_exemplars_belong_to_the_bucket_that_they_fall_into() -> None:
    request, metric = one_metric()
    metric.histogram.aggregation_temporality = CUMULATIVE
    point = metric.histogram.data_points.add(time_unix_nano=NOW_NS, count=3)
    point.explicit_bounds.extend([1, 5])
    point.bucket_counts.extend([1, 1, 1])
    for value in (0.5, 5.0, 7.0):
        exemplar = point.exemplars.add(time_unix_nano=NOW_NS, as_double=value, trace_id=bytes(range(16)))
        exemplar.filtered_attributes.add(key="user").value.string_value = "u"
    point.exemplars[2].filtered_attributes.add(key="long").value.string_value = "x" * 200
    scan = scan_of(request)
    found = scan.own_exemplars(128)
    assert found is not None and scan.exemplars == len(found) == 3
    assert [dict(labels_of(scan, row))["le"] for row in found.series.tolist()] == ["1", "5", "+Inf"]
    assert found.values.tolist() == [0.5, 5.0, 7.0]
    texts = [
        parse_labels(found.labels, int(start), int(end))
        for start, end in zip(found.offsets[:-1], found.offsets[1:], strict=True)
    ]
    trace = (b"trace_id", bytes(range(16)).hex().encode())
    assert texts == [[trace, (b"user", b"u")], [trace, (b"user", b"u")], [trace]]
    assert found.problems.tolist() == [0, 0, 0]
