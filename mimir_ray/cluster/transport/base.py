"""What a caller sees of another role: a `Client`, whatever carries the call.

Results arrive pickled: arrays are read-only and belong to the caller. Methods that return an iterator
arrive as a list. An error that the remote class raises is raised here, as itself. `Unavailable` (its
kind `PeerUnavailable`) means that nobody answered; the call may or may not have run. Clients try again
by themselves until the deadline, so every remote method must bear being called twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from mimir_ray.errors import Unavailable

NAMESPACE = "mimir-ray"
"""The Ray namespace of all our actors."""
DEFAULT_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """Which instance of which role."""

    role: str
    instance: str

    @property
    def actor_name(self) -> str:
        return f"{self.role}/{self.instance}"

    @classmethod
    def parse(cls, actor_name: str) -> Address:
        """The inverse of `actor_name`. Raises ValueError."""
        role, slash, instance = actor_name.partition("/")
        if not (role and slash and instance):
            raise ValueError(f"not an address: {actor_name!r}")
        return cls(role, instance)


RING = Address("ring", "0")
CONTROLLER = Address("controller", "0")


@dataclass(eq=False)
class PeerUnavailable(Unavailable):
    """Nobody answered a call: dead, not there yet, or not reached."""

    peer: str
    method: str
    reason: str

    def describe(self) -> str:
        return f"{self.peer} did not answer {self.method}: {self.reason}"


@dataclass(eq=False)
class NoSuchPeer(PeerUnavailable):
    """There is no actor of that name: not made yet, or ended for good."""


@dataclass(eq=False)
class PeerTimeout(PeerUnavailable):
    """No answer in time; the call may still run."""


class Client(Protocol):
    """Calls one instance."""

    @property
    def peer(self) -> str:
        """The actor's name."""

    def call(self, method: str, *args: Any, timeout_s: float | None = None) -> Any:
        """Blocks the calling thread. `timeout_s` covers all attempts; None is the client's own default."""

    def begin(self, method: str, *args: Any, timeout_s: float | None = None) -> Pending:
        """Begins a call and does not wait: one thread can have several under way."""

    async def acall(self, method: str, *args: Any, timeout_s: float | None = None) -> Any:
        """The same for asyncio. Cancelling the awaiting task gives up on the answer, not on the call."""


class Pending(Protocol):
    """A call that is under way."""

    def ready(self, within_s: float) -> bool:
        """Whether `result` has something to say by then: an answer, or that there will be none."""

    def result(self) -> Any:
        """Its answer, within the time that it was begun with; tried again as `call` does. Once only."""


class Transport(Protocol):
    """Makes clients."""

    def client(self, address: Address | str) -> Client:
        """For an address or an actor's name (as in `InstanceDesc.address`); cheap, looks nobody up yet."""


@dataclass(frozen=True, slots=True)
class Retry:
    """How often and how fast to try again when nobody answers: 50, 100, 200, 400, 800, 1000, 1000, … ms."""

    attempts_max: int = 20
    first_pause_s: float = 0.05
    pause_max_s: float = 1.0

    def pause_s(self, attempt: int) -> float:
        """How long to wait after attempt 0, 1, …"""
        return min(self.pause_max_s, self.first_pause_s * 2.0 ** min(attempt, 30))


NO_RETRY = Retry(attempts_max=1)


def name_of(address: Address | str) -> str:
    return address.actor_name if isinstance(address, Address) else address
