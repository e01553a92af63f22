"""Sound requests of every protocol, with everything in them that the protocols have; what fuzzing starts from."""

from __future__ import annotations

import random
from typing import Any

from google.protobuf import json_format
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from mimir_ray.wire.pb.prompb import remote_pb2
from mimir_ray.wire.pb.prompb.io.prometheus.write.v2 import types_pb2 as v2

NOW_MS = 1_700_000_000_000
NAMES = ("__name__", "job", "instance", "le", "é", "a b", "")
VALUES = ("up", "jobs_total", "a", "", "1", "+Inf", "ü€😀", "x" * 80)


def write_requests(count: int = 12) -> list[bytes]:
    """Remote write 1.0."""
    return [_write_request(random.Random(number)) for number in range(count)]


def _labels(rng: random.Random) -> dict[str, str]:
    labels = {rng.choice(NAMES[1:]): rng.choice(VALUES) for _ in range(rng.randrange(4))}
    return dict(sorted({"__name__": rng.choice(VALUES[:3]), **labels}.items()))


def _write_request(rng: random.Random) -> bytes:
    request = remote_pb2.WriteRequest()
    for _ in range(rng.randrange(4)):
        series = request.timeseries.add()
        for name, value in _labels(rng).items():
            series.labels.add(name=name, value=value)
        for at in range(rng.randrange(4)):
            series.samples.add(timestamp=NOW_MS + at * rng.choice((0, 1, 15_000)), value=rng.random())
        for _ in range(rng.randrange(3)):
            exemplar = series.exemplars.add(timestamp=NOW_MS, value=1.5)
            exemplar.labels.add(name="trace_id", value=rng.choice(VALUES))
        for _ in range(rng.randrange(3)):
            _histogram(rng, series.histograms.add())
    for _ in range(rng.randrange(3)):
        request.metadata.add(type=rng.randrange(9), metric_family_name=rng.choice(VALUES), help="Help.", unit="s")
    return request.SerializeToString()


def _histogram(rng: random.Random, one: Any) -> None:
    """Of either version of the protocol."""
    one.timestamp = NOW_MS
    one.sum = 1.5
    one.reset_hint = rng.randrange(4)
    one.schema = rng.choice((-53, -4, 0, 3, 8))
    is_float = rng.random() < 0.5
    sides = ("positive",) if one.schema == -53 else ("positive", "negative")
    total = 0
    for side in sides:
        lengths = [rng.randrange(4) for _ in range(rng.randrange(3))]
        for length in lengths:
            getattr(one, f"{side}_spans").add(offset=rng.choice((0, 1, 2)), length=length)
        size = sum(lengths)
        total += size
        if is_float:
            getattr(one, f"{side}_counts").extend([1.0] * size)
        else:
            getattr(one, f"{side}_deltas").extend([1, *[0] * (size - 1)][:size])
    if one.schema == -53:
        one.custom_values.extend((0.5, 1.0, 5.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0))
    else:
        one.zero_threshold = 0.001
        total += 2
        if is_float:
            one.zero_count_float = 2
        else:
            one.zero_count_int = 2
    if is_float:
        one.count_float = total
    else:
        one.count_int = total


def write_requests_2(count: int = 12) -> list[bytes]:
    """Remote write 2.0."""
    return [_write_request_2(random.Random(number)) for number in range(count)]


def _write_request_2(rng: random.Random) -> bytes:
    request = v2.Request()
    request.symbols.append("")
    known = {"": 0}

    def symbol(text: str) -> int:
        if text not in known:
            known[text] = len(request.symbols)
            request.symbols.append(text)
        return known[text]

    for _ in range(rng.randrange(1, 4)):
        series = request.timeseries.add()
        series.labels_refs.extend(symbol(text) for pair in _labels(rng).items() for text in pair)
        for at in range(rng.randrange(3)):
            series.samples.add(timestamp=NOW_MS + at, value=rng.random(), start_timestamp=rng.choice((0, NOW_MS - 1)))
        for _ in range(rng.randrange(3)):
            series.exemplars.add(labels_refs=[symbol("trace_id"), symbol("abc")], timestamp=NOW_MS, value=1.0)
        for _ in range(rng.randrange(3)):
            _histogram(rng, series.histograms.add())
        if rng.random() < 0.5:
            series.metadata.type = rng.randrange(8)  # type: ignore[assignment]
            series.metadata.help_ref = symbol("Help.")
            series.metadata.unit_ref = symbol("seconds")
    return request.SerializeToString()


