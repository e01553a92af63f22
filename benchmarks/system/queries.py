"""Asking a server, and whether two answers are the same."""

from __future__ import annotations

import http.client
import json
import math
from typing import Any
from urllib.parse import urlencode

from servers import Server


def ask(
    server: Server, path: str, parameters: dict[str, str], connection: http.client.HTTPConnection | None = None
) -> Any:
    """The `data` of an answer. Raises RuntimeError for errors."""
    own = connection or http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    own.request("GET", f"{server.api}/{path}?{urlencode(parameters)}", headers=server.headers)
    answer = own.getresponse()
    body = answer.read()
    if connection is None:
        own.close()
    if answer.status != 200:
        raise RuntimeError(f"{server.name}: {answer.status} {body[:300]!r}")
    return json.loads(body)["data"]


def points(data: Any) -> dict[tuple[Any, ...], float]:
    """(labels, time) → value."""
    found = {}
    for one in data["result"]:
        labels = tuple(sorted(one["metric"].items()))
        for at, value in one.get("values") or [one["value"]]:
            found[labels, at] = float(value)
    return found


def agree(left: Any, right: Any) -> float:
    """The share of points that are in both and equal to 1e-9."""
    one, other = points(left), points(right)
    if not one and not other:
        return 1.0
    same = sum(
        key in other
        and (math.isclose(value, other[key], rel_tol=1e-9) or (value != value and other[key] != other[key]))
        for key, value in one.items()
    )
    return same / len(one.keys() | other.keys())
