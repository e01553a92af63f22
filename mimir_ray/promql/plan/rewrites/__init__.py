"""Optimisations: pure functions from plan to plan that never change an answer, one per file."""

from __future__ import annotations

from collections.abc import Collection

from mimir_ray.promql.plan import nodes

from .common_subexpressions import share_common
from .constant_folding import fold_constants
from .histogram_counts import leave_buckets
from .label_pruning import prune_labels
from .matcher_propagation import propagate_matchers
from .push_down import push_down
from .step_invariant import hoist_step_invariant

REWRITES = (
    "histogram_counts", "constant_folding", "matcher_propagation", "step_invariant", "push_down",
    "common_subexpressions", "label_pruning",
)  # fmt: skip
"""The modules of this package, in the order in which they help each other."""
THAT_READ_LESS = ("matcher_propagation", "common_subexpressions")
"""Those with which a query looks at fewer samples than upstream's does."""
THAT_READ_NAMES = ("matcher_propagation", "label_pruning")
"""Those that know what functions say of a metric from its name alone."""


def optimise(
    plan: nodes.Plan,
    *,
    fragments: bool = False,
    delayed_names: bool = False,
    without: Collection[str] = (),
) -> nodes.Plan:
    """All rewrites but those named in `without`.

    `fragments`: the source can run parts of the plan where its series are. Parts are moved before they are
    shared: what travels should be groups, not the series that several aggregations have in common.
    """
    root = plan.root
    if "histogram_counts" not in without:
        root = leave_buckets(root)
    if "constant_folding" not in without:
        root = fold_constants(root)
    if "matcher_propagation" not in without:
        root = propagate_matchers(root)
    if "step_invariant" not in without:
        root = hoist_step_invariant(root)
    if fragments and "push_down" not in without:
        root = push_down(root, delayed_names)
    if "common_subexpressions" not in without:
        root = share_common(root)
    if "label_pruning" not in without:
        root = prune_labels(root, delayed_names)
    return nodes.Plan(root, plan.steps)
