"""All settings: the blocks that are declared beside the code they set, put together under Mimir's names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from mimir_ray.bucket.config import CommonConfig, StorageConfig
from mimir_ray.bucket.open import BucketSettings
from mimir_ray.bucket.store_config import BucketStoreConfig
from mimir_ray.config.limits import Limits
from mimir_ray.config.overrides import RuntimeConfigSettings
from mimir_ray.config.server import ApiConfig, ServerConfig, TenancyConfig, TenantFederationConfig
from mimir_ray.config.setting import block, setting
from mimir_ray.config.units import Bytes, size
from mimir_ray.roles.compactor.config import CompactorConfig
from mimir_ray.roles.distributor.config import DistributorConfig
from mimir_ray.roles.ingester.config import IngesterConfig, IngesterRingConfig, TsdbConfig
from mimir_ray.roles.querier.config import QuerierConfig
from mimir_ray.roles.scraper.config import ScraperConfig
from mimir_ray.roles.store_gateway.config import StoreGatewayConfig

_NOT_BUILT = "Not built yet: any number is accepted, with a warning, and none runs."

RUN_FILE = "run.json"
"""In the data directory while a deployment runs on it: where it is reached."""
FOLDER_PREFIX = "mimir-ray-"
"""Of the temporary folders of a Ray of ours."""


@dataclass(frozen=True, slots=True)
class DeployConfig:
    """The `deploy` block, ours: how many of each role run, where, and the Ray they run on."""

    ingesters: int = setting(
        0,
        flag="deploy.ingesters",
        minimum=0,
        maximum=1000,
        help="Ingesters. 0 is automatic: one on a machine of up to seven cores, one for every four cores on a larger "
        "one, four at most; where Ray's nodes have our labels, one a node. One at least a zone, and always as many as "
        "have samples from earlier. A number that would leave some of those behind is refused at the start; "
        "`mimir-ray scale` hands their samples over.",
    )
    zones: tuple[str, ...] = setting(
        ["zone-a"], flag="deploy.zones", help="Availability zones; roles are spread over them round robin."
    )
    gateways: int = setting(
        1,
        flag="deploy.gateways",
        minimum=1,
        maximum=1000,
        help="Gateways: processes that serve the HTTP API, spread over the Ray nodes. Those on one machine listen on "
        "one port after the other.",
    )
    store_gateways: int = setting(
        1,
        flag="deploy.store-gateways",
        minimum=0,
        maximum=1000,
        help="Store-gateways. Without any, queries that need samples from the bucket fail.",
    )
    compactors: int = setting(
        1, flag="deploy.compactors", minimum=0, maximum=1000, help="Compactors. Without any, blocks stay as they are."
    )
    share_processes: bool = setting(
        True,
        flag="deploy.share-processes",
        category="advanced",
        help="Whether a store-gateway and a compactor live in one process together, which saves some 100 MB.",
    )
    rulers: int = setting(0, flag="deploy.rulers", minimum=0, help=f"Rulers. {_NOT_BUILT}")
    alertmanagers: int = setting(0, flag="deploy.alertmanagers", minimum=0, help=f"Alertmanagers. {_NOT_BUILT}")
    object_store_memory: Bytes = setting(
        size("512MiB"),
        flag="deploy.object-store-memory",
        category="advanced",
        minimum=80 << 20,
        help="Shared memory of a local Ray's object store.",
    )
    ray_dashboard: bool = setting(
        False,
        flag="deploy.ray-dashboard",
        help="Whether the local Ray starts its dashboard, with its metrics taken from here.",
    )

    def problems(self) -> Iterator[tuple[str, str]]:
        if not self.zones:
            yield "zones", "at least one zone is needed"


@dataclass(frozen=True, slots=True)
class BlocksStorageConfig:
    """The `blocks_storage` block."""

    storage: StorageConfig = block(StorageConfig, prefix="blocks-storage.", inline=True)
    tsdb: TsdbConfig = block(TsdbConfig, help="Recent samples.")
    bucket_store: BucketStoreConfig = block(BucketStoreConfig, help="How blocks in the bucket are read.")


@dataclass(frozen=True, slots=True)
class Settings:
    """The root. Defaults are those of one machine: what `make run` runs with."""

    inherited: ClassVar[dict[str, tuple[str, ...]]] = {"common.storage": ("blocks_storage",)}
    """Blocks whose settings are those of others too, where these do not say otherwise (config/loader.py)."""

    target: str = setting("all", flag="target", help="Which roles this deployment has. Only `all` for the time being.")
    tenancy: TenancyConfig = block(TenancyConfig(multitenancy_enabled=False), inline=True)
    data_dir: str = setting("./data", flag="data-dir", help="Root of every directory that is not set by itself. Ours.")
    deploy: DeployConfig = block(DeployConfig, help="Roles and the Ray that they run on. Ours.")
    api: ApiConfig = block(ApiConfig)
    server: ServerConfig = block(ServerConfig)
    distributor: DistributorConfig = block(DistributorConfig)
    ingester: IngesterConfig = block(IngesterConfig(ring=IngesterRingConfig(replication_factor=0)))
    limits: Limits = block(Limits)
    querier: QuerierConfig = block(QuerierConfig)
    common: CommonConfig = block(CommonConfig)
    blocks_storage: BlocksStorageConfig = block(BlocksStorageConfig)
    compactor: CompactorConfig = block(CompactorConfig)
    store_gateway: StoreGatewayConfig = block(StoreGatewayConfig)
    tenant_federation: TenantFederationConfig = block(TenantFederationConfig)
    runtime_config: RuntimeConfigSettings = block(RuntimeConfigSettings)
    scraper: ScraperConfig = block(ScraperConfig, help="The built-in scraper. Ours.")

    def problems(self) -> Iterator[tuple[str, str]]:
        if self.target != "all":
            yield "target", f"expected all, got {self.target!r}"
        ring = self.ingester.ring
        quorum = ring.replication_factor // 2 + 1
        count = self.deploy.ingesters  # 0 is automatic: as many as it takes
        if 0 < count < quorum:
            yield (
                "deploy.ingesters",
                f"{count} ingesters cannot form a quorum of a replication factor of {ring.replication_factor}",
            )
        inhabited = len(set(self.deploy.zones[: count or None]))
        if ring.zone_awareness_enabled and inhabited < quorum:
            yield (
                "deploy.zones",
                f"ingesters in {inhabited} zones cannot form a zone-aware quorum of a replication factor of "
                f"{ring.replication_factor}",
            )

    @property
    def root(self) -> Path:
        return Path(self.data_dir).absolute()

    @property
    def blocks_bucket(self) -> BucketSettings:
        """Where blocks are."""
        storage = self.blocks_storage.storage
        folder = storage.where.filesystem.dir
        return BucketSettings(Path(folder).absolute() if folder else self.root / "blocks", storage)

    @property
    def compactor_dir(self) -> Path:
        """Scratch files of compactors."""
        return Path(self.compactor.data_dir).absolute() if self.compactor.data_dir else self.root / "compactor"

    @property
    def sync_dir(self) -> Path:
        """Index headers of store-gateways."""
        folder = self.blocks_storage.bucket_store.sync_dir
        return Path(folder).absolute() if folder else self.root / "tsdb-sync"

    @property
    def tsdb_dir(self) -> Path:
        return Path(self.blocks_storage.tsdb.dir).absolute() if self.blocks_storage.tsdb.dir else self.root / "tsdb"


def round_robin(zones: Sequence[str], index: int) -> str:
    """The zone of the instance with this index."""
    return zones[index % len(zones)]


def without_effect(settings: Settings) -> list[str]:
    """What is asked for and is not built yet."""
    roles = [f"deploy.{role}" for role in ("rulers", "alertmanagers") if getattr(settings.deploy, role)]
    federation = ["tenant_federation.enabled"] if settings.tenant_federation.enabled else []
    return [f"{name} has no effect yet: that part is not built" for name in (*roles, *federation)]
