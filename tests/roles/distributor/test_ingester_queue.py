"""Batches for one ingester: in order, together while calls are under way, bounded."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any

import numpy as np
import pytest

from mimir_ray.model.tenant import TenantId
from mimir_ray.roles.api import WriteBatch, WriteResult
from mimir_ray.roles.distributor.errors import IngesterFailed, IngesterTimedOut
from mimir_ray.roles.distributor.ingester_queue import IngesterQueue, batch_bytes

LATER = 1e12


class GatedClient:
    """Answers with the batch's incarnation, call by call as told."""

    def __init__(self, is_open: bool = False) -> None:
        self.calls: list[list[int]] = []
        self.gate = asyncio.Event()
        self.error: Exception | None = None
        self.answers_too_few = False
        if is_open:
            self.gate.set()

    async def push(self, batches: Sequence[WriteBatch]) -> list[WriteResult]:
        self.calls.append([batch.incarnation for batch in batches])
        await self.gate.wait()
        if self.error:
            raise self.error
        results = [WriteResult(batch.incarnation) for batch in batches]
        return results[1:] if self.answers_too_few else results


def batch(number: int, samples: int = 0) -> WriteBatch:
    column = np.zeros(samples)
    return WriteBatch(TenantId("t"), number, column.astype(np.int32), column.astype(np.int64), column)


def queue_to(
    client: GatedClient, calls: int = 1, call_bytes: int = 1 << 20, waiting: int = 100, size: int = 1 << 20
) -> IngesterQueue:
    return IngesterQueue("i", client, calls, call_bytes, size, waiting)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 10))


def test_batches_of_one_moment_share_a_call_and_keep_their_order() -> None:
    async def work() -> None:
        client = GatedClient(is_open=True)
        queue = queue_to(client)
        results = await asyncio.gather(*(queue.submit(batch(number), LATER) for number in range(3)))
        assert [result.incarnation for result in results] == [0, 1, 2]
        assert client.calls == [[0, 1, 2]]
        await settle()
        assert queue.idle

    run(work())


def test_what_comes_while_calls_are_under_way_travels_together() -> None:
    async def work() -> None:
        client = GatedClient()
        queue = queue_to(client, calls=2)
        answers = []
        for number in range(6):
            answers.append(queue.submit(batch(number), LATER))
            await settle()
        assert client.calls == [[0], [1]]
        client.gate.set()
        assert [(await answer).incarnation for answer in answers] == list(range(6))
        assert client.calls == [[0], [1], [2, 3, 4, 5]]

    run(work())


def test_a_call_carries_no_more_than_it_may_except_one_large_batch() -> None:
    async def work() -> None:
        client = GatedClient(is_open=True)
        size = batch_bytes(batch(0))
        queue = queue_to(client, call_bytes=2 * size)
        numbers = [queue.submit(batch(number, samples=100 if number == 3 else 0), LATER) for number in range(5)]
        await asyncio.gather(*numbers)
        assert client.calls == [[0, 1], [2], [3], [4]]

    run(work())


@pytest.mark.parametrize("bounds", [{"waiting": 2}, {"size": 2 * batch_bytes(batch(0))}])
def test_a_full_queue_fails_at_once(bounds: dict[str, int]) -> None:
    async def work() -> None:
        client = GatedClient()
        queue = queue_to(client, **bounds)
        answers = [queue.submit(batch(0), LATER)]
        await settle()
        answers += [queue.submit(batch(number), LATER) for number in (1, 2)]
        with pytest.raises(IngesterFailed, match="too many requests are waiting"):
            await queue.submit(batch(3), LATER)
        client.gate.set()
        assert [(await answer).incarnation for answer in answers] == [0, 1, 2]

    run(work())


def test_abandoned_batches_make_room_and_do_not_travel() -> None:
    async def work() -> None:
        client = GatedClient()
        queue = queue_to(client, waiting=2)
        first = queue.submit(batch(0), LATER)
        await settle()
        queue.submit(batch(1), LATER).cancel()
        kept, late = queue.submit(batch(2), LATER), queue.submit(batch(3), LATER)
        client.gate.set()
        await asyncio.gather(first, kept, late)
        assert client.calls == [[0], [2, 3]]

    run(work())


def test_a_batch_times_out_wherever_it_is() -> None:
    async def work() -> None:
        client = GatedClient()
        queue = queue_to(client)
        now = asyncio.get_running_loop().time()
        answers = [queue.submit(batch(0), now + 0.01)]
        await settle()
        answers.append(queue.submit(batch(1), now + 0.01))
        for answer in answers:
            with pytest.raises(IngesterTimedOut):
                await answer
        client.gate.set()
        assert (await queue.submit(batch(2), LATER)).incarnation == 2
        assert client.calls == [[0], [2]]

    run(work())


def test_one_that_hangs_is_sent_no_more_than_the_calls_that_may_be_under_way() -> None:
    """However many batches come and time out; and it is served again as soon as it answers."""

    async def work() -> None:
        client = GatedClient()
        queue = queue_to(client, calls=2)
        now = asyncio.get_running_loop().time()
        for number in range(20):
            answer = queue.submit(batch(number, 100), now)
            await settle()
            with pytest.raises(IngesterTimedOut):
                await answer
        assert client.calls == [[0], [1]]
        assert queue.waiting == (0, 0), "what nobody waits for is not kept"
        assert queue.calls == 2
        client.gate.set()
        assert (await queue.submit(batch(20), LATER)).incarnation == 20
        assert client.calls == [[0], [1], [20]]

    run(work())


def test_a_failed_call_fails_its_batches_only() -> None:
    async def work() -> None:
        client = GatedClient()
        client.error = OSError("gone")
        queue = queue_to(client)
        first = queue.submit(batch(0), LATER)
        await settle()
        client.gate.set()
        with pytest.raises(IngesterFailed, match="failed pushing to ingester i: gone"):
            await first
        client.error = None
        assert (await queue.submit(batch(1), LATER)).incarnation == 1

    run(work())


def test_too_few_answers_are_a_failure() -> None:
    async def work() -> None:
        client = GatedClient(is_open=True)
        client.answers_too_few = True
        with pytest.raises(IngesterFailed, match="0 answers to 1 batches"):
            await queue_to(client).submit(batch(0), LATER)

    run(work())
