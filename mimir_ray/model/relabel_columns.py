"""Relabelling of many series at once: each rule judges every different joined value, or name, once.

What a rule makes of a text is relabel.py's; here it is found out which texts there are, and what they lead to is
written to the series by kernels.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .label_rows import NO_NAME, Groups, LabelRows
from .regex_automaton import automaton_of
from .relabel import CopyNames, Filter, FilterEqual, FilterNames, Relabelling, Source, Write

AUTOMATON_TEXTS_MIN = 64
"""Fewer are judged one by one, with a memory for those that come again."""


def labels_added(relabelling: Relabelling) -> int:
    """How many free places a series needs at most; `CopyNames` makes its own."""
    return sum(isinstance(step, Write) for step in relabelling.steps)


def relabel_rows(relabelling: Relabelling, rows: LabelRows) -> None:
    """`Relabelling.apply` for all series that are alive; those that are to be dropped are not any more."""
    for step in relabelling.steps:
        match step:
            case Write():
                _write(step, rows)
            case Filter():
                _filter(step, rows)
            case FilterEqual():
                _filter_equal(step, rows)
            case CopyNames():
                _copy_names(step, rows)
            case FilterNames():
                rows.take_off(np.array([not step.stays(name.decode()) for name in rows.names], np.bool_))


def _filter(step: Filter, rows: LabelRows) -> None:
    groups, offsets = _joined(step.source, rows)
    _keep(rows, groups, _judged(step.regex, step.fits, rows, offsets) == step.wanted)


def _filter_equal(step: FilterEqual, rows: LabelRows) -> None:
    source = step.source
    groups = rows.group(_names((*source.names, step.target)))
    values = rows.texts(rows.join(Groups(groups.of, groups.spans[:, :-1]), source.separator.encode()))
    targets = rows.texts(rows.join(Groups(groups.of, groups.spans[:, -1:]), b""))
    equal = [value == target for value, target in zip(values, targets, strict=True)]
    _keep(rows, groups, np.array(equal, np.bool_) == step.wanted)


def _write(step: Write, rows: LabelRows) -> None:
    if step.copied_to and len(step.source.names) == 1:
        groups = rows.group(_names(step.source.names))
        starts, ends = groups.spans[:, 0, 0], groups.spans[:, 0, 1]
    else:
        groups, offsets = _joined(step.source, rows)
        starts, ends = offsets[:-1], offsets[1:]
    if step.copied_to:
        codes = np.full(len(groups), rows.code(step.copied_to.encode()), np.int32)
    elif step.constant is not None:
        name, value = step.constant
        fits = _judged(step.regex, lambda text: step.written(text) is not None, rows, offsets)
        codes = np.where(fits, rows.code(name.encode()), NO_NAME).astype(np.int32)
        start, end = rows.text.append((value.encode(),)).tolist()
        starts, ends = np.full(len(groups), start), np.full(len(groups), end)
    else:
        written = [step.written(text) for text in rows.texts(offsets)]
        code_of = {name: rows.code(name.encode()) for name in {one[0] for one in written if one is not None}}
        codes = np.array([NO_NAME if one is None else code_of[one[0]] for one in written], np.int32)
        places = rows.text.append([b"" if one is None else one[1].encode() for one in written])
        starts, ends = places[:-1], places[1:]
    rows.write(groups.of, codes, np.ascontiguousarray(starts), np.ascontiguousarray(ends))


def _copy_names(step: CopyNames, rows: LabelRows) -> None:
    found = [step.copied_to(name.decode()) for name in rows.names]
    # A name that is not there yet gets a code, which the step does not ask about.
    others = [NO_NAME if one is None else rows.code(one.encode()) for one in found]
    others += [NO_NAME] * (len(rows.names) - len(others))
    rows.copy_names(np.array(others, np.int32))


def _names(names: tuple[str, ...]) -> list[bytes]:
    return [name.encode() for name in names]


def _joined(source: Source, rows: LabelRows) -> tuple[Groups, NDArray[np.int64]]:
    groups = rows.group(_names(source.names))
    return groups, rows.join(groups, source.separator.encode())


def _judged(regex: str, fits: Callable[[str], bool], rows: LabelRows, offsets: NDArray[np.int64]) -> NDArray[np.bool_]:
    """bool[G]: which of these parts of the text fit `regex`, as `fits` says one by one."""
    automaton = automaton_of(regex) if len(offsets) > AUTOMATON_TEXTS_MIN else None
    if automaton is not None:
        return automaton.accepts(rows.text.data, offsets[:-1], offsets[1:])
    return np.array([fits(text) for text in rows.texts(offsets)], np.bool_)


def _keep(rows: LabelRows, groups: Groups, kept: NDArray[np.bool_]) -> None:
    """Series of other groups are dropped."""
    rows.alive &= np.append(kept, False)[groups.of]
