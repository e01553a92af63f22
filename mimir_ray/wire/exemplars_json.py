"""Exemplars as Prometheus' query API answers them. Upstream: web/api/v1/json_codec.go marshalExemplarJSON."""

from __future__ import annotations

from collections.abc import Iterable

from mimir_ray.model.exemplars import SeriesExemplars
from mimir_ray.wire.query_json import encode_float, encode_labels, encode_timestamp


def encode_exemplars(series: Iterable[SeriesExemplars]) -> bytes:
    """The data of `/api/v1/query_exemplars`."""
    parts = []
    for one in series:
        exemplars = b",".join(
            b'{"labels":%s,"value":"%s","timestamp":%s}'
            % (
                encode_labels(exemplar.labels),
                encode_float(exemplar.value).encode(),
                encode_timestamp(exemplar.timestamp).encode(),
            )
            for exemplar in one.exemplars
        )
        parts.append(b'{"seriesLabels":%s,"exemplars":[%s]}' % (encode_labels(one.labels), exemplars))
    return b"[" + b",".join(parts) + b"]"
