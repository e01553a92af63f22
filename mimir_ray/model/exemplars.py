"""Exemplars: an example of what a sample counted, with labels of its own, most often a trace's id.

On the write path they are columns. They are rare next to samples, so they name their series by its labels and not by a
reference: nothing has to be sent again when an ingester forgets a reference.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mimir_ray.model.labels import Labels

LABELS_RUNES_MAX = 128
"""Characters of all names and values of one. Upstream: model/exemplar/exemplar.go ExemplarMaxLabelSetLength."""


@dataclass(slots=True)
class ExemplarColumns:
    """E exemplars of R series: `series` int32[E] (0..R-1), `timestamps` int64[E] (ms), `values` float64[E].

    The labels of exemplar e are `labels[label_offsets[e]:label_offsets[e + 1]]`, those of series r
    `series_labels[series_offsets[r]:series_offsets[r + 1]]`: label sections in canonical form; offsets int64.
    """

    series: NDArray[np.int32]
    timestamps: NDArray[np.int64]
    values: NDArray[np.float64]
    labels: bytes
    label_offsets: NDArray[np.int64]
    series_labels: bytes
    series_offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.series)

    @property
    def nbytes(self) -> int:
        """About what they weigh."""
        return 40 * len(self) + len(self.labels) + len(self.series_labels) + 8 * len(self.series_offsets)


@dataclass(frozen=True, slots=True)
class Exemplar:
    """One, for people. `timestamp`: ms."""

    labels: Labels
    value: float
    timestamp: int


@dataclass(frozen=True, slots=True)
class SeriesExemplars:
    """Of one series, in the order of their times."""

    labels: Labels
    exemplars: tuple[Exemplar, ...]


def merge_exemplars(several: list[list[SeriesExemplars]]) -> list[SeriesExemplars]:
    """What several holders of the same series have: series sorted by labels, each exemplar once.

    Upstream: pkg/distributor/query.go mergeExemplarQueryResponses.
    """
    found: dict[Labels, dict[Exemplar, None]] = {}
    for answer in several:
        for one in answer:
            found.setdefault(one.labels, {}).update(dict.fromkeys(one.exemplars))
    return [
        SeriesExemplars(labels, tuple(sorted(found[labels], key=lambda one: (one.timestamp, one.value, one.labels))))
        for labels in sorted(found)
    ]
