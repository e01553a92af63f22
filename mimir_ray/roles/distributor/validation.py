"""What a series, a sample and metadata must look like to be taken.

A series is checked when it is new. Nearly all come in canonical form and within every limit: a kernel
recognises those and hashes their ring token on the way. What it does not wave through is judged here, in
Mimir's order and with its errors (errors.py).

Upstream: pkg/distributor/validate.go validateLabels, validateSample, cleanAndValidateMetadata.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mimir_ray.config.limits import Limits
from mimir_ray.encoding.hashing import fnv1_32, fnv1_32_of
from mimir_ray.encoding.utf8 import is_utf8
from mimir_ray.errors import ClientError
from mimir_ray.kernel import I64, U8, OutBool, OutU32, device, kernel, u32
from mimir_ray.model.labels import METRIC_NAME, is_legacy_label_name, is_legacy_metric_name
from mimir_ray.model.metadata import Metadata
from mimir_ray.roles.distributor import errors
from mimir_ray.wire.protobuf import RawLabel, read_length

_METRIC_NAME = METRIC_NAME.encode()
_ANY = 1 << 62


def token_seed(tenant: str) -> int:
    """The state of the token hash after the tenant's name, which comes first."""
    return fnv1_32_of(tenant.encode())


def series_token(tenant: str, labels: Sequence[RawLabel]) -> int:
    """uint32: where the series lies on the ring; `labels` sorted."""
    return fnv1_32_of(tenant.encode() + b"".join(name + value for name, value in labels))


def metadata_token(tenant: str, family: str) -> int:
    """uint32: where the metadata of a metric family lies on the ring."""
    return fnv1_32_of((tenant + family).encode("utf-8", "replace"))


def judge_sections(
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    tenant_seed: int,
    limits: Limits,
    any_count: bool = False,
) -> tuple[NDArray[np.bool_], NDArray[np.uint32]]:
    """(bool[M], uint32[M]): which label sections are canonical and valid beyond doubt, and their tokens."""
    good = np.zeros(len(starts), np.bool_)
    tokens = np.zeros(len(starts), np.uint32)
    _judge(
        data,
        starts,
        ends,
        np.uint32(tenant_seed),
        _ANY if any_count else limits.max_label_names_per_series,
        limits.max_label_name_length,
        limits.max_label_value_length,
        good,
        tokens,
    )
    return good, tokens


def validate_labels(raw: Sequence[RawLabel], limits: Limits, any_names: bool = False, any_count: bool = False) -> None:
    """Raises the first thing that is wrong with these canonical labels.

    `any_names`, `any_count`: names of labels, and how many there are, are not judged.
    """
    legacy = limits.name_validation_scheme == "legacy"
    labels = [(_text(name), _text(value)) for name, value in raw]
    metric = next((value for name, value in labels if name == METRIC_NAME), None)
    if metric is None:
        raise errors.MissingMetricName
    raw_metric = next(value for name, value in raw if name == _METRIC_NAME)
    if not (is_legacy_metric_name(metric) if legacy else _is_utf8(raw_metric)):
        raise errors.InvalidMetricName(metric)
    if not any_count and len(labels) > limits.max_label_names_per_series:
        if not metric.endswith("_info"):
            raise errors.TooManyLabels(errors.format_series(labels), len(labels), limits.max_label_names_per_series)
        if len(labels) > limits.max_label_names_per_info_series:
            allowed = limits.max_label_names_per_info_series
            raise errors.TooManyInfoLabels(errors.format_series(labels), len(labels), allowed)
    previous = None
    for (name, value), (raw_name, raw_value) in zip(labels, raw, strict=True):
        if not (any_names or (is_legacy_label_name(name) if legacy else raw_name and _is_utf8(raw_name))):
            raise errors.InvalidLabelName(name, errors.format_series(labels))
        if len(raw_name) > limits.max_label_name_length:
            raise errors.LabelNameTooLong(name, errors.format_series(labels))
        if not _is_utf8(raw_value):
            raise errors.InvalidLabelValue(name, value, metric)
        if len(raw_value) > limits.max_label_value_length and limits.label_value_length_over_limit_strategy == "error":
            raise errors.LabelValueTooLong(name, value, errors.format_series(labels))
        if raw_name == previous:
            raise errors.DuplicateLabelNames(name, errors.format_series(labels))
        previous = raw_name


