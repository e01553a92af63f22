"""What an OTLP sender gets back: ExportMetricsServiceResponse, and google.rpc.Status for errors.

Both in the encoding of the request. Upstream: pkg/distributor/otel.go, push.go writeOTLPResponse.
"""

from __future__ import annotations

import orjson

from mimir_ray.encoding.varint import encode_uvarint

ERROR_TEXT_MAX = 1024

# google.rpc.Code by HTTP status.
_CODES = {400: 3, 401: 16, 403: 7, 404: 5, 413: 8, 415: 3, 422: 3, 429: 8, 499: 1, 500: 13, 501: 12, 503: 14}


def success(as_json: bool, rejected: int = 0, problem: str = "") -> bytes:
    """An ExportMetricsServiceResponse; with `problem`, a partial success."""
    problem = problem[:ERROR_TEXT_MAX]
    if as_json:
        if not problem:
            return b"{}"
        return orjson.dumps({"partialSuccess": {"rejectedDataPoints": str(rejected), "errorMessage": problem}})
    if not problem:
        return b""
    text = problem.encode()
    partial = (b"\x08" + encode_uvarint(rejected) if rejected else b"") + b"\x12" + encode_uvarint(len(text)) + text
    return b"\x0a" + encode_uvarint(len(partial)) + partial


def status(as_json: bool, http_status: int, message: str) -> bytes:
    """A google.rpc.Status for an answer of this HTTP status."""
    code = _CODES.get(http_status, 13 if http_status >= 500 else 3)
    if as_json:
        return orjson.dumps({"code": code, "message": message})
    text = message.encode()
    return b"\x08" + encode_uvarint(code) + b"\x12" + encode_uvarint(len(text)) + text
