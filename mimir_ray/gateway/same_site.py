"""Requests that change something must not come from other sites' pages in an administrator's browser.

A browser says where a request comes from, and pages cannot change what it says: `Sec-Fetch-Site` where it sends that
(https and localhost), otherwise `Origin`, which must name the host that was asked. Neither header: no browser, let
in. So no token has to be kept or put into forms. The rules are those of Go's http.CrossOriginProtection.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from sanic import Blueprint, HTTPResponse, Request

from mimir_ray.gateway.errors import CrossSite, as_text


def check(request: Request) -> None:
    """Raises `CrossSite`."""
    site = request.headers.get("sec-fetch-site", "")
    if site:
        if site not in ("same-origin", "none"):
            raise CrossSite(request.headers.get("origin", site))
        return
    origin = request.headers.get("origin", "")
    if origin and urlsplit(origin).netloc.lower() != request.headers.get("host", "").lower():
        raise CrossSite(origin)


def protect(routes: Blueprint, paths: tuple[str, ...] = ()) -> None:
    """Checks all requests to `routes` but GET and HEAD; those too of `paths`, which change something by them."""

    async def refuse(request: Request) -> HTTPResponse | None:
        if request.method in ("GET", "HEAD", "OPTIONS") and not request.path.endswith(paths or ("\0",)):
            return None
        try:
            check(request)
        except CrossSite as error:
            return as_text(error, request)
        return None

    routes.on_request(refuse)
