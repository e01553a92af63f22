"""Computes arithmetic between numbers once, while planning."""

from __future__ import annotations

import math

import numpy as np

from mimir_ray.promql.kernels.arithmetic import binary_values
from mimir_ray.promql.plan import nodes


def fold_constants(node: nodes.PlanNode) -> nodes.PlanNode:
    """The plan with scalar operations on numbers replaced by their results."""
    node = node.map_children(fold_constants)
    match node:
        case nodes.Negate(expr=nodes.Number(value=value)):
            return nodes.Number(-value, span=node.span)
        case nodes.ScalarBinary(left=nodes.Number(value=left), right=nodes.Number(value=right)):
            value = float(binary_values(node.op, np.array([left]), np.array([right]))[0])
            return nodes.Number(math.nan if math.isnan(value) else value, span=node.span)
    return node
