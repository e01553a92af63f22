"""From the folders of source blocks to the folders of what they become: the one place that opens and merges them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Protocol

from mimir_ray.tsdb.block.meta import BlockMeta
from mimir_ray.tsdb.block.reader import Block
from mimir_ray.tsdb.compact.merge import merge_blocks, split_blocks

SOURCE = "compactor"


class Merge(Protocol):
    """Merges blocks."""

    def __call__(
        self,
        sources: Sequence[Path],
        parent: Path,
        ulids: Sequence[str],
        labels: Sequence[dict[str, str]],
        check: Callable[[], None],
    ) -> list[BlockMeta | None]:
        """Writes `<parent>/<ulid>`: of one ULID with everything, of several the series' shards, in their order.

        Shards without a sample are None, and no block. `labels`: the external ones of each. `check` is called every
        some thousand series and may raise. Raises that, `DamagedBlock`, `UnsupportedChunks` and `StorageFailed`, and
        leaves nothing behind then.
        """


def merge_folders(
    sources: Sequence[Path],
    parent: Path,
    ulids: Sequence[str],
    labels: Sequence[dict[str, str]],
    check: Callable[[], None],
) -> list[BlockMeta | None]:
    """See `Merge`."""
    with ExitStack() as opened:
        blocks = [opened.enter_context(closing(Block(path))) for path in sources]
        mint = min(block.meta.min_time for block in blocks)
        maxt = max(block.meta.max_time for block in blocks)
        if len(ulids) == 1:
            return [merge_blocks(blocks, mint, maxt, parent, ulids[0], source=SOURCE, labels=labels[0], check=check)]
        return split_blocks(blocks, mint, maxt, parent, ulids, source=SOURCE, labels=labels, check=check)


Verify = Callable[[Path], None]
"""Looks whether the block in a folder may be compacted (tsdb/compact/health.py). Raises `DamagedBlock`."""
