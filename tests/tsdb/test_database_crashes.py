"""A process that dies between any two steps of a compaction neither loses nor doubles a sample."""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from mimir_ray.clock import ManualClock
from mimir_ray.model.labels import Labels
from mimir_ray.testing.writes import write_batch
from mimir_ray.tsdb import append_file
from mimir_ray.tsdb import database as database_module
from mimir_ray.tsdb.append_file import AppendFile, StorageFull
from mimir_ray.tsdb.block.writer import BlockWriter
from mimir_ray.tsdb.chunks.files import ChunkFiles
from mimir_ray.tsdb.database import Database
from mimir_ray.tsdb.head.head import Head
from mimir_ray.tsdb.head.settings import PushLimits
from mimir_ray.tsdb.local_blocks import LocalBlocks
from mimir_ray.tsdb.wal.writer import WalWriter

from .test_database_model import EVERYTHING, POOL, RANGE_MS, SETTINGS, Pair, content

STEPS: list[tuple[Any, str]] = [
    (AppendFile, "append"),
    (AppendFile, "sync"),
    (append_file.os, "replace"),
    (Path, "rename"),
    (Path, "replace"),
    (Path, "unlink"),
    (BlockWriter, "finish"),
    (LocalBlocks, "add"),
    (Head, "truncate"),
    (Head, "collect"),
    (database_module, "write_checkpoint"),
    (WalWriter, "rotate"),
    (WalWriter, "truncate_before"),
    (ChunkFiles, "drop_before"),
]


class Died(BaseException):
    """Nobody catches it: what follows did not happen."""


@contextmanager
def dying_at(step: int) -> Iterator[Callable[[], int]]:
    """Before the step of this number everything stops; the number of steps that there were."""
    done = 0
    dead = False
    with pytest.MonkeyPatch.context() as patch:

        def guarded(original: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any, **named: Any) -> Any:
                nonlocal done, dead
                if dead:
                    raise Died  # nothing of what cleans up after an error reaches the disk either
                done += 1
                if done > step:
                    dead = True
                    raise Died
                return original(*arguments, **named)

            return call

        for owner, name in STEPS:
            patch.setattr(owner, name, guarded(getattr(owner, name)))
        patch.setattr(shutil, "rmtree", guarded(shutil.rmtree))
        yield lambda: done


def history(pair: Pair) -> None:
    """Samples in order and late ones over two ranges, a checkpoint in between, a block already there."""
    at = 1000
    for turn in range(14):
        at += RANGE_MS // 5
        pair.push([(number, at + number, float(turn)) for number in range(4)])
        if turn in (5, 9):
            pair.push([(number, at - 650 - 10 * number, -float(turn)) for number in range(2)])
        if turn == 8:
            pair.database.checkpoint()
        if turn == 7:
            pair.compact(None)
    pair.push([(len(POOL) - 1, at - 200, 7.0)])


def test_a_death_at_any_step_of_a_compaction_neither_loses_nor_doubles_a_sample() -> None:
    with tempfile.TemporaryDirectory() as folder:
        before = Pair(Path(folder) / "before", 700)
        history(before)
        before.check()
        step, steps = 0, -1
        while steps < 0 or step < steps:
            pair = Pair(Path(folder) / f"{step}", 700, before)
            with dying_at(step) as count:
                try:
                    pair.database.compact_whole()
                except Died:
                    pass
                else:
                    steps = count()
            pair = Pair(Path(folder) / f"{step}-again", 700, pair)
            pair.check()
            pair.check(1500, 2600)
            pair.model.floor = max(pair.model.floor, pair.database.head.floor)
            # It goes on as if nothing had been: takes samples, compacts, starts again.
            assert pair.model.newest is not None
            pair.push([(number, pair.model.newest + 10 + number, 1.0) for number in range(4)])
            pair.compact(pair.model.newest + 1)
            pair.database.close()
            pair.database = pair.open()
            pair.check()
            assert pair.database.stats.head.series == 0
            pair.database.close()
            step += 1
        before.database.close()
    assert step > 50


FAILING: list[tuple[Any, str]] = [
    (AppendFile, "append"),
    (AppendFile, "sync"),
    (BlockWriter, "finish"),
    (LocalBlocks, "add"),
    (database_module, "write_checkpoint"),
    (WalWriter, "rotate"),
    (WalWriter, "truncate_before"),
    (ChunkFiles, "drop_before"),
]


def test_a_disk_that_fails_at_any_step_of_a_compaction_spoils_nothing_and_the_next_one_goes_on() -> None:
    with tempfile.TemporaryDirectory() as folder:
        before = Pair(Path(folder) / "before", 700)
        history(before)
        step, failed = 0, True
        while failed:
            pair = Pair(Path(folder) / f"{step}", 700, before)
            left = step
            failed = False

            def guarded(original: Callable[..., Any]) -> Callable[..., Any]:
                def call(*arguments: Any, **named: Any) -> Any:
                    nonlocal left, failed
                    left -= 1
                    if left == -1:
                        failed = True
                        raise StorageFull("write", "x", errno.ENOSPC, "full")
                    return original(*arguments, **named)

                return call

            with pytest.MonkeyPatch.context() as patch:
                for owner, name in FAILING:
                    patch.setattr(owner, name, guarded(getattr(owner, name)))
                with suppress(StorageFull):
                    pair.database.compact_whole()
            pair.check()
            pair.database.compact_whole()
            pair.check()
            assert pair.database.stats.head.series == 0
            pair = Pair(Path(folder) / f"{step}-again", 700, pair)
            pair.check()
            pair.database.close()
            step += 3  # each costs as much as a hundred other tests
        before.database.close()
    assert step > 60


def test_a_block_that_was_written_before_the_death_is_not_cut_again(tmp_path: Path) -> None:
    labels: Labels = POOL[0]
    database = Database(tmp_path, SETTINGS, ManualClock())
    for time in range(0, 4 * RANGE_MS, 100):
        database.push([write_batch(new=[(labels, [(time, 1.0)])])], 0, PushLimits())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Head, "truncate", lambda *_: (_ for _ in ()).throw(Died()))
        with pytest.raises(Died):
            database.compact()
    database.close()
    again = Database(tmp_path, SETTINGS, ManualClock())
    assert [meta.min_time for meta in again.blocks.metas] == [0]
    assert again.head.floor == RANGE_MS
    assert [meta.min_time for meta in again.compact()] == [RANGE_MS, 2 * RANGE_MS]
    assert len(content(again, EVERYTHING)[labels]) == 40
    again.close()
