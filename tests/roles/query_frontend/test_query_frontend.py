"""Limits, counting and lists of the query-frontend; its answers are the engine's, tested there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry

from mimir_ray.clock import ManualClock
from mimir_ray.config.limits import Limits
from mimir_ray.config.units import Bytes
from mimir_ray.errors import Unavailable
from mimir_ray.model.labels import labels_of
from mimir_ray.model.matchers import Matcher, MatchType
from mimir_ray.model.metadata import Metadata
from mimir_ray.model.tenant import TenantId
from mimir_ray.promql.engine import Engine
from mimir_ray.promql.limits import Cancellation, QueryCancelled
from mimir_ray.promql.source import Selection
from mimir_ray.roles.query_frontend.metrics import QueryFrontendMetrics
from mimir_ray.roles.query_frontend.query_frontend import LabelsRequest, QueryFrontend, QueryTooLarge
from mimir_ray.testing.sources import ListSource

TENANT = TenantId("team-a")


class Source(ListSource):
    """Remembers what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Selection] = []

    def select(self, selection: Selection) -> Iterator[object]:  # type: ignore[override]
        self.asked.append(selection)
        return super().select(selection)

    def label_names(self, selection: Selection) -> list[str]:
        self.asked.append(selection)
        return ["a", "b"] if len(self.asked) == 1 else ["b", "c"]

    def label_values(self, name: str, selection: Selection) -> list[str]:
        return self.label_names(selection)

    def metadata(self, family: str = "") -> list[Metadata]:
        return [Metadata("a", "gauge", "1", ""), Metadata("b", "gauge", "", ""), Metadata("a", "gauge", "2", "")]


class Setup:
    def __init__(self, **limits: object) -> None:
        self.sources: dict[str, Source] = {}
        self.registry = CollectorRegistry()
        self.frontend = QueryFrontend(
            Engine(), self, lambda tenant: Limits(**limits), ManualClock(), QueryFrontendMetrics(self.registry)  # type: ignore[arg-type]
        )  # fmt: skip

    def source(self, tenant: TenantId, cancellation: Cancellation) -> Source:
        return self.sources.setdefault(tenant, Source())

    def count(self, operation: str) -> float:
        labels = {"op": operation, "user": TENANT}
        return self.registry.get_sample_value("cortex_query_frontend_queries_total", labels) or 0


def equal(name: str, value: str) -> tuple[Matcher, ...]:
    return (Matcher(MatchType.EQUAL, name, value),)


def test_queries_are_counted_by_kind_and_tenant() -> None:
    setup = Setup()
    setup.frontend.instant(TENANT, "1", 0, Cancellation())
    setup.frontend.range(TENANT, "1", 0, 10, 10, Cancellation())
    setup.frontend.range(TENANT, "1", 0, 10, 10, Cancellation())
    assert (setup.count("query"), setup.count("query_range")) == (1, 2)


def test_the_length_of_a_query_is_its_bytes() -> None:
    setup = Setup(max_query_expression_size_bytes=Bytes(4))
    setup.frontend.instant(TENANT, '"ä"', 0, Cancellation())
    with pytest.raises(QueryTooLarge, match="query size: 5 bytes, limit: 4 bytes"):
        setup.frontend.range(TENANT, '"äb"', 0, 1, 1, Cancellation())


def test_a_cancelled_query_does_not_run() -> None:
    cancellation = Cancellation()
    cancellation.cancel()
    with pytest.raises(QueryCancelled):
        Setup().frontend.instant(TENANT, "up", 0, cancellation)


def test_several_selectors_are_one_sorted_list() -> None:
    request = LabelsRequest((equal("x", "1"), equal("x", "2")), 5, 6)
    setup = Setup()
    assert setup.frontend.label_names(TENANT, request) == ["a", "b", "c"]
    assert [(one.matchers, one.mint, one.maxt) for one in setup.sources[TENANT].asked] == [
        (equal("x", "1"), 5, 6),
        (equal("x", "2"), 5, 6),
    ]
    assert Setup().frontend.label_values(TENANT, "x", request) == ["a", "b", "c"]


def test_without_a_selector_all_series_are_meant() -> None:
    setup = Setup()
    assert setup.frontend.label_names(TENANT, LabelsRequest((), 0, 1)) == ["a", "b"]
    assert setup.sources[TENANT].asked[0].matchers == ()


def test_series_of_several_selectors_come_once_and_sorted() -> None:
    setup = Setup()
    source = setup.source(TENANT, Cancellation())
    for name in "cab":
        source.add(labels_of({"__name__": name, "x": "1"}), [(0, 1.0)])
    request = LabelsRequest((equal("x", "1"), equal("__name__", "a")), 0, 1, limit=7)
    found = setup.frontend.series(TENANT, request)
    assert [dict(labels)["__name__"] for labels in found] == ["a", "b", "c"]
    assert [(one.labels_only, one.limit_series) for one in source.asked] == [(True, 8)] * 2


def test_metadata_is_grouped_by_family() -> None:
    found = Setup().frontend.metadata(TENANT)
    assert {family: [entry.help for entry in entries] for family, entries in found.items()} == {
        "a": ["1", "2"],
        "b": [""],
    }


def test_what_storage_cannot_answer_is_passed_on() -> None:
    setup = Setup()

    def broken(selection: Selection) -> Iterator[object]:
        raise Unavailable("too many unhealthy instances in the ring")

    setup.source(TENANT, Cancellation()).select = broken  # type: ignore[method-assign,assignment]
    with pytest.raises(Unavailable):
        setup.frontend.instant(TENANT, "sum(up)", 0, Cancellation())
    with pytest.raises(Unavailable):
        setup.frontend.series(TENANT, LabelsRequest((equal("x", "1"),), 0, 1))
