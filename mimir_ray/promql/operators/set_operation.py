"""`and`, `or`, `unless`: by the presence of matching labels at each step.

Upstream: promql/engine.go VectorAnd, VectorOr, VectorUnless.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mimir_ray.model.series import StepMatrix
from mimir_ray.promql.annotations import Annotations
from mimir_ray.promql.kernels.grouping import presence_by_group
from mimir_ray.promql.plan import nodes

from .execution import Execution, concat
from .join import signatures
from .labels import merge_same_labels


def set_operation(node: nodes.SetOperation, steps: nodes.Steps, execution: Execution) -> Iterator[StepMatrix]:
    if node.op == "or":
        return _either(node, steps, execution)
    return _filtered(node, steps, execution)


def _filtered(node: nodes.SetOperation, steps: nodes.Steps, execution: Execution) -> Iterator[StepMatrix]:
    """`and`, `unless`: of the right side only presence is kept, the left one streams through."""
    groups = signatures(node.matching, execution)
    # Upstream evaluates the right side last, and of annotations that are the same the last one stands.
    annotations, execution.annotations = execution.annotations, Annotations()
    present = np.zeros((0, steps.count), np.bool_)
    for batch in execution.vector(node.right, steps):
        of_row = groups.assign(batch.labels)
        if len(groups) > len(present):
            grown = np.zeros((max(len(groups), 2 * len(present)), steps.count), np.bool_)
            grown[: len(present)] = present
            present = grown
        presence_by_group(batch.present, of_row, present)
    later, execution.annotations = execution.annotations, annotations
    wanted = node.op == "and"
    for batch in execution.vector(node.left, steps):
        of_row = groups.find(batch.labels)
        matched = np.zeros(batch.present.shape, np.bool_)
        known = of_row >= 0
        matched[known] = present[of_row[known]]
        kept = batch.present & (matched if wanted else ~matched)
        if kept.any():
            yield StepMatrix(batch.labels, batch.values, kept, batch.drop_name, batch.histograms)
    annotations.merge(later)


def _either(node: nodes.SetOperation, steps: nodes.Steps, execution: Execution) -> Iterator[StepMatrix]:
    groups = signatures(node.matching, execution)
    left = execution.gather(node.left, steps)
    of_left = groups.assign(left.labels)
    present = np.zeros((len(groups), steps.count), np.bool_)
    presence_by_group(left.present, of_left, present)
    parts = [left]
    held = 0
    for batch in execution.vector(node.right, steps):
        of_row = groups.find(batch.labels)
        kept = batch.present.copy()
        known = of_row >= 0
        kept[known] &= ~present[of_row[known]]
        found = int(np.count_nonzero(kept))
        if found:
            held += found
            execution.budget.take(found)
            parts.append(StepMatrix(batch.labels, batch.values, kept, batch.drop_name, batch.histograms))
    result = merge_same_labels(concat([part for part in parts if len(part)], steps.count, execution.table))
    if len(result):
        yield result
    execution.budget.release(held)
    execution.release(left)
