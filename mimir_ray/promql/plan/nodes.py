"""The logical plan: what to compute, with every time resolved and no syntax left.

Nodes are immutable and comparable: equal nodes on the same steps have equal answers (positions in
the query text, kept for annotations, take no part). A node does not know its steps: whoever evaluates
it brings `Steps`, so the same tree serves a query, one step of it, or a subquery's own grid.
"""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mimir_ray.model.matchers import Matcher
from mimir_ray.promql.syntax.ast import NOWHERE, Call, Span, ValueType, VectorMatching

Extended = Literal["anchored", "smoothed"]
"""Modifiers of selectors that have windows look beyond their edges."""


@dataclass(frozen=True)
class Steps:
    """`count` evaluation times: start_ms, start_ms + step_ms, ... (step_ms > 0; count may be 0).

    `ranged`: of a range, even if only one step falls into it.
    """

    start_ms: int
    step_ms: int
    count: int
    ranged: bool = False

    @classmethod
    def between(cls, start_ms: int, end_ms: int, step_ms: int) -> Steps:
        """The times from start to end, end included if it falls on a step."""
        return cls(start_ms, step_ms, max(0, (end_ms - start_ms) // step_ms + 1), end_ms > start_ms)

    @property
    def end_ms(self) -> int:
        """The last time (start_ms - step_ms where there is none)."""
        return self.start_ms + (self.count - 1) * self.step_ms

    @property
    def first(self) -> Steps:
        """Only the first time."""
        return Steps(self.start_ms, self.step_ms, min(self.count, 1))

    @cached_property
    def times(self) -> NDArray[np.int64]:
        """int64[count], ms."""
        return np.arange(self.count, dtype=np.int64) * self.step_ms + self.start_ms


def _span() -> Span:
    return field(default=NOWHERE, compare=False, repr=False, kw_only=True)  # type: ignore[return-value]


@dataclass(frozen=True)
class PlanNode:
    """A part of a plan. `span`: where in the query it came from."""

    span: Span = _span()

    @property
    def type(self) -> ValueType:
        return ValueType.VECTOR

    def children(self) -> Iterator[PlanNode]:
        """Direct inputs, in the order of evaluation."""
        for name in _child_fields(type(self)):
            value = getattr(self, name)
            if isinstance(value, PlanNode):
                yield value
            elif isinstance(value, tuple):
                yield from (item for item in value if isinstance(item, PlanNode))

    def map_children(self, change: Callable[[PlanNode], PlanNode]) -> PlanNode:
        """The node with every direct input changed; itself if none differs."""
        changed: dict[str, object] = {}
        for name in _child_fields(type(self)):
            value = getattr(self, name)
            if isinstance(value, PlanNode):
                new: object = change(value)
                differs = new is not value
            elif isinstance(value, tuple):
                items = tuple(change(item) if isinstance(item, PlanNode) else item for item in value)
                differs = any(a is not b for a, b in zip(items, value, strict=True))
                new = items
            else:
                continue
            if differs:
                changed[name] = new
        return dataclasses.replace(self, **changed) if changed else self  # type: ignore[arg-type]


_CHILD_FIELDS: dict[type, tuple[str, ...]] = {}


def _child_fields(kind: type[PlanNode]) -> tuple[str, ...]:
    names = _CHILD_FIELDS.get(kind)
    if names is None:
        names = _CHILD_FIELDS[kind] = tuple(
            each.name for each in dataclasses.fields(kind) if each.name in ("expr", "param", "left", "right", "args")
        )
    return names


@dataclass(frozen=True)
class Number(PlanNode):
    """The same scalar at every step."""

    value: float

    @property
    def type(self) -> ValueType:
        return ValueType.SCALAR

    def __eq__(self, other: object) -> bool:
        """Bit by bit: NaN equals itself, 0 is not -0."""
        return isinstance(other, Number) and np.float64(self.value).tobytes() == np.float64(other.value).tobytes()

    def __hash__(self) -> int:
        return hash(np.float64(self.value).tobytes())


@dataclass(frozen=True)
class Text(PlanNode):
    """A string argument or answer."""

    value: str

    @property
    def type(self) -> ValueType:
        return ValueType.STRING


@dataclass(frozen=True)
class Select(PlanNode):
    """An instant selector: at t the newest sample in (r - lookback_ms, r], r = (at_ms or t) - offset_ms.

    `sample_times`: the answer is the samples' own times in seconds, not their values (`timestamp(x)`).
    `marks_histograms`: then too histograms are told from floats.
    `labels`: what anybody will read of the series' labels, so series may come out equal; None: all.
    `counts_only`: of histograms only counts and sums are read.
    `smoothed`: instead the value on the line between the samples around r, not further away than lookback_ms.
    `start_timestamps`: the answer is since when the samples count, in seconds, not their values (`start_timestamp(x)`).
    """

    matchers: tuple[Matcher, ...]
    lookback_ms: int
    offset_ms: int = 0
    at_ms: int | None = None
    sample_times: bool = False
    labels: tuple[str, ...] | None = None
    smoothed: bool = False
    counts_only: bool = False
    start_timestamps: bool = False
    marks_histograms: bool = False

    @property
    def reads_newest(self) -> bool:
        """Whether of the samples that a step sees only the newest counts: to counts of histograms it matters what was
        before, for it tells whether they began anew."""
        return not self.smoothed and not self.counts_only

    def ends(self, steps: Steps) -> NDArray[np.int64]:
        """int64[T]: where each step's window ends, in sample time."""
        return _ends(self, steps)

    def window(self, steps: Steps) -> tuple[int, int]:
        """(mint, maxt), both included: the samples that any of the steps may see."""
        first, last = _edges(self, steps)
        return first - self.lookback_ms + 1, last + self.lookback_ms if self.smoothed else last


@dataclass(frozen=True)
class RangeSelect(PlanNode):
    """A range selector: at t all samples in (r - range_ms, r], r = (at_ms or t) - offset_ms.

    `labels`, `counts_only`: as of `Select`. `extended`: the window is `anchored` (it begins with the sample
    before its left edge) or `smoothed` (its edges lie on lines between samples) and looks beyond the edges by
    lookback_ms; see kernels/extended. `start_timestamps`: those of the samples are looked at too.
    """

    matchers: tuple[Matcher, ...]
    range_ms: int
    offset_ms: int = 0
    at_ms: int | None = None
    labels: tuple[str, ...] | None = None
    extended: Extended | None = None
    lookback_ms: int = 0
    counts_only: bool = False
    start_timestamps: bool = False

    @property
    def type(self) -> ValueType:
        return ValueType.MATRIX

    def ends(self, steps: Steps) -> NDArray[np.int64]:
        return _ends(self, steps)

    def window(self, steps: Steps) -> tuple[int, int]:
        first, last = _edges(self, steps)
        if self.extended is not None:
            first -= self.lookback_ms
        return first - self.range_ms + 1, last + self.lookback_ms if self.extended == "smoothed" else last


@dataclass(frozen=True)
class Subquery(PlanNode):
    """An expression evaluated on its own steps and read like a range selector."""

    expr: PlanNode
    range_ms: int
    step_ms: int
    offset_ms: int = 0
    at_ms: int | None = None

    @property
    def type(self) -> ValueType:
        return ValueType.MATRIX

    def ends(self, steps: Steps) -> NDArray[np.int64]:
        return _ends(self, steps)

    def inner_steps(self, steps: Steps) -> Steps:
        """The subquery's own steps: multiples of its step, in the union of all windows.

        Upstream: promql/engine.go subqueryTimeRange (whose division truncates towards zero).
        """
        first, last = _edges(self, steps)
        mint = first - self.range_ms
        quotient = abs(mint) // self.step_ms
        start = self.step_ms * (quotient if mint >= 0 else -quotient)
        if start <= mint:
            start += self.step_ms
        return Steps.between(start, last, self.step_ms)


Windowed = Select | RangeSelect | Subquery


def _ends(node: Windowed, steps: Steps) -> NDArray[np.int64]:
    if node.at_ms is not None:
        return np.full(steps.count, node.at_ms - node.offset_ms, np.int64)
    return steps.times - node.offset_ms if node.offset_ms else steps.times


def _edges(node: Windowed, steps: Steps) -> tuple[int, int]:
    if node.at_ms is not None:
        return node.at_ms - node.offset_ms, node.at_ms - node.offset_ms
    return steps.start_ms - node.offset_ms, steps.end_ms - node.offset_ms


@dataclass(frozen=True)
class FunctionCall(PlanNode):
    """A function of promql/functions.py. `call` is its syntax, which some functions read (absent)."""

    name: str
    args: tuple[PlanNode, ...]
    returns: ValueType
    call: Call = field(compare=False, repr=False)

    @property
    def type(self) -> ValueType:
        return self.returns


@dataclass(frozen=True)
class InfoJoin(PlanNode):
    """`info(expr, {matchers})`: at t labels of info series as of (at_ms or t) - offset_ms on the series of expr.

    `selective`: there was a second argument.
    """

    expr: PlanNode
    matchers: tuple[Matcher, ...]
    lookback_ms: int
    offset_ms: int = 0
    at_ms: int | None = None
    selective: bool = False


@dataclass(frozen=True)
class Aggregate(PlanNode):
    """`op by|without (grouping) (param, expr)`; grouping sorted, each name once."""

    op: str
    expr: PlanNode
    grouping: tuple[str, ...] = ()
    without: bool = False
    param: PlanNode | None = None


@dataclass(frozen=True)
class Negate(PlanNode):
    """`-expr`, a scalar or a vector."""

    expr: PlanNode

    @property
    def type(self) -> ValueType:
        return self.expr.type


@dataclass(frozen=True)
class ScalarBinary(PlanNode):
    """Both sides are scalars; comparisons give 0 or 1."""

    op: str
    left: PlanNode
    right: PlanNode

    @property
    def type(self) -> ValueType:
        return ValueType.SCALAR


@dataclass(frozen=True)
class VectorScalar(PlanNode):
    """One side is a vector, the other a scalar."""

    op: str
    left: PlanNode
    right: PlanNode
    return_bool: bool = False


@dataclass(frozen=True)
class Join(PlanNode):
    """Vector with vector, element by element where labels match."""

    op: str
    left: PlanNode
    right: PlanNode
    matching: VectorMatching
    return_bool: bool = False


@dataclass(frozen=True)
class SetOperation(PlanNode):
    """`and`, `or`, `unless`."""

    op: str
    left: PlanNode
    right: PlanNode
    matching: VectorMatching


@dataclass(frozen=True)
class StepInvariant(PlanNode):
    """The same at every step: evaluated at the first one, then repeated."""

    expr: PlanNode

    @property
    def type(self) -> ValueType:
        return self.expr.type


@dataclass(frozen=True)
class Shared(PlanNode):
    """Stands in several places of the plan; evaluated once for the same steps."""

    expr: PlanNode

    @property
    def type(self) -> ValueType:
        return self.expr.type


@dataclass(frozen=True)
class Exchange(PlanNode):
    """Runs the part below it where its series are (plan/fragment.py), and puts together what comes back."""

    expr: PlanNode

    @cached_property
    def packed(self) -> bytes:
        """The part, pickled."""
        return pickle.dumps(self.expr, protocol=pickle.HIGHEST_PROTOCOL)

    @cached_property
    def has_windows(self) -> bool:
        """Whether functions below read samples of a range."""
        return any(isinstance(each, RangeSelect | Subquery) for each in walk(self.expr))

    @cached_property
    def matchers(self) -> tuple[Matcher, ...]:
        """Of the part's one selector, however often it stands there."""
        (matchers,) = {each.matchers for each in walk(self.expr) if isinstance(each, Select | RangeSelect)}
        return matchers


@dataclass(frozen=True)
class Plan:
    """A whole query: what, and when."""

    root: PlanNode
    steps: Steps


def walk(node: PlanNode) -> Iterator[PlanNode]:
    """The node and everything below it, parents first."""
    yield node
    for child in node.children():
        yield from walk(child)


def selections(node: PlanNode, steps: Steps) -> Iterator[tuple[Select | RangeSelect, int, int]]:
    """Every selector of the plan with the (mint, maxt) of the samples it reads, both included."""
    if isinstance(node, Select | RangeSelect):
        if steps.count:
            yield node, *node.window(steps)
        return
    if isinstance(node, Subquery):
        steps = node.inner_steps(steps)
    elif isinstance(node, StepInvariant):
        steps = steps.first
    for child in node.children():
        yield from selections(child, steps)
