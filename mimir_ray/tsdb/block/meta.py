"""`meta.json`: what a block holds and where it comes from.

Prometheus' fields (Upstream: tsdb/block.go BlockMeta) and the `thanos` section that Mimir and Thanos keep beside
them (Upstream: pkg/storage/tsdb/block/meta.go). Fields that are not known here survive reading and writing.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from ulid import ULID

from mimir_ray.tsdb.append_file import storage_error, sync_directory

from .errors import DamagedBlock

META_FILE = "meta.json"
META_VERSION = 1
OUT_OF_ORDER_HINT = "from-out-of-order"
COMPACTOR_SHARD_LABEL = "__compactor_shard_id__"
OUT_OF_ORDER_LABEL = "__out_of_order__"

_ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}\Z")
_STATS = ("numSamples", "numSeries", "numChunks", "numFloatSamples", "numHistogramSamples", "numTombstones")


def is_ulid(text: str) -> bool:
    """Whether the text is a ULID as folders are named: 26 characters of Crockford's base 32, upper case."""
    return _ULID.match(text) is not None


def make_ulid(now_ms: int, randomness: bytes) -> str:
    """The name of a block that is made at this time; `randomness`: 10 bytes."""
    assert len(randomness) == 10
    return str(ULID(now_ms.to_bytes(6, "big") + randomness))


@dataclass(slots=True)
class Stats:
    samples: int = 0
    series: int = 0
    chunks: int = 0
    float_samples: int = 0
    histogram_samples: int = 0
    tombstones: int = 0


@dataclass(slots=True)
class Compaction:
    """`level`: 1 for what a head was cut into. `sources`: ULIDs of those. `parents`: as in the file."""

    level: int = 1
    sources: list[str] = field(default_factory=list)
    parents: list[dict[str, Any]] = field(default_factory=list)
    deletable: bool = False
    failed: bool = False
    hints: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Thanos:
    """`files`: (path inside the block, bytes or None for meta.json itself). `resolution`: ms, 0 = not downsampled."""

    labels: dict[str, str] = field(default_factory=dict)
    source: str = ""
    segment_files: list[str] = field(default_factory=list)
    files: list[tuple[str, int | None]] = field(default_factory=list)
    resolution: int = 0
    version: int = 1
    other: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class BlockMeta:
    """Samples are in [min_time, max_time) (ms)."""

    ulid: str
    min_time: int
    max_time: int
    stats: Stats = field(default_factory=Stats)
    compaction: Compaction = field(default_factory=Compaction)
    thanos: Thanos | None = None
    other: dict[str, Any] = field(default_factory=dict)

    @property
    def out_of_order(self) -> bool:
        """Whether the samples came late."""
        return OUT_OF_ORDER_HINT in self.compaction.hints

    def to_json(self) -> bytes:
        """The file's content."""
        stats = (
            self.stats.samples, self.stats.series, self.stats.chunks,
            self.stats.float_samples, self.stats.histogram_samples, self.stats.tombstones,
        )  # fmt: skip
        compaction: dict[str, Any] = {"level": self.compaction.level}
        for name in ("sources", "parents", "deletable", "failed", "hints"):
            if value := getattr(self.compaction, name):
                compaction[name] = value
        body: dict[str, Any] = {
            "ulid": self.ulid,
            "minTime": self.min_time,
            "maxTime": self.max_time,
            "stats": {name: value for name, value in zip(_STATS, stats, strict=True) if value},
            "compaction": compaction,
            "version": META_VERSION,
        }
        if self.thanos is not None:
            body["thanos"] = {
                "version": self.thanos.version,
                "labels": self.thanos.labels,
                "downsample": {"resolution": self.thanos.resolution},
                "source": self.thanos.source,
                "segment_files": self.thanos.segment_files,
                "files": [
                    {"rel_path": path} if size is None else {"rel_path": path, "size_bytes": size}
                    for path, size in self.thanos.files
                ],
            } | self.thanos.other
        return orjson.dumps(body | self.other, option=orjson.OPT_INDENT_2)

    @classmethod
    def from_json(cls, data: bytes, path: str = META_FILE) -> BlockMeta:
        """Raises `DamagedBlock` for what is no meta.json of version 1 or contradicts itself."""
        try:
            body = orjson.loads(data)
            if not isinstance(body, dict):
                raise ValueError("no JSON object")
            if body.get("version") != META_VERSION:
                raise ValueError(f"unexpected version {body.get('version')}")
            meta = cls(_text(body, "ulid"), _number(body, "minTime"), _number(body, "maxTime"))
            stats = _section(body, "stats")
            meta.stats = Stats(*(_number(stats, name) for name in _STATS))
            compaction = _section(body, "compaction")
            meta.compaction = Compaction(
                _number(compaction, "level"),
                [str(one) for one in compaction.get("sources") or ()],
                list(compaction.get("parents") or ()),
                bool(compaction.get("deletable")),
                bool(compaction.get("failed")),
                [str(one) for one in compaction.get("hints") or ()],
            )
            if "thanos" in body:
                meta.thanos = _thanos(_section(body, "thanos"))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DamagedBlock(path, 0, f"no valid block description: {error}") from None
        known = ("ulid", "minTime", "maxTime", "stats", "compaction", "version", "thanos")
        meta.other = {name: value for name, value in body.items() if name not in known}
        if not is_ulid(meta.ulid):
            raise DamagedBlock(path, 0, f"no ULID: {meta.ulid!r}")
        if meta.min_time > meta.max_time:
            raise DamagedBlock(path, 0, f"minTime {meta.min_time} is after maxTime {meta.max_time}")
        return meta


def _section(body: dict[str, Any], name: str) -> dict[str, Any]:
    value = body.get(name) or {}
    if not isinstance(value, dict):
        raise ValueError(f"{name} is no object")
    return value


def _number(body: dict[str, Any], name: str) -> int:
    value = body.get(name, 0)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{name} is no integer")
    return value


def _text(body: dict[str, Any], name: str) -> str:
    value = body.get(name, "")
    if not isinstance(value, str):
        raise ValueError(f"{name} is no string")
    return value


def _thanos(body: dict[str, Any]) -> Thanos:
    labels = _section(body, "labels")
    known = ("version", "labels", "downsample", "source", "segment_files", "files")
    return Thanos(
        {str(name): _text(labels, name) for name in labels},
        _text(body, "source"),
        [str(one) for one in body.get("segment_files") or ()],
        [(_text(one, "rel_path"), one.get("size_bytes")) for one in body.get("files") or ()],
        _number(_section(body, "downsample"), "resolution"),
        _number(body, "version"),
        {name: value for name, value in body.items() if name not in known},
    )


def read_meta(directory: Path) -> BlockMeta:
    """Of the block in a folder. Raises `DamagedBlock`, or `StorageFailed` where there is no such file."""
    path = directory / META_FILE
    try:
        data = path.read_bytes()
    except OSError as error:
        raise storage_error("read", path, error) from error
    return BlockMeta.from_json(data, str(path))


def write_meta(directory: Path, meta: BlockMeta) -> None:
    """Replaces the folder's meta.json in one step, durably."""
    path = directory / META_FILE
    temporary = directory / (META_FILE + ".tmp")
    try:
        with temporary.open("wb") as file:
            file.write(meta.to_json())
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_directory(directory)
    except OSError as error:
        raise storage_error("write", path, error) from error
