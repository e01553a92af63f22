"""When a compactor does what: a function from (schedule, event, now) to (schedule, commands).

It first waits until the ring has it and has not changed for a while. Then: the first clean-up and the first compaction
at once; the next ones when their intervals are over, or as soon as the one before has ended, if that takes longer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from .config import CompactorConfig


class Work(str, Enum):
    """What can be begun."""

    COMPACT = "compact"
    CLEAN_UP = "clean up"
    LOOK_FOR_BLOCKS = "look for blocks"


@dataclass(frozen=True, slots=True)
class RingSeen:
    """The ring as it is: its version, and whether this compactor is ACTIVE in it."""

    version: int
    active: bool


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed. `jitter`: in [-1, 1], drawn anew each time."""

    jitter: float = 0.0


@dataclass(frozen=True, slots=True)
class Ended:
    """A work that was begun has ended, however."""

    work: Work


Event = RingSeen | Tick | Ended


@dataclass(frozen=True, slots=True)
class Schedule:
    """`began_ms`: when it first waited; `ring_since_ms`: since when the ring is as it is; `due_ms`: of each work;
    `running`: what has begun and not ended."""

    config: CompactorConfig
    began_ms: int
    version: int = -1
    ring_since_ms: int = 0
    active: bool = False
    ready: bool = False
    due_ms: tuple[tuple[Work, int], ...] = ()
    running: frozenset[Work] = frozenset()

    @property
    def waits(self) -> str:
        """What it waits for before it begins; "" once it has begun."""
        if self.ready:
            return ""
        return "waits until the ring is stable" if self.active else "waits for the ring"


def advance(state: Schedule, event: Event, now_ms: int) -> tuple[Schedule, list[Work]]:
    """The new schedule and what is to be begun. Works run side by side, each once at a time."""
    match event:
        case RingSeen(version=version, active=active):
            changed = version != state.version
            since = now_ms if changed else state.ring_since_ms
            return replace(state, version=version, active=active, ring_since_ms=since), []
        case Ended(work=work):
            return replace(state, running=state.running - {work}), []
        case Tick(jitter=jitter):
            if not state.ready:
                if not _ring_is_stable(state, now_ms):
                    return state, []
                # The first clean-up makes the bucket index; compactions need not wait for it.
                state = replace(state, ready=True, due_ms=tuple((work, now_ms) for work in Work))
            due = [work for work, at in state.due_ms if at <= now_ms and work not in state.running]
            later = tuple(
                (work, now_ms + _interval_ms(state.config, work, jitter) if work in due else at)
                for work, at in state.due_ms
            )
            return replace(state, due_ms=later, running=state.running | set(due)), due


def _ring_is_stable(state: Schedule, now_ms: int) -> bool:
    ring = state.config.sharding_ring
    if not state.active:
        return False
    if ring.wait_stability_min_duration.ms <= 0:
        return True
    return (
        now_ms - state.ring_since_ms >= ring.wait_stability_min_duration.ms
        or now_ms - state.began_ms >= ring.wait_stability_max_duration.ms
    )


def _interval_ms(config: CompactorConfig, work: Work, jitter: float) -> int:
    """Upstream spreads compactions by 5 % and clean-ups by 10 %, so that compactors do not run in step."""
    if work is Work.COMPACT:
        return int(config.compaction_interval.ms * (1 + 0.05 * jitter))
    if work is Work.CLEAN_UP:
        return int(config.cleanup_interval.ms * (1 + 0.1 * jitter))
    return int(config.new_block_check_interval.ms * (1 + 0.1 * jitter))
