"""Optimisations: pure functions from plan to plan that never change an answer, one per file."""

from __future__ import annotations

from mimir_ray.promql.plan import nodes

from .common_subexpressions import share_common
from .constant_folding import fold_constants
from .step_invariant import hoist_step_invariant


def optimise(plan: nodes.Plan) -> nodes.Plan:
    """All rewrites, in the order in which they help each other."""
    return nodes.Plan(share_common(hoist_step_invariant(fold_constants(plan.root))), plan.steps)