def clean_metadata(metadata: Metadata, limits: Limits) -> Metadata:
    """The metadata with its help text cut to what is allowed; raises what is wrong with the rest."""
    longest = limits.max_metadata_length
    if limits.enforce_metadata_metric_name and not metadata.family:
        raise errors.MetadataWithoutName
    if len(metadata.family.encode()) > longest:
        raise errors.MetadataNameTooLong(metadata.family)
    if len(metadata.unit.encode()) > longest:
        raise errors.MetadataUnitTooLong(metadata.unit, metadata.family)
    help_text = metadata.help.encode()
    if len(help_text) > longest:
        return dataclasses.replace(metadata, help=help_text[:longest].decode("utf-8", "ignore"))
    return metadata


def sample_bounds(limits: Limits, now_ms: int) -> tuple[int, int]:
    """The earliest and the latest timestamp that a sample may have."""
    earliest = -(1 << 63)
    if limits.past_grace_period:
        earliest = now_ms - limits.past_grace_period - limits.out_of_order_time_window
    return earliest, now_ms + limits.creation_grace_period


def metric_name(labels: Sequence[RawLabel]) -> str:
    """The first value of `__name__` that is not empty, or nothing: labels without a value are none."""
    return next((_text(value) for name, value in labels if name == _METRIC_NAME and value), "")


def sample_error(timestamp: int, labels: Sequence[RawLabel], too_new: bool) -> ClientError:
    """Why a sample outside of `sample_bounds` is refused."""
    kind = errors.SampleTooFarInFuture if too_new else errors.SampleTooFarInPast
    return kind(timestamp, metric_name(labels))


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


@device
def _shortest(length: Any) -> Any:
    """Bytes of the shortest varint."""
    size = np.int64(1)
    while length >= 128:
        length >>= 7
        size += 1
    return size


@device
def _name_is_plain(data: Any, start: Any, end: Any, colon: Any) -> Any:
    """Whether data[start:end] fits [a-zA-Z_][a-zA-Z0-9_]* (with `colon`: also `:`)."""
    if start == end or 48 <= data[start] <= 57:
        return False
    for at in range(start, end):
        byte = data[at]
        if not (97 <= byte <= 122 or 65 <= byte <= 90 or byte == 95 or 48 <= byte <= 57 or (colon and byte == 58)):
            return False
    return True


@device
def _judge_section(data: Any, start: Any, end: Any, seed: Any, names_max: Any, name_max: Any, value_max: Any) -> Any:
    """(True, token) for a canonical section within all limits; (False, 0) for anything else, malformed included."""
    at = start
    state = seed
    count = np.int64(0)
    named = False
    last_name = np.int64(0)
    last_stop = np.int64(0)
    while at < end:
        if data[at] != 0x0A:
            return False, np.uint32(0)
        length, inner = read_length(data, at + 1, end)
        if length < 0 or inner - at - 1 != _shortest(length):
            return False, np.uint32(0)
        stop = inner + length
        if inner >= stop or data[inner] != 0x0A:
            return False, np.uint32(0)
        size, name = read_length(data, inner + 1, stop)
        if size < 1 or size > name_max or name - inner - 1 != _shortest(size):
            return False, np.uint32(0)
        name_stop = name + size
        if name_stop >= stop or data[name_stop] != 0x12:
            return False, np.uint32(0)
        size, value = read_length(data, name_stop + 1, stop)
        if size < 1 or size > value_max or value - name_stop - 1 != _shortest(size) or value + size != stop:
            return False, np.uint32(0)
        if not _name_is_plain(data, name, name_stop, False):
            return False, np.uint32(0)
        # Names must grow.
        one, other = last_name, name
        while one < last_stop and other < name_stop and data[one] == data[other]:
            one += 1
            other += 1
        if other == name_stop or (one < last_stop and data[one] > data[other]):
            return False, np.uint32(0)
        last_name, last_stop = name, name_stop
        if name_stop - name == len(_METRIC_NAME):
            same = True
            for place in range(len(_METRIC_NAME)):
                same = same and data[name + place] == _METRIC_NAME[place]
            if same:
                named = True
                if not _name_is_plain(data, value, stop, True):
                    return False, np.uint32(0)
        if not is_utf8(data, value, stop):
            return False, np.uint32(0)
        state = fnv1_32(data, name, name_stop, state)
        state = fnv1_32(data, value, stop, state)
        count += 1
        at = stop
    if not named or count > names_max:
        return False, np.uint32(0)
    return True, state


@kernel
def _judge(
    data: U8,
    starts: I64,
    ends: I64,
    seed: u32,
    names_max: int,
    name_max: int,
    value_max: int,
    good: OutBool,
    tokens: OutU32,
) -> None:
    """good[i], tokens[i] of the section data[starts[i]:ends[i]]."""
    for row in range(len(starts)):
        fine, token = _judge_section(data, starts[row], ends[row], seed, names_max, name_max, value_max)
        good[row] = fine
        tokens[row] = token
