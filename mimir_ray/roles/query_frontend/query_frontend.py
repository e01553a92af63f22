"""`QueryFrontend`: where a query enters. Applies the tenant's limits, and runs it on the tenant's samples.

Plain and blocking: the gateway calls it in its own threads. Upstream: pkg/frontend/querymiddleware.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from mimir_ray.clock import Clock
from mimir_ray.config.limits import Limits
from mimir_ray.errors import LimitExceeded, Unavailable
from mimir_ray.model.exemplars import SeriesExemplars
from mimir_ray.model.labels import Labels
from mimir_ray.model.matchers import Matcher
from mimir_ray.model.metadata import Metadata
from mimir_ray.model.result import QueryResult
from mimir_ray.model.tenant import TenantId
from mimir_ray.promql.engine import Engine
from mimir_ray.promql.limits import Cancellation, QueryLimits
from mimir_ray.promql.remembered import Remembered
from mimir_ray.promql.source import Selection
from mimir_ray.promql.syntax.ast import VectorSelector, walk
from mimir_ray.roles.api import Querier
from mimir_ray.roles.query_frontend.experimental import check_experimental, experimental_parts
from mimir_ray.roles.query_frontend.metrics import QueryFrontendMetrics

METADATA_TIMEOUT_S = 60.0


@dataclass(eq=False)
class QueryTooLarge(LimitExceeded):
    """Upstream: pkg/querier/querymiddleware/limits.go maxQueryExpressionSizeBytes."""

    id = "max-query-expression-size-bytes"
    flags = ("query-frontend.max-query-expression-size-bytes",)
    actual: int
    allowed: int

    def describe(self) -> str:
        return (
            "the raw query size exceeds the limit set for the tenant "
            f"(query size: {self.actual} bytes, limit: {self.allowed} bytes)"
        )


@dataclass(frozen=True, slots=True)
class LabelsRequest:
    """What the labels, label values and series APIs ask for; several selectors are OR-ed. `limit` 0: all."""

    selectors: tuple[tuple[Matcher, ...], ...]
    mint: int
    maxt: int
    limit: int = 0


@contextmanager
def _within(cancellation: Cancellation) -> Iterator[None]:
    """What was not answered because the query had no time left is the query's time-out, whoever noticed first."""
    try:
        yield
    except Unavailable:
        cancellation.check()
        raise


