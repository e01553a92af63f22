"""`RingWatcher`: the newest view of some rings, held locally by whoever needs to look owners up."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

import structlog

from mimir_ray.clock import Clock
from mimir_ray.cluster.ring.lookup import RingOptions, RingView
from mimir_ray.cluster.ring.model import InstanceDesc, RingDesc, RingName
from mimir_ray.cluster.transport.base import Client
from mimir_ray.errors import Unavailable

log = structlog.get_logger(__name__)

POLL_S = 10.0
"""How long one poll waits at the ring: also how old heartbeats in a view may get."""
ANSWER_MARGIN_S = 5.0
PAUSE_S = 0.5


class RingWatcher:
    """Polls the ring actor in a thread, publishes `RingView`s. Reading is lock-free and never blocks.

    Survives the ring's death: the last views stay, `age_s` grows, and the next answer replaces them, from
    whatever version it is.
    """

    def __init__(
        self,
        client: Client,
        options: Mapping[RingName, RingOptions],
        clock: Clock,
        poll_s: float = POLL_S,
        on_change: Callable[[RingView], None] | None = None,
    ) -> None:
        """`options`: the rings to watch, and how to read each. `on_change` is called in the watcher's thread,
        for each new version."""
        self._client = client
        self._options = dict(options)
        self._clock = clock
        self._poll_s = poll_s
        self._on_change = on_change
        self._views: dict[RingName, RingView] = {
            ring: RingView(RingDesc(ring, version=-1), how) for ring, how in self._options.items()
        }
        self._answered_s: float | None = None
        self._arrived = threading.Condition()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begins to poll; returns at once."""
        self._thread = threading.Thread(target=self._run, name="ring-watcher", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread, at the latest when its poll is answered; does not wait for that."""
        self._stop.set()
        with self._arrived:
            self._arrived.notify_all()

    def view(self, ring: RingName) -> RingView:
        """The newest view; version -1 and no instances before the first answer. KeyError for a ring not watched."""
        return self._views[ring]

    def age_s(self) -> float:
        """Seconds since the ring last answered; infinite before its first answer. Up to `poll_s` is normal."""
        return float("inf") if self._answered_s is None else self._clock.monotonic_s() - self._answered_s

    def wait_for(self, ring: RingName, ready: Callable[[RingView], bool], timeout_s: float) -> bool:
        """Blocks until a view of `ring` satisfies `ready`; False after `timeout_s` or `stop`."""
        with self._arrived:
            return self._arrived.wait_for(lambda: self._stop.is_set() or ready(self._views[ring]), timeout_s) and ready(
                self._views[ring]
            )

    def poll(self, timeout_s: float = 0.0) -> bool:
        """Asks once, publishes what came; whether any version is new. Raises `Unavailable`."""
        known = {ring: view.version for ring, view in self._views.items()}
        answer = self._watch(known, timeout_s)
        if self._remind(answer):
            answer |= self._watch({ring: known[ring] for ring in answer}, 0.0)
        self._answered_s = self._clock.monotonic_s()
        changed = []
        views = dict(self._views)
        for ring, desc in answer.items():
            before = views[ring]
            views[ring] = RingView(desc, self._options[ring], before)
            if desc.version != before.version:
                changed.append(views[ring])
        with self._arrived:
            self._views = views
            self._arrived.notify_all()
        for view in changed:
            if self._on_change is not None:
                self._on_change(view)
        return bool(changed)

    def _watch(self, known: Mapping[RingName, int], timeout_s: float) -> dict[RingName, RingDesc]:
        return self._client.call(  # type: ignore[no-any-return]
            "watch", known, timeout_s, timeout_s=timeout_s + ANSWER_MARGIN_S
        )

    def _remind(self, answer: Mapping[RingName, RingDesc]) -> bool:
        """Tells a ring that lost its memory whom we know; whether there was anything to tell.

        Without that, it would know only who has sent a heartbeat since, and queries would leave out the others.
        """
        reminded = False
        for ring, desc in answer.items():
            before = self._views[ring]
            if not 0 <= before.version < desc.forgot:
                continue  # it knows all that we know, or we never knew anything
            lost = [one for one in before.instances if _forgotten(one, desc.instances.get(one.id))]
            if lost or before.replication is not None:
                self._client.call("recall", ring, lost, before.replication, timeout_s=ANSWER_MARGIN_S)
                reminded = True
        return reminded

    def _run(self) -> None:
        while not self._stop.is_set():
            began = self._clock.monotonic_s()
            try:
                changed = self.poll(self._poll_s)
            except Unavailable:
                changed = False  # `age_s` tells; the next poll tries again
            except Exception:
                changed = False
                log.exception("ring watcher: a poll failed")  # whatever it is, the watch must go on
            # A ring with too many watchers answers at once with nothing new: do not hammer it.
            if not changed and self._clock.monotonic_s() - began < PAUSE_S:
                self._stop.wait(PAUSE_S)


def _forgotten(one: InstanceDesc, there: InstanceDesc | None) -> bool:
    return there is None or there.registered_ms > one.registered_ms
