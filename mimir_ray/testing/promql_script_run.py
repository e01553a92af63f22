"""Runs the commands of a PromQL test script and judges every answer.

Each instant query is asked again as the middle step of a range query, and with `@` timestamps on its selectors
at other times, where that must not change the answer. Upstream: promql/promqltest/test.go.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mimir_ray.errors import ClientError, InvalidArgument, MimirRayError
from mimir_ray.model.float_histogram import FloatHistogram
from mimir_ray.model.labels import METRIC_NAME, Labels, labels_of
from mimir_ray.model.result import Matrix, QueryResult, Scalar
from mimir_ray.promql.source import SeriesSource
from mimir_ray.promql.syntax.ast import Anchor, Call, MatrixSelector, Node, Subquery, VectorSelector, walk
from mimir_ray.promql.syntax.parser import parse
from mimir_ray.promql.syntax.printer import format_expr
from mimir_ray.tsdb.chunks.histogram_layout import stored_hint

from .promql_script import Clear, Command, Eval, HistogramValue, Load, LoadSeries
from .promql_script_histograms import of_classic, of_values
from .promql_script_judge import (
    Mismatch,
    check_annotations,
    check_sorted,
    compare,
    compare_scalar,
    compare_vector,
    format_labels_of,
)
from .sources import ListSource, Value, satisfies

Evaluate = Callable[[str, int, int, int | None], QueryResult]
"""(query, start, end, step, all in ms) → answer. Without a step: an instant query at `end`."""

_CONTEXT_FUNCTIONS = re.compile(r"(start|end|range|step)\(\)")
_MINUTE_MS = 60_000

# Their results change with the evaluation time even if their arguments do not.
# Upstream: promql/functions.go AtModifierUnsafeFunctions.
AT_UNSAFE_FUNCTIONS = frozenset(
    {"days_in_month", "day_of_month", "day_of_week", "day_of_year", "end", "hour", "minute", "month", "year"}
    | {"predict_linear", "range", "start", "step", "time", "timestamp"}
)


class HistogramsRefused(ClientError):
    """A storage that holds floats only."""


class ScriptStorage(Protocol):
    """Where loads go. Samples of equal series add up until `clear`."""

    def append(
        self,
        labels: Labels,
        timestamps: NDArray[np.int64],
        values: NDArray[np.float64],
        starts: NDArray[np.int64] | None = None,
    ) -> None:
        """Float samples of one series, ascending by time; `starts`: their start timestamps (ms), 0 unknown."""

    def append_histograms(
        self,
        labels: Labels,
        timestamps: NDArray[np.int64],
        histograms: Sequence[FloatHistogram],
        starts: NDArray[np.int64] | None = None,
    ) -> None:
        """Histogram samples of one series, after its float samples, or raises `HistogramsRefused`."""

    def clear(self) -> None:
        """Drops everything."""

    def source(self) -> SeriesSource:
        """What has been appended so far."""


class ListStorage:
    """A `ScriptStorage` over `ListSource`."""

    def __init__(self) -> None:
        self._source = ListSource()
        self._newest: dict[Labels, tuple[int, FloatHistogram | None]] = {}

    def append(
        self,
        labels: Labels,
        timestamps: NDArray[np.int64],
        values: NDArray[np.float64],
        starts: NDArray[np.int64] | None = None,
    ) -> None:
        self._source.add(
            labels, list(zip(timestamps.tolist(), values.tolist(), strict=True)), _points(timestamps, starts)
        )

    def append_histograms(
        self,
        labels: Labels,
        timestamps: NDArray[np.int64],
        histograms: Sequence[FloatHistogram],
        starts: NDArray[np.int64] | None = None,
    ) -> None:
        """With the hints that they would come out of chunks with."""
        known = self._source.series.get(labels, {})
        floats = sorted(time for time, value in known.items() if isinstance(value, float))
        before, previous = self._newest.get(labels, (-(1 << 62), None))
        points: list[tuple[int, Value]] = []
        for time, one in zip(timestamps.tolist(), histograms, strict=True):
            at = bisect.bisect_left(floats, time)
            if previous is not None and at and floats[at - 1] > before:
                previous = None  # a float in between ends a chunk
            points.append((time, one.with_hint(stored_hint(previous, one))))
            before, previous = time, one
        self._newest[labels] = before, previous
        self._source.add(labels, points, _points(timestamps, starts))

    def clear(self) -> None:
        self._source = ListSource()
        self._newest.clear()

    def source(self) -> SeriesSource:
        return self._source


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one `eval`."""

    file: str
    line: int
    query: str
    passed: bool
    reason: str = ""


