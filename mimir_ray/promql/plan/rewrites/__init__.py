"""Optimisations: pure functions from plan to plan that never change an answer, one per file."""

from __future__ import annotations

from mimir_ray.promql.plan import nodes

from .common_subexpressions import share_common
from .constant_folding import fold_constants
from .histogram_counts import leave_buckets
from .label_pruning import prune_labels
from .push_down import push_down
from .step_invariant import hoist_step_invariant


def optimise(
    plan: nodes.Plan, *, fragments: bool = False, delayed_names: bool = False, share: bool = True
) -> nodes.Plan:
    """All rewrites, in the order in which they help each other.

    `fragments`: the source can run parts of the plan where its series are. Parts are moved before they are
    shared: what travels should be groups, not the series that several aggregations have in common.
    `share`: evaluate equal parts once.
    """
    root = hoist_step_invariant(fold_constants(leave_buckets(plan.root)))
    if fragments:
        root = push_down(root, delayed_names)
    if share:
        root = share_common(root)
    return nodes.Plan(prune_labels(root, delayed_names), plan.steps)
