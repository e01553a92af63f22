"""Which operator evaluates which node."""

from __future__ import annotations

from mimir_ray.promql.plan import nodes

from .aggregate import aggregate
from .arithmetic import negate, vector_scalar
from .exchange import exchange
from .execution import ScalarOperator, VectorOperator
from .info import info_join
from .join import join
from .repeat import shared, step_invariant
from .scalars import negate_scalar, number, scalar_binary, scalar_call, scalar_step_invariant, shared_scalar
from .select import select
from .set_operation import set_operation
from .vector_function import function_call

VECTOR_OPERATORS: dict[type, VectorOperator] = {
    nodes.Select: select,
    nodes.FunctionCall: function_call,
    nodes.InfoJoin: info_join,
    nodes.Aggregate: aggregate,
    nodes.Negate: negate,
    nodes.VectorScalar: vector_scalar,
    nodes.Join: join,
    nodes.SetOperation: set_operation,
    nodes.StepInvariant: step_invariant,
    nodes.Shared: shared,
    nodes.Exchange: exchange,
}

SCALAR_OPERATORS: dict[type, ScalarOperator] = {
    nodes.Number: number,
    nodes.FunctionCall: scalar_call,
    nodes.Negate: negate_scalar,
    nodes.ScalarBinary: scalar_binary,
    nodes.StepInvariant: scalar_step_invariant,
    nodes.Shared: shared_scalar,
}
