"""What an ingester has of one tenant."""

from __future__ import annotations

from dataclasses import dataclass, field

from mimir_ray.model.tenant import TenantId
from mimir_ray.roles.ingester.ownership import Ownership
from mimir_ray.roles.ingester.shipper import Shipper
from mimir_ray.tsdb.database import Database, DatabaseStats


@dataclass(slots=True)
class TenantEntry:
    """`calls`: pushes under way, counted under the ingester's lock. `shipper`: None where nothing is shipped.

    `idle_share`: in [0, 1), drawn once, so that idle heads are not all cut at the same time.
    """

    tenant: TenantId
    database: Database
    ownership: Ownership
    shipper: Shipper | None
    last_push_ms: int
    idle_share: float = 0.0
    calls: int = 0
    samples: int = 0
    rate: float = 0.0
    last_samples: int = 0
    seen: DatabaseStats | None = field(default=None)
    """As of the last look, for metrics that count what changed."""
