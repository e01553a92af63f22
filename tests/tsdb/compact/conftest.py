"""Nothing here is about power failures, while waiting for the disk once a file would be most of the time."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def disk_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: None)
