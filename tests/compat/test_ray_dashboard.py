"""Ray: its health check, its Data page, and all expressions of the Grafana dashboards that it generates."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from mimir_ray.model.matchers import MatchType
from mimir_ray.promql.syntax.ast import Node, VectorSelector
from mimir_ray.promql.syntax.parser import parse
from mimir_ray.testing.sources import ListSource
from tests.compat.raw import send
from tests.gateway.serving import NOW_MS, Answer, Gateway

TENANT = "ray"
HERE = Path(__file__).resolve()
FOUND = [
    path for parent in HERE.parents[3:5] if (path := parent / "shared" / "reference" / "ray-dashboards.json").exists()
]
DASHBOARDS: dict[str, Any] = json.loads(FOUND[0].read_text())["dashboards"] if FOUND else {}
HEADERS = (
    ("Accept", "*/*"),
    ("Accept-Encoding", "gzip, deflate"),
    ("User-Agent", "Python/3.12 aiohttp/3.12.15"),
    ("X-Scope-OrgID", TENANT),
)
NOW_S = NOW_MS // 1000
VARIABLES = {"interval": "1m", "window": "5m", "__range": "1h", "__rate_interval": "1m"}
"""Durations; all others are `.*`, what Grafana puts for *All*."""
HERE_LABELS = {"SessionName": "session_1", "instance": "10.0.0.1", "WorkerId": "w1", "le": "1"}


def expressions() -> list[str]:
    queries = [query["expr"] for one in DASHBOARDS.values() for query in one["queries"]]
    return [re.sub(r"\$\{?(\w+)(:\w+)?\}?", lambda found: VARIABLES.get(found[1], ".*"), text) for text in queries]


def nodes(node: Any) -> Iterator[Node]:
    """The node and all below it."""
    if isinstance(node, Node):
        yield node
        for one in dataclasses.fields(node):
            yield from nodes(getattr(node, one.name))
    elif isinstance(node, tuple | list):
        for one in node:
            yield from nodes(one)


@pytest.fixture(scope="module")
def filled(tools_gateway: Gateway) -> Gateway:
    """Two series of every metric that a dashboard asks for."""
    source: ListSource = tools_gateway.lists.of(TENANT)
    for text in expressions():
        for node in nodes(parse(text)):
            if not isinstance(node, VectorSelector):
                continue
            wanted = {one.name: one.value for one in node.matchers if one.type is MatchType.EQUAL}
            if "__name__" not in wanted:
                continue
            for worker in ("w1", "w2"):
                labels = HERE_LABELS | wanted | {"WorkerId": worker}
                if not wanted["__name__"].endswith("_bucket"):
                    labels.pop("le", None)
                source.add(labels, [(NOW_MS - at * 15_000, float(400 - at)) for at in range(40)])
    return tools_gateway


def get(gateway: Gateway, target: str) -> Answer:
    return send(gateway, f"GET {target}", HEADERS)


def test_the_health_check_is_not_even_escaped(gateway: Gateway) -> None:
    answer = get(gateway, "/prometheus/api/v1/query?query=vector(1)")
    assert answer.data["resultType"] == "vector"
    assert answer.data["result"][0]["value"][1] == "1"


@pytest.mark.parametrize("group", ["dataset", "dataset, operator"])
@pytest.mark.parametrize("metric", ["output_rows", "spilled_bytes", "current_bytes", "cpu_usage_cores"])
def test_the_data_page_asks_for_sums_and_their_maximum(gateway: Gateway, metric: str, group: str) -> None:
    labels = {"SessionName": "s", "dataset": "d", "operator": "o"}
    points = [(NOW_MS - at * 1000, float(at)) for at in range(100)]
    gateway.lists.of(TENANT).add({"__name__": f"ray_data_{metric}", **labels}, points)
    plain = f"sum(ray_data_{metric}{{SessionName='s'}}) by ({group})"
    for query, value in ((plain, "0"), (f"max_over_time({plain}[1h:1s])", "99")):
        answer = get(gateway, f"/prometheus/api/v1/query?query={quote(query)}&time={NOW_S}")
        (found,) = answer.data["result"]
        assert found["value"] == [NOW_S, value], "the value is a string"
        assert set(found["metric"]) == {one.strip() for one in group.split(",")}


@pytest.mark.skipif(not DASHBOARDS, reason="needs ../shared/reference/ray-dashboards.json")
def test_every_expression_of_the_dashboards_is_answered(filled: Gateway) -> None:
    texts = expressions()
    assert len(texts) == 403
    refused = {}
    with_data = 0
    for text in texts:
        form = {"query": text, "start": NOW_S - 300, "end": NOW_S, "step": 15}
        answer = send(
            filled, "POST /prometheus/api/v1/query_range",
            (*HEADERS[1:], ("Content-Type", "application/x-www-form-urlencoded")), urlencode(form).encode(),
        )  # fmt: skip
        if answer.status != 200 or answer.json["status"] != "success":
            refused[text] = answer.text
            continue
        with_data += bool(answer.json["data"]["result"])
    assert not refused
    assert with_data > 300, f"only {with_data} of {len(texts)} found something"


@pytest.mark.skipif(not DASHBOARDS, reason="needs ../shared/reference/ray-dashboards.json")
def test_the_variables_of_the_dashboards_are_answered(filled: Gateway) -> None:
    for query in {
        one["query"] for board in DASHBOARDS.values() for one in board["variables"] if one["type"] == "query"
    }:
        if found := re.fullmatch(r"label_values\((.*), (\w+)\)", query):
            match = re.sub(r"\$\w+", ".*", found[1])
            target = f"label/{found[2]}/values?{urlencode({'match[]': match, 'limit': 40000})}"
        else:
            inner = re.fullmatch(r"query_result\((.*)\)", query)
            assert inner, query
            text = inner[1].replace("$__range", "1h").replace("$SessionName", ".*")
            target = f"query?{urlencode({'query': text, 'time': NOW_S})}"
        assert get(filled, f"/prometheus/api/v1/{target}").json["status"] == "success", query
