"""What roles say to each other: messages and protocols, on one page.

Roles never import each other. A transport (cluster/transport) turns these protocols into actor calls;
in one process they are plain method calls. Messages are small frozen dataclasses and numpy arrays:
pickled whole, arrays arrive read-only.

How samples travel. The distributor reads a request once. To each ingester of the replica set it sends
a `WriteBatch`: samples of series that this ingester has named before go as (reference, timestamp,
value) columns; series that are new to it go with their label bytes and come back with a reference.
References are good for one `incarnation` of one tenant's head; after a restart or a series clean-up the
incarnation differs, the ingester refuses the referenced part untouched, and the distributor sends it
again with labels. Pushing a batch twice changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mimir_ray.errors import Unavailable
from mimir_ray.model.metadata import Metadata
from mimir_ray.model.series import SeriesBatch
from mimir_ray.model.tenant import TenantId
from mimir_ray.promql.plan.fragment import Fragment, FragmentPart
from mimir_ray.promql.source import Selection


@dataclass(slots=True)
class WriteBatch:
    """Samples of one tenant for one ingester, from one request.

    Known series: `references` int32[N], `timestamps` int64[N] (ms), `values` float64[N], in the order
    of the request. New series: `label_bytes` holds the label sections of R series back to back (remote
    write's repeated `Label labels = 1` fields: valid, sorted by name, no empty values), `label_offsets`
    int64[R + 1] cuts them; `new_series` int32[M] says which of the R each of M samples belongs to,
    with `new_timestamps` int64[M], `new_values` float64[M].
    """

    tenant: TenantId
    incarnation: int
    references: NDArray[np.int32]
    timestamps: NDArray[np.int64]
    values: NDArray[np.float64]
    label_bytes: bytes = b""
    label_offsets: NDArray[np.int64] = field(default_factory=lambda: np.zeros(1, np.int64))
    new_series: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    new_timestamps: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    new_values: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0, np.float64))
    metadata: tuple[Metadata, ...] = ()


@dataclass(frozen=True, slots=True)
class Refusal:
    """Samples that an ingester did not take, of one reason: the first one, and how many.

    `reason`: Mimir's error id without prefix (`sample-out-of-order`, `sample-timestamp-too-old`,
    `sample-duplicate-timestamp`, `max-series-per-user`, `max-series-per-metric`). `sample`: index of the
    first refused sample: 0..N-1 among the known ones, N + m for new ones.
    """

    reason: str
    sample: int
    timestamp: int
    count: int
    series: str = ""
    """The labels of the series of the first refused sample, as `{__name__="a", b="c"}`."""
    limit: int = 0


@dataclass(frozen=True, slots=True)
class WriteResult:
    """What became of a `WriteBatch`.

    `incarnation`: of the head that answered. `stale`: it differs from the batch's, the known samples
    were not looked at. `new_references`: int32[R]; -1 for a series that was refused. `unknown`: int32,
    indices of known samples whose reference no longer exists (send them again with labels).
    """

    incarnation: int
    stale: bool = False
    new_references: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    unknown: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    refusals: tuple[Refusal, ...] = ()
    error: Exception | None = None
    """The whole batch failed (for instance: the tenant's disk is full); nothing was stored."""


@dataclass(frozen=True, slots=True)
class Page:
    """Some batches of a selection, and the cursor that asks for those that follow; "" when there are none."""

    batches: list[SeriesBatch]
    cursor: str = ""


@dataclass(frozen=True, slots=True)
class TenantStats:
    """Of one tenant in one ingester."""

    series: int
    ingestion_rate: float
    rule_ingestion_rate: float = 0.0


@dataclass(eq=False)
class NotSoleOwner(Unavailable):
    """An ingester has samples of series that, by the ring, others have too: it cannot evaluate by itself."""

    ingester: str

    def describe(self) -> str:
        return f"{self.ingester} has series that belong to others"


class Ingester(Protocol):
    """Recent samples of all tenants, a part of all series."""

    def push(self, batches: Sequence[WriteBatch]) -> list[WriteResult]:
        """Takes samples; answers once they are in the WAL. One result a batch; never raises for one batch."""

    def select_page(self, tenant: TenantId, selection: Selection) -> Page:
        """Samples of recent series; see SeriesSource.select."""

    def next_page(self, cursor: str) -> Page:
        """What follows a page. Raises NotFound where the cursor is no longer kept."""

    def evaluate(self, tenant: TenantId, fragment: Fragment, ring_version: int) -> list[FragmentPart]:
        """Runs a per-series part of a plan on this ingester's own series.

        Raises `NotSoleOwner` unless this ingester is the one owner of each of them in that version of the ring.
        """

    def estimate_samples(self, tenant: TenantId, selection: Selection) -> int:
        """About how many samples the selection has."""

    def label_names(self, tenant: TenantId, selection: Selection) -> list[str]:
        """Sorted names of all labels of the selected series (no matchers: of all series)."""

    def label_values(self, tenant: TenantId, name: str, selection: Selection) -> list[str]:
        """Sorted values of one label of the selected series."""

    def metadata(self, tenant: TenantId, family: str = "") -> list[Metadata]:
        """Metadata of all metric families, or of one."""

    def tenant_stats(self) -> dict[TenantId, TenantStats]:
        """All tenants with an open head."""
