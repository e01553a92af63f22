"""Settings of object storage: a backend, where on it, and how patient we are with it.

Mimir's names (`common.storage`, `blocks_storage`): pkg/storage/bucket/client.go, pkg/storage/bucket/*/config.go.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from mimir_ray.config.render import MASK
from mimir_ray.config.setting import block, setting
from mimir_ray.config.units import Bytes, Duration, duration

_STORAGE_PREFIX = re.compile(r"[0-9A-Za-z]*")
STORAGE_CLASSES = (
    "STANDARD", "REDUCED_REDUNDANCY", "STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER", "DEEP_ARCHIVE",
    "OUTPOSTS", "GLACIER_IR", "SNOW", "EXPRESS_ONEZONE",
)  # fmt: skip


class Secret(str):
    """A text that does not show in logs and tracebacks."""

    __slots__ = ()
    yaml_type = "string"

    @classmethod
    def from_yaml(cls, value: Any) -> Secret:
        if value is None:
            return cls()
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise ValueError("expected string")
        return cls(value)

    def __repr__(self) -> str:
        return repr(MASK if self else "")


@dataclass(frozen=True, slots=True)
class SseConfig:
    """`s3.sse`: encryption by the server."""

    type: Literal["", "SSE-S3", "SSE-KMS"] = setting("", flag="s3.sse.type", help="Server-side encryption. Empty: off.")
    kms_key_id: str = setting("", flag="s3.sse.kms-key-id", help="Key of SSE-KMS. Empty: the account's default one.")
    kms_encryption_context: str = setting(
        "", flag="s3.sse.kms-encryption-context", help="Context of SSE-KMS: a JSON object of strings."
    )

    def problems(self) -> Iterator[tuple[str, str]]:
        if self.kms_encryption_context:
            try:
                context = json.loads(self.kms_encryption_context)
            except ValueError:
                context = None
            if not isinstance(context, dict) or not all(isinstance(one, str) for one in context.values()):
                yield "kms_encryption_context", "expected a JSON object of strings"


@dataclass(frozen=True, slots=True)
class S3HttpConfig:
    """`s3.http`: connections to the server."""

    idle_conn_timeout: Duration = setting(
        duration("90s"),
        flag="s3.http.idle-conn-timeout",
        category="advanced",
        minimum=1,
        help="How long a connection that nobody uses is kept.",
    )
    response_header_timeout: Duration = setting(
        duration("2m"),
        flag="s3.http.response-header-timeout",
        category="advanced",
        minimum=1,
        help="How long the server may send nothing while an answer is expected or on its way.",
    )
    tls_handshake_timeout: Duration = setting(
        duration("10s"),
        flag="s3.tls-handshake-timeout",
        category="advanced",
        minimum=1,
        help="How long connecting may take, TLS included.",
    )
    max_connections_per_host: int = setting(
        0, flag="s3.max-connections-per-host", category="advanced", minimum=0, help="0: as many as operations at once."
    )
    insecure_skip_verify: bool = setting(
        False, flag="s3.http.insecure-skip-verify", category="advanced", help="Any certificate will do."
    )
    tls_ca_path: str = setting(
        "", flag="s3.http.tls-ca-path", category="advanced", help="Certificates of authorities; empty: the system's."
    )
    tls_cert_path: str = setting("", flag="s3.http.tls-cert-path", category="advanced", help="Our own certificate.")
    tls_key_path: str = setting("", flag="s3.http.tls-key-path", category="advanced", help="Its key.")

    def problems(self) -> Iterator[tuple[str, str]]:
        if bool(self.tls_cert_path) != bool(self.tls_key_path):
            yield "tls_cert_path", "a certificate needs its key, and a key its certificate"


@dataclass(frozen=True, slots=True)
class S3Config:
    """The `s3` block."""

    endpoint: str = setting(
        "", flag="s3.endpoint", help="Host, or host:port, of AWS or of what speaks S3. Empty: AWS, by the region."
    )
    region: str = setting("", flag="s3.region", help="Empty: as the environment says.")
    bucket_name: str = setting("", flag="s3.bucket-name", help="The bucket. It is not created.")
    access_key_id: str = setting(
        "", flag="s3.access-key-id", help="Empty: as AWS' tools find it, in environment, files, or the machine's role."
    )
    secret_access_key: Secret = setting(Secret(), flag="s3.secret-access-key", secret=True, help="Of the access key.")
    session_token: Secret = setting(Secret(), flag="s3.session-token", secret=True, help="Of temporary credentials.")
    insecure: bool = setting(False, flag="s3.insecure", category="advanced", help="http:// instead of https://.")
    signature_version: Literal["v4", "v2"] = setting(
        "v4", flag="s3.signature-version", category="advanced", help="How requests are signed."
    )
    list_objects_version: Literal["", "v1", "v2"] = setting(
        "", flag="s3.list-objects-version", category="advanced", help="Which listing is asked for. Empty: v2."
    )
    bucket_lookup_type: Literal["auto", "path", "virtual-hosted"] = setting(
        "auto", flag="s3.bucket-lookup-type", category="advanced", help="Where the bucket's name stands in addresses."
    )
    dualstack_enabled: bool = setting(
        True, flag="s3.dualstack-enabled", category="experimental", help="AWS' endpoints for IPv4 and IPv6."
    )
    storage_class: str = setting(
        "", flag="s3.storage-class", category="experimental", help="Of new objects. Empty: the bucket's default."
    )
    native_aws_auth_enabled: bool = setting(
        False,
        flag="s3.native-aws-auth-enabled",
        category="experimental",
        help="Credentials as AWS' tools find them, whatever the access key says.",
    )
    part_size: Bytes = setting(
        Bytes(0),
        flag="s3.part-size",
        category="experimental",
        minimum=0,
        maximum=5 << 30,
        help="Of uploads in parts, at least 5 MiB. 0: 16 MiB, more for files that would have over 10,000 parts.",
    )
    send_content_md5: bool = setting(
        False, flag="s3.send-content-md5", category="experimental", help="Send the MD5 of what is written along."
    )
    sse: SseConfig = block(SseConfig)
    http: S3HttpConfig = block(S3HttpConfig)

    def problems(self) -> Iterator[tuple[str, str]]:
        host = self.endpoint.partition("://")[2] or self.endpoint
        if self.bucket_name and host.split(".")[0] == self.bucket_name:
            yield "endpoint", "the endpoint must not start with the name of the bucket"
        if self.storage_class and self.storage_class not in STORAGE_CLASSES:
            yield "storage_class", f"expected one of {', '.join(STORAGE_CLASSES)}"
        if 0 < self.part_size < 5 << 20:
            yield "part_size", f"must be 0 or at least 5 MiB, got {self.part_size} bytes"


@dataclass(frozen=True, slots=True)
class GcsConfig:
    """The `gcs` block."""

    bucket_name: str = setting("", flag="gcs.bucket-name", help="The bucket.")
    service_account: Secret = setting(
        Secret(),
        flag="gcs.service-account",
        secret=True,
        help="The service account's key: JSON, or the path of its file. Empty: as Google's tools find it.",
    )

    def problems(self) -> Iterator[tuple[str, str]]:
        if self.service_account.lstrip().startswith("{"):
            try:
                json.loads(self.service_account)
            except ValueError:
                yield "service_account", "no valid JSON"


@dataclass(frozen=True, slots=True)
class AzureConfig:
    """The `azure` block."""

    account_name: str = setting("", flag="azure.account-name", help="The storage account.")
    account_key: Secret = setting(
        Secret(), flag="azure.account-key", secret=True, help="Its key. Empty: a managed identity."
    )
    connection_string: Secret = setting(
        Secret(), flag="azure.connection-string", secret=True, help="In place of name and key."
    )
    container_name: str = setting("", flag="azure.container-name", help="The container.")
    endpoint_suffix: str = setting("", flag="azure.endpoint-suffix", help="Empty: blob.core.windows.net.")


@dataclass(frozen=True, slots=True)
class FilesystemConfig:
    """The `filesystem` block."""

    dir: str = setting("", flag="filesystem.dir", help="Empty: a folder in the data directory.")


@dataclass(frozen=True, slots=True)
class StorageBackendConfig:
    """`common.storage`: where objects are, for every store that does not say so itself."""

    backend: Literal["filesystem", "s3", "gcs", "azure", "swift"] = setting(
        "filesystem",
        flag="backend",
        help="`gcs` and `azure` need the extra of that name (`pip install mimir-ray[gcs]`); Swift is reached by its S3 "
        "interface.",
    )
    s3: S3Config = block(S3Config)
    gcs: GcsConfig = block(GcsConfig)
    azure: AzureConfig = block(AzureConfig)
    filesystem: FilesystemConfig = block(FilesystemConfig)

    @property
    def bucket_name(self) -> str:
        """Of the backend in use; "" for a folder."""
        names = {"s3": self.s3.bucket_name, "gcs": self.gcs.bucket_name, "azure": self.azure.container_name}
        return names.get(self.backend, "")


@dataclass(frozen=True, slots=True)
class OperationsConfig:
    """`operations` of a store, ours: how patient we are with object storage."""

    timeout: Duration = setting(
        duration("1m"), flag="operations.timeout", category="advanced", minimum=1, help="Of one attempt at one request."
    )
    max_retries: int = setting(
        6, flag="operations.max-retries", category="advanced", minimum=0, maximum=100, help="After the first attempt."
    )
    min_backoff: Duration = setting(
        duration("100ms"), flag="operations.min-backoff", category="advanced", minimum=0, help="Before the first retry."
    )
    max_backoff: Duration = setting(
        duration("10s"), flag="operations.max-backoff", category="advanced", minimum=0, help="Each retry waits longer."
    )
    max_concurrency: int = setting(
        64, flag="operations.max-concurrency", category="advanced", minimum=1, help="Operations at once, per process."
    )
    max_wait: Duration = setting(
        duration("2m"),
        flag="operations.max-wait",
        category="advanced",
        minimum=1,
        help="How long an operation waits while as many as allowed are running; then it fails.",
    )


@dataclass(frozen=True, slots=True)
class StorageConfig:
    """A store: `blocks_storage` and others have these settings among their own."""

    where: StorageBackendConfig = block(StorageBackendConfig, inline=True)
    storage_prefix: str = setting(
        "", flag="storage-prefix", help="Before the keys of all objects; digits and English letters."
    )
    operations: OperationsConfig = block(OperationsConfig, help="How patient we are with object storage. Ours.")

    def problems(self) -> Iterator[tuple[str, str]]:
        if not _STORAGE_PREFIX.fullmatch(self.storage_prefix):
            yield "storage_prefix", "may only contain digits and English letters"
        if self.where.backend == "swift":
            yield "backend", "swift is not supported by itself; use backend s3 with the S3 interface of Swift"
        elif self.where.backend != "filesystem" and not self.where.bucket_name:
            name = "container_name" if self.where.backend == "azure" else "bucket_name"
            yield f"{self.where.backend}.{name}", f"is needed with backend {self.where.backend}"


@dataclass(frozen=True, slots=True)
class CommonConfig:
    """The `common` block."""

    storage: StorageBackendConfig = block(
        StorageBackendConfig, prefix="common.storage.", help="Object storage; each store may say otherwise."
    )


@dataclass(frozen=True, slots=True)
class BucketIndexConfig:
    """`blocks_storage.bucket_store.bucket_index`: how readers keep a tenant's list of blocks."""

    update_on_error_interval: Duration = setting(
        duration("1m"),
        flag="blocks-storage.bucket-store.bucket-index.update-on-error-interval",
        category="advanced",
        minimum=1,
        help="How soon a bucket index that could not be loaded is tried again.",
    )
    idle_timeout: Duration = setting(
        duration("1h"),
        flag="blocks-storage.bucket-store.bucket-index.idle-timeout",
        category="advanced",
        minimum=1,
        help="A bucket index that nobody asked for so long is dropped from memory.",
    )
    max_stale_period: Duration = setting(
        duration("1h"),
        flag="blocks-storage.bucket-store.bucket-index.max-stale-period",
        category="advanced",
        minimum=0,
        help="Queries fail where the bucket index was not updated for so long. 0: never.",
    )