def otlp_requests(count: int = 14) -> list[bytes]:
    return [_otlp(random.Random(number)).SerializeToString() for number in range(count)]


def otlp_json_requests(count: int = 14) -> list[bytes]:
    return [
        json_format.MessageToJson(_otlp(random.Random(number)), indent=None).encode()  # type: ignore[arg-type]
        for number in range(count)
    ]


def _otlp(rng: random.Random) -> ExportMetricsServiceRequest:
    request = ExportMetricsServiceRequest()
    about = request.resource_metrics.add()
    _attributes(rng, about.resource.attributes, ("service.name", "service.namespace", "service.instance.id", "host"))
    scope = about.scope_metrics.add()
    scope.scope.name, scope.scope.version, scope.schema_url = "lib", "1.0", "https://example.com"
    _attributes(rng, scope.scope.attributes)
    for kind in rng.sample(("gauge", "sum", "histogram", "exponential_histogram", "summary"), rng.randrange(1, 4)):
        metric = scope.metrics.add(name=rng.choice(("http.server.duration", "jobs", "é", "9")), unit=rng.choice(UNITS))
        metric.description = "Text."
        body = getattr(metric, kind)
        if kind not in ("gauge", "summary"):
            body.aggregation_temporality = rng.choice((2, 2, 2, 1, 0))
        if kind == "sum":
            body.is_monotonic = rng.random() < 0.5
        for _ in range(rng.randrange(3)):
            _point(rng, kind, body.data_points.add())
    return request


UNITS = ("", "s", "By", "1", "{request}", "m/s", "%", "/", "By/{x}")


def _point(rng: random.Random, kind: str, point: Any) -> None:
    point.time_unix_nano = NOW_MS * 1_000_000
    point.start_time_unix_nano = rng.choice((0, (NOW_MS - 60_000) * 1_000_000))
    point.flags = rng.choice((0, 0, 0, 1))
    _attributes(rng, point.attributes)
    if kind in ("gauge", "sum"):
        if rng.random() < 0.5:
            point.as_double = 1.5
        else:
            point.as_int = -7
    else:
        point.count, point.sum = 6, 3.5
    if kind == "histogram":
        bounds = [0.1, 1.0, 10.0][: rng.randrange(4)]
        point.explicit_bounds.extend(bounds)
        point.bucket_counts.extend([1] * (len(bounds) + 1))
    elif kind == "exponential_histogram":
        point.scale = rng.choice((-4, 0, 3, 8, 20))
        point.zero_count, point.zero_threshold = 1, 0.01
        point.positive.offset = rng.choice((-5, 0, 7))
        point.positive.bucket_counts.extend([1, 0, 2, 0, 0, 1])
        point.negative.bucket_counts.extend([1])
    elif kind == "summary":
        for quantile in (0.0, 0.5, 0.99):
            point.quantile_values.add(quantile=quantile, value=quantile)
    if kind != "summary" and rng.random() < 0.5:
        exemplar = point.exemplars.add(time_unix_nano=NOW_MS * 1_000_000, as_double=2.0)
        exemplar.trace_id, exemplar.span_id = bytes(range(16)), bytes(range(8))
        _attributes(rng, exemplar.filtered_attributes)


def _attributes(rng: random.Random, target: Any, keys: tuple[str, ...] = ("a.b", "c", "é", "__name__", "le")) -> None:
    for key in rng.sample(keys, rng.randrange(len(keys))):
        value = target.add(key=key).value
        match rng.randrange(6):
            case 0:
                value.bool_value = True
            case 1:
                value.int_value = -(1 << 62)
            case 2:
                value.double_value = 1e300
            case 3:
                value.array_value.values.add().string_value = "x"
                value.array_value.values.add().kvlist_value.values.add(key="k").value.int_value = 1
            case 4:
                value.bytes_value = b"\0\xff"
            case _:
                value.string_value = rng.choice(VALUES)
