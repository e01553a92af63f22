"""`count_values("label", vector)`: how many series of a group have each value."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from mimir_ray.model.float_histogram import FloatHistogram, boundaries
from mimir_ray.model.series import StepMatrix
from mimir_ray.promql.annotations import go_float
from mimir_ray.promql.kernels.aggregations import count_cells
from mimir_ray.promql.plan import nodes

from .execution import Execution
from .labels import groups_of


def go_fixed(value: float) -> str:
    """A number without an exponent and with the fewest digits that read back. Upstream: FormatFloat(v, 'f', -1, 64)."""
    if value != value:
        return "NaN"
    if value in (np.inf, -np.inf):
        return "+Inf" if value > 0 else "-Inf"
    return np.format_float_positional(value, unique=True, trim="-")


def count_values(node: nodes.Aggregate, steps: nodes.Steps, execution: Execution) -> Iterator[StepMatrix]:
    """Batch after batch is counted, so memory is that of the groups: one for each value.

    Upstream: promql/engine.go aggregationCountValues.
    """
    assert isinstance(node.param, nodes.Text)
    label = node.param.value
    grouping = node.grouping if node.without else tuple(sorted({*node.grouping, label}))
    groups = groups_of(grouping, node.without, execution.table)
    counts = np.zeros((0, steps.count), np.float64)
    for batch in execution.vector(node.expr, steps):
        rows, at = np.nonzero(batch.present)
        if not len(rows):
            continue
        codes, value_of_cell = _values(batch, rows, at)
        # One row for each series and value of it, labelled with that value: these are what is grouped.
        pairs, pair_of_cell = np.unique(rows * len(codes) + value_of_cell, return_inverse=True)
        labels = batch.labels.take(pairs // len(codes)).with_column(label, codes[pairs % len(codes)])
        of_pair = groups.assign(labels).astype(np.int64)
        execution.budget.check_cells(len(groups) * steps.count)
        if len(groups) > len(counts):
            grown = np.zeros((max(len(groups), 2 * len(counts)), steps.count), np.float64)
            grown[: len(counts)] = counts
            counts = grown
        count_cells(of_pair[pair_of_cell], np.ascontiguousarray(at), counts)
    if len(groups):
        counts = counts[: len(groups)]
        found = int(np.count_nonzero(counts))
        execution.budget.take(found)
        yield StepMatrix(groups.labels(), counts, counts > 0)
        execution.budget.release(found)


def _values(
    batch: StepMatrix, rows: NDArray[np.int64], at: NDArray[np.int64]
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """(the different values of these cells as label values, which of them each cell has)."""
    table = batch.labels.table
    if batch.histograms is not None:
        codes, value_of_cell = np.unique(_texts(batch, rows, at), return_inverse=True)
        return codes, value_of_cell
    different, value_of_cell = np.unique(batch.values[rows, at].view(np.uint64), return_inverse=True)
    return np.array(
        [table.code(go_fixed(value)) for value in different.view(np.float64).tolist()], np.int32
    ), value_of_cell


def _texts(batch: StepMatrix, rows: NDArray[np.int64], at: NDArray[np.int64]) -> NDArray[np.int32]:
    """The values of cells, some of which are histograms, as label values."""
    part, table = batch.histograms, batch.labels.table
    assert part is not None
    numbers, values = part.which[rows, at].tolist(), batch.values[rows, at].tolist()
    texts: dict[int, str] = {}
    codes = []
    for number, value in zip(numbers, values, strict=True):
        if number >= 0 and number not in texts:
            texts[number] = format_histogram(part.columns.row(number))
        codes.append(table.code(texts[number] if number >= 0 else go_fixed(value)))
    return np.array(codes, np.int32)


def format_histogram(histogram: FloatHistogram) -> str:
    """Upstream: FloatHistogram.String. Unlike in answers a negative zero bucket is shown."""
    shown = [f"count:{go_float(histogram.count)}", f"sum:{go_float(histogram.sum)}"]
    threshold = histogram.zero_threshold
    zero = np.array([-threshold]), np.array([threshold]), np.array([histogram.zero_count])
    below = [each[::-1] for each in (*histogram.negative_bounds(), histogram.negative_counts)]
    above = *histogram.positive_bounds(), histogram.positive_counts
    for lower, upper, counts in (below, zero, above):
        for low, high, count in zip(lower.tolist(), upper.tolist(), counts.tolist(), strict=True):
            if count:
                opening, closing = boundaries(histogram, low, high)
                shown.append(f"{opening}{go_float(low)},{go_float(high)}{closing}:{go_float(count)}")
    return "{" + ", ".join(shown) + "}"
