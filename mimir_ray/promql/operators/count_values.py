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
    if whole.histograms is not None:
        return _count_texts(whole, rows, at, label, groups, steps)
    bits = whole.values[rows, at].view(np.uint64)
    different, value_of_cell = np.unique(bits, return_inverse=True)
    table = whole.labels.table
    codes = np.array([table.code(go_fixed(value)) for value in different.view(np.float64).tolist()], np.int32)
    return _counted(whole, rows, at, label, groups, steps, codes, value_of_cell)


def _counted(
    whole: StepMatrix,
    rows: NDArray[np.int64],
    at: NDArray[np.int64],
    label: str,
    groups: Groups,
    steps: int,
    codes: NDArray[np.int32],
    value_of_cell: NDArray[np.int64],
) -> StepMatrix:
    """`codes`: of the different values, as label values; `value_of_cell`: which of them each cell has."""
    # One row for each series and value of it, labelled with that value: these are what is grouped.
    pairs, pair_of_cell = np.unique(rows * len(codes) + value_of_cell, return_inverse=True)
    labels = whole.labels.take(pairs // len(codes)).with_column(label, codes[pairs % len(codes)])
    of_pair = groups.assign(labels).astype(np.int64)
    counts = np.zeros((len(groups), steps), np.float64)
    count_cells(of_pair[pair_of_cell], np.ascontiguousarray(at), counts)
    return StepMatrix(groups.labels(), counts, counts > 0)


def _count_texts(
    whole: StepMatrix, rows: NDArray[np.int64], at: NDArray[np.int64], label: str, groups: Groups, steps: int
) -> StepMatrix:
    """Where some values are histograms, whose texts are counted."""
    part, table = whole.histograms, whole.labels.table
    assert part is not None
    numbers, values = part.which[rows, at].tolist(), whole.values[rows, at].tolist()
    texts: dict[int, str] = {}
    codes = []
    for number, value in zip(numbers, values, strict=True):
        if number >= 0 and number not in texts:
            texts[number] = format_histogram(part.columns.row(number))
        codes.append(table.code(texts[number] if number >= 0 else go_fixed(value)))
    different, value_of_cell = np.unique(np.array(codes, np.int32), return_inverse=True)
    return _counted(whole, rows, at, label, groups, steps, different, value_of_cell)


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
