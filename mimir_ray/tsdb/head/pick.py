"""`HeadPick`: some series of a head as they were at one moment, read without the head's lock."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mimir_ray.model.selection import Selection
from mimir_ray.model.series import SeriesBatch
from mimir_ray.tsdb.index.columns import IndexView
from mimir_ray.tsdb.index.series_index import SeriesIndex

from .histogram_samples import resolve
from .histogram_store import PinnedHistograms
from .reading import Look, read_newest, read_samples
from .start_timestamps import StartsLook


class HeadPart(enum.Enum):
    """Which samples of a head: those that came in order of time, series by series, or the others."""

    ALL = "all"
    IN_ORDER = "in order"
    LATE = "late"


@dataclass(slots=True)
class HeadPick:
    """Series `references` (int32, ascending) of `selection`; `look` and `histograms` hold their samples."""

    selection: Selection
    references: NDArray[np.int32]
    index: SeriesIndex
    lock: AbstractContextManager[Any]
    """Guards `index`."""
    look: Look
    histograms: PinnedHistograms
    starts: StartsLook | None = None
    view: IndexView = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        self.view = self.index.view()

    def __len__(self) -> int:
        return len(self.references)

    def hashes(self) -> NDArray[np.uint64]:
        """labels.StableHash of the series."""
        with self.lock:
            return self.index.stable_hashes()[self.references]

    def take(self, rows: NDArray[np.integer]) -> HeadPick:
        """These of the series. This one must live as long."""
        return HeadPick(
            self.selection,
            self.references[rows],
            self.index,
            self.lock,
            self.look.take(rows),
            self.histograms,
            self.starts,
            self.view,
        )

    def batches(self) -> Iterator[SeriesBatch]:
        """Up to `selection.batch_series` series each, those without samples in range left out. See SeriesSource."""
        selection = self.selection
        size = max(1, selection.batch_series)
        given = 0
        for first in range(0, len(self.references), size):
            some = self.references[first : first + size]
            if selection.labels_only:
                offsets = np.zeros(len(some) + 1, np.int64)
                timestamps, values = np.zeros(0, np.int64), np.zeros(0, np.float64)
            else:
                read = read_newest if selection.newest else read_samples
                offsets, timestamps, values = read(self.look, first, len(some), selection.mint, selection.maxt)
                with_samples = offsets[1:] > offsets[:-1]
                if not with_samples.all():
                    some = some[with_samples]
                    offsets = np.concatenate((offsets[:1], offsets[1:][with_samples]))
            if selection.limit_series and given + len(some) > selection.limit_series:
                some = some[: selection.limit_series - given]
                offsets = offsets[: len(some) + 1]
                timestamps, values = timestamps[: offsets[-1]], values[: offsets[-1]]
            if len(some):
                given += len(some)
                values, histograms = resolve(values, self.histograms)
                began = None if self.starts is None else self.starts.of(some, offsets, timestamps)
                yield SeriesBatch(
                    self.view.labels(some, selection.labels), offsets, timestamps, values, histograms, began
                )
            if selection.limit_series and given >= selection.limit_series:
                return
