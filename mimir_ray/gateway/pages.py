"""Small HTML pages in one look. The sheet and the frame are in mimir_ray/ui."""

from __future__ import annotations

import functools
import html
from collections.abc import Iterable, Sequence
from importlib.resources import files

from sanic import HTTPResponse, Request

HTML = "text/html; charset=utf-8"


@functools.cache
def asset(name: str) -> bytes:
    """A file of mimir_ray/ui. Raises FileNotFoundError."""
    return (files("mimir_ray") / "ui" / name).read_bytes()


def page(request: Request, title: str, body: str, status: int = 200) -> HTTPResponse:
    """`body` (HTML) in the common frame, under `title` (text)."""
    frame = asset("frame.html").decode().replace("{{title}}", html.escape(title)).replace("{{body}}", body)
    shown = frame.replace("{{prefix}}", request.app.ctx.services.settings.server.http_path_prefix)
    return HTTPResponse(shown, status=status, content_type=HTML)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Cells are HTML, heads are text."""
    head = "".join(f"<th>{html.escape(one)}</th>" for one in heads)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
