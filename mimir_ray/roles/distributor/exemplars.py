"""Exemplars of a write request: which are sound, and in what form they go on.

What is wrong with an exemplar costs nothing but the exemplar. Upstream: pkg/distributor/validate.go validateExemplar,
pkg/distributor/distributor.go validateSeries.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mimir_ray.config.limits import Limits
from mimir_ray.errors import ClientError
from mimir_ray.roles.distributor import errors
from mimir_ray.roles.distributor.canonical import sort_sections
from mimir_ray.roles.distributor.request import PreparedExemplars
from mimir_ray.wire import exemplars as wire
from mimir_ray.wire.exemplars import ExemplarScan
from mimir_ray.wire.protobuf import MalformedProtobuf, RawLabel, encode_labels, parse_labels
from mimir_ray.wire.write_scan import WriteScan

OLDER_THAN_SAMPLES_MS = 300_000
"""Client libraries repeat an exemplar for ever: those that are this much older than the samples beside are dropped."""

_PROBLEMS: dict[int, type[errors.InvalidExemplar]] = {
    wire.LABELS_MISSING: errors.ExemplarLabelsMissing,
    wire.TIMESTAMP_MISSING: errors.ExemplarTimestampInvalid,
    wire.LABELS_TOO_LONG: errors.ExemplarLabelsTooLong,
}


def sound_exemplars(
    scan: WriteScan, found: ExemplarScan, ids: NDArray[np.int32], limits: Limits, now_ms: int
) -> tuple[PreparedExemplars | None, list[tuple[ClientError, int]], dict[str, int]]:
    """(those to be written, why others are refused and how many, how many are dropped in silence by reason).

    Args:
        ids: int32[S], negative for series that were refused.

    Raises `MalformedProtobuf`.
    """
    wanted = ids[found.series] >= 0
    _refuse_broken_texts(found, wanted)
    refusals: list[tuple[ClientError, int]] = []
    bad = np.flatnonzero(wanted & (found.problems != wire.OK))
    for problem in dict.fromkeys(found.problems[bad].tolist()):
        rows = bad[found.problems[bad] == problem]
        refusals.append((_error(scan, found, int(rows[0])), len(rows)))
    kept = wanted & (found.problems == wire.OK)
    dropped: dict[str, int] = {}
    if scan.samples:
        old = kept & (found.timestamps < scan.earliest - OLDER_THAN_SAMPLES_MS)
        _drop(dropped, "exemplar_too_old", old, kept)
    _drop(
        dropped, "exemplar_too_far_in_future", kept & (found.timestamps > now_ms + limits.creation_grace_period), kept
    )
    if most := limits.max_exemplars_per_series_per_request:
        rows = np.flatnonzero(kept)
        series = found.series[rows]
        first = np.searchsorted(series, series)
        over = np.zeros(len(found), np.bool_)
        over[rows[np.arange(len(rows)) - first >= most]] = True
        _drop(dropped, "too_many_exemplars_per_series_per_request", over, kept)
    rows = np.flatnonzero(kept)
    if not len(rows):
        return None, refusals, dropped
    labels, offsets = _canonical(found, rows)
    return (
        PreparedExemplars(found.series[rows], found.timestamps[rows], found.values[rows], labels, offsets),
        refusals,
        dropped,
    )


def _refuse_broken_texts(found: ExemplarScan, wanted: NDArray[np.bool_]) -> None:
    """Labels that are no UTF-8 are no valid labels: nobody could be shown them."""
    if _is_utf8(found.labels):
        return  # tags and short lengths are ASCII
    for row in np.flatnonzero(wanted & (found.problems == wire.OK)).tolist():
        if not all(_is_utf8(text) for label in _raw_labels(found, row) for text in label):
            found.problems[row] = wire.LABELS_MISSING


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def _drop(dropped: dict[str, int], reason: str, which: NDArray[np.bool_], kept: NDArray[np.bool_]) -> None:
    if which.any():
        dropped[reason] = int(which.sum())
        kept &= ~which


def _canonical(found: ExemplarScan, rows: NDArray[np.intp]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Label sections, sorted and without empty values, back to back, and their offsets."""
    data = np.frombuffer(found.labels, np.uint8)
    sections, starts, ends = sort_sections(data, found.offsets[rows], found.offsets[rows + 1])
    if (ends - starts == found.offsets[rows + 1] - found.offsets[rows]).all():
        offsets = np.append(starts, ends[-1])
        return sections, offsets
    pieces = []
    for row, start, end in zip(rows.tolist(), starts.tolist(), ends.tolist(), strict=True):
        if end >= 0:
            pieces.append(sections[start:end].tobytes())
        else:
            raw = _raw_labels(found, row)
            pieces.append(encode_labels(sorted((one for one in raw if one[1]), key=lambda pair: pair[0])))
    offsets = np.zeros(len(rows) + 1, np.int64)
    np.cumsum([len(one) for one in pieces], out=offsets[1:])
    return np.frombuffer(b"".join(pieces), np.uint8), offsets


def _raw_labels(found: ExemplarScan, row: int) -> list[RawLabel]:
    return parse_labels(found.labels, int(found.offsets[row]), int(found.offsets[row + 1]))


def _error(scan: WriteScan, found: ExemplarScan, row: int) -> ClientError:
    kind = _PROBLEMS.get(int(found.problems[row]))
    if kind is None:
        raise MalformedProtobuf("Exemplar", "malformed labels", 0)
    series = int(found.series[row])
    scan.need_labels(np.array([series]))
    of_series = parse_labels(scan.data, int(scan.label_start[series]), int(scan.label_end[series]))
    return kind(
        int(found.timestamps[row]), errors.format_labels(of_series), errors.format_labels(_raw_labels(found, row))
    )
