"""`count_values("label", vector)`: how many series of a group have each value."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from mimir_ray.model.series import StepMatrix
from mimir_ray.promql.kernels.aggregations import count_cells
from mimir_ray.promql.plan import nodes

from .execution import Execution
from .labels import Groups, groups_of


def go_fixed(value: float) -> str:
    """A number without an exponent and with the fewest digits that read back. Upstream: FormatFloat(v, 'f', -1, 64)."""
    if value != value:
        return "NaN"
    if value in (np.inf, -np.inf):
        return "+Inf" if value > 0 else "-Inf"
    return np.format_float_positional(value, unique=True, trim="-")


def count_values(node: nodes.Aggregate, steps: nodes.Steps, execution: Execution) -> Iterator[StepMatrix]:
    """Upstream: promql/engine.go aggregationCountValues."""
    assert isinstance(node.param, nodes.Text)
    label = node.param.value
    grouping = node.grouping if node.without else tuple(sorted({*node.grouping, label}))
    whole = execution.gather(node.expr, steps)
    rows, at = np.nonzero(whole.present)
    if len(rows):
        yield _count(whole, rows, at, label, groups_of(grouping, node.without, execution.table), steps.count)
    execution.release(whole)


def _count(
    whole: StepMatrix, rows: NDArray[np.int64], at: NDArray[np.int64], label: str, groups: Groups, steps: int
) -> StepMatrix:
    bits = whole.values[rows, at].view(np.uint64)
    different, value_of_cell = np.unique(bits, return_inverse=True)
    table = whole.labels.table
    codes = np.array([table.code(go_fixed(value)) for value in different.view(np.float64).tolist()], np.int32)
    # One row for each series and value of it, labelled with that value: these are what is grouped.
    pairs, pair_of_cell = np.unique(rows * len(different) + value_of_cell, return_inverse=True)
    labels = whole.labels.take(pairs // len(different)).with_column(label, codes[pairs % len(different)])
    of_pair = groups.assign(labels).astype(np.int64)
    counts = np.zeros((len(groups), steps), np.float64)
    count_cells(of_pair[pair_of_cell], np.ascontiguousarray(at), counts)
    return StepMatrix(groups.labels(), counts, counts > 0)
