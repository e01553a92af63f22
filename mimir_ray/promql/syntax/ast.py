"""The typed syntax tree of a PromQL expression.

Nodes are immutable. Durations and times are int ms. Positions are half-open ranges of UTF-8 byte
offsets in the query text, as in Prometheus (promql/parser/posrange); they do not take part in equality,
so equal trees are equal expressions. The parser makes only well-typed trees.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import NamedTuple

from mimir_ray.model.matchers import Matcher


class Span(NamedTuple):
    """Byte offsets [start, end) in the query text."""

    start: int
    end: int


NOWHERE = Span(0, 0)
CONTEXT_FUNCTIONS = frozenset(("start", "end", "range", "step"))
"""Functions without arguments that tell of the query's times."""


class ValueType(enum.Enum):
    """What an expression evaluates to; the values are Prometheus' words."""

    SCALAR = "scalar"
    VECTOR = "vector"
    MATRIX = "matrix"
    STRING = "string"
    NONE = "none"


class Anchor(enum.Enum):
    """`@ start()` and `@ end()`."""

    START = "start"
    END = "end"


@dataclass(frozen=True, slots=True)
class Node:
    """An expression, or a part of one."""

    span: Span = field(default=NOWHERE, compare=False, repr=False, kw_only=True)

    @property
    def type(self) -> ValueType:
        raise NotImplementedError

    def children(self) -> Iterator[Node]:
        """Direct sub-expressions, in order of the text."""
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, Node):
                yield value
            elif isinstance(value, tuple):
                yield from (item for item in value if isinstance(item, Node))


@dataclass(frozen=True, slots=True)
class NumberLiteral(Node):
    """`3`, `0x1f`, `Inf`, `1h30m` (`is_duration`: written as a duration, value in seconds)."""

    value: float
    is_duration: bool = False

    @property
    def type(self) -> ValueType:
        return ValueType.SCALAR


@dataclass(frozen=True, slots=True)
class StringLiteral(Node):
    value: str

    @property
    def type(self) -> ValueType:
        return ValueType.STRING


@dataclass(frozen=True, slots=True)
class DurationExpr(Node):
    """Arithmetic where a duration stands: `[5m * 2]`, `offset -(1h)`, `[step() + 1m]`, `[max_of(1m, range())]`.

    `op`: one of `+ - * / % ^ step range min max` (the last two for `min_of`, `max_of`); unary minus has no `left`,
    nor has the `+` that stands for a lone number in parentheses; `step` and `range` have
    neither. Operands are NumberLiteral (seconds) or DurationExpr. Experimental (promql-duration-expr).
    """

    op: str
    left: Node | None = None
    right: Node | None = None
    wrapped: bool = False
    """Stands in parentheses."""

    @property
    def type(self) -> ValueType:
        return ValueType.SCALAR


@dataclass(frozen=True, slots=True)
class VectorSelector(Node):
    """`name{matchers} offset 5m @ 0`. `matchers` include the one on `__name__` that `name` stands for.

    `offset_ms` is what was written, as is `at`: a time in ms, START, END, or None. Where the offset is
    arithmetic, `offset_expr` holds it until the engine knows step and range.
    """

    name: str = ""
    matchers: tuple[Matcher, ...] = ()
    offset_ms: int = 0
    offset_expr: DurationExpr | None = None
    at: int | Anchor | None = None
    anchored: bool = False
    smoothed: bool = False

    @property
    def type(self) -> ValueType:
        return ValueType.VECTOR


@dataclass(frozen=True, slots=True)
class MatrixSelector(Node):
    """`selector[5m]`; offset and `@` belong to the inner selector."""

    selector: VectorSelector
    range_ms: int = 0
    range_expr: DurationExpr | None = None

    @property
    def type(self) -> ValueType:
        return ValueType.MATRIX


@dataclass(frozen=True, slots=True)
class Subquery(Node):
    """`expr[range:step] offset o @ t`; `step_ms` 0 means the default evaluation interval."""

    expr: Node
    range_ms: int = 0
    step_ms: int = 0
    offset_ms: int = 0
    at: int | Anchor | None = None
    range_expr: DurationExpr | None = None
    step_expr: DurationExpr | None = None
    offset_expr: DurationExpr | None = None

    @property
    def type(self) -> ValueType:
        return ValueType.MATRIX


@dataclass(frozen=True, slots=True)
class Paren(Node):
    expr: Node

    @property
    def type(self) -> ValueType:
        return self.expr.type


@dataclass(frozen=True, slots=True)
class Unary(Node):
    """`op` is `+` or `-`."""

    op: str
    expr: Node

    @property
    def type(self) -> ValueType:
        return self.expr.type


class Cardinality(enum.Enum):
    """Of vector matching; the values are Prometheus' words."""

    ONE_TO_ONE = "one-to-one"
    MANY_TO_ONE = "many-to-one"
    ONE_TO_MANY = "one-to-many"
    MANY_TO_MANY = "many-to-many"


@dataclass(frozen=True, slots=True)
class VectorMatching:
    """`on`/`ignoring` (`labels`), `group_left`/`group_right` (`cardinality`, `include`), `fill` values."""

    cardinality: Cardinality = Cardinality.ONE_TO_ONE
    labels: tuple[str, ...] = ()
    on: bool = False
    include: tuple[str, ...] = ()
    fill_left: float | None = None
    fill_right: float | None = None


@dataclass(frozen=True, slots=True)
class Binary(Node):
    """`op`: `+ - * / % ^ atan2 == != < <= > >= </ >/ and or unless` (`</`, `>/` trim histograms).

    `matching` is None unless both sides are vectors.
    """

    op: str
    left: Node
    right: Node
    matching: VectorMatching | None = None
    return_bool: bool = False

    @property
    def type(self) -> ValueType:
        sides = (self.left.type, self.right.type)
        return ValueType.SCALAR if sides == (ValueType.SCALAR, ValueType.SCALAR) else ValueType.VECTOR


@dataclass(frozen=True, slots=True)
class Aggregate(Node):
    """`op by (grouping) (param, expr)`; with `without`, the grouping is what is left out."""

    op: str
    expr: Node
    param: Node | None = None
    grouping: tuple[str, ...] = ()
    without: bool = False

    @property
    def type(self) -> ValueType:
        return ValueType.VECTOR


@dataclass(frozen=True, slots=True)
class Call(Node):
    """A function call. `returns` is the function's result type (see promql/functions.py)."""

    name: str
    args: tuple[Node, ...]
    returns: ValueType = ValueType.VECTOR

    @property
    def type(self) -> ValueType:
        return self.returns


def walk(node: Node) -> Iterator[Node]:
    """The node and everything below it, parents first."""
    yield node
    for child in node.children():
        yield from walk(child)
