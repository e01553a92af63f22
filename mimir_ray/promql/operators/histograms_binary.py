"""Binary operators and negation where some cells are native histograms.

Upstream: promql/engine.go vectorElemBinop.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from mimir_ray.model.float_histogram import GAUGE, FloatHistogram, IncompatibleSchemas, add, subtract
from mimir_ray.model.histogram import HistogramCells, HistogramPart, histograms_of
from mimir_ray.model.histogram_trim import trim
from mimir_ray.model.series import StepMatrix
from mimir_ray.promql.annotations import Annotations
from mimir_ray.promql.syntax.ast import Span

Cells = tuple[NDArray[np.float64], NDArray[np.bool_], HistogramPart | None]
"""(values, present, histograms)."""

_EQUALITY = ("==", "!=")


def negated(part: HistogramPart) -> HistogramPart | None:
    cells = HistogramCells(part.which.shape)
    for index, one in histograms_of(part):
        cells.put(index, one.mul(-1.0))
    return cells.part()


def with_scalar(
    op: str,
    matrix: StepMatrix,
    scalar: NDArray[np.float64],
    vector_left: bool,
    floats: tuple[NDArray[np.float64], NDArray[np.bool_]] | None,
    annotations: Annotations,
    span: Span,
) -> Cells:
    """A vector that has histograms, and a scalar.

    `floats`: what came out where the vector's cells are floats, or None where floats have no result.
    """
    part = matrix.histograms
    assert part is not None
    values, present = floats if floats is not None else (matrix.values, np.zeros(matrix.present.shape, np.bool_))
    if floats is None and (matrix.present & ~part.here).any():
        annotations.incompatible_types("float", op, "float", span)
    present = present & ~part.here
    cells = HistogramCells(part.which.shape)
    for row, t in zip(*(each.tolist() for each in np.nonzero(matrix.present & part.here)), strict=True):
        one, number = part.at(row, t), float(scalar[t])
        found: FloatHistogram | None = None
        if op == "*":
            found = one.mul(number).compact()
        elif vector_left and op == "/":
            found = one.div(number).compact()
        elif vector_left and op in ("</", ">/"):
            found = trim(one, number, upper=op == "</")
        if found is None:
            kinds = ("histogram", "float") if vector_left else ("float", "histogram")
            annotations.incompatible_types(kinds[0], op, kinds[1], span)
            continue
        cells.put((row, t), found)
        present[row, t] = True
    return values, present, cells.part()


class StepNotes:
    """What pairs leave to say: of each step only the last one's word is heard. Upstream: VectorBinop's lastErr."""

    def __init__(self, steps: int) -> None:
        self._last = [-1] * steps
        self._notes: list[Callable[[], None] | None] = [None] * steps

    def leave(self, pair: int, step: int, note: Callable[..., None], *args: object) -> None:
        if pair >= self._last[step]:
            self._last[step] = pair
            self._notes[step] = partial(note, *args)

    def tell(self) -> None:
        for note in self._notes:
            if note is not None:
                note()


def of_vectors(
    op: str,
    left: StepMatrix,
    right: StepMatrix,
    met: NDArray[np.bool_],
    floats: tuple[NDArray[np.float64], NDArray[np.bool_]] | None,
    return_bool: bool,
    annotations: Annotations,
    span: Span,
) -> tuple[Cells, NDArray[np.bool_]]:
    """Two vectors of equal shape, where they `met`; and bool[P, T], which pairs have no result for what they are.

    `floats`: as for `with_scalar`, of all cells that met.
    """
    of_left = _numbers(left)
    of_right = _numbers(right)
    mixed = (of_left >= 0) | (of_right >= 0)
    shape = met.shape
    notes = StepNotes(shape[1])
    refused = np.zeros(shape, np.bool_)
    if floats is None:
        values, present = np.zeros(shape), np.zeros(shape, np.bool_)
        refused = met & ~mixed
        for t in np.flatnonzero(refused.any(axis=0)).tolist():
            last = int(np.flatnonzero(refused[:, t])[-1])
            notes.leave(last, t, annotations.incompatible_types, "float", op, "float", span)
    else:
        values, present = floats[0].copy(), floats[1] & ~mixed
    cells = HistogramCells(shape)
    for row, t in zip(*(each.tolist() for each in np.nonzero(met & mixed)), strict=True):
        one = left.histograms.at(row, t) if of_left[row, t] >= 0 else None  # type: ignore[union-attr]
        other = right.histograms.at(row, t) if of_right[row, t] >= 0 else None  # type: ignore[union-attr]
        found: FloatHistogram | None = None
        if one is not None and other is not None:
            if op in _EQUALITY:
                holds = one.equals(other) == (op == "==")
                if return_bool:
                    values[row, t], present[row, t] = float(holds), True
                elif holds:
                    cells.put((row, t), one)
                    present[row, t] = True
                continue
            if op in ("+", "-"):
                found, note = _combined(op, one, other, annotations, span)
                if note is not None:
                    notes.leave(row, t, note)
                if found is None:
                    refused[row, t] = True
                    continue
        elif one is not None:
            number = float(right.values[row, t])
            if op == "*":
                found = one.mul(number).compact()
            elif op == "/":
                found = one.div(number).compact()
            elif op in ("</", ">/"):
                found = trim(one, number, upper=op == "</")
        elif op == "*":
            assert other is not None
            found = other.mul(float(left.values[row, t])).compact()
        if found is None:
            notes.leave(row, t, annotations.incompatible_types, _kind(one), op, _kind(other), span)
            refused[row, t] = True
            continue
        cells.put((row, t), found)
        present[row, t] = True
    notes.tell()
    return (values, present, cells.part()), refused


def _numbers(matrix: StepMatrix) -> NDArray[np.int32]:
    return np.full(matrix.values.shape, -1, np.int32) if matrix.histograms is None else matrix.histograms.which


def _kind(one: FloatHistogram | None) -> str:
    return "float" if one is None else "histogram"


def _combined(
    op: str, one: FloatHistogram, other: FloatHistogram, annotations: Annotations, span: Span
) -> tuple[FloatHistogram | None, Callable[[], None] | None]:
    """The sum or difference, and what to say of it."""
    operation = "addition" if op == "+" else "subtraction"
    try:
        found, collision, reconciled = (add if op == "+" else subtract)(one, other)
    except IncompatibleSchemas:
        text = f"incompatible bucket layout encountered for binary operator {op}"
        return None, partial(annotations.warn, text, span)
    if collision:  # upstream gives no result then
        return None, partial(annotations.reset_collision, operation, span)
    note = partial(annotations.reconciled_buckets, operation, span) if reconciled else None
    return (found if op == "+" else found.with_hint(GAUGE)).compact(), note
