"""What an ingester does when it stops, as it is told before, over restarts."""

from __future__ import annotations

from pathlib import Path

import pytest

from mimir_ray.clock import ManualClock
from mimir_ray.roles.ingester.shutdown import MARKER, ShutdownPlan

NOW = 1_700_000_000_000


def plan(folder: Path, unregister: bool = False, flush: bool = False) -> ShutdownPlan:
    return ShutdownPlan(folder, ManualClock(NOW), unregister, flush)


@pytest.mark.parametrize("unregister", [False, True])
@pytest.mark.parametrize("flush", [False, True])
def test_untold_it_does_what_is_configured(tmp_path: Path, unregister: bool, flush: bool) -> None:
    one = plan(tmp_path, unregister, flush)
    assert (one.prepared, one.unregister, one.flush) == (False, unregister, flush)


def test_prepared_it_unregisters_and_flushes_also_after_a_restart(tmp_path: Path) -> None:
    plan(tmp_path / "new").prepare()
    assert (tmp_path / "new" / MARKER).read_text() == "2023-11-14T22:13:20Z"
    again = plan(tmp_path / "new")
    assert (again.prepared, again.unregister, again.flush) == (True, True, True)


def test_cancelled_it_is_as_before(tmp_path: Path) -> None:
    one = plan(tmp_path)
    one.prepare()
    one.cancel()
    assert (one.prepared, one.unregister, one.flush) == (False, False, False)
    assert not plan(tmp_path).prepared
    one.cancel()


def test_what_was_done_is_not_done_again_after_the_next_start(tmp_path: Path) -> None:
    one = plan(tmp_path)
    one.prepare()
    one.finished()
    assert not plan(tmp_path).prepared


def test_unregister_alone_is_of_this_process_only(tmp_path: Path) -> None:
    one = plan(tmp_path)
    assert one.set_unregister(True)
    assert (one.unregister, one.flush, one.prepared) == (True, False, False)
    assert not plan(tmp_path).unregister
    assert not one.set_unregister(None)
    kept = plan(tmp_path, unregister=True)
    assert not kept.set_unregister(False)
    assert kept.set_unregister(None)
