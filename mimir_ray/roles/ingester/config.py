"""Settings of ingesters: the blocks `ingester` and `blocks_storage.tsdb`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from mimir_ray.cluster.circuit_breaker import CircuitBreakerConfig
from mimir_ray.config.instance_limits import IngesterInstanceLimits
from mimir_ray.config.setting import block, setting
from mimir_ray.config.units import Bytes, Duration, duration, size


@dataclass(frozen=True, slots=True)
class IngesterRingConfig:
    """How ingesters find and replace each other."""

    replication_factor: int = setting(
        3,
        flag="ingester.ring.replication-factor",
        minimum=0,
        maximum=9,
        help="Ingesters that hold each series. A write succeeds when more than half of them have it. 0 (ours) follows "
        "the ingesters that there are: a copy a machine, or a zone where the ring is zone-aware, three at most; see "
        "docs/cluster.md.",
    )
    zone_awareness_enabled: bool = setting(
        False,
        flag="ingester.ring.zone-awareness-enabled",
        help="Puts the replicas of a series into different availability zones.",
    )
    num_tokens: int = setting(
        128,
        flag="ingester.ring.num-tokens",
        category="advanced",
        minimum=1,
        maximum=512,
        help="Tokens of each ingester in the ring.",
    )
    heartbeat_period: Duration = setting(
        duration("15s"),
        flag="ingester.ring.heartbeat-period",
        category="advanced",
        minimum=1,
        help="Time between signs of life.",
    )
    heartbeat_timeout: Duration = setting(
        duration("1m"),
        flag="ingester.ring.heartbeat-timeout",
        category="advanced",
        minimum=1,
        help="An ingester without a sign of life for this long is not written to or read from.",
    )
    token_generation_strategy: Literal["random", "spread-minimizing"] = setting(
        "random",
        flag="ingester.ring.token-generation-strategy",
        category="advanced",
        help="How an ingester that is new to the ring comes by its tokens: at random, or so that all ingesters of a "
        "zone have equal shares (best with 512 tokens).",
    )
    spread_minimizing_zones: tuple[str, ...] = setting(
        [],
        flag="ingester.ring.spread-minimizing-zones",
        category="advanced",
        help="All zones that ingesters will ever be in, for the strategy spread-minimizing; at most 8.",
    )
    auto_forget_unhealthy_periods: int = setting(
        0,
        flag="ingester.ring.auto-forget-unhealthy-periods",
        category="advanced",
        minimum=0,
        unit="heartbeat timeouts",
        help="An ingester without a sign of life for so many heartbeat timeouts is removed from the ring; 0 never "
        "does. Samples that only it has are then missing from queries, without an error.",
    )
    min_ready_duration: Duration = setting(
        duration("15s"),
        flag="ingester.ring.min-ready-duration",
        category="advanced",
        minimum=0,
        help="A restart of several ingesters one after the other waits for so long after each takes writes again.",
    )
    final_sleep: Duration = setting(
        duration("0s"),
        flag="ingester.ring.final-sleep",
        category="advanced",
        minimum=0,
        help="An ingester that has left the ring answers for so long before its process ends.",
    )
    unregister_on_shutdown: bool = setting(
        False,
        flag="ingester.ring.unregister-on-shutdown",
        category="advanced",
        help="Whether an ingester leaves the ring when it stops. Its data stays on its disk, so by default it "
        "keeps its place and comes back to it.",
    )

    @property
    def spreads(self) -> bool:
        """Whether tokens are worked out, not drawn: the strategy spread-minimizing."""
        return self.token_generation_strategy != "random"  # noqa: S105  (no password)

    def problems(self) -> Iterator[tuple[str, str]]:
        if self.spreads and not 0 < len(self.spread_minimizing_zones) <= 8:
            yield "spread_minimizing_zones", "expected between 1 and 8 zones for the strategy spread-minimizing"


@dataclass(frozen=True, slots=True)
class IngesterConfig:
    """The `ingester` block."""

    ring: IngesterRingConfig = block(IngesterRingConfig, help="The ring of ingesters.")
    push_circuit_breaker: CircuitBreakerConfig = block(
        CircuitBreakerConfig, prefix="ingester.push-circuit-breaker.", help="Refuses writes where too many failed."
    )
    read_circuit_breaker: CircuitBreakerConfig = block(
        CircuitBreakerConfig(request_timeout=duration("30s")),
        prefix="ingester.read-circuit-breaker.",
        help="Refuses reads where too many failed, or where writes are refused.",
    )
    active_series_metrics_idle_timeout: Duration = setting(
        duration("20m"),
        flag="ingester.active-series-metrics-idle-timeout",
        category="advanced",
        minimum=1,
        help="A series is active for this long after its last sample.",
    )
    active_series_metrics_enabled: bool = setting(
        True,
        flag="ingester.active-series-metrics-enabled",
        category="advanced",
        help="Whether active series are counted.",
    )
    active_series_metrics_update_period: Duration = setting(
        duration("1m"),
        flag="ingester.active-series-metrics-update-period",
        category="advanced",
        minimum=1,
        help="How often they are.",
    )
    instance_limits: IngesterInstanceLimits = block(
        IngesterInstanceLimits, help="What one ingester takes on, whoever its tenants are."
    )
    ignore_series_limit_for_metric_names: str = setting(
        "",
        flag="ingester.ignore-series-limit-for-metric-names",
        category="advanced",
        help="Metrics that the limit of series per metric does not hold for, separated by commas.",
    )
    use_ingester_owned_series_for_limits: bool = setting(
        False,
        flag="ingester.use-ingester-owned-series-for-limits",
        category="experimental",
        help="Whether series that belong to other ingesters by now do not count towards a tenant's limit.",
    )
    track_ingester_owned_series: bool = setting(
        False,
        flag="ingester.track-ingester-owned-series",
        category="experimental",
        help="Whether owned series are counted, also where limits do not look at them.",
    )
    owned_series_update_interval: Duration = setting(
        duration("15s"),
        flag="ingester.owned-series-update-interval",
        category="experimental",
        minimum=1,
        help="How often it is looked whether the ring has changed whose series are whose.",
    )
    error_sample_rate: int = setting(
        10,
        flag="ingester.error-sample-rate",
        category="experimental",
        minimum=0,
        help="Of so many refusals of one kind one is logged; 0 logs all of them.",
    )
    metadata_retain_period: Duration = setting(
        duration("10m"),
        flag="ingester.metadata-retain-period",
        minimum=1,
        help="Metadata that nobody has sent for this long is forgotten.",
    )


@dataclass(frozen=True, slots=True)
class TsdbConfig:
    """The `tsdb` block of `blocks_storage`."""

    dir: str = setting(
        "",
        flag="blocks-storage.tsdb.dir",
        help="Where ingesters keep recent samples; empty: `tsdb` in the data directory.",
    )
    wal_replay_concurrency: int = setting(
        2,
        flag="blocks-storage.tsdb.wal-replay-concurrency",
        category="advanced",
        minimum=1,
        help="Tenants that are replayed at once.",
    )
    wal_segment_size_bytes: Bytes = setting(
        size("128MiB"),
        flag="blocks-storage.tsdb.wal-segment-size-bytes",
        category="advanced",
        minimum=1 << 20,
        help="A WAL segment is cut at this size.",
    )
    wal_checkpoint_size_bytes: Bytes = setting(
        size("256MiB"),
        flag="blocks-storage.tsdb.wal-checkpoint-size-bytes",
        category="advanced",
        minimum=1 << 20,
        help="After so many bytes of WAL the head is written down as a checkpoint, and older WAL dropped. Ours.",
    )
    wal_fsync: Literal["off", "interval", "always"] = setting(
        "off",
        flag="blocks-storage.tsdb.wal-fsync",
        category="advanced",
        help="When written samples are forced to the disk: never by us (they survive the death of any process, not of "
        "the machine), every second, or before each acknowledgement. Ours.",
    )
    block_ranges_period: tuple[Duration, ...] = setting(
        (duration("2h"),),
        flag="blocks-storage.tsdb.block-ranges-period",
        category="advanced",
        help="How long a time the blocks cover that heads are cut into. Only one value: compactors make longer ones.",
    )
    retention_period: Duration = setting(
        duration("13h"),
        flag="blocks-storage.tsdb.retention-period",
        help="How long ingesters keep samples that are in object storage. Nothing is dropped before it is there.",
    )
    ship_interval: Duration = setting(
        duration("1m"),
        flag="blocks-storage.tsdb.ship-interval",
        category="advanced",
        help="How often blocks are brought to object storage; 0 never does.",
    )
    ship_concurrency: int = setting(
        10,
        flag="blocks-storage.tsdb.ship-concurrency",
        category="advanced",
        minimum=1,
        help="Tenants whose blocks are uploaded at once.",
    )
    head_compaction_interval: Duration = setting(
        duration("1m"),
        flag="blocks-storage.tsdb.head-compaction-interval",
        category="advanced",
        minimum=1,
        help="How often heads are looked at, whether they are to be cut into blocks; at most 15m. The first time comes "
        "after a random part of it.",
    )
    head_compaction_concurrency: int = setting(
        1,
        flag="blocks-storage.tsdb.head-compaction-concurrency",
        category="advanced",
        minimum=1,
        help="Tenants whose heads are cut into blocks at once.",
    )
    head_compaction_idle_timeout: Duration = setting(
        duration("1h"),
        flag="blocks-storage.tsdb.head-compaction-idle-timeout",
        category="advanced",
        help="A head without new samples for this long (and up to a quarter more, at random) is cut into blocks whole; "
        "0 never does.",
    )
    close_idle_tsdb_timeout: Duration = setting(
        duration("13h"),
        flag="blocks-storage.tsdb.close-idle-tsdb-timeout",
        category="advanced",
        help="A tenant without new samples for this long, of whom all is in object storage, is closed and removed "
        "from the disk; 0 never does. Must be longer than queries ask ingesters for.",
    )
    early_head_compaction_min_in_memory_series: int = setting(
        0,
        flag="blocks-storage.tsdb.early-head-compaction-min-in-memory-series",
        category="experimental",
        minimum=0,
        help="With so many series in memory in all, heads are cut up to where their inactive series end, to drop "
        "those; 0 never does.",
    )
    early_head_compaction_min_estimated_series_reduction_percentage: int = setting(
        15,
        flag="blocks-storage.tsdb.early-head-compaction-min-estimated-series-reduction-percentage",
        category="experimental",
        minimum=0,
        maximum=100,
        help="... if that drops at least this part of them.",
    )
    flush_blocks_on_shutdown: bool = setting(
        False,
        flag="blocks-storage.tsdb.flush-blocks-on-shutdown",
        category="advanced",
        help="Whether an ingester cuts and uploads everything it has before it stops.",
    )

    def problems(self) -> Iterator[tuple[str, str]]:
        if len(self.block_ranges_period) != 1 or self.block_ranges_period[0].ms < 1:
            yield "block_ranges_period", "expected one duration longer than nothing"
        if self.head_compaction_interval.ms > 15 * 60_000:
            yield "head_compaction_interval", "expected at most 15m"