def run_script(
    commands: Iterable[Command], storage: ScriptStorage, evaluate: Evaluate, file: str = "script"
) -> list[Outcome]:
    """Runs a script from an empty storage; one outcome per `eval`, whatever fails."""
    runner = _Runner(storage, evaluate)
    storage.clear()
    outcomes: list[Outcome] = []
    for command in commands:
        if isinstance(command, Clear):
            storage.clear()
            runner.refused.clear()
        elif isinstance(command, Load):
            runner.load(command)
        else:
            reason = runner.run(command)
            outcomes.append(Outcome(file, command.line, command.query, not reason, reason))
    return outcomes


class _Runner:
    def __init__(self, storage: ScriptStorage, evaluate: Evaluate) -> None:
        self.storage = storage
        self.evaluate = evaluate
        self.refused: dict[Labels, str] = {}
        """Series that the storage did not take, and why."""

    def load(self, command: Load) -> None:
        for series in command.series:
            times = np.arange(len(series.values), dtype=np.int64) * command.step_ms
            floats = [(row, value) for row, value in enumerate(series.values) if isinstance(value, float)]
            histograms = [(row, value) for row, value in enumerate(series.values) if isinstance(value, HistogramValue)]
            if floats:
                rows = [row for row, _ in floats]
                numbers = np.array([value for _, value in floats], np.float64)
                with self.noting(series.labels):
                    self.storage.append(series.labels, times[rows], numbers, _starts(series, times, rows))
            if histograms:
                rows = [row for row, _ in histograms]
                with self.noting(series.labels):
                    values = of_values([value for _, value in histograms])
                    self.storage.append_histograms(series.labels, times[rows], values, _starts(series, times, rows))
        if command.with_nhcb:
            for base, classic in classic_histograms(command.series).items():
                with self.noting(base):
                    custom = of_classic(classic)
                    at = np.array([step for step, _ in custom], np.int64) * command.step_ms
                    self.storage.append_histograms(base, at, [one for _, one in custom])

    @contextmanager
    def noting(self, labels: Labels) -> Iterator[None]:
        """What the storage refuses fails the evals that need it, not the whole script."""
        try:
            yield
        except MimirRayError as error:
            self.refused[labels] = str(error)

    def run(self, command: Eval) -> str:
        """Empty if all is as expected, else what is not."""
        tree: Node | None = None
        try:
            tree = parse(command.query)
        except InvalidArgument as error:
            if not command.fail:
                return str(error)
        if tree is not None and (lost := self.lost_series(tree)):
            return lost
        asked = ""
        try:
            if command.step_ms is not None:
                self.ask(command, command.query, command.start_ms, command.end_ms, command.step_ms)
                return ""
            self.instant(command, command.query, command.end_ms)
            for query, time_ms in [] if tree is None else at_modifier_cases(tree, command.end_ms):
                asked = f" [asked as {query} at {time_ms} ms]"
                self.instant(command, query, time_ms)
        except Mismatch as error:
            return f"{error}{asked}"
        return ""

    def lost_series(self, tree: Node) -> str:
        for node in walk(tree):
            if isinstance(node, VectorSelector):
                for labels, reason in self.refused.items():
                    if satisfies(labels, node.matchers):
                        return f"needs {format_labels_of(labels)}, which could not be loaded: {reason}"
        return ""

    def ask(self, command: Eval, query: str, start_ms: int, end_ms: int, step_ms: int | None) -> QueryResult | None:
        """The answer, judged; None where a failure was expected and came."""
        try:
            answer = self.evaluate(query, start_ms, end_ms, step_ms)
        except MimirRayError as error:
            if not command.fail:
                raise Mismatch(f"failed: {error}") from None
            for expectation in command.fail:
                if not expectation.accepts(error.describe()):
                    raise Mismatch(f"expected error {expectation}, got: {error.describe()}") from None
            return None
        except Exception as error:  # our own bug fails this eval, the rest of the script goes on
            raise Mismatch(f"crashed: {type(error).__name__}: {error}") from error
        if command.fail:
            raise Mismatch("expected an error, got none")
        check_annotations(command, answer)
        compare(command, answer.value)
        return answer

    def instant(self, command: Eval, query: str, time_ms: int) -> None:
        answer = self.ask(command, query, time_ms, time_ms, None)
        if answer is None or command.range_vector or command.string is not None or _CONTEXT_FUNCTIONS.search(query):
            return
        start_ms, end_ms = time_ms - _MINUTE_MS, time_ms + _MINUTE_MS
        try:
            ranged = self.evaluate(query, start_ms, end_ms, _MINUTE_MS).value
        except MimirRayError as error:
            raise Mismatch(f"failed in range mode: {error}") from None
        except Exception as error:  # as above
            raise Mismatch(f"crashed in range mode: {type(error).__name__}: {error}") from error
        if command.ordered:
            return  # matrices are sorted by labels
        if not isinstance(ranged, Matrix):
            raise Mismatch(f"range query gave a {ranged.type}")
        check_sorted(ranged)
        middle = [(labels, value) for labels, points in ranged.items() for at, value in points if at == time_ms]
        try:
            if isinstance(answer.value, Scalar):
                if not middle:
                    raise Mismatch("no value")
                compare_scalar(command, middle[0][1])
            else:
                compare_vector(command, middle)
        except Mismatch as error:
            raise Mismatch(f"in range mode: {error}") from None


