"""Chunks that lie in memory, wherever they came from, to samples: of mapped segments and of ranged reads alike.

`decode` knows all encodings; `Samples.trimmed` and `Samples.without_deleted` do what readers of a block do next.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mimir_ray.model.histogram import HistogramPart
from mimir_ray.tsdb.chunks.histogram import FLOAT_HISTOGRAM_ST, HISTOGRAM_ST, ST_COUNT_MASK, HistogramsMade
from mimir_ray.tsdb.chunks.xor import chunk_counts, decode_chunks
from mimir_ray.tsdb.chunks.xor2 import XOR2, decode_xor2
from mimir_ray.tsdb.head.reading import trim

from .chunk_files import XOR
from .chunk_table import Data
from .errors import DamagedBlock, UnsupportedChunks
from .tombstones import Tombstones, remove_deleted


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

    def take(self, rows: NDArray[np.int64], offsets: NDArray[np.int64]) -> Samples:
        """These samples, cut into runs by new offsets."""
        return Samples(
            offsets,
            self.timestamps[rows],
            self.values[rows],
            None if self.histograms is None else self.histograms[rows],
            None if self.start_timestamps is None else self.start_timestamps[rows],
        )

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
    encodings: NDArray[np.uint8],
    names: Sequence[str] = (),
) -> NDArray[np.int64]:
    """Samples of C chunks, from their headers; arguments and errors as of `decode`."""
    counts = np.empty(len(starts), np.int64)
    chunks = _Chunks(data, sources, starts, ends, encodings, names)
    for source, rows in chunks.by_source(np.ones(len(starts), np.bool_)):
        found = np.empty(len(rows), np.int64)
        chunks.check(chunk_counts(data[source], starts[rows], ends[rows], found), source, rows)
        counts[rows] = found
    counts[encodings >= HISTOGRAM_ST] &= ST_COUNT_MASK
    # No encoding has a sample in less than a bit; what a header claims beyond that must not cost memory.
    claiming = np.flatnonzero(counts > 8 * (ends - starts))
    if len(claiming):
        chunks.check(-1, int(sources[claiming[0]]), claiming)
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
    known = (encodings >= XOR) & (encodings <= FLOAT_HISTOGRAM_ST)
    if not known.all():
        row = int(np.flatnonzero(~known)[0])
        raise UnsupportedChunks(name_of(names, int(sources[row])), int(encodings[row]))
    counts = counts_of(data, sources, starts, ends, encodings, names)
    offsets = np.zeros(len(starts) + 1, np.int64)
    np.cumsum(counts, out=offsets[1:])
    total = int(offsets[-1])
    samples = Samples(offsets, np.empty(total, np.int64), np.empty(total, np.float64))
    chunks = _Chunks(data, sources, starts, ends, encodings, names)
    if (encodings >= XOR2).any():
        start_timestamps = samples.start_timestamps = np.zeros(total, np.int64)
        for source, rows in chunks.by_source(encodings == XOR2):
            code = decode_xor2(
                data[source], starts[rows], ends[rows], offsets[rows],
                samples.timestamps, samples.values, start_timestamps,
            )  # fmt: skip
            chunks.check(code, source, rows)
    for source, rows in chunks.by_source(encodings == XOR):
        code = decode_chunks(data[source], starts[rows], ends[rows], offsets[rows], samples.timestamps, samples.values)
        chunks.check(code, source, rows)
    histograms = (encodings != XOR) & (encodings != XOR2)
    if histograms.any():
        samples.histograms = _histograms(chunks, histograms, counts, samples)
    return samples


@dataclass(frozen=True, slots=True)
class _Chunks:
    """The arguments of `decode`."""

    data: Data
    sources: NDArray[np.int32]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    encodings: NDArray[np.uint8]
    names: Sequence[str]

    def by_source(self, chosen: NDArray[np.bool_]) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """(array, chunks in it) of the chosen chunks."""
        for source in np.unique(self.sources[chosen]).tolist():
            yield source, np.flatnonzero(chosen & (self.sources == source))

    def check(self, code: int, source: int, rows: NDArray[np.int64]) -> None:
        """Raises for what a kernel said about these chunks."""
        if code < 0:
            offset = int(self.starts[rows[-code - 1]])
            raise DamagedBlock(name_of(self.names, source), offset, "the chunk cannot be decoded")


def _histograms(
    chunks: _Chunks, chosen: NDArray[np.bool_], counts: NDArray[np.int64], samples: Samples
) -> HistogramPart | None:
    """Decodes the chosen chunks, which are of histograms, into the samples."""
    made = HistogramsMade()
    for source, rows in chunks.by_source(chosen):
        chunks.check(made.measure(chunks.data[source], chunks.starts[rows], chunks.ends[rows]), source, rows)
    made.reserve(int(counts[chosen].sum()), int(chosen.sum()))
    which = np.full(len(samples.timestamps), -1, np.int32)
    start_timestamps = samples.start_timestamps
    if start_timestamps is None:
        start_timestamps = np.empty(0, np.int64)
    for source, rows in chunks.by_source(chosen):
        code = made.decode(
            chunks.data[source], chunks.starts[rows], chunks.ends[rows], chunks.encodings[rows],
            samples.offsets[rows], samples.timestamps, samples.values, start_timestamps, which,
        )  # fmt: skip
        chunks.check(code, source, rows)
    sums = np.empty(int(which.max()) + 1 if len(which) else 0, np.float64)
    sums[which[which >= 0]] = samples.values[which >= 0]
    return HistogramPart(which, made.columns(sums)) if len(sums) else None


def name_of(names: Sequence[str], source: int) -> str:
    """Of an array of bytes, for errors."""
    return names[source] if source < len(names) else "chunk data"
