"""A progress bar for people who wait at a terminal."""

from __future__ import annotations

import sys
from typing import TextIO

_WIDTH = 30


class Bar:
    """`bar(done, total)` draws it anew where a tenth of a percent was done; `close()` takes it away.

    Nothing is written where nobody looks: to anything but a terminal.
    """

    def __init__(self, label: str, out: TextIO | None = None) -> None:
        self._label = label
        self._out = out or sys.stderr
        self._shown = -1

    def __call__(self, done: int, total: int) -> None:
        per_mille = 1000 * done // total if total else 1000
        if per_mille == self._shown or not self._out.isatty():
            return
        self._shown = per_mille
        filled = "█" * (_WIDTH * per_mille // 1000)
        self._out.write(f"\r{self._label} {filled:░<{_WIDTH}} {per_mille / 10:5.1f} %")
        self._out.flush()

    def close(self) -> None:
        if self._shown >= 0:
            self._out.write("\r\033[K")
            self._out.flush()
            self._shown = -1
