"""The replication factor that follows the ingesters that there are: (state, what happened, now) → state. Pure.

A sample that was acknowledged is at as many machines (zones, in a zone-aware ring) as the quorum of the factor that its
write went by. A read may leave out as many as the weakest of those quorums allows, and one fewer where a copy was lost.
So a change towards one copy is first announced to readers, and writes follow when every reader has heard of it; old
factors count until no ingester has samples that are nowhere else (docs/decisions/0017).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from mimir_ray.cluster.ring.model import InstanceDesc, InstanceState, Loss, Period, Replication

FACTOR_MAX = 3
READER_AGE_S = 60.0
"""A reader whose view of the ring is older than this leaves nobody out: it may not have heard of what is announced.

A ring that was lost with its machine is back sooner."""
ANNOUNCE_MS = 75_000
"""From an announcement until writes act on it: `READER_AGE_S`, the longest way of an answer (5 s), and a while."""
WRITER_AGE_S = 1800.0
"""A writer whose view is older than this refuses: its factor may be of another time."""
MARGIN_MS = 3_600_000
"""Added to the look-back: for writers that hear late of a change."""
PERIODS_MAX = 32


@dataclass(frozen=True, slots=True)
class AutomaticFactor:
    """`planned`: machines, or zones, with ingesters that the deployment starts with. `lookback_ms`: for how long
    ingesters keep samples that may be nowhere else."""

    planned: int = 1
    zone_aware: bool = False
    lookback_ms: int = 13 * 3_600_000

    @property
    def kept_ms(self) -> int:
        return self.lookback_ms + MARGIN_MS


def begin(policy: AutomaticFactor, now_ms: int, settle_ms: int, used: bool) -> Replication:
    """Of a ring without a history. `settle_ms`: within this time all who are there will have spoken up. `used`: whether
    there are samples from before."""
    factor = min(FACTOR_MAX, max(1, policy.planned))
    state = Replication(factor, now_ms, settled_ms=now_ms + settle_ms, blank_ms=now_ms)
    return _suspect(state) if used else state


def follow(
    state: Replication, instances: Collection[InstanceDesc], policy: AutomaticFactor, timeout_ms: int, now_ms: int
) -> Replication:
    """To be asked after every change, and every few seconds.

    More copies as soon as there are machines with ingesters that take writes; fewer only when ingesters leave: one that
    is unhealthy or starts again is still there.
    """
    state = _within_lookback(state, policy, now_ms)
    counted = [one for one in instances if not one.read_only and one.id not in state.leaving]
    there = {one.domain(policy.zone_aware) for one in counted}
    taking = {
        one.domain(policy.zone_aware)
        for one in counted
        if one.state is InstanceState.ACTIVE and one.heartbeat_within(timeout_ms, now_ms)
    }
    if len(there) >= state.factor and now_ms < state.settled_ms:
        state = replace(state, settled_ms=now_ms)  # all have come that it was waited for
    target = state.factor
    if len(taking) > target:
        target = min(FACTOR_MAX, len(taking))
    elif there and now_ms >= state.settled_ms:
        target = min(target, len(there))
    if target // 2 >= state.factor // 2:
        return _change(state, target, now_ms)
    if state.announced != target:
        return replace(state, announced=target, announced_ms=now_ms + ANNOUNCE_MS)
    return _change(state, target, now_ms) if now_ms >= state.announced_ms else state


def arrived(
    state: Replication, before: InstanceDesc | None, one: InstanceDesc, policy: AutomaticFactor, now_ms: int
) -> Replication:
    """An instance says how it is. `before`: how it was in the ring."""
    if before is None:
        if _never_wrote(one):
            return state
        kept = tuple(loss for loss in state.lost if loss.instance != one.id or not loss.removed)
        if len(kept) < len(state.lost):
            return replace(state, lost=kept)  # it was out for a while, and is back with its samples
        return _suspect(state) if state.blank_ms else state
    emptied = one.empty and one.incarnation > before.incarnation and not _never_wrote(before)
    moved = one.domain(policy.zone_aware) != before.domain(policy.zone_aware) and not _never_wrote(before)
    return _lose(state, Loss(one.id, now_ms, removed=False)) if emptied or moved else state


def removed(state: Replication, one: InstanceDesc, policy: AutomaticFactor, now_ms: int) -> Replication:
    """An instance is out of the ring: its samples are lost, unless they are elsewhere."""
    idle = one.read_only and now_ms - one.read_only_updated_ms >= policy.kept_ms
    elsewhere = one.id in state.drained or idle or _never_wrote(one)
    state = replace(state, leaving=state.leaving - {one.id}, drained=state.drained - {one.id})
    return state if elsewhere else _lose(state, Loss(one.id, now_ms, removed=True))


def recalled(state: Replication, known: Replication, now_ms: int, settle_ms: int) -> Replication:
    """A watcher tells a ring that lost its memory what it knew. Several may; the same twice changes nothing."""
    weakest = min(known.factor, known.announced or known.factor)
    until = state.blank_ms or state.since_ms
    last = (Period(weakest, known.since_ms, until),) if known.since_ms < until else ()
    own = [one for one in state.past if one.since_ms or not state.blank_ms]
    if known.factor > state.factor:
        own.append(Period(state.factor, state.since_ms, now_ms))
    past = sorted({*known.past, *last, *own}, key=lambda one: (one.until_ms, one.since_ms, one.factor))
    return replace(
        state,
        factor=max(state.factor, known.factor),
        since_ms=now_ms if known.factor > state.factor else state.since_ms,
        past=_bounded(past),
        lost=tuple(sorted({*known.lost, *state.lost}, key=lambda one: (one.at_ms, one.instance))),
        leaving=state.leaving | known.leaving,
        drained=state.drained | known.drained,
        settled_ms=now_ms + settle_ms if state.blank_ms else state.settled_ms,
        blank_ms=0,
    )


def _lose(state: Replication, loss: Loss) -> Replication:
    """Of several of one kind and instance the last one tells for how long it matters."""
    others = (one for one in state.lost if (one.instance, one.removed) != (loss.instance, loss.removed))
    return replace(state, lost=(*others, loss))


def _never_wrote(one: InstanceDesc) -> bool:
    """Whether it has not taken a write since it started with an empty disk."""
    return one.empty and one.state in (InstanceState.PENDING, InstanceState.JOINING)


def _suspect(state: Replication) -> Replication:
    """There are samples from before the ring's memory: with a copy each, for all that is known."""
    unknown = Period(1, 0, state.blank_ms)
    return state if unknown in state.past else replace(state, past=(unknown, *state.past))


def _change(state: Replication, factor: int, now_ms: int) -> Replication:
    if factor == state.factor:
        return replace(state, announced=0, announced_ms=0) if state.announced else state
    past = [*state.past, Period(state.factor, state.since_ms, now_ms)]
    return replace(state, factor=factor, since_ms=now_ms, past=_bounded(past), announced=0, announced_ms=0)


def _bounded(past: list[Period]) -> tuple[Period, ...]:
    """No more than `PERIODS_MAX`; the oldest ones become one, with the weakest factor of them."""
    while len(past) > PERIODS_MAX:
        one, other = past[0], past[1]
        both = Period(
            min(one.factor, other.factor), min(one.since_ms, other.since_ms), max(one.until_ms, other.until_ms)
        )
        past = [both, *past[2:]]
    return tuple(past)


def _within_lookback(state: Replication, policy: AutomaticFactor, now_ms: int) -> Replication:
    since_ms = now_ms - policy.kept_ms
    past = tuple(one for one in state.past if one.until_ms >= since_ms)
    lost = tuple(one for one in state.lost if one.at_ms >= since_ms)
    if len(past) == len(state.past) and len(lost) == len(state.lost):
        return state
    return replace(state, past=past, lost=lost)
