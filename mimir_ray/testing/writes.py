"""Building `WriteBatch`es for tests from labels and points as text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from mimir_ray.encoding.varint import encode_uvarint
from mimir_ray.model.exemplars import ExemplarColumns
from mimir_ray.model.labels import Labels
from mimir_ray.model.metadata import Metadata
from mimir_ray.model.tenant import TenantId
from mimir_ray.model.write import WriteBatch


def label_section(labels: Labels) -> bytes:
    """Remote write's repeated `Label labels = 1` of one series."""
    out = bytearray()
    for name, value in labels:
        raw_name, raw_value = name.encode(), value.encode()
        body = b"\x0a" + encode_uvarint(len(raw_name)) + raw_name + b"\x12" + encode_uvarint(len(raw_value)) + raw_value
        out += b"\x0a" + encode_uvarint(len(body)) + body
    return bytes(out)


def write_batch(
    incarnation: int = 0,
    known: Sequence[tuple[int, int, float]] = (),
    new: Iterable[tuple[Labels, Sequence[tuple[int, float]]]] = (),
    metadata: tuple[Metadata, ...] = (),
    tenant: str = "anonymous",
    exemplars: Sequence[tuple[Labels, Labels, int, float]] = (),
) -> WriteBatch:
    """`known`: (reference, time, value); `new`: labels with their points; `exemplars`: see `exemplar_columns`."""
    new = list(new)
    sections = [label_section(labels) for labels, _ in new]
    flat = [(row, time, value) for row, (_, points) in enumerate(new) for time, value in points]
    return WriteBatch(
        TenantId(tenant),
        incarnation,
        np.array([one[0] for one in known], np.int32),
        np.array([one[1] for one in known], np.int64),
        np.array([one[2] for one in known], np.float64),
        b"".join(sections),
        np.concatenate(([0], np.cumsum([len(one) for one in sections]))).astype(np.int64),
        np.array([one[0] for one in flat], np.int32),
        np.array([one[1] for one in flat], np.int64),
        np.array([one[2] for one in flat], np.float64),
        metadata,
        exemplars=exemplar_columns(exemplars) if exemplars else None,
    )


def exemplar_columns(exemplars: Sequence[tuple[Labels, Labels, int, float]]) -> ExemplarColumns:
    """Of (labels of the series, labels of the exemplar, time, value)."""
    series = list(dict.fromkeys(one[0] for one in exemplars))
    sections, own = [label_section(one) for one in series], [label_section(one[1]) for one in exemplars]
    return ExemplarColumns(
        np.array([series.index(one[0]) for one in exemplars], np.int32),
        np.array([one[2] for one in exemplars], np.int64),
        np.array([one[3] for one in exemplars], np.float64),
        b"".join(own),
        np.concatenate(([0], np.cumsum([len(one) for one in own]))).astype(np.int64),
        b"".join(sections),
        np.concatenate(([0], np.cumsum([len(one) for one in sections]))).astype(np.int64),
    )
