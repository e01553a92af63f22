"""What an ingester that does not run has on its disk: whether queries would miss it. Reads folders, changes nothing."""

from __future__ import annotations

from pathlib import Path

import orjson

from mimir_ray.errors import Corruption
from mimir_ray.roles.ingester.ingester import CLOSED_SUFFIX
from mimir_ray.roles.ingester.shipper import SHIPPED_FILE
from mimir_ray.tsdb.block.meta import META_FILE, BlockMeta, is_ulid
from mimir_ray.tsdb.wal.checkpoint import checkpoint_numbers, checkpoint_part, checkpoint_path
from mimir_ray.tsdb.wal.format import segment_numbers, segment_path


def tenants_with_samples(directory: Path, store_after_ms: int, now_ms: int) -> list[str]:
    """Tenants that have samples here which no query finds in the bucket.

    Args:
        directory: an ingester's, one folder a tenant.
        store_after_ms: `querier.query_store_after`; the bucket is not asked for what is younger.

    Where it cannot be told, the answer is yes. Raises OSError where the disk cannot be read.
    """
    if not directory.is_dir():
        return []
    folders = sorted(one for one in directory.iterdir() if one.is_dir() and not one.name.endswith(CLOSED_SUFFIX))
    return [one.name for one in folders if _head_has_series(one) or _has_blocks(one, now_ms - store_after_ms)]


def _head_has_series(folder: Path) -> bool:
    wal, checkpoints = folder / "wal", folder / "checkpoints"
    if any(segment_path(wal, one).stat().st_size for one in segment_numbers(wal)):
        return True
    numbers = checkpoint_numbers(checkpoints)
    try:
        dropped = [checkpoint_part(checkpoint_path(checkpoints, one), "index.dropped") for one in numbers[-1:]]
        return not all(one.all() for one in dropped)
    except (Corruption, KeyError):
        return True


def _has_blocks(folder: Path, store_has_until_ms: int) -> bool:
    metas = [one / META_FILE for one in folder.iterdir() if is_ulid(one.name) and (one / META_FILE).exists()]
    try:
        shipped = orjson.loads((folder / SHIPPED_FILE).read_bytes())["shipped"] if metas else {}
        return any(
            one.parent.name not in shipped or BlockMeta.from_json(one.read_bytes()).max_time > store_has_until_ms
            for one in metas
        )
    except (FileNotFoundError, ValueError, KeyError, TypeError, Corruption):
        return True
