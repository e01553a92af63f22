"""Answers: gzip where it is asked for, JSON or a page by what the client accepts."""

from __future__ import annotations

import gzip

from sanic import HTTPResponse, Request

JSON = "application/json"
GZIP_BYTES_MIN = 1400
"""Smaller bodies fit a packet anyway. Upstream: gziphandler's default minimum size."""


def accepts_gzip(request: Request) -> bool:
    """Whether Accept-Encoding names gzip (with a weight other than 0)."""
    for part in request.headers.get("accept-encoding", "").split(","):
        coding, _, weight = part.partition(";")
        if coding.strip().lower() == "gzip":
            return weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False


def encoded(body: bytes, content_type: str, gzipped: bool, level: int = -1, status: int = 200) -> HTTPResponse:
    """The body, compressed if the client wants that and it is worth it. Costs CPU: call it beside the event loop."""
    headers = {"Vary": "Accept-Encoding"}
    if gzipped and level != 0 and len(body) >= GZIP_BYTES_MIN:
        # Level 1 costs a quarter of the default's time and loses a tenth of its gain on this JSON.
        body = gzip.compress(body, 1 if level < 0 else level, mtime=0)
        headers["Content-Encoding"] = "gzip"
    return HTTPResponse(body, status=status, content_type=content_type, headers=headers)


def wants_json(request: Request) -> bool:
    """Whether an admin page is asked for as JSON. Upstream: pkg/util/http.go RenderHTTPResponse."""
    return JSON in request.headers.get("accept", "")
