"""Settings of store-gateways: the block `store_gateway`."""

from __future__ import annotations

from dataclasses import dataclass

from mimir_ray.config.setting import block, setting
from mimir_ray.config.units import Duration, duration

_RING = "store-gateway.sharding-ring"


@dataclass(frozen=True, slots=True)
class StoreGatewayRingConfig:
    """How store-gateways share blocks out."""

    replication_factor: int = setting(
        3,
        flag=f"{_RING}.replication-factor",
        category="advanced",
        minimum=1,
        maximum=9,
        help="Store-gateways that have each block; where there are fewer of them, all have it.",
    )
    zone_awareness_enabled: bool = setting(
        False,
        flag=f"{_RING}.zone-awareness-enabled",
        help="Puts the copies of a block into different availability zones.",
    )
    num_tokens: int = setting(
        512,
        flag=f"{_RING}.num-tokens",
        category="advanced",
        minimum=1,
        maximum=512,
        help="Tokens of each store-gateway in the ring.",
    )
    heartbeat_period: Duration = setting(
        duration("15s"),
        flag=f"{_RING}.heartbeat-period",
        category="advanced",
        minimum=1,
        help="Time between signs of life.",
    )
    heartbeat_timeout: Duration = setting(
        duration("1m"),
        flag=f"{_RING}.heartbeat-timeout",
        category="advanced",
        minimum=1,
        help="A store-gateway without a sign of life for this long is not asked.",
    )
    unregister_on_shutdown: bool = setting(
        True,
        flag=f"{_RING}.unregister-on-shutdown",
        category="advanced",
        help="Whether a store-gateway leaves the ring when it stops, so that others load its blocks.",
    )


@dataclass(frozen=True, slots=True)
class StoreGatewayConfig:
    """The `store_gateway` block."""

    sharding_ring: StoreGatewayRingConfig = block(StoreGatewayRingConfig, help="The ring of store-gateways.")
    enabled_tenants: tuple[str, ...] = setting(
        (), flag="store-gateway.enabled-tenants", category="advanced", help="Only these tenants' blocks; empty: all."
    )
    disabled_tenants: tuple[str, ...] = setting(
        (), flag="store-gateway.disabled-tenants", category="advanced", help="Not these tenants' blocks."
    )
