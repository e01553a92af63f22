"""`mimir-ray blocks COMMAND …`: looks after the blocks in the bucket of a configuration.

    mimir-ray blocks list     [--tenant=ID] [--json]
    mimir-ray blocks verify   [--tenant=ID] [--no-chunks] [ULID | FOLDER …]
    mimir-ray blocks download [--tenant=ID] --to=FOLDER ULID …
    mimir-ray blocks upload   DIR … --address=URL [--tenant=ID]
    mimir-ray blocks mark     [--tenant=ID] --deletion | --no-compact [--reason=R] [--details=TEXT] [--remove] ULID …

Which bucket that is say `-config.file`, `-data-dir` and all other flags of `mimir-ray serve`. `verify` without names
looks at all blocks of the tenant; a folder is a block, or holds blocks, on this machine. `download` and `upload` go on
where they stopped; `upload` sends blocks over HTTP (cli/blocks_upload.py) and needs no configuration.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from prometheus_client import CollectorRegistry

from mimir_ray.bucket import markers
from mimir_ray.bucket.layout import (
    CLUSTER_FOLDER,
    DELETION_MARK,
    META,
    NO_COMPACT_MARK,
    block_key,
    block_prefix,
    tenant_prefix,
)
from mimir_ray.bucket.open import open_bucket
from mimir_ray.bucket.store import Bucket, ObjectNotFound
from mimir_ray.clock import SystemClock
from mimir_ray.config import loader
from mimir_ray.config.units import Duration
from mimir_ray.deploy.settings import Settings
from mimir_ray.errors import InvalidArgument, MimirRayError
from mimir_ray.model.tenant import DEFAULT_TENANT, InvalidTenant, TenantId, validate_tenant
from mimir_ray.tsdb.block.errors import DamagedBlock
from mimir_ray.tsdb.block.meta import COMPACTOR_SHARD_LABEL, BlockMeta, is_ulid
from mimir_ray.tsdb.block.verify import verify_block

from . import blocks_upload
from .progress import Bar

READS_AT_ONCE = 16
UPLOAD_S = 24 * 3600
"""A block without meta.json to which nothing was written for so long is not being uploaded any more. Upstream: the
default of compactor_partial_block_deletion_delay."""
REASONS = (
    markers.NO_COMPACT_MANUAL,
    markers.NO_COMPACT_INDEX_SIZE,
    markers.NO_COMPACT_OUT_OF_ORDER_CHUNKS,
    markers.NO_COMPACT_CRITICAL,
)
_SWITCHES = {
    "list": {"json"},
    "verify": {"no-chunks"},
    "download": set(),
    "mark": {"deletion", "no-compact", "remove"},
}
_OPTIONS = {
    "list": {"tenant"},
    "verify": {"tenant"},
    "download": {"tenant", "to"},
    "mark": {"tenant", "reason", "details"},
}


@dataclass(frozen=True, slots=True)
class Given:
    """A command line, taken apart: `options` has switches as "true"; `settings` is for the loader."""

    command: str
    options: dict[str, str]
    names: list[str]
    settings: list[str]


def main(arguments: list[str]) -> int:
    """Exit status: 0 done, 1 a block is damaged or object storage failed, 2 arguments that cannot be understood."""
    if arguments and arguments[0] == "upload":
        return blocks_upload.main(arguments[1:])
    if not arguments or arguments[0] not in _SWITCHES:
        print(__doc__)
        return 0 if arguments and arguments[0] in ("-h", "-help", "--help", "help") else 2
    try:
        given = parse(arguments)
        settings = loader.load(Settings(), given.settings).settings
        bucket = open_bucket(settings.blocks_bucket, "blocks-cli", CollectorRegistry())
        tenant = _tenant(given, settings, bucket)
        run = {"list": _list, "verify": _verify, "download": _download, "mark": _mark}[given.command]
        return run(given, bucket, tenant)
    except (InvalidArgument, InvalidTenant) as error:
        print(f"mimir-ray blocks: {error}", file=sys.stderr)
        return 2
    except MimirRayError as error:
        print(f"mimir-ray blocks: {error}", file=sys.stderr)
        return 1


def _tenant(given: Given, settings: Settings, bucket: Bucket) -> TenantId:
    """Whose blocks are meant. Raises `InvalidArgument` where that has to be said, with those that there are."""
    if "tenant" in given.options:
        return validate_tenant(given.options["tenant"])
    if not settings.tenancy.multitenancy_enabled:
        return validate_tenant(settings.tenancy.no_auth_tenant)
    if given.command == "verify" and given.names and all(Path(name).is_dir() for name in given.names):
        return DEFAULT_TENANT  # folders belong to nobody
    there = ", ".join(name for name in bucket.list_folders() if name != CLUSTER_FOLDER) or "none yet"
    raise InvalidArgument(f"say whose blocks: --tenant=ID (in the bucket: {there})")


def parse(arguments: Sequence[str]) -> Given:
    """Our own options out of those that are settings. Raises `InvalidArgument`."""
    command, rest = arguments[0], list(arguments[1:])
    kinds: dict[str, Any] = {name: one.kind for name, one in loader.flags_of(Settings()).items()}
    kinds |= loader.CONTROL_FLAGS
    options: dict[str, str] = {}
    names: list[str] = []
    settings: list[str] = []
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            names.append(word)
            continue
        name, equals, value = word.lstrip("-").partition("=")
        if name in _SWITCHES[command] and not equals:
            options[name] = "true"
        elif name in _OPTIONS[command]:
            if not equals and not rest:
                raise InvalidArgument(f"--{name} needs a value")
            options[name] = value if equals else rest.pop(0)
        else:
            settings.append(word)
            if not equals and kinds.get(name, bool) is not bool and rest:
                settings.append(rest.pop(0))
    return Given(command, options, names, settings)


# list


def _list(given: Given, bucket: Bucket, tenant: TenantId) -> int:
    if given.names:
        raise InvalidArgument(f"unexpected argument {given.names[0]!r}")
    rows = list(_rows(bucket, tenant))
    if "json" in given.options:
        print(json.dumps(rows, indent=2))
        return 0
    table = [_HEAD, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in table) for column in range(len(_HEAD))]
    for line in table:
        cells = (
            f"{cell:>{width}}" if title in _NUMBERS else f"{cell:<{width}}"
            for cell, width, title in zip(line, widths, _HEAD, strict=True)
        )
        print("  ".join(cells).rstrip())
    size = sum(row.get("size_bytes") or 0 for row in rows)
    print(f"{len(rows)} block{'' if len(rows) == 1 else 's'} of {tenant}, {_size(size)}")
    return 0


_HEAD = ("BLOCK", "FROM", "TO", "DURATION", "SAMPLES", "SERIES", "LEVEL", "SHARD", "SOURCE", "SIZE", "MARKS")
_NUMBERS = ("SAMPLES", "SERIES", "LEVEL", "SIZE", "DURATION")


def _rows(bucket: Bucket, tenant: TenantId) -> Iterator[dict[str, Any]]:
    """One a block, by time; blocks without a readable meta.json have a "problem"."""
    ulids = [name for name in bucket.list_folders(tenant_prefix(tenant)) if is_ulid(name)]
    marks = markers.list_marks(bucket, tenant)

    def row(ulid: str) -> dict[str, Any]:
        own = [
            name for name, marked in (("deletion", marks.deletion), ("no-compact", marks.no_compact)) if ulid in marked
        ]
        try:
            meta = _meta(bucket, tenant, ulid)
        except ObjectNotFound:
            return {"ulid": ulid, "marks": own, "problem": "partial: no meta.json"}
        except DamagedBlock as error:
            return {"ulid": ulid, "marks": own, "problem": str(error)}
        return {"ulid": ulid, "marks": own, **_facts(meta)}

    with ThreadPoolExecutor(READS_AT_ONCE) as pool:
        rows = list(pool.map(row, ulids))
    yield from sorted(rows, key=lambda one: (one.get("min_time", 0), one["ulid"]))


def _facts(meta: BlockMeta) -> dict[str, Any]:
    thanos = meta.thanos
    sizes = [size for _, size in thanos.files if size is not None] if thanos else []
    return {
        "min_time": meta.min_time,
        "max_time": meta.max_time,
        "samples": meta.stats.samples,
        "series": meta.stats.series,
        "chunks": meta.stats.chunks,
        "level": meta.compaction.level,
        "shard": thanos.labels.get(COMPACTOR_SHARD_LABEL, "") if thanos else "",
        "source": thanos.source if thanos else "",
        "out_of_order": meta.out_of_order,
        "size_bytes": sum(sizes) if sizes else None,
    }


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    marks = ",".join(row["marks"])
    if "problem" in row:
        return (row["ulid"], *[""] * 9, ", ".join(filter(None, (marks, row["problem"]))))
    return (
        row["ulid"],
        _moment(row["min_time"]),
        _moment(row["max_time"]),
        str(Duration(row["max_time"] - row["min_time"])),
        f"{row['samples']:,}",
        f"{row['series']:,}",
        str(row["level"]),
        row["shard"],
        row["source"],
        "" if row["size_bytes"] is None else _size(row["size_bytes"]),
        marks,
    )


def _moment(time_ms: int) -> str:
    try:
        return datetime.fromtimestamp(time_ms / 1000, timezone.utc).strftime("%Y-%m-%d %H:%M:%SZ")
    except (OverflowError, ValueError, OSError):
        return str(time_ms)


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def _meta(bucket: Bucket, tenant: TenantId, ulid: str) -> BlockMeta:
    key = block_key(tenant, ulid, META)
    return BlockMeta.from_json(bucket.get(key), key)


# verify


def _verify(given: Given, bucket: Bucket, tenant: TenantId) -> int:
    names = given.names or [row["ulid"] for row in _rows(bucket, tenant)]
    chunks = "no-chunks" not in given.options
    found = [_verify_one(name, bucket, tenant, chunks) for one in names for name in _blocks_of(one)]
    damaged, partial = found.count("damaged"), found.count("partial")
    count = len(found) - partial
    print(
        f"{count} block{'' if count == 1 else 's'} verified, {damaged} damaged"
        + (f", {partial} without a meta.json left out" if partial else "")
    )
    return 1 if damaged else 0


def _blocks_of(name: str) -> list[str | Path]:
    """A ULID, the folder of one block, or those in a folder."""
    folder = Path(name)
    if folder.is_dir():
        inside = sorted(one for one in folder.iterdir() if is_ulid(one.name) and one.is_dir())
        return list(inside) if inside and not (folder / META).exists() else [folder]
    if not is_ulid(name):
        raise InvalidArgument(f"{name!r} is neither a block's ULID nor a folder")
    return [name]


def _verify_one(
    name: str | Path, bucket: Bucket, tenant: TenantId, chunks: bool
) -> Literal["ok", "damaged", "partial"]:
    """Whether it is whole, and says so. What has no meta.json (yet) is no block: readers and compactors leave it."""
    if isinstance(name, str) and (age_s := _partial_for(bucket, tenant, name)) is not None:
        what = "upload under way" if age_s < UPLOAD_S else "partial: an upload that was not finished"
        print(f"{name}: {what} (no meta.json, last written {Duration(int(age_s) * 1000)} ago)")
        return "partial"
    bar = Bar(f"{name if isinstance(name, str) else name.name} verifying")
    try:
        if isinstance(name, Path):
            verify_block(name, chunks=chunks, progress=bar)
        else:
            with tempfile.TemporaryDirectory(prefix="mimir-ray-verify-") as folder:
                fetch_block(bucket, tenant, name, Path(folder), Bar(f"{name} downloading"))
                verify_block(Path(folder) / name, chunks=chunks, progress=bar)
    except (DamagedBlock, ObjectNotFound) as error:
        bar.close()
        print(f"{name}: DAMAGED: {error}")
        return "damaged"
    bar.close()
    print(f"{name}: ok")
    return "ok"


def _partial_for(bucket: Bucket, tenant: TenantId, ulid: str) -> float | None:
    """How many seconds ago something was written to a block that has no meta.json; None for any other."""
    objects = list(bucket.list_objects(block_prefix(tenant, ulid)))
    if not objects or any(one.key.endswith(f"/{META}") for one in objects):
        return None
    return max(0.0, (SystemClock().now_ms() - max(one.modified_ms for one in objects)) / 1000)


# download


def _download(given: Given, bucket: Bucket, tenant: TenantId) -> int:
    if "to" not in given.options:
        raise InvalidArgument("--to=FOLDER is needed")
    target = Path(given.options["to"])
    for ulid in _ulids(given):
        bar = Bar(f"{ulid} downloading")
        try:
            count = fetch_block(bucket, tenant, ulid, target, bar)
        finally:
            bar.close()
        print(f"{target / ulid}: {_size(count)} fetched")
    return 0


def _ulids(given: Given) -> list[str]:
    if not given.names:
        raise InvalidArgument("which block? Its ULID is needed")
    for name in given.names:
        if not is_ulid(name):
            raise InvalidArgument(f"{name!r} is no block's ULID")
    return given.names


def fetch_block(bucket: Bucket, tenant: TenantId, ulid: str, target: Path, progress: Bar) -> int:
    """Brings all files of a block to `<target>/<ulid>`, meta.json last; returns how many bytes it had to fetch.

    Files that are there in the right size are not fetched again. Raises `ObjectNotFound` where the block is not
    complete.
    """
    prefix = block_prefix(tenant, ulid)
    objects = {one.key.removeprefix(prefix): one.size for one in bucket.list_objects(prefix)}
    if META not in objects:
        raise ObjectNotFound(prefix + META)
    marks = {DELETION_MARK, NO_COMPACT_MARK}
    files = sorted(objects.keys() - marks, key=lambda name: (name == META, name))
    total, done, fetched = sum(objects[name] for name in files), 0, 0
    for name in files:
        path = target / ulid / name
        progress(done, total)
        if name == META or not path.is_file() or path.stat().st_size != objects[name]:
            bucket.download(prefix + name, path)
            fetched += objects[name]
        done += objects[name]
    progress(done, total)
    progress.close()
    return fetched


# mark


def _mark(given: Given, bucket: Bucket, tenant: TenantId) -> int:
    options = given.options
    if ("deletion" in options) == ("no-compact" in options):
        raise InvalidArgument("one of --deletion and --no-compact is needed")
    mark, name = (DELETION_MARK, "deletion") if "deletion" in options else (NO_COMPACT_MARK, "no-compact")
    reason = options.get("reason", markers.NO_COMPACT_MANUAL)
    if "reason" in options and (mark == DELETION_MARK or reason not in REASONS):
        raise InvalidArgument(f"--reason goes with --no-compact and is one of {', '.join(REASONS)}")
    ulids = _ulids(given)
    if "remove" in options:
        for ulid in ulids:
            markers.remove_mark(bucket, tenant, ulid, mark)
            print(f"{ulid}: no {name} mark any more")
        return 0
    for ulid in ulids:
        if not bucket.exists(block_key(tenant, ulid, META)):
            raise ObjectNotFound(block_key(tenant, ulid, META))
    now = SystemClock().now_ms() // 1000
    for ulid in ulids:
        details = options.get("details", "")
        if mark == DELETION_MARK:
            markers.write_deletion_mark(bucket, tenant, markers.DeletionMark(ulid, now, details))
        else:
            markers.write_no_compact_mark(bucket, tenant, markers.NoCompactMark(ulid, now, reason, details))
        print(f"{ulid}: marked for {'deletion' if mark == DELETION_MARK else 'no compaction'}")
    return 0
