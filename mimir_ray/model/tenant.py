"""Tenant ids: what is a valid one, and how several are named in one header.

Rules as in Mimir (docs: references/about-tenant-ids): at most 150 bytes of `0-9A-Za-z!-_.*'()`, not
`.`, `..` or `__mimir_cluster`; `|` separates tenants of a federated request.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NewType

from mimir_ray.errors import ClientError

TenantId = NewType("TenantId", str)

DEFAULT_TENANT = TenantId("anonymous")
MAX_TENANT_ID_BYTES = 150
_RESERVED = frozenset({".", "..", "__mimir_cluster"})
_UNSUPPORTED = re.compile(r"[^0-9A-Za-z!\-_.*'()]")


class NoTenant(ClientError):
    """The request names no tenant. Upstream: dskit user.ErrNoOrgID."""

    def describe(self) -> str:
        return "no org id"


@dataclass(eq=False)
class TooManyTenants(ClientError):
    actual: int
    allowed: int

    def describe(self) -> str:
        return f"too many tenant IDs present. max: {self.allowed} actual: {self.actual}"


@dataclass(eq=False)
class InvalidTenant(ClientError):
    reason: str

    def describe(self) -> str:
        return self.reason


def validate_tenant(text: str) -> TenantId:
    """The tenant id, or `InvalidTenant` with dskit's texts (tenant.ValidTenantID)."""
    if bad := _UNSUPPORTED.search(text):
        raise InvalidTenant(f"tenant ID '{text}' contains unsupported character '{bad.group()}'")
    if len(text) > MAX_TENANT_ID_BYTES:
        raise InvalidTenant(f"tenant ID is too long: max {MAX_TENANT_ID_BYTES} characters")
    if text in _RESERVED:
        raise InvalidTenant("tenant ID is '.' or '..'" if text in (".", "..") else f"tenant ID '{text}' is not allowed")
    return TenantId(text)


def parse_tenants(header: str | None, allowed: int = 1) -> tuple[TenantId, ...]:
    """The tenants that `X-Scope-OrgID` names: sorted, each once.

    Raises `NoTenant`, `InvalidTenant`, or `TooManyTenants` where there are more than `allowed` (0 = no bound).
    """
    if not header:
        raise NoTenant
    tenants = tuple(sorted({validate_tenant(part) for part in header.split("|")}))
    if "" in tenants:
        raise NoTenant
    if allowed and len(tenants) > allowed:
        raise TooManyTenants(len(tenants), allowed)
    return tenants
