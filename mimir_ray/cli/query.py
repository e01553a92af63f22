"""`mimir-ray query EXPR`: asks a PromQL query, or (--explain) how it would be run, and prints a table.

    mimir-ray query EXPR [--url=URL | --data-dir=DIR] [--tenant=ID] [--explain]
                         [--time=T | --start=T [--end=T] [--step=D]]

Without --url it asks the mimir-ray that runs on the data directory. A time is Unix seconds, RFC 3339, `now`, or a
duration before now (`-1h`); with --start the query is asked at every step up to --end.
"""

from __future__ import annotations

import argparse
import json
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from mimir_ray.clock import SystemClock
from mimir_ray.config import loader
from mimir_ray.deploy.settings import RUN_FILE, Settings
from mimir_ray.errors import InvalidArgument
from mimir_ray.model.durations import parse_duration

DEFAULT_STEPS = 60
"""Steps of a range query that does not say how far apart they are."""

Fetch = Callable[[str, dict[str, str], dict[str, str]], dict[str, Any]]
"""(URL, parameters, headers) → the JSON answer."""


def main(arguments: list[str], fetch: Fetch | None = None, now_ms: int | None = None) -> int:
    """Exit status: 0 an answer, 1 an error, 2 arguments that cannot be understood, 3 nobody to ask."""
    given = _parser().parse_args(arguments)
    now_ms = SystemClock().now_ms() if now_ms is None else now_ms
    try:
        path, parameters = _request(given, now_ms)
    except InvalidArgument as error:
        print(f"mimir-ray query: {error}", file=sys.stderr)
        return 2
    headers = {"X-Scope-OrgID": given.tenant} if given.tenant else {}
    try:
        url = given.url or _local_url(given.data_dir)
        answer = (fetch or _fetch)(f"{url.rstrip('/')}/{path}", parameters, headers)
    except OSError as error:
        print(f"mimir-ray query: {error}", file=sys.stderr)
        return 3
    if answer.get("status") != "success":
        print(f"{answer.get('errorType', 'error')}: {answer.get('error', answer)}", file=sys.stderr)
        return 1
    for line in _lines(answer["data"]):
        print(line)
    for note in [*answer.get("warnings", []), *answer.get("infos", [])]:
        print(note, file=sys.stderr)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("mimir-ray query", description="Ask a PromQL query.", allow_abbrev=False)
    parser.add_argument("expression")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--url", help="of the Prometheus API, like http://localhost:8080/prometheus")
    where.add_argument("--data-dir", "-data-dir", dest="data_dir", help="of a mimir-ray that runs on this machine")
    parser.add_argument("--tenant", help="whose data (X-Scope-OrgID)")
    parser.add_argument("--time", default="now", help="of an instant query")
    parser.add_argument("--start", help="makes it a range query")
    parser.add_argument("--end", default="now")
    parser.add_argument("--step", help="a duration")
    parser.add_argument("--explain", action="store_true", help="print the plan, run nothing")
    return parser


def _request(given: argparse.Namespace, now_ms: int) -> tuple[str, dict[str, str]]:
    parameters = {"query": given.expression}
    if given.explain:
        parameters["explain"] = "1"
    if given.start is None:
        return "api/v1/query", {**parameters, "time": _seconds(_time_ms(given.time, now_ms))}
    start, end = _time_ms(given.start, now_ms), _time_ms(given.end, now_ms)
    step = parse_duration(given.step) if given.step else max(1000, (end - start) // DEFAULT_STEPS // 1000 * 1000)
    return "api/v1/query_range", {
        **parameters, "start": _seconds(start), "end": _seconds(end), "step": _seconds(step),
    }  # fmt: skip


def _time_ms(text: str, now_ms: int) -> int:
    if text == "now":
        return now_ms
    try:
        return round(float(text) * 1000) if not text.startswith("-") else now_ms - parse_duration(text[1:])
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidArgument(f"cannot parse {text!r} to a time") from None
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def _seconds(time_ms: int) -> str:
    return f"{time_ms / 1000:.3f}".rstrip("0").rstrip(".")


def _local_url(data_dir: str | None) -> str:
    settings = loader.load(Settings(), [f"-data-dir={data_dir}"] if data_dir else []).settings
    path = settings.root / RUN_FILE
    if not path.exists():
        raise FileNotFoundError(f"no mimir-ray runs on {settings.root}; say --url")
    return f"{json.loads(path.read_text())['url']}{settings.api.prometheus_http_prefix}"


def _fetch(url: str, parameters: dict[str, str], headers: dict[str, str]) -> dict[str, Any]:
    request = urllib.request.Request(url, urllib.parse.urlencode(parameters).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=130) as answer:
            return json.loads(answer.read())  # type: ignore[no-any-return]
    except urllib.error.HTTPError as error:
        body = error.read()
        try:
            return json.loads(body)  # type: ignore[no-any-return]
        except ValueError:
            return {"errorType": str(error.code), "error": body.decode("utf-8", "replace").strip()}


def _lines(data: dict[str, Any]) -> Iterator[str]:
    if "explain" in data:
        yield data["explain"]
        return
    result = data["result"]
    match data["resultType"]:
        case "scalar" | "string":
            yield result[1]
        case "vector":
            rows = [(_series(one["metric"]), _value(one.get("value") or one["histogram"])) for one in result]
            width = max((len(series) for series, _ in rows), default=0)
            yield from (f"{series:<{width}}  {value}" for series, value in rows)
        case _:
            for one in result:
                yield _series(one["metric"])
                points = [*one.get("values", []), *one.get("histograms", [])]
                yield from (f"  {_moment(point[0])}  {_value(point)}" for point in sorted(points, key=lambda x: x[0]))


def _series(metric: dict[str, str]) -> str:
    labels = ", ".join(
        f"{name}={json.dumps(value, ensure_ascii=False)}"
        for name, value in sorted(metric.items())
        if name != "__name__"
    )
    return metric.get("__name__", "") + (f"{{{labels}}}" if labels or "__name__" not in metric else "")


def _value(point: list[Any]) -> str:
    value = point[1]
    return f"histogram count={value['count']} sum={value['sum']}" if isinstance(value, dict) else value


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
