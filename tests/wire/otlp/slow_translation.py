"""The slow twin of the OTLP translation: one message object after another, one dictionary a series.

The kernels behind the fast one: `measure`, `read_points`, `find_attributes`,
`read_exponential`.
"""

from __future__ import annotations

import struct
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from mimir_ray.model.series import STALE_NAN
from mimir_ray.wire.otlp.names import Naming
from mimir_ray.wire.otlp.values import as_text, plain_float

Sample = tuple[tuple[tuple[str, str], ...], int, int, bytes]
"""Labels, timestamp and start (ms), the value's bits."""
LISTS = ("gauge", "sum", "histogram", "exponential_histogram", "summary")


def value_of(any_value: Any) -> Any:
    which = any_value.WhichOneof("value")
    if which == "array_value":
        return [value_of(one) for one in any_value.array_value.values]
    if which == "kvlist_value":
        return {one.key: value_of(one.value) for one in any_value.kvlist_value.values}
    return getattr(any_value, which) if which else None


def labels_of(attributes: Any, naming: Naming) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in sorted(((one.key, as_text(value_of(one.value))) for one in attributes), key=lambda pair: pair[0]):
        if key == "__name__":
            continue
        name = naming.label(key)
        found[name] = f"{found[name]};{value}" if found.get(name) else value
    return found


def samples_of(request: ExportMetricsServiceRequest, naming: Naming) -> list[Sample]:
    """All float samples but those of target_info, in the order of the request; temporality is not checked."""
    out: list[Sample] = []
    for resource_metrics in request.resource_metrics:
        own = {one.key: as_text(value_of(one.value)) for one in resource_metrics.resource.attributes}
        job = own.get("service.name", "")
        if job and own.get("service.namespace"):
            job = f"{own['service.namespace']}/{job}"
        shared = {"job": job, "instance": own.get("service.instance.id", "")}
        for scope_metrics in resource_metrics.scope_metrics:
            for metric in scope_metrics.metrics:
                kind = metric.WhichOneof("data")
                if kind is None or kind == "exponential_histogram":
                    continue
                words = {"sum": "counter" if metric.sum.is_monotonic else "updown"}
                name = naming.metric(metric.name, metric.unit, words.get(kind, kind))  # type: ignore[arg-type]
                for point in getattr(metric, kind).data_points:
                    base = labels_of(point.attributes, naming) | {key: one for key, one in shared.items() if one}
                    for suffix, more, value in parts_of(kind, point):
                        value = STALE_NAN if point.flags & 1 else value
                        labels = base | more | {"__name__": name + suffix}
                        out.append((
                            tuple(sorted((key, one) for key, one in labels.items() if one)),
                            point.time_unix_nano // 1_000_000,
                            point.start_time_unix_nano // 1_000_000,
                            struct.pack("<d", value),
                        ))  # fmt: skip
    return out


def parts_of(kind: str, point: Any) -> list[tuple[str, dict[str, str], float]]:
    if kind in ("gauge", "sum"):
        return [("", {}, float(point.as_int) if point.WhichOneof("value") == "as_int" else point.as_double)]
    found: list[tuple[str, dict[str, str], float]] = []
    if kind == "summary" or point.HasField("sum"):
        found.append(("_sum", {}, point.sum))
    found.append(("_count", {}, float(point.count)))
    if kind == "summary":
        found += [("", {"quantile": plain_float(one.quantile)}, one.value) for one in point.quantile_values]
        return found
    so_far = 0
    for bound, count in zip(point.explicit_bounds, point.bucket_counts, strict=False):
        so_far += count
        found.append(("_bucket", {"le": plain_float(bound)}, float(so_far)))
    found.append(("_bucket", {"le": "+Inf"}, float(point.count)))
    return found
