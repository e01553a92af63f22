"""Chunks that lie in memory, wherever they came from, to samples: of mapped segments and of ranged reads alike.

`decode` knows all encodings; `Samples.trimmed` and `Samples.without_deleted` do what readers of a block do next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mimir_ray.model.histogram import HistogramPart
from mimir_ray.tsdb.chunks.xor import chunk_counts, decode_chunks
from mimir_ray.tsdb.head.reading import trim

from .chunk_files import XOR
from .errors import DamagedBlock, UnsupportedChunks
from .tombstones import Tombstones, remove_deleted

Data = Sequence[NDArray[np.uint8]]


@dataclass(slots=True)
class Samples:
    """Samples of R runs (chunks, or series): run r owns offsets[r]:offsets[r + 1] (int64[R + 1]) of the columns.

    `timestamps` int64[N] (ms), `values` float64[N] (of histograms their sums), `histograms` None where none is one,
    `start_timestamps` int64[N] (ms, 0: not known), None where none is known.
    """

    offsets: NDArray[np.int64]
    timestamps: NDArray[np.int64]
    values: NDArray[np.float64]
    histograms: HistogramPart | None = None
    start_timestamps: NDArray[np.int64] | None = None

    @property
    def _plain(self) -> bool:
        return self.histograms is None and self.start_timestamps is None

    def _carriers(self) -> NDArray[np.float64]:
        """What a kernel may move in place of the values: themselves, or their numbers as bits of floats."""
        if self._plain:
            return self.values
        return np.arange(len(self.timestamps), dtype=np.int64).view(np.float64)

    def _kept(
        self, offsets: NDArray[np.int64], total: int, timestamps: NDArray[np.int64], carriers: NDArray[np.float64]
    ) -> Samples:
        if self._plain:
            return Samples(offsets, timestamps[:total], carriers[:total])
        rows = carriers[:total].view(np.int64)
        histograms = None if self.histograms is None else self.histograms[rows]
        if histograms is not None and not histograms.here.any():
            histograms = None
        starts = None if self.start_timestamps is None else self.start_timestamps[rows]
        return Samples(offsets, timestamps[:total], self.values[rows], histograms, starts)

    def trimmed(self, cuts: NDArray[np.int64], overlapping: NDArray[np.bool_], mint: int, maxt: int) -> Samples:
        """The samples of S series in [mint, maxt], ascending and one a timestamp; takes the arrays over.

        `cuts`: int64[S + 1], series s has the runs cuts[s]:cuts[s + 1], of which the earliest wins a timestamp;
        `overlapping`: bool[S], whether they need sorting.
        """
        carriers = self._carriers()
        offsets = np.empty(len(cuts), np.int64)
        total = trim(mint, maxt, self.offsets[cuts], overlapping, self.timestamps, carriers, offsets)
        return self._kept(offsets, total, self.timestamps, carriers)

    def without_deleted(self, references: NDArray[np.int64], stones: Tombstones) -> Samples:
        """Without what the tombstones delete; `references`: of the series of each run. Takes the arrays over."""
        if not len(stones):
            return self
        carriers = self._carriers()
        offsets = self.offsets.copy()
        total = remove_deleted(
            references, stones.references, stones.mints, stones.maxts, offsets, self.timestamps, carriers
        )
        return self._kept(offsets, total, self.timestamps, carriers)


def counts_of(
    data: Data,
    sources: NDArray[np.int32],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    names: Sequence[str] = (),
) -> NDArray[np.int64]:
    """Samples of C chunks, from their headers; arguments and errors as of `decode`."""
    counts = np.empty(len(starts), np.int64)
    for source in np.unique(sources).tolist():
        rows = np.flatnonzero(sources == source)
        found = np.empty(len(rows), np.int64)
        code = chunk_counts(data[source], starts[rows], ends[rows], found)
        if code < 0:
            raise _damaged(names, source, int(starts[rows[-code - 1]]))
        counts[rows] = found
    return counts


def decode(
    data: Data,
    sources: NDArray[np.int32],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    encodings: NDArray[np.uint8],
    names: Sequence[str] = (),
) -> Samples:
    """Samples of C chunks, uncut, a run each, in the order given.

    Args:
        data: arrays of bytes (uint8).
        sources, starts, ends: int32[C], int64[C], int64[C]; chunk c is data[sources[c]][starts[c]:ends[c]], what a
            segment file has between encoding and checksum.
        encodings: uint8[C], as in the segment file.
        names: of the arrays, for errors.

    Raises `DamagedBlock`, and `UnsupportedChunks` for an encoding that is not known.
    """
    if (other := encodings != XOR).any():
        row = int(np.flatnonzero(other)[0])
        raise UnsupportedChunks(_name(names, int(sources[row])), int(encodings[row]))
    counts = counts_of(data, sources, starts, ends, names)
    offsets = np.zeros(len(starts) + 1, np.int64)
    np.cumsum(counts, out=offsets[1:])
    timestamps, values = np.empty(int(offsets[-1]), np.int64), np.empty(int(offsets[-1]), np.float64)
    for source in np.unique(sources).tolist():
        rows = np.flatnonzero(sources == source)
        code = decode_chunks(data[source], starts[rows], ends[rows], offsets[rows], timestamps, values)
        if code < 0:
            raise _damaged(names, source, int(starts[rows[-code - 1]]))
    return Samples(offsets, timestamps, values)


def _name(names: Sequence[str], source: int) -> str:
    return names[source] if source < len(names) else "chunk data"


def _damaged(names: Sequence[str], source: int, offset: int) -> DamagedBlock:
    return DamagedBlock(_name(names, source), offset, "the chunk cannot be decoded")
