"""`SeriesIndex`: every series that a head knows, its labels, and how to find it by them.

Columns only grow; what a reader has seen of them never changes, so a reader that took the arrays and counts under
the head's lock goes on without it. Series are int32 references, dense, in order of creation. A dropped
series keeps its row and its reference, but nothing finds it any more. Not thread-safe by itself.

Memory of a series with 11 labels: 44 bytes of cells, 8 of offsets, 4 of hash, about 12 of table, plus what its own
strings take (about 45 bytes for a string with its pair).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mimir_ray.encoding.hashing import hash_seeds
from mimir_ray.errors import InvalidArgument
from mimir_ray.model.labels import METRIC_NAME, LabelColumns

from . import interning
from .columns import IndexView, strings_of
from .interning import BYTES, CELLS, CREATED, LIVE, NAMES, PAIRS, SERIES, SYMBOLS

_GROWN: tuple[tuple[str, int, Any, int], ...] = (
    # name, which count says its used length, type, elements more than the count
    ("arena", BYTES, np.uint8, 0),
    ("symbol_cuts", SYMBOLS, np.int64, 1),
    ("symbol_names", SYMBOLS, np.int32, 0),
    ("pair_names", PAIRS, np.int32, 0),
    ("pair_values", PAIRS, np.int32, 0),
    ("pair_previous", PAIRS, np.int32, 0),
    ("pair_series", PAIRS, np.int32, 0),
    ("name_symbols", NAMES, np.int32, 0),
    ("name_heads", NAMES, np.int32, 0),
    ("name_pairs", NAMES, np.int32, 0),
    ("row_offsets", SERIES, np.int64, 1),
    ("cells", CELLS, np.int32, 0),
    ("series_hashes", SERIES, np.int32, 0),
    ("dropped", SERIES, np.bool_, 0),
)
_NOT_STORED = ("series_hashes",)


class MalformedLabels(InvalidArgument):
    """Label bytes that are no sequence of remote write's `Label labels = 1`."""


