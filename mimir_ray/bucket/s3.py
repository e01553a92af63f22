"""A bucket in S3, or in what speaks its protocol: requests through the session and event loop of s3fs.

Every request is one attempt of ours: s3fs and botocore do not retry by themselves, and nothing is cached. What arrives
is compared with what was announced; an object that is read in several pieces is read in one version (If-Match).
Importing this module costs 0.3 s of CPU and 20 MiB, so it is imported where S3 is configured only.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import structlog
from aiobotocore.session import AioSession
from botocore import exceptions as boto
from fsspec.asyn import sync
from fsspec.exceptions import FSTimeoutError
from s3fs import S3FileSystem

from .config import S3Config
from .filesystem import place
from .retry import PassingFailure, Retry
from .store import BucketUnavailable, ObjectInfo, ObjectNotFound, check_key, check_prefix

log = structlog.get_logger(__name__)

Result = TypeVar("Result")

PIECE_BYTES = 16 << 20
"""Larger objects are moved in pieces of this size."""
PIECES_AT_ONCE = 4
"""Of one upload; four times a piece is what it takes of memory."""
PARTS_MAX = 10_000

_MISSING = frozenset({"NoSuchKey", "NoSuchVersion", "404", "NotFound"})
_PASSING = frozenset(
    {
        "SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded", "RequestThrottled", "TooManyRequests",
        "RequestTimeout", "RequestTimeoutException", "InternalError", "ServiceUnavailable", "OperationAborted",
        "IncompleteBody", "BadDigest", "XAmzContentSHA256Mismatch", "PreconditionFailed", "412", "429",
        "ConditionalRequestConflict",
    }
)  # fmt: skip
_FINAL = (
    boto.NoCredentialsError, boto.PartialCredentialsError, boto.ParamValidationError, boto.NoRegionError,
    boto.InvalidEndpointConfigurationError,
)  # fmt: skip


class _NoSuchUpload(Exception):
    """The upload in parts is over: completed by an attempt whose answer was lost, or aborted."""


class S3Bucket:
    """See `Bucket`. Thread-safe; not to be used from the event loop's own thread."""

    def __init__(self, config: S3Config, retry: Retry, max_concurrency: int) -> None:
        self._config = config
        self._retry = retry
        self._name = config.bucket_name
        self._filesystem = session(config, max_concurrency)
        self._timeout_s = retry.config.timeout.seconds
        self._client: Any = None
        self._put_options = put_options(config)
        self._list_method = "list_objects" if config.list_objects_version == "v1" else "list_objects_v2"

    # Reading

    def get(self, key: str) -> bytes:
        data, _, total = self._get("get", key, 0, PIECE_BYTES)
        if len(data) == total:
            return data
        pieces: list[bytes] = []
        self._whole("get", key, lambda _at, data: pieces.append(data), pieces.clear)
        return b"".join(pieces)

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        assert offset >= 0
        if length <= 0:
            self.info(key)
            return b""
        data, _, total = self._get("get_range", key, offset, length)
        return data[: max(0, total - offset)]

    def local_path(self, key: str) -> str | None:
        return None

    def download(self, key: str, path: Path) -> None:
        check_key(key)
        try:
            place(path, lambda temporary: self._download(key, temporary), durable=False)
        except OSError as error:
            raise BucketUnavailable("download", key, f"{path}: {error.strerror or error}") from None

    def _download(self, key: str, path: Path) -> None:
        with path.open("wb") as file:
            self._whole("get", key, lambda at, data: os.pwrite(file.fileno(), data, at), lambda: file.truncate(0))

    def _whole(
        self, operation: str, key: str, take: Callable[[int, bytes], object], again: Callable[[], object]
    ) -> None:
        """Hands over all pieces of one version of an object; calls `again` where it has to begin anew."""
        for _ in range(self._retry.config.max_retries + 1):
            again()
            data, etag, total = self._get(operation, key, 0, PIECE_BYTES)
            take(0, data)
            try:
                for start in range(len(data), total, PIECE_BYTES):
                    some, _, _ = self._get(operation, key, start, min(PIECE_BYTES, total - start), etag)
                    if len(some) != min(PIECE_BYTES, total - start):
                        raise _Replaced
                    take(start, some)
                return
            except _Replaced:
                continue
        raise BucketUnavailable(operation, key, "it is replaced again and again while it is read")

    def _get(self, operation: str, key: str, offset: int, length: int, etag: str = "") -> tuple[bytes, str, int]:
        """(bytes, version, size of the object). Raises `_Replaced` where the version is another one."""
        options = {"Bucket": self._name, "Key": check_key(key), "Range": f"bytes={offset}-{offset + length - 1}"}
        if etag:
            options["IfMatch"] = etag

        async def read(client: Any) -> tuple[bytes, str, int]:
            answer = await client.get_object(**options)
            async with answer["Body"] as body:
                data: bytes = await body.read()
            start, end, total = _range_of(answer)
            if start != offset or end - start != len(data) or end != min(total, offset + length):
                raise PassingFailure(f"{len(data)} bytes came, of {end - start} at {start} that were announced")
            return data, answer.get("ETag", ""), total

        try:
            return self._request(operation, key, read)
        except _OutOfRange:
            return b"", "", offset

    def exists(self, key: str) -> bool:
        try:
            self.info(key)
        except ObjectNotFound:
            return False
        return True

    def info(self, key: str) -> ObjectInfo:
        return self._head(key)[0]

    def _head(self, key: str) -> tuple[ObjectInfo, str]:
        check_key(key)

        async def head(client: Any) -> tuple[ObjectInfo, str]:
            answer = await client.head_object(Bucket=self._name, Key=key)
            modified_ms = int(answer["LastModified"].timestamp() * 1000)
            return ObjectInfo(key, answer["ContentLength"], modified_ms), answer.get("ETag", "")

        return self._request("look at", key, head)

    # Listing

    def list_folders(self, prefix: str = "") -> list[str]:
        check_prefix(prefix)
        found: set[str] = set()
        for page in self._pages(prefix, "/"):
            names = (one["Prefix"].removeprefix(prefix).rstrip("/") for one in page.get("CommonPrefixes", ()))
            found.update(name for name in names if name)
        return sorted(found)

    def list_objects(self, prefix: str = "") -> Iterator[ObjectInfo]:
        check_prefix(prefix)
        for page in self._pages(prefix, ""):
            for one in page.get("Contents", ()):
                if not one["Key"].endswith("/"):  # what consoles make to show a folder
                    yield ObjectInfo(one["Key"], one["Size"], int(one["LastModified"].timestamp() * 1000))

    def _pages(self, prefix: str, delimiter: str) -> Iterator[dict[str, Any]]:
        options: dict[str, Any] = {"Bucket": self._name, "Prefix": prefix}
        if delimiter:
            options["Delimiter"] = delimiter
        while True:

            async def list_page(client: Any) -> dict[str, Any]:
                page: dict[str, Any] = await getattr(client, self._list_method)(**options)
                return page

            page = self._request("list", prefix, list_page)
            yield page
            if not page.get("IsTruncated"):
                return
            if self._list_method == "list_objects_v2":
                options["ContinuationToken"] = page["NextContinuationToken"]
            else:
                last = [one["Key"] for one in page.get("Contents", ())[-1:]]
                options["Marker"] = page.get("NextMarker") or last[0]

    # Writing

    def put(self, key: str, data: bytes) -> None:
        options = {**self._put_options, "Bucket": self._name, "Key": check_key(key), "Body": data, **self._md5(data)}

        async def write(client: Any) -> None:
            await client.put_object(**options)

        self._request("write", key, write)

    def upload(self, path: Path, key: str) -> None:
        check_key(key)
        try:
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                part = self._part_bytes(size)
                if size <= part:
                    self.put(key, file.read())
                else:
                    self._upload_parts(key, file.fileno(), size, part)
        except OSError as error:
            raise BucketUnavailable("upload", key, f"{path}: {error.strerror or error}") from None

    def _part_bytes(self, size: int) -> int:
        return max(self._config.part_size or PIECE_BYTES, -(-size // PARTS_MAX))

    def _upload_parts(self, key: str, descriptor: int, size: int, part_bytes: int) -> None:
        """Nobody sees the object before all parts are there and the upload is completed."""

        async def create(client: Any) -> str:
            answer = await client.create_multipart_upload(Bucket=self._name, Key=key, **self._put_options)
            upload: str = answer["UploadId"]
            return upload

        upload = self._request("upload", key, create)
        which = {"Bucket": self._name, "Key": key, "UploadId": upload}

        def send(number: int) -> dict[str, Any]:
            start = (number - 1) * part_bytes
            data = os.pread(descriptor, min(part_bytes, size - start), start)
            if len(data) != min(part_bytes, size - start):
                raise BucketUnavailable("upload", key, "the file was cut while it was read")

            async def write(client: Any) -> dict[str, Any]:
                answer = await client.upload_part(**which, PartNumber=number, Body=data, **self._md5(data))
                return {"PartNumber": number, "ETag": answer["ETag"]}

            return self._request("upload", key, write)

        try:
            with ThreadPoolExecutor(PIECES_AT_ONCE, "s3-upload") as pool:
                parts = list(pool.map(send, range(1, -(-size // part_bytes) + 1)))
            self._complete(key, which, parts, size)
        except BaseException:
            self._abort(key, which)
            raise

    def _complete(self, key: str, which: dict[str, str], parts: list[dict[str, Any]], size: int) -> None:
        async def complete(client: Any) -> None:
            await client.complete_multipart_upload(**which, MultipartUpload={"Parts": parts})

        try:
            self._request("upload", key, complete)
        except _NoSuchUpload:
            # An attempt whose answer was lost may have completed it; then the object is there as we meant it.
            info, etag = self._head(key)
            if info.size != size or not etag.strip('"').endswith(f"-{len(parts)}"):
                raise BucketUnavailable("upload", key, "the upload in parts was aborted by somebody else") from None

    def _abort(self, key: str, which: dict[str, str]) -> None:
        """What was sent is of no use any more, and would cost."""

        async def abort(client: Any) -> None:
            await client.abort_multipart_upload(**which)

        try:
            self._request("abort the upload of", key, abort)
        except (BucketUnavailable, ObjectNotFound, _NoSuchUpload) as error:
            log.warning("parts of a failed upload are left in the bucket", key=key, error=str(error))

    def delete(self, key: str) -> None:
        check_key(key)

        async def delete(client: Any) -> None:
            await client.delete_object(Bucket=self._name, Key=key)

        try:
            self._request("delete", key, delete)
        except ObjectNotFound:
            return

    def _md5(self, data: bytes) -> dict[str, str]:
        if not self._config.send_content_md5:
            return {}
        return {"ContentMD5": base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()}

    # One request

    def _request(self, operation: str, key: str, make: Callable[[Any], Awaitable[Result]]) -> Result:
        """What `make(client)` returns. Raises `ObjectNotFound`, `BucketUnavailable`, and what `_failure` says."""

        async def bounded() -> Result:
            # The timeout is inside: then what is cancelled is over when the caller goes on.
            return await asyncio.wait_for(make(self._client), self._timeout_s)

        def attempt() -> Result:
            try:
                self._connect()
                result: Result = sync(self._filesystem.loop, bounded)
                return result
            except PassingFailure:
                raise
            except Exception as error:  # noqa: BLE001  (translated, and raised)
                raise _failure(operation, key, error) from None

        return self._retry.run(operation, key, attempt)

    def _connect(self) -> None:
        if self._client is None:
            self._client = sync(self._filesystem.loop, self._filesystem.set_session, timeout=self._timeout_s)


class _Replaced(Exception):
    """The object is another one than when it was read first."""


class _OutOfRange(Exception):
    """The range starts behind the object's end."""


def _range_of(answer: dict[str, Any]) -> tuple[int, int, int]:
    """(first byte, end, size of the object) of an answer to a request for a range; servers may give all instead."""
    text = answer.get("ContentRange", "")
    if not text:
        return 0, answer["ContentLength"], answer["ContentLength"]
    try:
        span, _, total = text.removeprefix("bytes ").partition("/")
        first, _, last = span.partition("-")
        return int(first), int(last) + 1, int(total)
    except ValueError:
        raise PassingFailure(f"an answer with the range {text!r}") from None


def _failure(operation: str, key: str, error: Exception) -> Exception:
    """What to raise for what an attempt raised: `PassingFailure` where another one may do better."""
    if isinstance(error, boto.ClientError):
        answer = error.response
        code = str(answer.get("Error", {}).get("Code", ""))
        status = int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) or 0)
        reason = f"{code}: {answer.get('Error', {}).get('Message', '')}".rstrip(": ") or f"status {status}"
        if code == "NoSuchUpload":
            return _NoSuchUpload()
        if code in ("InvalidRange", "416"):
            return _OutOfRange()
        if code in ("PreconditionFailed", "412") and operation in ("get", "get_range"):
            return _Replaced()
        if code in _MISSING:
            return ObjectNotFound(key)
        if code in _PASSING or status >= 500 or status in (408, 429):
            return PassingFailure(reason)
        return BucketUnavailable(operation, key, reason)
    if isinstance(error, _FINAL):
        return BucketUnavailable(operation, key, str(error))
    if isinstance(error, (asyncio.TimeoutError, TimeoutError, FSTimeoutError)):
        return PassingFailure("it took too long")
    if isinstance(error, (boto.BotoCoreError, aiohttp.ClientError, OSError, EOFError)):
        return PassingFailure(str(error) or type(error).__name__)
    return error


_sessions: dict[tuple[S3Config, int], S3FileSystem] = {}
_models = AioSession()
"""Keeps the descriptions of services, which would take 14 MiB of each client otherwise."""
_lock = threading.Lock()


def session(config: S3Config, max_concurrency: int) -> S3FileSystem:
    """Connections, shared by all buckets of this process that are configured alike."""
    with _lock:
        if (config, max_concurrency) not in _sessions:
            options = session_options(config, max_concurrency)
            _sessions[config, max_concurrency] = S3FileSystem(session=_models, **options)
        return _sessions[config, max_concurrency]


def put_options(config: S3Config) -> dict[str, Any]:
    """What every new object is made with."""
    options: dict[str, Any] = {}
    if config.storage_class:
        options["StorageClass"] = config.storage_class
    if config.sse.type == "SSE-S3":
        options["ServerSideEncryption"] = "AES256"
    elif config.sse.type == "SSE-KMS":
        options["ServerSideEncryption"] = "aws:kms"
        if config.sse.kms_key_id:
            options["SSEKMSKeyId"] = config.sse.kms_key_id
        if config.sse.kms_encryption_context:
            context = base64.b64encode(config.sse.kms_encryption_context.encode())
            options["SSEKMSEncryptionContext"] = context.decode()
    return options


def session_options(config: S3Config, max_concurrency: int) -> dict[str, Any]:
    """Arguments of `S3FileSystem`."""
    http = config.http
    scheme = "http" if config.insecure else "https"
    endpoint = config.endpoint if "://" in config.endpoint or not config.endpoint else f"{scheme}://{config.endpoint}"
    style = {"auto": "auto", "path": "path", "virtual-hosted": "virtual"}[config.bucket_lookup_type]
    if style == "auto" and config.endpoint and not config.endpoint.endswith(".amazonaws.com"):
        style = "path"  # what is not AWS is reached by an address more often than by a name per bucket
    client_config: dict[str, Any] = {
        "connect_timeout": http.tls_handshake_timeout.seconds,
        "read_timeout": http.response_header_timeout.seconds,
        "max_pool_connections": http.max_connections_per_host or max_concurrency + PIECES_AT_ONCE,
        "retries": {"total_max_attempts": 1, "mode": "standard"},
        "signature_version": {"v4": "s3v4", "v2": "s3"}[config.signature_version],
        "s3": {"addressing_style": style},
        # What is not AWS often does not know newer checksums; requests are signed with a hash of the body anyway.
        "request_checksum_calculation": "when_required",
        "response_checksum_validation": "when_required",
        "connector_args": {"keepalive_timeout": http.idle_conn_timeout.seconds},
    }
    if not config.endpoint:
        client_config["use_dualstack_endpoint"] = config.dualstack_enabled
    client: dict[str, Any] = {}
    if config.region:
        client["region_name"] = config.region
    elif config.endpoint and not config.endpoint.endswith(".amazonaws.com"):
        client["region_name"] = "us-east-1"  # it is part of signatures, and has to be something
    if http.insecure_skip_verify:
        client["verify"] = False
    elif http.tls_ca_path:
        client["verify"] = http.tls_ca_path
    if http.tls_cert_path:
        client_config["client_cert"] = (http.tls_cert_path, http.tls_key_path)
    given = config.access_key_id and not config.native_aws_auth_enabled
    return {
        "key": config.access_key_id if given else None,
        "secret": str(config.secret_access_key) if given else None,
        "token": str(config.session_token) or None if given else None,
        "endpoint_url": endpoint or None,
        "use_ssl": not config.insecure,
        "client_kwargs": client,
        "config_kwargs": client_config,
        "skip_instance_cache": True,
        "use_listings_cache": False,
    }
