"""Functions that look at labels: label_replace, label_join, the sorts, absent.

They work on codes: a regex runs once for each different value of a label, not once a series.
"""

# ruff: noqa: ARG001  (all functions share one signature)
from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import re2
from numpy.typing import NDArray

from mimir_ray.model.labels import METRIC_NAME, LabelColumns, is_utf8, labels_of
from mimir_ray.model.matchers import MatchType
from mimir_ray.model.regex_template import template_parts
from mimir_ray.model.series import StepMatrix
from mimir_ray.promql.syntax import ast

from .functions_base import FunctionContext, InvalidFunctionArgument, ScalarSteps, VectorFunction


def _texts(params: tuple[ScalarSteps | str, ...]) -> tuple[str, ...]:
    for param in params:
        assert isinstance(param, str)
    return params  # type: ignore[return-value]


def _is_label_name(name: str) -> bool:
    """Any text that is valid UTF-8 and not empty. Upstream: model.UTF8Validation.IsValidLabelName."""
    return bool(name) and is_utf8(name)


def _relabelled(matrix: StepMatrix, name: str, codes: NDArray[np.int32], changed: NDArray[np.bool_]) -> StepMatrix:
    """With the label `name` set to these codes; who gets a metric name that way keeps it."""
    drop_name = matrix.drop_name
    if name == METRIC_NAME and drop_name is not None:
        drop_name = drop_name & ~changed
    return replace(matrix, labels=matrix.labels.with_column(name, codes), drop_name=drop_name)


@functools.lru_cache(maxsize=1024)
def compiled(pattern: str, replacement: str) -> tuple[Any, Callable[[Any], str]]:
    """Of `label_replace`: the regex, anchored, and what makes text of a match. Remembered."""
    options = re2.Options()
    options.log_errors = False
    regex = re2.compile(f"^(?s:{pattern})$", options)
    return regex, expander(replacement, dict(regex.groupindex), regex.groups)


@functools.lru_cache(maxsize=1 << 14)
def replaced(pattern: str, replacement: str, value: str) -> str | None:
    """What `label_replace` makes of a value; None where it does not match. Remembered: dashboards ask again."""
    regex, expand = compiled(pattern, replacement)
    found = regex.search(value) if is_utf8(value) else None
    return None if found is None else expand(found)


def _label_replace(matrix: StepMatrix, params: tuple[ScalarSteps | str, ...], context: FunctionContext) -> StepMatrix:
    """Upstream: promql/functions.go evalLabelReplace."""
    target, replacement, source, pattern = _texts(params)
    try:
        compiled(pattern, replacement)
    except (re2.error, UnicodeEncodeError):
        raise InvalidFunctionArgument(f"invalid regular expression in label_replace(): {pattern}") from None
    if not _is_label_name(target):
        raise InvalidFunctionArgument(f"invalid destination label name in label_replace(): {target}")
    labels = matrix.labels
    strings = labels.table.strings
    used, position = np.unique(labels.column(source), return_inverse=True)
    new_codes = np.zeros(len(used), np.int32)
    matches = np.zeros(len(used), np.bool_)
    for i, code in enumerate(used.tolist()):
        text = replaced(pattern, replacement, strings[code])
        if text is not None:
            matches[i] = True
            new_codes[i] = labels.table.code(text)
    if not matches.any():
        return matrix
    changed = matches[position]
    codes = np.where(changed, new_codes[position], labels.column(target)).astype(np.int32)
    return _relabelled(matrix, target, codes, changed)


def expander(template: str, names: dict[str, int], groups: int) -> Callable[[Any], str]:
    """A function from a match to the template with `$1`, `$name` and `${name}` filled in; a group that did not match is
    empty."""
    parts = template_parts(template, names, groups)

    def expand(match: Any) -> str:
        return "".join(part if isinstance(part, str) else match.group(part) or "" for part in parts)

    return expand


def _label_join(matrix: StepMatrix, params: tuple[ScalarSteps | str, ...], context: FunctionContext) -> StepMatrix:
    """Upstream: promql/functions.go evalLabelJoin."""
    target, separator, *sources = _texts(params)
    for source in sources:
        if not _is_label_name(source):
            raise InvalidFunctionArgument(f"invalid source label name in label_join(): {source}")
    if not _is_label_name(target):
        raise InvalidFunctionArgument(f"invalid destination label name in label_join(): {target}")
    labels = matrix.labels
    strings = labels.table.strings
    joined: dict[tuple[int, ...], int] = {}
    codes = np.zeros(len(labels), np.int32)
    columns = [labels.column(source).tolist() for source in sources]
    for row, key in enumerate(zip(*columns, strict=True) if columns else [()] * len(labels)):
        code = joined.get(key)
        if code is None:
            code = joined[key] = labels.table.code(separator.join(strings[each] for each in key))
        codes[row] = code
    return _relabelled(matrix, target, codes, np.ones(len(labels), np.bool_))


