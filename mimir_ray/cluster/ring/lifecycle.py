"""How an instance comes into a ring, lives there and leaves: a function from (state, event, now) to (state, commands).

Upstream: dskit ring/lifecycler.go. Its states and their meaning, without its files and polling:

    start ─► PENDING ─ register ─► JOINING ─ replayed ─► ACTIVE ─ leave ─► LEAVING ─ stopped ─► out of the ring

`lifecycler.py` carries the commands out and reports back what happened.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mimir_ray.cluster.ring.model import HEARTBEAT_PERIOD_MS, InstanceDesc, InstanceState

REGISTER_PERIOD_MS = 1000
"""How soon to ask again while the ring has not confirmed the registration."""


@dataclass(frozen=True, slots=True)
class Lifecycle:
    """An instance as it sees itself.

    `registered`: the ring has confirmed it since this process started. `next_heartbeat_ms`: when the
    ring must hear of it. `finished`: it is out; nothing will be sent any more. `fenced`: because a
    newer process has taken its place.
    """

    desc: InstanceDesc
    registered: bool = False
    next_heartbeat_ms: int = 0
    finished: bool = False
    fenced: bool = False
    heartbeat_period_ms: int = HEARTBEAT_PERIOD_MS


# What happens.


@dataclass(frozen=True, slots=True)
class Started:
    """The process runs and wants in."""


@dataclass(frozen=True, slots=True, eq=False)
class Registered:
    """The ring took it, and this is how it stands there; `ring_tokens`: those of all others, any order."""

    desc: InstanceDesc
    tokens: NDArray[np.uint32]
    """The tokens to hold: those it had before, or new ones."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """All data from before the start is in memory: it can take writes."""


@dataclass(frozen=True, slots=True)
class LeaveRequested:
    """It shall stop: no more writes."""


@dataclass(frozen=True, slots=True)
class Stopped:
    """Its data is safe and its work done. `unregister`: take it out of the ring, or leave it LEAVING."""

    unregister: bool = True


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


@dataclass(frozen=True, slots=True)
class WasFenced:
    """The ring knows a newer incarnation."""


Event = Started | Registered | Replayed | LeaveRequested | Stopped | Tick | WasFenced

# What is to be done.


@dataclass(frozen=True, slots=True, eq=False)
class Register:
    """Ask the ring to take `desc`, answer with `Registered`."""

    desc: InstanceDesc


@dataclass(frozen=True, slots=True, eq=False)
class SendHeartbeat:
    """Tell the ring that it is as `desc`: carries state changes as well."""

    desc: InstanceDesc


@dataclass(frozen=True, slots=True, eq=False)
class Unregister:
    desc: InstanceDesc


@dataclass(frozen=True, slots=True)
class StopProcess:
    """The instance must not go on: another one has its id."""


Command = Register | SendHeartbeat | Unregister | StopProcess


def advance(state: Lifecycle, event: Event, now_ms: int) -> tuple[Lifecycle, list[Command]]:
    """What the instance becomes, and what its shell has to do for it. Events that come too late change nothing."""
    if state.finished:
        return state, []
    match event:
        case Started():
            return _beat(replace(state, desc=state.desc.with_state(InstanceState.PENDING)), now_ms, register=True)
        case Registered(desc=desc, tokens=tokens):
            joined = replace(
                state.desc,
                tokens=tokens,
                registered_ms=desc.registered_ms,
                state=_after_registration(state.desc.state),
            )
            return _beat(replace(state, desc=joined, registered=True), now_ms)
        case Replayed() if state.desc.state in (InstanceState.PENDING, InstanceState.JOINING):
            return _become(state, InstanceState.ACTIVE, now_ms)
        case LeaveRequested() if state.desc.state is not InstanceState.LEAVING:
            return _become(state, InstanceState.LEAVING, now_ms)
        case Stopped(unregister=unregister):
            done = replace(state, desc=state.desc.with_state(InstanceState.LEAVING), finished=True)
            return done, [Unregister(done.desc) if unregister else SendHeartbeat(done.desc)]
        case Tick() if now_ms >= state.next_heartbeat_ms:
            return _beat(state, now_ms, register=not state.registered)
        case WasFenced():
            return replace(state, finished=True, fenced=True), [StopProcess()]
        case _:
            return state, []


def _after_registration(state: InstanceState) -> InstanceState:
    return InstanceState.JOINING if state is InstanceState.PENDING else state


def _become(state: Lifecycle, to: InstanceState, now_ms: int) -> tuple[Lifecycle, list[Command]]:
    changed = replace(state, desc=state.desc.with_state(to))
    return _beat(changed, now_ms) if state.registered else (changed, [])


def _beat(state: Lifecycle, now_ms: int, register: bool = False) -> tuple[Lifecycle, list[Command]]:
    period_ms = min(REGISTER_PERIOD_MS, state.heartbeat_period_ms) if register else state.heartbeat_period_ms
    later = replace(state, next_heartbeat_ms=now_ms + period_ms)
    return later, [Register(later.desc) if register else SendHeartbeat(later.desc)]
