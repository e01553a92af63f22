"""OTLP over HTTP: `POST /otlp/v1/metrics`. Upstream: pkg/distributor/otel.go, push.go.

Answers are in the encoding of the request: ExportMetricsServiceResponse, or google.rpc.Status with a status code of
which OpenTelemetry's senders try those again that may succeed later (429, 502, 503, 504).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sanic import Blueprint, HTTPResponse, Request

from mimir_ray.config.limits import Limits
from mimir_ray.errors import ClientError, LimitExceeded, MimirRayError
from mimir_ray.gateway.answers import JSON
from mimir_ray.gateway.blueprints.push import failed, with_delay
from mimir_ray.gateway.services import services_of
from mimir_ray.wire.compression import OTLP, UnsupportedEncoding, decompress
from mimir_ray.wire.otlp import answers
from mimir_ray.wire.otlp.json_body import protobuf_of_json
from mimir_ray.wire.otlp.names import Naming
from mimir_ray.wire.otlp.translate import OtlpScan, OtlpSettings, scan_otlp
from mimir_ray.wire.write_scan import HashKey

PROTOBUF = "application/x-protobuf"
PATH = "/otlp/v1/metrics"
_RETRYABLE = (502, 503, 504)


@dataclass(eq=False)
class OtlpRequestTooLarge(LimitExceeded):
    """Upstream: pkg/distributor/otel.go, answered as 413."""

    id: ClassVar[str] = "distributor-max-otlp-request-size"
    flags: ClassVar[tuple[str, ...]] = ("distributor.max-otlp-request-size",)
    per_instance: ClassVar[bool] = True
    actual: int
    allowed: int

    def describe(self) -> str:
        return (
            f"the incoming OTLP request has been rejected because its message size of {self.actual} bytes is larger "
            f"than the allowed limit of {self.allowed} bytes"
        )


class UnsupportedMedia(ClientError):
    """A content type or encoding that this endpoint does not take; 415."""


class ParseError(ClientError):
    """Metrics that could not be translated; all others of the request were stored."""


def blueprint() -> Blueprint:
    routes = Blueprint("otlp")
    routes.add_route(push, PATH, methods=("POST",), name="push")
    return routes


async def push(request: Request) -> HTTPResponse:
    """Answers when a quorum of each series' ingesters has the samples in its WAL."""
    services = services_of(request)
    as_json = (request.content_type or "").partition(";")[0].strip().lower() == JSON
    scans: list[OtlpScan] = []
    try:
        tenant = services.auth.tenant(request)
        body = _message(request, as_json, int(services.settings.distributor.max_otlp_request_size))
        settings = otlp_settings(services.runtime.limits(tenant))

        def scan(data: bytes, key: HashKey) -> OtlpScan:
            scans.append(scan_otlp(data, key, settings))
            return scans[-1]

        outcome = await services.distributor.push(tenant, body, scan, "otlp")
        problems = scans[-1].problems if scans else ()
        if problems:
            services.distributor.discard(tenant, "otlp_parse_error", scans[-1].rejected)
        if outcome.error is not None and not (isinstance(outcome.error, ClientError) and outcome.samples):
            return _error(outcome.error, request, as_json)
        if problems:
            text = f"otlp parse error: {'; '.join(problems)}"[: answers.ERROR_TEXT_MAX]
            return _error(ParseError(text), request, as_json)
        if outcome.error is not None:
            # What was sound is stored; the sender must not send it all again.
            return with_delay(_answer(answers.success(as_json, 0, str(outcome.error)), 200, as_json), outcome)
        return with_delay(_answer(answers.success(as_json), 200, as_json), outcome)
    except MimirRayError as error:
        return _error(error, request, as_json)
    except Exception as error:  # noqa: BLE001  (the edge)
        return _error(error, request, as_json)


def otlp_settings(limits: Limits) -> OtlpSettings:
    """What a tenant's limits say of OTLP."""
    strategy = limits.otel_translation_strategy
    if strategy:
        suffixes = strategy in ("UnderscoreEscapingWithSuffixes", "NoUTF8EscapingWithSuffixes")
        utf8 = strategy in ("NoUTF8EscapingWithSuffixes", "NoTranslation")
    else:
        suffixes, utf8 = limits.otel_metric_suffixes_enabled, limits.name_validation_scheme == "utf8"
    return OtlpSettings(
        Naming(
            suffixes,
            utf8,
            limits.otel_label_name_underscore_sanitization,
            limits.otel_label_name_preserve_underscores,
        ),
        limits.promote_otel_resource_attributes,
        limits.otel_keep_identifying_resource_attributes,
        limits.otel_promote_scope_metadata,
        limits.otel_convert_histograms_to_nhcb,
        limits.otel_native_delta_ingestion,
        limits.otel_created_timestamp_zero_ingestion_enabled,
    )


def too_large(size: int, allowed: int, request: Request) -> HTTPResponse:
    """For a body that was not read to its end."""
    return _error(OtlpRequestTooLarge(size, allowed), request, (request.content_type or "") == JSON)


def _message(request: Request, as_json: bool, bytes_max: int) -> bytes:
    kind = (request.content_type or "").partition(";")[0].strip().lower()
    if kind not in (JSON, PROTOBUF):
        raise UnsupportedMedia(f"unsupported content type: {kind}, supported: [{JSON}, {PROTOBUF}]")
    encoding = request.headers.get("content-encoding", "").strip().lower()
    try:
        body = decompress(request.body, encoding, bytes_max, OtlpRequestTooLarge, OTLP)
    except UnsupportedEncoding:
        wanted = 'Only "gzip", "lz4", "zstd", or no compression supported'
        raise UnsupportedMedia(f"unsupported compression: {encoding}. {wanted}") from None
    return protobuf_of_json(body) if as_json else body


def _error(error: Exception, request: Request, as_json: bool) -> HTTPResponse:
    answer = failed(error, request)
    status = answer.status
    if isinstance(error, UnsupportedMedia):
        status = 415
    elif isinstance(error, OtlpRequestTooLarge):
        status = 413
    elif status >= 500 and status not in _RETRYABLE:
        status = 503
    message = (answer.body or b"").decode("utf-8", "replace").rstrip("\n")
    found = _answer(answers.status(as_json, status, message), status, as_json)
    if "Retry-After" in answer.headers:
        found.headers["Retry-After"] = answer.headers["Retry-After"]
    return found


def _answer(body: bytes, status: int, as_json: bool) -> HTTPResponse:
    return HTTPResponse(
        body,
        status=status,
        content_type=JSON if as_json else PROTOBUF,
        headers={"X-Content-Type-Options": "nosniff"},
    )