def _sorted(descending: bool) -> VectorFunction:
    """sort, sort_desc: by value in instant queries, NaN last; floats only. Range queries keep their order."""

    def run(matrix: StepMatrix, params: tuple[ScalarSteps | str, ...], context: FunctionContext) -> StepMatrix:
        if _is_range_query(context):
            return matrix
        rows = np.flatnonzero(matrix.present[:, 0])
        values = matrix.values[rows, 0]
        order = np.argsort(-values if descending else values, kind="stable")  # numpy puts NaN last
        return matrix.take(rows[order])

    return VectorFunction(run, keeps_name=True, needs_all=True)


def _is_range_query(context: FunctionContext) -> bool:
    if not context.ranged and len(context.times) == 1:
        return False
    context.annotations.sort_in_range_query(context.call.span)
    return True


def _sorted_by_label(descending: bool) -> VectorFunction:
    """sort_by_label, sort_by_label_desc: in natural order of the given labels, then of all labels."""

    def run(matrix: StepMatrix, params: tuple[ScalarSteps | str, ...], context: FunctionContext) -> StepMatrix:
        if _is_range_query(context):
            return matrix
        rows = np.flatnonzero(matrix.present[:, 0])
        strings = matrix.labels.table.strings
        keys = [[strings[code] for code in matrix.labels.column(name)[rows].tolist()] for name in _texts(params)]
        whole = matrix.labels.take(rows).to_labels()

        def compare(a: int, b: int) -> int:
            for key in keys:
                if key[a] != key[b]:
                    return -1 if naturally_less(key[a], key[b]) else 1
            return (whole[a] > whole[b]) - (whole[a] < whole[b])

        order = sorted(range(len(rows)), key=functools.cmp_to_key(compare), reverse=descending)
        return matrix.take(rows[np.array(order, np.intp)])

    return VectorFunction(run, keeps_name=True, needs_all=True, takes_histograms=True)


_CHUNK = re.compile(r"[0-9]+|[^0-9]+")


def naturally_less(a: str, b: str) -> bool:
    """Whether `a` sorts before `b`, runs of digits as numbers. Upstream: github.com/facette/natsort."""
    chunks_a, chunks_b = _CHUNK.findall(a), _CHUNK.findall(b)
    for i, chunk in enumerate(chunks_a):
        if i >= len(chunks_b):
            return False
        other = chunks_b[i]
        numbers = _as_int(chunk), _as_int(other)
        if None not in numbers:
            if numbers[0] != numbers[1]:
                return numbers[0] < numbers[1]  # type: ignore[operator]
        elif chunk != other:
            return chunk < other
        if i == len(chunks_a) - 1:
            return True
        if i == len(chunks_b) - 1:
            return False
    return False


def _as_int(chunk: str) -> int | None:
    if not ("0" <= chunk[0] <= "9"):
        return None
    number = int(chunk) if len(chunk) < 40 else 1 << 63
    return number if number < 1 << 63 else None


def absent_series(any_present: NDArray[np.bool_], context: FunctionContext) -> StepMatrix:
    """The result of absent() and absent_over_time().

    Args:
        any_present: bool[T], where any series of the argument has a value.

    Returns one series with 1 where nothing is present, or none if something always is. Its labels are those
    that the argument, if it is a selector, asks for by equality. Upstream: createLabelsForAbsentFunction.
    """
    absent = ~any_present
    count = int(absent.any())
    labels = LabelColumns.from_labels([labels_of(_asked_labels(context.call.args[0]))] * count, context.table)
    return StepMatrix(labels, np.ones((count, len(absent))), absent[None, :].repeat(count, axis=0))


def _asked_labels(node: ast.Node) -> dict[str, str]:
    while isinstance(node, ast.Paren):
        node = node.expr
    selector = node.selector if isinstance(node, ast.MatrixSelector) else node
    asked: dict[str, str] = {}
    seen: set[str] = set()
    if isinstance(selector, ast.VectorSelector):
        for matcher in selector.matchers:
            if matcher.name == METRIC_NAME:
                continue
            if matcher.type is MatchType.EQUAL and matcher.name not in seen:
                asked[matcher.name] = matcher.value
                seen.add(matcher.name)
            else:
                asked.pop(matcher.name, None)
    return asked


def _absent(matrix: StepMatrix, params: tuple[ScalarSteps | str, ...], context: FunctionContext) -> StepMatrix:
    return absent_series(np.asarray(matrix.present.any(axis=0)), context)


VECTOR_FUNCTIONS: dict[str, VectorFunction] = {
    "label_replace": VectorFunction(_label_replace, keeps_name=True, takes_histograms=True),
    "label_join": VectorFunction(_label_join, keeps_name=True, takes_histograms=True),
    "sort": _sorted(descending=False),
    "sort_desc": _sorted(descending=True),
    "sort_by_label": _sorted_by_label(descending=False),
    "sort_by_label_desc": _sorted_by_label(descending=True),
    "absent": VectorFunction(_absent, needs_all=True, takes_histograms=True),
}
