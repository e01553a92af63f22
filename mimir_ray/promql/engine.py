"""The engine: parse, plan, run. One `Engine` serves many threads; a query runs in the caller's thread.

What a query may use is bounded by `EngineOptions`, `QueryLimits` and a `Cancellation`, looked at between batches.
Upstream: promql/engine.go.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from mimir_ray.errors import InvalidArgument
from mimir_ray.model.histogram import HistogramPart
from mimir_ray.model.labels import LabelColumns
from mimir_ray.model.result import Matrix, QueryResult, QueryStats, SampleCounts, Scalar, String, Timings, Value, Vector
from mimir_ray.model.series import SeriesBatch, StepMatrix
from mimir_ray.telemetry.caches import CacheSource

from .kernels.extended import extended_window
from .kernels.steps import select_window
from .kernels.windows import without_stale
from .limits import DEFAULT_MAX_SAMPLES, Cancellation, EvaluationError, QueryLimits, ReadBudget, Reads, SampleBudget
from .operators.execution import Execution
from .operators.labels import label_order, merge_same_labels, without_names
from .operators.registry import SCALAR_OPERATORS, VECTOR_OPERATORS
from .operators.sample_tally import SampleTally, sample_weights
from .plan import nodes
from .plan.builder import PlanOptions, build
from .plan.durations import QueryTimes, depends_on_times
from .plan.explain import explain
from .plan.rewrites import THAT_READ_LESS, THAT_READ_NAMES, optimise
from .remembered import Remembered
from .source import SeriesSource
from .syntax import ast
from .syntax.ast import ValueType
from .syntax.parser import parse


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """What holds for every query of an engine.

    `lookback_ms`: how far back an instant selector looks. `default_step_ms`: of subqueries without a step.
    `max_samples`: points that one query may hold at once. `timeout_s`: None for no limit.
    `enable_delayed_name_removal`: names go at the end of a query, not at each function.
    `use_start_timestamps`: functions of counters look at them. `enable_type_and_unit_labels`: what a counter is is told
    by the label `__type__`, not by the end of the name.
    `parsed_queries`: how many syntax trees, and how many plans, are remembered.
    """

    lookback_ms: int = 300_000
    default_step_ms: int = 60_000
    max_samples: int = DEFAULT_MAX_SAMPLES
    timeout_s: float | None = None
    enable_delayed_name_removal: bool = False
    use_start_timestamps: bool = False
    enable_type_and_unit_labels: bool = False
    parsed_queries: int = 1_000
    warnings_max: int = 10
    infos_max: int = 10


_ORDERING = frozenset(("sort", "sort_desc", "sort_by_label", "sort_by_label_desc", "topk", "bottomk"))


class Engine:
    """Evaluates PromQL. Thread-safe."""

    def __init__(
        self,
        options: EngineOptions | None = None,
        parse_query: Callable[[str], ast.Node] = parse,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.options = options or EngineOptions()
        self._parse = parse_query
        self._parsed: Remembered[ast.Node] = Remembered(self.options.parsed_queries)
        self._planned: Remembered[tuple[nodes.PlanNode | None]] = Remembered(self.options.parsed_queries)
        self._monotonic_s = monotonic_s

    def caches(self) -> dict[str, CacheSource]:
        """What it remembers, by name."""
        return {"parsed-queries": lambda: self._parsed.stats, "plans": lambda: self._planned.stats}

    def parse(self, query: str) -> ast.Node:
        """The syntax tree; raises what the parser raises. Remembered."""
        return self._parsed.get(query, lambda: self._parse(query))

    def plan(
        self,
        query: str | ast.Node,
        start_ms: int,
        end_ms: int,
        step_ms: int = 0,
        *,
        lookback_ms: int | None = None,
        fragments: bool = False,
        count_samples: bool = False,
        limits: QueryLimits | None = None,
    ) -> nodes.Plan:
        """The optimised plan of a range query, or (step 0) of an instant query.

        `fragments`: for a source that can run parts of it where its series are. `count_samples`: looks at every sample
        that upstream's engine looks at, and as often.
        """
        tree = self.parse(query) if isinstance(query, str) else query
        starts = None if limits is None else limits.start_timestamps
        options = PlanOptions(
            lookback_ms or self.options.lookback_ms,
            self.options.default_step_ms,
            self.options.use_start_timestamps if starts is None else starts,
        )
        without = THAT_READ_LESS if count_samples else ()
        if self._type_labels(limits):
            without = (*without, *THAT_READ_NAMES)
        delayed = self.delayed_names(limits)

        def make() -> nodes.PlanNode:
            plan = build(tree, QueryTimes(start_ms, end_ms, step_ms), options)
            return optimise(plan, fragments=fragments, delayed_names=delayed, without=without).root

        if not isinstance(query, str):
            root = make()
        else:
            # Most plans are the same whenever they are asked for; of the others it is remembered that they are not.
            key = (query, options, fragments, delayed, without)
            (known,) = self._planned.get(key, lambda: (None if depends_on_times(tree) else make(),))
            root = known or make()
        return nodes.Plan(root, nodes.Steps.between(start_ms, end_ms, step_ms or 1))

    def explain(
        self,
        query: str | ast.Node,
        start_ms: int,
        end_ms: int,
        step_ms: int = 0,
        *,
        lookback_ms: int | None = None,
        limits: QueryLimits | None = None,
        fragments: bool = False,
    ) -> str:
        """The optimised plan as text for people; nothing is run. Raises what `plan` raises."""
        plan = self.plan(query, start_ms, end_ms, step_ms, lookback_ms=lookback_ms, fragments=fragments, limits=limits)
        return explain(plan)

    def delayed_names(self, limits: QueryLimits | None) -> bool:
        """Whether a query under these limits loses its names at its end."""
        if limits is None or limits.delayed_names is None:
            return self.options.enable_delayed_name_removal
        return limits.delayed_names

    def _type_labels(self, limits: QueryLimits | None) -> bool:
        if limits is None or limits.type_labels is None:
            return self.options.enable_type_and_unit_labels
        return limits.type_labels

    def instant(
        self,
        query: str | ast.Node,
        source: SeriesSource,
        time_ms: int,
        *,
        lookback_ms: int | None = None,
        stats: bool = False,
        cancel: Cancellation | None = None,
        limits: QueryLimits | None = None,
    ) -> QueryResult:
        """The value of an expression at one time.

        Args:
            query: text, or a tree (then annotations have no positions).
            stats: count the samples that steps look at, step by step.

        Raises what the parser raises, `EvaluationError` and its kin, `QueryTimeout`, `QueryCancelled`, and what
        the source raises.
        """
        run = _Run(self, query, source, cancel, limits, stats)
        plan = run.plan(time_ms, time_ms, 0, lookback_ms)
        return run.finish(run.instant(plan))

    def range(
        self,
        query: str | ast.Node,
        source: SeriesSource,
        start_ms: int,
        end_ms: int,
        step_ms: int,
        *,
        lookback_ms: int | None = None,
        stats: bool = False,
        cancel: Cancellation | None = None,
        limits: QueryLimits | None = None,
    ) -> QueryResult:
        """The value of an expression at every step from start to end. See `instant`."""
        if step_ms <= 0:
            raise InvalidArgument("zero or negative query resolution step widths are not accepted")
        run = _Run(self, query, source, cancel, limits, stats)
        plan = run.plan(start_ms, end_ms, step_ms, lookback_ms, wants=(ValueType.VECTOR, ValueType.SCALAR))
        return run.finish(run.range(plan))

    @property
    def monotonic_s(self) -> Callable[[], float]:
        return self._monotonic_s


_DOCUMENTED = {
    ValueType.MATRIX: "range vector",
    ValueType.VECTOR: "instant vector",
    ValueType.STRING: "string",
    ValueType.SCALAR: "scalar",
}


class _Run:
    """One query from text to result."""

    def __init__(
        self,
        engine: Engine,
        query: str | ast.Node,
        source: SeriesSource,
        cancel: Cancellation | None,
        limits: QueryLimits | None,
        stats: bool,
    ) -> None:
        options = engine.options
        limits = limits or QueryLimits()
        self._engine = engine
        self._limits = limits
        self._query = query
        self._monotonic_s = engine.monotonic_s
        self._started_s = self._monotonic_s()
        self._timings = Timings()
        timeout_s = limits.timeout_s if limits.timeout_s is not None else options.timeout_s
        if timeout_s is not None:
            cancel = Cancellation(timeout_s, self._monotonic_s, parent=cancel)
        self._execution = Execution(
            source,
            VECTOR_OPERATORS,
            SCALAR_OPERATORS,
            SampleBudget(
                options.max_samples if limits.max_samples is None else limits.max_samples, limits.max_memory_bytes
            ),
            ReadBudget(Reads(limits.max_series, limits.max_chunks, limits.max_chunk_bytes)),
            cancellation=cancel,
            delayed_names=engine.delayed_names(limits),
            type_labels=engine._type_labels(limits),
            tally=SampleTally(0) if stats else None,
            fragments=getattr(source, "fragments", None),
        )

    def plan(
        self,
        start_ms: int,
        end_ms: int,
        step_ms: int,
        lookback_ms: int | None,
        wants: tuple[ValueType, ...] = tuple(_DOCUMENTED),
    ) -> nodes.Plan:
        query = self._engine.parse(self._query) if isinstance(self._query, str) else self._query
        if query.type not in wants:
            raise InvalidArgument(
                'invalid parameter "query": '
                f'invalid expression type "{_DOCUMENTED[query.type]}" for range query, must be Scalar or instant Vector'
            )
        plan = self._engine.plan(
            self._query,
            start_ms,
            end_ms,
            step_ms,
            lookback_ms=lookback_ms,
            fragments=self._execution.fragments is not None,
            count_samples=self._execution.tally is not None,
            limits=self._limits,
        )
        self._execution.tally = self._execution.new_tally(plan.steps)
        self._timings.queryPreparationTime = self._monotonic_s() - self._started_s
        self._execution.check()
        return plan

    def instant(self, plan: nodes.Plan) -> Value:
        root, steps, execution = plan.root, plan.steps, self._execution
        time_ms = steps.start_ms
        match root.type:
            case ValueType.STRING:
                assert isinstance(root, nodes.Text)
                return String(time_ms, root.value)
            case ValueType.SCALAR:
                return Scalar(time_ms, float(execution.scalar(root, steps)[0]))
            case ValueType.VECTOR:
                matrix = self._named(execution.gather(root, steps))
                rows = np.flatnonzero(matrix.present[:, 0])
                histograms = None if matrix.histograms is None else matrix.histograms[rows, 0]
                vector = Vector(matrix.labels.take(rows), time_ms, matrix.values[rows, 0], histograms)
                return vector if _is_ordered(root) else self._sorted_vector(vector)
        if isinstance(root, nodes.Subquery):
            return self._subquery(root, steps)
        assert isinstance(root, nodes.RangeSelect), root
        return self._raw(root, steps)

    def range(self, plan: nodes.Plan) -> Matrix:
        root, steps, execution = plan.root, plan.steps, self._execution
        if root.type is ValueType.SCALAR:
            values = execution.scalar(root, steps)
            offsets = np.array([0, steps.count], np.int64)
            return Matrix(LabelColumns.empty_sets(1, execution.table), offsets, steps.times, values)
        matrix = self._named(execution.gather(root, steps))
        return self._sorted_matrix(matrix, steps)

    def finish(self, value: Value) -> QueryResult:
        execution, options = self._execution, self._engine.options
        query = self._query if isinstance(self._query, str) else ""
        warnings, infos = execution.annotations.as_strings(query, options.warnings_max, options.infos_max)
        total_s = self._monotonic_s() - self._started_s
        timings = self._timings
        timings.evalTotalTime = timings.execTotalTime = total_s
        timings.innerEvalTime = total_s - timings.queryPreparationTime - timings.resultSortTime
        samples = SampleCounts(peak=execution.budget.peak)
        if execution.tally is not None:
            samples.per_step, samples.read_per_step = execution.tally.total, execution.tally.read
            samples.total, samples.read = int(samples.per_step.sum()), int(samples.read_per_step.sum())
        return QueryResult(value, warnings, infos, QueryStats(timings, samples))

    def _named(self, matrix: StepMatrix) -> StepMatrix:
        """Without the names that were to go at the end of the query."""
        if matrix.drop_name is None or not matrix.drop_name.any():
            return matrix
        nameless = without_names(matrix.labels).align(matrix.labels.names)
        codes = np.where(matrix.drop_name[:, None], nameless, matrix.labels.codes)
        labels = LabelColumns(matrix.labels.names, np.ascontiguousarray(codes), matrix.labels.table)
        return merge_same_labels(replace(matrix, labels=labels, drop_name=None))

    def _sorted_vector(self, vector: Vector) -> Vector:
        started_s = self._monotonic_s()
        order = label_order(vector.labels)
        histograms = None if vector.histograms is None else vector.histograms[order]
        vector = Vector(vector.labels.take(order), vector.timestamp, vector.values[order], histograms)
        self._timings.resultSortTime += self._monotonic_s() - started_s
        return vector

    def _sorted_matrix(self, matrix: StepMatrix, steps: nodes.Steps) -> Matrix:
        started_s = self._monotonic_s()
        filled = matrix.present.any(axis=1)
        order = label_order(matrix.labels)
        if not filled.all():
            order = order[filled[order]]
        identity = len(order) == len(matrix) and (order == np.arange(len(order))).all()
        result = Matrix.from_steps(matrix if identity else matrix.take(order), steps.times)
        self._timings.resultSortTime += self._monotonic_s() - started_s
        return result

    def _subquery(self, root: nodes.Subquery, steps: nodes.Steps) -> Matrix:
        inner = root.inner_steps(steps)
        execution = self._execution
        tally = execution.new_tally(inner)
        if root.expr.type is ValueType.SCALAR:
            values = execution.scalar_tallied(root.expr, inner, tally)
            self._count_all(tally)
            offsets = np.array([0, inner.count], np.int64)
            return Matrix(LabelColumns.empty_sets(1, self._execution.table), offsets, inner.times, values)
        batches = execution.tallied(execution.vector(root.expr, inner), tally)
        matrix = execution.gather_batches(batches, inner.count)
        self._count_all(tally)
        return self._sorted_matrix(self._named(matrix), inner)

    def _count_all(self, tally: SampleTally | None) -> None:
        """Counts what a subquery that is the whole query looked at."""
        if tally is not None and self._execution.tally is not None:
            self._execution.tally.add_once(tally)

    def _raw(self, root: nodes.RangeSelect, steps: nodes.Steps) -> Matrix:
        execution = self._execution
        mint, maxt = root.window(steps)
        parts: list[SeriesBatch] = []
        for batch in execution.select(root, steps):
            if root.extended is not None:
                if batch.histograms is not None and batch.histograms.here.any():
                    raise EvaluationError(f"{root.extended} modifier is not supported with histograms")
                part = _extended_window(without_stale(batch), root, steps)
                execution.budget.take(part.samples)
                self._count_samples(part)
                parts.append(part)
                continue
            offsets = np.empty_like(batch.offsets)
            keep = np.empty(batch.samples, np.int64)
            bits = batch.values.view(np.uint64)
            count = select_window(batch.offsets, batch.timestamps, bits, mint - 1, maxt, offsets, keep)
            execution.budget.take(count)
            keep = keep[:count]
            histograms = None if batch.histograms is None else batch.histograms[keep]
            parts.append(SeriesBatch(batch.labels, offsets, batch.timestamps[keep], batch.values[keep], histograms))
            self._count_samples(parts[-1])
        return _sorted_samples(parts, execution)

    def _count_samples(self, part: SeriesBatch) -> None:
        if self._execution.tally is not None:
            weights = sample_weights(part)
            self._execution.tally.add(np.array([weights.sum() if len(weights) else part.samples], np.int64))


def _extended_window(batch: SeriesBatch, root: nodes.RangeSelect, steps: nodes.Steps) -> SeriesBatch:
    """The samples of an anchored or smoothed selector that is the whole query."""
    room = batch.samples + 2 * len(batch)
    offsets = np.empty_like(batch.offsets)
    timestamps = np.empty(room, np.int64)
    values = np.empty(room, np.float64)
    count = extended_window(
        batch.offsets, batch.timestamps, batch.values, int(root.ends(steps)[0]), root.range_ms, root.lookback_ms,
        root.extended == "smoothed", offsets, timestamps, values,
    )  # fmt: skip
    return SeriesBatch(batch.labels, offsets, timestamps[:count], values[:count])


def _sorted_samples(parts: list[SeriesBatch], execution: Execution) -> Matrix:
    """All series with a sample, in the order of their labels."""
    if not parts:
        empty = LabelColumns.empty_sets(0, execution.table)
        return Matrix(empty, np.zeros(1, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float64))
    labels = LabelColumns.concat([part.labels for part in parts])
    counts = np.concatenate([np.diff(part.offsets) for part in parts])
    starts = np.cumsum(counts) - counts
    order = label_order(labels)
    order = order[counts[order] > 0]
    kept = counts[order]
    offsets = np.zeros(len(order) + 1, np.int64)
    np.cumsum(kept, out=offsets[1:])
    samples = np.repeat(starts[order] - offsets[:-1], kept) + np.arange(offsets[-1])
    timestamps = np.concatenate([part.timestamps for part in parts])
    values = np.concatenate([part.values for part in parts])
    histograms = HistogramPart.concat([(part.histograms, part.values.shape) for part in parts])
    if histograms is not None:
        histograms = histograms[samples]
    return Matrix(labels.take(order), offsets, timestamps[samples], values[samples], histograms)


def _is_ordered(node: nodes.PlanNode) -> bool:
    """Whether the order of an instant vector says something: it comes from a sort or a ranking."""
    if isinstance(node, nodes.Aggregate):
        return node.op in _ORDERING
    if isinstance(node, nodes.FunctionCall):
        return node.name in _ORDERING or any(_is_ordered(each) for each in node.args)
    if isinstance(node, nodes.Join):
        many = node.right if node.matching.cardinality is ast.Cardinality.ONE_TO_MANY else node.left
        return _is_ordered(many)
    if isinstance(node, nodes.SetOperation):
        return _is_ordered(node.left)
    return any(_is_ordered(child) for child in node.children())
