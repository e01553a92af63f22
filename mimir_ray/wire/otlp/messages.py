"""The upper levels of an OTLP metrics request: resources, scopes and metrics, down to where the data points are.

There are few of them, so they are Python objects; data points are not looked at (points.py does that).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from mimir_ray.wire.protobuf import BYTES, fields

from . import points
from .values import Attributes, read_attributes, text_of

SERVICE_NAMESPACE, SERVICE_NAME, SERVICE_INSTANCE = "service.namespace", "service.name", "service.instance.id"
IDENTIFYING = (SERVICE_NAMESPACE, SERVICE_NAME, SERVICE_INSTANCE)

_KINDS = {5: points.GAUGE, 7: points.SUM, 9: points.HISTOGRAM, 10: points.EXPONENTIAL, 11: points.SUMMARY}


@dataclass(frozen=True, slots=True)
class Resource:
    """`raw`: the message's bytes, which identify it."""

    raw: bytes
    attributes: Attributes

    @property
    def job(self) -> str:
        """The label `job`: the service's namespace and name; "" if it has no name."""
        found = dict(self.attributes)
        name, namespace = found.get(SERVICE_NAME, ""), found.get(SERVICE_NAMESPACE, "")
        return f"{namespace}/{name}" if name and namespace else name

    @property
    def instance(self) -> str:
        """The label `instance`."""
        return dict(self.attributes).get(SERVICE_INSTANCE, "")


@dataclass(frozen=True, slots=True)
class Scope:
    raw: bytes
    name: str = ""
    version: str = ""
    schema_url: str = ""
    attributes: Attributes = field(default_factory=list)


@dataclass(slots=True)
class Metric:
    """`kind`: of points.py, -1 where there is none that we know. Its points are in `data[start:end]`."""

    resource: int
    scope: int
    name: str = ""
    description: str = ""
    unit: str = ""
    kind: int = -1
    start: int = 0
    end: int = 0


@dataclass(frozen=True, slots=True)
class Request:
    """An ExportMetricsServiceRequest."""

    data: bytes
    resources: list[Resource]
    scopes: list[Scope]
    metrics: list[Metric]


def read_request(data: bytes) -> Request:
    """Raises `MalformedProtobuf`; points are not looked at."""
    request = Request(data, [], [], [])
    for number, wire, _, content, after in fields(data, 0, len(data), "ExportMetricsServiceRequest"):
        if number == 1 and wire == BYTES:
            _read_resource_metrics(request, content, after)
    return request


def _read_resource_metrics(request: Request, start: int, end: int) -> None:
    data = request.data
    resource = Resource(b"", [])
    scopes = []
    for number, wire, _, content, after in fields(data, start, end, "ResourceMetrics"):
        if wire != BYTES:
            continue
        if number == 1:
            resource = Resource(data[content:after], read_attributes(data, content, after, 1, "Resource"))
        elif number == 2:
            scopes.append((content, after))
    request.resources.append(resource)
    for content, after in scopes:
        _read_scope_metrics(request, content, after)


def _read_scope_metrics(request: Request, start: int, end: int) -> None:
    data = request.data
    scope, schema_url = (0, 0), ""
    metrics = []
    for number, wire, _, content, after in fields(data, start, end, "ScopeMetrics"):
        if wire != BYTES:
            continue
        if number == 1:
            scope = content, after
        elif number == 2:
            metrics.append((content, after))
        elif number == 3:
            schema_url = text_of(data, content, after)
    texts = {1: "", 2: ""}
    for number, wire, _, content, after in fields(data, *scope, "InstrumentationScope"):
        if number in texts and wire == BYTES:
            texts[number] = text_of(data, content, after)
    attributes = read_attributes(data, *scope, 3, "InstrumentationScope")
    raw = data[scope[0] : scope[1]] + b"\0" + schema_url.encode()
    request.scopes.append(Scope(raw, texts[1], texts[2], schema_url, attributes))
    for content, after in metrics:
        request.metrics.append(_read_metric(request, content, after))


def _read_metric(request: Request, start: int, end: int) -> Metric:
    data = request.data
    metric = Metric(len(request.resources) - 1, len(request.scopes) - 1)
    for number, wire, _, content, after in fields(data, start, end, "Metric"):
        if wire != BYTES:
            continue
        if number == 1:
            metric.name = text_of(data, content, after)
        elif number == 2:
            metric.description = text_of(data, content, after)
        elif number == 3:
            metric.unit = text_of(data, content, after)
        elif number in _KINDS:
            metric.kind, metric.start, metric.end = _KINDS[number], content, after
    return metric
