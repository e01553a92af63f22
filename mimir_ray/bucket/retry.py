"""Doing one thing at object storage until it is done, refused, or our patience is at an end."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import structlog

from mimir_ray.clock import Clock, SystemClock

from .config import OperationsConfig
from .store import BucketUnavailable

log = structlog.get_logger(__name__)

Result = TypeVar("Result")


class PassingFailure(Exception):
    """One attempt failed for a reason that may pass; the text is the reason."""


def _ignore(_operation: str) -> None:
    """Of a retry, where nobody counts them."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Attempts with pauses that double, each with jitter. `retried`: told of every attempt after the first."""

    config: OperationsConfig
    clock: Clock = field(default_factory=SystemClock)
    random: Callable[[], float] = random.random
    retried: Callable[[str], None] = _ignore

    def run(self, operation: str, key: str, attempt: Callable[[], Result]) -> Result:
        """What `attempt` returns in the end.

        It raises `PassingFailure` to be called again; once it was called 1 + `max_retries` times that becomes
        `BucketUnavailable`. Whatever else it raises is final.
        """
        done = 0
        while True:
            try:
                return attempt()
            except PassingFailure as error:
                if done >= self.config.max_retries:
                    after = f" (after {done + 1} attempts)" if done else ""
                    raise BucketUnavailable(operation, key, f"{error}{after}") from None
                log.debug("object storage is asked again", operation=operation, key=key, attempt=done, error=str(error))
            self.retried(operation)
            self.clock.sleep(self.pause_s(done))
            done += 1

    def pause_s(self, done: int) -> float:
        """Before the retry after `done` others: half of the doubled pause at least, all of it at most."""
        full = min(self.config.max_backoff.seconds, self.config.min_backoff.seconds * 2.0 ** min(done, 60))
        return full * (0.5 + 0.5 * self.random())
