"""Settings of the distributor, with Mimir's names and flags."""

from __future__ import annotations

from dataclasses import dataclass

from mimir_ray.config.instance_limits import DistributorInstanceLimits
from mimir_ray.config.setting import block, setting
from mimir_ray.config.units import Bytes, Duration, duration


@dataclass(frozen=True, slots=True)
class RetryAfterConfig:
    """The `retry_after_header` block. Upstream: pkg/distributor/push.go RetryConfig."""

    enabled: bool = setting(
        True,
        flag="distributor.retry-after-header.enabled",
        category="advanced",
        help="Whether answers of 429 and 5xx say when to try again.",
    )
    min_backoff: Duration = setting(
        duration("6s"),
        flag="distributor.retry-after-header.min-backoff",
        category="advanced",
        minimum=1000,
        help="Shortest time to wait, that of the first attempt. It doubles with every attempt, give or take a half.",
    )
    max_backoff: Duration = setting(
        duration("96s"),
        flag="distributor.retry-after-header.max-backoff",
        category="advanced",
        minimum=1000,
        help="Longest time to wait.",
    )


@dataclass(frozen=True, slots=True)
class HaTrackerConfig:
    """The `ha_tracker` block; its times are limits of tenants."""

    enable_ha_tracker: bool = setting(
        False,
        flag="distributor.ha-tracker.enable",
        help="Whether samples of HA pairs are taken from one replica only, for tenants with accept_ha_samples.",
    )


@dataclass(frozen=True, slots=True)
class DistributorConfig:
    """The `distributor` block."""

    max_recv_msg_size: Bytes = setting(
        Bytes(100 << 20),
        flag="distributor.max-recv-msg-size",
        minimum=1,
        help="Largest push request, compressed or not.",
        enforced_by=("gateway/app.py", "gateway/blueprints/push.py"),
    )
    max_otlp_request_size: Bytes = setting(
        Bytes(100 << 20),
        flag="distributor.max-otlp-request-size",
        minimum=1,
        help="Largest OTLP request, compressed or not.",
        enforced_by=("gateway/app.py", "gateway/blueprints/otlp.py"),
    )
    max_influx_request_size: Bytes = setting(
        Bytes(100 << 20),
        flag="distributor.max-influx-request-size",
        category="experimental",
        minimum=1,
        help="Largest request of Influx line protocol, compressed or not.",
        enforced_by=("gateway/blueprints/influx.py",),
    )
    influx_endpoint_enabled: bool = setting(
        False,
        flag="distributor.influx-endpoint-enabled",
        category="experimental",
        help="Whether POST /api/v1/push/influx/write takes Influx line protocol.",
    )
    remote_timeout: Duration = setting(
        Duration(2000),
        flag="distributor.remote-timeout",
        minimum=1,
        help="How long an ingester may take to answer, time in its queue included.",
    )
    instance_limits: DistributorInstanceLimits = block(DistributorInstanceLimits)
    retry_after_header: RetryAfterConfig = block(RetryAfterConfig)
    ha_tracker: HaTrackerConfig = block(HaTrackerConfig)
    ingester_calls_in_flight: int = setting(
        2,
        flag="distributor.ingester-calls-in-flight",
        category="advanced",
        minimum=1,
        unit="calls",
        help="Calls to one ingester that may be under way at once; requests that come meanwhile travel together.",
    )
    ingester_call_bytes_max: Bytes = setting(
        Bytes(512 << 10),
        flag="distributor.ingester-call-bytes-max",
        category="advanced",
        minimum=1,
        help="Requests are put into one call up to this size. Larger messages take a slower way between processes.",
    )
    ingester_queue_bytes_max: Bytes = setting(
        Bytes(64 << 20),
        flag="distributor.ingester-queue-bytes-max",
        category="advanced",
        minimum=1,
        help="Bytes that may wait for one ingester; what comes then fails.",
    )
    ingester_queue_batches_max: int = setting(
        4000,
        flag="distributor.ingester-queue-batches-max",
        category="advanced",
        minimum=1,
        unit="requests",
        help="Requests that may wait for one ingester; what comes then fails.",
    )
    series_cache_series_max: int = setting(
        4_000_000,
        flag="distributor.series-cache-series-max",
        category="advanced",
        minimum=1,
        unit="series",
        help="Series of one tenant that are recognised without looking at their labels, about 40 bytes each.",
    )
    tenants_max: int = setting(
        10_000,
        flag="distributor.series-cache-tenants-max",
        category="advanced",
        minimum=1,
        unit="tenants",
        help="Tenants whose series are remembered; the one that sent nothing for longest is forgotten.",
    )
