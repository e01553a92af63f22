"""`RayShardTasks`: the shards of a wide query as Ray tasks, in warm, reused workers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError

from mimir_ray.cluster.transport.base import Transport
from mimir_ray.errors import Unavailable
from mimir_ray.model.tenant import TenantId
from mimir_ray.promql.limits import Cancellation
from mimir_ray.promql.plan.fragment import Fragment, FragmentPart
from mimir_ray.promql.source import Shard
from mimir_ray.roles.querier.fragments import QueryScope
from mimir_ray.roles.querier.tasks import run_shard

POLL_S = 0.5


class ShardLost(Unavailable):
    """A task of the query could not be run."""


@dataclass(frozen=True, slots=True)
class RayShardTasks:
    """See roles/querier/fragments.py `ShardTasks`. A task that dies with its worker is run again by Ray."""

    transport: Transport

    def run(
        self, tenant: TenantId, fragment: Fragment, shards: int, scope: QueryScope, cancellation: Cancellation
    ) -> Iterator[FragmentPart]:
        count = shards or max(2, int(ray.cluster_resources().get("CPU", 1)))
        task = ray.remote(num_cpus=1, max_retries=3)(run_shard)
        waiting: list[Any] = [
            task.remote(
                self.transport, scope, tenant, replace(fragment, shard=Shard(index, count)), cancellation.remaining_s()
            )
            for index in range(count)
        ]
        try:
            while waiting:
                done, waiting = ray.wait(waiting, num_returns=1, timeout=POLL_S)
                cancellation.check()
                for ref in done:
                    yield from ray.get(ref, timeout=POLL_S * 20)
        except RayTaskError as error:
            raise error.cause from None
        except GetTimeoutError:
            raise ShardLost("the answer of a query's task did not arrive") from None
        except RayError as error:
            raise ShardLost(f"a task of the query was lost: {error}") from error
        finally:
            for ref in waiting:
                ray.cancel(ref)
