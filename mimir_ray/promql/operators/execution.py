"""What all operators of one running query share, and how they ask each other for values.

An operator is a function of (node, steps, execution). Vectors come as batches (`StepMatrix`, a bounded
number of series each), scalars as float64[T]. Operators do not import each other: they ask `Execution`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mimir_ray.model.histogram import HistogramPart
from mimir_ray.model.labels import LabelColumns, StringTable
from mimir_ray.model.series import SeriesBatch, StepMatrix
from mimir_ray.promql.annotations import Annotations
from mimir_ray.promql.limits import (
    BUCKET_CHUNK_BYTES,
    POINT_BYTES,
    SAMPLE_CHUNK_BYTES,
    SAMPLES_PER_CHUNK,
    Cancellation,
    ReadBudget,
    Reads,
    SampleBudget,
)
from mimir_ray.promql.operators.functions_base import FunctionContext
from mimir_ray.promql.plan import nodes
from mimir_ray.promql.plan.fragment import FragmentRunner
from mimir_ray.promql.source import SERIES_PER_BATCH, Selection, SeriesSource

from .histograms_counts import counts_only
from .labels import Intake
from .sample_tally import SampleTally

Scalar = NDArray[np.float64]
VectorOperator = Callable[[Any, nodes.Steps, "Execution"], Iterator[StepMatrix]]
ScalarOperator = Callable[[Any, nodes.Steps, "Execution"], Scalar]

POINTS_PER_BATCH = 1 << 18
"""Points (series times steps) of one StepMatrix of a selector: what a core's cache holds."""
SAMPLES_PER_BATCH = 1 << 22
"""Raw samples that a selector wants at once, guessing 15 s between them."""
SAMPLES_PER_SLICE = 1 << 18
"""Raw samples of one slice of a batch: range functions go over them more than once."""
GUESSED_INTERVAL_MS = 15_000


