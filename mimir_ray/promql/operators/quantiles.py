"""`quantile(q, vector)`: needs all series of a group at once."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from mimir_ray.model.series import StepMatrix
from mimir_ray.promql.annotations import Annotations
from mimir_ray.promql.kernels.aggregations import fold_quantile
from mimir_ray.promql.kernels.grouping import rows_by_group
from mimir_ray.promql.plan import nodes

from .execution import Execution, Scalar, extremes
from .histograms_aggregate import floats_only
from .labels import GroupNames, groups_of


def quantile(node: nodes.Aggregate, steps: nodes.Steps, execution: Execution) -> Iterator[StepMatrix]:
    """Upstream: promql/engine.go rangeEvalAgg, case QUANTILE."""
    assert node.param is not None
    quantiles = execution.scalar(node.param, steps)
    gathered = execution.gather(node.expr, steps)
    whole = floats_only(node, gathered, execution)
    _warn(quantiles, node.param, execution.annotations)
    if not len(whole):
        return
    groups = groups_of(node.grouping, node.without, execution.table)
    of_row = groups.assign(whole.labels)
    count = len(groups)
    starts = np.zeros(count + 1, np.int64)
    rows = np.empty(len(whole), np.int64)
    rows_by_group(of_row, starts, rows)
    values = np.empty((count, steps.count), np.float64)
    present = np.empty((count, steps.count), np.bool_)
    scratch = np.empty(int(np.diff(starts).max()), np.float64)
    fold_quantile(whole.values, whole.present, starts, rows, quantiles, values, present, scratch)
    names = GroupNames(steps.count)
    names.fold(whole.drop_name, whole.present, of_row, count, lambda: present)
    yield StepMatrix(groups.labels(), values, present, names.drop_name(count, lambda: present))
    execution.release(gathered)


def _warn(quantiles: Scalar, param: nodes.PlanNode, annotations: Annotations) -> None:
    if np.isnan(quantiles).any():
        annotations.invalid_quantile(math.nan, param.span)
    smallest, largest = extremes(quantiles)
    if largest > 1:
        annotations.invalid_quantile(largest, param.span)
    if smallest < 0:
        annotations.invalid_quantile(smallest, param.span)
