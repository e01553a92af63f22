"""A plan as an indented text tree, for people."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from mimir_ray.promql.syntax.ast import VectorMatching

from . import nodes


def explain(plan: nodes.Plan) -> str:
    """One line a node: its kind, what it is told, and for selectors the time range that they read."""
    steps = plan.steps
    head = f"{steps.count} steps of {steps.step_ms} ms from {steps.start_ms}"
    return "\n".join([head, *_lines(plan.root, steps, "  ")])


def _lines(node: nodes.PlanNode, steps: nodes.Steps, indent: str) -> Iterator[str]:
    yield indent + _describe(node, steps)
    if isinstance(node, nodes.Subquery):
        steps = node.inner_steps(steps)
    elif isinstance(node, nodes.StepInvariant):
        steps = steps.first
    for child in node.children():
        yield from _lines(child, steps, indent + "  ")


def _describe(node: nodes.PlanNode, steps: nodes.Steps) -> str:
    words = [type(node).__name__]
    for each in dataclasses.fields(node):
        value = getattr(node, each.name)
        if (
            each.name in ("span", "call", "returns")
            or value in (None, False, (), 0)
            or isinstance(value, nodes.PlanNode)
        ):
            continue
        if each.name == "args":
            continue
        if each.name == "matchers":
            words.append("{" + ", ".join(str(matcher) for matcher in value) + "}")
        elif isinstance(value, VectorMatching):
            words.append(f"{'on' if value.on else 'ignoring'}({', '.join(value.labels)}) {value.cardinality.value}")
        elif isinstance(value, tuple):
            words.append(f"{each.name}=({', '.join(map(str, value))})")
        else:
            words.append(f"{each.name}={value}")
    if isinstance(node, nodes.Select | nodes.RangeSelect) and steps.count:
        mint, maxt = node.window(steps)
        words.append(f"reads=[{mint}, {maxt}]")
    elif isinstance(node, nodes.Subquery):
        inner = node.inner_steps(steps)
        words.append(f"steps={inner.count} from {inner.start_ms}")
    return " ".join(words)