@dataclass(slots=True)
class Execution:
    """One query while it runs. Not for several threads."""

    source: SeriesSource
    vector_operators: dict[type, VectorOperator]
    scalar_operators: dict[type, ScalarOperator]
    budget: SampleBudget
    reads: ReadBudget = field(default_factory=ReadBudget)
    annotations: Annotations = field(default_factory=Annotations)
    cancellation: Cancellation | None = None
    delayed_names: bool = False
    type_labels: bool = False
    tally: SampleTally | None = None
    """Samples that selectors look at, of the steps that are evaluated just now; None if nobody wants to know."""
    shared: dict[tuple[nodes.PlanNode, nodes.Steps], Any] = field(default_factory=dict)
    shared_points: int = 0
    """Cells of the vectors in `shared`."""
    table: StringTable = field(default_factory=StringTable)
    intake: Intake = field(init=False)
    _prunes_labels: bool = field(init=False)
    fragments: FragmentRunner | None = None
    """Who runs `Exchange` nodes; None where there are none."""

    def __post_init__(self) -> None:
        self.intake = Intake(self.table)
        self._prunes_labels = getattr(self.source, "prunes_labels", False)

    def check(self) -> None:
        """Raises if the query was cancelled or ran out of time; between batches."""
        if self.cancellation is not None:
            self.cancellation.check()

    def vector(self, node: nodes.PlanNode, steps: nodes.Steps) -> Iterator[StepMatrix]:
        """The values of a vector node at these steps, batch by batch."""
        if steps.count == 0:
            return iter(())
        return self.vector_operators[type(node)](node, steps, self)

    def scalar(self, node: nodes.PlanNode, steps: nodes.Steps) -> Scalar:
        """The values of a scalar node at these steps, float64[T]."""
        if steps.count == 0:
            return np.zeros(0)
        return self.scalar_operators[type(node)](node, steps, self)

    def gather(self, node: nodes.PlanNode, steps: nodes.Steps) -> StepMatrix:
        """All series of a vector node in one matrix. Its points count as held: `release` it."""
        return self.gather_batches(self.vector(node, steps), steps.count)

    def gather_batches(self, batches: Iterator[StepMatrix], steps: int) -> StepMatrix:
        """All series of these batches; see `gather`."""
        parts: list[StepMatrix] = []
        held = cells = 0
        for batch in batches:
            cells += batch.values.size
            self.budget.check_cells(cells)
            # The producer has released the batch before this one by now.
            if held:
                self.budget.take(held)
            parts.append(batch)
            held = int(np.count_nonzero(batch.present))
        self.budget.take(held)
        return concat(parts, steps, self.table)

    def release(self, matrix: StepMatrix) -> None:
        """Gives the points of a gathered matrix back to the budget."""
        self.budget.release(int(np.count_nonzero(matrix.present)))

    def select(self, node: nodes.Select | nodes.RangeSelect, steps: nodes.Steps) -> Iterator[SeriesBatch]:
        """Samples of the selected series that these steps may see, in batches that suit their number."""
        mint, maxt = node.window(steps)
        guess = max(1, (maxt - mint) // GUESSED_INTERVAL_MS)
        wanted = min(SERIES_PER_BATCH, max(64, SAMPLES_PER_BATCH // guess))
        rows = max(1, POINTS_PER_BATCH // max(1, steps.count))
        reads = Reads()
        selection = Selection(
            node.matchers, mint, maxt, batch_series=wanted, start_timestamps=node.start_timestamps,
            newest=isinstance(node, nodes.Select) and node.reads_newest and mint + node.lookback_ms - 1 == maxt,
            labels=node.labels if self._prunes_labels else None,
        )  # fmt: skip
        for batch in self.source.select(selection):
            self.check()
            if not len(batch):
                continue
            reads = reads.plus(reads_of(batch))
            self.reads.take(node.matchers, reads)
            held = batch.samples * POINT_BYTES + batch.labels.codes.nbytes
            held += 0 if batch.start_timestamps is None else batch.start_timestamps.nbytes
            self.budget.hold(held)
            labels = batch.labels if node.labels is None else batch.labels.keep(node.labels)
            batch = SeriesBatch(
                self.intake.take(labels), batch.offsets, batch.timestamps, batch.values, batch.histograms,
                batch.start_timestamps,
            )  # fmt: skip
            if batch.histograms is not None and node.counts_only:
                batch = counts_only(batch)
            each = max(1, batch.samples // len(batch))
            yield from slices(batch, max(1, min(rows, SAMPLES_PER_SLICE // each)))
            self.budget.drop(held)

    @contextmanager
    def later_annotations(self) -> Iterator[Annotations]:
        """Collects what the block leaves, for the caller to merge later: of equal annotations the last one stands."""
        outer, self.annotations = self.annotations, Annotations()
        try:
            yield self.annotations
        finally:
            self.annotations = outer

    def context(self, node: nodes.FunctionCall, steps: nodes.Steps) -> FunctionContext:
        argument = node.args[0] if node.args else None
        while isinstance(argument, nodes.Shared | nodes.StepInvariant):
            argument = argument.expr
        starts = isinstance(argument, nodes.Select) and argument.start_timestamps
        return FunctionContext(
            node.call, steps.times, self.table, self.annotations, self.delayed_names, starts, self.type_labels,
            steps.ranged,
        )  # fmt: skip

    def tallied(self, batches: Iterator[StepMatrix], tally: SampleTally | None) -> Iterator[StepMatrix]:
        """The batches; what they look at while they are made is counted in `tally`."""
        while True:
            outer, self.tally = self.tally, tally
            try:
                batch = next(batches, None)
            finally:
                self.tally = outer
            if batch is None:
                return
            yield batch

    def scalar_tallied(self, node: nodes.PlanNode, steps: nodes.Steps, tally: SampleTally | None) -> Scalar:
        """The same of a scalar node."""
        outer, self.tally = self.tally, tally
        try:
            return self.scalar(node, steps)
        finally:
            self.tally = outer

    def new_tally(self, steps: nodes.Steps) -> SampleTally | None:
        """For other steps than those of now; None if nobody wants to know."""
        return None if self.tally is None else SampleTally(steps.count)


def reads_of(batch: SeriesBatch) -> Reads:
    """About what storage read for a batch."""
    offsets = batch.offsets
    chunks = int(((offsets[1:] - offsets[:-1] + (SAMPLES_PER_CHUNK - 1)) // SAMPLES_PER_CHUNK).sum())
    size = batch.samples * SAMPLE_CHUNK_BYTES
    if batch.histograms is not None:
        columns = batch.histograms.columns
        size += (len(columns.positive) + len(columns.negative)) * BUCKET_CHUNK_BYTES
    return Reads(len(batch), chunks, size)


def extremes(param: Scalar) -> tuple[float, float]:
    """(smallest, largest) value of an aggregation's parameter; NaN, if there is one, wins over all but infinity.

    Upstream: promql/value.go newFParams, with Go's math.Min and math.Max.
    """
    smallest, largest = float(param.min()), float(param.max())
    if math.isnan(largest):
        smallest = -math.inf if (param == -math.inf).any() else math.nan
        largest = math.inf if (param == math.inf).any() else math.nan
    return smallest, largest


def slices(batch: SeriesBatch, rows: int) -> Iterator[SeriesBatch]:
    """The batch in parts of at most `rows` series; views, nothing is copied but offsets."""
    if len(batch) <= rows:
        yield batch
        return
    labels, offsets = batch.labels, batch.offsets
    for start in range(0, len(batch), rows):
        cut = offsets[start : start + rows + 1]
        low, high = int(cut[0]), int(cut[-1])
        yield SeriesBatch(
            LabelColumns(labels.names, labels.codes[start : start + rows], labels.table),
            cut - low,
            batch.timestamps[low:high],
            batch.values[low:high],
            None if batch.histograms is None else batch.histograms[low:high],
            None if batch.start_timestamps is None else batch.start_timestamps[low:high],
        )


def concat(parts: list[StepMatrix], steps: int, table: StringTable) -> StepMatrix:
    """All series of all parts, in order."""
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return StepMatrix(LabelColumns.empty_sets(0, table), np.zeros((0, steps)), np.zeros((0, steps), np.bool_))
    drop = None
    if any(part.drop_name is not None for part in parts):
        drop = np.concatenate(
            [np.zeros(len(part), np.bool_) if part.drop_name is None else part.drop_name for part in parts]
        )
    return StepMatrix(
        LabelColumns.concat([part.labels for part in parts]),
        np.concatenate([part.values for part in parts]),
        np.concatenate([part.present for part in parts]),
        drop,
        HistogramPart.concat([(part.histograms, part.values.shape) for part in parts]),
    )
