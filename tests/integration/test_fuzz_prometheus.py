"""Random expressions over random data, asked of a real Prometheus and of us over HTTP; and the differences of the past.

MIMIR_RAY_FUZZ: how many expressions (300 by default). MIMIR_RAY_FUZZ_SEED: where to begin (0).
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from tests.integration.deployment import UNLIMITED, Deployment
from tests.integration.fuzz_expressions import START_MS, Expressions, random_series
from tests.integration.prometheus_peer import Prometheus, peer, running_prometheus

COUNT = int(os.environ.get("MIMIR_RAY_FUZZ", "300"))
SEED = int(os.environ.get("MIMIR_RAY_FUZZ_SEED", "0"))
PROGRAM = peer("prometheus")
RANGE = (START_MS + 60_000, START_MS + 45 * 60_000, 74_000)
INSTANT = START_MS + 20 * 60_000
FEATURE = "promql-experimental-functions"
DELAYED = "promql-delayed-name-removal"

pytestmark = [pytest.mark.slow, pytest.mark.skipif(PROGRAM is None, reason="there is no prometheus to compare with")]

# Expressions that were answered differently once.
PAST = [
    # Where a subquery stood is forgotten.
    "rate((last_over_time(limit[1m] offset 1m))[5m:1m] offset -2m)",
    "stddev by (none) (rate((alone offset 7m30s)[2m:15s]))",
    # Of series with equal labels the one that begins first says whether the name goes.
    "(clamp_min(requests_total == on (instance, job) group_left  limit, 0x1F)) or "
    "(requests_total <= on (instance, job) group_left  limit)",
    # Samples that a join need not look at count all the same, where samples are counted.
    'sum(load * on (instance, job) limit) unless on () ((limit{job!="api"} offset 1m) and (limit{zone=""} offset 1m))',
    # Of equal annotations that of the right side stands.
    "histogram_quantile(-0.5, rate(latency_bucket[5m])) unless on () histogram_quantile(-0.5, latency_bucket)",
]


@dataclass(frozen=True)
class Both:
    """The same data on both sides; ours belongs to a tenant."""

    theirs: Prometheus
    ours: Deployment
    tenant: str

    def instant(self, query: str) -> tuple[dict[str, Any], dict[str, Any]]:
        return self._ask("query", query=query, time=str(INSTANT / 1000))

    def range(self, query: str) -> tuple[dict[str, Any], dict[str, Any]]:
        start, end, step = (str(one / 1000) for one in RANGE)
        return self._ask("query_range", query=query, start=start, end=end, step=step)

    def _ask(self, path: str, **parameters: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Theirs and ours, of errors too."""
        parameters["stats"] = "true"
        theirs = self.theirs.query(path, **parameters)
        return theirs, self.ours.ask(path, self.tenant, **parameters).json