class SeriesIndex:
    """Symbols, pairs and series; see interning.py for what the arrays hold.

    `used[SYMBOLS]` strings are arena[symbol_cuts[i]:symbol_cuts[i + 1]]; pair p is (name id pair_names[p], symbol
    pair_values[p]) with `pair_series[p]` live series; pairs of a name are chained from `name_heads` through
    `pair_previous`; series s has the pairs cells[row_offsets[s]:row_offsets[s + 1]].
    """

    def __init__(self) -> None:
        self.seeds = hash_seeds()[:2]
        self._seeds = tuple(int(seed) for seed in self.seeds.view(np.int64))
        self.used = np.zeros(interning.USED_LENGTH, np.int64)
        self.arena: NDArray[np.uint8]
        self.symbol_cuts: NDArray[np.int64]
        self.symbol_names: NDArray[np.int32]
        self.pair_names: NDArray[np.int32]
        self.pair_values: NDArray[np.int32]
        self.pair_previous: NDArray[np.int32]
        self.pair_series: NDArray[np.int32]
        self.name_symbols: NDArray[np.int32]
        self.name_heads: NDArray[np.int32]
        self.name_pairs: NDArray[np.int32]
        self.row_offsets: NDArray[np.int64]
        self.cells: NDArray[np.int32]
        self.series_hashes: NDArray[np.int32]
        self.dropped: NDArray[np.bool_]
        for name, _, dtype, extra in _GROWN:
            setattr(self, name, np.zeros(64 + extra, dtype))
        self._new_tables()
        self._hashes = np.zeros(0, np.uint64)
        self._hashed = 0
        self._intern_metric_name()

    def __len__(self) -> int:
        """References given out, dropped ones included."""
        return int(self.used[SERIES])

    @property
    def live(self) -> int:
        return int(self.used[LIVE])

    def intern(
        self, label_bytes: Any, offsets: NDArray[np.int64], series_max: int = 0, metric_series_max: int = 0
    ) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """(references int32[R], created int32: which r are new); negative references: see interning.OVER_*.

        Raises `MalformedLabels` and has then changed nothing.
        """
        data = np.frombuffer(label_bytes, np.uint8)
        labels_max = interning.check_labels(data, offsets)
        if labels_max < 0:
            raise MalformedLabels(f"the label bytes of series {-labels_max - 1} are malformed")
        count = len(offsets) - 1
        references = np.empty(count, np.int32)
        created = np.empty(count, np.int32)
        self.used[CREATED] = 0
        at = 0
        while True:
            at = interning.intern_series(
                data, offsets, at, labels_max, series_max, metric_series_max, *self._seeds, self.used,
                self.arena, self.symbol_cuts, self.symbol_names, self.symbol_table,
                self.pair_names, self.pair_values, self.pair_previous, self.pair_series, self.pair_table,
                self.name_symbols, self.name_heads, self.name_pairs,
                self.row_offsets, self.cells, self.series_hashes, self.series_table, self.dropped,
                references, created,
            )  # fmt: skip
            if at == count:
                return references, created[: self.used[CREATED]]
            self._make_room(labels_max, int(offsets[at + 1] - offsets[at]))

    def find(self, label_bytes: Any, offsets: NDArray[np.int64]) -> NDArray[np.int32]:
        """References of series, int32[R]; -1 where there is no such series. Raises `MalformedLabels`."""
        if not self.live:
            return np.full(len(offsets) - 1, -1, np.int32)
        # As many as there are may be: a series that is not there is refused.
        return np.maximum(self.intern(label_bytes, offsets, self.live)[0], np.int32(-1))

    def _make_room(self, labels: int, size: int) -> None:
        """Grows by half whatever might not take one more series of so many labels and bytes."""
        more = {SYMBOLS: 2 * labels + 2, BYTES: size, PAIRS: labels + 1, NAMES: labels + 1, SERIES: 3, CELLS: labels}
        for name, which, dtype, extra in _GROWN:
            array = getattr(self, name)
            used = int(self.used[which]) + extra
            if used + more[which] > len(array):
                longer = np.zeros(max(len(array) * 3 // 2, used + more[which]), dtype)
                longer[:used] = array[:used]
                setattr(self, name, longer)
        if (self.used[SYMBOLS] + more[SYMBOLS]) * 3 >= 2 * len(self.symbol_table):
            self._rebuild_symbols(_table_length(int(self.used[SYMBOLS]) + more[SYMBOLS]))
        if (self.used[PAIRS] + more[PAIRS]) * 3 >= 2 * len(self.pair_table):
            self._rebuild_pairs(_table_length(int(self.used[PAIRS]) + more[PAIRS]))
        if (self.used[SERIES] + more[SERIES]) * 3 >= 2 * len(self.series_table):
            self._rebuild_series(_table_length(int(self.used[SERIES]) + more[SERIES]))

    def _new_tables(self) -> None:
        self.symbol_table = np.zeros(128, np.int32)
        self.pair_table = np.zeros(128, np.int32)
        self.series_table = np.zeros(128, np.int32)

    def _rebuild_symbols(self, length: int) -> None:
        self.symbol_table = np.zeros(length, np.int32)
        interning.rebuild_symbol_table(
            int(self.used[SYMBOLS]), *self._seeds, self.arena, self.symbol_cuts, self.symbol_table
        )

    def _rebuild_pairs(self, length: int) -> None:
        self.pair_table = np.zeros(length, np.int32)
        interning.rebuild_pair_table(
            int(self.used[PAIRS]), *self._seeds, self.arena, self.symbol_cuts,
            self.pair_names, self.pair_values, self.name_symbols, self.pair_table,
        )  # fmt: skip

    def _rebuild_series(self, length: int) -> None:
        self.series_table = np.zeros(length, np.int32)
        interning.rebuild_series_table(
            len(self), self._seeds[0], self.row_offsets, self.cells, self.dropped,
            self.series_hashes, self.series_table,
        )  # fmt: skip

    def _intern_metric_name(self) -> None:
        """Makes `__name__` name 0, by a series that is forgotten at once; its value, the empty string, is symbol 1."""
        name = METRIC_NAME.encode()
        section = b"\x0a" + bytes([len(name) + 4]) + b"\x0a" + bytes([len(name)]) + name + b"\x12\x00"
        self.intern(section, np.array([0, len(section)], np.int64))
        self.used[[SERIES, CELLS, LIVE]] = 0
        self.pair_series[0] = 0
        self.series_table[:] = 0

    # What is known

    def find_name(self, name: str) -> int:
        """The name id, or -1 where no series ever had a label of this name."""
        raw = np.frombuffer(name.encode("utf-8", "surrogatepass"), np.uint8)
        symbol = interning.find_symbol(raw, *self._seeds, self.arena, self.symbol_cuts, self.symbol_table)
        return -1 if symbol < 0 else int(self.symbol_names[symbol]) - 1

    def find_pairs(self, name: str, values: Iterable[str]) -> NDArray[np.int32]:
        """The pairs of these different values that exist, in their order."""
        raw = [value.encode("utf-8", "surrogatepass") for value in values]
        cuts = np.zeros(len(raw) + 1, np.int64)
        np.cumsum([len(one) for one in raw], out=cuts[1:])
        pairs = np.empty(len(raw), np.int32)
        count = interning.find_pairs(
            np.frombuffer(name.encode("utf-8", "surrogatepass"), np.uint8),
            np.frombuffer(b"".join(raw), np.uint8), cuts,
            *self._seeds, self.arena, self.symbol_cuts, self.pair_names, self.pair_values,
            self.name_symbols, self.pair_table, pairs,
        )  # fmt: skip
        return pairs[:count]

    def strings(self, symbols: NDArray[np.int32]) -> list[str]:
        """The text of many symbols."""
        return strings_of(symbols, self.arena, self.symbol_cuts)

    def stable_hashes(self) -> NDArray[np.uint64]:
        """uint64[series]: labels.StableHash of every series, computed once."""
        count = len(self)
        if self._hashed < count:
            if len(self._hashes) < count:
                longer = np.empty(max(count, 2 * len(self._hashes)), np.uint64)
                longer[: self._hashed] = self._hashes[: self._hashed]
                self._hashes = longer
            interning.stable_hashes(
                self._hashed, count, self.row_offsets, self.cells, self.pair_names, self.pair_values,
                self.name_symbols, self.arena, self.symbol_cuts, self._hashes,
            )  # fmt: skip
            self._hashed = count
        return self._hashes[:count]

    def labels(self, references: NDArray[np.int32]) -> LabelColumns:
        """The labels of these series, with a table of only the strings they use."""
        return self.view().labels(references)

    def view(self) -> IndexView:
        """For reading labels without the lock that guards the index."""
        return IndexView(
            self.arena, self.symbol_cuts, self.pair_names, self.pair_values, self.row_offsets, self.cells,
            self.name_symbols[: int(self.used[NAMES])], int(self.used[SYMBOLS]), int(self.used[PAIRS]),
        )  # fmt: skip

    def drop(self, references: NDArray[np.int32]) -> None:
        """Forgets these live series, each named once; their references stay used."""
        interning.drop_series(references, self.row_offsets, self.cells, self.dropped, self.pair_series)
        self.used[LIVE] -= len(references)

    @property
    def bytes(self) -> int:
        """Memory of all arrays."""
        names = [name for name, *_ in _GROWN] + ["symbol_table", "pair_table", "series_table", "_hashes"]
        return sum(getattr(self, name).nbytes for name in names)

    @property
    def symbol_bytes(self) -> int:
        """Of the strings of all labels."""
        return int(self.used[BYTES])

    # Checkpoints

    def state(self) -> dict[str, NDArray[Any]]:
        """Everything that cannot be computed again, by name. Columns that change later are copied."""
        parts = {
            f"index.{name}": getattr(self, name)[: int(self.used[which]) + extra]
            for name, which, _, extra in _GROWN
            if name not in _NOT_STORED
        }
        for name in ("pair_series", "dropped", "name_heads", "name_pairs", "symbol_names"):
            parts[f"index.{name}"] = parts[f"index.{name}"].copy()
        return parts | {"index.used": self.used.copy()}

    def restore(self, parts: dict[str, NDArray[Any]]) -> None:
        self.used = np.array(parts["index.used"])
        for name, which, dtype, extra in _GROWN:
            used = int(self.used[which]) + extra
            array = np.zeros(used + used // 8 + 64, dtype)
            if name not in _NOT_STORED:
                array[:used] = parts[f"index.{name}"]
            setattr(self, name, array)
        self._hashed = 0
        self._rebuild_symbols(_table_length(int(self.used[SYMBOLS])))
        self._rebuild_pairs(_table_length(int(self.used[PAIRS])))
        self._rebuild_series(_table_length(len(self)))


def _table_length(entries: int) -> int:
    """A power of two that so many entries fill at most half."""
    return max(128, 1 << (2 * entries - 1).bit_length())
