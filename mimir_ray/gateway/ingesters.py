"""Asking ingesters something that is neither a write nor a query: all that are in the ring, or one by its id."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sanic import Request

from mimir_ray.cluster.ring.model import INGESTER, InstanceDesc
from mimir_ray.errors import NotFound, Unavailable
from mimir_ray.gateway.services import GatewayServices, services_of

CALL_TIMEOUT_S = 10.0


@dataclass(eq=False)
class NoSuchIngester(NotFound):
    instance: str

    def describe(self) -> str:
        return f"there is no ingester {self.instance!r} in the ring"


class NoIngesters(Unavailable):
    """The ring is empty."""


async def ask(request: Request, method: str, *args: Any, timeout_s: float = CALL_TIMEOUT_S) -> list[Any]:
    """What the ingesters that the request is for answer. Raises the first failure after all were asked."""
    services = services_of(request)
    wanted = request.args.get("instance", "")
    answers = await services.in_thread(
        lambda: ask_all(services, addressed(services, wanted), method, *args, timeout_s=timeout_s)
    )
    return [answer for _, answer in answers]


def addressed(services: GatewayServices, instance: str = "") -> list[InstanceDesc]:
    """All ingesters of the ring, or one. Raises `NoSuchIngester`, `NoIngesters`."""
    instances = services.ring_view(INGESTER).instances
    if not instance:
        if not instances:
            raise NoIngesters("there are no ingesters in the ring")
        return list(instances)
    found = [one for one in instances if one.id == instance]
    if not found:
        raise NoSuchIngester(instance)
    return found


def ask_all(
    services: GatewayServices,
    instances: Sequence[InstanceDesc],
    method: str,
    *args: Any,
    timeout_s: float = CALL_TIMEOUT_S,
) -> list[tuple[InstanceDesc, Any]]:
    """Calls a method of each, side by side; blocks. Raises the first failure after all have ended."""
    calls = [services.transport.client(one.address).begin(method, *args, timeout_s=timeout_s) for one in instances]
    answers: list[tuple[InstanceDesc, Any]] = []
    failures: list[Exception] = []
    for one, call in zip(instances, calls, strict=True):
        try:
            answers.append((one, call.result()))
        except Exception as error:  # noqa: BLE001  (raised below)
            failures.append(error)
    if failures:
        raise failures[0]
    return answers
