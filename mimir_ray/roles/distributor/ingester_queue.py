"""`IngesterQueue`: the way from a distributor to one ingester.

A call to an actor costs about as much as working through a whole request, so requests that come while
calls are under way travel together in the next one. Nothing waits for company: with a call to spare, a batch
leaves at the end of the event loop's current turn.

A call that outlives its batches' deadlines keeps its place until it ends: an ingester that hangs is sent no more than
the few calls that may be under way, however long it hangs.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from mimir_ray.roles.api import WriteBatch, WriteResult
from mimir_ray.roles.distributor.errors import IngesterFailed, IngesterTimedOut

CALL_HELD_S = 60.0
"""After so long a call is given up: its answer may have been lost on the way."""


class IngesterClient(Protocol):
    """How an ingester is reached. A failed call raises, also one that takes longer than `CALL_HELD_S`; nothing is known
    then about its batches."""

    async def push(self, batches: Sequence[WriteBatch]) -> list[WriteResult]: ...


def batch_bytes(batch: WriteBatch) -> int:
    """About what a batch weighs on its way."""
    metadata = sum(len(one.family) + len(one.help) + len(one.unit) + 16 for one in batch.metadata)
    known, new = 20 * len(batch.references), 20 * len(batch.new_series)
    for starts in (batch.start_timestamps, batch.new_start_timestamps):
        known += 0 if starts is None else starts.nbytes
    if batch.exemplars is not None:
        new += batch.exemplars.nbytes
    histograms = 0
    if batch.histograms is not None:
        one = batch.histograms
        histograms = 64 * len(one) + 12 * (len(one.positive) + len(one.negative))
    return histograms + 256 + known + new + len(batch.label_bytes) + batch.label_offsets.nbytes + metadata


class IngesterQueue:
    """Belongs to one event loop. Batches leave in the order in which they came."""

    def __init__(
        self,
        ingester: str,
        client: IngesterClient,
        calls_max: int,
        call_bytes_max: int,
        queue_bytes_max: int,
        queue_batches_max: int,
        on_call: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_call`: told of every finished call."""
        self.ingester = ingester
        self._client = client
        self._calls_max = calls_max
        self._call_bytes_max = call_bytes_max
        self._queue_bytes_max = queue_bytes_max
        self._queue_batches_max = queue_batches_max
        self._on_call = on_call
        self._waiting: deque[tuple[WriteBatch, int, asyncio.Future[WriteResult]]] = deque()
        self._waiting_bytes = 0
        self._calls: set[asyncio.Task[None]] = set()
        self._scheduled = False

    @property
    def waiting(self) -> tuple[int, int]:
        """(batches, bytes) that wait for a call."""
        return len(self._waiting), self._waiting_bytes

    @property
    def calls(self) -> int:
        """Calls under way."""
        return len(self._calls)

    @property
    def idle(self) -> bool:
        return not self._waiting and not self._calls

    def submit(self, batch: WriteBatch, deadline: float) -> asyncio.Future[WriteResult]:
        """Queues a batch. Cancelling the future takes back a batch that has not left yet.

        The future raises `IngesterTimedOut` at `deadline` (on the loop's clock), and `IngesterFailed`, at once
        where the queue is full.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[WriteResult] = loop.create_future()
        size = batch_bytes(batch)
        full = len(self._waiting) >= self._queue_batches_max or self._waiting_bytes + size > self._queue_bytes_max
        if full and self._waiting:
            self._discard_abandoned()
            full = len(self._waiting) >= self._queue_batches_max or self._waiting_bytes + size > self._queue_bytes_max
        if full and self._waiting:
            answer.set_exception(IngesterFailed(self.ingester, "too many requests are waiting for it"))
            return answer
        timer = loop.call_at(deadline, self._expire, answer)
        answer.add_done_callback(lambda _: timer.cancel())
        self._waiting.append((batch, size, answer))
        self._waiting_bytes += size
        if not self._scheduled and len(self._calls) < self._calls_max:
            self._scheduled = True
            loop.call_soon(self._start_calls)
        return answer

    def _expire(self, answer: asyncio.Future[WriteResult]) -> None:
        if not answer.done():
            answer.set_exception(IngesterTimedOut(self.ingester))
        while self._waiting and self._waiting[0][2].done():
            self._waiting_bytes -= self._waiting.popleft()[1]

    def _discard_abandoned(self) -> None:
        self._waiting = deque(entry for entry in self._waiting if not entry[2].done())
        self._waiting_bytes = sum(size for _, size, _ in self._waiting)

    def _start_calls(self) -> None:
        self._scheduled = False
        while len(self._calls) < self._calls_max:
            batches: list[WriteBatch] = []
            answers: list[asyncio.Future[WriteResult]] = []
            total = 0
            while self._waiting and (not batches or total + self._waiting[0][1] <= self._call_bytes_max):
                batch, size, answer = self._waiting.popleft()
                self._waiting_bytes -= size
                if not answer.done():
                    batches.append(batch)
                    answers.append(answer)
                    total += size
            if not batches:
                return
            call = asyncio.get_running_loop().create_task(self._call(batches, answers))
            self._calls.add(call)
            call.add_done_callback(self._ended)

    def _ended(self, call: asyncio.Task[None]) -> None:
        self._calls.discard(call)
        if self._waiting:
            self._start_calls()

    async def _call(self, batches: list[WriteBatch], answers: list[asyncio.Future[WriteResult]]) -> None:
        failure: Exception | None = None
        results: list[WriteResult] = []
        try:
            results = await self._client.push(batches)
            if len(results) != len(batches):
                failure = IngesterFailed(self.ingester, f"{len(results)} answers to {len(batches)} batches")
        except Exception as error:  # noqa: BLE001  (whatever a transport raises has failed these batches only)
            failure = IngesterFailed(self.ingester, str(error) or type(error).__name__)
        except asyncio.CancelledError:
            for answer in answers:
                answer.cancel()
            raise
        self._on_call()
        for place, answer in enumerate(answers):
            if answer.done():
                continue
            if failure is not None:
                answer.set_exception(failure)
            else:
                answer.set_result(results[place])
