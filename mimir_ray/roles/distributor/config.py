"""Settings of the distributor, with Mimir's names and flags."""

from __future__ import annotations

from dataclasses import dataclass

from mimir_ray.config.setting import block, setting
from mimir_ray.config.units import Bytes, Duration


@dataclass(frozen=True, slots=True)
class InstanceLimits:
    """What one distributor takes on at once. 0: any number."""

    max_inflight_push_requests: int = setting(
        2000,
        flag="distributor.instance-limits.max-inflight-push-requests",
        minimum=0,
        unit="requests",
        help="Push requests that are being worked on; more are refused.",
    )
    max_inflight_push_requests_bytes: Bytes = setting(
        Bytes(0),
        flag="distributor.instance-limits.max-inflight-push-requests-bytes",
        minimum=0,
        help="Uncompressed bytes of the push requests that are being worked on.",
    )


@dataclass(frozen=True, slots=True)
class DistributorConfig:
    """The `distributor` block."""

    max_recv_msg_size: Bytes = setting(
        Bytes(100 << 20),
        flag="distributor.max-recv-msg-size",
        minimum=1,
        help="Largest push request, compressed or not.",
    )
    max_otlp_request_size: Bytes = setting(
        Bytes(100 << 20),
        flag="distributor.max-otlp-request-size",
        minimum=1,
        help="Largest OTLP request, compressed or not.",
    )
    max_influx_request_size: Bytes = setting(
        Bytes(100 << 20),
        flag="distributor.max-influx-request-size",
        category="experimental",
        minimum=1,
        help="Largest request of Influx line protocol, compressed or not.",
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
    instance_limits: InstanceLimits = block(InstanceLimits)
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
