"""Prometheus' query API: query, query_range, series, labels, values, metadata, format and parse.

Upstream: web/api/v1/api.go; what the query-frontend adds: reference of Mimir's HTTP API.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import TypeVar
from urllib.parse import unquote

import numpy as np
import orjson
from sanic import Blueprint, HTTPResponse, Request

from mimir_ray.errors import InvalidArgument
from mimir_ray.gateway.answers import JSON, accepts_gzip, encoded
from mimir_ray.gateway.errors import as_api
from mimir_ray.gateway.parameters import MAX_TIME_MS, MIN_TIME_MS, BadParameter, BadRequest, Parameters
from mimir_ray.gateway.services import services_of
from mimir_ray.model.matchers import Matcher
from mimir_ray.model.result import Matrix, QueryResult, Vector
from mimir_ray.promql.limits import Cancellation
from mimir_ray.promql.syntax.describe import describe
from mimir_ray.promql.syntax.errors import ParseError
from mimir_ray.promql.syntax.parser import parse, parse_selector
from mimir_ray.promql.syntax.printer import pretty
from mimir_ray.roles.query_frontend.query_frontend import LabelsRequest
from mimir_ray.wire import query_json
from mimir_ray.wire.exemplars_json import encode_exemplars

MAX_POINTS = 11_000
TRUNCATED = "results truncated due to limit"
GET_AND_POST = ("GET", "POST")

Handler = Callable[..., Awaitable[HTTPResponse]]
Work = Callable[[], bytes]
Parsed = TypeVar("Parsed")


def blueprint(prefix: str) -> Blueprint:
    """All routes below `<prefix>/api/v1`."""
    routes = Blueprint("prometheus", url_prefix=prefix)

    def route(path: str, methods: tuple[str, ...] = GET_AND_POST) -> Callable[[Handler], Handler]:
        def register(handler: Handler) -> Handler:
            routes.add_route(_answering(handler), f"/api/v1/{path}", methods=methods, name=handler.__name__)
            return handler

        return register

    route("query")(query)
    route("query_range")(query_range)
    route("series")(series)
    route("labels")(labels)
    route("label/<name>/values", ("GET",))(label_values)
    route("metadata", ("GET",))(metadata)
    route("query_exemplars")(query_exemplars)
    route("format_query")(format_query)
    route("parse_query")(parse_query)
    return routes


def _answering(handler: Handler) -> Handler:
    async def answer(request: Request, **arguments: str) -> HTTPResponse:
        try:
            return await handler(request, **arguments)
        except Exception as error:  # noqa: BLE001  (the one edge where errors become answers)
            return as_api(error, request)

    return answer


async def query(request: Request) -> HTTPResponse:
    services = services_of(request)
    tenant = services.auth.tenant(request)
    parameters = Parameters(request)
    limit = parameters.limit()
    now_ms = services.clock.now_ms()
    time_ms = parameters.time_ms("time", now_ms)
    cancellation = _cancellation(request, parameters)
    lookback_ms = _lookback(parameters)
    text = parameters.get("query")
    stats = parameters.get("stats")

    explained = parameters.get("explain")

    def work() -> bytes:
        if explained:
            return _explanation(lambda: services.frontend.explain(tenant, text, time_ms, time_ms, 0, lookback_ms))
        result = _parsed(
            lambda: services.frontend.instant(tenant, text, time_ms, cancellation, lookback_ms, bool(stats))
        )
        return query_json.query_response(_limited(result, limit), stats, np.array([time_ms], np.int64))

    return await _run(request, work, cancellation)


async def query_range(request: Request) -> HTTPResponse:
    services = services_of(request)
    tenant = services.auth.tenant(request)
    parameters = Parameters(request)
    limit = parameters.limit()
    start_ms = parameters.time_ms("start")
    end_ms = parameters.time_ms("end")
    if end_ms < start_ms:
        raise BadParameter("end", "end timestamp must not be before start time")
    step_ms = parameters.duration_ms("step")
    if step_ms <= 0:
        raise BadParameter(
            "step", "zero or negative query resolution step widths are not accepted. Try a positive integer"
        )
    if (end_ms - start_ms) // step_ms > MAX_POINTS:
        raise BadRequest(
            "exceeded maximum resolution of 11,000 points per timeseries. "
            "Try decreasing the query resolution (?step=XX)"
        )
    cancellation = _cancellation(request, parameters)
    lookback_ms = _lookback(parameters)
    text = parameters.get("query")
    stats = parameters.get("stats")

    explained = parameters.get("explain")

    def work() -> bytes:
        if explained:
            return _explanation(lambda: services.frontend.explain(tenant, text, start_ms, end_ms, step_ms, lookback_ms))
        result = _parsed(
            lambda: services.frontend.range(
                tenant, text, start_ms, end_ms, step_ms, cancellation, lookback_ms, bool(stats)
            )
        )
        steps = np.arange(start_ms, end_ms + 1, step_ms, dtype=np.int64)
        return query_json.query_response(_limited(result, limit), stats, steps)

    return await _run(request, work, cancellation)


async def series(request: Request) -> HTTPResponse:
    services = services_of(request)
    tenant = services.auth.tenant(request)
    parameters = Parameters(request)
    if not parameters.all("match[]"):
        raise BadRequest("no match[] parameter provided")
    asked = _labels_request(parameters)

    def work() -> bytes:
        found = services.frontend.series(tenant, asked)
        return _with_limit(query_json.encode_series, found, asked.limit)

    return await _run(request, work)


async def labels(request: Request) -> HTTPResponse:
    services = services_of(request)
    tenant = services.auth.tenant(request)
    asked = _labels_request(Parameters(request))

    def work() -> bytes:
        return _with_limit(query_json.encode_strings, services.frontend.label_names(tenant, asked), asked.limit)

    return await _run(request, work)


async def label_values(request: Request, name: str) -> HTTPResponse:
    services = services_of(request)
    tenant = services.auth.tenant(request)
    wanted = unescape_label_name(unquote(name))
    if not wanted:
        raise BadRequest(f'invalid label name: "{wanted}"')
    asked = _labels_request(Parameters(request))

    def work() -> bytes:
        return _with_limit(
            query_json.encode_strings, services.frontend.label_values(tenant, wanted, asked), asked.limit
        )

    return await _run(request, work)


async def metadata(request: Request) -> HTTPResponse:
    services = services_of(request)
    tenant = services.auth.tenant(request)
    parameters = Parameters(request)
    limit = _number(parameters, "limit")
    per_metric = _number(parameters, "limit_per_metric")
    family = parameters.get("metric")

    def work() -> bytes:
        entries = services.frontend.metadata(tenant, family)
        if limit >= 0:
            entries = {name: entries[name] for name in list(entries)[:limit]}
        if per_metric > 0:
            entries = {name: several[:per_metric] for name, several in entries.items()}
        return query_json.success(query_json.encode_metadata(entries))

    return await _run(request, work)


async def query_exemplars(request: Request) -> HTTPResponse:
    services = services_of(request)
    tenant = services.auth.tenant(request)
    parameters = Parameters(request)
    start_ms = parameters.time_ms("start", MIN_TIME_MS)
    end_ms = parameters.time_ms("end", MAX_TIME_MS)
    if end_ms < start_ms:
        raise BadRequest("end timestamp must not be before start timestamp")
    text = parameters.get("query")

    def work() -> bytes:
        try:
            found = services.frontend.exemplars(tenant, text, start_ms, end_ms)
        except ParseError as error:
            raise BadRequest(str(error)) from None
        # As upstream: where there is nothing to look for, there is no data.
        return b'{"status":"success"}' if found is None else query_json.success(encode_exemplars(found))

    return await _run(request, work)


async def format_query(request: Request) -> HTTPResponse:
    services_of(request).auth.tenant(request)
    text = Parameters(request).get("query")
    formatted = pretty(_parsed(lambda: parse(text)))
    return _json(query_json.success(query_json.encode_string(formatted)))


async def parse_query(request: Request) -> HTTPResponse:
    services_of(request).auth.tenant(request)
    text = Parameters(request).get("query")
    return _json(query_json.success(orjson.dumps(describe(_parsed(lambda: parse(text))))))


async def _run(request: Request, work: Work, cancellation: Cancellation | None = None) -> HTTPResponse:
    """Does the work in a thread; if the client goes away meanwhile, the query is told to stop."""
    services = services_of(request)
    gzipped, level = accepts_gzip(request), services.settings.api.response_compression_level

    def all_of_it() -> HTTPResponse:
        if cancellation is not None:
            cancellation.check()
        return encoded(work(), JSON, gzipped, level)

    try:
        return await services.in_thread(all_of_it)
    except asyncio.CancelledError:
        if cancellation is not None:
            cancellation.cancel()
        raise


def _json(body: bytes) -> HTTPResponse:
    return HTTPResponse(body, content_type=JSON)


def _cancellation(request: Request, parameters: Parameters) -> Cancellation:
    timeout_s = services_of(request).settings.querier.timeout.seconds
    if parameters.get("timeout"):
        timeout_s = min(timeout_s, parameters.duration_ms("timeout") / 1000)
    return Cancellation(timeout_s)


def _lookback(parameters: Parameters) -> int | None:
    if not parameters.get("lookback_delta"):
        return None
    lookback_ms = parameters.duration_ms("lookback_delta")
    if lookback_ms <= 0:
        raise BadParameter("lookback_delta", "zero or negative lookback delta is not accepted. Try a positive duration")
    return lookback_ms


def _parsed(call: Callable[[], Parsed]) -> Parsed:
    try:
        return call()
    except ParseError as error:
        raise BadParameter("query", str(error)) from None


def _explanation(call: Callable[[], str]) -> bytes:
    """`explain`, a parameter of ours: the plan as text instead of an answer."""
    return query_json.success(b'{"explain":' + query_json.encode_string(_parsed(call)) + b"}")


def _labels_request(parameters: Parameters) -> LabelsRequest:
    limit = parameters.limit()
    start_ms = parameters.time_ms("start", MIN_TIME_MS)
    end_ms = parameters.time_ms("end", MAX_TIME_MS)
    if end_ms < start_ms:
        raise BadParameter("end", "end timestamp must not be before start timestamp")
    return LabelsRequest(tuple(_selector(text) for text in parameters.all("match[]")), start_ms, end_ms, limit)


def _selector(text: str) -> tuple[Matcher, ...]:
    try:
        matchers = parse_selector(text)
    except InvalidArgument as error:
        raise BadParameter("match[]", str(error)) from None
    if all(matcher.accepts_empty for matcher in matchers):
        raise BadParameter("match[]", "match[] must contain at least one non-empty matcher")
    return matchers


def _number(parameters: Parameters, name: str) -> int:
    """An integer, -1 if not given. Upstream: metricMetadata."""
    text = parameters.get(name)
    if not text:
        return -1
    if not re.fullmatch(r"[+-]?[0-9]+", text):
        raise BadRequest(f"{name} must be a number")
    return int(text)


def _with_limit(encode: Callable[[list], bytes], found: list, limit: int) -> bytes:  # type: ignore[type-arg]
    if 0 < limit < len(found):
        return query_json.success(encode(found[:limit]), warnings=[TRUNCATED])
    return query_json.success(encode(found))


def _limited(result: QueryResult, limit: int) -> QueryResult:
    """The answer cut to so many series. Upstream: truncateResults."""
    value = result.value
    if not limit or not isinstance(value, Vector | Matrix) or len(value) <= limit:
        return result
    if isinstance(value, Vector):
        histograms = None if value.histograms is None else value.histograms[:limit]
        value = Vector(value.labels.take(slice(0, limit)), value.timestamp, value.values[:limit], histograms)
    else:
        points = int(value.offsets[limit])
        value = Matrix(
            value.labels.take(slice(0, limit)),
            value.offsets[: limit + 1],
            value.timestamps[:points],
            value.values[:points],
            None if value.histograms is None else value.histograms[:points],
        )
    return QueryResult(value, [*result.warnings, TRUNCATED], result.infos, result.stats)


_ESCAPE = re.compile(r"__|_([0-9A-Fa-f]{1,5})_|_")


def unescape_label_name(name: str) -> str:
    """`U__http_2e_status` → `http.status`; a name that does not decode cleanly is taken as written.

    Upstream: common/model/metric.go UnescapeName (ValueEncodingEscaping).
    """
    if not name.startswith("U__"):
        return name
    clean = True

    def decode(match: re.Match[str]) -> str:
        nonlocal clean
        if match.group() == "__":
            return "_"
        point = int(match.group(1), 16) if match.group(1) else -1
        if not 0 <= point <= 0x10FFFF or 0xD800 <= point <= 0xDFFF:
            clean = False
            return ""
        return chr(point)

    decoded = _ESCAPE.sub(decode, name[3:])
    return decoded if clean else name