@pytest.fixture(scope="module")
def deployment(deploy: Callable[..., Deployment], tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    """With a tenant each for names that go at once and for those that go at the end."""
    runtime = tmp_path_factory.mktemp("runtime") / "runtime.yaml"
    runtime.write_text("overrides:\n  at-end: {enable_delayed_name_removal: true}\n")
    one = deploy(
        *UNLIMITED,
        "-deploy.ingesters=2",
        f"-runtime-config.file={runtime}",
        "-query-frontend.enabled-promql-experimental-functions=all",
        "-ingester.out-of-order-time-window=2h",
        "-querier.query-ingesters-within=0",  # samples are of a fixed time, long ago
    )
    one.start()
    return one


@pytest.fixture(scope="module", params=[False, True], ids=["names at once", "names at the end"])
def both(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, deployment: Deployment
) -> Iterator[Both]:
    assert PROGRAM is not None
    delayed = request.param
    series = random_series(SEED)
    with ExitStack() as stack:
        features = (FEATURE, DELAYED) if delayed else (FEATURE,)
        theirs = stack.enter_context(running_prometheus(PROGRAM, tmp_path_factory.mktemp("prometheus"), *features))
        tenant = "at-end" if delayed else "at-once"
        for at in range(0, len(series), 20):
            theirs.write(series[at : at + 20])
            answer = deployment.push(series[at : at + 20], tenant)
            assert answer.status == 200, answer.text
        yield Both(theirs, deployment, tenant)


@pytest.mark.parametrize("kind", ["instant", "range"])
def test_random_expressions_have_prometheus_answers(both: Both, kind: str) -> None:
    expressions = Expressions(SEED + (1 if kind == "range" else 0))
    wrong = []
    for _ in range(COUNT // 4):
        query = expressions.expression()
        if difference := compare(query, *getattr(both, kind)(query)):
            wrong.append(f"{query}\n    {difference}")
    assert not wrong, f"{len(wrong)} differ:\n" + "\n".join(wrong[:20])


@pytest.mark.parametrize("query", PAST)
def test_what_differed_once_is_the_same_now(both: Both, query: str) -> None:
    for answers in (both.instant(query), both.range(query)):
        assert not compare(query, *answers)


# Newer versions put together series that have no step in common, once their names are gone.
_SAME_LABELS = "vector cannot contain metrics with the same labelset"

# Older versions see this only where a filter lets both pairs through.
_MANY_TO_ONE = "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)"


def compare(query: str, theirs: dict[str, Any], ours: dict[str, Any]) -> str:
    """What differs, or nothing."""
    if theirs["status"] != ours["status"]:
        if theirs.get("error") == _SAME_LABELS or ours.get("error") == _MANY_TO_ONE:
            return ""
        return f"{theirs.get('error') or 'an answer'} became {ours.get('error') or 'an answer'}"
    if theirs["status"] == "error":
        return ""  # texts name series in an order that is not fixed
    wanted, found = theirs["data"], ours["data"]
    if wanted["resultType"] != found["resultType"]:
        return f"{wanted['resultType']} became {found['resultType']}"
    if wanted["resultType"] == "scalar":
        return _points([wanted["result"]], [found["result"]])
    expected, got = _by_labels(wanted["result"]), _by_labels(found["result"])
    if expected.keys() != got.keys():
        return (
            f"missing {sorted(expected.keys() - got.keys())[:3]}, too many {sorted(got.keys() - expected.keys())[:3]}"
        )
    for labels, points in expected.items():
        if difference := _points(points, got[labels], 1e-6 if "std" in query else 1e-9):
            return f"{labels}: {difference}"
    looked_at = [one["data"]["stats"]["samples"]["totalQueryableSamples"] for one in (theirs, ours)]
    if looked_at[0] != looked_at[1]:
        return f"{looked_at[0]} samples became {looked_at[1]}"
    return _notes(theirs, ours)


# What Prometheus 3.5 does not say yet: that sort_by_label does nothing in range queries.
_NEWER = re.compile("sort is ineffective for range queries")


def _notes(theirs: dict[str, Any], ours: dict[str, Any]) -> str:
    for kind in ("warnings", "infos"):
        wanted, found = (
            sorted(_plain(text) for text in answer.get(kind, []) if not _NEWER.search(text))
            for answer in (theirs, ours)
        )
        if wanted != found:
            return f"{kind}: {wanted} became {found}"
    return ""


def _plain(text: str) -> str:
    """Without what changed since the oldest version that we compare with: how forced monotonicity is told of."""
    return re.sub(r"(monotonicity \(see [^)]*\)).*?( for metric name \"[^\"]*\")?.* (\(\d+:\d+\))$", r"\1 \3", text)


def _by_labels(result: list[dict[str, Any]]) -> dict[str, list[list[Any]]]:
    return {
        json.dumps(one["metric"], sort_keys=True): one["values"] if "values" in one else [one["value"]]
        for one in result
    }


def _points(wanted: list[list[Any]], found: list[list[Any]], relative: float = 1e-9) -> str:
    if [at for at, _ in wanted] != [at for at, _ in found]:
        return f"{len(wanted)} points became {len(found)}"
    for (at, left), (_, right) in zip(wanted, found, strict=True):
        if left != right and not _close(float(left), float(right), relative):
            return f"{left} became {right} at {at}"
    return ""


def _close(a: float, b: float, relative: float) -> bool:
    return (math.isnan(a) and math.isnan(b)) or math.isclose(a, b, rel_tol=relative, abs_tol=1e-9)
