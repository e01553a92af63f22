"""Listens to kernels while something runs, and calls each again with the largest arguments that it was given."""

from __future__ import annotations

import gc
import importlib
import time
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from mimir_ray.kernel import REGISTRY, kernel_modules


@dataclass(slots=True)
class Call:
    """The largest call of one kernel. `writable`: which arguments are written to, by position."""

    kernel: Callable[..., Any]
    arguments: tuple[Any, ...]
    elements: int
    calls: int = 1
    took_s: float = 0.0
    """CPU seconds of the call itself."""

    @classmethod
    def of(cls, kernel: Any, arguments: tuple[Any, ...]) -> Call:
        copies = tuple(one.copy() if isinstance(one, np.ndarray) else one for one in arguments)
        return cls(kernel, copies, size_of(arguments))

    def seconds(self, budget_s: float = 0.05) -> float:
        """CPU seconds of the fastest call; what it writes to is put back each time."""
        (signature,) = self.kernel.nopython_signatures  # type: ignore[attr-defined]
        written = [not getattr(kind, "readonly", True) for kind in signature.args[: len(self.arguments)]]
        best = float("inf")
        spent = 0.0
        rounds = 0
        while rounds < 3 or (spent < budget_s and rounds < 200):
            arguments = tuple(
                one.copy() if isinstance(one, np.ndarray) and change else one
                for one, change in zip(self.arguments, written, strict=True)
            )
            began = time.thread_time()
            self.kernel(*arguments)
            took = time.thread_time() - began
            best, spent, rounds = min(best, took), spent + took, rounds + 1
        return best

    @property
    def bytes(self) -> int:
        return sum(one.nbytes for one in self.arguments if isinstance(one, np.ndarray))


def size_of(arguments: tuple[Any, ...]) -> int:
    """Of the largest array: how many elements a kernel has to do with, more or less."""
    return max((one.size for one in arguments if isinstance(one, np.ndarray) and one.size), default=1)


def every_kernel() -> tuple[tuple[str, Any], ...]:
    """All kernels, compiled, with their names below the package."""
    for name in kernel_modules():
        importlib.import_module(name)
    for kernel in list(REGISTRY.values()):
        kernel.compile_now()
    return tuple((name.removeprefix("mimir_ray."), kernel) for name, kernel in sorted(REGISTRY.items()))


class _Ear:
    """Stands in for a kernel."""

    __slots__ = ("_heard", "_kernel", "_name")

    def __init__(self, name: str, kernel: Any, heard: dict[str, Call]) -> None:
        self._name, self._kernel, self._heard = name, kernel, heard

    def __call__(self, *arguments: Any) -> Any:
        before = self._heard.get(self._name)
        if before is None or size_of(arguments) > before.elements:
            self._heard[self._name] = Call.of(self._kernel, arguments)
            self._heard[self._name].calls += before.calls if before else 0
        else:
            before.calls += 1
        began = time.thread_time()
        result = self._kernel(*arguments)
        heard = self._heard[self._name]
        if heard is not before:
            heard.took_s = time.thread_time() - began
        return result


@contextmanager
def listening(kernels: tuple[tuple[str, Any], ...], heard: dict[str, Call]) -> Iterator[None]:
    """Notes the largest call of each kernel in `heard`.

    Whoever holds a kernel (modules, tables, closures) holds its ear meanwhile; kernels call each other directly, so of
    those that only kernels call nothing is heard.
    """
    ears = [(kernel, _Ear(name, kernel, heard)) for name, kernel in kernels]
    for kernel, ear in ears:
        _replace(kernel, ear)
    try:
        yield
    finally:
        for kernel, ear in ears:
            _replace(ear, kernel)


def _replace(old: Any, new: Any) -> None:
    for holder in gc.get_referrers(old):
        if isinstance(holder, dict) and holder is not REGISTRY:
            for key, value in list(holder.items()):
                if value is old:
                    holder[key] = new
        elif isinstance(holder, list):
            for at, value in enumerate(holder):  # a comprehension would be one more holder
                if value is old:
                    holder[at] = new
        elif isinstance(holder, types.CellType):
            holder.cell_contents = new
