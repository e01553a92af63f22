"""Labels and annotations of alerts: what Prometheus' templates see and may call.

Upstream: template/template.go NewTemplateExpander, AlertTemplateData; rules/alerting.go Eval.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn
from urllib.parse import urlsplit

from mimir_ray.errors import MimirRayError
from mimir_ray.gotemplate.builtins import query_escape
from mimir_ray.gotemplate.errors import FunctionError, TemplateExecutionError, TemplateSyntaxError
from mimir_ray.gotemplate.floats import format_float
from mimir_ray.gotemplate.template import Template
from mimir_ray.gotemplate.text_functions import TEXT_FUNCTIONS
from mimir_ray.gotemplate.values import Function, Object, Slice, StringMap
from mimir_ray.model.durations import parse_duration
from mimir_ray.model.float_histogram import FloatHistogram, boundaries
from mimir_ray.model.labels import Labels, is_utf8

from .sample import Query, Sample

# Names that are easier to remember for who does not know Go's templates.
_DEFINITIONS = (
    "{{$labels := .Labels}}{{$externalLabels := .ExternalLabels}}{{$externalURL := .ExternalURL}}{{$value := .Value}}"
)


class HistogramValue(Object):
    """A native histogram; templates can print it."""

    go_type = "*histogram.FloatHistogram"

    def __init__(self, histogram: FloatHistogram) -> None:
        self.histogram = histogram

    def go_string(self) -> str:
        return format_histogram(self.histogram)


def format_histogram(histogram: FloatHistogram) -> str:
    """Upstream: FloatHistogram.String."""
    parts = [f"count:{format_float(histogram.count, 'g')}", f"sum:{format_float(histogram.sum, 'g')}"]
    for lower, upper, count in zip(*(each.tolist() for each in histogram.buckets()), strict=True):
        if count:
            left, right = boundaries(histogram, lower, upper)
            bounds = f"{format_float(lower, 'g')},{format_float(upper, 'g')}"
            parts.append(f"{left}{bounds}{right}:{format_float(count, 'g')}")
    return f"{{{', '.join(parts)}}}"


class TemplateSample(Object):
    """An element of what `query` gives."""

    go_type = "*template.sample"
    fields = ("Labels", "Value")
    interfaces = frozenset({"Value"})

    def __init__(self, sample: Sample) -> None:
        self.Labels = StringMap(sample.labels)
        self.Value = _value(sample.value)


class QueryResults(Slice):
    go_type = "template.queryResult"


class AlertData(Object):
    """The dot of a template."""

    go_type = (
        "struct { Labels map[string]string; ExternalLabels map[string]string; ExternalURL string; Value interface {} }"
    )
    fields = ("Labels", "ExternalLabels", "ExternalURL", "Value")
    interfaces = frozenset({"Value"})

    def __init__(
        self, labels: Labels, external_labels: Mapping[str, str], external_url: str, value: float | FloatHistogram
    ) -> None:
        self.Labels = StringMap(labels)
        self.ExternalLabels = StringMap(external_labels)
        self.ExternalURL = external_url
        self.Value = _value(value)


def _value(value: float | FloatHistogram) -> float | HistogramValue:
    return HistogramValue(value) if isinstance(value, FloatHistogram) else value


@dataclass(frozen=True, slots=True)
class TemplateContext:
    """What templates know besides the alert.

    `external_url`: what `.ExternalURL` says. `server_url`: what the functions `externalURL` and `pathPrefix` go by;
    None: there is none, so that they fail.
    """

    external_labels: Mapping[str, str] = field(default_factory=dict)
    external_url: str = ""
    server_url: str | None = None


def alert_functions(query: Query, time_ms: int, server_url: str | None) -> dict[str, Function]:
    """Everything that templates of rules may call besides the builtins."""

    def ask(expression: str) -> QueryResults:
        try:
            return QueryResults(map(TemplateSample, query(expression, time_ms)))
        except MimirRayError as error:
            raise FunctionError(error.describe()) from None

    def url() -> str:
        if server_url is None:
            raise FunctionError("runtime error: invalid memory address or nil pointer dereference")
        return server_url

    return {
        **_FUNCTIONS,
        "externalURL": Function(url),
        "now": Function(lambda: time_ms / 1000.0),
        "pathPrefix": Function(lambda: urlsplit(url()).path),
        "query": Function(ask, ("string",)),
    }


def _first(results: QueryResults | None) -> Any:
    if not results:
        raise FunctionError("first() called on vector with no elements")
    return results[0]


def _of_sample(sample: TemplateSample | None) -> TemplateSample:
    if sample is None:
        raise FunctionError("runtime error: invalid memory address or nil pointer dereference")
    return sample


def _sorted(label: str, results: QueryResults | None) -> QueryResults:
    return QueryResults(sorted(results or (), key=lambda sample: sample.Labels.get(label, "")))


def _parse_duration(text: str) -> float:
    """In seconds; may be negative."""
    try:
        size = parse_duration(text.removeprefix("-"))
    except MimirRayError as error:
        raise FunctionError(error.describe()) from None
    return (-size if text.startswith("-") else size) / 1000.0


def _link(expression: str, tab: int) -> str:
    return f"/graph?g0.expr={query_escape(expression)}&g0.tab={tab}"


_FUNCTIONS: dict[str, Function] = {
    **TEXT_FUNCTIONS,
    "first": Function(_first, (QueryResults.go_type,)),
    "graphLink": Function(lambda expression: _link(expression, 0), ("string",)),
    "label": Function(
        lambda label, sample: _of_sample(sample).Labels.get(label, ""), ("string", TemplateSample.go_type)
    ),
    "parseDuration": Function(_parse_duration, ("string",)),
    "sortByLabel": Function(_sorted, ("string", QueryResults.go_type)),
    "strvalue": Function(lambda sample: _of_sample(sample).Labels.get("__value__", ""), (TemplateSample.go_type,)),
    "tableLink": Function(lambda expression: _link(expression, 1), ("string",)),
    "urlQueryEscape": Function(query_escape, ("string",)),
    "value": Function(lambda sample: _of_sample(sample).Value, (TemplateSample.go_type,)),
}


def _never(_expression: str, _time_ms: int) -> NoReturn:
    raise AssertionError("a template is only parsed, not carried out")


def check_template(alert: str, text: str) -> None:
    """Raises `TemplateSyntaxError`."""
    Template.parse(_name(alert), _DEFINITIONS + text, alert_functions(_never, 0, None))


def expand(alert: str, text: str, data: AlertData, functions: Mapping[str, Function]) -> str:
    """A label or annotation of an alert; an error becomes part of the text, so that the alert still goes out."""
    if "{{" not in text:
        return text
    name = _name(alert)
    try:
        template = Template.parse(name, _DEFINITIONS + text, functions)
    except TemplateSyntaxError as error:
        return f"<error expanding template: error parsing template {name}: {error.describe()}>"
    try:
        made = template.execute(data, zero_missing=True)
        # Differs: upstream keeps bytes that are no UTF-8, which a label must not have.
        return made if is_utf8(made) else made.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    except TemplateExecutionError as error:
        return f"<error expanding template: error executing template {name}: {error.describe()}>"


def _name(alert: str) -> str:
    return f"__alert_{alert}"
