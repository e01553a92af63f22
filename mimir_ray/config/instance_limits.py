"""Limits of one process, whoever its tenants are. The runtime configuration can change them."""

from __future__ import annotations

from dataclasses import dataclass

from mimir_ray.config.setting import setting
from mimir_ray.config.units import Bytes


@dataclass(frozen=True, slots=True)
class DistributorInstanceLimits:
    """`distributor.instance_limits`, and `distributor_limits` of the runtime configuration."""

    max_ingestion_rate: float = setting(
        0.0,
        flag="distributor.instance-limits.max-ingestion-rate",
        unit="items/s",
        category="advanced",
        minimum=0,
        help="Items a second that one distributor takes; 0 allows any number.",
        enforced_by=("roles/distributor/distributor.py",),
    )
    max_inflight_push_requests: int = setting(
        2000,
        flag="distributor.instance-limits.max-inflight-push-requests",
        category="advanced",
        minimum=0,
        help="Push requests under way in one distributor; 0 allows any number.",
        enforced_by=("roles/distributor/distributor.py",),
    )
    max_inflight_push_requests_bytes: Bytes = setting(
        Bytes(0),
        flag="distributor.instance-limits.max-inflight-push-requests-bytes",
        category="advanced",
        minimum=0,
        help="Bytes of the push requests under way in one distributor; 0 allows any number.",
        enforced_by=("roles/distributor/distributor.py",),
    )


@dataclass(frozen=True, slots=True)
class IngesterInstanceLimits:
    """`ingester.instance_limits`, and `ingester_limits` of the runtime configuration."""

    max_ingestion_rate: float = setting(
        0.0,
        flag="ingester.instance-limits.max-ingestion-rate",
        unit="samples/s",
        category="advanced",
        minimum=0,
        help="Samples a second that one ingester takes; 0 allows any number.",
        enforced_by=("roles/ingester/instance_limits.py",),
    )
    max_tenants: int = setting(
        0,
        flag="ingester.instance-limits.max-tenants",
        category="advanced",
        minimum=0,
        help="Tenants in one ingester; 0 allows any number.",
        enforced_by=("roles/ingester/ingester.py",),
    )
    max_series: int = setting(
        0,
        flag="ingester.instance-limits.max-series",
        category="advanced",
        minimum=0,
        help="Series in memory of one ingester; 0 allows any number.",
        enforced_by=("roles/ingester/ingester.py",),
    )
    max_inflight_push_requests: int = setting(
        30_000,
        flag="ingester.instance-limits.max-inflight-push-requests",
        category="advanced",
        minimum=0,
        help="Push requests under way in one ingester; 0 allows any number.",
        enforced_by=("roles/ingester/instance_limits.py",),
    )
    max_inflight_push_requests_bytes: Bytes = setting(
        Bytes(0),
        flag="ingester.instance-limits.max-inflight-push-requests-bytes",
        category="advanced",
        minimum=0,
        help="Bytes of the push requests under way in one ingester; 0 allows any number.",
        enforced_by=("roles/ingester/instance_limits.py",),
    )
