"""Settings of the process as a whole: who listens where, how it logs, whose requests it takes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from mimir_ray.config.setting import block, setting
from mimir_ray.config.units import Duration, duration
from mimir_ray.model.tenant import InvalidTenant, validate_tenant


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """Certificates of the HTTP server; TLS is on when both files are named."""

    cert_file: str = setting(
        "", flag="server.http-tls-cert-path", category="advanced", help="The server's certificate, PEM."
    )
    key_file: str = setting("", flag="server.http-tls-key-path", category="advanced", help="Its private key, PEM.")
    client_ca_file: str = setting(
        "", flag="server.http-tls-ca-path", category="advanced", help="Clients must show a certificate of this CA."
    )

    def problems(self) -> Iterator[tuple[str, str]]:
        if bool(self.cert_file) != bool(self.key_file):
            yield "", "cert_file and key_file are needed together"


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """The `server` block."""

    http_listen_address: str = setting(
        "127.0.0.1",
        flag="server.http-listen-address",
        help="Address to listen on. Mimir listens on all; here that is asked for with 0.0.0.0.",
    )
    http_listen_port: int = setting(
        8080, flag="server.http-listen-port", minimum=0, maximum=65535, help="Port to listen on; 0 takes a free one."
    )
    http_listen_conn_limit: int = setting(
        0, flag="server.http-conn-limit", category="advanced", help="Connections at once; 0 allows any number."
    )
    http_server_read_timeout: Duration = setting(
        duration("30s"),
        flag="server.http-read-timeout",
        category="advanced",
        minimum=1,
        help="A request, body included, must have arrived in this time.",
    )
    http_server_write_timeout: Duration = setting(
        duration("2m"),
        flag="server.http-write-timeout",
        category="advanced",
        minimum=1,
        help="An answer must be ready in this time.",
    )
    http_server_idle_timeout: Duration = setting(
        duration("2m"),
        flag="server.http-idle-timeout",
        category="advanced",
        minimum=1,
        help="A connection without requests is closed after this time.",
    )
    graceful_shutdown_timeout: Duration = setting(
        duration("30s"),
        flag="server.graceful-shutdown-timeout",
        category="advanced",
        minimum=0,
        help="Requests under way may take this long when the process is asked to stop.",
    )
    http_path_prefix: str = setting(
        "", flag="server.path-prefix", category="advanced", help="Put before every path that is served."
    )
    http_tls_config: TlsConfig = block(TlsConfig, help="TLS of the HTTP server.")
    log_format: Literal["logfmt", "json"] = setting("logfmt", flag="log.format", help="How log lines are written.")
    log_level: Literal["debug", "info", "warn", "error"] = setting(
        "info", flag="log.level", help="The least important lines that are written."
    )
    log_request_at_info_level_enabled: bool = setting(
        False,
        flag="server.log-request-at-info-level-enabled",
        category="advanced",
        help="Logs every request at level info instead of debug.",
    )

    @property
    def scheme(self) -> str:
        """Of the server's URLs."""
        return "https" if self.http_tls_config.cert_file else "http"

    def problems(self) -> Iterator[tuple[str, str]]:
        yield from prefix_problems("http_path_prefix", self.http_path_prefix)


@dataclass(frozen=True, slots=True)
class ApiConfig:
    """The `api` block."""

    prometheus_http_prefix: str = setting(
        "/prometheus", flag="http.prometheus-http-prefix", category="advanced", help="Path of the Prometheus API."
    )
    alertmanager_http_prefix: str = setting(
        "/alertmanager", flag="http.alertmanager-http-prefix", category="advanced", help="Path of the Alertmanager."
    )
    skip_label_name_validation_header_enabled: bool = setting(
        False,
        flag="api.skip-label-name-validation-header-enabled",
        category="advanced",
        help="Lets senders skip the check of label names with a header.",
    )
    skip_label_count_validation_header_enabled: bool = setting(
        False,
        flag="api.skip-label-count-validation-header-enabled",
        category="advanced",
        help="Lets senders skip the limit on the number of labels with a header.",
    )
    response_compression_level: int = setting(
        -1,
        flag="http.response-compression-level",
        category="advanced",
        minimum=-1,
        maximum=9,
        help="gzip level of answers to those who accept it, 1 to 9; -1 is gzip's own default, 0 turns it off.",
    )

    def problems(self) -> Iterator[tuple[str, str]]:
        yield from prefix_problems("prometheus_http_prefix", self.prometheus_http_prefix)
        yield from prefix_problems("alertmanager_http_prefix", self.alertmanager_http_prefix)


@dataclass(frozen=True, slots=True)
class TenancyConfig:
    """`multitenancy_enabled` and `no_auth_tenant`: declared inline, they stand at the top of the file."""

    multitenancy_enabled: bool = setting(
        True,
        flag="auth.multitenancy-enabled",
        help="Whether requests name their tenant in X-Scope-OrgID; otherwise all belong to one.",
    )
    no_auth_tenant: str = setting(
        "anonymous",
        flag="auth.no-auth-tenant",
        category="advanced",
        help="The tenant of all requests when multi-tenancy is off.",
    )

    def problems(self) -> Iterator[tuple[str, str]]:
        try:
            validate_tenant(self.no_auth_tenant)
        except InvalidTenant as error:
            yield "no_auth_tenant", error.reason


@dataclass(frozen=True, slots=True)
class TenantFederationConfig:
    """The `tenant_federation` block."""

    enabled: bool = setting(
        False, flag="tenant-federation.enabled", help="Whether a query may name several tenants: `a|b`. No effect yet."
    )
    max_concurrent: int = setting(
        16,
        flag="tenant-federation.max-concurrent",
        category="experimental",
        minimum=1,
        help="Tenants of one query that are read at once. No effect yet.",
    )
    max_tenants: int = setting(
        0,
        flag="tenant-federation.max-tenants",
        minimum=0,
        help="Tenants in one query; 0 allows any number. No effect yet.",
    )


def prefix_problems(name: str, prefix: str) -> Iterator[tuple[str, str]]:
    """Paths start with a slash and do not end with one."""
    if prefix and (not prefix.startswith("/") or prefix.endswith("/")):
        yield name, f"must start with / and not end with it, got {prefix!r}"


def reachable(listen_address: str) -> str:
    """Where this machine reaches a server that listens on an address: itself, if it listens on all."""
    return "127.0.0.1" if listen_address in ("", "0.0.0.0", "::") else listen_address  # noqa: S104  (nobody binds here)
