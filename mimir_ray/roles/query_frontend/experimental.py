"""Which experimental parts of PromQL a tenant may use.

Upstream: pkg/frontend/querymiddleware/experimental_functions.go.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from mimir_ray.config.limits import Limits
from mimir_ray.errors import InvalidArgument
from mimir_ray.model.tenant import TenantId
from mimir_ray.promql.syntax import ast
from mimir_ray.promql.syntax.signatures import EXPERIMENTAL_AGGREGATORS, SIGNATURES

ALL = "all"
FUNCTION, AGGREGATE, SELECTOR, FILL = "function", "aggregate", "extended range selector modifier", "binop fill modifier"


@dataclass(eq=False)
class NotEnabled(InvalidArgument):
    """`kind`: what `name` is."""

    kind: str
    name: str
    tenant: TenantId

    def describe(self) -> str:
        return f'invalid parameter "query": {self.kind} "{self.name}" is not enabled for tenant {self.tenant}'


def check_experimental(parts: Iterable[tuple[str, str]], tenant: TenantId, limits: Limits) -> None:
    """Raises `NotEnabled` for the first of a query's `experimental_parts` that the tenant may not use."""
    functions = limits.enabled_promql_experimental_functions
    enabled: dict[str, Sequence[str]] = {
        FUNCTION: functions,
        AGGREGATE: functions,
        SELECTOR: limits.enabled_promql_extended_range_selectors,
        FILL: limits.enabled_promql_binop_fill_modifiers,
    }
    for kind, name in parts:
        if name not in enabled[kind] and ALL not in enabled[kind]:
            raise NotEnabled(kind, name, tenant)


def experimental_parts(tree: ast.Node) -> Iterator[tuple[str, str]]:
    """(kind, name) of what Prometheus calls experimental."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(name=name) if SIGNATURES[name].experimental:
                yield FUNCTION, name
            case ast.Aggregate(op=op) if op in EXPERIMENTAL_AGGREGATORS:
                yield AGGREGATE, op
            case ast.MatrixSelector(selector=selector) if selector.anchored:
                yield SELECTOR, "anchored"
            case ast.VectorSelector(smoothed=True):
                yield SELECTOR, "smoothed"
            case ast.Binary(matching=ast.VectorMatching() as matching):
                yield from ((FILL, name) for name in _fills(matching))


def _fills(matching: ast.VectorMatching) -> list[str]:
    left, right = matching.fill_left, matching.fill_right
    if left is not None and left == right:
        return ["fill"]  # the tree does not tell `fill(0)` from `fill_left(0) fill_right(0)`
    return [name for name, value in (("fill_left", left), ("fill_right", right)) if value is not None]
