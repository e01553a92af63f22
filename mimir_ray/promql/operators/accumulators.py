"""Accumulators of aggregations: [groups, steps] arrays into which batches are folded.

An accumulator grows with the number of groups. Those in `MERGEABLE` can also take in what others held
(`state`, `merge`), for work done in several places.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mimir_ray.promql.kernels import aggregations as kernels

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Codes = NDArray[np.int32]


class Accumulator:
    """Arrays [capacity, T] named by the subclass; the first `groups` rows are in use."""

    floats: ClassVar[tuple[str, ...]] = ()
    flags: ClassVar[tuple[str, ...]] = ()

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self.groups = 0
        self._capacity = 0
        for name in (*self.floats, *self.flags):
            setattr(self, name, np.zeros((0, steps), np.float64 if name in self.floats else np.bool_))

    def grow(self, groups: int) -> None:
        """Makes room for this many groups; new ones are empty."""
        self.groups = max(self.groups, groups)
        if groups <= self._capacity:
            return
        capacity = groups if not self._capacity else max(groups, 2 * self._capacity)
        for name in (*self.floats, *self.flags):
            old = getattr(self, name)
            new = np.zeros((capacity, self._steps), old.dtype)
            new[: len(old)] = old
            setattr(self, name, new)
        self._capacity = capacity

    def fold(self, values: Floats, present: Flags, groups: Codes) -> None:
        """Adds series: values and present [S, T], groups int32[S] (all below what `grow` was told)."""
        raise NotImplementedError

    def result(self) -> tuple[Floats, Flags]:
        """(values, present), [groups, T]."""
        raise NotImplementedError

    def state(self) -> tuple[NDArray[np.generic], ...]:
        """What it holds: its arrays, [groups, T] each."""
        return tuple(np.ascontiguousarray(self._used(name)) for name in (*self.floats, *self.flags))

    def merge(self, state: tuple[NDArray[Any], ...], groups: Codes) -> None:
        """Takes in what another one held (`state`); groups int32[R] says which groups its rows are."""
        raise NotImplementedError

    def _used(self, name: str) -> NDArray[np.float64]:
        return getattr(self, name)[: self.groups]  # type: ignore[no-any-return]


class Sum(Accumulator):
    floats = ("total", "rest")
    flags = ("seen",)
    total: Floats
    rest: Floats
    seen: Flags

    def fold(self, values: Floats, present: Flags, groups: Codes) -> None:
        kernels.fold_sum(values, present, groups, self.total, self.rest, self.seen)

    def result(self) -> tuple[Floats, Flags]:
        return self._used("total") + self._used("rest"), self.seen[: self.groups]

    def merge(self, state: tuple[NDArray[Any], ...], groups: Codes) -> None:
        kernels.merge_sum(groups, self.total, self.rest, self.seen, *state)


class Count(Accumulator):
    floats = ("counts",)
    counts: Floats

    def fold(self, values: Floats, present: Flags, groups: Codes) -> None:
        kernels.fold_count(present, groups, self.counts)

    def result(self) -> tuple[Floats, Flags]:
        counts = self._used("counts")
        return counts, counts > 0

    def merge(self, state: tuple[NDArray[Any], ...], groups: Codes) -> None:
        np.add.at(self.counts, groups, state[0])


class Group(Accumulator):
    """1 wherever a group has a series."""

    flags = ("seen",)
    seen: Flags

    def fold(self, values: Floats, present: Flags, groups: Codes) -> None:
        kernels.fold_presence(present, groups, self.seen)

    def result(self) -> tuple[Floats, Flags]:
        seen = self.seen[: self.groups]
        return np.ones(seen.shape), seen

    def merge(self, state: tuple[NDArray[Any], ...], groups: Codes) -> None:
        kernels.fold_presence(state[0], groups, self.seen)


class Extreme(Accumulator):
    floats = ("best",)
    flags = ("seen",)
    best: Floats
    seen: Flags
    largest: ClassVar[bool]

    def fold(self, values: Floats, present: Flags, groups: Codes) -> None:
        kernels.fold_extreme(values, present, groups, self.largest, self.best, self.seen)

    def result(self) -> tuple[Floats, Flags]:
        return self._used("best"), self.seen[: self.groups]

    def merge(self, state: tuple[NDArray[Any], ...], groups: Codes) -> None:
        best, seen = state
        kernels.fold_extreme(best, seen, groups, self.largest, self.best, self.seen)


class Min(Extreme):
    largest = False


class Max(Extreme):
    largest = True


class Mean(Accumulator):
    floats = ("total", "rest", "mean", "counts")
    flags = ("incremental",)
    total: Floats
    rest: Floats
    mean: Floats
    counts: Floats
    incremental: Flags

    def fold(self, values: Floats, present: Flags, groups: Codes) -> None:
        kernels.fold_mean(values, present, groups, self.total, self.rest, self.mean, self.counts, self.incremental)

    def result(self) -> tuple[Floats, Flags]:
        out = np.empty((self.groups, self._steps), np.float64)
        kernels.finish_mean(*self.state(), out)
        return out, self._used("counts") > 0

    def merge(self, state: tuple[NDArray[Any], ...], groups: Codes) -> None:
        kernels.merge_mean(groups, self.total, self.rest, self.mean, self.counts, self.incremental, *state)


class Variance(Accumulator):
    floats = ("mean", "squares", "counts")
    mean: Floats
    squares: Floats
    counts: Floats
    root: ClassVar[bool] = False

    def fold(self, values: Floats, present: Flags, groups: Codes) -> None:
        kernels.fold_variance(values, present, groups, self.mean, self.squares, self.counts)

    def result(self) -> tuple[Floats, Flags]:
        counts = self._used("counts")
        with np.errstate(all="ignore"):
            variance = self._used("squares") / counts
            return (np.sqrt(variance) if self.root else variance), counts > 0


class Deviation(Variance):
    root = True


ACCUMULATORS: dict[str, type[Accumulator]] = {
    "sum": Sum,
    "avg": Mean,
    "min": Min,
    "max": Max,
    "count": Count,
    "group": Group,
    "stddev": Deviation,
    "stdvar": Variance,
}

MERGEABLE = frozenset(("sum", "avg", "min", "max", "count", "group"))
"""Aggregations that can be put together from parts."""