def classic_histograms(series: Sequence[LoadSeries]) -> dict[Labels, list[LoadSeries]]:
    """The series of classic histograms by the labels of the native one: no suffix, no `le`."""
    found: dict[Labels, list[LoadSeries]] = {}
    for one in series:
        labels = dict(one.labels)
        name = labels.get(METRIC_NAME, "")
        for suffix in ("_bucket", "_count", "_sum"):
            if name.endswith(suffix):
                base = labels_of({**labels, METRIC_NAME: name.removesuffix(suffix), "le": ""})
                found.setdefault(base, []).append(one)
                break
    return found


def at_modifier_cases(tree: Node, time_ms: int) -> Iterator[tuple[str, int]]:
    """The query with its selectors pinned to the evaluation time, and times at which it must answer the same."""
    if any(isinstance(node, Call) and node.name in AT_UNSAFE_FUNCTIONS for node in walk(tree)):
        return
    query = format_expr(_pin(tree, time_ms))
    for at in (-1000, 0, 1000) if time_ms == 0 else (-10 * time_ms, 0, time_ms // 5, time_ms, 10 * time_ms):
        yield query, at


def _pin(node: Node, time_ms: int) -> Node:
    """`@ time` on every selector and subquery that has none, but not inside of pinned subqueries."""
    if isinstance(node, VectorSelector | Subquery):
        return replace(node, at=time_ms) if node.at is None or isinstance(node.at, Anchor) else node
    if isinstance(node, MatrixSelector):
        pinned = _pin(node.selector, time_ms)
        assert isinstance(pinned, VectorSelector)
        return replace(node, selector=pinned)
    changes: dict[str, object] = {}
    for name in ("expr", "param", "left", "right"):
        child = getattr(node, name, None)
        if isinstance(child, Node):
            changes[name] = _pin(child, time_ms)
    if isinstance(node, Call):
        changes["args"] = tuple(_pin(arg, time_ms) for arg in node.args)
    return replace(node, **changes) if changes else node


def _starts(series: LoadSeries, times: NDArray[np.int64], rows: list[int]) -> NDArray[np.int64] | None:
    """Start timestamps (ms) of the samples in these rows, 0 for those that have none."""
    if series.starts is None:
        return None
    offsets = [series.starts[row] for row in rows]
    return np.array([0 if one is None else at + one for at, one in zip(times[rows].tolist(), offsets, strict=True)])


def _points(timestamps: NDArray[np.int64], starts: NDArray[np.int64] | None) -> list[tuple[int, int]]:
    return [] if starts is None else list(zip(timestamps.tolist(), starts.tolist(), strict=True))
