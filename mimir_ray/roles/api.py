"""What roles say to each other: messages and protocols, on one page.

Roles never import each other. A transport (cluster/transport) turns these protocols into actor calls;
in one process they are plain method calls. Messages are small frozen dataclasses and numpy arrays:
pickled whole, arrays arrive read-only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from mimir_ray.errors import ClientError, Unavailable
from mimir_ray.model.exemplars import SeriesExemplars
from mimir_ray.model.matchers import Matcher
from mimir_ray.model.metadata import Metadata
from mimir_ray.model.selection import Selection
from mimir_ray.model.series import SeriesBatch
from mimir_ray.model.tenant import TenantId
from mimir_ray.model.write import Refusal, WriteBatch, WriteResult
from mimir_ray.promql.limits import Cancellation
from mimir_ray.promql.plan.fragment import Fragment, FragmentPart
from mimir_ray.promql.source import SeriesSource

__all__ = ["Refusal", "WriteBatch", "WriteResult"]


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
    active_series: int = 0


@dataclass(frozen=True, slots=True)
class TenantPage:
    """A tenant with an open database in one ingester; times in ms, None where there are no samples."""

    tenant: str
    blocks: int
    min_time: int | None
    max_time: int | None


@dataclass(frozen=True, slots=True)
class BlockPage:
    """A block on an ingester's machine."""

    ulid: str
    min_time: int
    max_time: int
    series: int
    samples: int
    chunks: int
    size_bytes: int
    out_of_order: bool
    uploaded: bool


@dataclass(frozen=True, slots=True)
class TsdbPage:
    """The open database of one tenant in one ingester."""

    tenant: str
    series: int
    min_time: int | None
    max_time: int | None
    memory_bytes: int
    wal_bytes: int
    blocks: tuple[BlockPage, ...]


@dataclass(eq=False)
class NotSoleOwner(Unavailable):
    """An ingester has samples of series that, by the ring, others have too: it cannot evaluate by itself."""

    ingester: str

    def describe(self) -> str:
        return f"{self.ingester} has series that belong to others"


@dataclass(eq=False)
class FlushUnderWay(ClientError):
    """Samples are being moved to object storage: not the time to take writes again. Status 409."""

    instance: str

    def describe(self) -> str:
        return f"{self.instance} is flushing; it can be set back to read-write mode when that is done"


class Ingester(Protocol):
    """Recent samples of all tenants, a part of all series."""

    def push(self, batches: Sequence[WriteBatch]) -> list[WriteResult]:
        """Takes samples; answers once they are in the WAL. One result a batch; never raises for one batch."""

    def select_page(self, tenant: TenantId, selection: Selection) -> Page:
        """Samples of recent series; see SeriesSource.select."""

    def next_page(self, cursor: str) -> Page:
        """What follows a page. Raises Unavailable where the cursor is no longer kept."""

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

    def exemplars(
        self, tenant: TenantId, selectors: Sequence[tuple[Matcher, ...]], mint: int, maxt: int
    ) -> list[SeriesExemplars]:
        """Exemplars between two times (ms, both included) of series that satisfy one of the selectors; by labels."""

    def tenant_stats(self) -> dict[TenantId, TenantStats]:
        """All tenants with an open head."""

    def tenants(self) -> list[TenantPage]:
        """All tenants with an open database, by name."""

    def tenant_tsdb(self, tenant: TenantId) -> TsdbPage:
        """What is open of one tenant. Raises NotFound."""

    def tsdb_metrics(self, tenant: TenantId) -> bytes:
        """The metrics of one tenant's database in the text format. Raises NotFound."""

    def prepare_shutdown(self, prepare: bool | None = None) -> bool:
        """Has it unregister and flush when it stops (True), or what is configured (False); None asks. What holds."""

    def unregister_on_shutdown(self, change: str = "", unregister: bool = False) -> bool:
        """Whether it leaves the ring when it stops; `change`: "set" to `unregister`, "reset" to what is configured."""

    def read_only(self, change: bool | None = None) -> int:
        """Takes it out of, or back into, the shards that are written to; None asks. Since when (ms), 0: it is not."""

    def shutdown(self) -> None:
        """Flushes, leaves the ring, and serves no more; the process stays. Returns when that is done."""

    def flush(self, tenants: Sequence[TenantId] = (), wait: bool = False) -> None:
        """Cuts whole heads into blocks and uploads those: of these tenants, or all. With `wait`, before it returns."""


@dataclass(frozen=True, slots=True)
class BlocksPage:
    """Some batches of a selection over blocks; `queried`: the ULIDs that the whole answer covers, on the first page."""

    batches: list[SeriesBatch]
    cursor: str = ""
    queried: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BlocksNames:
    """Names or values of labels; `queried`: the ULIDs of the blocks that were looked at."""

    names: list[str]
    queried: tuple[str, ...]


class StoreGateway(Protocol):
    """Older samples, in blocks of a bucket. A querier names the blocks; those that the answer does not name as queried
    (not loaded yet, not owned any more) it asks of another store-gateway. Samples of overlapping blocks are merged."""

    def select_blocks(self, tenant: TenantId, blocks: tuple[str, ...], selection: Selection) -> BlocksPage:
        """Samples of the selected series in these blocks; see SeriesSource.select."""

    def next_blocks_page(self, cursor: str) -> BlocksPage:
        """What follows a page. Raises Unavailable where the cursor is no longer kept."""

    def estimate_block_samples(self, tenant: TenantId, blocks: tuple[str, ...], selection: Selection) -> int:
        """About how many samples the selection has in those of the blocks that are there."""

    def block_label_names(self, tenant: TenantId, blocks: tuple[str, ...], selection: Selection) -> BlocksNames:
        """Sorted names of all labels of the selected series."""

    def block_label_values(
        self, tenant: TenantId, blocks: tuple[str, ...], name: str, selection: Selection
    ) -> BlocksNames:
        """Sorted values of one label of the selected series."""


class TenantSource(SeriesSource, Protocol):
    """All samples of one tenant, wherever they are, for one query."""

    def label_names(self, selection: Selection) -> list[str]:
        """Sorted names of all labels of the selected series."""

    def label_values(self, name: str, selection: Selection) -> list[str]:
        """Sorted values of one label of the selected series."""

    def metadata(self, family: str = "") -> list[Metadata]:
        """Metadata of all metric families, or of one."""

    def exemplars(self, selectors: Sequence[tuple[Matcher, ...]], mint: int, maxt: int) -> list[SeriesExemplars]:
        """Exemplars between two times (ms, both included) of series that satisfy one of the selectors; by labels."""


class Querier(Protocol):
    """Who has samples for queries."""

    def source(self, tenant: TenantId, cancellation: Cancellation) -> TenantSource:
        """A tenant's samples for one query, which stops when it is cancelled."""
