"""A kernel's first call compiles it, so examples have no deadline here; and nothing here is about power failures,
while waiting for the disk once a file would be most of the time."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

settings.register_profile("kernels", deadline=None)
settings.load_profile("kernels")


@pytest.fixture(autouse=True)
def disk_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: None)
