"""Fragments: per-series parts of a plan that may run where the series are, and what comes back.

A fragment has exactly one selector and treats every series by itself; an aggregation that can be put
together from parts may stand on top. Whoever runs fragments (`FragmentRunner`: a cluster that asks each
owner of series, or one task per shard) must make sure that every series is whole at exactly one owner.
Fragments and parts are plain data, so that they can travel.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mimir_ray.model.labels import LabelColumns
from mimir_ray.promql.annotations import Annotation
from mimir_ray.promql.limits import Reads
from mimir_ray.promql.source import Shard

from .nodes import Exchange, PlanNode, Steps


@dataclass(frozen=True, slots=True)
class Fragment:
    """`node` at these steps, of the series in `shard`.

    `delayed_names`, `type_labels`, `max_samples`: as in the engine that asks. `count_samples`: report what steps look
    at.
    `max_reads`, `max_bytes`: the limits of the query, for each owner by itself; 0 for none.
    """

    node: PlanNode
    steps: Steps
    delayed_names: bool = False
    max_samples: int = 0
    count_samples: bool = False
    shard: Shard | None = None
    max_reads: Reads = Reads()
    max_bytes: int = 0
    type_labels: bool = False
    packed: bytes = b""
    """`node` pickled, if somebody has that already."""

    def __reduce__(self) -> tuple[Any, ...]:
        """The node travels as bytes, which both sides remember: the same plans come again and again."""
        steps = self.steps
        rest = (
            self.delayed_names, self.max_samples, self.count_samples, self.shard, tuple(self.max_reads), self.max_bytes,
            self.type_labels,
        )  # fmt: skip
        return _unpacked, (
            self.packed or Exchange(self.node).packed,
            (steps.start_ms, steps.step_ms, steps.count),
            rest,
        )


@lru_cache(maxsize=512)
def unpack(packed: bytes) -> PlanNode:
    """The node that was packed (`Exchange.packed`). Remembered."""
    return pickle.loads(packed)  # type: ignore[no-any-return]  # noqa: S301  (of the same cluster)


def _unpacked(packed: bytes, steps: tuple[int, int, int], rest: tuple[Any, ...]) -> Fragment:
    delayed, max_samples, count, shard, reads, max_bytes, type_labels = rest
    node, times = unpack(packed), Steps(*steps)
    return Fragment(node, times, delayed, max_samples, count, shard, Reads(*reads), max_bytes, type_labels, packed)


@dataclass(slots=True)
class FragmentPart:
    """Some series, or (under an aggregation) what one owner holds of some groups.

    `labels`: S series or groups; a part with none has only reports.
    `arrays`: [S, T] each; values and presence of series, or the arrays of
    the aggregation's accumulator (operators/accumulators.py) in its order. `drop_name`: bool[S] or None.
    `reads`: what was read since the last part.
    `histograms`: which cells of the series are histograms, or what the aggregation holds of them
    (operators/histograms_aggregate.py HistogramGroups), or None. `annotations`: what came
    up since the last part. `samples`: int64[2, T], in total and read (operators/sample_tally.py) since the last part,
    or None.
    """

    labels: LabelColumns
    arrays: tuple[NDArray[np.generic], ...]
    drop_name: NDArray[np.bool_] | None = None
    annotations: tuple[Annotation, ...] = ()
    samples: NDArray[np.int64] | None = None
    reads: Reads = Reads()
    histograms: Any = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Arrays that hold one value over and over (every point is there, no sum left a rest) need not travel."""
        arrays = tuple(_pressed(array) for array in self.arrays)
        reads = tuple(self.reads)
        return _pulled, (
            self.labels, arrays, self.drop_name, self.annotations, self.samples, reads, self.histograms
        )  # fmt: skip


def _pressed(array: NDArray[np.generic]) -> NDArray[np.generic] | tuple[Any, ...]:
    if array.size > 1 and array.dtype in (np.float64, np.bool_):
        first = array.ravel()[0]
        # By bits: NaN is like itself, and 0 unlike -0.
        bits = array.view(np.uint64 if array.dtype == np.float64 else np.uint8)
        if (bits == bits.ravel()[0]).all():
            return array.shape, first
    return array


def _unpressed(array: Any) -> NDArray[np.generic]:
    return np.full(*array) if isinstance(array, tuple) else array


def _pulled(
    labels: LabelColumns,
    arrays: tuple[Any, ...],
    drop: Any,
    annotations: Any,
    samples: Any,
    reads: Any,
    histograms: Any,
) -> FragmentPart:
    arrays = tuple(_unpressed(array) for array in arrays)
    return FragmentPart(labels, arrays, drop, annotations, samples, Reads(*reads), histograms)


class FragmentRunner(Protocol):
    """Somebody who can have fragments run where the series are."""

    def run(self, fragment: Fragment) -> Iterator[FragmentPart]:
        """The parts of all owners, in any order. Raises, never leaves an owner out."""
