"""Whose request it is: `X-Scope-OrgID`, or the one tenant of a system without multi-tenancy."""

from __future__ import annotations

from sanic import Request

from mimir_ray.config.server import TenancyConfig
from mimir_ray.model.tenant import TenantId, parse_tenants

HEADER = "X-Scope-OrgID"


class Authenticator:
    """Names the tenant of a request. Upstream: dskit/middleware AuthenticateUser, pkg/util/noauth."""

    def __init__(self, config: TenancyConfig) -> None:
        self._config = config

    def tenant(self, request: Request) -> TenantId:
        """Exactly one tenant. Raises NoTenant, InvalidTenant, TooManyTenants."""
        if not self._config.multitenancy_enabled:
            return TenantId(self._config.no_auth_tenant)
        return parse_tenants(request.headers.get(HEADER))[0]