class QueryFrontend:
    """Blocking; any thread."""

    def __init__(
        self,
        engine: Engine,
        querier: Querier,
        limits: Callable[[TenantId], Limits],
        clock: Clock,
        metrics: QueryFrontendMetrics,
    ) -> None:
        self._engine = engine
        self._querier = querier
        self._limits = limits
        self._clock = clock
        self._metrics = metrics
        self._experimental: Remembered[tuple[tuple[str, str], ...]] = Remembered(engine.options.parsed_queries)

    def instant(
        self,
        tenant: TenantId,
        query: str,
        time_ms: int,
        cancellation: Cancellation,
        lookback_ms: int | None = None,
        stats: bool = False,
    ) -> QueryResult:
        """`stats`: count samples step by step.

        Errors: ParseError, EvaluationError, Unavailable, QueryTimeout, QueryCancelled, LimitExceeded.
        """
        limits = self._check(tenant, query, "query")
        with _within(cancellation):
            return self._engine.instant(
                query,
                self._querier.source(tenant, cancellation),
                time_ms,
                lookback_ms=lookback_ms,
                stats=stats,
                cancel=cancellation,
                limits=limits,
            )

    def range(
        self,
        tenant: TenantId,
        query: str,
        start_ms: int,
        end_ms: int,
        step_ms: int,
        cancellation: Cancellation,
        lookback_ms: int | None = None,
        stats: bool = False,
    ) -> QueryResult:
        """The same at every step from `start_ms` to `end_ms`, both included."""
        limits = self._check(tenant, query, "query_range")
        with _within(cancellation):
            return self._engine.range(
                query,
                self._querier.source(tenant, cancellation),
                start_ms,
                end_ms,
                step_ms,
                lookback_ms=lookback_ms,
                stats=stats,
                cancel=cancellation,
                limits=limits,
            )

    def explain(
        self,
        tenant: TenantId,
        query: str,
        start_ms: int,
        end_ms: int,
        step_ms: int = 0,
        lookback_ms: int | None = None,
    ) -> str:
        """How the query would be run, for people; step 0 is an instant query. Nothing is read."""
        limits = self._check(tenant, query, "explain")
        source = self._querier.source(tenant, Cancellation(METADATA_TIMEOUT_S))
        fragments = getattr(source, "fragments", None) is not None
        return self._engine.explain(
            query, start_ms, end_ms, step_ms, lookback_ms=lookback_ms, limits=limits, fragments=fragments
        )

    def label_names(self, tenant: TenantId, request: LabelsRequest) -> list[str]:
        source = self._querier.source(tenant, Cancellation(METADATA_TIMEOUT_S))
        return _union([source.label_names(selection) for selection in _selections(request)])

    def label_values(self, tenant: TenantId, name: str, request: LabelsRequest) -> list[str]:
        source = self._querier.source(tenant, Cancellation(METADATA_TIMEOUT_S))
        return _union([source.label_values(name, selection) for selection in _selections(request)])

    def series(self, tenant: TenantId, request: LabelsRequest) -> list[Labels]:
        """Label sets, sorted, each once; at most one more than the limit, which tells that something was cut."""
        source = self._querier.source(tenant, Cancellation(METADATA_TIMEOUT_S))
        found: set[Labels] = set()
        for selection in _selections(request, labels_only=True):
            for batch in source.select(selection):
                found.update(batch.labels.to_labels())
        return sorted(found)

    def metadata(self, tenant: TenantId, family: str = "") -> dict[str, list[Metadata]]:
        """Metric family → its entries."""
        entries: dict[str, list[Metadata]] = {}
        for entry in self._querier.source(tenant, Cancellation(METADATA_TIMEOUT_S)).metadata(family):
            entries.setdefault(entry.family, []).append(entry)
        return entries

    def exemplars(self, tenant: TenantId, query: str, mint: int, maxt: int) -> list[SeriesExemplars] | None:
        """Exemplars between two times (ms, both included) of all series that the selectors of a query select.

        None where it has no selector. Errors: as of `instant`.
        """
        self._check(tenant, query, "query_exemplars")
        selectors = [node.matchers for node in walk(self._engine.parse(query)) if isinstance(node, VectorSelector)]
        if not selectors:
            return None
        return self._querier.source(tenant, Cancellation(METADATA_TIMEOUT_S)).exemplars(selectors, mint, maxt)

    def _check(self, tenant: TenantId, query: str, operation: str) -> QueryLimits:
        """Counts the query and says what it may use; raises where the tenant may not ask it at all."""
        self._metrics.queries.labels(operation, tenant).inc()
        limits = self._limits(tenant)
        allowed = int(limits.max_query_expression_size_bytes)
        if 0 < allowed < (actual := len(query.encode("utf-8", "surrogateescape"))):
            raise QueryTooLarge(actual, allowed)
        parts = self._experimental.get(query, lambda: tuple(experimental_parts(self._engine.parse(query))))
        if parts:
            check_experimental(parts, tenant, limits)
        return QueryLimits(
            delayed_names=limits.enable_delayed_name_removal,
            start_timestamps=limits.use_start_timestamps,
            type_labels=limits.enable_type_and_unit_labels,
            max_series=limits.max_fetched_series_per_query,
            max_chunks=limits.max_fetched_chunks_per_query,
            max_chunk_bytes=int(limits.max_fetched_chunk_bytes_per_query),
            max_memory_bytes=int(limits.max_estimated_memory_consumption_per_query),
        )


def _selections(request: LabelsRequest, labels_only: bool = False) -> list[Selection]:
    limit = request.limit + 1 if request.limit else 0
    return [
        Selection(
            matchers, request.mint, request.maxt, labels_only=labels_only, limit_series=limit if labels_only else 0
        )
        for matchers in request.selectors or ((),)
    ]


def _union(lists: Sequence[list[str]]) -> list[str]:
    return lists[0] if len(lists) == 1 else sorted(set().union(*lists))
