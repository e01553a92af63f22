"""`Preparing`: the process that loads everything while `serve` still reads its settings and starts Ray.

Next to nothing is imported here, so that nothing comes before its start.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from types import TracebackType

from mimir_ray.deploy.environment import MALLOC


class Preparing:
    """Runs prepare.py, from entering to leaving."""

    def __enter__(self) -> Preparing:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mimir_ray.deploy.prepare"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for us to handle, we end it
            env={**MALLOC, **os.environ},
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self.process:
            self.end()

    def write(self, line: str) -> bool:
        """Whether the process was there to read it."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(f"{line}\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return False
        return True

    def last_words(self) -> str:
        """The last line of what it complained of, once it has ended or closed its streams."""
        lines = (self.process.stderr.read() if self.process.stderr else "").strip().splitlines()
        return lines[-1] if lines else f"exit status {self.process.wait()}"

    def end(self) -> None:
        """And what it has forked, but for workers, which have sessions of their own and end with Ray."""
        if self.process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
